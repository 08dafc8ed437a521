"""The charts of the pages: inline SVG drawn by matplotlib, in the colours of the page."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from typing import Any

import numpy as np
import pandas as pd
from cycler import cycler
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mitolume.batch.agreement import Ceiling
from mitolume.study.evidence import HELPED, HINT, HURT, Comparison
from mitolume.text import number

# Colours that matplotlib writes and the page replaces, so that charts follow light and dark.
_INK, _QUIET, _ONE, _TWO = "#010203", "#010204", "#010205", "#010206"
_PAGE_COLOUR = {
    _INK: "currentColor",
    _QUIET: "var(--quiet)",
    _ONE: "var(--model-1)",
    _TWO: "var(--model-2)",
}
_LINE: dict[str, dict[str, Any]] = {
    "model 1": {"color": _ONE, "linestyle": "-", "marker": "o"},
    "model 2": {"color": _TWO, "linestyle": (0, (5, 2)), "marker": "s"},
}
_DASHED: dict[str, Any] = {"color": _QUIET, "linestyle": (0, (4, 3)), "linewidth": 1.1}
_DOTTED: dict[str, Any] = {"color": _INK, "linestyle": (0, (1, 2)), "linewidth": 1.4}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mitolume",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _QUIET,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _QUIET,
    "ytick.color": _QUIET,
    "grid.color": _QUIET,
    "grid.alpha": 0.25,
}
# Okabe and Ito (2008); marks differ as well, for readers in grey.
_ARMS = cycler(
    color=["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"], marker=list("osD^vP")
)


@dataclass(frozen=True)
class Chart:
    """An inline SVG with its heading and a sentence on what it shows."""

    heading: str
    svg: Markup
    caption: str


@rc_context(_STYLE)
def curves(log: pd.DataFrame, ceiling: Ceiling | None = None) -> list[Chart]:
    """Draw the loss and the validation IoU of a log against the step, where there is any.

    How far two annotators agree is a line across the validation IoU, both pooled over pixels.
    """
    charts = []
    models = sorted(log["model"].unique())
    # The losses of two models are of different kinds, and have an axis each.
    drawn = [("loss", f"Training loss of {one}", f"loss of {one}", [one]) for one in models]
    for column, heading, y_label, shown in (
        *drawn, ("validation_iou", "Validation IoU", "IoU", models)
    ):  # fmt: skip
        there = log[log["model"].isin(shown)]
        values = there[np.isfinite(there[column].astype(float))].sort_values("step")
        figure, axes = _new_axes("step", y_label)
        caption = []
        for model, rows in values.groupby("model"):
            points = rows[["step", column]].to_numpy(float)
            size = 3.5 if len(points) <= 40 else 0
            axes.plot(*points.T, **_LINE[str(model)], markersize=size, linewidth=1.6)
            caption.append(f"{str(model).capitalize()} ends at {number(points[-1, 1])}")
            if column == "validation_iou":
                step, best = points[points[:, 1].argmax()]
                caption[-1] += f", best {number(best)} at step {step:.0f}"
        axes.grid(axis="y")
        if caption and ceiling and column == "validation_iou":
            axes.axhline(ceiling.iou, **_DOTTED)
            caption.append(f"Dotted: two annotators agree to {number(ceiling.iou, 2)}")
        if caption:
            key = f"curve-{y_label.lower().replace(' ', '-')}"
            charts.append(to_chart(figure, key, heading, ". ".join(caption) + "."))
    return charts


@rc_context(_STYLE)
def image_scores(images: pd.DataFrame, ceiling: Ceiling | None = None) -> list[Chart]:
    """Draw the IoU of each image, a strip for each model that has a column of it.

    How far two annotators agree is a line across the strips.
    """
    models = [model for model in _LINE if model in images and images[model].notna().any()]
    if not models:
        return []
    figure, axes = _new_axes("foreground IoU of the image", "", height=0.9 + 0.45 * len(models))
    random = np.random.default_rng(0)
    for row, model in enumerate(models):
        values = images[model].dropna().to_numpy(float)
        y, colour = row + random.uniform(-0.2, 0.2, values.size), _LINE[model]["color"]
        axes.plot(values, y, "o", color=colour, markersize=4, alpha=0.55, markeredgewidth=0)
        axes.plot([values.mean()] * 2, [row - 0.36, row + 0.36], color=_INK, linewidth=1.8)
    _name_rows(axes, [model.capitalize() for model in models])
    caption = "One dot is one image; the bar marks the mean."
    if ceiling:
        axes.axvline(ceiling.iou_image, **_DOTTED)
        caption += f" Dotted: two annotators agree to {number(ceiling.iou_image, 2)} on average."
    if len(models) == 2:
        change = images[models[1]] - images[models[0]]
        caption += (
            f" Model 2 scores higher than model 1 on {(change > 0).sum()} images and lower on "
            f"{(change < 0).sum()}."
        )
    return [to_chart(figure, "strip-iou", "Spread over images", caption)]


# Charts of a study, as figures that can be saved as well --------------------------------------


@rc_context(_STYLE)
def comparison_figure(comparisons: Sequence[Comparison], labels: Sequence[str]) -> Figure:
    """Draw each difference to the reference with its interval and the detectable difference.

    ``labels`` are their names on the axis; there is at least one.
    """
    figure, axes = _new_axes(
        f"difference in foreground IoU from {comparisons[0].reference}",
        "",
        height=1.1 + 0.42 * len(comparisons),
    )
    axes.axvline(0, **_DASHED)
    for y, one in enumerate(comparisons):
        if not np.isfinite(one.difference):
            continue
        decided = one.verdict in (HELPED, HURT)
        if np.isfinite(one.detectable) and one.detectable < 1 and one.verdict != HINT:
            axes.plot([-one.detectable, one.detectable], [y, y], color=_QUIET, alpha=0.25,
                      linewidth=9, solid_capstyle="butt")  # fmt: skip
        if np.isfinite(one.low):
            axes.plot([one.low, one.high], [y, y], color=_INK, linewidth=2 if decided else 1.1)
        axes.plot(one.difference, y, "o", color=_INK, markersize=6, mfc=_INK if decided else "none")
    _name_rows(axes, labels)
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, -1), min(high, 1))  # an IoU can't differ by more
    return figure


@rc_context(_STYLE)
def curve_figure(points: pd.DataFrame) -> Figure:
    """Draw the points of a `mitolume.study.evidence.LabelCurve`, with intervals."""
    figure, axes = _new_axes("labelled images", "foreground IoU", height=3.4)
    axes.set_prop_cycle(_ARMS)
    for i, (arm, own) in enumerate(points.groupby("arm", sort=False)):
        shifted = own["k"] * 1.03**i  # so that bars do not overlap
        (line,) = axes.plot(shifted, own["score"], linewidth=1.6, label=arm)
        axes.vlines(shifted, own["low"], own["high"], color=line.get_color(), alpha=0.6)
    ticks = sorted(set(points["k"]))
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(k) for k in ticks])
    axes.minorticks_off()
    axes.grid(axis="y")
    axes.legend(frameon=False, fontsize=9)
    return figure


@rc_context(_STYLE)
def conditions_chart(heading: str, draw: Callable[[], Figure]) -> Chart:
    """Draw a superplot in the colours of the page, and not so small that it can't be read."""
    figure = draw()
    figure.patch.set_alpha(0)
    figure.axes[0].patch.set_alpha(0)
    caption = figure.get_supxlabel().replace("\n", " ")
    figure.supxlabel("")
    chart = to_chart(figure, "superplot", heading, caption)
    width = 72 * figure.get_figwidth()
    style = f'<svg style="min-width:{0.8 * width:.0f}pt;max-width:{1.25 * width:.0f}pt" '
    return replace(chart, svg=chart.svg.replace("<svg ", Markup(style), 1))


