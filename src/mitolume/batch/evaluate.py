"""Scores of mask files against true ones, matched by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from mitolume.analysis.object_scores import (
    OBJECT_SCORES,
    THRESHOLDS,
    ObjectCounts,
    count_objects,
)
from mitolume.batch.runner import Job, Report, run_jobs
from mitolume.batch.sources import find_image
from mitolume.errors import MitolumeError, some_names
from mitolume.io.mask_files import (
    distinct_values,
    image_name,
    is_outline_file,
    is_outlined,
    kind_of,
    list_masks,
    open_mask,
)
from mitolume.io.masks import Mask, Meaning, meaning_of, require_kind, to_mask, to_objects
from mitolume.io.read import read, read_plane
from mitolume.runs.results import image_scores, write_csv

_NUMBERS = [
    "objects_true", "objects_predicted", *(f"object_tp_{100 * t:.0f}" for t in THRESHOLDS)
]  # fmt: skip


@dataclass(frozen=True)
class MatchedFiles:
    """Files of two sets: those with the same name, and those that only one set has."""

    both: tuple[tuple[Path, Path], ...]
    only_first: tuple[Path, ...] = ()
    only_second: tuple[Path, ...] = ()
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class MaskPair:
    """Two open masks of the same size, and what the values of each side mean."""

    paths: tuple[Path, Path]
    images: tuple[xr.DataArray, xr.DataArray]
    meanings: tuple[Meaning, Meaning]

    def planes(self) -> Iterator[tuple[int, Mask, Mask]]:
        """Yield the number of each plane and both masks of it, (Y, X)."""
        for z in range(self.images[0].sizes["Z"]):
            first, second = (
                to_mask(read_plane(image, z=z), kind_of(image, meaning.kind))
                for image, meaning in zip(self.images, self.meanings, strict=True)
            )
            yield z, first, second

    def objects(self, side: int) -> tuple[np.ndarray[Any, Any], Any]:
        """Return the label image of one side, (Z, Y, X), and where it is unsure."""
        image, meaning = self.images[side], self.meanings[side]
        values = np.stack([read_plane(image, z=z) for z in range(image.sizes["Z"])])
        return to_objects(values, kind_of(image, meaning.kind), numbered=meaning.numbered)


def evaluate(
    predicted: Path,
    truth: Path,
    mask_kind: str = "auto",
    *,
    like: Path | None = None,
    objects: bool = False,
) -> pd.DataFrame:
    """Score mask files against others.

    Parameters
    ----------
    predicted, truth
        Two files, or two folders whose files are matched by name (see `match_files`).
    mask_kind
        What the values mean: ``auto``, ``unsure`` or ``labels``.
    like
        The image, or folder of images, that outlines were drawn on.
    objects
        Also match objects, those of a z-stack in 3D. The numbers of label images are objects, and
        so are outlines; in other masks pixels that touch are, be it by a corner.

    Returns
    -------
    pandas.DataFrame
        A row for each plane, with the columns of images.csv. The columns of objects are filled in
        the row of a file's first plane. ``attrs["notices"]`` is what the user should know.

    Raises
    ------
    MitolumeError
        A file is missing or unreadable, sizes differ, or values mean nothing.
    """
    files = match_files(predicted, truth)
    if alone := files.only_second:
        raise MitolumeError(
            f"{predicted} lacks a mask for {len(alone)} of {len(alone) + len(files.both)} files in "
            f"{truth} ({some_names(alone)})"
            + (f"; unmatched in it: {some_names(files.only_first)}" if files.only_first else "")
        )
    pairs = open_pairs(files.both, mask_kind, like)
    notices = [*files.notices, *notices_of(pairs)]
    if alone := files.only_first:
        notices.append(f"masks without a truth, not scored: {len(alone)} ({some_names(alone)})")
    rows: list[dict[str, Any]] = []
    for pair in pairs:
        name = pair.paths[1].name
        for number, mask, real in pair.planes():
            head = {"image": name, "plane": number, "specimen": name}
            rows.append(head | image_scores(mask, real))
    keys: dict[str, Any] = dict.fromkeys(("arm", "method", "network"), "")
    keys |= {"model": "masks", "subset": "given", "k": 0, "seed": 0}
    table = pd.DataFrame(rows).assign(**keys)
    if objects:
        counted = [_object_scores(pair) for pair in pairs]
        table = table.join(pd.DataFrame(counted, index=table.index[table["plane"] == 0]))
        table = table.astype(dict.fromkeys(_NUMBERS, "Int64"))
    table.attrs["notices"] = notices
    return table


def evaluate_files(
    predicted: Path,
    truth: Path,
    mask_kind: str = "auto",
    *,
    like: Path | None = None,
    objects: bool = False,
    out: Path | None = None,
    overwrite: bool = False,
) -> pd.DataFrame:
    """Score mask files as `evaluate` does, and write the table.

    Parameters
    ----------
    predicted, truth, mask_kind, like, objects
        As for `evaluate`.
    out
        Where to write the scores of each plane (CSV).
    overwrite
        Replace that file if it exists.

    Raises
    ------
    MitolumeError
        As from `evaluate`; the file exists already, or is one of the masks.
    """
    tables: list[pd.DataFrame] = []

    def compute(advance: Callable[[int], None]) -> Report:
        tables.append(evaluate(predicted, truth, mask_kind, like=like, objects=objects))
        if out is not None:
            write_csv(out, tables[0].drop(columns=["arm", "method", "network", "k", "seed"]))
        return Report()

    write_once(predicted, truth, [] if out is None else [out], compute, overwrite=overwrite)
    return tables[0]


def write_once(
    first: Path,
    second: Path,
    results: Sequence[Path],
    compute: Callable[[Callable[[int], None]], Report],
    *,
    overwrite: bool,
) -> None:
    """Compare two sets of masks by a function, unless its results exist or are among the masks."""
    inputs = [path for pair in match_files(first, second).both for path in pair]
    outcome = run_jobs(
        [Job(first.name, tuple(inputs), tuple(results), compute)], overwrite=overwrite
    )
    outcome.raise_faults("comparisons", "made")


def pooled_objects(images: pd.DataFrame) -> ObjectCounts:
    """Sum the counts of objects of all files that `evaluate` scored."""
    numbers = [int(images[name].sum()) for name in _NUMBERS]
    return ObjectCounts(
        numbers[0], numbers[1], tuple(numbers[2:]), float(images["object_iou_sum"].sum())
    )


def scores_text(results: pd.DataFrame) -> str:
    """Return the scores of masks as lines of text, chance beside them."""
    lines = []
    for row in results.to_dict("records"):
        if row["metric"] == "n_undefined":
            if row["value"]:
                lines.append(
                    "images without foreground in truth and masks, undefined and left out of "
                    f"means: {row['value']:.0f}"
                )
            continue
        n = row["n_images"]
        lines.append(f"{row['metric']:<14}{_value(row['value']):>10}   {n} image{'s' * (n != 1)}")
    return "\n".join(lines)


def objects_text(images: pd.DataFrame) -> str:
    """Return the object scores of masks, pooled over files, as lines of text."""
    c = pooled_objects(images)
    per_file = (images["objects_true"] + images["objects_predicted"]).dropna()
    n, empty = len(per_file), int((per_file == 0).sum())
    lines = [
        f"objects: {c.n_true} true, {c.n_predicted} predicted, in {n} file{'s' * (n != 1)}; "
        f"undefined, with none in truth and masks: {empty}"
    ]
    lines += [f"{name:<22}{_value(score(c)):>10}" for name, score in OBJECT_SCORES.items()]
    return "\n".join(lines)


def match_files(first: Path, second: Path) -> MatchedFiles:
    """Match two files, or the masks of two folders by the name of their image.

    Parameters
    ----------
    first, second
        Two files, or two folders; endings and ``_mask``, ``_labels`` and the like are ignored in
        names.

    Returns
    -------
    MatchedFiles
        At least one pair, in the order of names.

    Raises
    ------
    MitolumeError
        One is missing, only one is a folder, names repeat, or no name is in both.
    """
    for path in (first, second):
        if not path.exists():
            raise MitolumeError(f"{path}: no such file or folder")
    if first.is_dir() != second.is_dir():
        raise MitolumeError(f"{first} and {second} must both be files or both be folders")
    if not first.is_dir():
        return MatchedFiles(((first, second),))
    notices: list[str] = []
    ours, theirs = (_by_name(folder, notices) for folder in (first, second))
    both = [name for name in ours if name in theirs]
    if not both:
        raise MitolumeError(
            f"no file in {first} ({some_names(ours.values())}) has the name of one in "
            f"{second} ({some_names(theirs.values())}); give masks of one image the same "
            "name, with or without _mask"
        )
    return MatchedFiles(
        tuple((ours[name], theirs[name]) for name in both),
        tuple(ours[name] for name in ours if name not in theirs),
        tuple(theirs[name] for name in theirs if name not in ours),
        tuple(dict.fromkeys(notices)),
    )


def open_pairs(
    files: Sequence[tuple[Path, Path]], mask_kind: str = "auto", like: Path | None = None
) -> list[MaskPair]:
    """Open pairs of mask files and decide what their values mean, once for each side.

    Parameters
    ----------
    files
        As `match_files` pairs them.
    mask_kind
        ``auto``, ``unsure`` or ``labels``.
    like
        The image, or the folder of images of the masks' names, that outlines were drawn on.

    Raises
    ------
    MitolumeError
        A file can't be read, sizes differ, values mean nothing, or an image is missing.
    """
    require_kind(mask_kind)
    opened = [_opened(paths, like) for paths in files]
    for paths, images in zip(files, opened, strict=True):
        _require_same_size(paths, images)
    sides = []
    for side in (0, 1):
        values = {
            str(paths[side]): distinct_values(images[side])
            for paths, images in zip(files, opened, strict=True)
            if not is_outlined(images[side])
        }
        sides.append(meaning_of(values, mask_kind))
    return [
        MaskPair(paths, images, (sides[0], sides[1]))
        for paths, images in zip(files, opened, strict=True)
    ]


def notices_of(pairs: Sequence[MaskPair]) -> list[str]:
    """Return what was left out or guessed in reading outlines, each said once."""
    images = [image for pair in pairs for image in pair.images]
    return list(dict.fromkeys(n for image in images for n in image.attrs.get("notices", ())))


def _object_scores(pair: MaskPair) -> dict[str, Any]:
    """Count and score the objects of a file, a z-stack as one volume."""
    (predicted, unsure), (truth, truth_unsure) = pair.objects(0), pair.objects(1)
    c = count_objects(predicted, truth, unsure, truth_unsure)
    numbers = dict(zip(_NUMBERS, (c.n_true, c.n_predicted, *c.tp), strict=True))
    scores = {name: score(c) for name, score in OBJECT_SCORES.items()}
    return numbers | {"object_iou_sum": c.iou_sum} | scores


def _opened(paths: tuple[Path, Path], like: Path | None) -> tuple[xr.DataArray, xr.DataArray]:
    """Open two masks; outlines take their size from the image, or from the other one."""
    first, second = paths
    drawn = [is_outline_file(path) for path in paths]
    image = None
    if like is not None:
        image = read(find_image(first, like))
    elif all(drawn):
        raise MitolumeError(
            f"{first} and {second} both hold outlines, and neither says how large the image is; "
            "name the image, or the folder of images (--like IMAGES)"
        )
    elif any(drawn):
        image = open_mask(paths[drawn.index(False)])
    return tuple(  # type: ignore[return-value]
        open_mask(path, image if like is not None or is_drawn else None, numbered=True)
        for path, is_drawn in zip(paths, drawn, strict=True)
    )


def _by_name(folder: Path, notices: list[str]) -> dict[str, Path]:
    files, said = list_masks(folder)
    notices += said
    found: dict[str, Path] = {}
    for path in files:
        name = image_name(path)
        if name in found:
            raise MitolumeError(f"{found[name]} and {path} have the same name")
        found[name] = path
    return found


def _require_same_size(paths: tuple[Path, Path], images: tuple[xr.DataArray, xr.DataArray]) -> None:
    first, second = images
    if first.shape == second.shape:
        return
    turned = first.transpose("T", "C", "Z", "X", "Y").shape == second.shape
    hint = " (they look transposed)" if turned else ""
    raise MitolumeError(
        f"{paths[0]} is {_size(first)}, but {paths[1]} is {_size(second)}{hint}; two masks of "
        "one image have the same size"
    )


def _size(image: xr.DataArray) -> str:
    return " x ".join(
        f"{axis} {image.sizes[axis]}" for axis in "ZYX" if image.sizes[axis] > 1 or axis != "Z"
    )


def _value(value: float) -> str:
    return "undefined" if pd.isna(value) else f"{value:.4f}"
