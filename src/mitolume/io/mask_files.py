"""Opens mask files of any kind: pixels, label images, probabilities, outlines.

Outlines do not say how large their image is: whoever opens them brings the image along. What they
mean is known, so their mask says ``mask_kind`` among its attributes. What the values of other masks
mean is decided for all masks of a set together (`mitolume.io.masks.meaning_of`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mitolume.errors import MitolumeError, some_names
from mitolume.io.formats import (
    READERS,
    bare_name,
    decoding,
    files_of,
    is_folder,
    require_file,
    whole_images,
)
from mitolume.io.geojson import read_geojson
from mitolume.io.masks import MANY, ValuesKind, to_mask
from mitolume.io.outlines import PlacedOutlines, draw, place
from mitolume.io.read import AXES, read, read_plane
from mitolume.io.readers import address
from mitolume.io.rois import outlines_of_rois, read_rois

Size = tuple[int, int, int, int]  # T, Z, Y and X of an image

_JSON = (".geojson", ".json")
_OUTLINES = (".zip", ".roi", *_JSON)
_IN_FOLDERS = (*READERS, ".zip", ".roi", ".geojson")  # other programs write .json, too
# How names of masks end: ours, and those of Cellpose, Fiji and others.
_SAYS_MASK = re.compile(
    r"[ _.-]+(cp_masks|(masks?|masken?|masques?|m[aá]scaras?)([ _.-]+(final|corrected))?|labels?"
    r"|seg|segmentation|rois?|roiset)$",
    re.IGNORECASE,
)
_ENOUGH, _MOSTLY = 500, 0.6  # pixel pairs that tell an image from objects, and their share
_OTHER_RESULTS = ("_probability", "_overlay")


def image_name(mask: Path) -> str:
    """Return the name of a mask's image: that of the file without ending and without ``_mask``."""
    name = bare_name(mask)
    for other in _OTHER_RESULTS:
        name = name.removesuffix(other)
    return _SAYS_MASK.sub("", name)


def says_mask(path: Path) -> bool:
    """Tell whether a file's name says that it is a mask: it ends in ``_mask``, ``_labels``, ..."""
    return _SAYS_MASK.search(bare_name(path)) is not None


def list_masks(*paths: Path) -> tuple[list[Path], list[str]]:
    """List the masks of folders; a file is its own list.

    Parameters
    ----------
    paths
        Mask files, or folders of masks and perhaps their images: if the name of any other file
        begins with the name of a mask's image, only files that are named as masks are taken.

    Returns
    -------
    files, notices
        In natural order, each once; sentences that say how many were left out.

    Raises
    ------
    MitolumeError
        It does not exist or holds no mask.
    """
    listed = [_listed(path) for path in paths]
    files = {os.path.abspath(file): file for own, _ in listed for file in own}
    return list(files.values()), [notice for _, said in listed for notice in said]


def _listed(path: Path) -> tuple[list[Path], list[str]]:
    if not is_folder(path):
        if not (path.exists() or address(path)):
            require_file(path, "file or folder")
        return [path], []
    files = [
        path
        for path in files_of(path)
        if path.name.lower().endswith(_IN_FOLDERS) and not bare_name(path).endswith("_overlay")
    ]
    if not files:
        raise MitolumeError(f"{path} holds no mask file ({', '.join(_IN_FOLDERS)})")
    masks = [path for path in files if says_mask(path)]
    others = [path for path in files if not says_mask(path)]
    stems = [image_name(path).casefold() for path in masks]
    if not any(goes_on(bare_name(path).casefold(), stem) for path in others for stem in stems):
        return whole_images(files)
    notice = (
        f"{path}: {len(files)} files found, {len(masks)} used, whose names say that they are "
        f"masks (NAME_mask, NAME_labels, ...); left out: {some_names(others)}"
    )
    masks, said = whole_images(masks)
    return masks, [notice, *said]


def goes_on(long: str, short: str) -> bool:
    """Tell whether a name is another one, or goes on behind it: ``f1_bf`` is of ``f1``, not f10."""
    return long.startswith(short) and not long[len(short) : len(short) + 1].isalnum()


def is_outline_file(path: Path) -> bool:
    """Tell whether a file's name says that it holds outlines and no pixels."""
    return path.name.lower().endswith(_OUTLINES)


