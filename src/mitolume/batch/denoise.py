"""Whole files: denoise and write images. Knows no training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mitolume.errors import MitolumeError
from mitolume.inference.denoise import DenoisedPlane, Denoiser, planes_around
from mitolume.inference.filtered import NormalisedPlane
from mitolume.inference.steps import SharpenedPlane, StripelessPlane
from mitolume.io.formats import reader_of
from mitolume.io.listing import image_files, named_scenes
from mitolume.io.read import read, select_channel
from mitolume.io.windows import FilePlane, Plane, open_plane
from mitolume.io.write import write_image
from mitolume.io.zarr_out import build_pyramid, full_size, new_ome_zarr

_ENDING = "_denoised"
_MOST_IN_A_TIFF = 2**28  # pixels of a result, above which it is written piece by piece
Progress = Callable[..., None]


@dataclass(frozen=True)
class Denoising:
    """Where to look in the files, and what to write.

    ``sharpen`` applies the unsharp mask afterwards, as published; ``as_float`` writes float32 and
    not the file's own type.
    """

    channel: str | None = None
    scene: str | None = None
    sharpen: bool = False
    as_float: bool = False
    overwrite: bool = False
    resume: bool = False


@dataclass
class Outcome:
    """The files that were written, those that were there before, and a sentence for each fault."""

    written: list[Path] = field(default_factory=list)
    before: list[Path] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def denoise_files(
    denoiser: Denoiser,
    files: Sequence[Path],
    out: Path,
    wanted: Denoising = Denoising(),
    progress: Progress = lambda done, total, note="": None,
) -> Outcome:
    """Denoise files, and what is in folders, one after the other.

    Parameters
    ----------
    denoiser
        What to do it with.
    files
        Images, or folders of them.
    out
        Folder for ``NAME_denoised.ome.tif``, or ``.ome.zarr`` for images that are OME-Zarr
        themselves or too large for a TIFF. One channel, of the file's own type of integers, rounded
        and clipped to what it holds, or else float32; pixel size, z and t as they were.
    wanted
        Where to look, and what to write.
    progress
        Called with planes done, planes there are, and the file's name.

    Returns
    -------
    Outcome
        A file that can't be opened or read does not stop the others.

    Raises
    ------
    MitolumeError
        Something would be overwritten, or no file could be denoised.
    """
    if wanted.resume and wanted.overwrite:
        raise MitolumeError("--resume keeps results and --overwrite replaces them; choose one")
    outcome = Outcome()
    jobs: dict[Path, tuple[Path, xr.DataArray]] = {}
    for file in dict.fromkeys(image_files(files, outcome.faults, (_ENDING,))):
        try:
            for scene, name in named_scenes(file, wanted.scene):
                image = select_channel(read(file, scene=scene), wanted.channel)
                _add(jobs, out / _result_name(file, name, image), file, image)
        except MitolumeError as error:
            outcome.faults.append(str(error))
    for path in list(jobs):
        if path.exists() and not wanted.overwrite:
            if not wanted.resume:
                raise MitolumeError(
                    f"{path} is there already; choose another --out or --overwrite, or skip what "
                    "is done with --resume"
                )
            outcome.before.append(path)
            del jobs[path]
    total = sum(_n_planes(image) for _, image in jobs.values())
    done = 0
    for path, (file, image) in jobs.items():
        try:
            _denoise(denoiser, image, path, wanted, _from(progress, done, total, file.name))
            outcome.written.append(path)
        except MitolumeError as error:
            outcome.faults.append(str(error))
        done += _n_planes(image)
    if outcome.faults and not outcome.written and not outcome.before:
        raise MitolumeError("\n  ".join(outcome.faults))
    return outcome


def _add(
    jobs: dict[Path, tuple[Path, xr.DataArray]], path: Path, file: Path, image: xr.DataArray
) -> None:
    """Add a job, refusing what would lose a file."""
    twin = next((other for other in jobs if str(other).casefold() == str(path).casefold()), None)
    if twin is not None and jobs[twin][0] != file:
        raise MitolumeError(
            f"{file} and {jobs[twin][0]} would both become {path}; denoise them into folders of "
            "their own"
        )
    if path.resolve() == file.resolve():
        raise MitolumeError(f"{path} is one of the images; choose another --out")
    jobs[path] = file, image


def _result_name(file: Path, name: str, image: xr.DataArray) -> str:
    streamed = reader_of(file) == "ome_zarr" or image.size > _MOST_IN_A_TIFF
    return f"{name}{_ENDING}{'.ome.zarr' if streamed else '.ome.tif'}"


def _n_planes(image: xr.DataArray) -> int:
    return int(image.sizes["T"] * image.sizes["Z"])


def _from(progress: Progress, before: int, total: int, name: str) -> Callable[[int], None]:
    return lambda done: progress(before + done, total, name)


def _denoise(
    denoiser: Denoiser,
    image: xr.DataArray,
    path: Path,
    wanted: Denoising,
    advance: Callable[[int], None],
) -> None:
    """Denoise one image and write it."""
    dtype = np.dtype(np.float32 if wanted.as_float or image.dtype.kind not in "ui" else image.dtype)
    if path.suffix != ".zarr":
        result = np.empty(image.shape, dtype)
        _fill(denoiser, image, result, wanted, advance)
        labelled = xr.DataArray(result, dims=image.dims, coords=image.coords, attrs=image.attrs)
        single = {axis: 0 for axis in "TZ" if image.sizes[axis] == 1}
        write_image(path, labelled.isel(single))
        return
    sample = FilePlane(image, z=image.sizes["Z"] // 2)[::16, ::16]
    with new_ome_zarr(
        path,
        image.shape,
        name=str(image["C"].values[0]),
        dtype=str(dtype),
        pixel_size_um=image.attrs.get("pixel_size_um", {}),
        window=(float(sample.min()), float(max(sample.max(), sample.min() + 1))),
    ) as folder:
        _fill(denoiser, image, full_size(folder), wanted, advance)
        build_pyramid(folder, mask=False)


def _fill(
    denoiser: Denoiser,
    image: xr.DataArray,
    result: Any,
    wanted: Denoising,
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
            plane: Plane = SharpenedPlane(denoised) if wanted.sharpen else denoised
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
