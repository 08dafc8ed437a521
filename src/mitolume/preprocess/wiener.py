"""A Wiener filter for what is left after a prediction: signal back, noise out. Knows no network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Image = np.ndarray[Any, np.dtype[np.float32]]

_SIDE = 64  # pixels a side of the windows whose spectra are averaged (Welch 1967)
_STRIPE = 1.5  # power above that of other directions, from which a direction is noise of lines
_LOWEST = 8  # the noise floor is looked for above this share of the sampling frequency: 1 / 8
_FEWEST = 12  # frequencies in a ring that make a median


def wiener_kernel(residuals: Sequence[Image], side: int) -> Image:
    """Make the filter that keeps the signal of residuals and drops their noise.

    The power of white noise is the same at all frequencies, so it can't exceed the lowest power
    found at any; what is above is signal. Power along rows or columns only, as of scan lines, is
    noise too. The gain at a frequency is the share of the signal (Wiener 1949).

    Parameters
    ----------
    residuals
        (Y, X) each: planes minus what was predicted without knowing their noise.
    side
        Of the kernel in pixels, odd, below 64.

    Returns
    -------
    numpy.ndarray
        (side, side) float32, centred; all 0 where nothing but noise is left.
    """
    gain = _gain(_power(residuals))
    kernel = np.fft.fftshift(np.fft.ifft2(gain).real)
    middle, reach = _SIDE // 2, side // 2
    part = slice(middle - reach, middle + reach + 1)
    # Tapered, as an abrupt end would ring.
    taper = np.hanning(side + 2)[1:-1] ** 0.5
    return np.asarray(kernel[part, part] * taper * taper[:, None], np.float32)


def _power(residuals: Sequence[Image]) -> np.ndarray[Any, Any]:
    """Average the power spectra of windows, (64, 64), 1 per pixel for white noise of variance 1."""
    window = np.hanning(_SIDE + 1)[:_SIDE]
    window = window * window[:, None]
    total, count = np.zeros((_SIDE, _SIDE)), 0
    for residual in residuals:
        margin = [(0, max(0, _SIDE - size)) for size in residual.shape]
        plane = np.pad(residual - residual.mean(), margin, mode="symmetric")
        for y in _starts(plane.shape[0]):
            for x in _starts(plane.shape[1]):
                part = plane[y : y + _SIDE, x : x + _SIDE] * window
                total += np.abs(np.fft.fft2(part)) ** 2
                count += 1
    power = total / count / (window**2).sum()
    back = -np.arange(_SIDE)
    power = (power + power[back]) / 2
    averaged: np.ndarray[Any, Any] = (power + power[:, back]) / 2
    return averaged


def _gain(power: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the share of signal at each frequency, 0 to 1."""
    frequency = np.abs(np.fft.fftfreq(_SIDE)) * _SIDE
    ring = np.round(np.hypot(frequency, frequency[:, None])).astype(int)
    ring = np.minimum(ring, _SIDE // 2 + _SIDE // 5)
    # What only rows or only columns add is in no ring's median.
    common = np.minimum(power, power.T)
    rings = np.array([np.median(common[ring == i]) for i in range(ring.max() + 1)])
    full = np.bincount(ring.ravel()) >= _FEWEST
    noise = min(rings[i] for i in range(_SIDE // _LOWEST, ring.max()) if full[i])
    even = rings[ring]
    found = np.where(power > _STRIPE * even, power, even)
    return np.maximum(even - noise, 0) / np.maximum(found, 1e-12)


def _starts(size: int) -> list[int]:
    """Return where windows start that overlap by half."""
    room = size - _SIDE
    return [int(start) for start in np.linspace(0, room, -(-room // (_SIDE // 2)) + 1)]
