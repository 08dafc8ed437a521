"""A network of another program, as ONNX. Runs no code: a graph of known operations, from memory."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from scipy import special
from torch import Tensor, nn

from mitolume.errors import MitolumeError, extra, shorten
from mitolume.models.networks import HALO, MULTIPLE

_ACTIVATIONS: dict[str, Any] = {
    "none": np.asarray, "sigmoid": special.expit, "softmax": lambda found: special.softmax(found, 0)
}  # fmt: skip
_Side = Annotated[int, Field(ge=0, le=8192)]  # pixels; with more, memory could not hold it


class ForeignSettings(BaseModel):
    """What has to be known of a network that was trained elsewhere.

    ``axes_in`` and ``axes_out`` are the axes that it takes and gives. ``sides`` are the fewest
    pixels, and in which steps there may be more (0: never). ``channel`` of its answer, after the
    ``activation``, is that of mitochondria. ``source`` says where it comes from: name, authors,
    licence, what to cite, SHA-256 of the package.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["onnx"] = "onnx"
    axes_in: str = Field("bcyx", pattern="^[bcyx]{2,4}$")
    axes_out: str = Field("bcyx", pattern="^[bcyx]{2,4}$")
    sides: tuple[_Side, _Side] = (1, 1)
    channel: int = Field(0, ge=0)
    activation: Literal["none", "sigmoid", "softmax"] = "none"
    source: dict[str, Any] = {}

    def core(self, asked: int) -> int:
        """Return the side of tiles' cores, in pixels: as asked, or the largest that fits."""
        least, step = self.sides
        most = (least - 2 * HALO) * 8 // 9  # tiles may have an eighth more, see `tiles`
        return asked if step else min(asked, max(1, most // MULTIPLE) * MULTIPLE)


class ForeignNetwork(nn.Module):
    """An ONNX graph in the place of a network of torch; it can't be trained.

    ``graph`` is the content of its file; one that names other files for its weights is refused.
    """

    def __init__(self, settings: ForeignSettings, graph: bytes) -> None:
        super().__init__()
        runtime = extra("a model of another program", "onnxruntime", "export")
        onnx = extra("a model of another program", "onnx", "export")
        self.settings = settings
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)  # has a device
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # what fails is raised
        try:
            tensors = onnx.external_data_helper._get_all_tensors(onnx.load_model_from_string(graph))
            outside = any(map(onnx.external_data_helper.uses_external_data, tensors))
        except Exception as error:  # of protobuf
            raise MitolumeError(f"the network is no ONNX graph: {shorten(error)}") from error
        if outside:
            raise MitolumeError("the network names other files for its weights; none is read")
        try:
            self._session = runtime.InferenceSession(
                graph, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has kinds of its own
            raise MitolumeError(f"onnxruntime can't use the network: {shorten(error)}") from error

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, (B, 1, Y, X), of normalised images (B, 1, Y, X)."""
        planes = [self.probability(plane) for plane in images.numpy(force=True)[:, 0]]
        return torch.from_numpy(np.stack(planes)).to(images)[:, None].clamp(0, 1).logit()

    def probability(self, plane: Any) -> Any:
        """Return what is stated to be the probability of a normalised plane; both are (Y, X)."""
        own, (height, width) = self.settings, plane.shape
        least, step = own.sides  # mirrored at the far edges up to sides that fit
        more = [max(0, least - n, step and (least - n) % step) for n in plane.shape]
        plane = np.pad(plane, [(0, n) for n in more], mode="symmetric")
        shape = dict(zip("yx", plane.shape, strict=True))
        turned = plane.T if own.axes_in.index("x") < own.axes_in.index("y") else plane
        try:
            (given,) = (one.name for one in self._session.get_inputs())
            pixels = turned.reshape([shape.get(axis, 1) for axis in own.axes_in])
            answer = upright(self._session.run(None, {given: pixels})[0], own.axes_out)
            answer = _ACTIVATIONS[own.activation](answer).reshape(-1, *plane.shape)[own.channel]
        except Exception as error:  # onnxruntime has kinds of its own
            raise MitolumeError(
                f"the network of another program fails for {plane.shape[0]} x {plane.shape[1]} "
                f"pixels: {shorten(error)}"
            ) from error
        found: Any = answer[:height, :width].astype(np.float32)
        return found


def upright(tensor: Any, axes: str) -> Any:
    """Return the channels, (C, Y, X), of the first image of a tensor with some of the axes bcyx."""
    tensor = tensor.transpose([axes.index(axis) for axis in "bcyx" if axis in axes])
    channels = tensor.shape[-3] if "c" in axes else 1
    return tensor.reshape(-1, channels, *tensor.shape[-2:])[0]
