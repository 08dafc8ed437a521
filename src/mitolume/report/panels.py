"""Pictures for the pages: masks beside their images, and the image browser of a study."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from mitolume.analysis.metrics import Counts, count, iou, precision, recall
from mitolume.analysis.pictures import error_map, fit, overlay, png_bytes, to_8bit, with_bar
from mitolume.io.masks import UNSURE, Mask
from mitolume.io.read import Image2D
from mitolume.io.split import spread
from mitolume.runs.folder import Run
from mitolume.text import number, percent, short_names

LARGE, SMALL = 640, 320  # pixels of the longer side of a picture
MOST_BROWSED = 48  # images in the browser
LONGEST_SIDE = 512  # pixels of a picture in the browser, less where there are many
MOST_BYTES = 7_000_000  # of all pictures in the browser, about; base64 adds a third
_BYTES_PER_PIXEL = 0.5, 0.03  # of an image as JPEG and of a mask as PNG, about


@dataclass(frozen=True, eq=False)
class PagePicture:
    """One picture and the words under it."""

    title: str
    note: str
    pixels: NDArray[np.uint8]
    """(Y, X) grey or (Y, X, 3) red, green, blue."""

    @property
    def png(self) -> str:
        """The picture without loss, as a data URI."""
        return _png(self.pixels)

    @property
    def jpeg(self) -> str:
        """The picture in some 10 kB, as a data URI."""
        return _jpeg(self.pixels, 75)


@dataclass(frozen=True, eq=False)
class Panel:
    """Pictures of one image: the image, its truth, and what models or arms made of it."""

    title: str
    """Why it is shown: worst, median or best."""
    image: str
    """The name of the image."""
    pictures: Sequence[PagePicture]
    caption: str = ""
    has_unsure: bool = False
    """Whether the truth has pixels that are not scored."""


def extremes(order: pd.DataFrame) -> dict[str, pd.Series[Any]]:
    """Choose the "worst", "median" and "best" row of a table that is sorted so.

    Of two rows, the first is "worst and median".

    Examples
    --------
    >>> list(extremes(pd.DataFrame({"iou": [0.5]})))
    ['worst, median and best']
    """
    titles: dict[int, str] = {}
    if len(order):
        places = {"worst": 0, "median": (len(order) - 1) // 2, "best": len(order) - 1}
        for title, place in places.items():
            before = titles[place].replace(" and ", ", ") + " and " if place in titles else ""
            titles[place] = before + title
    return {title: order.iloc[place] for place, title in titles.items()}


def model_panel(
    title: str,
    image: str,
    plane: NDArray[Any],
    truth: Mask,
    masks: Mapping[str, Mask],
    caption: str = "",
    size_um: tuple[float, float] | None = None,
) -> Panel:
    """Show one image in pairs: the image and its truth, the outline and the errors of each model.

    Plane and masks are (Y, X); the truth has 255 where it is unsure.
    """
    width_um = size_um and size_um[1] * plane.shape[1]
    pictures = [
        PagePicture("Image", "", with_bar(fit(to_8bit(plane), LARGE, smooth=True), width_um)),
        PagePicture("Truth", "the given mask", overlay(plane, truth, longer=LARGE)),
    ]
    for model, mask in masks.items():
        name, counts = model.capitalize(), count(mask, truth)
        missed, false = 1 - recall(counts), 1 - precision(counts)
        shares = f"missed {percent(missed, 0)}, false {percent(false, 0)}"
        outline = overlay(plane, mask, longer=LARGE)
        errors = error_map(plane, truth, mask, longer=LARGE)
        pictures.append(PagePicture(name, f"IoU {number(iou(counts))}", outline))
        pictures.append(PagePicture(f"{name}, errors", shares, errors))
    return Panel(title, image, pictures, caption, bool((truth == UNSURE).any()))


# Pictures of a study -----------------------------------------------------------------------------


class ArmPictures:
    """The labelled images that all arms of a study were scored on, worst first.

    ``runs`` are one of each arm, all of one seed and one budget; ``images`` their rows of
    study_images.csv, of one subset and of the models that stand for the arms. ``reference`` is the
    arm whose IoU orders the images.
    """

    def __init__(self, runs: Mapping[str, Run], images: pd.DataFrame, reference: str) -> None:
        self.runs, self.images, self.reference = runs, images, reference
        own = images[(images["run"] == runs[reference].path.name) & images["tp"].notna()]
        self._order = own.sort_values("iou", kind="stable", na_position="last")

    def panels(self) -> list[Panel]:
        """Show each arm's errors on the worst, the median and the best image, as far as defined."""
        panels = []
        for title, row in extremes(self._order[self._order["iou"].notna()]).items():
            name, plane, truth, masks, width = self._open(row)
            pictures = [
                PagePicture("image", "", with_bar(fit(to_8bit(plane), SMALL, smooth=True), width)),
                PagePicture("truth", "", overlay(plane, truth, longer=SMALL)),
            ]
            for arm, mask in masks.items():
                errors = error_map(plane, truth, mask, longer=SMALL)
                note = f"IoU {number(iou(count(mask, truth)))}"
                pictures.append(PagePicture(arm, note, errors))
            panels.append(Panel(f"{title} with {self.reference}", name, pictures))
        return panels

    def browsed(self) -> list[dict[str, Any]]:
        """Gather images, truth and each arm's mask, small enough for one page.

        Of many images, some evenly spaced ones are taken.

        Returns
        -------
        list of dict
            For each image ``name, specimen, condition, width, height, image, truth`` (data URIs),
            ``masks`` (arm: data URI) and ``scores`` (arm: iou, precision, recall, None where
            undefined). Masks are grey PNG: 0 background, 255 mitochondria, 128 unsure.
        """
        n = min(len(self._order), MOST_BROWSED)
        of_image, of_mask = _BYTES_PER_PIXEL
        pixels = MOST_BYTES / max(n, 1) / (of_image + of_mask * (1 + len(self.runs)))
        side = min(LONGEST_SIDE, int(math.sqrt(pixels)))
        entries: list[dict[str, Any]] = []
        for place in spread(range(len(self._order)), MOST_BROWSED):
            row = self._order.iloc[place]
            name, plane, truth, masks, width_um = self._open(row)
            grey = with_bar(fit(to_8bit(plane), side, smooth=True), width_um)
            entries.append(
                {
                    "name": name,
                    "specimen": str(row["specimen"]),
                    "condition": str(row["condition"]),
                    "width": grey.shape[1],
                    "height": grey.shape[0],
                    "image": _jpeg(grey, 85),
                    "truth": _mask_png(truth, side),
                    "masks": {arm: _mask_png(mask, side) for arm, mask in masks.items()},
                    "scores": {arm: _scores(count(mask, truth)) for arm, mask in masks.items()},
                }
            )
        return entries

    def _open(
        self, row: pd.Series[Any]
    ) -> tuple[str, Image2D, Mask, dict[str, Mask], float | None]:
        """Read an image: its name, plane, truth, each arm's mask (Y, X), and its width in µm."""
        line, z = int(row["line"]), int(row["plane"])
        here = self.images[(self.images["line"] == line) & (self.images["plane"] == z)]
        models = dict(zip(here["run"], here["model"], strict=True))
        image = self.runs[self.reference].image(line, z)
        plane, truth, size = image.read()
        assert truth is not None
        masks = {
            arm: run.mask(models[run.path.name], run.image(line, z))
            for arm, run in self.runs.items()
            if run.path.name in models
        }
        name = image.called(short_names(self.images["image"]))
        return name, plane, truth, masks, size and size[1] * plane.shape[1]


