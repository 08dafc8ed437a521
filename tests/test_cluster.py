"""Prediction on a real dask scheduler with worker processes, one of them killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.fields import blobs
from helpers.predictors import predictor, write

import mitolume
from mitolume import parallel as dask_client
from mitolume.batch.predict import _elsewhere, _load_once, predict_files
from mitolume.batch.predict_image import PredictionOptions
from mitolume.batch.runner import Outcome
from mitolume.errors import MitolumeError
from mitolume.inference.predictor import Predictor

Process = subprocess.Popen[bytes]


def start(module: str, *arguments: str, **environment: str) -> Process:
    """Start `dask scheduler` or `dask worker` of this installation."""
    command = [sys.executable, "-m", f"distributed.cli.dask_{module}", *arguments]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env={**os.environ, **environment}, **quiet)


def start_worker(address: str, folder: Path, **environment: str) -> Process:
    options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(folder)]
    return start("worker", address, *options, **environment)


def stop(processes: list[Process]) -> None:
    for process in processes:
        process.kill()
        process.wait()


def start_scheduler(folder: Path) -> tuple[Process, str]:
    """Start a scheduler without workers; return its address, too."""
    file = folder / "scheduler.json"
    options = ["--port", "0", "--host", "127.0.0.1", "--no-dashboard"]
    process = start("scheduler", *options, "--scheduler-file", str(file))
    deadline = time.monotonic() + 60
    found = ""
    while not found and time.monotonic() < deadline:
        time.sleep(0.1)
        try:
            found = json.loads(file.read_text())["address"]
        except (OSError, ValueError):
            continue
    return process, found


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    process, found = start_scheduler(tmp_path_factory.mktemp("scheduler"))
    yield found
    stop([process])


@pytest.fixture(scope="module")
def workers(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Process]]:
    """Start two workers."""
    folder = tmp_path_factory.mktemp("workers")
    processes = [start_worker(address, folder) for _ in range(2)]
    yield processes
    stop(processes)


def predict_there(
    address: str, ready: Predictor, files: list[Path], out: Path, **options: object
) -> Outcome:
    return predict_files(ready, files, out, scheduler=address, **options)


def test_a_cluster_that_is_not_there_is_named(
    address: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_client, "_PATIENCE", 2)
    image, out = write(tmp_path / "a.ome.tif", blobs(0)[0]), tmp_path / "out"
    closed = "tcp://127.0.0.1:9"
    with pytest.raises(MitolumeError, match=r"no dask scheduler answers at tcp://127\.0\.0\.1:9"):
        predict_there(closed, mitolume.load(model), [image], out)
    with pytest.raises(MitolumeError, match=r"has no workers; start `dask scheduler`"):
        predict_there(address, mitolume.load(model), [image], out)
    with pytest.raises(MitolumeError, match="leave one of them out"):
        predict_there(address, mitolume.load(model), [image], out, jobs=2)
    with pytest.raises(MitolumeError, match="only a model that was loaded from a folder"):
        predict_there(address, predictor(), [image], out)
    for typed in ("", "host", "tcp://127.0.0.1", "http://127.0.0.1:8786"):
        with pytest.raises(MitolumeError, match=f"--scheduler '{typed}' is no address of a dask"):
            predict_there(typed, mitolume.load(model), [image], out)
    assert not out.exists()


def test_a_worker_of_another_version_is_refused(address: str, model: Path, tmp_path: Path) -> None:
    """The worker is a real one that finds another version of mitolume installed."""
    info = tmp_path / "mitolume-99.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mitolume\nVersion: 99.0\n")
    image = write(tmp_path / "a.ome.tif", blobs(0)[0])
    other = start_worker(address, tmp_path / "worker", PYTHONPATH=str(tmp_path))
    try:
        with pytest.raises(MitolumeError, match=r"has mitolume 99.0, but here it is 0\."):
            predict_there(address, mitolume.load(model), [image], tmp_path / "out")
    finally:
        stop([other])
    assert not (tmp_path / "out").exists()


def test_processes_of_this_machine_predict_the_same(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ready = mitolume.load(model)
    files = [write(Path(f"f{n}.ome.tif"), blobs(n)[0]) for n in range(3)]
    damaged = Path("damaged.ome.tif")
    damaged.write_bytes(files[0].read_bytes()[:2000])
    here = predict_files(ready, files, Path("here"))
    there = predict_files(ready, [*files, damaged], Path("there"), jobs=2)
    assert [path.name for path in sorted(there.written)] == [path.name for path in here.written]
    (fault,) = there.faults
    assert "damaged.ome.tif" in fault
    for path in here.written:
        pair = mitolume.read(path).values, mitolume.read(Path("there") / path.name).values
        np.testing.assert_array_equal(*pair)
    again = predict_files(ready, files, Path("there"), jobs=2, resume=True)
    assert (len(again.before), again.written) == (3, [])


def test_predictions_side_by_side_share_out_threads_and_cards(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 12)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("MITOLUME_DEVICE", raising=False)
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr("mitolume.batch.predict.take_share", lambda *share: asked.append(share))
    for address in (None, "tcp://there"):
        _load_once.cache_clear()
        _elsewhere(mitolume.load(model), tmp_path, 3, address)[0]()
    _load_once.cache_clear()
    assert asked == [(4, ("cuda:0", "cuda:1")), (None, None)]


def test_a_worker_without_its_device_is_named(address: str, model: Path, tmp_path: Path) -> None:
    image = write(tmp_path / "a.ome.tif", blobs(0)[0])
    other = start_worker(address, tmp_path / "worker", MITOLUME_DEVICE="cuda:99")
    try:
        with pytest.raises(MitolumeError, match=r"worker tcp://\S+: there is no device 'cuda:99'"):
            predict_there(address, mitolume.load(model), [image], tmp_path / "out")
    finally:
        stop([other])


@pytest.mark.slow
def test_a_lost_scheduler_is_one_sentence(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files = [write(tmp_path / f"f{n}.ome.tif", blobs(n)[0]) for n in range(8)]
    scheduler, address = start_scheduler(tmp_path)
    worker = start_worker(address, tmp_path / "worker")

    def kill(done: int, total: int, note: str = "") -> None:
        if (done, total) == (1, 8) and not note.startswith("opening"):
            scheduler.kill()

    try:
        with pytest.raises(MitolumeError, match=r"scheduler was lost; start it, and repeat the"):
            predict_there(address, mitolume.load(model), files, tmp_path / "out", progress=kill)
    finally:
        stop([scheduler, worker])
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
def test_a_killed_worker_changes_nothing(
    address: str, workers: list[Process], model: Path, tmp_path: Path
) -> None:
    """Each image goes to a worker; what the killed one was at is done by the other."""
    ready = mitolume.load(model)
    files = [
        write(tmp_path / f"f{n}.ome.tif", np.stack([blobs(n + t)[0] for t in range(3)]), "TYX")
        for n in range(8)
    ]
    nan = write(tmp_path / "nan.ome.tif", np.full((40, 40), np.nan, np.float32))
    options = PredictionOptions(probability=True, overlay=True)
    here = predict_files(ready, files, tmp_path / "here", options)

    def kill_one(done: int, total: int, note: str = "") -> None:
        if done == 3 and total == 25:
            workers[0].send_signal(signal.SIGKILL)

    out = tmp_path / "there"
    there = predict_there(address, ready, [*files, nan], out, options=options, progress=kill_one)
    assert workers[0].wait() == -signal.SIGKILL
    (fault,) = there.faults
    assert "nan.ome.tif: plane 0 has 1600 pixels that are NaN" in fault
    assert sorted(p.name for p in there.written) == [p.name for p in here.written]
    for path in here.written:
        pair = mitolume.read(path).values, mitolume.read(out / path.name).values
        np.testing.assert_array_equal(*pair)
    names = sorted(path.name for path in (tmp_path / "here").iterdir())
    assert sorted(path.name for path in out.iterdir()) == names
    assert len(names) == 8 * 5 + 2, "and the records of what was predicted, and written"
