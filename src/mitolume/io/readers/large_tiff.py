"""Planes of a TIFF that are too large to read at once, by the tiles they are stored in.

Knows neither what a file states nor what its axes mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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

    with _opened(path, series, sizes, squeeze) as (stored, pieces):
        dtype = stored.dtype
    chunks = da.core.normalize_chunks(
        tuple(
            piece * max(1, _SIDE // piece) if axis in "YX" else piece
            for axis, piece in zip(sizes, pieces, strict=True)
        ),
        shape=tuple(sizes.values()),
        dtype=dtype,
    )

    def load(block_info: dict[Any, Any]) -> np.ndarray[Any, np.dtype[Any]]:
        box = tuple(slice(*span) for span in block_info[None]["array-location"])
        with _opened(path, series, sizes, squeeze) as (stored, _):
            return np.array(stored[box])

    blank = np.empty((0,) * len(sizes), dtype)
    pixels = da.map_blocks(load, chunks=chunks, dtype=dtype, meta=blank)
    return xr.DataArray(pixels, dims=tuple(sizes))


@contextmanager
def _opened(
    path: Path, series: int, sizes: dict[str, int], squeeze: bool
) -> Iterator[tuple[Any, tuple[int, ...]]]:
    """Open what slices like the series, and say in which pieces it is stored."""
    import tifffile
    import zarr

    with tifffile.TiffFile(path, is_mmstack=False) as tif:
        found = tif.series[series]
        if found.dataoffset is not None and found.keyframe.is_memmappable:
            shape = tuple(sizes.values())
            pieces = tuple(size if axis == "S" else 1 for axis, size in sizes.items())
            yield np.memmap(path, found.dtype, "r", found.dataoffset, shape), pieces
            return
        options: dict[str, Any] = {"level": 0, "squeeze": squeeze}
        with found.aszarr(**options) as store:
            array = zarr.open_array(store, mode="r")
            yield array, array.chunks
