"""Runs computed here one after the other, side by side, or on a dask cluster, by the same code."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from mitolume.errors import DamagedError, MitolumeError, shorten
from mitolume.progress import Advance, progress_bar, say
from mitolume.run.recipe import Recipe


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
    client = _on_this_machine(min(jobs, len(runs))) if scheduler is None else _on(scheduler, runs)
    with client as connection, progress_bar("runs", quiet=quiet) as advance:
        yield from _share(connection, runs, None if scheduler else jobs, advance)


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

    from mitolume.run.folder import RUN
    from mitolume.run.run import run

    if threads is not None:
        torch.set_num_threads(threads)
    began_before = (place / RUN).exists()
    try:
        try:
            run(recipe, place, resume=True, quiet=quiet)
        except DamagedError:
            if not began_before:
                raise
            _put_aside(place)
            run(recipe, place, quiet=quiet)
    except MitolumeError as error:
        return str(error)
    except Exception as error:  # one run must not end a study of days
        return f"unexpected {type(error).__name__}: {shorten(error)}"
    return ""


def _put_aside(place: Path) -> None:
    """Rename the folder of a damaged run, so that it can be repeated."""
    names = (place.with_name(f"{place.name}.broken-{number}") for number in count(1))
    place.rename(next(name for name in names if not name.exists()))


def _share(
    client: Any, runs: Mapping[Path, Recipe], jobs: int | None, advance: Advance
) -> Iterator[tuple[Path, str]]:
    from mitolume.parallel import results

    threads = max(1, (os.cpu_count() or 1) // jobs) if jobs else None
    task = partial(compute_run, threads=threads)
    tasks = {place: (task, recipe, place.absolute()) for place, recipe in runs.items()}
    advance(0, len(tasks))
    for done, (place, result) in enumerate(results(client, tasks), 1):
        advance(done, len(tasks), place.name)
        if isinstance(result, BaseException):
            result = f"its worker failed ({type(result).__name__}: {shorten(result)})"
        yield place, result


@contextmanager
def _on_this_machine(jobs: int) -> Iterator[Any]:
    from distributed import Client, LocalCluster

    cluster = LocalCluster(
        n_workers=jobs,
        threads_per_worker=1,
        processes=True,
        memory_limit=None,
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
    )
    with cluster, Client(cluster, set_as_default=False) as client:
        yield client


@contextmanager
def _on(scheduler: str, runs: Mapping[Path, Recipe]) -> Iterator[Any]:
    from mitolume.parallel import check_workers, connected

    with connected(scheduler) as client:
        tables = {recipe.fields.absolute() for recipe in runs.values()}
        check_workers(client, sorted(tables), next(iter(runs)).parents[1].absolute())
        yield client
