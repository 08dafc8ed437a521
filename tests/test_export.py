"""Models for other programs: what these compute is what mitolume computes."""

from __future__ import annotations

import gc
import json
import re
import shlex
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from helpers.command import call
from helpers.fields import blobs
from helpers.predictors import write

from mitolume.batch.export import export_onnx
from mitolume.inference.predictor import Predictor
from mitolume.models.bundle import Card, ConditionThreshold, save_bundle
from mitolume.models.networks import SegmentationNetwork
from mitolume.models.settings import InputSettings, NetworkSettings
from mitolume.preprocess import normalise
from mitolume.preprocess.settings import ChainSettings
from mitolume.runs.folder import load

NEEDS = 'needs pip install "mitolume[export]"'
LEAKY = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
CHANNELS = ("BF", "CellMask")


def sure(
    views: int = 1, planes: int = 1, channels: tuple[str, ...] = (), **card: object
) -> Predictor:
    """Return a model whose probabilities take all values between 0 and 1."""
    inputs = InputSettings(planes=planes, channels=channels)
    settings = NetworkSettings(width=4, name=card.pop("name", "unet"))
    made = SegmentationNetwork(settings, inputs.count, seed=1).train()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(3):
            made(torch.randn(2, inputs.count, 64, 64, generator=random))
        made.eval()
        last = [one for one in made.modules() if isinstance(one, torch.nn.Conv2d)][-1]
        images = torch.randn(1, inputs.count, 64, 64, generator=random)
        logits = made(images)
        last.weight *= 3 / logits.std()
        last.bias.fill_(0)
        last.bias -= made(images).mean()
    own = Card(network=settings, inputs=inputs, views=views, **card)
    return Predictor(made, own, precision="float32")


