"""Places vesicles, lipid droplets, nucleoli and debris. Knows no mitochondria."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mitolume.simulate.capsules import Capsules
from mitolume.simulate.cell_bodies import MAP_UM, MARGIN_UM, CellMaps, smooth_noise

__all__ = ["Inclusions", "place_inclusions"]

Array = NDArray[np.float64]
Rng = np.random.Generator


@dataclass(frozen=True)
class Inclusions:
    """Balls of several kinds, none of which is a mitochondrion.

    Attributes
    ----------
    nucleoli, organelles, debris : Capsules
        Inside nuclei, in the cytoplasm, and outside of cells.
    nucleolus_index, organelle_index, debris_index : ndarray of float64, (N,)
        Refractive index of each ball.
    dyed : ndarray of float64, (organelles,)
        Membrane dye taken up, relative to the plasma membrane; 0 in most.
    """

    nucleoli: Capsules
    organelles: Capsules
    debris: Capsules
    nucleolus_index: Array
    organelle_index: Array
    debris_index: Array
    dyed: Array


# Lipid refracts as oils do, 1.46 to 1.47, and nucleoli are denser than the rest of the nucleus (Kim
# & Guck 2020, Biophys J 119:1946); every other number of this module is chosen.
# Organelles: number per um**2 of cytoplasm, median diameter in um, refractive index, the distance
# from the nucleus over which their density falls by a factor e in um, share that takes up dye.
KINDS = {
    "lipid droplet": (0.10, 0.6, 1.46, 5.0, 0.0),
    "lysosome": (0.12, 0.55, 1.42, 6.0, 0.3),
    "fluid vesicle": (0.03, 0.7, 1.342, 8.0, 0.5),
    "granule": (0.80, 0.22, 1.40, 15.0, 0.1),
}


def place_inclusions(
    cells: CellMaps, extent_um: tuple[float, float], rng: Rng, crowding: float = 1.0
) -> Inclusions:
    """Scatter balls, denser around the nuclei.

    Parameters
    ----------
    cells : CellMaps
        The cells.
    extent_um : tuple of float
        Size (Y, X) of the field.
    rng : Generator
        Drawn from.
    crowding : float
        Number of organelles relative to `KINDS`.

    Returns
    -------
    Inclusions
        Of the field and its surroundings.
    """
    centres, radii, indices, dyed = [], [], [], []
    clumps = 1.2 * smooth_noise(rng, cells.edge.shape, 3.0)  # they lie in groups
    for per_um2, diameter, index, decay, share in KINDS.values():
        weight = np.exp(clumps - cells.nucleus.clip(0, 60) / decay)
        weight *= (cells.height > diameter + 0.3) & (cells.nucleus > 0.7 * diameter)
        place, size = _balls(rng, weight, crowding * per_um2, diameter)
        room = cells.at(cells.height, place) - 2 * size - 0.2
        z = size + 0.1 + rng.uniform(0, 1, len(size)) * room
        fits = (room > 0) & (cells.at(cells.nucleus, place) > size + 0.05)
        centres.append(np.column_stack([z, place])[fits])
        radii.append(size[fits])
        indices.append(rng.normal(index, 0.006, len(size))[fits])
        dyed.append((rng.uniform(size=len(size)) < share)[fits] * 1.5)
    organelles = Capsules.balls(np.concatenate(centres), np.concatenate(radii))
    nucleoli, nucleolus_index = _nucleoli(cells, rng)
    debris, debris_index = _debris(cells, extent_um, rng)
    return Inclusions(
        nucleoli,
        organelles,
        debris,
        nucleolus_index,
        np.concatenate(indices),
        debris_index,
        np.concatenate(dyed),
    )


def _balls(rng: Rng, weight: Array, per_um2: float, diameter: float) -> tuple[Array, Array]:
    """Draw centres (N, 2) in um and radii (N,), where the map is 1 with the given density."""
    count = rng.poisson(per_um2 * float((weight > 0.02).sum()) * MAP_UM**2)
    heap = np.cumsum(weight)
    if heap[-1] <= 0:
        return np.empty((0, 2)), np.empty(0)
    picked = np.searchsorted(heap, rng.uniform(0, heap[-1], count), side="right")
    pixel = np.stack(np.unravel_index(picked.clip(max=weight.size - 1), weight.shape), axis=1)
    place = (pixel + rng.uniform(-0.5, 0.5, (count, 2))) * MAP_UM - MARGIN_UM
    return place, diameter / 2 * rng.lognormal(0, 0.25, count).clip(0.6, 1.8)


def _nucleoli(cells: CellMaps, rng: Rng) -> tuple[Capsules, Array]:
    """Clumps of balls at mid-height of the nuclei."""
    inner: Array = (cells.nucleus < -2.0).astype(float)
    place, _ = _balls(rng, inner, 0.04, 1.0)
    parts = 7
    place = np.repeat(place, parts, axis=0) + rng.normal(0, 0.45, (len(place) * parts, 2))
    radius = rng.uniform(0.4, 0.9, len(place))
    low, high = cells.at(cells.nucleus_low, place), cells.at(cells.nucleus_high, place)
    radius = np.minimum(radius, (high - low) / 2 - 0.2)
    z = (low + high) / 2 + rng.normal(0, 0.1, len(place))
    fits = radius > 0.3
    balls = Capsules.balls(np.column_stack([z, place])[fits], radius[fits])
    return balls, np.full(int(fits.sum()), 1.380)


def _debris(cells: CellMaps, extent_um: tuple[float, float], rng: Rng) -> tuple[Capsules, Array]:
    """Small clumps that lie on the coverslip or float above the cells."""
    place, _ = _balls(rng, np.ones_like(cells.edge), 0.002, 1.0)
    parts = 3
    place = np.repeat(place, parts, axis=0)
    radius = rng.uniform(0.15, 0.5, len(place))
    lifted = np.repeat(rng.uniform(0, 3.0, len(place) // parts), parts)
    lifted *= np.repeat(rng.uniform(size=len(place) // parts) < 0.5, parts)
    place = place + rng.normal(0, 0.35, place.shape)
    z = cells.at(cells.height, place) + radius + lifted
    return Capsules.balls(np.column_stack([z, place]), radius), rng.uniform(1.36, 1.42, len(z))
