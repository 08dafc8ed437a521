"""Planes of a stack laid over each other: how far they moved, and what they share, by fineness."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy import fft, ndimage

from mitolume.io.windows import Plane

SIDE = 64  # pixels a side of the windows whose spectra are averaged (Welch 1967)
SMALLEST = 48  # pixels a side of a plane, so that its quarters hold a window at all
_QUARTER = 256  # of larger planes, four parts of this side are looked at
_DISTANCES = (1, 2, 3, 4, 6)
_MOST_BASES = 12  # planes that are compared with those behind them
_RINGS = 16
_LEAST_SHIFT = 0.1  # pixels, below which a shift is nothing to correct
_SURE = 4.0  # standard errors, below which a shift can't be told from noise
_FURTHEST = 0.25  # of a quarter's side
_SMALLEST_QUARTER = 32  # pixels a side of a quarter whose shift can be told
_FINE, _COARSE = 1.5, 12.0  # pixels: finer is noise, coarser is shading, which moves with nothing

Image = np.ndarray[Any, Any]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Shift = tuple[float, float]
Parts = Sequence[tuple[Image, Image]]  # the same quarters of two planes
_STILL: Shift = (0.0, 0.0)


@dataclass(frozen=True, eq=False)
class PlaneSpectra:
    """Power and cross-power of planes, averaged over windows and pairs.

    Frequencies are averaged in groups: rings, and the axes where lines of pixels show.

    Attributes
    ----------
    frequency, weight
        (G,) of each group: cycles per pixel, and share of all frequencies.
    kind
        (G,) 0 for rings, 1 for the axis where horizontal lines show, 2 for vertical ones.
    distances
        (D,) in planes.
    power, cross
        (D, G): mean power of the planes of a pair, and what they share; 1 for white noise of
        variance 1.
    shifts
        (steps, 2): how far a plane moved against the last, along Y and X in pixels.
    side
        Of the windows, pixels.
    """

    frequency: Floats
    weight: Floats
    kind: np.ndarray[Any, np.dtype[np.int64]]
    distances: tuple[int, ...]
    power: Floats
    cross: Floats
    shifts: Floats
    side: int

    def mean(self, values: Floats, chosen: Any) -> float:
        """Average (G,) values over the frequencies of the chosen groups."""
        weight = self.weight * chosen
        return float((weight * values).sum() / weight.sum())


def measure_spectra(planes: Sequence[Plane]) -> PlaneSpectra:
    """Compare planes with those behind them, laid over each other.

    Four parts of each plane are read, at most 256 pixels a side, of at most 12 planes and those
    behind them. Planes are laid over each other by cropping, and by turning the phase of the
    spectrum: nothing is interpolated, so that noise stays as it is. They are two or more, of one
    size, at least 48 pixels a side; without any distance where they hold nothing to compare.
    """
    count = len(planes)
    boxes = quarters(planes[0].shape)
    parts = cache(lambda z: [np.asarray(planes[z][box], np.float32) for box in boxes])
    bases = np.unique(np.linspace(0, count - 2, min(count - 1, _MOST_BASES)).astype(int)).tolist()
    near = {(z, z + d) for z in bases for d in _DISTANCES if z + d < count}
    between = sorted({step for z, other in near for step in range(z, other)})
    steps = _steps(parts, between)
    # Windows leave room for neighbours to be laid over each other.
    moved = np.array([steps[step] for step in between])
    room = min(box.stop - box.start for box in boxes[0]) - int(np.ceil(np.abs(moved).max()))
    side = min(SIDE, room)
    found: dict[int, list[Floats]] = {}
    for z, other in sorted(near):
        shift = np.sum([steps[step] for step in range(z, other)], axis=0)
        both = _compare(parts(z), parts(other), shift, side)
        if both is not None:
            found.setdefault(other - z, []).append(both)
    distances = tuple(sorted(found))
    members, radius, kind = _groups(side)
    count_of = members.sum(axis=(1, 2))
    means = members / count_of[:, None, None]
    averaged = [np.einsum("pyx,gyx->pg", np.mean(found[d], axis=0), means) for d in distances]
    power, cross = np.reshape(averaged, (-1, 2, len(kind))).swapaxes(0, 1)
    return PlaneSpectra(
        (means * radius).sum(axis=(1, 2)), count_of / side**2, kind,
        distances, power, cross, moved, side,
    )  # fmt: skip


def quarters(shape: Sequence[int]) -> list[tuple[slice, slice]]:
    """Cut a plane (Y, X) in four; of larger quarters, only the middle 256 pixels."""

    def halves(size: int) -> list[slice]:
        half = size // 2
        kept = min(half, _QUARTER)
        skipped = (half - kept) // 2
        return [slice(start + skipped, start + skipped + kept) for start in (0, size - half)]

    return [(y, x) for y in halves(shape[0]) for x in halves(shape[1])]


def overlap(shape: Sequence[int], shift: tuple[int, int]) -> tuple[tuple[slice, slice], ...]:
    """Return the boxes of two planes that show the same, the second moved by whole pixels."""
    first, second = (
        [slice(max(0, sign * s), size - max(0, -sign * s)) for s, size in
         zip(shift, shape, strict=True)] for sign in (-1, 1)
    )  # fmt: skip
    return (first[0], first[1]), (second[0], second[1])


def window_starts(size: int, side: int, most: int | None = None) -> list[int]:
    """Return where windows start along an axis: half a window apart, or evenly spread if ``most``.

    Both ends of the axis are covered; an axis shorter than a window has one at 0.
    """
    room = max(size - side, 0)
    count = -(-room // (side // 2)) + 1
    return [int(start) for start in np.linspace(0, room, min(count, most or count))]


def _steps(parts: Callable[[int], list[Image]], between: list[int]) -> dict[int, Shift]:
    """Measure how far each plane moved against the last, in pixels; 0 where it can't be told.

    The four quarters' cross-correlations are summed, and the peak is found by upsampling
    (Guizar-Sicairos et al. 2008, Opt. Lett. 33:156), of band-passed pixels. Not the phase alone: it
    would give each frequency the same say, and most of them hold noise only. Noise and unrelated
    images send each part elsewhere: leaving out each quarter in turn gives the standard error.
    Where noise hides the step of one pair, it is the step that all planes have in common, if any.
    """
    total: Any = 0
    steps: dict[int, Shift] = {}
    for z in between:
        near = list(zip(parts(z), parts(z + 1), strict=True))
        cross = _cross_spectra(near)
        steps[z] = _refined(near, _trusted_shift(cross))
        total = total + cross
    steady = _trusted_shift(total)
    return {z: steady if step == _STILL else step for z, step in steps.items()}


def _cross_spectra(parts: Parts) -> Image:
    """Return the cross-spectrum of each part of two planes, band-passed: (parts, Y, X) complex64.

    Those of several pairs may be added for a shift that they share.
    """
    taper = _taper(parts[0][0].shape)

    def spectrum(part: Image) -> Image:
        pixels = part.astype(np.float32)
        fine = ndimage.gaussian_filter(pixels, _FINE)
        return np.asarray(fft.fft2((fine - ndimage.gaussian_filter(pixels, _COARSE)) * taper))

    return np.stack([spectrum(b) * spectrum(a).conj() for a, b in parts])


def _trusted_shift(cross: Image) -> Shift:
    """Return the shift that `_cross_spectra` tell, or (0, 0) where they can't be trusted."""
    shape = cross.shape[1:]
    if min(shape) < _SMALLEST_QUARTER or not cross.any():
        return _STILL
    total = cross.sum(axis=0)
    shift = _peak(total)
    without = np.array([_peak(total - one) for one in cross])
    error = np.sqrt((len(cross) - 1) * without.var(axis=0).sum())  # the jackknife's (Tukey 1958)
    length = float(np.hypot(*shift))
    if length < max(_LEAST_SHIFT, _SURE * error) or length > _FURTHEST * min(shape):
        return _STILL
    return float(shift[0]), float(shift[1])


