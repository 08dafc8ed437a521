"""Scores of masks and of probabilities, from counts of pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mitolume.io.masks import FOREGROUND, UNSURE, Mask

BOUNDARY_PX = 2  # a boundary this close counts as found
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Counts:
    """Pixels of one image, or of many pooled: true and false positives and negatives."""

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0
    n_unsure: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*map(sum, zip(astuple(self), astuple(other), strict=True)))


def count(prediction: Mask, truth: Mask) -> Counts:
    """Count the pixels of an image, leaving out those that are unsure.

    Parameters
    ----------
    prediction
        (..., Y, X) uint8; 1 is mitochondria. Pixels that are 255 here are left out too.
    truth
        The same shape; 0, 1 or 255 (unsure).

    Returns
    -------
    Counts

    Examples
    --------
    >>> count(np.array([1, 1, 0, 0]), np.array([1, 0, 0, 255]))
    Counts(tp=1, fp=1, fn=0, tn=1, n_unsure=1)
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction is {prediction.shape}, but truth is {truth.shape}")
    sure = (truth != UNSURE) & (prediction != UNSURE)
    p, t = prediction == FOREGROUND, truth == FOREGROUND
    tp = int((p & t & sure).sum())
    fp = int((p & ~t & sure).sum())
    fn = int((~p & t & sure).sum())
    tn = int((~p & ~t & sure).sum())
    return Counts(tp, fp, fn, tn, int((~sure).sum()))


def iou(c: Counts) -> float:
    """Intersection over union of the foreground (Jaccard); NaN where there is none at all."""
    return ratio(c.tp, c.tp + c.fp + c.fn)


def miou(c: Counts) -> float:
    """Mean of the foreground's and the background's IoU, as the published study reports it."""
    return (iou(c) + ratio(c.tn, c.tn + c.fp + c.fn)) / 2


def dice(c: Counts) -> float:
    """Dice coefficient of the foreground (F1 over pixels)."""
    return ratio(2 * c.tp, 2 * c.tp + c.fp + c.fn)


def precision(c: Counts) -> float:
    """Share of the predicted foreground that is right."""
    return ratio(c.tp, c.tp + c.fp)


def recall(c: Counts) -> float:
    """Share of the true foreground that was found."""
    return ratio(c.tp, c.tp + c.fn)


def chance_iou(c: Counts) -> float:
    """IoU of calling every pixel mitochondria: the share of the foreground."""
    return ratio(c.tp + c.fn, c.tp + c.fp + c.fn + c.tn)


# `chance_miou` is that of the better of two blind answers, all background and all mitochondria.
COUNT_SCORES: dict[str, Callable[[Counts], float]] = {
    "iou": iou,
    "miou": miou,
    "dice": dice,
    "precision": precision,
    "recall": recall,
    "chance_iou": chance_iou,
    "chance_miou": lambda c: max(chance_iou(c), 1 - chance_iou(c)) / 2,
}


def cldice(prediction: Mask, truth: Mask) -> float:
    """Centreline Dice (Shit et al., CVPR 2021): how far skeletons lie in the other mask."""
    from skimage.morphology import skeletonize  # predicting imports this module, and needs none

    sure = truth != UNSURE
    p, t = (prediction == FOREGROUND) & sure, (truth == FOREGROUND) & sure
    p_line, t_line = skeletonize(p), skeletonize(t)
    return _f1(p_line & t, p_line, t_line & p, t_line)


def boundary_f1(prediction: Mask, truth: Mask) -> float:
    """F1 of boundary pixels within `BOUNDARY_PX` of the other one (Csurka et al., BMVC 2013).

    NaN where all true rims are unsure: nobody drew a boundary.
    """
    p, t = outlines(prediction, truth, truth != UNSURE)
    if not t.any() and (truth == FOREGROUND).any():
        return math.nan
    near_t, near_p = (ndimage.distance_transform_edt(~line) <= BOUNDARY_PX for line in (t, p))
    return _f1(p & near_t, p, t & near_p, t)


