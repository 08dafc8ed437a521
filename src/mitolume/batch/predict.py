"""Predict whole files, here or on a dask cluster: each scene of each file is a job of the runner.

A plane is predicted block by block, so that any size fits into memory. On a cluster pixels do not
travel: a worker opens the image itself and writes where the others write.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from mitolume.analysis.pictures import overlay, write_png
from mitolume.batch.runner import (
    Finished,
    Job,
    Outcome,
    Report,
    one_after_the_other,
    run_files,
    side_by_side,
)
from mitolume.errors import MitolumeError
from mitolume.inference.chain import PreparedPlane
from mitolume.inference.denoise import open_neighbours
from mitolume.inference.predictor import Predictor, load
from mitolume.inference.tiles import Box, block_side, blocks
from mitolume.io.channels import select_channel
from mitolume.io.formats import sha256
from mitolume.io.listing import named_scenes, result_ending
from mitolume.io.pixel_size import CREDIBLE_UM, plane_pixel_size
from mitolume.io.read import read
from mitolume.io.windows import IN_MEMORY, FilePlane, open_plane
from mitolume.io.zarr_out import CHUNK, new_image
from mitolume.parallel import connected, results
from mitolume.preprocess.fingerprint import unlike_training
from mitolume.preprocess.rescale import scale_factors, scaled_shape
from mitolume.progress import Advance

if TYPE_CHECKING:
    from distributed import Client

    from mitolume.models.settings import Views

_PICTURE = 2048  # pixels of a picture's longer side, where the plane is too large to draw as it is
_SHARED = 16  # blocks from which an image is shared among workers
Arrays = dict[str, Any]  # "mask", "probability" -> what is written to by (t, c, z, y, x)
Place = tuple[int, int]  # t, z of a plane


@dataclass(frozen=True)
class PredictionOptions:
    """Where to look in files, and what to write.

    Attributes
    ----------
    channel, scene
        Name or number (from 0); scene "all" is each scene of a file.
    pixel_size_um
        Pixel size along Y and X in µm, over what the files state.
    threshold
        Probability from which a pixel is mitochondria, 0 to 1; the model's own by default.
    probability, overlay
        Write probabilities and PNG pictures with outlines beside the masks.
    """

    channel: str | None = None
    scene: str | None = None
    pixel_size_um: float | None = None
    threshold: float | None = None
    probability: bool = False
    overlay: bool = False

    def __post_init__(self) -> None:
        low, high = CREDIBLE_UM
        if self.pixel_size_um is not None and not low <= self.pixel_size_um <= high:
            raise MitolumeError(
                f"--pixel-size {self.pixel_size_um:g} is not within {low:g} to {high:g} µm"
            )


@dataclass(frozen=True)
class ImagePrediction:
    """One image and the files that it becomes.

    ``shape`` is (T, C, Z, Y, X) with C of length 1; ``boxes`` are those in which each plane is
    predicted; ``pictures`` are (t, z, file).
    """

    file: Path
    scene: str | None
    options: PredictionOptions
    threshold: float
    shape: tuple[int, ...]
    boxes: tuple[Box, ...]
    mask: Path
    probability: Path | None
    pictures: tuple[tuple[int, int, Path], ...]

    @property
    def planes(self) -> list[Place]:
        """All (t, z)."""
        return list(product(range(self.shape[0]), range(self.shape[2])))

    @property
    def typical_plane(self) -> Place:
        """The (t, z) by which the image is judged: the ends of a stack are often out of focus."""
        return self.planes[len(self.planes) // 2]

    @property
    def results(self) -> tuple[Path, ...]:
        """All files that the image becomes; the mask is written last."""
        pictures = (path for _, _, path in self.pictures)
        return (*filter(None, [self.probability]), *pictures, self.mask)


def predict_files(
    predictor: Predictor,
    files: Sequence[Path],
    out: Path,
    options: PredictionOptions = PredictionOptions(),
    *,
    resume: bool = False,
    overwrite: bool = False,
    scheduler: str | None = None,
    progress: Advance = lambda done, total, note="": None,
) -> Outcome:
    """Predict files, and what is in folders.

    Parameters
    ----------
    predictor
        The model.
    files
        Images, or folders of them; all are opened before the first is predicted.
    out
        Folder for ``NAME_mask.ome.tif``, ``NAME_probability.ome.tif``, ``NAME_overlay.png``;
        ``.ome.zarr`` for images that are OME-Zarr themselves or too large for a TIFF.
    options
        Where to look, and what to write.
    resume, overwrite, progress
        As for `mitolume.batch.runner.run_jobs`; work is counted in blocks.
    scheduler
        ``tcp://HOST:PORT`` of a dask scheduler whose workers compute; they must see model, images
        and ``out`` under the same absolute paths.

    Raises
    ------
    MitolumeError
        A result would replace something, or the cluster can't be used.
    """
    if scheduler is not None:  # a worker may run in another folder
        files, out = [path.absolute() for path in files], out.absolute()
    model = None if predictor.bundle is None else sha256(predictor.bundle)
    return run_files(
        files,
        partial(_jobs_of, predictor, model, out, options),
        out / "predict.jsonl",
        resume=resume,
        overwrite=overwrite,
        scheduler=partial(_on_cluster, scheduler, predictor, out) if scheduler else None,
        progress=progress,
    )


def _jobs_of(
    predictor: Predictor, model: str | None, out: Path, options: PredictionOptions, file: Path
) -> Iterator[Job]:
    """Open a file, and decide what its scenes become."""
    for scene, name in named_scenes(file, options.scene):
        opened = _open_channel(file, scene, options)
        image = _image_prediction(file, scene, opened, options, predictor, out / name)
        settings = {
            "model": model,  # a hash
            "views": predictor.views,
            "threshold": image.threshold,
            "channel": str(opened["C"].values[0]),
            "scene": scene,
            "pixel size": options.pixel_size_um,
        }
        work = len(image.planes) * len(image.boxes)
        compute = _Prediction(predictor, image)
        yield Job(file.name, (file,), image.results, compute, settings, work)


def _image_prediction(
    file: Path,
    scene: str | None,
    opened: xr.DataArray,
    options: PredictionOptions,
    predictor: Predictor,
    path: Path,
) -> ImagePrediction:
    """Say in which boxes an image is predicted, and what it becomes."""
    size, model_um = plane_pixel_size(opened), predictor.card.pixel_size_um
    sizes, ending = opened.sizes, result_ending(file, opened.size)
    shape = (sizes["Y"], sizes["X"])
    model_shape = scaled_shape(shape, scale_factors(size, model_um, str(file)))

    def beside(kind: str) -> Path:
        return path.with_name(f"{path.name}_{kind}")

    pictures = []
    for t, z in product(range(sizes["T"]), range(sizes["Z"])) if options.overlay else ():
        places = [("t", t, sizes["T"]), ("z", z, sizes["Z"])]
        place = "".join(f"{axis}{i:03}_" for axis, i, length in places if length > 1)
        pictures.append((t, z, beside(f"{place}overlay.png")))
    own = predictor.card.threshold
    return ImagePrediction(
        file=file,
        scene=scene,
        options=options,
        threshold=own if options.threshold is None else options.threshold,
        shape=opened.shape,
        boxes=tuple(blocks(shape, block_side(shape, model_shape, predictor.core, CHUNK))),
        mask=beside(f"mask{ending}"),
        probability=beside(f"probability{ending}") if options.probability else None,
        pictures=tuple(pictures),
    )


def _open_channel(file: Path, scene: str | None, options: PredictionOptions) -> xr.DataArray:
    """Open the channel to predict, with the pixel size that was said over the file's own."""
    image = select_channel(read(file, scene=scene), options.channel)
    if options.pixel_size_um is None:
        return image
    stated = dict(image.attrs.get("pixel_size_um", {}))
    stated |= {"Y": options.pixel_size_um, "X": options.pixel_size_um}
    return image.assign_attrs(pixel_size_um=stated)


