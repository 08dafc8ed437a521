"""A file's scenes, and what it states of them, whatever its format. Reads no pixels."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from mitolume.errors import MitolumeError, shorten
from mitolume.io.formats import quiet, reader_of
from mitolume.io.readers.common import Stated


@dataclass(frozen=True)
class Scenes:
    """The names of a file's scenes, and a function that opens one by its number.

    ``complaints`` are what tifffile logged that means a damaged file.
    """

    names: tuple[str, ...]
    array: Callable[[int], xr.DataArray]
    complaints: list[str]


def open_scenes(path: Path) -> Scenes:
    """Open a file without reading its pixels.

    Parameters
    ----------
    path
        A file, or the folder of an OME-Zarr.

    Raises
    ------
    MitolumeError
        The file is missing, empty, damaged, of an unknown kind, or needs another package.
    """
    name = reader_of(path)
    if not path.exists():
        raise MitolumeError(f"{path}: no such file")
    if path.is_dir() and name != "ome_zarr":
        raise MitolumeError(f"{path} is a folder; name the image files in it")
    if path.is_file() and path.stat().st_size == 0:
        raise MitolumeError(f"{path} is empty (0 bytes); copy it again")
    with quiet() as complaints:
        try:
            opened = _reader(name).open_file(path)
        except MitolumeError:
            raise
        except Exception as error:  # a parser may raise anything on a damaged file
            raise damaged(path, error.__cause__ or error.__context__ or error) from error
    return Scenes(_unique(opened.names), opened.array, complaints)


def stated(path: Path, scene: int = 0) -> Stated:
    """Return what a file states of a scene: pixel size, channels, bits. Believes all of it.

    Parameters
    ----------
    path
        The file, or the folder of an OME-Zarr.
    scene
        Which scene, from 0.
    """
    with quiet():
        try:
            said: Stated = _reader(reader_of(path)).stated(path, scene)
        except MitolumeError:
            raise
        except Exception as error:  # pixels may be sound where what is written of them isn't
            said = Stated(fault=shorten(error))
    return said


def damaged(path: str | Path, reason: BaseException | str) -> MitolumeError:
    """Put into words that a file can't be decoded."""
    why = shorten(reason) if isinstance(reason, BaseException) else reason
    return MitolumeError(
        f"{path} can't be read ({why}); it may be truncated or damaged: copy it again, "
        "or open and save it in Fiji"
    )


def _reader(name: str) -> Any:
    return importlib.import_module(f"mitolume.io.readers.{name}")


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    """Give names that are there twice a number, as positions of a microscope often are."""
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(f"{name} ({seen[name]})" if list(names).count(name) > 1 else name)
    return tuple(unique)
