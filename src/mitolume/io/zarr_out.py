"""Images written plane by plane, as OME-TIFF or OME-Zarr: whole or not at all.

The format is OME-NGFF 0.5 (https://ngff.openmicroscopy.org/0.5): Zarr 3, five axes ``t c z y x``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mitolume.io.masks import FOREGROUND, UNSURE
from mitolume.io.write import atomic, write_image, write_mask

CHUNK = 1024  # side of a chunk in pixels
_SMALLEST = 512  # the pyramid ends with the first level whose sides are all shorter
_SIDE = 2 * CHUNK  # of what is read at once to make the next level
Pixels = np.ndarray[Any, np.dtype[Any]]


@contextmanager
def new_image(
    path: Path,
    like: xr.DataArray,
    *,
    name: str,
    dtype: str,
    mask: bool = False,
    window: tuple[float, float] = (0, 1),
) -> Iterator[Any]:
    """Give an array to fill plane by plane or box by box; write it when all went well.

    Parameters
    ----------
    path
        Ends in ``.ome.tif``: the array is held in memory; or in ``.ome.zarr``: what is filled in
        goes to disk at once, and a pyramid is made at the end.
    like
        An image of the same shape and pixel size, dims ``T C Z Y X``, C of length 1.
    name
        Of the image and its channel.
    dtype
        ``uint8`` for masks, ``float32`` for probabilities.
    mask
        Whether it is a mask of 0, 1 and 255: the pyramid takes the majority of 2 x 2 pixels
        (`shrink_mask`), else their mean.
    window
        Values that a viewer shows as black and white.

    Yields
    ------
    numpy.ndarray or zarr.Array
        (T, C, Z, Y, X), zeros.

    Raises
    ------
    MitolumeError
        The place can't be written to.
    """
    if path.suffix == ".zarr":
        with atomic(path) as temporary:
            levels = _empty_pyramid(temporary, like, name, dtype, window)
            yield levels[0]
            for fine, coarse in pairwise(levels):
                _fill_level(fine, coarse, shrink_mask if mask else _mean)
        return
    pixels = np.zeros(like.shape, dtype)
    yield pixels
    image = xr.DataArray(pixels, dims=like.dims, attrs=like.attrs)
    image = image.isel({axis: 0 for axis in "TZ" if image.sizes[axis] == 1})
    if mask:
        write_mask(path, image.isel(C=0))
    else:
        write_image(path, image, names=[name])


def _empty_pyramid(
    folder: Path, like: xr.DataArray, name: str, dtype: str, window: tuple[float, float]
) -> list[Any]:
    """Make an OME-Zarr of an image's shape; return its levels, `zarr.Array` (T, C, Z, Y, X)."""
    import zarr

    group = zarr.create_group(folder, zarr_format=3)
    levels: list[Any] = []
    height, width = like.shape[3:]
    while not levels or 2 * max(height, width) > _SMALLEST:
        array = group.create_array(
            str(len(levels)),
            shape=(*like.shape[:3], height, width),
            dtype=dtype,
            chunks=(1, 1, 1, min(CHUNK, height), min(CHUNK, width)),
            dimension_names=list("tczyx"),
        )
        levels.append(array)
        height, width = -(-height // 2), -(-width // 2)
    size = like.attrs.get("pixel_size_um", {})
    group.attrs["ome"] = _metadata(name, size, len(levels), window)
    return levels


def _fill_level(fine: Any, coarse: Any, shrink: Callable[[Pixels], Pixels]) -> None:
    """Fill a level of a pyramid from the one before."""
    for t, c, z in np.ndindex(fine.shape[:3]):
        for y in range(0, fine.shape[3], _SIDE):
            for x in range(0, fine.shape[4], _SIDE):
                part = fine[t, c, z, y : y + _SIDE, x : x + _SIDE]
                half = (slice(y // 2, (y + _SIDE) // 2), slice(x // 2, (x + _SIDE) // 2))
                coarse[t, c, z, *half] = shrink(part)


def shrink_mask(mask: Pixels) -> Pixels:
    """Shrink a mask, (Y, X) of 0, 1 and 255, to half its size by majority, sides rounded up.

    Two mitochondria pixels out of four are enough, so that thin ones do not vanish from the small
    levels; else two unsure ones make an unsure one.

    Examples
    --------
    >>> shrink_mask(np.array([[0, 1, 0], [0, 1, 255]], np.uint8)).tolist()
    [[1, 255]]
    """
    quads = _quads(mask)
    enough = {value: (quads == value).sum(axis=(1, 3)) >= 2 for value in (FOREGROUND, UNSURE)}
    shrunk = np.where(enough[FOREGROUND], FOREGROUND, np.where(enough[UNSURE], UNSURE, 0))
    return shrunk.astype(mask.dtype)


def _mean(image: Pixels) -> Pixels:
    return np.asarray(_quads(image).mean(axis=(1, 3)), image.dtype)


def _quads(image: Pixels) -> Pixels:
    """Cut (Y, X) into (Y/2, 2, X/2, 2)."""
    padded = np.pad(image, [(0, size % 2) for size in image.shape], mode="edge")
    return padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2)


def _metadata(
    name: str, pixel_size_um: dict[str, float], levels: int, window: tuple[float, float]
) -> dict[str, Any]:
    """Return the OME metadata of an image of one channel: axes, scales, what a viewer shows."""
    axes: list[dict[str, str]] = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    for axis in "ZYX":
        # Without a unit, a scale is not a pixel size.
        unit = {"unit": "micrometer"} if axis in pixel_size_um else {}
        axes.append({"name": axis.lower(), "type": "space"} | unit)
    low, high = window
    shown = {"start": low, "end": high, "min": low, "max": high}
    channel = {"label": name, "color": "FFFFFF", "active": True, "window": shown}
    size = [pixel_size_um.get(axis, 1.0) for axis in "ZYX"]
    datasets = []
    for number in range(levels):
        grow = 2**number
        scale = [1.0, 1.0, size[0], size[1] * grow, size[2] * grow]
        steps: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
        if number:  # the centre of the first pixel moves as pixels grow
            shift = [0.0, 0.0, 0.0, *(one * (grow - 1) / 2 for one in size[1:])]
            steps.append({"type": "translation", "translation": shift})
        datasets.append({"path": str(number), "coordinateTransformations": steps})
    return {
        "version": "0.5",
        "multiscales": [{"name": name, "axes": axes, "datasets": datasets}],
        "omero": {"channels": [channel]},
    }
