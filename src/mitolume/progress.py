"""Progress for a person: bars on a terminal, a line every ten seconds in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

# Called with the work done, the total, and a note such as the loss.
Advance = Callable[..., None]


@dataclass(frozen=True)
class Watcher:
    """Who follows the work of a thread from a window, and may ask a training to end.

    Attributes
    ----------
    advance
        Called with a title, the work done, the total and a note.
    enough
        Whether a training shall end now with what it has learnt.
    look
        Called after each epoch of a training with an image (Y, X) as the network sees it, and what
        it finds there at the best threshold.
    """

    advance: Callable[[str, int, int, str], None]
    enough: Callable[[], bool]
    look: Callable[[Any, Any], None] = lambda image, found: None


_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Let a watcher follow what this thread does meanwhile."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def watcher() -> Watcher | None:
    """Return who follows the work of this thread, if anyone does."""
    return _watcher.get()


def enough() -> bool:
    """Tell whether the watcher of this thread asks a training to end."""
    by = watcher()
    return by is not None and by.enough()


@contextmanager
def progress_bar(title: str, *, quiet: bool = False) -> Iterator[Advance]:
    """Show the progress of one piece of work, also to the `Watcher` of this thread.

    Parameters
    ----------
    title
        What is being done, such as "model 1".
    quiet
        Show nothing but to the watcher.

    Yields
    ------
    callable
        ``advance(done, total, note="")``.
    """
    watcher = _watcher.get()
    with _shown(title, quiet) as show:

        def advance(done: int, total: int, note: str = "") -> None:
            show(done, total, note)
            if watcher is not None:
                watcher.advance(title, done, total, note)

        yield advance


@contextmanager
def _shown(title: str, quiet: bool) -> Iterator[Advance]:
    console = Console(stderr=True)
    if quiet:
        yield lambda done, total, note="": None
    elif console.is_terminal:
        with Progress(
            TextColumn("{task.description:<26}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(compact=True),
            console=console,
        ) as bars:
            task = bars.add_task(title, total=None, note="")
            yield lambda done, total, note="": bars.update(
                task, completed=done, total=total, note=note
            )
    else:
        yield _lines(title)


def say(text: str, *, quiet: bool = False) -> None:
    """Print a line on standard error, so that it is not among the results."""
    if not quiet:
        print(text, file=sys.stderr, flush=True)


def time_left(seconds: float) -> str:
    """Write a duration as minutes and seconds, ``2:05`` or ``1:02:05``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _lines(title: str) -> Advance:
    started = last = time.monotonic()
    first_done: int | None = None

    def advance(done: int, total: int, note: str = "") -> None:
        nonlocal last, first_done
        now = time.monotonic()
        if first_done is None:
            first_done = done
        if now - last < 10.0 and not (done == total and now - started > 2):
            return
        last = now
        rate = (done - first_done) / max(now - started, 1e-9)
        left = f", {time_left((total - done) / rate)} left" if rate > 0 and done < total else ""
        say(f"{title}: {done}/{total}{'  ' + note if note else ''}{left}")

    return advance
