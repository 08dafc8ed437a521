"""Objects matched with true ones: counts first, scores second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mitolume.analysis.metrics import ratio
from mitolume.io.masks import compact

Array = np.ndarray[Any, Any]

# As twentieths, so that an IoU of exactly 0.55 is compared exactly.
_TWENTIETHS = range(10, 20)
THRESHOLDS = tuple(k / 20 for k in _TWENTIETHS)


@dataclass(frozen=True)
class ObjectCounts:
    """Objects of one image, or of many pooled.

    ``tp`` holds the matched pairs at each of ``THRESHOLDS`` (IoU above 0.5, 0.55 ... 0.95);
    ``iou_sum`` is the summed IoU of those above 0.5.
    """

    n_true: int = 0
    n_predicted: int = 0
    tp: tuple[int, ...] = (0,) * len(THRESHOLDS)
    iou_sum: float = 0.0


def count_objects(
    predicted: Array,
    truth: Array,
    predicted_unsure: Array | None = None,
    truth_unsure: Array | None = None,
) -> ObjectCounts:
    """Match predicted with true objects of two label images of one shape, and count the pairs.

    Two objects are a pair where their intersection over union is above the threshold. From 0.5 on
    each object has one partner at most (it would need more than half of two disjoint objects), so
    there is nothing to assign.

    Unsure pixels, of either side, count in no area. An object that is mostly unsure and has no
    partner is not counted, as Kirillov et al. (CVPR 2019) do with their void pixels.

    Examples
    --------
    >>> count_objects(np.array([1, 1, 1, 1, 0, 2]), np.array([0, 7, 7, 7, 0, 0]))
    ObjectCounts(n_true=1, n_predicted=2, tp=(1, 1, 1, 1, 1, 0, 0, 0, 0, 0), iou_sum=0.75)
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"predicted is {predicted.shape}, but truth is {truth.shape}")
    some = (predicted > 0) | (truth > 0)
    sure = np.ones(int(some.sum()), bool)
    for unsure in (predicted_unsure, truth_unsure):
        if unsure is not None:
            sure &= ~unsure[some]
    p, p_pixels, p_sure = _areas(predicted[some], sure)
    t, t_pixels, t_sure = _areas(truth[some], sure)
    both = sure & (p > 0) & (t > 0)
    code, shared = np.unique(t[both] * len(p_pixels) + p[both], return_counts=True)
    first, second = np.divmod(code, len(p_pixels))
    union = t_sure[first] + p_sure[second] - shared
    paired = 20 * shared > 10 * union
    iou = shared[paired] / union[paired]
    return ObjectCounts(
        n_true=_counted(t_pixels, t_sure, first[paired]),
        n_predicted=_counted(p_pixels, p_sure, second[paired]),
        tp=tuple(int((20 * shared > k * union).sum()) for k in _TWENTIETHS),
        iou_sum=float(iou.sum()),
    )


def _average_precision(c: ObjectCounts, tp: int) -> float:
    return ratio(tp, c.n_true + c.n_predicted - tp)


# TP / (TP + FP + FN) is called average precision by the Data Science Bowl (Caicedo et al., Nature
# Methods 2019) and Cellpose; it isn't COCO's, the area under a curve over confidences: a mask has
# none. Panoptic quality is segmentation quality times F1 (Kirillov et al., CVPR 2019).
OBJECT_SCORES: dict[str, Callable[[ObjectCounts], float]] = {
    "object_precision_50": lambda c: ratio(c.tp[0], c.n_predicted),
    "object_recall_50": lambda c: ratio(c.tp[0], c.n_true),
    "object_f1_50": lambda c: ratio(2 * c.tp[0], c.n_true + c.n_predicted),
    "object_ap_50": lambda c: _average_precision(c, c.tp[0]),
    "object_ap_75": lambda c: _average_precision(c, c.tp[THRESHOLDS.index(0.75)]),
    "object_ap": lambda c: sum(_average_precision(c, tp) for tp in c.tp) / len(c.tp),
    "panoptic_quality": lambda c: ratio(2 * c.iou_sum, c.n_true + c.n_predicted),
    "segmentation_quality": lambda c: ratio(c.iou_sum, c.tp[0]),
}


def _areas(labels: Array, sure: Array) -> tuple[Array, Array, Array]:
    """Return `compact` labels, and how many pixels each has, all and the sure ones; 0 has none."""
    numbered, present = compact(labels.astype(np.int64))
    pixels = np.bincount(numbered, minlength=len(present))
    pixels_sure = np.bincount(numbered[sure], minlength=len(present))
    pixels[0] = pixels_sure[0] = 0
    return numbered, pixels, pixels_sure


def _counted(pixels: Array, sure: Array, paired: Array) -> int:
    counted = (pixels > 0) & (2 * sure >= pixels)
    counted[paired] = True
    return int(counted.sum())
