"""A contact sheet of simulated fields: channels, mask, hand labels. Simulates nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mitolume.analysis.pictures import fit, overlay, to_8bit, write_png

MOST_ROWS = 6
SIDE = 300  # px of a picture at most
_GAP, _HEAD = 4, 18
_TITLES = (
    "transmitted light",
    "its exact mask",
    "mitochondria",
    "CellMask",
    "imitated hand labels",
)


def write_sheet(path: Path, fields: Sequence[tuple[str, Path]]) -> None:
    """Draw fields in rows, the same number of each condition as far as there is room.

    Parameters
    ----------
    path
        The PNG file.
    fields
        Name of each field and the folder of its data set. Shown is the plane with most
        mitochondria.
    """
    conditions: dict[str, list[tuple[str, Path]]] = {}
    for field in fields:
        conditions.setdefault(field[0].partition("_")[2], []).append(field)
    each = max(1, MOST_ROWS // len(conditions))
    chosen = [field for group in conditions.values() for field in group[:each]]
    write_png(path, np.concatenate([_row(name, folder) for name, folder in chosen]))


def _row(name: str, folder: Path) -> NDArray[np.uint8]:
    def read(kind: str) -> NDArray[Any]:
        pixels = tifffile.imread(folder / kind / f"{name}.ome.tif")
        return np.asarray(pixels).reshape(-1, *pixels.shape[-2:])

    masks, drawn, planes = read("masks"), read("hand_masks"), read("images")
    light, dye, membrane = planes.reshape(3, len(masks), *planes.shape[-2:])
    z = int(masks.sum(axis=(1, 2), dtype=np.int64).argmax())
    pictures = [
        _rgb(to_8bit(light[z])),
        overlay(light[z], masks[z], longer=SIDE),
        _rgb(to_8bit(dye[z])),
        _rgb(to_8bit(membrane[z])),
        overlay(light[z], drawn[z], longer=SIDE),
    ]
    height, width = pictures[1].shape[:2]
    row = np.full((_HEAD + height + _GAP, len(pictures) * (width + _GAP), 3), 255, np.uint8)
    canvas = Image.fromarray(row)
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(11)
    for number, (title, picture) in enumerate(zip(_TITLES, pictures, strict=True)):
        left = number * (width + _GAP)
        canvas.paste(Image.fromarray(picture), (left, _HEAD))
        text = f"{name}, plane {z}: {title}" if number == 0 else title
        pen.text((left + 2, 2), text, fill=(0, 0, 0), font=font)
    return np.asarray(canvas)


def _rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(fit(grey, SIDE, smooth=True))[..., None].repeat(3, axis=2)
