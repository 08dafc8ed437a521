"""The tables of a run's page and of the terminal, in order and with shares and differences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mitolume.analysis.metrics import Counts, iou
from mitolume.runs.folder import open_run
from mitolume.runs.results import SUBSETS
from mitolume.text import count

NAMES = ["image", "plane", "specimen", "condition", "batch"]
SIGNS = {"disagreement": "Disagreement", "feature_distance": "Distance"}
GROUP_SIGNS = {"foreground_share": "Foreground share", **SIGNS}
_COUNTS = ["tp", "fp", "fn", "tn"]


def with_spaces(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with its models named as on a page: "model 1"."""
    return table.assign(model=table["model"].str.replace("_", " "))


def named_columns(table: pd.DataFrame) -> list[str]:
    """Return the columns of names, except the image, that are not empty."""
    return [name for name in NAMES[1:] if (table[name] != "").any()]


def known_columns(table: pd.DataFrame, titles: Mapping[str, str]) -> dict[str, str]:
    """Return the columns with their titles, except those without any number."""
    there = table.dropna(axis=1, how="all").columns
    return {name: title for name, title in titles.items() if name in there and len(table)}


# Results -------------------------------------------------------------------------------------


def sizes(results: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Return the number of images and of specimens of each subset that has scores."""
    largest = results.groupby("subset")[["n_images", "n_specimens"]].max().astype(float)
    return {s: tuple(largest.loc[s]) for s in SUBSETS if s in largest.index}


def scores(results: pd.DataFrame) -> dict[tuple[str, str, str], float]:
    """Return each value by subset, metric and model."""
    rows = results[["subset", "metric", "model", "value"]].to_numpy()
    return {tuple(row[:3]): float(row[3]) for row in rows}


def results_text(folder: str | Path) -> str:
    """Return the scores of a finished run as a table for the terminal.

    There are mean IoU and IoU of each model and by chance, the sizes of the subsets, and which
    model was kept.
    """
    run = open_run(folder)
    results = with_spaces(run.results)
    values, models = scores(results), list(dict.fromkeys(results["model"]))
    columns: dict[tuple[str, str], dict[str, float]] = {}
    for subset, (n_images, n_specimens) in sizes(results).items():
        heading = f"{subset}: {count(n_images, 'image')}, {count(n_specimens, 'specimen')}"
        for metric, title in (("miou", "mean IoU"), ("iou", "IoU")):
            column = {model: values.get((subset, metric, model), math.nan) for model in models}
            chance = values.get((subset, f"chance_{metric}", models[0]), math.nan)
            columns[heading, title] = column | {"chance": chance}
    text = pd.DataFrame(columns).to_string(float_format="{:.3f}".format, na_rep="—")
    kept = f"kept: {run.kept.replace('_', ' ')} ({run.kept_reason})"
    return f"{text}\n{kept}"


# Labelled images -----------------------------------------------------------------------------


def worst_first(images: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each labelled image of one subset, worst first, undefined ones last.

    It has the image's names, ``share`` (of true foreground) and a column of IoU for each model.
    """
    true = (images["tp"] + images["fn"]) / images[_COUNTS].sum(axis=1)
    keys = ["line", *NAMES]
    wide = images.assign(share=true).groupby(keys, sort=False)[["share"]].first()
    models = sorted(images["model"].unique())
    for model in models:
        wide[model] = images[images["model"] == model].set_index(keys)["iou"]
    order = wide[models].min(axis=1).sort_values(kind="stable", na_position="last").index
    return wide.loc[order].reset_index()


def planes_of(images: pd.DataFrame, noun: str) -> str:
    """Count images of one model; planes of a stack are not independent, and are counted as such.

    Column ``stack``, where there is one, tells scenes and files of the same name apart.
    """
    n, stacks = len(images), images.get("stack", images["image"]).nunique()
    return count(n, noun) if stacks == n else f"{count(n, 'plane')} of {count(stacks, 'stack')}"


def condition_scores(images: pd.DataFrame) -> list[dict[str, Any]]:
    """Return pooled foreground IoU and error of area by condition and model; none without any."""
    if not images["condition"].any():
        return []
    rows = []
    for condition, group in images.groupby("condition", sort=False):
        pooled = group.groupby("model")[_COUNTS].sum().astype(int)
        of_model = {model: iou(Counts(*row)) for model, row in pooled.iterrows()}
        true, marked = pooled["tp"] + pooled["fn"], pooled["tp"] + pooled["fp"]
        off = (marked / true.where(true > 0) - 1).to_dict()
        once = group.drop_duplicates(["line", "plane"])
        rows.append(
            {"name": condition, "images": len(once), "of": planes_of(once, "image"),
             "iou": of_model, "area_off": off}
        )  # fmt: skip
    return rows


# Pseudo-labelled images ----------------------------------------------------------------------


def named_groups(conditions: pd.DataFrame) -> list[dict[Any, Any]]:
    """Return the rows of audit_conditions.csv with a ``name`` for each."""
    rows = conditions.to_dict("records")
    return [
        row | {"name": ", ".join(filter(None, (row["condition"], row["batch"]))) or "all"}
        for row in rows
    ]
