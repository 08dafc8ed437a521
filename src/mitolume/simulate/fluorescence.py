"""Dye to fluorescence, through focus, with haze. Knows no cell and no camera."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import j0, roots_legendre

from mitolume.simulate.transfer import (
    Aperture,
    Array,
    Floats,
    filter_slices,
    nodes,
    radial_grid,
    spectrum,
)

NEAR_UM = 6.0  # of defocus: beyond it rays describe the haze


def fluorescence_stack(
    concentration: Floats,
    voxel_um: tuple[float, float, float],
    z_um: ArrayLike,
    focus_um: ArrayLike,
    *,
    na: float,
    wavelength_um: float,
    immersion_index: float,
    haze: float,
) -> Floats:
    """Image a volume of dye through a confocal microscope that lets some haze through.

    Each slice adds, to each image plane, its dye filtered by the transfer function of its defocus
    (:func:`emission_transfer`). Opposite edges of the field are neighbours: give a margin and cut
    it off.

    Parameters
    ----------
    concentration
        (Z, Y, X) float32.
    voxel_um
        Z, Y and X.
    z_um
        (Z,), height of each slice.
    focus_um
        (P,), height of each image plane.
    na, wavelength_um, immersion_index
        Numerical aperture of the objective, vacuum wavelength of the emission, and index of the
        immersion, taken for the medium's as well.
    haze
        Share of the out-of-focus light that comes through: 0 ideal confocal, 1 widefield.

    Returns
    -------
    numpy.ndarray
        (P, Y, X) float32, in units of concentration x um: a thin layer in focus, wide as the field,
        has the brightness of its concentration times its thickness at any haze.
    """
    heights, planes = np.asarray(z_um, float), np.asarray(focus_um, float)
    defocus = (heights - planes[:, None]).ravel()
    objective = Aperture(na, wavelength_um, immersion_index, power=-0.5)
    radii, transfer = emission_transfer(defocus, voxel_um[1:], objective, haze)
    by_plane = (voxel_um[0] * transfer).reshape(len(planes), len(heights), len(radii))
    light = filter_slices(np.asarray(concentration, np.float32), voxel_um[1:], radii, by_plane)
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
    253:358). Further out of focus, where only low frequencies are left and the confocal microscope
    sees next to nothing, the haze follows from rays alone.

    Parameters
    ----------
    defocus_um
        (D,), of any sign.
    pixel_um
        Of Y and X: no frequency beyond the image's is computed.
    objective
        With ``power`` -0.5: the factor :math:`\sqrt{\cos\theta}` on a sphere, in the plane.
    haze
        0 to 1.

    Returns
    -------
    tuple of numpy.ndarray
        Radial frequencies (R,) in 1/um, evenly spaced from 0, and the transfer (D, R) float32.
    """
    depth = np.abs(defocus_um)
    near = depth <= NEAR_UM
    band = 4 * objective.cutoff
    reach = objective.reach(float(depth[near].max(initial=0.0)))
    radii = radial_grid(band, reach, pixel_um)
    distance, weights = nodes(band, reach)
    shown = np.append(depth[near], 0.0)  # the last is in focus, for the norm
    wide = np.abs(objective.spread(distance, shown)) ** 2
    confocal = wide**2
    wide /= (wide @ weights)[:, None]
    confocal /= confocal[-1] @ weights
    mixed = ((haze * wide + (1 - haze) * confocal) * weights)[:-1].astype(np.float32)
    transfer = np.empty((len(depth), len(radii)), np.float32)
    transfer[near] = spectrum(radii, distance, mixed)
    transfer[~near] = haze * _rays(radii, depth[~near], objective)
    return radii, transfer


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
