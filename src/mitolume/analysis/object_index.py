"""Lists of the objects in a label image, and which windows of a large image hold them whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage

from mitolume.io.masks import compact

Array = np.ndarray[Any, Any]

BOX = ("z0", "z1", "y0", "y1", "x0", "x1")
Window = tuple[slice, ...]

_PIXELS = 2**24  # in memory at once: 64 MB of labels, and a few times that while measuring


def index_objects(
    labels: Array, origin: Sequence[int] | None = None, shape: Sequence[int] | None = None
) -> pd.DataFrame:
    """List the objects of a label image, or of a part of one.

    Parameters
    ----------
    labels
        (Y, X) or (Z, Y, X), whole numbers, 0 background. Numbers may be missing.
    origin, shape
        Where the part begins in the image, and the size of that; by default it is the image.

    Returns
    -------
    pandas.DataFrame
        A row for each object: ``label``, its box ``z0 z1 y0 y1 x0 x1`` in the whole image
        (half-open, px; z from 0 to 1 in a plane), ``size_px``, and ``first``, the place of its
        first pixel, counted row by row through the whole image.
    """
    ndim = labels.ndim
    labels, numbers = compact(labels)
    start = np.asarray(origin or (0,) * ndim)
    found = [(n, box) for n, box in enumerate(ndimage.find_objects(labels), 1) if box is not None]
    label = np.array([n for n, _ in found], np.int64)
    boxes = np.array([[(s.start, s.stop) for s in box] for _, box in found], np.int64)
    ends = np.tile(np.array([0, 1]), (len(found), 3, 1))
    ends[:, 3 - ndim :] = boxes.reshape(-1, ndim, 2) + start[:, None]
    flat = labels.ravel()
    at = np.flatnonzero(flat)
    first = np.zeros(len(numbers), np.int64)
    first[flat[at[::-1]]] = at[::-1]  # of equal labels, the last written stays: the first pixel
    place = np.unravel_index(first[label], labels.shape)
    table = pd.DataFrame({"label": numbers[label].astype(np.int64)})
    table[list(BOX)] = ends.reshape(-1, 6)
    table["size_px"] = np.bincount(flat[at], minlength=len(numbers))[label]
    table["first"] = np.ravel_multi_index(
        [p + s for p, s in zip(place, start, strict=True)], tuple(shape or labels.shape)
    )
    return table


def join_parts(table: pd.DataFrame) -> pd.DataFrame:
    """Merge rows of `index_objects` that have one label: of an object in several blocks."""
    how = {name: "min" if name.endswith("0") else "max" for name in BOX}
    return table.groupby("label", as_index=False).agg(how | {"size_px": "sum", "first": "min"})


def boxes_in(table: pd.DataFrame, ndim: int) -> Array:
    """Return where objects begin and end along the axes of their image: (objects, axes, 2)."""
    return table[list(BOX)].to_numpy().reshape(-1, 3, 2)[:, 3 - ndim :]


def blocks_of(shape: Sequence[int], block: Sequence[int]) -> list[Window]:
    """Cut an image of this many pixels along each axis into blocks, row by row."""
    spans = [
        [slice(start, min(start + side, n)) for start in range(0, n, side)]
        for n, side in zip(shape, block, strict=True)
    ]
    return list(product(*spans))


def windows_of(
    boxes: pd.DataFrame,
    shape: Sequence[int],
    margin: Sequence[int] = (0, 0, 0),
    pixels: int = _PIXELS,
) -> Iterator[tuple[Window, pd.DataFrame]]:
    """Group objects by place, and give for each group the window that holds them whole.

    An object belongs to the block of the image where its box begins. Windows overlap, groups do
    not: every object comes once. The objects of a group are those that may be measured in its
    window; others may reach into it.

    ``boxes`` has a row for each object, with columns ``z0 z1 y0 y1 x0 x1`` (half-open, px); each
    group holds some of its rows. ``margin`` (px along Z, Y and X) is added around the boxes, and
    cut at the edges of the image of ``shape``. A window has about ``pixels`` pixels; a single
    object may need more.
    """
    if boxes.empty:
        return
    side = max(64, int((pixels / shape[0]) ** 0.5))
    block = (boxes["y0"] // side) * (shape[2] // side + 1) + boxes["x0"] // side
    large = (boxes["y1"] - boxes["y0"] > side) | (boxes["x1"] - boxes["x0"] > side)
    # An object larger than a block would make its whole group's window large: it goes alone.
    block = block.where(~large, -1 - np.arange(len(boxes)))
    for _, group in boxes.groupby(block.to_numpy(), sort=True):
        yield (
            tuple(
                slice(
                    max(int(group[f"{axis}0"].min()) - around, 0),
                    min(int(group[f"{axis}1"].max()) + around, size),
                )
                for axis, around, size in zip("zyx", margin, shape, strict=True)
            ),
            group,
        )
