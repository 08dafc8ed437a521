"""A study computed: its runs one after the other, side by side, or on a dask cluster."""

from __future__ import annotations

import time
from collections.abc import Container, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path

import torch

from mitolume.errors import DamagedError, MitolumeError, disk_fault, shorten, some_names
from mitolume.io.check import check_table
from mitolume.io.lock import only_one
from mitolume.io.split import assign_roles
from mitolume.io.table import read_table, used_columns, write_table
from mitolume.models.bundle import SCHEMA_VERSION, versions
from mitolume.models.networks import find_cards, take_share
from mitolume.progress import progress_bar, say, time_left
from mitolume.runs.begin import command
from mitolume.runs.folder import Run, seen_from
from mitolume.runs.recipe import Recipe
from mitolume.study.arms import StudyRecipe, require_equal_cost
from mitolume.study.folder import Study


class FailedRunsError(MitolumeError):
    """Some runs of a study failed; all others are finished."""


def compute_study(
    recipe: StudyRecipe,
    out: str | Path,
    *,
    jobs: int = 1,
    scheduler: str | None = None,
    quiet: bool = False,
) -> Study:
    """Compute all runs of a study that are missing, and collect their tables.

    Called again, it continues: finished runs are skipped, interrupted ones continue from their
    last epoch, damaged ones are repeated. Seeds, budgets and arms may be added later. The
    parameters and faults are those of `mitolume.workflow.study`.
    """
    if not Study(out).is_begun:
        Study(out).require_free()
    with only_one(Path(out)):
        study = _begin(recipe, Path(out), quiet)
        finished = {one.name for one in study.finished}
        missing = {
            study.run(one).path: one.recipe for one in study.planned if one.name not in finished
        }
        if finished:
            say(f"{len(finished)} of {len(study.planned)} runs are already finished", quiet=quiet)
        failed = {}
        told = False
        for place, fault in _compute_runs(missing, jobs, scheduler, quiet, study.seconds_each):
            if fault:
                failed[place.name] = fault
                say(f"{place.name} failed: {fault}", quiet=quiet)
            if not told and (told := bool(said := study.outlook())):
                say(said, quiet=quiet)
        study.note(failed=failed)
        if study.finished:
            study.collect()
    if failed:
        alike = {
            fault: some_names(n for n in failed if failed[n] == fault) for fault in failed.values()
        }
        listing = "\n".join(f"  {names}: {fault}" for fault, names in alike.items())
        raise FailedRunsError(
            f"{len(failed)} of {len(study.planned)} runs failed; run the study again to repeat "
            f"them:\n{listing}"
        )
    return study


def _begin(recipe: StudyRecipe, out: Path, quiet: bool) -> Study:
    """Write down a new study, or make sure that the folder holds the same one or a part of it."""
    study, table = Study(out, recipe), Path(recipe.base["fields"])
    rows = assign_roles(read_table(table), study.planned[0].recipe.split)
    require_equal_cost(recipe, rows)
    if not {row.role for row in rows} & {"test", "validation"}:
        raise MitolumeError(
            f"{table}: no labelled image can be kept aside, and training images can't compare "
            "arms: it takes labelled images of two or more specimens without a role"
        )
    if study.is_begun:
        study.require_same_images(table, _hashes(study.fields_file, study, quiet))
    else:
        hashes = _hashes(table, study, quiet)
        fields = read_table(table)  # without columns that would hide one of nearly their name
        write_table(study.fields_file, fields, used_columns(fields))
        study.note(
            schema_version=SCHEMA_VERSION,
            fields=str(table.absolute()),
            sha256=hashes,
            command=command(),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=versions(),
        )
    study.require_same_settings()
    study.write_recipe()
    return study


def _hashes(table: Path, study: Study, quiet: bool) -> dict[str, str]:
    """Check all files of a table; return a hash of each, by its path relative to the study."""
    kind = study.planned[0].recipe.mask_kind
    with progress_bar("checking files", quiet=quiet) as advance:
        checked = check_table(table, mask_kind=kind, progress=advance)
    return {seen_from(file, study.path): digest for file, digest in checked.sha256.items()}


def _compute_runs(
    runs: Mapping[Path, Recipe], jobs: int, scheduler: str | None, quiet: bool, each: float
) -> Iterator[tuple[Path, str]]:
    """Compute runs; yield each folder when its run has ended, with the reason if it failed.

    ``each`` is how many seconds earlier runs took, 0 if there are none.
    """
    if not runs:
        return
    if scheduler is None and jobs <= 1:
        started, told = time.monotonic(), set[str]()
        for number, (place, recipe) in enumerate(runs.items()):
            left = f" (about {time_left(each * (len(runs) - number))} left for all)" if each else ""
            say(f"run {number + 1} of {len(runs)}: {place.name}{left}", quiet=quiet)
            fault = try_run(recipe, place, quiet=quiet, told=told)
            if not fault and Run(place).is_begun:
                told.update(Run(place).notices)
            yield place, fault
            each = (time.monotonic() - started) / (number + 1)
        return
    from mitolume.parallel import run_side_by_side

    # The number of threads decides the last bits: on a cluster it is that of `jobs=1` here.
    threads = max(1, torch.get_num_threads() // (1 if scheduler else jobs))
    task = partial(_try_on_worker, threads=threads, cards=None if scheduler else find_cards())
    computed = run_side_by_side(
        {place: (task, recipe, place.absolute()) for place, recipe in runs.items()},
        processes=jobs,
        scheduler=scheduler,
        inputs=sorted({recipe.fields.absolute() for recipe in runs.values()}),
        out=next(iter(runs)).parents[1].absolute(),
    )
    with progress_bar("runs", quiet=quiet) as advance:
        advance(0, len(runs))
        for done, (place, result) in enumerate(computed, 1):
            advance(done, len(runs), place.name)
            if isinstance(result, BaseException):
                result = f"its worker failed ({type(result).__name__}: {shorten(result)})"
            yield place, result


def _try_on_worker(recipe: Recipe, place: Path, threads: int, cards: Sequence[str] | None) -> str:
    """Do a run in a process beside others."""
    take_share(threads, cards)
    return try_run(recipe, place)


def try_run(
    recipe: Recipe,
    place: Path,
    *,
    quiet: bool = True,
    told: Container[str] = (),
) -> str:
    """Begin or continue a run in this process, whatever may go wrong in it.

    A damaged run in the folder ``place`` is renamed, and repeated. Returns the sentence in which
    the run failed; empty if it did not.
    """
    from mitolume.runs.run import compute_run

    began_before = Run(place).is_begun
    try:
        try:
            compute_run(recipe, place, go_on=True, quiet=quiet, told=told)
        except DamagedError:
            if not began_before:
                raise
            names = (place.with_name(f"{place.name}.broken-{number}") for number in count(1))
            place.rename(next(name for name in names if not name.exists()))
            compute_run(recipe, place, quiet=quiet, told=told)
    except MitolumeError as error:
        return str(error)
    except Exception as error:  # one run must not end a study of days
        return disk_fault(error) or f"unexpected {type(error).__name__}: {shorten(error)}"
    return ""
