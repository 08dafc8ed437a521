"""Which module reads which file, and what one holds: its scenes, and what it states of them.

Reads no pixels.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import os
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from mitolume.errors import MitolumeError, in_words, shorten, some_names
from mitolume.io.readers import Opened, Stated, address
from mitolume.text import quoted

READERS: dict[str, str] = {
    # file name ending -> module of io/readers; the longest ending that fits is taken
    ".ome.tif": "tiff",
    ".ome.tiff": "tiff",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".ome.zarr": "ome_zarr",
    ".zarr": "ome_zarr",
    ".ozx": "ozx",
    ".nd2": "nikon",
    ".lif": "leica",
    ".czi": "zeiss",
    ".png": "pictures",
    ".jpg": "pictures",
    ".jpeg": "pictures",
}

# How files begin, what they are then, the reader that opens them, and what to do.
_KINDS = (
    (b"version https://git-lfs", "a pointer of Git LFS", "", "fetch the file by `git lfs pull`"),
    (b"<!doctype html", "a web page", "", "download the file itself"),
    (b"<html", "a web page", "", "download the file itself"),
    (b"\x89png", "a PNG picture", "pictures", "rename it"),
    (b"\xff\xd8\xff", "a JPEG picture", "pictures", "rename it"),
    (b"ii*\0", "a TIFF", "tiff", "rename it"),
    (b"mm\0*", "a TIFF", "tiff", "rename it"),
    (b"gif8", "a GIF picture", "", "export it as TIFF"),
    (b"pk\3\4", "a ZIP archive", "ozx", "unpack it"),
    (b"\x1f\x8b", "a gzip archive", "", "unpack it"),
    (b"\x89hdf", "HDF5, as ilastik, Imaris and Python write it", "", "export it as TIFF"),
)

SHEET = "sheet.png"  # of `label` and `simulate`
ZARR_FILES = ("zarr.json", ".zgroup", ".zattrs")


def reader_of(path: Path) -> str:
    """Return the module that reads a file of this name, or the folder of an OME-Zarr."""
    if url := address(path):
        if READERS.get(_ending(path), "ome_zarr") in ("ome_zarr", "ozx"):
            return "ome_zarr"
        raise MitolumeError(f"{url}: over the network OME-Zarr is read; download this file")
    if is_zarr(path):
        return "ome_zarr"
    if ending := _ending(path):
        return READERS[ending]
    if not path.exists():
        raise MitolumeError(f"{path}: no such file")
    raise MitolumeError(f"{path}: files of this kind are not read; known are {', '.join(READERS)}")


def is_zarr(path: Path) -> bool:
    """Tell whether a folder is a Zarr; a field of a plate has no ending."""
    return path.is_dir() and any((path / name).exists() for name in ZARR_FILES)


def is_folder(path: Path) -> bool:
    """Tell a folder of files from an OME-Zarr, which is a folder to the file system only."""
    return path.is_dir() and not (is_zarr(path) or READERS.get(_ending(path)) == "ome_zarr")


def bare_name(path: Path) -> str:
    """Return a file's name without the ending of its format: ``a.b.ome.tif`` is ``a.b``."""
    ending = _ending(path)
    name = path.name[: -len(ending)] if ending else path.stem
    return unicodedata.normalize("NFC", name)  # a Mac writes accents as signs of their own


def told_apart(
    files: Iterable[Path], last: Callable[[Path], str] = bare_name, joint: str = "_"
) -> dict[Path, str]:
    """Name files, those of one name after as many of their folders as tell them apart.

    ``last`` is a file's own name. Files of one folder keep it, also where it is the same, or the
    same but for case.

    Examples
    --------
    >>> list(told_apart([Path("a/1/x.tif"), Path("b/1/x.tif"), Path("y.tif")]).values())
    ['a_1_x', 'b_1_x', 'y']
    """
    ways = {file: (*Path(os.path.abspath(file)).parent.parts[1:], last(file)) for file in files}
    folded = {file: tuple(part.casefold() for part in way) for file, way in ways.items()}
    depth = dict.fromkeys(folded.values(), 1)
    while True:
        names = {way: joint.join(way[-n:]) for way, n in depth.items()}
        times = Counter(names.values())
        alike = [way for way in depth if times[names[way]] > 1]
        if not any(depth[way] < len(way) for way in alike):
            return {file: joint.join(way[-depth[folded[file]] :]) for file, way in ways.items()}
        for way in alike:
            depth[way] += 1


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


