"""Planes of a TIFF that are too large to read at once, by the tiles they are stored in.

Knows neither what a file states nor what its axes mean.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

_SIDE = 1024  # chunks are whole tiles or strips, and about this large


def by_tiles(path: Path, series: int, sizes: dict[str, int], *, squeeze: bool) -> xr.DataArray:
    """Open a series of a TIFF without reading its pixels, in chunks smaller than a plane.

    Parameters
    ----------
    path, series
        The file, and which of its series, from 0.
    sizes
        The series' axes, and how long they are.
    squeeze
        Whether axes of length 1 are left out of ``sizes``.

    Returns
    -------
    xarray.DataArray
        A plane that was compressed in one piece stays in one chunk.
    """
    import dask.array as da
    import tifffile
    import zarr

    with tifffile.TiffFile(path, is_mmstack=False) as tif:
        found = tif.series[series]
        offset, dtype = found.dataoffset, found.dtype
        plain = found.keyframe.is_memmappable
    stored: Any
    if offset is not None and plain:
        stored = np.memmap(path, dtype, "r", offset, tuple(sizes.values()))
        pieces = tuple(size if axis == "S" else 1 for axis, size in sizes.items())
    else:
        options: dict[str, Any] = {"series": series, "level": 0, "squeeze": squeeze}
        store = tifffile.imread(path, aszarr=True, is_mmstack=False, **options)
        stored = zarr.open_array(store, mode="r")
        pieces = stored.chunks
    chunks = tuple(
        piece * max(1, _SIDE // piece) if axis in "YX" else piece
        for axis, piece in zip(sizes, pieces, strict=True)
    )
    return xr.DataArray(da.from_array(stored, chunks=chunks, name=False), dims=tuple(sizes))