def open_mask(
    path: Path, like: xr.DataArray | None = None, *, numbered: bool = False, movie: bool = False
) -> xr.DataArray:
    """Open a mask file without reading its pixels.

    Parameters
    ----------
    path
        An image file, an ImageJ ROI set (``.zip``) or ROI (``.roi``), or GeoJSON. If the file is
        the image itself, its overlay is the mask.
    like
        The image, dims ``T C Z Y X``: outlines need its size. A stack's outlines that name no
        plane make a mask of one plane.
    numbered
        Draw each outline with its number, and unsure ones as -1.
    movie
        Keep time points. Otherwise, those of a file without planes are taken as planes, and other
        time series are refused.

    Returns
    -------
    xarray.DataArray
        Dims ``T C Z Y X``, C of length 1, T too unless it is a movie. Of outlines: uint8 of 0, 1
        and 255, ``attrs["mask_kind"]`` is ``unsure``; numbered: int32, and it is ``numbers``.
        ``attrs["notices"]`` says what was left out; the pixel size is that of the image.

    Raises
    ------
    MitolumeError
        The file can't be read or is not a mask; outlines have no image, or don't fit on it.
    """
    if not path.is_dir() and not address(path):
        require_file(path)
    modified = 0 if address(path) else path.stat().st_mtime_ns
    size = None if like is None else tuple(like.sizes[axis] for axis in "TZYX")
    is_image = like is not None and _is_source_of(path, like)
    placed = _outlines_once(path, modified, size, is_image)
    if placed is None:
        return _pixels_once(path, modified, movie)
    notices = (*placed.notices, *_hidden(placed, path, numbered=numbered))
    mask = _drawn(placed).assign_attrs(source=str(path), notices=notices)
    mask.attrs["outlined"] = [z for z in range(mask.sizes["Z"]) if placed.on_plane(z)]
    if like is not None and (pixel_size := like.attrs.get("pixel_size_um")):
        mask.attrs["pixel_size_um"] = pixel_size
    if numbered:
        return mask.assign_attrs(mask_kind="numbers")
    plain = mask.data.map_blocks(partial(to_mask, kind="numbers"), dtype=np.uint8)
    return mask.copy(data=plain).assign_attrs(mask_kind="unsure")


def require_fit(mask: xr.DataArray, image: xr.DataArray) -> None:
    """Refuse a mask that is not as large as its image; it may have one plane for all."""
    shape, expected = (tuple(one.sizes[axis] for axis in "YX") for one in (mask, image))
    name, of = f"mask {mask.attrs['source']}", f"its image {image.attrs['source']}"
    if shape != expected:
        turned = " (they look transposed)" if shape == expected[::-1] else ""
        raise MitolumeError(
            f"{name} is {shape[0]} x {shape[1]} pixels (Y x X), but {of} is {expected[0]} x "
            f"{expected[1]}{turned}"
        )
    if mask.sizes["Z"] not in (1, image.sizes["Z"]):
        raise MitolumeError(f"{name} has {mask.sizes['Z']} planes, but {of} has {image.sizes['Z']}")


def is_outlined(mask: xr.DataArray) -> bool:
    """Tell whether an open mask came of outlines."""
    return "mask_kind" in mask.attrs


def labelled_planes(mask: xr.DataArray, blank: Collection[int]) -> list[int]:
    """Return the planes of an open mask that somebody labelled.

    Of outlines, those with any. Pixels of all planes count, except where only one plane has any, or
    some in between have none: mitochondria do not go and come back.

    Parameters
    ----------
    mask
        As `open_mask` opened it.
    blank
        Its planes without any pixel but 0.
    """
    filled = [z for z in range(mask.sizes["Z"]) if z not in blank]
    if is_outlined(mask):
        filled = list(mask.attrs["outlined"])
    elif not filled or (len(filled) > 1 and filled[-1] - filled[0] == len(filled) - 1):
        return list(range(mask.sizes["Z"]))
    return filled


def kind_of(mask: xr.DataArray, kind: ValuesKind) -> ValuesKind:
    """Return what the values of an open mask mean: `kind`, unless it came of outlines."""
    known: ValuesKind = mask.attrs.get("mask_kind", kind)
    return known


def stack_of(mask: xr.DataArray) -> np.ndarray[Any, Any]:
    """Read all planes of an open mask, (Z, Y, X)."""
    return np.stack([read_plane(mask, z=z) for z in range(mask.sizes["Z"])])


def _hidden(placed: PlacedOutlines, path: Path, *, numbered: bool) -> list[str]:
    """Say how many outlines a mask doesn't show, or not whole."""
    empty, lost, less = placed.hidden
    what = {"hold the middle of no pixel, and are left out": empty}
    if numbered:
        what |= {
            "are lost, for others cover them: a pixel belongs to one object": lost,
            "lie in part under smaller ones, so they have less area than in Fiji or QuPath": less,
        }
    of = f"of {len(set(placed.numbers()) - {0})} objects"
    return [
        f"{path.name}: {len(found)} {of} {text} (numbers {some_names(sorted(found))})"
        for text, found in what.items()
        if found
    ]


