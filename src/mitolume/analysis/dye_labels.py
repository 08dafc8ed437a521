"""Masks of mitochondria from the recorded fluorescence of their dye. Knows no file and no network.

A blurred tube ends where its brightness has fallen to about half of its own peak, however bright
it is. So each pixel is compared with the brightest place within reach and with the background
around, not with a histogram: the same threshold holds for bright and dim structures, fields,
conditions and dyes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import disk

from mitolume.analysis.dye_contrast import CHANCE, REACH_UM, contrast_of, relative
from mitolume.errors import MitolumeError
from mitolume.io.masks import BACKGROUND, FOREGROUND, UNSURE, Mask

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

THRESHOLD = 0.37  # of the local peak: half, less what the floor below adds to the peak
NO_DYE = 3.0  # times the noise, below which a field has no dye
DOUBT = 0.75  # of the threshold, from where on a lone structure may be a mitochondrion
WEAK = 0.2  # of the field's level, the peak of a structure that is as likely haze as in focus
SMALLEST_UM = 0.25  # diameter, finer than which a lens shows nothing
DETAIL_UM = (0.15, 0.4)  # difference of these Gaussians, in which bleed-through is looked for


@dataclass(frozen=True, eq=False)
class DyeQuality:
    """How far the dye of a field can be trusted.

    Attributes
    ----------
    signal_to_noise
        Contrast of what is bright over the noise that smoothing left.
    level
        That contrast in grey values.
    background
        Standard deviation of what is wider than mitochondria, over that contrast.
    bleed_through
        The highest correlation of fine detail with another channel, beside what was outlined; not
        a number without another.
    unsure, saturated, foreground
        Shares of pixels.
    """

    signal_to_noise: float
    level: float
    background: float
    bleed_through: float
    unsure: float
    saturated: float
    foreground: float

    @property
    def has_dye(self) -> bool:
        """Whether there is more than noise."""
        return self.signal_to_noise >= NO_DYE

    def __str__(self) -> str:
        if not self.has_dye:
            return f"no dye here: signal {self.signal_to_noise:.1f} x noise"
        text = f"signal {self.signal_to_noise:.0f} x noise, {self.unsure:.1%} unsure"
        return text + (f", {self.saturated:.1%} saturated" if self.saturated else "")


@dataclass(frozen=True, eq=False)
class DyeLabels:
    """A plane's mask from its dye.

    Attributes
    ----------
    mask
        (Y, X) uint8; 0, 1 or 255 (unsure).
    score
        (Y, X) float32, brightness over the background relative to the local peak, 0 to about 1:
        what the threshold is applied to.
    quality
        What can be said of the field.
    """

    mask: Mask
    score: Floats
    quality: DyeQuality


def label_dye(
    stack: NDArray[Any],
    pixel_size_um: float,
    *,
    z: int | None = None,
    z_step_um: float | None = None,
    threshold: float = THRESHOLD,
    others: Sequence[NDArray[Any]] = (),
    smallest_um: float = SMALLEST_UM,
    chance: float = CHANCE,
) -> DyeLabels:
    """Make a mask of mitochondria from the fluorescence of their dye.

    Each structure is outlined at a share of its own peak above the background (see
    `dye_contrast`), as widths are measured at half maximum; whole objects are kept or doubted
    (hysteresis: Canny 1986). Gain and offset of the camera don't matter.

    Parameters
    ----------
    stack
        (Y, X), or (Z, Y, X) of one channel; grey values, finite.
    pixel_size_um
        Side of a pixel.
    z
        The plane, from 0; the middle one by default.
    z_step_um
        Between planes. Where it is known, planes within 1.2 µm tell what is in focus.
    threshold
        Of the local peak, between 0 and 1, see `choose_threshold`.
    others
        The plane, (Y, X), in the channels of other dyes, which may bleed through.
    smallest_um
        Diameter of the smallest structure that is kept.
    chance
        Times the noise, the peak of a structure below which it may be chance and is unsure.

    Returns
    -------
    DyeLabels
        Unsure (255) are structures faint beside the field's other ones or the noise, lone ones
        just below the threshold, what lies beside saturated pixels; in a noisy field what might
        be more than noise; and all pixels where there is no dye.

    Raises
    ------
    MitolumeError
        The stack is neither a plane nor planes, holds values that are not finite, or a number is
        out of its range.

    Examples
    --------
    >>> y, x = np.ogrid[:64, :64]
    >>> tube = 100 + 1000 * np.exp(-(((y - 32) / 3) ** 2)) + 0 * x
    >>> labels = label_dye(np.random.default_rng(0).poisson(tube), 0.1)
    >>> labels.mask[32].min(), labels.mask[20].max(), str(labels.quality).split(",")[1]
    (np.uint8(1), np.uint8(0), ' 0.0% unsure')
    """
    planes = _checked(stack, pixel_size_um, threshold)
    z = len(planes) // 2 if z is None else z
    if not 0 <= z < len(planes):
        raise MitolumeError(f"there is no plane {z}: the stack has {len(planes)}, from 0")
    contrast = contrast_of(planes, z, pixel_size_um, z_step_um)
    score = relative(contrast, pixel_size_um)
    saturated = _saturated(planes[z])
    signal, left = contrast.signal_to_noise, contrast.noise
    mask = np.full(score.shape, UNSURE, np.uint8)
    if signal >= NO_DYE:
        strong = contrast.within >= max(WEAK * contrast.level, chance * left)
        mask = _mask(score, strong, saturated, threshold, pixel_size_um, smallest_um)
        if contrast.is_noisy:
            mask[(mask == BACKGROUND) & (contrast.values > NO_DYE * left)] = UNSURE
    quality = DyeQuality(
        signal_to_noise=signal,
        level=contrast.level,
        background=contrast.background,
        bleed_through=_bleed_through(planes[z], mask == FOREGROUND, others, pixel_size_um),
        unsure=float((mask == UNSURE).mean()),
        saturated=float(saturated.mean()),
        foreground=float((mask == FOREGROUND).mean()),
    )
    return DyeLabels(mask, score, quality)


def choose_threshold(scores: Sequence[Floats], outlined: Sequence[Mask]) -> float:
    """Choose the one threshold at which masks from the dye agree best with outlines.

    Parameters
    ----------
    scores
        (Y, X) each, as `label_dye` gives them: fields of every condition that has outlines.
    outlined
        Masks of the same shapes; 0, 1 or 255 (unsure, not counted).

    Returns
    -------
    float
        Between 0.2 and 0.7, that with the highest mean foreground IoU over fields, each counting
        the same, averaged with `THRESHOLD` as if one more field had that: a single rough outline
        can be far off. `THRESHOLD` where nothing is outlined.
    """
    candidates = np.linspace(0.2, 0.7, 51)
    total, n_fields = np.zeros(len(candidates)), 0
    for score, mask in zip(scores, outlined, strict=True):
        inside, outside = (np.sort(score[mask == kind]) for kind in (FOREGROUND, BACKGROUND))
        if not inside.size:
            continue
        above = [v.size - np.searchsorted(v, candidates, "right") for v in (inside, outside)]
        total += above[0] / (inside.size + above[1])
        n_fields += 1
    return float((n_fields * candidates[total.argmax()] + THRESHOLD) / (n_fields + 1))


def _checked(stack: NDArray[Any], pixel_size_um: float, threshold: float) -> NDArray[Any]:
    """Return (Z, Y, X), or refuse what can't be labelled."""
    planes = np.asarray(stack)
    planes = planes[None] if planes.ndim == 2 else planes
    if planes.ndim != 3 or min(planes.shape[1:], default=0) < 8 or not len(planes):
        raise MitolumeError(f"the dye is {np.shape(stack)}: it must be (Y, X) or (Z, Y, X)")
    if not np.isfinite(planes).all():
        raise MitolumeError("the dye holds values that are not finite")
    if not 0 < pixel_size_um <= 0.5:
        raise MitolumeError(
            f"pixels of {pixel_size_um:g} µm: mitochondria show in pixels up to 0.5 µm"
        )
    if not 0 < threshold < 1:
        raise MitolumeError(f"threshold is {threshold:g}: it must lie between 0 and 1")
    return planes


