"""Grows a specimen of living cells, and renders it as volumes of refractive index and dyes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from mitolume.simulate.capsules import Capsules, Filling, fill
from mitolume.simulate.cells import CellMaps, Inclusions, lay_out_cells, place_inclusions
from mitolume.simulate.mitochondria import Network, grow_network
from mitolume.simulate.settings import Condition

Array = NDArray[np.float64]
Array32 = NDArray[np.float32]
Rng = np.random.Generator
Shape = tuple[int, int, int]
Voxel = tuple[float, float, float]

# The nucleus' index is a little lower than the cytoplasm's (Schuermann et al. 2016, J Biophotonics
# 9:1068; Kim & Guck 2020, Biophys J 119:1946); the numbers are chosen.
MEDIUM_INDEX, CYTOPLASM_INDEX, NUCLEUS_INDEX = 1.337, 1.372, 1.367
TEXTURE_INDEX = 0.004  # standard deviation in the cytoplasm; chosen
TEXTURE_UM = 1.0  # outer scale of the texture / 2 pi; chosen
CELLS, INCLUSIONS, MITOCHONDRIA, TEXTURE, FOLDS = range(5)  # streams of random numbers


@dataclass(frozen=True)
class Volume:
    """A specimen on a grid (Z, Y, X) of voxels; slice 0 lies on the coverslip.

    ``index`` is the refractive index minus ``MEDIUM_INDEX``; ``labels`` number the mitochondria
    from 1. ``mitochondria`` is their dye, the share of the voxel times the brightness of its
    mitochondrion; ``membrane`` is the plasma membrane's, its area in um**2 per um**3, and that of
    vesicles that took it up.
    """

    voxel_um: Voxel
    index: Array32
    labels: NDArray[np.int32]
    mitochondria: Array32
    membrane: Array32

    @property
    def heights(self) -> Array:
        """Height of the centre of each slice above the coverslip in um."""
        return np.asarray(self.voxel_um[0] * np.arange(len(self.labels)) + self.voxel_um[0] / 2)


@dataclass(frozen=True)
class Specimen:
    """Living cells as shapes in um; pixel (0, 0) of the field has its centre at 0."""

    shape: tuple[int, int]
    pixel_um: float
    seed: int
    cells: CellMaps
    inclusions: dict[str, Inclusions]
    network: Network

    def skeletons(self, shape: tuple[int, int], corner: tuple[int, int] = (0, 0)) -> pd.DataFrame:
        """Return the centrelines in a part of the field, from its first pixel ``corner`` on.

        Columns are those of ``SimulatedField.skeletons``.
        """
        px, network = self.pixel_um, self.network
        z, y, x = network.points.T
        y, x = y - corner[0] * px, x - corner[1] * px
        inside = (y >= -0.5 * px) & (y < (shape[0] - 0.5) * px)
        inside &= (x >= -0.5 * px) & (x < (shape[1] - 0.5) * px)
        columns = {"object": network.object + 1, "branch": network.branch, "z": z, "y": y, "x": x}
        table = pd.DataFrame({**columns, "radius": network.radius})
        return pd.DataFrame(table[inside].reset_index(drop=True))

    def volume(self, dz_um: float = 0.2) -> Volume:
        """Render from the coverslip to above the highest thing, in voxels ``dz_um`` high."""
        cells = self.cells
        height, edge = (
            cells.on_grid(field, self.shape, self.pixel_um) for field in (cells.height, cells.edge)
        )
        tops = [height.max(initial=0.0), *self.inclusions["debris"].balls.start[:, 0] + 0.6]
        slices = int(np.ceil((max(tops) + 0.4) / dz_um))
        shape, voxel = (slices, *self.shape), (dz_um, self.pixel_um, self.pixel_um)
        index = _bodies(cells, height, shape, voxel, np.random.default_rng([self.seed, TEXTURE]))
        membrane = _membranes(height, edge, shape, voxel, np.random.default_rng([self.seed, FOLDS]))

        def lay(capsules: Capsules, values: Array) -> Filling:
            filling = fill(capsules, shape, voxel)
            flat = index.reshape(-1)
            old = flat[filling.voxel]
            flat[filling.voxel] = old + filling.share * (values[filling.owner] - old)
            return filling

        for kind in self.inclusions.values():
            filling = lay(kind.balls, kind.index - MEDIUM_INDEX)
            membrane.reshape(-1)[filling.voxel] += filling.share * kind.dye[filling.owner]
        filling = lay(self.network.capsules, self.network.index - MEDIUM_INDEX)
        labels, dye = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        labels.reshape(-1)[filling.voxel] = np.where(filling.core, filling.owner + 1, 0)
        dye.reshape(-1)[filling.voxel] = filling.share * self.network.brightness[filling.owner]
        return Volume(voxel, index, labels, dye, membrane)


def grow_specimen(
    shape: tuple[int, int],
    pixel_um: float,
    condition: Condition,
    seed: int = 0,
    crowding: float = 1.0,
) -> Specimen:
    """Grow cells and their mitochondria; the same seed gives the same cells in every condition."""
    extent = (shape[0] * pixel_um, shape[1] * pixel_um)
    cells = lay_out_cells(extent, np.random.default_rng([seed, CELLS]))
    inclusions = place_inclusions(cells, np.random.default_rng([seed, INCLUSIONS]), crowding)
    rng = np.random.default_rng([seed, MITOCHONDRIA])
    network = grow_network(cells, extent, condition, inclusions["organelles"].balls, rng)
    return Specimen(shape, pixel_um, seed, cells, inclusions, network)


def _bodies(cells: CellMaps, height: Array, shape: Shape, voxel: Voxel, rng: Rng) -> Array32:
    """Refractive index minus the medium's of cytoplasm with texture, and of nuclei."""
    low = cells.on_grid(cells.nucleus_low, shape[1:], voxel[1])
    high = cells.on_grid(cells.nucleus_high, shape[1:], voxel[1])
    index = _texture(rng, shape, voxel)
    for i, plane in enumerate(index):
        bottom = i * voxel[0]
        cytoplasm = ((height - bottom) / voxel[0]).clip(0, 1)
        nucleus = (np.minimum(high, bottom + voxel[0]) - np.maximum(low, bottom)) / voxel[0]
        nucleus = nucleus.clip(0, 1)
        plane *= TEXTURE_INDEX * (cytoplasm - 0.5 * nucleus)
        plane += cytoplasm * (CYTOPLASM_INDEX - MEDIUM_INDEX)
        plane += nucleus * (NUCLEUS_INDEX - CYTOPLASM_INDEX)
    return index


