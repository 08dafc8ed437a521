"""Draws simulated fields of live cells: transmitted light, fluorescence and the exact mask.

A flat model: depth is a few defocused layers and a treatment is a row of ``CONDITIONS``, whose
numbers are plausible, not measured. It knows no files and no networks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter
from scipy.signal import lfilter
from scipy.spatial import cKDTree

from mitolume.simulate.optics import fluorescence, transmitted_light

__all__ = ["CONDITIONS", "Condition", "SimulatedField", "simulate_field"]

Array = NDArray[np.float64]
Index = NDArray[np.int_]
Flags = NDArray[np.bool_]
Rng = np.random.Generator

MITOCHONDRIA_DEFOCUS_UM = (-0.45, -0.3)  # the sign draws them dark, with bright rims


@dataclass(frozen=True)
class Condition:
    """How mitochondria look under one treatment.

    Attributes
    ----------
    per_um2 : float
        Mitochondria per square micrometre of cytoplasm.
    length_um, diameter_um : float
        Median length of the centreline and diameter of the tube.
    turning : float
        Standard deviation of the centreline's curvature, 1/um.
    branching : float
        Share of mitochondria that grow as a branch of another one.
    clustering_um : float
        Distance from the nucleus over which the density falls by a factor e.
    contrast : float
        Optical density and brightness relative to control; a diluted matrix has less.
    """

    per_um2: float
    length_um: float
    diameter_um: float
    turning: float
    branching: float
    clustering_um: float
    contrast: float


CONDITIONS: dict[str, Condition] = {
    "control": Condition(0.2, 2.8, 0.5, 0.7, 0.25, 9.0, 1.0),
    "fccp": Condition(0.25, 0.45, 0.8, 0.7, 0.0, 8.0, 0.85),  # fragmented, swollen
    "oligomycin": Condition(0.11, 8.0, 0.48, 0.5, 0.5, 10.0, 1.0),  # hyperfused
    "antimycin_a": Condition(0.27, 1.0, 0.5, 0.7, 0.0, 1.8, 0.9),  # fragmented, perinuclear
    "rotenone": Condition(0.14, 1.1, 0.5, 0.7, 0.0, 8.0, 0.9),  # fragmented, fewer
}
# Thin tubules that are no mitochondria, drawn by the same code.
RETICULUM = Condition(0.08, 5.0, 0.2, 0.2, 0.2, 12.0, 1.0)


@dataclass(frozen=True)
class SimulatedField:
    """One simulated field of view.

    Attributes
    ----------
    transmitted : ndarray of uint16, (Y, X)
        Transmitted-light camera counts, 0 to 4095.
    fluorescence : ndarray of uint16, (Y, X)
        Mitochondria channel, camera counts, 0 to 4095, with out-of-focus haze.
    mask : ndarray of uint8, (Y, X)
        1 where a mitochondrion near the focal plane lies, else 0. Those far from focus, seen
        only as haze, are background.
    pixel_size_um : float
        Side of a pixel in micrometres.
    """

    transmitted: NDArray[np.uint16]
    fluorescence: NDArray[np.uint16]
    mask: NDArray[np.uint8]
    pixel_size_um: float


def simulate_field(
    shape: tuple[int, int] = (256, 256),
    *,
    condition: str = "control",
    seed: int = 0,
    pixel_size_um: float = 0.1,
) -> SimulatedField:
    """Simulate one field of view of live cells, cut by the field's edge.

    The same arguments give the same bytes. The same seed under another condition gives the same
    cells with other mitochondria: count the two as one specimen.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns (Y, X), at least 16 each.
    condition : str
        A name in ``CONDITIONS``.
    seed : int
        Not negative.
    pixel_size_um : float
        Side of a pixel in micrometres, 0.03 to 0.3.

    Returns
    -------
    SimulatedField
        Transmitted light, fluorescence and mask.

    Raises
    ------
    ValueError
        For an unknown condition, a shape below 16 pixels or a pixel size out of range.

    Examples
    --------
    >>> field = simulate_field((64, 96), condition="fccp", seed=1)
    >>> field.transmitted.shape, field.transmitted.dtype, field.mask.dtype
    ((64, 96), dtype('uint16'), dtype('uint8'))
    """
    if condition not in CONDITIONS:
        raise ValueError(f"unknown condition {condition!r}; choose from {', '.join(CONDITIONS)}")
    if len(shape) != 2 or min(shape) < 16:
        raise ValueError(f"shape must be (Y, X), at least 16 pixels each, got {shape}")
    if not 0.03 <= pixel_size_um <= 0.3:
        raise ValueError(f"pixel_size_um must lie within 0.03 and 0.3, got {pixel_size_um}")
    px, treatment = pixel_size_um, CONDITIONS[condition]
    cell_rng, tube_rng, haze_rng, clutter_rng, camera_rng = (
        np.random.default_rng([seed, stream]) for stream in range(5)
    )
    # The margin lets tubes and fringes cross the field's edge and takes the FFT's wrap-around.
    margin = round(2.0 / px)
    field = (slice(margin, margin + shape[0]), slice(margin, margin + shape[1]))
    y, x = np.indices([n + 2 * margin for n in shape]) * px
    cells = _cells(cell_rng, y, x)

    tubes = _tubes(tube_rng, cells, treatment, px)
    chord, nearest = _chords(tubes.points, tubes.radius, y, x)
    hidden = _tubes(haze_rng, cells, treatment, px)
    haze, _ = _chords(hidden.points, hidden.radius, y, x)

    tube = np.append(tubes.label, tubes.count)[nearest]  # which tube, per pixel; count: none
    density = 0.04 * treatment.contrast * tube_rng.lognormal(0.0, 0.25, tubes.count + 1)
    defocus = tube_rng.choice(MITOCHONDRIA_DEFOCUS_UM, tubes.count + 1)[tube]
    layers = [(z, chord * density[tube] * (defocus == z)) for z in MITOCHONDRIA_DEFOCUS_UM]
    layers += [(2.5, 0.02 * haze), *_clutter(clutter_rng, cells, y, x)]
    glow = chord * treatment.contrast * tube_rng.lognormal(0.0, 0.3, tubes.count + 1)[tube]
    return SimulatedField(
        transmitted=transmitted_light(camera_rng, layers, px)[field],
        fluorescence=fluorescence(camera_rng, glow, haze, cells.edge > 0, px)[field],
        mask=(chord > 0).astype(np.uint8)[field],
        pixel_size_um=px,
    )


@dataclass(frozen=True)
class _Cells:
    """Maps over the padded field: um inside the outline, um outside the nucleus, long axis."""

    edge: Array
    nucleus: Array
    axis: Array


@dataclass(frozen=True)
class _Tubes:
    """Centreline samples: position (P, 2) and radius (P,) in um, and which tube (P,)."""

    points: Array
    radius: Array
    label: Index
    count: int


def _cells(rng: Rng, y: Array, x: Array) -> _Cells:
    """Lay out cells about 30 um apart, the first so that its cytoplasm holds the field's centre."""
    low, high = np.array([y[0, 0], x[0, 0]]), np.array([y[-1, -1], x[-1, -1]])
    direction = rng.uniform(0, 2 * np.pi)
    offset = rng.uniform(7.0, 11.0) * np.array([np.sin(direction), np.cos(direction)])
    centres = [(low + high) / 2 + offset]
    for _ in range(int(np.prod(high - low + 40.0) / 150.0)):
        candidate = rng.uniform(low - 20.0, high + 20.0)
        if np.linalg.norm(np.array(centres) - candidate, axis=1).min() > 28.0:
            centres.append(candidate)

    edge, nucleus, axis = np.full(y.shape, -np.inf), np.full(y.shape, np.inf), np.zeros(y.shape)
    for cy, cx in centres:
        angle = rng.uniform(0, np.pi)
        inside = -_outside(rng, y - cy, x - cx, angle, (rng.uniform(13, 18), 1.25, 0.3))
        tilt = angle + rng.normal(0, 0.4)
        core = _outside(rng, y - cy, x - cx, tilt, (rng.uniform(5, 6.5), 1.15, 0.06))
        inside = np.maximum(inside, 1.0 - core)  # a cell encloses its nucleus
        owned = inside > edge
        edge[owned], axis[owned] = inside[owned], angle
        nucleus = np.minimum(nucleus, core)
    return _Cells(edge, nucleus, axis)


