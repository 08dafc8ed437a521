"""A model on the images of a run: its threshold, its masks, their scores."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from mitolume.analysis.metrics import best_threshold, probability_histogram
from mitolume.inference.predictor import Predictor
from mitolume.io.check import open_image
from mitolume.io.fields import Field
from mitolume.io.masks import Mask
from mitolume.io.write import write_mask
from mitolume.preprocess.fingerprint import distance
from mitolume.runs.folder import Run
from mitolume.runs.images import RowImage, predictor_inputs
from mitolume.runs.results import IMAGE_COLUMNS, image_scores


def best_threshold_of(predictor: Predictor, validation: Iterable[RowImage]) -> float:
    """Return the best threshold of a model on validation images; 0.5 where they tell nothing."""
    total: Any = 0
    for image, prepared in predictor_inputs(validation, predictor):
        plane, mask, _ = image.read()
        assert mask is not None
        probability = predictor.predict_boxes(prepared, plane.shape)
        total = total + probability_histogram(probability, mask)
    return best_threshold(total)[0] if total[1].sum() else 0.5


def score_model(predictor: Predictor, run: Run, model: str) -> pd.DataFrame:
    """Predict every image of a table, write the masks, and score the labelled images.

    The table has a row for each image: where it comes from, counts and scores (NaN where
    unlabelled), the share of foreground and the mean confidence of the prediction, and how far the
    image is from those the model was trained on (see `distance`).
    """
    rows: list[dict[str, Any]] = []
    every = run.each(f"scoring {model.replace('_', ' ')}", run.images())
    inputs = predictor_inputs(every, predictor)
    for _, planes in groupby(inputs, key=lambda found: found[0].line):
        predicted = []
        for image, prepared in planes:
            row = image.row
            plane, truth, _ = image.read()
            probability = predictor.predict_boxes(prepared, plane.shape)
            mask = (probability >= predictor.card.threshold).astype(np.uint8)
            predicted.append(mask)
            rows.append(
                image.facts
                | {"subset": row.role, "threshold": predictor.card.threshold}
                | (image_scores(mask, truth) if truth is not None else {})
                | {
                    "foreground_share": float(mask.mean()),
                    "mean_confidence": float(np.maximum(probability, 1 - probability).mean()),
                    "distance": distance(predictor.card.fingerprint, prepared.plane),
                }
            )
        _write_row_mask(run.mask_file(model, image.row_name), row, predicted)
    return pd.DataFrame(rows).reindex(columns=list(IMAGE_COLUMNS))


def _write_row_mask(path: Path, row: Field, planes: list[Mask]) -> None:
    size = open_image(row).attrs.get("pixel_size_um", {})
    stack = xr.DataArray(np.stack(planes), dims=("Z", "Y", "X"))
    if size:
        stack.attrs["pixel_size_um"] = size
    write_mask(path, stack if len(planes) > 1 else stack.isel(Z=0))
