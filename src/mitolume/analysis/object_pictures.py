"""Measurements as pictures: outlines of objects in their colours, and superplots.

Figures are made without pyplot, so that they need no screen and may be drawn in threads.
"""

from __future__ import annotations

import math
import warnings
from itertools import cycle
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps, rcParams
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from scipy import ndimage

from mitolume.analysis.pictures import fit, stretch_limits, to_8bit, with_bar
from mitolume.analysis.replicates import ordered, suits_log
from mitolume.errors import MitolumeError
from mitolume.io.write import atomic, making_results
from mitolume.text import count, title_of

# Even in lightness for every colour vision; its dark end would be lost on a grey image.
_COLOURS = ListedColormap(colormaps["viridis"](np.linspace(0.25, 1, 256)))
_NO_VALUE = 170  # grey
_UNDER_OUTLINE = 0.6  # brightness of the image, so that the colours carry
_LONGER = 1600  # side of the picture, px
_OUTLINE_PX = (2, 4)  # width of an outline: at least, and where the image is much enlarged
_NARROWEST = 800  # of the figure, px, so that its title fits
_DPI = 150

# Okabe and Ito (2008), told apart by every colour vision; with shapes for more specimens.
_SPECIMEN_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
_SPECIMEN_MARKS = "osD^vPX"
_MOST_POINTS = 1500  # small points that are drawn of a specimen
_MOST_LETTERS = 20  # of a condition's name in a line, and of a specimen's
_MOST_NAMED = 24  # specimens whose marks are explained
_TAIL = 99.5  # percentile of the objects that the axis reaches at least


def outlines_by_value(
    image: NDArray[Any],
    labels: NDArray[np.integer[Any]],
    objects: pd.DataFrame,
    column: str,
    width_um: float | None = None,
) -> Figure:
    """Draw the outlines of objects over the image, in the colour of a measurement.

    Parameters
    ----------
    image
        (Y, X), any numeric dtype.
    labels
        (Y, X), whole numbers, 0 background.
    objects
        Columns ``label`` and `column`. Objects that are not in it, and those without a value, are
        outlined in grey.
    column
        The measurement. Colours span its 2nd to 98th percentile.
    width_um
        Width of the image in µm, for a scale bar.

    Returns
    -------
    matplotlib.figure.Figure
        With a colour bar, where there is a value; see `write_figure`.
    """
    if image.shape != labels.shape:
        raise ValueError(f"the labels have shape {labels.shape}, the image {image.shape}")
    grey = (fit(to_8bit(image), _LONGER, smooth=True) * _UNDER_OUTLINE).astype(np.uint8)
    shown = fit(labels.astype(np.int32), _LONGER)
    values = objects[column].to_numpy(np.float64)
    known = np.isfinite(values)
    picture = grey[..., None].repeat(3, axis=2)
    edge = _inner_edge(shown, int(np.clip(len(grey) / max(len(labels), 1), *_OUTLINE_PX)))
    colours = pd.DataFrame(255 * colours_by_value(values)[:, :3], index=objects["label"])
    picture[edge] = colours.reindex(shown[edge]).fillna(_NO_VALUE).to_numpy(np.uint8)
    picture = with_bar(picture, width_um)

    height, width = grey.shape
    bar, top, rim = 220, 60, 20
    size = (max(width + bar + rim, _NARROWEST), height + top + rim)
    figure = Figure(figsize=(size[0] / _DPI, size[1] / _DPI), dpi=_DPI)
    axes = figure.add_axes((rim / size[0], rim / size[1], width / size[0], height / size[1]))
    axes.imshow(picture, interpolation="nearest", aspect="auto")  # pixel for pixel
    axes.set_axis_off()
    title = f"{title_of(column)}, {count(len(objects), 'object')}"
    if not known.all():
        title += f" ({int((~known).sum())} without a value: grey)"
    figure.text(rim / size[0], 1 - top / 2 / size[1], title, va="center", parse_math=False)
    if known.any():
        side = min(height, 900) / size[1]
        place = ((rim + width + 30) / size[0], (rim + height) / size[1] - side, 30 / size[0], side)
        figure.colorbar(
            ScalarMappable(_robust_range(values), _COLOURS), figure.add_axes(place), extend="both"
        )
    return figure


