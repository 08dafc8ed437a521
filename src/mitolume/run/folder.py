"""A run folder: begun, written down, reopened. Trains and scores nothing."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from mitolume.errors import DamagedError, MitolumeError, shorten
from mitolume.inference.predictor import default_device, find_bundle
from mitolume.io.check import CheckedTable, check_table
from mitolume.io.fields import Field, TableError, leaks, write_table
from mitolume.io.masks import MaskKind
from mitolume.io.split import assign_roles, choose_labelled
from mitolume.io.write import remove_parts, write_text
from mitolume.models.bundle import CARD, read_card, versions
from mitolume.preprocess.rescale import MOST, scale_factors
from mitolume.progress import Advance, progress_bar, say
from mitolume.run.images import RowImage, images_of
from mitolume.run.likeness import unlike_rows
from mitolume.run.lock import LOCK
from mitolume.run.recipe import INIT, Recipe, load_recipe
from mitolume.run.results import write_csv
from mitolume.training.loop import resolve_precision
from mitolume.training.methods import METHODS

RECIPE, FIELDS, RUN, KEPT = "recipe.yaml", "fields.csv", "run.json", "kept.json"
IMAGES, RESULTS, LOG, REPORT = "images.csv", "results.csv", "log.csv", "report.html"
ROLES = ("train", "validation", "test", "unlabelled")


@dataclass
class RunFolder:
    """A run folder and all that the steps of the run need to know.

    ``record`` is the content of run.json.
    """

    path: Path
    recipe: Recipe
    table: CheckedTable
    quiet: bool = False
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def scratch(self) -> Path:
        """Where prepared images lie while the run goes on."""
        return self.path / "scratch"

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to do but, at most, to write the report anew."""
        tables = all((self.path / name).exists() for name in (IMAGES, RESULTS, KEPT))
        return self.record.get("status") == "finished" and tables

    def images(self, role: str) -> list[RowImage]:
        """Return the images of a role."""
        return images_of(self.table.fields, role, self.table.mask_kind)

    def has_model(self, name: str) -> bool:
        """Whether a model's training is finished."""
        return (self.path / name / CARD).exists()

    def bar(self, title: str) -> AbstractContextManager[Advance]:
        """Show the progress of a step."""
        return progress_bar(title, quiet=self.quiet)

    def note(self, **facts: Any) -> None:
        """Add facts to run.json, at once."""
        self.record |= facts
        write_text(self.path / RUN, json.dumps(self.record, indent=2) + "\n")

    def write_log(
        self, model: str, history: list[dict[str, float | None]], before: int = 0
    ) -> None:
        """Replace a model's lines in log.csv after step ``before``, keeping all others."""
        lines = pd.DataFrame(history).assign(model=model)
        lines["step"] += before
        path = self.path / LOG
        columns = ["model", "step", "loss", "validation_iou", "learning_rate", "seconds"]
        try:
            earlier = pd.read_csv(path)
            others = earlier[(earlier["model"] != model) | (earlier["step"] <= before)]
            lines = pd.concat([others, lines], ignore_index=True) if len(others) else lines
        except (FileNotFoundError, KeyError, ValueError):
            pass  # none yet, or damaged: the history is safe in the checkpoint
        write_csv(path, lines[columns])


def require_new(path: Path) -> None:
    """Refuse a folder that holds something; a run killed while it began had computed nothing."""
    begun = {RECIPE, FIELDS, LOCK}
    if path.exists() and (not path.is_dir() or {p.name for p in path.iterdir()} - begun):
        raise MitolumeError(f"{path} exists and is no empty folder; choose another --out")


