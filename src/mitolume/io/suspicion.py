"""Notices what can be read and still can't be right: pixels and masks. Opens no file.

Every rule is silent unless it is nearly sure; docs/trouble.md has the rates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mitolume.errors import some_names
from mitolume.io.alignment import TURNS, Evidence, find_shift, find_turn, fits_better, measure_fit
from mitolume.io.masks import BACKGROUND, FOREGROUND, Mask
from mitolume.io.read import Image2D

MOST_PLANES = 64  # of a table are looked at closely, spread over its files

# Masks of one file that are a few pixels off are common (another focus, a moving cell); all masks
# off the same way by as much are a mistake of the table's maker.
_ONE_SHIFTED, _ALL_SHIFTED = 6.0, 3.5
_MOSTLY, _NEARLY_ALL = 0.5, 0.7  # shares of mitochondria that no field has, as a mean and singly
_FLAT = "one flat grey"
LIKE_A_MASK = "as in a mask"


def is_rounding(spread: float, mean: float, dtype: Any = None) -> bool:
    """Tell whether the spread of grey values is that of rounding, and they show nothing.

    ``dtype`` is the type of the pixels where they are as the file has them; computed ones are
    rounded more than once.
    """
    share = {"i": 0.0, "u": 0.0, "f4": 2.5e-7, "f8": 1e-9}
    own = np.dtype(dtype).str[1:] if dtype is not None else ""
    return spread <= share.get(own, share.get(own[:1], 1e-6)) * max(abs(mean), 1e-6)


def odd_pixels(plane: Image2D) -> str:
    """Say what is odd about the grey values of a plane, (Y, X); "" where nothing is."""
    step = max(1, int(np.sqrt(plane.size / 2**20)))
    sample = plane[::step, ::step]
    grey = np.unique(sample)
    if plane.size > 1 and len(grey) == 1 and plane.min() == plane.max():
        return f"{_FLAT} ({plane.flat[0]}); save it again, or leave it out"
    mean = float(sample.mean(dtype=np.float64))
    if len(grey) > 1 and mean and is_rounding(sample.std(dtype=np.float64), mean, plane.dtype):
        return f"{_FLAT} but for rounding, so near are its values to {mean:.7g}; subtract that"
    if sample.size >= 2**12 and 2 <= len(grey) <= 3 and len(np.unique(plane)) <= 3:
        values = " and ".join(f"{value:g}" for value in grey)
        return f"only the values {values}, {LIKE_A_MASK}; is it the image?"
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


def look_closely(planes: Iterable[tuple[str, Image2D, Mask]]) -> list[str]:
    """Notice masks that are inverted, turned or shifted, in words for the user.

    Each labelled plane comes with its mask's file name, grey values and mask (Y, X).
    """
    fits: dict[str, list[Evidence]] = defaultdict(list)
    shares: dict[str, list[float]] = defaultdict(list)
    for name, plane, mask in planes:
        known = mask <= FOREGROUND
        drawn = mask == FOREGROUND
        if known.any() and drawn.any():
            shares[name].append(float(drawn.sum() / known.sum()))
        if drawn.any() and (mask == BACKGROUND).any():
            fits[name].append(measure_fit(plane, mask))
    return [
        *masks_of_odd_shares({name: float(np.mean(s)) for name, s in shares.items()}),
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
