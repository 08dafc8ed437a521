"""Fills cell bodies into voxel grids: cytoplasm, nuclei, plasma membrane. Knows no organelle."""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from mitolume.simulate.cell_bodies import CellMaps

__all__ = ["MEDIUM_INDEX", "bodies", "membranes"]

Array = NDArray[np.float64]
Array32 = NDArray[np.float32]
Rng = np.random.Generator
Shape = tuple[int, int, int]
Voxel = tuple[float, float, float]

MEDIUM_INDEX = 1.337
# The nucleus' index is a little lower than the cytoplasm's (Schuermann et al. 2016, J Biophotonics
# 9:1068; Kim & Guck 2020, Biophys J 119:1946); the numbers are chosen.
CYTOPLASM_INDEX = 1.372
NUCLEUS_INDEX = 1.367
TEXTURE_INDEX = 0.004  # standard deviation in the cytoplasm; chosen
TEXTURE_UM = 1.0  # outer scale of the texture / 2 pi; chosen


def bodies(cells: CellMaps, height: Array, shape: Shape, voxel: Voxel, rng: Rng) -> Array32:
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


def membranes(height: Array, edge: Array, shape: Shape, voxel: Voxel, rng: Rng) -> Array32:
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
