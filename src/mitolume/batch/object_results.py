"""Objects of mask files: counts for each file, scores of them pooled. Reads, but writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage

from mitolume.analysis.object_scores import (
    OBJECT_SCORES,
    THRESHOLDS,
    ObjectCounts,
    count_objects,
)
from mitolume.batch.mask_pairs import MaskPair
from mitolume.io.mask_files import kind_of
from mitolume.io.masks import UNSURE, to_mask
from mitolume.io.read import read_plane

Array = np.ndarray[Any, Any]

_TP = [f"object_tp_{100 * t:.0f}" for t in THRESHOLDS]
_NUMBERS = ["objects_true", "objects_predicted", *_TP]


def score_objects(pairs: Sequence[MaskPair]) -> list[dict[str, Any]]:
    """Count and score the objects of pairs of mask files, a z-stack as one volume.

    Parameters
    ----------
    pairs
        Predicted and true masks. Where the files of a side hold label images, their numbers are
        the objects; else pixels that touch are, be it by a corner.

    Returns
    -------
    list of dict
        For each pair the counts and scores that become columns.
    """
    labelled = [_hold_labels(pairs, side) for side in (0, 1)]
    rows = []
    for pair in pairs:
        (predicted, unsure), (truth, truth_unsure) = (
            _objects(pair, side, labelled[side]) for side in (0, 1)
        )
        c = count_objects(predicted, truth, unsure, truth_unsure)
        numbers = dict(zip(_NUMBERS, (c.n_true, c.n_predicted, *c.tp), strict=True))
        scores = {name: score(c) for name, score in OBJECT_SCORES.items()}
        rows.append(numbers | {"object_iou_sum": c.iou_sum} | scores)
    return rows


def add_objects(planes: pd.DataFrame, objects: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Add the columns of objects: those of a file stand in the row of its first plane.

    Parameters
    ----------
    planes
        A row for each plane, the files in the order of ``objects``.
    objects
        As `score_objects` returns them.
    """
    first = planes.index[planes["plane"] == 0]
    table = planes.join(pd.DataFrame(objects, index=first))
    return table.astype(dict.fromkeys(_NUMBERS, "Int64"))


def pooled_objects(images: pd.DataFrame) -> ObjectCounts:
    """Sum the counts of all files."""
    numbers = [int(images[name].sum()) for name in _NUMBERS]
    return ObjectCounts(
        numbers[0], numbers[1], tuple(numbers[2:]), float(images["object_iou_sum"].sum())
    )


def _hold_labels(pairs: Sequence[MaskPair], side: int) -> bool:
    """Say whether files hold label images: a mask of 0 and 255 also has the kind ``labels``."""
    return any(
        bool(np.setdiff1d(read_plane(pair.images[side], z=z), (0, 1, UNSURE)).size)
        for pair in pairs
        if kind_of(pair.images[side], pair.kinds[side]) == "labels"
        for z in range(pair.images[side].sizes["Z"])
    )


def _objects(pair: MaskPair, side: int, labelled: bool) -> tuple[Array, Array]:
    """Return the label image of one file, (Z, Y, X), and where it is unsure."""
    image = pair.images[side]
    kind = kind_of(image, pair.kinds[side])
    values = np.stack([read_plane(image, z=z) for z in range(image.sizes["Z"])])
    if labelled and kind == "labels":
        return values.astype(np.int64), np.zeros(values.shape, bool)
    mask = to_mask(values, kind)
    labels, _ = ndimage.label(mask == 1, np.ones((3, 3, 3)))
    return labels, mask == UNSURE
