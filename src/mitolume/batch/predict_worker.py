"""What runs on the workers of a dask cluster. Knows no scheduler and no other worker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any

import torch
from distributed import get_worker

from mitolume.batch import predict as files
from mitolume.batch.jobs import Job, open_image
from mitolume.errors import MitolumeError
from mitolume.inference.chain import PreparedPlane
from mitolume.inference.denoise import open_neighbours
from mitolume.inference.predictor import Predictor, load
from mitolume.inference.suspicion import unlike_training
from mitolume.inference.tiles import Box
from mitolume.io.pixel_size import plane_pixel_size
from mitolume.io.windows import Plane, open_plane
from mitolume.io.zarr_out import full_size
from mitolume.models.bundle import read_card
from mitolume.models.settings import Views
from mitolume.preprocess.normalise import GreyRange

# A worker may have several threads: they help the network, instead of each running one.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Model:
    """A model that every worker loads once; ``written_ns`` tells a new one in the same place."""

    bundle: Path
    written_ns: int
    views: Views
    core: int


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
def predict_image(model: Model, job: Job) -> str:
    """Predict a whole image; return a warning, or ""."""
    return files.predict_image(_predictor(model), job)


@on_worker
def measure(model: Model, job: Job, place: tuple[int, int]) -> tuple[GreyRange, str]:
    """Measure the grey values of the plane (t, z) as a whole; return a warning, too."""
    card = read_card(model.bundle)
    denoiser = _predictor(model).denoiser if card.chain.denoises else None
    image = open_image(job.file, job.scene, job.wanted)
    prepared = PreparedPlane(
        open_plane(image, t=place[0], z=place[1]),
        card.chain,
        denoiser=denoiser,
        neighbours=open_neighbours(image, place[1], place[0]),
        pixel_size_um=plane_pixel_size(image),
        model_um=card.pixel_size_um,
        source=str(job.file),
    )
    typical = place == job.typical_plane
    return prepared.grey, unlike_training(card, prepared, str(job.file)) if typical else ""


@on_worker
def predict_box(
    model: Model,
    job: Job,
    folders: dict[str, Path],
    place: tuple[int, int],
    box: Box,
    grey: GreyRange,
) -> None:
    """Predict a box of the plane (t, z) into the OME-Zarr folders."""
    prepared = _prepared(model, job, place, grey)
    arrays = {kind: full_size(folder) for kind, folder in folders.items()}
    files.predict_into(_predictor(model), job, prepared, arrays, place, box)


@on_worker
def finish(job: Job, folders: dict[str, Path]) -> None:
    """Make the smaller levels and the pictures."""
    files.finish_folders(job, folders)


@lru_cache(maxsize=1)
def _predictor(model: Model) -> Predictor:
    return load(model.bundle, views=model.views, core=model.core)


@lru_cache(maxsize=1)
def _prepared(model: Model, job: Job, place: tuple[int, int], grey: GreyRange) -> Plane:
    """Keep the plane that the next box is likely to be of."""
    image = open_image(job.file, job.scene, job.wanted)
    return files.prepare_plane(_predictor(model), job, image, place, grey)
