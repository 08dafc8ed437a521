"""Progress for a person: bars on a terminal, a line every ten seconds in a log file."""

from __future__ import annotations

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

    def __init__(self, units: Mapping[str, float]) -> None:
        self.units = dict(units)
        self._done = self._seconds = 0.0

    def begin(self, title: str) -> None:
        """Count what comes before a bar as done, by whomever."""
        if title in self.units:
            for earlier in takewhile(lambda one: one != title, self.units):
                self.units[earlier] = 0

    def left(self, title: str, seconds: float, gain: float, rest: float) -> float:
        """Foretell seconds: ``gain`` is the share of a bar done in ``seconds``, ``rest`` to do."""
        own = self.units.get(title, 0.0)
        self._done += own * gain
        self._seconds += seconds * (own > 0)
        todo = sum(self.units.values()) - own * (1 - rest)
        if not rest:
            self.units[title] = 0
        return todo * self._seconds / self._done if self._done else 0.0


_whole: ContextVar[Whole | None] = ContextVar("whole", default=None)


@contextmanager
def part_of(whole: Whole) -> Iterator[None]:
    """Let all bars meanwhile say the time left of the whole work."""
    token = _whole.set(whole)
    try:
        yield
    finally:
        _whole.reset(token)


class _Clock:
    """Foretells how long a bar will take, or the whole work that it is a part of."""

    def __init__(self, title: str) -> None:
        self.title, self.whole = title, _whole.get()
        self.started = self.last = time.monotonic()
        self.first: int | None = None
        if self.whole:
            self.whole.begin(title)

    def left(self, done: int, total: int) -> str:
        """Say the time left as words to put behind a bar; "" where it is unknown."""
        now, before, words = time.monotonic(), self.last, "left"
        if self.first is None:
            self.first = self.done = done
        if self.whole and total:
            gain, rest = (done - self.done) / total, 1 - done / total
            seconds = self.whole.left(self.title, now - before, gain, rest)
            words = "left for the run"
        else:
            seconds = (total - done) * (now - self.started) / max(done - self.first, 1e-9)
            seconds *= done > self.first
        self.last, self.done = now, done
        return f", about {time_left(seconds)} {words}" if seconds > 0 else ""


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
            task, clock = bars.add_task(title, total=None, note="", left=""), _Clock(title)
            yield lambda done, total, note="": bars.update(
                task, completed=done, total=total, note=note,
                left=clock.left(done, total).removeprefix(", "),
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


def _lines(title: str) -> Advance:
    clock = _Clock(title)
    last = clock.started

    def advance(done: int, total: int, note: str = "") -> None:
        nonlocal last
        left = clock.left(done, total)
        now = clock.last
        if now - last < 10.0 and not (done == total and now - clock.started > 2):
            return
        last = now
        say(f"{title}: {done}/{total}{'  ' + note if note else ''}{left}")

    return advance
