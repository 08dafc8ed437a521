"""Adherent cells: outlines, heights and nuclei as maps, and what they hold besides mitochondria."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

from mitolume.simulate.capsules import Capsules

Array = NDArray[np.float64]
Rng = np.random.Generator

MAP_UM = 0.2  # pixel of the maps
MARGIN_UM = 10.0  # of the maps around the field, so that its edge cuts cells and mitochondria

# Organelles: number per um**2 of cytoplasm, median diameter in um, refractive index, the distance
# from the nucleus over which their density falls by a factor e in um, share that takes up dye.
# Lipid refracts as oils do, 1.46 to 1.47, and nucleoli are denser than the rest of the nucleus (Kim
# & Guck 2020, Biophys J 119:1946); every other number is chosen.
KINDS = {
    "lipid droplet": (0.10, 0.6, 1.46, 5.0, 0.0),
    "lysosome": (0.12, 0.55, 1.42, 6.0, 0.3),
    "fluid vesicle": (0.03, 0.7, 1.342, 8.0, 0.5),
    "granule": (0.80, 0.22, 1.40, 15.0, 0.1),
}


@dataclass(frozen=True)
class CellMaps:
    """Maps (Y, X) in steps of ``MAP_UM`` over the field and a margin; the origin is pixel (0, 0).

    Filaments have a direction without a sense. Sine and cosine of twice its angle, from X towards
    Y, have no jump; they are up to 1 where the direction is well defined.
    """

    edge: Array  # distance from the edge of the cell in um, negative outside of cells
    height: Array  # of the cell's upper surface above the coverslip in um, 0 outside
    # Distance from the outline of the same cell's nucleus in um, negative inside; up to a third too
    # small beyond the nucleus' tips.
    nucleus: Array
    nucleus_low: Array  # surfaces of the nuclei in um; equal where there is none
    nucleus_high: Array
    axis_y: Array
    axis_x: Array
    cell: NDArray[np.int_]  # number of the cell that is here or nearest, from 0

    def at(self, field: Array, points: Array) -> Array:
        """Interpolate a map at points (N, 2) Y X in um."""
        place = (points.T + MARGIN_UM) / MAP_UM
        return np.asarray(map_coordinates(field, place, order=1, mode="nearest"))

    def on_grid(
        self, field: NDArray[Any], shape: tuple[int, int], pixel_um: float, order: int = 1
    ) -> NDArray[Any]:
        """Interpolate a map at the pixels of the field; at order 0, take the nearest value."""
        place = (np.indices(shape) * pixel_um + MARGIN_UM) / MAP_UM
        return np.asarray(map_coordinates(field, place, order=order, mode="nearest"))

    @property
    def positions(self) -> tuple[Array, Array]:
        """Y and X of each pixel of the maps in um."""
        y, x = np.indices(self.edge.shape) * MAP_UM - MARGIN_UM
        return y, x


def lay_out_cells(extent_um: tuple[float, float], rng: Rng) -> CellMaps:
    """Lay out spread cells, one of which holds or lies near the middle of the field of Y, X um."""
    shape = [int(np.ceil((side + 2 * MARGIN_UM) / MAP_UM)) + 1 for side in extent_um]
    y, x = np.indices(shape) * MAP_UM - MARGIN_UM
    centres, angles = _places(rng, np.array(extent_um))
    wobble = 0.8 * smooth_noise(rng, y.shape, 6.0) + 0.15 * smooth_noise(rng, y.shape, 1.8)

    best, second = np.full(y.shape, -99.0), np.full(y.shape, -99.0)
    nucleus, low, high = np.full(y.shape, 99.0), np.zeros(y.shape), np.zeros(y.shape)
    along_y, along_x = np.zeros(y.shape), np.ones(y.shape)
    cell = np.zeros(y.shape, int)
    for number, ((cy, cx), angle) in enumerate(zip(centres, angles, strict=True)):
        core, bottom, top = _nucleus(rng, y - cy, x - cx, angle + rng.normal(0, 0.25))
        level = np.maximum(_body(rng, y - cy, x - cx, angle) + wobble, 2.5 - core)
        mine = level > best
        second = np.where(mine, best, np.maximum(second, level))
        best = np.maximum(best, level)
        along_y[mine], along_x[mine] = np.sin(2 * angle), np.cos(2 * angle)
        inside = mine & (core < 0)
        low[inside], high[inside] = bottom[inside], top[inside]
        nucleus[mine], cell[mine] = core[mine], number
    inside = (best > 0) & (best - second > 0.3)
    edge = np.full(y.shape, -99.0)
    if inside.any():
        edge = (distance_transform_edt(inside) - distance_transform_edt(~inside)) * MAP_UM
    edge = gaussian_filter(edge, 1.5)  # without steps of a pixel at the outline
    height = _height(rng, edge, nucleus, high)
    axis_y, axis_x = _filament_axis(along_y, along_x, edge, nucleus)
    return CellMaps(edge, height, nucleus, low, high, axis_y, axis_x, cell)


def _places(rng: Rng, extent: Array) -> tuple[Array, Array]:
    """Centres (N, 2) and long axes (N,) of cells: neighbours are roughly parallel."""
    common = rng.uniform(0, np.pi)
    turn = rng.uniform(0, 2 * np.pi)
    centres = [extent / 2 + rng.uniform(2, 22) * np.array([np.sin(turn), np.cos(turn)])]
    crowding = rng.uniform(0.5, 1.5)
    along = np.array([np.sin(common), np.cos(common)])
    for _ in range(int(crowding * np.prod(extent + 100) / 80)):
        candidate = rng.uniform(-50, extent + 50)
        gaps = np.array(centres) - candidate
        lengthwise = gaps @ along
        across = gaps @ np.array([along[1], -along[0]])
        if np.hypot(lengthwise / 62, across / 36).min() > 1:
            centres.append(candidate)
    return np.array(centres), common + rng.normal(0, 0.35, len(centres))


def _body(rng: Rng, dy: Array, dx: Array, angle: float) -> Array:
    """Roughly the distance inside a spread cell around 0: a body and tapering processes."""
    u = dx * np.cos(angle) + dy * np.sin(angle)
    v = dy * np.cos(angle) - dx * np.sin(angle)
    long, wide = rng.uniform(23, 33), rng.uniform(13, 19)
    parts = [(1 - np.hypot(u / long, v / wide)) * wide]
    count = rng.integers(2, 5)
    turns = np.concatenate([[0, np.pi], rng.uniform(0, 2 * np.pi, 3)])[:count]
    for turn in turns + rng.normal(0, 0.25, count):
        length, root, tip = rng.uniform(30, 52), rng.uniform(8, 13), rng.uniform(1, 5)
        s = u * np.cos(turn) + v * np.sin(turn)
        t = (s / length).clip(0, 1)
        away = np.hypot(s - t * length, v * np.cos(turn) - u * np.sin(turn))
        parts.append(root + t**0.7 * (tip - root) - away)
    blend = 2.0  # um; concave edges between processes, as tension draws them
    stacked = np.stack(parts)
    top = stacked.max(axis=0)
    return np.asarray(top + blend * np.log(np.exp((stacked - top) / blend).sum(axis=0)))


def _nucleus(rng: Rng, dy: Array, dx: Array, angle: float) -> tuple[Array, Array, Array]:
    """Roughly the distance outside a nucleus around 0, its lower and its upper surface."""
    dy, dx = dy + rng.normal(0, 1.5), dx + rng.normal(0, 1.5)
    u = dx * np.cos(angle) + dy * np.sin(angle)
    v = dy * np.cos(angle) - dx * np.sin(angle)
    long, wide = rng.uniform(7.5, 10), rng.uniform(5.2, 7)
    k = np.arange(2, 5)
    waves, phases = rng.normal(0, 0.04 / k), rng.uniform(0, 2 * np.pi, 3)
    turn = np.arctan2(v / wide, u / long)
    wavy = 1 + sum(w * np.cos(n * turn + p) for n, w, p in zip(k, waves, phases, strict=True))
    relative = np.hypot(u / long, v / wide) / wavy
    thickness = rng.uniform(2.8, 4.5) * np.sqrt((1 - relative**3).clip(min=0))
    middle = 0.5 + thickness.max(initial=0.0) / 2  # cytoplasm between coverslip and nucleus
    # Flatter below than above: the nucleus sits on the coverslip's side.
    return (relative - 1) * wide, middle - thickness / 2, middle + thickness / 2


def _height(rng: Rng, edge: Array, nucleus: Array, nucleus_high: Array) -> Array:
    """Upper surface of the cells: a steep rim, a thin lamella, a mound over the nucleus."""
    outside, edge = nucleus.clip(min=0), edge.clip(min=0)
    lamella = rng.uniform(1.3, 2.0)
    rim = 1 - np.exp(-edge / 0.35)
    mound = np.exp(-((outside / rng.uniform(5.5, 8)) ** 1.3)) * (1 - np.exp(-edge / 4))
    height = 0.4 * rim + (lamella - 0.4) * (1 - np.exp(-edge / 3)) + 3.0 * mound
    height *= 1 + 0.06 * smooth_noise(rng, edge.shape, 4.0)
    covered = gaussian_filter(np.maximum(height, (nucleus_high + 0.6) * (nucleus < 0)), 3.0)
    height = np.where(nucleus < 3, np.maximum(covered, nucleus_high + 0.3), height)
    return np.asarray(gaussian_filter(height, 1.0) * (edge > 0))


def _filament_axis(
    along_y: Array, along_x: Array, edge: Array, nucleus: Array
) -> tuple[Array, Array]:
    """Sine and cosine of twice the direction: around nuclei, along edges, else along the cell."""
    for distance, weight in ((nucleus, 1.5), (edge, 1.0)):
        slope_y, slope_x = np.gradient(gaussian_filter(distance, 5.0))
        turn = 2 * (np.arctan2(slope_y, slope_x) + np.pi / 2)
        near = weight * np.exp(-np.abs(distance) / 3.0)
        along_y, along_x = along_y + near * np.sin(turn), along_x + near * np.cos(turn)
    along_y, along_x = gaussian_filter(along_y, 4.0), gaussian_filter(along_x, 4.0)
    strength = np.maximum(np.hypot(along_y, along_x), 1.0)
    return along_y / strength, along_x / strength


def smooth_noise(rng: Rng, shape: tuple[int, ...], size_um: float) -> Array:
    """Gaussian noise of standard deviation 1, correlated over ``size_um``."""
    coarse = [int(np.ceil(side * MAP_UM / size_um)) + 4 for side in shape]
    place = np.indices(shape) * MAP_UM / size_um + 1
    return np.asarray(map_coordinates(rng.normal(size=coarse) * 1.3, place, order=3))


@dataclass(frozen=True)
class Inclusions:
    """Balls of one kind, none of which is a mitochondrion.

    ``index`` (N,) is the refractive index of each, ``dye`` (N,) the membrane dye that it took up,
    relative to the plasma membrane.
    """

    balls: Capsules
    index: Array
    dye: Array


def place_inclusions(cells: CellMaps, rng: Rng, crowding: float = 1.0) -> dict[str, Inclusions]:
    """Scatter balls in the field and its surroundings, denser around the nuclei.

    ``nucleoli`` lie inside nuclei, ``debris`` outside of cells, ``organelles`` in the cytoplasm: as
    many as `KINDS` says, times ``crowding``.
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
    return {
        "nucleoli": _nucleoli(cells, rng),
        "debris": _debris(cells, rng),
        "organelles": Inclusions(organelles, np.concatenate(indices), np.concatenate(dyed)),
    }


