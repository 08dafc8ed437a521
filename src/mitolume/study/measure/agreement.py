"""Mask files of two annotators: how far they agree, and their consensus. Knows no model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from mitolume.analysis.agreement import (
    agreement_share,
    area_ratio,
    cohen_kappa,
    consensus,
    outline_distance,
    shared_objects,
)
from mitolume.analysis.metrics import Counts, count, dice, iou, mean_defined
from mitolume.errors import MitolumeError
from mitolume.io.masks import Mask
from mitolume.io.pixel_size import plane_pixel_size
from mitolume.io.write import write_mask
from mitolume.study.measure.mask_pairs import (
    MaskPair,
    mask_name,
    match_files,
    open_pairs,
    outline_notices,
    some_names,
)

# Columns of agreement.csv, a row for each plane.
PIXELS = ("n_both_px", "n_only_a_px", "n_only_b_px", "n_neither_px", "n_unsure_px")
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
    notices = [
        f"{len(alone)} of {len(alone) + len(files.both)} masks in {folder} have no partner and are "
        f"left out ({some_names(alone)})"
        for folder, alone in ((a, files.only_first), (b, files.only_second))
        if alone
    ]
    pairs = tuple(open_pairs(files.both, mask_kind, like))
    notices += outline_notices(pairs)
    rows = []
    for pair in pairs:
        size, notice = _pixel_size(pair)
        notices += [notice] if notice else []
        head = {"image": mask_name(pair.paths[0])}
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


def require_free(folder: Path, a: Path, b: Path) -> None:
    """Refuse a folder for the consensus that a mask would be overwritten or mistaken in.

    Raises
    ------
    MitolumeError
        It is one of the annotators' own folders, or holds a mask of a name to be written.
    """
    if folder.resolve() in (a.resolve(), b.resolve()):
        raise MitolumeError(
            f"--consensus {folder} is a folder of masks that are compared; choose a new one"
        )
    targets = [_consensus_path(folder, pair[0]) for pair in match_files(a, b).both]
    if there := [path for path in targets if path.exists()]:
        raise MitolumeError(
            f"{folder} holds a consensus already ({some_names(there)}); choose another --consensus"
        )


def write_consensus(folder: Path, found: Agreement) -> list[Path]:
    """Write the consensus of every image: 0 and 1 where both agree, else 255.

    Parameters
    ----------
    folder
        Where ``NAME_mask.ome.tif`` is written; `require_free` has found it good.
    found
        What `agree` returned.

    Returns
    -------
    list of pathlib.Path
        The files.
    """
    paths = []
    for pair in found.pairs:
        stack = np.stack([consensus(a, b) for _, a, b in pair.planes()])
        mask = xr.DataArray(stack, dims=("Z", "Y", "X"))
        if _pixel_size(pair)[0]:
            first, second = (image.attrs.get("pixel_size_um", {}) for image in pair.images)
            mask.attrs["pixel_size_um"] = second | first
        paths.append(_consensus_path(folder, pair.paths[0]))
        write_mask(paths[-1], mask if len(stack) > 1 else mask.isel(Z=0))
    return paths


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
    return folder / f"{mask_name(first)}_mask.ome.tif"
