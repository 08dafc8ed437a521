"""TIFF, OME-TIFF and ImageJ's TIFF. Knows no other format.

By tifffile: bioio's plugins for TIFF take 3 s for one plane in a stack of 3,000.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mitolume.errors import MitolumeError, some_names
from mitolume.io.readers import (
    CREDIBLE_UM,
    Opened,
    Stated,
    chunked,
    lengths,
    micrometres,
    ome,
    require_planes,
)

_LARGE = 2**26  # pixels of a plane, above which it is read in parts
_SIDE = 1024  # of such a part, in pixels
_PACKED = 1e5  # times, by which no image is compressed
_JPEG = (7, 33007)  # whose decoder fills what is missing with grey


def open_file(path: Path) -> Opened:
    """List the series of a TIFF; reads no pixels."""
    with _tiff(path) as tif:
        # Walks the page chain, so that a cut file complains here, not never.
        series = list(tif.series)
        names = [
            s.name if s.kind == "ome" and s.name else f"Image:{i}" for i, s in enumerate(series)
        ]
        for one in series:
            _require_whole(path, tif, one)
        if series and series[0].kind != "ome" and (lost := ome.files_of(tif.ome_metadata or "")):
            raise MitolumeError(
                f"{path}: its metadata place its planes in {some_names(lost)}, of which none is "
                "here: was it renamed? Give it its name again, or save it anew in Fiji"
            )
        if series and series[0].kind == "ome":
            _require_named(path, tif, series)
        if tif.is_imagej:
            found = sum(one.size // one.keyframe.size for one in series)
            _require_slices(path, tif.imagej_metadata, max(found, len(tif.pages)))
        # The other images of a set may each have a file of its own.
        pages = (p for one in series for p in (one if one.is_multifile else [one.keyframe]) if p)
        files = dict.fromkeys(path.with_name(page.parent.filehandle.name) for page in pages)
    return Opened(names, lambda scene: _array(path, scene), tuple(files) * (len(files) > 1))


@contextmanager
def _tiff(path: Path) -> Iterator[Any]:
    """Open a TIFF, with the metadata that a companion file holds for it."""
    import tifffile

    with tifffile.TiffFile(path, is_mmstack=False) as tif:
        # Counted first: a chain of pages that leads back would be followed for ever.
        xml = (tif.ome_metadata or "") if len(tif.pages) else ""
        companion = path.parent / Path(ome.companion_of(xml)).name
        if not companion.is_file():
            yield tif
            return
    if companion.suffix.lower() in (".tif", ".tiff"):
        with tifffile.TiffFile(companion, is_mmstack=False) as tif:
            xml = tif.ome_metadata or ""
    else:
        xml = ome.read_companion(companion, path)
    with tifffile.TiffFile(path, is_mmstack=False, omexml=xml) as tif:
        yield tif


def _require_whole(path: Path, tif: Any, series: Any) -> None:
    """Refuse a series that claims more than its file holds: tifffile reads zeros, or less."""
    page, size = series.keyframe, tif.filehandle.size
    if not series.size:  # before its strips are listed
        raise MitolumeError(f"{path} can't be read (it holds no pixels); copy it again")
    is_plain = page.compression == 1 and series.kind != "ome" and series.dataoffset is not None
    short = series.dataoffset + series.nbytes > size if is_plain else page.nbytes > _PACKED * size
    if short or len(page.dataoffsets) < math.prod(page.chunked):
        raise MitolumeError(
            f"{path} can't be read (it is truncated: its pixels take {series.nbytes:.3g} bytes, "
            f"but it has {size}); copy it again"
        )


def _require_slices(path: Path, said: dict[str, Any], found: int) -> None:
    """Refuse an ImageJ file whose slices are not as many as it says."""
    names = {"T": "frames", "Z": "slices", "C": "channels"}
    sizes = {axis: int(said.get(name) or 1) for axis, name in names.items()}
    named = math.prod(sizes.values())
    if named in (1, found) or named == found * sizes["C"]:  # colours may count as channels
        return
    require_planes(path, sizes, (number < found for number in range(named)))
    raise _beyond(path, named, found)


def _require_named(path: Path, tif: Any, series: list[Any]) -> None:
    """Refuse an OME-TIFF with planes that its metadata leave out; a thumbnail is none."""
    named, found = sum(map(len, series)), len(tif.pages)
    alike = [tif.pages[i].aspage().shape == series[0].keyframe.shape for i in range(named, found)]
    if any(alike):
        raise _beyond(path, named, named + sum(alike))


def _beyond(path: Path, named: int, found: int) -> MitolumeError:
    return MitolumeError(
        f"{path}: its metadata name {named} planes, but it has {found}; say in Fiji what they are "
        "(Image > Hyperstacks > Stack to Hyperstack) and save it again"
    )


def stated(path: Path, scene: int) -> Stated:
    """Read OME metadata, else ImageJ's unit, else the resolution tags and their unit."""
    with _tiff(path) as tif:
        series = tif.series[scene]
        sizes, guessed = _sizes(series)
        inverted = series.keyframe.photometric == 0
        if tif.is_ome and tif.ome_metadata:
            return replace(_ome(tif, scene, sizes), guessed=guessed, inverted=inverted)
        page = series.keyframe
        imagej = tif.imagej_metadata or {}
        pixels = {
            axis: value[1] / value[0]
            for axis, tag in (("Y", "YResolution"), ("X", "XResolution"))
            if (value := page.tags.valueof(tag)) and value[0] and value[1]
        }
        tag_unit = {2: "inch", 3: "cm"}.get(int(page.tags.valueof("ResolutionUnit") or 0))
    said: dict[str, tuple[Any, Any]]
    if not imagej:
        said = {axis: (size, tag_unit) for axis, size in pixels.items() if tag_unit}
        return Stated(*lengths(said), guessed=guessed, inverted=inverted)
    unit = imagej.get("unit")
    said = {axis: (size, unit) for axis, size in pixels.items()}
    if "Y" in said:
        said["Y"] = pixels["Y"], imagej.get("yunit", unit)
    for axis, (size, own) in said.items():
        # Dots per cm beside micrometres: less than an atom is meant otherwise. So does ImageJ take
        # it (FileOpener.decodeDescriptionString).
        if tag_unit and micrometres(own) == 1 and size < CREDIBLE_UM[0]:
            said[axis] = size, tag_unit
    if imagej.get("spacing"):
        said["Z"] = imagej["spacing"], imagej.get("zunit", unit)
    elif sizes.get("Z", 1) > 1 and sizes.get("T", 1) == sizes.get("C", 1) == 1:
        guessed = "Z"  # ImageJ calls the planes of any stack slices
    named = _imagej_channels(imagej.get("Labels"), sizes.get("C", 1), sizes.get("Z", 1))
    return Stated(*lengths(said), channels=named, guessed=guessed, inverted=inverted)


