"""Horizontal scan-line noise: found, measured, removed.

An offset that distant parts of a line share, and the next line does not, is scan-line noise:
optics leave little detail that fine, and structure seldom runs that far along one line of pixels.
Vertical lines are left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import fft

from mitolume.io.windows import Box, ComputedPlane, Plane

# Lines below a fifth of the pixel noise add under 4 % to its variance: not worth a change.
_FAINTEST = 0.2
_SURE = 5.0  # standard errors by which lines must stand out; what is measured is in the docs
_LEAST = 32  # pixels a side, below which nobody can tell
_CELL, _FEWEST_CELLS = 64, 8  # pixels of a line that are averaged first; parts of a narrow line
_WINDOW, _STRIDE = 8, 4  # cells for which one offset is found, and from one window to the next
_BAND = 2**22  # pixels held at once

Array = np.ndarray[Any, np.dtype[np.float64]]
Image = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, eq=False)
class Stripes:
    """The scan-line noise of one plane, small enough to keep beside it.

    Attributes
    ----------
    line_noise
        Standard deviation of the lines' offsets, grey values; also where too faint to be removed.
    pixel_noise
        Standard deviation between neighbouring pixels of a line (over the root of 2), grey values.
    significance
        By how many standard errors the lines stand out; about standard normal without any.
    offsets
        (Y, knots) float32, what is to be subtracted at each knot; (Y, 0) where no stripes are.
    knots
        (knots,) where these lie along X, pixels; linear between them, constant beyond.
    """

    line_noise: float
    pixel_noise: float
    significance: float
    offsets: Image
    knots: Array

    @property
    def found(self) -> bool:
        """Whether there are stripes to remove."""
        return self.knots.size > 0

    @property
    def strength(self) -> float:
        """The line noise relative to the pixel noise, up to 1000: above 1 lines hide the rest."""
        if self.line_noise == 0:
            return 0.0
        return self.line_noise / max(self.pixel_noise, self.line_noise / 1000)

    def remove(self, window: np.ndarray[Any, Any], box: Box) -> Image:
        """Subtract the lines from the pixels (Y, X) of a box of the plane; float32, not clipped."""
        pixels: Image = window.astype(np.float32)
        if not self.found:
            return pixels
        offsets, knots = self.offsets[box[0]], self.knots
        if len(knots) == 1:
            return pixels - offsets
        first, _, step = box[1].indices(np.iinfo(np.int64).max)  # large planes are sampled
        x = first + step * np.arange(window.shape[1])
        left = (np.searchsorted(knots, x) - 1).clip(0, len(knots) - 2)
        share = ((x - knots[left]) / (knots[left + 1] - knots[left])).clip(0, 1).astype(np.float32)
        return np.asarray(pixels - (offsets[:, left] * (1 - share) + offsets[:, left + 1] * share))


def measure_stripes(plane: Plane) -> Stripes:
    """Find and measure the scan-line noise of a plane.

    What is common to distant parts of the lines is told from what is not by their cross-spectrum,
    which noise and structure leave at 0. An offset for each line comes from the robust mean of its
    differences from the next (the unidirectional model of Bouali & Ladjal 2011, IEEE Trans. Geosci.
    Remote Sens. 49:2924, for offsets constant along x) and from its median; at each frequency along
    Y the one with less power, damped as Wiener's filter does it by what exceeds the power of lines.
    So only frequencies along the axis of the lines are damped, and only as far as lines fill them
    (Münch et al. 2009, Opt. Express 17:8567, whose damping is set by hand).

    Parameters
    ----------
    plane
        (Y, X), any numeric dtype: an array, or what slices like one; it is read once, in bands
        of rows.

    Returns
    -------
    Stripes
        Without offsets where lines don't stand out, where they are below a fifth of the pixel
        noise, and on planes below 32 pixels a side.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> plane = rng.normal(100, 5, (128, 128)) + rng.normal(0, 5, (128, 1))
    >>> 0.8 < measure_stripes(plane).strength < 1.2
    True
    """
    height, width = plane.shape
    nothing = np.zeros((height, 0), np.float32)
    if min(height, width) < _LEAST:
        return Stripes(0.0, 0.0, 0.0, nothing, np.zeros(0))
    n_cells = width // max(_FEWEST_CELLS, min(_CELL, width // 8))
    cells = np.linspace(0, width, n_cells + 1).astype(int)
    # Windows overlap by half and end with the line.
    room = max(n_cells - _WINDOW, 0)
    first = np.linspace(0, room, round(room / _STRIDE) + 1).round().astype(int)
    last = np.minimum(first + _WINDOW, len(cells) - 1)
    windows = np.stack([cells[first], cells[last]], axis=1)
    steps, medians, pixel_noise = _look_at_lines(plane, cells, windows)
    shared, error = _shared_power(steps)
    variance = shared.mean(axis=0)
    line_noise = float(np.sqrt(max(variance.mean(), 0.0)))
    significance = float(shared.sum() / error) if error else 0.0
    found = Stripes(line_noise, pixel_noise, significance, nothing, np.zeros(0))
    if significance < _SURE or found.strength < _FAINTEST:
        return found
    offsets = np.empty((height, len(first)), np.float32)
    for knot, (a, b) in enumerate(zip(first, last, strict=True)):
        inside = variance[a : b - 2].mean()  # what its cells share with those to their right
        offsets[:, knot] = _offsets(steps[:, a:b], medians[:, knot], max(inside, 0.0))
    return Stripes(line_noise, pixel_noise, significance, offsets, windows.mean(axis=1))


def remove_stripes(plane: np.ndarray[Any, Any]) -> Image:
    """Remove the scan-line noise of a plane: (Y, X) of any numeric dtype to (Y, X) float32."""
    return measure_stripes(plane).remove(plane, (slice(0, None), slice(0, None)))


def without_stripes(plane: Plane) -> Plane:
    """Return a plane without its scan-line noise, which is measured when it is first needed."""
    found = cache(lambda: measure_stripes(plane))
    return ComputedPlane(plane.shape, lambda box: found().remove(plane[box], box))


def _look_at_lines(
    plane: Plane, cells: np.ndarray[Any, Any], windows: np.ndarray[Any, Any]
) -> tuple[Array, Array, float]:
    """Return each cell's step to the next line, each window's median, and the pixel noise."""
    height, width = plane.shape
    rows = max(2, _BAND // width)
    steps, medians, squares = [], [], 0.0
    for top in range(0, height - 1, rows):
        band = np.asarray(plane[slice(top, min(top + rows + 1, height)), slice(0, width)])
        pixels = band.astype(np.float32)
        own = len(pixels) - 1
        noise = _pixel_noise(pixels)
        squares += own * noise**2
        down = np.diff(pixels, axis=0)
        means = [_robust_mean(down[:, a:b], noise) for a, b in pairwise(cells)]
        steps.append(np.stack(means, axis=1))
        kept = pixels if top + rows + 1 >= height else pixels[:own]
        medians.append(np.stack([np.median(kept[:, a:b], axis=1) for a, b in windows], axis=1))
    noise = float(np.sqrt(squares / (height - 1)))
    return np.concatenate(steps), np.concatenate(medians).astype(np.float64), noise


def _pixel_noise(pixels: Image) -> float:
    """Return the standard deviation of noise from differences along lines, edges left out."""
    across = np.abs(np.diff(pixels, axis=1))
    typical = 1.4826 * float(np.median(across))
    # Where most differences are 0 (an empty image, few grey values), all of them count.
    noise = across[across <= 4 * typical] if typical else across
    return float(np.sqrt(np.mean(noise.astype(np.float64) ** 2) / 2))


def _robust_mean(values: np.ndarray[Any, Any], noise: float = 0.0) -> Array:
    """Return Huber's mean along the last axis: structure counts little, rounding does no harm."""
    values = values.astype(np.float64)
    mean = np.median(values, axis=-1, keepdims=True)
    for _ in range(4):
        off = np.abs(values - mean)
        spread = np.maximum(1.4826 * np.median(off, axis=-1, keepdims=True), 0.7 * noise)
        weight = np.minimum(1, 1.345 * spread / np.maximum(off, 1e-12))
        weight = np.maximum(weight, 1e-12)
        mean = (weight * values).sum(axis=-1, keepdims=True) / weight.sum(axis=-1, keepdims=True)
    return np.asarray(mean[..., 0])


