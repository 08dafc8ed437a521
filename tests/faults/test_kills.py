"""Kills, requests to stop and full disks at random moments: nothing finished is lost.

What is repeated ends as if nothing had happened. ``MITOLUME_SEED`` is the seed of the moments,
``MITOLUME_FAULTS`` the number of faults of the long version.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers.fields import TINY, tiny_study, write_table_of_fields
from helpers.predictors import predictor

from mitolume.io.write import write_image
from mitolume.models.bundle import save_bundle

if sys.platform == "win32":
    pytest.skip("forks and signals are those of POSIX", allow_module_level=True)

SEED = int(os.environ.get("MITOLUME_SEED", "0"))
SETTINGS = [word for one in TINY for word in ("--set", one)]
# A call from its folder, with inputs in ../data, and what makes it go on.
COMMANDS: dict[str, tuple[list[str], list[str]]] = {
    "run": (["run", "--fields", "../data/fields.csv", "--out", "out", *SETTINGS], ["--resume"]),
    "predict": (["predict", "../data/model", "../data/f0.ome.tif", "../data/f1.ome.tif",
                 "../data/z.ome.zarr", "--probability", "--overlay", "--out", "out"],
                ["--resume"]),
    "measure": (["measure", "../data/f0_mask.ome.tif", "../data/f1_mask.ome.tif",
                 "../data/f2_mask.ome.tif", "--intensity", "../data", "--out", "out/o.csv",
                 "--crops", "out/crops", "--rois", "out/rois", "--labels", "out/labels",
                 "--pictures", "out/pictures"], ["--resume"]),
    "denoise": (["denoise", "train", "../data/s.ome.tif", "--channel", "light", "--out", "out",
                 "--method", "noise2stack", "--set", "steps=8", "--set", "checks=4", "--set",
                 "patch=32", "--set", "network.width=4"], ["--resume"]),
    "simulate": (["simulate", "--fields", "2", "--set", "shape=[64,96]", "--set", "planes=3",
                  "--out", "out"], []),
    "study": (["study", "../data/study.yaml", "--out", "out"], []),
    "label": (["label", "../data/s.ome.tif", "--channel", "dye", "--out", "out"],
              ["--overwrite"]),
}  # fmt: skip
SIDE_BY_SIDE = {name: ([*COMMANDS[name][0], "--jobs", "2"], []) for name in ("simulate", "study")}
ENDS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}
TIMES = {"date", "started", "seconds", "command", "mtime_ns"}


class Server:
    """A process that has imported everything; see `helpers.forked`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        script = Path(__file__).parents[1] / "helpers" / "forked.py"
        self.process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        self.seconds: dict[str, float] = {}
        self.right: dict[str, dict[str, str]] = {}
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def call(
        self, words: list[str], folder: Path, *, fault: int = 0, after: float = 0,
        most_bytes: int | None = None,
    ) -> Ended:  # fmt: skip
        """Do a command in a folder, and send it a signal after some seconds."""
        log = folder.with_suffix(".log")
        log.unlink(missing_ok=True)
        asked = {"words": [*words, "--quiet"], "folder": str(folder), "log": str(log)}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(asked | {"most_bytes": most_bytes}) + "\n")
        self.process.stdin.flush()
        number, began = int(self._line()), time.monotonic()
        if fault:
            time.sleep(after)
            began = time.monotonic()
            with suppress(ProcessLookupError):  # it has ended
                os.kill(number, fault)
        code = int(self._line())
        took = time.monotonic() - began
        deadline = time.monotonic() + 2
        while (left := _of_session(number)) and time.monotonic() < deadline:
            time.sleep(0.05)
        for one in left:
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        return Ended(code, took, log.read_text(), left)


@dataclass
class Ended:
    """How a command ended: status, seconds, what it said, and the processes that it left."""

    code: int
    seconds: float
    said: str
    left: list[int] = field(default_factory=list)


