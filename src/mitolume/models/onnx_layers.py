"""A network's layers as nodes of an ONNX graph.

Torch has two exporters. One is deprecated; the other took 25 s and more for a small U-Net of any
size (two busy cores, torch 2.13), and can't express all that comes before and after the network.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.fx
from torch import nn

from mitolume.errors import MitolumeError

OPSET, IR_VERSION = 17, 8  # what runtimes from 2022 on read
_NOTHING = ("contiguous", "float", "output")  # what changes no number


class Graph:
    """Nodes in their order; called with an operator and its inputs, it returns the output's name.

    An input is a name, or an array, which becomes a constant; equal ones are kept once.
    """

    def __init__(self, onnx: Any) -> None:
        self._onnx = onnx
        self.nodes: list[Any] = []
        self.constants: dict[tuple[Any, ...], Any] = {}

    def __call__(self, kind: str, *inputs: Any, name: str = "", **attributes: Any) -> str:
        """Add a node."""
        name = name or f"{kind}_{len(self.nodes)}"
        # Of two outputs, as TopK has them, the first is what is wanted.
        outputs = [name, f"{name}_places"] if kind == "TopK" else [name]
        names = [one if isinstance(one, str) else self._constant(one) for one in inputs]
        self.nodes.append(self._onnx.helper.make_node(kind, names, outputs, **attributes))
        return name

    def _constant(self, value: Any) -> str:
        array = np.asarray(value)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.constants:
            name = f"constant_{len(self.constants)}"
            self.constants[key] = self._onnx.numpy_helper.from_array(array, name)
        return str(self.constants[key].name)

    def model(self, image: tuple[str, int], answer: tuple[str, int], **noted: Any) -> Any:
        """Return the whole: from an image to an answer, each given by name and number of channels.

        Both are (N, C, Y, X) float32, of any N, Y and X.
        """
        helper, single = self._onnx.helper, self._onnx.TensorProto.FLOAT
        ends = [
            helper.make_tensor_value_info(name, single, ["N", count, "Y", "X"])
            for name, count in (image, answer)
        ]
        constants = list(self.constants.values())
        made = helper.make_graph(self.nodes, "mitolume", ends[:1], ends[1:], constants)
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(made, opset_imports=opsets, ir_version=IR_VERSION, **noted)


def write_layers(graph: Graph, network: nn.Module, image: str) -> str:
    """Write the layers of a network down, one node each; return the name of its answer."""
    layers: dict[Any, Any] = dict(network.named_modules())
    names: dict[Any, str] = {}
    answer = image
    for node in torch.fx.symbolic_trace(network).graph.nodes:
        given, layer = [names[one] for one in node.all_input_nodes], layers.get(node.target)
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            weights = [one.numpy(force=True) for one in layer.parameters()]
            kind = type(layer).__name__.removesuffix("2d")
            pads = [*layer.padding, *layer.padding]
            answer = graph(kind, *given, *weights, strides=layer.stride, pads=pads)
        elif isinstance(layer, nn.ReLU):
            answer = graph("Relu", *given)
        elif isinstance(layer, nn.MaxPool2d):
            size = [layer.kernel_size] * 2
            answer = graph("MaxPool", *given, kernel_shape=size, strides=size)
        elif node.target is torch.cat:
            answer = graph("Concat", *given, axis=1)
        elif given and (node.target in _NOTHING or isinstance(layer, nn.Identity)):
            answer = given[0]
        elif given:
            raise MitolumeError(f"the network's layer {node} can't be exported to ONNX")
        names[node] = answer
    return answer
