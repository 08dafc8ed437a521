"""Notices what can be read and still can't be right: pixels, masks, sizes. Opens no file.

Every rule is silent unless it is nearly sure; docs/trouble.md has the rates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.ndimage import binary_erosion

from mitolume.errors import some_names
from mitolume.io.alignment import (
    TURNS,
    Evidence,
    find_shift,
    find_turn,
    fits_better,
    measure_fit,
)
from mitolume.io.masks import BACKGROUND, FOREGROUND, Mask
from mitolume.io.read import Image2D

MOST_PLANES = 64  # of a table are looked at closely, spread over its files

# Masks of one file that are a few pixels off are common (another focus, a moving cell); all masks
# off the same way by as much are a mistake of the table's maker.
_ONE_SHIFTED, _ALL_SHIFTED = 6.0, 3.5
_MOSTLY, _NEARLY_ALL = 0.5, 0.7  # shares of mitochondria that no field has, as a mean and singly
_WIDTHS_UM = (0.02, 20.0)  # real ones are 0.1 to 2 µm wide; swollen or merged, some more
_FLAT = "one flat grey"


def odd_pixels(plane: Image2D) -> str:
    """Say what is odd about a plane's grey values; "" where nothing is.

    Parameters
    ----------
    plane
        (Y, X), the file's dtype.
    """
    step = max(1, int(np.sqrt(plane.size / 2**20)))
    sample = plane[::step, ::step]
    grey = np.unique(sample)
    if plane.size > 1 and len(grey) == 1 and plane.min() == plane.max():
        return f"{_FLAT} ({plane.flat[0]}); save it again, or leave it out"
    if sample.size >= 2**12 and 2 <= len(grey) <= 3 and len(np.unique(plane)) <= 3:
        values = " and ".join(f"{value:g}" for value in grey)
        return f"only the values {values}, as in a mask; is it the image?"
    if plane.dtype.kind in "iu" and plane.dtype.itemsize == 2 and _wraps(sample, grey):
        if plane.dtype.kind == "i":
            return (
                "bright pixels went round to negative numbers (unsigned pixels saved as signed); "
                "export it again as unsigned 16 bit"
            )
        return (
            "dark pixels went round to nearly 65535 (negative numbers saved as unsigned); export "
            "it again as 32-bit float, or add an offset before saving"
        )
    return ""


def nothing_but_flat(odd: Mapping[str, Sequence[str]], n_planes: int) -> list[str]:
    """Return the fault that all planes are flat, from `odd_pixels`' reasons with their planes."""
    flat = [name for reason, names in odd.items() if reason.startswith(_FLAT) for name in names]
    if not flat or len(flat) < n_planes:
        return []
    return [f"{some_names(flat)}: no image shows anything but one flat grey; export them again"]


def masks_of_odd_shares(shares: Mapping[str, float]) -> list[str]:
    """Notice swapped masks, by the share of mitochondria in the known pixels of each file."""
    fix = "where mitochondria are 0 in the file, invert it (Fiji: Edit > Invert)"
    full = [name for name, share in shares.items() if share > _NEARLY_ALL]
    others = [share for name, share in shares.items() if name not in full]
    if full and others and len(others) >= len(full) and np.median(others) < 0.4:
        return [
            f"{some_names(full)}: mitochondria cover more than 70 % of the mask, elsewhere "
            f"{100 * np.median(others):.0f} %; {fix}"
        ]
    mean = float(np.mean(list(shares.values()))) if shares else 0.0
    return [f"mitochondria cover {100 * mean:.0f} % of the masks; {fix}"] if mean > _MOSTLY else []


def _odd_widths(widths_um: Mapping[str, float]) -> list[str]:
    """Notice pixel sizes that make the mean width of what masks outline impossible."""
    low, high = _WIDTHS_UM
    odd = [name for name, width in widths_um.items() if not low <= width <= high]
    if not odd:
        return []
    return [
        f"{some_names(odd)}: with this pixel size mitochondria are {widths_um[odd[0]]:.2g} µm wide "
        "in the mask; correct it in column `pixel_size_um` (in µm, not nm)"
    ]


