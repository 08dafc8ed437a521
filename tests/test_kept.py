"""What earlier versions wrote can be read, and what a newer one writes is refused in a sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.command import Shell

import mitolume
from mitolume.report.run_tables import results_text
from mitolume.report.study_page import study_text
from mitolume.runs.folder import open_run
from mitolume.runs.recipe import differences
from mitolume.runs.run import compute_run
from mitolume.study.arms import load_study
from mitolume.study.compute import compute_study
from mitolume.study.folder import open_study

KEPT = sorted(path for path in (Path(__file__).parent / "kept").iterdir() if path.is_dir())


@pytest.fixture(params=KEPT, ids=lambda path: path.name)
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return shutil.copytree(request.param, tmp_path / "kept")


def test_a_study_its_runs_and_their_models(kept: Path) -> None:
    study = open_study(kept / "study")
    assert study.status_text() == "2 runs: 2 finished"
    assert "plain" in study_text(study.path)
    for planned in study.planned:
        run = open_run(study.run(planned).path)
        assert differences(run.recipe, planned.recipe) == []
        assert "mean IoU" in results_text(run.path)
        model = mitolume.load(run.path)
        for image in run.images():
            mask = model.mask(model.predict(mitolume.read(image.row.image)))
            same = mask.values[0, 0] == run.mask(run.kept, image)
            assert np.mean(same) > 0.98, "up to the rounding of other machines"
        assert compute_run(None, run.path, go_on=True, quiet=True).is_finished
    compute_study(load_study(study.recipe_file), study.path, quiet=True)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ("run.json", ("run", "--resume", "--out", "{run}")),
        ("run.json", ("report", "{run}")),
        ("run.json", ("predict", "{run}", "{image}")),
        ("run.json", ("measure", "{run}")),
        ("run.json", ("suggest", "{run}")),
        ("model_1/card.json", ("predict", "{run}", "{image}")),
        ("denoiser/card.json", ("denoise", "apply", "{run}/denoiser", "{image}")),
        ("denoiser/card.json", ("denoise", "train", "{image}", "--resume", "--out",
                                "{run}/denoiser")),
        ("../../study.json", ("study", "{study}/study.yaml", "--out", "{study}")),
        ("../../study.json", ("study", "status", "{study}")),
        ("../../study.json", ("report", "{study}")),
    ],
)  # fmt: skip
def test_what_a_newer_version_wrote(
    record: str, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    shell: Shell,
) -> None:  # fmt: skip
    kept = shutil.copytree(KEPT[-1], tmp_path / "kept")
    study = kept / "study"
    run = next((study / "runs").glob("denoised*"))
    file = (run / record).resolve()
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema_version": 2, "new": 1}))
    for recipe in (run / "recipe.yaml", study / "study.yaml"):
        if words[0] != "study" or recipe.parent != study:
            recipe.write_text(recipe.read_text() + "new_setting: 1\n")
    before = {path: path.stat().st_mtime_ns for path in kept.rglob("[!.]*.*")}
    monkeypatch.chdir(tmp_path)
    filled = [word.format(run=run, study=study, image=kept / "f0.ome.tif") for word in words]
    said = shell(*filled, code=1)
    assert f"{file.parent.name} was written by a newer mitolume (version 2 of" in said
    assert said.rstrip().endswith("update mitolume")
    assert {path: path.stat().st_mtime_ns for path in kept.rglob("[!.]*.*")} == before
