"""The geometry of tiles, as pure functions. Knows no pixel values and no network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

Box = tuple[slice, slice]


@dataclass(frozen=True)
class Tile:
    """What to read, which part of the answer is right, and where it goes.

    ``read`` and ``write`` are in the image, ``crop`` is in what was read. The ``write`` parts of
    all tiles cover the image once.
    """

    read: Box
    crop: Box
    write: Box


def tiles(shape: tuple[int, int], core: int, halo: int, multiple: int) -> Iterator[Tile]:
    """Cut an image into overlapping tiles.

    Tiles overlap by the halo; as it covers the network's receptive field, the part that is kept
    has seen all it would see in the whole image, and no blending across seams is needed.

    Parameters
    ----------
    shape
        (Y, X) of the image, multiples of ``multiple``.
    core
        Side of the part that a tile contributes, a multiple of ``multiple``.
    halo
        Margin read around it, a multiple of ``multiple``; cut at the image's edges.
    multiple
        The network's pooling grid. Origins lie on it, so that every pixel is pooled with the
        same neighbours as in the whole image.

    Yields
    ------
    Tile
        Row by row.
    """
    for name, value in {"core": core, "halo": halo, "height": shape[0], "width": shape[1]}.items():
        if value % multiple:
            raise ValueError(f"{name} is {value}, no multiple of {multiple}")
    if core <= 0:
        raise ValueError(f"core is {core}, but must be positive")
    for y in range(0, shape[0], core):
        for x in range(0, shape[1], core):
            read, crop, write = zip(
                *(
                    _span(start, core, halo, size)
                    for start, size in zip((y, x), shape, strict=True)
                ),
                strict=True,
            )
            yield Tile(read, crop, write)


def _span(start: int, core: int, halo: int, size: int) -> tuple[slice, slice, slice]:
    stop = min(start + core, size)
    first, last = max(start - halo, 0), min(stop + halo, size)
    return slice(first, last), slice(start - first, stop - first), slice(start, stop)
