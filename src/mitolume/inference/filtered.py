"""A plane of mean 0, and filtered by its own spectrum, box by box. Knows no network and no file."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from mitolume.inference.steps import grey_range
from mitolume.inference.tiles import Box, grown, inside
from mitolume.io.windows import Plane
from mitolume.preprocess.normalise import GreyRange, normalise
from mitolume.preprocess.wiener import REACH, SignalNoise, WienerBank, signal_and_noise

_WEAKEST = 0.015  # noise (standard deviation), of a plane's spread, that is worth removing
_SIDE, _SQUARES = 512, 36  # pixels a side of the squares that are kept, and how many of a plane
Image = np.ndarray[Any, np.dtype[np.float32]]


class NormalisedPlane:
    """A plane of mean 0 and spread 1; slices like an array.

    What is measured on the whole plane is measured once, when it is first needed.
    """

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.shape = (plane.shape[0], plane.shape[1])
        self._squares: dict[tuple[int, int], Image] = {}

    @classmethod
    def of(cls, plane: Plane) -> NormalisedPlane:
        """Return a plane that is normalised already, or wrap one that isn't."""
        return plane if isinstance(plane, cls) else cls(plane)

    @cached_property
    def grey(self) -> GreyRange:
        """The range of the whole plane."""
        return grey_range(self.plane.__getitem__, self.shape)

    @cached_property
    def found(self) -> SignalNoise:
        """Signal and noise of the whole plane."""
        return signal_and_noise([self])

    @property
    def is_clean(self) -> bool:
        """Whether its noise is so weak that it can't be told from fine detail."""
        return float(self.found.noise.mean()) < _WEAKEST**2

    @property
    def filtered(self) -> FilteredPlane:
        """The plane filtered by its own spectrum."""
        return FilteredPlane(self)

    @cached_property
    def _bank(self) -> WienerBank:
        return WienerBank(self.found)

    def __getitem__(self, box: Box, /) -> Image:
        """Compute a box, (Y, X) float32."""
        return normalise(self.plane[box], self.grey)

    def filtered_square(self, row: int, column: int) -> Image:
        """Filter a square of a grid; the last ones are kept, as neighbouring tiles share them."""
        found = self._squares.pop((row, column), None)
        if found is None:
            square = _square(row, column, self.shape)
            outer = grown(square, REACH, self.shape)
            found = self._bank.filter(self[outer])[inside(square, outer)].copy()
        self._squares[row, column] = found
        if len(self._squares) > _SQUARES:
            del self._squares[next(iter(self._squares))]
        return found


class FilteredPlane:
    """A normalised plane after the filters of its own spectrum; slices like an array."""

    def __init__(self, plane: NormalisedPlane) -> None:
        self._plane, self.shape = plane, plane.shape

    def __getitem__(self, box: Box, /) -> Image:
        """Compute a box, (Y, X) float32."""
        y, x = box
        result = np.empty((y.stop - y.start, x.stop - x.start), np.float32)
        for row in range(y.start // _SIDE, -(-y.stop // _SIDE)):
            for column in range(x.start // _SIDE, -(-x.stop // _SIDE)):
                square = _square(row, column, self.shape)
                shared = (
                    slice(max(y.start, square[0].start), min(y.stop, square[0].stop)),
                    slice(max(x.start, square[1].start), min(x.stop, square[1].stop)),
                )
                part = self._plane.filtered_square(row, column)
                result[inside(shared, box)] = part[inside(shared, square)]
        return result


def _square(row: int, column: int, shape: tuple[int, int]) -> Box:
    y, x = (
        slice(number * _SIDE, min((number + 1) * _SIDE, size))
        for number, size in zip((row, column), shape, strict=True)
    )
    return y, x
