"""A package for bioimage.io of a network that another program might have trained."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from helpers.fields import blobs

SCALE = {"id": "scale_range", "kwargs": {"axes": ["x", "y"], "min_percentile": 1.0}}
CLIP = {"id": "clip", "kwargs": {"min": 0.0, "max": 1.0}}
MEAN = {"id": "zero_mean_unit_variance", "kwargs": {"axes": ["channel", "x", "y"], "eps": 1e-4}}
FIXED = {"id": "fixed_zero_mean_unit_variance", "kwargs": {"mean": 300.0, "std": 90.0}}
LINEAR = {"id": "scale_linear", "kwargs": {"axis": "channel", "gain": [0.01], "offset": [0.5]}}
SIGMOID = {"id": "sigmoid"}


def unet(order: str, outputs: int, side: int | None = None, *, pools: bool = False) -> bytes:
    """Return a small U-Net in ONNX, with weights that make it answer with all probabilities.

    With ``pools``, its answer depends on all that it sees.
    """
    import onnx
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes: list[Any] = []
    weights: list[Any] = []

    def node(kind: str, *inputs: str, **options: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"{kind}{len(nodes)}"], **options))
        return str(nodes[-1].output[0])

    def layer(kind: str, image: str, *shape: int, **options: Any) -> str:
        spread = 2 / np.sqrt(np.prod(shape[1:]))
        values = rng.normal(0, spread, shape).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"weight{len(weights)}"))
        return node(kind, image, weights[-1].name, **options)

    last = order == "byxc"
    image = node("Transpose", "image", perm=[0, 3, 1, 2]) if last else "image"
    wide = node("Relu", layer("Conv", image, 4, 1, 3, 3, pads=[1] * 4))
    down = node("MaxPool", wide, kernel_shape=[2, 2], strides=[2, 2])
    deep = node("Relu", layer("Conv", down, 8, 4, 3, 3, pads=[1] * 4))
    up = layer("ConvTranspose", deep, 8, 4, 2, 2, strides=[2, 2])
    answer = layer("Conv", node("Concat", up, wide, axis=1), outputs, 8, 3, 3, pads=[1] * 4)
    if pools:
        answer = node("Sub", answer, node("GlobalMaxPool", answer))
    node("Transpose", answer, perm=[0, 2, 3, 1]) if last else node("Identity", answer)
    nodes[-1].output[0] = "answer"

    def tensor(name: str, channels: int) -> Any:
        sides = {"b": "N", "c": channels, "y": side or "Y", "x": side or "X"}
        return helper.make_tensor_value_info(name, 1, [sides[axis] for axis in order])

    graph = helper.make_graph(
        nodes, "net", [tensor("image", 1)], [tensor("answer", outputs)], initializer=weights
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def package(
    path: Path,
    steps: list[dict[str, Any]],
    *,
    order: str = "bcyx",
    outputs: tuple[str, ...] = ("membrane", "mitochondria"),
    side: int | None = None,
    shape: tuple[int, int] = (64, 80),
    after: tuple[dict[str, Any], ...] = (SIGMOID,),
    network: bytes | None = None,
    scale: tuple[float, str] | None = (100.0, "nanometer"),
) -> Path:
    """Write a package whose test output is computed by bioimageio.core, not by this program."""
    grid = {} if scale is None else {"scale": scale[0], "unit": scale[1]}
    files = {"weights.onnx": network or unet(order, len(outputs), side)}
    given = blobs(1, (side, side) if side else shape)[0].astype(np.float32)
    given = given.reshape([{"y": given.shape[0], "x": given.shape[1]}.get(a, 1) for a in order])

    def file(name: str) -> dict[str, str]:
        return {"source": name, "sha256": hashlib.sha256(files[name]).hexdigest()}

    def axes(names: tuple[str, ...], size: Any) -> list[dict[str, Any]]:
        kinds: dict[str, Any] = {
            "b": {"type": "batch"}, "c": {"type": "channel", "channel_names": list(names)},
            **{axis: {"type": "space", "id": axis, "size": size(axis)} | grid for axis in "yx"},
        }  # fmt: skip
        return [kinds[axis] for axis in order]

    def tensor(name: str, array: np.ndarray, all_axes: Any, **steps: Any) -> dict[str, Any]:
        buffer = io.BytesIO()
        np.save(buffer, array)
        files[f"{name}.npy"] = buffer.getvalue()
        made = {"id": name, "axes": all_axes, "data": {"type": "float32"}}
        return made | {"test_tensor": file(f"{name}.npy")} | steps

    def described(answer: np.ndarray) -> dict[str, Any]:
        def of_image(_: str) -> Any:
            return side or {"min": 16, "step": 2}

        def of_input(axis: str) -> Any:
            return {"tensor_id": "image", "axis_id": axis}

        files["README.md"] = b"# A foreign network\n\nTo test with.\n\n## Validation\n\nNone.\n"
        return {
            "format_version": "0.5.4", "type": "model", "name": "A foreign network",
            "description": "Made for a test.", "authors": [{"name": "Somebody Else"}],
            "license": "MIT", "documentation": "README.md",
            "cite": [{"text": "Nobody 2020", "url": "https://example.org"}],
            "inputs": [tensor("image", given, axes(("grey",), of_image), preprocessing=steps)],
            "outputs": [tensor("answer", answer, axes(outputs, of_input), postprocessing=[*after])],
            "weights": {"onnx": file("weights.onnx") | {"opset_version": 17}},
        }  # fmt: skip

    channels = list(given.shape)
    channels[order.index("c")] = len(outputs)
    answer = np.full(channels, 0.5, np.float32)
    for _ in range(2):  # the second time with the answer to the first
        files["rdf.yaml"] = yaml.safe_dump(described(answer)).encode()
        with zipfile.ZipFile(path, "w") as packed:
            for name, content in files.items():
                packed.writestr(name, content)
        answer = computed(path, given)
    return path


def computed(path: Path, given: np.ndarray) -> np.ndarray:
    """Let bioimageio.core compute what a package answers."""
    import bioimageio.core as core

    sample = core.predict(model=core.load_model_description(path), inputs={"image": given})
    return np.asarray(sample.members["answer"].data.values, np.float32)
