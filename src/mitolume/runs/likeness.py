"""Whether the images of a table look alike, and how the images of a model look."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from mitolume.errors import some_names
from mitolume.inference.chain import PreparedPlane
from mitolume.io.check import CheckedTable
from mitolume.io.fields import Field
from mitolume.io.read import read_plane
from mitolume.io.rows import open_image
from mitolume.io.split import spread
from mitolume.preprocess.fingerprint import (
    Features,
    Fingerprint,
    learn_fingerprint,
    measure_windows,
    unlikeness,
)
from mitolume.preprocess.settings import ChainSettings

_MOST_PLANES = 48  # are measured, spread over all
_MOST_DOUBTFUL = 200  # of rows that may be no image at all
_LEAST_PLANES = 4  # with fewer, nobody can say which is the odd one


def fingerprint_of(planes: Sequence[Any]) -> Fingerprint | None:
    """Measure how prepared planes (Y, X) look; None where all are too small."""
    return learn_fingerprint(
        measure_windows(planes[i]) for i in spread(range(len(planes)), _MOST_PLANES)
    )


def unlike_rows(
    rows: Sequence[Field], table: CheckedTable, model_um: float | None
) -> tuple[list[Field], list[str]]:
    """Find images that look unlike the table's others, as another channel or a screenshot would.

    They are compared at the pixel size ``model_um``. Returned are the rows to learn from, without
    those that nobody asked to learn from, and a sentence for each kind of difference. Where a third
    or more of the planes differ, there is none: then the table is simply mixed. Fewer than half of
    a row's planes are no sign of a wrong file: contrast turns over on the other side of focus.
    """
    planes = [(row, z) for row in rows for z in row.planes or ()]
    doubtful = [i for i, (row, _) in enumerate(planes) if row.is_doubtful]
    seen: list[tuple[Field, Features]] = []
    for i in sorted({*spread(range(len(planes)), _MOST_PLANES), *doubtful[:_MOST_DOUBTFUL]}):
        row, z = planes[i]
        prepared = PreparedPlane(
            read_plane(open_image(row), z=z),
            ChainSettings(),
            pixel_size_um=table.pixel_sizes[row.line],
            model_um=model_um,
            source=str(row.image),
        )
        windows = measure_windows(prepared)
        if len(windows) and np.asarray(prepared).any():  # flat planes are named already
            seen.append((row, windows))
    if len(seen) < _LEAST_PLANES:
        return list(rows), []
    found: dict[tuple[str, bool], list[Field]] = defaultdict(list)
    for i, (row, windows) in enumerate(seen):
        others = learn_fingerprint((w for j, (_, w) in enumerate(seen) if j != i), robust=True)
        if others and (reason := unlikeness(others, windows)):
            found[reason, row.is_doubtful].append(row)
    if 3 * sum(map(len, found.values())) >= len(seen):
        return list(rows), []
    planes_of = Counter(row.line for row, _ in seen)
    odd_of = Counter(row.line for odd in found.values() for row in odd)
    kept = {key: [r for r in odd if 2 * odd_of[r.line] >= planes_of[r.line]]
            for key, odd in found.items()}  # fmt: skip
    found = defaultdict(list, {key: odd for key, odd in kept.items() if odd})
    left_out = {row.line for (_, out), odd in found.items() if out for row in odd}
    return [row for row in rows if row.line not in left_out], [
        f"{some_names(dict.fromkeys(row.where for row in odd))}: looks unlike the other images "
        f"({reason})" + ("; check file and channel" if not out else ", so it is left out; to learn "
                         "from it, give it the role unlabelled")
        for (reason, out), odd in found.items()
    ]  # fmt: skip
