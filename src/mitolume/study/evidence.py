"""What helped, what hurt and what remains undetermined: verdicts from the counts of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from mitolume.errors import MitolumeError
from mitolume.runs.results import judging_subset
from mitolume.study.cells import Paired, cell_scores, paired
from mitolume.study.crossed import detectable, half_width, interval, mean_squares
from mitolume.text import count, number

HELPED, HURT, EQUAL = "helped", "hurt", "equal"
NO_DIFFERENCE, UNDETERMINED = "no difference shown", "undetermined"
# Of identical arms trained once, half may differ clearly: docs/evidence.md has the rates.
HINT = "a hint only"
VERDICTS = (HELPED, HURT, EQUAL, NO_DIFFERENCE, HINT, UNDETERMINED)
LEVEL = 0.95  # of confidence, of all intervals of a study together
MARGIN = 0.02  # a difference in IoU that is worth seeing
Arm = tuple[str, int]  # its name and k


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The paired difference of two arms, or of one at two numbers of labelled images.

    ``difference`` is the score of ``arm`` with ``k`` labelled images less that of ``reference``
    with ``k_reference``. ``low`` to ``high`` is its confidence interval; those of all
    ``n_comparisons`` hold simultaneously at ``LEVEL``. ``detectable`` is the true difference that a
    study of this size would show with 80 % power; ``within`` is the least margin within which two
    one-sided tests show both to be equal, and ``margin`` the one that counts as equal. They are NaN
    for one specimen and one seed, or where there is nothing to compare, but for the margin.
    ``notice`` says which seeds and specimens were left out, if any.
    """

    arm: str
    k: int
    reference: str
    k_reference: int
    subset: str
    difference: float
    low: float
    high: float
    detectable: float
    within: float
    margin: float
    n_images: int
    n_specimens: int
    n_seeds: int
    n_comparisons: int
    notice: str

    @property
    def verdict(self) -> str:
        """Helped, hurt, equal, no difference shown, undetermined, or with one seed: a hint only."""
        # Differences that are equal everywhere, but for rounding, come from copies of one run.
        copies = self.high - self.low < 1e-9 < abs(self.difference)
        if not self.low <= self.high or copies:
            return UNDETERMINED
        if self.n_seeds == 1:
            return HINT
        if self.low > 0 or self.high < 0:
            return HELPED if self.low > 0 else HURT
        return EQUAL if self._is_equal else NO_DIFFERENCE

    @property
    def _is_equal(self) -> bool:
        """Whether both are equal within the margin; where nothing varies, they are one run."""
        return 0 < self.within < self.margin

    @property
    def words(self) -> str:
        """The difference with its interval, or why there is no verdict."""
        if self.verdict == UNDETERMINED:
            return self._why_undetermined
        low, high = (number(value, signed=True) for value in (self.low, self.high))
        said = f"foreground IoU {number(self.difference, signed=True)} ({low} to {high})"
        if self.verdict == HINT:
            return f"{said}, trained once"
        if self._is_equal:
            said += f"; less than ±{number(self.within)} apart, so equal within ±{self.margin:g}"
        elif self.verdict == NO_DIFFERENCE:
            said += f"; {self._detectable_words}"
        return said + ("; for this specimen only" if self.n_specimens == 1 else "")

    @property
    def sentence(self) -> str:
        """The verdict with all that it rests on."""
        between = f"{self.arm} against {self.reference}, {count(self.k, 'labelled image')}"
        if self.arm == self.reference:
            between = f"{self.arm}, {self.k} against {count(self.k_reference, 'labelled image')}"
        images = count(self.n_images, f"{self.subset} image")
        on = f"{images} of {count(self.n_specimens, 'specimen')}, {count(self.n_seeds, 'seed')}"
        interval = f"{100 * LEVEL:g} % interval"
        if self.n_comparisons > 1:
            interval += f" of all {self.n_comparisons} comparisons together"
        return f"{between}: {self.verdict}; {self.words}. {interval}; {on}."

    @property
    def _detectable_words(self) -> str:
        if self.detectable == 0:
            return "all scores are equal"
        if self.detectable >= 1:
            return "too few specimens or seeds to see any difference"
        return f"could have seen {number(self.detectable)}"

    @property
    def _why_undetermined(self) -> str:
        if not self.n_specimens or not self.n_seeds:
            return "no specimen and seed was scored on both sides"
        if self.n_specimens * self.n_seeds == 1:
            return "one specimen and one seed do not show how much results vary"
        return "all repeats gave the same difference, so they do not show how much results vary"


