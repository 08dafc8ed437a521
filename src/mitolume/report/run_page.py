"""The HTML report of a run: one self-contained page from tables, arrays and sentences.

Knows no network, no training and no run folder: what it shows is handed to it. The words are in
templates/report.html.j2.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from numpy.typing import NDArray

from mitolume import text
from mitolume.analysis import pictures
from mitolume.io.masks import FOREGROUND, UNSURE, Mask
from mitolume.io.write import write_text
from mitolume.report import charts, run_tables
from mitolume.runs.ceiling import Ceiling
from mitolume.runs.results import labelled_share

ROWS_SHOWN = 200
PICTURE_SIDE = 640


@dataclass(frozen=True, eq=False)
class Panel:
    """One image with its labels, and what the models made of it."""

    title: str
    """Why it is shown: worst, median or best."""
    image_name: str
    image: NDArray[Any]
    """Shape (Y, X), raw values."""
    truth: Mask
    """Shape (Y, X): 0 background, 1 mitochondria, 255 unsure."""
    predictions: Mapping[str, Mask]
    """For "model 1" and, where there is one, "model 2": shape (Y, X), 0 or 1."""
    scores: Mapping[str, float]
    """Foreground IoU of this image by model; NaN is undefined."""
    caption: str = ""


@dataclass(frozen=True, eq=False)
class Doubtful:
    """An unlabelled image whose mask is little to be trusted."""

    name: str
    note: str
    """What speaks against it."""
    image: NDArray[Any]
    """Shape (Y, X), raw values."""
    mask: Mask
    """Shape (Y, X), of model 1."""


@dataclass(frozen=True, eq=False)
class Audit:
    """What `mitolume.runs.audit` found of the unlabelled images."""

    conditions: pd.DataFrame
    """audit_conditions.csv."""
    reliability: NDArray[np.float64]
    """Shape (3, 10), of the kept model, see `mitolume.analysis.metrics`."""
    measured_on: str
    """Which labelled images, such as "validation and test"."""
    doubtful: Sequence[Doubtful]
    """The least trustworthy first."""


@dataclass(frozen=True, eq=False)
class ReportContent:
    """All that the report of one run shows; a table without rows may lack columns."""

    title: str
    verdict: Sequence[str]
    """Sentences for a biologist, the first thing on the page."""
    notices: Sequence[str]
    """Warnings, shown prominently."""
    facts: Mapping[str, str]
    """What was run: data set, images per role, network, method, seed, steps, device, ..."""
    results: pd.DataFrame
    """results.csv, long: model, subset, metric, value, n_images, n_specimens."""
    images: pd.DataFrame
    """images.csv, row per image and model: names, model, subset, tp, fp, fn, tn, iou."""
    log: pd.DataFrame
    """log.csv: model, step, loss, validation_iou (NaN where not validated)."""
    panels: Sequence[Panel]
    unlabelled: pd.DataFrame
    """Pseudo-labelled images: names, foreground_share, mean_confidence."""
    recipe_yaml: str
    command: str
    """The command that repeats this run."""
    versions: Mapping[str, str]
    ceiling: Ceiling | None = None
    """How far two annotators agree with each other, where that was measured."""
    audit: Audit | None = None
    """Of runs with unlabelled images; then `unlabelled` is audit.csv."""


def render(content: ReportContent) -> str:
    """Write the report as one HTML page that needs no other file and no network.

    Parameters
    ----------
    content
        Names and sentences may hold any characters.

    Returns
    -------
    str
        HTML.

    Raises
    ------
    ValueError
        If a table lacks a column, names an unknown model, or results hold more than one run.
    """
    results = run_tables.checked(content.results, "results", ["subset", "metric", "value", "model"])
    log = run_tables.checked(content.log, "log", ["model", "step", "loss", "validation_iou"])
    images = run_tables.labelled_images(content.images)
    of_subset = {
        s: rows for s in reversed(run_tables.SUBSETS) if len(rows := images[images["subset"] == s])
    }
    image_tables = {s: run_tables.worst_first(rows) for s, rows in of_subset.items()}
    shown = next(iter(of_subset), "")
    unlabelled = run_tables.unlabelled_images(content.unlabelled)
    share = labelled_share(images)
    audit = content.audit
    return template("report.html.j2").render(
        content=content,
        limit=ROWS_SHOWN,
        models=[model for model in run_tables.MODELS if (results["model"] == model).any()],
        sizes=run_tables.sizes(content.results),
        scores=run_tables.scores(results),
        curves=charts.curves(log, content.ceiling),
        panels=_panels(content.panels),
        colours=pictures,
        unsure=any((panel.truth == UNSURE).any() for panel in content.panels),
        shown=shown,
        image_charts=charts.image_scores(image_tables[shown], content.ceiling) if shown else [],
        image_tables=image_tables,
        conditions=run_tables.condition_scores(of_subset[shown]) if shown else [],
        unlabelled=run_tables.most_conspicuous_first(unlabelled, share),
        signs=run_tables.known_signs(unlabelled),
        unlabelled_order=run_tables.order_of(unlabelled, share),
        group_signs=run_tables.group_signs(audit.conditions) if audit else {},
        groups=run_tables.named_groups(audit.conditions) if audit else [],
        reliability=charts.reliability(audit.reliability, audit.measured_on) if audit else [],
        doubtful=_doubtful(audit.doubtful) if audit else [],
        unlabelled_means=run_tables.condition_means(unlabelled).to_dict("records"),
        unlabelled_charts=charts.pseudo_label_shares(
            run_tables.condition_shares(unlabelled), share
        ),
        labelled_share=share,
    )


def write_report(content: ReportContent, path: Path) -> None:
    """Write the report (see `render`); a reader sees the whole file or none.

    Raises
    ------
    MitolumeError
        The place can't be written to.
    """
    write_text(path, render(content))


@cache
def template(name: str) -> Template:
    """Load a template of a page, with the filters that all pages use."""
    environment = Environment(
        loader=PackageLoader("mitolume.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=text.number,
        percent=text.percent,
        count=text.count,
        filled=run_tables.filled,
    )
    return environment.get_template(name)


# Pictures ------------------------------------------------------------------------------------


def _panels(panels: Sequence[Panel]) -> list[tuple[Panel, list[dict[str, str]]]]:
    side = int(PICTURE_SIDE * min(1.0, math.sqrt(4 / max(1, len(panels)))))
    return [(panel, _shots(panel, side)) for panel in panels]


def _shots(panel: Panel, side: int) -> list[dict[str, str]]:
    """Pictures of a panel in pairs: image and truth, then outline and errors of each model."""
    grey = pictures.fit(pictures.to_8bit(panel.image), side, smooth=True)
    truth = pictures.overlay(panel.image, panel.truth, longer=side)
    shots = [("Image", "", grey), ("Truth", "the mask given", truth)]
    run_tables.check_known("panel: model", panel.predictions, run_tables.MODELS)
    for model in sorted(panel.predictions):
        name, mask = model.capitalize(), panel.predictions[model]
        outline = pictures.overlay(panel.image, mask, longer=side)
        errors = pictures.error_map(panel.image, panel.truth, mask, longer=side)
        iou = text.number(panel.scores.get(model, math.nan))
        shots.append((name, f"IoU {iou}", outline))
        shots.append((f"{name}, errors", _error_shares(panel.truth, mask), errors))
    return [_shot(name, note, array) for name, note, array in shots]


def _doubtful(images: Sequence[Doubtful]) -> list[dict[str, str]]:
    side = PICTURE_SIDE // 2
    return [
        _shot(one.name, one.note, pictures.overlay(one.image, one.mask, longer=side))
        for one in images
    ]


def _shot(name: str, note: str, array: NDArray[np.uint8]) -> dict[str, str]:
    return {
        "name": name,
        "note": note,
        "width": str(array.shape[1]),
        "height": str(array.shape[0]),
        "data": base64.b64encode(pictures.png_bytes(array)).decode("ascii"),
    }


def _error_shares(truth: Mask, mask: Mask) -> str:
    """Say how much was missed of the truth, and how much of what was marked is false."""
    wanted, found = truth == FOREGROUND, (mask == FOREGROUND) & (truth != UNSURE)
    missed = run_tables.ratio(float((wanted & ~found).sum()), float(wanted.sum()))
    false = run_tables.ratio(float((found & ~wanted).sum()), float(found.sum()))
    return f"missed {text.percent(missed, 0)}, false {text.percent(false, 0)}"
