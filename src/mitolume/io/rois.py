"""ImageJ ROIs: their files, their shapes as outlines, and label images as ROIs.

Shapes are those that ImageJ 1.54 fills (RoiDecoder, PolygonFiller and OvalRoi).
"""

from __future__ import annotations

import logging
import math
import re
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from roifile import ROI_OPTIONS, ROI_SUBTYPE, ROI_TYPE, ImagejRoi
from scipy.interpolate import CubicSpline

from mitolume.errors import MitolumeError, shorten
from mitolume.io.formats import quiet
from mitolume.io.outlines import Inside, Labels, Outline, Ring, trace, trace_labels
from mitolume.io.write import atomic

_MOST_CORNERS, _MOST_COORDINATE = 65_535, 60_000  # of an integer polygon in a .roi file
# With a number behind, as Fiji makes names unique; "2550" and "0255" are numbers of objects.
_UNSURE = re.compile(r"(unsure|ignore\*?)[-_ ]?\d*|255([-_ ]\d+)?", re.IGNORECASE)
_PLANE_IN_NAME = re.compile(r"(\d{4})-\d{4}-\d{4}|(\d{5})-\d{5}-\d{5}|(\d{6})-\d{6}-\d{6}")
_DAMAGED = (
    OSError, RuntimeError, ValueError, struct.error, zipfile.BadZipFile, zlib.error
)  # fmt: skip
_PATH_POINTS = {0: 1, 1: 1, 2: 2, 3: 3, 4: 0}  # move, line, quadratic, cubic curve, close
_CURVE_STEPS = np.linspace(0, 1, 33)[1:, np.newaxis]
_ELLIPSE_CORNERS = 72  # ImageJ's rotated ellipse
_NUMBER = "object"  # the property that holds an object's number


@dataclass(eq=False)
class StoredRoi(ImagejRoi):  # type: ignore[misc]  # mypy does not look into roifile
    """A ROI as it was read: ``entry`` is its name in the ROI set, ``stored`` its bytes there."""

    entry: str = ""
    stored: bytes = b""


def is_unsure(name: str) -> bool:
    """Tell whether an object of this name marks what nobody can tell."""
    return _UNSURE.fullmatch(name.strip()) is not None


def read_rois(path: str | Path) -> list[ImagejRoi]:
    """Read the ROIs of a ROI set (``.zip``), a ``.roi`` file, or a TIFF with an overlay.

    Parameters
    ----------
    path
        The file. Of a TIFF, its overlay; its selection where it has no overlay.

    Returns
    -------
    list of roifile.ImagejRoi
        In the order of the file; `write_rois` writes them back as they were. Empty for a TIFF
        that holds none.

    Raises
    ------
    MitolumeError
        The file can't be read, or is a ROI set without ROIs.
    """
    path = Path(path)
    if not path.is_file():
        raise MitolumeError(f"{path}: no such file")
    try:
        stored = _stored(path)
    except _DAMAGED as error:
        raise MitolumeError(
            f"{path} can't be read ({shorten(error)}); save the ROI set again in Fiji "
            "(ROI Manager: More >> Save)"
        ) from error
    if not stored and path.suffix.lower() == ".zip":
        raise MitolumeError(
            f"{path} holds no ImageJ ROI; save it from Fiji's ROI Manager, or unpack it if it is "
            "GeoJSON that QuPath compressed"
        )
    return [_decoded(entry, data, path) for entry, data in stored]


def has_overlay(path: Path) -> bool:
    """Tell whether a file is a TIFF with ImageJ outlines; a damaged one is left to its reader."""
    if not path.name.lower().endswith((".tif", ".tiff")):
        return False
    with quiet():
        try:
            return bool(_stored(path))
        except _DAMAGED:
            return False


def write_rois(path: str | Path, rois: Iterable[ImagejRoi]) -> None:
    """Write a ROI set, whole or not at all.

    Parameters
    ----------
    path
        Must end in ``.zip``.
    rois
        Those that `read_rois` read and nobody changed keep every byte and their name in the set.
        Others are named after themselves; names that repeat get a number, as in Fiji.
    """
    taken: Counter[str] = Counter()
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
        for roi in rois:
            # A slash in a name would make a folder, which Fiji does not look into.
            entry = _entry(roi) or re.sub(r"[/\\\0]", "_", _name(roi)) + ".roi"
            while taken[entry]:
                repeat, taken[entry] = taken[entry], taken[entry] + 1
                entry = f"{entry.removesuffix('.roi')}-{repeat}.roi"
            taken[entry] += 1
            # A fixed date: the same ROIs give the same file.
            info = zipfile.ZipInfo(entry)
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, _encoded(roi))