def look_closely(
    planes: Iterable[tuple[str, Image2D, Mask, tuple[float, float] | None]],
) -> list[str]:
    """Notice masks that are inverted, turned, shifted, or of an impossible size.

    Parameters
    ----------
    planes
        Of each labelled plane: the mask's file name, grey values and mask (Y, X), and the pixel
        size along Y and X in µm, None where unknown.

    Returns
    -------
    list of str
        What the user should know.
    """
    fits: dict[str, list[Evidence]] = defaultdict(list)
    shares: dict[str, list[float]] = defaultdict(list)
    widths: dict[str, list[float]] = defaultdict(list)
    for name, plane, mask, size in planes:
        known = mask <= FOREGROUND
        drawn = mask == FOREGROUND
        if known.any() and drawn.any():
            shares[name].append(float(drawn.sum() / known.sum()))
            if size is not None:
                widths[name].append(_mean_width(drawn) * float(np.sqrt(size[0] * size[1])))
        if drawn.any() and (mask == BACKGROUND).any():
            fits[name].append(measure_fit(plane, mask))
    return [
        *masks_of_odd_shares({name: float(np.mean(s)) for name, s in shares.items()}),
        *_odd_widths({name: float(np.median(w)) for name, w in widths.items()}),
        *_misplaced(fits),
    ]


def _misplaced(fits: Mapping[str, Sequence[Evidence]]) -> list[str]:
    """Notice turned and shifted masks: all of them if they agree, else each on its own."""
    everything = [one for found in fits.values() for one in found]
    if turn := find_turn(everything):
        return [f"masks fit their images when {TURNS[turn]}; check how both were exported"]
    shift = find_shift(everything, _ALL_SHIFTED)
    if shift and 2 * sum(fits_better(found, shift) for found in fits.values()) > len(fits):
        return [
            f"masks lie {_in_words(shift)} of what their images show; shift them back, or "
            "export both again from the same crop"
        ]
    wrong: dict[str, list[str]] = defaultdict(list)
    shifted = []
    for name, found in fits.items():
        if turn := find_turn(found):
            wrong[TURNS[turn]].append(name)
        elif shift := find_shift(found, _ONE_SHIFTED):
            shifted.append(f"{name} {_in_words(shift)}")
    notices = [
        f"{some_names(names)}: the mask fits its image when {turn}; check how both were exported"
        for turn, names in wrong.items()
    ]
    if shifted:
        notices.append(
            f"{some_names(shifted)}: the mask does not lie on what its image shows; shift it back"
        )
    return notices


def _in_words(shift: tuple[int, int]) -> str:
    """Say in which direction something lies too far."""
    words = [
        f"{abs(by)} px {before if by < 0 else after}"
        for by, before, after in zip(shift, ("above", "left"), ("below", "right"), strict=True)
        if by
    ]
    return "about " + " and ".join(words)


def _mean_width(drawn: np.ndarray[Any, Any]) -> float:
    """Return twice the area per outline pixel: the width of a tube, half of a disc's."""
    outline = drawn & ~binary_erosion(drawn, border_value=1)
    return 2.0 * float(drawn.sum()) / max(1.0, float(outline.sum()))


def _wraps(sample: Image2D, grey: np.ndarray[Any, Any]) -> bool:
    """Tell whether 16-bit values read with the other sign make a far smoother picture.

    Saturation is not a wrap: it has one value at the end of the range, a wrap has many.
    """
    sign = np.int16 if sample.dtype.kind == "u" else np.uint16
    far = grey < 0 if sample.dtype.kind == "i" else grey >= 2**15
    if min(far.sum(), (~far).sum()) < 10:
        return False
    # Negative numbers saved as unsigned leave the middle of the range empty.
    if sample.dtype.kind == "u" and ((sample > 2**14) & (sample < 3 * 2**14)).mean() > 0.01:
        return False
    here, there = (
        float(np.abs(np.diff(values.astype(np.float64), axis=1)).mean())
        for values in (sample, np.ascontiguousarray(sample).view(sign))
    )
    return there < 0.5 * here
