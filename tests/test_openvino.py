"""Predictions by OpenVINO: the same as by torch, in less time, and nobody is told of them."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.command import Shell
from helpers.fields import blobs
from helpers.predictors import predictor, sure, write

import mitolume
from mitolume.errors import MitolumeError
from mitolume.inference.predictor import Predictor

pytest.importorskip("openvino", reason='needs pip install "mitolume[openvino]"')


@pytest.mark.parametrize(
    "model",
    [
        pytest.param({"planes": 3, "channels": ("BF", "CellMask")}, id="planes and channels"),
        pytest.param({"name": "unetplusplus", "views": 4}, id="U-Net++, four views"),
    ],
)
def test_it_computes_the_same_at_any_size(model: dict[str, object]) -> None:
    torch, other = sure(**model), sure(**model, engine="openvino")
    rng = np.random.default_rng(0)
    for shape in (75, 90), (5, 130), (300, 96):
        image = rng.normal(size=(torch.card.inputs.count, *shape)).astype(np.float32)
        expected = torch.predict_prepared(image)
        assert expected.std() > 0.1, "else every model would pass"
        np.testing.assert_allclose(other.predict_prepared(image), expected, atol=1e-4)


def test_in_bfloat16_probabilities_stay_fine() -> None:
    """Rounded answers would be few, and no threshold could lie between them."""
    exact = sure()
    low = Predictor(exact.network, exact.card, precision="bfloat16", engine="openvino")
    image = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)
    found, expected = low.predict_prepared(image), exact.predict_prepared(image)
    np.testing.assert_allclose(found, expected, atol=0.03)
    assert len(np.unique(found)) > 20_000
    tiled = Predictor(
        exact.network, exact.card, precision="bfloat16", engine="openvino", core=64
    )  # fmt: skip
    np.testing.assert_allclose(tiled.predict_prepared(image), found, atol=2e-3)


def test_the_command_uses_it_where_it_is_installed(
    model: Path, tmp_path: Path, shell: Shell
) -> None:
    image = write(tmp_path / "a.ome.tif", blobs(0)[0])
    outs, settings, probabilities = [tmp_path / "auto", tmp_path / "torch"], [], []
    for out, more in zip(outs, ([], ["--engine", "torch"]), strict=True):
        shell("predict", model, image, "--out", out, "--probability", *more)
        settings.append(json.loads((out / "predict.jsonl").read_text())["settings"])
        probabilities.append(mitolume.read(out / "a_probability.ome.tif").values)
    assert settings[0]["precision"] == f"{settings[1]['precision']} by OpenVINO"
    np.testing.assert_allclose(*probabilities, atol=0.02)
    said = shell("predict", model, image, "--out", outs[1], "--resume", "--probability", code=1)
    assert "was made with precision" in said


def test_on_a_cluster_torch_computes_unless_it_is_asked_for(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the command is typed it may be installed, while the workers have graphics cards."""

    def seen(*_: object, engine: str, **__: object) -> None:
        raise MitolumeError(f"engine {engine}")

    monkeypatch.setattr("mitolume.runs.folder.load", seen)
    asked = ("predict", "run", "a.tif", "--out", "out", "--scheduler", "tcp://10.0.0.5:8786")
    assert "engine torch" in shell(*asked, code=1)
    assert "engine openvino" in shell(*asked, "--engine", "openvino", code=1)


def test_what_it_cannot_compute_is_said(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MitolumeError, match="engine is 'onnx', but must be auto, torch or openvin"):
        mitolume.load(model, engine="onnx")
    monkeypatch.setattr("mitolume.inference.predictor.find_spec", lambda name: None)
    assert mitolume.load(model, engine="auto").engine == "torch"

    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(MitolumeError, match=r"pip install \"mitolume\[openvino\]\""):
        predictor(engine="openvino")


def test_nobody_is_told_that_it_is_used(model: Path, tmp_path: Path) -> None:
    """Its own package would leave a number for Google Analytics in the user's folder."""
    code = f"import mitolume; print(mitolume.load({str(model)!r}, engine='openvino').engine)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "openvino\n"
    assert not (tmp_path / "intel").exists()
