"""Transfer functions of round apertures, and stacks filtered by them. Knows no kind of contrast.

What a round aperture does depends only on the radial frequency and on the defocus. So it is
computed once on a fine grid of radii, for every distance between a slice of the specimen and an
image plane, and looked up for the frequencies of the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft
from scipy.special import j0, j1, roots_legendre

from mitolume.errors import MitolumeError

Array = NDArray[np.float64]
Floats = NDArray[np.float32]

TAIL = 24.0  # rings of an aperture's diffraction pattern that are kept beyond its defocused disc
FINENESS = 24.0  # grid steps in the finest oscillation of a transfer function over the radius
NEGLIGIBLE = 3e-4  # transfer below which the higher frequencies of a slice are left out


@dataclass(frozen=True)
class Aperture:
    """A round aperture: its numerical aperture, vacuum wavelength (um) and medium.

    The amplitude of a plane wave at an angle theta to the axis is cos(theta) to the ``power``.
    """

    na: float
    wavelength_um: float
    medium_index: float
    power: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.na < self.medium_index:
            raise MitolumeError(
                f"A numerical aperture of {self.na:g} is impossible with an immersion of "
                f"refractive index {self.medium_index:g}: give one between 0 and that index."
            )

    @property
    def cutoff(self) -> float:
        """Largest radial frequency, in 1/um."""
        return self.na / self.wavelength_um

    def reach(self, defocus_um: float) -> float:
        """Return the radius (um) that holds nearly all light of a point out of focus."""
        slope = self.na / np.sqrt(self.medium_index**2 - self.na**2)
        return float(defocus_um * slope + TAIL * self.wavelength_um / self.na)

    def spread(self, distance_um: Array, defocus_um: Array) -> NDArray[np.complex64]:
        r"""Return the scalar Debye integral: the amplitude around a point, out of focus.

        .. math:: h(\rho, d) = 2 \pi \int_0^{NA/\lambda} \cos^p\theta \,
           e^{2 \pi i d (\eta(q) - \eta(0))} J_0(2 \pi q \rho) \, q \, dq, \quad
           \eta(q) = \sqrt{n^2 / \lambda^2 - q^2}

        Parameters
        ----------
        distance_um
            (N,), from the axis.
        defocus_um
            (D,), of any sign.

        Returns
        -------
        numpy.ndarray
            (D, N).
        """
        wave = self.medium_index / self.wavelength_um
        far = np.abs(defocus_um).max(initial=0.0)
        cycles = far * (wave - np.sqrt(wave**2 - self.cutoff**2))
        cycles += distance_um.max(initial=0.0) * self.cutoff
        nodes, weights = roots_legendre(int(4 * cycles) + 32)
        q = self.cutoff * (nodes + 1) / 2
        axial = np.sqrt(wave**2 - q**2)
        weights = np.pi * self.cutoff * weights * q * (axial / wave) ** self.power
        phase = np.exp(2j * np.pi * np.outer(defocus_um, axial - wave)) * weights
        bessel = j0(2 * np.pi * np.outer(q, distance_um)).astype(np.float32)
        real, imaginary = (part.astype(np.float32) @ bessel for part in (phase.real, phase.imag))
        return np.asarray(real + 1j * imaginary)


def nodes(band: float, reach: float) -> tuple[Array, Array]:
    r"""Return distances (N,) at which a radial function is sampled, and the weights (N,).

    A radial function of space whose spectrum ends at the radial frequency ``band`` is known from
    its values at the zeros of :math:`J_0(2 \pi \, band \, \rho)`, because the spectrum is a
    Fourier-Bessel series on the disc. ``reach`` (um) is where the function has died away.
    """
    count = max(int(np.ceil(2 * band * reach)), 8)
    zeros = np.pi * (np.arange(1, count + 1, dtype=np.float64) - 0.25)
    zeros += 1 / (8 * zeros)  # McMahon's expansion, then Newton's steps
    for _ in range(3):
        zeros += j0(zeros) / j1(zeros)
    return zeros / (2 * np.pi * band), 1 / (np.pi * band**2 * j1(zeros) ** 2)


def spectrum(radii: Array, distance_um: Array, weighted: Floats) -> Floats:
    """Return the spectra (D, R) at radial frequencies (R,) of weighted samples (D, N)."""
    bessel = j0(2 * np.pi * np.outer(distance_um, radii)).astype(np.float32)
    return np.asarray(weighted @ bessel, np.float32)


def radial_grid(band: float, reach: float, pixel_um: ArrayLike) -> Array:
    """Return radial frequencies (R,) from 0, evenly, to the end of the band or of the image's."""
    corner = float(np.hypot(*(0.5 / np.asarray(pixel_um, float))))
    stop = min(band, corner)
    return np.linspace(0.0, stop, int(np.ceil(stop * reach * FINENESS)) + 2)


def filter_slices(
    slices: Floats, pixel_um: tuple[float, float], radii: Array, transfer: Floats
) -> Floats:
    """Filter every slice for every image plane, and add the slices up.

    Opposite edges of the field are neighbours.

    Parameters
    ----------
    slices
        (Z, Y, X).
    pixel_um
        Of Y and X.
    radii
        (R,), evenly spaced radial frequencies in 1/um, from 0.
    transfer
        (P, Z, R), of a slice in an image plane; beyond the last radius it is 0.

    Returns
    -------
    numpy.ndarray
        (P, Y, X) float32.
    """
    height, width = slices.shape[1:]
    frequency = np.hypot(
        fft.fftfreq(height, pixel_um[0])[:, None], fft.rfftfreq(width, pixel_um[1])
    ).ravel()
    inside = np.flatnonzero(frequency <= radii[-1])
    inside = inside[np.argsort(frequency[inside], kind="stable")]  # so a slice's band is a prefix
    place = frequency[inside] / radii[1]
    lower = np.minimum(place.astype(np.intp), len(radii) - 2)
    share = (place - lower).astype(np.float32)

    spectra = np.empty((len(slices), len(inside)), np.complex64)
    for one, slice_ in zip(spectra, slices, strict=True):
        one[:] = fft.rfft2(slice_).ravel()[inside]
    wanted = np.abs(transfer) > NEGLIGIBLE
    last = np.where(wanted.any(2), len(radii) - np.argmax(wanted[..., ::-1], axis=2), 0)
    counts = np.searchsorted(lower, last)  # frequencies of a slice that a plane needs

    planes = np.empty((len(transfer), height, width), np.float32)
    for plane, rows, needed in zip(planes, transfer, counts, strict=True):
        total = np.zeros(len(inside), np.complex64)
        for row, values, count in zip(rows, spectra, needed, strict=True):
            below = row[lower[:count]]
            below += share[:count] * np.diff(row)[lower[:count]]
            total[:count] += below * values[:count]
        full = np.zeros(len(frequency), np.complex64)
        full[inside] = total
        plane[:] = fft.irfft2(full.reshape(height, -1), (height, width))
    return planes
