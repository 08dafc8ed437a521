"""A contact sheet of simulated fields: channels, mask, hand labels. Simulates nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mitolume.analysis.pictures import Limits, fit, overlay, to_8bit, write_png

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


@dataclass(frozen=True)
class _Plane:
    """What is shown of a field; ``channels`` (C, Y, X)."""

    name: str
    z: int
    channels: NDArray[np.uint16]
    mask: NDArray[np.uint8]
    drawn: NDArray[np.uint8]


def write_sheet(path: Path, fields: Sequence[tuple[str, Path]]) -> None:
    """Draw fields in rows, the same number of each condition as far as there is room.

    Shown is the plane at the middle of the mitochondria. A channel has the same contrast in all
    rows, so that treatments that dim a dye show.

    Parameters
    ----------
    path
        The PNG file.
    fields
        Name of each field and the folder of its data set.
    """
    conditions: dict[str, list[tuple[str, Path]]] = {}
    for field in fields:
        conditions.setdefault(field[0].partition("_")[2], []).append(field)
    each = max(1, MOST_ROWS // len(conditions))
    planes = [_read(*field) for group in conditions.values() for field in group[:each]]
    limits = [_limits([plane.channels[c] for plane in planes]) for c in range(3)]
    write_png(path, np.concatenate([_row(plane, limits) for plane in planes]))


def _read(name: str, folder: Path) -> _Plane:
    def stack(kind: str) -> NDArray[Any]:
        pixels = np.asarray(tifffile.imread(folder / kind / f"{name}.ome.tif"))
        return pixels.reshape(-1, *pixels.shape[-2:])

    masks, drawn, images = stack("masks"), stack("hand_masks"), stack("images")
    z = len(masks) // 2
    return _Plane(
        name, z, images.reshape(3, len(masks), *masks.shape[1:])[:, z], masks[z], drawn[z]
    )


def _limits(images: Sequence[NDArray[np.uint16]]) -> Limits:
    low, high = np.percentile(np.concatenate([image.ravel() for image in images]), [0.5, 99.5])
    return float(low), float(high)


def _row(plane: _Plane, limits: Sequence[Limits]) -> NDArray[np.uint8]:
    light, dye, membrane = (
        fit(to_8bit(image, limit), SIDE, smooth=True)[..., None].repeat(3, axis=2)
        for image, limit in zip(plane.channels, limits, strict=True)
    )
    outlined, by_hand = (
        overlay(plane.channels[0], mask, longer=SIDE, limits=limits[0])
        for mask in (plane.mask, plane.drawn)
    )
    pictures = (light, outlined, dye, membrane, by_hand)
    height, width = outlined.shape[:2]
    row = np.full((_HEAD + height + _GAP, len(pictures) * (width + _GAP), 3), 255, np.uint8)
    canvas = Image.fromarray(row)
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(11)
    for number, (title, picture) in enumerate(zip(_TITLES, pictures, strict=True)):
        left = number * (width + _GAP)
        canvas.paste(Image.fromarray(picture), (left, _HEAD))
        text = f"{plane.name}, plane {plane.z}: {title}" if number == 0 else title
        pen.text((left + 2, 2), text, fill=(0, 0, 0), font=font)
    return np.asarray(canvas)
