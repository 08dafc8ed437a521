"""Masks to label images, one number for each mitochondrion, of any size.

Each block is labelled, then what touches across the faces of blocks gets one number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, product
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mitolume.analysis.object_index import (
    blocks_of,
    boxes_in,
    index_objects,
    join_parts,
    windows_of,
)
from mitolume.analysis.splitting import Cut, split_object
from mitolume.errors import MitolumeError
from mitolume.io.masks import FOREGROUND, to_mask

Array = np.ndarray[Any, Any]
Labels = np.ndarray[Any, np.dtype[np.int32]]
Box = tuple[slice, ...]
Progress = Callable[[int, int], None]
Step = Callable[[], None]


class ObjectSettings(BaseModel):
    """Which connected pixels are one mitochondrion.

    ``min_size_um`` drops objects smaller than a disc (in 3D a ball) of this diameter, and
    ``max_hole_um`` fills holes up to it; 0 drops and fills none. In 3D the least diameter is two
    voxels along each axis: less can't be resolved. ``split`` says where touching
    mitochondria are cut: nowhere, at necks (``distance``), or where the probability dips
    (``probability``). Nothing shorter than ``split_distance_um`` is cut off. ``threshold`` makes a
    mask of a probability.

    The sizes in pixels hold where the pixel size is unknown.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    min_size_um: float = Field(0.25, ge=0)
    max_hole_um: float = Field(0.25, ge=0)
    split: Literal["none", "distance", "probability"] = "none"
    split_distance_um: float = Field(0.5, ge=0)
    threshold: float = Field(0.5, gt=0, le=1)
    min_size_px: float = Field(3.0, ge=0)
    max_hole_px: float = Field(3.0, ge=0)
    split_distance_px: float = Field(6.0, ge=0)


@dataclass(frozen=True)
class Units:
    """Pixel sizes along the axes, and their unit in the names of columns."""

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
    """Units of an image: µm where all pixel sizes are known, else pixels, which count as cubes."""
    if len(shape) not in (2, 3):
        raise MitolumeError(f"objects have axes (Y, X) or (Z, Y, X), and these {len(shape)} axes")
    axes = "ZYX" if len(shape) == 3 and shape[0] > 1 else "YX"
    known = pixel_size_um or {}
    if all(axis in known for axis in axes):
        return Units(axes, tuple(float(known[axis]) for axis in axes), "um")
    return Units(axes, (1.0,) * len(axes), "px")


def label_objects(
    mask: Array,
    settings: ObjectSettings | None = None,
    pixel_size_um: Mapping[str, float] | None = None,
) -> Labels:
    """Give each object of a mask its number.

    Holes are filled first, then small objects dropped, then touching ones cut where the settings
    ask for it. Pixels that touch, be it by a corner, are one object; those of a hole touch by
    sides. A hole at the image's edge is none.

    Parameters
    ----------
    mask
        (Y, X) or (Z, Y, X): 0, 1, 255 (unsure: background here) or bool; or a probability
        (floating point), of which what reaches the threshold is foreground;
        ``split="probability"`` needs one.
    settings
        What counts as one object.
    pixel_size_um
        ``Z``, ``Y``, ``X`` to µm, where known.

    Returns
    -------
    numpy.ndarray
        The same shape, int32: 0 background, objects from 1 without gaps, in the order of their
        first pixels, row by row.

    Raises
    ------
    MitolumeError
        The mask holds other values, has other axes, or should be a probability.

    Examples
    --------
    >>> mask = np.array([[1, 0, 0, 1], [0, 1, 0, 255]])
    >>> label_objects(mask, ObjectSettings(min_size_px=0))
    array([[1, 0, 0, 2],
           [0, 1, 0, 0]], dtype=int32)
    """
    mask = np.asarray(mask)
    labels = np.zeros(mask.shape, np.int32)
    label_blocks(mask, labels, mask.shape, settings, pixel_size_um)
    return labels


