"""A run begins or is resumed: everything is checked before anything is computed."""

from __future__ import annotations

import platform
import shlex
import shutil
import sys
import time
from collections.abc import Collection, Container, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from mitolume.errors import DamagedError, MitolumeError
from mitolume.inference.inputs import settled_inputs
from mitolume.io.check import CheckedTable, check_table
from mitolume.io.fields import Field, leaks, with_planes
from mitolume.io.formats import sha256
from mitolume.io.masks import MaskKind
from mitolume.io.rows import open_image
from mitolume.io.split import assign_roles, choose_labelled
from mitolume.io.table import TableError, read_table
from mitolume.models.bundle import SCHEMA_VERSION, Card, read_card, versions
from mitolume.models.networks import find_device, resolve_precision
from mitolume.preprocess.rescale import MOST, scale_factors
from mitolume.progress import progress_bar, say
from mitolume.runs.denoiser import require_denoiser
from mitolume.runs.dye import label_rows, needs_mask
from mitolume.runs.folder import ROLES, Run, find_bundle, seen_from
from mitolume.runs.likeness import unlike_rows
from mitolume.runs.notices import of_roles, of_run
from mitolume.runs.pace import within_minutes
from mitolume.runs.recipe import Recipe, differences
from mitolume.text import count

Teacher = Literal["dye", "proposal", "self"]


