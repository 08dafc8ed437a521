"""A small network ready to predict, and images for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import xarray as xr

from helpers.fields import blobs
from mitolume.inference.predictor import Predictor
from mitolume.io.write import write_image
from mitolume.models.bundle import Card
from mitolume.models.networks import SegmentationNetwork
from mitolume.models.settings import InputSettings, NetworkSettings


def network(width: int = 8) -> SegmentationNetwork:
    """Return a network whose normalisation has seen something, and that finds about a fifth."""
    made = SegmentationNetwork(NetworkSettings(width=width), seed=1).train()
    with torch.no_grad():
        for seed in range(3):
            made(torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(seed)))
    return made.eval()


def predictor(width: int = 8, **options: object) -> Predictor:
    """Return a model at 0.1 µm whose masks of `blobs` hold both values."""
    card = Card(network=NetworkSettings(width=width), pixel_size_um=0.1)
    made = Predictor(network(width), card, **options)
    card.threshold = float(np.median(made.predict_plane(blobs(0)[0], (0.1, 0.1))))
    return made


def write(path: Path, pixels: np.ndarray, dims: str = "YX", size: float | None = 0.1) -> Path:
    attrs = {"pixel_size_um": {"Y": size, "X": size}} if size else {}
    write_image(path, xr.DataArray(pixels, dims=tuple(dims), attrs=attrs))
    return path


def sure(
    views: int = 1,
    planes: int = 1,
    channels: tuple[str, ...] = (),
    engine: str = "torch",
    **card: object,
) -> Predictor:
    """Return a model whose probabilities take all values between 0 and 1."""
    inputs = InputSettings(planes=planes, channels=channels)
    settings = NetworkSettings(width=4, name=card.pop("name", "unet"))
    made = SegmentationNetwork(settings, inputs.count, seed=1).train()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(3):
            made(torch.randn(2, inputs.count, 64, 64, generator=random))
        made.eval()
        last = [one for one in made.modules() if isinstance(one, torch.nn.Conv2d)][-1]
        images = torch.randn(1, inputs.count, 64, 64, generator=random)
        logits = made(images)
        last.weight *= 3 / logits.std()
        last.bias.fill_(0)
        last.bias -= made(images).mean()
    own = Card(network=settings, inputs=inputs, views=views, **card)
    return Predictor(made, own, precision="float32", engine=engine)