# From a figure to the page -------------------------------------------------------------------


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a chart along the left, the first one on top."""
    axes.set_yticks(range(len(names)), names, color=_INK, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def _new_axes(x_label: str, y_label: str, height: float = 3.0) -> tuple[Figure, Axes]:
    """Make a figure as wide as a column of the page, with a transparent background."""
    figure = Figure(figsize=(4.8, height), layout="constrained")
    axes = figure.add_subplot(xlabel=x_label, ylabel=y_label)
    axes.locator_params(nbins=6)
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    return figure, axes


def to_chart(figure: Figure, key: str, heading: str, caption: str) -> Chart:
    """Make a chart whose ids and styles affect nothing else; matplotlib has escaped its text."""
    buffer = StringIO()
    with warnings.catch_warnings():  # the reader's fonts draw what matplotlib's own lacks
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    root, body = svg[svg.index("<svg") :].split(">", 1)
    body = re.sub(r"<(metadata|style)\b.*?</\1>", "", body, count=2, flags=re.DOTALL)
    body = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{key}-", body)
    for written, shown in _PAGE_COLOUR.items():
        body = body.replace(written, shown)
    box = root.split('viewBox="', 1)[1].split('"', 1)[0]
    label = f"{heading}. {caption}"
    opening = Markup('<svg viewBox="{}" role="img" aria-label="{}">').format(box, label)
    return Chart(heading, opening + Markup(body), caption)
