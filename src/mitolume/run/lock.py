"""One process in a run folder at a time. Knows nothing of what the process does there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mitolume.errors import MitolumeError, shorten

LOCK = ".lock"


class BusyError(MitolumeError):
    """Another process works in the folder."""


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Keep a second process out of a run folder; the system frees the lock of a killed one."""
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
        yield
    finally:
        lock.release()
        (path / LOCK).unlink(missing_ok=True)
        if not existed and not any(path.iterdir()):
            path.rmdir()  # refused before anything was written