def outlines_of_rois(
    rois: Sequence[ImagejRoi], *, depth: int = 1
) -> tuple[list[Outline], list[str]]:
    """Turn ROIs into outlines.

    Parameters
    ----------
    rois
        As `read_rois` reads them.
    depth
        The z-planes of the image. Only a stack makes names like ``0005-0123-0456`` mean plane 5,
        where no ROI says its position otherwise: so does ImageJ.

    Returns
    -------
    outlines, notices
        In the same order; what was left out, since it has no area (lines, points, text).
    """
    outlines, left_out = [], Counter[str]()
    by_name = depth > 1 and not any(_position(roi) != (None, None) for roi in rois)
    for roi in rois:
        name = _name(roi)
        rings = _roi_rings(roi)
        if not rings:
            left_out[_kind(roi)] += 1
            continue
        if not all(np.isfinite(ring).all() for ring in rings):
            raise MitolumeError(
                f"ROI {name!r} has corners that are not finite numbers; draw it again"
            )
        z, t = (_plane_in(name, depth), None) if by_name else _position(roi)
        number = roi.properties.get(_NUMBER)
        is_ours = isinstance(number, int) and 0 < number < 2**31
        unsure = is_unsure(name)
        outlines.append(Outline(name, tuple(rings), z, t, unsure, number if is_ours else None))
    listing = ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))
    return outlines, [f"ROIs without an area are left out: {listing}"] if left_out else []


def labels_to_rois(labels: Labels, unsure: Inside | None = None) -> list[ImagejRoi]:
    """Outline the objects of a label image as ROIs that fill exactly the same pixels.

    Parameters
    ----------
    labels
        (Y, X) or (Z, Y, X), whole numbers, 0 is background.
    unsure
        The same shape, bool: what becomes a ROI named ``unsure`` on each plane.

    Returns
    -------
    list of roifile.ImagejRoi
        One for each object and plane. It is named by its number (``0012``, in a stack by plane
        and number: ``0003-0012``) and also holds the number as its property ``object``. A piece
        without holes is a traced ROI; anything else is a composite one.

    Examples
    --------
    >>> rois = labels_to_rois(np.array([[0, 7, 7], [0, 7, 0]]))
    >>> [(roi.name, roi.roitype.name, roi.left, roi.top) for roi in rois]
    [('0007', 'TRACED', 1, 0)]
    """
    stack = np.ndim(labels) == 3
    rois = []
    for z, number, polygons in trace_labels(labels):
        name = f"{z + 1:04}-{number:04}" if stack else f"{number:04}"
        roi = _roi(name, z + 1 if stack else 0, [ring for rings in polygons for ring in rings])
        roi.properties = {_NUMBER: number}
        rois.append(roi)
    for z, plane in enumerate([] if unsure is None else unsure if stack else unsure[np.newaxis]):
        rings = [ring for polygon in trace(plane) for ring in polygon]
        if rings:
            name = f"unsure-{z + 1}" if stack else "unsure"
            rois.append(_roi(name, z + 1 if stack else 0, rings))
    return rois


def _roi(name: str, position: int, rings: list[Ring]) -> ImagejRoi:
    corners = np.concatenate(rings).astype(np.int32)
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    roi = ImagejRoi(name=name, position=position, left=left, top=top, right=right, bottom=bottom)
    roi.options = ROI_OPTIONS.SCALE_STROKE_WIDTH
    if len(rings) == 1 and len(corners) <= _MOST_CORNERS and corners.max() <= _MOST_COORDINATE:
        roi.roitype = ROI_TYPE.TRACED
        roi.integer_coordinates = corners - np.array([left, top], np.int32)
        roi.n_coordinates = len(corners)
        return roi
    path: list[float] = []
    for ring in rings:
        steps = np.column_stack([np.ones(len(ring)), ring])  # 1: a line to
        steps[0, 0] = 0  # 0: move to
        path += [*steps.ravel().tolist(), 4]  # 4: close
    roi.roitype = ROI_TYPE.RECT  # what ImageJ calls a composite ROI in files
    roi.multi_coordinates = np.array(path, np.float32)
    roi.shape_roi_size = len(path)
    return roi


def _stored(path: Path) -> list[tuple[str, bytes]]:
    """Return the ROIs of a file as bytes, each with its name."""
    ending = path.suffix.lower()
    if ending == ".roi":
        return [(path.name, path.read_bytes())]
    if ending == ".zip":
        with zipfile.ZipFile(path) as file:
            names = [name for name in file.namelist() if _is_roi(name)]
            return [(name, file.read(name)) for name in names]
    import tifffile

    with tifffile.TiffFile(path) as tif:
        found = tif.imagej_metadata or {}
    data = found.get("Overlays") or found.get("ROI") or []
    return [("", roi) for roi in ([data] if isinstance(data, bytes) else data)]


def _is_roi(name: str) -> bool:
    """Tell ROIs from what macOS and others leave in archives."""
    return name.lower().endswith(".roi") and not Path(name).name.startswith("._")


