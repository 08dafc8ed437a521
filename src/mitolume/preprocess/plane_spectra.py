"""What planes of a stack share, and what they don't, by fineness."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy import fft

from mitolume.io.windows import Plane
from mitolume.preprocess.plane_shift import (
    STILL,
    Image,
    Shift,
    cross_spectra,
    overlap,
    quarters,
    refined,
    trusted_shift,
)

SIDE = 64  # pixels a side of the windows whose spectra are averaged (Welch 1967)
SMALLEST = 48  # pixels a side of a plane, so that its quarters hold a window at all
_QUARTER = 256  # of larger planes, four parts of this side are looked at
_DISTANCES = (1, 2, 3, 4, 6)
_MOST_BASES = 12  # planes that are compared with those behind them
_AXIS = 1.5  # steps of frequency from the axis, within which scan lines show
_RINGS = 16

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False)
class Groups:
    """Frequencies that are averaged: rings, and the axes where lines of pixels show.

    Attributes
    ----------
    frequency
        (G,) cycles per pixel.
    weight
        (G,) share of all frequencies.
    kind
        (G,) 0 for rings, 1 for the axis where horizontal lines show, 2 for vertical ones.
    """

    frequency: Floats
    weight: Floats
    kind: np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, eq=False)
class PlaneSpectra:
    """Power and cross-power of planes, averaged over windows and pairs.

    Attributes
    ----------
    groups
        What frequencies belong together.
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

    groups: Groups
    distances: tuple[int, ...]
    power: Floats
    cross: Floats
    shifts: Floats
    side: int

    def mean(self, values: Floats, chosen: Any) -> float:
        """Average (G,) values over the frequencies of the chosen groups."""
        weight = self.groups.weight * chosen
        return float((weight * values).sum() / weight.sum())


def measure_spectra(planes: Sequence[Plane]) -> PlaneSpectra:
    """Compare planes with those behind them, laid over each other.

    Four parts of each plane are read, at most 256 pixels a side, of at most 12 planes and those
    behind them. Planes are laid over each other by cropping, and by turning the phase of the
    spectrum: nothing is interpolated, so that noise stays as it is.

    Parameters
    ----------
    planes
        Each (Y, X), of one size, at least 48 pixels a side, two or more.

    Returns
    -------
    PlaneSpectra
        Without any distance where planes hold nothing to compare.
    """
    count = len(planes)
    boxes = quarters(planes[0].shape, _QUARTER)
    parts = cache(lambda z: [np.asarray(planes[z][box], np.float32) for box in boxes])
    bases = np.unique(np.linspace(0, count - 2, min(count - 1, _MOST_BASES)).astype(int)).tolist()
    near = {(z, z + d) for z in bases for d in _DISTANCES if z + d < count}
    between = sorted({step for z, other in near for step in range(z, other)})
    steps = _steps(parts, between)
    # Windows leave room for neighbours to be laid over each other.
    moved = np.array([steps[step] for step in between])
    room = min(box.stop - box.start for box in boxes[0]) - int(np.ceil(np.abs(moved).max()))
    side = min(SIDE, room)
    groups, labels = _groups(side)
    found: dict[int, list[tuple[Floats, Floats]]] = {}
    for z, other in sorted(near):
        shift = np.sum([steps[step] for step in range(z, other)], axis=0)
        both = _compare(parts(z), parts(other), shift, side)
        if both is not None:
            found.setdefault(other - z, []).append(both)
    distances = tuple(sorted(found))
    means = [np.mean(found[d], axis=0) for d in distances]
    averaged = np.array([[_mean_by(labels, v, groups) for v in mean] for mean in means])
    averaged = averaged.reshape(-1, 2, len(groups.weight))
    return PlaneSpectra(groups, distances, averaged[:, 0], averaged[:, 1], moved, side)


def _steps(parts: Callable[[int], list[Image]], between: list[int]) -> dict[int, Shift]:
    """Measure how far each plane moved against the last.

    Where noise hides the step of one pair, it is the step that all planes have in common, if any.
    """
    total: Any = 0
    steps: dict[int, Shift] = {}
    for z in between:
        near = list(zip(parts(z), parts(z + 1), strict=True))
        cross = cross_spectra(near)
        steps[z] = refined(near, trusted_shift(cross))
        total = total + cross
    steady = trusted_shift(total)
    return {z: steady if step == STILL else step for z, step in steps.items()}


