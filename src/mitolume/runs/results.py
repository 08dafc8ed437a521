"""From masks to the tables of scores: one row an image, then one row a metric."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from mitolume.analysis.metrics import COUNT_SCORES, THIN_SCORES, Counts, count, iou, mean_defined
from mitolume.io.masks import Mask
from mitolume.io.write import atomic

SUBSETS = ("train", "validation", "test")
COUNT_COLUMNS = ("tp", "fp", "fn", "tn", "n_unsure")
IMAGE_COLUMNS = (
    "line",
    "image", "plane", "model", "subset", "specimen", "condition", "batch", "arm", "method",
    "network", "k", "seed", "threshold", *COUNT_COLUMNS, "iou", *THIN_SCORES,
    "foreground_share", "distance",
)  # fmt: skip
RESULT_COLUMNS = (
    "arm", "method", "network", "k", "seed", "model", "subset", "metric", "value",
    "n_images", "n_specimens",
)  # fmt: skip
_NAMES = ("image", "specimen", "condition", "batch")
_KEYS = ["arm", "method", "network", "k", "seed", "model", "subset"]


def image_scores(prediction: Mask, truth: Mask) -> dict[str, float | int]:
    """Score one plane: its counts, ``iou`` and the scores for thin structures; NaN: undefined."""
    counts = count(prediction, truth)
    thin = {name: score(prediction, truth) for name, score in THIN_SCORES.items()}
    return {**asdict(counts), "iou": iou(counts), **thin}


def summarise(images: pd.DataFrame) -> pd.DataFrame:
    """Make the long table of results: a row for each arm, seed, model, subset and metric.

    Scores of counts are pooled over pixels; ``iou_image`` and the scores for thin structures are
    means over the images where they are defined, whose number is ``n_images``.
    """
    rows: list[dict[str, Any]] = []
    scored = images[images["tp"].notna()]
    for keys, group in scored.groupby(_KEYS, sort=False, dropna=False):
        head = dict(zip(_KEYS, keys, strict=True))
        pooled = Counts(*(int(group[name].sum()) for name in COUNT_COLUMNS))

        def add(metric: str, value: float, used: pd.DataFrame, head: Any = head) -> None:
            of = {"n_images": len(used), "n_specimens": used["specimen"].nunique()}
            rows.append(head | {"metric": metric, "value": value} | of)

        for metric, score in COUNT_SCORES.items():
            add(metric, score(pooled), group)
        for metric in ("iou", *THIN_SCORES):
            defined = group[group[metric].notna()]
            name = "iou_image" if metric == "iou" else metric
            add(name, mean_defined(defined[metric].tolist()), defined)
        add("n_undefined", int(group["iou"].isna().sum()), group)
    return pd.DataFrame(rows, columns=list(RESULT_COLUMNS))


def judging_subset(scored: pd.DataFrame) -> str:
    """Return the subset that says most: test, else validation, else train; "" without any row."""
    there = set(scored["subset"])
    return next((subset for subset in reversed(SUBSETS) if subset in there), "")


def value_of(results: pd.DataFrame, model: str, subset: str, metric: str) -> float:
    """Return one value of the table of results; NaN where it isn't there."""
    found = results[
        (results["model"] == model) & (results["subset"] == subset) & (results["metric"] == metric)
    ]["value"]
    return float(found.iloc[0]) if len(found) else math.nan


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, whole or not at all; counts stay whole numbers."""
    counts = {name: "Int64" for name in COUNT_COLUMNS if name in table}
    table = table.astype(counts)
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False)


def read_csv(path: Path) -> pd.DataFrame:
    """Read a table of a run: a condition called "NA" is a name and not a gap."""
    table = pd.read_csv(path, converters=dict.fromkeys(_NAMES, str))
    for name in table.columns.intersection(list(_NAMES)):  # pandas makes "" alone NaN
        table[name] = table[name].astype(object).fillna("")
    return table


def labelled_share(images: pd.DataFrame) -> float:
    """Return the foreground share of the labelled training images (rows of images.csv).

    NaN without any pixel.
    """
    train = images[images["subset"] == "train"]
    one = train[train["model"] == train["model"].min()]
    tp, fp, fn, tn = one[list(COUNT_COLUMNS[:4])].sum()
    return float((tp + fn) / (tp + fp + fn + tn)) if tp + fp + fn + tn else math.nan
