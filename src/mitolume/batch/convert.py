"""Mask files of one kind to another: pixels, ImageJ ROIs, GeoJSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mitolume.batch.runner import Job, Outcome, Report, run_jobs
from mitolume.batch.sources import find_image, open_masks
from mitolume.errors import MitolumeError
from mitolume.io.geojson import labels_to_geojson
from mitolume.io.mask_files import (
    distinct_values,
    hidden_outlines,
    image_name,
    kind_of,
    list_masks,
    open_mask,
    stack_of,
)
from mitolume.io.masks import FOREGROUND, UNSURE, ValuesKind, meaning_of, to_objects
from mitolume.io.outlines import Inside, Labels
from mitolume.io.read import read
from mitolume.io.rois import labels_to_rois, write_rois
from mitolume.io.write import write_labels, write_mask, write_text
from mitolume.progress import Advance

OUT_ENDINGS = {
    # what a file name may end in -> what it is, and how files of a folder are named
    ".zip": ("an ImageJ ROI set", "_rois.zip"),
    ".geojson": ("GeoJSON for QuPath", ".geojson"),
    ".ome.tif": ("a mask of 0, 1 and 255, or a label image with --labels", "_mask.ome.tif"),
}


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of a mask file.

    ``labels`` is (Y, X) or (Z, Y, X) int, 0 background; ``unsure`` the same shape, bool;
    ``pixel_size_um`` maps axes to µm, where known; ``notices`` is what the user should know.
    """

    labels: Labels
    unsure: Inside
    pixel_size_um: dict[str, float]
    notices: tuple[str, ...]


def convert(
    mask: str | Path,
    out: str | Path,
    *,
    like: str | Path | None = None,
    labels: bool = False,
    mask_kind: str = "auto",
) -> tuple[str, ...]:
    """Write one mask file as another kind of mask file.

    Parameters
    ----------
    mask
        A mask or label image, an ImageJ ROI set or TIFF with an overlay, or GeoJSON.
    out
        The new file; its ending says the kind (`OUT_ENDINGS`). A file that exists is not replaced.
    like, labels, mask_kind
        As for `convert_files`.

    Returns
    -------
    tuple of str
        What the user should know.

    Raises
    ------
    MitolumeError
        A file can't be read or written, or exists already.
    """
    outcome = convert_files(
        [Path(mask)], Path(out), like=None if like is None else Path(like), labels=labels,
        mask_kind=mask_kind,
    )  # fmt: skip
    outcome.raise_faults("masks", "converted")
    return tuple(outcome.notices)


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

    Parameters
    ----------
    masks
        Mask files of any kind, or folders of them. What pixel values mean is decided for all
        together.
    out
        The new file, whose ending says the kind (`OUT_ENDINGS`); with `to` a folder.
    to
        Without its dot, the ending of the files in the folder `out`.
    like
        The image, or folder of images, whose size outlines need.
    labels
        Write label images.
    mask_kind
        What pixel values mean: ``auto``, ``unsure`` or ``labels``.
    overwrite
        Replace files that exist.
    progress
        Called with the files done, the files there are, and a name.

    Raises
    ------
    MitolumeError
        A file can't be written, exists already, or values mean nothing.
    """
    ending = _ending(out, to)
    if labels and ending != ".ome.tif":
        raise MitolumeError(f"{out}: a label image (--labels) must end in .ome.tif")
    notices: list[str] = []
    files: list[Path] = []
    for path in masks:
        listed, said = list_masks(path)
        files += listed
        notices += said
    if to is None and len(files) > 1:
        raise MitolumeError(
            f"--out {out} is one file for {len(files)} masks; name a folder, and say what they "
            f"become with --to ({', '.join(e.lstrip('.') for e in OUT_ENDINGS)})"
        )
    suffix = "_labels.ome.tif" if labels else OUT_ENDINGS[ending][1]
    faults: list[str] = []

    def open_one(path: Path) -> xr.DataArray:
        return _open(path, None if like is None else find_image(path, like))

    opened, said = open_masks(files, open_one, mask_kind, faults, progress)
    notices += said
    jobs = []
    for path, kind, _ in opened:
        target = out if to is None else out / f"{image_name(path)}{suffix}"
        image = None if like is None else find_image(path, like)
        inputs = (path,) if image in (None, path) else (path, image)
        write = partial(_convert, path, image, kind, target, labels)
        jobs.append(Job(path.name, inputs, (target,), write))
    outcome = run_jobs(jobs, overwrite=overwrite, faults=faults, progress=progress)
    outcome.notices = list(dict.fromkeys([*notices, *outcome.notices]))
    return outcome


def read_objects(
    mask: str | Path, like: str | Path | None = None, *, mask_kind: str = "auto"
) -> Objects:
    """Read a mask file of any kind as numbered objects.

    Parameters
    ----------
    mask, like, mask_kind
        As for `convert`.

    Returns
    -------
    Objects
        Each outline is an object, and where two overlap, the later one shows; so is each number
        of a label image. In other masks objects are what is connected (8 neighbours, in a stack
        26).

    Raises
    ------
    MitolumeError
        A file can't be read, sizes differ, or values mean nothing.
    """
    opened = _open(Path(mask), None if like is None else Path(like))
    kind, notices = meaning_of({str(mask): distinct_values(opened)}, mask_kind)
    found = _objects(opened, kind)
    return replace(found, notices=(*notices, *found.notices))


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
    if any(opened.sizes[axis] != image.sizes[axis] for axis in "YX"):
        raise MitolumeError(
            f"mask {mask} is {opened.sizes['Y']} x {opened.sizes['X']} pixels (Y x X), but "
            f"{like} is {image.sizes['Y']} x {image.sizes['X']}"
        )
    size = image.attrs.get("pixel_size_um")
    return opened.assign_attrs(pixel_size_um=size) if size else opened


def _objects(mask: xr.DataArray, kind: ValuesKind) -> Objects:
    values = stack_of(mask)
    values = values[0] if len(values) == 1 else values
    labels, unsure = to_objects(values, kind_of(mask, kind))
    notices = (*mask.attrs.get("notices", ()), *hidden_outlines(mask, np.unique(labels)))
    return Objects(labels, unsure, mask.attrs.get("pixel_size_um", {}), notices)


def _convert(
    mask: Path,
    like: Path | None,
    kind: ValuesKind,
    out: Path,
    as_labels: bool,
    advance: Callable[[int], None],
) -> Report:
    """Write one mask file; the ending of its new name says what it becomes."""
    objects = _objects(_open(mask, like), kind)
    notices = objects.notices
    ending = _ending(out, None)
    if ending == ".zip":
        write_rois(out, labels_to_rois(objects.labels, objects.unsure))
    elif ending == ".geojson":
        content = labels_to_geojson(objects.labels, objects.unsure)
        write_text(out, json.dumps(content, indent=None) + "\n")
    elif as_labels:
        write_labels(out, _as_image(objects.labels, objects))
        if objects.unsure.any():
            notices += (f"{mask.name}: unsure pixels (255) became background in the label image",)
    else:
        values = np.where(objects.labels > 0, FOREGROUND, 0)
        values[objects.unsure] = UNSURE
        write_mask(out, _as_image(values, objects))
    return Report(notices=notices)


def _as_image(values: np.ndarray[Any, Any], objects: Objects) -> xr.DataArray:
    dims = ("Y", "X") if values.ndim == 2 else ("Z", "Y", "X")
    size = {axis: um for axis, um in objects.pixel_size_um.items() if axis in dims}
    return xr.DataArray(values, dims=dims, attrs={"pixel_size_um": size} if size else {})
