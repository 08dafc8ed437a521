"""Pairs of neighbouring planes, laid over each other. Knows no file and no network."""

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
_MARGIN = 16  # pixels mirrored around a plane before it is moved by part of a pixel


def neighbour_pairs(planes: Sequence[int]) -> list[tuple[int, int]]:
    """Pair the 1st plane with the 2nd, the 3rd with the 4th, and so on, as published.

    Parameters
    ----------
    planes
        Numbers along Z, from 0, in rising order: all, those in focus, or a list.

    Returns
    -------
    list of tuple
        Numbers along Z. Planes with a missing one between them are no neighbours: counting begins
        anew after each gap, and a plane left over has no partner.

    Examples
    --------
    >>> neighbour_pairs([0, 1, 2, 3, 4])
    [(0, 1), (2, 3)]
    >>> neighbour_pairs([3, 4, 7, 8, 9])
    [(3, 4), (7, 8)]
    """
    pairs: list[tuple[int, int]] = []
    waiting: int | None = None
    for plane in planes:
        if waiting is not None and plane == waiting + 1:
            pairs.append((waiting, plane))
            waiting = None
        else:
            waiting = plane
    return pairs


def both_directions(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return each pair followed by its reverse, so that each plane is input once and target once.

    Examples
    --------
    >>> both_directions([(0, 1)])
    [(0, 1), (1, 0)]
    """
    return [turn for a, b in pairs for turn in ((a, b), (b, a))]


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


def register(first: Image, second: Image, shift: Shift | None = None) -> tuple[Image, Image]:
    """Lay the second plane over the first.

    The first stays as it was recorded: it is what the network gets, and noise that was smoothed by
    resampling would be another noise than that of the planes to be denoised. The second, the
    target, moves by whole pixels through cropping, and by the rest through its spectrum: each
    frequency keeps its power, where interpolation would blur the details to be learnt.

    Parameters
    ----------
    first, second
        (Y, X), any numeric dtype, the same shape.
    shift
        As `measure_shift` returns it; measured where not given.

    Returns
    -------
    first, second
        (Y, X) of what both show: the first in its own dtype, the second in float32 where it moved
        by part of a pixel. Both as they were where nothing moved.
    """
    shift = measure_shift(first, second) if shift is None else shift
    whole = (round(shift[0]), round(shift[1]))
    one, other = overlap(first.shape, whole)
    rest = shift[0] - whole[0], shift[1] - whole[1]
    if rest == STILL:
        return first[one], second[other]
    return first[one], _moved(second, rest)[other]


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


def _moved(plane: Image, shift: Shift) -> Image:
    """Return the plane as seen ``shift`` further on, less than a pixel: (Y, X) float32."""
    padded = np.pad(plane.astype(np.float32), _MARGIN, mode="symmetric")
    ky, kx = fft.fftfreq(padded.shape[0]), fft.rfftfreq(padded.shape[1])
    turn = np.exp(2j * np.pi * (shift[0] * ky[:, None] + shift[1] * kx))
    moved = fft.irfft2(fft.rfft2(padded) * turn.astype(np.complex64), padded.shape)
    return np.asarray(moved[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN], np.float32)
