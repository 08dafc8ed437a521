"""The chain of steps between a file's plane and the network. Knows no network of segmentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from mitolume.inference.denoise import DenoisedPlane, Denoiser
from mitolume.inference.steps import Channels, SharpenedPlane, StripelessPlane, grey_range
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


def prepare_planes(
    plane: Plane,
    chain: ChainSettings,
    *,
    planes_in: int = 1,
    neighbours: Sequence[Plane] = (),
    grey: GreyRange | None = None,
    **options: Any,
) -> Plane:
    """Send a plane through the chain, with the planes next to it where the network sees them.

    Parameters
    ----------
    plane
        (Y, X), the file's dtype and grid: an array, which is computed at once, or what slices like
        one, which is computed box by box; the pixels are the same either way.
    chain, neighbours, grey, **options
        As for `PreparedPlane`.
    planes_in
        1, or 3 for the plane before, the plane and the one behind.

    Returns
    -------
    Plane
        (Y, X) on the model's grid; boxes of it are float32 (Y, X), or (3, Y, X). All three have the
        grey range of the plane in the middle.
    """
    at_once = isinstance(plane, np.ndarray)
    centre = PreparedPlane(plane, chain, neighbours=neighbours, grey=grey, **options)
    if planes_in == 1:
        return centre.loaded() if at_once else centre
    # Of the two on each side the nearer ones.
    beside = neighbours[1:3] if neighbours else (plane, plane)
    if at_once:
        beside = [other[whole((other.shape[0], other.shape[1]))] for other in beside]
    before, behind = (PreparedPlane(other, chain, grey=centre.grey, **options) for other in beside)
    three = before, centre, behind
    return Channels([prepared.loaded() for prepared in three] if at_once else three)


def scaled_shape(shape: tuple[int, ...], factors: tuple[float, float]) -> tuple[int, int]:
    """Return the (Y, X) of a plane after rescaling, at least one pixel along each axis."""
    return max(1, round(shape[0] * factors[0])), max(1, round(shape[1] * factors[1]))
