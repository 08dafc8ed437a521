"""The HTML report of a run: one self-contained page from tables, arrays and sentences.

Knows no network, no training and no run folder: what it shows is handed to it. The words are in
templates/report.html.j2; here are the numbers, the charts and the pictures.
"""

import base64
import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mitolume.analysis import pictures

MODELS = ("model 1", "model 2")
SUBSETS = ("train", "validation", "test")
NAMES = ["image", "plane", "specimen", "condition", "batch"]
COUNTS = ["tp", "fp", "fn", "tn"]
ROWS_SHOWN = 200
PICTURE_SIDE = 640

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
_CHART_STYLE: dict[Any, Any] = {
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


@dataclass(frozen=True, eq=False)
class Panel:
    """One image with hand labels, and what the models made of it."""

    title: str
    """Why it is shown: worst, median or best."""
    image_name: str
    image: NDArray[Any]
    """Shape (Y, X), raw values."""
    truth: NDArray[np.uint8]
    """Shape (Y, X): 0 background, 1 mitochondria, 255 unsure."""
    predictions: Mapping[str, NDArray[np.uint8]]
    """For "model 1" and, where there is one, "model 2": shape (Y, X), 0 or 1."""
    scores: Mapping[str, float]
    """Foreground IoU of this image by model; NaN is undefined."""
    caption: str = ""


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


@dataclass(frozen=True)
class Chart:
    """An inline SVG with its heading and a sentence on what it shows."""

    heading: str
    svg: Markup
    caption: str


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
    results = _frame(content.results, "results", ["subset", "metric", "value", "model"])
    images = _images(content.images)
    shown = next((s for s in reversed(SUBSETS) if (images["subset"] == s).any()), "")
    return _template().render(
        content=content,
        limit=ROWS_SHOWN,
        models=[model for model in MODELS if (results["model"] == model).any()],
        sizes=_sizes(content.results),
        scores=_scores(results),
        curves=_curves(_frame(content.log, "log", ["model", "step", "loss", "validation_iou"])),
        panels=_panels(content.panels),
        colours=pictures,
        unsure=any((panel.truth == pictures.UNSURE).any() for panel in content.panels),
        shown=shown,
        image_charts=_image_charts(images[images["subset"] == shown]),
        image_tables={
            s: _image_table(images[images["subset"] == s])
            for s in reversed(SUBSETS)
            if (images["subset"] == s).any()
        },
        conditions=_condition_scores(images[images["subset"] == shown]),
        **_audit(content.unlabelled, _labelled_share(images)),
    )


def write_report(content: ReportContent, path: Path) -> None:
    """Write the report (see `render`); a reader sees the whole file or none."""
    pictures.write_whole(Path(path), render(content).encode("utf-8"))


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("mitolume.study"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=_number, percent=_percent, count=_count, filled=_filled)
    return environment.get_template("report.html.j2")


# Numbers, names, scores ----------------------------------------------------------------------


def _number(value: float, digits: int = 3, signed: bool = False) -> str:
    """Write a number with fixed digits and a real minus sign; NaN reads "undefined"."""
    if not math.isfinite(value):
        return "undefined"
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if float(text) == 0:  # no sign for what rounds to zero
        text = text.lstrip("+-")
    return text.replace("-", "\N{MINUS SIGN}")


def _percent(value: float, digits: int = 1) -> str:
    return f"{_number(100 * value, digits)} %" if math.isfinite(value) else "undefined"


def _count(number: float, noun: str) -> str:
    if not math.isfinite(number):
        return f"unknown number of {noun}s"
    return f"{number:.0f} {noun}" + "s" * (number != 1)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _name(value: object) -> str:
    """Text of a name column: missing is empty, 3.0 is 3."""
    if not isinstance(value, str) and pd.isna(value):  # type: ignore[call-overload]
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _frame(table: pd.DataFrame, name: str, columns: Sequence[str]) -> pd.DataFrame:
    """Copy with these columns, models named as in `MODELS`, names as text."""
    missing = [column for column in columns if column not in table]
    if missing and len(table):
        raise ValueError(f"{name}: columns missing: {', '.join(missing)}")
    frame = table.reindex(columns=[*columns, *(n for n in NAMES if n not in columns)])
    frame = frame.reset_index(drop=True)
    for column in NAMES:
        frame[column] = [_name(value) for value in frame[column]]
    if "model" in columns:
        frame["model"] = [str(model).replace("_", " ") for model in frame["model"]]
        _check_known(f"{name}: model", frame["model"], MODELS)
    if "subset" in columns:
        _check_known(f"{name}: subset", frame["subset"], SUBSETS)
    return frame


def _check_known(what: str, values: Iterable[str], known: Sequence[str]) -> None:
    for strange in sorted(set(values) - set(known), key=str):
        raise ValueError(f"{what} {strange!r} is none of: {', '.join(known)}")


def _filled(frame: pd.DataFrame) -> list[str]:
    """Columns of names, but for the image, that say anything."""
    return [name for name in NAMES[1:] if any(frame[name])]


def _sizes(results: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Count images and specimens of each subset that has scores."""
    frame = _frame(results, "results", ["subset", "n_images", "n_specimens"])
    largest = frame.groupby("subset")[["n_images", "n_specimens"]].max().astype(float)
    return {s: tuple(largest.loc[s]) for s in SUBSETS if s in largest.index}


def _scores(results: pd.DataFrame) -> dict[tuple[str, str, str], float]:
    """Value by subset, metric and model."""
    keys = ["subset", "metric", "model"]
    for _, row in results[results.duplicated(keys)].iterrows():
        raise ValueError(f"results: several rows for {' '.join(row[keys])}; expected one run")
    return {tuple(row[:3]): float(row[3]) for row in results[[*keys, "value"]].to_numpy()}


# Charts --------------------------------------------------------------------------------------


def _axes(x_label: str, y_label: str, height: float = 3.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.8, height), layout="constrained")
    axes = figure.add_subplot(xlabel=x_label, ylabel=y_label)
    axes.locator_params(nbins=6)
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    return figure, axes


def _chart(figure: Figure, key: str, heading: str, caption: str) -> Chart:
    """Chart whose ids and styles do not reach beyond it; matplotlib has escaped its text."""
    buffer = StringIO()
    with warnings.catch_warnings():  # the reader's fonts draw what matplotlib's own lacks
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    root, body = svg[svg.index("<svg") :].split(">", 1)
    body = re.sub(r"<(metadata|style)\b.*?</\1>", "", body, count=2, flags=re.DOTALL)
    body = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{key}-", body)
    for written, wanted in _PAGE_COLOUR.items():
        body = body.replace(written, wanted)
    box = root.split('viewBox="', 1)[1].split('"', 1)[0]
    label = f"{heading}. {caption}"
    opening = Markup('<svg viewBox="{}" role="img" aria-label="{}">').format(box, label)
    return Chart(heading, opening + Markup(body), caption)


def _thinned(values: NDArray[Any], most: int = 2000) -> NDArray[Any]:
    """Keep at most this many rows, evenly spaced, so that the page stays small."""
    kept = np.linspace(0, len(values) - 1, min(most, len(values))).astype(int)
    return np.take(values, kept, axis=0)


@rc_context(_CHART_STYLE)
def _curves(log: pd.DataFrame) -> list[Chart]:
    """Loss and validation IoU against the step, where there is any."""
    charts = []
    for column, heading, y_label in (
        ("loss", "Training loss", "loss"),
        ("validation_iou", "Validation IoU", "IoU"),
    ):
        values = log[np.isfinite(log[column].astype(float))].sort_values("step")
        figure, axes = _axes("step", y_label)
        said = []
        for model, rows in values.groupby("model"):
            points = rows[["step", column]].to_numpy(float)
            bins = np.array_split(points, min(250, len(points)))
            line = np.array([part.mean(axis=0) for part in bins])
            size = 3.5 if len(line) <= 40 else 0
            axes.plot(*line.T, **_LINE[str(model)], markersize=size, linewidth=1.6)
            said.append(f"{str(model).capitalize()} ends at {_number(points[-1, 1])}")
            if column == "validation_iou":
                step, best = points[points[:, 1].argmax()]
                said[-1] += f", best {_number(best)} at step {step:.0f}"
        axes.grid(axis="y")
        if said:
            charts.append(
                _chart(figure, f"curve-{y_label.lower()}", heading, ". ".join(said) + ".")
            )
    return charts


def _strip(groups: Mapping[str, NDArray[Any]], x_label: str, colours: Sequence[str]) -> Figure:
    """Row of dots for each group, with a bar at the mean; call inside the chart style."""
    figure, axes = _axes(x_label, "", height=0.9 + 0.45 * len(groups))
    random = np.random.default_rng(0)
    for row, (values, colour) in enumerate(zip(groups.values(), colours, strict=True)):
        dots = _thinned(np.sort(values))
        y = row + random.uniform(-0.2, 0.2, dots.size)
        axes.plot(dots, y, "o", color=colour, markersize=4, alpha=0.55, markeredgewidth=0)
        axes.plot([values.mean()] * 2, [row - 0.36, row + 0.36], color=_INK, linewidth=1.8)
    labels = [name if len(name) <= 22 else f"{name[:21]}…" for name in groups]
    axes.set_yticks(range(len(groups)), labels, color=_INK, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    return figure


# Images --------------------------------------------------------------------------------------


def _images(table: pd.DataFrame) -> pd.DataFrame:
    """images.csv, counts as numbers, with the foreground share of the truth."""
    columns = [*NAMES[:-1], "model", "subset", *COUNTS, "iou"]
    frame = _frame(table, "images", columns).astype(dict.fromkeys([*COUNTS, "iou"], float))
    # Fields of one file may share all names; numbering them keeps each, in order, for both models.
    frame["copy"] = frame.groupby([*NAMES, "model", "subset"]).cumcount()
    frame["share"] = (frame["tp"] + frame["fn"]) / frame[COUNTS].sum(axis=1)
    return frame


def _image_table(images: pd.DataFrame) -> pd.DataFrame:
    """Row per image, a column of IoU per model, worst first (by the lower of the two)."""
    keys = [*NAMES, "copy"]
    wide = images.groupby(keys, sort=False)[["share"]].first()
    models = [model for model in MODELS if (images["model"] == model).any()]
    for model in models:
        of_model = images[images["model"] == model]
        wide[model] = of_model.set_index(keys)["iou"]
    wide["lowest"] = wide[models].min(axis=1)
    return wide.sort_values("lowest", kind="stable", na_position="last").reset_index()


@rc_context(_CHART_STYLE)
def _image_charts(images: pd.DataFrame) -> list[Chart]:
    """IoU of each image: a strip per model, and model 2 against model 1."""
    wide = _image_table(images)
    models = [model for model in MODELS if model in wide and wide[model].notna().any()]
    if not models:
        return []
    groups = {model.capitalize(): wide[model].dropna().to_numpy(float) for model in models}
    figure = _strip(groups, "foreground IoU of the image", [_LINE[m]["color"] for m in models])
    said = "One dot is one image; the bar marks the mean."
    charts = [_chart(figure, "strip-iou", "Spread over images", said)]
    if len(models) < 2 or (pairs := wide.dropna(subset=models)).empty:
        return charts
    figure, axes = _axes("IoU with model 1", "IoU with model 2", height=3.3)
    points = pairs[list(MODELS)].to_numpy(float)
    low, high = max(0.0, points.min() - 0.04), min(1.0, points.max() + 0.04)
    axes.plot([low, high], [low, high], **_DASHED)
    dots = _thinned(points)
    axes.plot(*dots.T, "o", color=_TWO, markersize=4.5, alpha=0.6, markeredgewidth=0)
    axes.text(0.03, 0.96, "better with model 2", transform=axes.transAxes, va="top", color=_QUIET)
    axes.text(0.97, 0.04, "worse with model 2", transform=axes.transAxes, ha="right", color=_QUIET)
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.grid()
    change = points[:, 1] - points[:, 0]
    said = (
        f"Model 2 scores higher than model 1 on {(change > 0).sum()} of "
        f"{_count(len(points), 'image')} and lower on {(change < 0).sum()}."
    )
    return [*charts, _chart(figure, "paired-iou", "Image by image", said)]


def _condition_scores(images: pd.DataFrame) -> list[dict[str, Any]]:
    """Pooled foreground IoU by condition and model; empty where no condition is given."""
    if not images["condition"].any():
        return []
    rows = []
    for condition, group in images.groupby("condition", sort=False):
        counts = group.groupby("model")[["tp", "fp", "fn"]].sum()
        iou = {model: _ratio(row["tp"], row.sum()) for model, row in counts.iterrows()}
        rows.append({"name": condition, "images": len(_image_table(group)), "iou": iou})
    return rows


def _labelled_share(images: pd.DataFrame) -> float:
    """Foreground share of the labelled training images, from the counts of one model."""
    train = images[images["subset"] == "train"]
    tp, fp, fn, tn = train.loc[train["model"] == train["model"].min(), COUNTS].sum()
    return _ratio(tp + fn, tp + fp + fn + tn)


# Panels --------------------------------------------------------------------------------------


def _panels(panels: Sequence[Panel]) -> list[tuple[Panel, list[dict[str, str]]]]:
    side = int(PICTURE_SIDE * min(1.0, math.sqrt(4 / max(1, len(panels)))))
    return [(panel, _shots(panel, side)) for panel in panels]


def _shots(panel: Panel, side: int) -> list[dict[str, str]]:
    """Pictures of a panel in pairs: image and truth, then outline and errors of each model."""
    grey = pictures.fit(pictures.to_8bit(panel.image), side, smooth=True)
    truth = pictures.overlay(panel.image, panel.truth, longer=side)
    shots = [("Image", "", grey), ("Truth", "hand label", truth)]
    _check_known("panel: model", panel.predictions, MODELS)
    for model in sorted(panel.predictions):
        name, mask = model.capitalize(), panel.predictions[model]
        outline = pictures.overlay(panel.image, mask, longer=side)
        errors = pictures.error_map(panel.image, panel.truth, mask, longer=side)
        iou = _number(panel.scores.get(model, math.nan))
        shots.append((name, f"IoU {iou}", outline))
        shots.append((f"{name}, errors", _error_shares(panel.truth, mask), errors))
    return [
        {
            "name": name,
            "note": note,
            "width": str(array.shape[1]),
            "height": str(array.shape[0]),
            "data": base64.b64encode(pictures.png_bytes(array)).decode("ascii"),
        }
        for name, note, array in shots
    ]


def _error_shares(truth: NDArray[np.uint8], mask: NDArray[np.uint8]) -> str:
    """Say how much was missed of the truth, and how much of what was marked is false."""
    wanted, found = truth == 1, (mask == 1) & (truth != pictures.UNSURE)
    missed = _ratio(float((wanted & ~found).sum()), float(wanted.sum()))
    false = _ratio(float((found & ~wanted).sum()), float(found.sum()))
    return f"missed {_percent(missed, 0)}, false {_percent(false, 0)}"


# Audit of pseudo-labels ----------------------------------------------------------------------


@rc_context(_CHART_STYLE)
def _audit(table: pd.DataFrame, labelled: float) -> dict[str, Any]:
    """Foreground share and confidence of pseudo-labels, the most conspicuous first."""
    numbers = ["foreground_share", "mean_confidence"]
    frame = _frame(table, "unlabelled", [*NAMES[:-1], *numbers])
    frame[numbers] = frame[numbers].astype(float)
    far = -(frame["foreground_share"] - labelled).abs()
    order = far if math.isfinite(labelled) else frame["mean_confidence"]
    named = frame["condition"].replace("", "not given" if frame["condition"].any() else "all")
    means = frame[numbers].groupby(named, sort=False).mean().assign(images=named.value_counts())
    shares = {
        str(condition): 100 * group.dropna().to_numpy(float)
        for condition, group in frame["foreground_share"].groupby(named, sort=False)
        if group.notna().any()
    }
    charts = []
    if shares:
        figure = _strip(shares, "foreground, % of the image", [_ONE] * len(shares))
        said = "One dot is one image; the bar marks the mean."
        if math.isfinite(labelled):
            figure.axes[0].axvline(100 * labelled, **_DASHED)
            said += " Dashed: the share in the hand-labelled training images."
        charts.append(_chart(figure, "strip-share", "Foreground share of pseudo-labels", said))
    return {
        "unlabelled": frame.loc[order.sort_values(kind="stable", na_position="first").index],
        "unlabelled_means": means.reset_index().to_dict("records"),
        "unlabelled_charts": charts,
        "labelled_share": labelled,
    }