@pytest.mark.parametrize(
    "model",
    [
        pytest.param({"views": 4}, id="four views"),
        pytest.param({"planes": 3, "channels": CHANNELS}, id="planes and channels"),
        pytest.param({"name": "unetplusplus", "views": 8}, id="U-Net++, eight views"),
    ],
)
def test_onnxruntime_computes_the_same_at_any_size(
    model: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx", reason=NEEDS)
    runtime = pytest.importorskip("onnxruntime", reason=NEEDS)
    monkeypatch.setattr(normalise, "SAMPLED", 7000)
    predictor = sure(**model)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(export_onnx(predictor, tmp_path / "model.onnx"), options)
    depth, channels = predictor.card.inputs.planes, predictor.card.inputs.channels or ("",)
    rng = np.random.default_rng(0)
    # Odd sides, sides below the depth of the network, and planes of which a part is measured.
    for shape in [(75, 90), (5, 130), (120, 96)]:
        pixels = rng.gamma(2, 100, (1, len(channels), depth, *shape)).astype(np.uint16)
        pixels[..., 0, 0] = 60_000  # a hot pixel is cut
        image = xr.DataArray(pixels, dims=tuple("TCZYX"), coords={"C": list(channels)})
        z = depth // 2
        expected = predictor.predict(image).values[0, 0, z]
        order = [z + offset for offset in predictor.card.inputs.offsets(None)]
        planes = pixels[0][:, order].reshape(1, -1, *shape).astype(np.float32)
        (found,) = session.run(None, {"image": np.concatenate([planes, planes * 0 + 7])})
        assert found.shape == (2, 1, *shape)
        assert expected.std() > 0.1, "else every model would pass"
        np.testing.assert_allclose(found[0, 0], expected, atol=1e-4)
        flat = predictor.predict(image * 0 + 7).values[0, 0, z]
        np.testing.assert_allclose(found[1, 0], flat, atol=1e-4)


def test_the_file_says_what_its_user_has_to_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx = pytest.importorskip("onnx", reason=NEEDS)
    pytest.importorskip("onnxruntime", reason=NEEDS)
    predictor = sure(
        planes=3, pixel_size_um=0.1, threshold=0.4, chain=ChainSettings(stripes="auto"),
        thresholds={"FCCP": ConditionThreshold(threshold=0.3)},
    )  # fmt: skip
    save_bundle(tmp_path / "model", predictor.network.state_dict(), predictor.card)
    command = ("export", tmp_path / "model", "--to", "onnx", "--out", tmp_path / "m.onnx")
    assert call(monkeypatch, *command) == 0
    said = capsys.readouterr()
    assert "chain.stripes" in said.err
    assert "0.1 µm per pixel" in said.err
    noted = {p.key: json.loads(p.value) for p in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert noted["planes"] == [0, -1, 1]
    assert (noted["pixel_size_um"], noted["threshold"], noted["views"]) == (0.1, 0.4, 1)
    assert noted["thresholds"] == {"FCCP": 0.3}
    assert len(noted["steps_before"]) == 2
    assert call(monkeypatch, *command) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert call(monkeypatch, *command, "--overwrite") == 0


def test_what_is_missing_or_wrong_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    from mitolume.errors import MitolumeError

    with pytest.raises(MitolumeError, match=r"must end in \.onnx"):
        export_onnx(sure(), tmp_path / "model.zip")

    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(MitolumeError, match=r"pip install \"mitolume\[export\]\""):
        export_onnx(sure(), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_the_page_shows_how_a_mask_is_made_without_mitolume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx", reason=NEEDS)
    pytest.importorskip("onnxruntime", reason=NEEDS)
    predictor = sure(threshold=0.4)
    image, _ = blobs(3)
    write(tmp_path / "new.tif", image)
    monkeypatch.chdir(tmp_path)
    export_onnx(predictor, Path("mitochondria.onnx"))
    page = Path(__file__).parents[1] / "docs" / "share.md"
    (block,) = re.findall(r"```py\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, np.ndarray] = {}
    exec(compile(block, str(page), "exec"), names)
    assert 0.05 < names["mask"].mean() < 0.95
    same = names["mask"] == (predictor.predict_plane(image) >= 0.4)
    assert same.mean() > 0.999


@pytest.fixture
def package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[int, Path]]]:
    """Return a function that exports a model of some kind, as the page shows it."""
    for name in ("onnx", "onnxruntime", "bioimageio.core"):
        pytest.importorskip(name, reason=NEEDS)
    pixels = np.stack([blobs(seed, (70, 90))[0] for seed in range(3)])
    write(tmp_path / "field.tif", pixels, "ZYX")
    page = (Path(__file__).parents[1] / "docs" / "share.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"\$ mitolume (export run --to bioimageio(?:.*\\\n)*.*)\n", page)
    monkeypatch.chdir(tmp_path)

    def export(*more: str, without: str = "", **model: object) -> tuple[int, Path]:
        predictor = sure(pixel_size_um=0.1, **model)
        save_bundle("run", predictor.network.state_dict(), predictor.card)
        command = shlex.split(shown.replace("\\\n", ""))
        if without:
            del command[command.index(without) : command.index(without) + 2]
        return call(monkeypatch, *command, *more), tmp_path / "mitochondria.zip"

    yield export
    gc.collect()  # what bioimageio.core left open, while its warnings are ignored


@LEAKY
def test_a_package_passes_the_test_of_bioimage_io_and_predicts_the_same(
    package: Callable[..., tuple[int, Path]], tmp_path: Path
) -> None:
    status, path = package(
        "--leave-out", "chain.stripes", planes=3, chain=ChainSettings(stripes="auto")
    )
    assert status == 0
    import bioimageio.core as core

    with zipfile.ZipFile(path) as file:
        file.extractall(tmp_path / "package")
    path = tmp_path / "package" / "rdf.yaml"
    assert core.test_model(path).status == "passed"
    model = core.load_model_description(path)
    assert model.inputs[0].axes[2].scale == 0.1
    assert "chain.stripes" in path.with_name("README.md").read_text()
    pixels = np.stack([blobs(seed, (61, 83))[0] for seed in (5, 6, 7)])[[1, 0, 2]]
    sample = core.predict(model=model, inputs={"image": pixels[None].astype(np.float32)})
    found = sample.members["probability"].data.values[0, 0]
    image = xr.DataArray(
        pixels[[1, 0, 2]][None, None], dims=tuple("TCZYX"), coords={"C": ["a"]},
        attrs={"pixel_size_um": {"Y": 0.1, "X": 0.1}},
    )  # fmt: skip
    same = load(path.parent).predict(image).values  # an unpacked package is a model folder
    np.testing.assert_array_equal(same, load(tmp_path / "run").predict(image).values)
    expected = load(tmp_path / "run", precision="float32").predict(image).values[0, 0, 1]
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-4)


@LEAKY
@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"chain": ChainSettings(stripes="auto")}, "--leave-out chain.stripes"),
        ({"chain": ChainSettings(sharpen="all")}, "chain.sharpen"),
        ({"without": "--license"}, "--license"),
        ({"without": "--cite"}, "--cite"),
        ({"more": ("--cite", "Somebody 2015")}, "ends in a DOI"),
        ({"more": ("--license", "my own")}, "license"),
        ({"more": ("--leave-out", "chain.denoise")}, "only chain.stripes"),
    ],
)
def test_a_package_that_would_not_be_true_is_refused(
    how: dict[str, object],
    sentence: str,
    package: Callable[..., tuple[int, Path]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, path = package(*how.pop("more", ()), **how)
    assert status == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert not path.exists()
