"""Whether neighbouring planes can teach what is noise (Noise2Noise).

Noise2Noise (Lehtinen et al. 2018) needs pictures of the same with noise of their own. Planes of a
stack are that as far as their signal changes little from one to the next, and their noise is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mitolume.io.windows import Plane
from mitolume.preprocess.plane_spectra import SMALLEST, Floats, PlaneSpectra, measure_spectra

_FEWEST = 3  # planes; two neighbours can't show how fast signal changes
_MOST_SHARED = 0.2  # of the noise's variance: more can't be averaged out
_LEAST_ALIKE = 0.5  # correlation of the signal of neighbours
_MOST_LOST = 3.0  # dB: change between planes adds as much error as the best filter leaves
_LEAST_GAIN = 1.0  # dB
_UNRELATED = 0.2  # correlation of the signal of neighbours
_SATURATED = 0.25  # of the pixels at one highest value
_FINEST = 0.5  # cycles per pixel: beyond, in the spectrum's corners, optics leave no signal
_COARSE = 0.125  # cycles per pixel
_STEADY = 1.15  # growth with distance of what planes don't share, below which it is noise
_STILL = 1.25  # the same for coarse structure, where little is averaged
_GENTLE = 1.3  # from ring to ring: signal rises more steeply towards coarser structure
_STRONG = 0.2  # signal over noise, from which a ring shows signal
_SEEN, _LASTING = 0.1, 0.8  # coarse signal, of the power; and what is left of it far away
_LINES = 0.3  # of the pixel noise's power, by which lines exceed it where they show


@dataclass(frozen=True)
class NoiseCheck:
    """What was found in a stack; correlations are of planes laid over each other.

    Attributes
    ----------
    verdict
        ``suitable`` or ``not suitable``.
    reason
        One clause that says why.
    n_planes, z_step_um
        What is known of the stack; None for unknown.
    shift_px
        Median length of the step from plane to plane.
    largest_shift_px
        The longest of them.
    distances, signal, noise
        Correlation of signal and of residual noise against the distance in planes.
    frequencies, coherence
        Correlation of neighbours by fineness, cycles per pixel.
    noise_sd, row_noise_sd, column_noise_sd
        Of pixels, and of lines of pixels that share an offset, in grey values.
    shared_noise
        Share of the noise's variance that neighbours have in common.
    is_correlated
        Whether neighbouring pixels share noise: the image was smoothed, resampled or compressed.
    gain_db, best_gain_db
        By how much the best linear filter learnt from neighbours brings a plane nearer to the
        truth, and by how much one learnt from repeats of the same plane would.
    """

    verdict: str
    reason: str
    n_planes: int
    z_step_um: float | None = None
    shift_px: float = 0.0
    largest_shift_px: float = 0.0
    distances: tuple[int, ...] = ()
    signal: tuple[float, ...] = ()
    noise: tuple[float, ...] = ()
    frequencies: tuple[float, ...] = ()
    coherence: tuple[float, ...] = ()
    noise_sd: float | None = None
    row_noise_sd: float | None = None
    column_noise_sd: float | None = None
    shared_noise: float | None = None
    is_correlated: bool = False
    gain_db: float | None = None
    best_gain_db: float | None = None

    @property
    def is_suitable(self) -> bool:
        """Whether neighbouring planes can be learnt from."""
        return self.verdict == "suitable"

    @property
    def sentence(self) -> str:
        """``suitable``, or ``not suitable: `` and the reason."""
        return self.verdict if self.is_suitable else f"{self.verdict}: {self.reason}"


def check_stack(planes: Sequence[Plane], z_step_um: float | None = None) -> NoiseCheck:
    """Find out whether neighbouring planes of a stack can teach a network what is noise.

    Planes are compared frequency by frequency. In the corners of the spectrum, finer than optics
    resolve, there is noise only: its power is the level of the noise, and what neighbours share
    there is shared noise. Where neighbours share less than a plane's signal, the signal changes.
    A filter learnt from neighbours passes, at each frequency, the share ``C / P`` of what they have
    in common in the power of a plane; its error is ``(1 - C / P)^2 S + (C / P)^2 N`` for signal S
    and noise N, that of the best filter ``S N / P`` (Wiener 1949), that of doing nothing N.

    Parameters
    ----------
    planes
        In order of z, each (Y, X) of one size and any numeric dtype: arrays, or planes still in
        their file. At most 84 of them are read, in part.
    z_step_um
        For the text only.

    Returns
    -------
    NoiseCheck

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> cell = 50 * np.outer(*[np.sin(np.arange(128) / 5)] * 2)
    >>> check_stack(cell + rng.normal(0, 20, (6, 128, 128))).sentence
    'suitable'
    >>> check_stack((cell + rng.normal(0, 20, (128, 128)))[None].repeat(6, axis=0)).sentence
    'not suitable: noise is shared between planes'
    """
    known: Any = {"n_planes": len(planes), "z_step_um": z_step_um}
    fault = _unusable(planes)
    if fault:
        return NoiseCheck("not suitable", fault, **known)
    spectra = measure_spectra(planes)
    if 1 not in spectra.distances:
        return NoiseCheck("not suitable", "planes are constant", **known)
    noise, shared, is_correlated = _noise(spectra)
    numbers = _numbers(spectra, noise, shared) | known
    reason = _reason(numbers)
    verdict = "not suitable" if reason else "suitable"
    reason = reason or "neighbouring planes show much the same, with noise of their own"
    return NoiseCheck(verdict, reason, is_correlated=is_correlated, **numbers)


def _unusable(planes: Sequence[Plane]) -> str:
    """Return why a stack needs no closer look, or nothing."""
    if len(planes) < _FEWEST:
        said = "there is one plane" if len(planes) == 1 else f"there are {len(planes)} planes"
        return f"too few planes ({said}; {_FEWEST} are needed)"
    height, width = planes[0].shape
    if min(height, width) < SMALLEST:
        return (f"planes of {height} x {width} pixels are too small to tell signal from noise "
                f"({SMALLEST} x {SMALLEST} are needed)")  # fmt: skip
    shares = []
    for z in np.unique(np.linspace(0, len(planes) - 1, 8).astype(int)):
        # About 500 lines of a large plane are enough for a share.
        step = max(1, height // 500)
        pixels = np.asarray(planes[z][slice(0, height, step), slice(0, width)])
        highest = pixels.max()
        shares.append(float((pixels == highest).mean()) if pixels.min() < highest else np.nan)
    if np.isnan(shares).all():
        return "planes are constant"
    saturated = float(np.nanmedian(shares))
    return f"{saturated:.0%} of the pixels are saturated" if saturated > _SATURATED else ""


def _noise(spectra: PlaneSpectra) -> tuple[Floats, Floats, bool]:
    """Return the power of noise and of shared noise, (G,), and whether pixels share it.

    Noise is white unless shown otherwise: its level in the corners holds for coarser rings too.
    Where resampling took from the corners, the level rises from ring to ring towards coarser
    structure; it is followed while it rises gently and doesn't grow with the distance of planes,
    as change of signal does.
    """
    power, cross = spectra.power[0], spectra.cross[0]
    ring = spectra.kind == 0
    corner = ring & (spectra.frequency > _FINEST)
    level = spectra.mean(power, corner)
    common = max(0.0, spectra.mean(cross, corner))
    own = power - cross
    growth = ((spectra.power - spectra.cross) / np.maximum(own, 1e-12)).max(axis=0)
    noise = np.full_like(power, level)
    for group in np.flatnonzero(ring & ~corner)[::-1]:
        here = float(own[group]) + common
        if here > _GENTLE * level or growth[group] > _STEADY:
            noise[ring & (spectra.frequency <= spectra.frequency[group])] = level
            break
        noise[group] = level = here
    coarse = ring & (spectra.frequency < _COARSE)
    floor = float(own[coarse].min())
    is_correlated = bool(
        len(spectra.distances) >= 4
        and floor > 2 * level
        and own[coarse].max() < 3 * floor
        and growth[coarse].mean() < _STILL
        and spectra.mean(cross, coarse) > _SEEN * spectra.mean(power, coarse)
        and spectra.mean(spectra.cross[-1], coarse) > _LASTING * spectra.mean(cross, coarse)
    )
    if is_correlated:
        noise = np.minimum(floor, np.maximum(own, 0.0))
    else:
        noise[~ring] = np.interp(spectra.frequency[~ring], spectra.frequency[ring], noise[ring])
    shared = np.full_like(power, common)
    for kind in (1, 2):
        axis = spectra.kind == kind
        extra, extra_shared = _lines(spectra, kind, power), _lines(spectra, kind, cross)
        if extra > _LINES * level:
            noise[axis] += extra
            shared[axis] += max(0.0, extra_shared)
    return np.minimum(noise, power), shared, is_correlated


def _lines(spectra: PlaneSpectra, kind: int, values: Floats) -> float:
    """Return by how much values on an axis of the spectrum exceed those beside it, at its end."""
    end = (spectra.frequency > 0.3) & (spectra.frequency < 0.5)
    axis = spectra.mean(values, end & (spectra.kind == kind))
    return axis - spectra.mean(values, end & (spectra.kind == 0))


def _numbers(spectra: PlaneSpectra, noise: Floats, shared: Floats) -> dict[str, Any]:
    power, cross = spectra.power[0], spectra.cross[0]
    every, ring = np.ones(len(power), bool), spectra.kind == 0
    signal = np.maximum(power - noise, 0.0)
    passed = np.clip(cross / np.maximum(power, 1e-30), 0, 1)
    error = spectra.mean((1 - passed) ** 2 * signal + passed**2 * noise, every)
    least = spectra.mean(signal * noise / np.maximum(power, 1e-30), every)
    total = spectra.mean(noise, every)
    strong = ring & (signal > _STRONG * noise)
    corner = ring & (spectra.frequency > _FINEST)
    lengths = np.hypot(*spectra.shifts.T)
    level = spectra.mean(noise, ring)
    lines = [_lines(spectra, kind, power) for kind in (1, 2)]
    # A line's offset lies in three frequencies across it, through the taper of the windows.
    seen = [power * 3 / spectra.side if power > _LINES * level else 0.0 for power in lines]
    return {
        "shift_px": float(np.median(lengths)),
        "largest_shift_px": float(lengths.max()),
        "distances": spectra.distances,
        "signal": tuple(
            spectra.mean(row, strong) / spectra.mean(signal, strong) if strong.any() else 0.0
            for row in spectra.cross
        ),
        "noise": tuple(
            spectra.mean(c, corner) / max(spectra.mean(p, corner), 1e-30)
            for c, p in zip(spectra.cross, spectra.power, strict=True)
        ),
        "frequencies": tuple(spectra.frequency[ring].tolist()),
        "coherence": tuple((cross / np.maximum(power, 1e-30))[ring].tolist()),
        "noise_sd": float(np.sqrt(level)),
        "row_noise_sd": float(np.sqrt(seen[0])),
        "column_noise_sd": float(np.sqrt(seen[1])),
        "shared_noise": float(np.clip(spectra.mean(shared, every) / max(total, 1e-30), 0, 1)),
        "gain_db": _db(total, error),
        "best_gain_db": _db(total, least),
    }


def _db(before: float, after: float) -> float:
    """Return the gain in dB, within ±60."""
    return float(np.clip(10 * np.log10(max(before, 1e-30) / max(after, 1e-30)), -60, 60))


def _reason(numbers: dict[str, Any]) -> str:
    """Return why the planes are not suitable, or nothing."""
    alike, gain, best = numbers["signal"][0], numbers["gain_db"], numbers["best_gain_db"]
    if not any(numbers["signal"]):
        return "nothing but noise is seen"
    if numbers["shared_noise"] > _MOST_SHARED:
        return "noise is shared between planes"
    if alike < _UNRELATED:
        return "neighbouring planes show unrelated images, or signal changes too fast"
    if alike < _LEAST_ALIKE or best - gain > _MOST_LOST:
        return "signal changes too fast from plane to plane"
    if gain < _LEAST_GAIN:
        return "there is hardly any noise that a plane doesn't share with the next"
    return ""