def _f1(p_found: Bools, p: Bools, t_found: Bools, t: Bools) -> float:
    """F1 of the shares of predicted and of true pixels that are found; NaN where there are none."""
    if not p.any() and not t.any():
        return math.nan
    if not p.any() or not t.any():
        return 0.0
    one, other = float(p_found.sum() / p.sum()), float(t_found.sum() / t.sum())
    return 2 * one * other / (one + other) if one + other else 0.0


def outlines(a: Mask, b: Mask, sure: Bools) -> tuple[Bools, Bools]:
    """Outlines of two masks: marked pixels with an unmarked one beside them (4 neighbours).

    The edge of the image and the rim of an unsure region are not outlines that anybody drew.

    Parameters
    ----------
    a, b
        (Y, X) uint8; 1 is marked.
    sure
        The same shape; False where nobody knows what is there.
    """
    drawn = ~ndimage.binary_dilation(~sure)
    marked = [(mask == FOREGROUND) & sure for mask in (a, b)]
    one, other = (m & ~ndimage.binary_erosion(m, border_value=1) & drawn for m in marked)
    return one, other


def object_recall(prediction: Mask, truth: Mask) -> float:
    """Share of the true objects of which half or more is predicted.

    Masks are (Y, X) uint8 of 0, 1, 255 (unsure). Objects are connected components (8 neighbours).
    One that is mostly unsure in the prediction is not counted; of the rest, unsure pixels are left
    out.
    """
    labels, n = ndimage.label(truth == FOREGROUND, structure=np.ones((3, 3)))
    size, unsure, shared = (
        np.bincount(labels[where], minlength=n + 1)[1:]
        for where in (labels > 0, prediction == UNSURE, prediction == FOREGROUND)
    )
    counted = 2 * unsure <= size
    return ratio(int((counted & (2 * shared >= size - unsure)).sum()), int(counted.sum()))


# Of a prediction and a truth, (Y, X) uint8, whose unsure pixels are left out: 0 to 1, NaN where
# both are empty.
THIN_SCORES: dict[str, Callable[[Mask, Mask], float]] = {
    "cldice": cldice,
    "boundary_f1": boundary_f1,
    "object_recall": object_recall,
}


def mean_defined(values: Iterable[float]) -> float:
    """Average the values that are defined; NaN where none is."""
    defined = [v for v in values if not math.isnan(v)]
    return sum(defined) / len(defined) if defined else math.nan


def best_threshold(histograms: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Choose the threshold with the highest pooled IoU.

    Parameters
    ----------
    histograms
        (2, bins): how many sure background (0) and foreground (1) pixels have a probability in
        each of equal bins from 0 to 1, as `probability_histogram` counts them.

    Returns
    -------
    threshold, iou
        The middle of the thresholds within 0.001 of the best, inside 0.05 to 0.95, so that a
        flat top doesn't end at one of its edges; the IoU there.
    """
    bins = histograms.shape[1]
    edges = np.arange(bins) / bins
    above = histograms[:, ::-1].cumsum(axis=1)[:, ::-1]
    scores = above[1] / np.maximum(above[0] + histograms[1].sum(), 1)
    allowed = np.flatnonzero((edges >= 0.05) & (edges <= 0.95))
    near = allowed[scores[allowed] >= scores[allowed].max() - 0.001]
    chosen = near[len(near) // 2]
    return float(edges[chosen]), float(scores[chosen])


def probability_histogram(
    probability: np.ndarray[Any, Any], truth: Mask, bins: int = 100
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Count the probabilities of the sure background and foreground pixels, (2, bins)."""
    index = np.minimum((probability * bins).astype(int), bins - 1)
    return np.stack([np.bincount(index[truth == value], minlength=bins) for value in (0, 1)])


def ratio(part: float, whole: float) -> float:
    """Divide; NaN where there is nothing to divide by."""
    return part / whole if whole else math.nan
