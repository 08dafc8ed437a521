"""Label images to a table with a row for each object. Knows no file and no condition.

Every column is defined in docs/measurements.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mitolume.analysis.boundary import boundary_sizes, hull_sizes
from mitolume.analysis.grey_values import (
    RING_PX,
    column_names,
    ring_margin,
    ring_pixels,
    statistics,
)
from mitolume.analysis.skeleton import COUNTS, measure_skeletons

Columns = dict[str, NDArray[Any]]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Units:
    """How lengths are counted: pixel sizes along the axes, and the unit in the column names.

    ``size``, ``boundary`` are the names of the columns for area or volume and for what bounds it.
    """

    axes: str
    spacing: tuple[float, ...]
    unit: str

    @property
    def size(self) -> str:
        """Column with the area or volume."""
        power = "" if self.unit == "px" else str(len(self.axes))
        return f"{'area' if len(self.axes) == 2 else 'volume'}_{self.unit}{power}"

    @property
    def boundary(self) -> str:
        """Column with the perimeter or surface area."""
        square = "" if self.unit == "px" else "2"
        flat = len(self.axes) == 2
        return f"perimeter_{self.unit}" if flat else f"surface_area_{self.unit}{square}"


def units_of(shape: Sequence[int], pixel_size_um: Mapping[str, float] | None) -> Units:
    """Say how lengths in an image are counted.

    Parameters
    ----------
    shape
        (Y, X) or (Z, Y, X). A stack of one plane is a plane.
    pixel_size_um
        ``Z``, ``Y``, ``X`` to µm. Where one that is needed is missing, all lengths are in pixels,
        and pixels count as cubes.

    Raises
    ------
    ValueError
        The image is neither a plane nor a stack.
    """
    if len(shape) not in (2, 3):
        raise ValueError(f"objects have axes (Y, X) or (Z, Y, X), but the shape is {tuple(shape)}")
    axes = "ZYX" if len(shape) == 3 and shape[0] > 1 else "YX"
    known = pixel_size_um or {}
    if all(axis in known for axis in axes):
        return Units(axes, tuple(float(known[axis]) for axis in axes), "um")
    return Units(axes, (1.0,) * len(axes), "px")


def margin_of(
    shape: Sequence[int],
    pixel_size_um: Mapping[str, float] | None = None,
    ring_px: float = RING_PX,
) -> tuple[int, ...]:
    """How far around an object's box a window must reach for `measure_objects`, px per axis."""
    margin = ring_margin(ring_px, units_of(shape, pixel_size_um).spacing)
    return (0,) * (len(shape) - len(margin)) + margin


