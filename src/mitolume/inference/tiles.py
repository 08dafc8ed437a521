"""The geometry of tiles, as pure functions. Knows no pixel values and no network."""

from __future__ import annotations

import math
from collections.abc import Iterator
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


def tiles(
    shape: Shape,
    core: int,
    halo: int,
    multiple: int,
    box: Box | None = None,
    least: int = 0,
) -> Iterator[Tile]:
    """Cut an image, or a box of it, into overlapping tiles.

    Tiles overlap by the halo; as it covers the network's receptive field, the part that is kept
    has seen all it would see in the whole image, and no blending across seams is needed.

    Parameters
    ----------
    shape
        (Y, X) of the image, multiples of ``multiple``.
    core
        Side of the part that a tile contributes, a multiple of ``multiple``; tiles are at most
        an eighth larger, where this saves a tile.
    halo
        Margin read around it, a multiple of ``multiple``; cut at the image's edges.
    multiple
        The network's pooling grid. Origins lie on it, so that every pixel is pooled with the
        same neighbours as in the whole image.
    box
        What is asked for, on or off the grid; the whole image by default.
    least
        Side of the smallest part that is read, a multiple of ``multiple``; less only of an image
        that is smaller itself.

    Yields
    ------
    Tile
        Row by row.
    """
    named = {"core": core, "halo": halo, "height": shape[0], "width": shape[1], "least": least}
    for name, value in named.items():
        if value % multiple:
            raise ValueError(f"{name} is {value}, no multiple of {multiple}")
    if core <= 0:
        raise ValueError(f"core is {core}, but must be positive")
    rows, columns = (
        list(_spans(part, core, halo, multiple, size, least))
        for part, size in zip(box or whole(shape), shape, strict=True)
    )
    for y in rows:
        for x in columns:
            yield Tile(*zip(y, x, strict=True))


def _spans(
    part: slice, core: int, halo: int, multiple: int, size: int, least: int
) -> Iterator[tuple[slice, slice, slice]]:
    """Cut one axis into spans of nearly one length: what to read, to keep of it, to write."""
    first = part.start // multiple
    length = math.ceil(part.stop / multiple) - first
    count = max(1, math.ceil(length * multiple / core - 1 / 8))
    for number in range(count):
        start = (first + number * length // count) * multiple
        stop = (first + (number + 1) * length // count) * multiple
        last = min(stop + halo, size)
        begin = max(min(start - halo, last - least), 0)
        read = slice(begin, max(last, min(begin + least, size)))
        write = slice(max(start, part.start), min(stop, part.stop))
        if write.start < write.stop:
            yield read, shifted(write, -read.start), write


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
    """Return the side of the blocks in which a plane is predicted and written.

    A block is made of whole chunks of the output, so that no two blocks write into one chunk, and
    of about 2 x 2 tiles of the network, so that little is computed twice where a plane is
    resampled.

    Parameters
    ----------
    shape
        (Y, X) of the plane.
    model_shape
        (Y, X) of the plane at the model's pixel size.
    core
        Side of a tile's core, at the model's pixel size.
    chunk
        Side of a chunk of the output.

    Returns
    -------
    int
        One to four chunks.
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
    """Return where a box of an image lies after one of the 8 flips and quarter turns.

    Turn 0 to 3 is that many quarter turns (`numpy.rot90`); 4 to 7 the same after swapping left and
    right.

    Parameters
    ----------
    box
        In the image.
    shape
        (Y, X) of the image before turning.
    turn
        0 to 7.
    """
    (y, x), (height, width) = box, shape
    if turn >= 4:
        x = _mirrored(x, width)
    for _ in range(turn % 4):
        y, x, height, width = _mirrored(x, width), y, width, height
    return y, x


def turned_back_box(box: Box, shape: Shape, turn: int) -> Box:
    """Undo `turned_box`; ``shape`` is (Y, X) of the image before turning."""
    turned_shape = (shape[0], shape[1]) if turn % 2 == 0 else (shape[1], shape[0])
    y, x = turned_box(box, turned_shape, -turn % 4)
    return (y, _mirrored(x, shape[1])) if turn >= 4 else (y, x)


def _mirrored(part: slice, size: int) -> slice:
    return slice(size - part.stop, size - part.start)
