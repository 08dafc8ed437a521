"""Thousands of small images as one OME-Zarr. Knows no object."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mitolume.errors import MitolumeError

_CHUNK = 256  # side of a chunk, px: empty margins of small crops cost nothing
_HELD = 2**27  # values that may be held at once, while they are written

Crop = np.ndarray[Any, Any]  # (C, Z, Y, X)


def save_crops(path: Path, crops: Sequence[Crop]) -> None:
    """Keep crops of one field until all fields' are there."""
    np.savez(path, *crops)


def write_crop_store(
    path: Path, parts: Sequence[Path], channels: Sequence[str], pixel_size_um: dict[str, float]
) -> None:
    """Write crops as one OME-Zarr 0.5 image whose T axis counts them.

    Every crop begins at the corner of its plane; what lies beyond its end is 0. So many chunks
    share a file (a shard) that there are few files.

    Parameters
    ----------
    path
        The store, ending in ``.zarr``.
    parts
        Files of `save_crops`, in order.
    channels
        Their names.
    pixel_size_um
        ``Z Y X`` to µm, where known.

    Raises
    ------
    MitolumeError
        Crops differ in the number of their channels.
    """
    import zarr

    shapes = [shape for part in parts for shape in _shapes(part)]
    if len({shape[0] for shape, _ in shapes}) > 1:
        raise MitolumeError(
            f"{path}: the images have different channels, which one store can't hold; "
            "name a folder with --crops"
        )
    most = tuple(max(shape[axis] for shape, _ in shapes) for axis in range(4))
    dtype = np.result_type(*[dtype for _, dtype in shapes])
    inner = (most[1], min(_CHUNK, most[2]), min(_CHUNK, most[3]))
    shard = tuple(-(-size // chunk) * chunk for size, chunk in zip(most[1:], inner, strict=True))
    together = int(np.clip(_HELD // (most[0] * np.prod(shard)), 1, len(shapes)))
    temporary = path.with_name(f".part-{os.getpid()}.{path.name}")
    try:
        group = zarr.create_group(
            str(temporary), attributes={"ome": _metadata(path, channels, pixel_size_um)}
        )
        array = group.create_array(
            "0", shape=(len(shapes), *most), dtype=dtype, chunks=(1, 1, *inner),
            shards=(together, most[0], *shard), dimension_names=list("tczyx"),
        )  # fmt: skip
        held = np.zeros((together, *most), dtype)
        number = 0
        for part in parts:
            with np.load(part) as crops:
                for key in crops.files:
                    crop = crops[key]
                    held[number % together][tuple(map(slice, crop.shape))] = crop
                    number += 1
                    if number % together == 0 or number == len(shapes):
                        first = (number - 1) // together * together
                        array[first:number] = held[: number - first]
                        held[:] = 0
        shutil.rmtree(path, ignore_errors=True)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _shapes(part: Path) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
    with np.load(part) as crops:
        return [(crops[key].shape, crops[key].dtype) for key in crops.files]


def _metadata(path: Path, channels: Sequence[str], size: dict[str, float]) -> dict[str, Any]:
    axes: list[dict[str, str]] = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    for axis in "ZYX":
        unit = {"unit": "micrometer"} if axis in size else {}
        axes.append({"name": axis.lower(), "type": "space"} | unit)
    scale = [1.0, 1.0, *(size.get(axis, 1.0) for axis in "ZYX")]
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    shown = [{"label": name, "color": "FFFFFF", "active": True} for name in channels]
    return {
        "version": "0.5",
        "multiscales": [{"name": path.name, "axes": axes, "datasets": [level]}],
        "omero": {"channels": shown},
    }
