"""Whether masks lie on what their images show, by edges or fine detail. Knows no file.

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
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter

from mitolume.io.masks import FOREGROUND, Mask
from mitolume.io.read import Image2D

Floats = NDArray[np.float32]

REACH = 16  # shifts of up to this many pixels are looked at
SIDE = 768  # of the part of a plane that is looked at
_BLOCK = 48  # wider than a mitochondrion, and still many in a small image
_SCALE = 2.0  # blur before edges are taken, px: beyond noise and the hand that drew
_FAINT = 0.02  # a block whose strongest mask edge is below this has no outline in it
# Standard deviations by which another place must fit better: one of a thousand shifts, or of
# seven turns. Where the mask is right, this takes far more than chance: it fits best as it is.
_SURE_OF_SHIFT, _SURE_OF_TURN = 3.5, 3.0
_SURE = 5.0  # standard deviations; the best of wrong places reached 4.5 on simulated fields
_FEWEST_DRAWN = 300  # px of masks; one of 81 px fitted best far from its place
_DETAIL_UM, _COARSE_UM = (0.07, 0.4), 0.5  # blurs: the band of mitochondria, what is coarser
# Depth of a stack in µm, and by what share of the dye's the middle of the light moves (simulated)
_DEPTHS = (2.25, 3.0, 4.0, 5.0, 7.0), (0.24, 0.47, 0.68, 0.80, 0.95)

TURNS = (
    "as it is", "turned left by 90°", "turned by 180°", "turned right by 90°",
    "flipped left to right", "y and x swapped", "flipped top to bottom",
    "y and x swapped and turned by 180°",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Evidence:
    """How well a mask fits its image, a row for each block.

    ``shifts``, (block, 2 REACH + 1, 2 REACH + 1), is the fit after moving the mask by -REACH to
    REACH pixels; ``turns``, (block, 8), that after each of `TURNS` about the centre.
    """

    shifts: Floats
    turns: Floats


def measure_fit(plane: Image2D, mask: Mask) -> Evidence:
    """Measure how well a mask, (Y, X) of 0, 1 and 255, fits its image where it is, and elsewhere.

    There are no blocks where the mask has no outline or the plane no edges.
    """
    drawn = mask == FOREGROUND
    window = _window(plane.shape, drawn)
    # About the centre: turning this square turns the plane.
    side = min(*plane.shape, SIDE)
    square = tuple(slice((n - side) // 2, (n - side) // 2 + side) for n in plane.shape)
    return Evidence(
        _fit_of_shifts(_edges(plane[window], limit=True), _edges(drawn[window])),
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
    shift = REACH - int(y), REACH - int(x)
    # A best fit at the rim is the slope of something else.
    if np.hypot(*shift) < least or max(map(abs, shift)) == REACH:
        return None
    return shift if _margin(fits[:, y, x] - fits[:, REACH, REACH]) >= _SURE_OF_SHIFT else None


def fit_of_dye(
    planes: Sequence[tuple[Image2D, Mask]], pixel_um: float, reach: int
) -> Floats | None:
    """Measure how well an image's masks from the dye fit after moving them by -reach to reach px.

    Masks are correlated with what is as fine in the planes, be it bright or dark. They follow the
    dye to a pixel, as no hand does, so one image is often enough. In standard deviations; None
    where there is too little to compare.
    """
    fit: Any = 0
    for plane, mask in planes:
        window = _window(plane.shape, mask == FOREGROUND)
        grey, drawn = (one.astype(np.float32)[window] for one in (plane, mask == FOREGROUND))
        shape = [fft.next_fast_len(max(n, reach + 1) + reach) for n in grey.shape]
        fine = _detail(grey, pixel_um), _fine(drawn, pixel_um)
        shown, dyed = (fft.rfft2(one, shape) for one in fine)
        found = np.roll(fft.irfft2(dyed * shown.conj(), shape), (reach, reach), (0, 1))
        fit = fit + found[: 2 * reach + 1, : 2 * reach + 1]
    drawn_px = sum(np.count_nonzero(mask == FOREGROUND) for _, mask in planes)
    return None if drawn_px < _FEWEST_DRAWN or not np.std(fit) else _standard(fit)


def shift_of(fits: Sequence[Floats], sure: float = _SURE) -> tuple[float, float, float]:
    """Find how far masks whose fits are added up lie too low and too far right, in pixels.

    The third number is by how many standard deviations they would fit better there; all are not a
    number where no place stands out by ``sure`` of them.
    """
    fit = _standard(sum(fits))
    (y, x), reach = map(int, np.unravel_index(fit.argmax(), fit.shape)), len(fit) // 2
    if fit[y, x] < sure or {y, x} & {0, 2 * reach}:
        return np.nan, np.nan, np.nan
    return y - reach, x - reach, float(fit[y, x] - fit[reach, reach])


def depth_of_dye(light: Floats, dye: Floats, step_um: float, pixel_um: float) -> float:
    """Measure by how many µm the planes of a dye (Z, Y, X) lie before those of transmitted light.

    Planes of both are alike where they show the same. Where along z that is has a middle for each;
    light shows mitochondria from farther away, so that its middle moves less in a thin stack.
    """
    window = _window(light.shape[1:], dye.max(axis=0) > np.percentile(dye.max(axis=0), 90))
    planes = (one[window].astype(np.float32) for one in (*dye, *light))
    with np.errstate(all="ignore"):  # of a plane that shows nothing
        alike = np.nan_to_num(np.corrcoef([_detail(one, pixel_um).ravel() for one in planes]))
    fit = alike[: len(dye), len(dye) :].clip(1e-9)
    heights = step_um * (np.arange(len(dye)) - (len(dye) - 1) / 2)
    lit, dyed = (fit.sum(axis) @ heights / fit.sum() for axis in (0, 1))
    return float(lit / np.interp(len(dye) * step_um, *_DEPTHS) - dyed)


def _detail(grey: Floats, pixel_um: float) -> Floats:
    """Return how much there is of what is as fine as mitochondria, be it bright or dark."""
    narrow, wide = (gaussian_filter(grey, max(um / pixel_um, 0.5)) for um in _DETAIL_UM)
    detail = np.abs(narrow - wide)
    return _fine(np.minimum(detail, np.percentile(detail, 95)), pixel_um)  # dust is not finer


def _fine(image: Floats, pixel_um: float) -> Floats:
    return np.asarray(image - gaussian_filter(image, _COARSE_UM / pixel_um))


def _standard(fit: Any) -> Floats:
    return np.asarray((fit - np.mean(fit)) / np.std(fit), np.float32)


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


def _fit_of_shifts(image: np.ndarray[Any, Any], outline: np.ndarray[Any, Any]) -> Floats:
    """Correlate each block of the outline with the image around it."""
    around = np.pad(image, REACH)
    size = _BLOCK + 2 * REACH
    fits = []
    for y in range(0, outline.shape[0], _BLOCK):
        for x in range(0, outline.shape[1], _BLOCK):
            block = outline[y : y + _BLOCK, x : x + _BLOCK]
            if np.abs(block).max() < _FAINT:
                continue
            there = fft.fft2(around[y : y + size, x : x + size], (size, size))
            found = fft.ifft2(there * np.conj(fft.fft2(block, (size, size))))
            fits.append(found.real[: 2 * REACH + 1, : 2 * REACH + 1])
    shape = (len(fits), 2 * REACH + 1, 2 * REACH + 1)
    return np.asarray(fits, np.float32).reshape(shape)


def _fit_of_turns(image: np.ndarray[Any, Any], outline: np.ndarray[Any, Any]) -> Floats:
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
