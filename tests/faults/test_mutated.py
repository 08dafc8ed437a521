"""Damaged and hostile files: each gives a right result or one sentence, soon, and nothing else.

The short test has another seed every day. The long one takes as many inputs as the environment
variable ``MUTATED_INPUTS`` says, from number ``MUTATED_FIRST`` of ``MUTATED_SEED`` on. A failure
names seed and number; ``MUTATED_ONLY=number`` repeats it alone.
"""

from __future__ import annotations

import datetime
import gc
import io
import json
import os
import re
import resource
import shutil
import signal
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest
import tifffile
from helpers.command import call
from helpers.fields import write_field
from helpers.microscope_files import write_czi, write_lif, write_nd2, write_zarr, zip_zarr
from helpers.predictors import predictor
from helpers.roi_files import roi_set
from PIL import Image

import mitolume
from mitolume.errors import MitolumeError
from mitolume.inference.denoise import Denoiser
from mitolume.io.check import check_table
from mitolume.io.mask_files import distinct_values, kind_of, open_mask, stack_of
from mitolume.io.masks import meaning_of, to_objects
from mitolume.models.bundle import save_bundle
from mitolume.report.run_page import report_run
from mitolume.report.run_tables import results_text
from mitolume.runs.folder import open_run
from mitolume.runs.recipe import load_recipe
from mitolume.study.arms import load_study
from mitolume.study.folder import open_study

KEPT = Path(__file__).parents[1] / "kept"
SECONDS, MEGABYTES = 10, 2000  # an input may take no more
HOSTILE = "<script>alert(1)</script>"
WORDS = [
    "", "0", "-1", "1e308", "NaN", "inf", "99999999999999999999", "1000000", "0.00001", "null",
    "true", "[]", "{}", '"', "'", ",", ";", "\0", "../../../evil", "/etc/passwd", "C:\\x", HOSTILE,
    "=1+1",
    "{{ 7 * 7 }}", "\u202e", "\U0001f4a3", "é", "e\u0301", "a" * 5000, "!!python/object:os",
    "&a [*a]", "[" * 3000,
    "%s", "\n", "..", "model", "iou",
]  # fmt: skip
NUMBERS = [
    bytes.fromhex(one) for one in ("00000000", "ffffffff", "7fffffff", "ffffff7f", "000f4240",
                                   "40420f00", "80000000", "00000080", "01000000", "0000c07f")
]  # fmt: skip


class Hanging(BaseException):
    """An input took too long; no code may catch this."""


# The files that are damaged -----------------------------------------------------------------------

