"""Runs that are given minutes instead of steps."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.command import call
from helpers.fields import TINY

import mitolume
from mitolume import progress
from mitolume.errors import MitolumeError
from mitolume.runs import pace
from mitolume.runs.begin import begin
from mitolume.runs.folder import Run
from mitolume.runs.recipe import Recipe, load_recipe

SHORT = [setting for setting in TINY if "steps" not in setting]


def timed(table: Path, minutes: float, *more: str) -> Recipe:
    return load_recipe(fields=table, settings=[*SHORT, f"training.minutes={minutes}", *more])


def test_minutes_become_steps_that_a_rerun_repeats(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "FEWEST", 2)
    monkeypatch.setattr(pace, "_seconds_per_step", lambda *given: 12.0)
    run = Run(mitolume.run(timed(table, 2, "method=supervised"), tmp_path / "run", quiet=True))
    training = run.recipe.training
    assert training.minutes is None
    assert training.steps in (7, 8, 9)  # 110 s of 120, less what reading took
    assert f"2 minutes are enough for {training.steps} steps of 12 seconds" in " ".join(
        run.record["notices"]
    )
    monkeypatch.setattr(pace, "_seconds_per_step", lambda *given: pytest.fail("measured again"))
    asked = timed(table, 2, "method=supervised")
    assert mitolume.run(asked, run.path, resume=True, quiet=True) == run.path
    again = begin(tmp_path / "again", load_recipe(run.recipe_file), quiet=True)
    assert again.recipe.training == training
    with pytest.raises(MitolumeError, match=r"minutes was 2\.0 and is 3\.0"):
        mitolume.run(timed(table, 3, "method=supervised"), run.path, resume=True, quiet=True)


def test_a_student_shares_the_minutes(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_seconds_per_step", lambda *given: 0.1)
    steps = []
    for settings in (["method=supervised"], ["unlabelled.length=1.0"]):
        out = table.parent / str(len(steps))
        monkeypatch.setattr("mitolume.runs.run._train_models", lambda run: None)
        monkeypatch.setattr("mitolume.runs.run._score_models", lambda run: None)
        mitolume.runs.run.compute_run(timed(table, 5, *settings), out, quiet=True)
        steps.append(Run(out).recipe.training.steps)
    assert 0.4 < steps[1] / steps[0] < 0.52


def test_too_few_minutes_are_said_to_be(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mitolume.runs.run._train_models", lambda run: None)
    monkeypatch.setattr("mitolume.runs.run._score_models", lambda run: None)
    out = table.parent / "run"
    mitolume.runs.run.compute_run(timed(table, 0.01), out, quiet=True)
    run = Run(out)
    assert run.recipe.training.steps == pace.FEWEST
    assert "0.01 minutes are too few: 200 steps, the fewest that teach" in run.record["notices"][-1]


def test_minutes_and_steps_exclude_each_other(
    table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("run", "--fields", table, "--minutes", "5", "--out", table.parent / "run")
    assert call(monkeypatch, *asked, "--set", "training.steps=9") == 1
    said = capsys.readouterr().err
    assert "training: give one of `steps`, `epochs` and (of a run) `minutes`, not several" in said
    assert load_recipe(fields=table).training.minutes is None


def test_bars_of_one_work_say_the_time_left_of_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def bar(title: str, *places: tuple[float, int]) -> None:
        with progress.progress_bar(title) as advance:
            for now[0], done in places:
                advance(done, 10)

    with progress.part_of(progress.Whole({"before": 50, "one": 100, "two": 300, "three": 100})):
        bar("one", (0, 5), (20, 7), (50, 10))  # half of it was done by another process
        bar("beside", (60, 0), (80, 10))
        bar("two", (80, 0), (200, 4))
    bar("alone", (200, 0), (230, 5))
    assert [line.split(", about ")[-1] for line in capsys.readouterr().err.splitlines()] == [
        "7:10 left for the run",  # 20 units took 20 s, and 30 + 300 + 100 are left
        *["6:40 left for the run"] * 3, "4:40 left for the run", "0:30 left",
    ]  # fmt: skip


@pytest.mark.parametrize("kept", ["best epoch", "last epoch"])
def test_a_training_ends_when_its_watcher_has_enough(
    table: Path, tmp_path: Path, kept: str
) -> None:
    """With validation images and without, what was learnt until then is a usable model."""
    settings = [*SHORT, "training.steps=40", "training.checks=4", "method=pseudo_label"]
    if kept == "last epoch":
        table.write_text(table.read_text().replace("validation", "train"))
    seen: list[tuple[str, int]] = []

    def enough() -> bool:
        return any(title == "training model 1" and done >= 3 for title, done in seen)

    watcher = progress.Watcher(lambda title, done, total, note: seen.append((title, done)), enough)
    with progress.watched(watcher):
        mitolume.run(load_recipe(fields=table, settings=settings), tmp_path / "run", quiet=True)
    assert not progress.enough()
    run = Run(tmp_path / "run")
    assert (run.is_finished, run.models, run.kept) == (True, ["model_1"], "model_1")
    assert 3 <= run.record["model_1"]["steps"] < 10
    assert "stopped on request" in run.record["notices"][-1]
    assert mitolume.load(run.path).card.seed == run.recipe.seed
