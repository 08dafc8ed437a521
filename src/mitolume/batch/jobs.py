"""What to predict, and what it will be called; faults are found here. Knows no network.

An image is one scene of a file. All files are opened before the first is predicted, none is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import xarray as xr

from mitolume.errors import MitolumeError
from mitolume.inference.chain import scaled_shape
from mitolume.inference.tiles import Box, block_side, blocks
from mitolume.io.channels import select_channel
from mitolume.io.formats import reader_of
from mitolume.io.listing import image_files, named_scenes
from mitolume.io.pixel_size import CREDIBLE_UM, plane_pixel_size
from mitolume.io.read import read
from mitolume.io.zarr_out import CHUNK
from mitolume.preprocess.rescale import scale_factors

FORMATS = ("auto", "ome-tiff", "ome-zarr")
_MOST_IN_A_TIFF = 2**28  # pixels of a result, above which it is written piece by piece


@dataclass(frozen=True)
class Wanted:
    """Where to look in the files, what to write beside the masks, and what of it is there."""

    channel: str | None = None
    scene: str | None = None
    pixel_size_um: float | None = None
    threshold: float | None = None
    probability: bool = False
    overlay: bool = False
    overwrite: bool = False
    resume: bool = False
    format: str = "auto"


@dataclass(frozen=True)
class Job:
    """One image and the files that it becomes.

    ``shape`` is (T, C, Z, Y, X) with C of length 1, ``model_shape`` (Y, X) at the model's pixel
    size; ``pictures`` are (t, z, file).
    """

    file: Path
    scene: str | None
    wanted: Wanted
    shape: tuple[int, ...]
    model_shape: tuple[int, int]
    mask: Path
    probability: Path | None
    pictures: tuple[tuple[int, int, Path], ...]

    @property
    def by_pieces(self) -> bool:
        """Whether results go to disk piece by piece, as OME-Zarr, and not as a whole."""
        return self.mask.suffix == ".zarr"

    @property
    def planes(self) -> list[tuple[int, int]]:
        """All (t, z)."""
        return list(product(range(self.shape[0]), range(self.shape[2])))

    @property
    def typical_plane(self) -> tuple[int, int]:
        """The (t, z) by which the image is judged: the ends of a stack are often out of focus."""
        return self.planes[len(self.planes) // 2]

    @property
    def results(self) -> list[Path]:
        """All files that the image becomes."""
        pictures = [path for _, _, path in self.pictures]
        return [self.mask, *pictures, *filter(None, [self.probability])]

    def boxes(self, core: int) -> list[Box]:
        """Return the boxes in which each plane is predicted."""
        shape = (self.shape[3], self.shape[4])
        return blocks(shape, block_side(shape, self.model_shape, core, CHUNK))


@dataclass
class Plan:
    """The images to predict, those whose results are there, and a sentence for each bad file."""

    jobs: list[Job] = field(default_factory=list)
    done: list[Job] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def make_plan(
    paths: Sequence[Path],
    out: Path,
    wanted: Wanted,
    model_um: float | None,
    progress: Callable[..., None] = lambda done, total, note="": None,
) -> Plan:
    """Open every file, and decide what it becomes.

    Parameters
    ----------
    paths
        Images, or folders of them.
    out
        Folder for ``NAME_mask.ome.tif`` (or ``.ome.zarr``), ``NAME_probability.ome.tif``,
        ``NAME_overlay.png``.
    wanted
        Where to look, and what to write.
    model_um
        The model's pixel size, None where it has none.
    progress
        Called with files opened, files there are, and what is being done.

    Raises
    ------
    MitolumeError
        A setting makes no sense, or a result would replace something that is there.
    """
    _check(wanted)
    plan = Plan()
    files = list(dict.fromkeys(image_files(paths, plan.faults)))
    for number, file in enumerate(files):
        progress(number, len(files), f"opening {file.name}")
        try:
            for scene, name in named_scenes(file, wanted.scene):
                plan.jobs.append(_job(file, scene, out / name, wanted, model_um))
        except MitolumeError as error:
            plan.faults.append(str(error))
    _refuse_twins(plan.jobs, files)
    for job in list(plan.jobs):
        if _is_done(job):
            plan.jobs.remove(job)
            plan.done.append(job)
    return plan


def open_image(file: Path, scene: str | None, wanted: Wanted) -> xr.DataArray:
    """Open the channel to predict, with the pixel size that was said over the file's own."""
    image = select_channel(read(file, scene=scene), wanted.channel)
    if wanted.pixel_size_um is None:
        return image
    stated = dict(image.attrs.get("pixel_size_um", {}))
    stated |= {"Y": wanted.pixel_size_um, "X": wanted.pixel_size_um}
    return image.assign_attrs(pixel_size_um=stated)


