"""A model on the images of a run: its thresholds, its masks, their scores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from mitolume.analysis.metrics import best_threshold, probability_histogram
from mitolume.inference.predictor import Predictor
from mitolume.io.rows import open_image
from mitolume.io.split import spread
from mitolume.io.write import write_masks
from mitolume.models.bundle import ConditionThreshold
from mitolume.preprocess.fingerprint import distance
from mitolume.runs.folder import Run
from mitolume.runs.images import RowImage, predictor_inputs
from mitolume.runs.results import IMAGE_COLUMNS, image_scores

MOST_BY_DYE = 8  # training images of a condition that choose its threshold, spread over all
Histograms = dict[str, list[np.ndarray[Any, Any]]]  # of images, by condition


def choose_thresholds(predictor: Predictor, run: Run, title: str) -> None:
    """Write on a model's card its threshold, the best on validation images, and by condition.

    What is best for a condition is taken from its n validation images, else from training images
    with masks from the dye (outlines that were learnt from flatter), and counts n times beside the
    common threshold. A condition that has neither keeps the common one, which is 0.5 where
    validation images tell nothing.
    """
    card = predictor.card
    found = _histograms(predictor, run, f"threshold of {title}", run.images("validation"))
    card.threshold = _best([one for own in found.values() for one in own]) or 0.5
    conditions = dict.fromkeys(row.condition for row in run.rows if row.condition)
    from_dye = dye_images(run, {name for name in conditions if not _best(found.get(name, []))})
    of_dye = _histograms(predictor, run, f"thresholds of {title} by condition", from_dye)
    for name in conditions:
        own = ConditionThreshold(threshold=card.threshold)
        for role, of_role in ("train", of_dye), ("validation", found):
            if best := _best(images := of_role.get(name, [])):
                value = (len(images) * best + card.threshold) / (len(images) + 1)
                own = ConditionThreshold(threshold=round(value, 4), n_images=len(images), role=role)
        card.thresholds[name] = own


def dye_images(run: Run, conditions: Iterable[str]) -> list[RowImage]:
    """Return the training images that choose the thresholds of conditions by their dye."""
    learnt = [image for image in run.images("train") if image.row.label == "dye"]
    chosen = [
        image
        for name in conditions
        for image in spread([i for i in learnt if i.row.condition == name], MOST_BY_DYE)
    ]
    return sorted(chosen, key=lambda image: (image.line, image.z))


def _histograms(
    predictor: Predictor, run: Run, title: str, images: Sequence[RowImage]
) -> Histograms:
    found: Histograms = {}
    every = run.each(title, images) if images else ()
    for image, prepared in predictor_inputs(every, predictor):
        plane, mask, _ = image.read()
        assert mask is not None
        probability = predictor.predict_boxes(prepared, plane.shape)
        own = found.setdefault(image.row.condition, [])
        own.append(probability_histogram(probability, mask))
    return found


def _best(histograms: list[np.ndarray[Any, Any]]) -> float | None:
    """Return the best threshold of images; None where they have no foreground."""
    total = np.sum(histograms, axis=0) if histograms else np.zeros((2, 1))
    return best_threshold(total)[0] if total[1].sum() else None


def score_model(predictor: Predictor, run: Run, model: str) -> pd.DataFrame:
    """Predict every image of a table, write the masks, and score the labelled images.

    The table has a row for each image: where it comes from, counts and scores (NaN where
    unlabelled), the share of foreground, and how far the image is from those the model was trained
    on (see `distance`).
    """
    rows: list[dict[str, Any]] = []
    every = run.each(f"scoring {model.replace('_', ' ')}", run.images())
    inputs = predictor_inputs(every, predictor)
    for _, planes in groupby(inputs, key=lambda found: found[0].line):
        predicted = []
        for image, prepared in planes:
            row = image.row
            threshold = predictor.card.threshold_of(row.condition)
            plane, truth, _ = image.read()
            probability = predictor.predict_boxes(prepared, plane.shape)
            mask = (probability >= threshold).astype(np.uint8)
            predicted.append(mask)
            rows.append(
                image.facts
                | {"subset": row.role, "threshold": threshold}
                | (image_scores(mask, truth) if truth is not None else {})
                | {
                    "foreground_share": float(mask.mean()),
                    "distance": distance(predictor.card.fingerprint, prepared.plane),
                }
            )
        write_masks(run.mask_file(model, image.row_name), predicted, open_image(row))
    return pd.DataFrame(rows).reindex(columns=list(IMAGE_COLUMNS))
