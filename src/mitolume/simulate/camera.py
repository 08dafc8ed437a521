"""Light to counts: shading, drift, scan lines, noise, saturation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import shift
from scipy.signal import lfilter

from mitolume.simulate.settings import CameraSettings

Floats = NDArray[np.float32]

# Correlation of the brightness of neighbouring scan lines, and at the two ends of one line.
NEIGHBOURS, ENDS = 0.3, 0.95


def expose(
    intensity: Floats,
    settings: CameraSettings,
    rng: np.random.Generator,
    *,
    photons: float,
    scan_lines: bool = True,
) -> tuple[NDArray[np.uint16], Floats]:
    """Take the picture: its counts (P, Y, X), and the same before noise, rounding and saturation.

    ``photons`` are those that a pixel in the middle of the field collects at the intensity 1. Scan
    lines multiply the light, before its Poisson noise: the laser's flicker shows in transmitted
    light, not in fluorescence. The read noise is normal.
    """
    expected = electrons(intensity, settings, photons)
    clean = np.asarray(settings.offset + settings.gain * expected, np.float32)
    if scan_lines:
        expected *= _lines(expected.shape, settings.scan_lines, rng)
    counts = rng.poisson(expected).astype(np.float32)
    counts += np.float32(settings.read_noise) * rng.standard_normal(counts.shape, np.float32)
    counts *= np.float32(settings.gain)
    counts += np.float32(settings.offset)
    return np.rint(counts).clip(0, 2**settings.bits - 1).astype(np.uint16), clean


def electrons(intensity: Floats, settings: CameraSettings, photons: float) -> Floats:
    """Return the photoelectrons (P, Y, X) that are expected: fewer towards the corners."""
    down, across = (np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in intensity.shape[1:])
    corner = max(down[-1] ** 2 + across[-1] ** 2, 1.0)
    fall = settings.shading * (down[:, None] ** 2 + across**2) / corner
    return np.asarray(np.maximum(intensity, 0) * (photons * (1 - fall)).astype(np.float32))


def drift_path(
    planes: int, pixel_um: float, settings: CameraSettings, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return how far each plane has moved, (P, 2), Y and X in pixels; the middle one has not."""
    steps = rng.normal(0.0, settings.drift_um / pixel_um, (planes, 2))
    path = np.cumsum(steps, axis=0)
    return np.asarray(path - path[planes // 2])


def drifted(stack: NDArray[Any], path: NDArray[np.float64]) -> NDArray[Any]:
    """Move each plane of a stack along a path of :func:`drift_path`.

    Light is interpolated (cubic splines), whole numbers (masks, labels) are taken from the nearest
    pixel. What leaves at one edge comes in at the other, as in the optics.
    """
    if not path.any():
        return stack
    order = 3 if np.issubdtype(stack.dtype, np.floating) else 0
    moved = zip(stack, path, strict=True)
    return np.stack([shift(plane, by, order=order, mode="grid-wrap") for plane, by in moved])


def _lines(shape: tuple[int, ...], deviation: float, rng: np.random.Generator) -> Floats:
    """Return the brightness (P, Y, X), around 1, of the lines of a laser whose power flickers."""
    planes, height, width = shape
    fresh = rng.standard_normal((2, planes, height))
    fresh[1:] = ENDS * fresh[:1] + np.sqrt(1 - ENDS**2) * fresh[1:]
    fresh[:, :, 1:] *= np.sqrt(1 - NEIGHBOURS**2)  # the first line has no neighbour before it
    left, right = lfilter([1.0], [1.0, -NEIGHBOURS], fresh, axis=2)[..., None]
    lines = 1 + deviation * (left + (right - left) * np.linspace(0, 1, width))
    return np.asarray(lines.clip(min=0), np.float32)
