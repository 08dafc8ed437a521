"""Opens what a row of the table names: image, fluorescence, mask and proposal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mitolume.errors import MitolumeError
from mitolume.io.fields import OWN_MASKS, Field
from mitolume.io.mask_files import kind_of, open_mask
from mitolume.io.masks import Mask, MaskKind, ValuesKind, to_mask
from mitolume.io.read import Image2D, read_channels, read_plane
from mitolume.io.windows import levelled


def open_image(row: Field, channels: Sequence[str] = ()) -> xr.DataArray:
    """Open the image of a row, with the table's pixel size over the file's.

    Parameters
    ----------
    row
        Its column ``channel``, where it is filled in, goes before the first of ``channels``.
    channels
        Which channels, in this order; without any, the one that the row names, or the only one.

    Returns
    -------
    xarray.DataArray
        Dims ``T C Z Y X``, T of length 1, C the channels.
    """
    names = (row.channel or next(iter(channels), ""), *channels[1:])
    image = _read_once(row.image, row.scene, names, row.image.stat().st_mtime_ns)
    if image.sizes["T"] > 1:
        raise MitolumeError(
            f"{row.image} has {image.sizes['T']} time points; save one as a file of its own"
        )
    stated = dict(image.attrs.get("pixel_size_um", {}))
    if row.pixel_size_um:
        stated |= {"Y": row.pixel_size_um, "X": row.pixel_size_um}
    if row.z_step_um:
        stated["Z"] = row.z_step_um
    return image.assign_attrs(pixel_size_um=stated) if stated else image


def open_fluorescence(row: Field) -> xr.DataArray:
    """Open the fluorescence of the mitochondria's dye, as large as the image of its row.

    Its dims are ``T C Z Y X``, T and C of length 1; the row's pixel size comes before the file's.
    """
    if not isinstance(row.fluorescence, Path):
        return open_image(replace(row, channel=row.fluorescence))
    image = open_image(row)
    dye = open_image(replace(row, image=row.fluorescence, channel="", scene=""))
    own, other = (" x ".join(str(one.sizes[axis]) for axis in "ZYX") for one in (image, dye))
    if own != other:
        raise MitolumeError(
            f"fluorescence {row.fluorescence} is {other} (Z x Y x X), but its image is {own}"
        )
    return dye


def read_row(row: Field, z: int, kind: MaskKind) -> tuple[Image2D, Mask | None]:
    """Read one plane of a checked row, in the file's dtype, and its mask.

    The mask is (Y, X) uint8 of 0, 1, 255, or None where the row is unlabelled; ``kind`` is what its
    file's values mean.
    """
    plane = read_plane(open_image(row), z=z)
    if not row.is_labelled or row.mask is None:
        return plane, None
    mask = open_mask(row.mask, open_image(row))
    return plane, to_mask(plane_of_mask(mask, z), _kind_of(row, mask, kind))


def read_proposal(path: Path, z: int) -> Image2D:
    """Read the probabilities that another program gave a plane: (Y, X) float32, 0 to 1."""
    plane = plane_of_mask(open_mask(path), z)
    return (plane / full_scale(plane.dtype)).astype(np.float32)


def plane_of_mask(mask: xr.DataArray, z: int) -> Image2D:
    """Read a plane (Y, X) of a mask, which may have one for all planes."""
    return read_plane(mask, z=z if mask.sizes["Z"] > 1 else 0)


def full_scale(kind: np.dtype[Any]) -> int:
    """Return what stands for a probability of 1 in a proposal of this type."""
    return int(np.iinfo(kind).max) if kind.kind == "u" else 1


def _kind_of(row: Field, mask: xr.DataArray, kind: MaskKind) -> ValuesKind:
    """Return what the values of a row's mask mean; those that were made here are of one kind."""
    return "unsure" if row.label in OWN_MASKS else kind_of(mask, kind)


@lru_cache(maxsize=16)
def _read_once(path: Path, scene: str, channels: tuple[str, ...], modified_ns: int) -> xr.DataArray:
    """Keep the last files open: the rows of one stack follow each other."""
    return levelled(read_channels(path, channels, scene=scene or None))
