"""Studies: many runs, gone on with after anything; real processes, a real dask cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from conftest import write_field
from filelock import FileLock

from mitolume.errors import MitolumeError
from mitolume.study.arms import STUDY_PRESETS, load_study, planned_runs
from mitolume.study.study import open_study, status, status_text, study

Process = subprocess.Popen[bytes]

SHORT = {
    "preset": "quick",
    "arms": {"supervised": {"method": "supervised"}, "pseudo": {"method": "pseudo_label"}},
    "training": {"steps": 4, "batch": 2, "patch": 32, "checks": 2},
    "network": {"width": 2},
    "seeds": [0],
}


def write_study(table: Path, **changes: object) -> Path:
    path = table.parent / "study.yaml"
    path.write_text(yaml.safe_dump(SHORT | {"fields": table.name} | changes, sort_keys=False))
    return path


def weights(out: Path) -> dict[str, bytes]:
    """Return the bytes of all weights in a study, by their place."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("weights.safetensors"))
    }


def test_arms_seeds_and_budgets_make_runs(table: Path) -> None:
    asked = load_study(write_study(table, seeds=[0, 3], labels=[2, "all"]))
    runs = planned_runs(asked)
    assert [run.name for run in runs[:4]] == [
        "supervised_k2_s0", "pseudo_k2_s0", "supervised_kall_s0", "pseudo_kall_s0",
    ]  # fmt: skip
    assert {(run.recipe.method, run.recipe.labels, run.recipe.seed) for run in runs} == {
        (method, k, seed)
        for method in ("supervised", "pseudo_label")
        for k in (2, "all")
        for seed in (0, 3)
    }
    assert asked.reference == "supervised"
    assert load_study(write_study(table, seeds=3, labels=2)).seeds == (3,)


@pytest.mark.parametrize("preset", STUDY_PRESETS)
def test_presets_are_whole_studies(preset: str, table: Path) -> None:
    asked = load_study(preset=preset, fields=table)
    runs = planned_runs(asked)
    assert len(runs) == len(asked.arms) * len(asked.seeds) * len(asked.labels)
    assert all(run.recipe.preset == asked.base["preset"] for run in runs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": "none"}, "reference 'none' is none of supervised, pseudo"),
        ({"arms": {"only": {}}}, "at least 2"),
        ({"arms": {"a/b": {}, "c": {}}}, "may only have letters"),
        ({"arms": {"a": {"metod": "supervised"}, "b": {}}}, "arm a: unknown key 'metod'.*method"),
        ({"arms": {"a": {"seed": 3, "network": {"width": -1}}, "b": {}}}, "network.width is -1"),
        ({"seeds": [0, 0]}, "seeds has a value twice"),
        ({"labels": [0]}, "labels 1 or more"),
        ({"labels": ["some"]}, "labels"),
    ],
)
def test_what_is_off_is_named(change: dict[str, object], message: str, table: Path) -> None:
    with pytest.raises(MitolumeError, match=message):
        load_study(write_study(table, **change))


