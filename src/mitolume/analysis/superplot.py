"""Objects and the means of their specimens, condition by condition."""

from __future__ import annotations

from itertools import cycle
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from mitolume.analysis.object_pictures import counted, title_of
from mitolume.errors import MitolumeError

# Okabe and Ito (2008), told apart by every colour vision; with shapes for more specimens.
_SPECIMEN_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
_SPECIMEN_MARKS = "osD^vPX"
_MOST_POINTS = 1500  # small points that are drawn of a specimen
_MOST_NAMES = 12  # specimens in a legend
_MOST_LETTERS = 24  # of a condition's name in a line
_LETTER = 0.085  # how wide one is, inches
_TAIL = 99.5  # percentile of the objects that the axis reaches at least


def superplot(objects: pd.DataFrame, column: str) -> Figure:
    """Plot objects and the means of their specimens, for each condition.

    Objects of one specimen are no replicates: the error bar, and n, are those of the specimen
    means (Lord et al., J Cell Biol 2020).

    Parameters
    ----------
    objects
        A row for each object, with columns ``condition`` and ``specimen``. Conditions come in the
        order of their first objects; a specimen looks the same in all of its conditions.
    column
        The measurement; objects without a finite value are left out.

    Returns
    -------
    matplotlib.figure.Figure
        See `mitolume.analysis.object_pictures.write_figure`.

    Raises
    ------
    MitolumeError
        No object has a value.
    """
    known = objects[np.isfinite(objects[column].to_numpy(np.float64))]
    if known.empty:
        raise MitolumeError(f"no object has a value in column {column}: nothing to plot")
    table = pd.DataFrame(
        {
            "condition": known["condition"].fillna("").astype(str),
            "specimen": known["specimen"].fillna("").astype(str),
            "value": known[column].astype(float),
        }
    )
    conditions = list(dict.fromkeys(table["condition"]))
    means = table.groupby(["condition", "specimen"], sort=False)["value"].mean()
    specimens = means.index.get_level_values("specimen").unique()
    looks = dict(
        zip(specimens, zip(cycle(_SPECIMEN_COLOURS), cycle(_SPECIMEN_MARKS)), strict=False)
    )
    figure = Figure(layout="constrained")
    axes = figure.add_subplot()
    top = float(np.percentile(table["value"], _TAIL))
    names = []
    for x, name in enumerate(conditions):
        rows = table[table["condition"] == name]
        top = max(top, _draw_condition(axes, x, rows, means[name], looks))
        of = f"n = {counted(len(means[name]), 'specimen')}\n{counted(len(rows), 'object')}"
        names.append(f"{fill(name or '(no condition)', _MOST_LETTERS)}\n{of}")
    axes.set_xticks(range(len(conditions)), names, parse_math=False)
    axes.set_xlim(-0.6, len(conditions) - 0.3)
    _limit(axes, table["value"].to_numpy(), top)
    axes.set_ylabel(title_of(column), parse_math=False)
    for spine in ("top", "right"):
        axes.spines[spine].set_visible(False)
    axes.tick_params(axis="x", length=0)
    _explain(figure, axes, table, means)
    listed = _name_specimens(axes, means.index.tolist(), looks)
    letters = max(len(line) for name in names for line in name.splitlines())
    legend = 0.8 + _LETTER * min(max(map(len, listed)), 40) if listed else 0
    wide = 1.2 + legend + max(1.5, _LETTER * (letters + 2)) * len(conditions)
    figure.set_size_inches(max(4.2 + legend, wide), 4.6)
    return figure


def _draw_condition(
    axes: Axes, x: int, rows: pd.DataFrame, means: pd.Series[float], looks: dict[str, Any]
) -> float:
    """Draw objects, specimen means, and their mean and SD; return how high the latter reach."""
    random = np.random.default_rng(x)
    for specimen, part in rows.groupby("specimen", sort=False):
        values = part["value"].to_numpy()
        if values.size > _MOST_POINTS:
            values = random.choice(values, _MOST_POINTS, replace=False)
        colour, _ = looks[str(specimen)]
        at = x + 0.36 * random.uniform(-1, 1, values.size) * _crowding(values)
        axes.scatter(at, values, s=7, color=colour, alpha=0.35, linewidths=0, rasterized=True)
    values = means.to_numpy()
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    centre = float(values.mean())
    if len(values) > 1:
        beside = x + 0.42
        axes.errorbar(beside, centre, yerr=spread, capsize=5, fmt="_k", markersize=16, zorder=4)
    places = x + np.linspace(-0.18, 0.18, len(values)) * (len(values) > 1)
    for at, specimen, mean in zip(places, means.index, values, strict=True):
        colour, mark = looks[str(specimen)]
        axes.plot(at, mean, mark, color=colour, markeredgecolor="black", markersize=9, zorder=5)
    return float(max(values.max(), centre + spread))


def _crowding(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """How crowded it is around each value, at most 1: the width of the cloud there."""
    counts, edges = np.histogram(values, bins=min(25, max(1, values.size // 4)))
    smooth = np.convolve(np.pad(counts, 1, mode="edge"), [0.25, 0.5, 0.25], mode="valid")
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(counts) - 1)
    return np.asarray(np.sqrt(smooth[bins] / smooth.max()), np.float64)


def _limit(axes: Axes, values: NDArray[np.float64], top: float) -> None:
    """End the axis above the means and nearly all objects, lest a few giants flatten it."""
    bottom = min(0.0, float(values.min())) if values.min() < top / 3 else float(values.min())
    room = 0.05 * ((top - bottom) or 1.0)
    axes.set_ylim(bottom - (room if bottom != 0 else room / 3), top + room)


def _explain(figure: Figure, axes: Axes, table: pd.DataFrame, means: pd.Series[float]) -> None:
    lines = ["Small: objects. Large: means of specimens.", "Bar: mean ± SD of the specimen means."]
    if above := int((table["value"] > axes.get_ylim()[1]).sum()):
        lines.append(f"Larger than the axis: {counted(above, 'object')}.")
    if (means.groupby(level=0).size() == 1).any():
        lines.append("One specimen only: no replicate, so no bar.")
    figure.supxlabel("\n".join(lines), fontsize=8, color="#555555")


def _name_specimens(axes: Axes, pairs: list[tuple[str, str]], looks: dict[str, Any]) -> list[str]:
    """Add a legend where specimens are found in several conditions; return the names in it."""
    if len(looks) == len(pairs) or len(looks) > _MOST_NAMES:
        return []
    handles = [
        Line2D([], [], color=colour, marker=mark, markeredgecolor="black", ls="", label=name)
        for name, (colour, mark) in looks.items()
    ]
    legend = axes.legend(handles=handles, title="specimen", loc="upper left", bbox_to_anchor=(1, 1))
    for text in legend.get_texts():
        text.set_parse_math(False)
    return list(looks)
