"""ROI files as ImageJ writes them, made from the layout alone, and images to draw on."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import roifile
import xarray as xr

from mitolume.io.outlines import draw
from mitolume.io.read import read
from mitolume.io.rois import outlines_of_rois
from mitolume.io.write import write_image

POLYGON, RECT, OVAL, LINE, FREEHAND, TRACED, POINT = 0, 1, 2, 3, 7, 8, 10
SUBPIXEL, SPLINE = 128, 1


def roi_file(
    kind: int,
    box: tuple[int, int, int, int],
    corners: Sequence[tuple[int, int]] = (),
    *,
    floats: Sequence[tuple[float, float]] = (),
    path: Sequence[float] = (),
    name: str = "",
    position: int = 0,
    czt: tuple[int, int, int] = (0, 0, 0),
    subtype: int = 0,
    options: int = 0,
    four: tuple[float, float, float, float] = (0, 0, 0, 0),
    parameter: bytes = b"\0\0\0\0",
    props: str = "",
    group: int = 0,
    colours: bytes = bytes(8),
    counters: Sequence[int] = (),
    text: bytes = b"",
) -> bytes:
    """Write a ROI as ImageJ's RoiEncoder does, from its layout alone; box is left to bottom."""
    left, top, right, bottom = box
    data = text
    for points, code in ((corners, "h"), (floats, "f")):
        for axis in (0, 1):
            data += struct.pack(f">{len(points)}{code}", *(p[axis] for p in points))
    data += struct.pack(f">{len(path)}f", *path)
    head = b"Iout" + struct.pack(">hBB4hH", 228, kind, 0, top, left, bottom, right, len(corners))
    head += struct.pack(">4f", *four) + struct.pack(">hi", 0, len(path)) + colours
    head += struct.pack(">hh", subtype, options) + parameter
    second = 64 + len(data)
    head += struct.pack(">ii", position, second)
    end = second + 64
    at_props = end + 2 * len(name)
    at_counters = at_props + 2 * len(props)
    head2 = struct.pack(">i3i", 0, *czt)
    head2 += struct.pack(">ii", end if name else 0, len(name)) + bytes(4)
    head2 += struct.pack(">hBBif", 0, group, 0, 0, 0.0)
    head2 += struct.pack(">ii", at_props if props else 0, len(props))
    head2 += struct.pack(">i", at_counters if counters else 0) + bytes(12)
    tail = name.encode("utf-16be") + props.encode("utf-16be")
    return head + data + head2 + tail + struct.pack(f">{len(counters)}I", *counters)


SQUARE_WITH_HOLE = [
    0, 2, 2, 1, 10, 2, 1, 10, 10, 1, 2, 10, 4,
    0, 4, 4, 1, 4, 6, 1, 6, 6, 1, 6, 4, 4,
]  # fmt: skip

ELSEWHERE = {
    "0005-0004.roi": roi_file(
        POLYGON, (1, 2, 9, 8), [(0, 0), (8, 1), (4, 6)], name="0005-0004",
        colours=b"\xff\xff\0\0" * 2,
    ),
    "brush.roi": roi_file(RECT, (2, 2, 10, 10), path=SQUARE_WITH_HOLE, name="brush", group=3),
    "rectangle.roi": roi_file(RECT, (3, 1, 7, 9), name="rectangle", position=1, props="who: Ada\n"),
    "oval.roi": roi_file(OVAL, (2, 3, 9, 12), name="oval", czt=(2, 1, 1)),
    "freehand µ.roi": roi_file(
        FREEHAND, (1, 1, 6, 7), [(0, 0), (5, 1), (3, 6)], name="freehand µ",
        floats=[(1.25, 1.5), (6.5, 2.25), (4.75, 7.5)], options=SUBPIXEL,
    ),
    "traced.roi": roi_file(TRACED, (2, 2, 5, 5), [(0, 0), (3, 0), (3, 3), (0, 3)], name="traced"),
    "ellipse.roi": roi_file(
        FREEHAND, (2, 4, 18, 12), [(0, 4), (8, 0), (16, 4)], name="ellipse", subtype=3,
        four=(2, 8, 18, 8), parameter=struct.pack(">f", 0.5),
    ),
    "line.roi": roi_file(LINE, (0, 0, 9, 9), four=(0.5, 0.5, 9, 9), name="line"),
    "points.roi": roi_file(
        POINT, (1, 1, 4, 4), [(0, 0), (3, 3)], name="points", counters=[1, 2 | 5 << 8]
    ),
    "text.roi": roi_file(
        RECT, (1, 1, 40, 20), name="text", subtype=1,
        text=struct.pack(">4i", 12, 1024, 2, 2) + "AbHi".encode("utf-16be") + bytes(4),
    ),
    "nameless.roi": roi_file(RECT, (5, 5, 6, 6)),
}  # fmt: skip


def roi_set(path: Path, rois: dict[str, bytes] | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in (ELSEWHERE if rois is None else rois).items():
            file.writestr(name, data)
    return path


def one(data: bytes, shape: tuple[int, int] = (20, 20)) -> np.ndarray:
    """Fill one ROI."""
    (outline,), _ = outlines_of_rois([roifile.ImagejRoi.frombytes(data)])
    return draw([(1, outline)], shape) > 0


def image(
    path: Path, shape: tuple[int, ...] = (1, 20, 20), value: np.ndarray | None = None
) -> xr.DataArray:
    pixels = np.random.default_rng(0).integers(0, 200, shape).astype(np.uint8)
    write_image(path, xr.DataArray(pixels if value is None else value, dims=("Z", "Y", "X")))
    return read(path)
