"""The chain of steps between a file's plane and the network. Knows no network."""

from __future__ import annotations

from typing import Any

import numpy as np

from mitolume.preprocess.normalise import normalise
from mitolume.preprocess.rescale import rescale, scale_factors
from mitolume.preprocess.settings import ChainSettings
from mitolume.preprocess.sharpen import unsharp_mask


def apply_chain(
    plane: np.ndarray[Any, Any],
    chain: ChainSettings,
    *,
    pixel_size_um: tuple[float, float] | None = None,
    model_um: float | None = None,
    unlabelled: bool = False,
    source: str = "the image",
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Turn a plane as the file holds it into what the network reads.

    Parameters
    ----------
    plane
        (Y, X), the file's dtype and grid.
    chain
        Which steps.
    pixel_size_um
        The plane's, along Y and X.
    model_um
        The model's.
    unlabelled
        Whether the image is one of the unlabelled training images, which a chain may treat apart.
    source
        How messages name the image.

    Returns
    -------
    numpy.ndarray
        float32 on the model's grid, mean 0, spread 1.
    """
    factors = scale_factors(pixel_size_um, model_um, source)
    if chain.sharpen == "all" or (chain.sharpen == "unlabelled" and unlabelled):
        plane = unsharp_mask(plane)
    shape = scaled_shape(plane.shape, factors)
    return normalise(rescale(plane, shape) if shape != plane.shape else plane)


def scaled_shape(shape: tuple[int, ...], factors: tuple[float, float]) -> tuple[int, int]:
    """Return the (Y, X) of a plane after rescaling, at least one pixel along each axis."""
    return max(1, round(shape[0] * factors[0])), max(1, round(shape[1] * factors[1]))
