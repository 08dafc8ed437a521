"""The geometry of tiles, as pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

Box = tuple[slice, slice]
Shape = tuple[int, int]


@dataclass(frozen=True)
class Tile:
    """What to read, which part of the answer is right, and where it goes.

    ``read`` and ``write`` are in the image, ``crop`` is in what was read. The ``write`` parts of
    all tiles cover the box that was asked for once.
    """

    read: Box
    crop: Box
    write: Box


def tiles(shape: Shape, core: int, halo: int, multiple: int, box: Box | None = None) -> list[Tile]:
    """Cut an image, or a box of it, into overlapping tiles.

    Tiles overlap by the halo; as it covers the network's receptive field, the part that is kept
    has seen all it would see in the whole image, and no blending across seams is needed.

    Parameters
    ----------
    shape
        (Y, X) of the image, multiples of ``multiple``.
    core
        Side of the part that a tile contributes, a multiple of ``multiple``; tiles are at most
        an eighth larger where this saves a tile.
    halo
        Margin read around it, a multiple of ``multiple``; cut at the image's edges.
    multiple
        The network's pooling grid. Origins lie on it, so that every pixel is pooled with the
        same neighbours as in the whole image.
    box
        The part to cover, on or off the grid; the whole image by default.

    Returns
    -------
    list of Tile
        Row by row.
    """
    rows, columns = (
        _spans(part, core, halo, multiple, size)
        for part, size in zip(box or whole(shape), shape, strict=True)
    )
    return [Tile(*zip(y, x, strict=True)) for y in rows for x in columns]


def _spans(
    part: slice, core: int, halo: int, multiple: int, size: int
) -> list[tuple[slice, slice, slice]]:
    """Cut one axis into spans of nearly one length: what to read, to keep of it, to write."""
    first = part.start // multiple
    length = math.ceil(part.stop / multiple) - first
    count = max(1, math.ceil(length * multiple / core - 1 / 8))
    if size <= core + 2 * halo:  # no more than any tile reads
        count = 1
    ends = [(first + number * length // count) * multiple for number in range(count + 1)]
    spans = []
    for start, stop in pairwise(ends):
        read = slice(max(start - halo, 0), min(stop + halo, size))
        write = slice(max(start, part.start), min(stop, part.stop))
        spans.append((read, shifted(write, -read.start), write))
    return spans


def around(box: Box, shape: Shape, halo: int, multiple: int) -> Box:
    """Return the window to read so that a box of an image is computed as in the whole image.

    It lies on the pooling grid of the image and of the turned image, so what is computed from the
    window alone, turned or not, is what the whole image gives.

    """
    y, x = (
        slice(
            max(part.start - halo, 0) // multiple * multiple,
            size - max(size - part.stop - halo, 0) // multiple * multiple,
        )
        for part, size in zip(box, shape, strict=True)
    )
    return y, x


def blocks(shape: Shape, side: int) -> list[Box]:
    """Cut an image into boxes that do not overlap, row by row.

    They begin on multiples of ``side``. What is left at the far edges makes a box of its own where
    it is at least half a side wide, else the last box is larger.
    """
    starts = [range(0, max(1, round(size / side)) * side, side) for size in shape]
    rows, columns = (
        [slice(a, b) for a, b in pairwise([*first, size])]
        for first, size in zip(starts, shape, strict=True)
    )
    return [(y, x) for y in rows for x in columns]


def block_side(shape: Shape, model_shape: Shape, core: int, chunk: int) -> int:
    """Return the side of the blocks in which a plane is predicted and written, in pixels.

    A block is one to four whole chunks of the output wide, so that no two blocks write into one
    chunk, and about 2 x 2 tiles of the network, so that little is computed twice where a plane of
    ``shape`` is resampled to ``model_shape``.
    """
    factor = max(new / old for old, new in zip(shape, model_shape, strict=True))
    return chunk * min(4, max(1, round(2 * core / factor / chunk)))


def whole(shape: Shape) -> Box:
    """Return the box of a whole image."""
    return slice(0, shape[0]), slice(0, shape[1])


def shifted(part: slice, by: int) -> slice:
    """Return a slice moved along its axis."""
    return slice(part.start + by, part.stop + by)


def grown(box: Box, margin: int, shape: Shape) -> Box:
    """Return a box with a margin on every side, cut at the image's edges."""
    y, x = (
        slice(max(part.start - margin, 0), min(part.stop + margin, size))
        for part, size in zip(box, shape, strict=True)
    )
    return y, x


def inside(box: Box, outer: Box) -> Box:
    """Return where a box lies in what was read of a larger one."""
    y, x = (shifted(part, -around.start) for part, around in zip(box, outer, strict=True))
    return y, x


def turned_box(box: Box, shape: Shape, turn: int) -> Box:
    """Return where a box of an image (Y, X) lies after one of the 8 flips and quarter turns.

    Turn 0 to 3 is that many quarter turns (`numpy.rot90`); 4 to 7 the same after swapping left and
    right.
    """
    (y, x), (height, width) = box, shape
    if turn >= 4:
        x = _mirrored(x, width)
    for _ in range(turn % 4):
        y, x, height, width = _mirrored(x, width), y, width, height
    return y, x


def _mirrored(part: slice, size: int) -> slice:
    return slice(size - part.stop, size - part.start)