def begin(path: Path, recipe: Recipe, *, quiet: bool, told: Container[str] = ()) -> Run:
    """Check everything before anything is computed, then write down what will be done.

    ``told`` are notes that need not be said again.

    Returns
    -------
    Run
        With its checked table; the masks beyond ``labels`` are set aside.

    Raises
    ------
    MitolumeError
        The table or a file is faulty, or the folder is in use.
    """
    started = time.monotonic()
    Run(path).require_new()
    require_denoiser(recipe.chain)
    checked = _checked(recipe.fields, recipe.mask_kind, recipe.inputs.channels, quiet)
    drawn = assign_roles(checked.fields, recipe.split)
    rows = choose_labelled(drawn, None if recipe.labels == "all" else recipe.labels, recipe.seed)
    teacher = _teacher(rows, recipe)
    run = Run(path, table=replace(checked, fields=_taught(rows, teacher, recipe)), quiet=quiet)
    _label_from_dye(run, recipe)
    model_um = _model_pixel_size(run.table)
    _require_usable(run.table, model_um, recipe.fields)
    rows, unlike = unlike_rows(run.table.fields, run.table, model_um)
    table = replace(run.table, fields=tuple(rows))
    own = _settled(recipe, rows, teacher, run.fields_file.name)
    _require_first_weights(own)
    run, notices = Run(path, recipe=own, table=table, quiet=quiet), list[str]()
    if recipe.training.minutes is not None:
        own, chosen = within_minutes(run, model_um, started)
        run, notices = Run(path, recipe=own, table=table, quiet=quiet), [chosen]
    notices = [*table.notices, *of_roles(checked.fields, drawn), *unlike, *of_run(run), *notices]
    run.write_beginning(rows)
    run.note(
        schema_version=SCHEMA_VERSION,
        status="unfinished",  # whether a process is at work on it, the lock says
        command=command(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        fields=str(recipe.fields.absolute()),
        fields_from_here=seen_from(recipe.fields.absolute(), run.path),
        preset=recipe.preset,
        seed=recipe.seed,
        minutes=recipe.training.minutes,
        mask_kind=table.mask_kind,
        pixel_size_um=model_um,
        n_images={role: len(run.images(role)) for role in ROLES},
        n_specimens={role: len({r.specimen for r in rows if r.role == role}) for role in ROLES},
        notices=notices,
        device=_device(),
        threads=torch.get_num_threads(),
        versions=versions(),
        sha256={seen_from(file, run.path): digest for file, digest in table.sha256.items()},
    )
    for notice in notices:
        say(f"note: {notice}", quiet=quiet or notice in told)
    return run


def _settled(recipe: Recipe, rows: Sequence[Field], teacher: Teacher, fields: str) -> Recipe:
    """Return the recipe with what these rows and this machine decide where it says ``auto``."""
    stacks = [open_image(row) for row in rows if row.role == "train"]
    precision = resolve_precision(recipe.training.precision)
    asked = recipe.unlabelled.teacher
    return recipe.model_copy(
        update={
            "training": recipe.training.model_copy(update={"precision": precision}),
            "inputs": settled_inputs(recipe.inputs, stacks),
            "unlabelled": recipe.unlabelled.model_copy(
                update={"teacher": teacher if asked == "auto" else asked}
            ),
            "fields": Path(fields),
        }
    )


def _teacher(rows: Sequence[Field], recipe: Recipe) -> Teacher:
    """Return who labels the unlabelled: ``auto`` takes the dye if it was recorded of any of them.

    Where every image is outlined, the dye is learnt from on request only. Images without the dye
    are labelled by their proposals, unless ``self`` is asked for.
    """
    asked = recipe.unlabelled.teacher
    with_dye = {row.role for row in rows if row.fluorescence}
    if asked == "dye" and not with_dye & {"train", "unlabelled"}:
        raise MitolumeError(
            f"unlabelled.teacher is dye, but no row of {recipe.fields} to learn from has its "
            "`fluorescence`"
        )
    nothing_else = not any(row.role == "train" for row in rows)  # as with `labels: 0`
    if asked == "dye" or ("unlabelled" in with_dye and (asked == "auto" or nothing_else)):
        return "dye"
    proposed = any(row.proposal for row in rows if row.role == "unlabelled")
    if asked == "proposal" and not proposed:
        raise MitolumeError(
            f"unlabelled.teacher is proposal, but no unlabelled row of {recipe.fields} has one"
        )
    return "proposal" if proposed and asked in ("auto", "proposal") else "self"


def _taught(rows: Sequence[Field], teacher: Teacher, recipe: Recipe) -> tuple[Field, ...]:
    """Return the rows with what their teacher needs."""
    if teacher == "self":
        return tuple(replace(row, proposal=None) for row in rows)
    if teacher == "proposal":
        return tuple(rows)
    whole = {row.line for row in read_table(recipe.fields) if row.planes is None}
    return tuple(_with_dye(rows, whole))


def _with_dye(rows: Sequence[Field], whole: Collection[int]) -> Iterator[Field]:
    """Let images be learnt from by their dye: unlabelled ones, and outlined ones once more.

    So are the planes that nobody outlined, in the stacks of ``whole`` lines. In the table of an
    earlier run, that was done.
    """
    if any(row.label == "dye" for row in rows):
        yield from rows
        return
    named = {(row.image, row.scene, z) for row in rows for z in row.planes or ()}
    for row in rows:
        outlined = row.role == "train" and row.is_outlined
        if outlined or row.role != "unlabelled" or not row.fluorescence:
            yield row
        if row.fluorescence and (outlined or row.role == "unlabelled"):
            depth = open_image(row).sizes["Z"] if row.line in whole else 0
            rest = {z for z in range(depth) if (row.image, row.scene, z) not in named}
            planes = sorted(rest.union(row.planes or ()))
            yield replace(with_planes(row, planes), role="train", mask=None)


def _label_from_dye(run: Run, recipe: Recipe) -> None:
    """Make masks of the dye for the run's rows that need one."""
    table = run.table
    shutil.rmtree(run.dye_folder, ignore_errors=True)
    if not any(needs_mask(row) for row in table.fields):
        return
    with progress_bar("masks from the dye", quiet=run.quiet) as advance:
        rows, quality, notices = label_rows(
            table.fields, run.dye_folder, recipe.dye, table.mask_kind, advance
        )
    run.write_dye_quality(quality)
    if not any(row.role == "train" for row in rows):
        raise MitolumeError(
            f"{recipe.fields}: no image to train on has a dye that can be learnt from: {notices[0]}"
            f" ({run.dye_folder} has the figures of each)"
        )
    places = zip(quality["line"], quality["plane"], quality["foreground"], strict=True)
    masks = [row.mask for row in rows if row.label == "dye" and row.mask]
    run.table = replace(
        table,
        fields=tuple(rows),
        notices=(*table.notices, *notices),
        sha256=table.sha256 | {mask: sha256(mask) for mask in masks},
        empty_planes=table.empty_planes | {(line, z) for line, z, share in places if not share},
    )


def resume(path: Path, recipe: Recipe | None, *, quiet: bool) -> Run:
    """Open a run that was stopped, refusing to go on with other settings or other images.

    A ``recipe`` that is None means that of the folder. The run has its checked table, unless it is
    finished.

    Raises
    ------
    MitolumeError
        The recipe differs, a file has changed, or the folder is damaged.
    """
    run = Run(path, quiet=quiet)
    needed = {"mask_kind", "pixel_size_um", "n_images", "fields", "fields_from_here", "sha256"}
    if missing := needed - run.record.keys():
        raise DamagedError(
            f"{path} holds a damaged run: its record lacks {', '.join(sorted(missing))}; "
            "choose another --out"
        )
    run.clean()
    if recipe is not None:
        _require_same(run, recipe)
    if not run.is_finished:
        run.table = _checked(
            run.fields_file, run.record["mask_kind"], run.recipe.inputs.channels, quiet
        )
        for file, digest in run.table.sha256.items():
            if run.record["sha256"].get(seen_from(file, run.path)) != digest:
                raise MitolumeError(f"{file} has changed since {path} was begun; "
                                    "choose another --out")  # fmt: skip
    return run


def _require_same(run: Run, asked: Recipe) -> None:
    """Refuse a recipe whose run would be another than the one in the folder."""
    changed, minutes = differences(run.recipe, asked), asked.training.minutes
    if minutes is not None and minutes != run.record.get("minutes"):
        changed.append(f"training.minutes was {run.record.get('minutes')} and is {minutes}")
    if changed:
        raise MitolumeError(
            f"{run.path} was begun with other settings ({', '.join(changed)}); choose another --out"
        )
    first = run.record["fields"]
    same = (first, run.fields_file, run.path / run.record["fields_from_here"])
    if asked.fields.resolve() not in (Path(place).resolve() for place in same):
        raise MitolumeError(
            f"{run.path} was begun with the table {first}, not {asked.fields}; choose another --out"
        )


def _checked(path: Path, mask_kind: MaskKind, channels: Sequence[str], quiet: bool) -> CheckedTable:
    with progress_bar("checking files", quiet=quiet) as advance:
        return check_table(path, mask_kind=mask_kind, channels=channels, progress=advance)


def _model_pixel_size(table: CheckedTable) -> float | None:
    """Return the median over the training images, which alone may choose the model's grid."""
    known = [
        size[0]
        for row in table.fields
        if row.role == "train" and (size := table.pixel_sizes[row.line]) is not None
        for _ in row.planes or ()
    ]
    return float(np.median(known)) if known else None


def _require_usable(table: CheckedTable, model_um: float | None, source: Path) -> None:
    """Refuse what only shows once roles are drawn."""
    faults = leaks(table.fields)
    training = [row for row in table.fields if row.role == "train"]
    if not training:
        faults.append(
            "it has no labelled image to train on: give a row a mask, or its dye in "
            "`fluorescence`, and role train"
        )
    elif all((row.line, z) in table.empty_planes for row in training for z in row.planes or ()):
        faults.append("no mask of a training image has a foreground pixel: nothing to learn from")
    for row in table.fields:
        try:
            scale_factors(table.pixel_sizes[row.line], model_um)
        except MitolumeError:  # all or none of a table's pixel sizes are known: they are apart
            size, _ = table.pixel_sizes[row.line] or (0.0, 0.0)
            faults.append(
                f"line {row.line}: {row.image.name} has {size:g} µm per pixel and the training "
                f"images {model_um:g} µm, more than {MOST:g} times apart; correct column "
                "`pixel_size_um`, in µm (80 nm is 0.08)"
            )
    if faults:
        raise TableError(source, faults)


def command() -> str:
    """Return the command line that is being run."""
    name = Path(sys.argv[0]).name
    return shlex.join([name, *sys.argv[1:]]) if name == "mitolume" else "from Python"


def _device() -> str:
    device = find_device()
    if device.type != "cpu":
        return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else device.type
    machine = platform.processor() or platform.machine()
    return f"{machine}, {count(torch.get_num_threads(), 'thread')}"


def _require_first_weights(recipe: Recipe) -> None:
    """Refuse first weights that aren't there or don't fit the recipe's network."""
    if recipe.init == "random":
        return
    card = read_card(find_bundle(recipe.init), Card)
    kinds = (recipe.network, recipe.inputs), (card.own_network, card.inputs)
    if len({(network, inputs.count) for network, inputs in kinds}) > 1:
        own, theirs = (
            f"{network.name} of width {network.width} for {inputs.planes} plane(s) "
            f"of {count(max(1, len(inputs.channels)), 'channel')}"
            for network, inputs in kinds
        )
        raise MitolumeError(
            f"init: {recipe.init} is a {theirs}, the recipe's network a {own}: make them the same"
        )