# --- one image ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Prediction:
    """What a job does: predict an image with a model, and write the results."""

    predictor: Predictor
    image: ImagePrediction

    def __call__(self, advance: Callable[[int], None] = lambda done: None) -> Report:
        image = self.image
        opened = _open_channel(image.file, image.scene, image.options)
        with ExitStack() as stack:  # left in reverse order: the mask is finished last
            mask = new_image(image.mask, opened, name="mask", dtype="uint8", mask=True)
            arrays = {"mask": stack.enter_context(mask)}
            if image.probability:
                arrays["probability"] = stack.enter_context(
                    new_image(image.probability, opened, name="mitochondria", dtype="float32")
                )
            notice = self._fill(opened, arrays, advance)
            _draw(image, opened, arrays["mask"])
        return Report(str(image.mask), (notice,) if notice else ())

    def _fill(self, opened: xr.DataArray, arrays: Arrays, advance: Callable[[int], None]) -> str:
        """Predict all blocks; return a notice where the image is unlike the training images."""
        notice, done = "", 0
        for place in self.image.planes:
            prepared = _prepare(self.predictor, opened, place)
            if place == self.image.typical_plane:
                notice = self._notice(prepared)
            for box in self.image.boxes:
                _predict_block(self.predictor, self.image, prepared, arrays, place, box)
                done += 1
                advance(done)
        return notice

    def _notice(self, prepared: PreparedPlane) -> str:
        known = self.predictor.card.fingerprint
        return unlike_training(known, prepared.middle, str(self.image.file))


def _prepare(predictor: Predictor, opened: xr.DataArray, place: Place) -> PreparedPlane:
    """Send a plane through the chain: at once where it is small, else box by box."""
    t, z = place
    return predictor.prepare(
        open_plane(opened, t=t, z=z),
        plane_pixel_size(opened),
        neighbours=open_neighbours(opened, z, t),
        source=opened.attrs["source"],
    )


