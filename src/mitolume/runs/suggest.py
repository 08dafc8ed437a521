"""What to label next: the unlabelled images of a run, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mitolume.analysis.feature_distance import choose_diverse
from mitolume.errors import MitolumeError
from mitolume.runs.committee import Committee, compare
from mitolume.runs.folder import Run
from mitolume.runs.images import RowImage


@dataclass(frozen=True, eq=False)
class Suggestions:
    """The unlabelled images of a run in the order in which to label them.

    Attributes
    ----------
    table
        A row for each unlabelled image, the chosen ones first: ``rank, line, image, plane,
        specimen, condition, batch, disagreement, distance, why, random``.
    chosen, drawn
        The images to label next, and as many drawn at random to compare with, in order.
    committee
        Whose disagreement it is.
    """

    table: pd.DataFrame
    chosen: Sequence[RowImage]
    drawn: Sequence[RowImage]
    committee: Committee

    def text(self) -> str:
        """Return the chosen images as lines of text."""
        chosen, drawn = (self.table[self.table[name].notna()] for name in ("rank", "random"))
        lines = [f"{'rank':>6}  {'disagreement':>12}  {'distance':>8}  image"]
        for row in chosen.to_dict("records"):
            lines.append(f"{row['rank']:>6}  {_numbers(row)}  {_named(row)}")
        for name, rows in (("these", chosen), ("random", drawn)):
            means = rows[["disagreement", "distance"]].mean()
            lines.append(f"{name:>6}  {_numbers(means)}  (mean)")
        return "\n".join(lines)


def rank_unlabelled(run: Run, n: int | None = None) -> Suggestions:
    """Rank the unlabelled images of a finished run by what labelling them may bring.

    ``n`` images are chosen; by default 10, or all where there are fewer.
    """
    unlabelled = run.images("unlabelled")
    n = _how_many(run, n, len(unlabelled))
    committee = Committee(run)
    table = pd.DataFrame([image.facts for image in unlabelled])
    table["disagreement"] = committee.disagreements(unlabelled)
    known, vectors = compare(run, unlabelled)
    table["distance"] = known.distances(vectors)
    weights = table["disagreement"].to_numpy()
    groups = [(image.row.specimen, image.row.image) for image in unlabelled]
    chosen = choose_diverse(vectors, known.vectors, weights, groups, n)
    drawn = np.random.default_rng(run.record["seed"]).permutation(len(unlabelled))[:n].tolist()
    return Suggestions(
        _ordered(table, chosen, drawn, committee.name),
        [unlabelled[i] for i in chosen],
        [unlabelled[i] for i in drawn],
        committee,
    )


def _how_many(run: Run, n: int | None, there: int) -> int:
    if not there:
        raise MitolumeError(
            f"{run.path} has no unlabelled images to choose from; add rows without a mask to "
            f"{run.record['fields']}, and run again"
        )
    if n is not None and not 1 <= n <= there:
        raise MitolumeError(
            f"--n is {n}, but {run.path} has {there} unlabelled images; ask for 1 to {there}"
        )
    return n or min(10, there)


def _ordered(
    table: pd.DataFrame, chosen: Sequence[int], drawn: Sequence[int], committee: str
) -> pd.DataFrame:
    """Give the chosen and the drawn images their numbers, say why, put the chosen ones first."""
    usual = float(table["disagreement"].median())
    rank, random = ({i: place for place, i in enumerate(row, 1)} for row in (chosen, drawn))
    rows: list[dict[Any, Any]] = [
        {"rank": rank.get(i)}
        | row
        | {"why": _why(row, usual, committee) if i in rank else "", "random": random.get(i)}
        for i, row in enumerate(table.to_dict("records"))
    ]
    rows.sort(key=lambda row: (row["rank"] or np.inf, -row["disagreement"]))
    return pd.DataFrame(rows).astype({"rank": "Int64", "random": "Int64"})


def _why(row: Mapping[Any, Any], usual: float, committee: str) -> str:
    """Say why an image was chosen; ``usual`` is the median disagreement."""
    why = (
        f"{committee} disagree on {row['disagreement']:.0%} of what they outline "
        f"(the middle unlabelled image: {usual:.0%})"
    )
    if np.isfinite(row["distance"]):
        why += (
            f"; {row['distance']:.1f} times as far from the labelled images as these are from "
            "each other"
        )
    return why


def _named(row: Mapping[Any, Any]) -> str:
    where = ", ".join(filter(None, [row["specimen"], row["condition"], row["batch"]]))
    return f"{row['image']}, plane {row['plane']}" + (f" ({where})" if where else "")


def _numbers(row: Mapping[Any, Any] | pd.Series[float]) -> str:
    distance = f"{row['distance']:.2f}" if np.isfinite(row["distance"]) else "unknown"
    return f"{row['disagreement']:>12.3f}  {distance:>8}"
