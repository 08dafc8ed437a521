"""Reads a run folder and says in words what it holds, for the report. Trains and scores nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mitolume.analysis.metrics import pooled
from mitolume.errors import MitolumeError, shorten
from mitolume.io.fields import Field, read_table, row_names
from mitolume.io.read import read, read_plane
from mitolume.progress import time_left
from mitolume.report.run_page import Audit, Doubtful, Panel, ReportContent, write_report
from mitolume.report.run_tables import number, percent
from mitolume.run.ceiling import ceiling_of, load_ceiling, save_ceiling
from mitolume.run.images import RowImage
from mitolume.run.results import read_csv, value_of

DOUBTFUL = 6  # unlabelled images whose masks are shown
_NAMES = {"unet": "U-Net", "unetplusplus": "U-Net++"}
_METHODS = {
    "supervised": "supervised only",
    "pseudo_label": "pseudo-labels, as published",
    "noisy_student": "noisy student",
    "mean_teacher": "mean teacher",
}


def report(folder: str | Path, agreement: str | Path | None = None) -> Path:
    """Write ``report.html`` of a finished run.

    Parameters
    ----------
    folder
        The run folder.
    agreement
        The table that ``mitolume evaluate A B --agreement --out`` wrote. It is kept in the folder
        as ``ceiling.json``, for this and later reports.

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    MitolumeError
        The folder holds no finished run, or the table is none of agreement.
    """
    folder = Path(folder)
    path = folder / "report.html"
    try:
        content = _content(folder)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise MitolumeError(
            f"{folder} holds a damaged run ({type(error).__name__}: {shorten(error)}): one of its "
            "tables or JSON files has been changed"
        ) from error
    given = ceiling_of(Path(agreement)) if agreement is not None else None
    page = replace(content, ceiling=given or load_ceiling(folder))
    if given:
        save_ceiling(folder, given)
    write_report(page, path)
    return path


def _content(folder: Path) -> ReportContent:
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        kept = json.loads((folder / "kept.json").read_text(encoding="utf-8"))
        images = read_csv(folder / "images.csv")
        results = pd.read_csv(folder / "results.csv")
        log = pd.read_csv(folder / "log.csv")
        recipe = (folder / "recipe.yaml").read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise MitolumeError(
            f"{folder} holds no finished run: {error.filename} is missing"
        ) from None
    except ValueError as error:
        raise MitolumeError(f"{folder} holds a damaged run: {shorten(error)}") from None
    rows = read_table(folder / "fields.csv")
    first = results.iloc[0]
    has_audit = (folder / "audit.csv").exists()
    audited = read_csv(folder / "audit.csv") if has_audit else images.iloc[:0]
    return ReportContent(
        title=f"{Path(record['fields']).parent.resolve().name or 'mitolume'} — {first['arm']}",
        verdict=_verdict(results, kept, record),
        notices=record["notices"],
        facts=_facts(record, first),
        results=results,
        images=images[images["subset"] != "unlabelled"],
        log=log,
        panels=_panels(folder, rows, images, kept["kept"], record["mask_kind"]),
        unlabelled=audited,
        recipe_yaml=recipe,
        command=f"mitolume run {folder / 'recipe.yaml'} --out again",
        versions=record["versions"],
        audit=_audit(folder, audited, rows, kept["kept"]) if has_audit else None,
    )


def _verdict(results: pd.DataFrame, kept: dict[str, str], record: dict[str, Any]) -> list[str]:
    subset = next(s for s in ("test", "validation", "train") if s in set(results["subset"]))
    name = kept["kept"].replace("_", " ")
    score = value_of(results, kept["kept"], subset, "iou")
    chance = value_of(results, kept["kept"], subset, "chance_iou")
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
    if "model_2" in record:
        one, two = (value_of(results, m, subset, "iou") for m in ("model_1", "model_2"))
        if not math.isnan(two - one):
            sentences.append(
                f"Learning from unlabelled images changed the IoU by {_signed(two - one)} there "
                f"({one:.3f} to {two:.3f}), in this one run with one seed."
            )
        sentences.append(f"{name.capitalize()} was kept: {kept['reason']}.")
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


def _panels(
    folder: Path, rows: list[Field], images: pd.DataFrame, kept: str, kind: Any
) -> list[Panel]:
    """Take the worst, median and best image of the kept model, of the most telling subset."""
    scored = images[(images["model"] == kept) & images["iou"].notna()]
    subset = next((s for s in ("test", "validation", "train") if (scored["subset"] == s).any()), "")
    order = scored[scored["subset"] == subset].sort_values("iou", kind="stable")
    if order.empty:
        return []
    positions = {"worst": 0, "median": (len(order) - 1) // 2, "best": len(order) - 1}
    titles: dict[int, str] = {}
    for title, position in positions.items():
        titles[position] = f"{titles[position]} and {title}" if position in titles else title
    models = [m for m in ("model_1", "model_2") if (images["model"] == m).any()]
    names, panels = row_names(rows), []
    for position, title in titles.items():
        found = order.iloc[position]
        row, name = rows[found["line"] - 2], names[found["line"] - 2]
        image, truth, _ = RowImage(row, int(found["plane"]), kind).read()
        assert truth is not None
        same = images[(images["line"] == found["line"]) & (images["plane"] == found["plane"])]
        panels.append(
            Panel(
                title=title,
                image_name=f"{found['image']}, plane {found['plane']}"
                if len(row.planes or ()) > 1 or found["plane"]
                else found["image"],
                image=image,
                truth=truth,
                predictions={
                    m.replace("_", " "): saved_mask(folder / "masks" / m, row, name, found["plane"])
                    for m in models
                },
                scores={
                    m.replace("_", " "): float(same[same["model"] == m]["iou"].iloc[0])
                    for m in models
                },
                caption=f"{subset} image, specimen {found['specimen']}",
            )
        )
    return panels


def _audit(folder: Path, worst_first: pd.DataFrame, rows: list[Field], kept: str) -> Audit:
    """Read the tables of the audit, and the images whose masks are the most doubtful."""
    known = read_csv(folder / "calibration.csv")
    held_out = known[(known["model"] == kept) & known["subset"].isin(["validation", "test"])]
    names, doubtful = row_names(rows), []
    for found in worst_first.head(DOUBTFUL).to_dict("records"):
        row, name, z = rows[found["line"] - 2], names[found["line"] - 2], int(found["plane"])
        image, _, _ = RowImage(row, z, "auto").read()
        mask = saved_mask(folder / "masks" / "model_1", row, name, z)
        title = f"{found['image']}, plane {z}" if len(row.planes or ()) > 1 or z else found["image"]
        doubtful.append(Doubtful(title, _against(found), image, mask))
    return Audit(
        conditions=read_csv(folder / "audit_conditions.csv"),
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


def saved_mask(folder: Path, row: Field, name: str, z: int) -> Any:
    """Read one plane of the masks that a run left of a row: (Y, X) uint8."""
    stack = read(folder / f"{name}_mask.ome.tif")
    return np.asarray(read_plane(stack, z=(row.planes or ()).index(z)))
