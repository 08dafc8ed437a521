"""Studies: many runs, gone on with after anything; real processes, a real dask cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path
from shutil import copytree, rmtree
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
import yaml
from distributed import LocalCluster
from filelock import FileLock
from helpers.fields import write_field, write_table_of_fields

from mitolume.cli import main
from mitolume.errors import MitolumeError
from mitolume.runs.folder import Run
from mitolume.runs.recipe import load_recipe
from mitolume.study.arms import STUDY_PRESETS, load_study, planned_runs
from mitolume.study.compute import _begin, _compute_runs, compute_study
from mitolume.study.folder import open_study
from mitolume.training.methods import METHODS
from mitolume.workflow import study

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


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Compute on one thread: the order of sums decides the last bit of weights."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a study once; what it says is in ``said.txt``."""
    folder = tmp_path_factory.mktemp("unbroken")
    table = write_table_of_fields(folder)
    text = table.read_text().replace("\n", ",\n").replace("condition,", "condition,btach", 1)
    table.write_text(text)  # a column of which a note is made
    with (folder / "said.txt").open("w") as said, redirect_stderr(said):
        return study(write_study(table), folder / "out")


@pytest.fixture
def finished(unbroken: Path, tmp_path: Path) -> Path:
    """Copy the finished study with its images, to be changed."""
    copytree(unbroken.parent, tmp_path / "copy")
    return tmp_path / "copy" / "out"


def recipe_of(out: Path, **changes: object) -> Path:
    return write_study(out.parent / "fields.csv", **changes)


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


