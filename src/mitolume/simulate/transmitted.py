"""Refractive index to transmitted light, through focus. Knows no cell and no camera."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mitolume.simulate.settings import OpticsSettings
from mitolume.simulate.transfer import (
    Aperture,
    Array,
    Floats,
    filter_slices,
    nodes,
    radial_grid,
    spectrum,
)

DARKEST = 0.02  # share of the background


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
    the intensity is cut at 0.02 of the background.

    Light comes from above, from the condenser, and the objective looks from below through the
    coverslip, so that a mitochondrion is bright while the focus lies below it and dark while it
    lies above. By reciprocity (Sheppard and Choudhury 1977, Optica Acta 24:1051) a focused laser
    that scans through the objective, with a detector behind the condenser, gives the same image.

    Opposite edges of the field are neighbours: give a margin and cut it off. Far from focus light
    comes from further away than any margin; there the field's own repetition stands in for the
    cells around it.

    Parameters
    ----------
    index
        (Z, Y, X) float32, refractive index minus that of the medium.
    voxel_um
        Z, Y and X.
    z_um
        (Z,), height of each slice.
    focus_um
        (P,), height of each image plane.
    optics
        Apertures, wavelength, and the index of the immersion, taken for the medium's as well.

    Returns
    -------
    numpy.ndarray
        (P, Y, X) float32, 1 where there is nothing.
    """
    heights, planes = np.asarray(z_um, float), np.asarray(focus_um, float)
    defocus = (heights - planes[:, None]).ravel()
    radii, transfer = contrast_transfer(defocus, voxel_um[1:], optics)
    path = 2 * np.pi / optics.transmitted_um * voxel_um[0]  # radians in a voxel, an index unit
    phase = np.float32(-2 * path) * transfer.imag
    by_plane = phase.reshape(len(planes), len(heights), len(radii))
    contrast = filter_slices(np.asarray(index, np.float32), voxel_um[1:], radii, by_plane)
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
    functions it is, in space, the product of their two point spreads, each a Hankel transform.

    Parameters
    ----------
    defocus_um
        (D,), height of the slice minus height of the focus.
    pixel_um
        Of Y and X: no frequency beyond the image's is computed.
    optics
        A condenser that is opened wider than the objective counts as opened as wide: its further
        light does not reach the image of a weak object.

    Returns
    -------
    tuple of numpy.ndarray
        Radial frequencies (R,) in 1/um, evenly spaced from 0, and A (D, R) complex64; beyond the
        last radius it is 0 or outside the image's band.
    """
    light = (optics.transmitted_um, optics.immersion_index)
    condenser = Aperture(min(optics.condenser_na, optics.objective_na), *light)
    objective = Aperture(optics.objective_na, *light, power=-1.0)
    far = float(np.abs(defocus_um).max(initial=0.0))
    reach = min(condenser.reach(far), objective.reach(far))
    band = condenser.cutoff + objective.cutoff
    radii = radial_grid(band, reach, pixel_um)
    distance, weights = nodes(band, reach)
    spread = objective.spread(distance, defocus_um)
    spread *= condenser.spread(distance, defocus_um).conj()
    spread *= (weights / (np.pi * condenser.cutoff**2)).astype(np.float32)
    real, imaginary = (spectrum(radii, distance, part) for part in (spread.real, spread.imag))
    imaginary[:, 0] = 0  # an even layer of phase changes nothing: here rounding would show
    return radii, np.asarray(real + 1j * imaginary)
