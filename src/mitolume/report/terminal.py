"""Results of a run as text for a terminal. Computes nothing."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from mitolume.runs.folder import open_run
from mitolume.runs.results import value_of

_SUBSETS = ("train", "validation", "test")


def results_text(folder: Path) -> str:
    """Return the table of a finished run: mean IoU and IoU of both models, and chance.

    Parameters
    ----------
    folder
        The run folder.
    """
    run = open_run(folder)
    results = run.results
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
    lines.append(f"kept: {run.kept.replace('_', ' ')} ({run.kept_reason})")
    return "\n".join(lines)


def _line(
    results: pd.DataFrame, title: str, model: str, subsets: list[str], metrics: tuple[str, str]
) -> str:
    cells = []
    for subset in subsets:
        for metric, width in zip(metrics, (16, 8), strict=True):
            value = value_of(results, model, subset, metric)
            cells.append(f"{'—' if pd.isna(value) else f'{value:.3f}':>{width}}")
    return f"{title:<10}" + "".join(cells)
