"""Images compared by vectors of features: how far from the labelled ones, which to label next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

Vectors = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class LabelledSet:
    """The labelled images' vectors (N, C), and how they are compared with others.

    ``usual`` is the median distance of a labelled image to the nearest other one; NaN where there
    is no other, or none that differs.
    """

    vectors: Vectors
    usual: float

    def distances(self, vectors: Vectors) -> NDArray[np.float64]:
        """Distances from the nearest labelled image; 1 is as far as these are from each other."""
        return np.asarray(cdist(vectors, self.vectors).min(axis=1)) / self.usual


def labelled_set(vectors: Vectors, specimens: Sequence[str]) -> LabelledSet:
    """Learn how unlike each other labelled images are.

    The distance is that to the nearest neighbour (Sun et al., ICML 2022), which supposes no
    distribution; features are of one layer, and of few images their spread is known badly, so they
    are not scaled. Neighbouring planes look alike: the nearest other image is looked for in other
    specimens, where there are several.
    """
    own = np.asarray(specimens if len(set(specimens)) > 1 else range(len(vectors)))
    apart = np.asarray(cdist(vectors, vectors))
    apart[own[:, None] == own] = np.inf
    usual = float(np.median(apart.min(axis=1)))
    return LabelledSet(vectors, usual if 0 < usual < np.inf else np.nan)


def choose_diverse(
    vectors: Vectors, known: Vectors, weights: Vectors, groups: Sequence[Sequence[Hashable]], n: int
) -> list[int]:
    """Choose images one after the other, each the most promising beside those before it.

    Farthest first (the greedy k-center of Sener and Savarese, ICLR 2018): the way to the nearest
    image that is labelled or chosen, times a weight, as Yang et al. (MICCAI 2017) ask for images
    that are uncertain and unlike each other.

    Parameters
    ----------
    vectors
        (M, C), one for each image to choose from, on comparable scales.
    known
        (N, C), of the labelled images, N at least 1.
    weights
        (M,), 0 or more: how uncertain each image is.
    groups
        (M,), to which groups each image belongs, widest first, such as its specimen and its
        stack. What has been chosen from least often comes first.
    n
        How many, at most M; the best come first.
    """
    nearest = cdist(vectors, known).min(axis=1)
    chosen: list[int] = []
    taken: Counter[tuple[Hashable, ...]] = Counter()
    left = list(range(len(vectors)))
    while len(chosen) < n:
        # Where weights are all 0, at least the unlike ones are chosen.
        best = min(
            left,
            key=lambda i: (
                [taken[group] for group in _nested(groups[i])],
                -weights[i] * nearest[i],
                -nearest[i],
                i,
            ),
        )
        chosen.append(best)
        left.remove(best)
        taken.update(_nested(groups[best]))
        nearest = np.minimum(nearest, cdist(vectors, vectors[best : best + 1])[:, 0])
    return chosen


def _nested(group: Sequence[Hashable]) -> list[tuple[Hashable, ...]]:
    """Name a group and those around it: (a, b) is in (a,) and in (a, b)."""
    return [tuple(group[:depth]) for depth in range(1, len(group) + 1)]
