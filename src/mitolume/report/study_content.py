"""The page of a study: what it holds, in words, tables, charts and pictures. Trains nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mitolume.errors import MitolumeError
from mitolume.report.browser import browsed_images
from mitolume.report.charts import finished
from mitolume.report.panels import audited_shots, example_panels, panel_figure
from mitolume.report.run_content import report_run
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
from mitolume.study.cells import image_count
from mitolume.study.evidence import Comparison, LabelCurve, compare, label_curve
from mitolume.study.folder import Study, open_study
from mitolume.study.shift import Group, by_group, shift_sentences
from mitolume.text import count, number

_SUBSETS = ("test", "validation", "train")


def report_study(path: str | Path, export: str | Path | None = None) -> Path:
    """Write the page of a study from the runs that are finished, and of each run without one.

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
    study = open_study(path)
    for one in study.finished:
        if not study.run(one).report_file.exists():
            report_run(study.run(one).path)
    content = study_content(study)
    write_study_report(content, study.report_file)
    if export is not None:
        write_exports(content, Path(export))
    return study.report_file


def study_text(path: str | Path) -> str:
    """Return the verdicts of a study as lines of text."""
    return study_content(open_study(path), pictures=False).head.text


def study_content(study: Study, *, pictures: bool = True) -> StudyContent:
    """Gather all that the report of a study shows.

    Parameters
    ----------
    study
        Some of its runs may be missing.
    pictures
        Whether to open images, for the browser.
    """
    images = study.collect()
    recipe, record = study.recipe, study.record
    standing = images[images["stands"]]
    scored = standing[standing["tp"].notna()]
    subset = next((s for s in _SUBSETS if (scored["subset"] == s).any()), None)
    if subset is None:
        raise MitolumeError(f"{study.path}: no run has a labelled image to score")
    scored = scored[scored["subset"] == subset]
    if recipe.reference not in set(scored["arm"]):
        raise MitolumeError(
            f"{study.path}: no run of the reference {recipe.reference} is finished yet; "
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
    shown = _pictures(study, scored, images, subset) if pictures else {}
    if shown.get("panels"):
        figures["panels"] = panel_figure(shown["panels"])
    return StudyContent(
        title=f"{Path(record['fields']).parent.resolve().name or 'mitolume'}: "
        + (f"{count(len(arms) - 1, 'arm')} compared with " if comparisons else "")
        + recipe.reference,
        head=head_of(comparisons, curve, recipe.reference, text),
        sentences=[one.sentence for one in comparisons],
        notices=[
            *_notices(study, subset, scored, comparisons),
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
        score_tables=score_tables(study.results, images),
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
        facts=_facts(study, images, subset),
        command=f"mitolume study {study.recipe_file} --out again",
        recipe_yaml=recipe.to_yaml(),
        settings=_settings(study),
        versions=record["versions"],
        hashes=record["sha256"],
        open_scores=recipe.base.get("preset") == "paper",
        figures=figures,
        data=_data(comparisons, curve, scored),
    )  # fmt: skip


def _notices(
    study: Study, subset: str, scored: pd.DataFrame, comparisons: Sequence[Comparison]
) -> list[str]:
    notices = []
    finished = {one.name: study.run(one) for one in study.finished}
    missing = [one.name for one in study.planned if one.name not in finished]
    if missing:
        notices.append(
            f"{len(missing)} of {len(study.planned)} runs are not finished "
            f"({', '.join(missing[:4])}{', …' if len(missing) > 4 else ''}): "
            "what follows may change."
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
    if stopped := [name for name, run in finished.items() if "stopped" in run.record]:
        notices.append(
            f"In {len(stopped)} of {len(finished)} runs ({', '.join(stopped[:4])}"
            f"{', …' if len(stopped) > 4 else ''}) learning from unlabelled images was stopped: "
            "model 1 stands for the arm there."
        )
    first = next(iter(finished.values())).record
    return notices + [str(notice) for notice in first.get("notices", [])]


def _pictures(
    study: Study, scored: pd.DataFrame, images: pd.DataFrame, subset: str
) -> dict[str, Any]:
    """Open images of the first seed at the largest budget that the reference has."""
    reference = study.recipe.reference
    own = scored[scored["arm"] == reference]
    k = own["k"].max()
    seed = own[own["k"] == k]["seed"].iloc[0]
    here = scored[(scored["k"] == k) & (scored["seed"] == seed)]
    runs = {
        str(arm): study.run(str(name))
        for arm, name in here.groupby("arm", sort=False)["run"].first().items()
    }
    entries = browsed_images(runs, here, reference)
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
        "panels": example_panels(runs, here, reference),
        "audited": audited_shots(
            study.run(str(taught["run"].iloc[0])), taught, labelled_share(images)
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


def _facts(study: Study, images: pd.DataFrame, subset: str) -> dict[str, str]:
    recipe, record, done = study.recipe, study.record, study.finished
    seconds = sum(study.run(one).record.get("seconds", 0.0) for one in done)
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
        "Runs": f"{len(done)} of {len(study.planned)} finished, "
        f"{seconds / 3600:.2f} hours of computing",
        "Started": record["started"],
        "Command": record["command"],
    }


def _settings(study: Study) -> dict[str, str]:
    """Every setting of each arm's first run, as YAML."""
    settings: dict[str, str] = {}
    for one in study.planned:
        settings.setdefault(one.arm, one.recipe.to_yaml())
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
