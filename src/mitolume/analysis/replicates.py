"""Treated against control on means of specimens, which are the replicates. Knows no file."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from mitolume.errors import MitolumeError, some_names
from mitolume.io.formats import natural_key
from mitolume.text import count, number, title_of

LEVEL = 0.95  # of an interval, and 1 less it of all tests together (Holm)
FEWEST = 3  # specimens of a side that a test needs
_SKEWED = 1.0  # skewness from which a positive measurement is compared on logarithms
_MOST_SPLITS = 20_000  # ways to divide the specimens that an exact test goes through
_CONTROL = re.compile(
    r"(control|ctrl|ctr|kontrolle|untreated|unbehandelt|vehicle|dmso|mock|wild.?type|wt)s?(?![a-z+-])",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A treatment against the control; all numbers are of specimen means.

    With ``log``, means are geometric, and ``low`` to ``high`` is the 95 % interval of the ``ratio``
    (treatment to control), else of the ``difference``; it holds by itself. ``p`` is of Welch's t
    test, or of the paired one (``paired``); ``p_holm`` is corrected for all treatments; ``p_exact``
    is of the permutation test, NaN where there are too many ways to try all, and ``p_least`` the
    least that one can be. With too few specimens, all of these are NaN.
    """

    column: str
    treatment: str
    control: str
    log: bool
    paired: bool
    mean: float
    mean_control: float
    difference: float
    ratio: float
    low: float
    high: float
    p: float
    p_holm: float
    p_exact: float
    p_least: float
    n_specimens: int
    n_specimens_control: int
    counted: str
    notice: str

    @property
    def verdict(self) -> str:
        """Larger, smaller, no difference shown, or why there is none."""
        if not math.isfinite(self.p):
            few = min(self.n_specimens, self.n_specimens_control) < FEWEST
            return "too few specimens" if few else "undetermined"
        if self.p_holm >= 1 - LEVEL:
            return "no difference shown"
        return "larger" if self.difference > 0 else "smaller"

    @property
    def words(self) -> str:
        """The effect with its interval and p."""
        ratio = f"{self.ratio:.3g} times the control"
        if not self.ratio > 0:  # means of 0, or below
            ratio = f"{self.mean:.3g} beside {self.mean_control:.3g} in the control"
        if not math.isfinite(self.p):
            few = self.verdict != "undetermined"
            return f"{ratio}; " + (
                f"a test needs {FEWEST} specimens on each side" if few else "specimens do not vary"
            )
        said = f"({self.low:.3g} to {self.high:.3g})"
        said = f"{ratio} {said}" if self.log else f"{self.difference:+.3g} {said}, {ratio}"
        said = said.replace("-", "\N{MINUS SIGN}") + f"; {_p(self.p)}"
        corrected = f", {_p(self.p_holm)} corrected for all treatments"
        return said + corrected * bool(self.p_holm > self.p)

    @property
    def sentence(self) -> str:
        """The verdict with all that it rests on."""
        exact = ""
        if math.isfinite(self.p_exact):
            least = f"(the least possible: {self.p_least:.2g})"
            exact = f" Permutation of specimens: {_p(self.p_exact)} {least}."
        return (
            f"{self.treatment} against {self.control}, {title_of(self.column)}: {self.verdict}; "
            f"{self.words}. {self.counted}.{exact}{self.notice}"
        )


def suits_log(values: pd.Series[float], groups: pd.Series[str]) -> tuple[bool, str]:
    """Choose whether a measurement is compared on logarithms, and say why.

    It looks at the distribution within groups alone, so that it favours none.
    """
    if str(values.name).startswith("n_"):
        return False, "counts are compared as they are"
    if (values <= 0).any():
        return False, "not all values are above 0"
    with warnings.catch_warnings():  # of a group of equal values
        warnings.simplefilter("ignore", RuntimeWarning)
        skew, of_log = (
            float(np.nanmedian([float(stats.skew(own)) for _, own in one.groupby(groups)]))
            for one in (values, values.transform(np.log))
        )
    said = f"skewness within conditions {number(skew, 1)}, of logarithms {number(of_log, 1)}"
    return skew > max(_SKEWED, abs(of_log)), said


def control_of(names: Sequence[str], control: str | None = None) -> str:
    """Return which of some conditions is the control: the one named, or the only one called so."""
    found = [n for n in names if (_CONTROL.match(n) if control is None else n == control)]
    if len(found) == 1:
        return found[0]
    asked = "name the control with --control" if control is None else f"--control {control}"
    raise MitolumeError(f"{asked}: there are {some_names(names, 9)}")


def ordered(names: Iterable[str], control: str | None = None) -> list[str]:
    """Sort conditions as they come everywhere: the control first, if one is known, then by name."""
    rest = sorted(set(names), key=natural_key)
    with suppress(MitolumeError):
        control = control_of(rest, control)
        rest.sort(key=lambda name: name != control)
    return rest


