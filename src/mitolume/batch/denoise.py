"""Denoise whole files: each scene of each file becomes a job of the runner."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mitolume.batch.runner import Job, Outcome, Report, open_jobs, run_jobs
from mitolume.inference.chain import SharpenedPlane
from mitolume.inference.denoise import DenoisedPlane, Denoiser, NormalisedPlane, planes_around
from mitolume.io.formats import sha256
from mitolume.io.listing import image_files, named_scenes, result_ending
from mitolume.io.read import read, select_channel
from mitolume.io.windows import FilePlane, Plane, open_plane
from mitolume.io.write import write_image
from mitolume.io.zarr_out import build_pyramid, full_size, new_ome_zarr
from mitolume.preprocess.stripes import StripelessPlane
from mitolume.progress import Advance

RECORD = "denoise.jsonl"  # keeps what results were made of
_ENDING = "_denoised"


@dataclass(frozen=True)
class DenoisingOptions:
    """Where to look in files, and what to write.

    Attributes
    ----------
    channel, scene
        Name or number (from 0); scene "all" is each scene of a file.
    sharpen
        Apply the unsharp mask (0.5 px, 0.7) afterwards, as published.
    as_float
        Write float32 and not the file's own type.
    """

    channel: str | None = None
    scene: str | None = None
    sharpen: bool = False
    as_float: bool = False


def denoise_files(
    denoiser: Denoiser,
    files: Sequence[Path],
    out: Path,
    options: DenoisingOptions,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Advance = lambda done, total, note="": None,
) -> Outcome:
    """Denoise files, and what is in folders, one after the other.

    Parameters
    ----------
    denoiser
        What to do it with.
    files
        Images, or folders of them; all are opened before the first is denoised.
    out
        Folder for ``NAME_denoised.ome.tif``, or ``.ome.zarr`` for images that are OME-Zarr
        themselves or too large for a TIFF. One channel, of the file's own type of integers, rounded
        and clipped to what it holds, or else float32; pixel size, z and t as they were.
    options
        Where to look, and what to write.
    resume, overwrite
        As for `mitolume.batch.runner.run_jobs`.
    progress
        Called with planes done, planes there are, and the file's name.

    Returns
    -------
    Outcome
        A file that can't be opened or read does not stop the others.

    Raises
    ------
    MitolumeError
        A result would replace something.
    """
    faults: list[str] = []
    images = image_files(files, faults, (_ENDING,))
    model = None if denoiser.bundle is None else sha256(denoiser.bundle)
    make = partial(_jobs_of, denoiser, model, out, options)
    return run_jobs(
        open_jobs(images, make, faults, progress),
        out / RECORD,
        resume=resume,
        overwrite=overwrite,
        faults=faults,
        progress=progress,
    )


def _jobs_of(
    denoiser: Denoiser, model: str | None, out: Path, options: DenoisingOptions, file: Path
) -> Iterator[Job]:
    """Open a file, and decide what its scenes become."""
    for scene, name in named_scenes(file, options.scene):
        image = select_channel(read(file, scene=scene), options.channel)
        path = out / f"{name}{_ENDING}{result_ending(file, image.size)}"
        settings = {
            "denoiser": model,  # a hash
            "channel": str(image["C"].values[0]),
            "scene": scene,
            "sharpen": options.sharpen,
            "float": options.as_float,
        }
        work = int(image.sizes["T"] * image.sizes["Z"])
        compute = partial(_denoise, denoiser, image, path, options)
        yield Job(file.name, (file,), (path,), compute, settings, work)


def _denoise(
    denoiser: Denoiser,
    image: xr.DataArray,
    path: Path,
    options: DenoisingOptions,
    advance: Callable[[int], None],
) -> Report:
    """Denoise one image and write it."""
    dtype = np.dtype(
        np.float32 if options.as_float or image.dtype.kind not in "ui" else image.dtype
    )
    if path.suffix != ".zarr":
        result = np.empty(image.shape, dtype)
        _fill(denoiser, image, result, options, advance)
        labelled = xr.DataArray(result, dims=image.dims, coords=image.coords, attrs=image.attrs)
        single = {axis: 0 for axis in "TZ" if image.sizes[axis] == 1}
        write_image(path, labelled.isel(single))
        return Report(str(path))
    sample = FilePlane(image, z=image.sizes["Z"] // 2)[::16, ::16]
    with new_ome_zarr(
        path,
        image.shape,
        name=str(image["C"].values[0]),
        dtype=str(dtype),
        pixel_size_um=image.attrs.get("pixel_size_um", {}),
        window=(float(sample.min()), float(max(sample.max(), sample.min() + 1))),
    ) as folder:
        _fill(denoiser, image, full_size(folder), options, advance)
        build_pyramid(folder, mask=False)
    return Report(str(path))


def _fill(
    denoiser: Denoiser,
    image: xr.DataArray,
    result: Any,
    options: DenoisingOptions,
    advance: Callable[[int], None],
) -> None:
    """Denoise every plane of an image, box by box."""
    shape = (image.sizes["Y"], image.sizes["X"])
    stack = DenoisedStack(denoiser, image)
    done = 0
    for t in range(image.sizes["T"]):
        for z in range(image.sizes["Z"]):
            advance(done)
            denoised = stack.plane(z, t)
            plane: Plane = SharpenedPlane(denoised) if options.sharpen else denoised
            for box in denoiser.blocks(shape):
                result[t, 0, z, *box] = to_dtype(plane[box], result.dtype)
            done += 1
    advance(done)


class DenoisedStack:
    """The planes of an image, denoised box by box with those around them.

    Planes next to each other share what was computed for them, so go through them in order.

    Parameters
    ----------
    denoiser
        With or without stripes removed first, as its card says.
    image
        Dims ``T C Z Y X``, C of length 1.
    """

    def __init__(self, denoiser: Denoiser, image: xr.DataArray) -> None:
        self._denoiser, self._image = denoiser, image
        self._opened: dict[tuple[int, int], NormalisedPlane] = {}

    def plane(self, z: int, t: int = 0) -> DenoisedPlane:
        """Return a plane."""
        looks = self._denoiser.network.channels > 1
        near = planes_around(z, self._image.sizes["Z"]) if looks else []
        places = [(t, number) for number in (z, *near)]
        self._opened = {
            place: self._opened.get(place) or self._open(*place) for place in dict.fromkeys(places)
        }
        plane, *neighbours = (self._opened[place] for place in places)
        return DenoisedPlane(plane, self._denoiser, neighbours)

    def _open(self, t: int, z: int) -> NormalisedPlane:
        plane = open_plane(self._image, z=z, t=t)
        if self._denoiser.card.stripes == "auto":
            plane = StripelessPlane(plane)
        return NormalisedPlane(plane)


def to_dtype(image: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Bring grey values to a type: rounded and clipped where it is one of integers."""
    if dtype.kind == "f":
        return image.astype(dtype)
    limits = np.iinfo(dtype)
    whole: np.ndarray[Any, Any] = np.clip(np.rint(image), limits.min, limits.max)
    return whole.astype(dtype)
