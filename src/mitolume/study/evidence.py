"""What helped, what hurt and what remains undetermined: verdicts from the counts of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

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
from mitolume.text import count, number

HELPED, HURT = "helped", "hurt"
NO_DIFFERENCE, UNDETERMINED = "no difference shown", "undetermined"
# Of identical arms trained once, half may differ clearly: docs/evidence.md has the rates.
HINT = "a hint only"
_NAMES = {
    "iou": "foreground IoU",
    "iou_image": "mean foreground IoU of images",
    "miou": "mean IoU of foreground and background",
    "cldice": "clDice",
    "boundary_f1": "boundary F1",
    "object_recall": "object recall",
}


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A paired difference with its interval and verdict.

    ``low`` to ``high`` is the confidence interval of ``difference``; intervals computed together
    hold simultaneously at the given level. ``p`` is adjusted likewise: it is below 1 - level
    exactly where the interval excludes 0. ``df`` are the degrees of freedom of the interval.
    ``detectable`` is the true difference that a study of this size would show with 80 % power.
    These five are NaN for one specimen and one seed, or where there is nothing to compare.
    ``notice`` says which seeds and specimens were left out, if any.
    """

    difference: float
    low: float
    high: float
    df: float = np.nan
    p: float = np.nan
    detectable: float = np.nan
    n_images: int
    n_specimens: int
    n_seeds: int
    notice: str

    @property
    def verdict(self) -> str:
        """Helped, hurt, no difference shown, undetermined, or with one seed: a hint only."""
        # Differences that are equal everywhere, but for rounding, come from copies of one run.
        copies = self.high - self.low < 1e-9 < abs(self.difference)
        if not self.low <= self.high or copies:
            return UNDETERMINED
        if self.n_seeds == 1:
            return HINT
        return HELPED if self.low > 0 else HURT if self.high < 0 else NO_DIFFERENCE


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
    from each k of an arm to the next, hold simultaneously.
    """

    points: pd.DataFrame
    steps: list[Step]


def compare(
    images: pd.DataFrame, reference: str, *, metric: str = "iou", level: float = 0.95
) -> list[Comparison]:
    """Compare each arm with the reference, at each number of labelled images.

    Scores are paired by specimen and seed, both of which are random effects. docs/evidence.md
    describes the method, its sources and its error rates.

    Parameters
    ----------
    images
        Rows of images.csv of all runs, of one subset (test, where there is one) and of one model
        of each run. Each arm in the table widens all intervals.
    reference
        Name of the arm that the others are compared with.
    metric
        Name of the score, one of `mitolume.study.cells.METRICS`.
    level
        Confidence level of all intervals together (Bonferroni), between 0 and 1.

    Returns
    -------
    list of Comparison
        By arm in the order of the table, then by k.

    Raises
    ------
    MitolumeError
        The reference or the metric is not there, or the table mixes subsets or models.
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
    sentences = _Sentences(metric, _subset(images), level, found)
    return [
        Comparison(
            **vars(one),
            arm=arm,
            reference=reference,
            k=k,
            sentence=sentences.comparison(one, arm, reference, k),
        )
        for (arm, k), one in zip(keys, found, strict=True)
    ]


