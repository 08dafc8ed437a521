"""Label images larger than memory: labels each block, joins the faces. Knows no file.

The result is that of `mitolume.analysis.instances.label_objects` on the whole array, whatever the
blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count, product
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mitolume.analysis.instances import (
    foreground_of,
    probability_for,
    rules_of,
    split_objects,
)
from mitolume.analysis.object_index import (
    BOX,
    INDEX_COLUMNS,
    describe,
    is_hole,
    raster_order,
)
from mitolume.analysis.settings import ObjectSettings
from mitolume.analysis.splitting import Cut
from mitolume.analysis.windows import windows_of

Box = tuple[slice, ...]
Array = np.ndarray[Any, Any]
Progress = Callable[[int, int], None]


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

    Held at once are a block, a few numbers for each object and, where objects are cut, the box of
    the largest one.

    Parameters
    ----------
    mask
        (Y, X) or (Z, Y, X), whatever slices like an array (numpy, zarr, dask): 0, 1, 255
        (unsure: background here) or bool; or a probability (floating point).
    out
        The same shape, int32, whatever slices can be read from and assigned to (numpy, zarr). It
        serves as scratch until the end; chunks as large as a block are fastest.
    block
        Pixels along each axis to hold at once.
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
    rules = rules_of(settings, mask.shape, pixel_size_um)
    probability = probability_for(settings, mask, probability)
    if tuple(out.shape) != tuple(mask.shape) or out.dtype != np.int32:
        raise ValueError(f"out is {out.shape} {out.dtype}, but must be {mask.shape} int32")
    boxes = _boxes(mask.shape, block)
    split = settings.split != "none"
    step = _steps(progress, len(boxes) * (2 + (rules.hole_px > 0) + split))

    def foreground(box: Box) -> Array:
        return foreground_of(np.asarray(mask[box]), settings.threshold)

    def without_holes(box: Box) -> Array:
        return np.asarray(foreground(box) | filled[np.asarray(out[box])])

    read = foreground
    if rules.hole_px:
        # Pieces of background go into `out` first; each block of objects then replaces its own.
        group, table = _label(lambda box: ~foreground(box), out, boxes, 1, step)
        holes = table.loc[is_hole(table, mask.shape, rules.hole_px), "label"]
        filled = np.isin(group, holes)
        read = without_holes
    group, table = _label(read, out, boxes, mask.ndim, step)
    table = table[table["size_px"] >= rules.min_px]
    order = raster_order(table, int(group.max()))
    _renumber(out, boxes, order[group], step)
    if split:
        table = table.assign(label=order[table["label"]])
        table = _split(out, table, rules.cut, probability)
        _renumber(
            out, boxes, raster_order(table, int(table["label"].to_numpy().max(initial=0))), step
        )
    table = table.sort_values("first").assign(label=np.arange(1, len(table) + 1))
    return table[list(INDEX_COLUMNS)].reset_index(drop=True)


def _label(
    read: Callable[[Box], Array],
    out: Any,
    boxes: list[Box],
    connectivity: int,
    step: Callable[[], None],
) -> tuple[Array, pd.DataFrame]:
    """Label the blocks one by one, then find which labels are one object.

    Returns
    -------
    numpy.ndarray, pandas.DataFrame
        For each label in ``out`` the number of its object, and the objects.
    """
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
    return group, _joined(pd.concat(tables, ignore_index=True), group)


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
    codes = []
    for shift in product((-1, 0, 1) if connectivity > 1 else (0,), repeat=before.ndim):
        a = before[tuple(slice(max(d, 0), n + min(d, 0)) for d, n in zip(shift, before.shape,
                                                                     strict=True))]  # fmt: skip
        b = after[tuple(slice(max(-d, 0), n + min(-d, 0)) for d, n in zip(shift, after.shape,
                                                                      strict=True))]  # fmt: skip
        codes.append(np.unique((a << 32 | b)[(a > 0) & (b > 0)]))
    code = np.unique(np.concatenate(codes))
    return np.stack([code >> 32, code & 0xFFFFFFFF], axis=1)


def _joined(table: pd.DataFrame, group: Array) -> pd.DataFrame:
    """Merge the rows of pieces into rows of objects."""
    how = {name: "min" if name.endswith("0") else "max" for name in BOX}
    how |= {"size_px": "sum", "first": "min"}
    merged = table.groupby(group[table["label"]]).agg(how)
    return merged.rename_axis("label").reset_index()


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


def _boxes(shape: Sequence[int], block: Sequence[int]) -> list[Box]:
    if len(block) != len(shape) or min(block) < 1:
        raise ValueError(f"blocks of {tuple(block)} don't fit an image of {tuple(shape)}")
    spans = [
        [slice(start, min(start + side, n)) for start in range(0, n, side)]
        for n, side in zip(shape, block, strict=True)
    ]
    return list(product(*spans))


def _steps(progress: Progress | None, total: int) -> Callable[[], None]:
    done = count(1)
    return lambda: progress(next(done), total) if progress else None
