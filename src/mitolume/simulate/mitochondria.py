"""Grows mitochondria in the cytoplasm: centrelines with radii."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from mitolume.simulate.capsules import Capsules
from mitolume.simulate.cells import MAP_UM, MARGIN_UM, CellMaps, scatter
from mitolume.simulate.settings import Condition

Array = NDArray[np.float64]
Index = NDArray[np.int_]
Rng = np.random.Generator

STEP_UM = 0.15  # between points of a centreline
CLEARANCE_UM = 0.1  # between surfaces: of mitochondria, cell, nucleus, vesicles
GRID_UM = 0.12  # of the map of what is taken
BEYOND_UM = 5.0  # grown around the field, so that tubes cross its edge


@dataclass(frozen=True)
class Network:
    """Centrelines of mitochondria.

    ``points`` (P, 3) are Z Y X in um, along each branch in order; ``radius`` (P,) that of the tube
    there in um; ``branch`` and ``object`` (P,) number the unbranched piece and the connected
    mitochondrion from 0. ``brightness`` and ``index`` (objects,) are dye concentration and
    refractive index of each mitochondrion.
    """

    points: Array
    radius: Array
    branch: Index
    object: Index
    brightness: Array
    index: Array

    @property
    def capsules(self) -> Capsules:
        """Straight pieces between neighbouring points; a branch of one point is a ball."""
        joined = np.flatnonzero(np.diff(self.branch) == 0)
        lone = np.flatnonzero(np.bincount(self.branch, minlength=1)[self.branch] == 1)
        first, second = np.append(joined, lone), np.append(joined + 1, lone)
        radii = np.stack([self.radius[first], self.radius[second]], axis=1)
        return Capsules(self.points[first], self.points[second], radii, self.object[first])


@dataclass
class _Growing:
    """What is grown so far; ``taken`` holds 1 + object, or -1 for other organelles."""

    taken: NDArray[np.int32]
    origin: Array
    points: list[Array]
    headings: list[Array]
    radius: list[Array]
    object: list[int]
    volume: float = 0.0

    def cells(self, points: Array) -> tuple[Index, ...]:
        """Find the indices into ``taken``, clipped to it."""
        index = np.rint((points - self.origin) / GRID_UM).astype(int)
        return tuple(index.clip(0, np.array(self.taken.shape) - 1).T)

    def mark(self, points: Array, reach: float, number: int) -> None:
        """Take balls of radius ``reach`` um around points."""
        steps, away = _cube(int(reach / GRID_UM))
        around = points[:, None] + steps[away <= reach]
        place = self.cells(around.reshape(-1, 3))
        # What two objects claim is closed to both: a branch may not leave its trunk through it.
        theirs = self.taken[place]
        self.taken[place] = np.where((theirs == 0) | (theirs == number), number, -1)


@cache
def _cube(n: int) -> tuple[Array, Array]:
    """Return the steps in um from a grid point to those up to n further on, and their lengths."""
    side = np.arange(-n, n + 1)
    cube = np.stack(np.meshgrid(side, side, side, indexing="ij"), axis=-1).reshape(-1, 3)
    steps = np.asarray(cube * GRID_UM, np.float64)
    return steps, np.linalg.norm(steps, axis=1)


def grow_network(
    cells: CellMaps,
    extent_um: tuple[float, float],
    condition: Condition,
    obstacles: Capsules,
    rng: Rng,
) -> Network:
    """Grow tubes in and around the field until they fill their share of the cytoplasm.

    They turn smoothly about the direction of the cell's filaments, keep clear of the cell's
    surface, the nuclei, the obstacles and one another, and start more often near the nucleus.
    """
    widest = _widest(condition)
    weight, aim = _weights(cells, extent_um, condition)
    origin = np.array([0.0, -MARGIN_UM, -MARGIN_UM])
    size = np.array([cells.height.max(), *(side + 2 * MARGIN_UM for side in extent_um)])
    taken = np.zeros(np.ceil(size / GRID_UM).astype(int) + 1, np.int32)
    grown = _Growing(taken, origin, [], [], [], [])
    for centre, (radius, _) in zip(obstacles.start, obstacles.radii, strict=True):
        grown.mark(centre[None], radius + widest + CLEARANCE_UM, -1)

    mean_volume = np.pi / 4 * condition.diameter_um**2 * condition.length_um
    tries = int(6 * aim / mean_volume) + 1
    if aim > 0:
        _grow_round(grown, cells, condition, rng, weight, tries, (1 - condition.branching) * aim)
    for share in (0.6, 1.0) if condition.branching and grown.points else ():
        goal = (1 - condition.branching * (1 - share)) * aim
        _grow_round(grown, cells, condition, rng, None, tries, goal)
    return _collected(grown, rng, condition)


def _widest(condition: Condition) -> float:
    """Radius of the widest tube in um: 1.25 times the median, and a bead of 10 %."""
    return condition.diameter_um / 2 * 1.38


def _weights(
    cells: CellMaps, extent_um: tuple[float, float], condition: Condition
) -> tuple[Array, float]:
    """Chance of a start for each pixel of the maps, and the volume to be filled in um**3."""
    widest = _widest(condition)
    y, x = cells.positions
    near = (y > -BEYOND_UM) & (y < extent_um[0] + BEYOND_UM)
    near &= (x > -BEYOND_UM) & (x < extent_um[1] + BEYOND_UM)
    thickness = cells.height - (cells.nucleus_high - cells.nucleus_low)
    room = (cells.height - 2 * (widest + CLEARANCE_UM)).clip(min=0)
    room *= near & (cells.nucleus > widest + CLEARANCE_UM)
    # Relative to a whole cell, a disc of 20 um around a nucleus of 6 um, so that a field that shows
    # only the periphery gets the few mitochondria that a clustered cell has there.
    decay, rings = condition.clustering_um, np.linspace(0, 14, 57)
    density = np.exp(-cells.nucleus.clip(min=0) / decay)
    density /= np.average(np.exp(-rings / decay), weights=rings + 6)
    filled = condition.volume_share * (thickness * near * (room > 0) * density).sum() * MAP_UM**2
    return room**0.4 * density, float(filled)


def _grow_round(
    grown: _Growing,
    cells: CellMaps,
    condition: Condition,
    rng: Rng,
    weight: Array | None,
    tries: int,
    goal: float,
) -> None:
    """Add tubes until ``goal`` um**3 are filled: from ``weight``, or as branches if None."""
    samples = condition.length_um * rng.lognormal(0.0, condition.length_spread, tries) / STEP_UM
    samples = np.ceil(samples).astype(int) + 1
    radius = condition.diameter_um / 2 * rng.lognormal(0.0, 0.15, tries)
    radius = radius.clip(0.7 * condition.diameter_um / 2, 1.25 * condition.diameter_um / 2)
    widest = _widest(condition)
    trunk = np.full(tries, -1)
    skip = np.zeros(tries, int)
    if weight is None:
        trunk, start, heading = _joints(grown, rng, tries)
        # A branch at 0.7 rad has left what its trunk takes after this many steps.
        skip[:] = int((3 * widest + CLEARANCE_UM + GRID_UM) / np.sin(0.7) / STEP_UM)
        samples += skip // 2
        low, high = _limits(cells, start[:, 1:], radius)
        level = ((start[:, 0] - low) / (high - low)).clip(0, 1)
        start = start[:, 1:]
    else:  # short pieces tumble, long ones lie along the cell
        start, level = scatter(rng, weight, tries), rng.uniform(0, 1, tries)
        heading = np.arctan2(cells.at(cells.axis_y, start), cells.at(cells.axis_x, start)) / 2
        heading += np.pi * rng.integers(0, 2, tries) + rng.normal(
            0, 0.9 / (1 + condition.length_um), tries
        )
    points, headings = _paths(rng, cells, condition, start, heading, samples.max(), weight is None)
    heights, free = _heights(rng, cells, points, level, radius)
    paths = np.concatenate([heights[..., None], points], axis=2)
    places = [axis.reshape(tries, -1) for axis in grown.cells(paths.reshape(-1, 3))]
    for i in range(tries):
        if grown.volume >= goal:
            break
        path = paths[i, : samples[i]]
        number = grown.object[trunk[i]] if trunk[i] >= 0 else max(grown.object, default=-1) + 1
        takers = grown.taken[tuple(axis[i, : samples[i]] for axis in places)]
        blocked = (takers != 0) & ~((takers == number + 1) & (np.arange(len(path)) < skip[i]))
        blocked |= ~free[i, : samples[i]]
        room = int(blocked.argmax()) if blocked.any() else len(path)
        if room < max(0.5 * samples[i], skip[i] + 1, 1):
            continue
        path = path[:room]
        beads = 1 + 0.1 * np.sin(4.0 * STEP_UM * np.arange(room) + 40 * radius[i])
        grown.points.append(path)
        grown.headings.append(headings[i, :room])
        grown.radius.append(radius[i] * beads)
        grown.object.append(number)
        reach = radius[i] * 1.1 + widest + CLEARANCE_UM + GRID_UM * 0.87
        grown.mark(path[:: 2 if room > 2 else 1], reach, number + 1)
        length = np.linalg.norm(np.diff(path, axis=0), axis=1).sum()
        grown.volume += np.pi * radius[i] ** 2 * (length + 4 / 3 * radius[i])


def _paths(
    rng: Rng,
    cells: CellMaps,
    condition: Condition,
    start: Array,
    heading: Array,
    samples: int,
    leaving: bool,
) -> tuple[Array, Array]:
    """Follow all paths (N, samples, 2) Y X step by step, and their headings (N, samples)."""
    memory = np.exp(-STEP_UM / 0.8)  # curvature is forgotten over 0.8 um
    kicks = rng.normal(0.0, condition.turning, (len(start), samples))
    curvature = lfilter([np.sqrt(1 - memory**2)], [1, -memory], kicks, axis=1)
    points, headings = np.empty((len(start), samples, 2)), np.empty((len(start), samples))
    place, heading = start.copy(), heading.copy()
    for step in range(samples):
        points[:, step], headings[:, step] = place, heading
        pull = 0.0 if leaving and step < 8 else 0.7  # 1/um, towards the axis of the filaments
        axis = cells.at(cells.axis_y, place), cells.at(cells.axis_x, place)
        turn = axis[0] * np.cos(2 * heading) - axis[1] * np.sin(2 * heading)
        heading = heading + STEP_UM * (curvature[:, step] + pull * turn)
        place = place + STEP_UM * np.stack([np.sin(heading), np.cos(heading)], axis=1)
    return points, headings


def _limits(cells: CellMaps, points: Array, radius: Array) -> tuple[Array, Array]:
    """Lowest and highest centre (N,) of tubes; equal where there is no room."""
    low = radius * 1.1 + CLEARANCE_UM
    return low, np.maximum(cells.at(cells.height, points) - low, low + 1e-3)


def _heights(
    rng: Rng, cells: CellMaps, points: Array, level: Array, radius: Array
) -> tuple[Array, NDArray[np.bool_]]:
    """Z (N, samples) along paths, and where they keep clear of the cell's surface and nuclei.

    ``level`` is the start's height relative to the room there; paths swing smoothly in it.
    """
    swing = rng.normal(0.0, 0.12, len(points))[:, None] * STEP_UM * np.arange(points.shape[1])
    level = (1 - np.cos(np.arccos(1 - 2 * level)[:, None] + swing)) / 2
    flat, wide = points.reshape(-1, 2), np.repeat(radius, points.shape[1])
    low, high = _limits(cells, flat, wide)
    free = (high - low > 0.01) & (cells.at(cells.nucleus, flat) > wide * 1.1 + CLEARANCE_UM)
    heights = low + level.ravel() * (high - low)
    return heights.reshape(level.shape), free.reshape(level.shape)


def _joints(grown: _Growing, rng: Rng, count: int) -> tuple[Index, Array, Array]:
    """Draw trunks, points (count, 3) on them, and headings that leave them."""
    lengths = np.array([len(points) for points in grown.points])
    trunk = rng.choice(len(lengths), count, p=lengths / lengths.sum())
    joint = (rng.uniform(size=count) * lengths[trunk]).astype(int)
    pairs = list(zip(trunk, joint, strict=True))
    start = np.array([grown.points[i][j] for i, j in pairs])
    heading = np.array([grown.headings[i][j] for i, j in pairs])
    return trunk, start, heading + rng.choice([-1, 1], count) * rng.uniform(0.7, 1.3, count)


def _collected(grown: _Growing, rng: Rng, condition: Condition) -> Network:
    """Join what is grown into one table."""
    counts = [len(points) for points in grown.points]
    number = max(grown.object, default=-1) + 1
    return Network(
        points=np.concatenate([np.empty((0, 3)), *grown.points]),
        radius=np.concatenate([np.empty(0), *grown.radius]),
        branch=np.repeat(np.arange(len(counts)), counts),
        object=np.repeat(np.array(grown.object, dtype=int), counts),
        brightness=condition.brightness * rng.lognormal(0.0, 0.25, number),
        index=rng.normal(condition.index, 0.003, number),
    )