def files_of(folder: Path) -> list[Path]:
    """List what lies in a folder in natural order: not what is hidden, and no contact sheet."""
    found = sorted(folder.iterdir(), key=lambda path: natural_key(path.name))
    return [path for path in found if not path.name.startswith(".") and path.name != SHEET]


def by_name(files: Iterable[Path], name_of: Callable[[Path], str] = bare_name) -> dict[str, Path]:
    """Return files by names, of which no two may be the same."""
    found: dict[str, Path] = {}
    for file in files:
        other = found.setdefault(name_of(file), file)
        if other is not file:
            raise MitolumeError(f"{other} and {file} have the same name")
    return found


class _Complaints(logging.Handler):
    """Collects what tifffile logs where it should raise: a cut file gives fewer planes."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        signs = ("invalid page offset", "invalid value offset", "failed to reshape",
                 "missing required tags", "contains no pages", "read_ndtiff_index")  # fmt: skip
        if any(sign in record.getMessage() for sign in signs):
            self.found.append("it ends before what it announces")


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


_SMALL = 1_000_000  # bytes, which hardly any compression unpacks to 2 GB


@contextmanager
def decoding(path: str | Path) -> Iterator[list[str]]:
    """Be `quiet`, and say of a file that it is damaged where its decoder raises an error."""
    with quiet() as complaints:
        try:
            yield complaints
        except MitolumeError:
            raise
        except MemoryError as error:
            if Path(path).is_file() and Path(path).stat().st_size < _SMALL:
                raise damaged(path, "it claims more than it can hold") from error
            raise
        except Exception as error:  # a decoder may raise anything on a damaged file
            if url := address(path):
                raise MitolumeError(
                    f"{url} can't be read over the network ({type(error).__name__}: "
                    f"{shorten(error)}); check address and connection, and repeat the command"
                ) from error
            if missing := isinstance(error, FileNotFoundError) and error.filename:
                raise MitolumeError(f"{path} can't be read: {missing} is not there") from error
            raise damaged(path, in_words(error)) from error


def open_scenes(path: Path) -> tuple[Opened, list[str]]:
    """Open the scenes of a file, or of the folder of an OME-Zarr, without reading pixels.

    All names of scenes are different. The complaints are what tifffile logged that means a damaged
    file.
    """
    if is_folder(path):
        raise MitolumeError(f"{path} is a folder; name the image files in it")
    reader = _reader(path)
    if not path.is_dir() and not address(path):
        require_file(path)
        _require_content(path)
    with decoding(path) as complaints:
        opened = reader.open_file(path)
    if not opened.names:
        raise damaged(path, "it holds no image")
    # Positions of a microscope often share a name; they get a number.
    seen: Counter[str] = Counter()
    names = []
    given = [name.strip() or f"scene {number}" for number, name in enumerate(opened.names)]
    for name in given:
        seen[name] += 1
        names.append(f"{name} ({seen[name]})" if given.count(name) > 1 else name)
    return replace(opened, names=names), complaints


def whole_images(files: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """Leave out the files that are parts of an image which another one of them opens as a whole.

    Also returned is a sentence that counts them. Only TIFFs are opened, and one that can't be is
    kept.
    """
    kept: list[Path] = []
    parts: list[Path] = []
    taken: set[str] = set()
    for file in files:
        if os.path.realpath(file) in taken:
            parts.append(file)
            continue
        kept.append(file)
        with suppress(MitolumeError):
            if reader_of(file) == "tiff":
                taken |= {os.path.realpath(part) for part in open_scenes(file)[0].files}
    notice = (
        f"{len(kept) + len(parts)} files found, {len(kept)} used, which open the others as parts "
        f"of the same images: {some_names(parts)}"
    )
    return kept, [notice] if parts else []


def stated(path: Path, scene: int = 0) -> Stated:
    """Return what a file states of a scene: pixel size, channels. Believes all of it."""
    with quiet():
        try:
            return _reader(path).stated(path, scene)  # type: ignore[no-any-return]
        except MitolumeError:
            raise
        except Exception as error:  # pixels may be sound where what is written of them isn't
            return Stated(fault=in_words(error))


def require_file(path: Path, what: str = "file") -> None:
    """Refuse a path where no file is to be read from, before it is opened.

    Raises
    ------
    MitolumeError
        It is not there, a folder, empty, or a pipe or a device, which would be waited for; or no
        table could hold its name.
    """
    if (name := str(path)) != name.encode(errors="replace").decode():
        raise MitolumeError(f"{name!a} is not UTF-8 text; rename the file or folder")
    if path.is_dir():
        hint = f"; for --fields draft one: mitolume fields {quoted(path)} --out fields.csv"
        hint *= what in ("recipe", "table of fields")
        raise MitolumeError(f"{path} is a folder, but a {what} is needed here{hint}")
    if path.is_symlink() and not path.exists():
        raise MitolumeError(f"{path} is a link that leads nowhere (to {os.readlink(path)})")
    if not path.exists():
        raise MitolumeError(f"{path}: no such {what}")
    if not path.is_file():
        raise MitolumeError(f"{path} is no regular file, but a pipe or a device")
    if path.stat().st_size == 0:
        raise MitolumeError(f"{path} is empty (0 bytes); copy it again")


def read_json(path: Path) -> Any:
    """Read a JSON file; a ValueError is raised also where it is nested too deeply."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise ValueError("it is no file")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def existing(path: Path) -> Path:
    """Return the path, or that of the one file whose name looks the same but is encoded otherwise.

    A Mac writes an accent as a sign of its own.
    """
    # pathlib raises an error where a name is too long
    if os.path.exists(path) or not os.path.isdir(path.parent):
        return path
    spelled = _spellings(path.parent, path.parent.stat().st_mtime_ns)
    same = spelled.get(unicodedata.normalize("NFC", path.name), ())
    return same[0] if len(same) == 1 else path


