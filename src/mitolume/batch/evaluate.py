"""Scores of mask files against true ones, matched by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from mitolume.analysis.object_scores import OBJECT_SCORES, THRESHOLDS, ObjectCounts, count_objects
from mitolume.batch.runner import refuse_inputs, require_free
from mitolume.batch.sources import find_image
from mitolume.errors import MitolumeError, some_names
from mitolume.io.fields import asked_planes, format_planes
from mitolume.io.formats import by_name, is_folder, require_file
from mitolume.io.mask_files import (
    distinct_values,
    image_name,
    is_outline_file,
    kind_of,
    labelled_planes,
    list_masks,
    open_mask,
    stack_of,
)
from mitolume.io.masks import Mask, ValuesKind, meaning_of, require_kind, to_mask, to_objects
from mitolume.io.read import read, read_plane
from mitolume.runs.results import image_scores, summarise, write_csv
from mitolume.text import count, number

_NUMBERS = [
    "objects_true", "objects_predicted", *(f"object_tp_{100 * t:.0f}" for t in THRESHOLDS)
]  # fmt: skip
_ALL = "where others are truly without mitochondria, say --planes"


@dataclass(frozen=True)
class MatchedFiles:
    """Files of two sets: those with the same name, and those that only one set has."""

    both: tuple[tuple[Path, Path], ...]
    only_first: tuple[Path, ...] = ()
    only_second: tuple[Path, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def all(self) -> list[Path]:
        """All files that are read."""
        return [path for pair in self.both for path in pair]


@dataclass(frozen=True, eq=False)
class MaskPair:
    """Two open masks of the same size, and what the values of each mean."""

    paths: tuple[Path, Path]
    images: tuple[xr.DataArray, xr.DataArray]
    kinds: tuple[ValuesKind, ValuesKind]
    scored: list[int]  # planes

    def planes(self) -> Iterator[tuple[int, Mask, Mask]]:
        """Yield the number of each plane that is scored, and both masks of it, (Y, X)."""
        for z in self.scored:
            first, second = (
                to_mask(read_plane(image, z=z), kind)
                for image, kind in zip(self.images, self.kinds, strict=True)
            )
            yield z, first, second


def evaluate(
    predicted: Path,
    truth: Path,
    mask_kind: str = "auto",
    *,
    like: Path | None = None,
    objects: bool = False,
    planes: str = "",
    out: Path | None = None,
    overwrite: bool = False,
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
        so are outlines; in other masks, pixels that touch, even at a corner, are one object.
    planes
        The planes to score, such as ``0-9``; by default those that the truth labels, see
        `mitolume.io.mask_files.labelled_planes`.
    out
        File (.csv) for the scores of each plane.
    overwrite
        Replace that file if it exists.

    Returns
    -------
    pandas.DataFrame
        A row for each scored plane, with the columns of images.csv. The columns of objects are
        filled in the first row of a file. ``attrs["notices"]`` is what the user should know.

    Raises
    ------
    MitolumeError
        A file is missing or unreadable, sizes differ, or values mean nothing; or the table exists
        already or is one of the masks.
    """
    files = match_files(predicted, truth)
    if alone := files.only_second:
        raise MitolumeError(
            f"{predicted} lacks a mask for {len(alone)} of {len(alone) + len(files.both)} files in "
            f"{truth} ({some_names(alone)})"
            + (f"; unmatched in it: {some_names(files.only_first)}" if files.only_first else "")
        )
    refuse_inputs([out], files.all)
    require_free([out] if out else [], replace=overwrite)
    pairs, notices = open_pairs(files, mask_kind, like, asked_planes(planes))
    if alone := files.only_first:
        notices.append(f"masks without a truth, not scored: {len(alone)} ({some_names(alone)})")
    rows: list[dict[str, Any]] = []
    for pair in pairs:
        name = pair.paths[1].name
        for plane, mask, real in pair.planes():
            head = {"image": name, "plane": plane, "specimen": name}
            rows.append(head | image_scores(mask, real))
        if objects:
            rows[-len(pair.scored)] |= _object_scores(pair)
    keys: dict[str, Any] = dict.fromkeys(("arm", "method", "network"), "")
    keys |= {"model": "masks", "subset": "given", "k": 0, "seed": 0}
    table = pd.DataFrame(rows).assign(**keys)
    if objects:
        table = table.astype(dict.fromkeys(_NUMBERS, "Int64"))
    table.attrs["notices"] = notices
    if out is not None:
        write_csv(out, table.drop(columns=["arm", "method", "network", "k", "seed"]))
    return table


def scores_text(images: pd.DataFrame) -> str:
    """Return the scores that `evaluate` found as lines of text, chance beside them."""
    lines = [f"note: {notice}" for notice in images.attrs["notices"]]
    for row in summarise(images).to_dict("records"):
        if row["metric"] == "n_undefined":
            if row["value"]:
                lines.append(
                    "images without foreground in truth and masks, undefined and left out of "
                    f"means: {row['value']:.0f}"
                )
            continue
        value, n_images = number(row["value"], 4), count(row["n_images"], "image")
        lines.append(f"{row['metric']:<14}{value:>10}   {n_images}")
    if "object_iou_sum" in images:
        lines += ["", *_object_lines(images)]
    return "\n".join(lines)


