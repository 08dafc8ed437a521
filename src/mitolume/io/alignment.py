"""Whether masks lie on what their images show, by the direction of edges. Knows no file.

Where a mask is right, its outline runs along edges of the image, whether mitochondria are brighter
or darker than what is around them. So edges are compared by direction, not by sign (orientation
correlation, Fitch et al., BMVC 2002, with the angle doubled), block by block: many blocks that
agree are evidence, one that is loud is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import fft
from scipy.ndimage import gaussian_filter

from mitolume.io.masks import FOREGROUND, Mask
from mitolume.io.read import Image2D

REACH = 16  # shifts of up to this many pixels are looked at
SIDE = 768  # of the part of a plane that is looked at
_BLOCK = 48  # wider than a mitochondrion, and still many in a small image
_SCALE = 2.0  # blur before edges are taken, px: beyond noise and the hand that drew
_FAINT = 0.02  # a block whose strongest mask edge is below this has no outline in it
# Standard deviations by which another place must fit better: one of a thousand shifts, or of
# seven turns. Where the mask is right, this takes far more than chance: it fits best as it is.
_SURE_OF_SHIFT, _SURE_OF_TURN = 3.5, 3.0
_SHARP = 5.5  # standard deviations; the best of wrong places reached 4.7 on simulated fields

TURNS = (
    "as it is", "turned left by 90°", "turned by 180°", "turned right by 90°",
    "flipped left to right", "y and x swapped", "flipped top to bottom",
    "y and x swapped and turned by 180°",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Evidence:
    """How well a mask fits its image, a row for each block.

    ``shifts``, (block, 2 reach + 1, 2 reach + 1), is the fit after moving the mask by -reach to
    reach pixels; ``turns``, (block, 8), that after each of `TURNS` about the centre.
    """

    shifts: np.ndarray[Any, np.dtype[np.float32]]
    turns: np.ndarray[Any, np.dtype[np.float32]]


def measure_fit(plane: Image2D, mask: Mask, reach: int = REACH) -> Evidence:
    """Measure how well a mask, (Y, X) of 0, 1 and 255, fits its image where it is, and elsewhere.

    Shifts of up to ``reach`` pixels are looked at. There are no blocks where the mask has no
    outline or the plane no edges.
    """
    drawn = mask == FOREGROUND
    window = _window(plane.shape, drawn)
    # About the centre: turning this square turns the plane.
    side = min(*plane.shape, SIDE)
    square = tuple(slice((n - side) // 2, (n - side) // 2 + side) for n in plane.shape)
    return Evidence(
        _fit_of_shifts(_edges(plane[window], limit=True), _edges(drawn[window]), reach),
        _fit_of_turns(_edges(plane[square], limit=True), _edges(drawn[square])),
    )


def find_shift(evidence: Sequence[Evidence], least: float) -> tuple[int, int] | None:
    """Find how far the masks of planes lie too low and too far right, in pixels.

    None where nothing is sure, or where the shift is shorter than `least` pixels.
    """
    fits = _pooled([one.shifts for one in evidence])
    if not len(fits):
        return None
    y, x = np.unravel_index(int(fits.sum(axis=0).argmax()), fits.shape[1:])
    reach = fits.shape[1] // 2
    shift = reach - int(y), reach - int(x)
    # A best fit at the rim is the slope of something else.
    if np.hypot(*shift) < least or max(map(abs, shift)) == reach:
        return None
    return shift if _margin(fits[:, y, x] - fits[:, reach, reach]) >= _SURE_OF_SHIFT else None


def sharp_shift(evidence: Sequence[Evidence]) -> tuple[int, int] | None:
    """Find the shift of one image's mask, which may be none: where it fits as nowhere else.

    One image has too few blocks for `find_shift`, which asks whether they agree. None where no
    place stands out from all that were looked at.
    """
    fits = _pooled([one.shifts for one in evidence]).sum(axis=0)
    if not fits.std() or fits.max() - fits.mean() < _SHARP * fits.std():
        return None
    y, x = np.unravel_index(int(fits.argmax()), fits.shape)
    return fits.shape[0] // 2 - int(y), fits.shape[0] // 2 - int(x)


def fits_better(evidence: Sequence[Evidence], shift: tuple[int, int]) -> bool:
    """Tell whether the mask of one of these planes would fit better without a shift."""
    fits = [one.shifts.sum(axis=0) for one in evidence]
    return any(fit[REACH - shift[0], REACH - shift[1]] > fit[REACH, REACH] for fit in fits)


def find_turn(evidence: Sequence[Evidence]) -> int:
    """Find which of `TURNS` would make masks fit their images; 0 where nothing is sure."""
    fits = _pooled([one.turns for one in evidence])
    if not len(fits):
        return 0
    best = int(fits.sum(axis=0).argmax())
    return best if _margin(fits[:, best] - fits[:, 0]) >= _SURE_OF_TURN else 0


def _pooled(parts: Sequence[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    return np.concatenate(parts) if parts else np.empty((0, 1, 1))


def _margin(gains: np.ndarray[Any, Any]) -> float:
    """Standardise a sum of gains as if the sign of each was drawn by a coin."""
    spread = float(np.sqrt((gains.astype(float) ** 2).sum()))
    return float(gains.sum()) / spread if spread else 0.0


def _edges(image: np.ndarray[Any, Any], *, limit: bool = False) -> np.ndarray[Any, Any]:
    """Return edges as complex numbers: strength, and direction with the angle doubled.

    With ``limit``, the strongest twentieth counts alike: dust is not a better edge.
    """
    grey = image.astype(np.float32)
    y, x = (gaussian_filter(grey, _SCALE, order=o, truncate=3.0) for o in ((1, 0), (0, 1)))
    strength = scale = np.hypot(y, x)
    if limit and (cap := float(np.percentile(strength, 95))) > 0:
        scale = np.maximum(strength, cap) * strength
    edges = np.zeros(grey.shape, np.complex64)
    np.divide((x + 1j * y) ** 2, scale, out=edges, where=scale > 0)
    return edges


def _fit_of_shifts(
    image: np.ndarray[Any, Any], outline: np.ndarray[Any, Any], reach: int
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Correlate each block of the outline with the image around it."""
    around = np.pad(image, reach)
    size = _BLOCK + 2 * reach
    fits = []
    for y in range(0, outline.shape[0], _BLOCK):
        for x in range(0, outline.shape[1], _BLOCK):
            block = outline[y : y + _BLOCK, x : x + _BLOCK]
            if np.abs(block).max() < _FAINT:
                continue
            there = fft.fft2(around[y : y + size, x : x + size], (size, size))
            found = fft.ifft2(there * np.conj(fft.fft2(block, (size, size))))
            fits.append(found.real[: 2 * reach + 1, : 2 * reach + 1])
    shape = (len(fits), 2 * reach + 1, 2 * reach + 1)
    return np.asarray(fits, np.float32).reshape(shape)