def _saturated(plane: NDArray[Any]) -> Bools:
    """Pixels at the end of the detector's range: the largest value, where many share it."""
    top = plane == plane.max()
    # By chance, the largest value is as rare as those below it; saturation gathers them all.
    values, counts = np.unique(plane, return_counts=True)
    usual = counts[-6:-1].mean() if len(values) > 1 else plane.size
    return np.asarray(top & (top.sum() > max(8, 5 * usual)))


def _bleed_through(
    plane: NDArray[Any], outlined: Bools, others: Sequence[NDArray[Any]], px: float
) -> float:
    """Correlate fine detail with other channels, away from what was outlined.

    There, the channel of a good dye shows noise and haze alone.
    """
    beside = ~ndimage.binary_dilation(outlined, disk(max(1, round(REACH_UM * 2.5 / px))))
    found = [np.nan]
    for other in others if beside.sum() > 1 else ():
        fine, coarse = (
            [ndimage.gaussian_filter(x.astype(np.float32), um / px)[beside] for x in (plane, other)]
            for um in DETAIL_UM
        )
        one, two = (a - b - (a - b).mean() for a, b in zip(fine, coarse, strict=True))
        spread = float(np.linalg.norm(one) * np.linalg.norm(two))
        found.append(float(one @ two) / spread if spread else 0.0)
    return float(np.fmax.reduce(found))


def _mask(
    score: Floats, strong: Bools, saturated: Bools, threshold: float, px: float, smallest_um: float
) -> Mask:
    """Decide object by object: mitochondria where one has a strong pixel, otherwise unsure."""
    doubtful, count = ndimage.label(score > DOUBT * threshold, np.ones((3, 3)))
    outlined = score > threshold
    large = np.bincount(doubtful.ravel()) * px**2 >= np.pi / 4 * smallest_um**2
    sure = large & (np.bincount(doubtful[outlined & strong], minlength=count + 1) > 0)
    sure[0] = large[0] = False
    mask = np.where(outlined & sure[doubtful], FOREGROUND, BACKGROUND).astype(np.uint8)
    mask[(large & ~sure)[doubtful]] = UNSURE
    burnt = np.unique(doubtful[saturated])
    around = ndimage.binary_dilation(saturated, disk(max(1, round(REACH_UM / px))))
    mask[around & (np.isin(doubtful, burnt) | saturated)] = UNSURE
    return mask