def begin(path: Path, recipe: Recipe, *, quiet: bool) -> RunFolder:
    """Check everything before anything is computed, then write down what will be done.

    Parameters
    ----------
    path
        A new or empty folder.
    recipe
        What to do.
    quiet
        Show no progress.

    Returns
    -------
    RunFolder

    Raises
    ------
    MitolumeError
        The table or a file is off, or the folder is in use.
    """
    require_new(path)
    table = _checked(recipe.fields, recipe.mask_kind, quiet)
    rows = assign_roles(table.fields, recipe.split)
    rows = choose_labelled(rows, None if recipe.labels == "all" else recipe.labels, recipe.seed)
    model_um = _model_pixel_size(rows, table)
    _require_usable(rows, table, model_um, recipe.fields)
    training = recipe.training.model_copy(
        update={"precision": resolve_precision(recipe.training.precision)}
    )
    own = recipe.model_copy(update={"training": training, "fields": Path(FIELDS)})
    folder = RunFolder(path, own, replace(table, fields=tuple(rows)), quiet)
    write_table(path / FIELDS, rows)
    write_text(path / RECIPE, own.to_yaml())
    folder.note(
        status="running",
        command=command(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        fields=str(recipe.fields.absolute()),
        fields_from_here=seen_from(recipe.fields.absolute(), path),  # both may be moved together
        preset=recipe.preset,
        seed=recipe.seed,
        mask_kind=table.mask_kind,
        pixel_size_um=model_um,
        n_images={role: len(folder.images(role)) for role in ROLES},
        n_specimens={role: len({r.specimen for r in rows if r.role == role}) for role in ROLES},
        notices=[
            *table.notices,
            *unlike_rows(rows, table, model_um),
            *_notices(folder),
            *_seen_before(folder),
        ],
        device=_device(),
        versions=versions(),
        sha256={seen_from(file, path): digest for file, digest in table.sha256.items()},
    )
    for notice in folder.record["notices"]:
        say(f"note: {notice}", quiet=quiet)
    return folder


def reopen(path: Path, recipe: Recipe | None, *, quiet: bool) -> RunFolder:
    """Read a run folder back, refusing to go on with other settings or other images.

    Parameters
    ----------
    path
        The run folder.
    recipe
        What the user asks for now; None means what the folder says.
    quiet
        Show no progress.

    Returns
    -------
    RunFolder

    Raises
    ------
    MitolumeError
        The recipe differs, a file has changed, or the folder is damaged.
    """
    try:
        record = json.loads((path / RUN).read_text(encoding="utf-8"))
        _ = record["mask_kind"], record["pixel_size_um"], record["n_images"]
        _ = record["fields"], record["fields_from_here"]
        dict.items(record["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(
            f"{path / RUN} is damaged ({shorten(error)}); choose another --out"
        ) from None
    own = load_recipe(path / RECIPE)
    remove_parts(path)
    if recipe is not None:
        _require_same(own, recipe, path)
        same = (record["fields"], path / FIELDS, path / record["fields_from_here"])
        if recipe.fields.resolve() not in (Path(place).resolve() for place in same):
            raise MitolumeError(
                f"{path} was begun with the table {record['fields']}, not {recipe.fields}; "
                "choose another --out"
            )
    nothing = CheckedTable((), record["mask_kind"], (), {}, {}, frozenset())
    folder = RunFolder(path, own, nothing, quiet, record)
    if not folder.is_finished:
        folder.table = _checked(path / FIELDS, record["mask_kind"], quiet)
        for file, digest in folder.table.sha256.items():
            if record["sha256"].get(seen_from(file, path)) != digest:
                raise MitolumeError(f"{file} has changed since {path} was begun; "
                                    "choose another --out")  # fmt: skip
    return folder


def _checked(path: Path, mask_kind: MaskKind, quiet: bool) -> CheckedTable:
    with progress_bar("checking files", quiet=quiet) as advance:
        return check_table(path, mask_kind=mask_kind, progress=advance)


def _model_pixel_size(rows: list[Field], table: CheckedTable) -> float | None:
    """Return the median over the training images, which alone may choose the model's grid."""
    known = [
        size[0]
        for row in rows
        if row.role == "train" and (size := table.pixel_sizes[row.line]) is not None
        for _ in row.planes or ()
    ]
    return float(np.median(known)) if known else None


def seen_from(file: Path, folder: Path) -> str:
    """Name a file as seen from the run folder, so that both can move together."""
    return Path(os.path.relpath(file, folder)).as_posix()


def _require_usable(
    rows: list[Field], table: CheckedTable, model_um: float | None, source: Path
) -> None:
    """Refuse what only shows once roles are drawn."""
    faults = leaks(rows)
    training = [row for row in rows if row.role == "train"]
    if not training:
        faults.append("it has no labelled image to train on: give a row a mask and role train")
    elif all((row.line, z) in table.empty_planes for row in training for z in row.planes or ()):
        faults.append("no mask of a training image has a foreground pixel: nothing to learn from")
    for row in rows:
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


def _require_same(own: Recipe, asked: Recipe, path: Path) -> None:
    if changed := differences(own, asked):
        raise MitolumeError(
            f"{path} was begun with other settings ({', '.join(changed)}); choose another --out"
        )


def differences(own: Recipe, asked: Recipe) -> list[str]:
    """Say in which settings a recipe that is asked for differs from the one of a folder.

    Parameters
    ----------
    own
        As the folder holds it.
    asked
        What is wanted now.

    Returns
    -------
    list of str
        Such as ``seed was 0 and is 1``; empty where a run of the one is a run of the other.
    """
    old = dict(_flat(own.model_dump(mode="json")))
    new = dict(_flat(asked.model_dump(mode="json")))
    # The folder has its own table, and "auto" was settled when the run began.
    ignored = {"fields"}
    if new["training.precision"] == "auto":
        ignored.add("training.precision")
    changed = [key for key in old if key not in ignored and old[key] != new.get(key)]
    return [f"{key} was {old[key]} and is {new.get(key)}" for key in changed]


def _flat(nested: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in nested.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _notices(folder: RunFolder) -> list[str]:
    """Say beforehand what the user might not expect of the results."""
    recipe, notices = folder.recipe, []
    validation = folder.images("validation")
    if all((image.row.line, image.z) in folder.table.empty_planes for image in validation):
        notices.append(
            f"no validation images{' with any foreground' if validation else ''}: the length of "
            "training is fixed, the weights of the last quarter are averaged, and the threshold "
            "is 0.5 where the recipe says auto"
        )
    if not folder.images("test"):
        notices.append(
            "no test images: no score here is a test score (rows without a role are kept aside "
            "only in specimens that have no unlabelled rows)"
        )
    if METHODS[recipe.method].uses_unlabelled and not folder.images("unlabelled"):
        notices.append("no unlabelled images: model 2 is not trained")
    if recipe.preset == "paper" and recipe.network.width < 64:
        notices.append(
            "the published networks have 64 channels at full resolution, this one "
            f"{recipe.network.width}: scores are not those of the study"
        )
    return notices


def _seen_before(folder: RunFolder) -> list[str]:
    """Say which validation and test images the model that a run goes on from has learnt."""
    init = folder.recipe.init
    if init in INIT:
        return []
    learnt = ("train", "unlabelled")
    entries = [e for e in read_card(find_bundle(init)).fields if e["role"] in learnt]
    known = {(e["sha256"], e["specimen"]) for e in entries}  # planes of one file may be set apart
    seen = [
        row
        for row in folder.table.fields
        if row.role in ("validation", "test")
        and (folder.table.sha256[row.image], row.specimen) in known
    ]
    if not seen:
        return []
    names = ", ".join(sorted({row.image.name for row in seen})[:3])
    return [
        f"init: {init} has learnt from {len(seen)} of the validation and test rows ({names}"
        f"{', ...' * (len(seen) > 3)}): scores on them are too good; give the rows of each "
        "specimen the role they had in its fields.csv"
    ]


def command() -> str:
    """Return the command line that is being run."""
    name = Path(sys.argv[0]).name
    return shlex.join([name, *sys.argv[1:]]) if name == "mitolume" else "from Python"


def _device() -> str:
    if default_device() == "cuda":
        return str(torch.cuda.get_device_name())
    if torch.backends.mps.is_available():
        return "Apple GPU for training, processor for prediction"
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
