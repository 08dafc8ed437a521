"""Which masks of unlabelled images to trust: tables of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mitolume.analysis.metrics import BINS, calibration_error, pooled
from mitolume.runs.committee import Committee, compare
from mitolume.runs.folder import MODELS, Run

NAMES = ["line", "image", "plane", "specimen", "condition", "batch"]
MEASURES = [
    "mean_confidence", "accepted", "accepted_foreground", "foreground_share", "share_ratio",
    "disagreement", "feature_distance",
]  # fmt: skip
GROUP = ["subset", "condition", "batch"]


def write_audit(run: Run, known: pd.DataFrame) -> None:
    """Write the audit's tables into a run folder; none where it has no unlabelled image.

    ``known`` are the rows of `calibration` of all models. audit.csv has a row for each unlabelled
    image, the least trustworthy first: ``line, image, plane, specimen, condition, batch``; of model
    1, whose masks model 2 learns from, ``mean_confidence``, ``accepted`` and
    ``accepted_foreground`` (the shares of all pixels and of the outlined ones with a confidence of
    0.9 or more), ``foreground_share`` and ``share_ratio`` (over the median of the labelled training
    images); ``disagreement`` (of model 1 and model 2, NaN without one); ``feature_distance`` (from
    the labelled training images, see `LabelledSet.distances`); ``doubt``, see `doubt`.
    """
    if not run.images("unlabelled"):
        return
    measured = _measured(run)
    conditions = by_condition(measured, known[known["model"] == MODELS[0]])
    run.write_audit(_worst_first(measured), conditions, known)


def calibration(scored: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Make the reliability table of models on labelled images.

    For each model (of which `score_model` returned ``scored``), subset, condition and batch there
    are ten rows: of the ``n_pixels`` whose probability lies between ``low`` and ``high``, with the
    mean ``probability``, the share ``foreground`` is mitochondria; both NaN where there is no
    pixel.
    """
    rows: list[dict[str, Any]] = []
    for table in scored:
        for group in table.attrs["reliability"]:
            head = {"model": table["model"].iloc[0]} | {name: group[name] for name in GROUP}
            for number, (n, foreground, total) in enumerate(zip(*group["counted"], strict=True)):
                rows.append(
                    head
                    | {
                        "low": number / BINS,
                        "high": (number + 1) / BINS,
                        "n_pixels": int(n),
                        "probability": total / n if n else np.nan,
                        "foreground": foreground / n if n else np.nan,
                    }
                )
    return pd.DataFrame(rows)


def by_condition(measured: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """Sum the audit up by condition and batch, with the labelled images to compare with.

    There is the median of each measure, and ``calibration_error`` by the rows ``known`` of
    `calibration` of one model, NaN for unlabelled images.
    """
    rows = []
    for keys, group in measured.groupby(GROUP, sort=False):
        same = known[(known[GROUP] == list(keys)).all(axis=1)]
        rows.append(
            dict(zip(GROUP, keys, strict=True))
            | {"n_images": len(group)}
            | group[MEASURES].median().to_dict()
            | {"calibration_error": calibration_error(pooled(same)) if len(same) else np.nan}
        )
    return pd.DataFrame(rows)


def doubt(measured: pd.DataFrame) -> pd.Series[float]:
    """Say how many of the other images look more trustworthy, by several signs.

    The signs are a share of foreground unlike the labelled images', low confidence,
    disagreement, and distance; the mean over those that are known: 0 (the most trustworthy by
    every sign) to 1.
    """
    ratio = measured["share_ratio"].clip(lower=1e-3)
    signs = pd.DataFrame(
        {
            "share": np.log(ratio).abs(),
            "confidence": -measured["mean_confidence"],
            "disagreement": measured["disagreement"],
            "distance": measured["feature_distance"],
        }
    )
    places = (signs.rank() - 1) / np.maximum(signs.notna().sum() - 1, 1)
    mean: pd.Series[float] = places.mean(axis=1).fillna(0.0)
    return mean


def _measured(run: Run) -> pd.DataFrame:
    """Measure unlabelled, validation and test images; a row for each, in this order."""
    shown = [image for role in ("unlabelled", "validation", "test") for image in run.images(role)]
    subsets = [image.row.role for image in shown]
    table = pd.DataFrame([image.facts for image in shown]).assign(subset=subsets)
    of_one = run.scores[run.scores["model"] == run.scores["model"].iloc[0]]
    columns = ["mean_confidence", "accepted", "accepted_foreground", "foreground_share"]
    table = table.merge(of_one[["line", "plane", *columns]], on=["line", "plane"], how="left")
    train = of_one[of_one["subset"] == "train"]
    true = (train["tp"] + train["fn"]) / train[["tp", "fp", "fn", "tn"]].sum(axis=1)
    usual = float(true.median())
    table["share_ratio"] = table["foreground_share"] / (usual if usual > 0 else np.nan)
    table["disagreement"] = Committee(run).disagreements(shown) if len(run.models) > 1 else np.nan
    known, vectors = compare(run, shown)
    table["feature_distance"] = known.distances(vectors)
    return table


def _worst_first(measured: pd.DataFrame) -> pd.DataFrame:
    own = measured[measured["subset"] == "unlabelled"]
    own = own.assign(doubt=doubt(own))[[*NAMES, *MEASURES, "doubt"]]
    return own.sort_values("doubt", ascending=False, kind="stable", ignore_index=True)