def _refined(parts: Parts, shift: Shift) -> Shift:
    """Measure a shift again, on what both planes of each part show: edges pull it towards 0."""
    whole = (round(shift[0]), round(shift[1]))
    if whole == (0, 0):
        return shift
    mine, theirs = overlap(parts[0][0].shape, whole)
    cut = [(a[mine], b[theirs]) for a, b in parts]
    if min(cut[0][0].shape) < _SMALLEST_QUARTER:
        return shift
    rest = _peak(_cross_spectra(cut).sum(axis=0))
    return (whole[0] + float(rest[0]), whole[1] + float(rest[1])) if max(abs(rest)) < 2 else shift


def _peak(cross: Image) -> Image:
    """Return where the correlation (Y, X) of a cross-spectrum is highest, in 1/20 pixel."""
    from skimage.registration import phase_cross_correlation

    moved, _, _ = phase_cross_correlation(
        cross, np.ones_like(cross), upsample_factor=20, space="fourier", normalization=None
    )
    return np.asarray(moved)


def _compare(first: list[Image], second: list[Image], shift: Any, side: int) -> Floats | None:
    """Return mean power and real cross-power (2, side, side // 2 + 1) of two planes' windows."""
    whole = np.rint(shift).astype(int)
    rest = shift - whole
    ky, kx = fft.fftfreq(side)[:, None], fft.rfftfreq(side)
    # The second plane shows at x + shift what the first shows at x.
    turn = np.exp(2j * np.pi * (rest[0] * ky + rest[1] * kx)).astype(np.complex64)
    taper = _taper((side, side))
    total, count = np.zeros((2, side, side // 2 + 1)), 0
    for one, other in zip(first, second, strict=True):
        if np.any(np.abs(whole) > np.array(one.shape) - side):
            continue
        mine, theirs = overlap(one.shape, (int(whole[0]), int(whole[1])))
        a, b = _windows(one[mine], side), _windows(other[theirs], side)
        lively = (np.ptp(a, axis=(1, 2)) > 0) & (np.ptp(b, axis=(1, 2)) > 0)
        a, b = (
            fft.rfft2((w[lively] - w[lively].mean(axis=(1, 2), keepdims=True)) * taper)
            for w in (a, b)
        )
        total[0] += (np.abs(a) ** 2 + np.abs(b) ** 2).sum(axis=0) / 2
        total[1] += (a * (b * turn).conj()).real.sum(axis=0)
        count += len(a)
    return total / (count * float((taper**2).sum())) if count else None


def _windows(part: Image, side: int) -> Image:
    """Return windows that overlap by half, (n, side, side)."""
    ys, xs = (window_starts(size, side) for size in part.shape)
    return np.stack([part[y : y + side, x : x + side] for y in ys for x in xs])


def _taper(shape: Sequence[int]) -> Image:
    return np.outer(*(np.hanning(size + 2)[1:-1].astype(np.float32) for size in shape))


def _groups(side: int) -> tuple[Floats, Floats, np.ndarray[Any, np.dtype[np.int64]]]:
    """Return the groups of frequencies of `rfft2`.

    How many frequencies of the whole spectrum each stands for in each group (G, Y, X), the radius
    of each in cycles per pixel (Y, X), and the kind of each group (G,).
    """
    ky, kx = np.abs(fft.fftfreq(side))[:, None], fft.rfftfreq(side)[None]
    radius = np.hypot(ky, kx)
    ring = (radius / np.sqrt(0.5) * _RINGS).astype(int).clip(0, _RINGS - 1)
    near = 1.5 / side  # within a step and a half of an axis scan lines show
    kind = np.where(kx < near, 1, np.where(ky < near, 2, 0))
    # The coarsest are shading, and what the taper leaks.
    number = np.where(radius >= near, kind * _RINGS + ring, -1)
    present = np.unique(number[number >= 0])
    stands_for = np.where((kx == 0) | (kx == 0.5), 1.0, 2.0)
    return (number == present[:, None, None]) * stands_for, radius, present // _RINGS
