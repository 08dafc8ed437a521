"""Images as OME-Zarr with a pyramid, written piece by piece, whole or not at all. Knows no model.

The format is OME-NGFF 0.5 (https://ngff.openmicroscopy.org/0.5): Zarr 3, five axes ``t c z y x``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mitolume.io.masks import FOREGROUND, UNSURE
from mitolume.io.write import atomic

CHUNK = 1024  # side of a chunk in pixels
_SMALLEST = 512  # the pyramid ends with the first level whose sides are all shorter
_SIDE = 2 * CHUNK  # of what is read at once to make the next level
Pixels = np.ndarray[Any, np.dtype[Any]]


@contextmanager
def new_ome_zarr(
    path: Path,
    shape: tuple[int, ...],
    *,
    name: str,
    dtype: str,
    pixel_size_um: dict[str, float],
    window: tuple[float, float] = (0, 1),
) -> Iterator[Path]:
    """Make an empty OME-Zarr under a temporary name; rename it when all went well.

    Parameters
    ----------
    path
        The folder it will be; one that is there is replaced.
    shape
        (T, C, Z, Y, X).
    name
        Of the image and its channel.
    dtype
        ``uint8`` for masks, ``float32`` for probabilities.
    pixel_size_um
        Those of ``Z Y X`` that are known.
    window
        Values that a viewer shows as black and white.

    Yields
    ------
    pathlib.Path
        The folder under its temporary name; write into `full_size` of it, then `build_pyramid`.

    Raises
    ------
    MitolumeError
        The place can't be written to.
    """
    old = path.with_name(f".part-{os.getpid()}.old.{path.name}")
    try:
        with atomic(path) as temporary:
            _make(temporary, shape, name, dtype, pixel_size_um, window)
            yield temporary
            if path.is_dir():
                path.rename(old)  # a folder can't be renamed onto one that holds files
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def full_size(folder: Path) -> Any:
    """Open the first level of an OME-Zarr to read and write, a `zarr.Array` (T, C, Z, Y, X)."""
    import zarr

    return zarr.open_array(folder / "0", mode="r+")


def build_pyramid(folder: Path, *, mask: bool | None = None) -> None:
    """Fill the smaller levels of an OME-Zarr from its full size.

    A pixel of a level is made of 2 x 2 of the level before: of a mask the majority
    (`shrink_mask`), else the mean.

    Parameters
    ----------
    folder
        As `new_ome_zarr` made it.
    mask
        Whether it is a mask; by default, whether it holds integers.
    """
    import zarr

    group = zarr.open_group(folder, mode="r+")
    levels: list[Any] = [group[str(number)] for number in range(len(list(group.array_keys())))]
    for fine, coarse in pairwise(levels):
        shrink = shrink_mask if (fine.dtype.kind == "u" if mask is None else mask) else _mean
        for t, c, z in np.ndindex(fine.shape[:3]):
            for y in range(0, fine.shape[3], _SIDE):
                for x in range(0, fine.shape[4], _SIDE):
                    part = fine[t, c, z, y : y + _SIDE, x : x + _SIDE]
                    half = (slice(y // 2, (y + _SIDE) // 2), slice(x // 2, (x + _SIDE) // 2))
                    coarse[t, c, z, *half] = shrink(part)


def shrink_mask(mask: Pixels) -> Pixels:
    """Shrink a mask to half its size by majority.

    Parameters
    ----------
    mask
        (Y, X) of 0, 1 and 255; odd sides are continued by their last row or column.

    Returns
    -------
    numpy.ndarray
        (Y, X), rounded up. Two mitochondria pixels out of four are enough, so that thin ones do
        not vanish from the small levels; else two unsure ones make an unsure one.

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


def _make(
    folder: Path,
    shape: tuple[int, ...],
    name: str,
    dtype: str,
    pixel_size_um: dict[str, float],
    window: tuple[float, float],
) -> None:
    """Write the metadata and the empty levels."""
    import zarr

    group = zarr.create_group(folder, zarr_format=3)
    datasets: list[dict[str, Any]] = []
    height, width = shape[3:]
    while not datasets or 2 * max(height, width) > _SMALLEST:
        group.create_array(
            str(len(datasets)),
            shape=(*shape[:3], height, width),
            dtype=dtype,
            chunks=(1, 1, 1, min(CHUNK, height), min(CHUNK, width)),
            dimension_names=["t", "c", "z", "y", "x"],
        )
        datasets.append(_dataset(len(datasets), pixel_size_um))
        height, width = -(-height // 2), -(-width // 2)
    group.attrs["ome"] = _metadata(name, datasets, pixel_size_um, window)


def _dataset(number: int, pixel_size_um: dict[str, float]) -> dict[str, Any]:
    """Say where a level's pixels lie: the centre of the first moves as they grow."""
    size = [pixel_size_um.get(axis, 1.0) for axis in "ZYX"]
    grow = 2**number
    scale = [1.0, 1.0, size[0], size[1] * grow, size[2] * grow]
    shift = [0.0, 0.0, 0.0, size[1] * (grow - 1) / 2, size[2] * (grow - 1) / 2]
    steps = [{"type": "scale", "scale": scale}]
    if number:
        steps.append({"type": "translation", "translation": shift})
    return {"path": str(number), "coordinateTransformations": steps}


def _metadata(
    name: str,
    datasets: list[dict[str, Any]],
    pixel_size_um: dict[str, float],
    window: tuple[float, float],
) -> dict[str, Any]:
    axes: list[dict[str, str]] = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    for axis in "ZYX":
        # Without a unit a scale is no pixel size.
        unit = {"unit": "micrometer"} if axis in pixel_size_um else {}
        axes.append({"name": axis.lower(), "type": "space"} | unit)
    low, high = window
    channel = {
        "label": name,
        "color": "FFFFFF",
        "active": True,
        "window": {"start": low, "end": high, "min": low, "max": high},
    }
    return {
        "version": "0.5",
        "multiscales": [{"name": name, "axes": axes, "datasets": datasets}],
        "omero": {"channels": [channel]},
    }
