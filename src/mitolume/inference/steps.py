"""Steps of the chain as planes that wrap a plane, computed box by box. Knows no settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from mitolume.inference.tiles import Box, Shape, grown
from mitolume.io.windows import Plane
from mitolume.preprocess.normalise import GreyRange, range_of_sample, sample_step
from mitolume.preprocess.sharpen import REACH, unsharp_mask
from mitolume.preprocess.stripes import Stripes, measure_stripes

_SIDE = 2048  # pixels a side that a large plane is measured in


class StripelessPlane:
    """A plane without its horizontal scan-line noise; slices like an array.

    Parameters
    ----------
    plane
        (Y, X), any dtype.
    """

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self.shape = (plane.shape[0], plane.shape[1])

    @cached_property
    def stripes(self) -> Stripes:
        """The stripes of the whole plane, measured when they are first needed."""
        return measure_stripes(self._plane)

    def __getitem__(self, box: Box, /) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Compute a box, whose slices may have steps."""
        return self.stripes.remove(self._plane[box], box)


class SharpenedPlane:
    """A plane after ImageJ's unsharp mask (0.5 px, 0.7); slices like an array.

    Parameters
    ----------
    plane
        (Y, X), any dtype.
    """

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self.shape = (plane.shape[0], plane.shape[1])

    def __getitem__(self, box: Box, /) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Compute a box, whose slices may have steps."""
        outer = grown(box, REACH, self.shape)
        sharp = unsharp_mask(self._plane[outer])
        y, x = (
            slice(part.start - around.start, part.stop - around.start, part.step)
            for part, around in zip(box, outer, strict=True)
        )
        return sharp[y, x]


def grey_range(read: Callable[[Box], np.ndarray[Any, Any]], shape: Shape) -> GreyRange:
    """Measure a plane by its pixels on a regular grid, read in parts so that memory stays flat.

    Parameters
    ----------
    read
        Gives the pixels of a box, whose slices have steps.
    shape
        (Y, X) of the plane.

    Returns
    -------
    GreyRange
        The same as `measure_range` finds for the plane as an array.
    """
    rows, columns = (_on_grid(size, sample_step(shape)) for size in shape)
    return range_of_sample(np.block([[read((y, x)) for x in columns] for y in rows]))


def _on_grid(size: int, step: int) -> list[slice]:
    """Cut an axis into parts of which each holds pixels of a regular grid."""
    starts = range(0, size, _SIDE)
    parts = [slice(-(-start // step) * step, min(start + _SIDE, size), step) for start in starts]
    return [part for part in parts if part.start < part.stop]


class Channels:
    """Planes of one shape side by side; boxes are (C, Y, X).

    Parameters
    ----------
    planes
        (Y, X) each, the one that is meant in the middle.
    """

    def __init__(self, planes: Sequence[Plane]) -> None:
        self.planes = planes
        self.shape = (planes[0].shape[0], planes[0].shape[1])

    def __getitem__(self, box: Box, /) -> np.ndarray[Any, Any]:
        return np.stack([plane[box] for plane in self.planes])


def side_by_side(image: np.ndarray[Any, Any]) -> Plane:
    """Return an array (Y, X), or (C, Y, X) with planes as channels, as one plane."""
    return Channels(list(image)) if image.ndim == 3 else image


def middle(plane: Plane) -> Plane:
    """Return the plane itself, without those beside it."""
    return plane.planes[len(plane.planes) // 2] if isinstance(plane, Channels) else plane
