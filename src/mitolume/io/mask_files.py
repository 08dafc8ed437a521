"""Opens mask files, drawn as pixels or as outlines. Doesn't know what pixel values mean.

Outlines do not say how large their image is: whoever opens them brings the image along. What they
mean is known, so their mask says ``mask_kind`` among its attributes: 0, 1 and 255 (unsure).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import xarray as xr

from mitolume.errors import MitolumeError
from mitolume.io.geojson import read_geojson
from mitolume.io.masks import FOREGROUND, UNSURE, Mask, MaskKind
from mitolume.io.outlines import Outline, draw
from mitolume.io.read import AXES, Image2D, read, read_plane
from mitolume.io.rois import has_overlay, outlines_of_rois, read_rois

OUTLINE_ENDINGS = (".zip", ".roi", ".geojson", ".json")

_FLAT = 0.7  # of neighbouring pixels in objects, the share that is equal in a label image


@dataclass(frozen=True, eq=False)
class PlacedOutlines:
    """Outlines on the planes of an image: ``shape`` is Z, Y and X of their mask."""

    outlines: tuple[Outline, ...]
    shape: tuple[int, int, int]
    notices: tuple[str, ...]

    def on_plane(self, z: int) -> list[Outline]:
        """Return those on a plane, in the order they were drawn."""
        return [outline for outline in self.outlines if outline.z in (None, z)]


def is_outline_file(path: Path) -> bool:
    """Tell whether a file's name says that it holds outlines and no pixels."""
    return path.name.lower().endswith(OUTLINE_ENDINGS)


def open_mask(path: Path, like: xr.DataArray | None = None) -> xr.DataArray:
    """Open a mask file: one channel, no time.

    Parameters
    ----------
    path
        An image file, an ImageJ ROI set (``.zip``) or ROI (``.roi``), or GeoJSON. Of a TIFF with
        an overlay the pixels are the mask, but the overlay where the file is the image itself or
        its pixels can be no mask.
    like
        The image, dims ``T C Z Y X``: outlines need its size. A stack's outlines that name no
        plane make a mask of one plane.

    Returns
    -------
    xarray.DataArray
        Dims ``T C Z Y X``, T and C of length 1. Of outlines: uint8 of 0, 1 and 255,
        ``attrs["mask_kind"]`` is ``unsure``, and ``attrs["notices"]`` says what was left out.

    Raises
    ------
    MitolumeError
        The file can't be read or is no mask; outlines without an image, outside of it, or on
        planes that it hasn't.
    """
    placed = open_outlines(path, like)
    if placed is not None:
        return _drawn(path, placed)
    return _read_once(path, path.stat().st_mtime_ns)


def open_outlines(path: Path, like: xr.DataArray | None = None) -> PlacedOutlines | None:
    """Return the outlines that are a file's mask, None where its pixels are.

    Parameters
    ----------
    path, like
        As for `open_mask`.
    """
    if not path.exists():
        raise MitolumeError(f"{path}: no such file")
    modified = path.stat().st_mtime_ns
    if is_outline_file(path):
        if like is None:
            raise MitolumeError(
                f"{path} holds outlines, which do not say how large their image is: name the "
                "image, or make a mask of them (mitolume convert OUTLINES --like IMAGE --out "
                "NAME_mask.ome.tif)"
            )
        return _placed_once(path, modified, _size(like))
    if like is not None and _is_source_of(path, like):
        if not has_overlay(path):
            raise MitolumeError(
                f"mask {path} is the image itself, and it holds no overlay; outline the "
                "mitochondria in Fiji (Image > Overlay > Add Selection) and save it as TIFF"
            )
        return _placed_once(path, modified, _size(like))
    return _overlay_once(path, modified)


def is_outlined(mask: xr.DataArray) -> bool:
    """Tell whether an open mask came of outlines."""
    return "mask_kind" in mask.attrs


