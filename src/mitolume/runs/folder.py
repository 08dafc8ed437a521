"""One run on disk: where its files lie, what they hold, and how far it is. Computes nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from mitolume.errors import RANKS, DamagedError, MitolumeError, Note, in_words, rank_of
from mitolume.inference.predictor import Predictor
from mitolume.inference.predictor import load as load_bundle_folder
from mitolume.io.check import CheckedTable
from mitolume.io.fields import Field, row_names
from mitolume.io.formats import read_json, sha256, told_apart
from mitolume.io.listing import RUN_RECORD as _RECORD
from mitolume.io.lock import LOCK, is_locked
from mitolume.io.masks import Mask, MaskKind
from mitolume.io.read import read, read_plane
from mitolume.io.table import read_table, write_table
from mitolume.io.write import owning, remove_parts, write_text
from mitolume.models.bundle import CARD, DENOISER, refuse_newer
from mitolume.progress import Advance, progress_bar
from mitolume.runs.images import RowImage
from mitolume.runs.recipe import Recipe, load_recipe
from mitolume.runs.results import read_csv, write_csv
from mitolume.text import of_scene, quoted

T = TypeVar("T")
MODELS = ("model_1", "model_2")
ROLES = ("train", "validation", "test", "unlabelled")
LOG_COLUMNS = ["model", "step", "loss", "validation_iou", "learning_rate", "seconds"]

_RECIPE, _FIELDS = "recipe.yaml", "fields.csv"
_DYE, _QUALITY = "dye", "quality.csv"
_NUMBERS = "^(line|plane|tp|value|step|n_.*)$"  # columns of tables
_IMAGES, _RESULTS, _KEPT, _LOG = "images.csv", "results.csv", "kept.json", "log.csv"
_AUDIT, _CONDITIONS = "audit.csv", "audit_conditions.csv"
_OUT_OF_FOLD = "out_of_fold.json"
_SCORED = (_IMAGES, _RESULTS, _KEPT, _AUDIT, _CONDITIONS)  # --resume makes them of the models again
FOLDS = "folds"  # models of cross-fitting, until their scores are written


class Run:
    """A run folder: the only code that knows the names of the files in one.

    What the folder holds is read when it is first asked for, and kept.

    Parameters
    ----------
    path
        The run folder; nothing needs to be there yet.
    recipe
        The settings of a run that is about to begin; by default those in the folder.
    table
        The checked table of fields with its roles, for a run that computes.
    quiet
        Show no progress bars.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        recipe: Recipe | None = None,
        table: CheckedTable | None = None,
        quiet: bool = False,
    ) -> None:
        self.path = Path(path)
        self.quiet = quiet
        self._recipe = recipe
        self._table = table
        self.recipe_file = self.path / _RECIPE  # another run can start from it
        self.fields_file = self.path / _FIELDS  # the run's own, with the roles that were drawn
        self.report_file = self.path / "report.html"
        self.methods_file = self.path / "methods.md"
        self.dye_folder = self.path / _DYE  # masks that were made from the dye
        self.denoiser_folder = self.path / DENOISER  # the denoiser of the chain
        self.scratch = self.path / "scratch"  # prepared images, while the run computes
        self.suggestions_folder = self.path / "suggest"
        self.ceiling_file = self.path / "agreement.csv"  # how far two annotators agree

    # How far it is ---------------------------------------------------------------------------

    @property
    def is_begun(self) -> bool:
        """Whether the checks have passed, so that the run can be resumed."""
        return (self.path / _RECORD).exists()

    @property
    def is_scored(self) -> bool:
        """Whether all tables of scores are there and whole, and which model is kept is decided."""
        try:
            _ = self.kept, self.scores, self.results
            return not self._changed()
        except MitolumeError:
            return False

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to compute; the report may be missing."""
        try:
            return self.record.get("status") == "finished" and self.is_scored
        except MitolumeError:
            return False

    def finish(self) -> None:
        """Note that nothing is left to compute, and the hashes of the tables of scores."""
        there = [name for name in _SCORED if (self.path / name).exists()]
        self.note(status="finished", scored={name: sha256(self.path / name) for name in there})

    def _changed(self) -> list[str]:
        """Return which tables of scores are no longer as they were when the run was finished."""
        known = {self.path / name: digest for name, digest in self.record.get("scored", {}).items()}
        return [f.name for f, digest in known.items() if not f.exists() or sha256(f) != digest]

    @property
    def is_running(self) -> bool:
        """Whether a process computes this run at this moment."""
        return is_locked(self.path)

    @property
    def last_step(self) -> str:
        """The last logged step, such as "model 1, step 400"; empty before the first."""
        try:
            last = pd.read_csv(self.path / _LOG).iloc[-1]
        except (OSError, ValueError, IndexError):
            return ""
        return f"{str(last['model']).replace('_', ' ')}, step {last['step']}"

    def require_new(self) -> None:
        """Refuse a folder that holds something; a run killed while it began left its lock, too."""
        begun = {_RECIPE, _FIELDS, LOCK, _DYE}
        there = {p.name for p in self.path.iterdir()} if self.path.is_dir() else set[str]()
        is_file = self.path.exists() and not self.path.is_dir()
        if is_file or there - begun or (there and LOCK not in there):
            raise MitolumeError(f"{self.path} exists and is not empty; choose another --out")

    # The settings and facts ------------------------------------------------------------------

    @cached_property
    def record(self) -> dict[str, Any]:
        """The facts in run.json: what was run, when, on which files (see `begin`)."""
        record = self._json(_RECORD) if self.is_begun else {}
        if not isinstance(record, dict):
            raise self._damaged(_RECORD, "it holds no facts")
        refuse_newer(self.path, record.get("schema_version"))
        return record

    def note(self, **facts: Any) -> None:
        """Add facts to run.json, at once; notices keep their ranks."""
        ranks = {one: rank_of(one) for one in facts.get("notices", ()) if isinstance(one, Note)}
        self.record.update(facts, ranks=self.record.get("ranks", {}) | ranks)
        with owning(self.path):
            write_text(self.path / _RECORD, json.dumps(self.record, indent=2) + "\n")

    @property
    def notices(self) -> list[Note]:
        """What the user should know of the run, with ranks."""
        ranks = self.record.get("ranks", {})
        return [Note(one, ranks.get(one, RANKS[1])) for one in self.record.get("notices", ())]

    @property
    def recipe(self) -> Recipe:
        """All settings of the run."""
        if self._recipe is None:
            with suppress(DamagedError):  # of a newer version, its recipe may be, too
                _ = self.record
            self._recipe = load_recipe(self.recipe_file)
        return self._recipe

    @property
    def table(self) -> CheckedTable:
        """The checked table of fields of a run that computes."""
        assert self._table is not None, "only a run that was begun or resumed has checked its table"
        return self._table

    @table.setter
    def table(self, table: CheckedTable) -> None:
        self._table = table
        for name in ("rows", "_images"):
            self.__dict__.pop(name, None)

    @cached_property
    def rows(self) -> tuple[Field, ...]:
        """The rows of the run's table of fields."""
        return self._table.fields if self._table else tuple(read_table(self.fields_file))

    @property
    def mask_kind(self) -> MaskKind:
        """What the values in the masks of the table mean."""
        kind: MaskKind = self._table.mask_kind if self._table else self.record["mask_kind"]
        return kind

    def write_beginning(self, rows: list[Field]) -> None:
        """Write the table and the settings of a run that begins."""
        write_table(self.fields_file, rows)
        write_text(self.recipe_file, self.recipe.to_yaml())

    # Images and masks ------------------------------------------------------------------------

    def images(self, *roles: str) -> list[RowImage]:
        """Return the images of some roles (of all, where none is named), in the table's order."""
        return [image for image in self._images if not roles or image.row.role in roles]

    def image(self, line: int, plane: int) -> RowImage:
        """Return the image that a table of scores names by ``line`` and ``plane``."""
        return next(i for i in self._images if (i.line, i.z) == (line, plane))

    @cached_property
    def row_names(self) -> list[str]:
        """What the masks of each row are called; in old runs without folders."""
        made = {path.name for path in self.path.glob("masks/*/*_mask.ome.tif")}
        old = row_names(self.rows, folders=False)
        return old if made >= {f"{name}_mask.ome.tif" for name in old} else row_names(self.rows)

    @cached_property
    def _images(self) -> list[RowImage]:
        rows, kind, names = self.rows, self.mask_kind, self.row_names
        shown = told_apart((row.image for row in rows), attrgetter("name"), "/")
        return [
            RowImage(row, z, kind, line, name, of_scene(shown[row.image], row.scene))
            for line, (row, name) in enumerate(zip(rows, names, strict=True), start=2)
            for z in row.planes or ()
        ]

    @property
    def dye_quality(self) -> pd.DataFrame | None:
        """How far the dye of each image can be trusted; None where no mask was made of it."""
        if not (self.dye_folder / _QUALITY).exists():
            return None
        return self._csv(f"{_DYE}/{_QUALITY}", "image", "plane", "verdict")

    def write_dye_quality(self, quality: pd.DataFrame) -> None:
        """Write `dye_quality`."""
        write_text(self.dye_folder / _QUALITY, quality.to_csv(index=False, float_format="%.4f"))

    def mask_file(self, model: str, name: str) -> Path:
        """Return where the masks of one row lie, a plane for each image (see `row_names`)."""
        return self.path / "masks" / model / f"{name}_mask.ome.tif"

    def mask(self, model: str, image: RowImage) -> Mask:
        """Read the mask that a model made of an image: (Y, X) uint8, 0 or 1."""
        stack = read(self.mask_file(model, image.row_name))
        return np.asarray(read_plane(stack, z=(image.row.planes or ()).index(image.z)))

    # Models ----------------------------------------------------------------------------------

    @property
    def models(self) -> list[str]:
        """The models whose training is finished."""
        return [name for name in MODELS if self.has_model(name)]

    def model_folder(self, name: str, part: str = "") -> Path:
        """Return the folder of a model, or of one trained on a ``part`` of the labelled images."""
        return self.path / part / name

    def has_model(self, name: str, part: str = "") -> bool:
        """Whether the training of a model is finished."""
        return (self.model_folder(name, part) / CARD).exists()

    def drop_model(self, name: str) -> None:
        """Remove a model that went astray."""
        shutil.rmtree(self.model_folder(name), ignore_errors=True)

    def predictor(self, model: str) -> Predictor:
        """Load a model, ready to predict."""
        return load_bundle_folder(self.model_folder(model))

    # Tables ----------------------------------------------------------------------------------

    @cached_property
    def scores(self) -> pd.DataFrame:
        """images.csv: a row for each image and model."""
        return self._csv(_IMAGES, "line", "plane", "model", "subset", "tp")

    @cached_property
    def results(self) -> pd.DataFrame:
        """results.csv: a row for each model, subset and metric."""
        return self._csv(_RESULTS, "model", "subset", "metric", "value", "n_images", "n_specimens")

    def write_scores(self, images: pd.DataFrame, results: pd.DataFrame) -> None:
        """Write images.csv and results.csv."""
        write_csv(self.path / _IMAGES, images)
        write_csv(self.path / _RESULTS, results)
        self.__dict__.pop("scores", None)
        self.__dict__.pop("results", None)

    @property
    def log(self) -> pd.DataFrame:
        """log.csv: a row for each check during training."""
        return self._csv(_LOG, "model", "step")

    def write_log(self, model: str, history: list[dict[str, float | None]]) -> None:
        """Replace a model's rows in log.csv, keeping all others."""
        lines = pd.DataFrame(history).assign(model=model)
        path = self.path / _LOG
        try:
            earlier = pd.read_csv(path)
            others = earlier[earlier["model"] != model]
            lines = pd.concat([others, lines], ignore_index=True) if len(others) else lines
        except (FileNotFoundError, KeyError, ValueError):
            pass  # none yet, or damaged: the history is safe in the checkpoint
        write_csv(path, lines[LOG_COLUMNS])

    @property
    def has_audit(self) -> bool:
        """Whether the run has unlabelled images, whose masks were audited."""
        return (self.path / _AUDIT).exists()

    @property
    def audit(self) -> pd.DataFrame:
        """audit.csv: a row for each unlabelled image, the least trustworthy first."""
        return self._csv(_AUDIT)

    @property
    def audit_conditions(self) -> pd.DataFrame:
        """audit_conditions.csv: the audit by condition and batch."""
        return self._csv(_CONDITIONS)

    def write_audit(self, audit: pd.DataFrame, conditions: pd.DataFrame) -> None:
        """Write the tables of the audit."""
        with owning(self.path):
            write_csv(self.path / _CONDITIONS, conditions)
            write_csv(self.path / _AUDIT, audit)

    # What was decided ------------------------------------------------------------------------

    @property
    def kept(self) -> str:
        """The name of the model that was kept."""
        return str(self._decision["kept"])

    @property
    def kept_reason(self) -> str:
        """Why that model was kept, for a sentence."""
        return str(self._decision["reason"])

    @cached_property
    def _decision(self) -> dict[str, Any]:
        decision = self._json(_KEPT)
        if not isinstance(decision, dict) or not {"kept", "reason"} <= decision.keys():
            raise self._damaged(_KEPT, "it names no model")
        return decision

    def keep(self, model: str, reason: str) -> None:
        """Write down which model is kept, and why."""
        decision = {"kept": model, "reason": reason}
        write_text(self.path / _KEPT, json.dumps(decision, indent=2) + "\n")
        self.__dict__.pop("_decision", None)

    @property
    def out_of_fold(self) -> dict[str, Any] | None:
        """The scores of cross-fitting; None where validation images decide."""
        return dict(self._json(_OUT_OF_FOLD)) if (self.path / _OUT_OF_FOLD).exists() else None

    def write_out_of_fold(self, scores: dict[str, Any]) -> None:
        """Write the scores of cross-fitting."""
        write_text(self.path / _OUT_OF_FOLD, json.dumps(scores, indent=2) + "\n")

    # Reading ---------------------------------------------------------------------------------

    def each(self, title: str, items: Sequence[T]) -> Iterator[T]:
        """Yield items, and show how many are done."""
        with self.bar(title) as advance:
            for done, item in enumerate(items):
                advance(done, len(items))
                yield item
            advance(len(items), len(items))

    def bar(self, title: str) -> AbstractContextManager[Advance]:
        """Show the progress of a step."""
        return progress_bar(title, quiet=self.quiet)

    def clean(self) -> None:
        """Remove half-written files and prepared images that a killed process left."""
        remove_parts(self.path)
        shutil.rmtree(self.scratch, ignore_errors=True)
        if self.out_of_fold is not None:
            shutil.rmtree(self.path / FOLDS, ignore_errors=True)

    def _json(self, name: str) -> Any:
        try:
            return read_json(self.path / name)
        except FileNotFoundError:
            raise self._unfinished() from None
        except (OSError, ValueError) as error:
            raise self._damaged(name, in_words(error)) from None

    def _csv(self, name: str, *columns: str) -> pd.DataFrame:
        try:
            table = read_csv(self.path / name)
            table[list(columns)].filter(regex=_NUMBERS).astype(float)
        except FileNotFoundError:
            raise self._unfinished() from None
        except (OSError, ValueError, KeyError) as error:
            raise self._damaged(name, in_words(error)) from None
        return table

    @property
    def _resume(self) -> str:
        return f"mitolume run --out {quoted(self.path)} --resume"

    def _damaged(self, name: str, reason: str) -> DamagedError:
        again = f"`{self._resume}` makes it again"
        anew = "put the file back, or run anew with another --out"
        return DamagedError(
            f"{self.path} holds a damaged run: {name} can't be used ({reason}); "
            f"{again if name in _SCORED else anew}"
        )

    def _unfinished(self) -> MitolumeError:
        return MitolumeError(f"{self.path} has not finished; `{self._resume}` continues it")


