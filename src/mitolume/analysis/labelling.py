"""Masks to label images, one number for each mitochondrion, of any size.

Each block is labelled, then what touches across the faces of blocks gets one number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import count, product
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mitolume.analysis.object_index import (
    INDEX_COLUMNS,
    blocks_of,
    describe,
    is_hole,
    join_parts,
    raster_order,
    windows_of,
)
from mitolume.analysis.splitting import Cut, split_objects
from mitolume.errors import MitolumeError
from mitolume.io.masks import FOREGROUND, to_mask

Array = np.ndarray[Any, Any]
Labels = np.ndarray[Any, np.dtype[np.int32]]
Box = tuple[slice, ...]
Progress = Callable[[int, int], None]


class ObjectSettings(BaseModel):
    """Which connected pixels are one mitochondrion.

    ``min_size_um`` drops objects smaller than a disc (in 3D a ball) of this diameter, and
    ``max_hole_um`` fills holes up to it; 0 drops and fills none. ``split`` says where touching
    mitochondria are cut: nowhere, at necks (``distance``), where the probability dips
    (``probability``), or at the branch points of networks (``branches``). Nothing shorter than
    ``split_distance_um`` is cut off. ``threshold`` makes a mask of a probability.

    The sizes in pixels hold where the pixel size is unknown.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    min_size_um: float = Field(0.25, ge=0)
    max_hole_um: float = Field(0.25, ge=0)
    split: Literal["none", "distance", "probability", "branches"] = "none"
    split_distance_um: float = Field(0.5, ge=0)
    threshold: float = Field(0.5, gt=0, le=1)
    min_size_px: float = Field(3.0, ge=0)
    max_hole_px: float = Field(3.0, ge=0)
    split_distance_px: float = Field(6.0, ge=0)


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
    mask = np.asarray(mask)
    labels = np.zeros(mask.shape, np.int32)
    label_blocks(mask, labels, mask.shape, settings, pixel_size_um, probability)
    return labels


