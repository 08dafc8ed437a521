"""The mean of a table of specimens x seeds and its confidence interval, both being random.

Another laboratory has other specimens, another day other seeds. The model is
``D[i, j] = mean + specimen i + seed j + rest``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MeanSquares:
    """Mean and mean squares of one table, or of each of many; arrays of shape (...)."""

    mean: Floats
    specimens: Floats
    seeds: Floats
    rest: Floats
    n_specimens: int
    n_seeds: int

    @property
    def dfs(self) -> tuple[int, int, int]:
        """Degrees of freedom of the three mean squares; 0 where there is none."""
        a, b = self.n_specimens - 1, self.n_seeds - 1
        return a, b, a * b

    @property
    def n_cells(self) -> int:
        """How many values the mean is of."""
        return self.n_specimens * self.n_seeds

    def expected(self, n_specimens: int, n_seeds: int) -> MeanSquares:
        """Return what mean squares a study of another size is expected to have."""
        by_specimen = np.maximum(self.specimens - self.rest, 0) / self.n_seeds
        by_seed = np.maximum(self.seeds - self.rest, 0) / self.n_specimens
        return MeanSquares(
            self.mean, self.rest + n_seeds * by_specimen, self.rest + n_specimens * by_seed,
            self.rest, n_specimens, n_seeds,
        )  # fmt: skip


def mean_squares(values: ArrayLike) -> MeanSquares:
    """Split the variation of a complete table into specimens, seeds and the rest.

    ``values`` are (..., specimens, seeds), none missing. With one specimen or one seed, the mean
    squares that need two are 0.

    Examples
    --------
    >>> found = mean_squares([[1.0, 3.0], [2.0, 6.0]])
    >>> float(found.mean), float(found.specimens), float(found.seeds), float(found.rest)
    (3.0, 4.0, 9.0, 1.0)
    """
    table = np.asarray(values, float)
    n_specimens, n_seeds = table.shape[-2:]
    mean = table.mean(axis=(-2, -1))
    by_specimen = table.mean(axis=-1) - mean[..., None]
    by_seed = table.mean(axis=-2) - mean[..., None]
    rest = table - mean[..., None, None] - by_specimen[..., :, None] - by_seed[..., None, :]
    a, b = max(n_specimens - 1, 1), max(n_seeds - 1, 1)
    return MeanSquares(
        mean,
        n_seeds * (by_specimen**2).sum(axis=-1) / a,
        n_specimens * (by_seed**2).sum(axis=-1) / b,
        (rest**2).sum(axis=(-2, -1)) / (a * b),
        n_specimens,
        n_seeds,
    )


def half_width(found: MeanSquares, alpha: ArrayLike) -> Floats:
    """Compute half the width of the confidence interval of the mean at the level 1 - ``alpha``.

    The variance of the mean is estimated by ``MS_specimens + MS_seeds - MS_rest``, over the number
    of cells. Here each mean square is first multiplied by the square of its own t quantile (Howe,
    JASA 69:789, 1974, for a sum; Graybill and Wang, JASA 75:869, 1980, and Burdick and Graybill,
    Confidence Intervals on Variance Components, 1992, for such sums in general). The result is
    never less than what any of the three gives alone; for specimens and seeds that is the t
    interval over their means. With one seed (or one specimen) it is the t interval over the
    specimens (the seeds); with one of each it is NaN.
    """
    specimens, seeds, rest = _scaled(found, alpha)
    if not any(found.dfs):
        return np.full(np.shape(specimens), np.nan)
    root: Floats = np.sqrt(_combined(specimens, seeds, rest) / found.n_cells)
    return root


def interval(values: Floats, alpha: float) -> tuple[float, float, float]:
    """Return the mean of a table and the ends of its confidence interval; NaN without a value."""
    if not values.size:
        return (np.nan,) * 3
    squares = mean_squares(values)
    mean, half = float(squares.mean), float(half_width(squares, alpha))
    return mean, mean - half, mean + half


def degrees_of_freedom(found: MeanSquares, alpha: ArrayLike) -> Floats:
    """Compute the degrees of freedom of the squared half-width (Satterthwaite).

    Satterthwaite, Biometrics Bulletin 2:110, 1946. They are never fewer than the smaller number of
    the two factors, nor than those of the rest where it is the largest term. With one seed they
    are those of the specimens.
    """
    terms = _scaled(found, alpha)
    whole = half_width(found, alpha) ** 2 * found.n_cells
    parts: Any = sum(ms**2 / f for ms, f in zip(terms, found.dfs, strict=True) if f)
    fewest = min((f for f in found.dfs[:2] if f), default=np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = np.where(parts > 0, whole**2 / parts, fewest)
    # Where the rest is the largest term, the width has its degrees of freedom.
    least = np.where(terms[2] >= whole * (1 - 1e-12), max(found.dfs), fewest)
    return np.maximum(freedom, least)


def detectable(found: MeanSquares, alpha: ArrayLike, power: float = 0.8) -> Floats:
    """Find the true difference that a study of this size would show with a given power (0 to 1).

    The noise is estimated from this table only, so the power is averaged over its uncertainty and
    over the interval of the repeated study (expected power: Julious and Owen, Pharmaceutical
    Statistics 5:29, 2006; here both studies have the same size). The usual plug-in estimate with
    the noncentral t ignores the first, and promised 80 % where the true power was 57 to 72 %.

    ``alpha`` is the two-sided error rate of the interval, as for `half_width`. The result is (...)
    float, 0 without any variation, NaN where there is no interval.
    """
    freedom = degrees_of_freedom(found, alpha)[..., None]
    error = np.sqrt(_combined(found.specimens, found.seeds, found.rest) / found.n_cells)
    with np.errstate(invalid="ignore", divide="ignore"):
        wanted = half_width(found, alpha) / error  # in standard errors
    nodes, weights = _legendre()
    # Quantiles of an estimated standard error of so many degrees of freedom, in true ones.
    spread = np.sqrt(2 / freedom * special.gammaincinv(freedom / 2, nodes))
    low, high = np.zeros(np.shape(wanted)), 100 * wanted + 100
    for _ in range(60):
        middle = (low + high) / 2
        shown = special.ndtr(
            middle[..., None, None] * spread[..., :, None]
            - wanted[..., None, None] * spread[..., None, :]
        )
        enough = np.einsum("...ij,i,j->...", shown, weights, weights) >= power
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.where(error > 0, high * error, 0 * half_width(found, alpha))


def _combined(specimens: Floats, seeds: Floats, rest: Floats) -> Floats:
    """Add both factors, which each contain the rest once; by chance the rest may exceed either."""
    largest = np.maximum(np.maximum(specimens, seeds), rest)
    return np.maximum(specimens + seeds - rest, largest)


def _scaled(found: MeanSquares, alpha: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Each mean square times the square of its t quantile; 0 where it has no freedom."""
    a, b, rest = (
        ms * (special.stdtrit(f, 1 - np.asarray(alpha) / 2) ** 2 if f else 0.0 * np.asarray(alpha))
        for ms, f in zip((found.specimens, found.seeds, found.rest), found.dfs, strict=True)
    )
    return a, b, rest


def _legendre(n: int = 24) -> tuple[Floats, Floats]:
    """Nodes and weights of a mean over probabilities from 0 to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return (nodes + 1) / 2, weights / 2