def measure_objects(
    labels: NDArray[np.integer[Any]],
    intensity: Mapping[str, NDArray[Any]] | None = None,
    pixel_size_um: Mapping[str, float] | None = None,
    *,
    ring_px: float = RING_PX,
    unsure: NDArray[np.bool_] | None = None,
    only: Sequence[int] | None = None,
    origin: Sequence[int] | None = None,
    image_shape: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Measure each object of a label image.

    Of a window of a larger image, with `only`, `origin` and `image_shape`, the rows are those
    that the whole image would give.

    Parameters
    ----------
    labels
        (Y, X) or (Z, Y, X), whole numbers, 0 background. A stack of one plane is a plane.
    intensity
        Name of each channel to its grey values, in the shape of the labels.
    pixel_size_um
        ``Z``, ``Y``, ``X`` to µm. Where one that is needed is missing, columns end in ``_px``.
    ring_px
        Width of the ring around each object, in the smallest side of a pixel.
    unsure
        In the shape of the labels, True where nobody knows what is there: in no ring.
    only
        The labels to measure; by default all.
    origin, image_shape
        Where the window begins in the image, and the shape of that; by default it is the image.
        The window must hold each object with `margin_of` around its box, or end with the image.

    Returns
    -------
    pandas.DataFrame
        A row for each object, sorted by label. Without objects it has the same columns and types.

    Raises
    ------
    ValueError
        Shapes differ, a label of `only` is not there, or the window cuts what it must hold.

    Examples
    --------
    >>> labels = np.zeros((20, 40), int)
    >>> labels[5:8, 5:35] = 1
    >>> table = measure_objects(labels, {"TMRM": labels * 9.0}, {"Y": 0.1, "X": 0.1})
    >>> table[["area_um2", "length_um", "n_branches", "contrast_TMRM"]].round(2).values.tolist()
    [[0.9, 3.0, 1.0, 9.0]]
    """
    whole = tuple(image_shape or labels.shape)
    units = units_of(whole, pixel_size_um)
    ndim = len(units.axes)
    images = {"the unsure pixels": unsure} if unsure is not None else {}
    for name, image in {**images, **(intensity or {})}.items():
        if np.shape(image) != np.shape(labels):
            raise ValueError(f"{name}: shape {np.shape(image)}, the labels {np.shape(labels)}")
    labels = labels.reshape(labels.shape[-ndim:])
    start = np.array(tuple(origin or (0,) * ndim)[-ndim:], np.int64)
    objects = _find(labels, only)
    margin = ring_margin(ring_px, units.spacing)
    _check_window(objects, labels.shape, start, whole[-ndim:], margin)
    columns = _position(objects, units, start, whole[-ndim:]) | _shape(objects, labels, units)
    free = None if unsure is None else unsure.reshape(labels.shape)
    ring = ring_pixels(labels, objects.ids, objects.boxes, units.spacing, ring_px, free)
    channels = intensity or {}
    for name, image in zip(column_names(list(channels)), channels.values(), strict=True):
        columns |= _grey_values(objects, ring, np.asarray(image).reshape(labels.shape), name)
    return pd.DataFrame(columns)


@dataclass(frozen=True)
class _Objects:
    """The pixels of all objects, sorted by object, then row by row.

    ``pixels`` holds an array of indices for each axis, ``owner`` the number of each pixel's
    object from 0; ``low`` and ``high`` (objects, axes) are their boxes, half-open.
    """

    ids: Sequence[int]
    pixels: tuple[Ints, ...]
    owner: Ints
    low: Ints
    high: Ints

    @property
    def boxes(self) -> list[tuple[slice, ...]]:
        return [tuple(map(slice, *ends)) for ends in zip(self.low, self.high, strict=True)]


def _find(labels: NDArray[np.integer[Any]], only: Sequence[int] | None) -> _Objects:
    flat = labels.ravel()
    at = np.flatnonzero(flat)
    if only is not None:
        at = at[np.isin(flat[at], np.asarray(only, flat.dtype))]
    ids, owner = np.unique(flat[at], return_inverse=True)
    if only is not None and (missing := sorted(set(only) - set(ids.tolist()))):
        raise ValueError(f"no pixel has the label {missing[0]}")
    order = np.argsort(owner, kind="stable")
    owner = owner[order].astype(np.int64)
    pixels = np.unravel_index(at[order], labels.shape)
    first = np.searchsorted(owner, np.arange(len(ids)))
    ends = [[edge.reduceat(p, first) for p in pixels] for edge in (np.minimum, np.maximum)]
    low, high = (np.stack(end, axis=1).astype(np.int64) for end in ends)
    return _Objects(ids.tolist(), tuple(p.astype(np.int64) for p in pixels), owner, low, high + 1)


def _check_window(
    objects: _Objects, window: Sequence[int], start: Ints, whole: Sequence[int], margin: Any
) -> None:
    low_cut = (objects.low < margin) & (start > 0)
    high_cut = (objects.high + margin > window) & (start + window < np.asarray(whole))
    for k in np.flatnonzero((low_cut | high_cut).any(axis=1))[:1]:
        raise ValueError(f"object {objects.ids[k]} is less than {margin} px from the window's end")


def _position(objects: _Objects, units: Units, start: Ints, whole: Sequence[int]) -> Columns:
    low, high = objects.low + start, objects.high + start
    inside = [
        _mean(objects, p - objects.low[objects.owner, k]) for k, p in enumerate(objects.pixels)
    ]
    columns: Columns = {"label": np.array(objects.ids, np.int64)}
    names = units.axes.lower()
    for k, axis in enumerate(names):
        columns[f"centroid_{axis}_px"] = low[:, k] + inside[k]
    if units.unit == "um":
        for axis, side in zip(names, units.spacing, strict=True):
            columns[f"centroid_{axis}_um"] = columns[f"centroid_{axis}_px"] * side
    for k, axis in enumerate(names):
        columns[f"bbox_{axis}0_px"], columns[f"bbox_{axis}1_px"] = low[:, k], high[:, k]
    columns["touches_border"] = ((low == 0) | (high == np.asarray(whole))).any(axis=1)
    return columns


def _shape(objects: _Objects, labels: NDArray[np.integer[Any]], units: Units) -> Columns:
    n, ndim = len(objects.ids), len(units.axes)
    count = np.bincount(objects.owner, minlength=n)
    size = count * math.prod(units.spacing)
    boundary = boundary_sizes(labels, objects.pixels, objects.owner, n, units.spacing)
    masks = [labels[box] == i for i, box in zip(objects.ids, objects.boxes, strict=True)]
    skeleton = measure_skeletons(masks, units.spacing)
    # No object is shorter than its box is long; of thick ones the centreline says too little.
    box = ((objects.high - objects.low) * units.spacing).max(axis=1, initial=0)
    length = np.maximum(skeleton["length"], box)
    total = np.maximum(skeleton["skeleton_length"], length)
    if ndim == 2:
        # Below 1 is what comes of pixels: no shape has a smaller perimeter than the disc.
        roundness = {"form_factor": np.maximum(boundary**2 / (4 * math.pi * size), 1)}
    else:
        ball = math.pi ** (1 / 3) * (6 * size) ** (2 / 3)
        roundness = {"sphericity": np.minimum(ball / boundary, 1)}
    unit = units.unit
    return {
        units.size: size,
        units.boundary: boundary,
        f"length_{unit}": length,
        f"width_{unit}": _width(size, total, ndim),
        "aspect_ratio": _aspect_ratio(objects, units),
        **roundness,
        "solidity": np.minimum(count / hull_sizes(objects.pixels, objects.owner, n), 1),
        **{name: skeleton[name] for name in COUNTS},
        f"skeleton_length_{unit}": total,
    }


def _width(size: NDArray[Any], length: NDArray[Any], ndim: int) -> NDArray[np.float64]:
    """Width of the tube with round ends that has this area or volume and length."""
    low, high = np.zeros(len(size)), length.astype(np.float64)
    for _ in range(50):  # halves the interval: exact to rounding
        w = (low + high) / 2
        if ndim == 2:
            tube = w * length - (1 - math.pi / 4) * w**2
        else:
            tube = math.pi / 4 * w**2 * length - math.pi / 12 * w**3
        low, high = np.where(tube < size, w, low), np.where(tube < size, high, w)
    return high


def _aspect_ratio(objects: _Objects, units: Units) -> NDArray[np.float64]:
    """Longest to shortest axis of the ellipse (ellipsoid) with the same second moments."""
    n, ndim = len(objects.ids), len(units.axes)
    at = [p - objects.low[objects.owner, k] for k, p in enumerate(objects.pixels)]
    mean = [_mean(objects, p) for p in at]
    spread = np.empty((n, ndim, ndim))
    for i in range(ndim):
        for j in range(ndim):
            spread[:, i, j] = _mean(objects, at[i] * at[j]) - mean[i] * mean[j]
    # A pixel is a square, not a point: else a line of pixels would be infinitely thin.
    spread = (spread + np.eye(ndim) / 12) * np.outer(units.spacing, units.spacing)
    axes = np.linalg.eigvalsh(spread)
    return np.asarray(np.sqrt(axes[:, -1] / axes[:, 0]), np.float64)


def _mean(objects: _Objects, values: NDArray[Any]) -> NDArray[np.float64]:
    n = len(objects.ids)
    return np.bincount(objects.owner, values, n) / np.bincount(objects.owner, minlength=n)


def _grey_values(
    objects: _Objects, ring: tuple[Ints, Ints], image: NDArray[Any], name: str
) -> Columns:
    n = len(objects.ids)
    inside = statistics(image[objects.pixels], objects.owner, n)
    around = statistics(image.ravel()[ring[0]], ring[1], n)
    return {
        **{f"intensity_{what}_{name}": values for what, values in inside.items()},
        **{f"ring_{what}_{name}": around[what] for what in ("mean", "median")},
        f"contrast_{name}": inside["mean"] - around["mean"],
    }
