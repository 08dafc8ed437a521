"""One run: check, train, score, report. Knows no array operation and no training."""

from __future__ import annotations

import gc
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from mitolume.errors import CollapsedError, MitolumeError
from mitolume.inference.predictor import load
from mitolume.io.write import write_text
from mitolume.models.bundle import CARD
from mitolume.progress import say
from mitolume.report.run_content import report
from mitolume.run.audit import write_audit
from mitolume.run.denoiser import denoiser_of_run, require_denoiser
from mitolume.run.folder import (
    IMAGES,
    KEPT,
    REPORT,
    RESULTS,
    RUN,
    RunFolder,
    begin,
    reopen,
    require_new,
)
from mitolume.run.guard import (
    OUT_OF_FOLD,
    choose_kept,
    cross_fit,
    needs_cross_fit,
    read_out_of_fold,
)
from mitolume.run.learn import MODELS, Trainings, prepared, require_init
from mitolume.run.lock import only_one
from mitolume.run.recipe import Recipe, load_recipe
from mitolume.run.results import IMAGE_COLUMNS, summarise, write_csv
from mitolume.run.score import score_model
from mitolume.training.loop import CHECKPOINT
from mitolume.training.methods import METHODS


def run(
    recipe: Recipe | str | Path | None = None,
    out: str | Path = "run",
    *,
    resume: bool = False,
    quiet: bool = False,
) -> Path:
    """Train, label, train again, score and report.

    Parameters
    ----------
    recipe
        A recipe or the path of one. None goes on with the recipe in ``out``.
    out
        The run folder. It must be new, unless ``resume``.
    resume
        Go on with a run that was stopped, or begin where there is none. What is finished is
        kept; a training goes on from its last epoch and ends with the weights of an unbroken run.
    quiet
        Show no progress.

    Returns
    -------
    pathlib.Path
        The run folder, with ``report.html``.

    Raises
    ------
    MitolumeError
        The recipe, the table or a file is off; the folder holds another run.
    """
    out = Path(out)
    if isinstance(recipe, str | Path):
        recipe = load_recipe(recipe)
    if recipe is not None and not (out / RUN).exists():
        require_new(out)
    with only_one(out):
        return _run(recipe, out, resume, quiet)


def _run(recipe: Recipe | None, out: Path, resume: bool, quiet: bool) -> Path:
    if not (out / RUN).exists():
        if recipe is None:
            raise MitolumeError(f"{out} holds no run to resume; name a recipe or a preset")
        require_denoiser(recipe.chain)
        require_init(recipe)
        folder = begin(out, recipe, quiet=quiet)
    elif resume:
        folder = reopen(out, recipe, quiet=quiet)
    else:
        raise MitolumeError(
            f"{out} already holds a run; go on with --resume, or choose another --out"
        )
    if folder.is_finished:
        say(f"{out} is already finished", quiet=quiet)
        if not (out / REPORT).exists():
            report(out)
        return out
    with _timed(folder):
        _train_models(folder)
        _score_models(folder)
    report(out)
    folder.note(status="finished")
    return out


@contextmanager
def _timed(folder: RunFolder) -> Iterator[None]:
    """Add up the time over interruptions; leave no scratch files whatever happens."""
    before, started = folder.record.get("seconds", 0.0), time.monotonic()
    shutil.rmtree(folder.scratch, ignore_errors=True)
    try:
        yield
    finally:
        gc.collect()  # Windows can't remove files that a forgotten array still maps
        shutil.rmtree(folder.scratch, ignore_errors=True)
        folder.note(seconds=round(before + time.monotonic() - started, 1))


def _train_models(folder: RunFolder) -> None:
    """Train model 1, and model 2 where the method has one, unless they are there already."""
    for name in MODELS:
        if folder.has_model(name):
            (folder.path / name / CHECKPOINT).unlink(missing_ok=True)
    unlabelled = METHODS[folder.recipe.method].uses_unlabelled and bool(folder.images("unlabelled"))
    guarded = (folder.path / OUT_OF_FOLD).exists() or not needs_cross_fit(folder)
    compared = "stopped" in folder.record or (folder.has_model("model_2") and guarded)
    if folder.has_model("model_1") and (compared or not unlabelled):
        return
    denoiser = denoiser_of_run(folder)
    labelled, validation, others = (
        prepared(folder, role, denoiser) if wanted else []
        for role, wanted in (
            ("train", True),
            ("validation", True),
            ("unlabelled", unlabelled or folder.recipe.init == "denoise"),
        )
    )
    trainings = Trainings(folder, denoiser, labelled, validation, others)
    trainings.first()
    if not unlabelled:
        return
    try:
        trainings.second()
        if not guarded:
            cross_fit(folder, labelled, others, denoiser)
    except CollapsedError as error:
        shutil.rmtree(folder.path / "model_2", ignore_errors=True)
        folder.note(
            stopped=str(error), model_2=None, notices=[*folder.record["notices"], str(error)]
        )
        say(f"note: {error}", quiet=folder.quiet)


def _score_models(folder: RunFolder) -> None:
    """Score the models on all labelled images, leave masks and tables, keep one model."""
    names = [name for name in MODELS if folder.has_model(name)]
    tables = []
    for name in names:
        predictor = load(folder.path / name)
        with folder.bar(f"scoring {name.replace('_', ' ')}") as advance:
            table = score_model(predictor, folder.table, folder.path / "masks" / name, advance)
        tables.append(table.assign(model=name))
    images = pd.concat(tables, ignore_index=True).assign(
        arm=folder.recipe.arm,
        method=folder.recipe.method,
        network=folder.recipe.network.name,
        k=folder.record["n_images"]["train"],
        seed=folder.recipe.seed,
    )[list(IMAGE_COLUMNS)]
    results = summarise(images)
    write_csv(folder.path / IMAGES, images)
    write_csv(folder.path / RESULTS, results)
    for name in names:
        _write_scores(folder.path / name / CARD, results[results["model"] == name])
    kept, reason = choose_kept(results, names, read_out_of_fold(folder))
    if "stopped" in folder.record:
        kept, reason = MODELS[0], folder.record["stopped"]
    write_text(folder.path / KEPT, json.dumps({"kept": kept, "reason": reason}, indent=2) + "\n")
    write_audit(folder.path, tables, quiet=folder.quiet)


def _write_scores(path: Path, results: pd.DataFrame) -> None:
    """Put a model's scores on its card."""
    card = json.loads(path.read_text(encoding="utf-8"))
    card["scores"] = {}
    for row in results[results["metric"].isin(["iou", "chance_iou"])].to_dict("records"):
        scores = card["scores"].setdefault(
            row["subset"], {"n_images": row["n_images"], "n_specimens": row["n_specimens"]}
        )
        scores[row["metric"]] = None if np.isnan(row["value"]) else round(row["value"], 4)
    write_text(path, json.dumps(card, indent=2) + "\n")
