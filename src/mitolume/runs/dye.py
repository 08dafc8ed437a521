"""Masks made from the dye, for the images of a table that nobody outlined."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import xarray as xr

from mitolume.analysis.dye_contrast import planes_near
from mitolume.analysis.dye_labels import THRESHOLD, DyeLabels, choose_threshold, label_dye
from mitolume.analysis.metrics import count as count_pixels
from mitolume.analysis.metrics import iou
from mitolume.errors import MitolumeError, some_names
from mitolume.io.alignment import find_shift, measure_fit
from mitolume.io.check import open_fluorescence, read_row
from mitolume.io.fields import Field, row_names, with_planes
from mitolume.io.masks import FOREGROUND, UNSURE, Mask, MaskKind
from mitolume.io.pixel_size import plane_pixel_size
from mitolume.io.read import read, read_plane
from mitolume.io.write import write_mask
from mitolume.runs.recipe import DyeSettings
from mitolume.text import count

MOST_OUTLINED = 24  # planes with outlines, spread over all, that choose the threshold
MOST_COMPARED = 24  # planes of a batch, spread over all, on which a shift is measured
MOST_SHIFTED_UM = 1.5  # three widths of a mitochondrion: beyond, channels show different places
WEAKER = 3.0  # times less signal over noise than the median image, which is then named
MOST_FOREGROUND = 0.3  # share of a plane; mitochondria of a spread cell cover a fifth at most
MOST_SATURATED = 0.002  # share of a plane's pixels: about a fiftieth of its mitochondria
Item = TypeVar("Item")


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """Return at most so many items, spread over all from end to end.

    Examples
    --------
    >>> spread("abcdefghi", 3)
    ['a', 'e', 'i']
    """
    return [
        items[i] for i in np.linspace(0, len(items) - 1, min(len(items), most)).round().astype(int)
    ]


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
        The rows in their order, labelled ones with their mask and without the planes that show no
        dye; a row for each plane that was looked at; what the user should know.

    Raises
    ------
    MitolumeError
        The pixel size of a row is unknown, its pixels can't be read, or its dye is shifted too far.
    """
    wanted = [row for row in rows if needs_mask(row)]
    given = None if settings.threshold == "auto" else settings.threshold
    threshold = given or _chosen_on_outlines(rows, kind)
    outlined = {(row.line, z): row for row in rows if row.is_outlined for z in row.planes or ()}
    labelled: dict[int, Field] = {}
    qualities: list[dict[str, Any]] = []
    for done, (row, name) in enumerate(zip(wanted, row_names(wanted), strict=True)):
        progress(done, len(wanted))
        path = folder / f"{name}_mask.ome.tif"
        found = label_row(row, path, threshold)
        for one in found:
            if twin := outlined.get((row.line, one["plane"])):
                one |= _held_against(path, twin, one["plane"], kind)
        qualities += found
        shown = [one["plane"] for one in found if one["has_dye"]]
        labelled[id(row)] = replace(with_planes(row, shown), mask=path, label="dye")
    quality = pd.DataFrame(qualities)
    used = [row for row in labelled.values() if row.planes]
    n_used = int(quality["has_dye"].sum())
    notices = [
        f"{count(len(quality), 'image')} with a dye to make a mask of, {n_used} used (structures "
        f"end at {threshold:.2f} of the local peak)",
        *_agreement(quality),
        *quality_notices(quality),
        *register(used, settings.align),
    ]
    progress(len(wanted), len(wanted))
    kept = (labelled.get(id(row), row) for row in rows)
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
    for z, labels in label_planes(row, image, threshold):
        masks[z], quality = labels.mask, labels.quality
        rows.append(
            {
                "line": row.line, "image": row.image.name, "plane": z, "specimen": row.specimen,
                "condition": row.condition, "batch": row.batch, "has_dye": quality.has_dye,
                "signal_to_noise": quality.signal_to_noise, "foreground": quality.foreground,
                "unsure": quality.unsure, "saturated": quality.saturated, "verdict": str(quality),
            }
        )  # fmt: skip
    size = image.attrs.get("pixel_size_um", {})
    stack = xr.DataArray(masks, dims=("Z", "Y", "X"), attrs={"pixel_size_um": size})
    write_mask(path, stack if len(masks) > 1 else stack.isel(Z=0))
    return rows


