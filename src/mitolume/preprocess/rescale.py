"""Between an image's pixel size and the model's. Knows no file."""

from __future__ import annotations

from typing import Any

import numpy as np
from skimage.transform import resize

from mitolume.errors import MitolumeError

# Closer than this, resampling would blur more than the difference in size matters; further
# apart than MOST, the image shows other things than the model knows.
NEAR, MOST = 1.1, 4.0


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
    return (1.0, 1.0) if worst <= NEAR else factors


def rescale(
    image: np.ndarray[Any, Any], shape: tuple[int, int]
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Resample grey values or probabilities to a shape, linearly, smoothed before shrinking.

    Parameters
    ----------
    image
        (Y, X), any numeric dtype.
    shape
        The new (Y, X).

    Returns
    -------
    numpy.ndarray
        ``shape``, float32, within the range of the input.
    """
    image = image.astype(np.float32, copy=False)
    if image.shape == shape:
        return image
    return np.asarray(resize(image, shape, order=1, mode="reflect", anti_aliasing=True), np.float32)


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