def kind_of(mask: xr.DataArray, kind: MaskKind) -> MaskKind:
    """Return what the values of an open mask mean: `kind`, unless it came of outlines."""
    known: MaskKind = mask.attrs.get("mask_kind", kind)
    return known


@lru_cache(maxsize=16)
def _read_once(path: Path, modified_ns: int) -> xr.DataArray:
    """Keep the last files open: the rows of one stack follow each other."""
    mask = read(path)
    if mask.sizes["C"] > 1:
        raise MitolumeError(
            f"mask {path} has {mask.sizes['C']} channels or colours; save it in grey "
            "(Fiji: Image > Type > 8-bit)"
        )
    mask = _time_as_planes(mask)
    if mask.sizes["T"] > 1:
        raise MitolumeError(f"mask {path} has {mask.sizes['T']} time points; save one of them")
    return mask


def _time_as_planes(mask: xr.DataArray) -> xr.DataArray:
    """Undo what a stack saved without axis names may do: a mask has planes, and no time."""
    if mask.sizes["T"] == 1 or mask.sizes["Z"] > 1:
        return mask
    return mask.rename(T="Z", Z="T").transpose(*mask.dims)


@lru_cache(maxsize=16)
def _overlay_once(path: Path, modified_ns: int) -> PlacedOutlines | None:
    """Return the overlay of a TIFF whose pixels can be no mask."""
    if not has_overlay(path):
        return None
    image = _time_as_planes(read(path))
    if _can_be_mask(image):
        return None
    placed = _placed_once(path, modified_ns, _size(image))
    notice = f"{path.name}: its pixels are an image, so its overlay is taken as the mask"
    return replace(placed, notices=(notice, *placed.notices))


def _can_be_mask(image: xr.DataArray) -> bool:
    if image.sizes["C"] > 1 or image.sizes["T"] > 1:
        return False
    return all(_is_mask_plane(read_plane(image, z=z)) for z in range(image.sizes["Z"]))


def _is_mask_plane(plane: Image2D) -> bool:
    """Tell a mask or a label image from grey values: its objects are flat."""
    if len(np.unique(plane)) <= 3:
        return True
    left, right = plane[:, :-1], plane[:, 1:]
    both = (left != 0) & (right != 0)
    return bool((left == right)[both].mean() > _FLAT) if both.any() else False


@lru_cache(maxsize=16)
def _placed_once(path: Path, modified_ns: int, size: tuple[int, int, int, int]) -> PlacedOutlines:
    """Read outlines and put them on the planes of an image of this size (T, Z, Y, X)."""
    frames, depth, height, width = size
    if path.name.lower().endswith((".geojson", ".json")):
        outlines, notices = read_geojson(path)
    else:
        outlines, notices = outlines_of_rois(read_rois(path), depth=depth)
    if not outlines:
        raise MitolumeError(
            f"{path} outlines no object" + "".join(f" ({notice})" for notice in notices)
        )
    if frames > 1:
        raise MitolumeError(
            f"the image of {path} has {frames} time points; save the one that was outlined"
        )
    outlines = _on_planes(outlines, depth, path)
    _require_inside(outlines, (height, width), path)
    planes = depth if any(outline.z is not None for outline in outlines) else 1
    notices += _frames(outlines, (height, width))
    named = tuple(f"{path.name}: {notice}" for notice in notices)
    return PlacedOutlines(tuple(outlines), (planes, height, width), named)


def _on_planes(outlines: Sequence[Outline], depth: int, path: Path) -> list[Outline]:
    planes = {outline.z for outline in outlines} - {None}
    times = {outline.t for outline in outlines} - {None}
    if depth > 1 and len(times) > 1 and planes <= {0}:
        # A stack saved without axis names: Fiji took its planes for time points.
        outlines, planes, times = [replace(o, z=o.t) for o in outlines], times, set()
    for found, most, what in ((times, 1, "time point"), (planes, depth, "z-plane")):
        numbers = sorted(number + 1 for number in found if number is not None)
        if (most == 1 and len(found) > 1) or (most > 1 and numbers and numbers[-1] > most):
            shown = ", ".join(map(str, numbers[:5])) + (" and more" if len(numbers) > 5 else "")
            raise MitolumeError(
                f"outlines in {path} lie on {what}s {shown} (from 1), but the image has {most}; "
                "name the image they were drawn on, or take their positions away (Fiji, ROI "
                "Manager: More >> Remove Positions)"
            )
    return [replace(o, z=o.z if depth > 1 else None, t=None) for o in outlines]


