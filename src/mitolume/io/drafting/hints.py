"""What a person should read beside a drafted table. Guesses nothing itself."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path

from mitolume.io.drafting.guesses import is_said
from mitolume.io.drafting.layouts import folder_kind, plain_words
from mitolume.io.drafting.listing import Notes, few
from mitolume.io.drafting.matches import Pair
from mitolume.io.fields import Field, leaks

_HOW = {
    "beside": "beside their image",
    "parallel": "in a folder parallel to their image's",
    "beginning": "whose name and the image's begin alike",
    "number": "with the numbers of their image's name",
    "only": "the only one where their image is the only one",
    "name": "with their image's name in another folder",
}


def splits(rows: Sequence[dict[str, str]], depths: dict[str, int]) -> Iterator[str]:
    """Say where roles and specimens leave nothing to learn from, or nothing to test on."""
    here = Path()  # only roles and specimens count here
    fields = [
        Field(here, here if row["mask"] else None, row["role"],
              specimen=row["specimen"] or row["image"])
        for row in rows
    ]  # fmt: skip
    leaking = leaks(fields)
    yield from leaking[:3]
    if len(leaking) > 3:
        yield f"{len(leaking) - 3} more specimens are in several of train, validation and test"
    labelled = [row for row in fields if row.is_labelled]
    roles = {row.role for row in labelled}
    specimens = {row.specimen for row in labelled}
    busy = {row.specimen for row in fields if not row.is_labelled}
    free = {row.specimen for row in labelled if not row.role} - busy
    if not labelled or "test" in roles:
        if labelled and not roles & {"", "train"}:
            yield "no labelled image is for training; write train in column role where it is"
    elif "" not in roles:
        yield (
            "no test images are named, so no score will be a test score; empty column role of the "
            "training rows to have test and validation drawn by specimen"
        )
    elif len(specimens) == 1 and depths:
        (name, depth), *_ = depths.items()
        yield (
            f"all masks are of one specimen, so no split is free of leaks; {name} has {depth} "
            "planes: write a row for each block of z (column planes) with planes left out between, "
            "each with its specimen and role"
        )
    elif len(specimens) == 1:
        yield (
            "all masks are of one specimen, so no split is free of leaks; fill in column specimen "
            "where images are of different dishes, movies or cells"
        )
    elif len(free) < 3 and specimens & busy:
        yield (
            f"{len(free)} of {len(specimens)} specimens with masks have one for each image, and "
            "only such can be held out (one for validation, one for test, and some left to train "
            "on); to hold out another, delete its rows without a mask"
        )
    elif len(free) < 3:
        yield (
            f"{len(free)} specimens are too few for training, validation and test; fill in column "
            "specimen where images of one specimen are of different dishes, movies or cells"
        )


def beside(folder: Path, rows: Sequence[dict[str, str]]) -> Iterator[str]:
    """Point to a folder of masks beside the folder, where no mask was found in it."""
    if any(row["mask"] for row in rows):
        return
    parent = folder.resolve().parent
    try:
        names = sorted(path.name for path in parent.iterdir() if path.is_dir())
    except OSError:
        names = []
    named = [name for name in names if folder_kind([name]) == "mask" and not plain_words(name)]
    where = f"; folder {named[0]} lies beside this one: draft from {parent}" if named else ""
    yield f"no image has a mask, so there is nothing to train on{where}"


def nothing(folder: Path, files: int, notes: Notes) -> str:
    """Say why a folder gives no table."""
    what = "no images, only masks or results" if files else "no image files that can be read"
    why = "; ".join(notes.lines())
    return f"{folder} holds {what}; name the folder that holds the images" + (
        f" ({why})" if why else ""
    )


def count(rows: Sequence[dict[str, str]]) -> str:
    """Say how many rows there are, and how many with masks."""
    masks = sum(bool(row["mask"]) for row in rows)
    what = "row" if len(rows) == 1 else "rows"
    return f"{len(rows)} {what}: {masks} with a mask, {len(rows) - masks} without"


def several_folders(pairs: Sequence[Pair]) -> Iterator[str]:
    """Say where the images of one folder have masks from several: perhaps two people's."""
    found: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for pair in pairs:
        if pair.mask is not None:
            found[pair.image.file.folders]["/".join(pair.mask.file.folders) or "."] += 1
    for folders, masks in found.items():
        if len(masks) > 1:
            yield (
                f"images in {'/'.join(folders) or 'one folder'} have masks from several folders: "
                + few([f"{folder} {number}" for folder, number in masks.items()])
                + " (are they drawn by different people, or by one twice?)"
            )


def same_names(pairs: Sequence[Pair], rows: Sequence[dict[str, str]]) -> Iterator[str]:
    """Say where images of one name may be one picture, and are taken for several specimens."""
    first: dict[Hashable, dict[str, str]] = {}
    alike: list[str] = []
    for pair, row in zip(pairs, rows, strict=True):
        place = [
            word.key
            for part in pair.image.file.folders
            for word in plain_words(part)
            if word.number or len(word.text) == 1 or is_said(word)  # dish 2, dish B
        ]
        one = first.setdefault((tuple(place), pair.image.key), row)
        if (one["specimen"] or one["image"]) != (row["specimen"] or row["image"]):
            alike.append(f"{one['image']} = {row['image']}")
    if alike:
        yield (
            "images of one name in several folders, taken for different specimens (where they are "
            "one picture, such as raw and 8-bit, keep one, or scores will be too good): "
            f"{len(alike)} ({few(alike)})"
        )


def say_masks(pairs: Sequence[Pair]) -> Iterator[str]:
    """Say how masks and paired fluorescence were found, with an example of each way."""
    ways: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        if pair.mask is not None:
            same = pair.mask.file.folders == pair.image.file.folders
            exact = "beside" if same else "parallel"
            ways[exact if pair.how == "name" else pair.how].append(pair)
    for way, found in ways.items():
        first = found[0]
        example = f"{first.image.file.path} and {first.mask.file.path if first.mask else ''}"
        yield f"mask: {len(found)} {_HOW[way]} ({example})"
    paired = [pair.fluorescence.file.path for pair in pairs if pair.fluorescence]
    if paired:
        yield f"fluorescence: {len(paired)} files by words in their names ({few(paired)})"
