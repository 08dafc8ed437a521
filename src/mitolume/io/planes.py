"""How a choice of z-planes is written: ``3, 0-9, 0-9:2``. Knows no table and no file."""

from __future__ import annotations

import re
from collections.abc import Sequence

_MOST_PLANES = 100_000


def parse_planes(text: str) -> tuple[int, ...] | None:
    """Read a choice of planes.

    Parameters
    ----------
    text
        Numbers from 0 and ranges with both ends, separated by commas or spaces; ``a-b:step``
        takes every step-th. Empty means all.

    Returns
    -------
    tuple of int, or None
        Sorted; None means all.

    Examples
    --------
    >>> parse_planes("3, 0-6:2")
    (0, 2, 3, 4, 6)
    """
    if not text.strip():
        return None
    planes: set[int] = set()
    for part in re.split(r"[,;\s]+", text.strip()):
        match = re.fullmatch(r"(\d+)(?:-(\d+)(?::([1-9]\d*))?)?", part)
        if not match:
            raise ValueError(f"planes {text!r} can't be read at {part!r}; write 3 or 0-9 or 0-9:2")
        first = int(match[1])
        last = int(match[2]) if match[2] else first
        if last > _MOST_PLANES:
            raise ValueError(f"planes {part!r} go beyond any stack")
        if last < first:
            raise ValueError(f"planes {part!r} run backwards")
        planes |= set(range(first, last + 1, int(match[3] or 1)))
    return tuple(sorted(planes))


def format_planes(planes: Sequence[int] | None) -> str:
    """Write a choice of planes in the shortest form that `parse_planes` reads.

    Examples
    --------
    >>> format_planes([0, 1, 2, 5])
    '0-2 5'
    """
    runs: list[list[int]] = []
    for plane in planes or ():
        if runs and plane == runs[-1][1] + 1:
            runs[-1][1] = plane
        else:
            runs.append([plane, plane])
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
