"""Cuts touching mitochondria apart, one object at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed

Inside = np.ndarray[Any, np.dtype[np.bool_]]
Parts = np.ndarray[Any, np.dtype[np.int32]]
Heights = np.ndarray[Any, np.dtype[np.float64]]

NECK = 0.75  # a neck this much thinner than the thinner of the two bodies separates them
DIP = 0.9  # so does a probability this much below the lower of two maxima


@dataclass(frozen=True)
class Cut:
    """Pixel size along each axis, and the least distance between parts; both in µm or pixels."""

    spacing: tuple[float, ...]
    distance: float


def split_object(
    inside: Inside,
    cut: Cut,
    cut_off: Sequence[tuple[bool, bool]],
    probability: np.ndarray[Any, Any] | None = None,
) -> Parts:
    """Cut one connected object, in its bounding box, into parts that together are the object.

    For each axis, ``cut_off`` says whether the box ends at the first and at the last pixel of the
    image, where the object may continue: that edge is not an outline. It is cut where its
    ``probability`` dips, or without one at necks. Parts are connected and numbered from 1, with 0
    outside the object.
    """
    if probability is not None:
        heights = np.where(inside, _smooth(probability, inside, cut), 0)
        marker = DIP * heights
    else:
        heights = np.where(inside, _distance(inside, cut.spacing, cut_off), 0)
        # An outline is only known to a pixel: a neck thinner by less than that may be chance.
        marker = np.minimum(NECK * heights, np.maximum(heights - min(cut.spacing[-2:]), 0))
    return _flood(inside, heights, marker, cut)


def _flood(inside: Inside, heights: Heights, marker: Heights, cut: Cut) -> Parts:
    """Grow parts from the maxima of the heights that are deeper than the marker lies below."""
    around = np.ones((3,) * inside.ndim, bool)
    flooded = reconstruction(marker, heights, footprint=around)
    tops, n = ndimage.label(local_maxima(flooded, connectivity=inside.ndim) & inside, around)
    if n < 2:
        return inside.astype(np.int32)
    points = np.array(ndimage.maximum_position(heights, tops, np.arange(1, n + 1)))
    kept = _apart(points * cut.spacing, heights[tuple(points.T)], cut.distance)
    seeds = np.zeros(inside.shape, np.int32)
    seeds[tuple(points[kept].T)] = np.arange(1, kept.sum() + 1)
    return np.asarray(watershed(-heights, seeds, connectivity=around, mask=inside), np.int32)


def _apart(points: Heights, heights: Heights, distance: float) -> Inside:
    """Choose points, the highest first, none within a distance of another."""
    tree, kept = cKDTree(points), np.ones(len(points), bool)
    for i in np.argsort(-heights, kind="stable"):
        if kept[i]:
            kept[tree.query_ball_point(points[i], distance)] = False
            kept[i] = True
    return kept


def _distance(
    inside: Inside, spacing: tuple[float, ...], cut_off: Sequence[tuple[bool, bool]]
) -> Heights:
    """Measure how far each pixel is from the outline."""
    around = [(int(not low), int(not high)) for low, high in cut_off]
    padded = np.pad(inside, around)
    if padded.all():  # no outline anywhere
        return np.ones(inside.shape)
    distance = ndimage.distance_transform_edt(padded, sampling=spacing)
    box = [slice(low, low + n) for (low, _), n in zip(around, inside.shape, strict=True)]
    return np.asarray(distance[tuple(box)])


def _smooth(probability: np.ndarray[Any, Any], inside: Inside, cut: Cut) -> Heights:
    """Smooth over a quarter of the distance between parts, inside the object only."""
    sigma = [cut.distance / 4 / s for s in cut.spacing]
    values = np.where(inside, np.nan_to_num(np.asarray(probability, np.float64)), 0)
    weight = ndimage.gaussian_filter(inside.astype(np.float64), sigma, mode="constant")
    summed = ndimage.gaussian_filter(values, sigma, mode="constant")
    return np.asarray(np.divide(summed, weight, out=np.zeros(inside.shape), where=inside))
