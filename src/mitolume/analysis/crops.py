"""Single mitochondria cut out of an image, and a contact sheet of them.

Pixel values are those of the image: nothing is scaled, resampled or converted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from PIL import Image, ImageDraw
from scipy import ndimage

from mitolume.analysis.pictures import OUTLINE_COLOUR, with_bar

Box = tuple[slice, slice, slice]

_CELL = 96  # side of a picture on the contact sheet, px
_COLUMNS = 12
MOST = 240  # pictures on a contact sheet


@dataclass(frozen=True)
class Crop:
    """One mitochondrion.

    ``pixels`` has dims ``C Z Y X``; ``inside`` (Z, Y, X) is True on the object; ``box`` says
    where in the image it lies.
    """

    label: int
    box: Box
    pixels: xr.DataArray
    inside: np.ndarray[Any, np.dtype[np.bool_]]


def crop_box(
    box: Sequence[int], margin_um: float, pixel_size_um: dict[str, float], shape: Sequence[int]
) -> Box:
    """Return the box of a crop: an object's box with a margin, cut at the image's edges.

    Parameters
    ----------
    box
        ``z0 z1 y0 y1 x0 x1`` of the object, half-open, px.
    margin_um
        In µm; along an axis whose pixel size is unknown, that many pixels.
    pixel_size_um
        ``Z Y X`` to µm, where known.
    shape
        (Z, Y, X) of the image.

    Examples
    --------
    >>> crop_box((0, 1, 10, 20, 0, 5), 0.2, {"Y": 0.1, "X": 0.1}, (1, 50, 50))
    (slice(0, 1, None), slice(8, 22, None), slice(0, 7, None))
    """
    spans = []
    for number, axis in enumerate("ZYX"):
        margin = int(np.ceil(margin_um / pixel_size_um.get(axis, 1.0) - 1e-9))
        start, stop = int(box[2 * number]), int(box[2 * number + 1])
        spans.append(slice(max(start - margin, 0), min(stop + margin, shape[number])))
    return spans[0], spans[1], spans[2]


def cut(
    image: xr.DataArray,
    labels: np.ndarray[Any, Any],
    label: int,
    box: Box,
    origin: Sequence[int] = (0, 0, 0),
) -> Crop:
    """Cut one object out of an image.

    Parameters
    ----------
    image
        Dims ``C Z Y X``: the image, or a window of it.
    labels
        (Z, Y, X), the same window of the label image. A single plane stands for every plane of
        the image.
    label
        Which object.
    box
        What to cut, in the whole image's pixels.
    origin
        Where the window begins in the whole image (Z, Y, X).

    Returns
    -------
    Crop
        Values and dtype as in the image, channels and pixel size kept.
    """
    z, y, x = (
        slice(part.start - start, part.stop - start)
        for part, start in zip(box, origin, strict=True)
    )
    if len(labels) == 1:  # on a z-stack every plane of the stack is kept
        z = slice(None)
    part = image[:, z, y, x]
    inside = np.broadcast_to(labels[z, y, x] == label, part.shape[1:])
    return Crop(label, box, part.copy(), inside)


def contact_sheet(crops: Sequence[Crop], channel: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Draw a channel of crops side by side, all at one scale, with their outlines and numbers.

    Of a stack, the plane in which the object is largest; of many crops, the first `MOST`. The sheet
    is (Y, X, 3) uint8.
    """
    chosen = crops[:MOST]
    planes = [int(c.inside.sum(axis=(1, 2)).argmax()) for c in chosen]
    flat = [
        np.asarray(c.pixels[channel, z], np.float64) for c, z in zip(chosen, planes, strict=True)
    ]
    low, high = np.percentile(np.concatenate([f.ravel() for f in flat]), [0.5, 99.8])
    # The largest tenth may be cut off, so that one long tubule does not shrink all others.
    side = max(float(np.percentile([max(f.shape) for f in flat], 90)), 8.0)
    scale = (_CELL - 4) / side
    columns = min(_COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    sheet = Image.new("RGB", (columns * _CELL, rows * (_CELL + 12)), (24, 24, 24))
    draw = ImageDraw.Draw(sheet)
    for number, (crop, z, values) in enumerate(zip(chosen, planes, flat, strict=True)):
        left, top = number % columns * _CELL, number // columns * (_CELL + 12)
        grey = np.clip((values - low) / max(high - low, 1e-9), 0, 1) * 255
        sheet.paste(_tile(grey.astype(np.uint8), crop.inside[z], scale), (left, top))
        draw.text((left + 2, top + _CELL - 1), str(crop.label), fill=(200, 200, 200))
    pixel_um = chosen[0].pixels.attrs.get("pixel_size_um", {}).get("X")
    return with_bar(np.asarray(sheet), pixel_um and sheet.width / scale * pixel_um)


def _tile(
    grey: np.ndarray[Any, np.dtype[np.uint8]],
    inside: np.ndarray[Any, np.dtype[np.bool_]],
    scale: float,
) -> Image.Image:
    """Draw one crop in its cell, enlarged, with a thin outline; what is too large is cut."""
    size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    picture = Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR).convert("RGB")
    large = np.asarray(Image.fromarray(inside).resize(size, Image.Resampling.NEAREST))
    pixels = np.asarray(picture).copy()
    pixels[large & ~ndimage.binary_erosion(large)] = OUTLINE_COLOUR
    cell = Image.new("RGB", (_CELL - 2, _CELL - 2), (0, 0, 0))
    offset = tuple((_CELL - 2 - side) // 2 for side in size)
    cell.paste(Image.fromarray(pixels), (offset[0], offset[1]))
    return cell