def colours_by_value(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the colours that `outlines_by_value` gives to measurements, (n, 4), 0 to 1."""
    known = np.isfinite(values)
    values = np.where(known, values, np.nan)
    colours: NDArray[np.float64] = np.asarray(_COLOURS(_robust_range(values)(values)))
    colours[~known] = [*[_NO_VALUE / 255] * 3, 1]
    return colours


def superplot(
    objects: pd.DataFrame,
    column: str,
    *,
    by: str = "condition",
    control: str | None = None,
    log: bool | None = None,
) -> Figure:
    """Plot objects and the means of their specimens, for each condition.

    Objects of one specimen are not replicates: the error bar, and n, are those of the specimen
    means (Lord et al., J Cell Biol 2020).

    Parameters
    ----------
    objects
        A row for each object, or without a column ``label`` for each image, with columns `by` and
        ``specimen``. A specimen looks the same in all of its conditions, which come as
        `mitolume.analysis.replicates.ordered` has them.
    column
        The measurement; objects without a finite value are left out.
    by
        The column of conditions.
    control
        Which of them is the control; by default the one that is called so, if any.
    log
        Whether the axis is logarithmic, and means are geometric; all values must be above 0. By
        default as `mitolume.analysis.replicates.suits_log` says.

    Returns
    -------
    matplotlib.figure.Figure
        See `write_figure`.

    Raises
    ------
    MitolumeError
        No object has a value.
    """
    known = objects[np.isfinite(objects[column].to_numpy(np.float64))]
    if known.empty:
        raise MitolumeError(f"no object has a value in column {column}: nothing to plot")
    if log is None:
        log, _ = suits_log(known[column], known[by].where(known["specimen"].notna()))
    table = pd.DataFrame(
        {
            "condition": known[by].fillna("").astype(str),
            "specimen": known["specimen"].fillna("").astype(str),
            "value": known[column].astype(float),
        }
    )
    if log:  # drawn on logarithms, so that clouds, means and bars are those of the axis
        table["value"] = np.log10(table["value"])
    noun = "object" if "label" in objects else "image"
    conditions = ordered(table["condition"].unique(), control)
    means = table.groupby(["condition", "specimen"], sort=False)["value"].mean()
    means = means.reindex(conditions, level=0)
    specimens = means.index.get_level_values("specimen").unique()
    looks = dict(
        zip(specimens, zip(cycle(_SPECIMEN_COLOURS), cycle(_SPECIMEN_MARKS)), strict=False)
    )
    width = max(4.2, 1.2 + 1.7 * len(conditions))
    columns = int(width / 2.1)
    named = len(looks) <= _MOST_NAMED
    height = 4.6 + 0.19 * math.ceil(len(looks) / columns) * named
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    if named:
        _name_specimens(figure, looks, columns)
    top = float(np.percentile(table["value"], _TAIL))
    names = []
    for x, name in enumerate(conditions):
        rows = table[table["condition"] == name]
        top = max(top, _draw_condition(axes, x, rows, means[name], looks))
        of = f"n = {count(len(means[name]), 'specimen')}\n{count(len(rows), noun)}"
        names.append(f"{fill(name or '(no condition)', _MOST_LETTERS)}\n{of}")
    axes.set_xticks(range(len(conditions)), names, parse_math=False)
    axes.set_xlim(-0.6, len(conditions) - 0.3)
    # The axis ends above the means and nearly all objects, lest a few giants flatten it.
    lowest = float(table["value"].min())
    bottom = lowest
    if log:
        bottom = min(means.min(), float(np.percentile(table["value"], 100 - _TAIL)))
    elif lowest < top / 3:
        bottom = min(0.0, lowest)
    room = 0.05 * ((top - bottom) or 1.0)
    axes.set_ylim(bottom - (room if bottom != 0 else room / 3), top + room)
    if log:
        axes.set_yticks(*_log_ticks(*axes.get_ylim()))
    axes.set_ylabel(title_of(column) + ", logarithmic" * log, parse_math=False)
    for spine in ("top", "right"):
        axes.spines[spine].set_visible(False)
    axes.tick_params(axis="x", length=0)
    _explain(figure, axes, table, means, "geometric mean" if log else "mean", noun)
    return figure


def _name_specimens(figure: Figure, looks: dict[str, Any], columns: int) -> None:
    """Put the mark and the name of each specimen above a superplot."""
    handles = [
        Line2D([], [], linestyle="", color=colour, marker=mark, markersize=7, **_edge())
        for colour, mark in looks.values()
    ]
    legend = figure.legend(
        handles, ["x"] * len(handles), loc="outside upper left", ncols=columns, fontsize=9,
        frameon=False, handletextpad=0.2, columnspacing=1,
    )  # fmt: skip
    for text, name in zip(legend.get_texts(), looks, strict=True):
        text.set_parse_math(False)
        cut = name if len(name) <= _MOST_LETTERS else f"{name[: _MOST_LETTERS - 1]}…"
        text.set_text(cut or "(no specimen)")


def _edge() -> dict[str, Any]:
    """Edge marks in the colour of text, which shows on light and dark."""
    return {"markeredgecolor": rcParams["text.color"]}


def write_figure(path: str | Path, figure: Figure, dpi: int = _DPI) -> None:
    """Write a figure as ``.png`` or ``.svg``, whole or not at all."""
    ending = Path(path).suffix.lower()
    if ending not in (".png", ".svg"):
        raise MitolumeError(f"{path} must end in .png or .svg, the two kinds of picture there are")
    metadata = {"Date": None} if ending == ".svg" else {"Software": None}
    with making_results(), atomic(path) as temporary, warnings.catch_warnings():
        # A name in letters that matplotlib's font lacks is not a reason to stop.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(temporary, format=ending[1:], dpi=dpi, metadata=metadata)


def _robust_range(values: NDArray[np.float64]) -> Normalize:
    if limits := stretch_limits(values, (2, 98)):
        return Normalize(*limits)
    same = values[np.isfinite(values)][:1]
    return Normalize(same[0] - 0.5, same[0] + 0.5) if same.size else Normalize(0, 1)


def _inner_edge(labels: NDArray[np.integer[Any]], width: int) -> NDArray[np.bool_]:
    """Pixels of objects that are near another label; the frame of the image is not an edge."""
    edge = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        highest = ndimage.maximum_filter1d(labels, 2 * width + 1, axis, mode="nearest")
        lowest = ndimage.minimum_filter1d(labels, 2 * width + 1, axis, mode="nearest")
        edge |= highest != lowest
    return np.asarray(edge & (labels != 0))


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
        axes.scatter(at, values, s=7, color=colour, alpha=0.5, linewidths=0, rasterized=True)
    values = means.to_numpy()
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    centre = float(values.mean())
    if len(values) > 1:
        beside = x + 0.42
        axes.errorbar(
            beside,
            centre,
            yerr=spread,
            capsize=5,
            fmt="_",
            color=rcParams["text.color"],
            markersize=16,
            zorder=4,
        )
    places = x + np.linspace(-0.18, 0.18, len(values)) * (len(values) > 1)
    for at, specimen, mean in zip(places, means.index, values, strict=True):
        colour, mark = looks[str(specimen)]
        axes.plot(at, mean, mark, color=colour, markersize=9, zorder=5, **_edge())
    return float(max(values.max(), centre + spread))


def _log_ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """Places and names of 1, 2, 5, 10, ... between two logarithms; of tens alone, if many."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    steps = (1, 2, 5) if high - low < 3 else (1,)
    ticks = [(power + math.log10(step), step * 10.0**power) for power in powers for step in steps]
    shown = [(place, f"{value:g}") for place, value in ticks if low <= place <= high]
    return [place for place, _ in shown], [name for _, name in shown]


def _crowding(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """How crowded it is around each value, at most 1: the width of the cloud there."""
    counts, edges = np.histogram(values, bins=min(25, max(1, values.size // 4)))
    smooth = np.convolve(np.pad(counts, 1, mode="edge"), [0.25, 0.5, 0.25], mode="valid")
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(counts) - 1)
    return np.asarray(np.sqrt(smooth[bins] / smooth.max()), np.float64)


def _explain(
    figure: Figure, axes: Axes, table: pd.DataFrame, means: pd.Series[float], kind: str, noun: str
) -> None:
    lines = [f"Small: {noun}s. Large: {kind}s of specimens."]
    lines.append(f"Bar: mean ± SD of the specimen means{', on logarithms' * (kind != 'mean')}.")
    bottom, top = axes.get_ylim()
    for what, n in (("Larger", table["value"] > top), ("Smaller", table["value"] < bottom)):
        if n.any():
            lines.append(f"{what} than the axis: {count(int(n.sum()), noun)}.")
    if (means.groupby(level=0).size() == 1).any():
        lines.append("One specimen only: no replicate, so no bar.")
    figure.supxlabel("\n".join(lines), fontsize=8, color=rcParams["xtick.color"])