def _of_session(number: int) -> list[int]:
    """Return the processes that a command started and that are still there (Linux; else none)."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, session = (place / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) == number and state != "Z":
            found.append(int(place.name))
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("faults")
    data = folder / "data"
    data.mkdir()
    write_table_of_fields(data)
    rng = np.random.default_rng(0)
    dye = np.zeros((6, 64, 80))
    dye[:, 20:26, 10:70] = 900
    light = rng.normal(90, 9, dye.shape)
    write_image(
        data / "s.ome.tif",
        xr.DataArray(
            np.stack([light, dye + light]).astype(np.uint16), dims=tuple("CZYX"),
            coords={"C": np.array(["light", "dye"], dtype=object)},
            attrs={"pixel_size_um": {"Z": 0.3, "Y": 0.1, "X": 0.1}},
        ),
    )  # fmt: skip
    from mitolume.io.zarr_out import new_image

    like = xr.DataArray(
        np.zeros((1, 1, 3, 200, 200), np.uint8), dims=tuple("TCZYX"),
        attrs={"pixel_size_um": {"Z": 0.3, "Y": 0.1, "X": 0.1}},
    )  # fmt: skip
    with new_image(data / "z.ome.zarr", like, name="light", dtype="uint8") as pixels:
        pixels[:] = rng.integers(0, 200, like.shape)
    model = predictor()
    save_bundle(data / "model", model.network.state_dict(), model.card)
    tiny_study(data)
    made = Server(folder)
    with made.process:  # closes its pipes, and waits for it
        yield made


def tree(folder: Path) -> dict[str, str]:
    """Return what a folder holds, without times and its own name; pages only by their names."""
    found = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if not file.is_file() or file.name in (".mitolume", ".lock") or file.suffix == ".jsonl":
            continue
        if file.suffix == ".html":
            content = b""
        elif file.suffix == ".json":
            text = file.read_text().replace(str(folder), "")  # where a run was begun
            content = json.dumps(_without_times(json.loads(text))).encode()
        elif file.suffix == ".csv" and "seconds" in file.read_text().partition("\n")[0]:
            content = pd.read_csv(file).drop(columns="seconds").to_csv().encode()
        else:
            content = file.read_bytes()
        found[name] = hashlib.sha256(content).hexdigest()
    return found


def _without_times(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_times(one) for key, one in content.items() if key not in TIMES}
    return [_without_times(one) for one in content] if isinstance(content, list) else content


def reference(server: Server, name: str, words: list[str]) -> dict[str, str]:
    """Do a command undisturbed, once."""
    if name not in server.right:
        folder = server.folder / f"{name}-right"
        folder.mkdir()
        ended = server.call(words, folder)
        assert ended.code == 0, ended.said
        server.seconds[name], server.right[name] = ended.seconds, tree(folder)
    return server.right[name]


def is_final(name: str) -> bool:
    """Tell whether a file has its last content once it has its name: no record, log or scratch."""
    parts = name.split("/")
    return not (
        name.endswith((".json", ".yaml", "log.csv", ".ckpt", ".html"))
        or any(part.startswith(".part-") or part.endswith(".parts") for part in parts)
        or {"scratch", "folds"} & set(parts)
    )


def disturb(
    server: Server, name: str, fault: str, draw: random.Random,
    commands: dict[str, tuple[list[str], list[str]]] = COMMANDS,
) -> None:  # fmt: skip
    """Do a command, disturb it, look at what it left, repeat it, and compare."""
    words, more = commands[name]
    right = reference(server, name, words)
    folder = server.folder / f"{name}-trial"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if fault == "disk":
        largest = max(
            file.stat().st_size
            for file in (server.folder / f"{name}-right").rglob("*")
            if file.is_file()
        )
        most = round(1000 * (largest / 1000) ** draw.random())
        ended = server.call(words, folder, most_bytes=most)
        assert ended.code in (0, 1), ended
        said = [line for line in ended.said.splitlines() if "mitolume:" in line]
        assert (ended.code == 0) or (len(said) == 1 and "File too large" in ended.said), ended
        what = f"{name}, no file above {most} bytes"
    else:
        number, after = getattr(signal, fault), draw.uniform(0.02, 0.98) * server.seconds[name]
        what = f"{name}, {fault} after {after:.2f} s"
        ended = server.call(words, folder, fault=number, after=after)
        assert ended.code in (0, ENDS[number]), (what, ended)
        if ended.code > 0:
            assert ended.seconds < 2, (what, ended)
            assert ended.said.count("mitolume: stopped; finished results are kept") == 1
            assert more or "--resume" not in ended.said, "only of a command that has it"
    assert "Traceback" not in ended.said, (what, ended)
    assert "unexpected" not in ended.said, (what, ended)
    assert not ended.left, (what, ended)
    left = tree_of_final(folder)
    other = {one for one in left if right.get(one) != left[one]}
    if fault == "disk":  # the tables lack the image that did not fit, which was said
        whole = server.folder / f"{name}-right"
        other -= {
            one for one in other if one.endswith(".csv")
            and {*(folder / one).read_text().splitlines()}
            <= {*(whole / one).read_text().splitlines()}
        }  # fmt: skip
    assert not other, what
    again = server.call([*words, *more], folder)
    assert again.code == 0, (what, ended, again)
    assert tree(folder) == right, (what, ended, again)


def tree_of_final(folder: Path) -> dict[str, str]:
    """Return what a folder holds of files that are whole."""
    found = {}
    for file in folder.rglob("*"):
        name = file.relative_to(folder).as_posix()
        hidden = file.name in (".mitolume", ".lock") or file.suffix == ".jsonl"
        if file.is_file() and not hidden and is_final(name):
            found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


FAULTS = ("SIGKILL", "SIGINT", "SIGTERM", "disk")


@pytest.mark.parametrize(
    ("name", "fault"),
    [("measure", "SIGKILL"), ("measure", "disk"), ("predict", "SIGTERM"), ("predict", "SIGKILL"),
     ("run", "SIGINT"), ("run", "SIGKILL")],
)  # fmt: skip
def test_a_fault_loses_nothing(name: str, fault: str, server: Server) -> None:
    disturb(server, name, fault, random.Random(f"{SEED} {name} {fault}"))


MANY = int(os.environ.get("MITOLUME_FAULTS", "210"))


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_many_faults_lose_nothing(name: str, server: Server) -> None:
    draw = random.Random(f"{SEED} {name}")
    for number in range(MANY // len(COMMANDS)):
        disturb(server, name, FAULTS[number % 4], draw)
        print(f"{name} {number}: {FAULTS[number % 4]}, as if nothing had happened", flush=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", SIDE_BY_SIDE)
def test_processes_side_by_side_end_with_their_parent(name: str, server: Server) -> None:
    draw = random.Random(f"{SEED} {name} jobs")
    right = reference(server, name, COMMANDS[name][0])
    key = f"{name} jobs"
    server.right.pop(key, None)
    reference(server, key, SIDE_BY_SIDE[name][0])
    assert server.right[key].keys() == right.keys()
    commands = {key: SIDE_BY_SIDE[name]}
    for fault in FAULTS[:3]:
        disturb(server, key, fault, draw, commands)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["run", "measure", "denoise", "simulate", "predict", "label"])
def test_a_small_disk_is_a_sentence(name: str, server: Server) -> None:
    """The disk is one in memory, where this may mount one."""
    words, more = COMMANDS[name]
    right = reference(server, name, words)
    size = sum(f.stat().st_size for f in (server.folder / f"{name}-right").rglob("*"))
    folder, draw = server.folder / f"{name}-disk", random.Random(f"{SEED} {name} disk")
    for _ in range(4):
        folder.mkdir(exist_ok=True)
        kilobytes = draw.randint(20, max(40, size // 1024))
        mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(folder)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("this may not mount a small disk")
        try:
            ended = server.call(words, folder)
            assert ended.code in (0, 1), ended
            assert "Traceback" not in ended.said, ended
            assert ended.code == 0 or "No space left" in ended.said, (kilobytes, ended)
            subprocess.run(["mount", "-o", "remount,size=200m", str(folder)], check=True)
            assert server.call([*words, *more], folder).code == 0
            assert tree(folder) == right
        finally:
            subprocess.run(["umount", str(folder)], check=True)
