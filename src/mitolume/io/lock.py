"""One process in a folder at a time; a killed process leaves no lock behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mitolume.errors import MitolumeError, in_words
from mitolume.io.write import owning

LOCK = ".lock"  # stays when a folder is left: two processes might lock a deleted file and a new one
_MOMENT = 0.3  # s, longer than `is_locked` holds a lock


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
        lock = FileLock(path / LOCK, timeout=_MOMENT)
        lock.acquire(poll_interval=0.01)
    except Timeout:
        raise BusyError(f"{path} is being worked on by another mitolume; wait for it") from None
    except OSError as error:
        raise MitolumeError(f"{path} can't be written: {in_words(error)}") from error
    try:
        with owning(path):
            yield
    finally:
        refused = not existed and [file.name for file in path.iterdir()] == [LOCK]
        with suppress(OSError):  # Windows can't remove it before it is released, and does so itself
            if refused:
                (path / LOCK).unlink()
        lock.release()
        with suppress(OSError):
            if refused:
                path.rmdir()
            else:
                (path / LOCK).touch()


def is_locked(path: Path) -> bool:
    """Return whether a process works in a folder; one that begins to isn't kept from it."""
    if not (path / LOCK).exists():
        return False
    try:
        with FileLock(path / LOCK, timeout=_MOMENT).acquire(poll_interval=0.01):
            return False
    except Timeout:
        return True
    except OSError:  # a folder that may only be read
        return False
