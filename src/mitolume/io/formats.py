"""Which module reads which file, and what one holds: its scenes, and what it states of them.

Reads no pixels.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mitolume.errors import MitolumeError, shorten
from mitolume.io.readers import Opened, Stated

READERS: dict[str, str] = {
    # file name ending -> module of io/readers; the longest ending that fits is taken
    ".ome.tif": "tiff",
    ".ome.tiff": "tiff",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".ome.zarr": "ome_zarr",
    ".zarr": "ome_zarr",
    ".nd2": "bioio",
    ".lif": "leica",
    ".czi": "zeiss",
    ".png": "bioio",
    ".jpg": "bioio",
    ".jpeg": "bioio",
}

ZARR_FILES = ("zarr.json", ".zgroup", ".zattrs")


def reader_of(path: Path) -> str:
    """Return the module that reads a file of this name, or the folder of an OME-Zarr."""
    if path.is_dir() and any((path / name).exists() for name in ZARR_FILES):
        return "ome_zarr"  # a field of a plate has no ending
    if ending := _ending(path):
        return READERS[ending]
    if not path.exists():
        raise MitolumeError(f"{path}: no such file")
    raise MitolumeError(f"{path}: files of this kind are not read; known are {', '.join(READERS)}")


def bare_name(path: Path) -> str:
    """Return a file's name without the ending of its format: ``a.b.ome.tif`` is ``a.b``."""
    ending = _ending(path)
    return path.name[: -len(ending)] if ending else path.stem


def _ending(path: Path) -> str:
    fitting = [ending for ending in READERS if path.name.lower().endswith(ending)]
    return max(fitting, key=len, default="")


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
        signs = ("invalid page offset", "invalid value offset", "failed to reshape")
        self.found += [sign for sign in signs if sign in record.getMessage()]


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


@contextmanager
def decoding(path: str | Path) -> Iterator[list[str]]:
    """Be `quiet`, and say of a file that it is damaged where its decoder raises an error."""
    with quiet() as complaints:
        try:
            yield complaints
        except (MitolumeError, MemoryError):
            raise
        except Exception as error:  # a decoder may raise anything on a damaged file
            raise damaged(path, shorten(error.__cause__ or error.__context__ or error)) from error


def open_scenes(path: Path) -> tuple[Opened, list[str]]:
    """Open the scenes of a file, or of the folder of an OME-Zarr, without reading pixels.

    All names of scenes are different. The complaints are what tifffile logged that means a damaged
    file.
    """
    reader = _reader(path)
    if not path.exists():
        raise MitolumeError(f"{path}: no such file")
    if path.is_dir() and reader_of(path) != "ome_zarr":
        raise MitolumeError(f"{path} is a folder; name the image files in it")
    if not (path.is_dir() or path.is_file()):
        raise MitolumeError(f"{path} is not a regular file")  # a pipe would be waited for
    if path.is_file() and path.stat().st_size == 0:
        raise MitolumeError(f"{path} is empty (0 bytes); copy it again")
    with decoding(path) as complaints:
        opened = reader.open_file(path)
    if not opened.names:
        raise damaged(path, "it holds no image")
    # Positions of a microscope often share a name; they get a number.
    seen: Counter[str] = Counter()
    names = []
    for name in opened.names:
        seen[name] += 1
        names.append(f"{name} ({seen[name]})" if opened.names.count(name) > 1 else name)
    return Opened(names, opened.array), complaints


def stated(path: Path, scene: int = 0) -> Stated:
    """Return what a file states of a scene: pixel size, channels. Believes all of it."""
    with quiet():
        try:
            return _reader(path).stated(path, scene)  # type: ignore[no-any-return]
        except MitolumeError:
            raise
        except Exception as error:  # pixels may be sound where what is written of them isn't
            return Stated(fault=shorten(error))


def damaged(path: str | Path, why: str) -> MitolumeError:
    """Return the error that a file can't be decoded."""
    return MitolumeError(
        f"{path} can't be read ({why}); it may be truncated or damaged: copy it again, "
        "or open and save it in Fiji"
    )


def _reader(path: Path) -> Any:
    return importlib.import_module(f"mitolume.io.readers.{reader_of(path)}")


def sha256(path: Path) -> str:
    """Hash a file, or the names and contents of a folder's files: an OME-Zarr is a folder."""
    if path.is_dir():
        digest = hashlib.sha256()
        for inner in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(f"{inner.relative_to(path).as_posix()} {sha256(inner)}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