def test_paths_are_seen_from_the_recipe(
    table: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = {"plain": {}, "denoised": {"chain": {"denoise": "my_denoiser"}}}
    recipe = write_study(table, arms=arms)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    chain = planned_runs(load_study(recipe))[1].recipe.chain
    assert chain.denoiser_folder == table.parent / "my_denoiser"
    here = load_study(recipe, settings=["arms.plain.chain.denoise=other"])
    assert planned_runs(here)[0].recipe.chain.denoiser_folder == Path.cwd() / "other"


@pytest.mark.parametrize("preset", [name for name in STUDY_PRESETS if name != "dye"])
def test_presets_are_whole_studies(preset: str, table: Path) -> None:
    asked = load_study(preset=preset, fields=table)
    runs = planned_runs(asked)
    assert len(runs) == len(asked.arms) * len(asked.seeds) * len(asked.labels)
    assert all(run.recipe.preset == asked.base["preset"] for run in runs)


@pytest.mark.parametrize("preset", ["default", "quick"])
@pytest.mark.parametrize(
    "set_", ["", "training.steps=60", "unlabelled.length=1", "method=supervised"]
)
def test_arms_cost_the_same_whatever_is_set(preset: str, set_: str, table: Path) -> None:
    """More training alone raises a score: the paper's own study did not mind."""
    asked = load_study(preset=preset, fields=table, settings=[set_] * bool(set_))
    steps = {}
    for run in planned_runs(asked):
        method, first = METHODS[run.recipe.method](run.recipe.unlabelled), run.recipe.training.steps
        assert first
        steps[run.arm] = first + round(method.uses_unlabelled * method.settings.length * first)
    assert max(steps.values()) - min(steps.values()) <= 1, steps
    if "steps" in set_:
        assert steps["supervised"] == 60


@pytest.mark.parametrize("own", ["steps=500", "batch=4", "epochs=3", "minutes=9"])
def test_arms_of_unequal_cost_are_refused(own: str, table: Path) -> None:
    asked = ["training.steps=60", f"arms.supervised.training.{own}"]
    with pytest.raises(MitolumeError, match=r"not all arms are trained equally long .*cost to own"):
        study(load_study(preset="quick", fields=table, settings=asked), table.parent / "out")
    assert not (table.parent / "out" / "study.yaml").exists()
    free = load_study(preset="quick", fields=table, settings=[*asked, "cost=own"])
    assert planned_runs(free)[1].recipe.training.steps == 60  # as in a recipe


def test_a_study_that_can_keep_no_image_aside_is_refused(table: Path) -> None:
    rows = [line for line in table.read_text().splitlines() if ",validation," not in line]
    table.write_text("\n".join(row for row in rows if ",test," not in row) + "\n")
    with pytest.raises(MitolumeError, match="no labelled image can be kept aside"):
        study(
            load_study(
                preset="quick", fields=table, settings=["split.test=0", "split.validation=0"]
            ),
            table.parent / "out",
        )


def test_a_study_says_how_long_it_will_take(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter((0.0, 90.0, 200.0, 240.0, 0.0, 50.0, 100.0, 150.0))
    monkeypatch.setattr("mitolume.study.compute.try_run", lambda *_, **__: "")
    monkeypatch.setattr("mitolume.study.compute.time.monotonic", lambda: next(clock))
    runs = {Path(name): object() for name in ("a", "b", "c")}
    assert len(list(_compute_runs(runs, 1, None, quiet=False, each=0))) == 3
    assert capsys.readouterr().err.splitlines() == [
        "run 1 of 3: a",
        "run 2 of 3: b (about 3:00 left for all)",
        "run 3 of 3: c (about 1:40 left for all)",
    ]
    # A study that goes on knows it beforehand.
    assert len(list(_compute_runs(runs, 1, None, quiet=False, each=70))) == 3
    first, second, _ = capsys.readouterr().err.splitlines()
    assert first == "run 1 of 3: a (about 3:30 left for all)"
    assert second == "run 2 of 3: b (about 1:40 left for all)"


def test_a_study_reads_masks_as_its_recipe_says(table: Path) -> None:
    labels = np.arange(64 * 80, dtype=np.uint8).reshape(64, 80) % 7
    tifffile.imwrite(table.parent / "labels.tif", labels)
    table.write_text(table.read_text().replace("f0_mask.ome.tif", "labels.tif"))
    with pytest.raises(MitolumeError, match="--set mask_kind=labels"):
        _begin(load_study(write_study(table)), table.parent / "out", quiet=True)
    _begin(load_study(write_study(table, mask_kind="labels")), table.parent / "out", quiet=True)


def test_an_arm_without_unlabelled_images_is_refused(table: Path) -> None:
    rows = [line for line in table.read_text().splitlines() if "unlabelled" not in line]
    table.write_text("\n".join(rows) + "\n")
    with pytest.raises(MitolumeError, match="arm noisy-student would be trained less"):
        study(load_study(preset="quick", fields=table), table.parent / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": "none"}, "reference 'none' is not one of supervised, pseudo"),
        ({"arms": {"only": {}}}, "at least 2"),
        ({"arms": {"a/b": {}, "c": {}}}, "may only have letters"),
        ({"arms": {"a": {"metod": "supervised"}, "b": {}}}, "arm a: unknown key 'metod'.*method"),
        ({"arms": {"a": {"seed": 3, "network": {"width": -1}}, "b": {}}}, "network.width is -1"),
        ({"seeds": [0, 0]}, "seeds has a value twice"),
        ({"labels": [-1]}, "labels must be 0 or more"),
        ({"labels": ["some"]}, "labels"),
    ],
)
def test_what_is_off_is_named(change: dict[str, object], message: str, table: Path) -> None:
    with pytest.raises(MitolumeError, match=message):
        load_study(write_study(table, **change))


def test_a_note_of_several_runs_is_said_once(unbroken: Path) -> None:
    lines = (unbroken.parent / "said.txt").read_text().splitlines()
    told = [line.removeprefix("note: ") for line in lines if line.startswith("note: ")]
    each = [set(Run(path).notices) for path in (unbroken / "runs").iterdir()]
    assert set.intersection(*each)
    assert sorted(told) == sorted(set.union(*each))


def test_a_study_goes_on_and_grows(finished: Path) -> None:
    out = finished
    assert set(open_study(out).status()["state"]) == {"finished"}
    first = weights(out)
    assert len(first) == 3  # one model, and two
    tables = pd.read_csv(out / "study_images.csv")
    standing = tables[tables["stands"]]
    assert standing.groupby("run")["model"].nunique().eq(1).all()
    assert set(tables["arm"]) == {"supervised", "pseudo"}
    assert set(open_study(out).collect()["batch"]) == {""}  # nobody named one

    wider = {"wider": {"method": "supervised", "network": {"width": 3}}}
    compute_study(load_study(recipe_of(out, arms=SHORT["arms"] | wider)), out, quiet=True)
    second = weights(out)
    assert {name: second[name] for name in first} == first
    assert len(second) == 4
    assert len(pd.read_csv(out / "study.csv")["run"].unique()) == 3

    with pytest.raises(
        MitolumeError, match=r"supervised_kall_s0 with other .*steps was 4 and is 6"
    ):
        study(recipe_of(out, training=SHORT["training"] | {"steps": 6}), out, quiet=True)
    assert weights(out) == second


def test_a_damaged_run_is_repeated_and_nothing_is_lost(finished: Path) -> None:
    out = finished
    before = weights(out)
    (out / "runs" / "supervised_kall_s0" / "run.json").write_text("{")
    assert set(open_study(out).status()["state"]) == {"finished", "stopped"}
    assert "stopped  supervised, labels all, seed 0" in open_study(out).status_text()
    compute_study(load_study(recipe_of(out)), out, quiet=True)
    after = weights(out)
    assert set(open_study(out).status()["state"]) == {"finished"}
    assert {name: after[name] for name in before} == before
    assert (out / "runs" / "supervised_kall_s0.broken-1" / "run.json").read_text() == "{"


def test_a_failing_arm_does_not_stop_the_others(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command ends with what failed, and still shows what did not."""
    out = finished
    rmtree(out / "runs" / "supervised_kall_s0")
    greedy = {"training": {"learning_rate": 1e30}}
    both = {"greedy": greedy, "greedier": greedy}
    recipe = recipe_of(out, arms=both | SHORT["arms"], reference="supervised")
    monkeypatch.setattr(sys, "argv", ["mitolume", "study", str(recipe), "--out", str(out)])
    with pytest.raises(SystemExit, match="1"):
        main()
    said = capsys.readouterr()
    assert "2 of 4 runs failed" in said.err
    assert "\n  greedy_kall_s0, greedier_kall_s0: the loss is no longer a number" in said.err
    assert "a hint only  pseudo" in said.out
    assert (out / "report.html").exists()
    assert sorted(open_study(out).status()["state"]) == ["failed"] * 2 + ["finished"] * 2


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


def test_other_images_are_refused(finished: Path) -> None:
    out, table = finished, finished.parent / "fields.csv"
    other = table.with_name("other.csv")
    other.write_text(table.read_text().replace("dish 9", "dish 10"))
    with pytest.raises(MitolumeError, match="begun with another table of fields"):
        study(write_study(other), out, quiet=True)
    write_field(out.parent, "f0", 100)
    with pytest.raises(MitolumeError, match=r"f0.ome.tif has changed since the study"):
        study(write_study(table, seeds=[0, 1]), out, quiet=True)


@pytest.mark.slow
def test_a_study_killed_half_way_ends_as_an_unbroken_one(
    unbroken: Path, table: Path, tmp_path: Path
) -> None:
    """The command line, killed without warning, run again; the same bytes as an unbroken study."""
    recipe = write_study(table)
    command = [sys.executable, "-m", "mitolume", "study", str(recipe), "--out", "killed"]
    one = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=tmp_path, env=one, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("killed/runs/*/kept.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert open_study(tmp_path / "killed").status()["state"].ne("finished").any()
    study(recipe, tmp_path / "killed", quiet=True)
    assert weights(tmp_path / "killed") == weights(unbroken)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[Process]]]:
    """Start a scheduler, and two workers of four threads each; yield its address and them."""
    options = ["--nthreads", "4", "--no-nanny", "--no-dashboard", "--local-directory", tmp_path]
    own = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    alone = {"env": own, "stderr": subprocess.DEVNULL}
    with LocalCluster(n_workers=0, protocol="tcp://", dashboard_address="127.0.0.1:0") as scheduler:
        address = scheduler.scheduler_address
        command = [sys.executable, "-m", "distributed.cli.dask_worker", address, *options]
        workers = [subprocess.Popen(command, **alone) for _ in range(2)]
        yield address, workers
        for process in workers:
            process.kill()
            process.wait()


def run_with_a_death(recipe: Path, out: Path, cluster: tuple[str, list[Process]]) -> None:
    """Run a study on the cluster; kill a worker once a run is finished."""
    address, workers = cluster

    def kill() -> None:
        deadline = time.monotonic() + 300
        while not list(out.glob("runs/*/kept.json")) and time.monotonic() < deadline:
            time.sleep(0.02)
        workers[0].kill()

    killer = Thread(target=kill)
    killer.start()
    study(recipe, out, scheduler=address, quiet=True)
    killer.join()
    assert workers[0].wait() == -signal.SIGKILL


@pytest.mark.slow
def test_a_cluster_gives_the_same_study(
    cluster: tuple[str, list[Process]], unbroken: Path, table: Path, tmp_path: Path
) -> None:
    run_with_a_death(write_study(table), tmp_path / "there", cluster)
    assert set(open_study(tmp_path / "there").status()["state"]) == {"finished"}
    assert weights(tmp_path / "there") == weights(unbroken)


@pytest.mark.slow
def test_runs_of_one_worker_do_not_disturb_each_other(
    cluster: tuple[str, list[Process]], unbroken: Path, table: Path, tmp_path: Path
) -> None:
    """A worker's threads share its process: warnings, random state and the number of threads."""
    address, workers = cluster
    workers[0].kill()
    recipe = write_study(table, seeds=[0, 1])
    study(recipe, tmp_path / "here", quiet=True)
    study(recipe, tmp_path / "there", scheduler=address, quiet=True)
    assert len(weights(tmp_path / "here")) == 6
    assert weights(tmp_path / "there") == weights(tmp_path / "here")
    for run in (tmp_path / "here" / "runs").iterdir():
        there = tmp_path / "there" / "runs" / run.name
        for name in ("images.csv", "results.csv"):
            assert (there / name).read_bytes() == (run / name).read_bytes()
        notices, threads = (
            [json.loads((one / "run.json").read_text())[key] for one in (run, there)]
            for key in ("notices", "threads")
        )
        assert notices[0] == notices[1]
        assert threads == [1, 1]


@pytest.mark.slow
def test_forty_runs_survive_a_dead_worker(
    cluster: tuple[str, list[Process]], table: Path, tmp_path: Path
) -> None:
    recipe = write_study(table, seeds=list(range(20)))
    run_with_a_death(recipe, tmp_path / "out", cluster)
    assert list(open_study(tmp_path / "out").status()["state"]) == ["finished"] * 40


def test_processes_of_this_machine_share_out_its_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def note(threads: int) -> None:
        asked.append((os.environ.get("MITOLUME_DEVICE", ""), threads))

    def sent(name: int, scheduler: str | None) -> list[tuple[Path, str]]:
        worker = SimpleNamespace(name=name, state=SimpleNamespace(nthreads=2))
        monkeypatch.setattr("distributed.get_worker", lambda: worker)
        return list(_compute_runs({Path("s/runs/a"): recipe}, 3, scheduler, True, 0.0))

    def here(tasks: dict[Path, tuple[Any, ...]], **_: object) -> Iterator[tuple[Path, str]]:
        yield from ((place, task(*given)) for place, (task, *given) in tasks.items())

    recipe = load_recipe(fields="fields.csv")
    monkeypatch.setattr("mitolume.study.compute.try_run", lambda *_: "")
    monkeypatch.setattr(torch, "set_num_threads", note)
    monkeypatch.setattr("mitolume.parallel.run_side_by_side", here)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 12)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("MITOLUME_DEVICE", "")  # so that it is undone at the end
    for name in range(3):
        monkeypatch.delenv("MITOLUME_DEVICE", raising=False)
        sent(name, None)
    monkeypatch.setenv("MITOLUME_DEVICE", "cuda:1")  # named by the user, or for a worker
    sent(0, None)
    sent(0, "tcp://there")
    assert asked == [("cuda:0", 4), ("cuda:1", 4), ("cuda:0", 4), ("cuda:1", 4), ("cuda:1", 2)]


@pytest.mark.slow
def test_runs_side_by_side_give_the_same_study(unbroken: Path, table: Path, tmp_path: Path) -> None:
    study(write_study(table), tmp_path / "out", jobs=2, quiet=True)
    assert weights(tmp_path / "out") == weights(unbroken)
