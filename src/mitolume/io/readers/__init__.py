"""One module for each format; here what they share: lazy frames, statements, units."""

from __future__ import annotations

import math
import re
import unicodedata
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mitolume.errors import MitolumeError, some_names

# A pixel size outside this range is a default of the writing program (72 dpi, 1 inch), not a fact.
CREDIBLE_UM = (0.001, 5.0)
# OME's and ImageJ's symbols, and the names that OME-Zarr writes out; plurals by their singular.
_MICROMETRES = {
    "um": 1.0, "μm": 1.0, "micron": 1.0, "micrometer": 1.0, "micrometre": 1.0,
    "nm": 1e-3, "nanometer": 1e-3, "nanometre": 1e-3, "mm": 1e3, "millimeter": 1e3,
    "millimetre": 1e3, "cm": 1e4, "centimeter": 1e4, "centimetre": 1e4, "m": 1e6, "meter": 1e6,
    "metre": 1e6, "å": 1e-4, "angstrom": 1e-4, "pm": 1e-6, "picometer": 1e-6, "picometre": 1e-6,
    "in": 25_400.0, "inch": 25_400.0, "inche": 25_400.0,
}  # fmt: skip


def address(path: str | Path) -> str:
    """Return the address on the network that a path means, "" for a file of this machine.

    A path has one slash where an address has two.

    Raises
    ------
    MitolumeError
        A name or password stands in it: records and pages would show it.

    Examples
    --------
    >>> address(Path("https://example.org/a.zarr") / "0"), address("a.zarr")
    ('https://example.org/a.zarr/0', '')
    """
    scheme, slash, rest = re.sub(r"^.*?(?=(https?|s3):)", "", Path(path).as_posix()).partition(":/")
    if not slash or scheme not in ("http", "https", "s3"):
        return ""
    _, at, server = rest.partition("/")[0].rpartition("@")
    if at:
        host = server.partition(":")[0]
        raise MitolumeError(
            f"leave name and password out of the address at {host}, for records and pages show it; "
            "buckets are read without, and for other servers write them into ~/.netrc: "
            f"machine {host} login NAME password PASSWORD"
        )
    return f"{scheme}://{rest}"


def micrometres(unit: Any) -> float | None:
    r"""Return how many µm a unit of length is, however it is spelled; None where it is none.

    Examples
    --------
    >>> [micrometres(unit) for unit in ("\\u00B5m", "\\u03BCm", "Microns", "pixel")]
    [1.0, 1.0, 1.0, None]
    """
    # One letter for the two signs of micro; ImageJ escapes it. Mega and peta are no milli and pico.
    text = str(unit or "").strip()
    name = unicodedata.normalize("NFKC", re.sub(r"\\u(00b5|03bc)", "µ", text.lower()))
    if text in ("Mm", "Pm"):
        return None
    return _MICROMETRES.get(name, _MICROMETRES.get(name.removesuffix("s")))


def lengths(said: Mapping[str, tuple[Any, Any]]) -> tuple[dict[str, float], dict[str, float], bool]:
    """Sort what a file says of axes, a number and its unit each, as the first fields of `Stated`.

    Numbers may have a decimal comma and a sign, which only tells a direction; what is no number
    becomes NaN.
    """
    size: dict[str, float] = {}
    without: dict[str, float] = {}
    coarse = False
    for axis, (value, unit) in said.items():
        um = micrometres(unit)
        coarse |= um in (_MICROMETRES["cm"], _MICROMETRES["inch"])
        (without if um is None else size)[axis] = abs(as_number(value)) * (um or 1)
    return size, without, coarse


def as_number(value: Any) -> float:
    """Return the number that a file states, perhaps with a decimal comma; NaN where it is none."""
    try:
        return float(str(value).replace(",", "."))
    except ValueError:
        return float("nan")


@dataclass(frozen=True)
class Opened:
    """A file's scenes: their names, and a function that opens one by its number.

    The arrays are lazy, have the axes that the file has (letters out of ``T C Z Y X``, ``S`` for
    colours, and others), and no coordinate but perhaps ``C``. ``files`` are all that hold the
    pixels, where these are more than one. ``require_whole`` refuses a scene that lacks planes which
    are empty ones in a mask; those that are in no image are refused by ``array``.
    """

    names: Sequence[str]
    array: Callable[[int], xr.DataArray]
    files: tuple[Path, ...] = ()
    require_whole: Callable[[int], None] = lambda scene: None


@dataclass(frozen=True)
class Stated:
    """What a file states of one scene.

    ``size_um`` maps those of ``Z Y X`` that have a length unit to micrometres, ``without_unit``
    the others to bare numbers; ``coarse`` tells that an axis was given per inch or cm, as for
    prints; ``channels`` are names, ``light`` is what is said of each
    channel's light ("Transmitted Brightfield", "emission 512 nm"), both empty where nothing is;
    ``guessed`` are axes that the file doesn't name; ``inverted`` tells that 0 is white; ``fault``
    tells that the metadata couldn't be read.
    """

    size_um: dict[str, float] = field(default_factory=dict)
    without_unit: dict[str, float] = field(default_factory=dict)
    coarse: bool = False
    channels: tuple[str, ...] = ()
    light: tuple[str, ...] = ()
    guessed: str = ""
    inverted: bool = False
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
    # Named, or dask would pickle the function for a name: most of the time that opening takes.
    name = f"frames-{uuid.uuid4().hex}"
    pixels = da.map_blocks(block, chunks=chunks, dtype=dtype, meta=blank, name=name)
    return xr.DataArray(pixels, dims=list(sizes))


def require_planes(
    path: Path, sizes: Mapping[str, int], is_there: Iterable[bool], fix: str = ""
) -> None:
    """Refuse an image whose file lacks planes, and name them: libraries read them as zeros.

    ``sizes`` has the length of each axis, ``is_there`` tells of each plane, in the order of those
    that are not ``S Y X``, slowest first.
    """
    outer = {axis: size for axis, size in sizes.items() if axis not in "SYX"}
    count, missing = math.prod(outer.values()), list[str]()
    for place, there in zip(np.ndindex(*outer.values()), is_there, strict=True):
        if there:
            continue
        at = zip(outer, place, strict=True)
        missing.append(" ".join(f"{axis} {i}" for axis, i in at if outer[axis] > 1))
        if len(missing) == _MOST_MISSING:
            break
    if missing:
        where = f" ({some_names(missing)}, from 0)" if count > 1 else ""
        more = " or more" * (len(missing) == _MOST_MISSING)
        raise MitolumeError(
            f"{path}: its metadata name {count} planes, but {len(missing)}{more} "
            f"{'are' if len(missing) > 1 else 'is'} missing{where}: {fix or _STOPPED}"
        )


_MOST_MISSING = 10_000  # planes that are looked for in vain
_STOPPED = (
    "perhaps it was not recorded to its end; to use the others, keep them in Fiji (Image > Stacks "
    "> Tools > Make Substack) and save them as a new file"
)


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
