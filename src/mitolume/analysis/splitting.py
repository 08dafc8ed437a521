"""Cuts touching mitochondria apart, one object at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.morphology import local_maxima, reconstruction, skeletonize
from skimage.segmentation import watershed

from mitolume.analysis.object_index import BOX, describe

Inside = np.ndarray[Any, np.dtype[np.bool_]]
Parts = np.ndarray[Any, np.dtype[np.int32]]
Heights = np.ndarray[Any, np.dtype[np.float64]]

NECK = 0.75  # a neck this much thinner than the thinner of the two bodies separates them
DIP = 0.9  # so does a probability this much below the lower of two maxima


@dataclass(frozen=True)
class Cut:
    """How to cut: where, pixel size along each axis, and the least distance between parts.

    ``spacing`` and ``distance`` share a unit, µm or pixels.
    """

    where: Literal["none", "distance", "probability", "branches"]
    spacing: tuple[float, ...]
    distance: float


def split_objects(
    labels: Parts,
    table: pd.DataFrame,
    cut: Cut,
    probability: np.ndarray[Any, Any] | None,
    origin: Sequence[int],
    shape: Sequence[int],
    above: int,
) -> pd.DataFrame:
    """Cut objects into parts, each in its own box, so that nothing else has a say.

    ``labels`` (Y, X) or (Z, Y, X) is a window of an image of ``shape``, beginning at ``origin``,
    that holds the objects of ``table`` (see `mitolume.analysis.object_index.describe`) whole. Parts
    of cut objects are written into it under numbers ``above`` all others. Returned is the table of
    the objects that stayed whole and of the parts of the others.
    """
    highest = max(above, int(labels.max(initial=0)))
    tables, whole = [], np.ones(len(table), bool)
    ends = table[list(BOX)].to_numpy().reshape(-1, 3, 2)[:, 3 - labels.ndim :]
    for row, (label, box) in enumerate(zip(table["label"], ends, strict=True)):
        window = tuple(slice(a - s, b - s) for (a, b), s in zip(box, origin, strict=True))
        inside = labels[window] == label
        parts = split_object(
            inside,
            cut,
            [(a == 0, b == n) for (a, b), n in zip(box, shape, strict=True)],
            None if probability is None else probability[window],
        )
        if parts.max() < 2:
            continue
        whole[row] = False
        described = describe(parts, tuple(box[:, 0]), shape)
        described["label"] += highest
        tables.append(described)
        labels[window][inside] = parts[inside] + highest
        highest += len(described)
    return pd.concat([table[whole], *tables], ignore_index=True)


def split_object(
    inside: Inside,
    cut: Cut,
    cut_off: Sequence[tuple[bool, bool]],
    probability: np.ndarray[Any, Any] | None = None,
) -> Parts:
    """Cut one connected object, in its bounding box, into parts that together are the object.

    For each axis, ``cut_off`` says whether the box ends at the first and at the last pixel of the
    image, where the object may continue: that edge is not an outline. ``probability`` is needed for
    ``probability`` only. Parts are connected and numbered from 1, with 0 outside the object.
    """
    distance = _distance(inside, cut.spacing, cut_off)
    if cut.where == "branches":
        return _cut_branches(inside, distance, cut)
    if cut.where == "probability":
        assert probability is not None
        heights, lowered = _smooth(probability, inside, cut), DIP
    else:
        heights, lowered = distance, NECK
    floor = np.where(inside, heights, 0)
    marker = lowered * floor
    if cut.where == "distance":
        # An outline is only known to a pixel: a neck thinner by less than that may be chance.
        marker = np.minimum(marker, np.maximum(floor - min(cut.spacing[-2:]), 0))
    return _flood(inside, floor, marker, cut)


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


def _cut_branches(inside: Inside, distance: Heights, cut: Cut) -> Parts:
    """Cut at branch points, and give every pixel to the branch it lies on."""
    line = _without_spurs(_thin(inside), distance, cut)
    points = np.argwhere(_branch_points(line))
    if not len(points):
        return inside.astype(np.int32)
    # What lies within the body at a branch point belongs to no branch in particular.
    on_line = np.argwhere(line)
    near = cKDTree(on_line * cut.spacing).query_ball_point(
        points * cut.spacing, distance[tuple(points.T)]
    )
    line[tuple(on_line[np.unique(np.concatenate([*near]).astype(int))].T)] = False
    branches, n = ndimage.label(line, np.ones((3,) * inside.ndim))
    if n < 2:
        return inside.astype(np.int32)
    away = ndimage.distance_transform_edt(branches == 0, sampling=cut.spacing)
    around = np.ones((3,) * inside.ndim, bool)
    return np.asarray(watershed(away, branches, connectivity=around, mask=inside), np.int32)


def _without_spurs(line: Inside, distance: Heights, cut: Cut) -> Inside:
    """Remove side branches that reach less than the cut's distance out of the body."""
    around = np.ones((3,) * line.ndim)
    while (points := np.argwhere(_branch_points(line))).size:
        arms, _ = ndimage.label(line & ~_branch_points(line), around)
        tips = np.argwhere((arms > 0) & (_neighbours(line) <= 1))
        if not len(tips):
            break
        length, nearest = cKDTree(points * cut.spacing).query(tips * cut.spacing)
        short = length < distance[tuple(points[nearest].T)] + cut.distance
        if not short.any():
            break
        line = _thin(line & ~np.isin(arms, arms[tuple(tips[short].T)]))
    return line


def _thin(inside: Inside) -> Inside:
    return np.asarray(skeletonize(inside, method="lee") > 0)


def _branch_points(line: Inside) -> Inside:
    return line & (_neighbours(line) > 2)


def _neighbours(line: Inside) -> np.ndarray[Any, Any]:
    around = np.ones((3,) * line.ndim, np.uint8)
    return np.asarray(ndimage.convolve(line.astype(np.uint8), around, mode="constant") - line)
