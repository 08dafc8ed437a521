"""The tables of the report page: checked, completed and put in order, and numbers as words.

Knows no chart, no picture and no HTML: data frames in, data frames and plain numbers out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

MODELS = ("model 1", "model 2")
SUBSETS = ("train", "validation", "test")
NAMES = ["image", "plane", "specimen", "condition", "batch"]
COUNTS = ["tp", "fp", "fn", "tn"]


def ratio(part: float, whole: float) -> float:
    """Divide; NaN where the whole is nothing."""
    return part / whole if whole else math.nan


# Any table -----------------------------------------------------------------------------------


def checked(table: pd.DataFrame, title: str, columns: Sequence[str]) -> pd.DataFrame:
    """Copy these columns of a table, models named as in `MODELS`, names as text.

    Parameters
    ----------
    table
        As handed to the report; may lack columns where it has no rows.
    title
        What errors call the table.
    columns
        Those that must be there.

    Returns
    -------
    pandas.DataFrame
        The columns, and all of `NAMES`: empty text where there was none.

    Raises
    ------
    ValueError
        If a column is missing, or a model or subset is unknown.
    """
    missing = [column for column in columns if column not in table]
    if missing and len(table):
        raise ValueError(f"{title}: columns missing: {', '.join(missing)}")
    frame = table.reindex(columns=[*columns, *(n for n in NAMES if n not in columns)])
    frame = frame.reset_index(drop=True)
    for column in NAMES:
        frame[column] = [_name(value) for value in frame[column]]
    if "model" in columns:
        frame["model"] = [str(model).replace("_", " ") for model in frame["model"]]
        check_known(f"{title}: model", frame["model"], MODELS)
    if "subset" in columns:
        check_known(f"{title}: subset", frame["subset"], SUBSETS)
    return frame


def check_known(what: str, values: Iterable[str], known: Sequence[str]) -> None:
    """Raise a ValueError that lists the known names if a value is none of them."""
    for strange in sorted(set(values) - set(known), key=str):
        raise ValueError(f"{what} {strange!r} is none of: {', '.join(known)}")


def filled(frame: pd.DataFrame) -> list[str]:
    """Columns of names, but for the image, that say anything."""
    return [name for name in NAMES[1:] if any(frame[name])]


def _name(value: object) -> str:
    """Text of a name column: missing is empty, 3.0 is 3."""
    if not isinstance(value, str) and pd.isna(value):  # type: ignore[call-overload]
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


# Results -------------------------------------------------------------------------------------


def sizes(results: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Count images and specimens of each subset that has scores; results as handed in."""
    frame = checked(results, "results", ["subset", "n_images", "n_specimens"])
    largest = frame.groupby("subset")[["n_images", "n_specimens"]].max().astype(float)
    return {s: tuple(largest.loc[s]) for s in SUBSETS if s in largest.index}


def scores(results: pd.DataFrame) -> dict[tuple[str, str, str], float]:
    """Value by subset, metric and model, from checked results of one run."""
    keys = ["subset", "metric", "model"]
    for _, row in results[results.duplicated(keys)].iterrows():
        raise ValueError(f"results: several rows for {' '.join(row[keys])}; expected one run")
    return {tuple(row[:3]): float(row[3]) for row in results[[*keys, "value"]].to_numpy()}


# Labelled images -----------------------------------------------------------------------------


def labelled_images(table: pd.DataFrame) -> pd.DataFrame:
    """images.csv, checked: counts as numbers, with the foreground share of the truth."""
    columns = [*NAMES[:-1], "model", "subset", *COUNTS, "iou"]
    frame = checked(table, "images", columns).astype(dict.fromkeys([*COUNTS, "iou"], float))
    # Fields of one file may share all names; numbering them keeps each, in order, for both models.
    frame["copy"] = frame.groupby([*NAMES, "model", "subset"]).cumcount()
    frame["share"] = (frame["tp"] + frame["fn"]) / frame[COUNTS].sum(axis=1)
    return frame