def _shared_power(steps: Array) -> tuple[Array, float]:
    """Return what each cell's lines share with cells further along, and the error of the sum.

    ``steps`` is (Y - 1, cells). The power, (frequency, cell), is of offsets, its mean over
    frequencies their variance where each line is independent of the next. Cells next to each other
    are no pairs: grains and blur reach across.
    """
    limit = 4 * 1.4826 * np.median(np.abs(steps), axis=0)  # a few odd lines are not scan noise
    taper = np.hanning(len(steps) + 2)[1:-1, None]
    spectrum = fft.rfft(np.clip(steps, -limit, limit) * taper, axis=0)
    frequency = fft.rfftfreq(len(steps))
    top = frequency >= 0.25
    # From the power of differences to that of the offsets.
    scale = 1 / (4 * np.sin(np.pi * frequency[top]) ** 2 * (taper**2).sum())
    spectrum = spectrum[top] * np.sqrt(scale)[:, None]
    n_cells = steps.shape[1]
    shared = np.zeros((int(top.sum()), n_cells - 2))
    pairs = np.zeros(n_cells - 2)
    error = np.zeros_like(shared)
    power = np.abs(spectrum) ** 2
    for apart in range(2, min(_WINDOW, n_cells)):
        left, right = slice(0, n_cells - apart), slice(apart, n_cells)
        shared[:, left] += (spectrum[:, left] * spectrum[:, right].conj()).real
        error[:, left] += power[:, left] * power[:, right] / 2
        pairs[left] += 1
    # Neighbouring frequencies behind a Hann taper share 35/18 of their errors.
    return shared / pairs, float(np.sqrt(35 / 18 * (error / pairs**2).sum()))


