"""Drafts the table of fields of a folder, and says what it guessed. Reads headers, no pixels."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mitolume.errors import MitolumeError
from mitolume.io.drafting.guesses import guess_conditions, guess_roles
from mitolume.io.drafting.headers import MANY_SCENES, is_drawn, list_scenes, read_header
from mitolume.io.drafting.hints import (
    beside,
    count,
    nothing,
    same_names,
    say_masks,
    several_folders,
    splits,
)
from mitolume.io.drafting.layouts import pair_files
from mitolume.io.drafting.listing import Found, Notes, list_files
from mitolume.io.drafting.matches import Pair
from mitolume.io.drafting.specimens import guess_batches, guess_specimens
from mitolume.io.fields import COLUMNS
from mitolume.io.write import write_text

MOST_PAIRS = 200  # pairs whose headers are compared
MOST_SCENE_FILES = 50  # microscopes' own files that are opened to list their scenes
MOST_SLOW = 20  # and those whose sizes are compared
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Draft:
    """A drafted table: its text (CSV), and lines on what was guessed and what to look at."""

    text: str
    guessed: tuple[str, ...]
    look: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return all that a person should read, a line each."""
        return [*self.guessed, *(f"look: {line}" for line in self.look)]


def draft_table(
    folder: str | Path,
    base: str | Path = ".",
    *,
    progress: Progress = lambda done, total: None,
) -> Draft:
    """Draft the table of fields of a folder from the names in it.

    Parameters
    ----------
    folder
        Holds images and masks in any usual layout; folders in it are searched too.
    base
        The folder that the table will lie in: paths are relative to it.
    progress
        Called with the headers read and those to be read.

    Returns
    -------
    Draft
        A table that `read_table` reads, and what to know of it.

    Raises
    ------
    MitolumeError
        The folder is missing, can't be listed, or holds no image that can be read.
    """
    folder = Path(folder)
    notes = Notes()
    files = list_files(folder, notes)
    turns = iter(range(MOST_PAIRS))

    def drawn(file: Found) -> bool:
        return next(turns, None) is not None and is_drawn(folder / file.path)

    pairs = pair_files(files, notes, drawn)
    if not pairs:
        raise MitolumeError(nothing(folder, len(files), notes))
    guesses = {
        "role": guess_roles(pairs),
        "specimen": guess_specimens(pairs),
        "condition": guess_conditions(pairs),
        "batch": guess_batches(pairs),
    }
    rows = [
        {"image": pair.image.file.path, "mask": pair.mask.file.path if pair.mask else ""}
        | {"fluorescence": pair.fluorescence.file.path if pair.fluorescence else ""}
        | {column: guess.values[number] for column, guess in guesses.items()}
        for number, pair in enumerate(pairs)
    ]
    doubts = [*several_folders(pairs), *same_names(pairs, rows)]
    masked = [(pair, row) for pair, row in zip(pairs, rows, strict=True) if pair.mask]
    step = max(1, -(-len(masked) // MOST_PAIRS))
    stacks = _compare_headers(folder, masked[::step], notes, progress)
    rows = list(_with_scenes(folder, list(_without_leaks(rows, notes)), notes))
    guessed = [count(rows), *say_masks(pairs)]
    guessed += [f"{column}: {guess.said}" for column, guess in guesses.items() if guess.said]
    if step > 1:
        guessed.append(f"sizes: compared in the headers of {len(masked[::step])} pairs only")
    look = [*splits(rows, stacks), *doubts, *beside(folder, rows), *notes.lines()]
    return Draft(_to_csv(rows, folder, Path(base)), tuple(guessed), tuple(look))


def write_draft(draft: Draft, out: Path) -> None:
    """Write a drafted table, and beside it, as ``.txt``, what was guessed.

    Raises
    ------
    MitolumeError
        One of the two is there already, `out` is no CSV, or the place can't be written to.
    """
    if out.suffix.lower() != ".csv":
        raise MitolumeError(f"--out {out} must end in .csv: it is a table")
    beside = out.with_suffix(".txt")
    for path in (out, beside):
        if path.exists():
            raise MitolumeError(f"{path} is there already; choose another name or remove it")
    write_text(beside, "\n".join(draft.lines()) + "\n")
    write_text(out, draft.text)


# --- what headers say ---------------------------------------------------------------------------


def _compare_headers(
    folder: Path, masked: Sequence[tuple[Pair, dict[str, str]]], notes: Notes, progress: Progress
) -> dict[str, int]:
    """Compare the sizes of images and masks; return the depth of each z-stack."""
    depths: dict[str, int] = {}
    slow = 0
    for number, (pair, row) in enumerate(masked):
        progress(number, len(masked))
        slow += pair.image.file.ending in MANY_SCENES
        if pair.mask is None or (pair.image.file.ending in MANY_SCENES and slow > MOST_SLOW):
            continue
        path = pair.image.file.path
        image = read_header(folder / path)
        if image is None:
            notes.add("images whose header can't be read", path)
            continue
        if image.t > 1:
            notes.add("images with several time points (save the one that was labelled)", path)
        if image.z > 1:
            depths[path] = image.z
        if pair.mask.file.is_roi:
            continue
        mask = read_header(folder / pair.mask.file.path)
        if mask is None:
            notes.add("masks whose header can't be read", pair.mask.file.path)
        elif (mask.y, mask.x) != (image.y, image.x):
            sizes = f"{path} is {image.y} x {image.x}, its mask {mask.y} x {mask.x}"
            notes.add("masks not as large as their image (Y x X)", sizes)
        elif image.z > 1 and max(mask.z, mask.t) == 1:
            row["planes"] = str(image.z // 2)
            notes.add(
                "masks of one plane for a z-stack, given to the middle one (say in column planes "
                "which it is)", pair.mask.file.path,
            )  # fmt: skip
        elif image.z not in (mask.z, mask.t):
            sizes = f"{path} has {image.z}, its mask {max(mask.z, mask.t)}"
            notes.add("masks with another number of planes than their image", sizes)
    if masked:
        progress(len(masked), len(masked))
    return depths


def _with_scenes(
    folder: Path, rows: Sequence[dict[str, str]], notes: Notes
) -> Iterator[dict[str, str]]:
    """Give each scene of a microscope's own file a row, where the files are few."""
    several = [row["image"].lower().endswith(MANY_SCENES) for row in rows]
    for row, may_have in zip(rows, several, strict=True):
        if not may_have:
            yield row
            continue
        if sum(several) > MOST_SCENE_FILES:
            notes.add("files that may hold several scenes, not opened", row["image"])
            yield row
            continue
        scenes = list_scenes(folder / row["image"])
        scenes = scenes if len(scenes) > 1 else []
        if scenes and row["mask"]:
            notes.add("masks given to the first of several scenes", row["mask"])
        for number, scene in enumerate(scenes or [""]):
            yield row | {"scene": scene} | ({"mask": ""} if number else {})


def _without_leaks(rows: Sequence[dict[str, str]], notes: Notes) -> Iterator[dict[str, str]]:
    """Leave out unlabelled rows of specimens that are for validation or test."""
    held_out = {row["specimen"] for row in rows if row["role"] in ("validation", "test")} - {""}
    for row in rows:
        if row["role"] in ("", "unlabelled") and not row["mask"] and row["specimen"] in held_out:
            notes.add(
                "images without a mask, left out as their specimen is for validation or test (to "
                "train on them would leak)", row["image"],
            )  # fmt: skip
        else:
            yield row


def _to_csv(rows: Sequence[dict[str, str]], folder: Path, base: Path) -> str:
    used = [c for c in COLUMNS if c in ("image", "mask") or any(row.get(c) for row in rows)]
    out = io.StringIO()
    writer = csv.DictWriter(out, used, lineterminator="\n", extrasaction="ignore", restval="")
    writer.writeheader()
    to_folder = _relative(folder, base)
    for row in rows:
        paths = {c: to_folder + row[c] for c in ("image", "mask", "fluorescence") if row[c]}
        # Cells are read without the spaces around them.
        writer.writerow(row | {c: f"./{p}" if p[0].isspace() else p for c, p in paths.items()})
    return out.getvalue()


def _relative(folder: Path, base: Path) -> str:
    """Return what leads from the table to the folder, ready to be continued."""
    try:
        relative = Path(os.path.relpath(folder, base)).as_posix()
    except ValueError:  # another drive on Windows
        relative = folder.absolute().as_posix()
    return "" if relative == "." else f"{relative}/"
