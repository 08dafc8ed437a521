"""Planes larger than memory, read window by window. Knows no format and no model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import dask
import numpy as np
import xarray as xr

from mitolume.io.read import Image2D, read_plane
from mitolume.io.suspicion import is_rounding

# Up to this many pixels a plane is held in memory as a whole.
IN_MEMORY = 2**26
_CONTRAST = 1e-4  # spread over mean, below which float32 would leave few grey values
Box = tuple[slice, slice]


class Plane(Protocol):
    """What slices like a (Y, X) array: an array, or a plane that is still in its file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(Y, X)."""
        ...

    def __getitem__(self, box: Box, /) -> np.ndarray[Any, Any]:
        """Return the pixels of a box."""
        ...


class ComputedPlane:
    """A plane of which each box is computed when it is asked for, from the box itself."""

    def __init__(
        self, shape: tuple[int, ...], compute: Callable[[Box], np.ndarray[Any, Any]]
    ) -> None:
        self.shape, self._compute = shape, compute

    def __getitem__(self, box: Box, /) -> np.ndarray[Any, Any]:
        """Compute a box."""
        return self._compute(box)


class FilePlane:
    """One plane of an image, whose pixels stay in the file until a box of them is asked for.

    Parameters
    ----------
    image
        Dims ``T C Z Y X``, C of length 1, as `mitolume.read` returns it.
    z, t
        Which plane, from 0.
    """

    def __init__(self, image: xr.DataArray, *, z: int = 0, t: int = 0) -> None:
        self._image, self._z, self._t = image, z, t
        self.shape: tuple[int, ...] = (image.sizes["Y"], image.sizes["X"])

    def __getitem__(self, box: Box, /) -> Image2D:
        """Read the pixels of a box; its slices may have steps.

        Raises
        ------
        MitolumeError
            The pixels can't be decoded, or contain NaN or infinity.
        """
        part = self._image.isel(Y=box[0], X=box[1])
        # One chunk after the other: memory stays flat, and a dask worker asks no other worker.
        with dask.config.set(scheduler=dask.get):
            return read_plane(part, z=self._z, t=self._t)


def open_plane(image: xr.DataArray, *, z: int = 0, t: int = 0) -> Plane:
    """Return a plane: read where it is small, left in its file where it is large.

    Parameters
    ----------
    image
        Dims ``T C Z Y X``, C of length 1, as `mitolume.read` returns it.
    z, t
        Which plane, from 0.

    Raises
    ------
    MitolumeError
        The pixels of a small plane can't be decoded, or contain NaN or infinity.
    """
    plane = FilePlane(image, z=z, t=t)
    small = plane.shape[0] * plane.shape[1] <= IN_MEMORY
    return plane[:, :] if small else plane


def first_time(image: xr.DataArray) -> tuple[str, ...]:
    """Say of a movie that only its first time point is looked at."""
    times = image.sizes["T"]
    said = f"{image.attrs['source']}: the first of {times} time points was looked at"
    return (said,) * (times > 1)


def levelled(image: xr.DataArray) -> xr.DataArray:
    """Subtract from each channel a number under which its contrast would be lost in float32.

    Most images are returned as they are: this is for a range of 10 on top of 10,000,000. One
    number is for all planes, so that they can still be compared; ``attrs["offsets"]`` has it.
    """
    if image.dtype.itemsize < 4 or "offsets" in image.attrs:
        return image
    step = max(1, max(image.sizes["Y"], image.sizes["X"]) // 1024)
    offsets = []
    for c in range(image.sizes["C"]):
        middle = FilePlane(image.isel(C=[c]), z=image.sizes["Z"] // 2, t=image.sizes["T"] // 2)
        sample = middle[::step, ::step]
        mean, spread = (float(f(sample, dtype=np.float64)) for f in (np.mean, np.std))
        steep = spread > _CONTRAST * abs(mean) or is_rounding(spread, mean, sample.dtype)
        offsets.append(0.0 if steep else float(np.rint(mean)))
    if not any(offsets):
        return image.assign_attrs(offsets=offsets)
    lower = np.reshape(offsets, (-1, 1, 1, 1))
    pixels = (image.data.astype(np.float64) - lower).astype(np.float32)
    return image.copy(data=pixels).assign_attrs(offsets=offsets)
