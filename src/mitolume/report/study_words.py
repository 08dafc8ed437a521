"""The sentences of a study's page: verdicts, shifts between conditions, pseudo-labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from mitolume.preprocess.fingerprint import UNLIKE
from mitolume.report.study_tables import GroupScores, pseudo_labelled
from mitolume.runs.results import labelled_share
from mitolume.study.evidence import (
    HELPED,
    HINT,
    HURT,
    NO_DIFFERENCE,
    UNDETERMINED,
    Comparison,
    LabelCurve,
    why_undetermined,
)
from mitolume.text import count, number, percent

_ORDER = (HELPED, HURT, NO_DIFFERENCE, HINT, UNDETERMINED)
# Two conditions are warned about if areas in them are distorted more differently than this.
_APART = 0.1
_ONE_SEED = "One seed: a hint, not evidence; run 3 or more seeds. "


@dataclass(frozen=True)
class Head:
    """The verdicts at the head of the page."""

    lead: str
    lines: Sequence[tuple[str, str, str]] = ()
    """Verdict, arm and explanation, at the largest number of labelled images."""
    also: Sequence[str] = ()
    """What fewer labelled images and more labelled images gave."""

    @property
    def text(self) -> str:
        """The head as lines for the terminal."""
        width = max((len(verdict) for verdict, _, _ in self.lines), default=0)
        lines = [f"  {verdict:<{width}}  {arm}: {words}" for verdict, arm, words in self.lines]
        return "\n".join([self.lead, *lines, *self.also])


def head_of(comparisons: Sequence[Comparison], curve: LabelCurve, reference: str, on: str) -> Head:
    """Put the verdicts of a study into words.

    Parameters
    ----------
    comparisons, curve
        The comparisons with the reference, and the scores of all arms.
    reference
        Name of the arm that the others are compared with.
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
        [(one.verdict, one.arm, _words(one)) for one in largest],
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
    """Explain one verdict in a line."""
    if one.verdict == UNDETERMINED:
        return why_undetermined(one)
    span = f"{number(one.low, signed=True)} to {number(one.high, signed=True)}"
    if one.verdict == HINT:
        return f"IoU {number(one.difference, signed=True)} ({span}), trained once"
    if one.verdict == NO_DIFFERENCE:
        if one.detectable == 0:
            return "all scores are equal"
        seen = (
            f"a difference of {number(one.detectable)} would be seen in four of five such studies"
            if one.detectable < 1
            else "there are too few specimens or seeds to see any difference"
        )
        return f"IoU {number(one.difference, signed=True)} ({span}); {seen}"
    way = "higher" if one.verdict == HELPED else "lower"
    limit = "; for this specimen only" if one.n_specimens == 1 else ""
    return f"IoU {number(abs(one.difference))} {way} ({span}){limit}"


def _smaller(k: int, comparisons: Sequence[Comparison]) -> str:
    """Summarise a smaller number of labelled images in one sentence."""
    parts = []
    for verdict in _ORDER:
        own = [one for one in comparisons if one.verdict == verdict]
        if not own:
            continue
        names = ", ".join(one.arm for one in own) if len(own) < 4 else count(len(own), "arm")
        if verdict in (HELPED, HURT, HINT):
            names = ", ".join(f"{one.arm} ({number(one.difference, signed=True)})" for one in own)
        parts.append(
            f"{names} {verdict}" if verdict in (HELPED, HURT) else f"{verdict} for {names}"
        )
    return f"With {count(k, 'labelled image')}: {'; '.join(parts)}."


# Conditions ----------------------------------------------------------------------------------


def shift_sentences(
    groups: Sequence[GroupScores], arm: str, unscored: Mapping[str, int]
) -> list[str]:
    """Say where a model is worse, and how that affects a comparison of conditions.

    Parameters
    ----------
    groups
        Scores by condition.
    arm
        Name of the arm that the sentences are about.
    unscored
        Conditions without any labelled image to score on, with their numbers of images.

    Returns
    -------
    list of str
        A warning about the two conditions whose areas are distorted most differently, or that there
        are none; images unlike the training images; conditions without scores.
    """
    own = [g for g in groups if g.arm == arm and math.isfinite(g.area_bias)]
    blind = [g for g in own if g.area_bias == -1]
    sentences = [
        f"{arm} marks nothing in {_named(g)}, although there are mitochondria." for g in blind
    ]
    # What a true ratio of 1 between two conditions would be measured as.
    pairs = [
        (one, other, (1 + other.area_bias) / (1 + one.area_bias))
        for one, other in combinations([g for g in own if g not in blind], 2)
    ]
    apart = [pair for pair in pairs if abs(pair[2] - 1) > _APART]
    apart.sort(key=lambda pair: -abs(math.log(pair[2])))
    if apart:
        sentences.append(_warning(*apart[0], arm))
        if len(apart) > 1:
            sentences.append(
                f"{count(len(apart), 'pair')} of conditions differ by more than "
                f"{percent(_APART, 0)} in this way; the table lists all conditions."
            )
    elif len(own) > 1 and not blind:
        worst = max(own, key=lambda g: abs(g.area_bias))
        sentences.append(
            f"The areas that {arm} measures have similar errors in all scored conditions; the "
            f"largest is {percent(worst.area_bias, 0)}, in {_named(worst)}."
        )
    far = [g for g in groups if g.arm == arm and g.distance >= UNLIKE]
    if far:
        names = ", ".join(f"{_named(g)} ({number(g.distance, 1)})" for g in far)
        sentences.append(
            f"Images of {names} do not look like those that {arm} was trained on: they are more "
            f"than {UNLIKE:g} standard deviations away, which is rare for images of the same kind. "
            "Check their masks before you trust them."
        )
    if unscored:
        names = ", ".join(f"{name or 'no condition'} ({n})" for name, n in unscored.items())
        sentences.append(
            f"No labelled image was scored in these conditions: {names}. The quality of the masks "
            "and the error of measured areas are unknown there; label a few images."
        )
    return sentences


def _warning(one: GroupScores, other: GroupScores, ratio: float, arm: str) -> str:
    """Warn of a comparison; ``ratio`` is what equal areas would be measured as."""
    few = [_named(g) for g in (one, other) if g.n_specimens == 1]
    return (
        f"Before you compare {_named(one)} with {_named(other)}: {arm} marks "
        f"{_more(one.area_bias)} mitochondrial area than there is in {_named(one)} and "
        f"{_more(other.area_bias)} in {_named(other)}. Equal areas would be measured "
        f"{number(ratio, 2)} times as large in {_named(other)} "
        f"({count(one.n_images, 'image')} and {count(other.n_images, 'image')}"
        + (f"; {' and '.join(few)} from one specimen only" if few else "")
        + ")."
    )


def _named(group: GroupScores) -> str:
    return group.name or "images without a condition"


def _more(bias: float) -> str:
    return f"{percent(abs(bias), 0)} {'more' if bias >= 0 else 'less'}"


def pseudo_label_sentence(images: pd.DataFrame) -> str:
    """Say what model 2 learned from, given the rows of study_images.csv."""
    if pseudo_labelled(images).empty:
        return "No arm learned from unlabelled images."
    return (
        "These are the masks that model 1 made of the unlabelled images, and that model 2 learned "
        f"from. In the labelled training images {percent(labelled_share(images))} of the area is "
        "mitochondria; if a share is far from that, the cells differ or model 1 fails."
    )
