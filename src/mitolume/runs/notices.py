"""What a user should know of a run before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence

from mitolume.errors import Note, some_names
from mitolume.inference.inputs import unlike_stack
from mitolume.io.fields import Field
from mitolume.io.rows import open_image
from mitolume.models.bundle import Card, read_card
from mitolume.runs.folder import Run, find_bundle
from mitolume.text import count
from mitolume.training.methods import METHODS


def of_roles(before: Sequence[Field], rows: Sequence[Field]) -> list[str]:
    """Say what the draw of roles leaves out, from the rows before it and after."""
    return [*_left_aside(before, rows), *_unscored(before, rows)]


def of_run(run: Run) -> list[str]:
    """Say what might not be expected of the results of a run that is about to begin."""
    return [*_unlike_stacks(run), *_of_settings(run), *_seen_before(run)]


def _left_aside(before: Sequence[Field], rows: Sequence[Field]) -> list[str]:
    """Say which unlabelled rows are not learnt from, for their specimens to be kept aside."""
    left = {row.line for row in before} - {row.line for row in rows}
    if not left:
        return []
    names = sorted({row.specimen for row in before if row.line in left})
    return [
        f"{count(len(left), 'unlabelled row')} of specimen {some_names(names)} not used: their "
        "labelled images were kept aside for scoring, and too few specimens have labelled images "
        "only (set the column role to choose otherwise)"
    ]


def _unscored(before: Sequence[Field], rows: Sequence[Field]) -> list[str]:
    """Name conditions that a draw has left without an image to score or to choose by."""
    free = {row.condition for row in before if not row.role and row.condition}
    lacking = []
    for role in ("test", "validation"):
        there = {row.condition for row in rows if row.role == role}
        if there and (none := sorted(free - there)):
            lacking.append(f"no {role} image of {', '.join(none)}")
    if not lacking:
        return []
    return [
        f"{' and '.join(lacking)}: whole specimens are drawn for test and validation, and there "
        "are few; to say yourself which, give them a role in the table"
    ]


def _unlike_stacks(run: Run) -> list[str]:
    """Name images in which the network can't see the planes that it sees in most."""
    inputs = run.recipe.inputs
    unlike: dict[bool, list[Field]] = {True: [], False: []}
    for row in run.table.fields:
        image = open_image(row)
        if unlike_stack(inputs, image):
            stepless = image.sizes["Z"] > 1 and "Z" not in image.attrs.get("pixel_size_um", {})
            unlike[stepless].append(row)
    apart = f"the network sees {inputs.planes} planes"
    apart += f" {inputs.step_um:g} µm apart" if inputs.step_um else ""
    why = {
        True: f"the z-step is unknown, while {apart}: fill in column `z_step_um`",
        False: f"a single plane, or planes of another z-step, while {apart}",
    }
    return [
        f"{some_names(row.image for row in rows)}: {why[stepless]}"
        for stepless, rows in unlike.items()
        if rows
    ]


def _of_settings(run: Run) -> list[str]:
    recipe, notices = run.recipe, []
    validation = run.images("validation")
    by_dye = ", or by condition where training images have masks from the dye" * any(
        row.condition and row.role == "train" and row.label == "dye" for row in run.rows
    )
    if all((image.row.line, image.z) in run.table.empty_planes for image in validation):
        notices.append(
            f"no validation images{' with any foreground' if validation else ''}: the length of "
            "training is fixed, the weights of the last quarter are averaged, and the threshold "
            f"is 0.5 where the recipe says auto{by_dye}"
        )
    seen = [name.casefold() for name in recipe.inputs.channels]
    if any(r.label == "dye" and str(r.fluorescence).casefold() in seen for r in run.table.fields):
        notices.append(
            Note("the network sees the dye that its masks are made from, and new images will need "
                 "it; leave it out of inputs.channels to learn from transmitted light", "Errors")
        )  # fmt: skip
    if not run.images("test"):
        notices.append(
            "no test images: no score here is a test score (whole specimens are kept aside: it "
            "takes labelled images of two or more that have no role in the table)"
        )
    dyed = [r for r in run.rows if r.fluorescence and r.role in ("train", "unlabelled")]
    if dyed and not any(row.label == "dye" for row in run.rows):
        notices.append(
            f"the dye of {count(len(dyed), 'row')} to learn from is left aside; with "
            "`unlabelled.teacher: dye`, masks made from it are learnt from, too"
        )
    unlabelled = run.images("unlabelled")
    if METHODS[recipe.method].uses_unlabelled and not unlabelled:
        notices.append(Note("no image is left without a mask: model 2 is not trained"))
    proposed = sum(image.row.proposal is not None for image in unlabelled)
    if METHODS[recipe.method].uses_unlabelled and proposed:
        notices.append(
            f"model 2 learns {proposed} of {count(len(unlabelled), 'unlabelled image')} from "
            "proposals" + ", and the others from model 1" * (proposed < len(unlabelled))
        )
    if recipe.preset == "paper" and recipe.network.width < 64:
        notices.append(
            "the published networks have 64 channels at full resolution, this one "
            f"{recipe.network.width}: scores are not those of the study"
        )
    return notices


def _seen_before(run: Run) -> list[str]:
    """Say which validation and test images the model that a run goes on from has learnt."""
    init = run.recipe.init
    if init == "random":
        return []
    learnt = ("train", "unlabelled")
    entries = [e for e in read_card(find_bundle(init), Card).fields if e["role"] in learnt]
    known = {(e["sha256"], e["specimen"]) for e in entries}  # planes of one file may be set apart
    seen = [
        row
        for row in run.table.fields
        if row.role in ("validation", "test")
        and (run.table.sha256[row.image], row.specimen) in known
    ]
    if not seen:
        return []
    names = ", ".join(sorted({row.image.name for row in seen})[:3])
    return [
        f"init: {init} has learnt from {len(seen)} of the validation and test rows ({names}"
        f"{', ...' * (len(seen) > 3)}): scores on them are too good; give the rows of each "
        "specimen the role they had in its fields.csv"
    ]