def panel_figure(panels: Sequence[Panel]) -> Figure:
    """Put panels into one figure, a row for each, to be saved as a file."""
    columns = max(len(panel.pictures) for panel in panels)
    figure = Figure(figsize=(2.2 * columns, 2.6 * len(panels)), layout="constrained")
    grid = figure.subplots(len(panels), columns, squeeze=False)
    for one in grid.flat:
        one.set_axis_off()
    for axes, panel in zip(grid, panels, strict=True):
        for one, picture in zip(axes, panel.pictures, strict=False):
            one.imshow(picture.pixels, interpolation="nearest", cmap="gray", vmin=0, vmax=255)
            title = f"{picture.title}\n{picture.note}".strip()
            one.set_title(title, fontsize=8, parse_math=False)
    return figure


def _scores(counts: Counts) -> dict[str, float | None]:
    scores = {"iou": iou(counts), "precision": precision(counts), "recall": recall(counts)}
    return {name: None if math.isnan(x) else round(x, 4) for name, x in scores.items()}


def _jpeg(pixels: NDArray[np.uint8], quality: int) -> str:
    buffer = io.BytesIO()
    # Colours at full resolution: they are thin outlines and single pixels.
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _png(pixels: NDArray[np.uint8]) -> str:
    return "data:image/png;base64," + base64.b64encode(png_bytes(pixels)).decode("ascii")


def _mask_png(mask: Mask, side: int) -> str:
    shades = np.array([0, 255, *[128] * 254], np.uint8)  # 1 is foreground, 255 unsure
    return _png(shades[fit(np.asarray(mask, np.uint8), side)])
