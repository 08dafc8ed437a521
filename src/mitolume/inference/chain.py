"""The chain of steps between a file's plane and the network. Knows no network of segmentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from mitolume.inference.denoise import DenoisedPlane, Denoiser
from mitolume.inference.steps import SharpenedPlane, StripelessPlane, grey_range
from mitolume.inference.tiles import Box, whole
from mitolume.io.windows import Plane
from mitolume.preprocess.normalise import GreyRange, normalise
from mitolume.preprocess.rescale import rescale_window, scale_factors
from mitolume.preprocess.settings import ChainSettings


class PreparedPlane:
    """A plane as the network reads it, computed box by box; slices like an array.

    Parameters
    ----------
    plane
        (Y, X), the file's dtype and grid.
    chain
        Which steps.
    denoiser
        Needed where the chain has one.
    neighbours
        The planes around it in its stack, see `open_neighbours`, for denoisers that look at them.
    pixel_size_um
        The plane's, along Y and X.
    model_um
        The model's.
    unlabelled
        Whether the image is one of the unlabelled training images, which a chain may treat apart.
    source
        How messages name the image.
    grey
        The range of the whole plane on the model's grid; measured when it is first needed.

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
        grey: GreyRange | None = None,
    ) -> None:
        factors = scale_factors(pixel_size_um, model_um, source)
        self._grey = grey
        self.file_shape = (plane.shape[0], plane.shape[1])
        self.shape = scaled_shape(plane.shape, factors)
        sharpen = chain.sharpen == "all" or (chain.sharpen == "unlabelled" and unlabelled)
        self._plane = _with_steps(plane, chain, denoiser, neighbours, sharpen)

    @property
    def grey(self) -> GreyRange:
        """The range of the whole plane on the model's grid, from pixels on a regular grid."""
        if self._grey is None:
            self._grey = grey_range(self.scaled, self.shape)
        return self._grey

    def __getitem__(self, box: Box, /) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Compute a box: (Y, X) float32 on the model's grid."""
        y, x = (slice(*part.indices(size)) for part, size in zip(box, self.shape, strict=True))
        return normalise(self.scaled((y, x)), self.grey)

    def loaded(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Compute the whole plane: every box of it is a part of this, to the last bit."""
        return normalise(self.scaled(whole(self.shape)), self._grey)

    def scaled(self, box: Box) -> np.ndarray[Any, Any]:
        """Compute a box before it is normalised; its slices may have steps."""
        if self.shape == self.file_shape:
            return self._plane[box]
        return rescale_window(self._plane.__getitem__, self.file_shape, self.shape, box)


def _with_steps(
    plane: Plane,
    chain: ChainSettings,
    denoiser: Denoiser | None,
    neighbours: Sequence[Plane],
    sharpen: bool,
) -> Plane:
    """Wrap a plane into the steps on its own grid; an array goes through each as a whole."""
    at_once = isinstance(plane, np.ndarray)

    def after(step: Callable[[Plane], Plane], before: Plane) -> Plane:
        made = step(before)
        return made[whole((made.shape[0], made.shape[1]))] if at_once else made

    if chain.stripes == "auto":
        plane = after(StripelessPlane, plane)
    if chain.denoises:
        assert denoiser is not None, "a chain that denoises comes with its denoiser"
        near = neighbours if denoiser.network.channels > 1 else ()
        if at_once:
            near = [other[whole((other.shape[0], other.shape[1]))] for other in near]
        if chain.stripes == "auto":
            near = [after(StripelessPlane, other) for other in near]
        plane = after(partial(DenoisedPlane, denoiser=denoiser, neighbours=near), plane)
    return after(SharpenedPlane, plane) if sharpen else plane


def apply_chain(
    plane: np.ndarray[Any, Any],
    chain: ChainSettings,
    *,
    denoiser: Denoiser | None = None,
    neighbours: Sequence[Plane] = (),
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
    chain, denoiser, neighbours, pixel_size_um, model_um, unlabelled, source
        As for `PreparedPlane`, whose boxes are parts of this.

    Returns
    -------
    numpy.ndarray
        float32 on the model's grid, mean 0, spread 1.
    """
    return PreparedPlane(
        plane,
        chain,
        denoiser=denoiser,
        neighbours=neighbours,
        pixel_size_um=pixel_size_um,
        model_um=model_um,
        unlabelled=unlabelled,
        source=source,
    ).loaded()


def scaled_shape(shape: tuple[int, ...], factors: tuple[float, float]) -> tuple[int, int]:
    """Return the (Y, X) of a plane after rescaling, at least one pixel along each axis."""
    return max(1, round(shape[0] * factors[0])), max(1, round(shape[1] * factors[1]))