def _texture(rng: Rng, shape: Shape, voxel: Voxel) -> Array32:
    """Make turbulent noise of standard deviation 1.

    The power falls as k**(-11/3) below the outer scale, as that of refractive index in tissue
    (Schmitt & Kumar 1996, Opt Lett 21:1310).
    """
    size = [scipy.fft.next_fast_len(n, real=True) for n in shape]
    waves = [np.fft.fftfreq(n, d) for n, d in zip(size[:2], voxel[:2], strict=True)]
    waves.append(np.fft.rfftfreq(size[2], voxel[2]))
    k = [2 * np.pi * wave.astype(np.float32) for wave in waves]
    k2 = k[0][:, None, None] ** 2 + k[1][:, None] ** 2 + k[2] ** 2
    amplitude = (1 + k2 * TEXTURE_UM**2) ** np.float32(-11 / 12)
    half = rng.standard_normal((*k2.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    noise = scipy.fft.irfftn(half * amplitude, s=size, overwrite_x=True)
    noise = np.ascontiguousarray(noise[: shape[0], : shape[1], : shape[2]], dtype=np.float32)
    noise /= noise.std()
    return noise


def _membranes(height: Array, edge: Array, shape: Shape, voxel: Voxel, rng: Rng) -> Array32:
    """Area of plasma membrane per volume, um**2 per um**3: the upper and the lower surface.

    The upper one is folded more here and less there, so that it holds 0.7 to 1.4 times its area.
    """
    slope = np.hypot(*np.gradient(height, voxel[1])).clip(max=15)
    spread = np.maximum(voxel[0], slope * voxel[1])  # a steep surface crosses several slices
    footprint = (edge / voxel[1] + 0.5).clip(0, 1)
    folds = gaussian_filter(rng.normal(size=height.shape), 0.4 / voxel[1])
    folds = np.exp(0.12 * folds / folds.std()).clip(0.7, 1.4)
    area = (np.sqrt(1 + slope**2) * footprint * folds / spread).astype(np.float32)
    membrane = np.empty(shape, np.float32)
    for i, plane in enumerate(membrane):
        away = np.abs((i + 0.5) * voxel[0] - height) / spread
        plane[:] = area * (1 - away).clip(min=0)
    membrane[0] += footprint / voxel[0]
    return membrane