def label_planes(
    row: Field, image: xr.DataArray, threshold: float = THRESHOLD
) -> Iterator[tuple[int, DyeLabels]]:
    """Yield each plane of a row with its mask from the dye.

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
                threshold=threshold,
            )
        except MitolumeError as error:
            raise MitolumeError(f"{image.attrs['source']}: {error}") from None
        yield z, labels


def _outline(row: Field, z: int, kind: MaskKind) -> Mask:
    mask = read_row(row, z, kind)[1]
    assert mask is not None, "the row is outlined"
    return mask


def _held_against(path: Path, row: Field, z: int, kind: MaskKind) -> dict[str, float]:
    """Compare a plane's mask from the dye with its outline: their IoU, and the areas' ratio."""
    counts = count_pixels(np.asarray(read_plane(read(path), z=z)), _outline(row, z, kind))
    drawn = counts.tp + counts.fn
    return {
        "agreement": iou(counts),
        "dye_to_outline_area": (counts.tp + counts.fp) / drawn if drawn else float("nan"),
    }


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


def quality_notices(quality: pd.DataFrame) -> list[str]:
    """Name the images whose dye is missing, weak, saturated, or hardly that of mitochondria."""
    said = []
    without = quality[~quality["has_dye"]]
    if len(without):
        said.append(
            f"no dye to make a mask of in {count(len(without), 'image')}, left out: "
            f"{some_names(list(without['image']))}"
        )
    used = quality[quality["has_dye"]]
    weak = used[used["signal_to_noise"] < used["signal_to_noise"].median() / WEAKER]
    if len(weak):
        said.append(
            f"{some_names(list(weak['image']))}: the dye is {WEAKER:g} times weaker than usual or "
            "more (signal over noise); if these cells lost their potential, outline some by hand"
        )
    full = used[used["foreground"] > MOST_FOREGROUND]
    if len(full):
        said.append(
            f"{some_names(list(full['image']))}: the dye marks up to "
            f"{full['foreground'].max():.0%} of the image; is this the channel of mitochondria?"
        )
    burnt = quality[quality["saturated"] > MOST_SATURATED]
    if len(burnt):
        said.append(
            f"{some_names(list(burnt['image']))}: the dye is saturated in up to "
            f"{burnt['saturated'].max():.1%} of the pixels, and structures with such pixels are "
            "unsure; record it darker"
        )
    return said


def register(rows: Sequence[Field], move: bool) -> list[str]:
    """Measure how far the dye lies from what transmitted light shows, batch by batch.

    Parameters
    ----------
    rows
        With masks that were made from the dye, and the channel of transmitted light.
    move
        Whether to move the masks back, in their files.

    Returns
    -------
    list of str
        A sentence for each batch whose dye is shifted.

    Raises
    ------
    MitolumeError
        The shift is more than `MOST_SHIFTED_UM`: then the channels show different places.
    """
    batches: dict[str, list[Field]] = defaultdict(list)
    for row in rows:
        batches[row.batch].append(row)
    said = []
    for batch, own in batches.items():
        planes = [(row, z) for row in own for z in row.planes or ()]
        evidence = []
        for row, z in spread(planes, MOST_COMPARED):
            plane, mask = read_row(row, z, "unsure")
            if mask is not None and (mask == FOREGROUND).any():
                evidence.append(measure_fit(plane, mask))
        shift = find_shift(evidence, least=1)
        if shift is None:
            continue
        size = plane_pixel_size(open_fluorescence(own[0])) or (1.0, 1.0)
        down, right = (px * um for px, um in zip(shift, size, strict=True))
        where = (
            f"the dye{f' of batch {batch}' if batch else ''} lies {down:+.2f} µm (y) and "
            f"{right:+.2f} µm (x) from what transmitted light shows, measured on "
            f"{len(evidence)} images"
        )
        if np.hypot(down, right) > MOST_SHIFTED_UM:
            raise MitolumeError(f"{where}; align the channels before you train on the dye")
        if not move:
            said.append(f"{where}; --set dye.align=true moves the masks (label: --align)")
            continue
        for path in {row.mask for row in own if row.mask}:
            _move(path, (-shift[0], -shift[1]))
        said.append(f"{where}; the masks were moved back")
    return said


def _move(path: Path, by: tuple[int, int]) -> None:
    """Move a mask by whole pixels along Y and X; what was beyond its edge is unsure."""
    mask = read(path).isel(T=0, C=0, drop=True)
    moved = mask.compute().shift(Y=by[0], X=by[1], fill_value=UNSURE)
    write_mask(path, moved if moved.sizes["Z"] > 1 else moved.isel(Z=0))
