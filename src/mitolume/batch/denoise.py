"""Denoise whole files: each scene of each file becomes a job of the runner."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from mitolume.analysis.object_pictures import write_figure
from mitolume.analysis.pictures import stretch_limits, to_8bit, with_bar
from mitolume.batch.runner import Job, Outcome, Report, run_files
from mitolume.errors import MitolumeError
from mitolume.inference.chain import SharpenedPlane
from mitolume.inference.denoise import DenoisedPlane, Denoiser, NormalisedPlane, planes_around
from mitolume.io.channels import select_channel
from mitolume.io.formats import bare_name, sha256
from mitolume.io.listing import RESULTS, named_scenes, result_ending
from mitolume.io.read import read
from mitolume.io.windows import FilePlane, Plane, levelled, open_plane
from mitolume.io.zarr_out import new_image
from mitolume.preprocess.stripes import StripelessPlane

_DRAWN = 512  # px: side of the part that is drawn before and after


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
    what it holds, or else float32; pixel size, z and t as they were. ``NAME_denoising.png`` shows
    the middle of it before and after, and what was taken away. ``channel`` and ``scene`` are
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
            results = (out / f"{name}_denoising.png", path)
            yield Job(file.name, image.attrs["files"], results, compute, settings, work)

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
    _draw(
        path.with_name(f"{bare_name(path).removesuffix('_denoised')}_denoising.png"),
        stack,
        image,
        sharpen,
    )
    name = str(image["C"].values[0])
    with new_image(path, image, name=name, dtype=str(dtype), window=window) as result:
        places = product(range(image.sizes["T"]), range(image.sizes["Z"]))
        for done, (t, z) in enumerate(places, 1):
            plane = stack.result(z, t, sharpen)
            for box in boxes:
                result[t, 0, z, *box] = _to_dtype(plane[box], dtype)
            advance(done)
    return Report(str(path))


def _draw(path: Path, stack: DenoisedStack, image: xr.DataArray, sharpen: bool) -> None:
    """Draw the middle of the middle plane before and after, alike, and what was taken away."""
    z, sides = image.sizes["Z"] // 2, (image.sizes["Y"], image.sizes["X"])
    starts = [max(0, (side - _DRAWN) // 2) for side in sides]
    rows, columns = (slice(a, min(a + _DRAWN, b)) for a, b in zip(starts, sides, strict=True))
    box = rows, columns
    before = np.asarray(FilePlane(image, z=z)[box], dtype=np.float64)
    after = np.asarray(stack.result(z, 0, sharpen)[box], dtype=np.float64)
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    alike = stretch_limits(before)
    away = float(np.percentile(np.abs(before - after), 99.5)) or 1.0
    shown = {
        "before": to_8bit(before, alike),
        "after": to_8bit(after, alike),
        f"taken away (grey: nothing; black to white: ±{away:.3g})": to_8bit(
            before - after, (-away, away)
        ),
    }
    width_um = image.attrs.get("pixel_size_um", {}).get("X", 0) * before.shape[1]
    for axes, (title, picture) in zip(figure.subplots(1, 3), shown.items(), strict=True):
        axes.imshow(with_bar(picture, width_um), cmap="gray", vmin=0, vmax=255)
        axes.set_title(title, fontsize=10)
        axes.set_axis_off()
    write_figure(path, figure)


class DenoisedStack:
    """The planes of an image, denoised box by box with those around them.

    Planes next to each other share what was computed for them, so go through them in order. The
    image has dims ``T C Z Y X``, C of length 1; stripes are removed first, if the denoiser's card
    says so.
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

    def result(self, z: int, t: int, sharpen: bool) -> Plane:
        """Return a plane as it is written."""
        denoised = self.plane(z, t)
        return SharpenedPlane(denoised) if sharpen else denoised

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
