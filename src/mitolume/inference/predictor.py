"""A trained network applied to planes and images of any size. Knows no training."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from mitolume.errors import MitolumeError
from mitolume.inference.chain import apply_chain
from mitolume.inference.tiles import tiles
from mitolume.io.pixel_size import plane_pixel_size
from mitolume.io.read import read_plane, select_channel
from mitolume.models.bundle import Card, load_bundle
from mitolume.models.networks import HALO, MULTIPLE
from mitolume.preprocess.rescale import rescale

Probability = np.ndarray[Any, np.dtype[np.float32]]

# Side of a tile's core: with the halo, 1,248 px at once. A 64-channel U-Net then needs about
# 4 GB, and the halo costs 50 % more pixels.
CORE = 1024


class Predictor:
    """A model ready to use.

    Parameters
    ----------
    network
        Gives logits (B, 1, Y, X).
    card
        The chain, pixel size and threshold to use it with.
    device
        A torch device; the first GPU, or else the processor, by default.
    average_flips
        Average over the 8 flips and quarter turns: 8 times the work, steadier probabilities.
    core
        Side of the tiles' cores in pixels, a multiple of 16. It changes memory, not results.
    """

    def __init__(
        self,
        network: nn.Module,
        card: Card,
        *,
        device: str | None = None,
        average_flips: bool = False,
        core: int = CORE,
    ) -> None:
        self.card = card
        self.device = torch.device(device or default_device())
        self.network = network.to(self.device).eval()
        self.average_flips = average_flips
        self.core = core

    def predict_plane(
        self,
        plane: np.ndarray[Any, Any],
        pixel_size_um: tuple[float, float] | None = None,
        *,
        unlabelled: bool = False,
        source: str = "the image",
    ) -> Probability:
        """Predict one plane.

        Parameters
        ----------
        plane
            (Y, X), as the file holds it.
        pixel_size_um
            Along Y and X; needed where the model has one.
        unlabelled
            Whether the plane is an unlabelled training image (a chain may sharpen only those).
        source
            How messages name the image.

        Returns
        -------
        numpy.ndarray
            (Y, X) float32, the probability of mitochondria, on the plane's own grid.
        """
        prepared = apply_chain(
            plane,
            self.card.chain,
            pixel_size_um=pixel_size_um,
            model_um=self.card.pixel_size_um,
            unlabelled=unlabelled,
            source=source,
        )
        return rescale(self.predict_prepared(prepared), (plane.shape[0], plane.shape[1]))

    def predict_prepared(self, image: Probability) -> Probability:
        """Predict a plane that went through the chain: (Y, X) to (Y, X), both float32."""
        turns = range(8) if self.average_flips else range(1)
        total = np.zeros(image.shape, np.float32)
        for turn in turns:
            view = _turned(image, turn)
            total += _turned_back(predict_tiled(self.network, view, core=self.core), turn)
        return np.divide(total, len(turns), out=total)

    def predict(
        self,
        image: xr.DataArray,
        *,
        channel: str | int | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> xr.DataArray:
        """Predict every plane of an image.

        Parameters
        ----------
        image
            As `mitolume.read` returns it.
        channel
            Which channel, where the image has several.
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
            The channel is ambiguous, a plane can't be read, or pixel sizes don't fit.
        """
        image = select_channel(image, channel)
        source = image.attrs.get("source", "the image")
        size = plane_pixel_size(image)
        result = np.empty(image.shape, np.float32)
        planes = [(t, z) for t in range(image.sizes["T"]) for z in range(image.sizes["Z"])]
        for done, (t, z) in enumerate(planes):
            progress(done, len(planes))
            plane = read_plane(image, z=z, t=t)
            result[t, 0, z] = self.predict_plane(plane, size, source=source)
        progress(len(planes), len(planes))
        coords = {"C": np.array(["mitochondria"], dtype=object)}
        return xr.DataArray(result, dims=image.dims, coords=coords, attrs=dict(image.attrs))

    def mask(self, probability: xr.DataArray, threshold: float | None = None) -> xr.DataArray:
        """Make a mask (uint8, 0 and 1, no C axis) of a probability, at the model's threshold."""
        cut = self.card.threshold if threshold is None else threshold
        return (
            (probability.isel(C=0, drop=True) >= cut)
            .astype(np.uint8)
            .assign_attrs(probability.attrs)
        )


def load(model: str | Path, **options: Any) -> Predictor:
    """Load a model.

    Parameters
    ----------
    model
        A bundle (a folder with ``card.json``), or a run folder, whose kept model is taken.
    **options
        Passed to `Predictor`.

    Returns
    -------
    Predictor
        Ready to use.

    Raises
    ------
    MitolumeError
        There is no model in that place.
    """
    network, card = load_bundle(find_bundle(model))
    return Predictor(network, card, **options)


def find_bundle(model: str | Path) -> Path:
    """Return the bundle that a path means: itself, or the kept model of a run folder."""
    model = Path(model)
    kept = model / "kept.json"
    if kept.exists():
        try:
            return model / str(json.loads(kept.read_text(encoding="utf-8"))["kept"])
        except (ValueError, KeyError, TypeError):
            raise MitolumeError(f"{kept} is damaged; name {model}/model_1 or model_2") from None
    if (model / "run.json").exists():
        raise MitolumeError(f"{model} is a run that has not finished; go on with --resume")
    return model


def default_device() -> str:
    """Return the best device of this machine for prediction."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@torch.inference_mode()
def predict_tiled(network: nn.Module, image: Probability, *, core: int = CORE) -> Probability:
    """Run a network over a prepared plane in tiles; equal to one pass over the whole plane.

    Parameters
    ----------
    network
        Gives logits (B, 1, Y, X); in evaluation mode.
    image
        (Y, X) float32, prepared.
    core
        Side of the tiles' cores, a multiple of 16.

    Returns
    -------
    numpy.ndarray
        (Y, X) float32, probability.
    """
    device = next(network.parameters()).device
    height, width = image.shape
    padded_shape = tuple(math.ceil(size / MULTIPLE) * MULTIPLE for size in image.shape)
    margin = [(0, new - old) for new, old in zip(padded_shape, image.shape, strict=True)]
    # Symmetric works for sides shorter than the margin, down to one pixel.
    padded = np.pad(image, margin, mode="symmetric")
    result = np.empty(padded.shape, np.float32)
    for tile in tiles((padded.shape[0], padded.shape[1]), core, HALO, MULTIPLE):
        part = torch.from_numpy(np.ascontiguousarray(padded[tile.read])).to(device)
        logits = network(part[None, None])[0, 0]
        result[tile.write] = logits[tile.crop].float().sigmoid().cpu().numpy()
    return result[:height, :width]


def _turned(image: Probability, turn: int) -> Probability:
    flipped = image[:, ::-1] if turn >= 4 else image
    return np.ascontiguousarray(np.rot90(flipped, turn % 4))


def _turned_back(image: Probability, turn: int) -> Probability:
    back = np.rot90(image, -(turn % 4))
    return back[:, ::-1] if turn >= 4 else back
