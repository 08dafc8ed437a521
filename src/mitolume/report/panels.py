"""Pictures for the pages: masks beside their images, and the image browser of a study."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from mitolume.analysis.metrics import Counts, count, precision, recall
from mitolume.analysis.pictures import error_map, fit, overlay, png_bytes, to_8bit
from mitolume.io.masks import UNSURE, Mask
from mitolume.io.read import Image2D
from mitolume.runs.folder import MODELS, Run
from mitolume.runs.images import RowImage
from mitolume.text import number, percent

LARGE, SMALL = 640, 320  # pixels of the longer side of a picture
MOST_PSEUDO_LABELS = 6  # pictures of pseudo-labels on a page
MOST_BROWSED = 48  # images in the browser
LONGEST_SIDE, SHORTEST_SIDE = 512, 128  # pixels of a picture in the browser
MOST_BYTES = 7_000_000  # of all pictures in the browser; base64 adds a third
_SHRINK = 0.8  # of the side, until the pictures in the browser fit
_MOST_JPEG_BYTES = 40_000  # of a picture; noisy ones lose quality


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
        return data_uri("png", png_bytes(self.pixels))

    @property
    def jpeg(self) -> str:
        """The picture in at most about 40 kB, as a data URI."""
        for quality in (85, 70, 50, 30):
            # Colours at full resolution: they are thin outlines and single pixels.
            data = _jpeg_bytes(self.pixels, quality, subsampling=0)
            if len(data) <= _MOST_JPEG_BYTES:
                break
        return data_uri("jpeg", data)


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
    """Choose rows of a table that is sorted from worst to best.

    Returns
    -------
    dict
        The first, the middle and the last row by "worst", "median" and "best". Of two rows, the
        first is "worst and median"; the only row is "worst and median and best".
    """
    titles: dict[int, str] = {}
    if len(order):
        places = {"worst": 0, "median": (len(order) - 1) // 2, "best": len(order) - 1}
        for title, place in places.items():
            titles[place] = f"{titles[place]} and {title}" if place in titles else title
    return {title: order.iloc[place] for place, title in titles.items()}


def model_panel(
    title: str,
    image: str,
    plane: NDArray[Any],
    truth: Mask,
    masks: Mapping[str, Mask],
    iou: Mapping[str, float],
    caption: str = "",
) -> Panel:
    """Show one image in pairs: the image and its truth, the outline and the errors of each model.

    Parameters
    ----------
    title
        Why the image is shown.
    image
        Its name.
    plane
        (Y, X), raw values.
    truth
        (Y, X): 0 background, 1 mitochondria, 255 unsure.
    masks
        The mask of each model by its name, such as "model 1": (Y, X), 0 or 1.
    iou
        The foreground IoU of each model on this image; NaN where undefined.
    caption
        A line under the name of the image.
    """
    pictures = [
        PagePicture("Image", "", fit(to_8bit(plane), LARGE, smooth=True)),
        PagePicture("Truth", "the given mask", overlay(plane, truth, longer=LARGE)),
    ]
    for model, mask in masks.items():
        name = model.capitalize()
        outline = overlay(plane, mask, longer=LARGE)
        errors = error_map(plane, truth, mask, longer=LARGE)
        pictures.append(PagePicture(name, f"IoU {number(iou[model])}", outline))
        pictures.append(PagePicture(f"{name}, errors", _error_shares(count(mask, truth)), errors))
    return Panel(title, image, pictures, caption, bool((truth == UNSURE).any()))


def _error_shares(counts: Counts) -> str:
    """Say how much of the truth was missed, and how much of what was marked is false."""
    missed, false = 1 - recall(counts), 1 - precision(counts)
    return f"missed {percent(missed, 0)}, false {percent(false, 0)}"


def arm_panels(runs: Mapping[str, Run], images: pd.DataFrame, reference: str) -> list[Panel]:
    """Show the errors of each arm on the worst, the median and the best image of the reference.

    Parameters
    ----------
    runs
        The run of each arm, all of one seed and one budget.
    images
        Their rows of study_images.csv, of one subset and of the models that stand for the arms.
    reference
        The arm whose IoU orders the images.

    Returns
    -------
    list of Panel
        Up to three: the image, the truth outlined, and each arm's errors.
    """
    own = images[(images["run"] == runs[reference].path.name) & images["iou"].notna()]
    panels = []
    for title, row in extremes(own.sort_values("iou", kind="stable")).items():
        here = _rows_of(images, row)
        image, plane, truth, masks = _open_scored(runs, here)
        iou = here.set_index("run")["iou"]
        pictures = [
            PagePicture("image", "", fit(to_8bit(plane), SMALL, smooth=True)),
            PagePicture("truth", "", overlay(plane, truth, longer=SMALL)),
        ]
        for arm, mask in masks.items():
            errors = error_map(plane, truth, mask, longer=SMALL)
            pictures.append(PagePicture(arm, f"IoU {number(iou[runs[arm].path.name])}", errors))
        panels.append(Panel(f"{title} with {reference}", image.name, pictures))
    return panels


def outlined(run: Run, rows: Iterable[tuple[Any, str]]) -> list[PagePicture]:
    """Show unlabelled images with the outline of the mask of model 1.

    Parameters
    ----------
    run
        A finished run.
    rows
        A row of a table of images, with ``line`` and ``plane``, and a note, for each picture.
    """
    pictures = []
    for row, note in rows:
        image = run.image(int(row["line"]), int(row["plane"]))
        plane, _, _ = image.read()
        drawn = overlay(plane, run.mask(MODELS[0], image), longer=SMALL)
        pictures.append(PagePicture(image.name, note, drawn))
    return pictures


def panel_figure(panels: Sequence[Panel]) -> Figure:
    """Put panels into one figure, a row for each, to be saved as a file."""
    columns = max(len(panel.pictures) for panel in panels)
    figure = Figure(figsize=(2.2 * columns, 2.6 * len(panels)), layout="constrained")
    grid = figure.subplots(len(panels), columns, squeeze=False)
    for axes, panel in zip(grid, panels, strict=True):
        for one in axes:
            one.set_axis_off()
        for one, picture in zip(axes, panel.pictures, strict=False):
            one.imshow(picture.pixels, interpolation="nearest", cmap="gray", vmin=0, vmax=255)
            title = f"{picture.title}\n{picture.note}".strip()
            one.set_title(title, fontsize=8, parse_math=False)
    return figure


# The image browser -------------------------------------------------------------------------------


def browsed_images(
    runs: Mapping[str, Run], images: pd.DataFrame, reference: str
) -> list[dict[str, Any]]:
    """Gather images, truth and each arm's mask, small enough for one page.

    Parameters
    ----------
    runs, images
        As for `arm_panels`.
    reference
        The arm whose IoU orders the images, worst first; of many, some evenly spaced are taken.

    Returns
    -------
    list of dict
        For each image ``name, specimen, condition, width, height, image, truth`` (data URIs),
        ``masks`` (arm: data URI) and ``scores`` (arm: iou, precision, recall, None where
        undefined). Masks are grey PNG: 0 background, 255 mitochondria, 128 unsure.
    """
    own = images[(images["run"] == runs[reference].path.name) & images["tp"].notna()]
    order = own.sort_values("iou", kind="stable", na_position="last")
    places = np.linspace(0, len(order) - 1, min(len(order), MOST_BROWSED)).round().astype(int)
    entries: list[dict[str, Any]] = []
    room, side = MOST_BYTES, LONGEST_SIDE
    for left, place in zip(range(len(places), 0, -1), places, strict=True):
        row = order.iloc[place]
        here = _rows_of(images, row)
        image, plane, truth, masks = _open_scored(runs, here)
        # Images of one study are much alike: what fitted the last one is a good start.
        start = min(LONGEST_SIDE, round(side / _SHRINK))
        (jpeg, *pngs), side = _fitting(plane, [truth, *masks.values()], start, room // left)
        room -= sum(map(len, (jpeg, *pngs)))
        height, width = fit(np.zeros(plane.shape, np.uint8), side).shape
        entries.append(
            {
                "name": image.name,
                "specimen": str(row["specimen"]),
                "condition": str(row["condition"]),
                "width": width,
                "height": height,
                "image": data_uri("jpeg", jpeg),
                "truth": data_uri("png", pngs[0]),
                "masks": {a: data_uri("png", p) for a, p in zip(masks, pngs[1:], strict=True)},
                "scores": {arm: _scores(here[here["run"] == runs[arm].path.name]) for arm in masks},
            }
        )
    return entries


def _fitting(
    plane: Image2D, masks: Sequence[Mask], side: int, room: int
) -> tuple[list[bytes], int]:
    """Make the pictures of one image as large as there is room for; return their side, too."""
    while True:
        grey = fit(to_8bit(plane), side, smooth=True)
        pictures = [_jpeg_bytes(grey, 85), *(_mask_png(mask, side) for mask in masks)]
        if sum(map(len, pictures)) <= room or side <= SHORTEST_SIDE:
            return pictures, side
        side = max(SHORTEST_SIDE, int(side * _SHRINK))


def _open_scored(
    runs: Mapping[str, Run], here: pd.DataFrame
) -> tuple[RowImage, Image2D, Mask, dict[str, Mask]]:
    """Read a labelled image, its plane, its truth and the mask of each arm, all (Y, X)."""
    line, z = int(here.iloc[0]["line"]), int(here.iloc[0]["plane"])
    image = next(iter(runs.values())).image(line, z)
    plane, truth, _ = image.read()
    assert truth is not None
    masks = {}
    for arm, run in runs.items():
        of_arm = here[here["run"] == run.path.name]
        if len(of_arm):
            masks[arm] = run.mask(of_arm.iloc[0]["model"], run.image(line, z))
    return image, plane, truth, masks


def _rows_of(images: pd.DataFrame, row: pd.Series[Any]) -> pd.DataFrame:
    """Rows of the image of a row, of all runs."""
    here: pd.DataFrame = images[(images["line"] == row["line"]) & (images["plane"] == row["plane"])]
    return here


def _scores(row: pd.DataFrame) -> dict[str, float | None]:
    tp, fp, fn = (float(row.iloc[0][name]) for name in ("tp", "fp", "fn"))
    pairs = {"iou": (tp, tp + fp + fn), "precision": (tp, tp + fp), "recall": (tp, tp + fn)}
    return {name: round(a / b, 4) if b else None for name, (a, b) in pairs.items()}


# Encoding ----------------------------------------------------------------------------------------


def data_uri(kind: str, data: bytes) -> str:
    """Return a picture as text that an HTML page can hold."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _jpeg_bytes(pixels: NDArray[np.uint8], quality: int, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, **options)
    return buffer.getvalue()


def _mask_png(mask: Mask, side: int) -> bytes:
    shades = np.array([0, 255, *[128] * 254], np.uint8)  # 1 is foreground, 255 unsure
    return png_bytes(shades[fit(np.asarray(mask, np.uint8), side)])
