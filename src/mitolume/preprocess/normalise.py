"""Grey values to numbers around 0 with a spread of 1. Knows no file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

# Statistics of a plane come from a regular grid of at most this many pixels: enough for a
# percentile, and memory stays flat on images that fill a slide.
_MOST_PIXELS = 2**22


@dataclass(frozen=True)
class GreyRange:
    """What `normalise` needs to know of a whole plane, so that its tiles agree."""

    low: float
    high: float
    mean: float
    spread: float


def measure_range(image: np.ndarray[Any, Any]) -> GreyRange:
    """Measure mean and spread of a plane, leaving out the darkest and brightest 0.5 %.

    Dust, hot pixels and droplets would otherwise set the scale for everything else.

    Parameters
    ----------
    image
        (Y, X), any numeric dtype.

    Returns
    -------
    GreyRange
        The 0.5 and 99.5 percentiles, and mean and standard deviation between them.
    """
    step = sample_step((image.shape[0], image.shape[1]))
    return range_of_sample(image[::step, ::step])


def is_flat(grey: GreyRange) -> bool:
    """Tell whether the spread of a plane is rounding, not contrast."""
    return grey.spread <= 1e-6 * max(abs(grey.mean), 1e-6)


def sample_step(shape: tuple[int, int]) -> int:
    """Return the step of the regular grid on which a plane of a (Y, X) shape is measured."""
    return max(1, math.ceil(math.sqrt(shape[0] * shape[1] / _MOST_PIXELS)))


def range_of_sample(sample: np.ndarray[Any, Any]) -> GreyRange:
    """Measure a plane by the pixels of its grid, see `sample_step` and `measure_range`."""
    # In one order, so that a plane read in parts sums to the same last digit.
    sample = np.ascontiguousarray(sample, np.float64)
    low, high = np.percentile(sample, [0.5, 99.5])
    inner = np.clip(sample, low, high)
    return GreyRange(float(low), float(high), float(inner.mean()), float(inner.std()))


def normalise(
    image: np.ndarray[Any, Any], grey: GreyRange | None = None
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Shift and scale a plane to mean 0 and standard deviation 1.

    Values far outside the plane's range are cut at 3 ranges' distance; a flat plane becomes 0.

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
    return np.asarray((cut - grey.mean) / grey.spread, np.float32)