def _predict_block(
    predictor: Predictor,
    image: ImagePrediction,
    prepared: PreparedPlane,
    arrays: Arrays,
    place: Place,
    box: Box,
) -> None:
    """Predict a box of a plane into the arrays of results."""
    t, z = place
    probability = predictor.predict_box(prepared, (image.shape[3], image.shape[4]), box)
    arrays["mask"][t, 0, z, *box] = probability >= image.threshold
    if "probability" in arrays:
        arrays["probability"][t, 0, z, *box] = probability


def _draw(image: ImagePrediction, opened: xr.DataArray, mask: Any) -> None:
    """Draw outlines over every plane; a large one is thinned out while it is read."""
    height, width = image.shape[3:]
    large = height * width > IN_MEMORY
    thin = slice(None, None, -(-max(height, width) // _PICTURE) if large else 1)
    for t, z, path in image.pictures:
        plane = FilePlane(opened, z=z, t=t)[thin, thin]
        write_png(path, overlay(plane, mask[t, 0, z, thin, thin]))


# --- on a cluster -------------------------------------------------------------------------------

_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class _Model:
    """A model that every worker loads once; ``written_ns`` tells a new one in the same place."""

    bundle: Path
    written_ns: int
    views: Views
    core: int


def _on_cluster(
    address: str, predictor: Predictor, out: Path, jobs: Sequence[Job], progress: Advance
) -> Iterator[Finished]:
    """Predict images on the workers of a dask cluster, a `Scheduler`.

    Small images go to a worker each, side by side; then one large image after the other is shared
    among the workers block by block.
    """
    if predictor.bundle is None:
        raise MitolumeError("only a model that was loaded from a folder works on a cluster")
    bundle = predictor.bundle.absolute()
    written = max(path.stat().st_mtime_ns for path in bundle.iterdir())
    model = _Model(bundle, written, predictor.views, predictor.core)
    whole, shared = [], []
    inputs = [path for job in jobs for path in job.inputs]
    with connected(address, [bundle, *inputs], out) as client:
        for job in jobs:
            assert isinstance(job.compute, _Prediction)
            image = job.compute.image
            if job.work >= _SHARED and image.mask.suffix == ".zarr":
                together = _SharedPrediction(predictor, image, client, model)
                shared.append(replace(job, compute=together))
            else:
                whole.append(replace(job, compute=partial(_predict_on_worker, model, image)))
        before, total = sum(job.work for job in whole), sum(job.work for job in jobs)
        yield from side_by_side(partial(results, client))(
            whole, lambda done, _, note="": progress(done, total, note)
        )
        yield from one_after_the_other(
            shared, lambda done, _, note="": progress(before + done, total, note)
        )


@dataclass(frozen=True)
class _SharedPrediction(_Prediction):
    """The prediction of an image whose blocks are computed by all workers."""

    client: Client
    model: _Model

    def _fill(self, opened: xr.DataArray, arrays: Arrays, advance: Callable[[int], None]) -> str:
        blocks = product(self.image.planes, self.image.boxes)
        image = replace(self.image, boxes=(), pictures=())  # small, as it goes with each block
        call = time.time_ns()
        tasks = {
            number: (_predict_block_on_worker, self.model, image, arrays, call, *block)
            for number, block in enumerate(blocks)
        }
        for done, (_, result) in enumerate(results(self.client, tasks), 1):
            if isinstance(result, BaseException):
                raise result
            advance(done)
        return self._notice(_prepare(self.predictor, opened, image.typical_plane))


def _predict_on_worker(
    model: _Model, image: ImagePrediction, advance: Callable[[int], None]
) -> Report:
    with _alone():
        return _Prediction(_load_once(model), image)(advance)


def _predict_block_on_worker(
    model: _Model, image: ImagePrediction, arrays: Arrays, call: int, place: Place, box: Box
) -> None:
    with _alone():
        prepared = _prepare_once(model, image, call, place)
        _predict_block(_load_once(model), image, prepared, arrays, place, box)


@contextmanager
def _alone() -> Iterator[None]:
    """Compute one block at a time; a worker's other threads help the network."""
    import torch
    from distributed import get_worker

    with _ONE_AT_A_TIME:
        torch.set_num_threads(get_worker().state.nthreads)
        yield


@lru_cache(maxsize=1)
def _load_once(model: _Model) -> Predictor:
    return load(model.bundle, views=model.views, core=model.core)


@lru_cache(maxsize=1)
def _prepare_once(model: _Model, image: ImagePrediction, call: int, place: Place) -> PreparedPlane:
    """Keep the plane that the next block is likely to be of; another call, another image."""
    opened = _open_channel(image.file, image.scene, image.options)
    return _prepare(_load_once(model), opened, place)
