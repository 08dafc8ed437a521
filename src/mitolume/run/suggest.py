"""What to label next: the unlabelled images of a run, in order. Trains nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mitolume.analysis.feature_distance import choose_diverse, labelled_set
from mitolume.errors import MitolumeError
from mitolume.progress import progress_bar
from mitolume.report.suggest_page import Card, SuggestContent, card, write_page
from mitolume.run.committee import Committee
from mitolume.run.finished import FinishedRun, feature_table, open_run
from mitolume.run.results import write_csv

TABLE, PAGE = "suggest.csv", "suggest.html"
_USUAL = 10  # images, where nobody says how many


@dataclass(frozen=True, eq=False)
class Suggestions:
    """Where the files are, and the table that they hold."""

    folder: Path
    table: pd.DataFrame

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


def suggest(
    run: str | Path, n: int | None = None, out: str | Path | None = None, *, quiet: bool = False
) -> Suggestions:
    """Rank the unlabelled images of a run by what labelling them may bring.

    Parameters
    ----------
    run
        The folder of a finished run.
    n
        How many images to choose; 10, or all where there are fewer, by default.
    out
        Folder for ``suggest.csv`` and ``suggest.html``; ``suggest`` in the run folder by default.
    quiet
        Show no progress.

    Returns
    -------
    Suggestions
        The table has a row for each unlabelled image: the chosen ones first, in their order.

    Raises
    ------
    MitolumeError
        The run is unfinished, has no unlabelled image, or fewer than were asked for.
    """
    opened = open_run(run)
    unlabelled = opened.of_role("unlabelled")
    n = _how_many(opened, n, len(unlabelled))
    committee = Committee(opened)
    table = pd.DataFrame([image.facts for image in unlabelled])
    with progress_bar("comparing masks", quiet=quiet) as advance:
        table["disagreement"] = 0.0
        for i, image in enumerate(unlabelled):
            advance(i, len(unlabelled))
            table.loc[i, "disagreement"] = committee.disagreement(image)
        advance(len(unlabelled), len(unlabelled))
    with progress_bar("comparing images", quiet=quiet) as advance:
        labelled = opened.of_role("train")
        vectors = feature_table(opened.observer(), [*labelled, *unlabelled], advance)
    known = labelled_set(vectors[: len(labelled)], [i.image.row.specimen for i in labelled])
    table["distance"] = known.distances(vectors[len(labelled) :])
    chosen = choose_diverse(
        vectors[len(labelled) :] / known.spread,
        known.vectors / known.spread,
        table["disagreement"].to_numpy(),
        [(image.image.row.specimen, image.image.row.image) for image in unlabelled],
        n,
    )
    drawn = np.random.default_rng(opened.record["seed"]).permutation(len(unlabelled))[:n].tolist()
    table = _ordered(table, chosen, drawn, committee.name)
    folder = Path(out) if out is not None else opened.path / "suggest"
    write_csv(folder / TABLE, table)
    with progress_bar("drawing", quiet=quiet) as advance:
        shown: dict[int, Card] = {}
        for i in dict.fromkeys([*chosen, *drawn]):
            advance(len(shown), len({*chosen, *drawn}))
            shown[i] = card(opened, unlabelled[i], committee)
    page = SuggestContent(
        opened.path, len(unlabelled), committee.name, table,
        [shown[i] for i in chosen], [shown[i] for i in drawn],
    )  # fmt: skip
    write_page(page, folder / PAGE)
    return Suggestions(folder, table)


def _how_many(run: FinishedRun, n: int | None, there: int) -> int:
    if not there:
        raise MitolumeError(
            f"{run.path} has no unlabelled images to choose from; add rows without a mask to "
            f"{run.record['fields']}, and run again"
        )
    if n is not None and not 1 <= n <= there:
        raise MitolumeError(
            f"--n is {n}, but {run.path} has {there} unlabelled images; ask for 1 to {there}"
        )
    return n or min(_USUAL, there)


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
