"""Which files lie below a folder, in natural order, and the words of their names. Opens none."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from unicodedata import normalize

from mitolume.errors import MitolumeError, shorten, some_names
from mitolume.io.formats import READERS, ZARR_FILES, natural_key

OUTLINE_ENDINGS = (".zip", ".roi", ".geojson")
# Pictures and volumes that people have and this program doesn't read.
_UNREAD = (
    ".npy", ".bmp", ".gif", ".webp", ".mrc", ".rec", ".dm3", ".dm4", ".h5", ".hdf5", ".nrrd",
    ".mha", ".nii", ".nii.gz", ".oib", ".oif", ".lsm", ".ims", ".vsi", ".svs", ".stk", ".avi",
    ".mp4",
)  # fmt: skip
_ENDINGS = sorted({*READERS, *OUTLINE_ENDINGS, *_UNREAD}, key=len, reverse=True)

# Words of several parts, written as one.
_TOGETHER = [
    (re.compile(pattern, re.IGNORECASE), whole)
    for pattern, whole in (
        (r"label[\s_.-]*free", "labelfree"),
        (r"bright[\s_.-]*field", "brightfield"),
        (r"phase[\s_.-]*contrast", "phasecontrast"),
        (r"(?<![^\W\d_])(mito|lyso)[\s_.-]*tracker", r"\1tracker"),
        (r"(?-i:CellMask)", "cellmask"),  # a dye
        (r"ground[\s_.-]+truth", "groundtruth"),
        (r"(?<![^\W\d_])(?:no|non|without)[\s_-]*(?:labels?|masks?)(?![^\W\d_])", "unlabelled"),
        (r"(?<!\d)(20\d\d)[-_.](\d\d)[-_.](\d\d)(?!\d)", r"\1\2\3"),  # a date
    )
]
# A well of a plate: "A01" (C01 and F01 may be a channel and a field), or Opera's "r01c02".
_WELL = r"(?:[ABDEGH](?:0[1-9]|1[0-2])|[A-P](?:0[1-9]|1\d|2[0-4])(?=_?(?:s|f|site|field)\d))"
_WORD = re.compile(
    rf"(?<![^\W_])(?P<well>{_WELL}(?![^\W_])|r\d\dc\d\d(?=f\d\d|[\W_]|$))"
    r"|(?P<text>[^\W\d_]+)(?P<number>\d+)?|(?P<bare>\d+)"
)
_CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^A-Z]+|[A-Z]+")


@dataclass(frozen=True)
class Word:
    """A word of a name with the number that follows it; a bare number has no text.

    ``text`` is in lower case; ``number`` keeps its leading zeros; ``shown`` is as it was written.
    """

    text: str
    number: str = ""
    shown: str = ""

    @property
    def key(self) -> tuple[str, int]:
        """What two spellings of the word share: case and leading zeros don't count."""
        return self.text, int(self.number) if self.number else -1


@dataclass(frozen=True)
class Found:
    """A file, or a folder that is one image (OME-Zarr), by its path below the listed folder."""

    folders: tuple[str, ...]
    name: str
    ending: str

    @property
    def path(self) -> str:
        """The path with slashes."""
        return "/".join((*self.folders, self.name))

    @property
    def stem(self) -> str:
        """The name without the ending of its format."""
        return self.name[: len(self.name) - len(self.ending)]

    @property
    def is_outline(self) -> bool:
        """Whether it holds outlines, not pixels."""
        return self.ending in OUTLINE_ENDINGS


@dataclass
class Notes:
    """What a person should know, many files of one kind in one line."""

    found: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, what: str, name: str) -> None:
        """Note a file under a heading."""
        self.found[what].append(name)

    def lines(self) -> list[str]:
        """Return a line for each heading: what, how many, and the first few names."""
        return [f"{what}: {len(names)} ({some_names(names)})" for what, names in self.found.items()]


