"""Whole files: predict and write masks, probabilities and pictures. Knows no training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from mitolume.analysis.pictures import overlay, write_png
from mitolume.errors import MitolumeError
from mitolume.inference.predictor import Predictor
from mitolume.io.formats import bare_name
from mitolume.io.pixel_size import CREDIBLE_UM, plane_pixel_size
from mitolume.io.read import read, read_plane, select_channel
from mitolume.io.write import write_image, write_mask
from mitolume.preprocess.rescale import scale_factors


@dataclass(frozen=True)
class Wanted:
    """Where to look in the files, and what to write beside the masks."""

    channel: str | None = None
    scene: str | None = None
    pixel_size_um: float | None = None
    threshold: float | None = None
    probability: bool = False
    overlay: bool = False


def predict_files(
    predictor: Predictor,
    files: Sequence[Path],
    out: Path,
    wanted: Wanted = Wanted(),
    progress: Callable[..., None] = lambda done, total, note="": None,
) -> list[Path]:
    """Predict files one after the other.

    Parameters
    ----------
    predictor
        The model.
    files
        Images; all are opened before the first is predicted.
    out
        Folder for ``NAME_mask.ome.tif``, ``NAME_probability.ome.tif``, ``NAME_overlay.png``.
    wanted
        Where to look, and what to write.
    progress
        Called with planes done, planes there are, and the file's name.

    Returns
    -------
    list of pathlib.Path
        The masks, in the order of the files.

    Raises
    ------
    MitolumeError
        A file can't be used, or two have the same name.
    """
    names = [bare_name(file) for file in files]
    for name, times in Counter(names).items():
        if times > 1:
            raise MitolumeError(
                f"{times} files are called {name}: their masks would overwrite each other; "
                "predict them into folders of their own"
            )
    for file, name in zip(files, names, strict=True):
        mask = out / f"{name}_mask.ome.tif"
        if mask.exists() and out.resolve() == file.parent.resolve():
            raise MitolumeError(
                f"{mask} is there already, beside its image, and may be drawn by hand; "
                "choose another --out"
            )
    images = [_open(file, wanted) for file in files]
    for file, image in zip(files, images, strict=True):
        scale_factors(plane_pixel_size(image), predictor.card.pixel_size_um, str(file))
    total = sum(image.sizes["T"] * image.sizes["Z"] for image in images)
    written, before = [], 0
    for name, image in zip(names, images, strict=True):

        def advance(done: int, _: int, before: int = before, name: str = name) -> None:
            progress(before + done, total, name)

        written.append(_predict_file(predictor, image, out / name, wanted, advance))
        before += image.sizes["T"] * image.sizes["Z"]
    return written


def _open(file: Path, wanted: Wanted) -> xr.DataArray:
    image = select_channel(read(file, scene=wanted.scene), wanted.channel)
    if wanted.pixel_size_um is not None:
        low, high = CREDIBLE_UM
        if not low <= wanted.pixel_size_um <= high:
            raise MitolumeError(
                f"--pixel-size {wanted.pixel_size_um:g} is not within {low:g} to {high:g} µm"
            )
        stated = dict(image.attrs.get("pixel_size_um", {}))
        stated |= {"Y": wanted.pixel_size_um, "X": wanted.pixel_size_um}
        image = image.assign_attrs(pixel_size_um=stated)
    return image


def _predict_file(
    predictor: Predictor,
    image: xr.DataArray,
    target: Path,
    wanted: Wanted,
    advance: Callable[[int, int], None],
) -> Path:
    probability = predictor.predict(image, progress=advance)
    mask = predictor.mask(probability, wanted.threshold)
    kept = [axis for axis in "TZ" if mask.sizes[axis] > 1]
    path = target.with_name(f"{target.name}_mask.ome.tif")
    if wanted.probability:
        stack = probability.isel({axis: 0 for axis in "TZ" if axis not in kept})
        write_image(target.with_name(f"{target.name}_probability.ome.tif"), stack)
    if wanted.overlay:
        for t in range(mask.sizes["T"]):
            for z in range(mask.sizes["Z"]):
                picture = overlay(read_plane(image, z=z, t=t), mask.isel(T=t, Z=z).values)
                place = "".join(f"_{a.lower()}{i:03}" for a, i in (("T", t), ("Z", z)) if a in kept)
                write_png(target.with_name(f"{target.name}{place}_overlay.png"), picture)
    write_mask(path, mask.isel({axis: 0 for axis in "TZ" if axis not in kept}))
    return path
