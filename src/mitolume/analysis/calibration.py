"""Whether probabilities mean what they say. Knows no model and no file."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mitolume.io.masks import FOREGROUND, UNSURE, Mask

BINS = 10
Reliability = NDArray[np.float64]


def reliability(probability: NDArray[np.floating[Any]], truth: Mask) -> Reliability:
    """Count the sure pixels of an image by the probability that they got.

    Parameters
    ----------
    probability
        (Y, X), of mitochondria.
    truth
        (Y, X) uint8 of 0, 1, 255 (unsure, not counted).

    Returns
    -------
    numpy.ndarray
        (3, 10) float64, for ten equal bins from 0 to 1: how many pixels, how many of them are
        mitochondria, and the sum of their probabilities. Those of several images are added up.
    """
    sure = truth != UNSURE
    given = np.asarray(probability[sure], np.float64)
    index = np.minimum((given * BINS).astype(int), BINS - 1)
    weights = (None, truth[sure] == FOREGROUND, given)
    return np.stack([np.bincount(index, w, BINS).astype(np.float64) for w in weights])


def calibration_error(counted: Reliability) -> float:
    """Return the expected calibration error (Naeini et al., AAAI 2015; Guo et al., ICML 2017).

    The difference between the probability that pixels got and the share of them that are
    mitochondria, averaged over the bins, each with its number of pixels.

    Parameters
    ----------
    counted
        (3, 10), see `reliability`.

    Returns
    -------
    float
        0 to 1; NaN where there are no pixels.

    Examples
    --------
    >>> calibration_error(reliability(np.array([[0.75, 0.75]]), np.array([[1, 0]])))
    0.25
    """
    pixels, foreground, probability = counted
    total = float(pixels.sum())
    return float(np.abs(foreground - probability).sum()) / total if total else math.nan


def pooled(table: pd.DataFrame) -> Reliability:
    """Add up rows of a reliability table.

    Parameters
    ----------
    table
        Columns ``low`` (where the bin begins), ``n_pixels``, ``probability`` (their mean) and
        ``foreground`` (the share of them that is mitochondria); NaN where there is no pixel.

    Returns
    -------
    numpy.ndarray
        (3, 10), see `reliability`.
    """
    n = table["n_pixels"]
    sums = pd.DataFrame(
        {"n": n, "foreground": n * table["foreground"], "probability": n * table["probability"]}
    )
    bins = (table["low"] * BINS).round().astype(int)
    added = sums.fillna(0.0).groupby(bins).sum().reindex(range(BINS), fill_value=0.0)
    return added.to_numpy(np.float64).T
