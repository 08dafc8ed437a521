"""Mask files of one kind to another: pixels, ImageJ ROIs, GeoJSON. Knows no model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import xarray as xr
from scipy import ndimage

from mitolume.errors import MitolumeError
from mitolume.io.geojson import labels_to_geojson
from mitolume.io.mask_files import PlacedOutlines, open_mask, open_outlines
from mitolume.io.masks import FOREGROUND, UNSURE, MaskKind, decide_kind, to_mask
from mitolume.io.outlines import Inside, Labels, draw
from mitolume.io.read import read, read_plane
from mitolume.io.rois import labels_to_rois, write_rois
from mitolume.io.write import write_labels, write_mask, write_text

OUT_ENDINGS = {
    ".zip": "an ImageJ ROI set",
    ".geojson": "GeoJSON for QuPath",
    ".ome.tif": "a mask of 0, 1 and 255, or a label image with --labels",
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
    """Write a mask file as another kind of mask file.

    Parameters
    ----------
    mask
        A mask or label image, an ImageJ ROI set or TIFF with an overlay, or GeoJSON.
    out
        The new file; its ending says the kind (`OUT_ENDINGS`). What is there is not replaced.
    like
        The image, whose size outlines need.
    labels
        Write a label image.
    mask_kind
        What pixel values mean: ``auto``, ``unsure`` or ``labels``.

    Returns
    -------
    tuple of str
        What the user should know.

    Raises
    ------
    MitolumeError
        A file can't be read or written, or is there already.
    """
    mask, out = Path(mask), Path(out)
    ending = next((e for e in OUT_ENDINGS if out.name.lower().endswith(e)), None)
    if ending is None:
        kinds = ", ".join(f"{e} ({what})" for e, what in OUT_ENDINGS.items())
        raise MitolumeError(f"{out}: masks are written as {kinds}; give --out one of these endings")
    if labels and ending != ".ome.tif":
        raise MitolumeError(f"{out}: a label image (--labels) must end in .ome.tif")
    if out.exists():
        raise MitolumeError(f"{out} is there already; name another file, or remove it")
    objects = read_objects(mask, like, mask_kind=mask_kind)
    notices = objects.notices
    if ending == ".zip":
        write_rois(out, labels_to_rois(objects.labels, objects.unsure))
    elif ending == ".geojson":
        content = labels_to_geojson(objects.labels, objects.unsure)
        write_text(out, json.dumps(content, indent=None) + "\n")
    elif labels:
        write_labels(out, _as_image(objects.labels, objects))
        if objects.unsure.any():
            notices += ("what is unsure (255) is background: a label image can't say it",)
    else:
        values = np.where(objects.labels > 0, FOREGROUND, 0)
        values[objects.unsure] = UNSURE
        write_mask(out, _as_image(values, objects))
    return notices


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
    mask = Path(mask)
    if mask_kind not in get_args(MaskKind):
        raise MitolumeError(
            f"no mask kind {mask_kind!r}; there are {', '.join(get_args(MaskKind))}"
        )
    image = None if like is None else read(Path(like))
    size = {} if image is None else dict(image.attrs.get("pixel_size_um", {}))
    placed = open_outlines(mask, image)
    if placed is not None:
        return Objects(*_drawn_objects(placed), size, placed.notices)
    opened = open_mask(mask)
    if image is not None and any(opened.sizes[a] != image.sizes[a] for a in "YX"):
        raise MitolumeError(
            f"mask {mask} is {opened.sizes['Y']} x {opened.sizes['X']} pixels (Y x X), but "
            f"{like} is {image.sizes['Y']} x {image.sizes['X']}"
        )
    values = np.stack([read_plane(opened, z=z) for z in range(opened.sizes["Z"])])
    values = values[0] if len(values) == 1 else values
    found = {float(value) for value in np.unique(values)}
    kind, notices, faults = decide_kind({str(mask): found}, cast(MaskKind, mask_kind))
    if faults:
        raise MitolumeError("; ".join(faults).replace("mask_kind: ", "--mask-kind "))
    unsure = np.zeros(values.shape, bool)
    if kind == "labels" and (len(found - {0.0}) > 1 or found - {0.0, 1.0, 255.0}):
        labels = values.astype(np.int64)
    else:
        known = to_mask(values, kind)
        unsure = known == UNSURE
        labels, _ = ndimage.label(known == FOREGROUND, np.ones((3,) * known.ndim))
    return Objects(labels, unsure, size or opened.attrs.get("pixel_size_um", {}), tuple(notices))


def _drawn_objects(placed: PlacedOutlines) -> tuple[Labels, Inside]:
    """Return labels and what is unsure, (Y, X) or (Z, Y, X)."""
    sure = [outline for outline in placed.outlines if not outline.unsure]
    own = [(outline.z, outline.number) for outline in sure]
    # Numbers written by this program join an object's planes; copied outlines repeat them.
    numbered = all(number for _, number in own) and len(set(own)) == len(own)
    numbers = {
        id(outline): outline.number if numbered and outline.number else order
        for order, outline in enumerate(sure, start=1)
    }
    depth, height, width = placed.shape
    labels, unsure = [], []
    for z in range(depth):
        here = placed.on_plane(z)
        drawn = [outline for outline in here if not outline.unsure]
        labels.append(draw(drawn, [numbers[id(outline)] for outline in drawn], (height, width)))
        doubtful = [outline for outline in here if outline.unsure]
        unsure.append(draw(doubtful, [1] * len(doubtful), (height, width)) > 0)
        labels[-1][unsure[-1]] = 0
    if depth == 1:
        return labels[0], unsure[0]
    return np.stack(labels), np.stack(unsure)


def _as_image(values: np.ndarray[Any, Any], objects: Objects) -> xr.DataArray:
    dims = ("Y", "X") if values.ndim == 2 else ("Z", "Y", "X")
    size = {axis: um for axis, um in objects.pixel_size_um.items() if axis in dims}
    return xr.DataArray(values, dims=dims, attrs={"pixel_size_um": size} if size else {})
