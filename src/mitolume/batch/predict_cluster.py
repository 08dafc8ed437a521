"""Prediction on a dask cluster: more than one machine, one file system.

Pixels do not travel: a worker opens the image itself and writes where the others write.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any

import torch
from distributed import Client, get_worker
from distributed.scheduler import KilledWorker

from mitolume.batch import predict_image as here
from mitolume.batch.predict import PredictImage
from mitolume.batch.predict_image import ImagePrediction, Place
from mitolume.batch.runner import Finished, Job, Report, Scheduler, finish, stamps, unexpected
from mitolume.errors import MitolumeError
from mitolume.inference.chain import PreparedPlane
from mitolume.inference.predictor import Predictor, load
from mitolume.inference.suspicion import unlike_training
from mitolume.inference.tiles import Box
from mitolume.io.zarr_out import full_size
from mitolume.models.settings import Views
from mitolume.parallel import LostError, check_workers, connected, results
from mitolume.preprocess.normalise import GreyRange
from mitolume.progress import Advance

_SHARED = 16  # blocks from which an image is shared among workers

# A worker may have several threads: they help the network, instead of each running one.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Model:
    """A model that every worker loads once; ``written_ns`` tells a new one in the same place."""

    bundle: Path
    written_ns: int
    views: Views
    core: int


def on_cluster(address: str, predictor: Predictor, out: Path) -> Scheduler:
    """Return a `Scheduler` that predicts images on the workers of a dask cluster.

    Small images go to a worker each, side by side; then one large image after the other is shared
    among the workers block by block. Work of a worker that dies is done by another.

    Parameters
    ----------
    address
        ``tcp://HOST:PORT`` of the dask scheduler.
    predictor
        The model, as `load` returned it.
    out
        Where results go; every worker must see this folder, the images and the model. The
        scheduler raises `MitolumeError` where it can't be reached or used, or is lost.
    """

    def schedule(jobs: Sequence[Job], progress: Advance) -> Iterator[Finished]:
        if predictor.bundle is None:
            raise MitolumeError("only a model that was loaded from a folder works on a cluster")
        bundle = predictor.bundle.absolute()
        written = max(path.stat().st_mtime_ns for path in bundle.iterdir())
        model = Model(bundle, written, predictor.views, predictor.core)
        with connected(address) as client:
            inputs = [path.absolute() for job in jobs for path in job.inputs]
            check_workers(client, [bundle, *inputs], out.absolute())
            yield from _Cluster(client, model, jobs, progress).compute()

    return schedule


class _Cluster:
    """What is sent to the workers, and how much of it is done."""

    def __init__(
        self, client: Client, model: Model, jobs: Sequence[Job], progress: Advance
    ) -> None:
        self._client, self._model, self._jobs = client, model, jobs
        self._progress, self._done, self._total = progress, 0, sum(job.work for job in jobs)
        self._advance(0, "")

    def compute(self) -> Iterator[Finished]:
        images = {job: _image(job) for job in self._jobs}
        shared = [job for job in images if images[job].by_pieces and job.work >= _SHARED]
        yield from self._whole({job: images[job] for job in images if job not in shared})
        for job in shared:
            yield self._in_blocks(job, images[job])

    def _whole(self, images: Mapping[Job, ImagePrediction]) -> Iterator[Finished]:
        """Predict images that go to one worker each."""
        seen = {job: stamps(job) for job in images}
        tasks = {job: (predict_image, self._model, image) for job, image in images.items()}
        for job, result in results(self._client, tasks):
            self._advance(job.work, job.name)
            try:
                yield finish(job, _require(job, result), seen[job])
            except MitolumeError as error:
                yield Finished(job, fault=str(error))

    def _in_blocks(self, job: Job, image: ImagePrediction) -> Finished:
        """Predict an image that all workers share."""
        seen = stamps(job)
        try:
            return finish(job, self._report(job, image), seen)
        except LostError:
            raise
        except MitolumeError as error:
            return Finished(job, fault=str(error))

    def _report(self, job: Job, image: ImagePrediction) -> Report:
        places = {place: (measure_plane, self._model, image, place) for place in image.planes}
        measured = dict(self._all_of(places, job))
        with here.new_folders(image, image.open()) as folders:
            boxes = {
                (place, number): (
                    predict_box, self._model, image, folders, place, box, measured[place][0],
                )
                for place in image.planes
                for number, box in enumerate(image.boxes(self._model.core))
            }  # fmt: skip
            for _ in self._all_of(boxes, job):
                self._advance(1, job.name)
            dict(self._all_of({"": (finish_folders, image, folders)}, job))
        notices = tuple(notice for _, notice in measured.values() if notice)
        return Report(str(job.results[-1]), notices)

    def _all_of(self, tasks: Mapping[Any, tuple[Any, ...]], job: Job) -> Iterator[tuple[Any, Any]]:
        """Run tasks of one image; the first fault ends them all."""
        for name, result in results(self._client, tasks):
            yield name, _require(job, result)

    def _advance(self, blocks: int, note: str) -> None:
        self._done += blocks
        self._progress(self._done, self._total, note)


def _image(job: Job) -> ImagePrediction:
    """Return the image of a job, with paths that mean the same in whatever folder a worker is."""
    if not isinstance(job.compute, PredictImage):
        raise TypeError(f"{job.name} is not the prediction of an image")
    image = job.compute.image
    return replace(
        image,
        file=image.file.absolute(),
        mask=image.mask.absolute(),
        probability=image.probability.absolute() if image.probability else None,
        pictures=tuple((t, z, path.absolute()) for t, z, path in image.pictures),
    )


def _require(job: Job, result: Any) -> Any:
    """Return what a task returned, or raise in a sentence why it failed."""
    if isinstance(result, KilledWorker):
        raise MitolumeError(
            f"{job.inputs[0]}: every worker that tried it died, perhaps for lack of memory; "
            "choose a smaller --tile-size, or give the workers more"
        )
    if isinstance(result, MitolumeError):
        raise result
    if isinstance(result, BaseException):
        raise MitolumeError(unexpected(str(job.inputs[0]), result))
    return result


# What runs on the workers.


def on_worker(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run one task at a time, with all threads of the worker.

    A `MitolumeError` is returned and not raised: another try would not mend it.
    """

    @wraps(function)
    def run(*arguments: Any) -> Any:
        with _ONE_AT_A_TIME:
            torch.set_num_threads(get_worker().state.nthreads)
            try:
                return function(*arguments)
            except MitolumeError as error:
                return error

    return run


