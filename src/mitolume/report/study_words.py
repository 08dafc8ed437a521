"""The head of a study's report: each verdict in a line. Knows no table, no picture and no page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from mitolume.study.evidence import Comparison, LabelCurve
from mitolume.study.verdicts import HELPED, HINT, HURT, NO_DIFFERENCE, UNTOLD
from mitolume.text import count, number

_ORDER = (HELPED, HURT, NO_DIFFERENCE, HINT, UNTOLD)
_ONE_SEED = "One seed: a hint, not evidence; run 3 or more seeds. "


@dataclass(frozen=True)
class Line:
    """What is said of one arm at the head of the page."""

    verdict: str
    arm: str
    words: str


@dataclass(frozen=True)
class Head:
    """Verdicts at the largest budget, in words; what smaller budgets and more labels gave."""

    lead: str
    lines: Sequence[Line] = ()
    also: Sequence[str] = ()

    @property
    def text(self) -> str:
        """The head as lines for a terminal."""
        width = max((len(line.verdict) for line in self.lines), default=0)
        told = [f"  {one.verdict:<{width}}  {one.arm}: {one.words}" for one in self.lines]
        return "\n".join([self.lead, *told, *self.also])


def head_of(comparisons: Sequence[Comparison], curve: LabelCurve, reference: str, on: str) -> Head:
    """Put a study into words, the most labelled images first.

    Parameters
    ----------
    comparisons, curve
        The evidence.
    reference
        The arm that the others are compared with.
    on
        Which images were scored, in words.

    Returns
    -------
    Head
        What helped comes first, then what hurt, then the rest.
    """
    if not comparisons:
        return Head(f"Only {reference} has finished runs: there is nothing to compare yet.")
    budgets = sorted({one.k for one in comparisons}, reverse=True)
    largest = sorted((one for one in comparisons if one.k == budgets[0]), key=_first)
    also = [_smaller(k, [one for one in comparisons if one.k == k]) for k in budgets[1:]]
    also += [step.sentence for step in curve.steps if step.arm == reference][-1:]
    at = f"with {count(budgets[0], 'labelled image')}"
    n_seeds = max(one.n_seeds for one in largest)
    score = _score(curve.points, reference, budgets[0])
    return Head(
        f"{_ONE_SEED if n_seeds == 1 else ''}Compared with {reference}{score}, {at}, on {on}, "
        f"{count(n_seeds, 'seed')}:",
        [Line(one.verdict, one.arm, _words(one)) for one in largest],
        also,
    )


def _first(one: Comparison) -> tuple[int, float]:
    size = abs(one.difference)
    return _ORDER.index(one.verdict), -size if math.isfinite(size) else 0.0


def _score(points: pd.DataFrame, arm: str, k: int) -> str:
    own = points[(points["arm"] == arm) & (points["k"] == k)]["score"]
    known = len(own) and math.isfinite(own.iloc[0])
    return f" (foreground IoU {number(own.iloc[0])})" if known else ""


def _words(one: Comparison) -> str:
    """Say one verdict in a line; the whole sentence is that of the comparison."""
    if one.verdict == UNTOLD:
        if not one.n_specimens or not one.n_seeds:
            return "nothing was scored on both sides"
        if one.n_specimens * one.n_seeds == 1:
            return (
                f"IoU {number(one.difference, signed=True)}, but one specimen and one seed don't "
                "show what chance does"
            )
        return "all repeats gave the same difference, so they don't show what chance does"
    span = f"{number(one.low, signed=True)} to {number(one.high, signed=True)}"
    if one.verdict == HINT:
        return f"IoU {number(one.difference, signed=True)} ({span}), trained once"
    if one.verdict == NO_DIFFERENCE:
        if one.detectable == 0:
            return "all scores are equal"
        seen = (
            f"one of {number(one.detectable)} would be seen in four of five such studies"
            if one.detectable < 1
            else "there are too few specimens or seeds to see any difference"
        )
        return f"IoU {number(one.difference, signed=True)} ({span}); {seen}"
    way = "higher" if one.verdict == HELPED else "lower"
    limit = "; for this specimen only" if one.n_specimens == 1 else ""
    return f"IoU {number(abs(one.difference))} {way} ({span}){limit}"


def _smaller(k: int, comparisons: Sequence[Comparison]) -> str:
    """Say in one sentence what was found at a smaller budget."""
    parts = []
    for verdict in _ORDER:
        own = [one for one in comparisons if one.verdict == verdict]
        if not own:
            continue
        arms = ", ".join(f"{o.arm} ({number(o.difference, signed=True)})" for o in own)
        if verdict in (HELPED, HURT):
            parts.append(f"{arms} {verdict}")
        elif verdict == HINT:
            parts.append(f"{verdict} for {arms}")
        else:
            names = ", ".join(one.arm for one in own) if len(own) < 4 else count(len(own), "arm")
            parts.append(f"{verdict} for {names}" if verdict == NO_DIFFERENCE
                         else f"{names} {verdict}")  # fmt: skip
    return f"With {count(k, 'labelled image')}: {'; '.join(parts)}."