def label_curve(images: pd.DataFrame, *, metric: str = "iou", level: float = 0.95) -> LabelCurve:
    """Follow the score of each arm over the numbers of labelled images.

    Parameters
    ----------
    images, metric
        As for `compare`.
    level
        Confidence level, between 0 and 1, of all steps together and of each point by itself.

    Returns
    -------
    LabelCurve
        The score of each arm at each number of labelled images, and the change between them.

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
    sentences = _Sentences(metric, _subset(images), level, found)
    steps = [
        Step(
            **vars(one),
            arm=arm,
            k_from=k_from,
            k_to=k_to,
            sentence=sentences.step(one, arm, k_from, k_to),
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
    """Give each table its interval; all hold simultaneously."""
    # Only comparisons that can be decided share the error rate.
    n = sum(table.values.size > 1 for table in tables)
    alpha = (1 - level) / max(n, 1)
    found = []
    for table in tables:
        difference, low, high = _interval(table, alpha)
        precision: dict[str, float] = {}
        if table.values.size > 1:
            squares = mean_squares(table.values)
            precision = {
                "df": float(degrees_of_freedom(squares, alpha)),
                "p": min(1.0, n * float(p_value(squares))),
                "detectable": float(detectable(squares, alpha)),
            }
        found.append(
            Evidence(
                difference=difference,
                low=low,
                high=high,
                **precision,
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


def _scored(images: pd.DataFrame) -> pd.DataFrame:
    return images[images["tp"].notna()].astype({"arm": str})


def _subset(images: pd.DataFrame) -> str:
    return str(_scored(images)["subset"].iloc[0])


# Sentences -----------------------------------------------------------------------------------


class _Sentences:
    """Sentences about one metric on one subset, for intervals that hold together."""

    def __init__(self, metric: str, subset: str, level: float, found: Sequence[Evidence]) -> None:
        self.score = _NAMES.get(metric, metric)
        self.subset = subset
        n = sum(one.n_specimens * one.n_seeds > 1 for one in found)
        self.interval = f"{100 * level:g} % interval" + (
            f" of all {n} comparisons together" if n > 1 else ""
        )

    def comparison(self, found: Evidence, arm: str, reference: str, k: int) -> str:
        """Say how an arm differs from the reference at k labelled images."""
        at = f"{count(k, 'labelled image')}; {self._sizes(found)}"
        if found.verdict == UNDETERMINED:
            why = why_undetermined(found)
            return f"{arm}: undetermined against {reference} ({at}), because {why}."
        sure = f"({self.interval} {_span(found)}; {at})."
        if found.verdict == HINT:
            return (
                f"{arm}: a hint, not evidence. Trained once, it differs from {reference} by "
                f"{number(found.difference, signed=True)} in {self.score} {sure}{_limits(found)}"
            )
        if found.verdict == NO_DIFFERENCE:
            return (
                f"{arm}: no difference from {reference} shown ({_seen(found)}). "
                f"The {self.score} differs by {number(found.difference, signed=True)} "
                f"{sure}{_limits(found)}"
            )
        way = "higher" if found.verdict == HELPED else "lower"
        return (
            f"{arm} {found.verdict}: the {self.score} is {number(abs(found.difference))} {way} "
            f"than with {reference} {sure}{_limits(found)}"
        )

    def step(self, found: Evidence, arm: str, k_from: int, k_to: int) -> str:
        """Say what more labelled images gave an arm."""
        more = f"{count(k_to - k_from, 'more labelled image')} ({k_from} to {k_to})"
        if found.verdict == UNDETERMINED:
            return f"{arm}: what {more} gave is undetermined, because {why_undetermined(found)}."
        gave = f"{_span(found)} {self.score}"
        hint = ": a hint, not evidence" if found.verdict == HINT else ""
        if found.verdict == NO_DIFFERENCE:
            gave = f"no difference that could be shown ({_seen(found)}): {gave}"
        return f"{arm}: {more} gave {gave} here ({self._sizes(found)}){hint}.{_limits(found)}"

    def _sizes(self, found: Evidence) -> str:
        images = count(found.n_images, f"{self.subset} image")
        specimens = count(found.n_specimens, "specimen")
        return f"{images} of {specimens}, {count(found.n_seeds, 'seed')}"


def _span(found: Evidence) -> str:
    return f"{number(found.low, signed=True)} to {number(found.high, signed=True)}"


def _seen(found: Evidence) -> str:
    if found.detectable == 0:
        return "all scores are equal"
    if found.detectable >= 1:
        return "too few specimens or seeds to see any"
    return f"could have seen {number(found.detectable)}"


def why_undetermined(found: Evidence) -> str:
    """Say why there is no verdict, as the end of a sentence."""
    if not found.n_specimens or not found.n_seeds:
        return "no specimen and seed was scored on both sides"
    if found.n_specimens * found.n_seeds == 1:
        return "one specimen and one seed do not show how much results vary"
    return "all repeats gave the same difference, so they do not show how much results vary"


def _limits(found: Evidence) -> str:
    """Say how far the evidence reaches."""
    if found.n_specimens == 1:
        return " This holds for this specimen only."
    if found.n_seeds == 1:
        return " Models trained again may differ in another way: run 3 or more seeds."
    return ""
