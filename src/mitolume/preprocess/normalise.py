"""Grey values to numbers around 0 with a spread of 1."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mitolume.io.suspicion import is_rounding
from mitolume.io.windows import Plane

SAMPLED = 2**22  # pixels of a plane that are measured at most
_LEAST = 2**10  # pixels without which nobody can tell a border
_ALIKE = 0.1  # of the spread: a border that was added is one value, but for scan lines removed
_LEVELS = 4  # fewer grey levels apart, the darkest pixels may be those without a photon


@dataclass(frozen=True)
class GreyRange:
    """What `normalise` needs to know of a whole plane, so that its tiles agree.

    Pixels below ``border`` are a black border, or corners, that stitching or registering added.
    """

    low: float
    high: float
    mean: float
    spread: float
    border: float = -math.inf


def measure_range(plane: Plane) -> GreyRange:
    """Measure mean and spread of a plane between its 0.5 and 99.5 percentiles.

    Dust, hot pixels and droplets would otherwise set the scale for everything else. A black border
    is left out: up to half of the pixels, of one value that is darker than all others by more than
    their spread and by several grey levels. The plane is as for `sampled`.
    """
    sample = sampled(plane)
    whole, darkest = _range(sample), sample.min()
    if sample.size < _LEAST or whole.low - darkest > _ALIKE * whole.spread:
        return whole  # the darkest value is not that of many pixels
    border = (darkest + np.median(sample)) / 2
    shown, added = sample[sample >= border], sample[sample < border]
    if not added.size:
        return whole
    own = _range(shown)
    alike = np.percentile(added, 95) - darkest <= _ALIKE * own.spread
    if is_flat(own) or not alike or own.low - darkest <= own.spread:
        return whole
    if own.low - darkest < _LEVELS * np.diff(np.unique(shown)).min():
        return whole
    return replace(own, border=float(border))


def _range(sample: np.ndarray[Any, np.dtype[np.float64]]) -> GreyRange:
    low, high = np.percentile(sample, [0.5, 99.5])
    inner = np.clip(sample, low, high)
    return GreyRange(float(low), float(high), float(inner.mean()), float(inner.std()))


def sampled(plane: Plane) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return pixels on a regular grid, by which a plane is measured.

    The plane is (Y, X): an array, or what slices like one, which is read in parts.
    """
    height, width = plane.shape
    # A regular grid of 4 Mpx is enough for a percentile, and memory stays flat.
    step = max(1, math.ceil(math.sqrt(height * width / SAMPLED)))
    side = max(height, width) if isinstance(plane, np.ndarray) else 2048 // step * step
    rows, columns = (
        [slice(start, min(start + side, size)) for start in range(0, size, side)]
        for size in (height, width)
    )
    # Copies: a view would keep the whole part in memory.
    parts = [[plane[y, x][::step, ::step].copy() for x in columns] for y in rows]
    return np.block(parts).astype(np.float64)


def is_flat(grey: GreyRange) -> bool:
    """Tell whether the spread of a plane is rounding, not contrast."""
    return is_rounding(grey.spread, grey.mean)


def normalise(
    image: np.ndarray[Any, Any], grey: GreyRange | None = None
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Shift and scale a plane to mean 0 and standard deviation 1.

    Values far outside the plane's range are cut at 3 ranges' distance; a flat plane becomes 0, and
    so does a border that was added (`measure_range`).

    Parameters
    ----------
    image
        (Y, X), any numeric dtype; a whole plane or a part of it.
    grey
        The statistics of the whole plane; measured on ``image`` by default.

    Returns
    -------
    numpy.ndarray
        (Y, X), float32.

    Examples
    --------
    >>> normalise(np.array([[0, 10], [0, 10]], np.uint8)).tolist()
    [[-1.0, 1.0], [-1.0, 1.0]]
    """
    grey = grey or measure_range(image)
    if is_flat(grey):
        return np.zeros(image.shape, np.float32)
    reach = 3 * (grey.high - grey.low)
    cut = np.clip(image.astype(np.float32), grey.low - reach, grey.high + reach)
    if grey.border > -math.inf:
        cut[image < grey.border] = grey.mean
    return np.asarray((cut - grey.mean) / grey.spread, np.float32)
