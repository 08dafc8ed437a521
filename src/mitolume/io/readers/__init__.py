"""One module for each format; here what they share: lazy frames, statements, units."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mitolume.errors import MitolumeError

# OME's and ImageJ's symbols, and the names that OME-Zarr writes out.
MICROMETRES = {
    "um": 1.0, "µm": 1.0, "μm": 1.0, "\\u00b5m": 1.0, "micron": 1.0, "microns": 1.0,
    "micrometer": 1.0, "micrometre": 1.0, "nm": 1e-3, "nanometer": 1e-3, "nanometre": 1e-3,
    "mm": 1e3, "millimeter": 1e3, "millimetre": 1e3, "cm": 1e4, "centimeter": 1e4,
    "m": 1e6, "meter": 1e6, "metre": 1e6, "å": 1e-4, "angstrom": 1e-4, "pm": 1e-6,
    "picometer": 1e-6, "in": 25_400.0, "inch": 25_400.0, "inches": 25_400.0,
}  # fmt: skip


@dataclass(frozen=True)
class Opened:
    """A file's scenes: their names, and a function that opens one by its number.

    The arrays are lazy, have the axes that the file has (letters out of ``T C Z Y X``, ``S`` for
    colours, and others), and no coordinate but perhaps ``C``.
    """

    names: Sequence[str]
    array: Callable[[int], xr.DataArray]


@dataclass(frozen=True)
class Stated:
    """What a file states of one scene.

    ``size_um`` maps those of ``Z Y X`` that have a length unit to micrometres, ``without_unit``
    the others to bare numbers; ``channels`` are names, ``light`` is what is said of each
    channel's light ("Transmitted Brightfield", "emission 512 nm"), both empty where nothing is;
    ``guessed`` are axes that the file doesn't name; ``fault`` tells that the metadata couldn't be
    read.
    """

    size_um: dict[str, float] = field(default_factory=dict)
    without_unit: dict[str, float] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    light: tuple[str, ...] = ()
    guessed: str = ""
    fault: str = ""


def chunked(
    load: Callable[[dict[str, slice]], Any],
    sizes: Mapping[str, int],
    pieces: Mapping[str, int],
    dtype: Any,
) -> xr.DataArray:
    """Return a lazy array that reads one chunk at a time.

    Parameters
    ----------
    load
        Reads a chunk: is given its place along each axis, and returns pixels in the order of
        `sizes`, with or without axes of length 1.
    sizes
        The length of each axis in pixels, slowest first.
    pieces
        The length of a chunk along each axis in pixels; 1 along those that aren't named.
    dtype
        The type of the pixels.
    """
    import dask.array as da

    sides = {axis: min(pieces.get(axis, 1), size) for axis, size in sizes.items()}

    def block(block_id: tuple[int, ...]) -> np.ndarray[Any, np.dtype[Any]]:
        box = {
            axis: slice(number * side, min((number + 1) * side, sizes[axis]))
            for number, (axis, side) in zip(block_id, sides.items(), strict=True)
        }
        shape = [part.stop - part.start for part in box.values()]
        return np.asarray(load(box), dtype).reshape(shape)

    chunks = da.core.normalize_chunks(tuple(sides.values()), tuple(sizes.values()), dtype=dtype)
    blank = np.empty((0,) * len(sizes), dtype)
    pixels = da.map_blocks(block, chunks=chunks, dtype=dtype, meta=blank)
    return xr.DataArray(pixels, dims=list(sizes))


def light(words: Iterable[Any], emission_nm: Any) -> str:
    """Put into words what is stated of a channel's light; "" where nothing is."""
    texts = [str(getattr(word, "value", word) or "") for word in words]
    try:
        emission = float(emission_nm or 0)
    except ValueError:
        emission = 0.0
    if emission > 0:
        texts.append(f"emission {emission:g} nm")
    return ", ".join(dict.fromkeys(text for text in texts if text))


def extra(path: Path, name: str, brought_by: str) -> Any:
    """Import a library that not every installation has, or say how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MitolumeError(
            f"{path}: files of this kind need one more package; install it by "
            f'pip install "mitolume[{brought_by}]"'
        ) from error