def _outside(
    rng: Rng, dy: Array, dx: Array, angle: float, form: tuple[float, float, float]
) -> Array:
    """Roughly the distance outside a wavy ellipse around 0; `form`: radius, stretch, waviness."""
    radius, stretch, waviness = form
    along = (dx * np.cos(angle) + dy * np.sin(angle)) / stretch
    across = (dy * np.cos(angle) - dx * np.sin(angle)) * stretch
    turn = np.linspace(-np.pi, np.pi, 361)
    k = np.arange(2, 7)[:, None]
    waves = rng.normal(0, waviness / k) * np.cos(k * turn + rng.uniform(0, 2 * np.pi, k.shape))
    outline = radius * (1 + waves.sum(axis=0)).clip(min=0.4)
    distance: Array = np.hypot(along, across) - np.interp(np.arctan2(across, along), turn, outline)
    return distance


def _tubes(rng: Rng, cells: _Cells, treatment: Condition, px: float) -> _Tubes:
    """Grow smoothly turning tubes in the cytoplasm; each stops where it would meet another."""
    allowed = (cells.edge > 0.6) & (cells.nucleus > 0.5)
    taken = np.zeros_like(allowed)
    wanted = rng.poisson(treatment.per_um2 * allowed.sum() * px**2)
    tries, step = 3 * wanted, px / 2
    density = np.where(allowed, np.exp(-cells.nucleus / treatment.clustering_um), 0.0)
    starts = _scatter(rng, density, tries)
    samples = np.ceil(treatment.length_um * rng.lognormal(0.0, 0.4, tries) / step).astype(int)
    # First-order autoregressive curvature, forgotten over 0.8 um, gives a smooth path.
    memory = np.exp(-step / 0.8)
    kicks = rng.normal(0.0, treatment.turning, (tries, samples.max(initial=1)))
    curvature = lfilter([np.sqrt(1 - memory**2)], [1, -memory], kicks, axis=1)
    bearing = np.cumsum(step * curvature, axis=1)
    tilt = rng.normal(0.0, 0.7, tries) + np.pi * rng.integers(0, 2, tries)

    grown: list[tuple[Array, Array]] = []  # points, headings
    for i in range(tries):
        if len(grown) == wanted:
            break
        start, skip, heading = starts[i] * px, 0, cells.axis[tuple(starts[i])] + tilt[i]
        if grown and rng.uniform() < treatment.branching:
            trunk, trunk_headings = grown[rng.integers(len(grown))]
            joint = rng.integers(len(trunk))
            start, skip = trunk[joint], int((2 * treatment.diameter_um + 0.4) / step)
            heading = trunk_headings[joint] + rng.choice([-1, 1]) * rng.uniform(0.6, 1.3)
        headings = heading + bearing[i, : samples[i]]
        points = start + step * np.cumsum([np.sin(headings), np.cos(headings)], axis=1).T
        index = np.rint(points / px).astype(int)
        room = _room(index, skip, allowed, taken)
        if room >= 0.6 * samples[i]:
            _stamp(taken, index[:room:2], (treatment.diameter_um + 0.2) / px)
            grown.append((points[:room], headings[:room]))
    label = np.repeat(np.arange(len(grown)), [len(points) for points, _ in grown])
    points = np.concatenate([np.empty((0, 2)), *(points for points, _ in grown)])
    radius = treatment.diameter_um / 2 * rng.lognormal(0.0, 0.12, len(grown))[label]
    radius *= 1 + 0.1 * np.sin(4.0 * step * np.arange(len(label)))  # gentle beading
    return _Tubes(points, radius, label, len(grown))


