"""Grows a specimen of living cells and renders it as volumes. Knows no light and no camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mitolume.simulate.capsules import Capsules, Filling, fill
from mitolume.simulate.cell_bodies import CellMaps, lay_out_cells
from mitolume.simulate.conditions import CONDITIONS, Condition
from mitolume.simulate.cytoplasm import MEDIUM_INDEX, bodies, membranes
from mitolume.simulate.inclusions import Inclusions, place_inclusions
from mitolume.simulate.mitochondria import Network, grow_network

__all__ = ["MEDIUM_INDEX", "Specimen", "Volume", "grow_specimen"]

Array = NDArray[np.float64]
Array32 = NDArray[np.float32]
Rng = np.random.Generator

CELLS, INCLUSIONS, MITOCHONDRIA, TEXTURE, FOLDS = range(5)  # streams of random numbers


@dataclass(frozen=True)
class Volume:
    """A specimen on a voxel grid; slice 0 lies on the coverslip.

    Attributes
    ----------
    voxel_um : tuple of float
        Size of a voxel (Z, Y, X).
    z0_um : float
        Height of the centre of slice 0 above the coverslip.
    index : ndarray of float32, (Z, Y, X)
        Refractive index minus that of the medium, ``MEDIUM_INDEX``.
    labels : ndarray of int32, (Z, Y, X)
        Mitochondria, numbered from 1; 0 is none.
    mitochondria : ndarray of float32, (Z, Y, X)
        Dye: the share of the voxel inside a mitochondrion times the brightness of that one.
    membrane : ndarray of float32, (Z, Y, X)
        Dye of the plasma membrane: its area in um**2 per um**3, and vesicles that took it up.
    """

    voxel_um: tuple[float, float, float]
    z0_um: float
    index: Array32
    labels: NDArray[np.int32]
    mitochondria: Array32
    membrane: Array32


@dataclass(frozen=True)
class Specimen:
    """Living cells as shapes in um: what they look like is computed by ``volume``."""

    shape: tuple[int, int]
    pixel_um: float
    condition: Condition
    seed: int
    cells: CellMaps
    inclusions: Inclusions
    network: Network
    skeletons: pd.DataFrame

    def volume(self, dz_um: float = 0.2) -> Volume:
        """Render on voxels of ``dz_um`` by the field's pixels.

        Parameters
        ----------
        dz_um : float
            Thickness of a slice in um.

        Returns
        -------
        Volume
            From the coverslip to above the highest thing in the field.
        """
        height = self.cells.on_grid(self.cells.height, self.shape, self.pixel_um)
        tops = [height.max(initial=0.0), *self.inclusions.debris.start[:, 0] + 0.6]
        slices = int(np.ceil((max(tops) + 0.4) / dz_um))
        shape, voxel = (slices, *self.shape), (dz_um, self.pixel_um, self.pixel_um)
        z0 = dz_um / 2
        index = bodies(
            self.cells, height, shape, voxel, np.random.default_rng([self.seed, TEXTURE])
        )
        edge = self.cells.on_grid(self.cells.edge, self.shape, self.pixel_um)
        membrane = membranes(height, edge, shape, voxel, np.random.default_rng([self.seed, FOLDS]))

        def lay(capsules: Capsules, values: Array, into: Array32) -> Filling:
            filling = fill(capsules, shape, voxel, z0)
            flat = into.reshape(-1)
            old = flat[filling.voxel]
            flat[filling.voxel] = old + filling.share * (values[filling.owner] - old)
            return filling

        parts = self.inclusions
        lay(parts.nucleoli, parts.nucleolus_index - MEDIUM_INDEX, index)
        lay(parts.debris, parts.debris_index - MEDIUM_INDEX, index)
        filling = lay(parts.organelles, parts.organelle_index - MEDIUM_INDEX, index)
        membrane.reshape(-1)[filling.voxel] += filling.share * parts.dyed[filling.owner]
        matrix = self.network.index - MEDIUM_INDEX
        filling = lay(self.network.capsules, matrix, index)
        labels, dye = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        labels.reshape(-1)[filling.voxel] = np.where(filling.core, filling.owner + 1, 0)
        dye.reshape(-1)[filling.voxel] = filling.share * self.network.brightness[filling.owner]
        return Volume(voxel, z0, index, labels, dye, membrane)


def grow_specimen(
    shape: tuple[int, int],
    pixel_um: float,
    condition: str = "control",
    seed: int = 0,
    crowding: float = 1.0,
) -> Specimen:
    """Grow cells and their mitochondria; the same arguments give the same specimen.

    The same seed under another condition gives the same cells with other mitochondria.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns (Y, X) of the field.
    pixel_um : float
        Side of a pixel in um. Pixel (0, 0) has its centre at 0.
    condition : str
        A name in ``CONDITIONS``.
    seed : int
        Not negative.
    crowding : float
        Number of droplets, lysosomes, vesicles and granules relative to ``inclusions.KINDS``.

    Returns
    -------
    Specimen
        Shapes in um; its table ``skeletons`` holds the centrelines in the field: ``object`` (the
        number in the labels), ``branch``, ``z``, ``y``, ``x``, ``radius`` in um.

    Raises
    ------
    ValueError
        For an unknown condition.
    """
    if condition not in CONDITIONS:
        raise ValueError(f"unknown condition {condition!r}; choose from {', '.join(CONDITIONS)}")
    treatment = CONDITIONS[condition]
    extent = (shape[0] * pixel_um, shape[1] * pixel_um)
    cells = lay_out_cells(extent, np.random.default_rng([seed, CELLS]))
    rng = np.random.default_rng([seed, INCLUSIONS])
    inclusions = place_inclusions(cells, extent, rng, crowding)
    rng = np.random.default_rng([seed, MITOCHONDRIA])
    network = grow_network(cells, extent, treatment, inclusions.organelles, rng)
    skeletons = _skeletons(network, shape, pixel_um)
    return Specimen(shape, pixel_um, treatment, seed, cells, inclusions, network, skeletons)


def _skeletons(network: Network, shape: tuple[int, int], pixel_um: float) -> pd.DataFrame:
    """Table of the centreline points in the field."""
    z, y, x = network.points.T
    columns = {"object": network.object + 1, "branch": network.branch, "z": z, "y": y, "x": x}
    table = pd.DataFrame({**columns, "radius": network.radius})
    last = (np.array(shape) - 0.5) * pixel_um
    inside = (y > -0.5 * pixel_um) & (x > -0.5 * pixel_um) & (y < last[0]) & (x < last[1])
    return pd.DataFrame(table[inside].reset_index(drop=True))
