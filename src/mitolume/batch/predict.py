"""Predict whole files: each scene of each file becomes a job of the runner."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import xarray as xr

from mitolume.batch.predict_image import (
    ImagePrediction,
    PredictionOptions,
    open_channel,
    predict_image,
    threshold_of,
)
from mitolume.batch.runner import Job, Outcome, Report, Scheduler, open_jobs, run_jobs
from mitolume.inference.predictor import Predictor
from mitolume.io.formats import sha256
from mitolume.io.listing import image_files, named_scenes, result_ending
from mitolume.io.pixel_size import plane_pixel_size
from mitolume.preprocess.rescale import scale_factors, scaled_shape
from mitolume.progress import Advance

DEFAULT = PredictionOptions()
RECORD = "predict.jsonl"  # keeps what results were made of


@dataclass(frozen=True)
class PredictImage:
    """What a job does: predict an image with a model."""

    predictor: Predictor
    image: ImagePrediction

    def __call__(self, advance: Callable[[int], None]) -> Report:
        """Predict and write."""
        return predict_image(self.predictor, self.image, advance)


def predict_files(
    predictor: Predictor,
    files: Sequence[Path],
    out: Path,
    options: PredictionOptions = DEFAULT,
    *,
    resume: bool = False,
    overwrite: bool = False,
    scheduler: Scheduler | None = None,
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
    resume, overwrite, scheduler
        As for `mitolume.batch.runner.run_jobs`.
    progress
        Called with blocks done, blocks there are, and the file's name.

    Returns
    -------
    Outcome
        A file that can't be opened, used or read does not stop the others.

    Raises
    ------
    MitolumeError
        A result would replace something, or the cluster can't be used.
    """
    faults: list[str] = []
    images = image_files(files, faults)
    model = None if predictor.bundle is None else sha256(predictor.bundle)
    make = partial(_jobs_of, predictor, model, out, options)
    jobs = open_jobs(images, make, faults, progress)
    return run_jobs(
        jobs,
        out / RECORD,
        resume=resume,
        overwrite=overwrite,
        scheduler=scheduler,
        faults=faults,
        progress=progress,
    )


def _jobs_of(
    predictor: Predictor, model: str | None, out: Path, options: PredictionOptions, file: Path
) -> Iterator[Job]:
    """Open a file, and decide what its scenes become."""
    for scene, name in named_scenes(file, options.scene):
        opened = open_channel(file, scene, options)
        image = _image_prediction(file, scene, opened, options, predictor, out / name)
        settings = {
            "model": model,  # a hash
            "views": predictor.views,
            "threshold": threshold_of(predictor, options),
            "channel": str(opened["C"].values[0]),
            "scene": scene,
            "pixel size": options.pixel_size_um,
        }
        work = len(image.planes) * len(image.boxes(predictor.core))
        compute = PredictImage(predictor, image)
        yield Job(file.name, (file,), image.results, compute, settings, work)


def _image_prediction(
    file: Path,
    scene: str | None,
    opened: xr.DataArray,
    options: PredictionOptions,
    predictor: Predictor,
    path: Path,
) -> ImagePrediction:
    size, model_um = plane_pixel_size(opened), predictor.card.pixel_size_um
    factors = scale_factors(size, model_um, str(file))
    sizes, ending = opened.sizes, result_ending(file, opened.size)

    def beside(kind: str) -> Path:
        return path.with_name(f"{path.name}_{kind}")

    pictures = []
    for t, z in product(range(sizes["T"]), range(sizes["Z"])) if options.overlay else ():
        places = [("t", t, sizes["T"]), ("z", z, sizes["Z"])]
        place = "".join(f"{axis}{i:03}_" for axis, i, length in places if length > 1)
        pictures.append((t, z, beside(f"{place}overlay.png")))
    return ImagePrediction(
        file=file,
        scene=scene,
        options=options,
        shape=opened.shape,
        model_shape=scaled_shape((sizes["Y"], sizes["X"]), factors),
        mask=beside(f"mask{ending}"),
        probability=beside(f"probability{ending}") if options.probability else None,
        pictures=tuple(pictures),
    )
