"""The page of a study: what its folder holds, in words, tables, charts and pictures."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from mitolume.analysis import pictures
from mitolume.analysis.object_pictures import write_figure
from mitolume.errors import MitolumeError, some_names
from mitolume.io.write import write_table, write_text
from mitolume.report.charts import Chart, comparison_figure, curve_figure, to_chart
from mitolume.report.panels import (
    MOST_PSEUDO_LABELS,
    PagePicture,
    Panel,
    arm_panels,
    browsed_images,
    outlined,
    panel_figure,
)
from mitolume.report.run_page import report_run, template
from mitolume.report.study_tables import (
    GroupScores,
    Table,
    by_group,
    comparison_table,
    group_table,
    pseudo_label_tables,
    pseudo_labelled,
    score_tables,
    sizes,
)
from mitolume.report.study_words import Head, head_of, pseudo_label_sentence, shift_sentences
from mitolume.runs.folder import Run
from mitolume.runs.results import labelled_share
from mitolume.study.cells import image_count
from mitolume.study.evidence import compare, label_curve
from mitolume.study.folder import Study, open_study
from mitolume.text import count, number, percent


def report_study(path: str | Path, export: str | Path | None = None) -> Path:
    """Write the page of a study from its finished runs, and the page of each run that has none.

    Parameters
    ----------
    path
        The study's folder.
    export
        A folder to write its tables (CSV, Markdown) and figures (SVG, PNG) to as well. It is
        created where it is missing; files of the same names are replaced.

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    MitolumeError
        The folder holds no study, or no run in it has finished.
    """
    study = open_study(path)
    for one in study.finished:
        if not study.run(one).report_file.exists():
            report_run(study.run(one).path)
    content = StudyContent(study)
    page = template("study.html.j2").render(content=content, colours=pictures)
    write_text(study.report_file, page)
    if export is not None:
        _export(content, Path(export))
    return study.report_file


def study_text(path: str | Path) -> str:
    """Return the verdicts of a study as lines of text."""
    return StudyContent(open_study(path)).head.text


class StudyContent:
    """All that the page of a study shows; each part is made when it is first asked for.

    Parameters
    ----------
    study
        A study, of which some runs may be missing.

    Raises
    ------
    MitolumeError
        No run of the reference has finished, or no run has a labelled image to score.
    """

    def __init__(self, study: Study) -> None:
        self.study, self.recipe, self.record = study, study.recipe, study.record
        self.reference = study.recipe.reference
        self.images = study.collect()
        standing = self.images[self.images["stands"]]
        scored = standing[standing["tp"].notna()]
        subsets = [s for s in ("test", "validation", "train") if (scored["subset"] == s).any()]
        if not subsets:
            raise MitolumeError(f"{study.path}: no run has a labelled image to score")
        self.subset = subsets[0]
        self.scored = scored[scored["subset"] == self.subset]
        if self.reference not in set(self.scored["arm"]):
            raise MitolumeError(
                f"{study.path}: no run of the reference {self.reference} is finished yet; "
                "run the study again"
            )
        self.arms = [arm for arm in self.recipe.arms if arm in set(self.scored["arm"])]
        self.scored_on = sizes(self.scored, self.subset)
        self.comparisons = compare(self.scored, self.reference) if len(self.arms) > 1 else []
        self.curve = label_curve(self.scored)
        self.has_budgets = self.scored["k"].nunique() > 1
        seen = pd.concat([self.scored, standing[standing["subset"] == "unlabelled"]])
        self._with_most_labels = seen[seen["k"] == self.scored["k"].max()]

    # Words -----------------------------------------------------------------------------------

    @property
    def title(self) -> str:
        """The heading of the page."""
        data = Path(self.record["fields"]).parent.resolve().name or "mitolume"
        if not self.comparisons:
            return f"{data}: {self.reference}"
        return f"{data}: {count(len(self.arms) - 1, 'arm')} compared with {self.reference}"

    @cached_property
    def head(self) -> Head:
        """The verdicts."""
        return head_of(self.comparisons, self.curve, self.reference, self.scored_on)

    @property
    def notices(self) -> list[str]:
        """What limits the verdicts."""
        runs = {one.name: self.study.run(one) for one in self.study.finished}
        missing = [one.name for one in self.study.planned if one.name not in runs]
        notices = []
        if missing:
            notices.append(
                f"{len(missing)} of {len(self.study.planned)} runs are not finished "
                f"({some_names(missing, 4)}): these results may change."
            )
        if self.subset != "test":
            notices.append(
                f"There are no test images. The scores are those of {self.subset} images, which "
                "were used for training or for choosing a model."
            )
        if self.scored["specimen"].nunique() == 1:
            notices.append(
                f"All scored images come from one specimen ({self.scored['specimen'].iloc[0]}): "
                "the results hold for this specimen only."
            )
        notices += sorted({f"{one.arm}: {one.notice}" for one in self.comparisons if one.notice})
        if stopped := [name for name, run in runs.items() if "stopped" in run.record]:
            notices.append(
                f"In {len(stopped)} of {len(runs)} runs ({some_names(stopped, 4)}) learning from "
                "unlabelled images was stopped: there, model 1 stands for the arm."
            )
        first = next(iter(runs.values())).record
        notices += [str(notice) for notice in first.get("notices", [])]
        return notices + [line for line in self.shift_sentences if line.startswith("Before")]

    @cached_property
    def shift_sentences(self) -> list[str]:
        """How scores and measured areas differ between conditions."""
        points = self.curve.points
        largest = points[points["k"] == points["k"].max()]
        best = str(largest.sort_values("score", ascending=False, kind="stable")["arm"].iloc[0])
        others = self.images[~self.images["condition"].isin(set(self.scored["condition"]))]
        unscored = {
            str(name): image_count(rows) for name, rows in others.groupby("condition", sort=False)
        }
        groups = self._groups["condition"]
        sentences = shift_sentences(groups, best, unscored)
        if groups:
            return sentences
        return ["The scored images have no condition or batch, or all have the same.", *sentences]

    @property
    def pseudo_label_sentence(self) -> str:
        """What model 2 learned from."""
        return pseudo_label_sentence(self.images)

    @property
    def facts(self) -> dict[str, str]:
        """What was computed, on which images."""
        study, recipe = self.study, self.recipe
        seconds = sum(study.run(one).record.get("seconds", 0.0) for one in study.finished)
        return {
            "Table of fields": str(self.record["fields"]),
            "Scored on": sizes(self.images[self.images["tp"].notna()], self.subset),
            "Arms": ", ".join(recipe.arms),
            "Reference": recipe.reference,
            "Seeds": ", ".join(map(str, recipe.seeds)),
            "Labelled images": ", ".join(map(str, recipe.labels)),
            "Model that stands for an arm": "the one kept by validation images"
            if recipe.compare == "kept"
            else "the last one trained",
            "Runs": f"{len(study.finished)} of {len(study.planned)} finished, "
            f"{seconds / 3600:.2f} hours of computing",
            "Started": self.record["started"],
            "Command": self.record["command"],
        }

    @property
    def settings(self) -> dict[str, str]:
        """Every setting of each arm's first run, as YAML."""
        settings: dict[str, str] = {}
        for one in self.study.planned:
            settings.setdefault(one.arm, one.recipe.to_yaml())
        return settings

    @property
    def chance(self) -> str:
        """Foreground IoU of marking everything, which is the foreground share."""
        once = self.scored[self.scored["run"] == self.scored["run"].iloc[0]]
        pixels = once[["tp", "fp", "fn", "tn"]].sum()
        return number(float((pixels["tp"] + pixels["fn"]) / pixels.sum()))

    # Tables ----------------------------------------------------------------------------------

    @property
    def comparison_table(self) -> Table:
        """Each arm against the reference."""
        return comparison_table(self.comparisons, self.curve.points, self.reference, self.scored_on)

    @cached_property
    def score_tables(self) -> list[Table]:
        """The tables of the published study."""
        return score_tables(self.study.results, self.images)

    @property
    def open_scores(self) -> bool:
        """Whether the first of them is unfolded, as for the published study."""
        return bool(self.recipe.base.get("preset") == "paper")

    @cached_property
    def _groups(self) -> dict[str, list[GroupScores]]:
        return {c: by_group(self._with_most_labels, c) for c in ("condition", "batch")}

    @property
    def group_tables(self) -> list[Table]:
        """Scores by condition and by batch."""
        return [group_table(column, groups) for column, groups in self._groups.items() if groups]

    @property
    def pseudo_label_tables(self) -> list[Table]:
        """The pseudo-labels by arm and condition."""
        return pseudo_label_tables(self.images)

    # Charts and pictures -----------------------------------------------------------------------

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """The charts and pictures as figures, to be saved as files."""
        figures = {}
        if self.comparisons:
            labels = [
                f"{one.arm}, {one.k}" if self.has_budgets else one.arm for one in self.comparisons
            ]
            figures["comparisons"] = comparison_figure(self.comparisons, labels)
        if self.has_budgets:
            figures["labels"] = curve_figure(self.curve.points)
        if self.panels:
            figures["panels"] = panel_figure(self.panels)
        return figures

    @property
    def comparison_chart(self) -> Chart:
        """Each difference with its interval."""
        return to_chart(
            self.figures["comparisons"],
            "comparisons",
            "Difference from the reference",
            "Dot: the difference; line: its interval. A filled dot: a difference was shown. Grey "
            "band: differences too small for this study to see.",
        )

    @property
    def curve_chart(self) -> Chart:
        """The score of each arm against the number of labelled images."""
        return to_chart(
            self.figures["labels"],
            "labels",
            "IoU against labelled images",
            "Vertical lines: the interval of each point by itself.",
        )

    @cached_property
    def _browsed_runs(self) -> tuple[dict[str, Run], pd.DataFrame]:
        """Runs of the first seed at the reference's largest budget, by arm, and their rows."""
        own = self.scored[self.scored["arm"] == self.reference]
        own = own[own["k"] == own["k"].max()]
        k, seed = own["k"].iloc[0], own["seed"].iloc[0]
        here = self.scored[(self.scored["k"] == k) & (self.scored["seed"] == seed)]
        names = here.groupby("arm", sort=False)["run"].first()
        return {str(arm): self.study.run(str(name)) for arm, name in names.items()}, here

    @cached_property
    def browsed(self) -> list[dict[str, Any]]:
        """The images of the browser, see `browsed_images`."""
        return browsed_images(*self._browsed_runs, self.reference)

    @property
    def browsed_arms(self) -> list[str]:
        """The arms of the browser."""
        return list(self._browsed_runs[0])

    @property
    def browsed_note(self) -> str:
        """Which images the browser shows."""
        rows = self._browsed_runs[1]
        total, first = image_count(rows), rows.iloc[0]
        shown = "All" if len(self.browsed) == total else f"{len(self.browsed)} of {total}"
        return (
            f"{shown} {self.subset} images, worst first, with the models of seed {first['seed']} "
            f"and {count(int(first['k']), 'labelled image')}."
        )

    @cached_property
    def panels(self) -> list[Panel]:
        """The worst, the median and the best image, each arm side by side."""
        return arm_panels(*self._browsed_runs, self.reference)

    @property
    def unusual_pseudo_labels(self) -> list[PagePicture]:
        """The pseudo-labels of one run whose foreground share is least like that of the labels."""
        rows = pseudo_labelled(self.images)
        if rows.empty:
            return []
        rows = rows[rows["k"] == rows["k"].max()]
        rows = rows[rows["run"] == rows["run"].iloc[0]]
        share = labelled_share(self.images)
        closeness = -(rows["foreground_share"] - share).abs()
        order = closeness if closeness.notna().any() else rows["mean_confidence"]
        chosen = rows.loc[order.sort_values(kind="stable").index].head(MOST_PSEUDO_LABELS)
        notes = []
        for row in chosen.to_dict("records"):
            note = (
                f"{percent(row['foreground_share'])} marked, "
                f"confidence {number(row['mean_confidence'], 2)}"
            )
            notes.append((row, f"{row['condition']}: {note}" if row["condition"] else note))
        return outlined(self.study.run(str(rows["run"].iloc[0])), notes)


def _export(content: StudyContent, folder: Path) -> None:
    """Write the study's tables as CSV and Markdown and its figures as SVG and PNG."""
    compared = pd.DataFrame([vars(one) | {"verdict": one.verdict} for one in content.comparisons])
    for name, table in (
        ("comparisons", compared),
        ("labels", content.curve.points),
        ("images", content.scored),
    ):
        write_table(folder / f"{name}.csv", table)
    write_text(folder / "verdicts.md", "".join(f"- {c.sentence}\n" for c in content.comparisons))
    for shown in (content.comparison_table, *content.score_tables):
        write_text(folder / f"{shown.title.lower().replace(' ', '_')}.md", shown.to_markdown())
    for name, figure in content.figures.items():
        figure.patch.set(alpha=1, facecolor="white")
        for kind in ("svg", "png"):
            write_figure(folder / f"{name}.{kind}", figure)
