"""Light through the specimen: transmitted light and fluorescence, through focus.

What a round aperture does depends only on the radial frequency and on the defocus. So its transfer
function is computed once on a fine grid of radii, for every distance between a slice of the
specimen and an image plane, and looked up for the frequencies of the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft
from scipy.special import j0, j1, roots_legendre

from mitolume.simulate.settings import OpticsSettings

Array = NDArray[np.float64]
Floats = NDArray[np.float32]

DARKEST = 0.02  # transmitted light, share of the background: the Born approximation has no floor
NEAR_UM = 6.0  # defocus beyond which the haze of fluorescence follows from rays, not waves


@dataclass(frozen=True)
class Aperture:
    """A round aperture: its numerical aperture, vacuum wavelength (um) and medium.

    The amplitude of a plane wave at an angle theta to the axis is cos(theta) to the ``power``.
    """

    na: float
    wavelength_um: float
    medium_index: float
    power: float = 0.0

    @property
    def cutoff(self) -> float:
        """Largest radial frequency, in 1/um."""
        return self.na / self.wavelength_um

    def reach(self, defocus_um: float) -> float:
        """Return the radius (um) that holds nearly all light of a point: its disc and 24 rings."""
        slope = self.na / np.sqrt(self.medium_index**2 - self.na**2)
        return float(defocus_um * slope + 24.0 * self.wavelength_um / self.na)

    def spread(self, distance_um: Array, defocus_um: Array) -> NDArray[np.complex64]:
        r"""Return the scalar Debye integral: the amplitude around a point, out of focus.

        .. math:: h(\rho, d) = 2 \pi \int_0^{NA/\lambda} \cos^p\theta \,
           e^{2 \pi i d (\eta(q) - \eta(0))} J_0(2 \pi q \rho) \, q \, dq, \quad
           \eta(q) = \sqrt{n^2 / \lambda^2 - q^2}

        It is (D, N) for (D,) defocus of either sign and (N,) distances from the axis, in um.
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


def transmitted_stack(
    index: Floats,
    voxel_um: tuple[float, float, float],
    z_um: ArrayLike,
    focus_um: ArrayLike,
    optics: OpticsSettings,
) -> Floats:
    """Image a refractive-index volume in partially coherent light.

    Each slice adds, to each image plane, its phase filtered by the weak-object transfer function of
    its defocus (:func:`contrast_transfer`). This is the first Born approximation: light that
    structures scatter twice is left out. Where strong structures would then give less than nothing,
    the intensity is cut at ``DARKEST``.

    Light comes from above, from the condenser, and the objective looks from below through the
    coverslip, so that a mitochondrion is bright while the focus lies below it and dark while it
    lies above. By reciprocity (Sheppard and Choudhury 1977, Optica Acta 24:1051) a focused laser
    that scans through the objective, with a detector behind the condenser, gives the same image.

    Opposite edges of the field are neighbours: give a margin and cut it off. Far from focus light
    comes from further away than any margin; there the field's own repetition stands in for the
    cells around it.

    ``index`` (Z, Y, X) is the refractive index minus that of the medium, which is also that of the
    immersion; ``z_um`` (Z,) and ``focus_um`` (P,) are the heights of slices and image planes. The
    result (P, Y, X) is 1 where there is nothing.
    """
    defocus = np.asarray(z_um, float) - np.asarray(focus_um, float)[:, None]
    radii, transfer = contrast_transfer(defocus.ravel(), voxel_um[1:], optics)
    path = 2 * np.pi / optics.transmitted_um * voxel_um[0]  # radians in a voxel, an index unit
    phase = np.float32(-2 * path) * transfer.imag
    contrast = filter_slices(index, voxel_um[1:], radii, phase.reshape(*defocus.shape, -1))
    return np.maximum(1 + contrast, np.float32(DARKEST))


