"""Denoise whole files: each scene of each file becomes a job of the runner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
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
from mitolume.inference.denoise import Denoiser
from mitolume.inference.inputs import InputReader
from mitolume.io.channels import select_channel
from mitolume.io.formats import bare_name, sha256
from mitolume.io.listing import result_ending
from mitolume.io.read import read
from mitolume.io.windows import FilePlane, Plane, levelled
from mitolume.io.zarr_out import new_image
from mitolume.models.settings import InputSettings
from mitolume.preprocess.settings import ChainSettings

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

    def open_scene(file: Path, one: str | None, name: str) -> Job:
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
        return Job(file.name, image.attrs["files"], results, compute, settings, work)

    return run_files(files, open_scene, out / "denoise.jsonl", scene=scene, **options)


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
    planes = denoised_planes(denoiser, image, sharpen=sharpen)
    picture = f"{bare_name(path).removesuffix('_denoised')}_denoising.png"
    _draw(path.with_name(picture), image, planes.at(image.sizes["Z"] // 2).plane.pixels)
    name = str(image["C"].values[0])
    with new_image(path, image, name=name, dtype=str(dtype), window=window) as result:
        places = product(range(image.sizes["T"]), range(image.sizes["Z"]))
        for done, (t, z) in enumerate(places, 1):
            plane = planes.at(z, t).plane.pixels
            for box in boxes:
                result[t, 0, z, *box] = _to_dtype(plane[box], dtype)
            advance(done)
    return Report(str(path))


def denoised_planes(denoiser: Denoiser, image: xr.DataArray, *, sharpen: bool) -> InputReader:
    """Return what gives the planes of an image (``T C Z Y X``, C of length 1) without noise.

    They are the ``pixels`` of the planes that it prepares. Stripes are removed first, if the
    denoiser's card says so.
    """
    card = denoiser.card
    chain = ChainSettings(
        stripes=card.stripes, denoise=card.method, sharpen="all" if sharpen else "none"
    )
    return InputReader(image, InputSettings(planes=1), chain, denoiser=denoiser)


def _draw(path: Path, image: xr.DataArray, denoised: Plane) -> None:
    """Draw the middle of the middle plane before and after, alike, and what was taken away."""
    sides = image.sizes["Y"], image.sizes["X"]
    starts = [max(0, (side - _DRAWN) // 2) for side in sides]
    rows, columns = (slice(a, min(a + _DRAWN, b)) for a, b in zip(starts, sides, strict=True))
    planes = FilePlane(image, z=image.sizes["Z"] // 2), denoised
    before, after = (np.asarray(plane[rows, columns], dtype=np.float64) for plane in planes)
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


def _to_dtype(image: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Bring grey values to a type: rounded and clipped if it is one of integers."""
    if dtype.kind == "f":
        return image.astype(dtype)
    limits = np.iinfo(dtype)
    whole: np.ndarray[Any, Any] = np.clip(np.rint(image), limits.min, limits.max)
    return whole.astype(dtype)
