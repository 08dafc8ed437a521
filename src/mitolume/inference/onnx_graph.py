"""A model as one ONNX graph, from grey values to probabilities. Knows no file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from mitolume.errors import extra
from mitolume.inference.predictor import Predictor
from mitolume.models.networks import MULTIPLE, for_prediction
from mitolume.models.onnx_layers import Graph, write_layers
from mitolume.preprocess import normalise

INPUT, OUTPUT = "image", "probability"


def onnx_model(predictor: Predictor, metadata: dict[str, str]) -> Any:
    """Build the graph of a model.

    Parameters
    ----------
    predictor
        Its network with its inputs and views; of its chain, only normalising is in the graph.
    metadata
        What to note in the model, by name.

    Returns
    -------
    onnx.ModelProto
        ``image`` is (N, C, Y, X) float32: grey values on the model's pixel size, for each channel
        the plane itself and those around it in the order of `InputSettings.offsets`.
        ``probability`` is (N, 1, Y, X). N, Y and X are whatever they are.
    """
    onnx = extra("exporting", "onnx", "export")
    inputs, graph = predictor.card.inputs, Graph(onnx)
    planes = _normalise(graph, INPUT, inputs.count, max(1, len(inputs.channels)))
    logits = partial(write_layers, graph, for_prediction(predictor.network, "float32"))
    answers = [_turn(graph, logits, planes, turn) for turn in range(predictor.views)]
    total = answers[0] if len(answers) == 1 else graph("Sum", *answers)
    graph("Div", total, np.float32(len(answers)), name=OUTPUT)

    made = graph.model(
        (INPUT, inputs.count),
        (OUTPUT, 1),
        producer_name="mitolume",
        producer_version=predictor.card.versions["mitolume"],
    )
    onnx.helper.set_model_props(made, metadata)
    onnx.checker.check_model(made, full_check=True)
    return made


def _normalise(graph: Graph, image: str, count: int, channels: int) -> str:
    """Normalise as `mitolume.preprocess.normalise` does, by the first plane of each channel."""
    double, whole, single = 11, 7, 1  # types, as ONNX numbers them
    end, one, sides = np.array([-1]), np.array([1]), np.array([2, 3])
    # A regular grid of pixels, as in `measure_range`.
    size = graph("Gather", graph("Shape", image), sides)
    area = graph("ReduceProd", graph("Cast", size, to=double))
    step = graph("Ceil", graph("Sqrt", graph("Div", area, np.float64(normalise.SAMPLED))))
    steps = graph("Expand", graph("Cast", step, to=whole), np.array([2]))
    own = graph("Gather", image, np.arange(0, count, count // channels), axis=1)
    grid = graph("Slice", own, np.array([0, 0]), size, sides, steps)
    pixels = graph("Reshape", grid, np.array([0, 0, -1]))
    # Percentiles 0.5 and 99.5 lie between two of the darkest, and of the brightest pixels.
    last = graph("Sub", graph("Gather", graph("Shape", pixels), np.array([2])), one)
    rank = graph("Mul", graph("Cast", last, to=double), np.float64(0.005))
    below = graph("Floor", rank)
    weight, place = graph("Sub", rank, below), graph("Cast", below, to=whole)
    after = graph("Min", graph("Add", place, one), last)

    def percentile(largest: int) -> str:
        most = graph("TopK", pixels, graph("Add", after, one), largest=largest)
        a, b = (
            graph("Gather", graph("Cast", most, to=double), at, axis=2) for at in (place, after)
        )
        return graph("Add", a, graph("Mul", graph("Sub", b, a), weight))

    low, high = percentile(0), percentile(1)
    inner = graph("Min", graph("Max", graph("Cast", pixels, to=double), low), high)
    mean = graph("ReduceMean", inner, axes=[-1])
    off = graph("Sub", inner, mean)
    spread = graph("Sqrt", graph("ReduceMean", graph("Mul", off, off), axes=[-1]))
    tiny = np.float64(1e-6)
    rounding = graph("Mul", graph("Max", graph("Abs", mean), tiny), tiny)
    flat = graph("Unsqueeze", graph("LessOrEqual", spread, rounding), end)
    reach = graph("Mul", graph("Sub", high, low), np.float64(3))
    least, most, middle, width = (
        graph("Unsqueeze", graph("Cast", number, to=single), end)
        for number in (graph("Sub", low, reach), graph("Add", high, reach), mean, spread)
    )
    apart = graph("Reshape", image, np.array([0, channels, count // channels, -1]))
    cut = graph("Min", graph("Max", apart, least), most)
    scaled = graph("Div", graph("Sub", cut, middle), width)
    return graph("Reshape", graph("Where", flat, np.float32(0), scaled), graph("Shape", image))


def _turn(graph: Graph, logits: Callable[[str], str], planes: str, turn: int) -> str:
    """Predict one of the quarter turns, as `predict_tiled` does, and turn it back."""
    turned = _quarter_turns(graph, planes, turn)
    padded = turned
    for axis in (2, 3):
        n = graph("Gather", graph("Shape", turned), np.int64(axis))
        more = graph("Div", graph("Add", n, np.int64(MULTIPLE - 1)), np.int64(MULTIPLE))
        to = graph("Mul", more, np.int64(MULTIPLE))
        there_and_back = graph("Add", n, n)
        place = graph("Mod", graph("Range", np.int64(0), to, np.int64(1)), there_and_back)
        back = graph("Sub", graph("Sub", there_and_back, np.int64(1)), place)
        padded = graph("Gather", padded, graph("Min", place, back), axis=axis)
    answer = graph("Sigmoid", logits(padded))
    sides = np.array([2, 3])
    size = graph("Gather", graph("Shape", turned), sides)
    whole = graph("Slice", answer, np.array([0, 0]), size, sides)
    return _quarter_turns(graph, whole, -turn % 4)


def _quarter_turns(graph: Graph, image: str, turns: int) -> str:
    """Do as `numpy.rot90` along Y and X."""
    if turns == 2:
        return _flip(graph, image, 2, 3)
    if turns == 1:
        image = _flip(graph, image, 3)
    if turns:
        image = graph("Transpose", image, perm=[0, 1, 3, 2])
    return _flip(graph, image, 3) if turns == 3 else image


def _flip(graph: Graph, image: str, *axes: int) -> str:
    back = np.full(len(axes), -1)
    return graph("Slice", image, back, np.full(len(axes), -(2**62)), np.array(axes), back)
