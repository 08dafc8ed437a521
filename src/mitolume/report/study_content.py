"""Reads a study's folder and says in words what it holds, for the report. Trains nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mitolume.errors import MitolumeError
from mitolume.report.browser import browsed_images
from mitolume.report.charts import finished
from mitolume.report.panels import audited_shots, example_panels, panel_figure
from mitolume.report.run_tables import count, image_count, number
from mitolume.report.study_charts import comparison_figure, curve_figure
from mitolume.report.study_page import StudyContent, write_exports, write_study_report
from mitolume.report.study_tables import (
    audit_sentences,
    audit_tables,
    audited,
    comparison_rows,
    labelled_share,
    score_tables,
    shift_table,
    sizes,
)
from mitolume.report.study_words import head_of
from mitolume.study.arms import Planned
from mitolume.study.evidence import Comparison, LabelCurve, compare, label_curve
from mitolume.study.shift import Group, by_group, shift_sentences
from mitolume.study.study import (
    RUNS,
    STUDY,
    STUDY_RESULTS,
    StudyFolder,
    collect,
    open_study,
)

REPORT = "report.html"
_SUBSETS = ("test", "validation", "train")


def report_study(path: str | Path, export: str | Path | None = None) -> Path:
    """Write ``report.html`` of a study from the runs that are finished.

    Parameters
    ----------
    path
        The study's folder.
    export
        A folder to write its tables (CSV, Markdown) and figures (SVG, PNG) to as well.

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    MitolumeError
        The folder holds no study, or nothing in it is finished.
    """
    folder = open_study(path)
    content = study_content(folder)
    write_study_report(content, folder.path / REPORT)
    if export is not None:
        write_exports(content, Path(export))
    return folder.path / REPORT


def study_text(path: str | Path) -> str:
    """Return the verdicts of a study as lines of text."""
    return study_content(open_study(path), pictures=False).head.text


def study_content(folder: StudyFolder, *, pictures: bool = True) -> StudyContent:
    """Gather all that the report of a study shows.

    Parameters
    ----------
    folder
        The study, some of whose runs may be missing.
    pictures
        Whether to open images, for the browser.
    """
    images = collect(folder)
    recipe, record = folder.recipe, folder.record
    standing = images[images["stands"]]
    scored = standing[standing["tp"].notna()]
    subset = next((s for s in _SUBSETS if (scored["subset"] == s).any()), None)
    if subset is None:
        raise MitolumeError(f"{folder.path}: no run has a labelled image to score")
    scored = scored[scored["subset"] == subset]
    if recipe.reference not in set(scored["arm"]):
        raise MitolumeError(
            f"{folder.path}: no run of the reference {recipe.reference} is finished yet; "
            "run the study again"
        )
    arms = [arm for arm in recipe.arms if arm in set(scored["arm"])]
    comparisons = compare(scored, recipe.reference) if len(arms) > 1 else []
    curve = label_curve(scored)
    several = scored["k"].nunique() > 1
    seen = pd.concat([scored, standing[standing["subset"] == "unlabelled"]])
    largest = seen[seen["k"] == scored["k"].max()]
    groups = [(column, by_group(largest, column)) for column in ("condition", "batch")]
    labels = [f"{one.arm}, {one.k}" if several else one.arm for one in comparisons]
    figures = {"comparisons": comparison_figure(comparisons, labels)} if comparisons else {}
    if several:
        figures["labels"] = curve_figure(curve.points)
    shift = _shift(images, groups[0][1], _best_arm(curve.points), subset)
    text = sizes(scored, subset)
    shown = _pictures(folder, scored, images, subset) if pictures else {}
    if shown.get("panels"):
        figures["panels"] = panel_figure(shown["panels"])
    return StudyContent(
        title=f"{Path(record['fields']).parent.resolve().name or 'mitolume'}: "
        + (f"{count(len(arms) - 1, 'arm')} compared with " if comparisons else "")
        + recipe.reference,
        head=head_of(comparisons, curve, recipe.reference, text),
        sentences=[one.sentence for one in comparisons],
        notices=[
            *_notices(folder, subset, scored, comparisons),
            *(line for line in shift if line.startswith("Before")),
        ],
        scored_on=text,
        reference=recipe.reference,
        chance=_chance(scored),
        arms=arms,
        comparisons=comparison_rows(comparisons, curve.points, recipe.reference),
        comparison_charts=[
            finished(figures["comparisons"], "comparisons", "Difference to the reference",
                     "Dot: the difference; line: its interval. A filled dot is a difference that "
                     "was shown. Grey band, where there is one: what this study could not see.")
        ] if comparisons else [],
        score_tables=score_tables(pd.read_csv(folder.path / STUDY_RESULTS), images),
        curve_sentences=[step.sentence for step in curve.steps] if several else [],
        curve_charts=[
            finished(figures["labels"], "labels", "IoU against labelled images",
                     "Lines up and down: the interval of each point by itself.")
        ] if several else [],
        **shown,
        shift_sentences=shift,
        shift_tables=[shift_table(column, found) for column, found in groups if found],
        audit_sentences=audit_sentences(images),
        audit_tables=audit_tables(images),
        facts=_facts(folder, images, subset),
        command=f"mitolume study {folder.path / STUDY} --out again",
        recipe_yaml=recipe.to_yaml(),
        settings=_settings(folder),
        versions=record["versions"],
        hashes=record["sha256"],
        open_scores=recipe.base.get("preset") == "paper",
        figures=figures,
        data=_data(comparisons, curve, scored),
    )  # fmt: skip


def _notices(
    folder: StudyFolder, subset: str, scored: pd.DataFrame, comparisons: Sequence[Comparison]
) -> list[str]:
    notices = []
    runs = folder.runs
    missing = [run.name for run in runs if not folder.is_finished(run)]
    if missing:
        notices.append(
            f"{len(missing)} of {len(runs)} runs are not finished ({', '.join(missing[:4])}"
            f"{', …' if len(missing) > 4 else ''}): what follows may change."
        )
    if subset != "test":
        notices.append(
            f"There are no test images; scores are those of {subset} images, which the models "
            "have seen or were chosen by."
        )
    if scored["specimen"].nunique() == 1:
        notices.append(
            f"All scored images are of one specimen ({scored['specimen'].iloc[0]}): this holds "
            "for this specimen only."
        )
    notices += sorted({f"{one.arm}: {one.notice}" for one in comparisons if one.notice})
    records = {run.name: _record(folder, run) for run in runs if folder.is_finished(run)}
    if stopped := [name for name, record in records.items() if "stopped" in record]:
        notices.append(
            f"In {len(stopped)} of {len(records)} runs ({', '.join(stopped[:4])}"
            f"{', …' if len(stopped) > 4 else ''}) learning from unlabelled images was stopped: "
            "model 1 stands for the arm there."
        )
    first = next(iter(records.values()))
    return notices + [str(notice) for notice in first.get("notices", [])]


def _record(folder: StudyFolder, run: Planned) -> dict[str, Any]:
    return dict(json.loads((folder.folder(run) / "run.json").read_text(encoding="utf-8")))


def _pictures(
    folder: StudyFolder, scored: pd.DataFrame, images: pd.DataFrame, subset: str
) -> dict[str, Any]:
    """Open images of the first seed at the largest budget that the reference has."""
    reference = folder.recipe.reference
    own = scored[scored["arm"] == reference]
    k = own["k"].max()
    seed = own[own["k"] == k]["seed"].iloc[0]
    here = scored[(scored["k"] == k) & (scored["seed"] == seed)]
    runs = {
        str(arm): folder.path / RUNS / str(name)
        for arm, name in here.groupby("arm", sort=False)["run"].first().items()
    }
    record = json.loads((runs[reference] / "run.json").read_text(encoding="utf-8"))
    entries = browsed_images(runs, here, reference, record["mask_kind"])
    total = image_count(here)
    which = "All" if len(entries) == total else f"{len(entries)} of {total}"
    taught = audited(images)
    taught = taught[taught["k"] == taught["k"].max()]
    taught = taught[taught["run"] == taught["run"].iloc[0]] if len(taught) else taught
    return {
        "browsed": entries,
        "browsed_arms": list(runs),
        "browsed_note": f"{which} {subset} images, worst first, with the models of seed {seed} "
        f"and {count(int(k), 'labelled image')}.",
        "panels": example_panels(runs, here, reference, record["mask_kind"]),
        "audited": audited_shots(
            folder.path / RUNS / taught["run"].iloc[0], taught, labelled_share(images)
        )
        if len(taught)
        else [],
    }


def _shift(images: pd.DataFrame, groups: list[Group], best: str, subset: str) -> list[str]:
    scored = set(images[images["tp"].notna() & (images["subset"] == subset)]["condition"])
    others = images[~images["condition"].isin(scored)]
    unscored = {
        str(name): image_count(rows) for name, rows in others.groupby("condition", sort=False)
    }
    sentences = shift_sentences(groups, best, unscored)
    if not groups:
        sentences.insert(
            0, "The scored images are of one condition and one batch, or none is given."
        )
    return sentences


def _facts(folder: StudyFolder, images: pd.DataFrame, subset: str) -> dict[str, str]:
    recipe, record, runs = folder.recipe, folder.record, folder.runs
    done = [run for run in runs if folder.is_finished(run)]
    seconds = sum(_record(folder, run).get("seconds", 0.0) for run in done)
    return {
        "Table of fields": str(record["fields"]),
        "Scored on": sizes(images[images["tp"].notna()], subset),
        "Arms": ", ".join(recipe.arms),
        "Reference": recipe.reference,
        "Seeds": ", ".join(map(str, recipe.seeds)),
        "Labelled images": ", ".join(map(str, recipe.labels)),
        "Model that stands for an arm": "the one kept by validation images"
        if recipe.compare == "kept"
        else "the last one trained",
        "Runs": f"{len(done)} of {len(runs)} finished, {seconds / 3600:.2f} hours of computing",
        "Started": record["started"],
        "Command": record["command"],
    }


def _settings(folder: StudyFolder) -> dict[str, str]:
    """Every setting of each arm's first run, as YAML."""
    settings: dict[str, str] = {}
    for run in folder.runs:
        settings.setdefault(run.arm, run.recipe.to_yaml())
    return settings


def _data(
    comparisons: Sequence[Comparison], curve: LabelCurve, scored: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    rows = [vars(one) | {"verdict": one.verdict} for one in comparisons]
    return {"comparisons": pd.DataFrame(rows), "labels": curve.points, "images": scored}


def _best_arm(points: pd.DataFrame) -> str:
    largest = points[points["k"] == points["k"].max()]
    return str(largest.sort_values("score", ascending=False, kind="stable")["arm"].iloc[0])


def _chance(scored: pd.DataFrame) -> str:
    """Foreground IoU of marking everything: the foreground share."""
    once = scored[scored["run"] == scored["run"].iloc[0]]
    pixels = once[["tp", "fp", "fn", "tn"]].sum()
    return number(float((pixels["tp"] + pixels["fn"]) / pixels.sum()))
