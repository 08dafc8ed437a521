"""Outlines, heights and nuclei of adherent cells as maps. Knows nothing inside the cytoplasm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

__all__ = ["MAP_UM", "CellMaps", "lay_out_cells", "smooth_noise"]

Array = NDArray[np.float64]
Index = NDArray[np.int_]
Rng = np.random.Generator

MAP_UM = 0.2  # pixel of the maps
MARGIN_UM = 10.0  # of the maps around the field, so that its edge cuts cells and mitochondria
NUCLEUS_FLOOR_UM = 0.5  # cytoplasm between coverslip and nucleus


@dataclass(frozen=True)
class CellMaps:
    """Maps (Y, X) in steps of ``MAP_UM`` over the field and a margin; the origin is pixel (0, 0).

    Attributes
    ----------
    edge : ndarray of float64, (Y, X)
        Distance from the edge of the cell in um, negative outside of cells.
    height : ndarray of float64, (Y, X)
        Height of the cell's upper surface above the coverslip in um, 0 outside.
    nucleus : ndarray of float64, (Y, X)
        Distance from the outline of the same cell's nucleus in um, negative inside; up to a third
        too small beyond the nucleus' tips.
    nucleus_low, nucleus_high : ndarray of float64, (Y, X)
        Lower and upper surface of the nuclei in um; equal where there is none.
    axis_y, axis_x : ndarray of float64, (Y, X)
        Sine and cosine of twice the direction of filaments, an angle from X towards Y: a direction
        without a sense has no jump in them. Up to 1 where it is well defined.
    """

    edge: Array
    height: Array
    nucleus: Array
    nucleus_low: Array
    nucleus_high: Array
    axis_y: Array
    axis_x: Array

    def at(self, field: Array, points: Array) -> Array:
        """Interpolate a map at points (N, 2) Y X in um."""
        values: Array = map_coordinates(
            field, (points.T + MARGIN_UM) / MAP_UM, order=1, mode="nearest"
        )
        return values

    def on_grid(self, field: Array, shape: tuple[int, int], pixel_um: float) -> Array:
        """Interpolate a map at the pixels of the field."""
        place = (np.indices(shape) * pixel_um + MARGIN_UM) / MAP_UM
        values: Array = map_coordinates(field, place, order=1, mode="nearest")
        return values

    @property
    def positions(self) -> tuple[Array, Array]:
        """Y and X of each pixel of the maps in um."""
        y, x = np.indices(self.edge.shape) * MAP_UM - MARGIN_UM
        return y, x


def lay_out_cells(extent_um: tuple[float, float], rng: Rng) -> CellMaps:
    """Lay out spread cells, one of which holds or lies near the middle of the field.

    Parameters
    ----------
    extent_um : tuple of float
        Size (Y, X) of the field.
    rng : Generator
        Drawn from.

    Returns
    -------
    CellMaps
        Maps over the field and a margin.
    """
    shape = [int(np.ceil((side + 2 * MARGIN_UM) / MAP_UM)) + 1 for side in extent_um]
    y, x = np.indices(shape) * MAP_UM - MARGIN_UM
    centres, angles = _places(rng, np.array(extent_um))
    wobble = 0.8 * smooth_noise(rng, y.shape, 6.0) + 0.15 * smooth_noise(rng, y.shape, 1.8)

    best, second = np.full(y.shape, -99.0), np.full(y.shape, -99.0)
    nucleus, low, high = np.full(y.shape, 99.0), np.zeros(y.shape), np.zeros(y.shape)
    along_y, along_x = np.zeros(y.shape), np.ones(y.shape)
    for (cy, cx), angle in zip(centres, angles, strict=True):
        core, bottom, top = _nucleus(rng, y - cy, x - cx, angle + rng.normal(0, 0.25))
        level = np.maximum(_body(rng, y - cy, x - cx, angle) + wobble, 2.5 - core)
        mine = level > best
        second = np.where(mine, best, np.maximum(second, level))
        best = np.maximum(best, level)
        along_y[mine], along_x[mine] = np.sin(2 * angle), np.cos(2 * angle)
        inside = mine & (core < 0)
        low[inside], high[inside] = bottom[inside], top[inside]
        nucleus[mine] = core[mine]
    # Smoothed, the distance from a mask has no steps of a pixel at the outline.
    edge = -gaussian_filter(_signed_distance((best > 0) & (best - second > 0.3)), 1.5)
    height = _height(rng, edge, nucleus, high)
    axis_y, axis_x = _filament_axis(along_y, along_x, edge, nucleus)
    return CellMaps(edge, height, nucleus, low, high, axis_y, axis_x)


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
    level: Array = top + blend * np.log(np.exp((stacked - top) / blend).sum(axis=0))
    return level


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
    middle = NUCLEUS_FLOOR_UM + thickness.max(initial=0.0) / 2
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
    smooth: Array = gaussian_filter(height, 1.0) * (edge > 0)
    return smooth


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


def _signed_distance(inside: NDArray[np.bool_]) -> Array:
    """Distance in um outside of a region, negative inside; 99 everywhere where there is none."""
    if not inside.any():
        return np.full(inside.shape, 99.0)
    away: Array = distance_transform_edt(~inside) - distance_transform_edt(inside)
    return away * MAP_UM


def smooth_noise(rng: Rng, shape: tuple[int, ...], size_um: float) -> Array:
    """Gaussian noise of standard deviation 1, correlated over ``size_um``."""
    coarse = [int(np.ceil(side * MAP_UM / size_um)) + 4 for side in shape]
    place = np.indices(shape) * MAP_UM / size_um + 1
    noise: Array = map_coordinates(rng.normal(size=coarse) * 1.3, place, order=3)
    return noise
