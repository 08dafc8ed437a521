"""Which masks of unlabelled images to trust: calibration, the tables of the audit, the report."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.fields import tiny, write_field
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import mitolume
from mitolume.analysis.metrics import calibration_error, pooled, reliability
from mitolume.inference.predictor import load
from mitolume.io.read import read, read_plane
from mitolume.report.run_page import report_run
from mitolume.runs.audit import MEASURES, by_condition, calibration, doubt, write_audit
from mitolume.runs.folder import Run
from mitolume.runs.results import read_csv

EVIL = "<script>alert('x')</script>"
FILES = ("audit.csv", "audit_conditions.csv", "calibration.csv")


# Calibration ---------------------------------------------------------------------------------


@given(
    arrays(np.float32, (4, 6), elements=st.floats(0, 1, width=32)),
    arrays(np.uint8, (4, 6), elements=st.sampled_from([0, 1, 255])),
)
def test_every_sure_pixel_is_counted_where_it_belongs(p: np.ndarray, truth: np.ndarray) -> None:
    counted = reliability(p, truth)
    sure = truth != 255
    assert counted[0].sum() == sure.sum()
    assert counted[1].sum() == (truth == 1).sum()
    assert counted[2].sum() == pytest.approx(p[sure].sum(dtype=float))
    error = calibration_error(counted)
    assert (0 <= error <= 1) if sure.any() else np.isnan(error)
    means = counted[2][counted[0] > 0] / counted[0][counted[0] > 0]
    places = np.flatnonzero(counted[0])
    assert ((means >= places / 10 - 1e-6) & (means <= (places + 1) / 10 + 1e-6)).all()


def test_the_calibration_error_is_that_of_a_liar() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(size=(300, 300))
    honest = (rng.uniform(size=p.shape) < p).astype(np.uint8)
    assert calibration_error(reliability(p, honest)) < 0.01
    sure = np.where(p > 0.5, 0.95, 0.05)  # right in 3 of 4 cases only
    assert calibration_error(reliability(sure, honest)) == pytest.approx(0.2, abs=0.01)


def test_tables_of_groups_add_up() -> None:
    rng = np.random.default_rng(1)
    parts = [reliability(rng.uniform(size=(9, 9)), rng.integers(0, 2, (9, 9))) for _ in range(2)]
    scored = pd.DataFrame({"model": ["model_1"]})
    scored.attrs["reliability"] = [
        {"subset": "test", "condition": str(i), "batch": "", "counted": part.tolist()}
        for i, part in enumerate(parts)
    ]
    table = calibration([scored])
    assert len(table) == 20
    np.testing.assert_allclose(pooled(table), parts[0] + parts[1])
    np.testing.assert_allclose(pooled(table[table["condition"] == "1"]), parts[1])


# Doubt ---------------------------------------------------------------------------------------


def test_doubt_orders_by_all_signs_that_are_known() -> None:
    good = {"share_ratio": 1.1, "mean_confidence": 0.95, "disagreement": 0.1, "feature_distance": 1}
    bad = {"share_ratio": 0.0, "mean_confidence": 0.6, "disagreement": 0.8, "feature_distance": 5}
    middle = {"share_ratio": 2.0, "mean_confidence": 0.8, "disagreement": 0.2,
              "feature_distance": 2}  # fmt: skip
    table = pd.DataFrame([good, bad, middle])
    assert doubt(table).tolist() == [0, 1, 0.5]
    assert doubt(table.assign(disagreement=np.nan)).tolist() == [0, 1, 0.5]
    assert doubt(table[:1]).tolist() == [0]


# Whole runs ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train on 2 fields; 3 validation, 1 test, and 2 unlabelled of another condition."""
    folder = tmp_path_factory.mktemp("audit")
    roles = ["train"] * 2 + ["validation"] * 3 + ["test"] + ["unlabelled"] * 2
    lines = ["image,mask,role,specimen,condition,batch"]
    for number, role in enumerate(roles):
        image, mask = write_field(folder, f"f{number}", number, labelled=role != "unlabelled")
        condition = EVIL if role == "unlabelled" else "control"
        name = mask.name if role != "unlabelled" else ""
        lines.append(f"{image.name},{name},{role},dish {number},{condition},day 1")
    (folder / "fields.csv").write_text("\n".join(lines) + "\n")
    settings = ("network.width=2", "training.steps=60", "method=pseudo_label", "threshold=0.5")
    return mitolume.run(tiny(folder / "fields.csv", *settings), folder / "run", quiet=True)


