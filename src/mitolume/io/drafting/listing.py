"""Which files lie below a folder, in the order a person counts. Opens none, knows no roles."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from mitolume.errors import MitolumeError, shorten
from mitolume.io.formats import READERS

ROI_ENDINGS = (".zip", ".roi", ".geojson")
# Pictures and volumes that people have and this program doesn't read.
_UNREAD = (
    ".npy", ".bmp", ".gif", ".webp", ".mrc", ".rec", ".dm3", ".dm4", ".h5", ".hdf5", ".nrrd",
    ".mha", ".mhd", ".nii", ".nii.gz", ".oib", ".oif", ".lsm", ".ims", ".vsi", ".svs", ".dv",
    ".stk", ".tf8", ".btf", ".qptiff", ".avi", ".mp4",
)  # fmt: skip
_ENDINGS = sorted({*READERS, *ROI_ENDINGS, *_UNREAD}, key=len, reverse=True)
_ZARR_FILES = ("zarr.json", ".zgroup", ".zattrs")
_EXAMPLES = 3


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
    def is_roi(self) -> bool:
        """Whether it holds outlines, not pixels."""
        return self.ending in ROI_ENDINGS


@dataclass
class Notes:
    """What a person should know, many files of one kind in one line."""

    found: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, what: str, name: str) -> None:
        """Note a file under a heading."""
        self.found[what].append(name)

    def lines(self) -> list[str]:
        """Return a line for each heading: what, how many, and the first few names."""
        return [f"{what}: {len(names)} ({few(names)})" for what, names in self.found.items()]


def few(names: list[str]) -> str:
    """Join the first few names and say how many more there are.

    Examples
    --------
    >>> few(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    more = f" and {len(names) - _EXAMPLES} more" if len(names) > _EXAMPLES else ""
    return ", ".join(names[:_EXAMPLES]) + more


def natural(text: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts f2 before f10.

    Examples
    --------
    >>> sorted(["f10", "f2", "F1"], key=natural)
    ['F1', 'f2', 'f10']
    """
    parts = re.split(r"(\d+)", text.lower())
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts if p]


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
            continue
        if parts and any(name in named for name in _ZARR_FILES):
            ending = next((e for e in (".ome.zarr", ".zarr") if parts[-1].lower().endswith(e)), "")
            files.append(Found(parts[:-1], parts[-1], ending))
            continue
        names = [name for name in sorted(named, key=natural) if not name.startswith(".")]
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
    elif file.ending in READERS or file.is_roi:
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
