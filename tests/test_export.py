"""Models for other programs: what these compute is what mitolume computes."""

from __future__ import annotations

import gc
import json
import re
import shlex
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from helpers.command import Shell
from helpers.fields import blobs
from helpers.foreign import CLIP, FIXED, LINEAR, MEAN, SCALE, SIGMOID, computed, unet
from helpers.foreign import package as foreign_package
from helpers.predictors import sure, write

import mitolume
from mitolume.batch.export import export_onnx
from mitolume.batch.import_package import import_package
from mitolume.errors import MitolumeError
from mitolume.models.bundle import ConditionThreshold, save_bundle
from mitolume.models.foreign import ForeignSettings
from mitolume.preprocess import normalise
from mitolume.preprocess.settings import ChainSettings
from mitolume.runs.folder import load

NEEDS = 'needs pip install "mitolume[export]"'
LEAKY = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
CHANNELS = ("BF", "CellMask")


@pytest.mark.parametrize(
    "model",
    [
        pytest.param({"planes": 3, "channels": CHANNELS}, id="planes and channels"),
        pytest.param({"name": "unetplusplus", "views": 4}, id="U-Net++, four views"),
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
    for shape in [(75, 90), (5, 130), (120, 96)][: 1 if "name" in model else 3]:
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


def test_the_file_says_what_its_user_has_to_know(tmp_path: Path, shell: Shell) -> None:
    onnx = pytest.importorskip("onnx", reason=NEEDS)
    pytest.importorskip("onnxruntime", reason=NEEDS)
    predictor = sure(
        planes=3, pixel_size_um=0.1, threshold=0.4, chain=ChainSettings(stripes="auto"),
        thresholds={"FCCP": ConditionThreshold(threshold=0.3)},
    )  # fmt: skip
    save_bundle(tmp_path / "model", predictor.network.state_dict(), predictor.card)
    command = ("export", tmp_path / "model", "--to", "onnx", "--out", tmp_path / "m.onnx")
    said = shell(*command)
    assert "chain.stripes" in said
    assert "0.1 µm per pixel" in said
    noted = {p.key: json.loads(p.value) for p in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert noted["planes"] == [0, -1, 1]
    assert (noted["pixel_size_um"], noted["threshold"], noted["views"]) == (0.1, 0.4, 1)
    assert noted["thresholds"] == {"FCCP": 0.3}
    assert len(noted["steps_before"]) == 2


def test_what_is_missing_or_wrong_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: Shell
) -> Iterator[Callable[..., str]]:
    """Return a function that exports a model of some kind, as the page shows it."""
    for name in ("onnx", "onnxruntime", "bioimageio.core"):
        pytest.importorskip(name, reason=NEEDS)
    # 192 pixels of 0.1 µm over 0.1 µm are 192.00000000000003 in float64
    pixels = np.stack([blobs(seed, (192, 200))[0] for seed in range(3)])
    write(tmp_path / "field.tif", pixels, "ZYX")
    page = (Path(__file__).parents[1] / "docs" / "share.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"\$ mitolume (export run --to bioimageio(?:.*\\\n)*.*)\n", page)
    monkeypatch.chdir(tmp_path)

    def export(*more: str, without: str = "", code: int = 0, **model: object) -> str:
        predictor = sure(pixel_size_um=0.1, **model)
        save_bundle("run", predictor.network.state_dict(), predictor.card)
        command = shlex.split(shown.replace("\\\n", ""))
        if without:
            del command[command.index(without) : command.index(without) + 2]
        return shell(*command, *more, code=code)

    yield export
    gc.collect()  # what bioimageio.core left open, while its warnings are ignored


@LEAKY
def test_a_package_passes_the_test_of_bioimage_io_and_predicts_the_same(
    package: Callable[..., str], tmp_path: Path, shell: Shell
) -> None:
    package("--leave-out", "chain.stripes", planes=3, chain=ChainSettings(stripes="auto"))
    path = tmp_path / "mitochondria.zip"
    shell("import", path, "--out", tmp_path / "back")
    for name in ("card.json", "weights.safetensors"):
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
    import bioimageio.core as core

    with zipfile.ZipFile(path) as file:
        file.extractall(tmp_path / "package")
    path = tmp_path / "package" / "rdf.yaml"
    assert core.test_model(path).status == "passed"
    model = core.load_model_description(path)
    assert model.inputs[0].axes[2].scale == pytest.approx(0.1, rel=1e-7)
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
    ("steps", "how"),
    [
        pytest.param([SCALE, CLIP], {}, id="percentiles"),
        pytest.param([MEAN], {"order": "byxc"}, id="mean, channels last"),
        pytest.param([FIXED], {"side": 320, "outputs": ("a",), "scale": None}, id="one size"),
        pytest.param([LINEAR, CLIP], {"after": ({"id": "softmax"},)}, id="line, softmax"),
    ],
)
def test_a_foreign_network_predicts_as_bioimageio_core_does(
    steps: list[dict[str, object]],
    how: dict[str, object],
    tmp_path: Path,
    shell: Shell,
) -> None:
    pytest.importorskip("bioimageio.core", reason=NEEDS)
    path = foreign_package(tmp_path / "foreign.zip", steps, **how)
    asked = () if "outputs" in how else ("--output", "mitochondria")
    said = shell("import", path, "--out", tmp_path / "model", *asked)
    assert "has the probabilities that it says" in said
    assert ("no pixel size" in said) == (how.get("scale", 1) is None)
    assert "sees farther" not in said
    # An image that the package does not hold.
    image = blobs(7, (320, 320))[0]
    write(tmp_path / "new.tif", image, size=0.1)
    command = ("predict", tmp_path / "model", tmp_path / "new.tif", "--out", tmp_path / "masks")
    shell(*command, "--probability")
    found = mitolume.read(tmp_path / "masks" / "new_probability.ome.tif").values[0, 0, 0]
    last = how.get("order") == "byxc"
    given = image[None, ..., None] if last else image[None, None]
    expected = computed(path, given.astype(np.float32))
    expected = (expected[0, ..., -1] if last else expected[0, -1]).clip(0, 1)
    assert expected.std() > 0.1
    inner = (slice(16, -16),) * 2  # a network of one size gets the far edges mirrored, not cut
    np.testing.assert_allclose(found[inner], expected[inner], atol=1e-3)
    said = ("--name", "A", "--author", "B", "--license", "MIT", "--cite", "C https://example.org")
    for out, more in (("a.onnx", ()), ("a.zip", (*said, "--example", tmp_path / "new.tif"))):
        to = {"a.onnx": "onnx", "a.zip": "bioimageio"}[out]
        refused = shell("export", tmp_path / "model", "--to", to, "--out", out, *more, code=1)
        assert "share the package that it came from" in refused


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a package that fits."""
    pytest.importorskip("onnxruntime", reason=NEEDS)
    pytest.importorskip("bioimageio.core", reason=NEEDS)
    path = tmp_path_factory.mktemp("foreign") / "foreign.zip"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return foreign_package(path, [SCALE])


def changed(path: Path, out: Path, *keys: Any, to: Any) -> Path:
    """Copy a package, with another value in its description, or with another file."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == keys[0]:
                content = to
            elif name == "rdf.yaml":
                said = place = yaml.safe_load(content)
                for key in keys[:-1]:
                    place = place[key]
                place[keys[-1]] = to
                content = yaml.safe_dump(said).encode()
            new.writestr(name, content)
    return out


GIVEN, ANSWER = ("inputs", 0), ("outputs", 0)


@pytest.mark.parametrize(
    ("keys", "value", "sentence"),
    [
        (("weights",), {"torchscript": {}, "pytorch_state_dict": {}}, "ONNX is taken, as reading"),
        (("format_version",), "0.4.10", "bioimageio update-format"),
        (("inputs",), [], "rdf.yaml lacks"),
        (("inputs",), 7, "rdf.yaml lacks"),
        ((*GIVEN, "preprocessing"), [{"id": "binarize"}], "its step binarize is none"),
        ((*GIVEN, "preprocessing"), [SCALE | {"kwargs": {"axes": ["x"]}}], "over a whole plane"),
        ((*GIVEN, "preprocessing"), [MEAN], "has other probabilities here"),
        ((*GIVEN, "axes", 2, "size"), 128, "no squares"),
        ((*GIVEN, "axes", 2, "id"), "z", "has the axes batch, channel, z, x"),
        ((*GIVEN, "axes", 1, "channel_names"), ["a", "b"], "sees several channels"),
        ((*ANSWER, "axes", 1, "channel_names"), ["a", "b", "c"], "its network gives a, b, c"),
        ((*ANSWER, "postprocessing"), [], "has other probabilities here"),
        ((*ANSWER, "postprocessing"), [SIGMOID, {"id": "binarize"}], "goes through sigmoid, bin"),
        ((*ANSWER, "test_tensor", "source"), "test.npy", "lacks test.npy"),
        (("weights", "onnx", "source"), "https://example.org/a.onnx", "lacks https://"),
        (("weights", "onnx", "sha256"), "0", "another weights.onnx than it says"),
        (("weights", "onnx"), {"source": "README.md"}, "is no ONNX graph"),
        (("rdf.yaml",), b"a: [", "rdf.yaml lacks"),
    ],
)
def test_a_package_that_does_not_fit_is_refused(
    keys: tuple[Any, ...], value: object, sentence: str, foreign: Path, tmp_path: Path
) -> None:
    path = changed(foreign, tmp_path / "changed.zip", *keys, to=value)
    with pytest.raises(MitolumeError, match=re.escape(sentence)):
        import_package(path, tmp_path / "model", output="mitochondria")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["changed.zip"]


@LEAKY
def test_what_a_foreign_network_can_not_do_is_said(foreign: Path, tmp_path: Path) -> None:
    with pytest.raises(MitolumeError, match="gives membrane, mitochondria: say which"):
        import_package(foreign, tmp_path / "model")
    (tmp_path / "cut.zip").write_bytes(foreign.read_bytes()[:-40])
    with pytest.raises(MitolumeError, match="no whole zip file"):
        import_package(tmp_path / "cut.zip", tmp_path / "model")
    # A network whose answer depends on all that it sees is not the same in tiles.
    network, names = unet("bcyx", 1, pools=True), ("a",)
    path = tmp_path / "pools.zip"
    foreign_package(path, [SCALE], network=network, outputs=names, shape=(256, 256))
    notes = import_package(path, tmp_path / "model")
    assert any("sees farther than 96 px" in note for note in notes)
    with pytest.raises(ValueError, match="less than or equal to 8192"):
        ForeignSettings(sides=(10**9, 1))
    with pytest.raises(MitolumeError, match="can't be trained further"):
        _ = load(tmp_path / "model").card.own_network


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
    how: dict[str, object], sentence: str, package: Callable[..., str], tmp_path: Path
) -> None:
    said = package(*how.pop("more", ()), code=1, **how)
    assert sentence in said
    assert said.count("\n") == 1
    assert not (tmp_path / "mitochondria.zip").exists()
