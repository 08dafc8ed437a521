"""A Wiener filter for what is left after a prediction: signal back, noise out. Knows no network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Image = np.ndarray[Any, np.dtype[np.float32]]
Spectrum = np.ndarray[Any, np.dtype[np.float64]]

_SIDE = 64  # pixels a side of the windows whose spectra are averaged (Welch 1967)
_HIGH = _SIDE // 8  # where the floor is looked for: structures of 8 pixels and finer
_FEWEST = 12  # frequencies in a ring that make a median
_LINES = 3  # of the spectrum, left and right of the middle, where scan lines show
_CHANCE = 1.5  # standard deviations of a frequency's power that are taken for noise
_STRIPED = 1.3  # power there over the floor, from which there are scan lines


def wiener_kernel(residuals: Sequence[Image], side: int) -> Image:
    """Make the filter that keeps the signal of residuals and drops their noise.

    The power of white noise is the same at all frequencies, so it can't exceed the lowest power
    found at any; what is above is signal. Horizontal scan lines have their own noise: what is
    there at frequencies along Y where no signal is left. The gain at each frequency is the share
    of signal in the power (Wiener 1949); the mean is kept.

    Parameters
    ----------
    residuals
        (Y, X) each: planes minus what was predicted without knowing their noise.
    side
        Of the kernel in pixels, odd, below 64.

    Returns
    -------
    numpy.ndarray
        (side, side) float32, centred; sums to 1.
    """
    power, count = _power(residuals)
    gain = _gain(power, _noise(power), count)
    kernel = np.fft.fftshift(np.fft.ifft2(gain).real)
    middle, reach = _SIDE // 2, side // 2
    part = slice(middle - reach, middle + reach + 1)
    # Tapered, as an abrupt end would ring.
    taper = np.hanning(side + 2)[1:-1] ** 0.5
    tapered = kernel[part, part] * taper * taper[:, None]
    return np.asarray(tapered + (1 - tapered.sum()) / side**2, np.float32)


def expected_error(residuals: Sequence[Image]) -> tuple[float, float]:
    """Return what is expected of `wiener_kernel`.

    Parameters
    ----------
    residuals
        As for `wiener_kernel`.

    Returns
    -------
    error, floor
        The mean squared error that is left (signal times noise over their sum, at each
        frequency), and the power of the white noise.
    """
    power, count = _power(residuals)
    noise = _noise(power)
    return float((_gain(power, noise, count) * noise).mean()), float(noise.min())


def _power(residuals: Sequence[Image]) -> tuple[Spectrum, int]:
    """Average the power spectra of windows, (64, 64); it is 1 for white noise of variance 1."""
    window = np.hanning(_SIDE + 1)[:_SIDE]
    window = window * window[:, None]
    total: Spectrum = np.zeros((_SIDE, _SIDE))
    count = 0
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
    averaged: Spectrum = (power + power[:, back]) / 2
    return averaged, count


def _noise(power: Spectrum) -> Spectrum:
    """Return the power of the noise at each frequency: a white floor, and more along the lines."""
    frequency = np.abs(np.fft.fftfreq(_SIDE)) * _SIDE
    ring = np.rint(np.hypot(frequency, frequency[:, None])).astype(int)
    full = np.bincount(ring.ravel()) >= _FEWEST
    rings = [i for i in range(_HIGH, ring.max() + 1) if full[i]]
    floor = min(float(np.median(power[ring == i])) for i in rings)
    noise = np.full_like(power, floor)
    lines = frequency <= _LINES
    striped = np.median(power[frequency >= _SIDE / 4][:, lines], axis=0)
    noise[:, lines] = np.where(striped > _STRIPED * floor, striped, floor)
    return noise


def _gain(power: Spectrum, noise: Spectrum, count: int) -> Spectrum:
    """Return the share of signal at each frequency, 0 to 1, of the power of so many windows."""
    # Half of the windows are new, as they overlap: by so much may the power exceed its mean.
    chance = 1 + _CHANCE / np.sqrt(max(1, count / 2))
    gain: Spectrum = np.maximum(0, 1 - chance * noise / np.maximum(power, 1e-12))
    gain[0, 0] = 1
    return gain


def _starts(size: int) -> list[int]:
    """Return where windows start that overlap by half."""
    room = size - _SIDE
    return [int(start) for start in np.linspace(0, room, -(-room // (_SIDE // 2)) + 1)]