def test_a_run_is_audited(run: Path) -> None:
    table = read_csv(run / "audit.csv")
    assert table["image"].tolist() in (["f6.ome.tif", "f7.ome.tif"], ["f7.ome.tif", "f6.ome.tif"])
    assert set(table["condition"]) == {EVIL}
    assert table["doubt"].is_monotonic_decreasing
    own = table.set_index("line").loc[8]
    assert own["image"] == "f6.ome.tif"
    predictor = load(run / "model_1")
    plane = read_plane(read(run.parent / "f6.ome.tif"))
    p = predictor.predict_plane(plane, (0.1, 0.1), unlabelled=True)
    assert own["accepted"] == pytest.approx((np.maximum(p, 1 - p) >= 0.9).mean())
    masks = [run / "masks" / name / "f6_mask.ome.tif" for name in ("model_1", "model_2")]
    one, two = (read_plane(read(path)) == 1 for path in masks)
    assert one.any()
    assert own["accepted_foreground"] == pytest.approx((p[one] >= 0.9).mean())
    assert own["disagreement"] == pytest.approx(1 - (one & two).sum() / (one | two).sum())
    shares = [(read_plane(read(run.parent / f"f{i}_mask.ome.tif")) == 1).mean() for i in (0, 1)]
    assert own["share_ratio"] == pytest.approx(one.mean() / np.median(shares))


def test_conditions_are_summed_up_with_the_labelled_images_beside(run: Path) -> None:
    groups = read_csv(run / "audit_conditions.csv").set_index("subset")
    assert groups["n_images"].to_dict() == {"unlabelled": 2, "validation": 3, "test": 1}
    assert groups["batch"].tolist() == ["day 1"] * 3
    median = read_csv(run / "audit.csv")[MEASURES].median()
    for name in MEASURES:
        assert groups.loc["unlabelled", name] == pytest.approx(median[name])
    assert np.isnan(groups.loc["unlabelled", "calibration_error"])
    first = load(run / "model_1")
    plane = read_plane(read(run.parent / "f5.ome.tif"))
    truth = read_plane(read(run.parent / "f5_mask.ome.tif"))
    expected = reliability(first.predict_plane(plane, (0.1, 0.1)), truth)
    assert groups.loc["test", "calibration_error"] == pytest.approx(calibration_error(expected))
    known = read_csv(run / "calibration.csv")
    assert set(known["model"]) == {"model_1", "model_2"}
    of_first = known[(known["model"] == "model_1") & (known["subset"] == "test")]
    np.testing.assert_allclose(pooled(of_first), expected, atol=1e-6)


def test_the_report_shows_which_masks_to_trust(run: Path) -> None:
    html = (run / "report.html").read_text()
    assert "Pseudo-labels: which to trust" in html
    assert "Are the probabilities right?" in html
    assert html.count('alt="Mask of model 1 on f') == 2
    assert "Counted over the pixels of the validation and test images" in html
    assert "least trustworthy first" in html
    assert EVIL not in html


def test_a_single_model_is_audited_without_disagreement(run: Path, tmp_path: Path) -> None:
    alone = shutil.copytree(run.parent, tmp_path / "data") / "run"
    shutil.rmtree(alone / "model_2")
    known = read_csv(run / "calibration.csv")
    write_audit(Run(alone, quiet=True), known[known["model"] == "model_1"])
    table = Run(alone).audit
    assert table["disagreement"].isna().all()
    assert table["doubt"].notna().all()
    groups = by_condition(table.assign(subset="unlabelled"), read_csv(run / "calibration.csv"))
    assert len(groups) == 1


def test_reports_are_written_of_runs_without_an_audit(run: Path, tmp_path: Path) -> None:
    old = shutil.copytree(run.parent, tmp_path / "data") / "run"
    for name in FILES:
        (old / name).unlink()
    report_run(old)
    assert "Are the probabilities right?" not in (old / "report.html").read_text()


def test_without_unlabelled_images_nothing_is_written(run: Path, tmp_path: Path) -> None:
    labelled = shutil.copytree(run.parent, tmp_path / "data") / "run"
    for name in FILES:
        (labelled / name).unlink()
    rows = pd.read_csv(run / "fields.csv")
    rows[rows["role"] != "unlabelled"].to_csv(labelled / "fields.csv", index=False)
    write_audit(Run(labelled, quiet=True), pd.DataFrame())
    assert not any((labelled / name).exists() for name in FILES)
