"""PNG and JPEG, which state nothing that can be believed. Knows no other format."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from mitolume.io.readers.common import Opened, Stated


def open_file(path: Path) -> Opened:
    """Open a picture; a palette is resolved to grey or colours."""
    from bioio_imageio import Reader

    reader = Reader(path)

    def array(scene: int) -> xr.DataArray:
        image: xr.DataArray = reader.xarray_dask_data
        return image

    return Opened([str(name) for name in reader.scenes], array)


def stated(path: Path, scene: int) -> Stated:
    """Return nothing: the dots per inch of a picture are no pixel size."""
    return Stated()
