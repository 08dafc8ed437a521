"""From counts of images to scores by specimen and seed, paired between arms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mitolume.analysis.metrics import Counts, iou
from mitolume.errors import MitolumeError
from mitolume.runs.results import COUNT_COLUMNS
from mitolume.study.crossed import Floats

RUN = ["arm", "k", "seed"]
_IMAGE = ["image", "plane", "specimen", "line"]


@dataclass(frozen=True)
class Paired:
    """A complete table of scores of one arm, or of differences between two."""

    values: Floats
    """(specimens, seeds) float, none missing."""
    n_images: int
    notice: str


def cell_scores(images: pd.DataFrame) -> pd.DataFrame:
    """Compute the foreground IoU of each specimen in each run, pooled over its pixels.

    ``images`` are rows of images.csv of any number of runs, of one subset and of one model of each
    run; images without a truth are left out. The table has a row for each arm, k, seed and
    specimen: ``score``, ``n_images`` and ``images``, their names and planes. A specimen whose truth
    has no mitochondria has no row.
    """
    rows = _checked(images)
    counts = list(COUNT_COLUMNS)
    grouped = rows.groupby([*RUN, "specimen"], sort=False)
    cells = grouped[counts].sum()
    cells["score"] = [iou(Counts(*row)) for row in cells[counts].to_numpy(int).tolist()]
    cells["n_images"] = grouped.size()
    cells["images"] = grouped["of"].agg(frozenset)
    cells = cells[cells["tp"] + cells["fn"] > 0]
    if cells.empty:
        raise MitolumeError("the truth of no image has mitochondria, so nothing can be compared")
    return cells[["score", "n_images", "images"]].reset_index()


def paired(first: pd.DataFrame, second: pd.DataFrame | None = None) -> Paired:
    """Arrange cells by specimen and seed: scores, or differences (first minus second).

    Parameters
    ----------
    first, second
        Cells of one arm at one k, from `cell_scores`. Only cells that both sides have, scored on
        the same images, count.

    Returns
    -------
    Paired
        A complete table, possibly empty: seeds and specimens with gaps are left out, those with the
        largest share of gaps first. The notice names them.
    """
    cells = first.set_index(["specimen", "seed"])
    scores = cells["score"]
    if second is not None:
        other = second.set_index(["specimen", "seed"]).add_suffix("_other")
        both = cells.join(other, how="outer")
        same = both["images"] == both["images_other"]
        scores = (both["score"] - both["score_other"]).where(same)
    values, notice = _complete(scores.unstack("seed"))
    numbers = cells["n_images"].unstack("seed").reindex(values.index)[list(values.columns)]
    n_images = int(numbers.sum().max()) if values.size else 0
    return Paired(values.to_numpy(float), n_images, notice)


def _complete(values: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Leave out the row or column with the largest share of gaps until nothing is missing."""
    dropped: dict[str, list[str]] = {"seed": [], "specimen": []}
    while values.isna().to_numpy().any():
        by_seed, by_specimen = values.isna().mean(axis=0), values.isna().mean(axis=1)
        if by_seed.max() >= by_specimen.max():
            dropped["seed"].append(str(by_seed.idxmax()))
            values = values.drop(columns=by_seed.idxmax())
        else:
            dropped["specimen"].append(str(by_specimen.idxmax()))
            values = values.drop(index=by_specimen.idxmax())
    said = [
        f"{noun}{'s' * (len(names) > 1)} {', '.join(names)}"
        for noun, names in dropped.items()
        if names
    ]
    reason = "not scored everywhere on the same images"
    return values, f"left out: {' and '.join(said)} ({reason})" if said else ""


def _checked(images: pd.DataFrame) -> pd.DataFrame:
    """Rows with a truth, each image once in a run; names as text."""
    needed = ["model", "subset", "image", "plane", "specimen", *RUN, *COUNT_COLUMNS]
    missing = [name for name in needed if name not in images]
    if missing:
        raise MitolumeError(f"the table of image scores lacks the columns {', '.join(missing)}")
    rows = images[images["tp"].notna()]
    if rows.empty:
        raise MitolumeError("no image of the table has a truth, so nothing can be compared")
    types: Any = dict.fromkeys(("specimen", "arm", "subset"), str)
    types |= dict.fromkeys(("k", "seed", *COUNT_COLUMNS), np.int64)
    rows = rows.fillna({"specimen": ""}).astype(types)
    if len(subsets := rows["subset"].unique()) > 1:
        raise MitolumeError(
            f"scores of several subsets are mixed ({', '.join(subsets)}); compare those of one"
        )
    keys = [*RUN, *(name for name in _IMAGE if name in rows)]
    twice = rows[rows.duplicated(keys)]
    mixed = rows.groupby(RUN)["model"].transform("nunique") > 1
    for wrong, what in ((rows[mixed], "several models"), (twice, "one image twice")):
        if len(wrong):
            row = wrong.iloc[0]
            raise MitolumeError(
                f"the run of arm {row['arm']} with {row['k']} labelled images and seed "
                f"{row['seed']} has scores of {what} ({row['image']}, plane {row['plane']}, "
                f"{row['model']}); give those of one model, once"
            )
    rows["of"] = pd.MultiIndex.from_frame(rows[["image", "plane"]]).to_list()
    return rows


def image_count(images: pd.DataFrame) -> int:
    """Count the images of the run that has most of them.

    The line of an image in fields.csv differs between runs: where a stack is labelled in part,
    each draw divides its rows in another way.
    """
    once = images[["run", "line", "plane"]].drop_duplicates()
    return int(once.groupby("run").size().max()) if len(once) else 0
