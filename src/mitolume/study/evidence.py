"""What helped, what hurt, and what can't be told, from the counts of images. Reads no files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from mitolume.errors import MitolumeError
from mitolume.study.cells import Paired, cell_scores, paired
from mitolume.study.crossed import (
    degrees_of_freedom,
    detectable,
    half_width,
    mean_squares,
    p_value,
)
from mitolume.study.verdicts import Evidence, Words

Arm = tuple[str, int]  # its name and k


@dataclass(frozen=True, kw_only=True)
class Comparison(Evidence):
    """An arm less the reference, at ``k`` labelled images."""

    arm: str
    reference: str
    k: int
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Step(Evidence):
    """An arm with ``k_to`` labelled images less the same arm with ``k_from``."""

    arm: str
    k_from: int
    k_to: int
    sentence: str


@dataclass(frozen=True)
class LabelCurve:
    """Scores against the number of labelled images.

    ``points`` has a row for each arm and k: ``arm, method, network, k, score, low, high,
    n_images, n_specimens, n_seeds, notice``. Each interval holds by itself; those of the steps,
    from each k of an arm to the next, hold all at once.
    """

    points: pd.DataFrame
    steps: list[Step]


def compare(
    images: pd.DataFrame, reference: str, *, metric: str = "iou", level: float = 0.95
) -> list[Comparison]:
    """Compare each arm with the reference, at each number of labelled images.

    Scores are paired by specimen and seed, and both count as random. The method, its sources and
    how often it errs: docs/evidence.md.

    Parameters
    ----------
    images
        Rows of images.csv of all runs: of one subset (test, where there is one) and one model of
        each run. Only the arms to be compared: each of them widens all intervals.
    reference
        The arm that the others are compared with.
    metric
        One of `mitolume.study.cells.METRICS`.
    level
        Of all intervals together (Bonferroni).

    Returns
    -------
    list of Comparison
        By arm in the order of the table, then by k.

    Raises
    ------
    MitolumeError
        The reference or the metric is not there, or rows are mixed that don't belong together.
    """
    arms = _arms(cell_scores(images, metric))
    names = list(dict.fromkeys(name for name, _ in arms))
    if reference not in names:
        raise MitolumeError(f"no arm {reference!r} to compare with; there are {', '.join(names)}")
    keys = [key for key in arms if key[0] != reference]
    nothing = next(iter(arms.values())).iloc[:0]
    found = _judge(
        [paired(arms[key], arms.get((reference, key[1]), nothing)) for key in keys], level
    )
    words = Words(metric, _subset(images), level, _n_told(found))
    return [
        Comparison(
            **asdict(one),
            arm=arm,
            reference=reference,
            k=k,
            sentence=words.comparison(one, arm, reference, k),
        )
        for (arm, k), one in zip(keys, found, strict=True)
    ]


def label_curve(images: pd.DataFrame, *, metric: str = "iou", level: float = 0.95) -> LabelCurve:
    """Follow each arm's score over the numbers of labelled images.

    Parameters
    ----------
    images, metric
        As for `compare`.
    level
        Of all steps together, and of each point by itself.

    Returns
    -------
    LabelCurve

    Raises
    ------
    MitolumeError
        As for `compare`.
    """
    arms = _arms(cell_scores(images, metric))
    rows = _scored(images).drop_duplicates("arm").set_index("arm")
    points = []
    for (arm, k), cells in arms.items():
        table = paired(cells)
        score, low, high = _interval(table, 1 - level)
        points.append(
            {"arm": arm, "method": rows.at[arm, "method"], "network": rows.at[arm, "network"]}
            | {"k": k, "score": score, "low": np.maximum(low, 0.0), "high": np.minimum(high, 1.0)}
            | {"n_images": table.n_images, "n_specimens": table.n_specimens}
            | {"n_seeds": table.n_seeds, "notice": table.notice}
        )
    climbs = [(a, b) for a, b in pairwise(arms) if a[0] == b[0]]
    found = _judge([paired(arms[b], arms[a]) for a, b in climbs], level)
    words = Words(metric, _subset(images), level, _n_told(found))
    steps = [
        Step(
            **asdict(one),
            arm=arm,
            k_from=k_from,
            k_to=k_to,
            sentence=words.step(one, arm, k_from, k_to),
        )
        for ((arm, k_from), (_, k_to)), one in zip(climbs, found, strict=True)
    ]
    return LabelCurve(pd.DataFrame(points), steps)


def _arms(cells: pd.DataFrame) -> dict[Arm, pd.DataFrame]:
    """Cells by arm, in the order of the table, and k, ascending."""
    return {
        (str(name), int(k)): of_arm[of_arm["k"] == k]
        for name, of_arm in cells.groupby("arm", sort=False)
        for k in sorted(of_arm["k"].unique())
    }


def _judge(tables: Sequence[Paired], level: float) -> list[Evidence]:
    """Give each table its interval; all hold at once."""
    # Only what can be told shares the rate of error.
    n = sum(table.values.size > 1 for table in tables)
    alpha = (1 - level) / max(n, 1)
    found = []
    for table in tables:
        difference, low, high = _interval(table, alpha)
        unsure: dict[str, Any] = dict.fromkeys(("df", "p", "detectable"), float("nan"))
        if table.values.size > 1:
            squares = mean_squares(table.values)
            unsure = {
                "df": float(degrees_of_freedom(squares, alpha)),
                "p": min(1.0, n * float(p_value(squares))),
                "detectable": float(detectable(squares, alpha)),
            }
        found.append(
            Evidence(
                difference=difference,
                low=low,
                high=high,
                **unsure,
                n_images=table.n_images,
                n_specimens=table.n_specimens,
                n_seeds=table.n_seeds,
                notice=table.notice,
            )
        )
    return found


def _interval(table: Paired, alpha: float) -> tuple[float, float, float]:
    if not table.values.size:
        return float("nan"), float("nan"), float("nan")
    squares = mean_squares(table.values)
    mean, half = float(squares.mean), float(half_width(squares, alpha))
    return mean, mean - half, mean + half


def _n_told(found: Sequence[Evidence]) -> int:
    return sum(one.n_specimens * one.n_seeds > 1 for one in found)


def _scored(images: pd.DataFrame) -> pd.DataFrame:
    return images[images["tp"].notna()].astype({"arm": str})


def _subset(images: pd.DataFrame) -> str:
    return str(_scored(images)["subset"].iloc[0])
