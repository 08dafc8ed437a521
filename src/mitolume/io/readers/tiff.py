"""TIFF, OME-TIFF and ImageJ's TIFF. Knows no other format.

By tifffile: bioio's plugins for TIFF take 3 s for one plane in a stack of 3,000.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mitolume.errors import MitolumeError
from mitolume.io.readers import MICROMETRES, Opened, Stated, chunked, light

_LARGE = 2**26  # pixels of a plane, above which it is read in parts
_SIDE = 1024  # of such a part, in pixels


def open_file(path: Path) -> Opened:
    """List the series of a TIFF; reads no pixels."""
    import tifffile

    with path.open("rb") as file:
        start = file.read(24)
    if start[:2] not in (b"II", b"MM"):
        text = "".join(filter(str.isprintable, start.decode("ascii", "ignore"))) or start.hex(" ")
        raise MitolumeError(
            f"{path} is not a TIFF: it begins with {text!r}; download or export it again"
        )
    with tifffile.TiffFile(path, is_mmstack=False) as tif:
        # Walks the page chain, so that a cut file complains here, not never.
        series = list(tif.series)
        names = [
            s.name if s.kind == "ome" and s.name else f"Image:{i}" for i, s in enumerate(series)
        ]
    return Opened(names, lambda scene: _array(path, scene))


def stated(path: Path, scene: int) -> Stated:
    """Read OME metadata, else ImageJ's unit, else the resolution tags and their unit."""
    import tifffile

    with tifffile.TiffFile(path) as tif:
        if tif.is_ome and tif.ome_metadata:
            return _ome(tif.ome_metadata, scene)
        series = tif.series[scene]
        axes, guessed = _axes_of(series)
        page = series.keyframe
        imagej = tif.imagej_metadata or {}
        resolution = {
            axis: value[0] / value[1]
            for axis, tag in (("Y", "YResolution"), ("X", "XResolution"))
            if (value := page.tags.valueof(tag)) and value[0] and value[1]
        }
        unit = page.tags.valueof("ResolutionUnit") or 0
        sizes = dict(zip(axes, series.shape, strict=True))
    pixels = {axis: 1 / per_unit for axis, per_unit in resolution.items()}
    if not imagej:
        scale = {2: 25_400.0, 3: 10_000.0}.get(int(unit))
        size = {} if scale is None else {axis: n * scale for axis, n in pixels.items()}
        return Stated(size_um=size, guessed=guessed)
    spacing = imagej.get("spacing")
    if isinstance(spacing, int | float) and spacing:
        pixels["Z"] = float(spacing)
    elif sizes.get("Z", 1) > 1 and not {"T", "C"} & sizes.keys():
        guessed = "Z"  # ImageJ calls the planes of any stack slices
    scale = MICROMETRES.get(str(imagej.get("unit", "")).lower())
    named = _imagej_channels(imagej.get("Labels"), sizes.get("C", 1), sizes.get("Z", 1))
    size = {} if scale is None else {axis: n * scale for axis, n in pixels.items()}
    return Stated(size_um=size, channels=named, guessed=guessed)


def _axes_of(series: Any) -> tuple[str, str]:
    """Name the axes of a series, unknown ones z, then c, then t; return which were guessed, too."""
    unknown = [i for i, axis in enumerate(series.axes) if axis in "QI"]
    free = [axis for axis in "ZCT" if axis not in series.axes]
    names = dict(zip(reversed(unknown), free, strict=False))
    axes = "".join(names.get(i, axis) for i, axis in enumerate(series.axes))
    return axes, "".join(names[i] for i in unknown if i in names and series.shape[i] > 1)


def _array(path: Path, scene: int) -> xr.DataArray:
    """Return a series of a TIFF at its full size, one chunk a page, or less where it is large.

    Chunks of a large page are whole tiles or strips and about 1024 pixels a side; a page that was
    compressed in one piece stays in one chunk.
    """
    import tifffile

    with tifffile.TiffFile(path, is_mmstack=False) as tif:
        series = tif.series[scene]
        # tifffile drops axes of length 1; an image of one row must keep it.
        squeeze = {"Y", "X"} <= set(series.axes)
        shape, dtype = series.get_shape(squeeze), series.dtype
        axes = _axes_of(series)[0] if squeeze else series.get_axes(squeeze)
    sizes = dict(zip(axes, shape, strict=True))
    large = sizes["Y"] * sizes["X"] > _LARGE
    with _opened(path, scene, sizes, squeeze, by_page=not large) as (_, pieces):
        stored = dict(zip(sizes, pieces, strict=True))
    if large:
        stored |= {axis: stored[axis] * max(1, _SIDE // stored[axis]) for axis in "YX"}

    def load(box: dict[str, slice]) -> Any:
        with _opened(path, scene, sizes, squeeze, by_page=not large) as (pixels, _):
            return np.array(pixels[tuple(box.values())])

    return chunked(load, sizes, stored, dtype)


@contextmanager
def _opened(
    path: Path, scene: int, sizes: dict[str, int], squeeze: bool, *, by_page: bool
) -> Iterator[tuple[Any, tuple[int, ...]]]:
    """Open what slices like the series, and say in which pieces it is stored."""
    import tifffile
    import zarr

    with tifffile.TiffFile(path, is_mmstack=False) as tif:
        found = tif.series[scene]
        if not by_page and found.dataoffset is not None and found.keyframe.is_memmappable:
            dtype = found.dtype.newbyteorder(tif.byteorder)  # Fiji writes big-endian
            pieces = tuple(size if axis == "S" else 1 for axis, size in sizes.items())
            yield np.memmap(path, dtype, "r", found.dataoffset, tuple(sizes.values())), pieces
            return
        options: dict[str, Any] = {"level": 0, "squeeze": squeeze}
        if by_page:
            options["chunkmode"] = "page"
        with found.aszarr(**options) as store:
            array = zarr.open_array(store, mode="r")
            yield array, array.chunks


def _imagej_channels(labels: Any, channels: int, planes: int) -> tuple[str, ...]:
    """Return slice labels that name channels: planes go c fastest, and all of one c agree."""
    if not isinstance(labels, list) or channels < 2 or len(labels) < channels:
        return ()
    named = tuple(str(label).strip() for label in labels[:channels])
    repeated = all(str(label).strip() == named[i % channels] for i, label in enumerate(labels))
    single = len(labels) == channels and planes == 1
    return named if len(set(named)) == channels and all(named) and (repeated or single) else ()


def _ome(xml: str, scene: int) -> Stated:
    from ome_types import from_xml

    pixels = from_xml(xml).images[scene].pixels
    size = {}
    for axis in "ZYX":
        value = getattr(pixels, f"physical_size_{axis.lower()}")
        unit = getattr(pixels, f"physical_size_{axis.lower()}_unit").value
        # OME's default unit is µm; "pixel" and "reference frame" are not lengths.
        if value is not None and unit.lower() in MICROMETRES:
            size[axis] = float(value) * MICROMETRES[unit.lower()]
    lights = [
        light([c.illumination_type, c.contrast_method, c.fluor], c.emission_wavelength)
        for c in pixels.channels
    ]
    return Stated(
        size_um=size,
        channels=tuple(c.name or "" for c in pixels.channels),
        light=tuple(lights),
    )
