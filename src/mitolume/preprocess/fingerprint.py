"""How images look, in eleven numbers, and whether another one looks like them.

The numbers say how strong detail is on five scales, and whether bright or dark structures carry
it. Inverting an image changes the sign of the latter and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

# Named for the scale in pixels: strength of detail, its skewness, and whether it lies in bright
# or in dark places.
FEATURES = (
    "asymmetry",
    "strength_1", "skewness_1", "place_1",
    "strength_2", "skewness_2", "place_2",
    "strength_4", "skewness_4",
    "strength_8", "strength_16",
)  # fmt: skip
_IS_STRENGTH = np.array([name.startswith("strength") for name in FEATURES])

# Held-out images of the training images' kind stay below 1.7, fluorescence and blurred images are
# mostly beyond 2; docs/trouble.md has the rates.
UNLIKE = 2.0
# By how much the inverted image must fit better, in squared standard deviations: for images of
# the training images' kind it fits worse.
_INVERTED = 8.0
_SWAPPED = "dark and bright look swapped"
_SIDE, _LEAST = 128, 64  # of the windows that are measured; smaller images have no fingerprint
_FEWEST = 9  # windows without which nobody knows how much they differ
# Differences that no fingerprint counts as any: another day's light (logarithm), and rounding.
_FREE = np.where(_IS_STRENGTH, 0.15, 0.05)
_FLAT = 1e-3  # detail below this share of the image's spread is none

Features = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Fingerprint:
    """How the windows of some images look: mean and standard deviation of each of `FEATURES`."""

    mean: tuple[float, ...]
    spread: tuple[float, ...]
    n_images: int


def measure_windows(plane: Any) -> Features:
    """Measure up to nine windows spread over a plane: (window, feature).

    The plane is (Y, X) of mean 0 and spread 1, as `normalise` makes it: an array, or what slices
    like one. Without windows where the plane is smaller than 64 pixels.
    """
    if min(plane.shape) < _LEAST:
        return np.empty((0, len(FEATURES)))
    rows, columns = (_starts(size) for size in plane.shape)
    windows = (plane[y : y + _SIDE, x : x + _SIDE] for y in rows for x in columns)
    return np.array([_measure(np.asarray(window, np.float32)) for window in windows])


def learn_fingerprint(measured: Iterable[Features], *, robust: bool = False) -> Fingerprint | None:
    """Make a fingerprint of what `measure_windows` gave for each image.

    ``robust`` takes median and median deviation, so that some images may be of another kind. None
    where the images are too small, or too few for their size.
    """
    images = [windows for windows in measured if len(windows)]
    if sum(map(len, images)) < _FEWEST:
        return None
    windows = np.concatenate(images)
    if robust:
        mean = np.median(windows, axis=0)
        spread = 1.4826 * np.median(np.abs(windows - mean), axis=0)  # as a normal's deviation
    else:
        mean, spread = windows.mean(axis=0), windows.std(axis=0)
    return Fingerprint(tuple(mean.round(4).tolist()), tuple(spread.round(4).tolist()), len(images))


def distance(fingerprint: Fingerprint | None, plane: Any) -> float:
    """Say how far an image is from those a model was trained on (see `unlike_training`).

    Root mean square over the features, in standard deviations of the training images: below 1 for
    the same kind. NaN without a fingerprint, or where the plane is too small.
    """
    off = _differences(fingerprint, measure_windows(plane)) if fingerprint else None
    return float("nan") if off is None else _root_mean_square(off[0])


def unlike_training(fingerprint: Fingerprint | None, plane: Any, source: str = "the image") -> str:
    """Warn that an image does not look like those a model was trained on; "" where it does.

    ``fingerprint`` is that of the training images, from the model's card; None says nothing.
    ``plane`` is (Y, X) after the model's chain: an array, or what slices like one; nine windows of
    it are read.
    """
    reason = unlikeness(fingerprint, measure_windows(plane)) if fingerprint else ""
    if not reason:
        return ""
    fix = (
        "invert it (Fiji: Edit > Invert), unless it was focused from the other side"
        if reason == _SWAPPED
        else "is it the right channel (--channel), in focus, and of the pixel size it states?"
    )
    return f"{source} does not look like the images the model was trained on ({reason}); {fix}"


def unlikeness(fingerprint: Fingerprint, windows: Features) -> str:
    """Say in a few words what sets an image, as measured, apart from those of a fingerprint.

    "" where it is of the same kind, or too small to tell.
    """
    off = _differences(fingerprint, windows)
    if off is None:
        return ""
    distance, inverted = (_root_mean_square(values) for values in off)
    if len(FEATURES) * (distance**2 - inverted**2) > _INVERTED and inverted < UNLIKE:
        return _SWAPPED
    if distance < UNLIKE:
        return ""
    most = int(np.where(_IS_STRENGTH, np.abs(off[0]), 0).argmax())
    scale = int(FEATURES[most].split("_")[1])
    factor = np.exp(windows.mean(axis=0)[most] - fingerprint.mean[most])
    if 0.5 < factor < 2:
        return "other structures are bright or dark"
    what = "fine detail" if scale <= 2 else "coarse detail" if scale <= 8 else "shading"
    return f"{what} is much {'stronger' if factor > 1 else 'weaker'}"


def _differences(fingerprint: Fingerprint, windows: Features) -> tuple[Features, Features] | None:
    """Return each feature's difference in standard deviations, as it is and were it inverted.

    None where the image is too small to tell, or the fingerprint has other features.
    """
    if not len(windows) or len(fingerprint.mean) != len(FEATURES):
        return None
    mean, spread = np.array(fingerprint.mean), np.array(fingerprint.spread)
    # Few images show little of how much images differ.
    spread = np.sqrt((spread**2 + _FREE**2) * (1 + 2 / fingerprint.n_images))
    found = windows.mean(axis=0)
    inverted = np.where(_IS_STRENGTH, found, -found)
    return (found - mean) / spread, (inverted - mean) / spread


def _starts(size: int) -> list[int]:
    """Return where windows start along an axis: none shares more than half with the next."""
    room = max(0, size - _SIDE)
    count = min(3, 1 + 2 * room // _SIDE)
    return [int(start) for start in np.linspace(0, room, count)]


def _root_mean_square(values: Features) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _measure(window: np.ndarray[Any, np.dtype[np.float32]]) -> list[float]:
    """Return the features of one window."""
    levels = [window] + [gaussian_filter(window, s, truncate=3.0) for s in (1, 2, 4, 8)]
    low, middle, high = np.percentile(levels[1], [2, 50, 98])
    features = [float((high + low - 2 * middle) / (high - low + _FLAT))]
    for number in range(4):
        detail = levels[number] - levels[number + 1]
        strength = float(detail.std()) + _FLAT
        features.append(float(np.log(strength)))
        if number < 3:
            features.append(float(np.tanh(np.mean((detail / strength) ** 3))))
        if number < 2:
            busy = gaussian_filter(np.abs(detail), 2.0 * 2**number, truncate=3.0)
            features.append(_correlation(busy, levels[2 + number]))
    return [*features, float(np.log(levels[-1].std() + 10 * _FLAT))]


def _correlation(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    a, b = one - one.mean(), other - other.mean()
    return float((a * b).mean() / np.sqrt((a * a).mean() * (b * b).mean() + 1e-12))
