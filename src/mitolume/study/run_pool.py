"""Runs computed here one after the other, side by side, or on a dask cluster, by the same code."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import count
from pathlib import Path

from mitolume.errors import DamagedError, MitolumeError, shorten
from mitolume.progress import Advance, progress_bar, say
from mitolume.runs.recipe import Recipe


def compute_runs(
    runs: Mapping[Path, Recipe], *, jobs: int = 1, scheduler: str | None = None, quiet: bool = False
) -> Iterator[tuple[Path, str]]:
    """Compute runs; one that fails doesn't stop the others.

    Parameters
    ----------
    runs
        The folder and the recipe of each; what is there of it is gone on with.
    jobs
        How many at a time on this machine, which share its processors.
    scheduler
        ``tcp://HOST:PORT`` of a dask scheduler whose workers compute them instead. A run whose
        worker dies goes on at another one from its last epoch.
    quiet
        Show no progress.

    Yields
    ------
    pathlib.Path, str
        Each folder when its run has ended, and the sentence in which it failed, or "".

    Raises
    ------
    MitolumeError
        The cluster can't be reached or used, or is lost.
    """
    if not runs:
        return
    if scheduler is None and jobs <= 1:
        for number, (place, recipe) in enumerate(runs.items(), 1):
            say(f"run {number} of {len(runs)}: {place.name}", quiet=quiet)
            yield place, compute_run(recipe, place, quiet=quiet)
        return
    with progress_bar("runs", quiet=quiet) as advance:
        yield from _side_by_side(runs, jobs, scheduler, advance)


def compute_run(
    recipe: Recipe, place: Path, *, threads: int | None = None, quiet: bool = True
) -> str:
    """Begin a run or go on with it, in this process.

    Parameters
    ----------
    recipe, place
        What to do, and where.
    threads
        How many the network may use; as many as there are processors by default.
    quiet
        Show no progress.

    Returns
    -------
    str
        "" or the sentence in which it failed.
    """
    import torch

    from mitolume.runs.folder import Run
    from mitolume.runs.run import compute_run as compute

    if threads is not None:
        torch.set_num_threads(threads)
    began_before = Run(place).is_begun
    try:
        try:
            compute(recipe, place, go_on=True, quiet=quiet)
        except DamagedError:
            if not began_before:
                raise
            _put_aside(place)
            compute(recipe, place, quiet=quiet)
    except MitolumeError as error:
        return str(error)
    except Exception as error:  # one run must not end a study of days
        return f"unexpected {type(error).__name__}: {shorten(error)}"
    return ""


def _put_aside(place: Path) -> None:
    """Rename the folder of a damaged run, so that it can be repeated."""
    names = (place.with_name(f"{place.name}.broken-{number}") for number in count(1))
    place.rename(next(name for name in names if not name.exists()))


def _side_by_side(
    runs: Mapping[Path, Recipe], jobs: int, scheduler: str | None, advance: Advance
) -> Iterator[tuple[Path, str]]:
    from mitolume.parallel import run_side_by_side

    threads = None if scheduler else max(1, (os.cpu_count() or 1) // jobs)
    task = partial(compute_run, threads=threads)
    tasks = {place: (task, recipe, place.absolute()) for place, recipe in runs.items()}
    tables = sorted({recipe.fields.absolute() for recipe in runs.values()})
    study = next(iter(runs)).parents[1].absolute()
    advance(0, len(tasks))
    computed = run_side_by_side(
        tasks, processes=jobs, scheduler=scheduler, inputs=tables, out=study
    )
    for done, (place, result) in enumerate(computed, 1):
        advance(done, len(tasks), place.name)
        if isinstance(result, BaseException):
            result = f"its worker failed ({type(result).__name__}: {shorten(result)})"
        yield place, result