def _decoded(entry: str, data: bytes, path: Path) -> StoredRoi:
    logger = logging.getLogger("roifile")
    level = logger.level
    logger.setLevel(logging.ERROR)  # what it warns of makes a ROI without an area: a notice
    try:
        roi = StoredRoi.frombytes(data)
    except (ValueError, TypeError, IndexError, struct.error, UnicodeDecodeError) as error:
        raise MitolumeError(
            f"{path}: ROI {entry.removesuffix('.roi') or '(unnamed)'} can't be read "
            f"({shorten(error)}); it may be damaged: save it again in Fiji"
        ) from error
    finally:
        logger.setLevel(level)
    assert isinstance(roi, StoredRoi)
    roi.entry, roi.stored = entry, data
    return roi


def _encoded(roi: ImagejRoi) -> bytes:
    if isinstance(roi, StoredRoi) and ImagejRoi.frombytes(roi.stored) == roi:
        return roi.stored
    return bytes(roi.tobytes())


def _entry(roi: ImagejRoi) -> str:
    return roi.entry if isinstance(roi, StoredRoi) else ""


def _name(roi: ImagejRoi) -> str:
    """Return a ROI's name, or the one that Fiji gives: the y and x of its middle."""
    middle = f"{(roi.top + roi.bottom) // 2:04}-{(roi.left + roi.right) // 2:04}"
    return str(roi.name) or Path(_entry(roi)).name.removesuffix(".roi") or middle


def _kind(roi: ImagejRoi) -> str:
    if roi.subtype in (ROI_SUBTYPE.TEXT, ROI_SUBTYPE.IMAGE, ROI_SUBTYPE.ARROW):
        return str(roi.subtype.name).lower()
    return str(roi.roitype.name).lower()


def _position(roi: ImagejRoi) -> tuple[int | None, int | None]:
    """Return plane and time point from 0, None for all; the channel says nothing of either."""
    if roi.c_position > 0 or roi.z_position > 0 or roi.t_position > 0:
        z, t = roi.z_position, roi.t_position
    else:
        z, t = roi.position, 0
    return z - 1 if z > 0 else None, t - 1 if t > 0 else None


def _plane_in(name: str, depth: int) -> int | None:
    found = _PLANE_IN_NAME.match(name)
    plane = int(next(filter(None, found.groups()))) if found else 0
    return plane - 1 if 0 < plane <= depth else None


def _roi_rings(roi: ImagejRoi) -> list[Ring]:
    """Return the rings of a ROI; none of what has no area: lines, points, angles, text, images."""
    if roi.subtype in (ROI_SUBTYPE.TEXT, ROI_SUBTYPE.IMAGE):
        return []
    if roi.multi_coordinates is not None:
        return _composite(roi)
    match roi.roitype, roi.subtype:
        case ROI_TYPE.RECT, _:
            return [_rectangle(roi)]
        case ROI_TYPE.OVAL, _:
            return [_oval(*_box(roi))]
        case ROI_TYPE.FREEHAND, ROI_SUBTYPE.ELLIPSE:
            return [_rotated_ellipse(roi)]
        case ROI_TYPE.FREEHAND, ROI_SUBTYPE.ROTATED_RECT:
            return [_rotated_rectangle(roi)]
        case ((ROI_TYPE.POLYGON | ROI_TYPE.FREEHAND | ROI_TYPE.TRACED), _):
            corners = np.asarray(roi.coordinates(), np.float64).reshape(-1, 2)
            if len(corners) < 3:
                return []
            return [_spline(corners) if roi.options & ROI_OPTIONS.SPLINE_FIT else corners]
    return []


def _box(roi: ImagejRoi) -> tuple[int, int, int, int]:
    """Return left, top, width and height in whole pixels: ImageJ has no finer boxes in masks."""
    if roi.subpixelrect:
        left, top, width, height = roi.xd, roi.yd, roi.widthd, roi.heightd
        if not all(map(math.isfinite, (left, top, width, height))):
            raise MitolumeError(f"ROI {roi.name!r} has a box that is not finite; draw it again")
        return int(left), int(top), max(math.ceil(width), 1), max(math.ceil(height), 1)
    return roi.left, roi.top, max(roi.right - roi.left, 1), max(roi.bottom - roi.top, 1)


def _rectangle(roi: ImagejRoi) -> Ring:
    left, top, width, height = _box(roi)
    # The corners' circles, squeezed where the rectangle is thinner than they are wide; of radius
    # 0 they are the corners.
    rx, ry = (min(max(roi.rounded_rect_arc_size, 0), size) / 2 for size in (width, height))
    quarter = np.linspace(0, np.pi / 2, 65)
    centres = [(width - rx, height - ry), (rx, height - ry), (rx, ry), (width - rx, ry)]
    arcs = [
        np.column_stack([np.cos(quarter + turn), np.sin(quarter + turn)]) * (rx, ry) + centre
        for turn, centre in zip(np.arange(4) * np.pi / 2, centres, strict=True)
    ]
    return np.asarray(np.concatenate(arcs) + np.array([left, top]))


