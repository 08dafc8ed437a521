"""The tables of a study's report, as people read them. Knows no page and no picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from mitolume.inference.suspicion import UNLIKE
from mitolume.study.cells import image_count
from mitolume.study.evidence import Comparison
from mitolume.study.shift import Group
from mitolume.study.verdicts import HINT
from mitolume.text import count, number, percent

_DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Table:
    """A table as people read it: everything is text."""

    title: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def to_markdown(self) -> str:
        """Write the table as Markdown, with its caption above."""
        lines = [self.columns, ["---", *["---:"] * (len(self.columns) - 1)], *self.rows]
        cells = (" | ".join(str(c).replace("|", "\\|") for c in line) for line in lines)
        return f"{self.caption}\n\n" + "\n".join(f"| {line} |" for line in cells) + "\n"


@dataclass(frozen=True)
class ComparisonRow:
    """An arm against the reference, everything as text."""

    arm: str
    labels: str
    iou: str
    difference: str
    interval: str
    detectable: str
    verdict: str


def comparison_rows(
    comparisons: Sequence[Comparison], points: pd.DataFrame, reference: str
) -> list[ComparisonRow]:
    """Lay out the table of comparisons, the reference first at each budget.

    Parameters
    ----------
    comparisons
        Against the reference.
    points
        Of `LabelCurve`: the score of each arm and budget.
    reference
        The arm that the others are compared with.
    """
    scores = {(row["arm"], row["k"]): row["score"] for row in points.to_dict("records")}
    rows = []
    for k in sorted({one.k for one in comparisons}):
        rows.append(ComparisonRow(reference, str(k), number(scores.get((reference, k), math.nan)),
                                  _DASH, _DASH, _DASH, "reference"))  # fmt: skip
        for one in comparisons:
            if one.k == k:
                told = math.isfinite(one.low)
                rows.append(
                    ComparisonRow(
                        one.arm,
                        str(k),
                        number(scores.get((one.arm, k), math.nan)),
                        number(one.difference, signed=True),
                        f"{number(one.low, signed=True)} to {number(one.high, signed=True)}"
                        if told
                        else _DASH,
                        _could_have_seen(one),
                        one.verdict,
                    )
                )
    return rows


def _could_have_seen(one: Comparison) -> str:
    if not math.isfinite(one.low) or one.verdict == HINT:  # who knows what the next seed shows
        return _DASH
    return number(one.detectable) if one.detectable < 1 else "nothing"


def score_tables(results: pd.DataFrame, images: pd.DataFrame) -> list[Table]:
    """Make the tables of the published study: mean IoU on train and test, arm by arm.

    Parameters
    ----------
    results, images
        The content of study.csv and of study_images.csv.
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


def shift_table(column: str, groups: list[Group]) -> Table:
    """Lay out scores and area errors by condition or batch (`column`)."""
    far = any(math.isfinite(g.distance) for g in groups)
    rows = []
    for g in groups:
        scored = math.isfinite(g.area_bias)
        several = scored and g.n_specimens > 1
        low, high = (percent(bias, 0, signed=True) for bias in (g.low, g.high))
        spread = f"{low} to {high}" if several else _DASH
        rows.append(
            [g.name or "(none)", g.arm, str(g.n_images), str(g.n_specimens),
             number(g.iou) if scored else _DASH,
             percent(g.area_bias, 0, signed=True) if scored else _DASH, spread,
             *([number(g.distance, 2)] if far else [])]
        )  # fmt: skip
    columns = [
        column.capitalize(),
        "Arm",
        "Images",
        "Specimens",
        "IoU",
        "Area off by",
        "by specimen",
    ]
    return Table(
        f"Scores by {column}",
        f"Foreground IoU by {column}, all seeds together, with the most labelled images; how much "
        "more area is marked than there is"
        + (
            "; distance from the training images, in their standard deviations (below "
            f"{UNLIKE:g}: of the same kind)"
            if far
            else ""
        ),
        columns + (["Distance"] if far else []),
        rows,
    )


def audited(images: pd.DataFrame) -> pd.DataFrame:
    """Return model 1's rows of the unlabelled images in runs that have a model 2."""
    taught = set(images[images["model"] == "model_2"]["run"])
    own = images["run"].isin(taught) & (images["model"] == "model_1")
    return images[own & (images["subset"] == "unlabelled")]


def labelled_share(images: pd.DataFrame) -> float:
    """Share of mitochondria in the labelled training images; NaN where none is scored."""
    labelled = images[(images["subset"] == "train") & images["tp"].notna()]
    pixels = labelled[["tp", "fp", "fn", "tn"]].sum()
    return float((pixels["tp"] + pixels["fn"]) / pixels.sum()) if pixels.sum() else math.nan


def audit_sentences(images: pd.DataFrame) -> list[str]:
    """Say what model 2 learned from, of the rows of study_images.csv."""
    taught = audited(images)
    if taught.empty:
        return ["No arm learned from unlabelled images."]
    return [
        "These are the masks that model 1 gave the unlabelled images, and that model 2 learned "
        f"from. In the labelled training images {percent(labelled_share(images))} of the area is "
        "mitochondria; a share far from that means that the cells differ, or that model 1 fails."
    ]


def audit_tables(images: pd.DataFrame) -> list[Table]:
    """Lay out the pseudo-labels by arm and condition."""
    taught = audited(images)
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
