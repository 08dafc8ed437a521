"""Where and how much masks of one image disagree. Knows no model and no file."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.floating[Any]]


def disagreement_map(votes: Map, n: int) -> NDArray[np.float32]:
    """Say of each pixel how often two of the masks differ there (query by committee).

    Parameters
    ----------
    votes
        (Y, X), the share of the masks that call a pixel mitochondria.
    n
        How many masks there are, at least 2.

    Returns
    -------
    numpy.ndarray
        (Y, X) float32, the share of all pairs of masks of which only one marks the pixel.

    Examples
    --------
    >>> disagreement_map(np.array([[0.0, 0.5, 1.0]]), 2).tolist()
    [[0.0, 1.0, 0.0]]
    """
    return np.asarray(2 * votes * (1 - votes) * (n / (n - 1)), np.float32)


def disagreement(votes: Map, n: int, least: float = 0.0) -> float:
    """Say how much masks of one image disagree: 1 - IoU of an average pair of them.

    Parameters
    ----------
    votes, n
        As for `disagreement_map`.
    least
        A share of the image: an area of foreground below it counts as so much, or a few specks
        in an empty image would be the greatest disagreement of all.

    Returns
    -------
    float
        0 to 1; 0 where no mask marks anything.
    """
    apart = float(disagreement_map(votes, n).mean(dtype=np.float64))
    either = float(np.mean(votes, dtype=np.float64)) + apart / 2
    return apart / max(either, least) if either else 0.0
