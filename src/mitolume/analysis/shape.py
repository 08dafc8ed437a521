"""Perimeters, surfaces, convex hulls, axes and widths of objects. Knows no grey value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, SphericalVoronoi

Floats = NDArray[np.float64]

_REACH = 2  # how far a step of `_lines` goes


def boundary_sizes(labels: NDArray[np.integer[Any]], n: int, spacing: Sequence[float]) -> Floats:
    """Perimeter of objects in a plane, surface area of objects in a stack.

    The formula of Crofton, that is, how often straight lines through the pixels cross the
    boundary: along 8 directions in 2D, 13 in 3D, weighted as by Legland, Kiêu and Devaux (Image
    Anal Stereol 2007). Pixels need not be square. Objects, numbered from 1 to n without gaps, may
    touch: a boundary counts for both.

    Examples
    --------
    >>> disc = (np.hypot(*np.mgrid[-24:25, -24:25]) <= 20).astype(int)
    >>> boundary_sizes(disc, 1, (0.1, 0.1)).round(1).tolist()
    [12.6]
    """
    padded = np.pad(labels, _REACH)
    flat = padded.ravel()
    index = np.flatnonzero(padded)
    own = flat[index]
    stride = np.array(padded.strides) // padded.itemsize
    size = np.zeros(n + 1)
    for step, weight in _lines(tuple(spacing)):
        ahead = int(stride @ step)
        crossed = (flat[index + ahead] != own) * 1.0 + (flat[index - ahead] != own)
        size += weight * np.bincount(own, crossed, n + 1)
    return size[1:]


@lru_cache(maxsize=8)
def _lines(spacing: tuple[float, ...]) -> tuple[tuple[tuple[int, ...], float], ...]:
    """List steps between pixels, and how much boundary a crossing along each stands for.

    A direction stands for all that are nearer to it than to another, and a line for the room
    between it and the next. A boundary is crossed 2 / pi (2D) or 1 / 2 (3D) times its size.
    """
    ndim = len(spacing)
    reach = range(-_REACH, _REACH + 1) if ndim == 2 else range(-1, 2)
    steps = [s for s in product(reach, repeat=ndim) if math.gcd(*s) == 1]
    way = np.multiply(steps, spacing)
    length = np.linalg.norm(way, axis=1)
    if ndim == 2:
        angle = np.arctan2(way[:, 0], way[:, 1])
        order = np.argsort(angle)
        gap = np.diff(angle[order], append=angle[order[0]] + 2 * math.pi)
        share = np.empty(len(steps))
        share[order] = (gap + np.roll(gap, 1)) / (4 * math.pi)
    else:
        share = SphericalVoronoi(way / length[:, None]).calculate_areas() / (4 * math.pi)
    # A step and its opposite are the same line; both ends of a crossing are asked for.
    weight = share * math.prod(spacing) / length * (math.pi / 2 if ndim == 2 else 2)
    pairs = zip(steps, 2 * weight, strict=True)
    return tuple((step, float(w)) for step, w in pairs if step > (0,) * ndim)


def convex_size(mask: NDArray[np.bool_]) -> float:
    """Area or volume of the convex hull of an object, in pixels.

    The hull is that of the middles of the pixels' sides, as in scikit-image's solidity, and its
    size is exact, not a count of pixels.

    Examples
    --------
    >>> round(convex_size(np.array([[1, 0], [1, 1]], bool)), 3)
    2.5
    """
    rows = np.argwhere(mask.any(axis=-1))
    inside = mask[tuple(rows.T)]
    # Only the first and the last pixel of a row can lie on the hull.
    ends = inside.argmax(axis=1), mask.shape[-1] - 1 - inside[:, ::-1].argmax(axis=1)
    points = np.concatenate([np.column_stack([rows, end]) for end in ends])
    sides = np.concatenate([np.eye(mask.ndim), -np.eye(mask.ndim)]) / 2
    return float(ConvexHull((points[:, None] + sides).reshape(-1, mask.ndim)).volume)


def aspect_ratio(mask: NDArray[np.bool_], spacing: Sequence[float]) -> float:
    """Longest to shortest axis of the ellipse (ellipsoid) with the same second moments.

    A pixel is a square, not a point: else a line of pixels would be infinitely thin.
    """
    at = np.argwhere(mask) * spacing
    away = at - at.mean(axis=0)
    spread = away.T @ away / len(away) + np.diag(np.square(spacing)) / 12
    variances = np.linalg.eigvalsh(spread)
    return float(np.sqrt(variances[-1] / variances[0]))


def tube_width(size: NDArray[Any], length: NDArray[Any], ndim: int) -> Floats:
    """Width of the tube with round ends that has this area (volume, in 3D) and length."""
    low, high = np.zeros(len(size)), length.astype(np.float64)
    for _ in range(50):  # halves the interval: exact to rounding
        w = (low + high) / 2
        if ndim == 2:
            tube = w * length - (1 - math.pi / 4) * w**2
        else:
            tube = math.pi / 4 * w**2 * length - math.pi / 12 * w**3
        low, high = np.where(tube < size, w, low), np.where(tube < size, high, w)
    return high
