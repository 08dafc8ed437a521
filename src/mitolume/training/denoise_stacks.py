"""The stacks that a denoiser learns from: planes chosen, checked and prepared."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mitolume.errors import MitolumeError, some_lines
from mitolume.inference.denoise import NormalisedPlane
from mitolume.inference.tiles import whole
from mitolume.io.channels import select_channel
from mitolume.io.fields import format_planes, parse_planes
from mitolume.io.formats import sha256
from mitolume.io.listing import image_files, named_scenes
from mitolume.io.read import read, read_plane
from mitolume.io.windows import FilePlane, levelled
from mitolume.preprocess.focus import focus_scores, planes_in_focus
from mitolume.preprocess.noise_check import NoiseCheck, check_stack
from mitolume.preprocess.normalise import is_flat
from mitolume.preprocess.stripes import remove_stripes
from mitolume.progress import Advance
from mitolume.training.denoise_methods import PlaneRun, TrainingPlane
from mitolume.training.patches import ArrayFile

_LEAST = 32  # pixels a side of planes that can be learnt from


@dataclass(frozen=True)
class Stack:
    """Planes to learn from.

    ``image`` has dims ``T C Z Y X``, C of length 1; ``planes`` are numbers along Z.
    """

    path: Path
    image: xr.DataArray
    planes: tuple[int, ...]

    def __post_init__(self) -> None:
        height, width = self.image.sizes["Y"], self.image.sizes["X"]
        if min(height, width) < _LEAST:
            raise MitolumeError(
                f"{self.path} has planes of {height} x {width} pixels; a denoiser needs {_LEAST} x "
                f"{_LEAST} or more to learn from"
            )

    @property
    def runs(self) -> list[list[int]]:
        """The planes, parted where one is missing between them."""
        gaps = np.flatnonzero(np.diff(self.planes) > 1) + 1
        return [run.tolist() for run in np.split(np.array(self.planes, int), gaps)]


def open_stacks(
    paths: Sequence[Path],
    planes: str = "all",
    *,
    channel: str | None = None,
    scene: str | None = None,
) -> tuple[list[Stack], list[str]]:
    """Open images, and those in folders, and choose their planes; say what is left out, and why.

    ``planes`` are ``all``, ``focus``, or numbers from 0 such as ``3-20``; ``channel`` and ``scene``
    say where to look in the files. A stack that can't be learnt from does not stop the others.
    """
    faults: list[str] = []
    stacks: list[Stack] = []
    files, notices = image_files(paths, faults)
    for path in files:
        scenes: list[tuple[str | None, str]] = [(None, "")]
        with suppress(MitolumeError):  # what is wrong is said when it is read
            scenes = named_scenes(path, scene)
        for own, _ in scenes:
            try:
                image = levelled(select_channel(read(path, scene=own), channel))
                stacks.append(Stack(path, image, chosen_planes(image, planes)))
            except MitolumeError as error:
                faults.append(f"scene {own}: {error}" if len(scenes) > 1 else str(error))
    if not stacks:
        raise MitolumeError("\n  ".join(some_lines(faults)))
    if faults:
        said = f"{len(stacks) + len(faults)} stacks found, {len(stacks)} used; the others:"
        notices.append("\n  ".join([said, *some_lines(faults)]))
    return stacks, notices


def chosen_planes(image: xr.DataArray, planes: str) -> tuple[int, ...]:
    """Return the planes that ``all``, ``focus`` or a list of numbers means in an image."""
    depth = image.sizes["Z"]
    if planes == "all":
        return tuple(range(depth))
    if planes == "focus":
        size = image.attrs.get("pixel_size_um", {})
        stack = (read_plane(image, z=z) for z in range(depth))
        return tuple(planes_in_focus(focus_scores(stack, pixel_size_um=size.get("X"))))
    try:
        found = parse_planes(planes) or ()
    except ValueError as error:
        raise MitolumeError(f"--planes: {error}, all or focus") from None
    if found and found[-1] >= depth:
        raise MitolumeError(
            f"{image.attrs.get('source', 'the image')} has no plane {found[-1]}: it has {depth}, "
            "counted from 0"
        )
    return found


def check_stacks(stacks: Sequence[Stack]) -> NoiseCheck:
    """Check the stack with the most neighbouring planes, see `check_stack`."""
    longest = max(stacks, key=lambda stack: max(map(len, stack.runs)))
    planes = max(longest.runs, key=len)
    step = longest.image.attrs.get("pixel_size_um", {}).get("Z")
    return check_stack([FilePlane(longest.image, z=z) for z in planes], step)


def prepared_runs(
    stacks: Sequence[Stack], scratch: Path, advance: Advance, *, stripes: bool, filtered: bool
) -> list[PlaneRun]:
    """Read and normalise all planes, kept in files of ``scratch`` so that memory stays flat.

    Constant planes are left out. ``stripes`` removes scan lines first; with ``filtered``, each
    plane is also filtered by its own spectrum.
    """
    file = ArrayFile(scratch / "planes", np.float32)
    lengths: list[int] = []
    total = sum(len(stack.planes) * stack.image.sizes["T"] for stack in stacks)
    done = 0
    with file.file:
        for stack, t, run in (
            (one, t, run) for one in stacks for t in range(one.image.sizes["T"]) for run in one.runs
        ):
            lengths.append(0)
            for z in run:
                advance(done, total, stack.path.name)
                done += 1
                raw = read_plane(stack.image, t=t, z=z)
                plane = NormalisedPlane(remove_stripes(raw) if stripes else raw)
                if is_flat(plane.grey):  # an empty frame is nobody's neighbour
                    lengths.append(0)
                    continue
                box = whole((raw.shape[0], raw.shape[1]))
                file.append(plane[box])
                if filtered:
                    file.append(plane.filtered(box))
                lengths[-1] += 1
    advance(total, total)
    images = file.read_all()
    each = 2 if filtered else 1
    planes = [TrainingPlane(images[i], images[i + each - 1]) for i in range(0, len(images), each)]
    ends = np.cumsum(lengths)
    return [planes[end - n : end] for n, end in zip(lengths, ends, strict=True) if n]


def stack_entry(stack: Stack) -> dict[str, Any]:
    """Return what a denoiser's card says of a stack."""
    return {
        "image": stack.path.name,
        "channel": str(stack.image["C"].values[0]),
        "planes": format_planes(stack.planes),
        "n_times": stack.image.sizes["T"],
        "sha256": sha256(stack.path),
    }


def typical_pixel_size(stacks: Sequence[Stack]) -> float | None:
    """Return the median pixel size in um, None where no stack states it."""
    known = [size["Y"] for s in stacks if "Y" in (size := s.image.attrs.get("pixel_size_um", {}))]
    return float(np.median(known)) if known else None
