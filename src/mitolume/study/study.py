"""A study: arms x seeds x budgets, each a run folder, and their tables. Trains nothing itself."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from mitolume.errors import MitolumeError, shorten
from mitolume.io.check import check_table
from mitolume.io.fields import read_table, write_table
from mitolume.io.write import write_text
from mitolume.models.bundle import versions
from mitolume.progress import progress_bar, say
from mitolume.run.folder import (
    FIELDS,
    IMAGES,
    KEPT,
    RECIPE,
    RESULTS,
    RUN,
    command,
    differences,
    seen_from,
)
from mitolume.run.lock import LOCK, only_one
from mitolume.run.recipe import load_recipe
from mitolume.run.results import read_csv, write_csv
from mitolume.study.arms import Planned, StudyRecipe, load_study, planned_runs
from mitolume.study.run_pool import compute_runs

STUDY, RECORD, RUNS = "study.yaml", "study.json", "runs"
STUDY_RESULTS, STUDY_IMAGES = "study.csv", "study_images.csv"


class FailedRunsError(MitolumeError):
    """Some runs of a study failed; the others are there."""


@dataclass(frozen=True)
class StudyFolder:
    """A study on disk: its recipe, and which runs it consists of."""

    path: Path
    recipe: StudyRecipe

    @property
    def runs(self) -> list[Planned]:
        """All runs there are to be, on the study's own copy of the table."""
        base = self.recipe.base | {"fields": str((self.path / FIELDS).absolute())}
        return planned_runs(self.recipe.model_copy(update={"base": base}))

    def folder(self, run: Planned) -> Path:
        """Return where a run lies."""
        return self.path / RUNS / run.name

    def is_finished(self, run: Planned) -> bool:
        """Whether nothing is left to do for a run."""
        place = self.folder(run)
        try:
            status = json.loads((place / RUN).read_text(encoding="utf-8"))["status"]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return status == "finished" and all(
            (place / name).exists() for name in (IMAGES, RESULTS, KEPT)
        )

    @property
    def record(self) -> dict[str, Any]:
        """The content of study.json: when, by which command, what failed."""
        try:
            return dict(json.loads((self.path / RECORD).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError) as error:
            raise MitolumeError(f"{self.path / RECORD} is damaged ({shorten(error)})") from None

    def note(self, **facts: Any) -> None:
        """Add facts to study.json, at once."""
        write_text(self.path / RECORD, json.dumps(self.record | facts, indent=2) + "\n")


def open_study(path: str | Path) -> StudyFolder:
    """Open the folder of a study.

    Raises
    ------
    MitolumeError
        There is none.
    """
    path = Path(path)
    if not (path / STUDY).exists():
        raise MitolumeError(f"{path} holds no study: {STUDY} is missing")
    return StudyFolder(path, load_study(path / STUDY))


def study(
    recipe: StudyRecipe | str | Path,
    out: str | Path = "study",
    *,
    jobs: int = 1,
    scheduler: str | None = None,
    quiet: bool = False,
) -> Path:
    """Run all that is missing of a study, and write its tables and its report.

    Calling it again goes on: finished runs are skipped, half-finished ones go on from their last
    epoch, broken ones are repeated. Seeds, budgets and arms may be added later.

    Parameters
    ----------
    recipe
        A study or the path of one.
    out
        The study's folder.
    jobs
        Runs at a time on this machine.
    scheduler
        ``tcp://HOST:PORT`` of a dask scheduler whose workers do the runs instead.
    quiet
        Show no progress.

    Returns
    -------
    pathlib.Path
        The study's folder.

    Raises
    ------
    MitolumeError
        The study, the table or a file is off; the folder holds another study.
    FailedRunsError
        A run failed; the others were finished first.
    """
    out = Path(out)
    asked = recipe if isinstance(recipe, StudyRecipe) else load_study(recipe)
    with only_one(out):
        folder = _begin(asked, out, quiet)
        missing = [run for run in folder.runs if not folder.is_finished(run)]
        done = len(folder.runs) - len(missing)
        if done:
            say(f"{done} of {len(folder.runs)} runs are finished already", quiet=quiet)
        failed = {}
        places = {folder.folder(run): run.recipe for run in missing}
        for place, fault in compute_runs(places, jobs=jobs, scheduler=scheduler, quiet=quiet):
            if fault:
                failed[place.name] = fault
                say(f"{place.name} failed: {fault}", quiet=quiet)
        folder.note(failed=failed)
        if any(map(folder.is_finished, folder.runs)):
            collect(folder)
    if failed:
        listing = "\n".join(f"  {name}: {fault}" for name, fault in failed.items())
        raise FailedRunsError(
            f"{len(failed)} of {len(folder.runs)} runs failed; run the study again to repeat "
            f"them:\n{listing}"
        )
    return out


def collect(folder: StudyFolder) -> pd.DataFrame:
    """Put the tables of all finished runs together: study.csv and study_images.csv.

    Parameters
    ----------
    folder
        With at least one finished run.

    Returns
    -------
    pandas.DataFrame
        study_images.csv: the rows of all images.csv, with the columns ``run``, ``budget`` (what
        the recipe says under `labels`) and ``stands`` (whether the model of the row is the one
        that stands for its arm).
    """
    images: list[pd.DataFrame] = []
    results: list[pd.DataFrame] = []
    for run in filter(folder.is_finished, folder.runs):
        place = folder.folder(run)
        rows = read_csv(place / IMAGES)
        model = _standing(place, folder.recipe, rows)
        for table, tables in ((rows, images), (read_csv(place / RESULTS), results)):
            stands = table["model"] == model
            tables.append(table.assign(run=run.name, budget=str(run.k), stands=stands))
    if not images:
        raise MitolumeError(f"{folder.path} has no finished run yet")
    joined = pd.concat(images, ignore_index=True)
    write_csv(folder.path / STUDY_IMAGES, joined)
    write_csv(folder.path / STUDY_RESULTS, pd.concat(results, ignore_index=True))
    return joined


def _standing(place: Path, recipe: StudyRecipe, images: pd.DataFrame) -> str:
    """Return the name of the model that stands for the arm of a run."""
    if recipe.compare == "last":
        return str(max(images["model"]))
    return str(json.loads((place / KEPT).read_text(encoding="utf-8"))["kept"])


def status(path: str | Path) -> pd.DataFrame:
    """Say how far each run of a study is.

    Parameters
    ----------
    path
        The study's folder; it may be worked on at the same time.

    Returns
    -------
    pandas.DataFrame
        A row for each run: arm, k, seed, state (``finished``, ``running``, ``stopped``,
        ``failed`` or ``waiting``), step, steps, why (it failed).
    """
    folder = open_study(path)
    failed = folder.record.get("failed", {})
    rows = []
    for run in folder.runs:
        place = folder.folder(run)
        if folder.is_finished(run):
            state = "finished"
        elif _is_locked(place):
            state = "running"
        elif run.name in failed:
            state = "failed"
        else:
            state = "stopped" if (place / RUN).exists() else "waiting"
        step = _steps_done(place) if state in ("running", "stopped") else ""
        why = failed.get(run.name, "") if state == "failed" else ""
        rows.append((run.arm, run.k, run.seed, state, step, why))
    return pd.DataFrame(rows, columns=["arm", "k", "seed", "state", "step", "why"])


def status_text(path: str | Path) -> str:
    """Return `status` as lines of text, the finished runs counted."""
    runs = status(path)
    counts = runs["state"].value_counts()
    lines = [f"{len(runs)} runs: " + ", ".join(f"{n} {state}" for state, n in counts.items())]
    for row in runs[runs["state"] != "finished"].to_dict("records"):
        note = row["step"] or row["why"]
        which = f"{row['arm']}, labels {row['k']}, seed {row['seed']}"
        lines.append(f"  {row['state']:<9}{which}{note and f': {note}'}")
    return "\n".join(lines)


def _begin(asked: StudyRecipe, out: Path, quiet: bool) -> StudyFolder:
    """Write a new study down, or make sure that the folder's is the same or a part of it."""
    table = Path(asked.base["fields"])
    if not (out / STUDY).exists():
        others = sorted(p.name for p in out.iterdir() if p.name not in (LOCK, FIELDS))
        if others:
            raise MitolumeError(f"{out} holds something else ({others[0]}); choose another --out")
        hashes = _hashes(table, out, quiet)
        write_table(out / FIELDS, read_table(table))
        folder = StudyFolder(out, asked)
        folder.note(
            command=command(),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            fields=str(table.absolute()),
            versions=versions(),
            sha256=hashes,
        )
    else:
        folder = StudyFolder(out, asked)
        _require_same_images(folder, table, quiet)
    _require_same_settings(folder)
    own = asked.model_copy(update={"base": asked.base | {"fields": FIELDS}})
    write_text(out / STUDY, own.to_yaml())
    return folder


def _hashes(table: Path, out: Path, quiet: bool) -> dict[str, str]:
    """Check all files of a table; return a hash of each, by its path as seen from the study."""
    with progress_bar("checking files", quiet=quiet) as advance:
        checked = check_table(table, progress=advance)
    return {seen_from(file, out): digest for file, digest in checked.sha256.items()}


def _require_same_images(folder: StudyFolder, table: Path, quiet: bool) -> None:
    out = folder.path
    known = folder.record.get("sha256", {})
    if _rows(table) != _rows(out / FIELDS):
        raise MitolumeError(
            f"{out} was begun with another table of fields than {table}; choose another --out"
        )
    for file, digest in _hashes(out / FIELDS, out, quiet).items():
        if known.get(file) != digest:
            raise MitolumeError(f"{out / file} has changed since the study was begun; "
                                "choose another --out")  # fmt: skip


def _rows(table: Path) -> list[Any]:
    return [
        replace(row, image=row.image.resolve(), mask=row.mask.resolve() if row.mask else None)
        for row in read_table(table)
    ]


def _require_same_settings(folder: StudyFolder) -> None:
    """Refuse a study in whose folder a run of the same name was begun with other settings."""
    for run in folder.runs:
        path = folder.folder(run) / RECIPE
        if path.exists() and (changed := differences(load_recipe(path), run.recipe)):
            raise MitolumeError(
                f"{folder.path} holds the run {run.name} with other settings "
                f"({', '.join(changed)}); name the arm otherwise, or choose another --out"
            )


def _is_locked(place: Path) -> bool:
    """Whether a process works in a folder."""
    if not (place / LOCK).exists():
        return False
    try:
        with FileLock(place / LOCK, timeout=0):
            return False
    except Timeout:
        return True


def _steps_done(place: Path) -> str:
    try:
        last = pd.read_csv(place / "log.csv").iloc[-1]
    except (OSError, ValueError, IndexError):
        return ""
    return f"{str(last['model']).replace('_', ' ')}, step {last['step']}"
