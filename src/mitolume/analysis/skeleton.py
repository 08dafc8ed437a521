"""Centrelines of objects: branches, end points, loops, lengths. Knows no image and no table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csgraph, csr_array
from skimage.morphology import skeletonize

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

COUNTS = ("n_branches", "n_end_points", "n_junctions", "n_loops")

_SMOOTH_PX = 2  # a point of a centreline is averaged with this many neighbours on each side
_DIRECTION_PX = 6  # the last so many pixels of a branch say where it points
_RAY_STEP = 0.25  # of the smallest pixel side, when going on to an object's end
_SPUR = 1.5  # a side branch must reach so many half widths from the centreline
_SWEEPS = 8  # searches for the farthest pair of points; two are exact without loops
_BATCH_PX = 2**22  # pixels in which skeletons are analysed at once


def measure_skeletons(
    masks: Sequence[Bools], spacing: Sequence[float]
) -> dict[str, NDArray[np.number[Any]]]:
    """Measure the centrelines of objects.

    Skeletons are those of Lee et al. (CVGIP 1994) as scikit-image makes them, cut into branches
    by skan (Nunez-Iglesias et al., PeerJ 2018). Side branches that rise above the object's
    surface by less than half its half width are taken for roughness and dropped. Branches are
    smoothed over five pixels, since steps from pixel to pixel are up to 8 % too long, and go on
    straight to the object's ends, which thinning takes away.

    Parameters
    ----------
    masks
        Each (Y, X) or (Z, Y, X): one object, cut out by its box.
    spacing
        Pixel size along each axis; lengths have its unit.

    Returns
    -------
    dict
        An array with an entry for each object: ``n_branches``, ``n_end_points``, ``n_junctions``
        (closer together than the half width there: one), ``n_loops``; ``skeleton_length``, the
        sum of all branches, and ``length``, the longest of the shortest ways along them between
        two of their ends.
        An object without branches, however round, is one branch with two ends.

    Examples
    --------
    >>> found = measure_skeletons([np.ones((3, 20), bool)], (0.1, 0.1))
    >>> found["length"].round(2).tolist(), found["n_end_points"].tolist()
    ([2.0], [2])
    """
    counts = {name: np.zeros(len(masks), np.int64) for name in COUNTS}
    lengths = {name: np.zeros(len(masks)) for name in ("skeleton_length", "length")}
    space = np.asarray(spacing, np.float64)
    lines = [_thinned(np.pad(mask, 1)) for mask in masks]
    for numbers in _batches(lines):
        stack = _stacked([masks[n] for n in numbers], [lines[n] for n in numbers], space)
        branches = _pruned(stack, space)
        found = _count(branches, len(numbers)) | _lengths(branches, len(numbers))
        _add_dots(found, stack, space)
        for name, values in found.items():
            (counts if name in counts else lengths)[name][numbers] = values
    np.maximum(counts["n_branches"], 1, out=counts["n_branches"])  # all may be parts of junctions
    return {**counts, **lengths}


@dataclass(frozen=True)
class _Stack:
    """Objects one below the other, with gaps, so that skan reads all at once and none touch.

    ``depth`` is the distance to the background, above 0 inside; ``owner`` says for each row along
    the first axis which object it belongs to, -1 for none. ``height`` is noise, the same for an
    object in any stack: with it no two links at a junction are equally long. Of equal ones, skan
    would choose by what else is in the stack.
    """

    skeleton: Bools
    depth: Floats
    height: Floats
    owner: Ints


@dataclass(frozen=True)
class _Branches:
    """Branches of all skeletons of a stack, and the pixels (nodes) they run through.

    ``nodes[start[b]:start[b + 1]]`` are the nodes of branch b, ``first[b]`` and ``last[b]`` those
    at its ends. ``length`` goes from node to node, ``beyond`` from there to the object's ends.
    """

    at: Ints
    degree: Ints
    depth: Floats
    nodes: Ints
    start: Ints
    first: Ints
    last: Ints
    owner: Ints
    length: Floats
    beyond: Floats


def _thinned(mask: Bools) -> Bools:
    """Skeleton of an object, never empty.

    Zhang's thinning, the default in 2D, can wear a diagonal tube down to a single pixel. Lee's
    can wear a body of even thickness away in 3D (scikit-image issue 3757): it is made odd.
    """
    for thicker in product((False, True), repeat=mask.ndim):
        body = mask
        for axis in np.flatnonzero(thicker):
            body = body | np.roll(body, 1, axis)
        line: Bools = (skeletonize(body, method="lee") > 0) & mask
        if line.any():
            break
    return line


def _batches(lines: Sequence[Bools]) -> Iterator[list[int]]:
    """Group skeletons of like width, so that a stack of them holds little but objects."""
    width = [int(np.prod(line.shape[1:])) for line in lines]
    batch: list[int] = []
    rows = 0
    for n in sorted(range(len(lines)), key=lambda n: (width[n], n)):
        rows += lines[n].shape[0]
        if batch and rows * width[n] > _BATCH_PX:
            yield batch
            batch, rows = [], lines[n].shape[0]
        batch.append(n)
    if batch:
        yield batch


def _neighbours(skeleton: Bools) -> NDArray[np.int8]:
    """How many neighbours each pixel of a skeleton has; -1 elsewhere."""
    around = ndimage.convolve(
        skeleton.astype(np.int8), np.ones((3,) * skeleton.ndim, np.int8), mode="constant"
    )
    return np.where(skeleton, around - 1, -1)


def _stacked(masks: Sequence[Bools], lines: Sequence[Bools], spacing: Floats) -> _Stack:
    rows = [line.shape[0] for line in lines]
    wide = np.max([line.shape[1:] for line in lines], axis=0)
    # skan fails where no branch is: the last two rows hold a line of two pixels that nobody owns.
    shape = (sum(rows) + 2, *wide)
    skeleton, depth, height = np.zeros(shape, bool), np.zeros(shape), np.zeros(shape)
    row = 0
    for mask, line in zip(masks, lines, strict=True):
        place = (slice(row, row + line.shape[0]), *map(slice, line.shape[1:]))
        depth[place] = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing)
        skeleton[place] = line
        height[place] = np.random.default_rng(0).random(line.shape)
        row += line.shape[0]
    skeleton.reshape(shape[0], -1)[-2:, 0] = True
    return _Stack(skeleton, depth, height, np.repeat([*range(len(masks)), -1], [*rows, 2]))


def _pruned(stack: _Stack, spacing: Floats) -> _Branches:
    """Remove side branches that are but roughness, also from the stack; return the others."""
    while True:
        found = _branches(stack, spacing)
        tips = found.degree[[found.first, found.last]] == 1
        junction = np.where(tips[0], found.last, found.first)
        height = found.length + found.beyond
        spur = (tips[0] != tips[1]) & (height < _SPUR * found.depth[junction])
        if not spur.any():
            return found
        branch = np.repeat(np.arange(len(spur)), np.diff(found.start))
        gone = found.nodes[spur[branch] & (found.nodes != junction[branch])]
        stack.skeleton[tuple(found.at[gone].T)] = False


def _branches(stack: _Stack, spacing: Floats) -> _Branches:
    from skan import Skeleton  # compiles for seconds: only where it is needed

    image = np.where(stack.skeleton, 1 + stack.height, 0)
    graph = Skeleton(image, spacing=tuple(spacing), value_is_height=True, keep_images=False)
    at = np.asarray(graph.coordinates, np.int64)
    chains = (_forward(graph.path(n)) for n in range(graph.n_paths))
    owned = (chain for chain in chains if stack.owner[at[chain[0], 0]] >= 0)
    paths = sorted(owned, key=lambda chain: (chain[0], chain[1]))
    size = np.array([len(path) for path in paths], np.int64)
    nodes = np.concatenate([np.zeros(0, np.int64), *paths])
    start = np.concatenate([[0], size.cumsum()])
    first, last = nodes[start[:-1]], nodes[start[1:] - 1]
    owner = stack.owner[at[first, 0]]
    degree = np.asarray(graph.degrees, np.int64)
    inner = np.minimum(_DIRECTION_PX, size - 1)
    beyond = np.zeros(len(size))
    for end, before in ((first, nodes[start[:-1] + inner]), (last, nodes[start[1:] - 1 - inner])):
        tip = degree[end] == 1
        beyond[tip] += _way_out(stack.depth, at[end[tip]], at[before[tip]], spacing)
    length = _smooth_lengths(at[nodes], start, spacing)
    depth = stack.depth[tuple(at.T)]
    return _Branches(at, degree, depth, nodes, start, first, last, owner, length, beyond)


def _forward(chain: NDArray[np.integer[Any]]) -> Ints:
    """Turn a chain of pixels, so that a sum along it does not depend on where skan began."""
    inner = (chain[1], chain[-2]) if chain[0] == chain[-1] else (chain[0], chain[-1])
    return np.asarray(chain if inner[0] < inner[1] else chain[::-1], np.int64)


def _smooth_lengths(points: Ints, start: Ints, spacing: Floats) -> Floats:
    """Lengths of chains of pixels, each point averaged with its neighbours, ends held fixed."""
    size = np.diff(start)
    points = points - points[start[:-1]].repeat(size, axis=0)  # the same wherever an object lies
    chain = np.repeat(np.arange(len(size)), size)
    i = np.arange(len(points))
    reach = np.minimum(np.minimum(i - start[chain], start[chain + 1] - 1 - i), _SMOOTH_PX)
    total = np.concatenate([np.zeros((1, points.shape[1]), np.int64), points.cumsum(axis=0)])
    smooth = (total[i + reach + 1] - total[i - reach]) / (2 * reach + 1)[:, None]
    step = np.linalg.norm(np.diff(smooth, axis=0) * spacing, axis=1)
    within = chain[1:] == chain[:-1]
    total = np.bincount(chain[1:][within], step[within], minlength=len(size))
    return total.astype(np.float64)  # numpy counts nothing in integers


def _way_out(depth: Floats, tips: Ints, before: Ints, spacing: Floats) -> Floats:
    """Distance from end points, straight on from the points before them, to the background."""
    along = (tips - before) * spacing
    step = _RAY_STEP * spacing.min()
    move = along / np.linalg.norm(along, axis=1, keepdims=True) * step / spacing
    steps = np.zeros(len(tips))
    inside = np.arange(len(tips))
    while inside.size:
        steps[inside] += 1
        moved = np.floor(steps[inside, None] * move[inside] + 0.5).astype(np.int64)
        inside = inside[depth[tuple((tips[inside] + moved).T)] > 0]
    way: Floats = (steps - 0.5) * step
    return way


def _count(branches: _Branches, n: int) -> dict[str, NDArray[Any]]:
    """Branches, ends, junctions and loops of each object.

    A link between junctions that is shorter than the half width there is no branch: both are one
    junction. This also closes the triangles that skeletons have at junctions.
    """
    ends, index = np.unique([branches.first, branches.last], return_inverse=True)
    first, last = index.reshape(2, -1)
    tip = branches.degree[ends] == 1
    owner = np.zeros(len(ends), np.int64)
    owner[first] = owner[last] = branches.owner
    half_width = branches.depth[ends]
    short = branches.length < np.maximum(half_width[first], half_width[last])
    link = short & (branches.degree[ends] > 2)[first] & (branches.degree[ends] > 2)[last]
    merged = _components(first[link], last[link], len(ends))
    joined = np.unique(merged, return_index=True)[1]
    parts = np.unique(_components(first, last, len(ends)), return_index=True)[1]

    def per_object(which: NDArray[Any]) -> Ints:
        return np.bincount(owner[which], minlength=n)

    n_branches = np.bincount(branches.owner[~link], minlength=n)
    return {
        "n_branches": n_branches,
        "n_end_points": per_object(tip),
        "n_junctions": per_object(joined[branches.degree[ends[joined]] > 2]),
        "n_loops": n_branches - per_object(joined) + per_object(parts),
    }


def _components(a: Ints, b: Ints, n: int) -> NDArray[np.int32]:
    graph = csr_array((np.ones(len(a)), (a, b)), shape=(n, n))
    return csgraph.connected_components(graph, directed=False)[1]  # type: ignore[no-any-return]


def _lengths(branches: _Branches, n: int) -> dict[str, NDArray[Any]]:
    """Sum of the branches of each object, and the longest shortest way along them."""
    full = branches.length + branches.beyond
    ends, index = np.unique([branches.first, branches.last], return_inverse=True)
    first, last = index.reshape(2, -1)
    # The far point of a loop that comes back to its start lies half way round: a node of its own.
    ring = first == last
    last = np.where(ring, len(ends) + np.cumsum(ring) - 1, last)
    way = np.where(ring, full / 2, full)
    order = np.lexsort((way, last, first))
    pairs = np.stack([first, last])[:, order]
    shortest = order[np.append(True, (np.diff(pairs) != 0).any(axis=0))[: len(order)]]
    size = len(ends) + int(ring.sum())
    graph = csr_array((way[shortest], (first[shortest], last[shortest])), shape=(size, size))
    part = csgraph.connected_components(graph, directed=False)[1]
    owner = np.zeros(size, np.int64)
    owner[first] = owner[last] = branches.owner
    longest = np.zeros(n)
    source = np.unique(part, return_index=True)[1]
    # The farthest point from anywhere, then the farthest from that: all parts in one go, as each
    # has one source and so no shorter way to another.
    for _ in range(_SWEEPS if size else 0):
        away = csgraph.dijkstra(graph, directed=False, indices=source, min_only=True)
        farthest = np.lexsort((away, part))
        source = farthest[np.append(np.diff(part[farthest]) != 0, True)]
        np.maximum.at(longest, owner[source], away[source])
    total = np.bincount(branches.owner, full, n).astype(np.float64)
    return {"skeleton_length": total, "length": longest}


def _add_dots(found: dict[str, NDArray[Any]], stack: _Stack, spacing: Floats) -> None:
    """Add skeletons that are a single pixel: one branch, as long as the object is wide there."""
    at = np.nonzero(_neighbours(stack.skeleton) == 0)
    owner = stack.owner[at[0]]
    across = 2 * stack.depth[at] - spacing.min()  # depth is counted to a pixel's middle
    np.add.at(found["n_branches"], owner, 1)
    np.add.at(found["n_end_points"], owner, 2)
    np.add.at(found["skeleton_length"], owner, across)
    np.maximum.at(found["length"], owner, across)
