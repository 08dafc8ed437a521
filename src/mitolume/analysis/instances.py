"""Masks to label images, one number for each mitochondrion. Knows no file and no block.

Whatever `label_objects` does to a whole array, `mitolume.analysis.blocks` does to one larger than
memory, with the same result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage

from mitolume.analysis.object_index import BOX, describe, is_hole, raster_order
from mitolume.analysis.settings import ObjectSettings
from mitolume.analysis.splitting import Cut, split_object
from mitolume.errors import MitolumeError
from mitolume.io.masks import FOREGROUND, to_mask

Array = np.ndarray[Any, Any]
Labels = np.ndarray[Any, np.dtype[np.int32]]


@dataclass(frozen=True)
class Rules:
    """The settings in pixels of one image.

    ``min_px`` is the size of the smallest object kept, ``hole_px`` that of the largest hole filled.
    """

    min_px: int
    hole_px: int
    cut: Cut


def rules_of(
    settings: ObjectSettings, shape: Sequence[int], pixel_size_um: Mapping[str, float] | None
) -> Rules:
    """Turn the settings into pixels.

    Parameters
    ----------
    settings
        What counts as one object.
    shape
        (Y, X) or (Z, Y, X). A stack of one plane is a plane.
    pixel_size_um
        ``Z``, ``Y``, ``X`` to µm. Where one that is needed is missing, sizes in pixels hold.

    Raises
    ------
    MitolumeError
        The array is neither a plane nor a stack.
    """
    if len(shape) not in (2, 3):
        raise MitolumeError(
            f"objects are labelled in arrays of Y X or Z Y X, but this one has {len(shape)} axes"
        )
    known = pixel_size_um or {}
    solid = len(shape) == 3 and shape[0] > 1
    in_um = all(axis in known for axis in ("ZYX" if solid else "YX"))
    unit = "um" if in_um else "px"
    spacing = tuple(known.get(axis, 1.0) if in_um else 1.0 for axis in "ZYX"[-len(shape) :])
    pixel = math.prod(spacing if solid else spacing[-2:])

    def pixels(name: str) -> float:
        d = getattr(settings, f"{name}_{unit}")
        return float(math.pi * (d**3 / 6 if solid else d**2 / 4) / pixel)

    # A hair of slack: sizes that are equal but for rounding are equal.
    return Rules(
        min_px=math.ceil(pixels("min_size") * (1 - 1e-9)),
        hole_px=math.floor(pixels("max_hole") * (1 + 1e-9)),
        cut=Cut(settings.split, spacing, getattr(settings, f"split_distance_{unit}")),
    )


def label_objects(
    mask: Array,
    settings: ObjectSettings | None = None,
    pixel_size_um: Mapping[str, float] | None = None,
    probability: Array | None = None,
) -> Labels:
    """Give each object of a mask its number.

    Holes are filled first, then small objects dropped, then touching ones cut where the settings
    ask for it. Pixels that touch, be it by a corner, are one object; those of a hole touch by
    sides. A hole at the image's edge is none.

    Parameters
    ----------
    mask
        (Y, X) or (Z, Y, X): 0, 1, 255 (unsure: background here) or bool; or a probability
        (floating point), of which what reaches the threshold is foreground.
    settings
        What counts as one object.
    pixel_size_um
        ``Z``, ``Y``, ``X`` to µm, where known.
    probability
        The same shape, for ``split="probability"``; not needed where ``mask`` is one.

    Returns
    -------
    numpy.ndarray
        The same shape, int32: 0 background, objects from 1 without gaps, in the order of their
        first pixels, row by row.

    Raises
    ------
    MitolumeError
        The mask holds other values, shapes differ, or the probability is missing.

    Examples
    --------
    >>> mask = np.array([[1, 0, 0, 1], [0, 1, 0, 255]])
    >>> label_objects(mask, ObjectSettings(min_size_px=0))
    array([[1, 0, 0, 2],
           [0, 1, 0, 0]], dtype=int32)
    """
    settings = settings or ObjectSettings()
    mask = np.asarray(mask)
    rules = rules_of(settings, mask.shape, pixel_size_um)
    probability = probability_for(settings, mask, probability)
    inside = foreground_of(mask, settings.threshold)
    if rules.hole_px:
        inside |= _holes(inside, rules.hole_px)
    found, _ = ndimage.label(inside, np.ones((3,) * mask.ndim))
    labels = np.asarray(found, np.int32)
    table = describe(labels)
    table = table[table["size_px"] >= rules.min_px]
    if settings.split != "none":
        table = split_objects(labels, table, rules.cut, probability)
    return np.asarray(raster_order(table, int(labels.max(initial=0)))[labels])


def foreground_of(mask: Array, threshold: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return where a mask is 1, or where a probability reaches the threshold.

    Raises
    ------
    MitolumeError
        The mask holds more than 0, 1 and 255, or the probability more than 1.
    """
    if not np.issubdtype(mask.dtype, np.floating):
        return np.asarray(to_mask(mask, "unsure") == FOREGROUND)
    if (mask > 1).any():
        raise MitolumeError(
            f"a probability reaches {np.nanmax(mask):g}, but 1 is the most; masks are saved as "
            "whole numbers (8 bit)"
        )
    return np.asarray(mask >= threshold)


def probability_for(settings: ObjectSettings, mask: Any, probability: Any) -> Any:
    """Return the probability to cut by, of the mask's shape; None where none is needed."""
    if settings.split != "probability":
        return None
    if probability is None:
        if not np.issubdtype(mask.dtype, np.floating):
            raise MitolumeError(
                "split: probability needs the probability beside the mask (mitolume predict "
                "--probability writes it); split: distance needs only the mask"
            )
        return mask
    if tuple(probability.shape) != tuple(mask.shape):
        raise MitolumeError(
            f"the mask is {_size(mask)} px, but its probability {_size(probability)} px"
        )
    return probability


def split_objects(
    labels: Labels,
    table: pd.DataFrame,
    cut: Cut,
    probability: Array | None = None,
    origin: Sequence[int] | None = None,
    shape: Sequence[int] | None = None,
    above: int = 0,
) -> pd.DataFrame:
    """Cut objects into parts, each in its own box, so that nothing else has a say.

    Parameters
    ----------
    labels
        (Y, X) or (Z, Y, X): an image, or a window that holds the objects whole. Parts of cut
        objects are written into it under new numbers.
    table
        The objects to cut, as `describe` lists them.
    cut
        How to cut.
    probability
        Of the same window.
    origin, shape
        Where the window begins in the image, and the size of that.
    above
        New numbers lie above this and above all labels in the window.

    Returns
    -------
    pandas.DataFrame
        The objects that stayed whole, and the parts of the others.
    """
    start, shape = tuple(origin or (0,) * labels.ndim), tuple(shape or labels.shape)
    highest = max(above, int(labels.max(initial=0)))
    tables, whole = [], np.ones(len(table), bool)
    ends = table[list(BOX)].to_numpy().reshape(-1, 3, 2)[:, 3 - labels.ndim :]
    for row, (label, box) in enumerate(zip(table["label"], ends, strict=True)):
        window = tuple(slice(a - s, b - s) for (a, b), s in zip(box, start, strict=True))
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


def _holes(inside: Array, hole_px: int) -> Array:
    labels, n = ndimage.label(~inside)  # by sides: what corners join is no way out of a hole
    table = describe(labels)
    filled = np.zeros(n + 1, bool)
    filled[table["label"]] = is_hole(table, inside.shape, hole_px)
    return np.asarray(filled[labels])


def _size(array: Any) -> str:
    return " x ".join(str(n) for n in array.shape)
