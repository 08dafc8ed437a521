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
from mitolume.models.settings import NetworkSettings


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
