"""One study on disk: its recipe, its runs and its tables."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from mitolume.errors import MitolumeError, in_words
from mitolume.io.formats import read_json
from mitolume.io.lock import LOCK
from mitolume.io.table import read_table
from mitolume.io.write import owning, write_text
from mitolume.models.bundle import refuse_newer
from mitolume.progress import time_left
from mitolume.runs.folder import Run
from mitolume.runs.recipe import differences
from mitolume.runs.results import read_csv, write_csv
from mitolume.study.arms import Planned, StudyRecipe, load_study, planned_runs
from mitolume.study.evidence import scored_rows
from mitolume.study.worth import outlook

_RECIPE, _RECORD, _RUNS, _FIELDS = "study.yaml", "study.json", "runs", "fields.csv"
_RESULTS, _IMAGES = "study.csv", "study_images.csv"


class Study:
    """A study's folder: the only code that knows the names of the files in one.

    Parameters
    ----------
    path
        The study's folder; it need not exist yet.
    recipe
        The settings of a study that begins or is extended; by default those in the folder.
    """

    def __init__(self, path: str | Path, recipe: StudyRecipe | None = None) -> None:
        self.path = Path(path)
        self._recipe = recipe
        self.recipe_file = self.path / _RECIPE  # another study can start from it
        self.fields_file = self.path / _FIELDS  # the study's own
        self.report_file = self.path / "report.html"
        self.methods_file = self.path / "methods.md"

    # The settings and facts ------------------------------------------------------------------

    @property
    def is_begun(self) -> bool:
        """Whether there is a study in the folder."""
        return self.recipe_file.exists()

    @property
    def recipe(self) -> StudyRecipe:
        """Arms, seeds and budgets."""
        if self._recipe is None:
            _ = self.record  # of a newer version, its recipe may be, too
            self._recipe = load_study(self.recipe_file)
        return self._recipe

    @property
    def record(self) -> dict[str, Any]:
        """The content of study.json: when, by which command, what failed."""
        try:
            record = dict(read_json(self.path / _RECORD))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError) as error:
            raise MitolumeError(f"{self.path / _RECORD} is damaged ({in_words(error)})") from None
        refuse_newer(self.path, record.get("schema_version"))
        return record

    def note(self, **facts: Any) -> None:
        """Add facts to study.json, at once."""
        write_text(self.path / _RECORD, json.dumps(self.record | facts, indent=2) + "\n")

    def write_recipe(self) -> None:
        """Write the settings, with the study's own table of fields."""
        base = self.recipe.base | {"fields": _FIELDS}
        write_text(self.recipe_file, self.recipe.model_copy(update={"base": base}).to_yaml())

    # The runs --------------------------------------------------------------------------------

    @cached_property
    def planned(self) -> list[Planned]:
        """All runs of the study, finished or not, on the study's own copy of the table."""
        base = self.recipe.base | {"fields": str(self.fields_file.absolute())}
        return planned_runs(self.recipe.model_copy(update={"base": base}))

    def run(self, planned: Planned | str) -> Run:
        """Return a run of the study by its plan or its name; it need not have begun."""
        name = planned if isinstance(planned, str) else planned.name
        return Run(self.path / _RUNS / name)

    @property
    def finished(self) -> list[Planned]:
        """The runs for which nothing is left to compute."""
        return [one for one in self.planned if self.run(one).is_finished]

    @property
    def seconds_each(self) -> float:
        """How many seconds a finished run took on average; 0 where there is none."""
        took = [float(self.run(one).record.get("seconds", 0)) for one in self.finished]
        return sum(took) / max(len(took), 1)

    # Beginning and continuing ----------------------------------------------------------------

    def require_free(self) -> None:
        """Refuse a folder that holds something; a study killed while it began left its lock."""
        there = sorted(p.name for p in self.path.iterdir()) if self.path.is_dir() else []
        allowed = (LOCK, _FIELDS, _RECORD) if LOCK in there else ()
        if others := [name for name in there if name not in allowed]:
            raise MitolumeError(
                f"{self.path} holds something else ({others[0]}); choose another --out"
            )

    def require_same_images(self, table: Path, hashes: dict[str, str]) -> None:
        """Refuse to continue with another table, or with files that have changed since.

        ``hashes`` are the SHA-256 of each file of the table, by its path relative to the study.
        """
        if _rows(table) != _rows(self.fields_file):
            raise MitolumeError(
                f"{self.path} was begun with another table of fields than {table}; "
                "choose another --out"
            )
        known = self.record.get("sha256", {})
        for file, digest in hashes.items():
            if known.get(file) != digest:
                raise MitolumeError(f"{self.path / file} has changed since the study was begun; "
                                    "choose another --out")  # fmt: skip

    def require_same_settings(self) -> None:
        """Refuse to continue if a run of the same name was begun with other settings."""
        for planned in self.planned:
            run = self.run(planned)
            if run.recipe_file.exists() and (changed := differences(run.recipe, planned.recipe)):
                raise MitolumeError(
                    f"{self.path} holds the run {planned.name} with other settings "
                    f"({', '.join(changed)}); give the arm another name, or choose another --out"
                )

    # The tables ------------------------------------------------------------------------------

    def collect(self) -> pd.DataFrame:
        """Join the tables of all finished runs into study.csv and study_images.csv.

        Returns
        -------
        pandas.DataFrame
            study_images.csv: the rows of all images.csv, with the columns ``run``, ``budget``
            (as given under `labels` in the recipe) and ``stands`` (whether the model of the row
            stands for its arm).

        Raises
        ------
        MitolumeError
            No run is finished.
        """
        images: list[pd.DataFrame] = []
        results: list[pd.DataFrame] = []
        for planned in self.finished:
            run = self.run(planned)
            last = self.recipe.compare == "last"
            model = str(max(run.scores["model"])) if last else run.kept
            for table, tables in ((run.scores, images), (run.results, results)):
                stands = table["model"] == model
                tables.append(table.assign(run=planned.name, budget=str(planned.k), stands=stands))
        if not images:
            raise MitolumeError(f"{self.path} has no finished run yet")
        joined = pd.concat(images, ignore_index=True)
        with owning(self.path):
            write_csv(self.path / _IMAGES, joined)
            write_csv(self.path / _RESULTS, pd.concat(results, ignore_index=True))
        return joined

    @property
    def results(self) -> pd.DataFrame:
        """study.csv: the rows of all results.csv, see `collect`."""
        return read_csv(self.path / _RESULTS)

    def outlook(self, images: pd.DataFrame | None = None) -> str:
        """Return which differences this study can show, as soon as two seeds are finished.

        ``images`` is what `collect` returned.
        """
        recipe = self.recipe
        planned = (len(recipe.arms) - 1) * len(recipe.labels)
        if len(self.finished) < 2 * (planned + len(recipe.labels)):
            return ""
        rows, _ = scored_rows(self.collect() if images is None else images)
        if recipe.reference not in set(rows["arm"]):
            return ""
        return outlook(
            rows, recipe.reference, n_seeds=len(recipe.seeds), n_comparisons=planned,
            margin=recipe.margin,
        )  # fmt: skip

    # Progress --------------------------------------------------------------------------------

    def status(self) -> pd.DataFrame:
        """Return the progress of each run, also while the study is being computed.

        Returns
        -------
        pandas.DataFrame
            A row for each run: ``arm, k, seed, state`` (``finished``, ``running``, ``stopped``,
            ``failed`` or ``waiting``), ``step`` (the last one), ``why`` (it failed).
        """
        failed = self.record.get("failed", {})
        rows = []
        for planned in self.planned:
            run = self.run(planned)
            if run.is_finished:
                state = "finished"
            elif run.is_running:
                state = "running"
            elif planned.name in failed:
                state = "failed"
            else:
                state = "stopped" if run.is_begun else "waiting"
            step = run.last_step if state in ("running", "stopped") else ""
            why = failed.get(planned.name, "") if state == "failed" else ""
            rows.append((planned.arm, planned.k, planned.seed, state, step, why))
        return pd.DataFrame(rows, columns=["arm", "k", "seed", "state", "step", "why"])

    def status_text(self) -> str:
        """Return `status` as lines of text; finished runs are only counted."""
        runs = self.status()
        counts = runs["state"].value_counts()
        lines = [f"{len(runs)} runs: " + ", ".join(f"{n} {state}" for state, n in counts.items())]
        if left := self.seconds_each * (len(runs) - counts.get("finished", 0)):
            lines[0] += f"; about {time_left(left)} of computing left"
        for row in runs[runs["state"] != "finished"].to_dict("records"):
            note = row["step"] or row["why"]
            where = f"{row['arm']}, labels {row['k']}, seed {row['seed']}"
            lines.append(f"  {row['state']:<9}{where}{note and f': {note}'}")
        return "\n".join(lines)


def open_study(path: str | Path) -> Study:
    """Open the folder of a study; refuse one that holds none."""
    study = Study(path)
    if not study.is_begun:
        raise MitolumeError(f"{path} holds no study: {_RECIPE} is missing")
    return study


def _rows(table: Path) -> list[Any]:
    return [
        replace(row, image=row.image.resolve(), mask=row.mask.resolve() if row.mask else None)
        for row in read_table(table)
    ]
