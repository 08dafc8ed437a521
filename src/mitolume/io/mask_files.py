"""Opens mask files. Doesn't know what their values mean."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import xarray as xr

from mitolume.errors import MitolumeError
from mitolume.io.read import read


def open_mask(path: Path) -> xr.DataArray:
    """Open a mask file: one channel, no time.

    Returns
    -------
    xarray.DataArray
        Dims ``T C Z Y X``, T and C of length 1.
    """
    mask = _read_once(path, path.stat().st_mtime_ns)
    if mask.sizes["C"] > 1:
        raise MitolumeError(
            f"mask {path} has {mask.sizes['C']} channels or colours; save it in grey "
            "(Fiji: Image > Type > 8-bit)"
        )
    if mask.sizes["T"] > 1 and mask.sizes["Z"] == 1:
        # A mask has no time: a stack saved without axis names may call its planes time points.
        mask = mask.rename(T="Z", Z="T").transpose(*mask.dims)
    if mask.sizes["T"] > 1:
        raise MitolumeError(f"mask {path} has {mask.sizes['T']} time points; save one of them")
    return mask


@lru_cache(maxsize=16)
def _read_once(path: Path, modified_ns: int) -> xr.DataArray:
    """Keep the last files open: the rows of one stack follow each other."""
    return read(path)