def distinct_values(mask: xr.DataArray) -> set[float]:
    """Return the distinct values of a mask, of fractions a few; none of outlines.

    Parameters
    ----------
    mask
        As `open_mask` opened it; it is read chunk by chunk.

    Raises
    ------
    MitolumeError
        Pixels can't be decoded, or are not finite numbers.
    """
    import dask

    if is_outlined(mask):
        return set()
    source = mask.attrs["source"]
    chunks = [dask.delayed(values_in)(part, source) for part in mask.data.to_delayed().ravel()]
    with decoding(source):
        return set().union(*dask.compute(*chunks, scheduler="threads"))


def values_in(pixels: np.ndarray[Any, Any], source: str) -> set[float]:
    """Return the distinct values of a part of a mask, see `distinct_values`."""
    values = np.unique(pixels)
    if values.dtype.kind not in "buif":
        raise MitolumeError(f"mask {source} has pixels of type {values.dtype}; save it in 8 bit")
    if not np.isfinite(values).all():
        raise MitolumeError(f"mask {source} holds NaN or infinity, which mean nothing in a mask")
    fraction = values != np.round(values)
    if len(values) > MANY and not fraction.any():
        # Pixels of one object lie beside each other; grey values hardly ever repeat.
        left, right = pixels[..., :-1], pixels[..., 1:]
        inside = (left > 0) & (right > 0)
        if inside.sum() >= _ENOUGH and (left != right)[inside].mean() > _MOSTLY:
            raise MitolumeError(
                f"mask {source} is an image: of {len(values)} values, hardly any two beside each "
                "other are the same, while objects have one number each; name its mask"
            )
    some = values[fraction][[*range(min(6, fraction.sum())), -1]] if fraction.any() else []
    return {float(value) for value in (*values[~fraction], *some)}


def is_probability(values: set[float]) -> bool:
    """Tell whether the values of a mask are probabilities: fractions from 0 to 1."""
    return any(v != int(v) for v in values) and 0 <= min(values) <= max(values) <= 1


@lru_cache(maxsize=16)
def _pixels_once(path: Path, modified_ns: int, movie: bool) -> xr.DataArray:
    """Open a mask of pixels; the last files stay open, as rows of one stack follow each other."""
    mask = read(path, mask=True)
    if mask.sizes["C"] > 1:
        raise MitolumeError(
            f"mask {path} has {mask.sizes['C']} channels or colours; save it in grey "
            "(Fiji: Image > Type > 8-bit) or, if these are its planes, name them so (Fiji: Image > "
            "Properties, channels 1)"
        )
    if movie:
        return mask
    mask = _time_as_planes(mask)
    if mask.sizes["T"] > 1:
        raise MitolumeError(f"mask {path} has {mask.sizes['T']} time points; save one of them")
    return mask


@lru_cache(maxsize=16)
def _outlines_once(
    path: Path, modified_ns: int, size: Size | None, is_image: bool
) -> PlacedOutlines | None:
    """Read the outlines that are a file's mask; None if its pixels are the mask."""
    if is_outline_file(path):
        if size is None:
            raise MitolumeError(
                f"{path} holds outlines, which do not say how large their image is: name the "
                "image, or make a mask of them (mitolume convert OUTLINES --like IMAGE --out "
                "NAME_mask.ome.tif)"
            )
    elif not is_image:
        return None
    assert size is not None
    if path.name.lower().endswith(_JSON):
        outlines, said = read_geojson(path)
    else:
        outlines, said = outlines_of_rois(read_rois(path), depth=size[1])
    return place(outlines, said, size, path)


def _time_as_planes(mask: xr.DataArray) -> xr.DataArray:
    """Take time as Z where there are no planes: a stack saved without names of axes."""
    if mask.sizes["T"] == 1 or mask.sizes["Z"] > 1:
        return mask
    return mask.rename(T="Z", Z="T").transpose(*mask.dims)


def _drawn(placed: PlacedOutlines) -> xr.DataArray:
    """Draw each outline with its number, unsure ones as -1, once a plane is read."""
    import dask
    import dask.array as da

    depth, shape = placed.shape[0], placed.shape[1:]
    # Hidden in a function, or dask would look into thousands of outlines.
    planes = [partial(draw, placed.on_plane(z), shape) for z in range(depth)]
    drawn = da.stack([da.from_delayed(dask.delayed(p)(), shape, np.int32) for p in planes])
    channel = {"C": np.array(["0"], dtype=object)}
    return xr.DataArray(drawn[np.newaxis, np.newaxis], dims=AXES, coords=channel)


def _is_source_of(path: Path, image: xr.DataArray) -> bool:
    source = Path(image.attrs.get("source", ""))
    return source.is_file() and source.samefile(path)
