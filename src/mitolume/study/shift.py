"""Scores by condition and batch, and how wrong measured areas are there. Knows no page."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from mitolume.inference.suspicion import UNLIKE
from mitolume.study.cells import image_count
from mitolume.text import count, number, percent

# Conditions whose areas come out further apart than this are warned of, in shares of the area.
_APART = 0.1


@dataclass(frozen=True)
class Group:
    """One arm on the images of one condition or batch.

    ``iou`` and ``area_bias`` are NaN where no image of it is labelled.
    """

    name: str
    arm: str
    n_images: int
    n_specimens: int
    iou: float
    area_bias: float
    """Marked area over true area, less 1, pooled over images and seeds."""
    low: float
    high: float
    """The least and the largest area bias of a specimen."""
    distance: float
    """Median distance of the images from the training images, in their standard deviations."""


def by_group(images: pd.DataFrame, column: str) -> list[Group]:
    """Sum up images by condition or batch.

    Parameters
    ----------
    images
        Rows of study_images.csv of the models that stand for their arms: the scored images of one
        subset, and unlabelled images. These count where a name has no scored image, for they
        still tell how far it is from the training images.
    column
        ``condition`` or ``batch``.

    Returns
    -------
    list of Group
        Of each name and arm, in the order of the table; empty where there is one name only.
    """
    if images[column].nunique() < 2:
        return []
    groups = []
    for (name, arm), of_both in images.groupby([column, "arm"], sort=False):
        scored = of_both[of_both["tp"].notna()]
        rows = scored if len(scored) else of_both
        bias = _area_bias(rows)
        per_specimen = [_area_bias(own) for _, own in rows.groupby("specimen")]
        tp, fp, fn = (rows[c].sum() for c in ("tp", "fp", "fn"))
        groups.append(
            Group(
                name=str(name),
                arm=str(arm),
                n_images=image_count(rows),
                n_specimens=rows["specimen"].nunique(),
                iou=tp / (tp + fp + fn) if tp + fp + fn else np.nan,
                area_bias=bias,
                low=float(np.nanmin(per_specimen)) if np.isfinite(per_specimen).any() else np.nan,
                high=float(np.nanmax(per_specimen)) if np.isfinite(per_specimen).any() else np.nan,
                distance=float(rows["distance"].median()) if "distance" in rows else np.nan,
            )
        )
    return groups


def shift_sentences(groups: list[Group], arm: str, unscored: dict[str, int]) -> list[str]:
    """Say where a model is worse, and what that does to a comparison of conditions.

    Parameters
    ----------
    groups
        From `by_group`, by condition.
    arm
        The arm to speak of.
    unscored
        Conditions without any labelled image to score on, with their numbers of images.

    Returns
    -------
    list of str
        A warning of the two conditions whose areas come out furthest apart, or that there are
        none; what can't be told.
    """
    sentences = []
    own = [g for g in groups if g.arm == arm and np.isfinite(g.area_bias)]
    blind = [g for g in own if g.area_bias == -1]
    sentences += [
        f"{arm} marks nothing in {_named(g)}, though mitochondria are there." for g in blind
    ]
    # What a true ratio of 1 between two conditions would be measured as.
    pairs = [
        (one, other, (1 + other.area_bias) / (1 + one.area_bias))
        for one, other in combinations([g for g in own if g not in blind], 2)
    ]
    apart = [pair for pair in pairs if abs(pair[2] - 1) > _APART]
    apart.sort(key=lambda pair: -abs(np.log(pair[2])))
    if apart:
        sentences.append(_warning(*apart[0], arm))
        if len(apart) > 1:
            sentences.append(
                f"{count(len(apart), 'pair')} of conditions differ so by more than "
                f"{percent(_APART, 0)}; the table has them all."
            )
    elif len(own) > 1 and not blind:
        worst = max(own, key=lambda g: abs(g.area_bias))
        sentences.append(
            f"With {arm}, measured areas of the scored conditions are alike in their error: the "
            f"largest is {percent(worst.area_bias, 0)}, in {_named(worst)}."
        )
    far = [g for g in groups if g.arm == arm and g.distance >= UNLIKE]
    if far:
        names = ", ".join(f"{_named(g)} ({number(g.distance, 1)})" for g in far)
        sentences.append(
            f"Images of {names} don't look like those that {arm} was trained on: more than "
            f"{UNLIKE:g} standard deviations away, which images of the same kind hardly ever are. "
            "Look at their masks before you believe them."
        )
    if unscored:
        names = ", ".join(f"{name or 'no condition'} ({n})" for name, n in unscored.items())
        sentences.append(
            f"No labelled image was scored of these conditions: {names}. How good the masks are "
            "there, and how far off areas measured there are, can't be told; label a few."
        )
    return sentences


def _warning(one: Group, other: Group, ratio: float, arm: str) -> str:
    """Warn of a comparison; ``ratio`` is what equal areas would be measured as."""
    few = [_named(g) for g in (one, other) if g.n_specimens == 1]
    return (
        f"Before you compare {_named(one)} with {_named(other)}: {arm} marks "
        f"{_more(one.area_bias)} mitochondrial area than there is in {_named(one)} and "
        f"{_more(other.area_bias)} in {_named(other)}. Areas that are equal would be measured "
        f"{number(ratio, 2)} times as large in {_named(other)} "
        f"({count(one.n_images, 'image')} and {count(other.n_images, 'image')}"
        + (f"; {' and '.join(few)} from one specimen only" if few else "")
        + ")."
    )


def _area_bias(rows: pd.DataFrame) -> float:
    true = rows["tp"].sum() + rows["fn"].sum()
    return float((rows["tp"].sum() + rows["fp"].sum()) / true - 1) if true else np.nan


def _named(group: Group) -> str:
    return group.name or "images without a condition"


def _more(bias: float) -> str:
    return f"{percent(abs(bias), 0)} {'more' if bias >= 0 else 'less'}"
