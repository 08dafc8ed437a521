"""Mask files of two annotators: how far they agree, their consensus, the ceiling of scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from mitolume.analysis.agreement import (
    PIXELS,
    area_ratio,
    consensus,
    mean_interval,
    outline_distance,
)
from mitolume.analysis.metrics import Counts, count, dice, iou, mean_defined
from mitolume.batch.evaluate import MaskPair, match_files, open_pairs
from mitolume.batch.runner import refuse_inputs, require_free
from mitolume.errors import MitolumeError, in_words, some_names
from mitolume.io.fields import asked_planes
from mitolume.io.mask_files import image_name
from mitolume.io.masks import UNSURE, Mask
from mitolume.io.pixel_size import plane_pixel_size
from mitolume.io.write import write_mask
from mitolume.runs.results import write_csv
from mitolume.text import number

SCORES = {"iou": iou, "dice": dice, "area_ratio_a_to_b": area_ratio}
DISTANCES = "outline_mean_um", "outline_95_percent_um", "outline_mean_px", "outline_95_percent_px"
_TITLES = "IoU", "Dice", "A/B area", "apart", "95 % apart"
COLUMNS = ("image", "plane", "file_a", "file_b", *PIXELS, *SCORES, *DISTANCES)


@dataclass(frozen=True, eq=False)
class Agreement:
    """The masks of two annotators, A and B, compared: a row of `COLUMNS` for each plane."""

    a: Path
    b: Path
    planes: pd.DataFrame
    notices: tuple[str, ...]


def agree(
    a: Path,
    b: Path,
    mask_kind: str = "auto",
    *,
    like: Path | None = None,
    planes: str = "",
    out: Path | None = None,
    consensus_folder: Path | None = None,
    overwrite: bool = False,
) -> Agreement:
    """Compare the masks of two annotators, and write what is asked for.

    Parameters
    ----------
    a, b
        Two files, or two folders whose files are matched by name (endings and ``_mask`` ignored).
        An image that only one of the two has is left out, and named in the notices.
    mask_kind
        What the values mean: ``auto``, ``unsure`` or ``labels``.
    like
        The image, or folder of images, that outlines were drawn on.
    planes
        The planes that are compared, such as ``0-9``; by default those that either labels.
    out
        CSV file for the table of planes.
    consensus_folder
        Folder for ``NAME_mask.ome.tif`` of every image: 255 where the two disagree.
    overwrite
        Replace these files if they exist.

    Raises
    ------
    MitolumeError
        A file is missing or unreadable, no names match, sizes differ, or values mean nothing; a
        file exists already, or the folder is one of the two annotators'.
    """
    files = match_files(a, b)
    masks: list[Path] = []
    if consensus_folder is not None:
        if consensus_folder.resolve() in (a.resolve(), b.resolve()):
            raise MitolumeError(
                f"--consensus {consensus_folder} is a folder of masks that are compared; choose a "
                "new one"
            )
        masks = [consensus_folder / f"{image_name(f)}_mask.ome.tif" for f, _ in files.both]
    refuse_inputs([*masks, out], files.all)
    require_free([*masks, *([out] if out else [])], replace=overwrite)
    pairs, notices = open_pairs(files, mask_kind, like, asked_planes(planes), (0, 1))
    notices += [
        f"{len(alone)} of {len(alone) + len(files.both)} masks in {folder} have no partner and are "
        f"left out ({some_names(alone)})"
        for folder, alone in ((a, files.only_first), (b, files.only_second))
        if alone
    ]
    rows = []
    for pair in pairs:
        size, notice = _pixel_size(pair)
        notices += [notice] if notice else []
        head = {"image": image_name(pair.paths[0])}
        head |= {"file_a": str(pair.paths[0]), "file_b": str(pair.paths[1])}
        for plane, mask_a, mask_b in pair.planes():
            rows.append(head | {"plane": plane} | _plane(mask_a, mask_b, size))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    whole = all(len(pair.scored) == pair.images[0].sizes["Z"] for pair in pairs)
    if whole and (table["iou"].dropna() == 1).all() and table["iou"].notna().any():
        notices.append("A and B are the same in every sure pixel; a copy is not a second opinion")
    if out is not None:
        write_csv(out, table)
    for path, pair in zip(masks, pairs, strict=False):  # no masks without a folder
        _write_consensus(path, pair)
    if masks:
        # Where nobody agrees on any mitochondria a mask holds 0 and 255 only, which reads as
        # labels.
        notices.append(
            f"consensus in {consensus_folder}, masks: {len(masks)}; 255 is where the two disagree "
            "(in recipes: mask_kind: unsure)"
        )
    return Agreement(a, b, table, tuple(notices))


def _pooled(planes: pd.DataFrame) -> dict[str, Any]:
    """Put planes together: pixels are summed, distances averaged where defined."""
    counts = Counts(*planes[list(PIXELS)].sum().tolist())
    scores = {name: score(counts) for name, score in SCORES.items()}
    return scores | {name: mean_defined(planes[name]) for name in DISTANCES}


def _write_consensus(path: Path, pair: MaskPair) -> None:
    """Write the consensus of an image: where both agree, else 255, as on planes not compared."""
    stack = np.full([pair.images[0].sizes[axis] for axis in "ZYX"], UNSURE, np.uint8)
    for z, a, b in pair.planes():
        stack[z] = consensus(a, b)
    mask = xr.DataArray(stack, dims=("Z", "Y", "X"))
    if _pixel_size(pair)[0]:
        first, second = (image.attrs.get("pixel_size_um", {}) for image in pair.images)
        mask.attrs["pixel_size_um"] = second | first
    write_mask(path, mask)


def _plane(a: Mask, b: Mask, size: tuple[float, float] | None) -> dict[str, Any]:
    counts = count(a, b)
    pixels = (counts.tp, counts.fp, counts.fn, counts.tn, counts.n_unsure)
    unit = "um" if size else "px"
    mean, percentile_95 = outline_distance(a, b, size or (1, 1))
    return {
        **dict(zip(PIXELS, pixels, strict=True)),
        **{name: score(counts) for name, score in SCORES.items()},
        f"outline_mean_{unit}": mean,
        f"outline_95_percent_{unit}": percentile_95,
    }


def _pixel_size(pair: MaskPair) -> tuple[tuple[float, float] | None, str]:
    """Along Y and X in µm, from whichever file states it; None where they contradict each other."""
    stated = [size for image in pair.images if (size := plane_pixel_size(image))]
    if not stated:
        return None, ""
    if not np.allclose(stated[0], stated[-1], rtol=0.01, atol=0):
        said = " and ".join(
            f"{y:g} x {x:g} µm in {path}" for (y, x), path in zip(stated, pair.paths, strict=True)
        )
        return None, f"pixels (Y x X) are {said}, so distances there are in pixels"
    return stated[0], ""


def agreement_text(found: Agreement) -> str:
    """Return the table of a comparison for a terminal, and what it means in plain words."""
    groups = {str(image): planes for image, planes in found.planes.groupby("image", sort=False)}
    images, pooled = [_pooled(planes) for planes in groups.values()], _pooled(found.planes)
    cells = [_cells(row) for row in [*images, pooled]]
    lines = [f"A: {found.a}", f"B: {found.b}", ""]
    lines += [pd.DataFrame(cells, [*groups, "all together"], _TITLES).to_string(), ""]
    if n := sum(math.isnan(row["iou"]) for row in images):
        lines.append(f"images without a mark of either: {n}; undefined, left out of the mean")
    either = found.planes["outline_mean_um"].fillna(found.planes["outline_mean_px"])
    if n := int(either.isna().sum()):
        lines.append(f"planes without an outline of one or both: {n}; no distance, not in its mean")
    lines += ["together: pixels of all planes summed, distances averaged over planes"]
    lines += [f"note: {notice}" for notice in found.notices]
    return "\n".join([*lines, "", _ceiling_text(_ceiling(found.planes))])


def _ceiling_text(ceiling: Ceiling | None) -> str:
    """Say what two people's agreement means for models."""
    if ceiling is None:
        return "Neither of the two marked anything, so there is nothing to agree on."
    n = ceiling.n_images
    these = f"these {n} images (mean over images)" if n > 1 else "this one image"
    text = (
        f"Two people agree to IoU {ceiling.iou_image:.2f} on {these}: no model can be shown to be "
        "better than that against either of them. A higher score shows whose hand it learned from."
    )
    if ceiling.interval is None:
        return f"{text}\nNo interval is given for fewer than 3 images."
    low, high = ceiling.interval
    return (
        f"{text}\n95 % t interval of the mean over images: {low:.2f} to {high:.2f}. Images are not "
        "specimens: images of one dish are alike, and the interval says nothing of other dishes."
    )


