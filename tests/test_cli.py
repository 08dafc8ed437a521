"""The command line as a person meets it: one clear sentence, status 1, never a traceback."""

from __future__ import annotations

import os
import shlex
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers.command import Shell
from helpers.fields import blobs, write_field

from mitolume import cli
from mitolume.models.bundle import Card, save_bundle
from mitolume.models.networks import SegmentationNetwork
from mitolume.models.settings import NetworkSettings


@pytest.fixture
def model(tmp_path: Path) -> Path:
    settings = NetworkSettings(width=4)
    card = Card(network=settings, pixel_size_um=0.1)
    save_bundle(tmp_path / "model", SegmentationNetwork(settings).state_dict(), card)
    return tmp_path / "model"


def test_the_next_step_can_be_copied(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: Shell
) -> None:
    image, _ = write_field(tmp_path, "f0", 0)
    table, masks = tmp_path / "my table.csv", tmp_path / "my masks"
    monkeypatch.chdir(tmp_path)
    said = shell("fields", tmp_path, "--out", table)
    assert said.endswith(f"next: check the table, then mitolume run --fields '{table}'\n")
    said = shell("predict", model, image, "--out", masks)
    assert said.endswith(f"next: mitolume measure '{masks}'\n")
    shell("measure", masks)
    said = shell("predict", model, image, "--out", masks, "--overwrite").splitlines()[-1]
    assert said == f"next: mitolume measure '{masks}' --out objects_2.csv", "objects.csv is taken"
    shell(*shlex.split(said)[2:])


def test_predict_then_evaluate(model: Path, tmp_path: Path, shell: Shell) -> None:
    images = [write_field(tmp_path, f"f{i}", i)[0] for i in range(2)]
    out = tmp_path / "out"
    said = shell("predict", model, *images, "--out", out)
    assert said.split()[:2] == [str(out / f"f{i}_mask.ome.tif") for i in range(2)]
    truth = tmp_path / "truth"
    truth.mkdir()
    for i in range(2):
        (tmp_path / f"f{i}_mask.ome.tif").rename(truth / f"f{i}_mask.ome.tif")
    printed = shell("evaluate", out, truth, "--out", tmp_path / "scores.csv")
    assert "chance_iou" in printed
    assert "2 images" in printed
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("image,plane,")


def test_evaluate_of_the_truth_is_perfect_whatever_its_values(tmp_path: Path, shell: Shell) -> None:
    mask = blobs(0)[1]
    tifffile.imwrite(tmp_path / "a.tif", mask)
    tifffile.imwrite(tmp_path / "b.tif", mask * 255)
    said = shell("evaluate", tmp_path / "a.tif", tmp_path / "b.tif")
    assert "iou               1.0000   1 image" in said


def test_label_images_are_scored_where_their_kind_is_said(tmp_path: Path, shell: Shell) -> None:
    labels = np.zeros((9, 9), np.uint16)
    labels[1:3, 1:3], labels[5:7, 5:7] = 7, 300
    tifffile.imwrite(tmp_path / "a.tif", labels)
    evaluate = partial(shell, "evaluate", tmp_path / "a.tif", tmp_path / "a.tif")
    assert "mask_kind: labels" in evaluate(code=1)
    assert "iou               1.0000" in evaluate("--mask-kind", "labels")
    assert "there are auto, unsure, labels" in evaluate("--mask-kind", "lables", code=1)


def test_inspect_names_what_may_go_wrong(tmp_path: Path, shell: Shell) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.full((9, 9), 255, np.uint8), resolution=(72, 72))
    printed = shell("inspect", tmp_path / "a.tif", write_field(tmp_path, "f", 0)[0])
    for part in ("Y 9, X 9", "not believed", "one flat grey", "Y 0.1 µm, X 0.1 µm"):
        assert part in printed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("run", "nothing.yaml"), "nothing.yaml: no such recipe"),
        (("run",), "names no table of fields"),
        (("run", "--fields", "no.csv"), "no.csv: no such table of fields"),
        (("run", "--resume", "--out", "new"), "new holds no run to resume"),
        (("run", "--fields", "no.csv", "--set", "seed"), "'seed' is not key=value"),
        (("run", "--fields", "no.csv", "--set", "sed=1"), "did you mean 'seed'"),
        (("denoise", "train", "a.tif", "--set", "training.steps=60"), "you mean 'denoising.steps'"),
        (("predict", "nothing", "a.tif"), "nothing: no such model"),
        (("predict", "{model}", "a.tif"), "a.tif: no such file"),
        (("predict", "{model}", "plain.tif"), "plain.tif states no pixel size"),
        (("predict", "{model}", "nan.tif", "--pixel-size", "0.1"), "NaN"),
        (("predict", "{model}", "cut.tif", "--pixel-size", "0.1"), "truncated"),
        (("predict", "{model}", "plain.tif", "--channel", "GFP"), "no channel 'GFP'"),
        (("evaluate", "plain.tif", "small.tif"), "plain.tif is Y 64 x X 80"),
        (("evaluate", "plain.tif", "nothing"), "no such file or folder"),
        (("report", "."), "holds no run"),
        (("inspect", "a.docx"), "a.docx: no such file"),
        (("inspect", "notes.docx"), "files of this kind are not read"),
    ],
)
def test_faults_end_in_one_sentence(
    arguments: tuple[str, ...],
    sentence: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shell: Shell,
) -> None:
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("plain.tif", blobs(0)[1])
    tifffile.imwrite("small.tif", blobs(0)[1][:5])
    tifffile.imwrite("nan.tif", np.full((9, 9), np.nan, np.float32))
    Path("notes.docx").write_bytes(b"PK")
    Path("cut.tif").write_bytes(Path("plain.tif").read_bytes()[:700])
    before = set(tmp_path.rglob("*"))
    filled = [str(model) if a == "{model}" else a for a in arguments]
    said = shell(*filled, code=1)
    assert sentence in said
    assert said.startswith("mitolume: ")
    assert "Traceback" not in said
    assert set(tmp_path.rglob("*")) == before, "a fault leaves nothing behind"


