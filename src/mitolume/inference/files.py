"""Whole files: predict and write masks, probabilities and pictures. Knows no training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
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
    overwrite: bool = False


def predict_files(
    predictor: Predictor,
    files: Sequence[Path],
    out: Path,
    wanted: Wanted = Wanted(),
    progress: Callable[..., None] = lambda done, total, note="": None,
) -> tuple[list[Path], list[str]]:
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
    written, faults
        The masks, in the order of the files; one sentence for each file whose pixels turned out
        to be unreadable. The others are done.

    Raises
    ------
    MitolumeError
        A file can't be opened or used, or something would be overwritten; nothing is written.
    """
    images = [_open(file, wanted) for file in files]
    pairs = list(zip(files, images, strict=True))
    for file, image in pairs:
        scale_factors(plane_pixel_size(image), predictor.card.pixel_size_um, str(file))
    targets = [_targets(out, file, image, wanted) for file, image in pairs]
    _refuse_overwriting(files, targets, wanted.overwrite)
    total = sum(image.sizes["T"] * image.sizes["Z"] for image in images)
    written: list[Path] = []
    faults: list[str] = []
    before = 0
    for file, image, paths in zip(files, images, targets, strict=True):

        def advance(done: int, _: int, before: int = before, name: str = file.name) -> None:
            progress(before + done, total, name)

        try:
            _predict_file(predictor, image, paths, wanted, advance)
            written.append(paths.mask)
        except MitolumeError as error:
            faults.append(str(error))
        before += image.sizes["T"] * image.sizes["Z"]
    return written, faults


@dataclass(frozen=True)
class _Targets:
    """The files that one image becomes; pictures by (t, z)."""

    mask: Path
    probability: Path | None
    pictures: dict[tuple[int, int], Path]

    def all(self) -> list[Path]:
        return [self.mask, *self.pictures.values(), *filter(None, [self.probability])]


def _targets(out: Path, file: Path, image: xr.DataArray, wanted: Wanted) -> _Targets:
    name = bare_name(file)
    pictures = {}
    if wanted.overlay:
        for t, z in product(range(image.sizes["T"]), range(image.sizes["Z"])):
            places = [("t", t, image.sizes["T"]), ("z", z, image.sizes["Z"])]
            place = "".join(f"_{axis}{i:03}" for axis, i, size in places if size > 1)
            pictures[t, z] = out / f"{name}{place}_overlay.png"
    probability = out / f"{name}_probability.ome.tif" if wanted.probability else None
    return _Targets(out / f"{name}_mask.ome.tif", probability, pictures)


def _refuse_overwriting(
    files: Sequence[Path], targets: Sequence[_Targets], overwrite: bool
) -> None:
    """Refuse what would lose a file: an input, another result of this call, or an older one."""
    inputs = {file.resolve() for file in files}
    # Some systems take a.tif and A.tif for the same file.
    times = Counter(str(path).casefold() for target in targets for path in target.all())
    for file, target in zip(files, targets, strict=True):
        for path in target.all():
            if times[str(path).casefold()] > 1:
                raise MitolumeError(
                    f"{file} and another file would both become {path}; predict them into "
                    "folders of their own"
                )
            if path.resolve() in inputs:
                raise MitolumeError(f"{path} is one of the images; choose another --out")
            if path.exists() and not overwrite:
                raise MitolumeError(f"{path} is there already; choose another --out or --overwrite")


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
    paths: _Targets,
    wanted: Wanted,
    advance: Callable[[int, int], None],
) -> None:
    probability = predictor.predict(image, progress=advance)
    mask = predictor.mask(probability, wanted.threshold)
    single = {axis: 0 for axis in "TZ" if mask.sizes[axis] == 1}
    if paths.probability:
        write_image(paths.probability, probability.isel(single))
    for (t, z), path in paths.pictures.items():
        write_png(path, overlay(read_plane(image, z=z, t=t), mask.isel(T=t, Z=z).values))
    write_mask(paths.mask, mask.isel(single))