def contrast_transfer(
    defocus_um: Array, pixel_um: tuple[float, float], optics: OpticsSettings
) -> tuple[Array, NDArray[np.complex64]]:
    r"""Return the weak-object transfer function of round condenser and objective apertures.

    A slice of the specimen that delays by the phase p and absorbs the share a of the amplitude
    changes the intensity, relative to the background, by the spectrum
    :math:`-2 \, \mathrm{Im} A \cdot p - 2 \, \mathrm{Re} A \cdot a`, where

    .. math:: A(u, d) = \frac{1}{\int S} \int S(s) \, \frac{P(s + u)}{\cos\theta(s + u)} \,
       e^{2 \pi i d (\eta(s + u) - \eta(s))} \, d^2 s, \quad
       \eta(q) = \sqrt{n^2 / \lambda^2 - q^2}

    with condenser S and objective P (Streibl 1985, J. Opt. Soc. Am. A 2:121; slice by slice as in
    Chen, Tian and Waller 2016, Biomed. Opt. Express 7:3940). As a correlation of two round
    functions it is, in space, the product of their two point spreads, each a Hankel transform. A
    condenser that is wider open than the objective counts as equally wide: its further light does
    not reach the image of a weak object.

    Returned are the radial frequencies (R,) in 1/um, evenly spaced from 0 to the end of the band or
    of the image's, and A (D, R) for each defocus: height of the slice minus that of focus.
    """
    light = (optics.transmitted_um, optics.immersion_index)
    condenser = Aperture(min(optics.condenser_na, optics.objective_na), *light)
    objective = Aperture(optics.objective_na, *light, power=-1.0)
    far = float(np.abs(defocus_um).max(initial=0.0))
    reach = min(condenser.reach(far), objective.reach(far))
    band = condenser.cutoff + objective.cutoff
    radii = _radial_grid(band, reach, pixel_um)
    distance, weights = _nodes(band, reach)
    spread = objective.spread(distance, defocus_um)
    spread *= condenser.spread(distance, defocus_um).conj()
    spread *= (weights / (np.pi * condenser.cutoff**2)).astype(np.float32)
    real, imaginary = (_spectrum(radii, distance, part) for part in (spread.real, spread.imag))
    imaginary[:, 0] = 0  # an even layer of phase changes nothing: here rounding would show
    return radii, np.asarray(real + 1j * imaginary)


def fluorescence_stack(
    concentration: Floats,
    voxel_um: tuple[float, float, float],
    z_um: ArrayLike,
    focus_um: ArrayLike,
    optics: OpticsSettings,
    wavelength_um: float,
) -> Floats:
    """Image a volume of dye through a confocal microscope that lets some haze through.

    Each slice adds, to each image plane, its dye filtered by the transfer function of its defocus
    (:func:`emission_transfer`). Opposite edges of the field are neighbours, and arguments are as in
    `transmitted_stack`. The result (P, Y, X) is in units of concentration x um: a thin layer in
    focus, wide as the field, has its concentration times its thickness at any haze.
    """
    defocus = np.asarray(z_um, float) - np.asarray(focus_um, float)[:, None]
    objective = Aperture(optics.objective_na, wavelength_um, optics.immersion_index, power=-0.5)
    radii, transfer = emission_transfer(defocus.ravel(), voxel_um[1:], objective, optics.haze)
    by_plane = (voxel_um[0] * transfer).reshape(*defocus.shape, -1)
    light = filter_slices(concentration, voxel_um[1:], radii, by_plane)
    return np.maximum(light, np.float32(0))  # below 0 only by rounding


