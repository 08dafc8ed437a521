"""How much fine detail each plane of a stack shows, and which planes are in focus.

In focus are the planes that show detail. In transmitted light a thin, clear structure is
strongest a little above and below its focus and nearly vanishes in between, so that the curve of a
stack may have two maxima: the planes between them count as in focus.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy import fft

from mitolume.errors import MitolumeError
from mitolume.io.fields import parse_planes
from mitolume.io.windows import Plane
from mitolume.preprocess.plane_spectra import window_starts

Array = np.ndarray[Any, np.dtype[np.float64]]

_SHORTEST_PX, _SHORTEST_UM = 4.0, 0.5  # period of the finest detail that counts, the longer one
_OCTAVES = 2  # of the band, from there on to coarser detail
_NOISE = 0.4  # cycles a pixel, above which there is noise and nothing else
_TILE = 256  # pixels a side, of which one spectrum is made
_MOST_TILES = 20  # along an axis: enough for any plane
_IN_FOCUS = 0.5  # of the way from the least to the most detail


def band_power(plane: Plane, pixel_size_um: float | None = None) -> float:
    """Measure the detail of a plane that is fine, but coarser than noise.

    The root mean square slope of grey values in two octaves of spatial frequency, from periods of
    4 pixels (0.5 µm where that is more) to four times as much: optics let these through only near
    focus (power of the spectrum as a measure of focus: Firestone et al. 1991, Cytometry 12:195).
    Noise, taken to be white, is measured above 0.4 cycles a pixel and subtracted. The axes of the
    spectrum are left out, and with them scan lines and the columns of a camera.

    The plane (Y, X) is an array, or anything with a shape that gives arrays when sliced, finite;
    its pixel size counts where it is known. The result is in grey values a pixel.
    """
    tile = tuple(min(size, _TILE) for size in plane.shape)
    taper = np.outer(*(np.hanning(size + 2)[1:-1] for size in tile))
    power: Array = np.zeros((tile[0], tile[1] // 2 + 1))
    rows, columns = (window_starts(size, _TILE, _MOST_TILES) for size in plane.shape)
    corners = [(y, x) for y in rows for x in columns]
    for y, x in corners:
        part = np.asarray(plane[slice(y, y + tile[0]), slice(x, x + tile[1])], np.float64)
        power += np.abs(fft.rfft2((part - part.mean()) * taper)) ** 2
    power /= len(corners) * (taper**2).sum() * taper.size  # sums to the variance of the plane
    down, across = np.abs(fft.fftfreq(tile[0]))[:, None], fft.rfftfreq(tile[1])[None]
    frequency = np.hypot(down, across)
    # A taper spreads what lies on an axis over its neighbours.
    off_axis = (across > 2.5 / tile[1]) & (down > 2.5 / tile[0])
    period = max(_SHORTEST_PX, _SHORTEST_UM / pixel_size_um if pixel_size_um else 0)
    band = off_axis & (frequency <= 1 / period) & (frequency >= 2**-_OCTAVES / period)
    noise = off_axis & (frequency > _NOISE)
    if not band.any():
        return 0.0
    floor = power[noise].mean() if noise.any() else 0.0
    # Slopes, so that the finer octave is not lost beside the coarser one, which has more power.
    # Half of the frequencies are stored: each stands for itself and its mirror image.
    slopes = 2 * (2 * np.pi * frequency[band]) ** 2 * (power[band] - floor)
    return float(np.sqrt(max(slopes.sum(), 0.0)))


def focus_scores(planes: Iterable[Plane], pixel_size_um: float | None = None) -> Array:
    """Measure how much detail each plane of a stack shows, see `band_power`.

    Parameters
    ----------
    planes
        (Z, Y, X), or planes one at a time; any numeric dtype, finite.
    pixel_size_um
        Of a square pixel, where it is known.

    Returns
    -------
    numpy.ndarray
        (Z,) float64, larger for sharper planes; comparable within a stack only.
    """
    return np.array([band_power(plane, pixel_size_um) for plane in planes], np.float64)


def planes_in_focus(scores: Sequence[float] | Array, n_planes: int | None = None) -> list[int]:
    """Choose neighbouring planes that show most detail.

    Parameters
    ----------
    scores
        (Z,), as `focus_scores` gives them.
    n_planes
        How many planes. By default the run around the best plane that has at least half its
        score; a dip in it is bridged where it is no longer than the run before it. That is all
        planes of a stack in which none has less than half, or none has any.

    Returns
    -------
    list of int
        From 0, ascending, without gaps; at least one where there is a plane.

    Examples
    --------
    >>> planes_in_focus([1, 2, 7, 10, 6, 2])
    [2, 3, 4]
    """
    scores = np.asarray(scores, np.float64)
    if not scores.size:
        return []
    if n_planes is not None:
        count = min(n_planes, len(scores))
        first = int(np.convolve(scores, np.ones(count), "valid").argmax())
        return list(range(first, first + count))
    sharp = scores >= _IN_FOCUS * scores.max()
    first = last = int(scores.argmax())
    while (reached := _extended(sharp, first, last)) != (first, last):
        first, last = reached
    return list(range(first, last + 1))


def choose_planes(
    choice: str, scores: Sequence[float] | Array, z_step_um: float | None = None
) -> list[int]:
    """Choose planes the way a person writes it.

    ``choice`` is ``auto`` (see `planes_in_focus`), ``all``, a number of planes (``3``), a width
    (``4um``, which needs ``z_step_um``), or a list with a comma or a range in it (``2,5-7``; plane
    3 alone is ``3-3``). ``scores`` are (Z,), as `focus_scores` gives them.

    Examples
    --------
    >>> choose_planes("2", [1, 2, 7, 10, 6, 2])
    [2, 3]
    """
    written = choice.strip().lower()
    if written == "auto":
        return planes_in_focus(scores)
    if written == "all":
        return list(range(len(scores)))
    if width := re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*(?:um|µm|μm)", written):
        um = float(width[1])
        if z_step_um is None:
            raise MitolumeError(
                f"{um:g} µm can't be turned into planes: the distance between planes is not known; "
                "give a number of planes instead"
            )
        return planes_in_focus(scores, math.floor(um / z_step_um + 0.01) + 1)  # stages: 0.5002 µm
    if written.isdecimal() and int(written) > 0:
        return planes_in_focus(scores, int(written))
    try:
        listed = parse_planes(written) if re.search(r"[-,]", written) else None
    except ValueError as error:
        raise MitolumeError(str(error)) from None
    if not listed:
        raise MitolumeError(
            f"planes {choice!r} can't be read; write auto, all, a number of planes (3), a width "
            "(4um) or a list (2,5-7)"
        )
    if listed[-1] >= len(scores):
        raise MitolumeError(
            f"there is no plane {listed[-1]}: the stack has {len(scores)}, from 0 to "
            f"{len(scores) - 1}"
        )
    return list(listed)


def _extended(sharp: np.ndarray[Any, np.dtype[np.bool_]], first: int, last: int) -> tuple[int, int]:
    """Extend a run of sharp planes to the nearest ones, over dips no longer than itself."""
    most = last - first + 2
    above = np.flatnonzero(sharp[last + 1 : last + 1 + most])
    below = np.flatnonzero(sharp[max(first - most, 0) : first][::-1])
    return (
        first - 1 - int(below[0]) if below.size else first,
        last + 1 + int(above[0]) if above.size else last,
    )
