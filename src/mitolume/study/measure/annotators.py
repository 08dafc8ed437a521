"""Two annotators compared for a terminal: table, meaning, files. Scores no model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

from mitolume.analysis.agreement import mean_interval
from mitolume.analysis.metrics import mean_defined
from mitolume.study.measure.agreement import (
    SCORES,
    Agreement,
    agree,
    require_free,
    summarise_images,
    summarise_planes,
    write_consensus,
)
from mitolume.study.run.results import write_csv

_TITLES = (
    "IoU", "Dice", "kappa", "agree", "A/B area", "apart", "95 % apart", "objects A", "objects B",
)  # fmt: skip


def compare(
    a: Path,
    b: Path,
    mask_kind: str = "auto",
    *,
    like: Path | None = None,
    out: Path | None = None,
    consensus_folder: Path | None = None,
) -> str:
    """Compare two annotators, write what is asked for, and say what was found.

    Parameters
    ----------
    a, b, mask_kind, like
        As for `agree`.
    out
        Where to write the table of planes (CSV).
    consensus_folder
        Where to write ``NAME_mask.ome.tif`` of every image; nothing is overwritten there.

    Returns
    -------
    str
        Text for a terminal.

    Raises
    ------
    MitolumeError
        As from `agree` and `require_free`.
    """
    if consensus_folder is not None:
        require_free(consensus_folder, a, b)
    found = agree(a, b, mask_kind, like)
    text = f"A: {a}\nB: {b}\n\n{agreement_text(found)}"
    if out is not None:
        write_csv(out, found.planes)
    if consensus_folder is None:
        return text
    paths = write_consensus(consensus_folder, found)
    # Where nobody agrees on any mitochondria a mask holds 0 and 255 only, which reads as labels.
    return (
        f"{text}\nconsensus in {consensus_folder}, masks: {len(paths)}; 255 is where the two "
        "disagree (in recipes: mask_kind: unsure)"
    )


def agreement_text(found: Agreement) -> str:
    """Return the table of a comparison for a terminal, and what it means in plain words."""
    images, pooled = summarise_images(found.planes), summarise_planes(found.planes)
    names = [*images["image"], "all together"]
    width = min(40, max(len(name) for name in names))
    lines = [" " * width + "".join(f"{title:>11}" for title in _TITLES)]
    rows: list[Any] = [*images.to_dict("records"), pooled]
    for name, row in zip(names, rows, strict=True):
        shown = name if len(name) <= width else f"{name[: width - 1]}…"
        lines.append(f"{shown:<{width}}" + "".join(f"{cell:>11}" for cell in _cells(row)))
    lines += ["", *_objects_text(pooled), *_undefined_text(found.planes, images)]
    lines += ["together: pixels and objects of each plane summed, distances averaged over planes"]
    lines += [f"note: {notice}" for notice in found.notices]
    return "\n".join([*lines, "", ceiling_text(images["iou"].tolist())])


def ceiling_text(ious: list[float]) -> str:
    """Say what two people's agreement means for models.

    Parameters
    ----------
    ious
        Foreground IoU of each image; NaN where neither marked anything.
    """
    defined = [value for value in ious if not math.isnan(value)]
    if not defined:
        return "Neither of the two marked anything, so there is nothing to agree on."
    n = len(defined)
    these = f"these {n} images" if n > 1 else "this one image"
    mean = f"{mean_defined(defined):.2f}"
    text = (
        f"Two people agree to IoU {mean} on {these}{' (mean over images)' if n > 1 else ''}: no "
        "model can be shown to be better than that against either of them. A higher score shows "
        "whose hand it learned from."
    )
    low, high = mean_interval(defined)
    if math.isnan(low):
        return f"{text}\nNo interval is given for fewer than 3 images."
    return (
        f"{text}\n95 % t interval of the mean over images: {low:.2f} to {high:.2f}. Images are not "
        "specimens: images of one dish are alike, and the interval says nothing of other dishes."
    )


def _cells(row: dict[str, Any]) -> list[str]:
    scores = ["undefined" if math.isnan(row[name]) else f"{row[name]:.3f}" for name in SCORES]
    return [*scores, *_distances(row), str(row["n_objects_a"]), str(row["n_objects_b"])]


def _distances(row: dict[str, Any]) -> list[str]:
    cells = []
    for name in ("outline_mean", "outline_95_percent"):
        defined = [
            f"{value:.2f} {unit}"
            for end, unit in (("um", "µm"), ("px", "px"))
            if not math.isnan(value := row[f"{name}_{end}"])
        ]
        cells.append(defined[0] if len(defined) == 1 else "both units" if defined else "undefined")
    return cells


def _objects_text(pooled: dict[str, Any]) -> list[str]:
    lines = []
    for one, other in ("ab", "ba"):
        n, half = pooled[f"n_objects_{one}"], pooled[f"n_objects_{one}_half_in_{other}"]
        touched = pooled[f"n_objects_{one}_touched_by_{other}"]
        share = f" ({100 * half / n:.0f} %)" if n else ""
        lines.append(
            f"of {n} objects of {one.upper()}, {other.upper()} marked at least half of "
            f"{half}{share} and touched {touched}"
        )
    return lines


def _undefined_text(planes: pd.DataFrame, images: pd.DataFrame) -> list[str]:
    lines = []
    if n := int(images["iou"].isna().sum()):
        lines.append(f"images without a mark of either: {n}; undefined, left out of the mean")
    either = planes["outline_mean_um"].fillna(planes["outline_mean_px"])
    if n := int(either.isna().sum()):
        lines.append(f"planes without an outline of one or both: {n}; no distance, not in its mean")
    return lines
