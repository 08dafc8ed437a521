"""Pictures side by side for a study's report: input, truth, each arm. Knows no page and no table.

They are what the published study shows, and what is left of the image browser on paper.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from mitolume.analysis.pictures import error_map, fit, overlay, to_8bit
from mitolume.report.browser import data_uri, open_scored
from mitolume.runs.folder import MODELS, Run
from mitolume.text import number

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


def example_panels(runs: Mapping[str, Run], images: pd.DataFrame, reference: str) -> list[Panel]:
    """Show the image on which the reference is worst, the middle one and the best.

    Parameters
    ----------
    runs, images, reference
        As for `mitolume.report.browser.browsed_images`.

    Returns
    -------
    list of Panel
        Up to three: the input, the truth outlined, and each arm's errors.
    """
    own = images[(images["run"] == runs[reference].path.name) & images["iou"].notna()]
    order = own.sort_values("iou", kind="stable")
    places = dict.fromkeys((0, len(order) // 2, len(order) - 1)) if len(order) else {}
    words = {0: "worst", len(order) - 1: "best"} if len(order) > 1 else {}
    panels = []
    for place in places:
        found = order.iloc[place]
        here = images[(images["line"] == found["line"]) & (images["plane"] == found["plane"])]
        image, plane, truth, masks = open_scored(runs, here)
        iou = here.set_index("run")["iou"]
        shots = [
            Shot("input", "", _grey(plane)),
            Shot("truth", "", overlay(plane, truth, longer=PANEL_SIDE)),
            *(
                Shot(arm, f"IoU {number(float(iou[runs[arm].path.name]))}",
                     error_map(plane, truth, mask, longer=PANEL_SIDE))
                for arm, mask in masks.items()
            ),
        ]  # fmt: skip
        panels.append(Panel(f"{image.name} ({words.get(place, 'middle')} with {reference})", shots))
    return panels


def audited_shots(run: Run, images: pd.DataFrame, share: float) -> list[Shot]:
    """Show the pseudo-labels that look least like the labels.

    Parameters
    ----------
    run
        A run with a model 2.
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
    shots = []
    for _, found in images.loc[order.sort_values(kind="stable").index].head(AUDITED).iterrows():
        image = run.image(int(found["line"]), int(found["plane"]))
        plane, _, _ = image.read()
        note = (
            f"{100 * found['foreground_share']:.1f} % marked, "
            f"confidence {number(found['mean_confidence'], 2)}"
        )
        if found["condition"]:
            note = f"{found['condition']}: {note}"
        mask = run.mask(MODELS[0], image)
        shots.append(Shot(image.name, note, overlay(plane, mask, longer=PANEL_SIDE)))
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
