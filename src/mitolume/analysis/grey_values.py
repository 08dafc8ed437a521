"""Intensities of objects and of rings around them. Knows no file and no unit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Ints = NDArray[np.int64]

RING_PX = 3.0
_GAP_PX = 1.5  # leaves out all pixels that touch the object, also by a corner


def ring_margin(ring_px: float, spacing: Sequence[float]) -> tuple[int, ...]:
    """How far the ring reaches beyond an object's box, in pixels along each axis."""
    return tuple(math.floor((_GAP_PX + ring_px) * min(spacing) / side) for side in spacing)


def ring_pixels(
    labels: NDArray[np.integer[Any]],
    ids: Sequence[int],
    boxes: Sequence[tuple[slice, ...]],
    spacing: Sequence[float],
    ring_px: float,
    unsure: NDArray[np.bool_] | None,
) -> tuple[Ints, Ints]:
    """Find the pixels of the ring around each object.

    A ring begins behind the pixels that touch the object and is `ring_px` wide, measured in the
    smallest side of a pixel. Pixels of other objects and unsure ones are in no ring. Rings of
    neighbours may share pixels.

    Parameters
    ----------
    labels
        (Y, X) or (Z, Y, X).
    ids, boxes
        The labels of the objects, and their boxes.
    spacing
        Pixel size along each axis.
    ring_px
        Width.
    unsure
        The shape of the labels, True where nobody knows what is there.

    Returns
    -------
    index, owner
        Positions in the flattened image, and the number of the object (from 0) of each.
    """
    margin = ring_margin(ring_px, spacing)
    sampling = [side / min(spacing) for side in spacing]
    free = labels == 0 if unsure is None else (labels == 0) & ~unsure

    def one(label: int, box: tuple[slice, ...]) -> Ints:
        around = tuple(
            slice(max(side.start - more, 0), side.stop + more)
            for side, more in zip(box, margin, strict=True)
        )
        away = ndimage.distance_transform_edt(labels[around] != label, sampling=sampling)
        ring = (away > _GAP_PX) & (away <= _GAP_PX + ring_px) & free[around]
        at = [axis + side.start for axis, side in zip(np.nonzero(ring), around, strict=True)]
        return np.asarray(np.ravel_multi_index(at, labels.shape), np.int64)

    found = [one(label, box) for label, box in zip(ids, boxes, strict=True)]
    index = np.concatenate([np.zeros(0, np.int64), *found])
    return index, np.repeat(np.arange(len(found)), [len(part) for part in found])


def statistics(values: NDArray[Any], owner: Ints, n: int) -> dict[str, NDArray[np.float64]]:
    """Mean, median, spread, extremes and sum of the values of each object.

    Parameters
    ----------
    values
        (pixels,), numeric. What is not finite does not count.
    owner
        (pixels,), the number of the object (from 0), in ascending order.
    n
        How many objects there are.

    Returns
    -------
    dict
        ``mean median std min max sum``, each (n,); all NaN where an object has no value. The
        spread is that of the pixels there are (divided by their number).
    """
    values = np.asarray(values, np.float64)
    finite = np.isfinite(values)
    values, owner = values[finite], owner[finite]
    count = np.bincount(owner, minlength=n)
    known = count > 0
    ranked = values[np.lexsort((values, owner))]
    start = np.cumsum(count) - count
    found = {name: np.full(n, math.nan) for name in ("mean", "median", "std", "min", "max", "sum")}
    first, size = start[known], count[known]
    found["sum"][known] = np.bincount(owner, values, n)[known]
    found["mean"] = found["sum"] / np.maximum(count, 1)
    squares = np.bincount(owner, (values - found["mean"][owner]) ** 2, n)[known]
    found["std"][known] = np.sqrt(squares / size)
    found["min"][known], found["max"][known] = ranked[first], ranked[first + size - 1]
    found["median"][known] = (ranked[first + (size - 1) // 2] + ranked[first + size // 2]) / 2
    return found


def column_names(channels: Sequence[str]) -> Iterator[str]:
    """Turn names of channels into endings of column names: readable, no two alike.

    Examples
    --------
    >>> list(column_names(["TMRM (561 nm)", "", "TMRM 561 nm"]))
    ['TMRM_561_nm', 'channel_2', 'TMRM_561_nm_2']
    """
    seen: set[str] = set()
    for number, channel in enumerate(channels, 1):
        words = "".join(letter if letter.isalnum() else " " for letter in channel).split()
        name = plain = "_".join(words) or f"channel_{number}"
        again = 1
        while name in seen:
            again += 1
            name = f"{plain}_{again}"
        seen.add(name)
        yield name