@lru_cache(maxsize=65536)
def split_words(name: str) -> tuple[Word, ...]:
    """Split a name into words at signs, at digits and at capitals.

    Parameters
    ----------
    name
        A folder's name, or a file's without its ending.

    Returns
    -------
    tuple of Word
        In the order of the name.

    Examples
    --------
    >>> [word.shown for word in split_words("m008_dish2-imgLabels_Z03 7")]
    ['m008', 'dish2', 'img', 'Labels', 'Z03', '7']
    """
    name = normalize("NFC", name)  # macOS writes ä as a and two dots
    for pattern, whole in _TOGETHER:
        name = pattern.sub(whole, name)
    words = []
    for found in _WORD.finditer(name):
        text, number = found["text"] or "", found["number"] or found["bare"] or ""
        if found["well"]:
            words.append(Word(f"well {found['well'].lower()}", "", found["well"]))
            continue
        parts = _CAMEL.findall(text)
        words += [Word(part.lower(), "", part) for part in parts[:-1]]
        last = parts[-1] if parts else ""
        words.append(Word(last.lower(), number, last + number))
    return tuple(words)


def list_files(folder: Path, notes: Notes) -> list[Found]:
    """List what may be images, masks or outlines below a folder.

    Parameters
    ----------
    folder
        Searched with all folders in it; links are followed, each folder once.
    notes
        Told what was left out and why.

    Returns
    -------
    list of Found
        In natural order; those of a folder before those of the folders in it.

    Raises
    ------
    MitolumeError
        The folder is missing or can't be listed.
    """
    if not folder.exists():
        raise MitolumeError(f"{folder}: no such folder")
    if not folder.is_dir():
        raise MitolumeError(f"{folder} is a file; name the folder that holds the images")
    files: list[Found] = []
    seen: set[tuple[int, int]] = set()
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        parts = waiting.pop()
        try:
            here = folder.joinpath(*parts)
            status = here.stat()
            if (status.st_dev, status.st_ino) in seen and status.st_ino:
                continue  # a link back to a folder that was listed
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(here) as entries:
                named = {e.name: "folder" if e.is_dir() else "file" * e.is_file() for e in entries}
        except OSError as error:
            if not parts:
                raise MitolumeError(f"{folder} can't be listed: {shorten(error)}") from error
            notes.add("folders that can't be opened, left out", "/".join(parts))
            continue
        if parts and "run.json" in named:
            notes.add("folders with results of mitolume, left out", "/".join(parts))
        elif parts and any(name in named for name in ZARR_FILES):
            ending = next((e for e in (".ome.zarr", ".zarr") if parts[-1].lower().endswith(e)), "")
            files.append(Found(parts[:-1], parts[-1], ending))
        else:
            names = sorted((n for n in named if not n.startswith(".")), key=natural_key)
            waiting += [(*parts, name) for name in reversed(names) if named[name] == "folder"]
            for name in names:
                if named[name] == "file":
                    _take(Found(parts, name, _ending(name)), files, notes)
                elif not named[name]:
                    notes.add("links that lead nowhere, left out", "/".join((*parts, name)))
    return files


def _take(file: Found, files: list[Found], notes: Notes) -> None:
    """Keep a file, or note why not."""
    if set(file.path) & {"\r", "\n"} or not _is_text(file.path):
        notes.add("files whose names a table can't hold, left out (rename them)", ascii(file.path))
    elif file.ending in READERS or file.is_outline:
        files.append(file)
    elif file.ending == ".npy" and file.stem.lower().endswith("_seg"):
        notes.add(
            "cellpose _seg.npy files, which can't be read (in cellpose choose File > Save masks as "
            "PNG/tif, which writes NAME_cp_masks beside the image)",
            file.path,
        )
    elif file.ending:
        notes.add("files of kinds that can't be read (save them as OME-TIFF)", file.path)


def _ending(name: str) -> str:
    lower = name.lower()
    return next((ending for ending in _ENDINGS if lower.endswith(ending)), "")


def _is_text(path: str) -> bool:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:  # bytes that are no UTF-8
        return False
    return True