def _scatter(rng: Rng, weight: Array, count: int) -> Index:
    """Draw pixels (count, 2) with a chance proportional to the weight map."""
    heap = np.cumsum(weight)
    picked = np.searchsorted(heap, rng.uniform(0, heap[-1], count), side="right")
    return np.stack(np.unravel_index(picked.clip(max=weight.size - 1), weight.shape), axis=1)


def _room(index: Index, skip: int, allowed: Flags, taken: NDArray[np.bool_]) -> int:
    """Count the path's samples before the first obstacle; other tubes are none before `skip`."""
    row, col = index.clip(0, np.array(allowed.shape) - 1).T
    obstacle = ~allowed[row, col] | (taken[row, col] & (np.arange(len(index)) >= skip))
    obstacle |= (index != np.stack([row, col], axis=1)).any(axis=1)
    return int(obstacle.argmax()) if obstacle.any() else len(index)


def _stamp(taken: Flags, index: Index, reach: float) -> None:
    """Mark, in place, discs of `reach` pixels around a path."""
    side = np.arange(-int(reach), int(reach) + 1)
    disc = np.argwhere(np.hypot(side[:, None], side) <= reach) - int(reach)
    row, col = (index[:, None] + disc).clip(0, np.array(taken.shape) - 1).T
    taken[row, col] = True


