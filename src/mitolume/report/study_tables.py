"""The tables of a study's page: everything in them is text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mitolume.preprocess.fingerprint import UNLIKE
from mitolume.study.cells import image_count
from mitolume.study.evidence import HINT, Comparison
from mitolume.text import count, number, percent

_DASH = "\N{EN DASH}"
_GROUP_COLUMNS = [
    "name", "arm", "n_images", "n_specimens", "iou", "area_bias", "low", "high", "distance",
]  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table as people read it."""

    title: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def to_markdown(self) -> str:
        """Write the table as Markdown, with its caption above."""
        lines = [self.columns, ["---", *["---:"] * (len(self.columns) - 1)], *self.rows]
        cells = (" | ".join(str(c).replace("|", "\\|") for c in line) for line in lines)
        return f"{self.caption}\n\n" + "\n".join(f"| {line} |" for line in cells) + "\n"


def comparison_table(
    comparisons: Sequence[Comparison], points: pd.DataFrame, reference: str, scored_on: str
) -> Table:
    """Make the table of comparisons, the reference first at each number of labelled images.

    ``points`` has the score of each arm there, from a `LabelCurve`; ``scored_on`` says in words
    which images were scored.
    """
    scores = points.set_index(["arm", "k"])["score"].map(number)
    rows = []
    for k in sorted({one.k for one in comparisons}):
        score = scores.get((reference, k), "undefined")
        rows.append([reference, "reference", str(k), score, _DASH, _DASH, _DASH])
        for one in (one for one in comparisons if one.k == k):
            difference, low, high = (
                number(value, signed=True) for value in (one.difference, one.low, one.high)
            )
            interval = f"{low} to {high}" if math.isfinite(one.low) else _DASH
            seen = number(one.detectable) if one.detectable < 1 else "nothing"
            if one.verdict == HINT or not math.isfinite(one.low):
                seen = _DASH  # with one seed nobody knows what the next one shows
            score = scores[one.arm, k]
            rows.append([one.arm, one.verdict, str(k), score, difference, interval, seen])
    return Table(
        "Comparisons",
        f"Foreground IoU, mean over specimens and seeds, on {scored_on}; each arm against "
        f"{reference}",
        ["Arm", "Verdict", "Labels", "IoU", "Difference", "Interval", "Could have seen"],
        rows,
    )


def score_tables(results: pd.DataFrame, images: pd.DataFrame) -> list[Table]:
    """Make the tables of the published study: scores on train and test, arm by arm.

    They are made of study.csv and study_images.csv.
    """
    standing = results[results["stands"]]
    subsets = [s for s in ("train", "validation", "test") if (standing["subset"] == s).any()]
    tables = []
    pooled = "pooled over the pixels of all images"
    for metric, title, how in (
        ("miou", "Mean IoU", f"mean of mitochondria and background, {pooled}"),
        ("iou", "Foreground IoU", pooled),
        ("cldice", "clDice", "mean over images"),
    ):
        rows = []
        for (arm, k), own in standing[standing["metric"] == metric].groupby(
            ["arm", "k"], sort=False
        ):
            cells = [_mean_and_spread(own[own["subset"] == s]["value"]) for s in subsets]
            rows.append([str(arm), str(k), *cells, str(own["seed"].nunique())])
        of = ", ".join(sizes(images[images["tp"].notna()], s) for s in subsets)
        tables.append(
            Table(
                title,
                f"{title} by arm, {how}; mean over seeds ± standard deviation; {of}",
                ["Arm", "Labels", *(s.capitalize() for s in subsets), "Seeds"],
                rows,
            )
        )
    return tables


def _mean_and_spread(values: pd.Series[float]) -> str:
    if values.notna().sum() == 0:
        return _DASH
    mean = number(float(values.mean()))
    return mean if values.count() < 2 else f"{mean} ± {number(float(values.std()))}"


def by_group(images: pd.DataFrame, column: str) -> pd.DataFrame:
    """Summarise images by condition or batch: a row for each name and arm, none of a single name.

    ``images`` are the rows of study_images.csv of the models that stand for their arms: the scored
    images of one subset, and unlabelled images. These count only in groups without scored images,
    where they still tell the distance from the training images.

    The columns are ``name, arm, n_images, n_specimens``; ``iou``; ``area_bias``, the marked area
    divided by the true area, minus 1, pooled over images and seeds, and ``low`` and ``high``, the
    smallest and the largest of a specimen; ``distance``, the median distance of the images from the
    training images, in their standard deviations. NaN where no image is labelled.
    """
    groups = []
    several = images if images[column].nunique() > 1 else images.iloc[:0]
    for (name, arm), of_both in several.groupby([column, "arm"], sort=False):
        scored = of_both[of_both["tp"].notna()]
        rows = scored if len(scored) else of_both
        biases = rows.groupby("specimen")[["tp", "fp", "fn"]].sum().apply(_area_bias, axis=1)
        sums = rows[["tp", "fp", "fn"]].sum()
        distance = rows["distance"].median() if "distance" in rows else math.nan
        iou = sums["tp"] / sums.sum() if sums.sum() else math.nan
        counted = image_count(rows), rows["specimen"].nunique()
        spread = biases.min(), biases.max()
        groups.append((name, arm, *counted, iou, _area_bias(sums), *spread, distance))
    return pd.DataFrame(groups, columns=_GROUP_COLUMNS)


def _area_bias(counts: pd.Series[float]) -> float:
    true = counts["tp"] + counts["fn"]
    return float((counts["tp"] + counts["fp"]) / true - 1) if true else math.nan


def group_table(column: str, groups: pd.DataFrame) -> Table:
    """Make the table of scores and area errors by condition or batch (``column``)."""
    with_distance = bool(groups["distance"].notna().any())
    rows = []
    group: Any
    for group in groups.itertuples():
        iou = bias = spread = _DASH
        if math.isfinite(group.area_bias):
            iou, bias = number(group.iou), percent(group.area_bias, 0, signed=True)
            if group.n_specimens > 1:
                spread = " to ".join(percent(b, 0, signed=True) for b in (group.low, group.high))
        distance = [number(group.distance, 2)] if with_distance else []
        counts = str(group.n_images), str(group.n_specimens)
        rows.append([group.name or "(none)", group.arm, *counts, iou, bias, spread, *distance])
    caption = (
        f"Foreground IoU by {column}, all seeds together, with the most labelled images; by how "
        "much the marked area exceeds the true area"
    )
    if with_distance:
        caption += (
            "; distance from the training images, in their standard deviations (below "
            f"{UNLIKE:g}: of the same kind)"
        )
    columns = [column.capitalize(), "Arm", "Images", "Specimens", "IoU", "Area off by"]
    columns += ["by specimen", *(["Distance"] if with_distance else [])]
    return Table(f"Scores by {column}", caption, columns, rows)


def sizes(scored: pd.DataFrame, subset: str) -> str:
    """Say how many images of how many specimens a subset has."""
    own = scored[scored["subset"] == subset]
    images = count(image_count(own), f"{subset} image")
    return f"{images} of {count(own['specimen'].nunique(), 'specimen')}"
