"""Pictures of masks over images: contrast stretch, outlines, error maps, PNG."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from mitolume.io.masks import BACKGROUND, FOREGROUND, UNSURE, Mask
from mitolume.io.write import atomic, making_results

# Sky blue, yellow and vermillion of Okabe and Ito (2008): apart in hue for every colour vision,
# and in lightness (0.41, 0.74, 0.22 relative luminance) when printed in grey.
OUTLINE_COLOUR = CORRECT_COLOUR = (86, 180, 233)
MISSED_COLOUR = (240, 228, 66)
FALSE_COLOUR = (213, 94, 0)
UNSURE_COLOUR = (170, 170, 170)

_UNDER_OUTLINE, _UNDER_ERRORS = 0.7, 0.6  # brightness of the image, so that the colours carry
_MID_GREY = 128

Limits = tuple[float, float]


def to_8bit(image: NDArray[Any], limits: Limits | None = None) -> NDArray[np.uint8]:
    """Stretch the contrast of an image, by default between its 0.5 and 99.5 percentiles.

    Parameters
    ----------
    image
        Shape (Y, X), any numeric dtype. NaN and infinities do not count; NaN and minus infinity
        come out black, infinity white.
    limits
        Grey values that become black and white, so that several images can be compared.

    Returns
    -------
    NDArray[np.uint8]
        Shape (Y, X). A constant image, or one without finite values, is mid grey.

    Examples
    --------
    >>> to_8bit(np.array([[0.0, 1.0, 2.0]])).tolist()
    [[0, 128, 255]]
    """
    values = np.asarray(image, dtype=np.float64)
    if limits is None or limits[1] <= limits[0]:
        limits = stretch_limits(values)
    if limits is None or not np.isfinite(values).any():
        return np.full(values.shape, _MID_GREY, dtype=np.uint8)
    low, high = limits
    scaled = (np.clip(values, low, high) - low) / (high - low)
    grey: NDArray[np.float64] = np.rint(np.nan_to_num(scaled, nan=0.0) * 255)
    return grey.astype(np.uint8)


def stretch_limits(image: NDArray[Any], percent: Limits = (0.5, 99.5)) -> Limits | None:
    """Return the grey values between which the contrast of an image is stretched, see `to_8bit`.

    None for a constant image, and for one without finite values.
    """
    values = np.asarray(image)
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return None
    low, high = np.percentile(finite, percent)
    if high <= low:  # a few bright pixels on a flat ground: the percentiles see only the ground
        low, high = finite.min(), finite.max()
    return (float(low), float(high)) if high > low else None


def fit(picture: NDArray[Any], longer: int | None, *, smooth: bool = False) -> NDArray[Any]:
    """Bring the longer side of a picture to at most `longer` pixels.

    Parameters
    ----------
    picture
        Shape (Y, X), uint8: a grey picture or a mask; or int32: a label image.
    longer
        Longest side allowed; None leaves the picture as it is. A picture of half this size or
        less is enlarged by a whole factor, so that an outline drawn on it is thin.
    smooth
        Average when shrinking (pictures); the default takes the nearest pixel (masks).

    Returns
    -------
    numpy.ndarray
        Shape (Y', X').
    """
    if longer is None or picture.size == 0:
        return picture
    y, x = picture.shape
    scale = longer / max(y, x)
    if scale >= 2:
        return picture.repeat(int(scale), axis=0).repeat(int(scale), axis=1)
    if scale >= 1:
        return picture
    size = (max(1, round(x * scale)), max(1, round(y * scale)))
    filter_ = Image.Resampling.BOX if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(picture).resize(size, filter_))


def overlay(
    image: NDArray[Any], mask: Mask, *, longer: int | None = None, limits: Limits | None = None
) -> NDArray[np.uint8]:
    """Draw the outline of the foreground over the image in grey.

    The outline is 2 px wide, one on each side of the border.

    Parameters
    ----------
    image
        Shape (Y, X), any numeric dtype.
    mask
        Shape (Y, X), 0 background, 1 mitochondria, 255 unsure (hatched in grey).
    longer
        Longest side of the picture, see `fit`; drawn after resizing, so outlines stay whole.
    limits
        See `to_8bit`.

    Returns
    -------
    NDArray[np.uint8]
        Shape (Y, X, 3), red, green, blue.
    """
    grey = fit(to_8bit(image, limits), longer, smooth=True)
    drawn = fit(np.asarray(mask, dtype=np.uint8), longer)
    picture = _hatched((grey * _UNDER_OUTLINE).astype(np.uint8), drawn == UNSURE)
    found = drawn == FOREGROUND
    rim = ndimage.binary_dilation(found) ^ ndimage.binary_erosion(found, border_value=1)
    picture[rim] = OUTLINE_COLOUR
    return picture


def error_map(
    image: NDArray[Any], truth: Mask, prediction: Mask, *, longer: int | None = None
) -> NDArray[np.uint8]:
    """Colour hits, misses and false alarms of a prediction over the dimmed image.

    Arguments and result as for `overlay`. Colours are `CORRECT_COLOUR`, `MISSED_COLOUR` (false
    negative) and `FALSE_COLOUR` (false positive); correct background stays grey, and what is unsure
    in the truth is never an error.
    """
    grey = fit(to_8bit(image), longer, smooth=True)
    true = fit(np.asarray(truth, dtype=np.uint8), longer)
    found = fit(np.asarray(prediction, dtype=np.uint8), longer) == FOREGROUND
    picture = _hatched((grey * _UNDER_ERRORS).astype(np.uint8), true == UNSURE)
    picture[(true == FOREGROUND) & found] = CORRECT_COLOUR
    picture[(true == FOREGROUND) & ~found] = MISSED_COLOUR
    picture[(true == BACKGROUND) & found] = FALSE_COLOUR
    return picture


def heat(
    image: NDArray[Any], values: NDArray[np.floating[Any]], *, longer: int | None = None
) -> NDArray[np.uint8]:
    """Lay a map over the dimmed image, the stronger the higher its values.

    Arguments and result as for `overlay`; values are from 0 (the image shows) to 1 (all
    `FALSE_COLOUR`), and averaged when shrinking.
    """
    grey = fit(to_8bit(image), longer, smooth=True)[..., None] * _UNDER_ERRORS
    share = fit(np.rint(255 * values).astype(np.uint8), longer, smooth=True)[..., None] / 255
    picture: NDArray[np.float64] = np.rint(grey + share * (np.array(FALSE_COLOUR) - grey))
    return picture.astype(np.uint8)


def with_bar(picture: NDArray[np.uint8], width_um: float | None) -> NDArray[np.uint8]:
    """Draw a scale bar of about a fifth of the width into a picture, grey or of colours.

    ``width_um`` is the width of what it shows; where that is unknown, there is no bar.
    """
    if not width_um or not picture.size:
        return picture
    power = 10 ** math.floor(math.log10(0.25 * width_um))
    length = max(step * power for step in (1, 2, 5) if step * power <= 0.25 * width_um)
    drawn = Image.fromarray(picture)
    draw = ImageDraw.Draw(drawn)
    draw.fontmode = "1"  # no shades of grey: see `_hatched`
    side = drawn.width // 40 + 1
    left, right = drawn.width - side - round(length / width_um * drawn.width), drawn.width - side
    y, white = drawn.height - side, (255,) * 3 if picture.ndim == 3 else 255
    draw.rectangle((left, y - side // 4, right, y), fill=white)
    from matplotlib import get_data_path  # its font has a µ, Pillow's has none

    font_file = Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    font = ImageFont.truetype(font_file, max(10, drawn.width // 26))
    draw.text(((left + right) / 2, y - side // 2), f"{length:g} µm", white, font, "ms",
              stroke_width=1, stroke_fill=(0,) * 3 if picture.ndim == 3 else 0)  # fmt: skip
    return np.asarray(drawn)


def png_bytes(picture: NDArray[np.uint8]) -> bytes:
    """Encode a picture as PNG without loss, with a palette where 256 colours are enough.

    It has shape (Y, X), grey, or (Y, X, 3), red, green, blue; uint8.
    """
    buffer = io.BytesIO()
    image = Image.fromarray(picture)
    if picture.ndim == 3 and image.getcolors(256):
        image = image.quantize(256, dither=Image.Dither.NONE)
    image.save(buffer, "PNG")
    return buffer.getvalue()


def write_png(path: Path | str, picture: NDArray[np.uint8]) -> None:
    """Write a picture (see `png_bytes`) as PNG; a reader sees the whole file or none."""
    with making_results(), atomic(path) as temporary:
        temporary.write_bytes(png_bytes(picture))


def _hatched(grey: NDArray[np.uint8], unsure: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Grey picture (Y, X) as RGB, diagonal stripes where unsure.

    Greys are even numbers, so that they and the colours together fit a palette of 256.
    """
    tinted = np.where(unsure, grey // 2 + UNSURE_COLOUR[0] // 2, grey) // 2 * 2
    y, x = np.ogrid[: grey.shape[0], : grey.shape[1]]
    stripe = unsure & ((y + x) % 8 < 2)
    return np.where(stripe, UNSURE_COLOUR[0], tinted).astype(np.uint8)[..., None].repeat(3, axis=2)