def emission_transfer(
    defocus_um: Array, pixel_um: tuple[float, float], objective: Aperture, haze: float
) -> tuple[Array, Floats]:
    r"""Return the transfer function of a fluorescence microscope.

    The point spread is ``haze`` times :math:`|h|^2`, of the widefield microscope, plus
    ``1 - haze`` times :math:`|h|^4`, of the confocal one with an ideal pinhole and excitation at
    the wavelength of the emission. Each has the sum 1 over the plane in focus; the first has it in
    every plane, since no light is lost. h is the scalar Debye integral with the amplitude
    :math:`\sqrt{\cos\theta}` of an aplanatic lens (Richards and Wolf 1959, Proc. R. Soc. A
    253:358). Further out of focus than ``NEAR_UM``, where only low frequencies are left and the
    confocal microscope sees next to nothing, the haze follows from rays alone. The objective's
    ``power`` is -0.5: the factor :math:`\sqrt{\cos\theta}` on a sphere, in the plane. Returned are
    radial frequencies and the transfer (D, R), as of :func:`contrast_transfer`.
    """
    depth = np.abs(defocus_um)
    near = depth <= NEAR_UM
    band = 4 * objective.cutoff
    reach = objective.reach(float(depth[near].max(initial=0.0)))
    radii = _radial_grid(band, reach, pixel_um)
    distance, weights = _nodes(band, reach)
    shown = np.append(depth[near], 0.0)  # the last is in focus, for the norm
    wide = np.abs(objective.spread(distance, shown)) ** 2
    confocal = wide**2
    wide /= (wide @ weights)[:, None]
    confocal /= confocal[-1] @ weights
    mixed = ((haze * wide + (1 - haze) * confocal) * weights)[:-1].astype(np.float32)
    transfer = np.empty((len(depth), len(radii)), np.float32)
    transfer[near] = _spectrum(radii, distance, mixed)
    transfer[~near] = haze * _rays(radii, depth[~near], objective)
    return radii, transfer


def filter_slices(
    slices: Floats, pixel_um: tuple[float, float], radii: Array, transfer: Floats
) -> Floats:
    """Filter every slice (Z, Y, X) for every image plane, and add the slices up: (P, Y, X).

    ``transfer`` (P, Z, R) is that of a slice to an image plane at the radial frequencies ``radii``
    (R,) in 1/um, evenly spaced from 0; beyond the last it is 0. Opposite edges of the field are
    neighbours.
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
    matters = np.abs(transfer) > 3e-4  # higher frequencies of a slice, with less, are left out
    last = np.where(matters.any(2), len(radii) - np.argmax(matters[..., ::-1], axis=2), 0)
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


def _nodes(band: float, reach: float) -> tuple[Array, Array]:
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


def _spectrum(radii: Array, distance_um: Array, weighted: Floats) -> Floats:
    """Return the spectra (D, R) at radial frequencies (R,) of weighted samples (D, N)."""
    bessel = j0(2 * np.pi * np.outer(distance_um, radii)).astype(np.float32)
    return np.asarray(weighted @ bessel, np.float32)


def _radial_grid(band: float, reach: float, pixel_um: tuple[float, float]) -> Array:
    """Return radial frequencies: 24 in the finest oscillation of a transfer function."""
    stop = min(band, float(np.hypot(*(0.5 / np.asarray(pixel_um, float)))))
    return np.linspace(0.0, stop, int(np.ceil(stop * reach * 24.0)) + 2)


def _rays(radii: Array, depth_um: Array, objective: Aperture) -> Floats:
    """Return the widefield transfer (D, R) far out of focus: rays meet the plane in a disc.

    A ray of the pupil's radius q meets it at depth x tan(theta); its share of the light is that of
    the pupil. So the transfer depends on radius x depth alone.
    """
    table = np.linspace(0.0, 40.0, 4001)  # cycles; beyond, nothing is left
    points, weights = roots_legendre(400)
    sine = objective.na / objective.medium_index * (points + 1) / 2
    cosine = np.sqrt(1 - sine**2)
    weights = weights * sine * cosine ** (2 * objective.power)
    values = j0(2 * np.pi * np.outer(table, sine / cosine)) @ (weights / weights.sum())
    transfer = np.interp(np.outer(depth_um, radii), table, values, right=0.0)
    return np.asarray(transfer, np.float32)