def label_blocks(
    mask: Any,
    out: Any,
    block: Sequence[int],
    settings: ObjectSettings | None = None,
    pixel_size_um: Mapping[str, float] | None = None,
    progress: Progress = lambda done, total: None,
    above: int = 0,
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
    settings, pixel_size_um
        As for `label_objects`.
    progress
        Called with the blocks done and the blocks there are, all passes counted.
    above
        Objects are numbered from 1 more than this.

    Returns
    -------
    pandas.DataFrame
        What `out` holds, as `index_objects` lists it; ``attrs["n_small"]`` objects were too small.

    Raises
    ------
    MitolumeError
        As for `label_objects`.
    """
    settings = settings or ObjectSettings()
    min_px, hole_px, cut = _rules_of(settings, mask.shape, pixel_size_um)
    by_probability = settings.split == "probability"
    if by_probability and not np.issubdtype(mask.dtype, np.floating):
        raise MitolumeError(
            "split: probability needs the probability in place of the mask (mitolume predict "
            "--probability writes it); split: distance needs only the mask"
        )
    if tuple(out.shape) != tuple(mask.shape) or out.dtype != np.int32:
        raise ValueError(f"out is {out.shape} {out.dtype}, but must be {mask.shape} int32")
    boxes = blocks_of(mask.shape, block)
    split = settings.split != "none"
    steps, done = len(boxes) * (2 + (hole_px > 0) + split), count(1)

    def step() -> None:
        progress(next(done), steps)

    def foreground(box: Box) -> Array:
        return _foreground_of(np.asarray(mask[box]), settings.threshold)

    def without_holes(box: Box) -> Array:
        return np.asarray(foreground(box) | filled[np.asarray(out[box])])

    read = foreground
    if hole_px:
        # Pieces of background go into `out` first; each block of objects then replaces its own.
        group, table = _label(lambda box: ~foreground(box), out, boxes, 1, step)
        ends = boxes_in(table, len(mask.shape))
        # Along an axis of one pixel everything is at the edge: a stack of one plane is a plane.
        at_edge = ((ends[..., 0] == 0) | (ends[..., 1] == mask.shape)) & (np.array(mask.shape) > 1)
        is_hole = (table["size_px"].to_numpy() <= hole_px) & ~at_edge.any(axis=1)
        filled = np.isin(group, table.loc[is_hole, "label"])
        read = without_holes
    group, table = _label(read, out, boxes, len(mask.shape), step)
    n_small = int((table["size_px"] < min_px).sum())
    table = table[table["size_px"] >= min_px]
    table = _renumber(out, boxes, table, 1 if split else above + 1, group, step)
    if split:
        table = _split(out, table, cut, mask if by_probability else None)
        group = np.arange(int(table["label"].to_numpy().max(initial=0)) + 1)
        table = _renumber(out, boxes, table, above + 1, group, step)
    table.attrs["n_small"] = n_small
    return table


def _rules_of(
    settings: ObjectSettings, shape: Sequence[int], pixel_size_um: Mapping[str, float] | None
) -> tuple[int, int, Cut]:
    """Return the least size of objects, the largest of holes to fill, both in pixels, and the cut.

    Settings in µm hold where all pixel sizes are known.
    """
    units = units_of(shape, pixel_size_um)
    unit, spacing = units.unit, units.spacing
    pixel = math.prod(spacing)

    def pixels(name: str) -> float:
        d = getattr(settings, f"{name}_{unit}")
        if len(spacing) == 2:
            return float(math.pi * d**2 / 4 / pixel)
        least = 2.0 if d and unit == "um" and name == "min_size" else 0.0
        return math.pi / 6 * math.prod(max(d, least * side) for side in spacing) / pixel

    # A hair of slack: sizes that are equal but for rounding are equal.
    return (
        math.ceil(pixels("min_size") * (1 - 1e-9)),
        math.floor(pixels("max_hole") * (1 + 1e-9)),
        # Along an axis of one pixel, any size will do.
        Cut(
            (1.0,) * (len(shape) - len(spacing)) + spacing,
            getattr(settings, f"split_distance_{unit}"),
        ),
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


def _label(
    read: Callable[[Box], Array], out: Any, boxes: list[Box], connectivity: int, step: Step
) -> tuple[Array, pd.DataFrame]:
    """Label the blocks one by one; return each label's object, and a table of the objects."""
    ndim = len(boxes[0])
    structure = ndimage.generate_binary_structure(ndim, connectivity)
    tables, pairs, n = [], [np.empty((0, 2), np.int64)], 0
    for box in boxes:
        labels, found = ndimage.label(read(box), structure)
        described = index_objects(labels, [s.start for s in box], out.shape)
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
    """Cut the objects in `out`; list the parts and what stayed whole.

    Each is cut in its own box, so that nothing else has a say.
    """
    shape = tuple(out.shape)
    tables, highest = [table.iloc[:0]], len(table)
    for three, members in windows_of(table, (1,) * (3 - len(shape)) + shape):
        window = three[3 - len(shape) :]
        labels = np.array(out[window])
        values = None if probability is None else np.asarray(probability[window])
        whole = np.ones(len(members), bool)
        boxes = boxes_in(members, len(shape))
        for row, (label, box) in enumerate(zip(members["label"], boxes, strict=True)):
            ends = zip(box, window, strict=True)
            own = tuple(slice(a - span.start, b - span.start) for (a, b), span in ends)
            inside = labels[own] == label
            cut_off = [(a == 0, b == n) for (a, b), n in zip(box, shape, strict=True)]
            parts = split_object(inside, cut, cut_off, None if values is None else values[own])
            if parts.max() < 2:
                continue
            whole[row] = False
            made = index_objects(parts, tuple(box[:, 0]), shape)
            tables.append(made.assign(label=made["label"] + highest))
            labels[own][inside] = parts[inside] + highest
            highest += len(made)
        tables.append(members[whole])
        if not whole.all():
            out[window] = labels
    return pd.concat(tables, ignore_index=True)


def _renumber(
    out: Any, boxes: list[Box], table: pd.DataFrame, start: int, group: Array, step: Step
) -> pd.DataFrame:
    """Give objects their numbers in raster order from a start; what isn't in the table is erased.

    ``group`` says which object each of the labels in `out` is a part of.
    """
    table = table.sort_values("first", ignore_index=True)
    numbers = np.arange(start, start + len(table))
    number_of = np.zeros(int(group.max()) + 1, np.int32)
    number_of[table["label"]] = numbers
    number_of = number_of[group]
    for box in boxes:
        out[box] = number_of[np.asarray(out[box])]
        step()
    return table.assign(label=numbers)