@on_worker
def predict_image(model: Model, image: ImagePrediction) -> Report:
    """Predict a whole image."""
    return here.predict_image(_predictor(model), image)


@on_worker
def measure_plane(model: Model, image: ImagePrediction, place: Place) -> tuple[GreyRange, str]:
    """Measure the grey values of a large plane as a whole; return a notice, too."""
    predictor = _predictor(model)
    plane = here.prepare_plane(predictor, image, image.open(), place).middle
    typical = place == image.typical_plane
    return plane.grey, unlike_training(predictor.card, plane, str(image.file)) if typical else ""


@on_worker
def predict_box(
    model: Model,
    image: ImagePrediction,
    folders: dict[str, Path],
    place: Place,
    box: Box,
    grey: GreyRange | None,
) -> None:
    """Predict a box of a plane into the OME-Zarr folders."""
    prepared = _prepared(model, image, place, grey)
    arrays = {kind: full_size(folder) for kind, folder in folders.items()}
    here.predict_into(_predictor(model), image, prepared, arrays, place, box)


@on_worker
def finish_folders(image: ImagePrediction, folders: dict[str, Path]) -> None:
    """Make the smaller levels and the pictures."""
    here.finish_folders(image, folders)


@lru_cache(maxsize=1)
def _predictor(model: Model) -> Predictor:
    return load(model.bundle, views=model.views, core=model.core)


@lru_cache(maxsize=1)
def _prepared(
    model: Model, image: ImagePrediction, place: Place, grey: GreyRange | None
) -> PreparedPlane:
    """Keep the plane that the next box is likely to be of."""
    return here.prepare_plane(_predictor(model), image, image.open(), place, grey)
