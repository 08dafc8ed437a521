"""The page of what to label next: one self-contained HTML file."""

from __future__ import annotations

from pathlib import Path

from mitolume.analysis import pictures
from mitolume.batch.runner import require_free
from mitolume.io.write import write_text
from mitolume.report.panels import SMALL, PagePicture, Panel
from mitolume.report.run_page import template
from mitolume.runs.committee import Committee
from mitolume.runs.folder import Run, open_run
from mitolume.runs.images import RowImage
from mitolume.runs.results import write_csv
from mitolume.runs.suggest import Suggestions, rank_unlabelled

TABLE, PAGE = "suggest.csv", "suggest.html"


def suggest(
    folder: str | Path, n: int | None = None, out: str | Path | None = None, *, quiet: bool = False
) -> tuple[Suggestions, Path]:
    """Rank the unlabelled images of a run, and write the table and the page of what to label next.

    Parameters
    ----------
    folder
        The folder of a finished run.
    n
        Number of images to choose; by default 10, or all where there are fewer.
    out
        Folder for ``suggest.csv`` and ``suggest.html``; by default ``suggest`` in the run folder.
    quiet
        Whether to show no progress.

    Returns
    -------
    Suggestions, pathlib.Path
        The ranked images, and the folder with the table and the page.

    Raises
    ------
    MitolumeError
        The run has not finished, or has fewer unlabelled images than ``n``.
    """
    run = open_run(folder)
    run.quiet = quiet
    place = Path(out) if out is not None else run.suggestions_folder
    require_free([place / TABLE, place / PAGE], replace=True)
    found = rank_unlabelled(run, n)
    write_csv(place / TABLE, found.table)
    shown: dict[RowImage, Panel] = {}
    images = dict.fromkeys([*found.chosen, *found.drawn])
    with run.bar("drawing") as advance:
        for image in images:
            advance(len(shown), len(images))
            shown[image] = _draw(run, image, found.committee)
    write_text(place / PAGE, _render(run, found, shown))
    return found, place


def _draw(run: Run, image: RowImage, committee: Committee) -> Panel:
    """Draw an image: what the kept model outlines, and where the votes differ."""
    plane, _, size = image.read()
    grey = pictures.fit(pictures.to_8bit(plane), SMALL, smooth=True)
    shown = {
        "image": pictures.with_bar(grey, size and size[1] * plane.shape[1]),
        f"outlines of {run.kept.replace('_', ' ')}": pictures.overlay(
            plane, run.mask(run.kept, image), longer=SMALL
        ),
        "disagreement": pictures.heat(plane, committee.map(image), longer=SMALL),
    }
    return Panel("", image.name, [PagePicture(title, "", one) for title, one in shown.items()])


def _render(run: Run, found: Suggestions, shown: dict[RowImage, Panel]) -> str:
    """Write the page as HTML."""
    table = found.table
    chosen, drawn = (table[table[n].notna()].sort_values(n) for n in ("rank", "random"))
    rows = {"chosen": chosen, "drawn at random": drawn, "all unlabelled": table}
    means = {t: of[["disagreement", "distance"]].mean().to_dict() for t, of in rows.items()}
    return template("suggest.html.j2").render(
        run=run.path,
        there=len(run.images("unlabelled")),
        committee=found.committee.name,
        chosen=list(zip(map(shown.get, found.chosen), chosen.to_dict("records"), strict=True)),
        drawn=list(zip(map(shown.get, found.drawn), drawn.to_dict("records"), strict=True)),
        means=means,
        colour=pictures.FALSE_COLOUR,
        outline=pictures.OUTLINE_COLOUR,
    )
