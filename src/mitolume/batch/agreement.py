"""Mask files of two annotators: how far they agree, and their consensus."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from mitolume.analysis.agreement import (
    PIXELS,
    agreement_share,
    area_ratio,
    cohen_kappa,
    consensus,
    mean_interval,
    outline_distance,
    shared_objects,
)
from mitolume.analysis.metrics import Counts, count, dice, iou, mean_defined
from mitolume.batch.evaluate import (
    MaskPair,
    match_files,
    notices_of,
    open_pairs,
    write_once,
)
from mitolume.batch.runner import Report
from mitolume.errors import MitolumeError, some_names
from mitolume.io.mask_files import image_name
from mitolume.io.masks import Mask
from mitolume.io.pixel_size import plane_pixel_size
from mitolume.io.write import write_mask
from mitolume.runs.results import write_csv

SCORES = {
    "iou": iou,
    "dice": dice,
    "kappa": cohen_kappa,
    "agreement_share": agreement_share,
    "area_ratio_a_to_b": area_ratio,
}
OBJECTS = (
    "n_objects_a", "n_objects_a_touched_by_b", "n_objects_a_half_in_b",
    "n_objects_b", "n_objects_b_touched_by_a", "n_objects_b_half_in_a",
)  # fmt: skip
DISTANCES = (
    "outline_mean_um", "outline_95_percent_um", "outline_mean_px", "outline_95_percent_px",
)  # fmt: skip
COLUMNS = ("image", "plane", "file_a", "file_b", *PIXELS, *SCORES, *OBJECTS, *DISTANCES)


@dataclass(frozen=True, eq=False)
class Agreement:
    """Two annotators' masks of the same images, compared."""

    planes: pd.DataFrame
    """A row for each plane, with the columns `COLUMNS`."""
    pairs: tuple[MaskPair, ...]
    notices: tuple[str, ...]
    """What the reader should know: images of one annotator only, odd pixel sizes."""


def agree(a: Path, b: Path, mask_kind: str = "auto", like: Path | None = None) -> Agreement:
    """Compare the masks of two annotators.

    Parameters
    ----------
    a, b
        Two files, or two folders whose files are matched by name (endings and ``_mask`` ignored).
        An image that only one of the two has is left out, and named in the notices.
    mask_kind
        What the values mean: ``auto``, ``unsure`` or ``labels``.
    like
        The image, or folder of images, that outlines were drawn on.

    Raises
    ------
    MitolumeError
        A file is missing or unreadable, no names match, sizes differ, or values mean nothing.
    """
    files = match_files(a, b)
    notices = [*files.notices]
    notices += [
        f"{len(alone)} of {len(alone) + len(files.both)} masks in {folder} have no partner and are "
        f"left out ({some_names(alone)})"
        for folder, alone in ((a, files.only_first), (b, files.only_second))
        if alone
    ]
    pairs = tuple(open_pairs(files.both, mask_kind, like))
    notices += notices_of(pairs)
    rows = []
    for pair in pairs:
        size, notice = _pixel_size(pair)
        notices += [notice] if notice else []
        head = {"image": image_name(pair.paths[0])}
        head |= {"file_a": str(pair.paths[0]), "file_b": str(pair.paths[1])}
        for plane, mask_a, mask_b in pair.planes():
            rows.append(head | {"plane": plane} | _plane(mask_a, mask_b, size))
    planes = pd.DataFrame(rows, columns=list(COLUMNS))
    if (planes["iou"].dropna() == 1).all() and planes["iou"].notna().any():
        notices.append("A and B are the same in every sure pixel; a copy is no second opinion")
    return Agreement(planes, pairs, tuple(notices))


def summarise_planes(planes: pd.DataFrame) -> dict[str, Any]:
    """Put planes together: pixels and objects are summed, distances averaged where defined.

    Parameters
    ----------
    planes
        Rows of agreement.csv, of one image or of many.

    Returns
    -------
    dict
        The columns `PIXELS`, `SCORES`, `OBJECTS` and `DISTANCES`.
    """
    sums = {name: int(planes[name].sum()) for name in (*PIXELS, *OBJECTS)}
    counts = Counts(*(sums[name] for name in PIXELS))
    scores = {name: score(counts) for name, score in SCORES.items()}
    return sums | scores | {name: mean_defined(planes[name]) for name in DISTANCES}


