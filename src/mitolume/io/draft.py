"""Drafts the table of fields of a folder, and says what it guessed. Reads no pixels."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mitolume.errors import MitolumeError, some_names
from mitolume.io.draft_guesses import guess_conditions, guess_roles, guess_specimens
from mitolume.io.draft_pairs import LOST_MASKS, Notes, Pair, list_files, pair_files
from mitolume.io.fields import Field, leaks
from mitolume.io.formats import is_zarr, whole_images
from mitolume.io.table import table_text, used_columns
from mitolume.io.write import atomic, write_text

_MAY_HAVE_SCENES = (".nd2", ".lif", ".czi")


@dataclass(frozen=True)
class Draft:
    """A drafted table: its text (CSV), and lines on what was guessed and what to look at."""

    text: str
    lines: tuple[str, ...]


def draft_table(folder: str | Path, base: str | Path = ".") -> Draft:
    """Draft the table of fields of a folder from the names in it.

    The folder holds images and masks in any usual layout; folders in it are searched too. ``base``
    is the folder that the table will lie in: paths are relative to it.
    """
    folder = Path(folder)
    notes = Notes(list)
    files = list_files(folder, notes)
    pairs = pair_files(folder, files, notes)
    pairs = _whole(folder, pairs, notes)
    if not pairs and is_zarr(folder):
        raise MitolumeError(f"{folder} is an OME-Zarr itself; name the folder that holds it")
    if not pairs:
        what = "no images, only masks or results" if files else "no image files that can be read"
        why = f" ({'; '.join(_told(notes))})" if notes else ""
        raise MitolumeError(f"{folder} holds {what}; name the folder that holds the images{why}")
    conditions = guess_conditions(pairs)
    guesses = {
        "role": guess_roles(pairs),
        "specimen": guess_specimens(pairs, conditions.values),
        "condition": conditions,
    }
    rows = [
        Field(
            folder / pair.image.path,
            folder / pair.mask.path if pair.mask else None,
            fluorescence=folder / pair.fluorescence.path if pair.fluorescence else "",
            role=guesses["role"].values[number],
            specimen=guesses["specimen"].values[number],
            condition=guesses["condition"].values[number],
            asked=True,
        )
        for number, pair in enumerate(pairs)
    ]
    for pair in pairs:
        if pair.image.ending in _MAY_HAVE_SCENES:
            what = "files that may hold several scenes (write a row for each)"
            notes[what].append(pair.image.path)
    guessed = [*_counts(len(files), pairs), *_say_masks(pairs)]
    guessed += [f"{column}: {guess.said}" for column, guess in guesses.items() if guess.said]
    look = [*_splits(rows), *_beside(folder, rows, notes), *_told(notes)]
    lines = (*guessed, *(f"look: {line}" for line in look))
    return Draft(table_text(rows, Path(base), used_columns(rows)), lines)


def _whole(folder: Path, pairs: Sequence[Pair], notes: Notes) -> list[Pair]:
    """Leave out OME-TIFFs without a mask that are parts of an image which another one opens."""
    sets = [pair for pair in pairs if pair.image.ending.startswith(".ome.tif")]
    sets.sort(key=lambda pair: pair.mask is None)
    whole = set(whole_images(folder / pair.image.path for pair in sets)[0])
    parts = [p for p in sets if not p.mask and folder / p.image.path not in whole]
    for pair in parts:
        notes["parts of images, or scenes, that another file opens, left out"].append(
            pair.image.path
        )
    return [pair for pair in pairs if pair not in parts]


def write_draft(draft: Draft, out: Path) -> None:
    """Write a drafted table, and beside it, as ``.txt``, what was guessed.

    Raises
    ------
    MitolumeError
        One of the two exists already, `out` is no CSV, or the place can't be written to.
    """
    if out.suffix.lower() != ".csv":
        raise MitolumeError(f"--out {out} must end in .csv: it is a table")
    beside = out.with_suffix(".txt")
    for path in (out, beside):
        if path.exists():
            raise MitolumeError(f"{path} exists already; choose another name or remove it")
    with atomic(out) as temporary:  # first: a place that can't be written to is named as given
        temporary.write_text(draft.text, encoding="utf-8")
        write_text(beside, "\n".join(draft.lines) + "\n")


def _told(notes: Notes) -> list[str]:
    return [f"{what}: {len(names)} ({some_names(names)})" for what, names in notes.items()]


def _counts(files: int, pairs: Sequence[Pair]) -> Iterator[str]:
    masks = sum(pair.mask is not None for pair in pairs)
    dyes = sum(pair.fluorescence is not None for pair in pairs)
    yield (
        f"{files} files found, {len(pairs) + masks + dyes} used: {len(pairs)} as images ({masks} "
        f"with a mask, {len(pairs) - masks} without), {masks} as masks, {dyes} as fluorescence"
    )


def _say_masks(pairs: Sequence[Pair]) -> Iterator[str]:
    """Say how masks and paired fluorescence were found, with an example of each way."""
    found = [(pair.how, pair.image.path, pair.mask.path) for pair in pairs if pair.mask]
    for how, count in Counter(how for how, _, _ in found).items():
        image, mask = next((image, mask) for other, image, mask in found if other == how)
        yield f"mask: {count} {how} ({image} and {mask})"
    if paired := [pair.fluorescence.path for pair in pairs if pair.fluorescence]:
        yield f"fluorescence: {len(paired)} files by words in their names ({some_names(paired)})"


def _splits(rows: Sequence[Field]) -> Iterator[str]:
    """Say where roles and specimens leave nothing to learn from, or nothing to test on."""
    fields = [replace(row, specimen=row.specimen or str(row.image)) for row in rows]
    yield from leaks(fields)
    treated = defaultdict[str, dict[str, None]](dict)
    for row in rows:
        treated[row.specimen] |= {row.condition: None}
    if several := [name for name, of in treated.items() if name and len(of) > 1]:
        yield (
            f"specimens in several conditions: {some_names(several)}: dishes that share a number "
            "or a day need names of their own; the same cells before and after may share one"
        )
    labelled = [row for row in fields if row.is_labelled]
    roles = {row.role for row in labelled}
    free = {row.specimen for row in labelled if not row.role}
    if "" in roles and "test" not in roles and len(free) < 3:
        yield (
            f"specimens with masks: {len(free)}, too few for training, validation and "
            "test: fill in column specimen where images are of different dishes, movies or cells; "
            "of a single z-stack, write a row for each block of z (column planes), with its own "
            "specimen and role, and leave planes out between"
        )


def _beside(folder: Path, rows: Sequence[Field], notes: Notes) -> Iterator[str]:
    """Point to a table that exists, and to where masks may be if none was found."""
    if (folder / "fields.csv").exists():
        yield f"{folder / 'fields.csv'} exists already; it may be the table that you need"
    if not any(row.mask for row in rows) and not any(LOST_MASKS in what for what in notes):
        without = (
            "masks will be made from the fluorescence; "
            if any(row.fluorescence for row in rows)
            else "if the dye is a channel of the images, name it in column fluorescence; "
        )
        yield (
            f"no image has a mask; {without}if a folder beside this one holds masks, draft from "
            f"{folder.resolve().parent}"
        )
