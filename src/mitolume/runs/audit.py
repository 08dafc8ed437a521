"""Which masks of unlabelled images to trust: tables of a run."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mitolume.runs.committee import Committee, compare
from mitolume.runs.folder import Run

NAMES = ["line", "image", "plane", "specimen", "condition", "batch"]
MEASURES = ["foreground_share", "share_ratio", "disagreement", "feature_distance"]
GROUP = ["subset", "condition", "batch"]


def write_audit(run: Run) -> None:
    """Write the audit's tables into a run folder; none where it has no unlabelled image.

    audit.csv has a row for each unlabelled image, the least trustworthy first: ``line, image,
    plane, specimen, condition, batch``; of model 1, whose masks model 2 learns from,
    ``foreground_share`` and ``share_ratio`` (over the median of the labelled training images);
    ``disagreement`` (of model 1 and model 2, NaN without one), by which they are ordered;
    ``feature_distance`` (from the labelled training images, see `LabelledSet.distances`),
    by which they are where there is one model.
    """
    if not run.images("unlabelled"):
        return
    measured = _measured(run)
    own = measured[measured["subset"] == "unlabelled"][[*NAMES, *MEASURES]]
    # docs/audit.md has what each of them foretold.
    signs = ["disagreement", "feature_distance"]
    ordered = own.sort_values(signs, ascending=False, kind="stable", ignore_index=True)
    run.write_audit(ordered, by_condition(measured))


def by_condition(measured: pd.DataFrame) -> pd.DataFrame:
    """Return the median of each measure by condition and batch, labelled images beside."""
    groups = measured.groupby(GROUP, sort=False)
    table = groups[MEASURES].median()
    table.insert(0, "n_images", groups.size())
    return table.reset_index()


def _measured(run: Run) -> pd.DataFrame:
    """Measure unlabelled, validation and test images; a row for each, in this order."""
    shown = [image for role in ("unlabelled", "validation", "test") for image in run.images(role)]
    subsets = [image.row.role for image in shown]
    table = pd.DataFrame([image.facts for image in shown]).assign(subset=subsets)
    of_one = run.scores[run.scores["model"] == run.scores["model"].iloc[0]]
    shares = of_one[["line", "plane", "foreground_share"]]
    table = table.merge(shares, on=["line", "plane"], how="left")
    train = of_one[of_one["subset"] == "train"]
    true = (train["tp"] + train["fn"]) / train[["tp", "fp", "fn", "tn"]].sum(axis=1)
    usual = float(true.median())
    table["share_ratio"] = table["foreground_share"] / (usual if usual > 0 else np.nan)
    table["disagreement"] = Committee(run).disagreements(shown) if len(run.models) > 1 else np.nan
    known, vectors = compare(run, shown)
    table["feature_distance"] = known.distances(vectors)
    return table
