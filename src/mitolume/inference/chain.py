"""The chain of steps between a file's plane and the network. Knows no network."""

from __future__ import annotations

from typing import Any

import numpy as np

from mitolume.inference.tiles import Box, grown, whole
from mitolume.io.windows import Plane
from mitolume.preprocess.normalise import GreyRange, normalise, range_of_sample, sample_step
from mitolume.preprocess.rescale import rescale_window, scale_factors
from mitolume.preprocess.settings import ChainSettings
from mitolume.preprocess.sharpen import REACH, unsharp_mask

_SIDE = 2048  # pixels a side that a large plane is measured in


class PreparedPlane:
    """A plane as the network reads it, computed box by box; slices like an array.

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
        pixel_size_um: tuple[float, float] | None = None,
        model_um: float | None = None,
        unlabelled: bool = False,
        source: str = "the image",
        grey: GreyRange | None = None,
    ) -> None:
        factors = scale_factors(pixel_size_um, model_um, source)
        self._plane, self._grey = plane, grey
        self._sharpen = chain.sharpen == "all" or (chain.sharpen == "unlabelled" and unlabelled)
        self.file_shape = (plane.shape[0], plane.shape[1])
        self.shape = scaled_shape(plane.shape, factors)

    @property
    def grey(self) -> GreyRange:
        """The range of the whole plane on the model's grid, from pixels on a regular grid."""
        if self._grey is None:
            rows, columns = (_on_grid(size, sample_step(self.shape)) for size in self.shape)
            sample = np.block([[self.scaled((y, x)) for x in columns] for y in rows])
            self._grey = range_of_sample(sample)
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
            return self._sharpened(box)
        return rescale_window(self._sharpened, self.file_shape, self.shape, box)

    def _sharpened(self, box: Box) -> np.ndarray[Any, Any]:
        if not self._sharpen:
            return self._plane[box]
        outer = grown(box, REACH, self.file_shape)
        sharp = unsharp_mask(self._plane[outer])
        y, x = (
            slice(part.start - around.start, part.stop - around.start, part.step)
            for part, around in zip(box, outer, strict=True)
        )
        return sharp[y, x]


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
    chain, pixel_size_um, model_um, unlabelled, source
        As for `PreparedPlane`, whose boxes are parts of this.

    Returns
    -------
    numpy.ndarray
        float32 on the model's grid, mean 0, spread 1.
    """
    return PreparedPlane(
        plane,
        chain,
        pixel_size_um=pixel_size_um,
        model_um=model_um,
        unlabelled=unlabelled,
        source=source,
    ).loaded()


def scaled_shape(shape: tuple[int, ...], factors: tuple[float, float]) -> tuple[int, int]:
    """Return the (Y, X) of a plane after rescaling, at least one pixel along each axis."""
    return max(1, round(shape[0] * factors[0])), max(1, round(shape[1] * factors[1]))


def _on_grid(size: int, step: int) -> list[slice]:
    """Cut an axis into parts of which each holds pixels of a regular grid."""
    starts = range(0, size, _SIDE)
    parts = [slice(-(-start // step) * step, min(start + _SIDE, size), step) for start in starts]
    return [part for part in parts if part.start < part.stop]