def scatter(rng: Rng, weight: Array, count: int) -> Array:
    """Draw points (count, 2) in um with a chance proportional to a map."""
    heap = np.cumsum(weight)
    picked = np.searchsorted(heap, rng.uniform(0, heap[-1], count), side="right")
    pixel = np.stack(np.unravel_index(picked.clip(max=weight.size - 1), weight.shape), axis=1)
    return (pixel + rng.uniform(-0.5, 0.5, (count, 2))) * MAP_UM - MARGIN_UM


def _balls(rng: Rng, weight: Array, per_um2: float, diameter: float) -> tuple[Array, Array]:
    """Draw centres (N, 2) in um and radii (N,), where the map is 1 with the given density."""
    count = rng.poisson(per_um2 * float((weight > 0.02).sum()) * MAP_UM**2)
    if not weight.any():
        return np.empty((0, 2)), np.empty(0)
    place = scatter(rng, weight, count)
    return place, diameter / 2 * rng.lognormal(0, 0.25, count).clip(0.6, 1.8)


def _nucleoli(cells: CellMaps, rng: Rng) -> Inclusions:
    """Clumps of balls at mid-height of the nuclei."""
    place, _ = _balls(rng, (cells.nucleus < -2.0).astype(float), 0.04, 1.0)
    parts = 7
    place = np.repeat(place, parts, axis=0) + rng.normal(0, 0.45, (len(place) * parts, 2))
    radius = rng.uniform(0.4, 0.9, len(place))
    low, high = cells.at(cells.nucleus_low, place), cells.at(cells.nucleus_high, place)
    radius = np.minimum(radius, (high - low) / 2 - 0.2)
    z = (low + high) / 2 + rng.normal(0, 0.1, len(place))
    fits = radius > 0.3
    balls = Capsules.balls(np.column_stack([z, place])[fits], radius[fits])
    return Inclusions(balls, np.full(int(fits.sum()), 1.380), np.zeros(int(fits.sum())))


def _debris(cells: CellMaps, rng: Rng) -> Inclusions:
    """Small clumps that lie on the coverslip or float above the cells."""
    place, _ = _balls(rng, np.ones_like(cells.edge), 0.002, 1.0)
    parts = 3
    place = np.repeat(place, parts, axis=0)
    radius = rng.uniform(0.15, 0.5, len(place))
    lifted = np.repeat(rng.uniform(0, 3.0, len(place) // parts), parts)
    lifted *= np.repeat(rng.uniform(size=len(place) // parts) < 0.5, parts)
    place = place + rng.normal(0, 0.35, place.shape)
    z = cells.at(cells.height, place) + radius + lifted
    balls = Capsules.balls(np.column_stack([z, place]), radius)
    return Inclusions(balls, rng.uniform(1.36, 1.42, len(z)), np.zeros(len(z)))
