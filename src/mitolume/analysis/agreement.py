"""How far masks of one image agree: those of two people, or of several models.

Of two people neither is called right. Pixels are counted with
`mitolume.analysis.metrics.count(a, b)`: ``tp`` are marked by both, ``fp`` by A only, ``fn`` by B
only, ``tn`` by neither, and what either calls unsure (255) counts nowhere. Its `iou` and `dice`
don't change when A and B change places.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from mitolume.analysis.metrics import Counts, outlines
from mitolume.io.masks import UNSURE, Mask

Map = NDArray[np.floating[Any]]

# Columns of agreement.csv, a row for each plane.
PIXELS = ("n_both_px", "n_only_a_px", "n_only_b_px", "n_neither_px", "n_unsure_px")


def area_ratio(c: Counts) -> float:
    """Area that A marked over the area that B marked; NaN where either marked nothing.

    Above 1: A draws larger, or marks more.
    """
    a, b = c.tp + c.fp, c.tp + c.fn
    return a / b if a and b else math.nan


def outline_distance(
    a: Mask, b: Mask, pixel_size: tuple[float, float] = (1, 1)
) -> tuple[float, float]:
    """Measure how far apart two people drew their outlines.

    Parameters
    ----------
    a, b
        (Y, X) uint8 of 0, 1, 255 (unsure).
    pixel_size
        Pixel size along Y and X; distances have its unit.

    Returns
    -------
    mean
        The average symmetric surface distance, over the pixels of both outlines (Heimann et al.,
        IEEE TMI 2009); NaN where either has none.
    percentile_95
        The Hausdorff distance (Huttenlocher et al., IEEE PAMI 1993) with the 95th percentile for
        the maximum, the larger of both directions; NaN as the mean.

    Examples
    --------
    >>> a, b = np.zeros((2, 9, 9), np.uint8)
    >>> a[2:5, 2:5], b[2:5, 3:6] = 1, 1
    >>> outline_distance(a, b, pixel_size=(0.1, 0.1))[1]
    0.1
    """
    a_line, b_line = outlines(a, b, (a != UNSURE) & (b != UNSURE))
    if not a_line.any() or not b_line.any():
        return math.nan, math.nan
    a_to_b = ndimage.distance_transform_edt(~b_line, sampling=pixel_size)[a_line]
    b_to_a = ndimage.distance_transform_edt(~a_line, sampling=pixel_size)[b_line]
    furthest = max(np.percentile(a_to_b, 95), np.percentile(b_to_a, 95))
    return float(np.concatenate([a_to_b, b_to_a]).mean()), float(furthest)


def consensus(a: Mask, b: Mask) -> Mask:
    """Keep what two masks (uint8 of 0, 1, 255) agree on; all else is unsure (255).

    Examples
    --------
    >>> consensus(np.array([0, 1, 1, 255], np.uint8), np.array([0, 1, 0, 1], np.uint8)).tolist()
    [0, 1, 255, 255]
    """
    return np.where(a == b, a, np.uint8(UNSURE))


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return Student's 95 % interval of the mean of scores between 0 and 1, cut to that range.

    NaN is left out; (NaN, NaN) where fewer than 3 values are left.
    """
    defined = np.asarray(values, float)
    defined = defined[~np.isnan(defined)]
    if defined.size < 3:
        return math.nan, math.nan
    half = stats.t.ppf(0.975, defined.size - 1) * stats.sem(defined)
    mean = defined.mean()
    return float(max(0.0, mean - half)), float(min(1.0, mean + half))


def disagreement_map(votes: Map, n: int) -> NDArray[np.float32]:
    """Say of each pixel how often two of the masks differ there (query by committee).

    From the share of n masks that call a pixel mitochondria (Y, X), the share of all pairs of
    masks of which only one does.

    Examples
    --------
    >>> disagreement_map(np.array([[0.0, 0.5, 1.0]]), 2).tolist()
    [[0.0, 1.0, 0.0]]
    """
    return np.asarray(2 * votes * (1 - votes) * (n / (n - 1)), np.float32)


def disagreement(votes: Map, n: int, least: float = 0.0) -> float:
    """Say how much masks of one image disagree: 1 - IoU of an average pair of them (0 to 1).

    Votes are those of `disagreement_map`. A foreground below the share ``least`` of the image
    counts as so much, or a few specks in an empty image would be the greatest disagreement of all.
    """
    apart = float(disagreement_map(votes, n).mean(dtype=np.float64))
    either = float(np.mean(votes, dtype=np.float64)) + apart / 2
    return apart / max(either, least) if either else 0.0
