"""What docs/security.md promises: files from others are data, and never run as code."""

from __future__ import annotations

import ast
import json
import pickle
import re
import time
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from helpers.microscope_files import write_zarr
from helpers.predictors import predictor

import mitolume
from mitolume.errors import MitolumeError
from mitolume.io.read import read_plane
from mitolume.models.bundle import CARD, WEIGHTS, load_bundle, save_bundle
from mitolume.models.foreign import ForeignNetwork, ForeignSettings
from mitolume.runs.recipe import load_recipe
from mitolume.study.arms import load_study
from mitolume.training.loop import _usable

SOURCE = Path(mitolume.__file__).parent
# Calls that may run what a file holds, or a shell.
NEVER = re.compile(
    r"(eval|exec|compile|__import__|(c?[pP]ickle|dill|joblib|marshal|shelve)\.\w+|os\.(system|popen)|"
    r"yaml\.(load|unsafe_load|full_load)|pd\.(read_pickle|eval)|.*\.(allow_pickle|to_pickle))"
)


class Evil:
    """Writes a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self.mark, "run")


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "mark"
    assert not (tmp_path / "mark").exists(), "code of a file was run"


def calls() -> Iterator[tuple[Path, ast.Call]]:
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield file, node


def test_no_call_runs_what_a_file_holds() -> None:
    found = []
    for file, node in calls():
        name, given = ast.unparse(node.func), {one.arg: one.value for one in node.keywords}
        shown = f"{file.name}:{node.lineno} {name}"
        if NEVER.fullmatch(name) or "allow_pickle" in given or "shell" in given:
            found.append(shown)
        only = given.get("weights_only")
        if name == "torch.load" and not (isinstance(only, ast.Constant) and only.value is True):
            found.append(f"{shown} without weights_only")
        escaping = given.get("autoescape")
        if name == "Environment" and not ast.unparse(escaping or node).startswith("select_auto"):
            found.append(f"{shown} without autoescape")
    assert not found
    assert not [t.name for t in SOURCE.rglob("*.j2") if "|safe" in t.read_text().replace(" ", "")]


def test_a_recipe_is_data(tmp_path: Path, mark: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"fields: !!python/object/apply:pathlib.Path.touch ['{mark}']\n")
    with pytest.raises(MitolumeError, match="is not a readable YAML recipe"):
        load_recipe(recipe)


@pytest.mark.parametrize(
    "text",
    [
        "training: &a [*a]",
        "\n".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}' if n else '1'] * 9)}]" for n in range(9)),
        "training: " + "[" * 500_000,
    ],
    ids=["itself", "a billion", "nested"],
)
def test_what_has_no_end_is_refused(text: str, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"fields: fields.csv\n{text}\n")
    for load in (load_recipe, load_study):
        with pytest.raises(MitolumeError, match="is not a readable YAML recipe"):
            load(recipe)
    (tmp_path / CARD).write_text("[" * 100_000)
    (tmp_path / WEIGHTS).touch()
    with pytest.raises(MitolumeError, match="is not a model card"):
        load_bundle(tmp_path)


def test_weights_and_checkpoints_are_data(tmp_path: Path, mark: Path) -> None:
    made = predictor(width=2)
    save_bundle(tmp_path, made.network.state_dict(), made.card)
    for content in (pickle.dumps(Evil(mark)), torch_file({"a": Evil(mark)}, tmp_path)):
        (tmp_path / WEIGHTS).write_bytes(content)
        with pytest.raises(MitolumeError, match=WEIGHTS):
            load_bundle(tmp_path)
        (tmp_path / "last.ckpt").write_bytes(content)
        with pytest.raises(MitolumeError, match="is damaged"):
            _usable(tmp_path / "last.ckpt")


def torch_file(content: object, folder: Path) -> bytes:
    torch.save(content, folder / "x.pt")
    return (folder / "x.pt").read_bytes()


@pytest.mark.parametrize("place", ["secret.bin", "../secret.bin", "{}/secret.bin"])
def test_a_network_of_another_program_reads_no_file(place: str, tmp_path: Path) -> None:
    """ONNX may name files that hold its weights."""
    onnx = pytest.importorskip("onnx", reason='needs pip install "mitolume[export]"')
    pytest.importorskip("onnxruntime", reason='needs pip install "mitolume[export]"')
    (tmp_path / "secret.bin").write_bytes(np.ones(2048, np.float32).tobytes())
    weight = onnx.TensorProto(name="w", data_type=1, dims=[2048], data_location=1)
    weight.external_data.add(key="location", value=place.format(tmp_path))
    sides = [onnx.helper.make_tensor_value_info(name, 1, ["N", 1, "Y", "X"]) for name in "ab"]
    add = onnx.helper.make_node("Add", ["a", "w"], ["b"])
    graph = onnx.helper.make_graph([add], "g", sides[:1], sides[1:], initializer=[weight])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    made.ir_version = 8
    with chdir(tmp_path), pytest.raises(MitolumeError, match="names other files"):
        ForeignNetwork(ForeignSettings(), made.SerializeToString())


@pytest.mark.parametrize("place", ["filters", "compressor"])
def test_an_ome_zarr_is_data(place: str, tmp_path: Path, mark: Path) -> None:
    """Zarr has a codec that unpickles."""
    image = tmp_path / "a.ome.zarr"
    write_zarr(image, "zyx", np.ones((1, 8, 8), np.uint8), version="0.4")
    file = image / "0" / ".zarray"
    codec = {"id": "pickle", "protocol": 5}
    own: dict[str, object] = {"filters": [codec], "compressor": None}
    own = own if place == "filters" else {"compressor": codec}
    file.write_text(json.dumps(json.loads(file.read_text()) | own))
    chunks = [path for path in (image / "0").iterdir() if path.name[0] != "."]
    assert chunks
    for chunk in chunks:
        chunk.write_bytes(pickle.dumps(Evil(mark)))
    with pytest.raises(MitolumeError, match="can't be read"):
        read_plane(mitolume.read(image))


def test_entities_of_xml_do_not_grow(tmp_path: Path) -> None:
    entities = "".join(f'<!ENTITY x{n} "{f"&x{n - 1};" * 10}">' for n in range(1, 12))
    xml = (
        f'<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY x0 "mitochondria">{entities}]>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">&x11;</OME>'
    )
    tifffile.imwrite(
        tmp_path / "a.ome.tif", np.ones((9, 9), np.uint8), description=xml, metadata=None
    )
    started = time.process_time()
    assert read_plane(mitolume.read(tmp_path / "a.ome.tif")).sum() == 81, "its pixels are sound"
    assert time.process_time() - started < 5
