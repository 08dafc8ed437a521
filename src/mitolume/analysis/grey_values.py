"""Intensities of objects and of rings around them. Knows no file and no unit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

Ints = NDArray[np.int64]

RING_PX = 3.0  # width of the ring around an object, in the smallest side of a pixel
_GAP_PX = 1.5  # leaves out all pixels that touch the object, also by a corner


def ring_margin(spacing: Sequence[float]) -> tuple[int, ...]:
    """How far the ring reaches beyond an object's box, in pixels along each axis."""
    return tuple(math.floor((_GAP_PX + RING_PX) * min(spacing) / side) for side in spacing)


def ring_pixels(
    labels: NDArray[np.integer[Any]],
    boxes: Sequence[tuple[slice, ...]],
    spacing: Sequence[float],
    free: NDArray[np.bool_],
) -> tuple[Ints, Ints]:
    """Find the pixels of the ring around each object, numbered from 1 without gaps.

    A ring begins behind the pixels that touch the object and is `RING_PX` wide, measured in the
    smallest side of a pixel. It lies where ``free`` is True: neither on an object nor unsure. Rings
    of neighbours may share pixels. Returned are positions in the flattened image, and the number
    of the object (from 0) of each.
    """
    sampling = [side / min(spacing) for side in spacing]
    found = [np.zeros(0, np.int64)]
    for number, box in enumerate(boxes, 1):
        around = tuple(
            slice(max(side.start - more, 0), side.stop + more)
            for side, more in zip(box, ring_margin(spacing), strict=True)
        )
        away = ndimage.distance_transform_edt(labels[around] != number, sampling=sampling)
        ring = (away > _GAP_PX) & (away <= _GAP_PX + RING_PX) & free[around]
        at = [axis + side.start for axis, side in zip(np.nonzero(ring), around, strict=True)]
        found.append(np.ravel_multi_index(at, labels.shape))
    return np.concatenate(found), np.repeat(np.arange(len(boxes)), [len(f) for f in found[1:]])


def statistics(values: NDArray[Any], owner: NDArray[np.integer[Any]], n: int) -> pd.DataFrame:
    """Mean, median, spread, extremes and sum of the values of each of n objects, a row for each.

    ``owner`` is the number of the object (from 0) of each value. What is not finite does not
    count; all is NaN where an object has no value. The spread is divided by the number of pixels.
    """
    known = np.where(np.isfinite(values), values, np.nan).astype(np.float64)
    objects = pd.Series(known).groupby(owner)
    found = objects.agg(["mean", "median", "min", "max"])
    found["std"], found["sum"] = objects.std(ddof=0), objects.sum(min_count=1)
    return found[["mean", "median", "std", "min", "max", "sum"]].reindex(range(n))


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
