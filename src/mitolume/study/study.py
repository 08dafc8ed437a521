"""A study computed: arms x seeds x budgets, each a run; finished runs are not repeated."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from mitolume.errors import MitolumeError
from mitolume.io.check import check_table
from mitolume.io.lock import only_one
from mitolume.models.bundle import versions
from mitolume.progress import progress_bar, say
from mitolume.runs.begin import command
from mitolume.study.arms import StudyRecipe
from mitolume.study.folder import Study
from mitolume.study.run_pool import compute_runs


class FailedRunsError(MitolumeError):
    """Some runs of a study failed; the others are there."""


def compute_study(
    recipe: StudyRecipe,
    out: str | Path,
    *,
    jobs: int = 1,
    scheduler: str | None = None,
    quiet: bool = False,
) -> Study:
    """Compute all runs that are missing of a study, and put their tables together.

    Called again, it goes on: finished runs are skipped, stopped ones continue from their last
    epoch, damaged ones are repeated. Seeds, budgets and arms may be added later.

    Parameters
    ----------
    recipe
        The study.
    out
        The study's folder.
    jobs
        Runs at a time on this machine, 1 or more.
    scheduler
        ``tcp://HOST:PORT`` of a dask scheduler whose workers compute the runs instead.
    quiet
        Show no progress.

    Returns
    -------
    Study

    Raises
    ------
    MitolumeError
        The study, the table or a file is faulty; the folder holds another study.
    FailedRunsError
        A run failed; the others were finished first.
    """
    with only_one(Path(out)):
        study = _begin(recipe, Path(out), quiet)
        finished = {one.name for one in study.finished}
        missing = {
            study.run(one).path: one.recipe for one in study.planned if one.name not in finished
        }
        if finished:
            say(f"{len(finished)} of {len(study.planned)} runs are finished already", quiet=quiet)
        failed = {}
        for place, fault in compute_runs(missing, jobs=jobs, scheduler=scheduler, quiet=quiet):
            if fault:
                failed[place.name] = fault
                say(f"{place.name} failed: {fault}", quiet=quiet)
        study.note(failed=failed)
        if study.finished:
            study.collect()
    if failed:
        listing = "\n".join(f"  {name}: {fault}" for name, fault in failed.items())
        raise FailedRunsError(
            f"{len(failed)} of {len(study.planned)} runs failed; run the study again to repeat "
            f"them:\n{listing}"
        )
    return study


def _begin(recipe: StudyRecipe, out: Path, quiet: bool) -> Study:
    """Write a new study down, or make sure that the folder's is the same or a part of it."""
    study, table = Study(out, recipe), Path(recipe.base["fields"])
    if study.is_begun:
        study.require_same_images(table, _hashes(study.fields_file, study, quiet))
    else:
        study.require_free()
        study.begin(
            table,
            _hashes(table, study, quiet),
            command=command(),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=versions(),
        )
    study.require_same_settings()
    study.write_recipe()
    return study


def _hashes(table: Path, study: Study, quiet: bool) -> dict[str, str]:
    """Check all files of a table; return a hash of each, by its path as seen from the study."""
    with progress_bar("checking files", quiet=quiet) as advance:
        checked = check_table(table, progress=advance)
    return {study.seen_from_here(file): digest for file, digest in checked.sha256.items()}