IMAGES = (
    "a.ome.tif", "plain.tif", "tiled.tif", "imagej.tif", "grey.png", "grey.jpg", "v4.ome.zarr",
    "v5.ome.zarr", "leica.lif", "nikon.nd2", "zeiss.czi", "zipped.ozx",
)  # fmt: skip
MASKS = (
    "a_mask.ome.tif", "mask.png", "labels.tif", "float.tif", "outlines.zip", "outlines.geojson"
)  # fmt: skip
OTHERS = ("fields.csv", "recipe.yaml", "study.yaml", "bundle", "study")
KINDS = (*IMAGES, *MASKS, *OTHERS)
SLOW = {
    "study": 0.3,
    "a.ome.tif": 0.6,
    "a_mask.ome.tif": 0.6,
    "v4.ome.zarr": 0.5,
    "v5.ome.zarr": 0.5,
}
SHARES = [SLOW.get(kind, 1) for kind in KINDS]  # a million inputs shall take hours, not a day


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write one small file or folder of each kind."""
    here = tmp_path_factory.mktemp("originals")
    pixels, truth = (np.asarray(mitolume.read(file)).squeeze() for file in
                     write_field(here, "a", 0, shape=(40, 48)))  # fmt: skip
    stack = np.stack([pixels, pixels[::-1], pixels])
    grey = {"photometric": "minisblack"}
    tifffile.imwrite(here / "plain.tif", pixels)
    tifffile.imwrite(here / "tiled.tif", stack, tile=(16, 16), compression="zlib", **grey)
    tifffile.imwrite(here / "imagej.tif", stack, imagej=True, resolution=(10, 10),
                     metadata={"axes": "ZYX", "unit": "um", "spacing": 0.3})  # fmt: skip
    tifffile.imwrite(here / "labels.tif", truth.astype(np.uint16) * np.arange(48, dtype=np.uint16))
    tifffile.imwrite(here / "float.tif", truth.astype(np.float32))
    Image.fromarray(pixels).save(here / "grey.png")
    Image.fromarray(pixels).save(here / "grey.jpg")
    Image.fromarray(truth * 255).save(here / "mask.png")
    for name, version in (("v4", "0.4"), ("v5", "0.5")):
        write_zarr(here / f"{name}.ome.zarr", "zyx", stack, version=version)
    write_lif(here / "leica.lif", {"a": ("ZYX", stack)}, channels=["DIC"])
    write_nd2(here / "nikon.nd2", stack[None].astype(np.uint16))
    pytest.importorskip("pylibCZIrw")
    write_czi(here / "zeiss.czi", stack[None, None], channels=["DIC"], size_um=(0.3, 0.1, 0.1))
    zip_zarr(here / "v5.ome.zarr", here / "zipped.ozx")
    roi_set(here / "outlines.zip")
    ring = [[5, 5], [20, 5], [20, 18], [5, 18], [5, 5]]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]},
               "properties": {"classification": {"name": "Mitochondria"}}}  # fmt: skip
    (here / "outlines.geojson").write_text(json.dumps([feature, feature]))
    (here / "fields.csv").write_text(
        "image,mask,role,specimen,condition,pixel_size_um,planes\n"
        + "a.ome.tif,a_mask.ome.tif,train,dish 1,control,0.1,0\n" * 2
    )
    (here / "recipe.yaml").write_text(load_recipe(fields="fields.csv").to_yaml())
    made = predictor(width=2)
    save_bundle(here / "bundle", made.network.state_dict(), made.card)
    kept = max(path for path in KEPT.iterdir() if path.is_dir())
    shutil.copytree(kept, here / "study")
    shutil.copy(here / "study" / "study" / "study.yaml", here)
    (here / ".mitolume").unlink()
    for image in IMAGES:
        see(here / image)
    return here


def damage(data: bytes, random: Random, other: bytes) -> bytes:
    """Change a file in one to four places, in one of the ways in which files break or lie."""
    for _ in range(random.randint(1, 4)):
        at, length = random.randint(0, len(data)), min(random.choice((1, 2, 4, 16, 256)), len(data))
        way = random.randrange(10)
        found = _NUMBER if way in (6, 8) else _WORD
        places = [*islice(found.finditer(data), 4000)] if way in (6, 7, 8) else []
        one = random.choice(places) if places else None
        if way == 0 and data:
            place = random.randrange(len(data))
            data = (
                data[:place] + bytes([data[place] ^ 1 << random.randrange(8)]) + data[place + 1 :]
            )
        elif way == 1:
            data = data[:at] + random.randbytes(length) + data[at + length :]
        elif way == 2:
            data = data[:at]
        elif way == 3:
            data = data[:at] + data[at + length :]
        elif way == 4:
            data = data[:at] + data[at : at + length] * random.choice((2, 50)) + data[at + length :]
        elif way == 5:
            data = data[:at] + other[at : at + length] + data[at + length :]
        elif way in (6, 7) and one:
            data = data[: one.start()] + random.choice(WORDS).encode() + data[one.end() :]
        elif way == 8 and one:  # as long as before: what follows stays in its place
            same = bytes(random.choices(b"0123456789", k=len(one[0])))
            data = data[: one.start()] + same + data[one.end() :]
        else:
            number = random.choice(NUMBERS)
            data = data[:at] + number + data[at + len(number) :]
    return data


_NUMBER, _WORD = re.compile(rb"-?\d+(\.\d+)?"), re.compile(rb"[A-Za-z_]{3,}")
_content = cache(Path.read_bytes)  # of the originals


def damage_file(original: Path, copy: Path, random: Random, others: list[Path]) -> Path:
    """Damage a file, a file of a zip or one in a folder; or remove it, or put a folder there.

    Return the path below `original` of the file that was damaged.
    """
    place = Path()
    if original.is_dir():
        place, way = random.choice(_files_in(original)), random.randrange(12)
        if way < 2:
            (copy / place).unlink()
            if way == 1:
                (copy / place).mkdir()
            return place
    file, content = copy / place, _content(original / place)
    other = _content(random.choice(others))
    file.unlink()  # it is a link to the original
    if file.suffix in (".zip", ".ozx") and random.random() < 0.7:
        with zipfile.ZipFile(io.BytesIO(content)) as old:
            inner = [(name, old.read(name)) for name in old.namelist()]
        chosen = random.randrange(len(inner))
        with zipfile.ZipFile(file, "w") as new:
            for number, (name, data) in enumerate(inner):
                if number == chosen:
                    data = damage(data, random, other)
                    name = random.choice((name, name, "../../evil.roi", "/evil.roi", HOSTILE, "a/"))
                new.writestr(name, data)
        return place
    file.write_bytes(damage(content, random, other))
    return place


@cache
def _files_in(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


# What is done with them ---------------------------------------------------------------------------


Use = Callable[[], Any] | list[object]


def uses(kind: str, file: Path, out: Path, random: Random) -> Use:
    """Return something that a person may do with a file: a function, or a command.

    Mostly what reads it, for the rest of a command and a network add little but time: the weight of
    each says how often it is chosen.
    """
    image, mask = file.with_name("a.ome.tif"), file.with_name("a_mask.ome.tif")
    found: dict[str, tuple[tuple[float, Use], ...]] = {
        "fields.csv": (
            (1, lambda: check_table(file)),
            (1, ["focus", "--fields", file, "--out", out / "f.csv"]),
            (0.3, ["measure", mask, "--fields", file, "--out", out / "x.csv"]),
        ),
        "recipe.yaml": ((1, lambda: load_recipe(file)),),
        "study.yaml": ((1, lambda: load_study(file)),),
        "bundle": (
            (1, lambda: mitolume.load(file)),
            (0.1, lambda: mitolume.load(file).predict_plane(np.eye(32), (0.1, 0.1))),
        ),
    }
    if kind in IMAGES:
        found[kind] = (
            (40, lambda: see(file)),
            (1, ["inspect", file]),
            (0.3, ["focus", file, "--out", out]),
            (0.3, ["measure", mask, "--intensity", file, "--pixel-size", 0.1,
                   "--out", out / "x.csv"]),
            (0.1, ["predict", file.with_name("bundle"), file, "--pixel-size", 0.1, "--out", out]),
        )  # fmt: skip
    elif kind in MASKS:
        found[kind] = (
            (40, lambda: see_mask(file, image)),
            (1, ["measure", file, "--pixel-size", 0.1, "--out", out / "x.csv"]),
            (1, ["evaluate", file, mask, "--out", out / "x.csv"]),
            (1, ["convert", file, "--like", image, "--out", out / "x.zip"]),
            (1, ["convert", file, "--like", image, "--out", out / "x.ome.tif", "--labels"]),
        )
    elif kind == "study":
        run = file / "study" / "runs" / random.choice(("plain_kall_s0", "denoised_kall_s0"))
        found[kind] = (
            (1, lambda: results_text(run)), (1, lambda: open_run(run).rows),
            (1, lambda: open_study(file / "study").planned), (1, lambda: mitolume.load(run)),
            (1, lambda: Denoiser.load(run / "denoiser")),
            (0.3, lambda: open_study(file / "study").status_text()),
            (0.1, ["study", "status", file / "study"]),
            (0.1, ["measure", run, "--out", out / "x.csv"]),
        )  # fmt: skip
    weights, chosen = zip(*found[kind], strict=True)
    return random.choices(chosen, weights)[0]


def see(file: Path) -> None:
    image = mitolume.read(file)
    assert image.dims == ("T", "C", "Z", "Y", "X")
    if image.size < 2**24:
        assert mitolume.io.read.read_plane(image).shape == image.shape[-2:]


_undamaged = cache(mitolume.read)


def see_mask(file: Path, image: Path) -> None:
    mask = open_mask(file, _undamaged(image), numbered=True)
    found = distinct_values(mask)
    kind, _ = meaning_of({file.name: found} if found else {}, "auto")
    to_objects(stack_of(mask), kind_of(mask, kind))


@pytest.fixture
def judge(
    originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Iterator[Callable[[str], str]]:
    """Yield a function that damages a file by a seed, uses it, and says what was wrong then."""

    def stop(*_: object) -> None:
        raise Hanging

    signal.signal(signal.SIGALRM, stop)
    others = [path for path in sorted(originals.iterdir()) if path.is_file()]
    standing: dict[str, dict[str, tuple[int, int]]] = {}

    def lay_out(kind: str) -> dict[str, tuple[int, int]]:
        """Link what inputs of this kind need: it stays there, and each changes one file."""
        shutil.rmtree(tmp_path / kind, ignore_errors=True)
        for name in ("in", "cwd"):
            (tmp_path / kind / name).mkdir(parents=True)
        needed = {kind, "a.ome.tif", "a_mask.ome.tif", *(["bundle"] if kind in IMAGES else [])}
        for source in (originals / name for name in needed):
            copy = partial(shutil.copytree, copy_function=os.link) if source.is_dir() else os.link
            copy(source, tmp_path / kind / "in" / source.name)
        return snapshot(tmp_path / kind)

    def judged(seed: str) -> str:
        random = Random(seed)
        kind = random.choices(KINDS, SHARES)[0]
        if kind not in standing:
            standing[kind] = lay_out(kind)
        file, out = tmp_path / kind / "in" / kind, tmp_path / kind / "out"
        place = damage_file(originals / kind, file, random, others)
        damaged, before = file / place, dict(standing[kind])
        if damaged.is_file():
            before[str(damaged)] = stamp(damaged.stat())
        else:
            del before[str(damaged)]
        used = uses(kind, file, out, random)
        monkeypatch.chdir(tmp_path / kind / "cwd")
        fault = wrong_with(used)
        monkeypatch.chdir(tmp_path)
        after = snapshot(tmp_path / kind)
        changed = {path for path in before | after if before.get(path) != after.get(path)}
        if changed := changed | ({*os.listdir(tmp_path)} - {*KINDS}):
            fault += f" {changed} written or removed"
        if fault:  # all inputs of this kind are linked anew
            del standing[kind]
            return (
                f"{kind}, {' '.join(map(str, used)) if isinstance(used, list) else 'read'}:{fault}"
            )
        damaged.rmdir() if damaged.is_dir() else damaged.unlink(missing_ok=True)
        os.link(originals / kind / place, damaged)
        shutil.rmtree(out, ignore_errors=True)
        return ""

    def wrong_with(used: Use) -> str:
        said = ""
        address_space = resource.getrlimit(resource.RLIMIT_AS)
        most = (int(Path("/proc/self/statm").read_text().split()[0]) << 12) + (MEGABYTES << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, address_space[1]))
        signal.alarm(12 * SECONDS)  # of wall time, in which other processes have their share
        started = time.process_time()
        try:
            if isinstance(used, list):
                status = call(monkeypatch, *used)
                said = capsys.readouterr().err
                if status not in (0, 1):
                    return f" status {status}: {said}"
                if status == 1 and ("mitolume: " not in said or "unexpected " in said):
                    return f" {said}"
            else:
                used()
        except MitolumeError as error:
            said = str(error)
        except Hanging:
            return " hanging"
        except Exception as error:
            return f" {type(error).__name__}: {error}"
        finally:
            signal.alarm(0)
            resource.setrlimit(resource.RLIMIT_AS, address_space)
        if any(sign in said for sign in ("Traceback", "too little memory", "allocate")):
            return f" {said}"
        taken = time.process_time() - started
        return f" {taken:.0f} s" if taken > SECONDS else ""

    gc.collect()
    gc.freeze()  # what is loaded by now stays, and need not be looked through again
    with dask.config.set(scheduler="synchronous"):  # threads would only wait for each other
        yield judged
    gc.unfreeze()


def stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of all files but those in `out`, which a command may write."""
    found, folders = {}, [str(folder)]
    for one in folders:
        for entry in os.scandir(one):
            if entry.is_dir():
                if entry.name != "out":
                    folders.append(entry.path)
            elif entry.name != ".lock":
                found[entry.path] = stamp(entry.stat())
    return found


