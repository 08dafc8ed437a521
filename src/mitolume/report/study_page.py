"""The page of a study: what its folder holds, in words, tables, charts and pictures."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from mitolume.analysis import pictures
from mitolume.analysis.object_pictures import write_figure
from mitolume.errors import MitolumeError, ranked, some_names
from mitolume.io.write import owning, write_table, write_text
from mitolume.report.charts import Chart, comparison_figure, curve_figure, to_chart
from mitolume.report.panels import ArmPictures, Panel, panel_figure
from mitolume.report.run_page import (
    divided,
    labels_of,
    report_run,
    scored_by_dye,
    template,
)
from mitolume.report.study_tables import (
    Table,
    by_group,
    comparison_table,
    group_table,
    score_tables,
    sizes,
)
from mitolume.report.study_words import Head, head_of, notes_of_runs, shift_sentences
from mitolume.study.beside_dye import OBJECTS, judge_beside_dye, measure_beside_dye
from mitolume.study.cells import image_count
from mitolume.study.evidence import compare, label_curve, scored_rows
from mitolume.study.folder import Study, open_study
from mitolume.study.worth import label_worth
from mitolume.text import count, number, quoted

_CHARTS = {  # headings and captions
    "comparisons": (
        "Difference from the reference",
        "Dot: the difference; line: its interval. A filled dot: a difference was shown. Grey band: "
        "differences too small for this study to see.",
    ),
    "labels": (
        "IoU against labelled images",
        "Vertical lines: the interval of each point by itself.",
    ),
}


def report_study(path: str | Path, export: str | Path | None = None) -> Path:
    """Write the page of a study from its finished runs, and the page of each run that has none.

    ``export`` is a folder to write its tables and figures to as well, see
    `mitolume.workflow.report`. It is created where it is missing; files of the same names are
    replaced.
    """
    study = open_study(path)
    for one in study.finished:
        if not study.run(one).report_file.exists():
            report_run(study.run(one).path)
    content = StudyContent(study)
    page = template("study.html.j2").render(
        content=content, ranked=ranked(content.notices), colours=pictures, objects=OBJECTS
    )
    with owning(study.path):
        write_text(study.methods_file, _methods(content))
        write_text(study.report_file, page)
    if export is not None:
        _export(content, Path(export))
    return study.report_file


def _methods(content: StudyContent) -> str:
    """Write what the study did as a Methods section, and what a reviewer will ask."""
    study = content.study
    with_most = content.scored.sort_values("k", ascending=False, kind="stable")
    runs = with_most.groupby("arm")["run"].first()  # not each arm may have one with all labels yet
    first = {arm: study.run(name) for arm, name in runs.items()}
    reference = first[content.reference]
    recipe_file = Path(study.path.resolve().name, study.recipe_file.name)
    return template("study_methods.md.j2").render(
        content=content,
        recipe=study.recipe,
        record=reference.record,
        divided=divided(reference.record),
        labels=labels_of(reference),
        first={arm: run.methods_file.relative_to(study.path) for arm, run in first.items()},
        command=f"mitolume study {quoted(recipe_file)} --out again",
    )


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
        self.scored, self.subset = scored_rows(self.images)
        if not self.subset:
            raise MitolumeError(f"{study.path}: no run kept a labelled image aside to score")
        if self.reference not in set(self.scored["arm"]):
            raise MitolumeError(
                f"{study.path}: no run of the reference {self.reference} is finished yet; "
                "run the study again"
            )
        self.arms = [arm for arm in self.recipe.arms if arm in set(self.scored["arm"])]
        self.scored_on = sizes(self.scored, self.subset)
        margin, several = self.recipe.margin, len(self.arms) > 1
        self.comparisons = compare(self.scored, self.reference, margin) if several else []
        self.curve = label_curve(self.scored, margin)
        self.worth = label_worth(self.scored, self.reference)
        self.has_budgets = self.scored["k"].nunique() > 1
        seen = pd.concat([self.scored, standing[standing["subset"] == "unlabelled"]])
        self._with_most_labels = seen[seen["k"] == self.scored["k"].max()]

    # Words -----------------------------------------------------------------------------------

    @property
    def title(self) -> str:
        """The heading of the page."""
        arms = f"{count(len(self.arms) - 1, 'arm')} compared with " if self.comparisons else ""
        day, name = str(self.record["started"])[:10], self.study.path.resolve().name
        return f"{name}: {arms}{self.reference}, {self.scored_on}, {day}"

    @cached_property
    def head(self) -> Head:
        """The verdicts."""
        return head_of(self.comparisons, self.curve, self.reference, self.scored_on)

    @property
    def notices(self) -> list[str]:
        """What limits the verdicts."""
        runs = {one.name: self.study.run(one) for one in self.study.finished}
        missing = [one.name for one in self.study.planned if one.name not in runs]
        notices: list[str] = []
        if missing:
            notices.append(
                f"{len(missing)} of {len(self.study.planned)} runs are not finished "
                f"({some_names(missing, 4)}): these results may change."
            )
        if self.curve.points["score"].max() <= self.chance:
            notices.append(
                f"No arm does better than marking everything, which scores {number(self.chance)}: "
                "nothing was learnt by which arms could differ. Train longer."
            )
        if self.subset != "test":
            notices.append(
                f"There are no test images. The scores are those of {self.subset} images, which "
                "were used for choosing a model."
            )
        notices += scored_by_dye(runs[self.scored["run"].iloc[0]], self.subset)
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
        notices += notes_of_runs([run.notices for run in runs.values()])
        return notices + [s for s in self.shift_sentences if s.startswith("Before")]

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
        if len(groups):
            return sentences
        return ["The scored images have no condition, or all have the same.", *sentences]

    @property
    def facts(self) -> dict[str, str]:
        """What was computed, on which images."""
        study = self.study
        seconds = sum(study.run(one).record.get("seconds", 0.0) for one in study.finished)
        return {
            "Table of fields": str(self.record["fields"]),
            "Scored on": sizes(self.images[self.images["tp"].notna()], self.subset),
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
    def chance(self) -> float:
        """Foreground IoU of marking everything, which is the foreground share."""
        once = self.scored[self.scored["run"] == self.scored["run"].iloc[0]]
        pixels = once[["tp", "fp", "fn", "tn"]].sum()
        return float((pixels["tp"] + pixels["fn"]) / pixels.sum())

    @cached_property
    def beside_dye(self) -> dict[int, list[dict[str, Any]]]:
        """The reference beside the dye, by k, where it sees light alone, and that is asked about.

        An arm sees more than it, or it is called light, as in the preset ``dye``.
        """
        more = {one.arm for one in self.study.planned if len(one.recipe.inputs.channels) > 1}
        if self.reference in more or not (more or self.reference == "light"):
            return {}
        judged = judge_beside_dye(measure_beside_dye(self.study, self.scored))
        return {k: [one for one in judged if one["k"] == k] for k in {one["k"] for one in judged}}

    # Tables ----------------------------------------------------------------------------------

    @property
    def comparison_table(self) -> Table:
        """Each arm against the reference."""
        return comparison_table(self.comparisons, self.curve.points, self.reference, self.scored_on)

    @cached_property
    def score_tables(self) -> list[Table]:
        """The tables of the published study."""
        return score_tables(self.study.results, self.images)

    @cached_property
    def _groups(self) -> dict[str, pd.DataFrame]:
        return {c: by_group(self._with_most_labels, c) for c in ("condition", "batch")}

    @property
    def group_tables(self) -> list[Table]:
        """Scores by condition and by batch."""
        return [group_table(name, groups) for name, groups in self._groups.items() if len(groups)]

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

    def chart(self, name: str) -> Chart:
        """Return one of the `figures` that `_CHARTS` describes, for the page."""
        return to_chart(self.figures[name], name, *_CHARTS[name])

    @cached_property
    def pictures(self) -> ArmPictures:
        """The images of the first seed at the reference's largest number of labelled images."""
        own = self.scored[self.scored["arm"] == self.reference]
        first = own.sort_values("k", ascending=False, kind="stable").iloc[0]
        chosen = (self.scored["k"] == first["k"]) & (self.scored["seed"] == first["seed"])
        names = self.scored[chosen].groupby("arm", sort=False)["run"].first()
        runs = {str(arm): self.study.run(str(name)) for arm, name in names.items()}
        return ArmPictures(runs, self.scored[chosen], self.reference)

    @cached_property
    def browsed(self) -> list[dict[str, Any]]:
        """The images of the browser."""
        return self.pictures.browsed()

    @property
    def browsed_note(self) -> str:
        """Which images the browser shows."""
        rows = self.pictures.images
        total, first = image_count(rows), rows.iloc[0]
        shown = "All" if len(self.browsed) == total else f"{len(self.browsed)} of {total}"
        return (
            f"{shown} {self.subset} images, worst first, with the models of seed {first['seed']} "
            f"and {count(int(first['k']), 'labelled image')}."
        )

    @cached_property
    def panels(self) -> list[Panel]:
        """The worst, the median and the best image, each arm side by side."""
        return self.pictures.panels()


def _export(content: StudyContent, folder: Path) -> None:
    """Write the study's tables as CSV and Markdown and its figures as SVG and PNG."""
    compared = [
        vars(one) | {"verdict": one.verdict, "sentence": one.sentence}
        for one in content.comparisons
    ]
    write_table(folder / "comparisons.csv", pd.DataFrame(compared))
    write_table(folder / "labels.csv", content.curve.points)
    write_table(folder / "images.csv", content.scored)
    write_text(folder / "verdicts.md", "".join(f"- {c.sentence}\n" for c in content.comparisons))
    for shown in (content.comparison_table, *content.score_tables):
        write_text(folder / f"{shown.title.lower().replace(' ', '_')}.md", shown.to_markdown())
    for name, figure in content.figures.items():
        figure.patch.set(alpha=1, facecolor="white")
        for kind in ("svg", "png"):
            write_figure(folder / f"{name}.{kind}", figure)