def compare_conditions(
    table: pd.DataFrame, column: str, control: str, *, by: str = "condition", log: bool = False
) -> list[Effect]:
    """Compare each condition with the control, on the means of specimens.

    Objects of a specimen are not independent, and are no replicates. Where most specimens are in
    both conditions, those are paired. docs/measurements.md has the method and its error rates.

    Parameters
    ----------
    table
        A row for each object or image: columns ``image``, ``specimen``, `by` and `column`, all
        known and finite, above 0 with ``log``.
    column, by
        The measurement, and the column of conditions.
    control
        The condition that the others are compared with.
    log
        Whether means are geometric, and compared by their ratio.
    """
    values = np.log(table[column]) if log else table[column].astype(float)
    means = values.groupby([table[by], table["specimen"]], sort=False).mean()
    found = []
    for name in ordered(table[by].unique(), control)[1:]:
        effect = _compare(means.xs(name), means.xs(control), log)
        shared = set(means.xs(name).index) & set(means.xs(control).index)
        rows = table[table["specimen"].isin(shared)] if effect.paired else table
        one, other = rows[rows[by] == name], rows[rows[by] == control]
        n = [(effect.n_specimens, count(effect.n_specimens_control, "specimen"))]
        n.append((one["image"].nunique(), count(other["image"].nunique(), "image")))
        if "label" in table:
            n.append((len(one), count(len(other), "object")))
        counted = ", ".join(f"{one} and {other}" for one, other in n)
        counted += "; the same specimens on both sides" * effect.paired
        found.append(
            replace(effect, column=column, treatment=name, control=control, counted=counted)
        )
    # Holm, Scand J Stat 6:65, 1979: the k-th smallest p of m counts m - k + 1 times.
    tested = sorted({one.treatment: one.p for one in found if math.isfinite(one.p)}.items(),
                    key=lambda of: of[1])  # fmt: skip
    holm = np.maximum.accumulate([(len(tested) - k) * p for k, (_, p) in enumerate(tested)])
    of = {name: min(1.0, float(p)) for (name, _), p in zip(tested, holm, strict=True)}
    return [replace(one, p_holm=of.get(one.treatment, math.nan)) for one in found]


def _compare(treated: pd.Series[float], control: pd.Series[float], log: bool) -> Effect:
    """Compare the specimen means of two conditions, by name of the specimen."""
    shared = [name for name in treated.index if name in control.index]
    paired = len(shared) >= FEWEST and 2 * len(shared) > max(len(treated), len(control))
    notice = ""
    if paired:
        notice = (
            " Paired by the names of specimens: others that share a name need names of their own."
        )
        if left := sorted({*treated.index, *control.index} - {*shared}):
            notice += f" Left out, as they are on one side only: {some_names(left)}."
        treated, control = treated[shared], control[shared]
    elif shared:
        notice = f" On both sides: {some_names(shared)}; too few of them to be paired."
    a, b = treated.to_numpy(float), control.to_numpy(float)
    one, other = float(a.mean()), float(b.mean())
    low = high = p = exact = least = math.nan
    spread = np.ptp(a - b) if paired else max(np.ptp(a), np.ptp(b))
    if min(len(a), len(b)) >= FEWEST and spread > 1e-12 * max(abs(one), abs(other)):
        test: Any = stats.ttest_rel(a, b) if paired else stats.ttest_ind(a, b, equal_var=False)
        low, high = map(float, test.confidence_interval(LEVEL))
        p = float(test.pvalue)
        ways = 2 ** len(a) if paired else math.comb(len(a) + len(b), len(a))
        if ways <= _MOST_SPLITS:
            permuted: Any = stats.permutation_test(
                (a, b), lambda x, y, axis: x.mean(axis) - y.mean(axis), vectorized=True,
                permutation_type="samples" if paired else "independent", n_resamples=np.inf,
            )  # fmt: skip
            exact, least = float(permuted.pvalue), 2 / ways
    if log:
        one, other, low, high = (math.exp(value) for value in (one, other, low, high))
    return Effect(
        column="", treatment="", control="", log=log, paired=paired, mean=one, mean_control=other,
        difference=one - other, low=low, high=high, p=p,
        ratio=one / other if min(one, other) > 0 else math.nan,
        p_holm=math.nan, p_exact=exact, p_least=least, n_specimens=len(a),
        n_specimens_control=len(b), counted="", notice=notice,
    )  # fmt: skip


def _p(value: float) -> str:
    said = f"p = {value:.2g}" if value >= 0.0001 else "p < 0.0001"
    return said.replace(" ", "\N{NO-BREAK SPACE}")
