"""Signal and noise told apart by their spectrum, place by place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import fft
from scipy.ndimage import gaussian_filter

from mitolume.io.windows import Plane
from mitolume.preprocess.plane_spectra import SIDE, window_starts

Image = np.ndarray[Any, np.dtype[np.float32]]
Spectrum = np.ndarray[Any, np.dtype[np.float64]]

_HALF = SIDE // 2 - 1  # pixels to each side of a filter's middle
_MOST = 16  # windows along an axis: larger planes are sampled
_STRIPED = 1.3  # power along the lines over the floor, from which there are scan lines
_CHANCE = 1.5  # standard deviations of a frequency's power that are taken for noise
_TIMES = (0.1, 0.3, 1.0, 3.0, 10.0)  # the plane's mean signal, for which there are filters
_FAINT = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # further ones, where there is less noise
_NONE = 0.3  # of the signal that has as much energy as noise: nothing is kept
_MOST_NONE = 0.03  # of the plane's mean signal
_PLACE = 10.0  # pixels, standard deviation of the surroundings that choose the filter
_PLACE_REACH = round(3 * _PLACE)
REACH = 2 * _HALF + _PLACE_REACH  # pixels to each side on which the answer depends
_TINY = 1e-12
_HIDDEN = 0.05  # of the noise's power: signal that can't be told from it


@dataclass(frozen=True, eq=False)
class SignalNoise:
    """Power of signal and of noise at each frequency.

    Attributes
    ----------
    signal, noise
        (64, 64) each, in the order of `numpy.fft`; 1 for white noise of variance 1.
    """

    signal: Spectrum
    noise: Spectrum

    @property
    def floor(self) -> float:
        """Variance of the noise of pixels, scan lines left out."""
        return max(float(self.noise.min()), _TINY)

    @property
    def error(self) -> float:
        """Mean squared error that the best linear filter leaves (Wiener 1949)."""
        return float((self.noise * self.kept).mean())

    @property
    def kept(self) -> Spectrum:
        """Share of signal at each frequency, 0 to 1."""
        share: Spectrum = self.signal / (self.signal + self.noise + _TINY)
        return share


def signal_and_noise(planes: Iterable[Plane]) -> SignalNoise:
    """Tell signal from noise in planes by their mean spectrum.

    The power of white noise is the same at all frequencies, so it can't exceed the lowest power
    found at any; what is above is signal. Horizontal scan lines have their own noise: what is
    there at frequencies along Y where no signal is left. Planes are of mean 0, arrays or what
    slices like them; of large ones 16 x 16 windows are read.
    """
    total: Spectrum = np.zeros((SIDE, SIDE))
    count = 0
    window = np.hanning(SIDE + 1)[:SIDE]
    window = (window * window[:, None]).astype(np.float32)
    for plane in planes:
        height, width = plane.shape
        margin = [(0, max(0, SIDE - size)) for size in (height, width)]
        for y in window_starts(height, SIDE, _MOST):
            rows = np.pad(plane[y : y + SIDE, 0:width], margin, mode="symmetric")
            for x in window_starts(width, SIDE, _MOST):
                total += np.abs(fft.fft2(rows[:, x : x + SIDE] * window)) ** 2
                count += 1
    power = total / count / (window**2).sum()
    back = -np.arange(SIDE)
    power = (power + power[back]) / 2
    power = (power + power[:, back]) / 2
    noise = _noise(power)
    # Half of the windows are new, as they overlap: by so much may the power exceed its mean.
    chance = 1 + _CHANCE / np.sqrt(max(1, count / 2))
    return SignalNoise(np.maximum(power - chance * noise, 0), noise)


def _noise(power: Spectrum) -> Spectrum:
    """Return the power of the noise at each frequency: a white floor, and more along the lines."""
    frequency = np.abs(np.fft.fftfreq(SIDE)) * SIDE
    ring = np.rint(np.hypot(frequency, frequency[:, None])).astype(int)
    full = np.bincount(ring.ravel()) >= 12  # frequencies that make a median
    # The floor is looked for where structures are of 8 pixels and finer.
    rings = [i for i in range(SIDE // 8, ring.max() + 1) if full[i]]
    floor = max(min(float(np.median(power[ring == i])) for i in rings), _TINY)
    noise = np.full_like(power, floor)
    lines = frequency <= 3  # left and right of the middle, where scan lines show
    striped = np.median(power[frequency >= SIDE / 4][:, lines], axis=0)
    noise[:, lines] = np.where(striped > _STRIPED * floor, striped, floor)
    return noise


class WienerBank:
    """Wiener filters for more and for less signal, of which each place takes its own.

    The gain of a filter is ``k S / (k S + N)`` at each frequency, for signal S, noise N and k up to
    10. The energy that the filter for k = 1 lets through around a place says which k it has. The
    less noise there is, the fainter the signal that is still told from it.
    """

    def __init__(self, found: SignalNoise) -> None:
        signal, noise = found.signal, found.noise
        through = found.kept**2
        self._noise = float((through * noise).mean())
        self._signal = max(float((through * signal).mean()), _TINY)
        heard = (self._noise or 1.0) / self._signal  # no noise gets through where there's no signal
        self._none = min(_NONE * heard, _MOST_NONE)
        self._times = (*(k for k in _FAINT if k > self._none), *_TIMES)
        gains = [k * signal / (k * signal + noise + _TINY) for k in self._times]
        self._kernels = [_kernel(gain) for gain in gains]
        self._usual = self._times.index(1.0)

    def filter(self, image: Image) -> Image:
        """Filter an image, mirrored at its edges; of a window, `REACH` pixels are not yet right."""
        kept = self._filtered(image)
        energy = gaussian_filter(kept[self._usual + 1] ** 2, _PLACE, radius=_PLACE_REACH)
        times = np.maximum((energy - self._noise) / self._signal, self._none)
        steps = np.arange(len(self._times) + 1)
        place = np.interp(np.log(times), np.log((self._none, *self._times)), steps)
        place = place.astype(np.float32)
        lower = np.minimum(place.astype(np.intp), len(self._times) - 1)
        share = place - lower
        below, above = (np.take_along_axis(kept, i[None], 0)[0] for i in (lower, lower + 1))
        return np.asarray((1 - share) * below + share * above, np.float32)

    def _filtered(self, image: Image) -> Image:
        """Return what each filter keeps, (k, Y, X); nothing comes first."""
        padded = np.pad(image, _HALF, mode="symmetric")
        if min(image.shape) >= SIDE:
            # A mirrored slope has a kink, and the filter would round it: turned around the edge
            # it goes on straight. The noise of the edge must not be turned with it.
            (straight,) = _convolved(padded, self._kernels[self._usual : self._usual + 1])
            edged = image.copy()
            edged[[0, -1]], edged[:, [0, -1]] = straight[[0, -1]], straight[:, [0, -1]]
            padded = np.pad(edged, _HALF, mode="reflect", reflect_type="odd")
            padded[_HALF:-_HALF, _HALF:-_HALF] = image
        nothing = np.zeros((1, *image.shape), np.float32)
        return np.concatenate([nothing, _convolved(padded, self._kernels)])


def _convolved(padded: Image, kernels: list[Image]) -> Image:
    """Convolve an image with kernels (63, 63), (K, Y, X); without its padding."""
    shape = [fft.next_fast_len(size, real=True) for size in padded.shape]
    spectrum = fft.rfft2(padded, shape)
    inner = tuple(slice(2 * _HALF, size) for size in padded.shape)
    # The kernel's wrapped end reaches the padding only.
    found = [fft.irfft2(spectrum * fft.rfft2(kernel, shape), shape)[inner] for kernel in kernels]
    return np.asarray(found, np.float32)


def _kernel(gain: Spectrum) -> Image:
    """Return the filter of a gain, (63, 63); tapered, as an abrupt end would ring."""
    kernel = np.fft.fftshift(np.fft.ifft2(gain).real)[1:, 1:]
    taper = np.hanning(2 * _HALF + 3)[1:-1] ** 0.5
    return np.asarray(kernel * taper * taper[:, None], np.float32)


@dataclass(frozen=True, eq=False)
class Detail(SignalNoise):
    """What predictions lack, as it was measured: it tells how to find it again in other planes.

    All powers are in units of a plane's own noise (`SignalNoise.floor`).

    Attributes
    ----------
    signal, noise
        (64, 64): of planes minus predictions.
    left
        (64, 64), 0 to 1: share of a plane's signal that predictions lack.
    """

    left: Spectrum

    def bank(self, plane: SignalNoise) -> WienerBank:
        """Return the filters for a plane minus its prediction, in units of the plane's noise.

        A plane that has less noise than those measured shows signal where they showed none.
        """
        own = self.left * plane.signal / plane.floor
        return WienerBank(SignalNoise(np.maximum(self.signal, own), self.noise))


def measure_detail(planes: list[Image], predictions: list[Image]) -> Detail:
    """Measure what predictions lack that don't know the normalised planes' own noise."""
    unit = [np.float32(signal_and_noise([plane]).floor ** -0.5) for plane in planes]
    found = signal_and_noise(
        (plane - prediction) * by
        for plane, prediction, by in zip(planes, predictions, unit, strict=True)
    )
    whole = signal_and_noise(plane * by for plane, by in zip(planes, unit, strict=True))
    # What noise hid may be lacking too, and is where planes have less of it.
    lacking = found.signal + _HIDDEN * found.noise
    left = np.clip(lacking / (whole.signal + _TINY), 0, 1)
    return Detail(found.signal, found.noise, left)