def _offsets(steps: Array, median: Array, variance: float) -> Array:
    """Return the offset of each line (Y,) in one window, from its steps and its median."""
    middle = np.median(steps, axis=1, keepdims=True)
    spread = 1.4826 * float(np.median(np.abs(steps - middle)))
    summed = np.concatenate([[0.0], np.cumsum(_robust_mean(steps, spread))])
    (by_steps, power, n), (by_median, other, _) = _spectrum(summed), _spectrum(median)
    best = np.where(other < power, by_median, by_steps)
    power = np.minimum(power, other)
    # Power within two standard errors of the lines' is theirs; cells' errors are in any case.
    allowed = variance * (1 + 2 / np.sqrt(n))
    error = steps.var(axis=1, ddof=1).mean() / (2 * steps.shape[1])
    gain = variance / np.maximum(variance + np.maximum(power - allowed, error), 1e-30)
    gain[0] = 0  # the mean of the image stays
    return np.asarray(fft.irfft(best * gain, 2 * len(median))[: len(median)])


def _spectrum(offsets: Array) -> tuple[Any, Array, Array]:
    """Return the spectrum of offsets mirrored at their end, and its power, smoothed by octaves.

    Each octave holds nine frequencies or more; last comes how many of them are independent, as
    mirroring doubles them.
    """
    spectrum = fft.rfft(np.concatenate([offsets, offsets[::-1]]))
    power = np.abs(spectrum) ** 2 / (2 * len(offsets))
    n = len(power)
    place = np.arange(n)
    low = np.minimum((place * 2**-0.5).astype(int), place - 4).clip(1, max(n - 9, 1))
    high = np.maximum(np.ceil(place * 2**0.5).astype(int), place + 4).clip(low, n - 1) + 1
    total = np.concatenate([[0.0], np.cumsum(power)])
    return spectrum, (total[high] - total[low]) / (high - low), (high - low) / 2
