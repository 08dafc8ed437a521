"""A network of this program computed by OpenVINO instead of torch, on a processor.

It joins convolution, normalisation and ReLU into one step, where torch goes through memory after
each of them; for networks with few channels at full resolution that is most of the time.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mitolume.errors import extra
from mitolume.models.networks import Precision, for_prediction
from mitolume.models.onnx_layers import Graph, write_layers

_SHAPES = 3  # of tiles kept ready: at the left, inside and at the right; each takes memory


class OpenVINONetwork(nn.Module):
    """A `SegmentationNetwork` that can't be trained: (B, C, Y, X) to (B, 1, Y, X), float32.

    Convolutions compute in ``precision``, their biases in float32; sums and the answer are float32.
    It takes as many threads as torch has when a tile's shape is first seen. ``graph`` is the
    network as an ONNX file holds it.
    """

    def __init__(self, network: nn.Module, channels: int, precision: Precision) -> None:
        super().__init__()
        # When imported it would tell Intel so, over Google Analytics; without this it can't.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        what = "computing with OpenVINO"
        self._core = extra(what, "openvino", "openvino").Core()
        graph = Graph(extra(what, "onnx", "openvino"))
        answer = _write(graph, for_prediction(network, "float32"))
        made = graph.model(("image", channels), (answer, 1))
        self.graph: bytes = made.SerializeToString()
        self._hint = {"bfloat16": "bf16", "float32": "f32"}[precision]
        self._ready = lru_cache(_SHAPES)(self._compiled)
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)  # has a device

    def _compiled(self, shape: tuple[int, ...]) -> Any:
        model = self._core.read_model(self.graph)
        model.reshape(list(shape))
        settings = {
            "INFERENCE_PRECISION_HINT": self._hint,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "ENABLE_CPU_PINNING": False,  # processes side by side would take the same cores
        }
        return self._core.compile_model(model, "CPU", settings)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        found = self._ready(tuple(images.shape))(images.numpy())
        return torch.from_numpy(found[0])


def _write(graph: Graph, network: nn.Module) -> str:
    """Write a network down; its last layer is no convolution there, which would be rounded."""
    body: Any = network.body
    name = [name for name, _ in body.named_children() if name.startswith("final_conv")][-1]
    weight, bias = (one.numpy(force=True) for one in body.get_submodule(name)[-1].parameters())
    setattr(body, name, nn.Identity())
    weighed = graph("Mul", write_layers(graph, network, "image"), weight)
    return graph("Add", graph("ReduceSum", weighed, np.array([1])), bias)