def open_run(path: str | Path) -> Run:
    """Open a finished run.

    Parameters
    ----------
    path
        The run folder.

    Raises
    ------
    MitolumeError
        It holds no run, a study, or a run that has not finished.
    """
    run = Run(path)
    if not run.is_begun:
        hint = ""
        if (run.path / "runs").is_dir():
            hint = f"; it is a study: name one of the runs in {run.path / 'runs'}"
        raise MitolumeError(f"{run.path} holds no run ({_RECORD} is missing){hint}")
    if run.record.get("status") != "finished":
        raise run._unfinished()
    _ = run.kept, run.scores, run.results  # what is damaged is said before anything is computed
    for name in run._changed():
        raise run._damaged(name, "it is not as the run left it")
    return run


def find_bundle(model: str | Path) -> Path:
    """Return the model folder that a path means: itself, or the kept model of a run folder."""
    run = Run(model)
    if not run.is_begun:
        for inner in sorted(run.path.glob(f"runs/*/{_RECORD}"))[:1]:
            raise MitolumeError(f"{model} is a study; name one of its runs, such as {inner.parent}")
        outer = next((path for path in run.path.parents if Run(path).is_begun), None)
        if outer and not (run.path / CARD).exists():
            raise MitolumeError(f"{model} is no model; name the run that it is part of: {outer}")
        return run.path
    _ = run.record  # one of a newer version is refused
    if not (run.path / _KEPT).exists():
        raise MitolumeError(f"{model} is a run that has not finished; continue it with --resume")
    return run.model_folder(run.kept)


def load(model: str | Path, **options: Any) -> Predictor:
    """Load a model, ready to predict.

    Parameters
    ----------
    model
        A model folder (with ``card.json``), or a run folder, whose kept model is taken.
    **options
        Passed to `mitolume.Predictor`: ``device``, ``views``, ``core``, ``precision``.

    Returns
    -------
    Predictor

    Raises
    ------
    MitolumeError
        There is no model in that place, or the run has not finished.
    """
    return load_bundle_folder(find_bundle(model), **options)


def seen_from(file: Path, folder: Path) -> str:
    """Name a file as seen from a folder, so that both can be moved together."""
    return Path(os.path.relpath(file, folder)).as_posix()
