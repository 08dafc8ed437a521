"""Progress for a person: bars on a terminal, a line every ten seconds in a log file."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

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


class Whole:
    """A work of several bars: how much of it each is, by its title, in their order."""

    def __init__(self, units: Mapping[str, float], words: str = "left for the run") -> None:
        self._todo, self._words = dict(units), words
        self._done = self._seconds = 0.0

    def clock(self, title: str) -> Callable[[int, int], str]:
        """Begin a bar, what comes before it being done; return what says the time left of all."""
        own = self._todo.get(title, 0.0)
        for earlier in takewhile(lambda one: own and one != title, self._todo):
            self._todo[earlier] = 0.0
        last, before = time.monotonic(), -1

        def left(done: int, total: int) -> str:
            nonlocal last, before
            now, part = time.monotonic(), own / max(total, 1)
            self._done += part * (done - before) if before >= 0 else 0
            self._seconds += (now - last) * bool(own)
            if own:
                self._todo[title] = part * (total - done)
            last, before = now, done
            seconds = sum(self._todo.values()) * self._seconds / (self._done or math.inf)
            return f", about {time_left(seconds)} {self._words}" if seconds > 0 else ""

        return left


_whole: ContextVar[Whole | None] = ContextVar("whole", default=None)


@contextmanager
def part_of(whole: Whole) -> Iterator[None]:
    """Let all bars meanwhile say the time left of the whole work."""
    token = _whole.set(whole)
    try:
        yield
    finally:
        _whole.reset(token)


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
            TextColumn("{task.fields[left]}"),
            console=console,
        ) as bars:
            task, clock = bars.add_task(title, total=None, note="", left=""), _clock(title)
            yield lambda done, total, note="": bars.update(
                task, completed=done, total=total, note=note,
                left=clock(done, total).removeprefix(", "),
            )  # fmt: skip
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


def _clock(title: str) -> Callable[[int, int], str]:
    return (_whole.get() or Whole({title: 1.0}, "left")).clock(title)


def _lines(title: str) -> Advance:
    clock, started = _clock(title), time.monotonic()
    last = started

    def advance(done: int, total: int, note: str = "") -> None:
        nonlocal last
        left, now = clock(done, total), time.monotonic()
        if now - last >= 10.0 or (done == total and now - started > 2):
            last = now
            say(f"{title}: {done}/{total}{'  ' + note if note else ''}{left}")

    return advance
