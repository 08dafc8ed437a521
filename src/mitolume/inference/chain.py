"""The steps between a file's plane and the network: stripes, denoise, sharpen, rescale, normalise.

Each step is measured once on the whole plane and computed for the window that is asked for, so
that planes larger than memory may stay in their file.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from scipy import ndimage

from mitolume.inference.denoise import DenoisedPlane, Denoiser
from mitolume.inference.tiles import Box, Shape, grown, inside, whole
from mitolume.io.windows import ComputedPlane, Plane
from mitolume.preprocess.normalise import GreyRange, measure_range, normalise, sampled
from mitolume.preprocess.rescale import rescale_window, scale_factors, scaled_shape
from mitolume.preprocess.settings import ChainSettings
from mitolume.preprocess.stated import Linear, StatedChain, apply, fit
from mitolume.preprocess.stripes import without_stripes

Image = np.ndarray[Any, np.dtype[np.float32]]


class PreparedPlane:
    """A plane as the network reads it.

    Parameters
    ----------
    plane
        (Y, X), the file's dtype and grid: an array, or what slices like one.
    chain
        Which steps.
    denoiser
        Needed where the chain has one.
    neighbours
        The planes around it in its stack, see `planes_around`; only a denoiser looks at them.
    pixel_size_um
        The plane's, along Y and X.
    model_um
        The model's.
    unlabelled
        Whether the image is one of the unlabelled training images, which a chain may treat apart.
    source
        How messages name the image.

    Attributes
    ----------
    shape
        (Y, X) on the model's grid.
    pixels
        What slices like an array of that shape: the plane before it is normalised.

    Raises
    ------
    MitolumeError
        The pixel sizes don't fit.
    """

    def __init__(
        self,
        plane: Plane,
        chain: ChainSettings,
        *,
        denoiser: Denoiser | None = None,
        neighbours: Sequence[Plane] = (),
        pixel_size_um: tuple[float, float] | None = None,
        model_um: float | None = None,
        unlabelled: bool = False,
        source: str = "the image",
    ) -> None:
        self.shape = scaled_shape(plane.shape, scale_factors(pixel_size_um, model_um, source))
        sharpens = chain.sharpen == "all" or (chain.sharpen == "unlabelled" and unlabelled)
        clean = _without_noise(plane, chain, denoiser, neighbours)
        scaled = _scaled(sharpened(clean) if sharpens else clean, self.shape)
        self.pixels = scaled[whole(self.shape)] if isinstance(plane, np.ndarray) else scaled
        self._chain = chain

    @cached_property
    def grey(self) -> GreyRange:
        """The range of the whole plane on the model's grid, from pixels on a regular grid."""
        return measure_range(self.pixels)

    @cached_property
    def _stated(self) -> list[Linear] | None:
        """How the package of another program normalises the plane; None where none does."""
        if not isinstance(self._chain, StatedChain):
            return None
        return fit(self._chain.normalise, sampled(self.pixels))

    def normalised(self, box: Box, grey: GreyRange) -> Image:
        """Compute a box on the model's grid, (Y, X) float32, by the grey range of some plane."""
        if self._stated is not None:
            return apply(self._stated, self.pixels[box]).astype(np.float32)
        return normalise(self.pixels[box], grey)

    def __getitem__(self, box: Box, /) -> Image:
        """Compute a box on the model's grid, (Y, X) float32, by the plane's own grey range."""
        return self.normalised(box, self.grey)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Image:
        """Compute the whole plane."""
        return self[whole(self.shape)]


def sharpened(plane: Plane) -> Plane:
    """Return a plane after ImageJ's unsharp mask (0.5 px, 0.7)."""
    shape = (plane.shape[0], plane.shape[1])

    def compute(box: Box) -> Image:
        outer = grown(box, 2, shape)  # 4 sigma of 0.5 px
        return unsharp_mask(plane[outer])[inside(box, outer)]

    return ComputedPlane(shape, compute)


def unsharp_mask(image: np.ndarray[Any, Any]) -> Image:
    """Sharpen a (Y, X) as ImageJ's *Process > Filters > Unsharp Mask* does with 0.5 px and 0.7.

    ``(image - 0.7 * blurred) / 0.3``, blurred by a Gaussian with a sigma of 0.5 px (ImageJ,
    ``ij.plugin.filter.UnsharpMask``); float32, neither clipped nor wrapped around.
    """
    pixels = image.astype(np.float32)
    blurred = ndimage.gaussian_filter(pixels, 0.5, mode="nearest", truncate=4)
    return np.asarray((pixels - 0.7 * blurred) / (1 - 0.7), np.float32)


def _scaled(plane: Plane, shape: Shape) -> Plane:
    """Return a plane resampled to another shape; itself where the shape is its own."""
    old = (plane.shape[0], plane.shape[1])
    if old == shape:
        return plane

    def compute(box: Box) -> Image:
        y, x = (slice(*part.indices(n)[:2]) for part, n in zip(box, shape, strict=True))
        return rescale_window(plane.__getitem__, old, shape, (y, x))

    return ComputedPlane(shape, compute)


def _without_noise(
    plane: Plane, chain: ChainSettings, denoiser: Denoiser | None, neighbours: Sequence[Plane]
) -> Plane:
    """Remove scan lines and noise, as far as the chain asks for it."""
    if chain.stripes == "auto":
        plane = without_stripes(plane)
    if not chain.denoises:
        return plane
    assert denoiser is not None, "a chain that denoises comes with its denoiser"
    if chain.stripes == "auto":
        neighbours = [without_stripes(one) for one in neighbours]
    return DenoisedPlane(plane, denoiser, neighbours)
