"""Which module reads which file, and what libraries log of damaged ones. Opens no file."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mitolume.errors import MitolumeError

READERS: dict[str, str] = {
    # file name ending -> module of io/readers; the longest ending that fits is taken
    ".ome.tif": "tiff",
    ".ome.tiff": "tiff",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".ome.zarr": "ome_zarr",
    ".zarr": "ome_zarr",
    ".nd2": "nikon",
    ".lif": "leica",
    ".czi": "zeiss",
    ".png": "pictures",
    ".jpg": "pictures",
    ".jpeg": "pictures",
}

_ZARR_FILES = ("zarr.json", ".zgroup", ".zattrs")


def reader_of(path: Path) -> str:
    """Return the module that reads a file of this name, or the folder of an OME-Zarr."""
    if path.is_dir() and any((path / name).exists() for name in _ZARR_FILES):
        return "ome_zarr"  # a field of a plate has no ending
    for ending in sorted(READERS, key=len, reverse=True):
        if path.name.lower().endswith(ending):
            return READERS[ending]
    if not path.exists():
        raise MitolumeError(f"{path}: no such file")
    raise MitolumeError(f"{path}: files of this kind are not read; known are {', '.join(READERS)}")


def bare_name(path: Path) -> str:
    """Return a file's name without the ending of its format: ``a.b.ome.tif`` is ``a.b``."""
    for ending in sorted(READERS, key=len, reverse=True):
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return path.stem


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return what to sort names by, so that numbers in them are in their order.

    Examples
    --------
    >>> sorted(["f10", "f2", "F1"], key=natural_key)
    ['F1', 'f2', 'f10']
    """
    parts = re.findall(r"\d+|\D+", name.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


class _Complaints(logging.Handler):
    """Collects what tifffile logs where it should raise: a cut file gives fewer planes."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        for sign in ("invalid page offset", "invalid value offset", "failed to reshape"):
            if sign in text:
                self.found.append(sign)


@contextmanager
def quiet() -> Iterator[list[str]]:
    """Keep other libraries' warnings off the user's screen; yield tifffile's complaints."""
    logger = logging.getLogger("tifffile")
    handler = _Complaints()
    propagate = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield handler.found
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