def _chords(points: Array, radius: Array, y: Array, x: Array) -> tuple[Array, Index]:
    """Thickness (um) of tubes or beads along the light, and the nearest sample (P: none)."""
    reach = radius.max(initial=0.0) + 1e-6
    px = y[1, 0] - y[0, 0]
    near = np.zeros(y.shape, bool)
    near[tuple(np.rint(points / px).astype(int).T)] = True
    near = maximum_filter(near, 2 * int(reach / px + 2) + 1)
    pixels = np.stack([y[near], x[near]], axis=1)
    distance, owner = cKDTree(points).query(pixels, distance_upper_bound=reach)
    chord, nearest = np.zeros(y.shape), np.full(y.shape, len(points))
    half = np.append(radius, 0.0)[owner] ** 2 - distance**2
    chord[near], nearest[near] = 2 * np.sqrt(half.clip(min=0.0)), owner
    return chord, nearest


def _clutter(rng: Rng, cells: _Cells, y: Array, x: Array) -> list[tuple[float, Array]]:
    """Everything else that refracts: (defocus, index difference x thickness) in um."""
    px = float(y[1, 0] - y[0, 0])
    rim, body = cells.edge.clip(0), np.exp(-((cells.nucleus.clip(0) / 4) ** 2))
    thickness = 0.8 * (1 - np.exp(-rim / 0.4)) + 3 * body * (1 - np.exp(-rim / 3))
    inside = 1 / (1 + np.exp((cells.nucleus / 0.15).clip(-30, 30)))
    cytoplasm = (cells.edge > 0.3) * (1 - inside)
    endoplasm = cytoplasm * np.exp(-cells.nucleus.clip(0) / 5)

    def beads(weight: Array, per_um2: float, diameter_um: float) -> Array:
        count = rng.poisson(per_um2 * float(weight.sum()) * px**2)
        points = _scatter(rng, weight, count) * px + rng.uniform(-px, px, (count, 2)) / 2
        return _chords(points, diameter_um / 2 * rng.lognormal(0, 0.25, count), y, x)[0]

    def grain(size_um: float) -> Array:
        noise = gaussian_filter(rng.normal(size=y.shape), size_um / px)
        scaled: Array = noise / noise.std() * np.sqrt(thickness) * (1 - 0.7 * inside)
        return scaled

    reticulum = _tubes(rng, cells, RETICULUM, px)
    tubules = _chords(reticulum.points, reticulum.radius, y, x)[0]
    nucleoli = gaussian_filter(beads(inside, 0.03, 2.0), 0.2 / px)
    return [
        (0.5, 0.03 * thickness - 0.03 * inside + 0.02 * nucleoli),
        (0.5, 0.08 * beads(endoplasm, 0.14, 0.6)),  # lipid droplets: bright, with a dark ring
        (-0.4, 0.05 * beads(endoplasm, 0.12, 0.5)),  # vesicles: dark, with a bright ring
        (0.3, 0.05 * beads(cytoplasm, 0.25, 0.35)),
        (-0.3, 0.04 * tubules + 0.001 * grain(0.15)),
        (0.4, 0.0015 * grain(0.25)),
        (1.5, 0.003 * grain(0.6) + 0.05 * beads(cytoplasm, 0.08, 0.6)),
        (4.0, 0.05 * beads(np.ones_like(rim), 0.004, 1.0)),  # debris floating above
    ]