def _ome(tif: Any, scene: int, sizes: dict[str, int]) -> Stated:
    """Find what OME's metadata state of a series: images without pixels are no series."""
    if companion := ome.companion_of(tif.ome_metadata):
        return Stated(fault=f"they are in {companion}, which is not beside it")
    images, series, own = ome.stated_images(tif.ome_metadata), list(tif.series), tif.series[scene]

    def fits(name: str, size: dict[str, int]) -> bool:
        named = own.kind != "ome" or name == own.name
        return named and all(size[axis] == sizes.get(axis, 1) for axis in "YX")

    fitting = [said for name, size, said in images if fits(name, size)]
    if len(images) == len(series) and fits(*images[scene][:2]):
        return images[scene][2]
    if fitting and all(one == fitting[0] for one in fitting):
        return fitting[0]
    return Stated(fault="none or several of its OME images fit the pixels")


def _sizes(series: Any) -> tuple[dict[str, int], str]:
    """Return the length of each axis of a series, and which axes had to be guessed.

    The one place that reads axes and shape: both with axes of length 1, which tifffile drops or
    keeps. Unknown axes are taken for z, then c, then t; those of length 1 get names of no meaning.
    """
    found = list(zip(series.get_axes(squeeze=False), series.get_shape(squeeze=False), strict=True))
    free = [axis for axis in "ZCT" if all(axis != a or n == 1 for a, n in found)]
    sizes, guessed = {}, ""
    for number, (axis, n) in reversed(list(enumerate(found))):
        if axis in "QI" and n > 1 and free:
            axis = free.pop(0)
            guessed = axis + guessed
        elif axis not in "YX" and (n == 1 or axis in sizes):
            axis = chr(97 + number)
        sizes[axis] = n
    return dict(reversed(sizes.items())), guessed