def _require_inside(outlines: Sequence[Outline], shape: tuple[int, int], path: Path) -> None:
    outside = []
    for outline in outlines:
        left, top, right, bottom = outline.box()
        if right <= 0 or bottom <= 0 or left >= shape[1] or top >= shape[0]:
            outside.append(f"{outline.name!r} (x {left:g} to {right:g}, y {top:g} to {bottom:g})")
    if outside:
        more = f" and {len(outside) - 1} more lie" if len(outside) > 1 else " lies"
        raise MitolumeError(
            f"{path}: outline {outside[0]}{more} outside the image, which is {shape[0]} x "
            f"{shape[1]} pixels (Y x X); it was drawn on another image, or on one of another size"
        )


def _frames(outlines: Sequence[Outline], shape: tuple[int, int]) -> list[str]:
    """Point to large rectangles round other outlines, or round the image: they are no objects."""
    notices = []
    for frame in outlines:
        left, top, right, bottom = frame.box()
        large = 20 * (right - left) * (bottom - top) >= shape[0] * shape[1]
        if frame.unsure or not large or not _is_rectangle(frame):
            continue
        held = 0
        for x0, y0, x1, y1 in (o.box() for o in outlines if o.z == frame.z and o is not frame):
            held += left <= x0 and top <= y0 and x1 <= right and y1 <= bottom
        whole = left <= 0 and top <= 0 and right >= shape[1] and bottom >= shape[0]
        if held or whole:
            what = "the whole image" if whole else f"other outlines ({held})"
            notices.append(
                f"{frame.name!r} is a rectangle round {what}, and all in it is taken as "
                "mitochondria; where it is a frame, delete it (in QuPath, or give it class Region*)"
            )
    return notices


def _is_rectangle(outline: Outline) -> bool:
    left, top, right, bottom = outline.box()
    corners = {(x, y) for ring in outline.rings for x, y in ring.tolist()}
    return corners == {(left, top), (right, top), (right, bottom), (left, bottom)}


def _drawn(path: Path, placed: PlacedOutlines) -> xr.DataArray:
    import dask
    import dask.array as da

    depth, height, width = placed.shape
    shape = height, width
    # Hidden in a function, or dask would look into thousands of outlines.
    planes = [partial(_plane_mask, placed.on_plane(z), shape) for z in range(depth)]
    values = da.stack([da.from_delayed(dask.delayed(p)(), shape, np.uint8) for p in planes])
    return xr.DataArray(
        values[np.newaxis, np.newaxis],
        dims=AXES,
        coords={"C": np.array(["0"], dtype=object)},
        attrs={"source": str(path), "mask_kind": "unsure", "notices": placed.notices},
    )


def _plane_mask(outlines: Sequence[Outline], shape: tuple[int, int]) -> Mask:
    """Fill the outlines of a plane; what is unsure is so on top of mitochondria, too."""
    in_order = sorted(outlines, key=lambda outline: outline.unsure)
    values = [UNSURE if outline.unsure else FOREGROUND for outline in in_order]
    return draw(in_order, values, shape).astype(np.uint8)


def _size(image: xr.DataArray) -> tuple[int, int, int, int]:
    t, z, y, x = (image.sizes[axis] for axis in "TZYX")
    return t, z, y, x


def _is_source_of(path: Path, image: xr.DataArray) -> bool:
    source = Path(image.attrs.get("source", ""))
    return source.is_file() and source.samefile(path)
