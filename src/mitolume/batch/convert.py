"""Mask files of one kind to another: pixels, ImageJ ROIs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr

from mitolume.batch.runner import Job, Outcome, Report, run_jobs
from mitolume.batch.sources import find_image, open_masks
from mitolume.errors import MitolumeError
from mitolume.io.mask_files import image_name, kind_of, list_masks, open_mask, require_fit, stack_of
from mitolume.io.masks import FOREGROUND, UNSURE, ValuesKind, to_objects
from mitolume.io.read import read
from mitolume.io.rois import labels_to_rois, write_rois
from mitolume.io.write import write_labels, write_mask
from mitolume.progress import Advance

OUT_ENDINGS = {
    # what a file name may end in -> what it is, and how files of a folder are named
    ".zip": ("an ImageJ ROI set", "_rois.zip"),
    ".ome.tif": ("a mask of 0, 1 and 255, or a label image with --labels", "_mask.ome.tif"),
}


def convert_files(
    masks: Sequence[Path],
    out: Path,
    *,
    to: str | None = None,
    like: Path | None = None,
    labels: bool = False,
    mask_kind: str = "auto",
    overwrite: bool = False,
    progress: Advance = lambda done, total, note="": None,
) -> Outcome:
    """Write mask files as mask files of another kind.

    ``masks`` are mask files of any kind, or folders of them. ``out`` is the new file, whose ending
    says the kind (`OUT_ENDINGS`); with ``to`` (an ending without its dot) it is a folder. ``like``
    is the image, or folder of images, whose size outlines need. What pixel values mean
    (``mask_kind``: ``auto``, ``unsure`` or ``labels``) is decided for all masks together.
    ``progress`` is called with the files done, the files there are, and a name.
    """
    ending = _ending(out, to)
    if labels and ending != ".ome.tif":
        raise MitolumeError(f"{out}: a label image (--labels) must end in .ome.tif")
    files, notices = list_masks(*masks)
    if to is None and len(files) > 1:
        raise MitolumeError(
            f"--out {out} is one file for {len(files)} masks; name a folder, and say what they "
            f"become with --to ({', '.join(e.lstrip('.') for e in OUT_ENDINGS)})"
        )
    suffix = "_labels.ome.tif" if labels else OUT_ENDINGS[ending][1]
    images: dict[Path, Path | None] = {}
    faults: list[str] = []

    def open_one(path: Path) -> xr.DataArray:
        images[path] = like and find_image(path, like)
        return _open(path, images[path])

    opened, said = open_masks(files, open_one, mask_kind, faults, progress)
    jobs = []
    for path, kind, _ in opened:
        target = out if to is None else out / f"{image_name(path)}{suffix}"
        image = images[path]
        inputs = tuple(dict.fromkeys(filter(None, (path, image))))
        write = partial(_convert, path, image, kind, target, labels)
        jobs.append(Job(path.name, inputs, (target,), write))
    notices += said
    return run_jobs(jobs, overwrite=overwrite, faults=faults, notices=notices, progress=progress)


def _ending(out: Path, to: str | None) -> str:
    """Return the ending of the new files, or refuse."""
    name = out.name.lower() if to is None else f".{to.lower().lstrip('.')}"
    for ending in OUT_ENDINGS:
        if name.endswith(ending) if to is None else name == ending:
            return ending
    kinds = ", ".join(f"{e} ({what})" for e, (what, _) in OUT_ENDINGS.items())
    given, fix = (f"--to {to}", "") if to else (out, "; give --out one of these endings")
    raise MitolumeError(f"{given}: masks are written as {kinds}{fix}")


def _open(mask: Path, like: Path | None) -> xr.DataArray:
    """Open a mask; it has the pixel size of its image, where that is given."""
    image = None if like is None else read(like)
    opened = open_mask(mask, image, numbered=True)
    if image is None:
        return opened
    require_fit(opened, image)
    size = image.attrs.get("pixel_size_um")
    return opened.assign_attrs(pixel_size_um=size) if size else opened


def _convert(
    mask: Path,
    like: Path | None,
    kind: ValuesKind,
    out: Path,
    as_labels: bool,
    advance: Callable[[int], None],
) -> Report:
    """Write one mask file; the ending of its new name says what it becomes."""
    opened = _open(mask, like)
    values = stack_of(opened)
    values = values[0] if len(values) == 1 else values
    labels, unsure = to_objects(values, kind_of(opened, kind))
    notices = tuple(opened.attrs.get("notices", ()))
    image = xr.DataArray(labels, dims=("Z", "Y", "X")[-labels.ndim :])
    size = opened.attrs.get("pixel_size_um", {})
    image.attrs["pixel_size_um"] = {axis: um for axis, um in size.items() if axis in image.dims}
    ending = _ending(out, None)
    if ending != ".ome.tif" and not (labels.any() or unsure.any()):
        notices += (f"{mask.name} marks nothing, so {out.name} can't be read as a mask",)
    if ending == ".zip":
        write_rois(out, labels_to_rois(labels, unsure))
    elif as_labels:
        write_labels(out, image)
        if unsure.any():
            notices += (f"{mask.name}: unsure pixels (255) became background in the label image",)
    else:
        image.values = np.where(unsure, UNSURE, np.where(labels > 0, FOREGROUND, 0))
        write_mask(out, image)
    return Report(str(out), notices)