def _check(wanted: Wanted) -> None:
    low, high = CREDIBLE_UM
    if wanted.pixel_size_um is not None and not low <= wanted.pixel_size_um <= high:
        raise MitolumeError(
            f"--pixel-size {wanted.pixel_size_um:g} is not within {low:g} to {high:g} µm"
        )
    if wanted.format not in FORMATS:
        raise MitolumeError(f"there is no --format {wanted.format}; there are {', '.join(FORMATS)}")
    if wanted.resume and wanted.overwrite:
        raise MitolumeError("--resume keeps results and --overwrite replaces them; choose one")


def _job(file: Path, scene: str | None, path: Path, wanted: Wanted, model_um: float | None) -> Job:
    image = open_image(file, scene, wanted)
    factors = scale_factors(plane_pixel_size(image), model_um, str(file))
    sizes = image.sizes
    streamed = wanted.format == "ome-zarr" or (
        wanted.format == "auto" and (reader_of(file) == "ome_zarr" or image.size > _MOST_IN_A_TIFF)
    )
    ending = ".ome.zarr" if streamed else ".ome.tif"
    pictures = []
    for t, z in product(range(sizes["T"]), range(sizes["Z"])) if wanted.overlay else ():
        places = [("t", t, sizes["T"]), ("z", z, sizes["Z"])]
        place = "".join(f"_{axis}{i:03}" for axis, i, size in places if size > 1)
        pictures.append((t, z, path.with_name(f"{path.name}{place}_overlay.png")))
    return Job(
        file=file,
        scene=scene,
        wanted=wanted,
        shape=image.shape,
        model_shape=scaled_shape((sizes["Y"], sizes["X"]), factors),
        mask=path.with_name(f"{path.name}_mask{ending}"),
        probability=path.with_name(f"{path.name}_probability{ending}")
        if wanted.probability
        else None,
        pictures=tuple(pictures),
    )


def _refuse_twins(jobs: Sequence[Job], files: Sequence[Path]) -> None:
    """Refuse what would lose a file: an input, or another result of this call."""
    inputs = {file.resolve() for file in files}
    # Some systems take a.tif and A.tif for the same file.
    times = Counter(str(path).casefold() for job in jobs for path in job.results)
    for job in jobs:
        for path in job.results:
            if times[str(path).casefold()] > 1:
                raise MitolumeError(
                    f"{job.file} and another file would both become {path}; predict them into "
                    "folders of their own"
                )
            if path.resolve() in inputs:
                raise MitolumeError(f"{path} is one of the images; choose another --out")


def _is_done(job: Job) -> bool:
    """Tell whether all results are there; refuse to replace one that is, unless told to.

    The mask is written last: without it, what else is there was left by a call that was stopped.
    """
    found = [path for path in job.results if path.exists()]
    if not found or job.wanted.overwrite:
        return False
    if not job.wanted.resume:
        raise MitolumeError(
            f"{found[0]} is there already; choose another --out or --overwrite, or skip what is "
            "done with --resume"
        )
    lacking = [path for path in job.results if path not in found]
    if lacking and job.mask in found:
        raise MitolumeError(
            f"{job.mask} is there already, but {lacking[0].name} is not; make both anew with "
            "--overwrite"
        )
    return not lacking
