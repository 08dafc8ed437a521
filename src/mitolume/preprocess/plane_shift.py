"""How far a plane of a stack has moved against the one before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import fft, ndimage

Image = np.ndarray[Any, Any]
Shift = tuple[float, float]

STILL: Shift = (0.0, 0.0)
_LEAST_SHIFT = 0.1  # pixels, below which a shift is nothing to correct
_SURE = 4.0  # standard errors, below which a shift can't be told from noise
_FURTHEST = 0.25  # of a quarter's side
_SMALLEST = 32  # pixels a side of a quarter whose shift can be told
_FINE, _COARSE = 1.5, 12.0  # pixels: finer is noise, coarser is shading, which moves with nothing


def measure_shift(first: Image, second: Image) -> Shift:
    """Measure how far the second plane has moved against the first.

    The four quarters' cross-correlations are summed, and the peak is found by upsampling
    (Guizar-Sicairos et al. 2008, Opt. Lett. 33:156), of band-passed pixels. Not the phase alone: it
    would give each frequency the same say, and most of them hold noise only. Noise and unrelated
    images send each part elsewhere: leaving out each quarter in turn gives the standard error.

    Parameters
    ----------
    first, second
        (Y, X), any numeric dtype, the same shape.

    Returns
    -------
    tuple of float
        Along Y and X, in pixels: ``second[y + dy, x + dx]`` shows what ``first[y, x]`` shows.
        (0, 0) where it is below a tenth of a pixel, or below four standard errors.
    """
    if min(first.shape) < 2 * _SMALLEST:
        return STILL
    parts = [(first[box], second[box]) for box in quarters(first.shape)]
    return refined(parts, trusted_shift(cross_spectra(parts)))


def cross_spectra(parts: Sequence[tuple[Image, Image]]) -> Image:
    """Return the cross-spectrum of each part of two planes, band-passed: (parts, Y, X) complex64.

    All parts have one size. Those of several pairs may be added for a shift that they share.
    """
    window = np.outer(*(np.hanning(size + 2)[1:-1] for size in parts[0][0].shape))
    return np.stack([_spectrum(b, window) * _spectrum(a, window).conj() for a, b in parts])


def trusted_shift(cross: Image) -> Shift:
    """Return the shift that `cross_spectra` tell, or (0, 0) where they can't be trusted."""
    shape = cross.shape[1:]
    if min(shape) < _SMALLEST or not cross.any():
        return STILL
    total = cross.sum(axis=0)
    shift = _peak(total)
    without = np.array([_peak(total - one) for one in cross])
    error = np.sqrt((len(cross) - 1) * without.var(axis=0).sum())  # the jackknife's (Tukey 1958)
    length = float(np.hypot(*shift))
    if length < max(_LEAST_SHIFT, _SURE * error) or length > _FURTHEST * min(shape):
        return STILL
    return float(shift[0]), float(shift[1])


def refined(parts: Sequence[tuple[Image, Image]], shift: Shift) -> Shift:
    """Measure a shift again, on what both planes of each part show: edges pull it towards 0."""
    whole = (round(shift[0]), round(shift[1]))
    if whole == (0, 0):
        return shift
    boxes = [overlap(first.shape, whole) for first, _ in parts]
    cut = [(a[mine], b[theirs]) for (a, b), (mine, theirs) in zip(parts, boxes, strict=True)]
    if min(cut[0][0].shape) < _SMALLEST:
        return shift
    rest = _peak(cross_spectra(cut).sum(axis=0))
    return (whole[0] + float(rest[0]), whole[1] + float(rest[1])) if max(abs(rest)) < 2 else shift


def quarters(shape: Sequence[int], side: int | None = None) -> list[tuple[slice, slice]]:
    """Cut a plane in four.

    Parameters
    ----------
    shape
        (Y, X).
    side
        Of larger quarters, only so many pixels in their middle.
    """

    def halves(size: int) -> list[slice]:
        half = size // 2
        kept = min(half, side or half)
        skipped = (half - kept) // 2
        return [slice(start + skipped, start + skipped + kept) for start in (0, size - half)]

    return [(y, x) for y in halves(shape[0]) for x in halves(shape[1])]


def overlap(shape: Sequence[int], shift: tuple[int, int]) -> tuple[tuple[slice, slice], ...]:
    """Return the boxes of two planes that show the same, the second moved by whole pixels."""
    starts = [(max(0, -s), max(0, s)) for s in shift]
    sizes = [size - abs(s) for size, s in zip(shape, shift, strict=True)]
    one, other = (
        tuple(slice(start[i], start[i] + size) for start, size in zip(starts, sizes, strict=True))
        for i in (0, 1)
    )
    return (one[0], one[1]), (other[0], other[1])


def _spectrum(part: Image, window: Image) -> Image:
    pixels = part.astype(np.float32)
    fine = ndimage.gaussian_filter(pixels, _FINE)
    band = fine - ndimage.gaussian_filter(pixels, _COARSE)
    return np.asarray(fft.fft2(band * window.astype(np.float32)))


def _peak(cross: Image) -> Image:
    """Return where the correlation (Y, X) of a cross-spectrum is highest, in 1/20 pixel."""
    from skimage.registration import phase_cross_correlation

    flat = np.ones_like(cross)
    moved, _, _ = phase_cross_correlation(
        cross, flat, upsample_factor=20, space="fourier", normalization=None
    )
    return np.asarray(moved)
