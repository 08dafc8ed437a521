"""The HTML report of a study: one self-contained page. Knows no study folder and no run.

The words are in templates/study.html.j2, the browser of images in templates/browser.js.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from mitolume.analysis import pictures
from mitolume.analysis.object_pictures import write_figure
from mitolume.io.write import write_table, write_text
from mitolume.report.charts import Chart
from mitolume.report.panels import Panel, Shot
from mitolume.report.run_page import template
from mitolume.report.study_tables import ComparisonRow, Table
from mitolume.report.study_words import Head


@dataclass(frozen=True)
class StudyContent:
    """All that the report of a study shows; sentences and names may hold any characters."""

    title: str
    head: Head
    sentences: Sequence[str]
    """What is said of each comparison, with its interval and sizes."""
    notices: Sequence[str]
    scored_on: str
    reference: str
    chance: str
    arms: Sequence[str]
    comparisons: Sequence[ComparisonRow]
    comparison_charts: Sequence[Chart]
    score_tables: Sequence[Table]
    curve_sentences: Sequence[str]
    curve_charts: Sequence[Chart]
    shift_sentences: Sequence[str]
    shift_tables: Sequence[Table]
    audit_sentences: Sequence[str]
    audit_tables: Sequence[Table]
    facts: Mapping[str, str]
    command: str
    recipe_yaml: str
    settings: Mapping[str, str]
    """Every setting of each arm, as YAML: what the recipe leaves to its preset, too."""
    versions: Mapping[str, str]
    hashes: Mapping[str, str]
    browsed: Sequence[Mapping[str, Any]] = ()
    browsed_arms: Sequence[str] = ()
    browsed_note: str = ""
    panels: Sequence[Panel] = ()
    audited: Sequence[Shot] = ()
    open_scores: bool = False
    """Whether the first table of scores is unfolded, as for the published study."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """The charts as matplotlib figures, to be saved as files."""
    data: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    """The numbers behind them, to be saved as files."""

    @property
    def comparison_caption(self) -> str:
        """What the table of comparisons shows."""
        return (
            f"Foreground IoU, mean over specimens and seeds, on {self.scored_on}; each arm against "
            f"{self.reference}"
        )


def render_study(content: StudyContent) -> str:
    """Write the report as one HTML page that needs no other file and no network."""
    return template("study.html.j2").render(content=content, colours=pictures)


def write_study_report(content: StudyContent, path: Path) -> None:
    """Write the report (see `render_study`); a reader sees the whole file or none."""
    write_text(path, render_study(content))


def write_exports(content: StudyContent, folder: Path) -> list[Path]:
    """Write the study's tables as CSV and Markdown and its figures as SVG and PNG.

    Parameters
    ----------
    content
        What the report shows.
    folder
        Made where it is missing; files of the same names are replaced.

    Returns
    -------
    list of pathlib.Path
        What was written.
    """
    written = []
    for name, table in content.data.items():
        written.append(folder / f"{name}.csv")
        write_table(written[-1], table)
    for name, text in {
        "verdicts": "\n".join(f"- {line}" for line in content.sentences) + "\n",
        "comparisons": comparison_table(content).to_markdown(),
        **{t.title.lower().replace(" ", "_"): t.to_markdown() for t in content.score_tables},
    }.items():
        written.append(folder / f"{name}.md")
        write_text(written[-1], text)
    for name, figure in content.figures.items():
        figure.patch.set(alpha=1, facecolor="white")
        for kind in ("svg", "png"):
            written.append(folder / f"{name}.{kind}")
            write_figure(written[-1], figure)
    return written


def comparison_table(content: StudyContent) -> Table:
    """Return the comparisons as a plain table."""
    columns = ("Arm", "Labels", "IoU", "Difference", "Interval", "Could have seen", "Verdict")
    rows = [tuple(vars(row).values()) for row in content.comparisons]
    return Table("Comparisons", content.comparison_caption, columns, rows)
