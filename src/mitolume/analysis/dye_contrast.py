"""Fluorescence to contrast: how bright each pixel is beside its background and the peak nearby.

Background and haze are removed, blur is partly undone, and as much is smoothed as the noise asks.
Planes above and below tell a mitochondrion within the depth of field, whose dye is dim because
fluorescence is cut thinner than transmitted light, from one beyond it. Knows no mask.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import ndtr
from skimage.morphology import disk

Floats = NDArray[np.float32]

TUBE_UM = 0.45  # diameter of a usual mitochondrion, for what blur does to its edge
WIDEST_UM = 1.2  # wider is background: the thickest mitochondria, with the blur of the lens
REACH_UM = 0.2  # from a mitochondrion's edge to its centreline
SHARPEN_UM = 0.1  # standard deviation of the blur that is partly undone, that of a good lens
SMOOTHING_UM = (0.08, 0.10, 0.12, 0.14, 0.17, 0.20)  # tried in this order, the first that suffices
FLOOR = 0.15  # of the field's level: what is fainter than this is no structure
AROUND_UM = 2.0  # a small part of a cell, and many widths of a mitochondrion
CHANCE = 5.0  # times the noise, the peak of a structure that is more than chance (Rose 1948)
NEIGHBOURS = 0.3  # weight of the planes above and below in noisy stacks
DEPTH_UM = 0.6  # half the depth of field of transmitted light, as of NA 1.2 with a condenser of 0.5
BEYOND_UM = 1.2  # planes up to here show what lies beyond it
APART_UM = 0.3  # nearer planes show the same
SHOWN = 0.4  # of a structure's brightest plane, below which a plane shows it from afar


@dataclass(frozen=True, eq=False)
class Contrast:
    """A plane above its background.

    Attributes
    ----------
    values
        (Y, X), grey values above the background.
    within
        (Y, X), the brightest of those of planes within the depth of field.
    planes_peak
        (Y, X), the brightest of those of all planes near.
    level
        Those of what is bright in the field.
    background
        Standard deviation of what is wider than mitochondria, over the level.
    noise
        Standard deviation of the noise left in ``values``.
    smoothing_um
        Standard deviation of the Gaussian that the noise asked for.
    """

    values: Floats
    within: Floats
    planes_peak: Floats
    level: float
    background: float
    noise: float
    smoothing_um: float

    @property
    def is_noisy(self) -> bool:
        """Whether noise hides structures that a clean field would show."""
        return CHANCE * self.noise > FLOOR * self.level

    @property
    def signal_to_noise(self) -> float:
        """The level over the noise; of noise alone, about 2."""
        if not self.noise:
            return float("inf") if self.level else 0.0
        return self.level / self.noise


def contrast_of(
    planes: NDArray[Any], z: int, pixel_um: float, z_step_um: float | None = None
) -> Contrast:
    """Bring plane ``z`` of planes (Z, Y, X) above its background.

    Background is what an opening leaves (top-hat: Meyer 1979; rolling ball: Sternberg 1983); blur
    is undone in part by subtracting a Laplacian (unsharp masking). The first smoothing is taken
    that keeps the noise below the floor, so that it makes no objects; if the first one does not,
    the planes above and below are averaged in where `planes_near` finds any.
    """
    noise = pixel_noise(planes[z])
    offsets = planes_near(z_step_um)
    weights = {z: 1.0}
    for smoothing in SMOOTHING_UM:
        share = sum(weights.values())
        image = sum(w / share * planes[k].astype(np.float32) for k, w in weights.items())
        single = np.zeros((33, 33), np.float32)
        single[16, 16] = 1
        gain = float(np.linalg.norm(_sharpened(single, smoothing, pixel_um)))
        gain *= float(np.linalg.norm([*weights.values()])) / share
        sharp = _sharpened(np.asarray(image), smoothing, pixel_um)
        values = _above_background(sharp, pixel_um)
        level, wide = _level(values), float((sharp - values).std())
        found = Contrast(
            values, values, values, level, wide / level if level else 0.0, noise * gain, smoothing
        )
        if not found.is_noisy:
            break
        if offsets:
            weights |= {k: NEIGHBOURS for k in (z - 1, z + 1) if 0 <= k < len(planes)}
    within = every = values
    for k in (z + offset for offset in offsets if 0 <= z + offset < len(planes)):
        plane = _sharpened(planes[k].astype(np.float32), smoothing, pixel_um)
        every = np.maximum(every, plane := _above_background(plane, pixel_um))
        if abs(k - z) * (z_step_um or 0) <= DEPTH_UM:
            within = np.maximum(within, plane)
    return replace(found, within=within, planes_peak=every)


def planes_near(z_step_um: float | None) -> tuple[int, ...]:
    """Return how far, in planes, those lie that tell depth: at least `APART_UM` from each other.

    None where the step is unknown, or so large that the next plane lies beyond the depth of field.
    """
    if z_step_um is None or not 0 < z_step_um <= DEPTH_UM:
        return ()
    stride = int(np.ceil(APART_UM / z_step_um))
    most = int(BEYOND_UM / z_step_um + 1e-6) // stride
    return tuple(stride * n for n in range(-most, most + 1) if n)


def relative(contrast: Contrast, pixel_um: float) -> Floats:
    """Contrast relative to the peak within reach: 0.5 at the edge of a tube, if sharp.

    A floor is added to the peak, so that neither noise nor haze is a peak of its own. Where planes
    lie near, this is the geometric mean of two shares: the plane's own, and that of the brightest
    plane within the depth of field in the peak of all; less for what this plane hardly shows.
    """
    # Cells take up more dye or less, so what is bright around counts, if less than in the field.
    level = np.minimum(_level(contrast.planes_peak, AROUND_UM / pixel_um), contrast.level)
    floor = np.maximum(FLOOR * level, CHANCE * contrast.noise)

    def peak(values: Floats) -> Floats:
        reach = REACH_UM / pixel_um
        highest = ndimage.grey_dilation(values, footprint=disk(max(1, round(reach))))
        # Without dye and noise there is nothing to be relative to.
        lowest = np.finfo(np.float32).tiny
        smooth = ndimage.gaussian_filter(highest, reach / 2).clip(min=0)
        return np.asarray(np.maximum(smooth + floor, lowest), np.float32)

    own, all_planes = peak(contrast.values), peak(contrast.planes_peak)
    shown = np.minimum(own / all_planes / SHOWN, 1)
    share = contrast.values.clip(min=0) / own * (contrast.within.clip(min=0) / all_planes) * shown
    correction = _edge_correction(contrast.smoothing_um, pixel_um)
    return np.asarray(np.sqrt(share) * correction, np.float32)


def pixel_noise(plane: NDArray[Any]) -> float:
    """Estimate the standard deviation of white noise from a plane (Immerkær 1996).

    A difference of Laplacians answers to neither slopes nor lines; the median (Donoho 1994) to no
    few structures.
    """
    kernel = np.outer([1, -2, 1], [1, -2, 1])
    response = ndimage.convolve(plane.astype(np.float32), kernel)[1:-1, 1:-1]
    return float(np.median(np.abs(response)) / 0.6745 / 6)  # 6: root of the kernel's squares


def _sharpened(plane: Floats, smoothing_um: float, px: float) -> Floats:
    """Smooth against noise, then undo some of the blur that lens and smoothing made.

    To first order a Gaussian blur adds half its variance times the Laplacian.
    """
    sigma = max(smoothing_um / px, 0.7)  # finer than 0.7 px smooths nothing
    blur = SHARPEN_UM / px
    smooth = ndimage.gaussian_filter(plane, sigma)
    edges = ndimage.gaussian_laplace(plane, np.hypot(sigma, max(blur, 0.7)))
    return np.asarray(smooth - 0.6 * blur**2 * edges, np.float32)


def _above_background(plane: Floats, px: float) -> Floats:
    """Subtract what is wider than a mitochondrion: an opening, smoothed where it has steps.

    Beyond its edges the plane goes on as it was going, so that a slope ends in no step.
    """
    radius = max(WIDEST_UM / 2 / px, 2)
    margin = min(round(2 * radius), min(plane.shape) - 1)
    wide = np.pad(plane, margin, mode="reflect", reflect_type="odd")
    background = ndimage.grey_opening(wide, footprint=disk(round(radius)))
    background = ndimage.gaussian_filter(background, radius / 2)
    inner = (slice(margin, -margin),) * 2
    return np.asarray(plane - background[inner], np.float32)


def _level(contrast: Floats, around_px: float | None = None) -> Any:
    """Contrast of what is bright, in the field or around each pixel: a mean weighted by its square.

    So the empty part of a field has no say, and no percentile supposes how much of it is full.
    """
    bright = contrast.clip(min=0).astype(np.float64)
    cubes, squares = bright**3, bright**2
    if around_px is None:
        return float(cubes.sum() / squares.sum()) if squares.any() else 0.0
    cubes, squares = (ndimage.gaussian_filter(x, around_px, truncate=3) for x in (cubes, squares))
    return np.divide(cubes, squares, out=np.zeros_like(cubes), where=squares > 0)


def _edge_correction(smoothing_um: float, px: float) -> float:
    """Return the factor that brings the edge of a blurred tube back to half of its peak.

    Blur that is not small beside the tube lowers the peak more than the edge. Lens, smoothing and
    pixel are taken together as one Gaussian, the tube as a band of light.
    """
    blur = np.sqrt(SHARPEN_UM**2 + max(smoothing_um, 0.7 * px) ** 2 + px**2 / 12)
    at_edge, at_peak = ndtr(TUBE_UM / blur) - 0.5, 2 * ndtr(TUBE_UM / 2 / blur) - 1
    return float(0.5 * at_peak / at_edge)