def worst_first(images: pd.DataFrame) -> pd.DataFrame:
    """Row per labelled image, a column of IoU per model, by the lower of the two."""
    keys = [*NAMES, "copy"]
    wide = images.groupby(keys, sort=False)[["share"]].first()
    models = [model for model in MODELS if (images["model"] == model).any()]
    for model in models:
        of_model = images[images["model"] == model]
        wide[model] = of_model.set_index(keys)["iou"]
    wide["lowest"] = wide[models].min(axis=1)
    return wide.sort_values("lowest", kind="stable", na_position="last").reset_index()


def condition_scores(images: pd.DataFrame) -> list[dict[str, Any]]:
    """Pooled foreground IoU by condition and model; empty where no condition is given."""
    if not images["condition"].any():
        return []
    rows = []
    for condition, group in images.groupby("condition", sort=False):
        counts = group.groupby("model")[["tp", "fp", "fn"]].sum()
        iou = {model: ratio(row["tp"], row.sum()) for model, row in counts.iterrows()}
        rows.append({"name": condition, "images": len(worst_first(group)), "iou": iou})
    return rows


# Pseudo-labelled images ----------------------------------------------------------------------

_AUDITED = ["foreground_share", "mean_confidence"]
SIGNS = {
    "accepted_foreground": "Sure foreground",
    "disagreement": "Disagreement",
    "feature_distance": "Distance",
}


def unlabelled_images(table: pd.DataFrame) -> pd.DataFrame:
    """Pseudo-labelled images, checked: shares, confidence and signs as numbers."""
    frame = checked(table, "unlabelled", [*NAMES[:-1], *_AUDITED])
    frame[_AUDITED] = frame[_AUDITED].astype(float)
    for name in (*SIGNS, "doubt"):
        frame[name] = table[name].to_numpy(float) if name in table else math.nan
    return frame


def known_signs(table: pd.DataFrame) -> dict[str, str]:
    """Columns of the audit that hold any number, and their headings."""
    return {name: title for name, title in SIGNS.items() if table[name].notna().any()}


def group_signs(conditions: pd.DataFrame) -> dict[str, str]:
    """Columns of audit_conditions.csv that hold any number, and their headings."""
    titles = {"foreground_share": "Foreground share", "mean_confidence": "Mean confidence"}
    titles |= SIGNS | {"calibration_error": "Calibration error"}
    return {name: title for name, title in titles.items() if conditions[name].notna().any()}


def named_groups(conditions: pd.DataFrame) -> list[dict[Any, Any]]:
    """Rows of audit_conditions.csv with a name for each."""
    names = [
        ", ".join(filter(None, pair)) or "all"
        for pair in zip(conditions["condition"], conditions["batch"], strict=True)
    ]
    return conditions.assign(name=names).to_dict("records")


def order_of(unlabelled: pd.DataFrame, labelled: float) -> str:
    """Say what `most_conspicuous_first` puts first."""
    if unlabelled["doubt"].notna().any():
        return "least trustworthy"
    return "farthest from the labelled share" if math.isfinite(labelled) else "least confident"


def most_conspicuous_first(unlabelled: pd.DataFrame, labelled: float) -> pd.DataFrame:
    """Order by doubt; else by the distance from the labelled share, or by confidence."""
    if unlabelled["doubt"].notna().any():
        return unlabelled.sort_values("doubt", ascending=False, kind="stable")
    far = -(unlabelled["foreground_share"] - labelled).abs()
    order = far if math.isfinite(labelled) else unlabelled["mean_confidence"]
    return unlabelled.loc[order.sort_values(kind="stable", na_position="first").index]


def condition_means(unlabelled: pd.DataFrame) -> pd.DataFrame:
    """Mean foreground share and confidence by condition, and how many images it has."""
    named = _conditions(unlabelled)
    means = unlabelled[_AUDITED].groupby(named, sort=False).mean()
    return means.assign(images=named.value_counts()).reset_index()


def condition_shares(unlabelled: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """Foreground shares by condition, leaving out what is undefined."""
    groups = unlabelled["foreground_share"].groupby(_conditions(unlabelled), sort=False)
    return {
        str(condition): group.dropna().to_numpy(float)
        for condition, group in groups
        if group.notna().any()
    }


def _conditions(unlabelled: pd.DataFrame) -> pd.Series[str]:
    named = unlabelled["condition"]
    return named.replace("", "not given" if named.any() else "all")
