"""One process in a folder at a time; a killed process leaves no lock behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mitolume.errors import MitolumeError, shorten
from mitolume.io.write import owning

LOCK = ".lock"


class BusyError(MitolumeError):
    """Another process works in the folder."""


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Keep a second process out of a folder; the system frees the lock of a killed one.

    Raises
    ------
    BusyError
        Another process works in the folder.
    """
    existed = path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        raise BusyError(f"{path} is being worked on by another mitolume; wait for it") from None
    except OSError as error:
        raise MitolumeError(f"{path} can't be written: {shorten(error)}") from error
    try:
        with owning(path):
            yield
    finally:
        lock.release()
        (path / LOCK).unlink(missing_ok=True)
        if not existed and not any(path.iterdir()):
            path.rmdir()  # refused before anything was written


def is_locked(path: Path) -> bool:
    """Return whether a process works in a folder."""
    if not (path / LOCK).exists():
        return False
    try:
        with FileLock(path / LOCK, timeout=0):
            return False
    except Timeout:
        return True
