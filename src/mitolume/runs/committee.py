"""Who votes on an image of a finished run, and how much the votes differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mitolume.analysis.agreement import disagreement, disagreement_map
from mitolume.analysis.feature_distance import LabelledSet, Vectors, labelled_set
from mitolume.inference.tiled import features, predict_tiled
from mitolume.io.masks import FOREGROUND
from mitolume.preprocess.rescale import rescale
from mitolume.runs.folder import Run
from mitolume.runs.images import RowImage, predictor_inputs
from mitolume.runs.results import labelled_share

_TURNS = range(8)

Map = np.ndarray[Any, np.dtype[np.float32]]


class Committee:
    """Model 1 and model 2 of a run; where there is one model, its answers to the turned image.

    Parameters
    ----------
    run
        A finished run.

    Attributes
    ----------
    name
        For a sentence.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._two = len(run.models) > 1
        self._predictor = None if self._two else run.predictor(run.kept)
        # As sentences call it.
        self.name = "the two models" if self._two else "the model's answers to 8 flips and turns"
        # Less than half of what is usual, or a few specks, is too little foreground to disagree on.
        share = labelled_share(run.scores[run.scores["tp"].notna()])
        self._least = 0.5 * share if np.isfinite(share) else 0.0

    def disagreements(self, images: Sequence[RowImage]) -> list[float]:
        """Return how much the votes on each image differ, 0 to 1."""
        return [
            disagreement(*self._votes(image), self._least)
            for image in self._run.each("comparing masks", images)
        ]

    def map(self, image: RowImage) -> Map:
        """Return where they differ, (Y, X) on the image's own grid, 0 to 1."""
        return disagreement_map(*self._votes(image))

    def _votes(self, image: RowImage) -> tuple[Map, int]:
        """Return the share of votes for mitochondria, (Y, X), and how many votes there are."""
        if self._predictor is None:
            masks = [self._run.mask(model, image) == FOREGROUND for model in self._run.models]
            return np.mean(masks, axis=0, dtype=np.float32), len(masks)
        predictor = self._predictor
        plane, _, _ = image.read()
        ((_, ready),) = predictor_inputs([image], predictor)
        marked: Any = 0
        threshold = predictor.card.threshold_of(image.row.condition)
        for turn in _TURNS:
            probability = predict_tiled(predictor.fast, ready, [turn], core=predictor.core)
            marked = marked + (probability >= threshold)
        share = np.asarray(marked / len(_TURNS), np.float32)
        if share.shape != plane.shape:
            share = rescale(share, plane.shape)
        return np.clip(share, 0, 1), len(_TURNS)


def compare(run: Run, images: Sequence[RowImage]) -> tuple[LabelledSet, Vectors]:
    """Compare images with the labelled training images, by model 1 (which saw labels alone).

    Returns
    -------
    LabelledSet
        The labelled training images.
    numpy.ndarray
        A row for each image, see `mitolume.inference.tiled.features`.
    """
    predictor = run.predictor("model_1" if "model_1" in run.models else run.kept)
    train, found = run.images("train"), []
    every = run.each("comparing images", [*train, *images])
    for _, ready in predictor_inputs(every, predictor):
        found.append(features(predictor.network, ready, core=predictor.core))
    vectors = np.stack(found)
    known = labelled_set(vectors[: len(train)], [image.row.specimen for image in train])
    return known, vectors[len(train) :]
