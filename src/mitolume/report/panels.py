"""Pictures side by side for a study's report: input, truth, each arm. Knows no page and no table.

They are what the published study shows, and what is left of the image browser on paper.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from mitolume.analysis.pictures import error_map, fit, overlay, to_8bit
from mitolume.io.fields import read_table, row_names
from mitolume.io.masks import MaskKind
from mitolume.report.browser import data_uri, open_scored, shown_name
from mitolume.report.run_content import saved_mask
from mitolume.report.run_tables import number
from mitolume.run.images import RowImage

PANEL_SIDE = 288  # pixels
AUDITED = 6  # pseudo-labels that are shown
_MOST_BYTES = 40_000  # of a picture; noisy ones lose quality

Picture = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Shot:
    """One picture and the words under it."""

    title: str
    note: str
    picture: Picture
    """(Y, X, 3) uint8."""

    @property
    def uri(self) -> str:
        """The picture as text that an HTML page can hold."""
        for quality in (85, 70, 50, 30):
            buffer = io.BytesIO()
            # Colours at full size: they are thin outlines and single pixels.
            Image.fromarray(self.picture).save(buffer, "JPEG", quality=quality, subsampling=0)
            if buffer.tell() <= _MOST_BYTES:
                break
        return data_uri("jpeg", buffer.getvalue())


@dataclass(frozen=True)
class Panel:
    """One image with the truth and the errors of each arm."""

    title: str
    shots: Sequence[Shot]


def example_panels(
    runs: Mapping[str, Path], images: pd.DataFrame, reference: str, mask_kind: MaskKind
) -> list[Panel]:
    """Show the image on which the reference is worst, the middle one and the best.

    Parameters
    ----------
    runs, images, reference, mask_kind
        As for `mitolume.report.browser.browsed_images`.

    Returns
    -------
    list of Panel
        Up to three: the input, the truth outlined, and each arm's errors.
    """
    own = images[(images["run"] == runs[reference].name) & images["iou"].notna()]
    order = own.sort_values("iou", kind="stable")
    places = dict.fromkeys((0, len(order) // 2, len(order) - 1)) if len(order) else {}
    rows = read_table(runs[reference] / "fields.csv")
    names = row_names(rows)
    words = {0: "worst", len(order) - 1: "best"} if len(order) > 1 else {}
    panels = []
    for place in places:
        found = order.iloc[place]
        line, z = int(found["line"]) - 2, int(found["plane"])
        here = images[(images["line"] == found["line"]) & (images["plane"] == z)]
        plane, truth, masks = open_scored(runs, here, rows[line], names[line], mask_kind)
        iou = here.assign(arm=here["run"]).set_index("arm")["iou"]
        shots = [
            Shot("input", "", _grey(plane)),
            Shot("truth", "", overlay(plane, truth, longer=PANEL_SIDE)),
            *(
                Shot(arm, f"IoU {number(float(iou[runs[arm].name]))}",
                     error_map(plane, truth, mask, longer=PANEL_SIDE))
                for arm, mask in masks.items()
            ),
        ]  # fmt: skip
        rank = words.get(place, "middle")
        panels.append(Panel(f"{shown_name(rows[line], z)} ({rank} with {reference})", shots))
    return panels


def audited_shots(run: Path, images: pd.DataFrame, share: float) -> list[Shot]:
    """Show the pseudo-labels that look least like the labels.

    Parameters
    ----------
    run
        A run folder with a model 2.
    images
        Its rows of unlabelled images, of model 1.
    share
        Of mitochondria in the labelled training images; pseudo-labels with another share come
        first. If NaN, those that model 1 is least sure of do.

    Returns
    -------
    list of Shot
        Up to `AUDITED`, the mask of model 1 outlined.
    """
    far = -(images["foreground_share"] - share).abs()
    order = far if np.isfinite(share) else images["mean_confidence"]
    rows = read_table(run / "fields.csv")
    names = row_names(rows)
    shots = []
    for _, found in images.loc[order.sort_values(kind="stable").index].head(AUDITED).iterrows():
        line, z = int(found["line"]) - 2, int(found["plane"])
        plane, _, _ = RowImage(rows[line], z, "auto").read()
        mask = saved_mask(run / "masks" / "model_1", rows[line], names[line], z)
        note = (
            f"{100 * found['foreground_share']:.1f} % marked, "
            f"confidence {number(found['mean_confidence'], 2)}"
        )
        if found["condition"]:
            note = f"{found['condition']}: {note}"
        picture = overlay(plane, mask, longer=PANEL_SIDE)
        shots.append(Shot(shown_name(rows[line], z), note, picture))
    return shots


def panel_figure(panels: Sequence[Panel]) -> Figure:
    """Put panels into one figure, a row for each, to be saved as a file."""
    columns = max(len(panel.shots) for panel in panels)
    figure = Figure(figsize=(2.2 * columns, 2.6 * len(panels)), layout="constrained")
    grid = figure.subplots(len(panels), columns, squeeze=False)
    for axes, panel in zip(grid, panels, strict=True):
        for one in axes:
            one.set_axis_off()
        for one, shot in zip(axes, panel.shots, strict=False):
            one.imshow(shot.picture, interpolation="nearest")
            title = f"{shot.title}\n{shot.note}".strip()
            one.set_title(title, fontsize=8, parse_math=False)
    return figure


def _grey(plane: Picture) -> Picture:
    return fit(to_8bit(plane), PANEL_SIDE, smooth=True)[..., None].repeat(3, axis=2)