def _compare(
    first: list[Image], second: list[Image], shift: Any, side: int
) -> tuple[Floats, Floats] | None:
    """Return mean power and real cross-power (side, side // 2 + 1) of two planes' windows."""
    whole = np.rint(shift).astype(int)
    rest = shift - whole
    ky, kx = fft.fftfreq(side)[:, None], fft.rfftfreq(side)
    # The second plane shows at x + shift what the first shows at x.
    turn = np.exp(2j * np.pi * (rest[0] * ky + rest[1] * kx)).astype(np.complex64)
    taper = np.hanning(side + 2)[1:-1].astype(np.float32)
    taper = taper[:, None] * taper
    power, cross, count = 0.0, 0.0, 0
    for one, other in zip(first, second, strict=True):
        if np.any(np.abs(whole) > np.array(one.shape) - side):
            continue
        mine, theirs = overlap(one.shape, (int(whole[0]), int(whole[1])))
        a, b = _windows(one[mine], side), _windows(other[theirs], side)
        lively = (np.ptp(a, axis=(1, 2)) > 0) & (np.ptp(b, axis=(1, 2)) > 0)
        a, b = (_spectra(w[lively], taper) for w in (a, b))
        power = power + (np.abs(a) ** 2 + np.abs(b) ** 2).sum(axis=0) / 2
        cross = cross + (a * (b * turn).conj()).real.sum(axis=0)
        count += len(a)
    if count == 0:
        return None
    scale = count * float((taper**2).sum())
    return np.asarray(power, float) / scale, np.asarray(cross, float) / scale


def _spectra(windows: Image, taper: Image) -> Image:
    return np.asarray(fft.rfft2((windows - windows.mean(axis=(1, 2), keepdims=True)) * taper))


def _windows(part: Image, side: int) -> Image:
    """Return windows that overlap by half, (n, side, side)."""
    ys, xs = (_starts(size, side) for size in part.shape)
    return np.stack([part[y : y + side, x : x + side] for y in ys for x in xs])


def _starts(size: int, side: int) -> list[int]:
    room = size - side
    return [int(start) for start in np.linspace(0, room, -(-room // (side // 2)) + 1)]


def _groups(side: int) -> tuple[Groups, np.ndarray[Any, np.dtype[np.int64]]]:
    """Return the groups of frequencies, and the number of each frequency's group, -1 for none."""
    ky, kx = np.abs(fft.fftfreq(side))[:, None], fft.rfftfreq(side)[None]
    radius = np.hypot(ky, kx)
    ring = (radius / np.sqrt(0.5) * _RINGS).astype(int).clip(0, _RINGS - 1)
    near = _AXIS / side
    kind = np.where(kx < near, 1, np.where(ky < near, 2, 0))
    usable = radius >= near  # the coarsest are shading, and what the taper leaks
    number = np.where(usable, kind * _RINGS + ring, -1)
    present = np.unique(number[number >= 0])
    labels = np.where(number >= 0, np.searchsorted(present, number), -1)
    both = _halves(side)
    weight = _sum_by(labels, both, len(present))
    frequency = _sum_by(labels, both * radius, len(present)) / weight
    return Groups(frequency, weight / side**2, present // _RINGS), labels


def _halves(side: int) -> Floats:
    """Return how many frequencies of the whole spectrum each of `rfft2` stands for."""
    kx = fft.rfftfreq(side)
    return np.where((kx == 0) | (kx == 0.5), 1.0, 2.0) * np.ones((side, 1))


def _sum_by(labels: Any, values: Floats, count: int) -> Floats:
    used = labels >= 0
    return np.bincount(labels[used], values[used], minlength=count).astype(np.float64)


def _mean_by(labels: Any, values: Floats, groups: Groups) -> Floats:
    side = len(values)
    sums = _sum_by(labels, _halves(side) * values, len(groups.weight))
    return np.asarray(sums / (groups.weight * side**2))