def _fit_of_turns(
    image: np.ndarray[Any, Any], outline: np.ndarray[Any, Any]
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Sum the agreement of each block of a square with the turned outline."""
    # A blur of the edges, too: half a pixel is lost in a turn, and some more in drawing.
    near = gaussian_filter(image.real, _SCALE) + 1j * gaussian_filter(image.imag, _SCALE)
    blocks = [slice(start, start + _BLOCK) for start in range(0, image.shape[0], _BLOCK)]
    fits = []
    for turn in range(len(TURNS)):
        # Directions turn along: a quarter turn of an angle that is doubled is a change of sign.
        seen = turned(np.conj(outline) if turn >= 4 else outline, turn) * (-1) ** (turn % 4)
        agreement = (near * np.conj(seen)).real
        fits.append([agreement[y, x].sum() for y in blocks for x in blocks])
    return np.asarray(fits, np.float32).T


def turned(image: np.ndarray[Any, Any], turn: int) -> np.ndarray[Any, Any]:
    """Apply one of `TURNS` to a (Y, X) array."""
    return np.asarray(np.rot90(image[:, ::-1] if turn >= 4 else image, turn % 4))


def _window(shape: tuple[int, ...], drawn: np.ndarray[Any, Any]) -> tuple[slice, slice]:
    """Return the part of a plane around the middle of what is drawn."""
    rows, columns = np.nonzero(drawn)
    slices = []
    for size, at in zip(shape, (rows, columns), strict=True):
        middle = int(np.median(at)) if len(at) else size // 2
        start = min(max(0, middle - SIDE // 2), max(0, size - SIDE))
        slices.append(slice(start, start + SIDE))
    return slices[0], slices[1]
