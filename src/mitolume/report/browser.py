"""The image browser of a study's report: pictures small enough for one page. Knows no page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from mitolume.analysis.pictures import fit, png_bytes, to_8bit
from mitolume.io.masks import Mask
from mitolume.io.read import Image2D
from mitolume.runs.folder import Run
from mitolume.runs.images import RowImage

MOST_IMAGES = 48
LONGEST_SIDE, SHORTEST_SIDE = 512, 128  # pixels of a picture
MOST_BYTES = 7_000_000  # of all pictures; base64 makes a third more of it
_SHRINK = 0.8

Entry = dict[str, Any]
Scored = tuple[RowImage, Image2D, Mask, dict[str, Mask]]  # see `open_scored`


def browsed_images(runs: Mapping[str, Run], images: pd.DataFrame, reference: str) -> list[Entry]:
    """Gather images, truth and each arm's mask.

    Parameters
    ----------
    runs
        The run of each arm, all of one seed and one budget.
    images
        Their rows of study_images.csv, of the models that stand for the arms, of one subset.
    reference
        Images are in the order of its IoU, worst first; of many, some evenly spaced are taken.

    Returns
    -------
    list of dict
        For each image ``name, specimen, condition, width, height, image, truth`` (data URIs),
        ``masks`` (arm: data URI) and ``scores`` (arm: iou, precision, recall, None where
        undefined). Masks are grey PNG: 0 background, 255 mitochondria, 128 unsure.
    """
    own = images[(images["run"] == runs[reference].path.name) & images["tp"].notna()]
    order = own.sort_values("iou", kind="stable", na_position="last")
    places = np.linspace(0, len(order) - 1, min(len(order), MOST_IMAGES)).round().astype(int)
    entries: list[Entry] = []
    room, side = MOST_BYTES, LONGEST_SIDE
    for left, place in zip(range(len(places), 0, -1), places, strict=True):
        found = order.iloc[place]
        here = images[(images["line"] == found["line"]) & (images["plane"] == found["plane"])]
        opened = open_scored(runs, here)
        # Images of one study are much alike: what fitted the last one is a good start.
        pictures, side = _fitting(opened, min(LONGEST_SIDE, round(side / _SHRINK)), room // left)
        room -= sum(map(len, pictures))
        shape = fit(np.zeros(opened[1].shape, np.uint8), side).shape
        arms = list(opened[3])
        entries.append(
            {
                "name": opened[0].name,
                "specimen": str(found["specimen"]),
                "condition": str(found["condition"]),
                "width": shape[1],
                "height": shape[0],
                "image": data_uri("jpeg", pictures[0]),
                "truth": data_uri("png", pictures[1]),
                "masks": {a: data_uri("png", p) for a, p in zip(arms, pictures[2:], strict=True)},
                "scores": {arm: _scores(here[here["run"] == runs[arm].path.name]) for arm in arms},
            }
        )
    return entries


def _fitting(opened: Scored, side: int, room: int) -> tuple[list[bytes], int]:
    """Make the pictures of one image as large as there is room for; return their side, too."""
    _, plane, truth, masks = opened
    while True:
        pictures = [_jpeg(plane, side), *(_mask_png(m, side) for m in (truth, *masks.values()))]
        if sum(map(len, pictures)) <= room or side <= SHORTEST_SIDE:
            return pictures, side
        side = max(SHORTEST_SIDE, int(side * _SHRINK))


def open_scored(runs: Mapping[str, Run], here: pd.DataFrame) -> Scored:
    """Read a labelled image, its truth, and the mask of each arm.

    Parameters
    ----------
    runs
        The run of each arm.
    here
        The rows of one image in study_images.csv.

    Returns
    -------
    RowImage, Image2D, Mask, dict
        The image, its plane, its truth and the mask of each arm, (Y, X).
    """
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


def data_uri(kind: str, data: bytes) -> str:
    """Return a picture as text that an HTML page can hold."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _scores(row: pd.DataFrame) -> dict[str, float | None]:
    tp, fp, fn = (float(row.iloc[0][name]) for name in ("tp", "fp", "fn"))
    pairs = {"iou": (tp, tp + fp + fn), "precision": (tp, tp + fp), "recall": (tp, tp + fn)}
    return {name: round(a / b, 4) if b else None for name, (a, b) in pairs.items()}


def _jpeg(plane: np.ndarray[Any, Any], side: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(fit(to_8bit(plane), side, smooth=True)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _mask_png(mask: np.ndarray[Any, Any], side: int) -> bytes:
    shades = np.array([0, 255, *[128] * 254], np.uint8)  # 1 is foreground, 255 unsure
    return png_bytes(shades[fit(np.asarray(mask, np.uint8), side)])
