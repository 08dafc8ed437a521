"""Which model of a run is kept, and why: never by test images. Makes no report."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mitolume.analysis.metrics import best_threshold, probability_histogram
from mitolume.errors import CollapsedError
from mitolume.inference.denoise import Denoiser
from mitolume.inference.predictor import load
from mitolume.io.write import write_text
from mitolume.run.folder import RunFolder
from mitolume.run.learn import MODELS, Trainings
from mitolume.run.recipe import INIT
from mitolume.run.results import value_of
from mitolume.training.patches import PreparedImage

OUT_OF_FOLD = "out_of_fold.json"
ENOUGH = 3  # validation images that may decide alone
_FOLDS = "folds"  # scratch models


def needs_cross_fit(folder: RunFolder) -> bool:
    """Return whether there are too few validation images to choose between two models."""
    empty = folder.table.empty_planes
    validation = [i for i in folder.images("validation") if (i.row.line, i.z) not in empty]
    return len(validation) < ENOUGH and len(folder.images("train")) > 1


def cross_fit(
    folder: RunFolder,
    labelled: Sequence[PreparedImage],
    unlabelled: list[PreparedImage],
    denoiser: Denoiser | None,
) -> None:
    """Score both models on labelled images that they have not seen, and write that down.

    Model 1 and model 2 are trained anew on each half of the labelled specimens, for half as many
    steps, and score the other half: cross-fitting, as in cross-validation (Stone 1974). All of
    it costs as much as the run's own two trainings.

    Parameters
    ----------
    folder
        The run; what is finished in it is not done again.
    labelled, unlabelled
        Its prepared images.
    denoiser
        Of its chain.
    """
    if (folder.path / OUT_OF_FOLD).exists():
        return
    try:
        found = _scores_of_halves(folder, labelled, unlabelled, denoiser)
    except CollapsedError as error:
        found = {"stopped": f"trained anew from half of the labelled images, to compare: {error}"}
    write_text(folder.path / OUT_OF_FOLD, json.dumps(found, indent=2) + "\n")
    shutil.rmtree(folder.path / _FOLDS, ignore_errors=True)


def _scores_of_halves(
    folder: RunFolder,
    labelled: Sequence[PreparedImage],
    unlabelled: list[PreparedImage],
    denoiser: Denoiser | None,
) -> dict[str, Any]:
    specimens = [image.row.specimen for image in folder.images("train")]
    halves = two_halves(specimens)
    histograms: dict[str, Any] = dict.fromkeys(MODELS, 0)
    for half in (0, 1):
        inside, outside = (
            [image for image, of in zip(labelled, halves, strict=True) if (of == half) == held]
            for held in (False, True)
        )
        part = f"{_FOLDS}/{half + 1}"
        trainings = Trainings(folder, denoiser, inside, (), unlabelled, part, shorter=2)
        trainings.first()
        trainings.second()
        for name in MODELS:
            predictor = load(trainings.place(name))
            for image in outside:
                assert image.mask is not None
                mask = image.mask.astype(np.uint8, copy=False)
                probability = predictor.predict_prepared(image.image)
                histograms[name] = histograms[name] + probability_histogram(probability, mask)
    found: dict[str, Any] = {name: best_threshold(histograms[name])[1] for name in MODELS}
    begun = {"init": folder.recipe.init} if folder.recipe.init not in INIT else {}
    return found | begun | {"n_images": len(specimens), "n_specimens": len(set(specimens))}


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


def read_out_of_fold(folder: RunFolder) -> dict[str, Any] | None:
    """Return what `cross_fit` wrote; None where validation images decide."""
    path = folder.path / OUT_OF_FOLD
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def choose_kept(
    results: pd.DataFrame, names: Sequence[str], out_of_fold: dict[str, Any] | None = None
) -> tuple[str, str]:
    """Choose the model to keep and say why; test images have no say.

    Parameters
    ----------
    results
        The long table.
    names
        The models there are.
    out_of_fold
        As `read_out_of_fold` returns it.

    Returns
    -------
    str, str
        The name and the reason, for a sentence.
    """
    if len(names) == 1:
        return names[0], "it is the only model of this run"
    if out_of_fold and "stopped" in out_of_fold:
        return names[0], str(out_of_fold["stopped"])
    if out_of_fold:
        begun = f" since they began as {out_of_fold['init']}" if "init" in out_of_fold else ""
        first, second = (float(out_of_fold[name]) for name in names)
        where = (
            f"on the {out_of_fold['n_images']} labelled images of {out_of_fold['n_specimens']} "
            f"specimen(s), each predicted by models that had not seen it{begun},"
        )
    else:
        first, second = (value_of(results, name, "validation", "iou") for name in names)
        where = "on the validation images"
    if np.isnan(first) or np.isnan(second):
        return names[0], (
            "no validation images could show that learning from unlabelled images helped"
        )
    return names[1] if second > first else names[0], (
        f"foreground IoU {where} is {first:.3f} for model 1 and {second:.3f} for model 2"
    )
