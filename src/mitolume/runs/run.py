"""One run, step by step: check, train, score, decide which model is kept."""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mitolume.errors import CollapsedError, MitolumeError
from mitolume.io.formats import read_json
from mitolume.io.lock import only_one
from mitolume.io.write import write_text
from mitolume.models.bundle import CARD
from mitolume.progress import Whole, enough, part_of, say
from mitolume.runs.audit import write_audit
from mitolume.runs.begin import begin, resume
from mitolume.runs.denoiser import denoiser_of_run
from mitolume.runs.folder import MODELS, Run
from mitolume.runs.guard import choose_kept, cross_fit, needs_cross_fit
from mitolume.runs.learn import ModelTrainer, prepare_images
from mitolume.runs.pace import planned_work
from mitolume.runs.recipe import Recipe
from mitolume.runs.results import IMAGE_COLUMNS, summarise
from mitolume.runs.score import score_model
from mitolume.training.methods import METHODS


def compute_run(
    recipe: Recipe | None,
    out: str | Path,
    *,
    go_on: bool = False,
    quiet: bool = False,
    told: Container[str] = (),
) -> Run:
    """Train model 1, label with it, train model 2, score both, and keep one.

    Parameters and faults are those of `mitolume.workflow.run`, ``go_on`` being its ``resume``;
    ``told`` are notes that earlier runs of a study have said.
    """
    run = Run(out)
    if recipe is not None and not run.is_begun:
        run.require_new()
    with only_one(run.path):
        if not run.is_begun:
            if recipe is None:
                raise MitolumeError(f"{out} holds no run to resume; name a recipe or a preset")
            run = begin(run.path, recipe, quiet=quiet, told=told)
        elif go_on:
            run = resume(run.path, recipe, quiet=quiet)
        else:
            raise MitolumeError(
                f"{out} already holds a run; continue it with --resume, or choose another --out"
            )
        if run.is_finished:
            say(f"{out} is already finished", quiet=quiet)
            return run
        with _computing(run), part_of(Whole(planned_work(run))):
            _train_models(run)
            _score_models(run)
        run.finish()
    return run


@contextmanager
def _computing(run: Run) -> Iterator[None]:
    """Add up the time over interruptions; leave no scratch files whatever happens.

    The number of threads is that with which the run was begun, since it decides the last bits.
    """
    before, started = run.record.get("seconds", 0.0), time.monotonic()
    threads = torch.get_num_threads()
    torch.set_num_threads(min(run.record.get("threads", threads), os.cpu_count() or 1))
    run.clean()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if os.name == "nt":  # which can't remove files that a forgotten array still maps
            gc.collect()
        run.clean()
        run.note(seconds=round(before + time.monotonic() - started, 1))


def _train_models(run: Run) -> None:
    """Train model 1, and model 2 where the method has one, unless they are there already."""
    unlabelled = METHODS[run.recipe.method].uses_unlabelled and bool(run.images("unlabelled"))
    guarded = run.out_of_fold is not None or not needs_cross_fit(run)
    compared = "stopped" in run.record or (run.has_model("model_2") and guarded)
    if run.has_model("model_1") and (compared or not unlabelled):
        return
    denoiser = denoiser_of_run(run)
    labelled, validation, others = (
        prepare_images(run, role, denoiser) if role != "unlabelled" or unlabelled else []
        for role in ("train", "validation", "unlabelled")
    )
    trainer = ModelTrainer(run, denoiser, labelled, validation, others)
    trainer.train_model_1()
    if enough():
        stopped = f"stopped on request: model 1 has learnt {run.record['model_1']['steps']} steps"
        run.note(stopped=stopped, model_2=None, notices=[*run.record["notices"], stopped])
    if not unlabelled or enough():
        return
    try:
        trainer.train_model_2()
        if enough():
            raise CollapsedError("stopped on request while model 2 was learning: model 1 is kept")
        if not guarded:
            cross_fit(trainer)
    except CollapsedError as error:
        run.drop_model("model_2")
        run.note(stopped=str(error), model_2=None, notices=[*run.record["notices"], str(error)])
        say(f"note: {error}", quiet=run.quiet)


def _score_models(run: Run) -> None:
    """Score the models on all labelled images, leave masks and tables, keep one model."""
    names, tables = run.models, []
    for name in names:
        tables.append(score_model(run.predictor(name), run, name).assign(model=name))
    images = pd.concat(tables, ignore_index=True).assign(
        arm=run.recipe.arm,
        method=run.recipe.method,
        network=run.recipe.network.name,
        k=sum(image.row.is_outlined for image in run.images("train")),
        seed=run.recipe.seed,
    )[list(IMAGE_COLUMNS)]
    results = summarise(images)
    run.write_scores(images, results)
    for name in names:
        _write_scores(run.model_folder(name) / CARD, results[results["model"] == name])
    kept, reason = choose_kept(results, names, run.out_of_fold)
    if "stopped" in run.record:
        kept, reason = MODELS[0], run.record["stopped"]
    run.keep(kept, reason)
    write_audit(run)


def _write_scores(path: Path, results: pd.DataFrame) -> None:
    """Put a model's scores on its card."""
    card = read_json(path)
    card["scores"] = {}
    for row in results[results["metric"].isin(["iou", "chance_iou"])].to_dict("records"):
        scores = card["scores"].setdefault(
            row["subset"], {"n_images": row["n_images"], "n_specimens": row["n_specimens"]}
        )
        scores[row["metric"]] = None if np.isnan(row["value"]) else round(row["value"], 4)
    write_text(path, json.dumps(card, indent=2) + "\n")
