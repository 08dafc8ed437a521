"""Between an image's pixel size and the model's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import ndimage

from mitolume.errors import MitolumeError
from mitolume.io.windows import Box

Image = np.ndarray[Any, np.dtype[np.float32]]

_NEAR = 1.1  # closer sizes are taken as equal: resampling would blur more than that matters
MOST = 4.0  # further apart, the image shows other things than the model knows


def scale_factors(
    pixel_size_um: tuple[float, float] | None, model_um: float | None, source: str = "the image"
) -> tuple[float, float]:
    """Return by how much to enlarge an image along Y and X to reach the model's pixel size.

    Parameters
    ----------
    pixel_size_um
        The image's, along Y and X; None where unknown.
    model_um
        The model's; None where it was trained on images of unknown pixel size.
    source
        How messages name the image.

    Returns
    -------
    tuple of float
        1.0 along both axes where the sizes differ by 10 % or less, or the model has none.

    Raises
    ------
    MitolumeError
        The image's pixel size is unknown although the model has one, or they differ by more than
        a factor of 4.
    """
    if model_um is None:
        return 1.0, 1.0
    if pixel_size_um is None:
        raise MitolumeError(
            f"{source} states no pixel size, but the model works at {model_um:g} µm per pixel; "
            "say it with --pixel-size (or column `pixel_size_um` of the table)"
        )
    factors = (pixel_size_um[0] / model_um, pixel_size_um[1] / model_um)
    worst = max(max(f, 1 / f) for f in factors)
    if worst > MOST:
        raise MitolumeError(
            f"{source} has {pixel_size_um[0]:g} µm per pixel and the model {model_um:g} µm, more "
            f"than {MOST:g} times apart; correct it with --pixel-size, or use another model"
        )
    return (1.0, 1.0) if worst <= _NEAR else factors


def scaled_shape(shape: tuple[int, ...], factors: tuple[float, float]) -> tuple[int, int]:
    """Return the (Y, X) of a plane after rescaling, at least one pixel along each axis."""
    return max(1, round(shape[0] * factors[0])), max(1, round(shape[1] * factors[1]))


def rescale(image: np.ndarray[Any, Any], shape: tuple[int, int]) -> Image:
    """Resample grey values or probabilities (Y, X) to another (Y, X), see `rescale_window`."""
    old = (image.shape[0], image.shape[1])
    return rescale_window(image.__getitem__, old, shape, (slice(0, shape[0]), slice(0, shape[1])))


def rescale_window(
    read: Callable[[Box], np.ndarray[Any, Any]],
    shape: tuple[int, int],
    new_shape: tuple[int, int],
    box: Box,
) -> Image:
    """Compute a window (``box``) of a plane of ``shape`` resampled linearly to ``new_shape``.

    The same as scikit-image's ``resize(plane, new_shape, order=1, anti_aliasing=True)``, but only
    what the window needs is read: ``read`` gives the pixels of a box (rows, columns) of the plane.
    """
    if shape == new_shape:
        return read(box).astype(np.float32, copy=False)
    steps = [old / new for old, new in zip(shape, new_shape, strict=True)]
    sigmas = [max(0.0, (step - 1) / 2) for step in steps]  # as scikit-image smooths
    # Where the window's first and last pixel lie in the old plane, with what they are made of.
    spans, firsts = [], []
    for part, size, step, sigma in zip(box, shape, steps, sigmas, strict=True):
        first, last = ((at + 0.5) * step - 0.5 for at in (part.start, part.stop - 1))
        reach = math.ceil(4 * sigma) + 1
        start = min(max(math.floor(first) - reach, 0), size - 1)
        spans.append(slice(start, max(min(math.ceil(last) + reach + 1, size), start + 1)))
        firsts.append(first - start)
    pixels = read((spans[0], spans[1])).astype(np.float32, copy=False)
    if any(sigmas):
        pixels = ndimage.gaussian_filter(pixels, sigmas, mode="mirror")
    result: Image = ndimage.affine_transform(
        pixels,
        steps,
        offset=firsts,
        output_shape=tuple(part.stop - part.start for part in box),
        order=1,
        mode="mirror",
    )
    return result


def rescale_mask(
    mask: np.ndarray[Any, np.dtype[np.uint8]], shape: tuple[int, int]
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Resample a mask to a shape by nearest neighbour, keeping 0, 1 and 255."""
    if mask.shape == shape:
        return mask
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)
        for new, old in zip(shape, mask.shape, strict=True)
    )
    return np.asarray(mask[rows[:, None], columns])
