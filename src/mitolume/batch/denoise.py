"""Denoise whole files: each scene of each file becomes a job of the runner."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mitolume.batch.runner import Job, Outcome, Report, run_files
from mitolume.errors import MitolumeError
from mitolume.inference.chain import SharpenedPlane
from mitolume.inference.denoise import DenoisedPlane, Denoiser, NormalisedPlane, planes_around
from mitolume.io.channels import select_channel
from mitolume.io.formats import sha256
from mitolume.io.listing import RESULTS, named_scenes, result_ending
from mitolume.io.read import read
from mitolume.io.windows import FilePlane, Plane, levelled, open_plane
from mitolume.io.zarr_out import new_image
from mitolume.preprocess.stripes import StripelessPlane


def denoise_files(
    denoiser: Denoiser,
    files: Sequence[Path],
    out: Path,
    *,
    channel: str | None = None,
    scene: str | None = None,
    sharpen: bool = False,
    **options: Any,
) -> Outcome:
    """Denoise images, and those in folders, one after the other; all are opened first.

    ``out`` gets ``NAME_denoised.ome.tif``, or ``.ome.zarr`` for images that are OME-Zarr themselves
    or too large for a TIFF: one channel, of the file's own type of integers, rounded and clipped to
    what it holds, or else float32; pixel size, z and t as they were. ``channel`` and ``scene`` are
    names or numbers (from 0); scene "all" is each scene of a file. ``sharpen`` applies the unsharp
    mask (0.5 px, 0.7) afterwards, as published. ``options`` are ``resume``, ``overwrite`` and
    ``progress`` of `mitolume.batch.runner.run_jobs`; work is counted in planes.
    """
    model = None if denoiser.bundle is None else sha256(denoiser.bundle)

    def make(file: Path) -> Iterator[Job]:
        for one, name in named_scenes(file, scene):
            image = select_channel(read(file, scene=one), channel)
            if any(offsets := levelled(image).attrs.get("offsets", ())):
                raise MitolumeError(
                    f"{file}: its grey values differ by less than float32 holds beside "
                    f"{offsets[0]:.9g}; subtract that first (Fiji: Process > Math > Subtract, in "
                    "32 bit)"
                )
            path = out / f"{name}_denoised{result_ending(file, image.size)}"
            settings = {
                "denoiser": model,  # a hash
                "channel": str(image["C"].values[0]),
                "scene": one,
                "sharpen": sharpen,
            }
            work = int(image.sizes["T"] * image.sizes["Z"])
            compute = partial(_denoise, denoiser, image, path, sharpen)
            yield Job(file.name, image.attrs["files"], (path,), compute, settings, work)

    passed_over = (*RESULTS, "_denoised")
    return run_files(files, make, out / "denoise.jsonl", passed_over=passed_over, **options)


def _denoise(
    denoiser: Denoiser,
    image: xr.DataArray,
    path: Path,
    sharpen: bool,
    advance: Callable[[int], None],
) -> Report:
    """Denoise one image, plane by plane and box by box, and write it."""
    dtype = image.dtype if image.dtype.kind in "ui" else np.dtype(np.float32)
    sample = FilePlane(image, z=image.sizes["Z"] // 2)[::16, ::16]
    window = (float(sample.min()), float(max(sample.max(), sample.min() + 1)))
    boxes = denoiser.blocks((image.sizes["Y"], image.sizes["X"]))
    stack = DenoisedStack(denoiser, image)
    name = str(image["C"].values[0])
    with new_image(path, image, name=name, dtype=str(dtype), window=window) as result:
        places = product(range(image.sizes["T"]), range(image.sizes["Z"]))
        for done, (t, z) in enumerate(places, 1):
            denoised = stack.plane(z, t)
            plane: Plane = SharpenedPlane(denoised) if sharpen else denoised
            for box in boxes:
                result[t, 0, z, *box] = _to_dtype(plane[box], dtype)
            advance(done)
    return Report(str(path))


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
        self._opened = lru_cache(maxsize=5)(self._open)

    def plane(self, z: int, t: int = 0) -> DenoisedPlane:
        """Return a plane."""
        looks = self._denoiser.network.channels > 1
        near = planes_around(z, self._image.sizes["Z"]) if looks else []
        neighbours = [self._opened(t, other) for other in near]
        return DenoisedPlane(self._opened(t, z), self._denoiser, neighbours)

    def _open(self, t: int, z: int) -> NormalisedPlane:
        plane = open_plane(self._image, z=z, t=t)
        if self._denoiser.card.stripes == "auto":
            plane = StripelessPlane(plane)
        return NormalisedPlane(plane)


def _to_dtype(image: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Bring grey values to a type: rounded and clipped if it is one of integers."""
    if dtype.kind == "f":
        return image.astype(dtype)
    limits = np.iinfo(dtype)
    whole: np.ndarray[Any, Any] = np.clip(np.rint(image), limits.min, limits.max)
    return whole.astype(dtype)
