"""The page of a run: what the run holds, in words, tables and pictures. Scores nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from mitolume.analysis.metrics import pooled
from mitolume.errors import MitolumeError, shorten
from mitolume.progress import time_left
from mitolume.report.run_page import Audit, Doubtful, Panel, ReportContent, write_report
from mitolume.runs.ceiling import ceiling_of, load_ceiling, save_ceiling
from mitolume.runs.folder import MODELS, Run, open_run
from mitolume.runs.results import value_of
from mitolume.text import number, percent

DOUBTFUL = 6  # unlabelled images whose masks are shown
_NAMES = {"unet": "U-Net", "unetplusplus": "U-Net++"}
_METHODS = {
    "supervised": "supervised only",
    "pseudo_label": "pseudo-labels, as published",
    "noisy_student": "noisy student",
    "mean_teacher": "mean teacher",
}


def report_run(folder: str | Path, agreement: str | Path | None = None) -> Path:
    """Write the page of a finished run.

    Parameters
    ----------
    folder
        The run folder.
    agreement
        The table that ``mitolume evaluate A B --agreement --out`` wrote. It is kept in the folder,
        for this and later reports.

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    MitolumeError
        The folder holds no finished run, or the table is not one of agreement.
    """
    run = open_run(folder)
    try:
        content = _content(run)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise MitolumeError(
            f"{folder} holds a damaged run ({type(error).__name__}: {shorten(error)}): one of its "
            "tables or JSON files has been changed"
        ) from error
    given = ceiling_of(Path(agreement)) if agreement is not None else None
    page = replace(content, ceiling=given or load_ceiling(run.ceiling_file))
    if given:
        save_ceiling(run.ceiling_file, given)
    write_report(page, run.report_file)
    return run.report_file


def _content(run: Run) -> ReportContent:
    results, record = run.results, run.record
    first = results.iloc[0]
    audited = run.audit if run.has_audit else run.scores.iloc[:0]
    return ReportContent(
        title=f"{Path(record['fields']).parent.resolve().name or 'mitolume'} — {first['arm']}",
        verdict=_verdict(run),
        notices=record["notices"],
        facts=_facts(record, first),
        results=results,
        images=run.scores[run.scores["subset"] != "unlabelled"],
        log=run.log,
        panels=_panels(run),
        unlabelled=audited,
        recipe_yaml=run.recipe_file.read_text(encoding="utf-8"),
        command=f"mitolume run {run.recipe_file} --out again",
        versions=record["versions"],
        audit=_audit(run, audited) if run.has_audit else None,
    )


def _verdict(run: Run) -> list[str]:
    results, kept = run.results, run.kept
    subset = next(s for s in ("test", "validation", "train") if s in set(results["subset"]))
    name = kept.replace("_", " ")
    score = value_of(results, kept, subset, "iou")
    chance = value_of(results, kept, subset, "chance_iou")
    part = results[(results["subset"] == subset) & (results["metric"] == "iou")].iloc[0]
    images, specimens = int(part["n_images"]), int(part["n_specimens"])
    on = (
        f"{images} {subset} image{'s' * (images != 1)} of "
        f"{specimens} specimen{'s' * (specimens != 1)}"
    )
    if math.isnan(score):
        sentences = [f"There is no foreground to score on the {on}."]
    else:
        sentences = [
            f"{name.capitalize()} finds mitochondria with a foreground IoU of {score:.3f} on {on}; "
            f"calling every pixel mitochondria would score {chance:.3f}."
        ]
    if "model_2" in run.record:
        one, two = (value_of(results, m, subset, "iou") for m in ("model_1", "model_2"))
        if not math.isnan(two - one):
            sentences.append(
                f"Learning from unlabelled images changed the IoU by {_signed(two - one)} there "
                f"({one:.3f} to {two:.3f}), in this one run with one seed."
            )
        sentences.append(f"{name.capitalize()} was kept: {run.kept_reason}.")
    return sentences


def _signed(difference: float) -> str:
    return f"{difference:+.3f}".replace("-", "\N{MINUS SIGN}")


def _facts(record: dict[str, Any], first: Any) -> dict[str, str]:
    counts, specimens = record["n_images"], record["n_specimens"]
    images = ", ".join(
        f"{n} {role} (specimens: {specimens[role]})" for role, n in counts.items() if n
    )
    size = record["pixel_size_um"]
    facts = {
        "Table of fields": str(record["fields"]),
        "Images": images,
        "Pixel size": f"{size:g} µm" if size else "not stated by the files",
        "Preset": record["preset"],
        "Network": _NAMES[first["network"]],
        "Method": _METHODS[first["method"]],
        "Denoiser": _denoiser(record.get("denoiser")),
        "Seed": str(record["seed"]),
        "Device": record["device"],
        "Started": record["started"],
        "Duration": time_left(record.get("seconds", 0)),
    }
    for name in ("model_1", "model_2"):
        if model := record.get(name):
            facts[name.replace("_", " ").capitalize()] = (
                f"{model['parameters']:,} parameters, {model['steps']} steps in "
                f"{time_left(model['seconds'])}, {model['chosen']}, threshold "
                f"{model['threshold']:g}"
            )
    return facts


def _denoiser(record: dict[str, Any] | None) -> str:
    """Return in words what a run noted of its denoiser."""
    if record is None:
        return "none"
    n, check = record["n_stacks"], record["check"]
    said = f"{record['method']}, from {n} stack{'s' * (n != 1)}"
    if not check:
        return said
    why = f" ({check['reason']})" if check["verdict"] != "suitable" else ""
    return f"{said}; neighbouring planes are {check['verdict']} to learn from{why}"


def _panels(run: Run) -> list[Panel]:
    """Take the worst, median and best image of the kept model, of the most telling subset."""
    scores = run.scores
    scored = scores[(scores["model"] == run.kept) & scores["iou"].notna()]
    subset = next((s for s in ("test", "validation", "train") if (scored["subset"] == s).any()), "")
    order = scored[scored["subset"] == subset].sort_values("iou", kind="stable")
    if order.empty:
        return []
    positions = {"worst": 0, "median": (len(order) - 1) // 2, "best": len(order) - 1}
    titles: dict[int, str] = {}
    for title, position in positions.items():
        titles[position] = f"{titles[position]} and {title}" if position in titles else title
    panels = []
    for position, title in titles.items():
        found = order.iloc[position]
        image = run.image(int(found["line"]), int(found["plane"]))
        plane, truth, _ = image.read()
        assert truth is not None
        same = scores[(scores["line"] == image.line) & (scores["plane"] == image.z)]
        iou = same.set_index("model")["iou"]
        panels.append(
            Panel(
                title=title,
                image_name=image.name,
                image=plane,
                truth=truth,
                predictions={m.replace("_", " "): run.mask(m, image) for m in run.models},
                scores={m.replace("_", " "): float(iou[m]) for m in run.models},
                caption=f"{subset} image, specimen {found['specimen']}",
            )
        )
    return panels


def _audit(run: Run, worst_first: pd.DataFrame) -> Audit:
    """Read the tables of the audit, and the images whose masks are the most doubtful."""
    known = run.calibration
    held_out = known[(known["model"] == run.kept) & known["subset"].isin(["validation", "test"])]
    doubtful = []
    for found in worst_first.head(DOUBTFUL).to_dict("records"):
        image = run.image(int(found["line"]), int(found["plane"]))
        plane, _, _ = image.read()
        doubtful.append(Doubtful(image.name, _against(found), plane, run.mask(MODELS[0], image)))
    return Audit(
        conditions=run.audit_conditions,
        reliability=pooled(held_out),
        measured_on=" and ".join(dict.fromkeys(held_out["subset"])),
        doubtful=doubtful,
    )


def _against(found: Mapping[Any, Any]) -> str:
    """Say in a few words how an unlabelled image differs from the labelled ones."""
    words = [found["condition"], f"{percent(found['foreground_share'])} marked"]
    if math.isfinite(found["share_ratio"]):
        words[-1] += f" ({found['share_ratio']:.1f} times the labelled images' share)"
    words.append(f"confidence {number(found['mean_confidence'], 2)}")
    for name in ("disagreement", "feature_distance"):
        if math.isfinite(found[name]):
            words.append(f"{name.removeprefix('feature_')} {number(found[name], 2)}")
    return ", ".join(filter(None, words))
