"""A trained network applied to planes and images of any size."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from mitolume.errors import MitolumeError
from mitolume.inference.chain import PreparedPlane
from mitolume.inference.denoise import Denoiser
from mitolume.inference.inputs import InputReader, NetworkInput
from mitolume.inference.tiled import CORE, Probability, launch_tiled, predict_tiled, release_buffers
from mitolume.inference.tiles import Box, Shape, around, block_side, blocks, inside
from mitolume.io.channels import Channel, select_channel
from mitolume.io.windows import Plane
from mitolume.io.zarr_out import CHUNK
from mitolume.models.bundle import DENOISER, Card, load_bundle
from mitolume.models.foreign import ForeignNetwork
from mitolume.models.networks import (
    HALO,
    MULTIPLE,
    Precision,
    for_prediction,
    resolve_precision,
    to_device,
)
from mitolume.models.openvino_network import OpenVINONetwork
from mitolume.models.settings import Views
from mitolume.preprocess.rescale import rescale_window
from mitolume.text import count


class Predictor:
    """A model ready to use.

    Parameters
    ----------
    network
        Gives logits (B, 1, Y, X).
    card
        The chain, pixel size and threshold to use it with.
    denoiser
        Needed where the chain has one.
    device
        A torch device; the first GPU, or else the processor, by default.
    views
        Average over the image as it is (1), or its four quarter turns (4): four times the work,
        steadier probabilities. By default what the card says.
    core
        Side of the tiles' cores in pixels, a multiple of 16. It changes memory, not results.
    precision
        ``bfloat16``, ``float32``, or ``auto``: the first where the device computes in it.
    engine
        What computes the network: ``torch``, ``openvino`` (on a processor), or ``auto``: the second
        where it is installed.

    Attributes
    ----------
    network
        As trained.
    fast
        The same as it predicts, see `for_prediction`.

    Raises
    ------
    MitolumeError
        ``core`` is not a multiple of 16, or ``views``, ``precision`` or ``engine`` is none of
        these; or OpenVINO is asked for where it can't compute.
    """

    def __init__(
        self,
        network: nn.Module,
        card: Card,
        *,
        denoiser: Denoiser | None = None,
        device: str | None = None,
        views: Views | None = None,
        core: int = CORE,
        precision: str = "auto",
        engine: str = "torch",
    ) -> None:
        if core <= 0 or core % MULTIPLE:
            raise MitolumeError(f"the tile size is {core}, but must be a multiple of {MULTIPLE}")
        if views not in (None, 1, 4):
            raise MitolumeError(f"views is {views}, but must be 1 or 4")
        if precision not in ("auto", "float32", "bfloat16"):
            raise MitolumeError(
                f"precision is {precision!r}, but must be auto, float32 or bfloat16"
            )
        self.card = card
        self.denoiser = denoiser
        self.bundle: Path | None = None  # where it was loaded from
        self.network = to_device(network, device)
        self.views = card.views if views is None else views
        self.core = core
        self.engine = self._resolved(engine)
        self.precision: Precision = "float32"
        self.fast = self.network
        if isinstance(network, ForeignNetwork):
            self.core = network.settings.core(core)
        else:
            self.precision = resolve_precision(precision, next(network.parameters()).device)
            self.fast = (
                OpenVINONetwork(self.network, card.inputs.count, self.precision)
                if self.engine == "openvino"
                else for_prediction(self.network, self.precision)
            )

    def _resolved(self, engine: str) -> str:
        """Return torch or openvino; raise where it is neither, or can't compute the network."""
        if engine not in ("auto", "torch", "openvino"):
            raise MitolumeError(f"engine is {engine!r}, but must be auto, torch or openvino")
        device = next(self.network.parameters()).device.type
        foreign = isinstance(self.network, ForeignNetwork)
        if engine == "auto":
            can = device == "cpu" and not foreign and find_spec("openvino") and find_spec("onnx")
            return "openvino" if can else "torch"
        if engine == "openvino" and foreign:
            raise MitolumeError("a model of another program is computed by onnxruntime alone")
        if engine == "openvino" and device != "cpu":
            raise MitolumeError(
                f"OpenVINO computes on the processor, not on {device}; leave out the engine, or "
                "name the device cpu"
            )
        return engine

    def predict_plane(
        self, plane: Plane, pixel_size_um: tuple[float, float] | None = None
    ) -> Probability:
        """Predict one plane that is an image of its own.

        Parameters
        ----------
        plane
            (Y, X), as the file holds it: an array, or what slices like one. A network of several
            planes sees it in the place of all.
        pixel_size_um
            Along Y and X; needed where the model has one.

        Returns
        -------
        numpy.ndarray
            (Y, X) float32, the probability of mitochondria, on the plane's own grid.

        Raises
        ------
        MitolumeError
            The model needs several channels, or pixel sizes don't fit.
        """
        prepared = self.prepare(plane, pixel_size_um)
        return self.predict_boxes(prepared, (plane.shape[0], plane.shape[1]))

    def prepare(
        self, plane: Plane, pixel_size_um: tuple[float, float] | None = None
    ) -> NetworkInput:
        """Send a plane through the chain: at once where it is an array, else window by window.

        Parameters are those of `predict_plane`; for planes of a stack, see `reader`.
        """
        inputs = self.card.inputs
        if len(inputs.channels) > 1:
            raise MitolumeError(
                f"the image is one plane, but the model sees {len(inputs.channels)} channels "
                f"({', '.join(inputs.channels)})"
            )
        prepared = PreparedPlane(
            plane,
            self.card.chain,
            denoiser=self.denoiser,
            pixel_size_um=pixel_size_um,
            model_um=self.card.pixel_size_um,
        )
        return NetworkInput([[prepared] * inputs.count])

    def reader(self, image: xr.DataArray, *, unlabelled: bool = False) -> InputReader:
        """Return what gives the planes of an image as the network sees them.

        Parameters
        ----------
        image
            Dims ``T C Z Y X``, with the channels of the model in its order, see
            `mitolume.io.read.read_channels`.
        unlabelled
            Whether it is an unlabelled training image.
        """
        return InputReader(
            image,
            self.card.inputs,
            self.card.chain,
            denoiser=self.denoiser,
            model_um=self.card.pixel_size_um,
            unlabelled=unlabelled,
        )

    def predict_boxes(self, prepared: NetworkInput, shape: Shape) -> Probability:
        """Predict all boxes of a plane of a (Y, X) shape, see `predict_each`."""
        result = np.empty(shape, np.float32)
        boxes = blocks(shape, block_side(shape, prepared.shape, self.core, CHUNK))
        for box, part in zip(boxes, self.predict_each(prepared, shape, boxes), strict=True):
            result[box] = part
        return result

    def predict_each(
        self, prepared: NetworkInput, shape: Shape, boxes: Iterable[Box]
    ) -> Iterator[Probability]:
        """Predict boxes of a plane one after the other; a card computes while the next is read.

        Boxes of any size fit together to the whole plane's answer.

        Parameters
        ----------
        prepared
            As `prepare` or a `reader` returns it.
        shape
            (Y, X) of the plane on its own grid, on which the boxes and the answers lie.
        boxes
            The parts to predict.
        """

        def begin(part: Box) -> Tensor:
            window = around(part, prepared.shape, HALO, MULTIPLE)
            return launch_tiled(
                self.fast,
                prepared[window],
                range(self.views),
                core=self.core,
                box=inside(part, window),
            )

        def resampled(box: Box) -> Tensor:
            part = rescale_window(lambda b: begin(b).numpy(force=True), prepared.shape, shape, box)
            return torch.from_numpy(np.clip(part, 0, 1))

        begun = map(begin if prepared.shape == shape else resampled, boxes)
        for probability, _ in pairwise(chain(begun, [None])):
            assert probability is not None
            answer = probability.numpy(force=True)
            release_buffers()
            yield answer

    def predict_prepared(self, image: Probability, views: int = 1) -> Probability:
        """Predict a plane, (Y, X) or (C, Y, X), that went through the chain: (Y, X) float32.

        The answer is averaged over at least ``views`` turns.
        """
        return predict_tiled(self.fast, image, range(max(self.views, views)), core=self.core)

    def predict(
        self,
        image: xr.DataArray,
        *,
        channel: str | int | Sequence[str | int] | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> xr.DataArray:
        """Predict every plane of an image.

        Parameters
        ----------
        image
            As `mitolume.read` returns it.
        channel
            Name or number of the channel, where the image has several; a list of them in the
            model's order, where the model sees several that are called otherwise here.
        progress
            Called with the planes done and the planes there are.

        Returns
        -------
        xarray.DataArray
            Dims ``T C Z Y X`` with C of length 1 ("mitochondria"), float32 probability; the
            pixel size is kept.

        Raises
        ------
        MitolumeError
            The channel is ambiguous, a plane can't be read, axes are lacking, or pixel sizes don't
            fit.
        """
        if getattr(image, "dims", None) != tuple("TCZYX"):
            raise MitolumeError(
                "an image to predict has the dims T C Z Y X, as `mitolume.read` returns it, and as "
                "a part of it has if a list is taken: image.isel(C=[0])"
            )
        names = self.channels(channel)
        image = xr.concat(
            [select_channel(image, name) for name in names], "C", combine_attrs="override"
        )
        reader, shape = self.reader(image), (image.sizes["Y"], image.sizes["X"])
        result = np.empty((image.sizes["T"], 1, image.sizes["Z"], *shape), np.float32)
        planes = list(np.ndindex(image.sizes["T"], image.sizes["Z"]))
        for done, (t, z) in enumerate(planes):
            progress(done, len(planes))
            result[t, 0, z] = self.predict_boxes(reader.at(z, t), shape)
        progress(len(planes), len(planes))
        coords = {"C": np.array(["mitochondria"], dtype=object)}
        return xr.DataArray(result, dims=image.dims, coords=coords, attrs=dict(image.attrs))

    def channels(self, named: Channel | Sequence[Channel] = None) -> tuple[Channel, ...]:
        """Return which channels of an image to read: as named, else those of the model.

        Raises
        ------
        MitolumeError
            More or fewer are named than the model sees.
        """
        own: tuple[Channel, ...] = self.card.inputs.channels or (None,)
        chosen = (named,) if isinstance(named, str | int) else tuple(named or ())
        if not chosen:
            return own
        if len(chosen) != len(own):
            listing = f" ({', '.join(map(str, own))})" if len(own) > 1 else ""
            raise MitolumeError(
                f"{count(len(chosen), 'channel')} named, but the model sees {len(own)}{listing}"
            )
        return chosen

    def threshold(self, given: float | None = None, condition: str | None = None) -> float:
        """Return the threshold of masks: as given, else the model's for a condition, else for all.

        Raises
        ------
        MitolumeError
            The model doesn't know the condition, or both are given.
        """
        if condition is None:
            return self.card.threshold if given is None else given
        if given is not None:
            raise MitolumeError("a threshold and a condition are given; leave out one of them")
        known = self.card.thresholds
        if not known:
            raise MitolumeError(
                f"condition {condition!r}: the model has one threshold for all conditions; leave "
                "the condition out"
            )
        if condition not in known:
            folded = {name.casefold(): name for name in known}
            near = difflib.get_close_matches(condition.casefold(), folded, n=1, cutoff=0.5)
            hint = f"did you mean {folded[near[0]]!r}? " if near else ""
            raise MitolumeError(
                f"the model knows no condition {condition!r}; {hint}known are {', '.join(known)}"
            )
        return known[condition].threshold

    def mask(
        self,
        probability: xr.DataArray,
        threshold: float | None = None,
        *,
        condition: str | None = None,
    ) -> xr.DataArray:
        """Make a mask (uint8, 0 and 1, no C axis) of a probability, see `threshold`."""
        cut = self.threshold(threshold, condition)
        mask = (probability.isel(C=0, drop=True) >= cut).astype(np.uint8)
        return mask.assign_attrs(probability.attrs)


def load(
    model: str | Path,
    *,
    device: str | None = None,
    views: Views | None = None,
    core: int | None = None,
    precision: str = "auto",
    engine: str = "torch",
) -> Predictor:
    """Load the model in a folder with ``card.json``, and its denoiser; see `Predictor`.

    Raises
    ------
    MitolumeError
        There is no model in that place.
    """
    bundle = Path(model)
    network, card = load_bundle(bundle)
    where: dict[str, Any] = {"device": device, "core": CORE if core is None else core}
    denoiser = Denoiser.load(bundle / DENOISER, **where) if card.chain.denoises else None
    predictor = Predictor(
        network, card, denoiser=denoiser, views=views, precision=precision, engine=engine, **where
    )
    predictor.bundle = bundle
    return predictor
