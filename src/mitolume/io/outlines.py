"""Outlines of objects to pixels and back.

An outline is made of rings of corners (x, y) in pixels. Pixel (0, 0) spans 0 to 1 on both axes, as
in ImageJ and QuPath. What lies within an odd number of rings is inside: a ring in a ring is a hole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mitolume.errors import MitolumeError, Note, rank_of

Ring = np.ndarray[Any, np.dtype[np.float64]]  # (corners, 2): x, y
Inside = np.ndarray[Any, np.dtype[np.bool_]]
Labels = np.ndarray[Any, np.dtype[np.integer[Any]]]

_TIE = 1e-8  # ImageJ's: a pixel centre on an edge falls to the same side in spite of rounding


@dataclass(frozen=True, eq=False)
class Outline:
    """One drawn object.

    ``z`` and ``t`` are the plane and time point it lies on, from 0, None for all; ``unsure`` says
    that it marks what nobody can tell; ``number`` is its object number, where it has one.
    """

    name: str
    rings: tuple[Ring, ...]
    z: int | None = None
    t: int | None = None
    unsure: bool = False
    number: int | None = None


def fill(rings: Sequence[Ring], shape: tuple[int, int]) -> tuple[tuple[slice, slice], Inside]:
    """Find the pixels whose centre is inside, as ImageJ's PolygonFiller does.

    A centre exactly on an edge is inside where that is a right or an upper one.

    Parameters
    ----------
    rings
        The outline; what lies beyond the image is cut off.
    shape
        Y and X of the image.

    Returns
    -------
    window, inside
        Where the outline's box lies in the image; (Y, X) bool of that size.

    Examples
    --------
    >>> window, inside = fill([np.array([[1.0, 1], [4, 1], [4, 3], [1, 3]])], (5, 5))
    >>> window, int(inside.sum())
    ((slice(1, 3, None), slice(1, 4, None)), 6)
    """
    begin = np.concatenate(rings).astype(np.float64)
    end = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings]).astype(np.float64)
    limits = np.array([shape[1], shape[0]])
    left, top = np.clip(np.floor(begin.min(axis=0)), 0, limits).astype(int)
    right, bottom = np.clip(np.ceil(begin.max(axis=0)), 0, limits).astype(int)
    upwards = begin[:, 1] > end[:, 1]
    begin[upwards], end[upwards] = end[upwards], begin[upwards]
    first, last = (np.clip(np.ceil(e[:, 1] - 0.5), top, bottom).astype(int) for e in (begin, end))
    crossed = last - first  # rows whose centre each edge crosses
    edge = np.repeat(np.arange(len(begin)), crossed)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(crossed) - crossed, crossed) + first[edge]
    (x, y), (dx, dy) = begin[edge].T, (end - begin)[edge].T
    column = np.floor(x + (row + 0.5 - y) * (dx / dy) + 0.5 + _TIE)
    column = np.clip(column, left, right).astype(int)
    height, width = int(bottom - top), int(right - left)
    crossings = np.bincount(
        (row - top) * (width + 1) + column - left, minlength=height * (width + 1)
    ).reshape(height, width + 1)
    inside = np.cumsum(crossings, axis=1)[:, :width] % 2 == 1
    return (slice(int(top), int(bottom)), slice(int(left), int(right))), inside


def draw(numbered: Iterable[tuple[int, Outline]], shape: tuple[int, int]) -> Labels:
    """Paint outlines with their numbers, (Y, X) int32: where two overlap, the smaller one shows.

    Of two of one size the later one does, and unsure ones (-1) cover all others.
    """
    labels = np.zeros(shape, np.int32)
    filled = [(number, *fill(outline.rings, shape)) for number, outline in numbered]
    for number, window, inside in sorted(filled, key=lambda one: (one[0] < 0, -one[2].sum())):
        labels[window][inside] = number
    return labels


@dataclass(frozen=True, eq=False)
class PlacedOutlines:
    """Outlines on the planes of an image: ``shape`` is Z, Y and X of their mask."""

    outlines: tuple[Outline, ...]
    shape: tuple[int, int, int]
    notices: tuple[str, ...]

    def numbers(self) -> list[int]:
        """Return a number for each outline, 0 if unsure.

        The numbers that `mitolume` wrote into a file join the planes of an object. Others count
        from 1; so do those of a file in which outlines were copied, and their numbers repeat.
        """
        own = [(outline.z, outline.number) for outline in self.outlines if not outline.unsure]
        is_ours = all(number for _, number in own) and len(set(own)) == len(own)
        numbers = iter([number or 0 for _, number in own] if is_ours else range(1, len(own) + 1))
        return [0 if outline.unsure else next(numbers) for outline in self.outlines]

    def on_plane(self, z: int) -> list[tuple[int, Outline]]:
        """Return the outlines of a plane, each with its number, -1 if unsure."""
        pairs = zip(self.numbers(), self.outlines, strict=True)
        return [(number or -1, outline) for number, outline in pairs if outline.z in (None, z)]

    @cached_property
    def hidden(self) -> tuple[set[int], set[int], set[int]]:
        """Numbers whose outlines have no pixel; whose pixels others take all, or 2 % and more."""
        own, shown = Counter[int](), Counter[int]()
        for z in range(self.shape[0]):
            here = self.on_plane(z)
            for number, outline in here:
                own[number] += int(fill(outline.rings, self.shape[1:])[1].sum())
            numbers, counts = np.unique(draw(here, self.shape[1:]), return_counts=True)
            shown.update(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))
        del own[-1]
        return (
            {n for n in own if not own[n]},
            {n for n in own if own[n] and not shown[n]},
            {n for n in own if 0 < shown[n] < 0.98 * own[n]},
        )


def place(
    outlines: Sequence[Outline], notices: Sequence[str], size: tuple[int, int, int, int], path: Path
) -> PlacedOutlines:
    """Put the outlines of a file on the planes of an image of size T, Z, Y, X.

    Raises
    ------
    MitolumeError
        There are none, or one lies outside the image or on a plane that the image hasn't.
    """
    frames, depth, height, width = size
    if not outlines:
        raise MitolumeError(
            f"{path} outlines no object" + "".join(f" ({notice})" for notice in notices)
        )
    if frames > 1:
        raise MitolumeError(
            f"the image of {path} has {frames} time points; save the one that was outlined"
        )
    outlines = _on_planes(outlines, depth, path)
    if cut := _cut_off(outlines, (height, width), path):
        notices = [
            *notices,
            f"{cut} of {len(outlines)} outlines stick out of the image, and are cut",
        ]
    planes = depth if any(outline.z is not None for outline in outlines) else 1
    said = tuple(Note(f"{path.name}: {one}", rank_of(one)) for one in notices)
    return PlacedOutlines(tuple(outlines), (planes, height, width), said)


def _on_planes(outlines: Sequence[Outline], depth: int, path: Path) -> list[Outline]:
    planes = {outline.z for outline in outlines} - {None}
    times = {outline.t for outline in outlines} - {None}
    if depth > 1 and len(times) > 1 and planes <= {0}:
        # A stack saved without axis names: Fiji took its planes for time points.
        outlines, planes, times = [replace(o, z=o.t) for o in outlines], times, set()
    for found, most, what in ((times, 1, "time point"), (planes, depth, "z-plane")):
        numbers = sorted(number + 1 for number in found if number is not None)
        if (most == 1 and len(found) > 1) or (most > 1 and numbers and numbers[-1] > most):
            shown = ", ".join(map(str, numbers[:5])) + (" and more" if len(numbers) > 5 else "")
            raise MitolumeError(
                f"outlines in {path} lie on {what}s {shown} (from 1), but the image has {most}; "
                "name the image they were drawn on, or take their planes away (Fiji, ROI "
                "Manager: More >> Remove Positions; or Rename, where names are 0009-0034-0034)"
            )
    return [replace(o, z=o.z if depth > 1 else None, t=None) for o in outlines]


def _cut_off(outlines: Sequence[Outline], shape: tuple[int, int], path: Path) -> int:
    """Count outlines that reach beyond the image by more than a pixel, or refuse one beyond it."""
    outside, cut = [], 0
    for outline in outlines:
        corners = np.concatenate(outline.rings)
        (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
        cut += min(left, top) < -1 or right > shape[1] + 1 or bottom > shape[0] + 1
        if right <= 0 or bottom <= 0 or left >= shape[1] or top >= shape[0]:
            outside.append(f"{outline.name!r} (x {left:g} to {right:g}, y {top:g} to {bottom:g})")
    if outside:
        more = f" and {len(outside) - 1} more lie" if len(outside) > 1 else " lies"
        raise MitolumeError(
            f"{path}: outline {outside[0]}{more} outside the image, which is {shape[0]} x "
            f"{shape[1]} pixels (Y x X); it was drawn on another image, or on one of another size"
        )
    return cut


def trace(mask: Inside) -> list[Ring]:
    """Outline a mask, (Y, X) bool, along the edges of its pixels.

    There is a ring around each piece (8 neighbours), which meets itself where pixels touch at a
    corner only, and one around each of its holes.

    Examples
    --------
    >>> (outer,) = trace(np.array([[True, True], [True, False]]))
    >>> outer.astype(int).tolist()
    [[0, 0], [2, 0], [2, 1], [1, 1], [1, 2], [0, 2]]
    """
    # Along a row of pixel corners, the places where the outline turns pair up as its horizontal
    # edges, along a column as its vertical ones; the rings follow by taking these in turn.
    padded = np.pad(mask, 1)
    nw, ne = padded[:-1, :-1], padded[:-1, 1:]
    sw, se = padded[1:, :-1], padded[1:, 1:]
    # Two pixels that touch at a corner only: two turns there.
    touching = (nw == se) & (ne == sw) & (nw != ne)
    turns = (nw ^ ne ^ sw ^ se).astype(int) + 2 * touching
    y, x = np.nonzero(turns)
    repeats = turns[y, x]
    y, x = np.repeat(y, repeats), np.repeat(x, repeats)
    second = np.zeros(len(y), bool)
    second[1:] = (y[1:] == y[:-1]) & (x[1:] == x[:-1])
    # There each ring keeps round its background, so that both pixels are within one.
    order = np.lexsort((second ^ (touching & nw)[y, x], y, x))
    below = np.empty(len(y), int)
    below[order[0::2]], below[order[1::2]] = order[1::2], order[0::2]
    partner, seen, rings = below.tolist(), [False] * len(y), []
    for start in range(0, len(y), 2):
        node, ring = start, []
        while not seen[node]:
            ring += [node, node ^ 1]
            seen[node] = seen[node ^ 1] = True
            node = partner[node ^ 1]
        if ring:
            rings.append(np.column_stack([x[ring], y[ring]]).astype(np.float64))
    return rings