@lru_cache(maxsize=16)
def _spellings(folder: Path, modified_ns: int) -> dict[str, list[Path]]:
    """List a folder once for all files of a table that are looked for in it."""
    found: dict[str, list[Path]] = {}
    for path in folder.iterdir():
        found.setdefault(unicodedata.normalize("NFC", path.name), []).append(path)
    return found


def _require_content(path: Path) -> None:
    """Refuse a file that begins as one of another kind than its name says."""
    reader, ending = reader_of(path), _ending(path).rpartition(".")[2].upper()
    with path.open("rb") as file:
        start = file.read(24)
    for begin, what, opens, fix in _KINDS:
        if start.lstrip().lower().startswith(begin) and reader != opens:
            raise MitolumeError(f"{path} is called {ending}, but is {what}; {fix}")
    if reader == "tiff" and start[:2] not in (b"II", b"MM"):
        text = "".join(filter(str.isprintable, start.decode("ascii", "ignore"))) or start.hex(" ")
        raise MitolumeError(
            f"{path} is not a TIFF: it begins with {text!r}; download or export it again"
        )


def damaged(path: str | Path, why: str) -> MitolumeError:
    """Return the error that a file can't be decoded."""
    or_save = "" if os.path.isdir(path) else ", or open and save it in Fiji"  # an OME-Zarr
    return MitolumeError(
        f"{path} can't be read ({why}); it may be truncated or damaged: copy it again{or_save}"
    )


def _reader(path: Path) -> Any:
    return importlib.import_module(f"mitolume.io.readers.{reader_of(path)}")


def sha256(path: Path) -> str:
    """Hash a file, or the names and contents of a folder's files: an OME-Zarr is a folder.

    Of what lies on the network, only the address.
    """
    if url := address(path):
        return hashlib.sha256(url.encode()).hexdigest()
    if not path.is_dir() and not path.is_file():
        require_file(path)
    if path.is_dir():
        digest = hashlib.sha256()
        for inner in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(f"{inner.relative_to(path).as_posix()} {sha256(inner)}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