def summarise_images(planes: pd.DataFrame) -> pd.DataFrame:
    """Put the planes of each image together (see `summarise_planes`), a row for each image."""
    rows = [
        {"image": image} | summarise_planes(group)
        for image, group in planes.groupby("image", sort=False)
    ]
    return pd.DataFrame(rows)


def write_consensus(folder: Path, found: Agreement) -> None:
    """Write the consensus of every image as ``NAME_mask.ome.tif``: where both agree, else 255."""
    for pair in found.pairs:
        stack = np.stack([consensus(a, b) for _, a, b in pair.planes()])
        mask = xr.DataArray(stack, dims=("Z", "Y", "X"))
        if _pixel_size(pair)[0]:
            first, second = (image.attrs.get("pixel_size_um", {}) for image in pair.images)
            mask.attrs["pixel_size_um"] = second | first
        path = _consensus_path(folder, pair.paths[0])
        write_mask(path, mask if len(stack) > 1 else mask.isel(Z=0))


def _plane(a: Mask, b: Mask, size: tuple[float, float] | None) -> dict[str, Any]:
    counts = count(a, b)
    pixels = (counts.tp, counts.fp, counts.fn, counts.tn, counts.n_unsure)
    of_a, of_b = shared_objects(a, b), shared_objects(b, a)
    objects = (of_a.n, of_a.n_touched, of_a.n_half, of_b.n, of_b.n_touched, of_b.n_half)
    unit = "um" if size else "px"
    distance = outline_distance(a, b, size or (1, 1))
    return {
        **dict(zip(PIXELS, pixels, strict=True)),
        **{name: score(counts) for name, score in SCORES.items()},
        **dict(zip(OBJECTS, objects, strict=True)),
        f"outline_mean_{unit}": distance.mean,
        f"outline_95_percent_{unit}": distance.percentile_95,
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


def _consensus_path(folder: Path, first: Path) -> Path:
    return folder / f"{image_name(first)}_mask.ome.tif"


_TITLES = (
    "IoU", "Dice", "kappa", "agree", "A/B area", "apart", "95 % apart", "objects A", "objects B",
)  # fmt: skip


def compare(
    a: Path,
    b: Path,
    mask_kind: str = "auto",
    *,
    like: Path | None = None,
    out: Path | None = None,
    consensus_folder: Path | None = None,
    overwrite: bool = False,
) -> str:
    """Compare two annotators, write what is asked for, and say what was found.

    Parameters
    ----------
    a, b, mask_kind, like
        As for `agree`.
    out
        Where to write the table of planes (CSV).
    consensus_folder
        Where to write ``NAME_mask.ome.tif`` of every image, see `consensus`.
    overwrite
        Replace these files if they exist.

    Returns
    -------
    str
        Text for a terminal.

    Raises
    ------
    MitolumeError
        As from `agree`; a file exists already, or the folder is one of the two annotators'.
    """
    results = [] if out is None else [out]
    if consensus_folder is not None:
        if consensus_folder.resolve() in (a.resolve(), b.resolve()):
            raise MitolumeError(
                f"--consensus {consensus_folder} is a folder of masks that are compared; choose a "
                "new one"
            )
        pairs = match_files(a, b).both
        results += [_consensus_path(consensus_folder, first) for first, _ in pairs]
    texts: list[str] = []

    def compute(advance: Callable[[int], None]) -> Report:
        found = agree(a, b, mask_kind, like)
        texts.append(f"A: {a}\nB: {b}\n\n{agreement_text(found)}")
        if out is not None:
            write_csv(out, found.planes)
        if consensus_folder is not None:
            write_consensus(consensus_folder, found)
            # Where nobody agrees on any mitochondria a mask holds 0 and 255 only, which reads as
            # labels.
            texts.append(
                f"consensus in {consensus_folder}, masks: {len(found.pairs)}; 255 is where the two "
                "disagree (in recipes: mask_kind: unsure)"
            )
        return Report()

    write_once(a, b, results, compute, overwrite=overwrite)
    return "\n".join(texts)


def agreement_text(found: Agreement) -> str:
    """Return the table of a comparison for a terminal, and what it means in plain words."""
    images, pooled = summarise_images(found.planes), summarise_planes(found.planes)
    names = [*images["image"], "all together"]
    width = min(40, max(len(name) for name in names))
    lines = [" " * width + "".join(f"{title:>11}" for title in _TITLES)]
    rows: list[Any] = [*images.to_dict("records"), pooled]
    for name, row in zip(names, rows, strict=True):
        shown = name if len(name) <= width else f"{name[: width - 1]}…"
        lines.append(f"{shown:<{width}}" + "".join(f"{cell:>11}" for cell in _cells(row)))
    lines += ["", *_objects_text(pooled), *_undefined_text(found.planes, images)]
    lines += ["together: pixels and objects of each plane summed, distances averaged over planes"]
    lines += [f"note: {notice}" for notice in found.notices]
    return "\n".join([*lines, "", ceiling_text(images["iou"].tolist())])


def ceiling_text(ious: list[float]) -> str:
    """Say what two people's agreement means for models.

    Parameters
    ----------
    ious
        Foreground IoU of each image; NaN where neither marked anything.
    """
    defined = [value for value in ious if not math.isnan(value)]
    if not defined:
        return "Neither of the two marked anything, so there is nothing to agree on."
    n = len(defined)
    these = f"these {n} images" if n > 1 else "this one image"
    mean = f"{mean_defined(defined):.2f}"
    text = (
        f"Two people agree to IoU {mean} on {these}{' (mean over images)' if n > 1 else ''}: no "
        "model can be shown to be better than that against either of them. A higher score shows "
        "whose hand it learned from."
    )
    low, high = mean_interval(defined)
    if math.isnan(low):
        return f"{text}\nNo interval is given for fewer than 3 images."
    return (
        f"{text}\n95 % t interval of the mean over images: {low:.2f} to {high:.2f}. Images are not "
        "specimens: images of one dish are alike, and the interval says nothing of other dishes."
    )


def _cells(row: dict[str, Any]) -> list[str]:
    scores = ["undefined" if math.isnan(row[name]) else f"{row[name]:.3f}" for name in SCORES]
    return [*scores, *_distances(row), str(row["n_objects_a"]), str(row["n_objects_b"])]


def _distances(row: dict[str, Any]) -> list[str]:
    cells = []
    for name in ("outline_mean", "outline_95_percent"):
        defined = [
            f"{value:.2f} {unit}"
            for end, unit in (("um", "µm"), ("px", "px"))
            if not math.isnan(value := row[f"{name}_{end}"])
        ]
        cells.append(defined[0] if len(defined) == 1 else "both units" if defined else "undefined")
    return cells


def _objects_text(pooled: dict[str, Any]) -> list[str]:
    lines = []
    for one, other in ("ab", "ba"):
        n, half = pooled[f"n_objects_{one}"], pooled[f"n_objects_{one}_half_in_{other}"]
        touched = pooled[f"n_objects_{one}_touched_by_{other}"]
        share = f" ({100 * half / n:.0f} %)" if n else ""
        lines.append(
            f"of {n} objects of {one.upper()}, {other.upper()} marked at least half of "
            f"{half}{share} and touched {touched}"
        )
    return lines


def _undefined_text(planes: pd.DataFrame, images: pd.DataFrame) -> list[str]:
    lines = []
    if n := int(images["iou"].isna().sum()):
        lines.append(f"images without a mark of either: {n}; undefined, left out of the mean")
    either = planes["outline_mean_um"].fillna(planes["outline_mean_px"])
    if n := int(either.isna().sum()):
        lines.append(f"planes without an outline of one or both: {n}; no distance, not in its mean")
    return lines
