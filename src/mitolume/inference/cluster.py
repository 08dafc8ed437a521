"""Prediction on a dask cluster: more than one machine, one file system. Knows no training.

Results do not travel: a worker opens the image itself and writes where the others write.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from distributed import Client, Future
from distributed.scheduler import KilledWorker

from mitolume.errors import MitolumeError, shorten
from mitolume.inference import worker
from mitolume.inference.files import Ended, new_folders
from mitolume.inference.jobs import Job, open_image
from mitolume.inference.predictor import Predictor
from mitolume.inference.worker import Model
from mitolume.io.write import write_text
from mitolume.models.bundle import versions

_PATIENCE = 10  # seconds in which a scheduler and a worker must answer
_LONELY = 60  # seconds that a cluster may be without workers
_SPLIT = 16  # blocks from which an image is shared among workers


class _LostError(MitolumeError):
    """The cluster is gone, for this image and all others."""


def predict_on_cluster(
    address: str,
    predictor: Predictor,
    jobs: Sequence[Job],
    out: Path,
    progress: Callable[..., None],
) -> Iterator[Ended]:
    """Predict images on the workers of a dask scheduler.

    Large images are shared among the workers block by block, small ones go to a worker each.
    Work of a worker that dies is done by another.

    Parameters
    ----------
    address
        ``tcp://HOST:PORT`` of the scheduler.
    predictor
        The model, as `load` returned it.
    jobs
        The images.
    out
        Where results go; every worker must see this folder, the images and the model.
    progress
        Called with blocks done, blocks there are, and the file's name.

    Yields
    ------
    Ended
        Each image when it is done.

    Raises
    ------
    MitolumeError
        The cluster can't be reached or used, or is lost.
    """
    if predictor.bundle is None:
        raise MitolumeError("only a model that was loaded from a folder works on a cluster")
    bundle = predictor.bundle.absolute()
    stamp = max(path.stat().st_mtime_ns for path in bundle.iterdir())
    model = Model(bundle, stamp, predictor.average_flips, predictor.core)
    own = {_absolute(job): job for job in jobs}
    with _connected(address) as client:
        _check_workers(client, [bundle, *(job.file for job in own)], out.absolute())
        work = _Work(client, model, list(own), progress)
        for ended in work.all():
            yield replace(ended, job=own[ended.job])


class _Work:
    """What is sent to the cluster, and how much of it is done."""

    def __init__(
        self, client: Client, model: Model, jobs: Sequence[Job], progress: Callable[..., None]
    ) -> None:
        self._client, self._model, self._progress = client, model, progress
        self._counts = {job: len(job.planes) * len(job.boxes(model.core)) for job in jobs}
        self._done = 0
        self._advance(0, "")

    def all(self) -> Iterator[Ended]:
        """Predict the small images first, side by side, then one large one after the other."""
        shared = [j for j in self._counts if j.by_pieces and self._counts[j] >= _SPLIT]
        yield from self._small([job for job in self._counts if job not in shared])
        yield from map(self._large, shared)

    def _small(self, jobs: Sequence[Job]) -> Iterator[Ended]:
        """Predict images that go to one worker each."""
        tasks = {job: (worker.predict_image, self._model, job) for job in jobs}
        for job, result in self._results(tasks):
            self._advance(self._counts[job], job.file.name)
            if isinstance(result, BaseException):
                yield Ended(job, fault=_sentence(result, job))
            else:
                yield Ended(job, warning=result)

    def _large(self, job: Job) -> Ended:
        """Predict an image block by block."""
        try:
            image = open_image(job.file, job.scene, job.wanted)
            measures = {place: (worker.measure, self._model, job, place) for place in job.planes}
            measured = self._all_of(measures, job)
            greys = {place: grey for place, (grey, _) in measured.items()}
            with new_folders(job, image) as folders:
                boxes = {
                    (place, number): (
                        worker.predict_box, self._model, job, folders, place, box, greys[place],
                    )
                    for place in job.planes
                    for number, box in enumerate(job.boxes(self._model.core))
                }  # fmt: skip
                self._all_of(boxes, job, blocks=1)
                self._all_of({"finish": (worker.finish, job, folders)}, job)
        except _LostError:
            raise
        except MitolumeError as error:
            return Ended(job, fault=str(error))
        return Ended(job, warning="".join(warning for _, warning in measured.values()))

    def _all_of(
        self, tasks: dict[Any, tuple[Any, ...]], job: Job, blocks: int = 0
    ) -> dict[Any, Any]:
        """Run tasks of one image, each of which is some blocks; the first fault ends them all."""
        results = {}
        for name, result in self._results(tasks):
            if isinstance(result, BaseException):
                raise MitolumeError(_sentence(result, job))
            results[name] = result
            self._advance(blocks, job.file.name)
        return results

    def _results(self, tasks: dict[Any, tuple[Any, ...]]) -> Iterator[tuple[Any, Any]]:
        """Run tasks; yield each with its result, or the error it ended in, as they come."""
        finished: queue.Queue[Future] = queue.Queue()
        options = {"pure": False, "retries": 2}
        futures = {self._client.submit(*task, **options): name for name, task in tasks.items()}
        try:
            for future in futures:
                future.add_done_callback(finished.put)
            for _ in range(len(tasks)):
                future = self._next(finished)
                if future.cancelled():
                    raise _LostError("the scheduler was lost; start it, and go on with --resume")
                error = future.exception()
                yield futures[future], future.result() if error is None else error
        finally:
            self._client.cancel(list(futures))

    def _next(self, finished: queue.Queue[Future]) -> Future:
        """Wait for a task, as long as there is a worker that may finish it."""
        waited = 0
        while True:
            try:
                return finished.get(timeout=_PATIENCE)
            except queue.Empty:
                busy = self._client.scheduler_info()["workers"]
                waited = 0 if busy else waited + _PATIENCE
            if waited >= _LONELY:
                raise _LostError(
                    f"the scheduler has been without workers for {_LONELY} s; start some, and go "
                    "on with --resume"
                )

    def _advance(self, blocks: int, note: str) -> None:
        self._done += blocks
        self._progress(self._done, sum(self._counts.values()), note)


def _sentence(error: BaseException, job: Job) -> str:
    """Put into words why a task failed."""
    if isinstance(error, MitolumeError):
        return str(error)
    if isinstance(error, KilledWorker):
        return (
            f"{job.file}: every worker that tried it died, perhaps for lack of memory; choose a "
            "smaller --tile-size, or give the workers more"
        )
    return f"{job.file}: a worker failed ({type(error).__name__}: {shorten(error)})"


@contextmanager
def _connected(address: str) -> Iterator[Client]:
    """Connect to a scheduler that has workers."""
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


def _check_workers(client: Client, inputs: Sequence[Path], out: Path) -> None:
    """Refuse workers that would compute something else, or that see other files."""
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
                "images, model and --out must lie on a disk that all machines share, under the "
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


def _release(found: dict[str, str]) -> dict[str, str]:
    """Keep the versions that must agree; of Python the first two numbers."""
    python = ".".join(found["python"].split(".")[:2])
    return {"python": python, "mitolume": found["mitolume"], "torch": found["torch"]}


def _absolute(job: Job) -> Job:
    """Return a job that means the same in whatever folder a worker was started."""
    return replace(
        job,
        file=job.file.absolute(),
        mask=job.mask.absolute(),
        probability=job.probability.absolute() if job.probability else None,
        pictures=tuple((t, z, path.absolute()) for t, z, path in job.pictures),
    )


def _unseen(paths: Sequence[Path]) -> list[Path]:
    return [path for path in paths if not path.exists()]
