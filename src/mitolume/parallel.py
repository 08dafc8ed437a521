"""Work side by side: in processes of this machine, or on a dask cluster.

Knows no image and no model.
"""

from __future__ import annotations

import logging
import os
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distributed import Client, Future, LocalCluster

from mitolume.errors import MitolumeError, shorten
from mitolume.io.write import write_text
from mitolume.models.bundle import versions

_PATIENCE = 10  # seconds in which a scheduler and a worker must answer
_LONELY = 60  # seconds that a cluster may be without workers


class LostError(MitolumeError):
    """The cluster is gone, for this task and all others."""


def run_side_by_side(
    tasks: Mapping[Any, tuple[Any, ...]],
    *,
    processes: int = 1,
    scheduler: str | None = None,
    inputs: Sequence[Path] = (),
    out: Path | None = None,
) -> Iterator[tuple[Any, Any]]:
    """Run tasks in processes of this machine, or on the workers of a dask scheduler.

    A task whose process dies is done by another; one that fails is tried twice more.

    Parameters
    ----------
    tasks
        For each name a function of a module and its arguments; all are pickled.
    processes
        How many tasks at a time on this machine.
    scheduler
        ``tcp://HOST:PORT`` of a scheduler whose workers run the tasks instead.
    inputs, out
        Absolute paths of files and of the folder of results that all workers of the scheduler
        must see.

    Yields
    ------
    tuple
        A name with its task's result, or the error it ended in, as they come.

    Raises
    ------
    MitolumeError
        The cluster can't be reached or used, or is lost.
    """
    if not tasks:
        return
    opened = (
        _on_this_machine(min(processes, len(tasks))) if scheduler is None else connected(scheduler)
    )
    with opened as client:
        if scheduler is not None and out is not None:
            check_workers(client, inputs, out)
        yield from results(client, tasks)


@contextmanager
def _on_this_machine(processes: int) -> Iterator[Client]:
    cluster = LocalCluster(
        n_workers=processes,
        threads_per_worker=1,
        processes=True,
        memory_limit=None,
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
    )
    with cluster, Client(cluster, set_as_default=False) as client:
        yield client


@contextmanager
def connected(address: str) -> Iterator[Client]:
    """Connect to a scheduler that has workers.

    Parameters
    ----------
    address
        ``tcp://HOST:PORT``.

    Yields
    ------
    distributed.Client

    Raises
    ------
    MitolumeError
        Nobody answers, or there are no workers.
    """
    how = f"start `dask scheduler`, and `dask worker {address}` on each machine"
    try:
        client = Client(address, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise MitolumeError(
            f"no dask scheduler answers at {address} ({shorten(error)}); {how}"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_PATIENCE)
        except TimeoutError:
            raise MitolumeError(f"the scheduler at {address} has no workers; {how}") from None
        yield client


def check_workers(client: Client, inputs: Sequence[Path], out: Path) -> None:
    """Refuse workers that would compute something else, or that see other files.

    Parameters
    ----------
    client
        Connected.
    inputs
        Files that every worker must see.
    out
        The folder, already made, that every worker must see.

    Raises
    ------
    MitolumeError
        A worker has another version, or lacks a file.
    """
    here = _release(versions())
    for where, theirs in _from_all(client, versions).items():
        for name, version in _release(theirs).items():
            if version != here[name]:
                raise MitolumeError(
                    f"the worker {where} has {name} {version}, but here it is {here[name]}; "
                    "install the same on all machines"
                )
    probe = out / f".part-{os.getpid()}.probe"
    write_text(probe, "")
    try:
        unseen = _from_all(client, _unseen, [*inputs, probe])
    finally:
        probe.unlink()
    for where, paths in unseen.items():
        if paths:
            path = out if paths[0] == probe else paths[0]
            raise MitolumeError(
                f"the worker {where} does not see {path}; "
                "images, models and --out must lie on a disk that all machines share, under the "
                "same path"
            )


def _from_all(client: Client, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """Call a function on every worker that is alive."""
    answers = client.run(function, *arguments, on_error="return")
    for where, answer in answers.items():
        # A worker that has just died is no hindrance: the others do its work.
        if isinstance(answer, Exception) and not isinstance(answer, OSError):
            raise MitolumeError(
                f"the worker {where} can't run mitolume ({shorten(answer)}); install the same "
                "version on all machines"
            ) from answer
    return {w: answer for w, answer in answers.items() if not isinstance(answer, OSError)}


def results(client: Client, tasks: Mapping[Any, tuple[Any, ...]]) -> Iterator[tuple[Any, Any]]:
    """Run tasks on the workers.

    A task whose worker dies is done by another; one that fails is tried twice more.

    Parameters
    ----------
    client
        Connected.
    tasks
        For each name a function and its arguments.

    Yields
    ------
    tuple
        A name with its task's result, or the error it ended in, as they come.

    Raises
    ------
    LostError
        The scheduler is gone, or has had no workers for a minute.
    """
    finished: queue.Queue[Future] = queue.Queue()
    options = {"pure": False, "retries": 2}
    futures = {client.submit(*task, **options): name for name, task in tasks.items()}
    try:
        for future in futures:
            future.add_done_callback(finished.put)
        for _ in range(len(tasks)):
            future = _next(client, finished)
            if future.cancelled():
                raise LostError("the scheduler was lost; start it, and go on with --resume")
            error = future.exception()
            yield futures[future], future.result() if error is None else error
    finally:
        client.cancel(list(futures))


def _next(client: Client, finished: queue.Queue[Future]) -> Future:
    """Wait for a task, as long as there is a worker that may finish it."""
    waited = 0
    while True:
        try:
            return finished.get(timeout=_PATIENCE)
        except queue.Empty:
            busy = client.scheduler_info()["workers"]
            waited = 0 if busy else waited + _PATIENCE
        if waited >= _LONELY:
            raise LostError(
                f"the scheduler has been without workers for {_LONELY} s; start some, and go "
                "on with --resume"
            )


def _release(found: dict[str, str]) -> dict[str, str]:
    """Keep the versions that must agree; of Python the first two numbers."""
    python = ".".join(found["python"].split(".")[:2])
    return {"python": python, "mitolume": found["mitolume"], "torch": found["torch"]}


def _unseen(paths: Sequence[Path]) -> list[Path]:
    return [path for path in paths if not path.exists()]