@dataclass(frozen=True)
class LabelCurve:
    """Scores against the number of labelled images.

    ``points`` has a row for each arm and k: ``arm, k, score, low, high, n_images, n_specimens,
    n_seeds, notice``. Each interval holds by itself; those of the steps, from each k of an arm to
    the next, hold simultaneously.
    """

    points: pd.DataFrame
    steps: list[Comparison]


def scored_rows(images: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the scored rows of study_images.csv that stand for their arms, and their subset.

    The test images where there are any, else validation images; no rows where neither is scored.
    """
    scored = images[images["stands"] & images["tp"].notna() & (images["subset"] != "train")]
    subset = judging_subset(scored)
    return scored[scored["subset"] == subset], subset


def compare(images: pd.DataFrame, reference: str, margin: float = MARGIN) -> list[Comparison]:
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
    margin
        Differences in IoU below it are as good as none; 0: every difference counts.

    Returns
    -------
    list of Comparison
        By arm in the order of the table, then by k.

    Raises
    ------
    MitolumeError
        The reference is not there, or the table mixes subsets or models.
    """
    arms = arms_of(images)
    names = list(dict.fromkeys(name for name, _ in arms))
    if reference not in names:
        raise MitolumeError(f"no arm {reference!r} to compare with; there are {', '.join(names)}")
    pairs = [((arm, k), (reference, k)) for arm, k in arms if arm != reference]
    return _judge(arms, pairs, _subset(images), margin)


def label_curve(images: pd.DataFrame, margin: float = MARGIN) -> LabelCurve:
    """Follow the score of each arm over the numbers of labelled images, see `compare`."""
    arms = arms_of(images)
    points = []
    for (arm, k), cells in arms.items():
        table = paired(cells)
        score, low, high = interval(table.values, 1 - LEVEL)
        points.append(
            {"arm": arm, "k": k, "score": score}
            | {"low": np.maximum(low, 0.0), "high": np.minimum(high, 1.0)}
            | _sizes(table)
        )
    pairs = [(more, less) for less, more in pairwise(arms) if less[0] == more[0]]
    return LabelCurve(pd.DataFrame(points), _judge(arms, pairs, _subset(images), margin))


def arms_of(images: pd.DataFrame) -> dict[Arm, pd.DataFrame]:
    """Cells by arm, in the order of the table, and k, ascending."""
    return {
        (str(name), int(k)): of_arm[of_arm["k"] == k]
        for name, of_arm in cell_scores(images).groupby("arm", sort=False)
        for k in sorted(of_arm["k"].unique())
    }


def _subset(images: pd.DataFrame) -> str:
    return str(images.loc[images["tp"].notna(), "subset"].iloc[0])


def _judge(
    arms: dict[Arm, pd.DataFrame], pairs: Sequence[tuple[Arm, Arm]], subset: str, margin: float
) -> list[Comparison]:
    """Compare the first arm of each pair with the second; all intervals hold simultaneously."""
    nothing = next(iter(arms.values())).iloc[:0]
    tables = [paired(arms[one], arms.get(other, nothing)) for one, other in pairs]
    # Bonferroni; only comparisons that can be decided share the error rate.
    n = sum(table.values.size > 1 for table in tables)
    alpha = (1 - LEVEL) / max(n, 1)
    found = []
    for ((arm, k), (reference, k_reference)), table in zip(pairs, tables, strict=True):
        difference, low, high = interval(table.values, alpha)
        several = table.values.size > 1
        seen = within = np.nan
        if several:
            squares = mean_squares(table.values)
            seen = float(detectable(squares, alpha))
            within = abs(difference) + float(half_width(squares, 2 * alpha))  # each one-sided
        found.append(
            Comparison(
                arm=arm, k=k, reference=reference, k_reference=k_reference, subset=subset,
                difference=difference, low=low, high=high, detectable=seen, within=within,
                margin=margin, **_sizes(table), n_comparisons=n,
            )
        )  # fmt: skip
    return found


def _sizes(table: Paired) -> dict[str, Any]:
    n_specimens, n_seeds = table.values.shape
    sizes = {"n_images": table.n_images, "n_specimens": n_specimens, "n_seeds": n_seeds}
    return sizes | {"notice": table.notice}
