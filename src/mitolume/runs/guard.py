"""Which model of a run is kept, and why: test images have no say."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from mitolume.analysis.metrics import best_threshold, probability_histogram
from mitolume.errors import CollapsedError
from mitolume.inference.predictor import load
from mitolume.runs.folder import FOLDS, MODELS, Run
from mitolume.runs.learn import ModelTrainer
from mitolume.runs.results import value_of
from mitolume.text import count

ENOUGH = 3  # validation images that may decide alone: one or two tell little


def needs_cross_fit(run: Run) -> bool:
    """Return whether there are too few validation images to choose between two models."""
    empty = run.table.empty_planes
    validation = [i for i in run.images("validation") if (i.row.line, i.z) not in empty]
    return len(validation) < ENOUGH and len(run.images("train")) > 1


def cross_fit(trainer: ModelTrainer) -> None:
    """Score both models on labelled images that they have not seen, and write that down.

    Model 1 and model 2 are trained anew on each half of the labelled specimens, for half as many
    steps, and score the other half: cross-fitting, as in cross-validation (Stone 1974). All of
    it costs as much as the run's own two trainings.
    """
    run = trainer.run
    if run.out_of_fold is not None:
        return
    try:
        found = _scores_of_halves(trainer)
    except CollapsedError as error:
        found = {"stopped": f"trained anew from half of the labelled images, to compare: {error}"}
    run.write_out_of_fold(found)
    shutil.rmtree(run.path / FOLDS, ignore_errors=True)


def _scores_of_halves(whole: ModelTrainer) -> dict[str, Any]:
    run, labelled = whole.run, whole.labelled
    specimens = [image.row.specimen for image in run.images("train")]
    halves = two_halves(specimens)
    histograms: dict[str, Any] = dict.fromkeys(MODELS, 0)
    for half in (0, 1):
        learnt_from, held_out = (
            [image for image, of in zip(labelled, halves, strict=True) if (of == half) == outside]
            for outside in (False, True)
        )
        trainer = replace(
            whole, labelled=learnt_from, validation=(), part=f"{FOLDS}/{half + 1}", shortening=2
        )
        trainer.train_model_1()
        trainer.train_model_2()
        for name in MODELS:
            predictor = load(trainer.place(name))
            for image in held_out:
                assert image.mask is not None
                mask = image.mask.astype(np.uint8, copy=False)
                probability = predictor.predict_prepared(image.image)
                histograms[name] = histograms[name] + probability_histogram(probability, mask)
    found: dict[str, Any] = {name: best_threshold(histograms[name])[1] for name in MODELS}
    init = {"init": run.recipe.init} if run.recipe.init != "random" else {}
    return found | init | {"n_images": len(specimens), "n_specimens": len(set(specimens))}


def two_halves(specimens: Sequence[str]) -> list[int]:
    """Divide images into halves, 0 and 1, that share no specimen where there are several.

    Examples
    --------
    >>> two_halves(["a", "a", "b", "c"]), two_halves(["a", "a", "a", "a"])
    ([0, 0, 1, 1], [0, 0, 1, 1])
    """
    sizes = Counter(specimens)
    if len(sizes) == 1:
        # Neighbouring planes are nearly one picture: not every other one.
        return [int(i >= len(specimens) // 2) for i in range(len(specimens))]
    totals, half_of = [0, 0], {}
    for specimen, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        half_of[specimen] = int(totals[1] < totals[0])
        totals[half_of[specimen]] += size
    return [half_of[specimen] for specimen in specimens]


def choose_kept(
    results: pd.DataFrame, names: Sequence[str], out_of_fold: dict[str, Any] | None = None
) -> tuple[str, str]:
    """Choose the model to keep: its name, and the reason for a sentence.

    ``out_of_fold`` is what `cross_fit` found, None where validation images decide.
    """
    if len(names) == 1:
        return names[0], "it is the only model of this run"
    if out_of_fold and "stopped" in out_of_fold:
        return names[0], str(out_of_fold["stopped"])
    if out_of_fold:
        begun = f" since they began as {out_of_fold['init']}" if "init" in out_of_fold else ""
        first, second = (float(out_of_fold[name]) for name in names)
        where = (
            f"on the {out_of_fold['n_images']} labelled images of "
            f"{count(out_of_fold['n_specimens'], 'specimen')}, each predicted by models that had "
            f"not seen it{begun},"
        )
    else:
        first, second = (value_of(results, name, "validation", "iou") for name in names)
        where = "on the validation images"
    if np.isnan(first) or np.isnan(second):
        return names[0], (
            "no validation images could show that learning from unlabelled images helped"
        )
    return names[int(second > first)], (
        f"foreground IoU {where} is {first:.3f} for model 1 and {second:.3f} for model 2"
    )
