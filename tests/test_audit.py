"""Which masks of unlabelled images to trust: the tables of the audit, the report."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.fields import tiny, write_field

import mitolume
from mitolume.io.read import read, read_plane
from mitolume.report.run_page import least_trusted, report_run
from mitolume.runs.audit import MEASURES, write_audit
from mitolume.runs.folder import Run
from mitolume.runs.results import read_csv

EVIL = "<script>alert('x')</script>"
FILES = ("audit.csv", "audit_conditions.csv")


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
    assert table["disagreement"].is_monotonic_decreasing
    own = table.set_index("line").loc[8]
    assert own["image"] == "f6.ome.tif"
    masks = [run / "masks" / name / "f6_mask.ome.tif" for name in ("model_1", "model_2")]
    one, two = (read_plane(read(path)) == 1 for path in masks)
    assert one.any()
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


def test_the_report_shows_which_masks_to_trust(run: Path) -> None:
    html = (run / "report.html").read_text()
    assert "Pseudo-labels: which to trust" in html
    assert html.count('alt="Mask of model 1 on f') == 2
    assert "least trustworthy first" in html
    assert EVIL not in html


def test_masks_of_an_odd_share_are_shown_first() -> None:
    shares = [1.2, 0.8, 9.0, 1.1, 0.0, np.nan, 1.0, 0.9]
    audit = pd.DataFrame({"image": [f"f{i}.tif" for i in range(8)], "share_ratio": shares})
    audit = pd.concat([audit, audit.iloc[:1].assign(share_ratio=7.0)])  # another plane of f0
    shown = least_trusted(audit)
    assert list(shown["image"]) == ["f2.tif", "f4.tif", "f0.tif", "f1.tif", "f3.tif", "f5.tif"]
    assert shown["share_ratio"].iloc[2] == 7


def test_a_single_model_is_audited_without_disagreement(run: Path, tmp_path: Path) -> None:
    alone = shutil.copytree(run.parent, tmp_path / "data") / "run"
    shutil.rmtree(alone / "model_2")
    write_audit(Run(alone, quiet=True))
    table = Run(alone).audit
    assert table["disagreement"].isna().all()
    assert table["feature_distance"].is_monotonic_decreasing


def test_reports_are_written_of_runs_without_an_audit(run: Path, tmp_path: Path) -> None:
    old = shutil.copytree(run.parent, tmp_path / "data") / "run"
    for name in FILES:
        (old / name).unlink()
    Run(old).note(scored={})  # which such runs had no hashes of either
    report_run(old)
    assert "which to trust" not in (old / "report.html").read_text()


def test_without_unlabelled_images_nothing_is_written(run: Path, tmp_path: Path) -> None:
    labelled = shutil.copytree(run.parent, tmp_path / "data") / "run"
    for name in FILES:
        (labelled / name).unlink()
    rows = pd.read_csv(run / "fields.csv")
    rows[rows["role"] != "unlabelled"].to_csv(labelled / "fields.csv", index=False)
    write_audit(Run(labelled, quiet=True))
    assert not any((labelled / name).exists() for name in FILES)