def label_blocks(
    mask: Any,
    out: Any,
    block: Sequence[int],
    settings: ObjectSettings | None = None,
    pixel_size_um: Mapping[str, float] | None = None,
    probability: Any = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Give each object its number, in a mask that need not fit into memory.

    The result is that of `label_objects` on the whole array, whatever the blocks.

    In memory at once are a block, a few numbers for each object and, where objects are cut, the
    box of the largest one.

    Parameters
    ----------
    mask
        As for `label_objects`, whatever slices like an array (numpy, zarr, dask).
    out
        The same shape, int32, whatever slices can be read from and assigned to (numpy, zarr). It
        serves as scratch until the end; chunks as large as a block are fastest.
    block
        Side of a block along each axis, px.
    settings, pixel_size_um, probability
        As for `label_objects`; the probability slices like the mask.
    progress
        Called with the blocks done and the blocks there are, all passes counted.

    Returns
    -------
    pandas.DataFrame
        What `out` holds, as `index_objects` lists it: ``label``, ``z0 z1 y0 y1 x0 x1``
        (half-open, px) and ``size_px``.

    Raises
    ------
    MitolumeError
        As for `label_objects`.
    """
    settings = settings or ObjectSettings()
    min_px, hole_px, cut = _rules_of(settings, mask.shape, pixel_size_um)
    probability = _probability_for(settings, mask, probability)
    if tuple(out.shape) != tuple(mask.shape) or out.dtype != np.int32:
        raise ValueError(f"out is {out.shape} {out.dtype}, but must be {mask.shape} int32")
    boxes = blocks_of(mask.shape, block)
    split = settings.split != "none"
    step = _steps(progress, len(boxes) * (2 + (hole_px > 0) + split))

    def foreground(box: Box) -> Array:
        return _foreground_of(np.asarray(mask[box]), settings.threshold)

    def without_holes(box: Box) -> Array:
        return np.asarray(foreground(box) | filled[np.asarray(out[box])])

    read = foreground
    if hole_px:
        # Pieces of background go into `out` first; each block of objects then replaces its own.
        group, table = _label(lambda box: ~foreground(box), out, boxes, 1, step)
        holes = table.loc[is_hole(table, mask.shape, hole_px), "label"]
        filled = np.isin(group, holes)
        read = without_holes
    group, table = _label(read, out, boxes, len(mask.shape), step)
    table = table[table["size_px"] >= min_px]
    order = raster_order(table, int(group.max()))
    _renumber(out, boxes, order[group], step)
    if split:
        table = table.assign(label=order[table["label"]])
        table = _split(out, table, cut, probability)
        _renumber(
            out, boxes, raster_order(table, int(table["label"].to_numpy().max(initial=0))), step
        )
    table = table.sort_values("first").assign(label=np.arange(1, len(table) + 1))
    return table[list(INDEX_COLUMNS)].reset_index(drop=True)


def _rules_of(
    settings: ObjectSettings, shape: Sequence[int], pixel_size_um: Mapping[str, float] | None
) -> tuple[int, int, Cut]:
    """Return the least size of objects, the largest of holes to fill, both in pixels, and the cut.

    Settings in µm hold where all pixel sizes are known.
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
    return (
        math.ceil(pixels("min_size") * (1 - 1e-9)),
        math.floor(pixels("max_hole") * (1 + 1e-9)),
        Cut(settings.split, spacing, getattr(settings, f"split_distance_{unit}")),
    )


def _foreground_of(mask: Array, threshold: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return where a mask is 1, or where a probability reaches the threshold."""
    if not np.issubdtype(mask.dtype, np.floating):
        return np.asarray(to_mask(mask, "unsure") == FOREGROUND)
    if (mask > 1).any():
        raise MitolumeError(
            f"a probability reaches {np.nanmax(mask):g}, but 1 is the most; masks are saved as "
            "whole numbers (8 bit)"
        )
    return np.asarray(mask >= threshold)


def _probability_for(settings: ObjectSettings, mask: Any, probability: Any) -> Any:
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


def _label(
    read: Callable[[Box], Array],
    out: Any,
    boxes: list[Box],
    connectivity: int,
    step: Callable[[], None],
) -> tuple[Array, pd.DataFrame]:
    """Label the blocks one by one; return each label's object, and a table of the objects."""
    ndim = len(boxes[0])
    structure = ndimage.generate_binary_structure(ndim, connectivity)
    tables, pairs, n = [], [np.empty((0, 2), np.int64)], 0
    for box in boxes:
        labels, found = ndimage.label(read(box), structure)
        described = describe(labels, [s.start for s in box], out.shape)
        described["label"] += n
        tables.append(described)
        if n + found > np.iinfo(np.int32).max:
            raise OverflowError(f"more than {np.iinfo(np.int32).max} pieces in {out.shape} px")
        out[box] = np.where(labels, labels + n, 0).astype(np.int32)
        n += found
        step()
    for box in boxes:
        pairs += [_touching(out, box, axis, connectivity) for axis in range(ndim)]
    first, second = np.concatenate(pairs).T - 1
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(n, n))
    _, object_of = connected_components(graph, directed=False)
    group = np.concatenate([[0], object_of + 1])
    table = pd.concat(tables, ignore_index=True)
    return group, join_parts(table.assign(label=group[table["label"]]))


def _touching(out: Any, box: Box, axis: int, connectivity: int) -> Array:
    """Return pairs of labels that touch across the face where a block begins along an axis.

    The face reaches one pixel into the block before along the other axes: contacts over edges and
    corners of blocks are seen by the block that lies furthest on.
    """
    if box[axis].start == 0:
        return np.empty((0, 2), np.int64)
    slab = [slice(max(s.start - 1, 0), s.stop) for s in box]
    slab[axis] = slice(box[axis].start - 1, box[axis].start + 1)
    before, after = np.moveaxis(np.asarray(out[tuple(slab)]).astype(np.int64), axis, 0)
    padded = np.pad(after, 1)
    codes = []
    for shift in product((-1, 0, 1) if connectivity > 1 else (0,), repeat=before.ndim):
        window = [slice(1 + d, 1 + d + n) for d, n in zip(shift, after.shape, strict=True)]
        moved = padded[tuple(window)]
        codes.append(np.unique((before << 32 | moved)[(before > 0) & (moved > 0)]))
    code = np.unique(np.concatenate(codes))
    return np.stack([code >> 32, code & 0xFFFFFFFF], axis=1)


def _split(out: Any, table: pd.DataFrame, cut: Cut, probability: Any) -> pd.DataFrame:
    """Cut the objects in `out`, window by window; list the parts and what stayed whole."""
    skip = 3 - len(out.shape)
    tables, highest = [table.iloc[:0]], len(table)
    for three, members in windows_of(table, (1,) * skip + tuple(out.shape), (0, 0, 0)):
        window = three[skip:]
        labels = np.array(out[window])
        made = split_objects(
            labels,
            members,
            cut,
            None if probability is None else np.asarray(probability[window]),
            [s.start for s in window],
            out.shape,
            highest,
        )
        if len(made) > len(members):
            out[window] = labels
            highest = int(made["label"].max())
        tables.append(made)
    return pd.concat(tables, ignore_index=True)


def _renumber(out: Any, boxes: list[Box], number: Array, step: Callable[[], None]) -> None:
    number = number.astype(np.int32)
    for box in boxes:
        out[box] = number[np.asarray(out[box])]
        step()


def _steps(progress: Progress | None, total: int) -> Callable[[], None]:
    done = count(1)
    return lambda: progress(next(done), total) if progress else None


def _size(array: Any) -> str:
    return " x ".join(str(n) for n in array.shape)
