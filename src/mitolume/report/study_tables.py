"""The tables of a study's page: everything in them is text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from mitolume.preprocess.fingerprint import UNLIKE
from mitolume.study.cells import image_count
from mitolume.study.evidence import HINT, Comparison
from mitolume.text import count, number, percent

_DASH = "\N{EN DASH}"


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

    Parameters
    ----------
    comparisons
        The comparisons with the reference.
    points
        The score of each arm at each number of labelled images, from a `LabelCurve`.
    reference
        Name of the arm that the others are compared with.
    scored_on
        Which images were scored, in words.
    """
    scores = {(row["arm"], row["k"]): number(row["score"]) for row in points.to_dict("records")}
    rows = []
    for k in sorted({one.k for one in comparisons}):
        score = scores.get((reference, k), "undefined")
        rows.append([reference, str(k), score, _DASH, _DASH, _DASH, "reference"])
        for one in comparisons:
            if one.k != k:
                continue
            interval = detectable = _DASH
            if math.isfinite(one.low):
                interval = f"{number(one.low, signed=True)} to {number(one.high, signed=True)}"
                if one.verdict != HINT:  # with one seed nobody knows what the next one shows
                    detectable = number(one.detectable) if one.detectable < 1 else "nothing"
            difference = number(one.difference, signed=True)
            rows.append(
                [one.arm, str(k), scores[one.arm, k], difference, interval, detectable, one.verdict]
            )
    return Table(
        "Comparisons",
        f"Foreground IoU, mean over specimens and seeds, on {scored_on}; each arm against "
        f"{reference}",
        ["Arm", "Labels", "IoU", "Difference", "Interval", "Could have seen", "Verdict"],
        rows,
    )


def score_tables(results: pd.DataFrame, images: pd.DataFrame) -> list[Table]:
    """Make the tables of the published study: mean IoU on train and test, arm by arm.

    Parameters
    ----------
    results, images
        The tables study.csv and study_images.csv.
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


@dataclass(frozen=True)
class GroupScores:
    """The scores of one arm on the images of one condition or batch.

    ``iou`` and ``area_bias`` are NaN where no image of the group is labelled.
    """

    name: str
    arm: str
    n_images: int
    n_specimens: int
    iou: float
    area_bias: float
    """Marked area divided by true area, minus 1, pooled over images and seeds."""
    low: float
    high: float
    """The smallest and the largest area bias of a specimen."""
    distance: float
    """Median distance of the images from the training images, in their standard deviations."""


def by_group(images: pd.DataFrame, column: str) -> list[GroupScores]:
    """Summarise images by condition or batch.

    Parameters
    ----------
    images
        Rows of study_images.csv of the models that stand for their arms: the scored images of one
        subset, and unlabelled images. Unlabelled images count only in groups without scored
        images, where they still tell the distance from the training images.
    column
        ``condition`` or ``batch``.

    Returns
    -------
    list of GroupScores
        One for each name and arm, in the order of the table; empty if there is only one name.
    """
    if images[column].nunique() < 2:
        return []
    groups = []
    for (name, arm), of_both in images.groupby([column, "arm"], sort=False):
        scored = of_both[of_both["tp"].notna()]
        rows = scored if len(scored) else of_both
        tp, fp, fn = (rows[c].sum() for c in ("tp", "fp", "fn"))
        biases = [_area_bias(own) for _, own in rows.groupby("specimen")]
        known = [bias for bias in biases if math.isfinite(bias)] or [math.nan]
        groups.append(
            GroupScores(
                name=str(name),
                arm=str(arm),
                n_images=image_count(rows),
                n_specimens=rows["specimen"].nunique(),
                iou=tp / (tp + fp + fn) if tp + fp + fn else math.nan,
                area_bias=_area_bias(rows),
                low=min(known),
                high=max(known),
                distance=float(rows["distance"].median()) if "distance" in rows else math.nan,
            )
        )
    return groups


def _area_bias(rows: pd.DataFrame) -> float:
    true = rows["tp"].sum() + rows["fn"].sum()
    return float((rows["tp"].sum() + rows["fp"].sum()) / true - 1) if true else math.nan


def group_table(column: str, groups: Sequence[GroupScores]) -> Table:
    """Make the table of scores and area errors by condition or batch (``column``)."""
    with_distance = any(math.isfinite(group.distance) for group in groups)
    rows = []
    for group in groups:
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


def pseudo_labelled(images: pd.DataFrame) -> pd.DataFrame:
    """Return model 1's rows of the unlabelled images in runs that have a model 2."""
    taught = set(images[images["model"] == "model_2"]["run"])
    own = images["run"].isin(taught) & (images["model"] == "model_1")
    return images[own & (images["subset"] == "unlabelled")]


def pseudo_label_tables(images: pd.DataFrame) -> list[Table]:
    """Make the table of pseudo-labels by arm and condition; none where no arm learned from any."""
    taught = pseudo_labelled(images)
    if taught.empty:
        return []
    rows = []
    for (arm, condition), own in taught.groupby(["arm", "condition"], sort=False):
        share, least, most = (
            float(getattr(own["foreground_share"], f)()) for f in ("mean", "min", "max")
        )
        rows.append(
            [str(arm), str(condition) or "(none)", str(image_count(own)), percent(share),
             f"{percent(least)} to {percent(most)}", number(float(own["mean_confidence"].mean()))]
        )  # fmt: skip
    columns = ["Arm", "Condition", "Images", "Foreground share", "from … to", "Mean confidence"]
    caption = "Pseudo-labels by arm and condition, means over images, seeds and budgets"
    return [Table("Pseudo-labels", caption, columns, rows)]


def sizes(scored: pd.DataFrame, subset: str) -> str:
    """Say how many images of how many specimens a subset has."""
    own = scored[scored["subset"] == subset]
    images = count(image_count(own), f"{subset} image")
    return f"{images} of {count(own['specimen'].nunique(), 'specimen')}"
