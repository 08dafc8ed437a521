"""Results as text for a terminal. Computes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from mitolume.analysis.object_scores import OBJECT_SCORES
from mitolume.batch.object_results import pooled_objects
from mitolume.run.results import value_of

_SUBSETS = ("train", "validation", "test")


def results_text(folder: Path) -> str:
    """Return the table of a finished run: mean IoU and IoU of both models, and chance.

    Parameters
    ----------
    folder
        The run folder.
    """
    results = pd.read_csv(folder / "results.csv")
    kept = json.loads((folder / "kept.json").read_text(encoding="utf-8"))
    subsets = [s for s in _SUBSETS if (results["subset"] == s).any()]
    models = list(dict.fromkeys(results["model"]))
    lines = [" " * 10 + "".join(f"{subset:>24}" for subset in subsets)]
    lines.append(" " * 10 + "".join(f"{'mean IoU':>16}{'IoU':>8}" for _ in subsets))
    for model in models:
        lines.append(_line(results, model.replace("_", " "), model, subsets, ("miou", "iou")))
    lines.append(_line(results, "chance", models[0], subsets, ("chance_miou", "chance_iou")))
    sizes = []
    for subset in subsets:
        part = results[(results["subset"] == subset) & (results["metric"] == "iou")].iloc[0]
        sizes.append(f"{part['n_images']} of {part['n_specimens']}")
    lines.append("images of " + "".join(f"{size:>24}" for size in sizes))
    lines.append("specimens")
    lines.append(f"kept: {kept['kept'].replace('_', ' ')} ({kept['reason']})")
    return "\n".join(lines)


def scores_text(results: pd.DataFrame) -> str:
    """Return the scores of masks as lines of text, chance beside them."""
    lines = []
    for row in results.to_dict("records"):
        if row["metric"] == "n_undefined":
            if row["value"]:
                lines.append(
                    "images without foreground in truth and masks, undefined and left out of "
                    f"means: {row['value']:.0f}"
                )
            continue
        n = row["n_images"]
        lines.append(f"{row['metric']:<14}{_value(row['value']):>10}   {n} image{'s' * (n != 1)}")
    return "\n".join(lines)


def objects_text(images: pd.DataFrame) -> str:
    """Return the object scores of masks, pooled over files, as lines of text."""
    c = pooled_objects(images)
    per_file = (images["objects_true"] + images["objects_predicted"]).dropna()
    n, empty = len(per_file), int((per_file == 0).sum())
    lines = [
        f"objects: {c.n_true} true, {c.n_predicted} predicted, in {n} file{'s' * (n != 1)}; "
        f"undefined, with none in truth and masks: {empty}"
    ]
    lines += [f"{name:<22}{_value(score(c)):>10}" for name, score in OBJECT_SCORES.items()]
    return "\n".join(lines)


def _value(value: float) -> str:
    return "undefined" if pd.isna(value) else f"{value:.4f}"


def _line(
    results: pd.DataFrame, title: str, model: str, subsets: list[str], metrics: tuple[str, str]
) -> str:
    cells = []
    for subset in subsets:
        for metric, width in zip(metrics, (16, 8), strict=True):
            value = value_of(results, model, subset, metric)
            cells.append(f"{'—' if pd.isna(value) else f'{value:.3f}':>{width}}")
    return f"{title:<10}" + "".join(cells)
