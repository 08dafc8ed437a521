"""Masks made from the dye, for the images of a table that nobody outlined."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from mitolume.analysis.dye_contrast import planes_near
from mitolume.analysis.dye_labels import THRESHOLD, DyeLabels, choose_threshold, label_dye
from mitolume.analysis.metrics import count as count_pixels
from mitolume.analysis.metrics import iou, ratio
from mitolume.errors import MitolumeError, Note
from mitolume.io.channels import transmitted_channel
from mitolume.io.fields import Field, row_names, with_planes
from mitolume.io.masks import UNSURE, Mask, MaskKind
from mitolume.io.pixel_size import plane_pixel_size
from mitolume.io.read import read, read_plane
from mitolume.io.rows import open_fluorescence, open_image, read_row
from mitolume.io.split import spread
from mitolume.io.write import write_masks
from mitolume.runs.dye_checks import judge, measure_shifts
from mitolume.runs.recipe import DyeSettings
from mitolume.text import count

MOST_OUTLINED = 24  # planes with outlines, spread over all, that choose the threshold


def needs_mask(row: Field) -> bool:
    """Whether a mask is to be made of a row's dye, as it has no outline that may be used."""
    return bool(row.fluorescence) and not row.is_labelled and row.role != "unlabelled"


def label_rows(
    rows: Sequence[Field],
    folder: Path,
    settings: DyeSettings,
    kind: MaskKind,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Field], pd.DataFrame, list[str]]:
    """Make masks for rows whose fluorescence was recorded and that are not outlined.

    Parameters
    ----------
    rows
        Checked rows with roles. Outlined training rows whose fluorescence was recorded too choose
        the threshold.
    folder
        Where the masks are written, ``NAME_mask.ome.tif`` for each row.
    settings
        How they are made.
    kind
        What the values of outlined masks mean.
    progress
        Called with the rows done and the rows there are.

    Returns
    -------
    rows, quality, notices
        The rows in their order, labelled ones with their mask and without the planes whose dye is
        unusable; a row for each plane that was looked at; what the user should know.

    Raises
    ------
    MitolumeError
        The pixel size of a row is unknown, or its pixels can't be read.
    """
    wanted = [row for row in rows if needs_mask(row)]
    given = None if settings.threshold == "auto" else settings.threshold
    threshold = given or _chosen_on_outlines(rows, kind)
    outlined = {(row.line, z): row for row in rows if row.is_outlined for z in row.planes or ()}
    labelled: list[Field] = []
    qualities: list[dict[str, Any]] = []
    for done, (row, name) in enumerate(zip(wanted, row_names(wanted), strict=True)):
        progress(done, len(wanted))
        path = folder / f"{name}_mask.ome.tif"
        found = label_row(row, path, threshold)
        for one in found:
            if twin := outlined.get((row.line, one["plane"])):
                one |= _held_against(path, twin, one["plane"], kind)
        qualities += found
        labelled.append(replace(row, mask=path, label="dye"))
    quality = pd.DataFrame(qualities)
    measure_shifts(labelled, quality, settings.align)
    used, said = judge(labelled, quality)
    ends = f"structures in masks from the dye end at {threshold:.2f} of their peak's brightness"
    notices = [*said, Note(ends), *_agreement(quality)]
    progress(len(wanted), len(wanted))
    made = dict(zip(map(id, wanted), used, strict=True))
    kept = (made.get(id(row), row) for row in rows)
    return [row for row in kept if row.planes], quality, notices


def label_row(row: Field, path: Path, threshold: float = THRESHOLD) -> list[dict[str, Any]]:
    """Make the masks of a row's planes, and write them as a stack as deep as the image's.

    Planes that the row does not name, or that show no dye, are unsure.

    Returns
    -------
    list of dict
        For each plane: where it is, and how far its dye can be trusted.
    """
    image = open_fluorescence(row)
    masks = np.full([image.sizes[axis] for axis in "ZYX"], UNSURE, np.uint8)
    rows = []
    for z, labels in label_planes(row, image, threshold=threshold):
        masks[z], quality = labels.mask, labels.quality
        rows.append(
            {
                "line": row.line, "image": row.image.name, "scene": row.scene, "plane": z,
                "specimen": row.specimen, "condition": row.condition, "batch": row.batch,
                "has_dye": quality.has_dye,
                **asdict(quality),
                "shift_y_um": float("nan"), "shift_x_um": float("nan"), "moved": False,
                "mask": path.name, "verdict": str(quality),
            }
        )  # fmt: skip
    write_masks(path, masks, image)
    return rows


