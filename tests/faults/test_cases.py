"""Small inputs that once went wrong, where they lie beside the project: what each is taken for.

Every kind of these has tests of its own elsewhere, of inputs made by the tests themselves.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers.command import call
from helpers.predictors import predictor

from mitolume.inference.predictor import Predictor
from mitolume.models.bundle import save_bundle

SHARED = Path(__file__).parents[3] / "shared" / "cases"
SQUARE = r"dims +T 1, C 1, Z 1, Y 96, X 128"
# By the name of the case: the command, its exit code, what it says, and what it doesn't say.
# {c} is a copy of the case, {m} a small model; files it doesn't hold are made by `made`.
CASES: list[tuple[str, str, int, tuple[str, ...], str]] = [
    ("singleton-axis", "inspect {c}/1_1yx.tif {c}/1yx.tif {c}/yx1.tif {c}/named_tczyx.tif", 0,
     (SQUARE,), "read as"),
    ("singleton-axis", "inspect {c}/1zyx.tif", 0, ("Z 5, Y 96, X 128",), ""),
    ("singleton-axis", "measure {c}/mask_1yx.tif --intensity {c}/1yx.tif --out x.csv", 0, (), ""),
    ("ome-one-stack-many-files", "inspect {c}/stack", 0, ("Z 4", "4 files found, 1 used"), ""),
    ("ome-one-stack-many-files", "predict {m} {c}/stack", 0, ("found, 1 used",), ""),
    ("ome-missing-planes", "inspect {c}/stopped.ome.tif", 1, ("4 are missing", "Z 4"), "copy it"),
    ("ome-missing-planes", "predict {m} {c}/stopped.ome.tif", 1, ("4 are missing",), ""),
    ("ome-missing-planes", "predict {m} {c}/missing/part_z0.ome.tif", 1,
     ("part_z2.ome.tif", "Z 2"), ""),
    ("zarr-old-and-unscaled", "inspect {c}/noscale.zarr", 0, (r"pixel size +unknown",), "1 µm"),
    ("zarr-old-and-unscaled", "inspect {c}/v02.zarr", 0, ("dims",), "damaged"),
    ("folder-partly-named", "measure {c}/masks --out x.csv", 0, ("15 objects",), ""),
    ("nested-rois", "convert {c}/rois.zip --like {c}/image.tif --labels --out l.ome.tif", 0,
     (), "lost"),
    ("nested-rois", "measure {c}/rois.zip --intensity {c}/image.tif --out x.csv", 0,
     ("4 objects",), "lost"),
    ("imagej-zunit", "inspect {c}/mask.tif {c}/negative.tif", 0, (r"Z 0.5 µm[\s\S]*Z 0.5 µm",), ""),
    ("imagej-cm-and-um", "inspect {c}/a.tif", 0, ("Y 0.08 µm, X 0.08 µm",), "warning"),
    ("screen-dpi", "inspect {c}", 0, ("unknown",), "--pixel-size 0"),
    ("ome-unit-um", "inspect {c}/um.ome.tif", 0, ("Y 0.08 µm", "0 = DIC, 1 = TMRM"), "validation"),
    ("header-only-tiff", "inspect {c}/good.tif {c}/hdr.tif {c}/good2.tif", 1,
     ("good.tif\n", "good2.tif\n", "hdr.tif"), "fault of mitolume"),
    ("nfd-name", "measure {c}/m.tif --fields {c}/fields.csv --out x.csv", 0, (), ""),
    ("float16", "predict {m} {c}/f16.tif", 0, (), "RuntimeWarning"),
    ("not-what-it-is-called", "inspect {c}", 1, ("Git LFS", "web page", "PNG"), r"b'"),
    ("huge-tiled-tiff", "inspect {c}/hugetile.tif", 1, ("hugetile.tif",), "Traceback"),
    ("huge-tiled-tiff", "predict {m} {c}/hugetile.tif", 1, ("hugetile.tif",), "Traceback"),
    ("roi-zip-zlib-error", "convert {c}/m.zip --out o.ome.tif --like {c}/img.ome.tif", 1,
     ("m.zip", "can't be read"), "fault of mitolume|Error -"),
    ("fifo", "inspect {c}/x.tif", 1, ("x.tif", "no regular file"), ""),
    ("fifo", "predict {m} {c}", 1, ("x.tif", "no regular file"), ""),
    ("fifo", "run --fields {c}/fields.csv --out o", 1, ("x.tif", "regular file|device"), ""),
    ("fifo", "run --fields /dev/zero --out o", 1, ("/dev/zero", "no regular file"), ""),
    ("symlink-loop-in-folder", "predict {m} {c}", 1, ("l1.tif", "1 predicted"),
     "fault of mitolume"),
]  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Predictor:
    return predictor()


@pytest.fixture
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Copy a case, and make what no archive can hold."""
    if not SHARED.is_dir():
        pytest.skip(f"the small inputs that went wrong are not at {SHARED}")
    copy = shutil.copytree(SHARED / request.param, tmp_path / "case")
    copy.chmod(0o755)
    for readme in copy.glob("README*"):
        readme.unlink()
    if request.param == "fifo":
        os.mkfifo(copy / "x.tif")
        tifffile.imwrite(copy / "a.tif", np.zeros((8, 8), np.uint8))
        (copy / "fields.csv").write_text("image,mask,role\na.tif,x.tif,unlabelled\n")
    if request.param == "symlink-loop-in-folder":
        (copy / "l1.tif").symlink_to("l2.tif")
        (copy / "l2.tif").symlink_to("l1.tif")
        noise = np.random.default_rng(0).integers(0, 99, (64, 64)).astype(np.uint8)
        tifffile.imwrite(copy / "a.ome.tif", noise)
    return copy


@pytest.mark.parametrize(
    ("case", "words", "code", "says", "silent"),
    CASES,
    ids=[f"{name}-{words.split()[0]}" for name, words, *_ in CASES],
    indirect=["case"],
)
def test_what_went_wrong_is_right(
    case: Path, words: str, code: int, says: tuple[str, ...], silent: str, model: Predictor,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    save_bundle(tmp_path / "model", model.network.state_dict(), model.card)
    asked = [word.format(c=case, m=tmp_path / "model") for word in words.split()]
    asked += ["--out", "o", "--pixel-size", "0.1"] if words.startswith("predict") else []
    assert call(monkeypatch, *asked) == code
    said = "".join(capsys.readouterr())
    for text in (*says, *(rf"\A(?![\s\S]*({silent}))" for _ in [silent] if silent)):
        assert re.search(text, said), said
    if "--labels" in words:
        assert len(np.unique(tifffile.imread(tmp_path / "l.ome.tif"))) == 5