def _object_lines(images: pd.DataFrame) -> list[str]:
    """Return the object scores of masks, pooled over files."""
    n_true, n_predicted, *tp = (int(images[name].sum()) for name in _NUMBERS)
    c = ObjectCounts(n_true, n_predicted, tuple(tp), float(images["object_iou_sum"].sum()))
    per_file = (images["objects_true"] + images["objects_predicted"]).dropna()
    n, empty = len(per_file), int((per_file == 0).sum())
    lines = [
        f"objects: {c.n_true} true, {c.n_predicted} predicted, in {count(n, 'file')}; "
        f"undefined, with none in truth and masks: {empty}"
    ]
    return lines + [f"{name:<22}{number(score(c), 4):>10}" for name, score in OBJECT_SCORES.items()]


def match_files(first: Path, second: Path) -> MatchedFiles:
    """Match two files, or the masks of two folders by the names of their images.

    Endings and ``_mask``, ``_labels`` and the like are ignored in names. There is at least one
    pair; pairs are in the order of names.
    """
    for path in (first, second):
        if not path.exists():
            require_file(path, "file or folder")
    if is_folder(first) != is_folder(second):
        raise MitolumeError(f"{first} and {second} must both be files or both be folders")
    if not is_folder(first):
        return MatchedFiles(((first, second),))
    listed = [list_masks(folder) for folder in (first, second)]
    notices = [notice for _, said in listed for notice in said]
    ours, theirs = (by_name(files, image_name) for files, _ in listed)
    folded = [{name.casefold(): file for name, file in own.items()} for own in (ours, theirs)]
    if [*map(len, folded)] == [len(ours), len(theirs)]:  # case alone tells no two of them apart
        ours, theirs = folded
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
    files: MatchedFiles,
    mask_kind: str,
    like: Path | None,
    planes: Sequence[int] | None,
    sides: Iterable[int] = (1,),
) -> tuple[list[MaskPair], list[str]]:
    """Open matched mask files and decide what their values mean, once for each side.

    ``mask_kind`` and ``like`` are as for `evaluate`; planes are scored that are asked for or that
    any of these ``sides`` labels. The notices say what was left out of folders, of outlines and of
    stacks, each thing once.
    """
    require_kind(mask_kind)
    opened = {paths: _opened(paths, like) for paths in files.both}
    kinds, notices = [], list(files.notices)
    for side in (0, 1):
        values = {str(p[side]): distinct_values(images[side]) for p, images in opened.items()}
        kind, said = meaning_of(values, mask_kind)
        kinds.append(kind)
        notices += said
    pairs = [
        MaskPair(
            paths,
            (a, b),
            (kind_of(a, kinds[0]), kind_of(b, kinds[1])),
            _scored((a, b), planes, sides),
        )
        for paths, (a, b) in opened.items()
    ]
    notices += [n for pair in pairs for i in pair.images for n in i.attrs.get("notices", ())]
    for pair in pairs:
        if len(pair.scored) < (depth := pair.images[0].sizes["Z"]):
            what = f"{pair.paths[1].name}: {len(pair.scored)} of {depth} planes labelled and scored"
            notices.append(f"{what}; {_ALL} 0-{depth - 1}")
    return pairs, list(dict.fromkeys(notices))


def _scored(
    images: Sequence[xr.DataArray], asked: Sequence[int] | None, sides: Iterable[int]
) -> list[int]:
    """Return the planes that any of these sides labels, or of those asked for what the pair has."""
    depth = range(images[0].sizes["Z"])
    found = {*depth} if asked is None else {*depth} & {*asked}
    if asked is None and len(depth) > 1:
        found = set()
        for image in (images[side] for side in sides):
            found.update(
                labelled_planes(image, [z for z in depth if not read_plane(image, z=z).any()])
            )
    if not found:
        said = f"no plane is labelled; {_ALL} 0-{len(depth) - 1}"
        if asked is not None:
            there = f"planes 0 to {len(depth) - 1}" if len(depth) > 1 else "only plane 0"
            said = f"--planes {format_planes(asked)}: it has {there}"
        raise MitolumeError(f"{images[1].attrs['source']}: {said}")
    return sorted(found)


def _object_scores(pair: MaskPair) -> dict[str, Any]:
    """Count and score the objects of a file, a z-stack as one volume."""
    (predicted, unsure), (truth, truth_unsure) = (
        (part[pair.scored] for part in to_objects(stack_of(image), kind))
        for image, kind in zip(pair.images, pair.kinds, strict=True)
    )
    c = count_objects(predicted, truth, unsure, truth_unsure)
    numbers = dict(zip(_NUMBERS, (c.n_true, c.n_predicted, *c.tp), strict=True))
    scores = {name: score(c) for name, score in OBJECT_SCORES.items()}
    return numbers | {"object_iou_sum": c.iou_sum} | scores


def _opened(paths: tuple[Path, Path], like: Path | None) -> tuple[xr.DataArray, xr.DataArray]:
    """Open two masks; outlines take their size from the image, or from the other one."""
    drawn = [is_outline_file(path) for path in paths]
    image = None
    if like is not None:
        image = read(find_image(paths[0], like))
    elif all(drawn):
        raise MitolumeError(
            f"{paths[0]} and {paths[1]} both hold outlines, and neither says how large the image "
            "is; name the image, or the folder of images (--like IMAGES)"
        )
    elif any(drawn):
        image = open_mask(paths[drawn.index(False)])
    first, second = (
        open_mask(path, image if like is not None or is_drawn else None, numbered=True)
        for path, is_drawn in zip(paths, drawn, strict=True)
    )
    if first.shape != second.shape:
        raise MitolumeError(
            f"{paths[0]} is {_size(first)}, but {paths[1]} is {_size(second)}; two masks of one "
            "image have the same size"
        )
    return first, second


def _size(image: xr.DataArray) -> str:
    return " x ".join(
        f"{axis} {image.sizes[axis]}" for axis in "ZYX" if image.sizes[axis] > 1 or axis != "Z"
    )
