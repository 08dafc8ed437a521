"""Models for other programs: an ONNX file, and what its user has to know. Trains nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mitolume.batch.runner import require_free
from mitolume.errors import MitolumeError, extra
from mitolume.inference.onnx_graph import INPUT, onnx_model
from mitolume.inference.predictor import Predictor
from mitolume.inference.tiled import predict_tiled
from mitolume.io.write import atomic
from mitolume.preprocess.normalise import measure_range, normalise

NORMALISATION = (
    "in the graph: each channel by the mean and standard deviation of its first plane between the "
    "percentiles 0.5 and 99.5"
)
_AGREE = 1e-4  # of a probability, between onnxruntime and torch


def steps_before(predictor: Predictor) -> dict[str, str]:
    """Return what `predict` does to an image before it normalises it: settings, and in words."""
    card = predictor.card
    steps = {}
    if card.chain.stripes == "auto":
        steps["chain.stripes"] = "horizontal scan lines are removed where there are any"
    if card.chain.denoises:
        steps["chain.denoise"] = f"noise is removed by the model's denoiser ({card.chain.denoise})"
    if card.chain.sharpen == "all":
        steps["chain.sharpen"] = "ImageJ's unsharp mask, 0.5 px and 0.7, is applied"
    if card.pixel_size_um is not None:
        steps["pixel_size_um"] = f"the image is resampled to {card.pixel_size_um:g} µm per pixel"
    return steps


def facts(predictor: Predictor) -> dict[str, Any]:
    """Return what a user of the bare graph has to know of a model, by name."""
    card = predictor.card
    return {
        "channels": list(card.inputs.channels),
        "planes": list(card.inputs.offsets(None)),
        "plane_step_um": card.inputs.step_um,
        "pixel_size_um": card.pixel_size_um,
        "normalisation": NORMALISATION,
        "views": predictor.views,
        "threshold": card.threshold,
        "thresholds": {name: one.threshold for name, one in card.thresholds.items()},
        "steps_before": list(steps_before(predictor).values()),
    }


def export_onnx(predictor: Predictor, out: Path, *, overwrite: bool = False) -> Path:
    """Write a model as one ONNX file, with `facts` as its metadata (JSON).

    Parameters
    ----------
    predictor
        The model; its views are in the graph.
    out
        The file; ends in ``.onnx``.
    overwrite
        Replace an existing result.

    Raises
    ------
    MitolumeError
        The place is taken, libraries are missing, or onnxruntime computes other probabilities.
    """
    if out.suffix != ".onnx":
        raise MitolumeError(f"--out {out} must end in .onnx")
    require_free([out], replace=overwrite)
    graph = checked_graph(predictor)
    with atomic(out) as temporary:
        temporary.write_bytes(graph)
    return out


def checked_graph(predictor: Predictor) -> bytes:
    """Return a model's graph, after a look at whether onnxruntime computes what torch does."""
    _ = predictor.card.own_network
    runtime = extra("exporting", "onnxruntime", "export")
    noted = {name: json.dumps(value) for name, value in facts(predictor).items()}
    graph: bytes = onnx_model(predictor, noted).SerializeToString()
    shape = (predictor.card.inputs.count, 75, 90)
    planes = np.random.default_rng(0).gamma(2, 100, shape).astype(np.float32)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1  # more would wait for each other at so small an image
    session = runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {INPUT: planes[None]})
    off = float(np.abs(found[0, 0] - probability(predictor, planes)).max())
    if not off <= _AGREE:
        raise MitolumeError(
            f"onnxruntime {runtime.__version__} computes other probabilities than mitolume (up to "
            f"{off:.2g} off), so nothing is exported; try another version of it"
        )
    return graph


def probability(predictor: Predictor, planes: Any) -> Any:
    """Return the (Y, X) probability of grey values (C, Y, X), as the network sees them."""
    inputs = predictor.card.inputs
    each = inputs.count // max(1, len(inputs.channels))
    ranges = [measure_range(plane) for plane in planes[::each]]
    seen = [normalise(plane, ranges[number // each]) for number, plane in enumerate(planes)]
    return predict_tiled(
        predictor.network, np.stack(seen), range(predictor.views), core=predictor.core
    )
