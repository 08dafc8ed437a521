"""Object scores against hand-counted examples, plain loops, and torchmetrics."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from helpers.command import Shell
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torchmetrics.functional.detection import panoptic_quality as reference_quality

from mitolume.analysis.object_scores import (
    OBJECT_SCORES,
    THRESHOLDS,
    ObjectCounts,
    count_objects,
)
from mitolume.batch.evaluate import evaluate, scores_text


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw blocky true objects, and predictions that are these with errors; unsure pixels."""
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    truth = np.kron(rng.integers(0, 9, (4, 5)), np.ones((3, 4), int))
    predicted = rng.permutation(12)[truth + 1] * (truth > 0)
    changed = rng.random(truth.shape) < draw(st.sampled_from([0.0, 0.1, 0.3]))
    predicted[changed] = rng.integers(0, 12, changed.sum())
    share = draw(st.sampled_from([0.0, 0.2, 0.5]))
    unsure = np.kron(rng.random((2, 4, 10)) < share, np.ones((1, 3, 2), int)).astype(bool)
    predicted[unsure[0]], truth[unsure[1]] = 0, 0
    return predicted, truth, unsure[0], unsure[1]


def by_loops(
    predicted: np.ndarray, truth: np.ndarray, threshold: Fraction
) -> tuple[int, int, int, float]:
    """Return TP, FP, FN and summed IoU by the best assignment of sets of pixels."""
    ps = [set(np.flatnonzero(predicted == n)) for n in np.unique(predicted) if n]
    ts = [set(np.flatnonzero(truth == n)) for n in np.unique(truth) if n]
    if not ps or not ts:
        return 0, len(ps), len(ts), 0.0
    iou = [[Fraction(len(p & t), len(p | t)) for p in ps] for t in ts]
    rows, columns = linear_sum_assignment(
        [[float(i) if i > threshold else 0.0 for i in row] for row in iou], maximize=True
    )
    kept = [iou[r][c] for r, c in zip(rows, columns, strict=True) if iou[r][c] > threshold]
    return len(kept), len(ps) - len(kept), len(ts) - len(kept), float(sum(kept))


@given(pairs())
@settings(max_examples=40)
def test_counts_are_those_of_plain_loops(case: tuple[np.ndarray, ...]) -> None:
    predicted, truth, *_ = case
    c = count_objects(predicted, truth)
    for number in range(len(THRESHOLDS)):
        tp, fp, fn, summed = by_loops(predicted, truth, Fraction(number + 10, 20))
        assert c.tp[number] == tp
        assert (c.n_predicted, c.n_true) == (tp + fp, tp + fn)
        if number == 0:
            assert c.iou_sum == pytest.approx(summed)
        if number == 0 and tp + fp + fn:
            assert OBJECT_SCORES["object_ap_50"](c) == tp / (tp + fp + fn)
            assert OBJECT_SCORES["object_f1_50"](c) == tp / (tp + (fp + fn) / 2)


def coloured(labels: np.ndarray, unsure: np.ndarray) -> torch.Tensor:
    """Return (1, Y, X, 2): category 0 background, 1 mitochondrion, 9 unsure; object."""
    category = np.where(unsure, 9, labels > 0)
    return torch.from_numpy(np.stack([category, labels], axis=-1))[None].long()


@given(pairs())
@settings(max_examples=40)
def test_panoptic_quality_is_that_of_torchmetrics_unsure_pixels_included(
    case: tuple[np.ndarray, ...],
) -> None:
    predicted, truth, p_unsure, t_unsure = case
    c = count_objects(predicted, truth, p_unsure, t_unsure)
    quality, segmentation, recognition = reference_quality(
        coloured(predicted, p_unsure),
        coloured(truth, t_unsure),
        things={1},
        stuffs={0},
        allow_unknown_preds_category=True,
        return_sq_and_rq=True,
        return_per_class=True,
    )[0].tolist()
    names = ("panoptic_quality", "segmentation_quality", "object_f1_50")
    ours = [OBJECT_SCORES[name](c) for name in names]
    # torchmetrics has 0 where nothing is defined.
    assert np.nan_to_num(ours).tolist() == pytest.approx([quality, segmentation, recognition])


def test_scores_of_known_counts() -> None:
    c = ObjectCounts(n_true=10, n_predicted=8, tp=(6, 6, 6, 5, 5, 3, 2, 1, 0, 0), iou_sum=4.5)
    means = [6 / 12] * 3 + [5 / 13] * 2 + [3 / 15, 2 / 16, 1 / 17, 0, 0]
    assert {name: score(c) for name, score in OBJECT_SCORES.items()} == pytest.approx(
        {
            "object_precision_50": 6 / 8,
            "object_recall_50": 6 / 10,
            "object_f1_50": 12 / 18,
            "object_ap_50": 6 / 12,
            "object_ap_75": 3 / 15,
            "object_ap": np.mean(means),
            "panoptic_quality": 4.5 / 6 * 12 / 18,
            "segmentation_quality": 4.5 / 6,
        }
    )
    assert all(math.isnan(score(ObjectCounts())) for score in OBJECT_SCORES.values())


