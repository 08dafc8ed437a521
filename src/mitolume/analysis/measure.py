"""Label images to a table with a row for each object, and a row for each image.

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
from skimage.measure import regionprops_table

from mitolume.analysis.grey_values import column_names, ring_margin, ring_pixels, statistics
from mitolume.analysis.labelling import Units, units_of
from mitolume.analysis.shape import aspect_ratio, boundary_sizes, convex_size, tube_width
from mitolume.analysis.skeleton import COUNTS, measure_skeletons

Columns = dict[str, NDArray[Any]]
Ints = NDArray[np.int64]


def margin_of(
    shape: Sequence[int], pixel_size_um: Mapping[str, float] | None = None
) -> tuple[int, ...]:
    """How far around an object's box a window must reach for `measure_objects`, px per axis."""
    margin = ring_margin(units_of(shape, pixel_size_um).spacing)
    return (0,) * (len(shape) - len(margin)) + margin


def measure_objects(
    labels: NDArray[np.integer[Any]],
    intensity: Mapping[str, NDArray[Any]] | None = None,
    pixel_size_um: Mapping[str, float] | None = None,
    *,
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
        Shapes differ.

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
    columns = _position(objects, units, start, whole[-ndim:]) | _shape(objects, units)
    free = labels == 0 if unsure is None else (labels == 0) & ~unsure.reshape(labels.shape)
    ring, around = ring_pixels(objects.numbers, objects.boxes, units.spacing, free)
    inside = objects.numbers > 0
    owner, n = objects.numbers[inside] - 1, len(objects.ids)
    channels = intensity or {}
    for name, image in zip(column_names(list(channels)), channels.values(), strict=True):
        grey = np.asarray(image).reshape(labels.shape)
        columns |= _grey_values(
            statistics(grey[inside], owner, n), statistics(grey.ravel()[ring], around, n), name
        )
    return pd.DataFrame(columns)


@dataclass(frozen=True)
class _Objects:
    """Objects of a window, numbered from 1 without gaps.

    ``numbers`` is their label image, ``ids`` their labels. ``masks`` are their pixels in their
    ``boxes``, whose ends are ``low`` and ``high`` (objects, axes), half-open, px.
    """

    numbers: NDArray[np.int32]
    ids: Ints
    boxes: Sequence[tuple[slice, ...]]
    masks: Sequence[NDArray[np.bool_]]
    size_px: Ints
    low: Ints
    high: Ints
    centroid: NDArray[np.float64]


def _find(labels: NDArray[np.integer[Any]], only: Sequence[int] | None) -> _Objects:
    chosen = labels != 0 if only is None else np.isin(labels, only)
    ids, number = np.unique(labels[chosen], return_inverse=True)
    numbers = np.zeros(labels.shape, np.int32)
    numbers[chosen] = number + 1
    found = regionprops_table(
        numbers, properties=("bbox", "num_pixels", "centroid", "image", "slice")
    )

    def per_axis(name: str, first: int = 0) -> NDArray[Any]:
        return np.stack([found[f"{name}-{first + k}"] for k in range(labels.ndim)], axis=1)

    return _Objects(
        numbers, ids.astype(np.int64), found["slice"].tolist(), found["image"].tolist(),
        found["num_pixels"].astype(np.int64), per_axis("bbox"), per_axis("bbox", labels.ndim),
        per_axis("centroid"),
    )  # fmt: skip


def _position(objects: _Objects, units: Units, start: Ints, whole: Sequence[int]) -> Columns:
    low, high, centroid = objects.low + start, objects.high + start, objects.centroid + start
    names = units.axes.lower()
    columns: Columns = {"label": objects.ids}
    for k, axis in enumerate(names):
        columns[f"centroid_{axis}_px"] = centroid[:, k]
    if units.unit == "um":
        for k, axis in enumerate(names):
            columns[f"centroid_{axis}_um"] = centroid[:, k] * units.spacing[k]
    for k, axis in enumerate(names):
        columns[f"bbox_{axis}0_px"], columns[f"bbox_{axis}1_px"] = low[:, k], high[:, k]
    columns["touches_border"] = ((low == 0) | (high == np.asarray(whole))).any(axis=1)
    return columns


def _shape(objects: _Objects, units: Units) -> Columns:
    unit, spacing, ndim = units.unit, units.spacing, len(units.axes)
    size = objects.size_px * math.prod(spacing)
    boundary = boundary_sizes(objects.numbers, len(objects.ids), spacing)
    skeleton = measure_skeletons(objects.masks, spacing)
    # No object is shorter than its box is long; of thick ones the centreline says too little.
    box = ((objects.high - objects.low) * spacing).max(axis=1, initial=0)
    length = np.maximum(skeleton["length"], box)
    total = np.maximum(skeleton["skeleton_length"], length)
    if ndim == 2:
        # Below 1 is what comes of pixels: no shape has a smaller perimeter than the disc.
        roundness = {"form_factor": np.maximum(boundary**2 / (4 * math.pi * size), 1)}
    else:
        ball = math.pi ** (1 / 3) * (6 * size) ** (2 / 3)
        roundness = {"sphericity": np.minimum(ball / boundary, 1)}
    convex = np.array([convex_size(mask) for mask in objects.masks], np.float64)
    return {
        units.size: size,
        units.boundary: boundary,
        f"length_{unit}": length,
        f"width_{unit}": tube_width(size, total, ndim),
        "aspect_ratio": np.array([aspect_ratio(mask, spacing) for mask in objects.masks], float),
        **roundness,
        "solidity": np.minimum(objects.size_px / convex, 1),
        **{name: skeleton[name] for name in COUNTS},
        f"skeleton_length_{unit}": total,
    }


def _grey_values(inside: pd.DataFrame, around: pd.DataFrame, name: str) -> Columns:
    """Columns of one channel, from the statistics of objects and of the rings around them."""
    return {
        **{f"intensity_{what}_{name}": inside[what].to_numpy() for what in inside},
        **{f"ring_{what}_{name}": around[what].to_numpy() for what in ("mean", "median")},
        f"contrast_{name}": (inside["mean"] - around["mean"]).to_numpy(),
    }


def summarise_image(
    objects: pd.DataFrame,
    shape: Sequence[int],
    pixel_size_um: Mapping[str, float] | None = None,
    n_unsure: int = 0,
) -> dict[str, int | float]:
    """Sum up the objects of one image.

    Parameters
    ----------
    objects
        What `measure_objects` returned for the whole image.
    shape
        (Y, X) or (Z, Y, X) of the image.
    pixel_size_um
        The one that the objects were measured with.
    n_unsure
        Pixels of which nobody knows what they are: no part of the field of view.

    Returns
    -------
    dict
        Column to number. Without objects, what would be a mean or a ratio to them is NaN.

    Examples
    --------
    >>> labels = np.zeros((50, 40), int)
    >>> labels[10:15, 5:25], labels[30:35, 5:25] = 1, 2
    >>> found = summarise_image(measure_objects(labels), labels.shape)
    >>> found["n_objects"], found["footprint_share"], found["fragmentation_index_per_px"]
    (2, 0.1, 0.01)
    """
    units = units_of(shape, pixel_size_um)
    size, unit = units.size, units.unit
    power = size.rsplit("_", 1)[1]
    total = float(objects[size].sum())
    field = (math.prod(shape) - n_unsure) * math.prod(units.spacing)
    roundness = "form_factor" if len(units.axes) == 2 else "sphericity"
    network = objects["n_junctions"] > 0
    branches = int(objects["n_branches"].sum())
    skeleton = float(objects[f"skeleton_length_{unit}"].sum())

    found: dict[str, int | float] = {
        "n_objects": len(objects),
        "n_networks": int(network.sum()),
        "n_individuals": int((~network).sum()),
        f"total_{size}": total,
        "footprint_share": total / field if field else math.nan,
        f"fragmentation_index_per_{power}": len(objects) / total if total else math.nan,
        f"total_skeleton_length_{unit}": skeleton,
        f"mean_branch_length_{unit}": skeleton / branches if branches else math.nan,
        "mean_branches_per_network": float(objects.loc[network, "n_branches"].mean()),
    }
    for column in (size, f"length_{unit}", f"width_{unit}", "aspect_ratio", roundness, "solidity"):
        found[f"mean_{column}"] = float(objects[column].mean())
        found[f"median_{column}"] = float(objects[column].median())
    return found
