"""Which part of a large image to hold at once, so that each object is seen whole. No pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

Window = tuple[slice, ...]

_PIXELS = 2**24  # held at once: 64 MB of labels, and a few times that while measuring


def windows_of(
    boxes: pd.DataFrame, shape: Sequence[int], margin: Sequence[int], pixels: int = _PIXELS
) -> Iterator[tuple[Window, pd.DataFrame]]:
    """Group objects by place, and give for each group the window that holds them whole.

    An object belongs to the block of the image where its box begins. Windows overlap, groups do
    not: every object comes once. The objects of a group are those that may be measured in its
    window; others may reach into it.

    Parameters
    ----------
    boxes
        A row for each object, with columns ``z0 z1 y0 y1 x0 x1`` (half-open, px).
    shape
        (Z, Y, X) of the image.
    margin
        How far around the boxes to look, px along Z, Y and X; cut at the image's edges.
    pixels
        About how many pixels to hold at once. A single object may need more.

    Yields
    ------
    tuple of slice, pandas.DataFrame
        The window along Z, Y and X, and the rows of ``boxes`` in it.
    """
    if boxes.empty:
        return
    side = max(64, int((pixels / shape[0]) ** 0.5))
    block = (boxes["y0"] // side) * (shape[2] // side + 1) + boxes["x0"] // side
    large = (boxes["y1"] - boxes["y0"] > side) | (boxes["x1"] - boxes["x0"] > side)
    # An object larger than a block would make its whole group's window large: it goes alone.
    block = block.where(~large, -1 - np.arange(len(boxes)))
    for _, group in boxes.groupby(block.to_numpy(), sort=True):
        yield (
            tuple(
                slice(
                    max(int(group[f"{axis}0"].min()) - around, 0),
                    min(int(group[f"{axis}1"].max()) + around, size),
                )
                for axis, around, size in zip("zyx", margin, shape, strict=True)
            ),
            group,
        )
