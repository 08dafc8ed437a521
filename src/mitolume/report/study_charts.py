"""The charts of a study: arms with intervals, scores against labels. Knows no file and no page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from mitolume.report.charts import DASHED, INK, QUIET, STYLE, new_axes
from mitolume.study.evidence import Comparison
from mitolume.study.verdicts import HELPED, HINT, HURT

# Okabe and Ito (2008); marks differ as well, for readers in grey.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_MARKS = "osD^vPX*"


@rc_context(STYLE)
def comparison_figure(comparisons: Sequence[Comparison], labels: Sequence[str]) -> Figure:
    """Draw each difference to the reference with its interval, and what could have been seen.

    Parameters
    ----------
    comparisons
        At least one.
    labels
        How each is called.
    """
    figure, axes = new_axes(
        f"difference in foreground IoU to {comparisons[0].reference}",
        "",
        height=1.1 + 0.42 * len(comparisons),
    )
    axes.axvline(0, **DASHED)
    for y, one in enumerate(comparisons):
        if not np.isfinite(one.difference):
            continue
        told = one.verdict in (HELPED, HURT)
        if np.isfinite(one.detectable) and one.detectable < 1 and one.verdict != HINT:
            axes.plot([-one.detectable, one.detectable], [y, y], color=QUIET, alpha=0.25,
                      linewidth=9, solid_capstyle="butt")  # fmt: skip
        if np.isfinite(one.low):
            axes.plot([one.low, one.high], [y, y], color=INK, linewidth=2 if told else 1.1)
        axes.plot(one.difference, y, "o", color=INK, markersize=6, mfc=INK if told else "white")
    axes.set_yticks(range(len(labels)), labels, color=INK, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, -1), min(high, 1))  # an IoU can't differ by more
    axes.grid(axis="x")
    return figure


@rc_context(STYLE)
def curve_figure(points: pd.DataFrame) -> Figure:
    """Draw the score of each arm against the number of labelled images, with intervals.

    Parameters
    ----------
    points
        Of `mitolume.study.evidence.LabelCurve`.
    """
    figure, axes = new_axes("labelled images", "foreground IoU", height=3.4)
    arms = list(dict.fromkeys(points["arm"]))
    for number, arm in enumerate(arms):
        own = points[points["arm"] == arm].sort_values("k")
        colour, mark = _COLOURS[number % len(_COLOURS)], _MARKS[number % len(_MARKS)]
        shifted = own["k"] * 1.03 ** (number - (len(arms) - 1) / 2)  # so that bars lie apart
        axes.plot(shifted, own["score"], marker=mark, color=colour, linewidth=1.6, label=arm)
        bars = own["high"].notna().to_numpy()
        axes.vlines(shifted[bars], own["low"][bars], own["high"][bars], color=colour, alpha=0.6)
    ticks = sorted(set(points["k"]))
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(k) for k in ticks])
    axes.minorticks_off()
    axes.grid(axis="y")
    axes.legend(frameon=False, fontsize=9)
    return figure