def test_wrong_usage_is_status_2(shell: Shell) -> None:
    shell("run", "--nonsense", code=2)


def test_a_fault_of_our_own_is_one_sentence_too(
    monkeypatch: pytest.MonkeyPatch, shell: Shell
) -> None:
    def broken(*_: object) -> None:
        error = ZeroDivisionError("division by zero")
        error.__context__ = PermissionError(13, "Permission denied", "a.csv")  # was handled
        raise error

    monkeypatch.setattr(cli, "command_line", broken)
    text = shell(code=1)
    assert "unexpected ZeroDivisionError: division by zero" in text
    log = Path(text.rsplit(" ", 1)[1].strip())
    assert "Traceback" in log.read_text()
    log.unlink()


def test_the_device_is_known_to_the_processes_that_a_command_starts(
    model: Path, monkeypatch: pytest.MonkeyPatch, shell: Shell
) -> None:
    monkeypatch.setenv("MITOLUME_DEVICE", "cpu")
    said = shell("predict", model, "a.tif", "--device", "cuda:99", code=1)
    assert "no device 'cuda:99' here" in said
    monkeypatch.setenv("MITOLUME_DEVICE", "gpu")  # a file that isn't there is not looked for
    assert "no device 'gpu' here" in shell("run", "--fields", "no.csv", code=1)
    assert os.environ["MITOLUME_DEVICE"] == "gpu"
    # Workers of a cluster may have what this machine lacks.
    asked = "study", "no.yaml", "--scheduler", "tcp://host:1", "--device", "cuda:99"
    assert "no.yaml: no such" in shell(*asked, code=1)


def test_nothing_is_imported_that_is_not_needed(tmp_path: Path) -> None:
    """By no command's help, no refusal, no prediction of a TIFF: importing takes longer."""
    import subprocess

    code = (
        "import contextlib, io, sys\n"
        "from mitolume.cli import command_line\n"
        "def walk(command, path):\n"
        "    yield path\n"
        "    for name, inner in getattr(command, 'commands', {}).items():\n"
        "        yield from walk(inner, [*path, name])\n"
        "for path in walk(command_line(), []):\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as shown:\n"
        "        command_line()([*path, '--help'], standalone_mode=False)\n"
        "    assert 'Usage' in shown.getvalue(), path\n"
        "    print(*path)\n"
        "heavy = ('torch', 'numpy', 'pandas', 'matplotlib', 'skimage', 'lightning', 'dask')\n"
        "print([name for name in heavy if name in sys.modules])\n"
        "from mitolume.errors import MitolumeError\n"
        "for words in ('run --fields ok.csv --set nokey=3', 'run --fields latin.csv',\n"
        "              'run --fields no.csv', 'study --preset nothing',\n"
        "              'predict m --fields latin.csv',\n"
        "              'study --fields latin.csv', 'compare objects.csv --column nothing'):\n"
        "    said = None\n"
        "    with contextlib.suppress(MitolumeError):\n"
        "        said = command_line()(words.split(), standalone_mode=False) or 'nothing'\n"
        "    assert said is None, (words, said)\n"
        "print([name for name in ('torch', 'matplotlib', 'lightning') if name in sys.modules])\n"
        "import mitolume.batch.predict, mitolume.io.readers.tiff, mitolume.runs.folder\n"
        "heavy = ('lightning', 'matplotlib', 'skimage', 'zarr', 'distributed', 'monai')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    (tmp_path / "ok.csv").write_text("image\na.tif\n")
    (tmp_path / "latin.csv").write_bytes(b"image\n\xfc.tif\n")
    (tmp_path / "objects.csv").write_text("image,specimen,condition,area_um2\na,1,control,2\n")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith("[]\n[]\n[]")
    assert "predict" in done.stdout
