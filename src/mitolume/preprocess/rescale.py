"""Between an image's pixel size and the model's. Knows no file."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import sparse

from mitolume.errors import MitolumeError

Box = tuple[slice, slice]

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

    The same as scikit-image's ``resize(image, shape, order=1, anti_aliasing=True)``.

    Parameters
    ----------
    image
        (Y, X), any numeric dtype.
    shape
        The new (Y, X).

    Returns
    -------
    numpy.ndarray
        ``shape``, float32, within the range of the input but for rounding.
    """
    image = image.astype(np.float32, copy=False)
    if image.shape == shape:
        return image
    whole = slice(0, shape[0]), slice(0, shape[1])
    return rescale_window(image.__getitem__, (image.shape[0], image.shape[1]), shape, whole)


def rescale_window(
    read: Callable[[Box], np.ndarray[Any, Any]],
    shape: tuple[int, int],
    new_shape: tuple[int, int],
    box: Box,
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Compute a window of what `rescale` would make of a whole plane, to the last bit.

    Parameters
    ----------
    read
        Gives the pixels of a box (rows, columns) of the plane.
    shape
        (Y, X) of the plane.
    new_shape
        (Y, X) that the whole plane would be resampled to.
    box
        The window of the resampled plane; its slices may have steps.

    Returns
    -------
    numpy.ndarray
        (Y, X) float32, as large as ``box``.
    """
    weights = [_weights(*sizes)[part] for *sizes, part in zip(shape, new_shape, box, strict=True)]
    spans = [slice(int(w.indices.min()), int(w.indices.max()) + 1) for w in weights]
    rows, columns = (w[:, span] for w, span in zip(weights, spans, strict=True))
    pixels = read((spans[0], spans[1])).astype(np.float32, copy=False)
    return np.ascontiguousarray((columns @ (rows @ pixels).T).T)


@lru_cache(maxsize=8)
def _weights(size: int, new_size: int) -> sparse.csr_array:
    """Return what each old pixel along an axis adds to each new one, (new, old) float32.

    Each row is summed in the order of its columns, wherever a window begins: that is what makes
    windows equal to the whole.
    """
    smooth = _gaussian(size, max(0.0, (size / new_size - 1) / 2))
    place = (np.arange(new_size) + 0.5) * size / new_size - 0.5
    left = np.floor(place).astype(int)
    values = np.stack([left + 1 - place, place - left], axis=1)
    weights = _matrix(np.stack([left, left + 1], axis=1), values, size) @ smooth
    weights.sort_indices()
    return weights.astype(np.float32)


def _gaussian(size: int, sigma: float) -> sparse.csr_array:
    """Return scipy's Gaussian filter of an axis, cut at 4 sigma, as a matrix (size, size)."""
    if sigma == 0:
        return sparse.eye_array(size, format="csr")
    radius = math.floor(4 * sigma + 0.5)
    steps = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (steps / sigma) ** 2)
    places = np.arange(size)[:, None] + steps
    return _matrix(places, np.broadcast_to(kernel / kernel.sum(), places.shape), size)


def _matrix(
    places: np.ndarray[Any, Any], values: np.ndarray[Any, Any], size: int
) -> sparse.csr_array:
    """Add ``values`` into a (rows, size) matrix; places beyond an edge are mirrored back in."""
    period = max(2 * (size - 1), 1)
    places = places % period
    places = np.minimum(places, period - places) if size > 1 else np.zeros_like(places)
    rows = np.repeat(np.arange(len(places)), places.shape[1])
    entries = values.ravel(), (rows, places.ravel())
    return sparse.coo_array(entries, shape=(len(places), size)).tocsr()


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
