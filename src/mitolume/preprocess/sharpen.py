"""The unsharp mask, equal to ImageJ's."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

REACH = 2  # pixels around one that its result depends on: 4 sigma of 0.5 px


def unsharp_mask(
    image: np.ndarray[Any, Any], radius: float = 0.5, weight: float = 0.7
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Sharpen as ImageJ's *Process > Filters > Unsharp Mask* does.

    ``(image - weight * blurred) / (1 - weight)``, blurred by a Gaussian with sigma = radius
    (ImageJ, ``ij.plugin.filter.UnsharpMask``). The result is float32 and neither clipped nor
    wrapped around, whatever the input's type.

    Parameters
    ----------
    image
        (Y, X), any numeric dtype.
    radius
        Sigma of the Gaussian in pixels.
    weight
        0 (no sharpening) up to, but not including, 1.

    Returns
    -------
    numpy.ndarray
        (Y, X), float32.

    Examples
    --------
    >>> round(float(unsharp_mask(np.full((3, 3), 200, np.uint8))[1, 1]))
    200
    """
    if not 0 <= weight < 1:
        raise ValueError(f"weight must be 0 or more and below 1, not {weight}")
    sharp = image.astype(np.float32)
    blurred = ndimage.gaussian_filter(sharp, radius, mode="nearest", truncate=4)
    return np.asarray((sharp - weight * blurred) / (1 - weight), np.float32)
