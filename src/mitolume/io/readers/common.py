"""What the readers share: lazy frames, statements, units. Knows no format."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
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
    ``bits`` are the significant ones of a pixel; ``guessed`` are axes that the file doesn't name;
    ``fault`` tells that the metadata couldn't be read.
    """

    size_um: dict[str, float] = field(default_factory=dict)
    without_unit: dict[str, float] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    light: tuple[str, ...] = ()
    bits: int | None = None
    guessed: str = ""
    fault: str = ""


def chunked(
    load: Callable[[dict[str, int]], Any], sizes: dict[str, int], frame: Sequence[str], dtype: Any
) -> xr.DataArray:
    """Return a lazy array, one chunk a frame.

    Parameters
    ----------
    load
        Reads the frame at a place of the other axes.
    sizes
        All axes, slowest first.
    frame
        The axes that `load` returns.
    dtype
        Of the pixels.
    """
    import dask.array as da

    outer = [axis for axis in sizes if axis not in frame]
    shape = tuple(size for axis, size in sizes.items() if axis in frame)

    def block(block_id: tuple[int, ...]) -> np.ndarray[Any, np.dtype[Any]]:
        pixels = np.asarray(load(dict(zip(outer, block_id, strict=False))))
        return pixels.reshape((1,) * len(outer) + shape)

    chunks = [(1,) * sizes[axis] for axis in outer] + [(size,) for size in shape]
    blank = np.empty((0,) * len(chunks), dtype)
    pixels = da.map_blocks(block, chunks=tuple(chunks), dtype=dtype, meta=blank)
    inner = [axis for axis in sizes if axis in frame]
    return xr.DataArray(pixels, dims=[*outer, *inner])


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
