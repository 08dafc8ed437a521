"""How many labelled images an arm is worth, and which differences a study can show."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from mitolume.study.cells import paired
from mitolume.study.crossed import MeanSquares, detectable, half_width, mean_squares
from mitolume.study.evidence import LEVEL, arms_of
from mitolume.text import count, number

_STEPS = 49  # places that are looked at between two numbers of labelled images
_MOST_SEEDS, _MOST_TIMES = 40, 20  # seeds, and times the specimens, that are thought of


@dataclass(frozen=True)
class Worth:
    """How many labelled images of the reference an arm with ``k`` is worth.

    ``low`` to ``high`` is the 95 % interval of ``n``, which holds by itself. At one of the ``ends``
    of the curve, each may lie beyond it.
    """

    arm: str
    k: int
    reference: str
    n: float
    low: float
    high: float
    ends: tuple[int, int]

    @property
    def sentence(self) -> str:
        """The arm's place on the curve, with its interval."""
        n, low, high = (
            f"{value:.0f}"
            + " or fewer" * (value <= self.ends[0])
            + " or more" * (value >= self.ends[1])
            for value in (self.n, self.low, self.high)
        )
        if (self.low, self.high) == self.ends:
            place = f"{self.arm} with {count(self.k, 'labelled image')} has no place on the curve"
            return f"{place} of {self.reference}: it may be worth {low} labelled images, or {high}."
        return (
            f"{self.arm} with {count(self.k, 'labelled image')} is worth {n} labelled images of "
            f"{self.reference} (95 % interval by itself: {f'{low} to ' * (low != high)}{high})."
        )


def label_worth(images: pd.DataFrame, reference: str) -> list[Worth]:
    """Place each arm on the curve of the reference over its numbers of labelled images.

    Between two numbers the curve is linear in the logarithm of one more than the number. The
    interval holds the numbers at which the arm can't be told from the curve, by the interval of
    their difference in the same specimens and seeds (see `mitolume.study.evidence.compare`, whose
    parameters these are). There is none with one seed, or with one number.
    """
    arms = arms_of(images)
    ks = [k for name, k in arms if name == reference]
    found = []
    for (arm, k), cells in arms.items():
        places = []
        for less, more in pairwise(ks) if arm != reference else ():
            on = ["specimen", "seed", "images", "n_images"]
            both = arms[reference, less].merge(arms[reference, more], on=on)
            one, other = (
                paired(cells, both.assign(score=both[side])).values
                for side in ("score_x", "score_y")
            )
            if one.shape[-1] > 1:
                share = np.linspace(0, 1, _STEPS)
                squares = mean_squares(
                    np.multiply.outer(1 - share, one) + np.multiply.outer(share, other)
                )
                ns = (less + 1) ** (1 - share) * (more + 1) ** share - 1
                places.append((ns, squares.mean, half_width(squares, 1 - LEVEL)))
        if places:
            ns, difference, half = np.concatenate(places, axis=1)
            near = int(np.abs(difference).argmin())
            # None is like it beyond an end, or where the curve is steep between two places.
            like = (
                ns[np.abs(difference) <= half] if (np.abs(difference) <= half).any() else ns[[near]]
            )
            low, n, high = float(like.min()), float(ns[near]), float(like.max())
            found.append(Worth(arm, k, reference, n, low, high, (ks[0], ks[-1])))
    return found


def outlook(
    images: pd.DataFrame, reference: str, *, n_seeds: int, n_comparisons: int, margin: float
) -> str:
    """Say which differences a study can show, by how far its first seeds differ.

    Parameters
    ----------
    images, reference
        As for `mitolume.study.evidence.compare`, of at least two seeds.
    n_seeds, n_comparisons
        How many the study will have.
    margin
        The difference that is worth seeing.

    Returns
    -------
    str
        A sentence, with the seeds and specimens it would take; empty where nothing can be told.
    """
    arms = arms_of(images)
    tables = [
        paired(cells, arms[reference, k]).values
        for (arm, k), cells in arms.items()
        if arm != reference and (reference, k) in arms
    ]
    here, seeds = max((table.shape for table in tables), default=(0, 0))
    if min(here, seeds) < 2:
        return ""
    every = mean_squares([table for table in tables if table.shape == (here, seeds)])
    parts = (every.mean, every.specimens, every.seeds, every.rest)
    mean, by_specimen, by_seed, rest = (np.asarray(part.mean()) for part in parts)
    known = MeanSquares(mean, by_specimen, by_seed, rest, here, seeds)
    alpha = (1 - LEVEL) / max(n_comparisons, 1)

    def seen(specimens: int, seeds: int) -> float:
        return float(detectable(known.expected(specimens, seeds), alpha))

    now, on = seen(here, n_seeds), f"{count(here, 'specimen')} and {count(n_seeds, 'seed')}"
    size = f"differences in IoU of {number(now)} or more" if now < 1 else "no difference in IoU"
    said = f"By its first {seeds} seeds, a study of {on} can show {size}"
    if not margin or now <= margin:
        return f"{said}."
    more = max(n_seeds, 10)
    ways = []
    if n := next((n for n in range(n_seeds + 1, _MOST_SEEDS + 1) if seen(here, n) <= margin), 0):
        ways.append(f"{n} seeds")
    times = (n * here for n in range(2, _MOST_TIMES + 1))
    if n := next((n for n in times if seen(n, more) <= margin), 0):
        ways.append(f"{n} specimens and {more} seeds")
    many = f"more than {_MOST_SEEDS} seeds, or {_MOST_TIMES} times the specimens"
    return f"{said}; for {margin:g} it would take {', or '.join(ways) or many}."
