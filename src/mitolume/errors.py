"""The exception that a user is meant to read, and what its sentences are made of."""

from __future__ import annotations

import errno
import importlib
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


class MitolumeError(Exception):
    """A fault that the user can fix.

    Its text is complete: it names the file, the value and the fix. The command line prints it
    without a traceback and exits with status 1.
    """


# What `zipfile` raises where a zip is damaged, beside the errors of files: each kind of
# compression has its own.
DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError)


class Note(str):
    """What a user should know of a result, with its rank; other texts among notes are warnings."""

    rank: str

    def __new__(cls, text: str, rank: str = "Information") -> Note:
        """Rank a text: one of `RANKS`."""
        note = super().__new__(cls, text)
        note.rank = rank
        return note


RANKS = ("Errors", "Warnings", "Information")


def rank_of(note: str) -> str:
    """Return the rank of a note."""
    return str(getattr(note, "rank", RANKS[1]))


def ranked(notes: Iterable[str]) -> dict[str, list[str]]:
    """Divide notes by rank, the gravest first; without ranks that no note has.

    Examples
    --------
    >>> ranked(["look", Note("done"), Note("wrong", "Errors")])
    {'Errors': ['wrong'], 'Warnings': ['look'], 'Information': ['done']}
    """
    told = list(notes)
    found = {rank: [n for n in told if rank_of(n) == rank] for rank in RANKS}
    return {rank: own for rank, own in found.items() if own}


def shorten(error: BaseException, limit: int = 160) -> str:
    """Return the first line of another library's error, cut to `limit` characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = lines[0].rstrip(".")
    return text if len(text) <= limit else text[: limit - 1] + "…"


def in_words(error: BaseException) -> str:
    """Say what went wrong where a file was read; libraries' own words are for programmers."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnicodeError):
        return "it is no text"
    mark = getattr(error, "problem_mark", None)  # of YAML, from 0
    if line := mark.line + 1 if mark else getattr(error, "lineno", 0):
        return f"its line {line} is not what it should be"
    if named := re.search(r"COMPRESSION\.(\w+)", str(error)):
        return f"its compression, {named[1]}, is not known here"
    return "its content is not what its kind of file holds"


_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


def disk_fault(error: BaseException | None, where: object = None) -> str:
    """Return the sentence for an error that a full disk or a lack of rights led to, "" for others.

    ``where`` is what was written, as far as the error doesn't say.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return (
                f"{where or error.filename or 'a file'} can't be written: {error.strerror}; make "
                "room and repeat the command. Finished results are kept, and nothing half-written"
            )
        if isinstance(error, PermissionError) and error.filename and where is None:
            return f"{error.filename} can't be used: {error.strerror}"
        error = error.__cause__  # not __context__: a fault of the program may follow on one handled
    return ""


def some_names(names: Iterable[object], most: int = 3) -> str:
    """Return the first few of a list of names, and how many more there are.

    Parameters
    ----------
    names
        Texts or numbers, or paths, of which the last part is shown; twins count once.
    most
        How many are named, at least 1.

    Examples
    --------
    >>> some_names(["a", "b", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    texts = list(dict.fromkeys(n.name if isinstance(n, Path) else str(n) for n in names))
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def some_lines(lines: Sequence[str], most: int = 20) -> list[str]:
    """Return the first of many lines, and one that counts the others."""
    more = len(lines) - most
    return [*lines[:most], *[f"and {more} more"] * (more > 0)]


class TooLittleMemoryError(MitolumeError):
    """There is too little memory, of the machine or its graphics card."""


class DamagedError(MitolumeError):
    """A file that the program wrote itself can't be read; it can be computed again."""


class CollapsedError(MitolumeError):
    """Learning from unlabelled images has gone wrong, and was stopped; the first model stays."""


def extra(what: object, name: str, brought_by: str) -> Any:
    """Import a library that not every installation has, or say what needs it and how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MitolumeError(
            f"{what}: this needs {name.partition('.')[0]}, which is not installed; install it by "
            f'pip install "mitolume[{brought_by}]"'
        ) from error