def test_an_iou_on_the_threshold_is_no_match() -> None:
    truth = np.arange(20) < 20
    for number, k in enumerate(range(10, 20)):
        c = count_objects((np.arange(20) < k).astype(int), truth.astype(int))
        assert sum(c.tp) == number, f"IoU {k}/20"


def test_objects_mostly_unsure_and_without_partner_are_not_counted() -> None:
    truth, predicted = np.zeros((2, 3, 30), int)
    truth[:, :5], predicted[:, :5] = 1, 1
    predicted[:, 10:20] = 2
    unsure = np.zeros(truth.shape, bool)
    unsure[:, 14:20] = True  # 60 %
    assert count_objects(predicted, truth, truth_unsure=unsure).n_predicted == 1
    unsure[:, 14:16] = False  # 40 %
    assert count_objects(predicted, truth, truth_unsure=unsure).n_predicted == 2
    # Turned round: true objects where the prediction is unsure.
    assert count_objects(truth, predicted, predicted_unsure=unsure).n_true == 2
    unsure[:, 14:16] = True
    assert count_objects(truth, predicted, predicted_unsure=unsure).n_true == 1
    # Unsure pixels lie in no union: half of a matched object may be unsure.
    unsure[:, 2:5] = True
    truth[:, 2:5] = 0
    c = count_objects(predicted, truth, truth_unsure=unsure)
    assert (c.tp[-1], c.iou_sum) == (1, 1.0)


def two_objects() -> np.ndarray:
    mask = np.zeros((30, 40), np.uint8)
    mask[3:9, 3:20] = mask[15:25, 10:35] = 1
    return mask


def test_evaluate_matches_objects_when_asked(tmp_path: Path, shell: Shell) -> None:
    for side in ("masks", "truth"):
        (tmp_path / side).mkdir()
    truth = two_objects()
    missed = truth.copy()
    missed[3:9] = 0
    empty = np.zeros_like(truth)
    for name, mask, real in (("a", truth, truth), ("b", missed, truth), ("c", empty, empty)):
        tifffile.imwrite(tmp_path / "masks" / f"{name}.tif", mask)
        tifffile.imwrite(tmp_path / "truth" / f"{name}.tif", real * 255)
    folders = tmp_path / "masks", tmp_path / "truth"
    out = tmp_path / "scores.csv"
    printed = shell("evaluate", *folders, "--objects", "--out", out)
    assert "objects: 4 true, 3 predicted, in 3 files" in printed
    assert "none in truth and masks: 1\n" in printed
    assert "object_recall_50          0.7500" in printed
    table = pd.read_csv(out)
    assert table["objects_true"].tolist() == [2, 2, 0]
    assert table["object_tp_95"].tolist() == [2, 1, 0]
    assert table["panoptic_quality"].tolist()[:2] == pytest.approx([1, 2 / 3])
    assert math.isnan(table["panoptic_quality"][2])
    assert "objects" not in shell("evaluate", *folders)


def test_touching_labels_are_single_objects_and_masks_are_not(tmp_path: Path) -> None:
    labels = two_objects().astype(np.uint16)
    labels[15:25, 20:35] = 300  # touches its neighbour
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    tifffile.imwrite(tmp_path / "mask.tif", (labels > 0).astype(np.uint8))
    found = evaluate(tmp_path / "mask.tif", tmp_path / "labels.tif", "labels", objects=True)
    assert found.loc[0, ["objects_predicted", "objects_true"]].tolist() == [2, 2]
    labels[15:25, 10:20] = 7
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    found = evaluate(tmp_path / "mask.tif", tmp_path / "labels.tif", "labels", objects=True)
    assert found.loc[0, ["objects_predicted", "objects_true"]].tolist() == [2, 3]
    # 150 of the 250 pixels of the touching two: an IoU of 0.6.
    assert found.loc[0, ["object_tp_55", "object_tp_60"]].tolist() == [2, 1]


def test_objects_of_a_stack_are_matched_in_3d(tmp_path: Path) -> None:
    stack = np.zeros((4, 30, 40), np.uint8)
    stack[:3, 3:9, 3:20] = 1
    stack[1:, 15:25, 10:35] = 1
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, ome=True, metadata={"axes": "ZYX"})
    found = evaluate(tmp_path / "a.ome.tif", tmp_path / "a.ome.tif", objects=True)
    assert len(found) == 4
    assert found["objects_true"].tolist()[0] == 2
    assert found["objects_true"].isna().tolist() == [False, True, True, True]
    assert "objects: 2 true, 2 predicted, in 1 file;" in scores_text(found)
    assert found["object_tp_95"].sum() == 2
