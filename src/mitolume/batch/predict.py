"""Whole files: predict and write masks, probabilities and pictures. Knows no training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mitolume.analysis.pictures import overlay, write_png
from mitolume.batch.jobs import Job, Wanted, make_plan, open_image
from mitolume.errors import MitolumeError
from mitolume.inference.denoise import open_neighbours
from mitolume.inference.predictor import Predictor
from mitolume.inference.steps import middle
from mitolume.inference.suspicion import unlike_training
from mitolume.inference.tiles import Box
from mitolume.io.pixel_size import plane_pixel_size
from mitolume.io.windows import IN_MEMORY, FilePlane, Plane, open_plane
from mitolume.io.write import write_image, write_mask
from mitolume.io.zarr_out import build_pyramid, full_size, new_ome_zarr
from mitolume.preprocess.normalise import GreyRange

_PICTURE = 2048  # pixels of a picture's longer side, where the plane is too large to draw as it is
_TYPES = {"mask": "uint8", "probability": "float32"}
DEFAULT = Wanted()
Arrays = dict[str, Any]  # "mask", "probability" -> what is written to by (t, c, z, y, x)
Progress = Callable[..., None]


@dataclass
class Outcome:
    """The masks that were written, and a sentence for each file that could not be predicted.

    ``warnings`` are of images that look unlike those the model knows; ``n_before`` counts the
    images whose results were there before (``resume``).
    """

    written: list[Path] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    n_before: int = 0


@dataclass(frozen=True)
class Ended:
    """How an image ended: a fault where it could not be predicted, perhaps a warning."""

    job: Job
    fault: str = ""
    warning: str = ""


def predict_files(
    predictor: Predictor,
    files: Sequence[Path],
    out: Path,
    wanted: Wanted = DEFAULT,
    progress: Progress = lambda done, total, note="": None,
    *,
    scheduler: str | None = None,
) -> Outcome:
    """Predict files, and what is in folders, one after the other or on a dask cluster.

    Parameters
    ----------
    predictor
        The model.
    files
        Images, or folders of them; all are opened before the first is predicted.
    out
        Folder for ``NAME_mask.ome.tif``, ``NAME_probability.ome.tif``, ``NAME_overlay.png``;
        ``.ome.zarr`` for images that are OME-Zarr themselves or too large for a TIFF.
    wanted
        Where to look, and what to write.
    progress
        Called with blocks done, blocks there are, and the file's name.
    scheduler
        Address of a dask scheduler; this process does the work by default.

    Returns
    -------
    Outcome
        A file that can't be opened, used or read does not stop the others.

    Raises
    ------
    MitolumeError
        No file could be predicted, something would be overwritten, or the cluster can't be used.
    """
    plan = make_plan(files, out, wanted, predictor.card.pixel_size_um, progress)
    outcome = Outcome(faults=plan.faults, n_before=len(plan.done))
    if scheduler and plan.jobs:
        from mitolume.batch.predict_cluster import predict_on_cluster

        results = predict_on_cluster(scheduler, predictor, plan.jobs, out, progress)
    else:
        results = _predict_here(predictor, plan.jobs, progress)
    for ended in results:
        outcome.warnings += [ended.warning] if ended.warning else []
        if ended.fault:
            outcome.faults.append(ended.fault)
        else:
            outcome.written.append(ended.job.mask)
    if outcome.faults and not outcome.written and not plan.done:
        if len(outcome.faults) == 1:
            raise MitolumeError(outcome.faults[0])
        none = f"none of {len(outcome.faults)} files could be predicted:"
        raise MitolumeError("\n  ".join([none, *outcome.faults]))
    return outcome


def _predict_here(predictor: Predictor, jobs: Sequence[Job], progress: Progress) -> Iterator[Ended]:
    """Predict images one after the other."""
    counts = [len(job.planes) * len(job.boxes(predictor.core)) for job in jobs]
    before = 0
    for job, count in zip(jobs, counts, strict=True):

        def advance(done: int, before: int = before, name: str = job.file.name) -> None:
            progress(before + done, sum(counts), name)

        try:
            yield Ended(job, warning=predict_image(predictor, job, advance))
        except MitolumeError as error:
            yield Ended(job, fault=str(error))
        before += count


def predict_image(
    predictor: Predictor, job: Job, advance: Callable[[int], None] = lambda done: None
) -> str:
    """Predict an image and write its results; the mask comes last.

    Parameters
    ----------
    predictor
        The model.
    job
        The image, and what it becomes.
    advance
        Called with the blocks done.

    Returns
    -------
    str
        A warning where the image does not look like those the model knows.

    Raises
    ------
    MitolumeError
        A plane can't be read, or a result not be written; none is left half written.
    """
    image = open_image(job.file, job.scene, job.wanted)
    if job.by_pieces:
        with new_folders(job, image) as folders:
            arrays: Arrays = {kind: full_size(folder) for kind, folder in folders.items()}
            warning = _fill(predictor, job, image, arrays, advance)
            finish_folders(job, folders)
    else:
        arrays = {kind: np.zeros(job.shape, _TYPES[kind]) for kind in _kinds(job)}
        warning = _fill(predictor, job, image, arrays, advance)
        _write(job, image, arrays)
    return warning


def _fill(
    predictor: Predictor,
    job: Job,
    image: xr.DataArray,
    arrays: Arrays,
    advance: Callable[[int], None],
) -> str:
    """Predict every plane of an image into arrays; return a warning as `predict_image` does."""
    boxes = job.boxes(predictor.core)
    done, warning = 0, ""
    for place in job.planes:
        advance(done)
        prepared = prepare_plane(predictor, job, image, place)
        if place == job.typical_plane:
            warning = unlike_training(predictor.card, middle(prepared), str(job.file))
        for box in boxes:
            predict_into(predictor, job, prepared, arrays, place, box)
            done += 1
            advance(done)
    return warning


def prepare_plane(
    predictor: Predictor,
    job: Job,
    image: xr.DataArray,
    place: tuple[int, int],
    grey: GreyRange | None = None,
) -> Plane:
    """Send the plane (t, z) through the chain: at once where it is small, else box by box."""
    plane = open_plane(image, t=place[0], z=place[1])
    return predictor.prepare(
        plane,
        plane_pixel_size(image),
        neighbours=open_neighbours(image, place[1], place[0]),
        source=str(job.file),
        grey=grey,
    )


def predict_into(
    predictor: Predictor,
    job: Job,
    prepared: Plane,
    arrays: Arrays,
    place: tuple[int, int],
    box: Box,
) -> None:
    """Predict a box of the plane (t, z) into the arrays of results."""
    t, z = place
    probability = predictor.predict_box(prepared, (job.shape[3], job.shape[4]), box)
    cut = predictor.card.threshold if job.wanted.threshold is None else job.wanted.threshold
    arrays["mask"][t, 0, z, *box] = probability >= cut
    if "probability" in arrays:
        arrays["probability"][t, 0, z, *box] = probability


@contextmanager
def new_folders(job: Job, image: xr.DataArray) -> Iterator[dict[str, Path]]:
    """Make the OME-Zarr folders of an image under temporary names; rename them at the end."""
    size = image.attrs.get("pixel_size_um", {})
    paths = {"mask": job.mask, "probability": job.probability}
    with ExitStack() as stack:
        # Left in the reverse order: the mask is renamed last.
        yield {
            kind: stack.enter_context(
                new_ome_zarr(
                    Path(paths[kind] or ""),
                    job.shape,
                    name="mask" if kind == "mask" else "mitochondria",
                    dtype=_TYPES[kind],
                    pixel_size_um=size,
                )
            )
            for kind in _kinds(job)
        }


def finish_folders(job: Job, folders: dict[str, Path]) -> None:
    """Make the smaller levels and the pictures, once every box is written."""
    for folder in folders.values():
        build_pyramid(folder)
    if job.pictures:
        image = open_image(job.file, job.scene, job.wanted)
        _draw(job, image, full_size(folders["mask"]))


def _write(job: Job, image: xr.DataArray, arrays: Arrays) -> None:
    """Write arrays as OME-TIFF."""
    single = {axis: 0 for axis in "TZ" if image.sizes[axis] == 1}
    labelled = {
        kind: xr.DataArray(array, dims=image.dims, attrs=image.attrs).isel(single)
        for kind, array in arrays.items()
    }
    if job.probability:
        named = labelled["probability"].assign_coords(C=np.array(["mitochondria"], dtype=object))
        write_image(job.probability, named)
    _draw(job, image, arrays["mask"])
    write_mask(job.mask, labelled["mask"].isel(C=0))


def _draw(job: Job, image: xr.DataArray, mask: Any) -> None:
    """Draw outlines over every plane; a large one is thinned out while it is read."""
    height, width = job.shape[3:]
    large = height * width > IN_MEMORY
    thin = slice(None, None, -(-max(height, width) // _PICTURE) if large else 1)
    for t, z, path in job.pictures:
        plane = FilePlane(image, z=z, t=t)[thin, thin]
        write_png(path, overlay(plane, mask[t, 0, z, thin, thin]))


def _kinds(job: Job) -> list[str]:
    return ["mask", "probability"] if job.probability else ["mask"]
