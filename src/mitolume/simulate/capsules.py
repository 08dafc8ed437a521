"""Tubes and balls, and how they fill voxel grids: voxels at the surface in part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int_]
_CHUNK = 2**20  # voxels computed together: their intermediate arrays stay near the cache


@dataclass(frozen=True)
class Capsules:
    """Straight pieces with round ends, (N, 3) Z Y X in um; a ball starts where it ends.

    ``radii`` (N, 2) in um are those of start and end, ``owner`` (N,) numbers the object, from 0.
    """

    start: Array
    end: Array
    radii: Array
    owner: Index

    @classmethod
    def balls(cls, centres: Array, radius: Array) -> Capsules:
        """Balls, each an object of its own."""
        return cls(centres, centres, np.stack([radius, radius], axis=1), np.arange(len(centres)))


@dataclass(frozen=True)
class Filling:
    """Voxels that objects fill, wholly or in part, each once and in ascending order.

    ``voxel`` (N,) is the flat index into the grid, ``share`` (N,) float32 the part of it that is
    filled, ``owner`` (N,) the object that fills most of it, ``core`` (N,) whether the voxel's
    centre lies inside.
    """

    voxel: Index
    share: NDArray[np.float32]
    owner: Index
    core: NDArray[np.bool_]


def fill(
    capsules: Capsules, shape: tuple[int, int, int], voxel_um: tuple[float, float, float]
) -> Filling:
    """Fill capsules into a grid (Z, Y, X); what lies outside of it is cut off.

    The share of a voxel at signed depth s below the surface is 1/2 + s / w, within 0 and 1, with w
    the width of the voxel along the surface's normal. In a cylinder of radius r this fills
    pi (r**2 + w**2 / 12) instead of pi r**2, so r is first made smaller by that much. The origin of
    the capsules is the centre of pixel (0, 0), at the bottom of slice 0.
    """
    voxel, origin = np.array(voxel_um), np.array([voxel_um[0] / 2, 0.0, 0.0])
    reach = capsules.radii.max(axis=1, initial=0.0)[:, None] + voxel
    low = np.minimum(capsules.start, capsules.end) - reach - origin
    high = np.maximum(capsules.start, capsules.end) + reach - origin
    first = np.ceil(low / voxel).astype(int).clip(min=0)
    last = np.floor(high / voxel).astype(int).clip(max=np.array(shape) - 1)
    size = (last - first + 1).clip(min=0)
    volume = size.prod(axis=1)

    share = np.zeros(int(np.prod(shape)), np.float32)
    owner = np.full(share.shape, -1, np.int32)
    core = np.zeros(share.shape, bool)
    parts: list[tuple[Index, NDArray[np.float32], Index]] = []
    cuts = np.searchsorted(np.cumsum(volume), np.arange(_CHUNK, volume.sum(), _CHUNK))
    for piece in np.split(np.arange(len(volume)), cuts):
        who = np.repeat(piece, volume[piece])
        rank = np.arange(len(who)) - np.repeat(
            volume[piece].cumsum() - volume[piece], volume[piece]
        )
        rank, column = np.divmod(rank, size[who, 2])
        level, row = np.divmod(rank, size[who, 1])
        place = [n + first[who, axis] for axis, n in enumerate((level, row, column))]
        part, within = _shares(
            capsules, who, [n * voxel[i] + origin[i] for i, n in enumerate(place)], voxel
        )
        inside = part > 0
        flat = np.ravel_multi_index([n[inside] for n in place], shape)
        np.maximum.at(share, flat, part[inside])
        core[flat[within[inside]]] = True
        parts.append((flat, part[inside], capsules.owner[who[inside]]))
    for flat, part, number in parts:
        most = part >= share[flat]
        owner[flat[most]] = number[most]
    filled = np.flatnonzero(owner >= 0)
    return Filling(filled, share[filled], owner[filled].astype(int), core[filled])


def _shares(
    capsules: Capsules, who: Index, centre: list[Array], voxel: Array
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Share of each voxel that its capsule ``who`` fills, and whether its ``centre`` is inside."""
    start = capsules.start.astype(np.float32)[who].T
    along = (capsules.end - capsules.start).astype(np.float32)
    squared = np.maximum((along**2).sum(axis=1), 1e-12)[who]
    along = along[who].T
    offset = [c.astype(np.float32) - s for c, s in zip(centre, start, strict=True)]
    t = (sum(o * a for o, a in zip(offset, along, strict=True)) / squared).clip(0, 1)
    offset = [o - t * a for o, a in zip(offset, along, strict=True)]
    distance = np.sqrt(sum(o**2 for o in offset)) + np.float32(1e-6)
    width = sum(np.abs(o) * np.float32(v) for o, v in zip(offset, voxel, strict=True)) / distance
    width = np.maximum(width, np.float32(voxel.min()))  # a voxel on the centreline has no normal
    first, last = capsules.radii.astype(np.float32)[who].T
    radius = np.maximum(first + t * (last - first), 0)
    smaller = np.sqrt(np.maximum(radius**2 - width**2 / 12, 0))
    share: NDArray[np.float32] = ((smaller - distance) / width + 0.5).clip(0, 1)
    return share, distance <= radius