def test_a_study_goes_on_and_grows(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    study(write_study(table), out, quiet=True)
    assert set(status(out)["state"]) == {"finished"}
    first = weights(out)
    assert len(first) == 3  # one model, and two
    tables = pd.read_csv(out / "study_images.csv")
    standing = tables[tables["stands"]]
    assert standing.groupby("run")["model"].nunique().eq(1).all()
    assert set(tables["arm"]) == {"supervised", "pseudo"}

    wider = {"wider": {"method": "supervised", "network": {"width": 3}}}
    study(write_study(table, arms=SHORT["arms"] | wider), out, quiet=True)
    second = weights(out)
    assert {name: second[name] for name in first} == first
    assert len(second) == 4
    assert len(pd.read_csv(out / "study.csv")["run"].unique()) == 3

    with pytest.raises(MitolumeError, match=r"supervised_kall_s0 with other .*steps was 4 and is"):
        study(write_study(table, training=SHORT["training"] | {"steps": 6}), out, quiet=True)
    assert weights(out) == second


def test_a_damaged_run_is_repeated_and_nothing_is_lost(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    study(write_study(table), out, quiet=True)
    before = weights(out)
    (out / "runs" / "pseudo_kall_s0" / "run.json").write_text("{")
    assert set(status(out)["state"]) == {"finished", "stopped"}
    assert "stopped  pseudo, labels all, seed 0" in status_text(out)
    study(write_study(table), out, quiet=True)
    after = weights(out)
    assert set(status(out)["state"]) == {"finished"}
    assert {name: after[name] for name in before} == before
    assert (out / "runs" / "pseudo_kall_s0.broken-1" / "run.json").read_text() == "{"


def test_a_failing_arm_does_not_stop_the_others(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    greedy = {"greedy": {"training": {"learning_rate": 1e30}}}
    message = r"1 of 3 runs failed.*\n  greedy_kall_s0: the loss is no longer a number"
    with pytest.raises(MitolumeError, match=message):
        study(write_study(table, arms=SHORT["arms"] | greedy), out, quiet=True)
    assert list(status(out)["state"]) == ["finished", "finished", "failed"]


def test_two_studies_in_one_folder_are_refused(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with FileLock(out / ".lock"), pytest.raises(MitolumeError, match="being worked on by another"):
        study(write_study(table), out, quiet=True)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(MitolumeError, match=r"holds something else \(notes.txt\)"):
        study(write_study(table), out, quiet=True)
    with pytest.raises(MitolumeError, match="holds no study"):
        open_study(out)


def test_other_images_are_refused(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    study(write_study(table), out, quiet=True)
    other = table.with_name("other.csv")
    other.write_text(table.read_text().replace("dish 7", "dish 8"))
    with pytest.raises(MitolumeError, match="begun with another table of fields"):
        study(write_study(other), out, quiet=True)
    write_field(tmp_path, "f0", 100)
    with pytest.raises(MitolumeError, match=r"f0.ome.tif has changed since the study"):
        study(write_study(table, seeds=[0, 1]), out, quiet=True)


def test_a_study_killed_half_way_ends_as_an_unbroken_one(table: Path, tmp_path: Path) -> None:
    """The command line, killed without warning, run again; the same bytes as an unbroken study."""
    recipe = write_study(table)
    command = [sys.executable, "-m", "mitolume.cli", "study", str(recipe), "--out", "killed"]
    # The number of threads decides in which order sums are made.
    threads = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, cwd=tmp_path, env=threads, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("killed/runs/*/kept.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert status(tmp_path / "killed")["state"].ne("finished").any()
    study(recipe, tmp_path / "killed", quiet=True)
    study(recipe, tmp_path / "unbroken", quiet=True)
    assert weights(tmp_path / "killed") == weights(tmp_path / "unbroken")


def start(module: str, *arguments: str) -> Process:
    command = [sys.executable, "-m", f"distributed.cli.dask_{module}", *arguments]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, **quiet)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[Process]]]:
    """Start a scheduler and two workers; yield its address and them."""
    file = tmp_path / "scheduler.json"
    options = ["--port", "0", "--host", "127.0.0.1", "--no-dashboard"]
    scheduler = start("scheduler", *options, "--scheduler-file", str(file))
    deadline = time.monotonic() + 60
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.2)
    address = json.loads(file.read_text())["address"]
    local = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(tmp_path)]
    workers = [start("worker", address, *local) for _ in range(2)]
    yield address, workers
    for process in [*workers, scheduler]:
        process.kill()
        process.wait()


def run_with_a_death(recipe: Path, out: Path, cluster: tuple[str, list[Process]]) -> None:
    """Run a study on the cluster; kill a worker once a run is finished."""
    address, workers = cluster
    command = [sys.executable, "-m", "mitolume.cli", "study", str(recipe), "--out", str(out)]
    process = subprocess.Popen([*command, "--scheduler", address], stderr=subprocess.PIPE)
    while not list(out.glob("runs/*/kept.json")) and process.poll() is None:
        time.sleep(0.05)
    workers[0].kill()
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors.decode()


def test_a_cluster_gives_the_same_study(
    cluster: tuple[str, list[Process]], table: Path, tmp_path: Path
) -> None:
    recipe = write_study(table)
    run_with_a_death(recipe, tmp_path / "there", cluster)
    study(recipe, tmp_path / "here", jobs=2, quiet=True)
    assert set(status(tmp_path / "there")["state"]) == {"finished"}
    assert weights(tmp_path / "there") == weights(tmp_path / "here")


@pytest.mark.slow
def test_forty_runs_survive_a_dead_worker(
    cluster: tuple[str, list[Process]], table: Path, tmp_path: Path
) -> None:
    recipe = write_study(table, seeds=list(range(20)))
    run_with_a_death(recipe, tmp_path / "out", cluster)
    assert list(status(tmp_path / "out")["state"]) == ["finished"] * 40