def _cells(row: dict[str, Any]) -> list[str]:
    distances = (_distance(row, name) for name in ("outline_mean", "outline_95_percent"))
    return [*(number(row[name]) for name in SCORES), *distances]


def _distance(row: dict[str, Any], name: str) -> str:
    um, px = row[f"{name}_um"], row[f"{name}_px"]
    if not math.isnan(um + px):
        return "both units"
    shown = um if math.isnan(px) else px
    return number(shown, 2) + ("" if math.isnan(shown) else " px" if math.isnan(um) else " µm")


@dataclass(frozen=True)
class Ceiling:
    """Foreground IoU of two annotators with each other: what a model can be shown to reach."""

    iou: float
    """All pixels together."""
    iou_image: float
    """Mean over images."""
    interval: tuple[float, float] | None
    """95 % t interval of the mean over images; None for fewer than 3 images."""
    n_images: int
    """Images that either annotator marked anything in."""


def ceiling_of(path: Path) -> Ceiling:
    """Read the table that ``mitolume evaluate A B --agreement --out`` wrote.

    Raises
    ------
    MitolumeError
        The file is missing, no such table, or its images hold no mark of either annotator.
    """
    try:
        kinds: Any = {"image": str} | dict.fromkeys(PIXELS, "int64")
        table = pd.read_csv(path, usecols=list(kinds), dtype=kinds)
        if (table[list(PIXELS)] < 0).to_numpy().any():
            raise MitolumeError(f"{path} is not a table of agreement: a number is negative")
    except FileNotFoundError:
        raise MitolumeError(f"{path}: no such file") from None
    except (ValueError, OSError) as error:
        raise MitolumeError(
            f"{path} is not a table of agreement ({in_words(error)}); write one with mitolume "
            "evaluate A B --agreement --out agreement.csv"
        ) from error
    if (ceiling := _ceiling(table)) is None:
        raise MitolumeError(f"{path}: neither annotator marked anything, so there is no agreement")
    return ceiling


def _ceiling(planes: pd.DataFrame) -> Ceiling | None:
    """Return how far two annotators agree on images, None where neither marked anything."""
    images = planes.groupby("image", sort=False, dropna=False)[list(PIXELS)].sum()
    ious = [iou(Counts(*row)) for row in images.to_numpy().tolist()]
    defined = [value for value in ious if not math.isnan(value)]
    if not defined:
        return None
    interval = mean_interval(defined)
    return Ceiling(
        iou=iou(Counts(*images.sum().tolist())),
        iou_image=mean_defined(defined),
        interval=None if math.isnan(interval[0]) else interval,
        n_images=len(defined),
    )