def _array(path: Path, scene: int) -> xr.DataArray:
    """Return a series of a TIFF at its full size, one chunk a page, or less where it is large.

    Chunks of a large page are whole tiles or strips and about 1024 pixels a side; a page that was
    compressed in one piece stays in one chunk.
    """
    state = _state(path)
    with _tiff(path) as tif:
        series = tif.series[scene]
        sizes, dtype = _sizes(series)[0], series.dtype
        # Samples of grey or of inks are not red, green and blue; the last is transparency only if
        # it says so.
        colours = series.keyframe.photometric in (2, 6)
        are_channels = not colours and "S" in sizes and not {1, 2} & {*series.keyframe.extrasamples}
        may_lack = series.kind in ("ome", "ndtiff")  # for others it would take time
        is_there = [page is not None for page in series] if may_lack else []
        if not all(is_there):
            named = ome.files_of(tif.ome_metadata or "")
            others = [n for n in named if not path.with_name(n).exists()]
            beside = "it is one of several files of an image; put the others beside it, under the "
            beside += f"names that they had: {some_names(others)}"
            require_planes(path, sizes, is_there, beside if others else "")
        large = sizes["Y"] * sizes["X"] > _LARGE
        mapped: Any = None
        if series.dataoffset is not None and series.keyframe.is_memmappable:
            # Opened again for each plane without a look at the tags, and big-endian by Fiji.
            stored = dtype.newbyteorder(tif.byteorder)
            mapped = (path, stored, "r", series.dataoffset, tuple(sizes.values()))
            whole = "S" if large else "YXS"
            pieces = {axis: size if axis in whole else 1 for axis, size in sizes.items()}
        else:
            with _decoded(series, by_page=not large) as pixels:
                pieces = dict(zip(sizes, pixels.chunks, strict=True))
    if large:
        pieces |= {axis: pieces[axis] * max(1, _SIDE // pieces[axis]) for axis in "YX"}

    def load(box: dict[str, slice]) -> Any:
        is_changed = _state(path) != state
        if mapped and not is_changed:
            return np.array(np.memmap(*mapped)[tuple(box.values())])
        with _tiff(path) as tif:
            series, place = tif.series[scene], box
            if is_changed:
                now = _sizes(series)[0]
                if (_long(now), series.dtype) != (_long(sizes), dtype):
                    raise MitolumeError(f"{path} has changed since it was opened; open it again")
                _require_whole(path, tif, series)
                place = {axis: box.get(axis, slice(1)) for axis in now}
            page = _page_at(series, {a: (box[a].start, size) for a, size in sizes.items()})
            if page is not None:
                _require_pixels(path, page)
                if page.parent is tif and not large and not is_changed:
                    return page.asarray()  # a chunk is a page
            with _decoded(series, by_page=not large) as pixels:
                return np.array(pixels[tuple(place.values())])

    array = chunked(load, sizes, pieces, dtype)
    return array.rename(S="C") if are_channels and "C" not in sizes else array


def _long(sizes: dict[str, int]) -> list[tuple[str, int]]:
    return [(axis, n) for axis, n in sizes.items() if n > 1]


def _state(path: Path) -> tuple[int, ...]:
    """Return what changes with a file's content, unless somebody hides it."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _page_at(series: Any, at: dict[str, tuple[int, int]]) -> Any:
    """Return the page of a place, (number, length) along each axis; None where there is no such."""
    place, shape = zip((0, 1), *(at[a] for a in at if a not in "YXS"), strict=True)
    if len(series) != math.prod(shape):
        return None
    return series[int(np.ravel_multi_index(place, shape))]


def _require_pixels(path: Path, page: Any) -> None:
    """Refuse a page without pixels, or whose JPEG was cut: decoders fill in zeros and grey."""
    file, is_cut = page.parent.filehandle, not any(page.databytecounts)
    if page.compression in _JPEG:
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            file.seek(max(offset + count - 8, 0))  # some end in zeros
            is_cut |= count > 0 and not file.read(8).rstrip(b"\0").endswith(b"\xff\xd9")
    if is_cut:
        raise MitolumeError(f"{path} is truncated: pixels of a plane are missing; copy it again")


@contextmanager
def _decoded(series: Any, *, by_page: bool) -> Iterator[Any]:
    """Give what slices like a series, in the pieces in which it is stored."""
    import zarr  # takes longer to import than a small image to read

    options = {"chunkmode": "page"} if by_page else {}
    with series.aszarr(level=0, squeeze=False, **options) as store:
        yield zarr.open_array(store, mode="r")


def _imagej_channels(labels: Any, channels: int, planes: int) -> tuple[str, ...]:
    """Return slice labels that name channels: planes go c fastest, and all of one c agree."""
    if not isinstance(labels, list) or channels < 2 or len(labels) < channels:
        return ()
    named = tuple(str(label).strip() for label in labels[:channels])
    repeated = all(str(label).strip() == named[i % channels] for i, label in enumerate(labels))
    single = len(labels) == channels and planes == 1
    return named if len(set(named)) == channels and all(named) and (repeated or single) else ()