def _oval(left: int, top: int, width: int, height: int) -> Ring:
    """Trace the pixels whose centre lies within or on the ellipse, as OvalRoi.getMask has them."""
    a, b = width / 2, height / 2
    y = np.arange(height) + 0.5 - b
    guess = np.floor(a - a * np.sqrt(1 - (y / b) ** 2))
    columns = guess[:, np.newaxis] + np.arange(-1, 3)  # one of them is the first pixel inside
    # The same expression as ImageJ's, so that ties fall the same way.
    inside = (columns - (a - 0.5)) ** 2 / (a * a) + (y * y / (b * b))[:, np.newaxis] <= 1
    first = np.where(inside.any(axis=1), columns[np.arange(height), inside.argmax(axis=1)], a)
    rows = np.repeat(np.arange(height + 1), 2)[1:-1]
    down = np.column_stack([np.repeat(first, 2), rows])
    up = np.column_stack([width - np.repeat(first, 2), rows])[::-1]
    return np.asarray(np.concatenate([down, up]) + np.array([left, top]))


def _parameter(roi: ImagejRoi) -> float:
    """Return the number that roifile reads as three others: aspect ratio, or width."""
    parts = roi.arrow_style_or_aspect_ratio, roi.arrow_head_size, roi.rounded_rect_arc_size
    return float(struct.unpack(">f", struct.pack(">BBh", *parts))[0])


def _rotated_ellipse(roi: ImagejRoi) -> Ring:
    major = np.array([roi.x2 - roi.x1, roi.y2 - roi.y1]) / 2
    minor = np.array([-major[1], major[0]]) * min(max(_parameter(roi), 0), 1)
    angle = np.arange(_ELLIPSE_CORNERS)[:, np.newaxis] * (2 * np.pi / _ELLIPSE_CORNERS)
    centre = np.array([roi.x1 + roi.x2, roi.y1 + roi.y2]) / 2
    return _rounded(centre + np.cos(angle) * major + np.sin(angle) * minor)


def _rotated_rectangle(roi: ImagejRoi) -> Ring:
    begin, end = np.array([roi.x1, roi.y1]), np.array([roi.x2, roi.y2])
    along = end - begin
    length = math.hypot(*along) or 1.0
    across = np.array([along[1], -along[0]]) / length * _parameter(roi) / 2
    return _rounded(np.array([begin + across, end + across, end - across, begin - across]))


def _rounded(corners: Ring) -> Ring:
    """Round corners as ImageJ does, which holds them in single precision."""
    return corners.astype(np.float32).astype(np.float64)


def _spline(corners: Ring) -> Ring:
    """Return the curve that ImageJ's "Fit Spline" puts through the corners."""
    closed = np.concatenate([corners, corners[:1]])
    steps = np.hypot(*np.diff(closed, axis=0).T)
    knots = np.concatenate([[0], np.cumsum(np.maximum(np.sqrt(steps), 0.001))])
    points = max(100, int(steps.sum() / 2))
    curve = CubicSpline(knots, closed, bc_type="periodic")
    return np.asarray(curve(np.linspace(0, knots[-1], points)))


def _composite(roi: ImagejRoi) -> list[Ring]:
    """Return the rings of a composite ROI: a java.awt path, its curves as short lines."""
    assert roi.multi_coordinates is not None
    path = roi.multi_coordinates.astype(np.float64).tolist()
    rings: list[list[tuple[float, float]]] = []
    at = 0
    while at < len(path):
        count = _PATH_POINTS.get(int(path[at]) if math.isfinite(path[at]) else -1)
        numbers = path[at + 1 : at + 1 + 2 * (count or 0)]
        if count is None or len(numbers) < 2 * count or (path[at] and not rings):
            raise MitolumeError(
                f"ROI {roi.name!r} holds a path that ImageJ does not write; draw it again"
            )
        points = list(zip(numbers[0::2], numbers[1::2], strict=True))
        if path[at] == 0:
            rings.append(points)
        elif count:
            rings[-1] += _curve([rings[-1][-1], *points])
        at += 1 + 2 * count
    return [np.array(ring) for ring in rings if len(ring) > 2]


def _curve(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Follow a line or a Bezier curve from the first of two to four points."""
    if len(points) == 2:
        return points[1:]
    degree, s = len(points) - 1, _CURVE_STEPS
    curve = sum(
        math.comb(degree, i) * s**i * (1 - s) ** (degree - i) * np.array(point)
        for i, point in enumerate(points)
    )
    return [(float(x), float(y)) for x, y in np.asarray(curve)]