def today() -> int:
    return int(os.environ.get("MUTATED_SEED", datetime.datetime.now().toordinal()))


def test_some_inputs_of_today(judge: Callable[[str], str]) -> None:
    deadline = time.process_time() + 4
    for number in range(200):
        fault = judge(f"{today()}/{number}")
        assert not fault, f"MUTATED_SEED={today()}, number {number}: {fault}"
        if time.process_time() > deadline:
            break
    assert number > 5


@pytest.mark.slow
# An error in zarr can leave a zip open until the garbage collector finds it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_many_inputs(judge: Callable[[str], str]) -> None:
    """Print each new kind of fault as it is found."""
    faults: Counter[str] = Counter()
    only = os.environ.get("MUTATED_ONLY")
    first, count = (int(os.environ.get(f"MUTATED_{name}", most)) for name, most in
                    (("FIRST", "0"), ("INPUTS", "2000")))  # fmt: skip
    numbers = [int(only)] if only else range(first, first + count)
    for number in numbers:
        if number % 1000 == 0:
            print(number, end=" ", file=sys.__stdout__, flush=True)
        if fault := judge(f"{today()}/{number}"):
            kind = re.sub(r"\d+|/\S+", "#", fault)[:120]
            if not faults[kind]:
                print(
                    f"\nMUTATED_SEED={today()} MUTATED_ONLY={number} {fault[:600]}",
                    file=sys.__stdout__,
                    flush=True,
                )
            faults[kind] += 1
    print(f"{len(numbers)} inputs, {faults.total()} faults of {len(faults)} kinds")
    assert not faults


# Pages --------------------------------------------------------------------------------------------


def test_no_name_becomes_a_script_in_a_page(originals: Path, tmp_path: Path) -> None:
    """Names in tables and records of a run: nothing but text in its page."""
    run = shutil.copytree(originals / "study", tmp_path / "s") / "study" / "runs" / "plain_kall_s0"
    name = HOSTILE + "\"'><img src=x onerror=alert(1)>"
    for table in (run / "fields.csv", run / "images.csv"):
        rows = pd.read_csv(table)
        for column in {"specimen", "condition", "batch"} & {*rows}:
            rows[column] = [name if pd.isna(own) else f"{name}{own}" for own in rows[column]]
        rows.to_csv(table, index=False)
    record = json.loads((run / "run.json").read_text()) | {"notices": [name], "command": name}
    record["device"], record["model_1"]["chosen"] = name, name
    (run / "run.json").write_text(json.dumps(record))
    (run / "kept.json").write_text(json.dumps({"kept": "model_1", "reason": name}))
    page = report_run(run).read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page
    assert "<img src=x" not in page
