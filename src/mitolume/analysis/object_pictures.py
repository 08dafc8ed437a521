"""Outlines of objects in the colour of a measurement; figures to files.

Figures are made without pyplot, so that they need no screen and may be drawn in threads.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from mitolume.analysis.pictures import fit, to_8bit
from mitolume.errors import MitolumeError
from mitolume.io.write import atomic

# Even in lightness for every colour vision; its dark end would be lost on a grey image.
_COLOURS = ListedColormap(colormaps["viridis"](np.linspace(0.25, 1, 256)))
_NO_VALUE = (170, 170, 170)
_UNDER_OUTLINE = 0.6  # brightness of the image, so that the colours carry
_LONGER = 1600  # side of the picture, px
_OUTLINE_PX = (2, 4)  # width of an outline: at least, and where the image is much enlarged
_NARROWEST = 800  # of the figure, px, so that its title fits
_DPI = 150


def title_of(column: str) -> str:
    """Turn the name of a column into words.

    Examples
    --------
    >>> title_of("skeleton_length_um"), title_of("area_um2"), title_of("n_branches")
    ('skeleton length (µm)', 'area (µm²)', 'n branches')
    """
    units = {"um": "µm", "um2": "µm²", "um3": "µm³", "px": "px"}
    words, _, last = column.rpartition("_")
    if words and last in units:
        return f"{words.replace('_', ' ')} ({units[last]})"
    return column.replace("_", " ")


def counted(n: int, what: str) -> str:
    """Write a number and a noun, in the plural where it is due."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def outlines_by_value(
    image: NDArray[Any], labels: NDArray[np.integer[Any]], objects: pd.DataFrame, column: str
) -> Figure:
    """Draw the outlines of objects over the image, in the colour of a measurement.

    Parameters
    ----------
    image
        (Y, X), any numeric dtype.
    labels
        (Y, X), whole numbers, 0 background.
    objects
        Columns ``label`` and `column`. Objects that are not in it, and those without a value, are
        outlined in grey.
    column
        The measurement. Colours span its 2nd to 98th percentile.

    Returns
    -------
    matplotlib.figure.Figure
        With a colour bar, where there is a value; see `write_figure`.
    """
    if image.shape != labels.shape:
        raise ValueError(f"the labels have shape {labels.shape}, the image {image.shape}")
    grey = (fit(to_8bit(image), _LONGER, smooth=True) * _UNDER_OUTLINE).astype(np.uint8)
    rows, columns = (
        (np.arange(new) + 0.5) * old // new
        for new, old in zip(grey.shape, labels.shape, strict=True)
    )
    shown = labels[np.ix_(rows.astype(int), columns.astype(int))]
    values = objects[column].to_numpy(np.float64)
    values = np.where(np.isfinite(values), values, np.nan)
    norm = _robust_range(values)
    picture = grey[..., None].repeat(3, axis=2)
    edge = _inner_edge(shown, int(np.clip(len(grey) / max(len(labels), 1), *_OUTLINE_PX)))
    picture[edge] = _colours(shown[edge], objects["label"].to_numpy(), values, norm)

    height, width = grey.shape
    bar, top, rim = 220, 60, 20
    size = (max(width + bar + rim, _NARROWEST), height + top + rim)
    figure = Figure(figsize=(size[0] / _DPI, size[1] / _DPI), dpi=_DPI)
    axes = figure.add_axes((rim / size[0], rim / size[1], width / size[0], height / size[1]))
    axes.imshow(picture, interpolation="nearest", aspect="auto")  # pixel for pixel
    axes.set_axis_off()
    title = f"{title_of(column)}, {counted(len(objects), 'object')}"
    if np.isnan(values).any():
        title += f" ({int(np.isnan(values).sum())} without a value: grey)"
    figure.text(rim / size[0], 1 - top / 2 / size[1], title, va="center", parse_math=False)
    if np.isfinite(values).any():
        side = min(height, 900) / size[1]
        place = ((rim + width + 30) / size[0], (rim + height) / size[1] - side, 30 / size[0], side)
        figure.colorbar(ScalarMappable(norm, _COLOURS), figure.add_axes(place), extend="both")
    return figure


def write_figure(path: str | Path, figure: Figure) -> None:
    """Write a figure as PNG or SVG, whole or not at all.

    Parameters
    ----------
    path
        Ends in ``.png`` or ``.svg``.
    figure
        What `outlines_by_value` and `superplot` return.

    Raises
    ------
    MitolumeError
        The ending is another, or the place can't be written to.
    """
    ending = Path(path).suffix.lower()
    if ending not in (".png", ".svg"):
        raise MitolumeError(f"{path} must end in .png or .svg, the two kinds of picture there are")
    metadata = {"Date": None} if ending == ".svg" else {"Software": None}
    with atomic(path) as temporary, warnings.catch_warnings():
        # A name in letters that matplotlib's font lacks is no reason to stop.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(temporary, format=ending[1:], dpi=_DPI, metadata=metadata)


def _robust_range(values: NDArray[np.float64]) -> Normalize:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return Normalize(0, 1)
    low, high = np.percentile(finite, [2, 98])
    if high <= low:
        low, high = finite.min(), finite.max()
    return Normalize(low - 0.5, high + 0.5) if high <= low else Normalize(low, high)


def _inner_edge(labels: NDArray[np.integer[Any]], width: int) -> NDArray[np.bool_]:
    """Pixels of objects that are near another label; the frame of the image is no edge."""
    edge = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        highest = ndimage.maximum_filter1d(labels, 2 * width + 1, axis, mode="nearest")
        lowest = ndimage.minimum_filter1d(labels, 2 * width + 1, axis, mode="nearest")
        edge |= highest != lowest
    return np.asarray(edge & (labels != 0))


def _colours(
    at: NDArray[np.integer[Any]], ids: NDArray[Any], values: NDArray[np.float64], norm: Normalize
) -> NDArray[np.uint8]:
    """Colour of each label in `at`, shape (N, 3)."""
    known = pd.DataFrame(_COLOURS(norm(values), bytes=True)[:, :3], index=ids)[~np.isnan(values)]
    rows = known.index.get_indexer(pd.Index(at))
    return np.vstack([known.to_numpy(np.uint8), np.array([_NO_VALUE], np.uint8)])[rows]