def label_planes(
    row: Field, image: xr.DataArray, **settings: float
) -> Iterator[tuple[int, DyeLabels]]:
    """Yield each plane of a row with its mask from the dye; ``settings`` are those of `label_dye`.

    Raises
    ------
    MitolumeError
        The pixel size is unknown, or pixels can't be read.
    """
    size = plane_pixel_size(image)
    if size is None:
        raise MitolumeError(
            f"{image.attrs['source']} states no pixel size, which says how wide a mitochondrion "
            "is; fill in column `pixel_size_um` (on the command line --pixel-size)"
        )
    step = image.attrs["pixel_size_um"].get("Z")
    reach, depth = max(planes_near(step), default=0), image.sizes["Z"]
    others = _other_dyes(row, image)
    near: dict[int, Any] = {}
    for z in row.planes if row.planes is not None else range(depth):
        first = max(z - reach, 0)
        wanted = range(first, min(z + reach + 1, depth))
        near = {n: near[n] if n in near else read_plane(image, z=n) for n in wanted}
        try:
            labels = label_dye(
                np.stack([*near.values()]),
                float(np.mean(size)),
                z=z - first,
                z_step_um=step,
                others=[read_plane(other, z=z) for other in others],
                **settings,
            )
        except MitolumeError as error:
            raise MitolumeError(f"{image.attrs['source']}: {error}") from None
        yield z, labels


def _other_dyes(row: Field, dye: xr.DataArray) -> list[xr.DataArray]:
    """Open the other channels of fluorescence in the image's file; none where light is unknown."""
    if isinstance(row.fluorescence, Path) or not row.channel:
        return []
    every = read(row.image, scene=row.scene or None)
    light, _ = transmitted_channel([*every["C"].values], every.attrs.get("channel_light", ()))
    known = {str(one["C"].item()) for one in (dye, open_image(row))}
    others = (n for n, name in enumerate(every["C"].values) if str(name) not in known)
    return [every.isel(C=[n]) for n in others if n not in light]


def _outline(row: Field, z: int, kind: MaskKind) -> Mask:
    mask = read_row(row, z, kind)[1]
    assert mask is not None, "the row is outlined"
    return mask


def _held_against(path: Path, row: Field, z: int, kind: MaskKind) -> dict[str, float]:
    """Compare a plane's mask from the dye with its outline: their IoU, and the areas' ratio."""
    counts = count_pixels(np.asarray(read_plane(read(path), z=z)), _outline(row, z, kind))
    areas = ratio(counts.tp + counts.fp, counts.tp + counts.fn)
    return {"agreement": iou(counts), "dye_to_outline_area": areas}


def _chosen_on_outlines(rows: Sequence[Field], kind: MaskKind) -> float:
    """Return the threshold that fits the outlines of training images best."""
    outlined = [r for r in rows if r.fluorescence and r.is_outlined and r.role == "train"]
    planes = [(row, z) for row in outlined for z in row.planes or ()]
    scores, masks = [], []
    for row, z in spread(planes, MOST_OUTLINED):
        ((_, labels),) = label_planes(with_planes(row, [z]), open_fluorescence(row))
        if labels.quality.has_dye:
            scores.append(labels.score)
            masks.append(_outline(row, z, kind))
    return choose_threshold(scores, masks)


def _agreement(quality: pd.DataFrame) -> list[str]:
    """Say how far outlines and masks from the dye agree."""
    if "agreement" not in quality or not len(both := quality.dropna(subset="agreement")):
        return []
    least = both.sort_values("agreement", kind="stable").iloc[0]
    return [
        f"outlines and masks from the dye agree with a mean IoU of {both['agreement'].mean():.2f} "
        f"on {count(len(both), 'training image')}, least on {least['image']} "
        f"({least['agreement']:.2f}): look there at which of them is off"
    ]
