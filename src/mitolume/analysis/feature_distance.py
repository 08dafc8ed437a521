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

    Each feature is divided by its ``spread``. ``usual`` is the median distance of a labelled image
    to the nearest other one; NaN where there is no other, or none that differs.
    """

    vectors: Vectors
    spread: Vectors
    usual: float

    def distances(self, vectors: Vectors) -> NDArray[np.float64]:
        """Distances from the nearest labelled image; 1 is as far as these are from each other."""
        apart = cdist(vectors / self.spread, self.vectors / self.spread)
        return np.asarray(apart.min(axis=1)) / self.usual


def labelled_set(vectors: Vectors, specimens: Sequence[str]) -> LabelledSet:
    """Learn how unlike each other labelled images are.

    The distance is that to the nearest neighbour (Sun et al., ICML 2022), which supposes no
    distribution, after each feature was divided by its spread. Of few images the spread is known
    badly: its square is drawn towards the mean over all features, the more the fewer the images
    (`_shrunk_variance`). Correlations are left out for the same reason. Neighbouring planes look
    alike: the nearest other image is looked for in other specimens, where there are several.
    """
    groups = list(specimens) if len(set(specimens)) > 1 else [str(i) for i in range(len(vectors))]
    spread = np.sqrt(_shrunk_variance(vectors, groups))
    own = np.asarray(groups)
    apart = np.asarray(cdist(vectors / spread, vectors / spread))
    apart[own[:, None] == own] = np.inf
    usual = float(np.median(apart.min(axis=1)))
    return LabelledSet(vectors, spread, usual if 0 < usual < np.inf else np.nan)


def _shrunk_variance(vectors: Vectors, groups: Sequence[str]) -> NDArray[np.float64]:
    """Estimate the variance of features from few vectors; those of a group are one observation.

    Each variance is drawn towards their mean, as Ledoit and Wolf (J. Multivar. Anal. 88:365,
    2004) draw a covariance, as far as the scatter of the variances themselves says (Opgen-Rhein
    and Strimmer, Stat. Appl. Genet. Mol. Biol. 6:9, 2007). The result is (C,), above 0: all the
    same for 2 groups or fewer, 1 where nothing differs.
    """
    deviations = np.square(vectors - vectors.mean(axis=0), dtype=np.float64)
    names = np.asarray(groups)
    squares = np.stack([deviations[names == name].mean(axis=0) for name in dict.fromkeys(groups)])
    n = len(squares)
    variance = squares.sum(axis=0) / max(n - 1, 1)
    target = float(variance.mean())
    if target <= 0:
        return np.ones_like(variance)
    scatter = np.square(variance - target).sum()
    share = 1.0
    if n > 2 and scatter > 0:
        noise = np.square(squares - squares.mean(axis=0)).sum(axis=0) * n / (n - 1) ** 3
        share = min(1.0, float(noise.sum() / scatter))
    # A feature that no labelled image shows at all must not rule the distance.
    shrunk: NDArray[np.float64] = share * target + (1 - share) * variance
    return np.maximum(shrunk, 0.01 * target, out=shrunk)


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
