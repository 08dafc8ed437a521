"""Scores against hand-counted examples and an independent implementation."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from torchmetrics.functional.classification import binary_jaccard_index, multiclass_jaccard_index

from mitolume.analysis.metrics import (
    COUNT_SCORES,
    Counts,
    best_threshold,
    boundary_f1,
    chance_iou,
    cldice,
    count,
    dice,
    iou,
    miou,
    object_recall,
    precision,
    probability_histogram,
    recall,
)
from mitolume.runs.results import RESULT_COLUMNS, image_scores, summarise, value_of

masks = hnp.arrays(np.uint8, (9, 11), elements=st.sampled_from([0, 1, 255]))
predictions = hnp.arrays(np.uint8, (9, 11), elements=st.sampled_from([0, 1]))


@given(predictions, masks)
def test_counts_cover_every_pixel_and_agree_with_torchmetrics(p: np.ndarray, t: np.ndarray) -> None:
    c = count(p, t)
    assert c.tp + c.fp + c.fn + c.tn + c.n_unsure == t.size
    assert c.n_unsure == (t == 255).sum()
    arguments = torch.from_numpy(p).int(), torch.from_numpy(t).int()
    if c.tp + c.fp + c.fn:
        assert iou(c) == pytest.approx(float(binary_jaccard_index(*arguments, ignore_index=255)))
        if c.tn + c.fp + c.fn:
            reference = multiclass_jaccard_index(*arguments, num_classes=2, ignore_index=255)
            assert miou(c) == pytest.approx(float(reference), abs=1e-6)
    else:
        assert math.isnan(iou(c))


def test_scores_of_known_counts() -> None:
    c = Counts(tp=6, fp=2, fn=4, tn=88)
    assert iou(c) == 6 / 12
    assert dice(c) == 12 / 18
    assert precision(c) == 6 / 8
    assert recall(c) == 6 / 10
    assert miou(c) == (6 / 12 + 88 / 94) / 2
    assert chance_iou(c) == 0.1
    assert COUNT_SCORES["chance_miou"](c) == 0.45
    assert c + c == Counts(12, 4, 8, 176)


@given(masks)
def test_chance_is_what_a_blind_answer_scores(t: np.ndarray) -> None:
    everything, nothing = np.ones_like(t), np.zeros_like(t)
    c = count(everything, t)
    if c.tp:
        assert chance_iou(c) == iou(c)
    blind = [0 if math.isnan(v := miou(count(p, t))) else v for p in (everything, nothing)]
    if c.tp and c.fp:
        assert COUNT_SCORES["chance_miou"](c) == pytest.approx(max(blind))


def rods() -> np.ndarray:
    mask = np.zeros((40, 60), np.uint8)
    mask[5:9, 5:55] = 1
    mask[20:24, 5:25] = 1
    return mask


def test_thin_scores_are_one_for_the_truth_and_zero_for_nothing() -> None:
    truth = rods()
    for score in (cldice, boundary_f1, object_recall):
        assert score(truth, truth) == 1
        assert score(np.zeros_like(truth), truth) == 0
        assert math.isnan(score(np.zeros_like(truth), np.zeros_like(truth)))


def test_thin_scores_see_what_iou_does_not() -> None:
    truth = rods()
    thinned = truth.copy()
    thinned[[5, 8, 20, 23]] = 0  # half the width: IoU falls to a half, the centreline stays
    assert iou(count(thinned, truth)) == 0.5
    assert cldice(thinned, truth) > 0.9
    assert boundary_f1(thinned, truth) == 1
    lost = truth.copy()
    lost[20:24] = 0
    assert object_recall(lost, truth) == 0.5


def test_masks_with_unsure_rims_have_no_boundary_to_score() -> None:
    truth = rods()
    rim = ndimage.binary_dilation(truth == 1, iterations=2) & (truth == 0)
    prediction = truth.copy()
    truth[rim] = 255
    prediction[30:34, 2:6] = 1
    assert math.isnan(boundary_f1(prediction, truth))
    truth[5, :10] = 0  # one boundary is drawn
    assert boundary_f1(prediction, truth) >= 0


def test_unsure_pixels_change_no_score() -> None:
    truth = rods()
    prediction = truth.copy()
    prediction[30:38, 30:50] = 1
    truth[30:38, 30:50] = 255
    assert image_scores(prediction, truth)["iou"] == 1
    assert cldice(prediction, truth) == 1
    assert boundary_f1(prediction, truth) == 1


def test_the_best_threshold_is_found_and_a_flat_top_is_met_in_the_middle() -> None:
    truth = np.array([0] * 50 + [1] * 50, np.uint8)
    probability = np.where(truth == 1, 0.7, 0.3).astype(np.float32)
    threshold, best = best_threshold(probability_histogram(probability, truth))
    assert 0.3 < threshold <= 0.7
    assert best == 1
    probability[60:] = 0.12
    probability[:50] = 0.02
    assert best_threshold(probability_histogram(probability, truth))[0] < 0.15


def image_row(**over: object) -> dict:
    row = {"image": "a", "plane": 0, "model": "model_1", "subset": "test", "specimen": "s",
           "condition": "", "batch": "", "arm": "x", "method": "m", "network": "unet", "k": 2,
           "seed": 0}  # fmt: skip
    return row | image_scores(rods(), rods()) | over


def test_results_pool_pixels_count_images_and_leave_out_the_undefined() -> None:
    empty = np.zeros((40, 60), np.uint8)
    half = rods()
    half[20:24] = 0
    table = pd.DataFrame(
        [
            image_row(),
            image_row(image="b", specimen="t", **image_scores(half, rods())),
            image_row(image="c", specimen="t", **image_scores(empty, empty)),
            image_row(image="u", subset="unlabelled", tp=np.nan, fp=np.nan, fn=np.nan, tn=np.nan),
        ]
    )
    results = summarise(table)
    assert tuple(results.columns) == RESULT_COLUMNS
    assert set(results["subset"]) == {"test"}
    pooled = count(rods(), rods()) + count(half, rods())
    assert value_of(results, "model_1", "test", "iou") == pytest.approx(iou(pooled))
    mean = (1 + iou(count(half, rods()))) / 2
    assert value_of(results, "model_1", "test", "iou_image") == pytest.approx(mean)
    by_metric = results.set_index("metric")
    assert by_metric.loc["iou", ["n_images", "n_specimens"]].tolist() == [3, 2]
    assert by_metric.loc["iou_image", "n_images"] == 2
    assert by_metric.loc["n_undefined", "value"] == 1


def test_no_images_give_an_empty_table_with_all_columns() -> None:
    table = pd.DataFrame([image_row()]).iloc[:0]
    assert tuple(summarise(table).columns) == RESULT_COLUMNS
