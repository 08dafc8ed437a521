"""Work side by side: in processes of this machine, or on a dask cluster.

Loads dask's scheduler only when it is needed.
"""

from __future__ import annotations

import logging
import os
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mitolume.errors import MitolumeError, shorten
from mitolume.io.write import write_text

if TYPE_CHECKING:
    from distributed import Client

_PATIENCE = 10  # seconds in which a scheduler and a worker must answer
_PLACE = "mitolume"  # a resource of dask: each worker has one
_LONELY = 60  # seconds that a cluster may be without workers
_GO_ON = "repeat the command (`predict` with --resume) to continue"
Tasks = Mapping[Any, tuple[Any, ...]]  # for each name a function of a module and its arguments


def run_side_by_side(
    tasks: Tasks,
    *,
    processes: int = 1,
    scheduler: str | None = None,
    inputs: Sequence[Path] = (),
    out: Path = Path("."),
) -> Iterator[tuple[Any, Any]]:
    """Run tasks in processes of this machine, or on the workers of a dask scheduler.

    Each task is, by its name, a function of a module and its arguments; all are pickled. One whose
    worker dies is done by another; one that fails is tried twice more. Yields each name with its
    task's result, or the error it ended in, as they come. A worker has one task at a time, however
    many threads it has: warnings, random state and the number of threads belong to its process.

    ``scheduler`` is ``tcp://HOST:PORT``. Its workers must see ``inputs`` and the folder ``out``
    under these absolute paths and have this version. Where they don't, where no scheduler answers,
    or where it has no workers for a minute, a `MitolumeError` says so.
    """
    if scheduler is not None and processes > 1:
        raise MitolumeError(
            "--jobs counts processes of this machine, but with --scheduler a cluster computes; "
            "leave one of them out"
        )
    if not tasks:
        return
    from distributed import Client, LocalCluster

    if scheduler is not None:
        with _connected(scheduler) as client:
            _check_versions(client)
            _check_files(client, inputs, out)
            client.register_plugin(_one_task_a_worker())
            yield from _results(client, tasks, resources={_PLACE: 1})
        return
    # Where this process is ended at once, what it leaves is cleared without a warning.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")
    cluster = LocalCluster(
        n_workers=min(processes, len(tasks)),
        threads_per_worker=1,
        processes=True,
        memory_limit=None,
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
    )
    with cluster, Client(cluster, set_as_default=False) as client:
        yield from _results(client, tasks)


def _connected(address: str) -> Client:
    """Connect to a scheduler that has workers."""
    from distributed import Client
    from distributed.comm.addressing import get_address_host_port, normalize_address

    try:  # a `Client` would end in a traceback, 20 s later
        get_address_host_port(normalize_address(address), strict=True)
    except ValueError:
        raise MitolumeError(
            f"--scheduler '{address}' is no address of a dask scheduler, such as "
            "tcp://10.0.0.5:8786, which it prints"
        ) from None
    how = f"start `dask scheduler`, and `dask worker {address}` on each machine"
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # sentences say it
    try:
        client = Client(address, timeout=_PATIENCE, set_as_default=False)
    except OSError as error:
        raise MitolumeError(
            f"no dask scheduler answers at {address} ({shorten(error)}); {how}"
        ) from error
    try:
        client.wait_for_workers(1, timeout=_PATIENCE)
    except TimeoutError:
        client.close()
        raise MitolumeError(f"the scheduler at {address} has no workers; {how}") from None
    return client


def _one_task_a_worker() -> Any:
    """Return a plugin that gives each worker, also one that comes later, a place for one task."""
    from distributed import WorkerPlugin

    class OneTask(WorkerPlugin):  # type: ignore[misc]
        name = _PLACE

        async def setup(self, worker: Any) -> None:
            await worker.set_resources(**{_PLACE: 1})

    return OneTask()


def _results(client: Client, tasks: Tasks, **options: Any) -> Iterator[tuple[Any, Any]]:
    finished: queue.Queue[Any] = queue.Queue()
    options |= {"pure": False, "retries": 2}
    futures = {client.submit(*task, **options): name for name, task in tasks.items()}
    try:
        for future in futures:
            future.add_done_callback(finished.put)
        for _ in range(len(tasks)):
            future = _next(client, finished)
            if future.cancelled():
                raise MitolumeError(f"the scheduler was lost; start it, and {_GO_ON}")
            error = future.exception()
            yield futures[future], future.result() if error is None else error
    finally:
        # Of a finished one, the scheduler would write a line all the same.
        client.cancel([future for future in futures if not future.done()])


def _next(client: Client, finished: queue.Queue[Any]) -> Any:
    """Wait for a task, as long as there is a worker that may finish it."""
    waited = 0
    while waited < _LONELY:
        try:
            return finished.get(timeout=_PATIENCE)
        except queue.Empty:
            waited = 0 if client.scheduler_info()["workers"] else waited + _PATIENCE
    raise MitolumeError(
        f"the scheduler has been without workers for {_LONELY} s; start some, and {_GO_ON}"
    )


def _check_versions(client: Client) -> None:
    """Refuse workers that would compute something else, or can't compute."""
    from mitolume.models.bundle import versions
    from mitolume.models.networks import find_device

    here = versions()
    for where, theirs in _from_all(client, versions).items():
        for name in ("python", "mitolume", "torch"):
            mine, other = here[name], theirs[name]
            if name == "python":  # 3.12.1 computes the same as 3.12.2
                mine, other = mine.rpartition(".")[0], other.rpartition(".")[0]
            if mine != other:
                raise MitolumeError(
                    f"the worker {where} has {name} {other}, but here it is {mine}; install the "
                    "same on all machines"
                )
    _from_all(client, find_device)  # what its MITOLUME_DEVICE names may be missing


def _check_files(client: Client, inputs: Sequence[Path], out: Path) -> None:
    """Refuse workers that do not see the inputs, or a file that is written to the results."""
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
                f"the worker {where} does not see {path}; images, models and --out must be on a "
                "disk that all machines see under the same path"
            )


def _unseen(paths: Sequence[Path]) -> list[Path]:
    return [path for path in paths if not path.exists()]


def _from_all(client: Client, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """Call a function on every worker that is alive."""
    answers = client.run(function, *arguments, on_error="return")
    for where, answer in answers.items():
        if isinstance(answer, MitolumeError):
            raise MitolumeError(f"the worker {where}: {answer}") from answer
        # A worker that has just died does no harm: the others do its work.
        if isinstance(answer, Exception) and not isinstance(answer, OSError):
            raise MitolumeError(
                f"the worker {where} can't run mitolume ({shorten(answer)}); install the same "
                "version on all machines"
            ) from answer
    return {w: answer for w, answer in answers.items() if not isinstance(answer, OSError)}
