"""The page of what to label next: one self-contained HTML file. Ranks nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mitolume.analysis import pictures
from mitolume.io.write import write_text
from mitolume.report.panels import Shot
from mitolume.report.run_page import template
from mitolume.run.committee import Committee
from mitolume.run.finished import FinishedRun, RunImage

_SIDE = 320  # pixels of a picture


@dataclass(frozen=True)
class Card:
    """An image in pictures: as it is, with the outlines of the mask, and where votes differ."""

    name: str
    shots: Sequence[Shot]


@dataclass(frozen=True, eq=False)
class SuggestContent:
    """All that the page shows.

    Attributes
    ----------
    run
        The run folder.
    there
        How many unlabelled images there are.
    committee
        Whose disagreement it is.
    table
        As suggest.csv, the chosen images first.
    chosen, drawn
        Those to label next, and the random ones, in order.
    """

    run: Path
    there: int
    committee: str
    table: pd.DataFrame
    chosen: Sequence[Card]
    drawn: Sequence[Card]


def card(run: FinishedRun, image: RunImage, committee: Committee) -> Card:
    """Draw an image: what the kept model outlines, and where the votes differ."""
    plane, _, _ = image.image.read()
    grey = pictures.fit(pictures.to_8bit(plane), _SIDE, smooth=True)
    outlined = pictures.overlay(plane, run.mask(run.kept, image), longer=_SIDE)
    apart = pictures.heat(plane, committee.map(image), longer=_SIDE)
    shots = [
        Shot("image", "", grey[..., None].repeat(3, axis=2)),
        Shot(f"outlines of {run.kept.replace('_', ' ')}", "", outlined),
        Shot("disagreement", "", apart),
    ]
    return Card(image.name, shots)


def write_page(content: SuggestContent, path: Path) -> None:
    """Write the page; a reader sees the whole file or none.

    Raises
    ------
    MitolumeError
        The place can't be written to.
    """
    chosen, drawn = (
        content.table[content.table[name].notna()].sort_values(name).to_dict("records")
        for name in ("rank", "random")
    )
    means = {
        title: {name: pd.DataFrame(rows)[name].mean() for name in ("disagreement", "distance")}
        for title, rows in (
            ("chosen", chosen),
            ("drawn at random", drawn),
            ("all unlabelled", content.table.to_dict("records")),
        )
    }
    page = template("suggest.html.j2").render(
        content=content,
        chosen=list(zip(content.chosen, chosen, strict=True)),
        drawn=list(zip(content.drawn, drawn, strict=True)),
        means=means,
        colour=pictures.FALSE_COLOUR,
        outline=pictures.OUTLINE_COLOUR,
    )
    write_text(path, page)
