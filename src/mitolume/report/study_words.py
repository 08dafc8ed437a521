"""The sentences of a study's page: verdicts, shifts between conditions."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pandas as pd

from mitolume.errors import Note
from mitolume.preprocess.fingerprint import UNLIKE
from mitolume.study.evidence import VERDICTS, Comparison, LabelCurve
from mitolume.text import count, number, percent

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
    """Put the verdicts of a study into words: what helped first, then what hurt, then the rest.

    ``on`` says which images were scored.
    """
    if not comparisons:
        return Head(f"Only {reference} has finished runs: there is nothing to compare yet.")
    most, *fewer = sorted({one.k for one in comparisons}, reverse=True)
    order = sorted(comparisons, key=lambda one: VERDICTS.index(one.verdict))
    largest = [one for one in order if one.k == most]
    also = []
    for k in fewer:
        verdicts = "; ".join(
            f"{one.arm} {one.verdict} ({number(one.difference, signed=True)})"
            for one in order
            if one.k == k
        )
        also.append(f"With {count(k, 'labelled image')}: {verdicts}.")
    also += [step.sentence for step in curve.steps if step.arm == reference][-1:]
    scores = curve.points.set_index(["arm", "k"])["score"]
    score = f" (foreground IoU {number(scores.get((reference, most), math.nan))})"
    n_seeds = max(one.n_seeds for one in largest)
    lead = (
        f"{_ONE_SEED if n_seeds == 1 else ''}Compared with {reference}{score}, with "
        f"{count(most, 'labelled image')}, on {on}, {count(n_seeds, 'seed')}:"
    )
    return Head(lead, [(one.verdict, one.arm, one.words) for one in largest], also)


def shift_sentences(groups: pd.DataFrame, arm: str, unscored: Mapping[str, int]) -> list[str]:
    """Say where an arm's model is worse, and how that affects a comparison of conditions.

    ``groups`` are scores by condition, see `mitolume.report.study_tables.by_group`; ``unscored``
    are the conditions without any labelled image to score on, with their numbers of images. The
    warnings are about the two conditions whose areas are distorted most differently, about images
    unlike the training images, and about conditions without scores.
    """
    own: list[Any] = list(groups[groups["arm"] == arm].itertuples())
    sentences = [
        f"{arm} marks nothing in {_named(g)}, although there are mitochondria."
        for g in own
        if g.area_bias == -1
    ]
    # What a true ratio of 1 between two conditions would be measured as.
    ratios = [
        ((1 + other.area_bias) / (1 + one.area_bias), one, other)
        for one, other in combinations([g for g in own if g.area_bias > -1], 2)
    ]
    if ratios:
        ratio, one, other = max(ratios, key=lambda pair: abs(math.log(pair[0])))
        if abs(ratio - 1) > _APART:
            sentences.append(
                f"Before you compare {_named(one)} with {_named(other)}: {arm} marks {_more(one)} "
                f"mitochondrial area than there is in {_named(one)} and {_more(other)} in "
                f"{_named(other)}. Equal areas would be measured {number(ratio, 2)} times as large "
                f"in {_named(other)}."
            )
        else:
            sentences.append(
                f"The areas that {arm} measures have similar errors in all scored conditions."
            )
    if far := [g for g in own if g.distance >= UNLIKE]:
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


def notes_of_runs(runs: Sequence[Sequence[Note]]) -> list[Note]:
    """Return each note of a study's runs once, and in how many it is.

    Examples
    --------
    >>> notes_of_runs([[Note("a"), Note("3 steps")], [Note("4 steps")], []])
    ['a (in 1 of 3 runs)', '3 steps (in 2 of 3 runs, with other numbers)']
    """
    everywhere = set.intersection(*map(set, runs))
    alike: dict[tuple[str, int], list[Note]] = {}  # of each run one
    for notes in runs:
        times = Counter[str]()
        for note in dict.fromkeys(notes):
            kind = note if note in everywhere else re.sub(r"\d[\d.,]*", "#", note)
            alike.setdefault((kind, times[kind]), []).append(note)
            times[kind] += 1
    told = []
    for same in alike.values():
        other = ", with other numbers" if len(set(same)) > 1 else ""
        part = f" (in {len(same)} of {len(runs)} runs{other})"
        told.append(Note(same[0] + part * (len(same) < len(runs) or bool(other)), same[0].rank))
    return told


def _named(group: Any) -> str:
    return group.name or "images without a condition"


def _more(group: Any) -> str:
    return f"{percent(abs(group.area_bias), 0)} {'more' if group.area_bias >= 0 else 'less'}"
