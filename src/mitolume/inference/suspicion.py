"""Notices images unlike those that a model was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mitolume.preprocess.fingerprint import Difference, compare, measure_windows

if TYPE_CHECKING:
    from mitolume.models.bundle import Card

# Held-out images of the training images' kind stay below 1.7, fluorescence and blurred images are
# mostly beyond 2; docs/trouble.md has the rates.
UNLIKE = 2.0
# By how much the inverted image must fit better, in squared standard deviations: for images of
# the training images' kind it fits worse.
_INVERTED = 8.0
_SWAPPED = "dark and bright look swapped"


def unlike_training(card: Card, plane: Any, source: str = "the image") -> str:
    """Say that an image does not look like those a model was trained on.

    Parameters
    ----------
    card
        The model's; one without a fingerprint says nothing.
    plane
        (Y, X) after the model's chain: an array, or anything with a shape that gives arrays when
        sliced. Nine windows of it are read.
    source
        How the warning names the image.

    Returns
    -------
    str
        A warning; "" where nothing is suspicious.
    """
    if card.fingerprint is None:
        return ""
    difference = compare(card.fingerprint, measure_windows(plane))
    reason = unlikeness(difference) if difference else ""
    if not reason:
        return ""
    fix = (
        "invert it (Fiji: Edit > Invert), unless it was focused from the other side"
        if reason == _SWAPPED
        else "is it the right channel (--channel), in focus, and of the pixel size it states?"
    )
    return f"{source} does not look like the images the model was trained on ({reason}); {fix}"


def distance(card: Card, plane: Any) -> float:
    """Say how far an image is from those a model was trained on.

    Parameters
    ----------
    card, plane
        As for `unlike_training`.

    Returns
    -------
    float
        In standard deviations of those images, see `mitolume.preprocess.fingerprint.Difference`;
        NaN where the card has no fingerprint, or the plane is too small.
    """
    if card.fingerprint is None:
        return float("nan")
    difference = compare(card.fingerprint, measure_windows(plane))
    return difference.distance if difference else float("nan")


def unlikeness(difference: Difference) -> str:
    """Say in a few words what sets an image apart; "" where it is of the same kind."""
    gain = difference.n_features * (difference.distance**2 - difference.inverted_distance**2)
    if gain > _INVERTED and difference.inverted_distance < UNLIKE:
        return _SWAPPED
    if difference.distance < UNLIKE:
        return ""
    size, factor = difference.strongest
    if 0.5 < factor < 2:
        return "other structures are bright or dark"
    what = "fine detail" if size <= 2 else "coarse detail" if size <= 8 else "shading"
    return f"{what} is much {'stronger' if factor > 1 else 'weaker'}"
