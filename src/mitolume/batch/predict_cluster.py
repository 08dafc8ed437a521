"""Prediction on a dask cluster: more than one machine, one file system. Knows no training.

Results do not travel: a worker opens the image itself and writes where the others write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from distributed import Client
from distributed.scheduler import KilledWorker

from mitolume.batch import predict_worker as worker
from mitolume.batch.jobs import Job, open_image
from mitolume.batch.predict import Ended, new_folders
from mitolume.batch.predict_worker import Model
from mitolume.errors import MitolumeError, shorten
from mitolume.inference.predictor import Predictor
from mitolume.parallel import LostError, check_workers, connected, results

_SPLIT = 16  # blocks from which an image is shared among workers


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
    model = Model(bundle, stamp, predictor.views, predictor.core)
    own = {_absolute(job): job for job in jobs}
    with connected(address) as client:
        check_workers(client, [bundle, *(job.file for job in own)], out.absolute())
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
        for job, result in results(self._client, tasks):
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
        except LostError:
            raise
        except MitolumeError as error:
            return Ended(job, fault=str(error))
        return Ended(job, warning="".join(warning for _, warning in measured.values()))

    def _all_of(
        self, tasks: dict[Any, tuple[Any, ...]], job: Job, blocks: int = 0
    ) -> dict[Any, Any]:
        """Run tasks of one image, each of which is some blocks; the first fault ends them all."""
        done = {}
        for name, result in results(self._client, tasks):
            if isinstance(result, BaseException):
                raise MitolumeError(_sentence(result, job))
            done[name] = result
            self._advance(blocks, job.file.name)
        return done

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


def _absolute(job: Job) -> Job:
    """Return a job that means the same in whatever folder a worker was started."""
    return replace(
        job,
        file=job.file.absolute(),
        mask=job.mask.absolute(),
        probability=job.probability.absolute() if job.probability else None,
        pictures=tuple((t, z, path.absolute()) for t, z, path in job.pictures),
    )
