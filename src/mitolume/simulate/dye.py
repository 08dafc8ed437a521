"""The dye of the mitochondria: which cells hold how much of it, and what its channel shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mitolume.simulate.cells import CellMaps, smooth_noise
from mitolume.simulate.settings import Condition, DyeSettings

Floats = NDArray[np.float32]
PATCH_UM = 8.0  # size of the patches of an uneven stain; chosen, a fraction of a cell


def dye_of_field(settings: DyeSettings, rng: np.random.Generator) -> DyeSettings:
    """Return these settings in the share of fields that they hold for, the default in others."""
    return settings if rng.uniform() < settings.affected else DyeSettings()


def dyed(condition: Condition, dye: DyeSettings) -> Condition:
    """Return the condition with as much dye as its mitochondria take up."""
    if dye.kind == "steady":
        return condition
    return replace(condition, brightness=dye.left + (1 - dye.left) * condition.potential)


def stain(
    cells: CellMaps,
    shape: tuple[int, int],
    pixel_um: float,
    dye: DyeSettings,
    rng: np.random.Generator,
) -> Floats:
    """Return the concentration (Y, X) of the dye relative to an even stain of all cells.

    It is 0 in cells that took up none. With a larger share of them, the same generator leaves out
    the same cells and others.
    """
    took_up = rng.uniform(size=cells.cell.max() + 1) >= dye.unstained
    patches = smooth_noise(rng, cells.cell.shape, PATCH_UM)
    where = cells.on_grid(cells.cell, shape, pixel_um, order=0)
    even = np.exp(dye.uneven * cells.on_grid(patches, shape, pixel_um))
    return np.asarray(took_up[where] * even, np.float32)


def as_seen(mitochondria: Floats, membrane: Floats, dye: DyeSettings) -> Floats:
    """Return the light (Z, Y, X) in the channel of mitochondria: dimmed, bleached, mixed."""
    time = np.linspace(0, 1, len(mitochondria))[:, None, None]
    bright = np.asarray(dye.brightness * (1 - dye.bleaching) ** time, np.float32)
    return mitochondria * bright + np.float32(dye.bleed_through) * membrane


def clipping_gain(electrons: NDArray[np.floating], share: float, most: float) -> float:
    """Return the gain, in counts an electron, at which this share of pixels exceeds ``most``."""
    return float(most / max(np.quantile(electrons, 1 - share), 1.0))
