"""Opens the mask and the pictures of a field, which must fit each other. Knows no object."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from mitolume.batch.convert import read_objects
from mitolume.batch.sources import Picture, Source
from mitolume.errors import MitolumeError
from mitolume.io.mask_files import is_outline_file, open_outlines
from mitolume.io.read import read, select_channel
from mitolume.io.rois import has_overlay

Size = dict[str, float]

_SAME = 0.01  # pixel sizes that differ by less are rounded ones


def is_outlined(mask: Path) -> bool:
    """Tell whether a file's mask are outlines: ROIs, GeoJSON, or the overlay of an image."""
    return is_outline_file(mask) or (has_overlay(mask) and open_outlines(mask) is not None)


def open_mask(source: Source) -> xr.DataArray:
    """Open a mask.

    Parameters
    ----------
    source
        Says where it is, and which planes of it are meant.

    Returns
    -------
    xarray.DataArray
        Dims ``T Z Y X``. Of outlines: the number of each, and -1 where they say unsure;
        ``attrs["notices"]`` says what was left out.

    Raises
    ------
    MitolumeError
        It can't be read, or has channels.
    """
    if is_outlined(source.mask):
        mask = _drawn(source)
    else:
        mask = read(source.mask)
        if mask.sizes["C"] > 1:
            raise MitolumeError(
                f"mask {source.mask} has {mask.sizes['C']} channels or colours; save it in grey "
                "(Fiji: Image > Type > 8-bit)"
            )
        mask = mask.isel(C=0, drop=True)
    planes = source.planes or ()
    if planes and mask.sizes["Z"] > len(planes) and mask.sizes["Z"] > max(planes):
        mask = mask.isel(Z=list(planes))  # the mask of a whole stack, of which a row means some
    return mask


def _drawn(source: Source) -> xr.DataArray:
    objects = read_objects(source.mask, source.pictures[0].file if source.pictures else None)
    values = np.where(objects.unsure, -1, objects.labels)
    return xr.DataArray(
        values[np.newaxis] if values.ndim == 3 else values[np.newaxis, np.newaxis],
        dims=("T", "Z", "Y", "X"),
        attrs={
            "source": str(source.mask),
            "pixel_size_um": objects.pixel_size_um,
            "notices": objects.notices,
        },
    )


def open_pictures(source: Source, mask: xr.DataArray) -> list[xr.DataArray]:
    """Open the pictures of a field: dims ``T C Z Y X`` each, T, Y and X as those of the mask.

    Raises
    ------
    MitolumeError
        One can't be read, or does not fit the mask.
    """
    return [_open_picture(picture, source, mask) for picture in source.pictures]


def _open_picture(picture: Picture, source: Source, mask: xr.DataArray) -> xr.DataArray:
    image = read(picture.file, scene=picture.scene or None)
    if picture.channel:
        image = select_channel(image, picture.channel)
    if source.planes is not None and image.sizes["Z"] > 1:
        image = image.isel(Z=list(source.planes))
    for axis in "TYX":
        if image.sizes[axis] != mask.sizes[axis]:
            raise MitolumeError(
                f"{picture.file} has {image.sizes[axis]} along {axis}, but its mask {source.mask} "
                f"has {mask.sizes[axis]}"
            )
    if mask.sizes["Z"] not in (1, image.sizes["Z"]):
        raise MitolumeError(
            f"{picture.file} has {image.sizes['Z']} planes, but its mask {source.mask} has "
            f"{mask.sizes['Z']}"
        )
    if image.sizes["C"] == 1 and picture.name:
        image = image.assign_coords(C=np.array([picture.name], dtype=object))
    return image


def as_one(pictures: Sequence[xr.DataArray]) -> xr.DataArray | None:
    """Put the channels of all pictures into one image; None where there is no picture.

    Raises
    ------
    MitolumeError
        They differ in their number of planes.
    """
    if not pictures:
        return None
    depths = {image.sizes["Z"]: image.attrs["source"] for image in pictures}
    if len(depths) > 1:
        (one, first), (other, second) = list(depths.items())[:2]
        raise MitolumeError(
            f"{first} and {second} are of one field, but have {one} and {other} planes (Z); give "
            "them the same planes, or measure them one by one"
        )
    image = pictures[0]
    if len(pictures) > 1:
        sources = " or ".join(picture.attrs["source"] for picture in pictures)
        image = xr.concat(pictures, "C", combine_attrs="override").assign_attrs(source=sources)
    names = [str(name) for name in image["C"].values]
    if len(set(names)) < len(names):
        names = [f"{name} {i}" for i, name in enumerate(names)]
        image = image.assign_coords(C=np.array(names, dtype=object))
    return image


def pixel_size(opened: Sequence[xr.DataArray], said: Size) -> Size:
    """Return what is known of a field's pixel size, ``Z Y X`` to µm.

    Parameters
    ----------
    opened
        Its mask and pictures.
    said
        What the user says, which goes first.

    Raises
    ------
    MitolumeError
        Two files state different sizes.
    """
    size: Size = {}
    where: dict[str, str] = {}
    for image in opened:
        for axis, um in image.attrs.get("pixel_size_um", {}).items():
            known = said.get(axis, size.setdefault(axis, um))
            source = where.setdefault(axis, image.attrs["source"])
            if axis not in said and not math.isclose(known, um, rel_tol=_SAME):
                option = "--z-step" if axis == "Z" else "--pixel-size"
                raise MitolumeError(
                    f"{source} states {known:g} µm along {axis}, but {image.attrs['source']} "
                    f"{um:g} µm; say which holds with {option}"
                )
    return size | said
