"""Many small images in one OME-Zarr store, instead of a file for each. Knows no object."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mitolume.errors import MitolumeError, shorten

_TYPES = {"T": "time", "C": "channel", "Z": "space", "Y": "space", "X": "space"}


class ImageCollection:
    """A collection of images as OME-Zarr 0.5 knows it (the ``bioformats2raw.layout``).

    It has a temporary name until `finish`, so that a name in ``.ome.zarr`` is always whole.

    Parameters
    ----------
    path
        The store, ending in ``.zarr``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary = path.with_name(f"{path.name}.unfinished")

    def add(self, name: str, image: xr.DataArray) -> None:
        """Add an image, or write it again.

        Parameters
        ----------
        name
            Unlike that of all others; the group's name in the store.
        image
            Dims out of ``T C Z Y X``; ``attrs["pixel_size_um"]`` where known.
        """
        import zarr

        size = image.attrs.get("pixel_size_um", {})
        axes = []
        for dim in map(str, image.dims):
            unit = {"unit": "micrometer"} if dim in size else {}
            axes.append({"name": dim.lower(), "type": _TYPES[dim], **unit})
        scale = [float(size.get(str(dim), 1.0)) for dim in image.dims]
        transform = {"type": "scale", "scale": scale}
        datasets = [{"path": "0", "coordinateTransformations": [transform]}]
        ome: dict[str, Any] = {
            "version": "0.5",
            "multiscales": [{"name": name, "axes": axes, "datasets": datasets}],
        }
        if "C" in image.dims:
            ome["omero"] = {
                "channels": [
                    {"label": str(label), "color": "FFFFFF", "active": True}
                    for label in image["C"].values
                ]
            }
        try:
            group = zarr.create_group(
                str(self.temporary / name), attributes={"ome": ome}, overwrite=True
            )
            values = np.ascontiguousarray(image.values)
            group.create_array("0", data=values, chunks=values.shape)
        except OSError as error:
            raise MitolumeError(f"{self.path} can't be written: {shorten(error)}") from error

    def finish(self, names: list[str]) -> None:
        """List the images in their order, and give the store its name."""
        import zarr

        root = zarr.open_group(str(self.temporary), mode="a")
        root.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
        series = root.create_group("OME", overwrite=True)
        series.attrs["ome"] = {"version": "0.5", "series": names}
        if self.path.exists():
            shutil.rmtree(self.path)
        os.replace(self.temporary, self.path)
