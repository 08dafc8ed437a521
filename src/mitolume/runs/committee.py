"""Who votes on an image of a finished run, and how much the votes differ."""

from __future__ import annotations

from typing import Any

import numpy as np

from mitolume.analysis.agreement import disagreement, disagreement_map
from mitolume.inference.predictor import Predictor
from mitolume.inference.tiled import features, predict_tiled
from mitolume.io.masks import FOREGROUND
from mitolume.preprocess.rescale import rescale
from mitolume.progress import Advance
from mitolume.runs.folder import Run
from mitolume.runs.images import RowImage
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
        self.name = "the two models" if self._two else "the model's answers to 8 flips and turns"
        # Less than half of what is usual, or a few specks, is too little foreground to disagree on.
        share = labelled_share(run.scores[run.scores["tp"].notna()])
        self._least = 0.5 * share if np.isfinite(share) else 0.0

    def disagreement(self, image: RowImage) -> float:
        """Return how much the votes on an image differ, 0 to 1."""
        return disagreement(*self._votes(image), self._least)

    def map(self, image: RowImage) -> Map:
        """Return where they differ, (Y, X) on the image's own grid, 0 to 1."""
        return disagreement_map(*self._votes(image))

    def _votes(self, image: RowImage) -> tuple[Map, int]:
        """Return the share of votes for mitochondria, (Y, X), and how many votes there are."""
        if self._predictor is None:
            masks = [self._run.mask(model, image) == FOREGROUND for model in self._run.models]
            return np.mean(masks, axis=0, dtype=np.float32), len(masks)
        predictor = self._predictor
        plane, _, ready = image.prepared(predictor)
        marked: Any = 0
        for turn in _TURNS:
            probability = predict_tiled(predictor.network, ready, [turn], core=predictor.core)
            marked = marked + (probability >= predictor.card.threshold)
        share = np.asarray(marked / len(_TURNS), np.float32)
        if share.shape != plane.shape:
            share = rescale(share, plane.shape)
        return np.clip(share, 0, 1), len(_TURNS)


def observer(run: Run) -> Predictor:
    """Load the model that tells images apart: model 1, which learnt from labels alone."""
    return run.predictor("model_1" if "model_1" in run.models else run.kept)


def feature_table(
    predictor: Predictor, images: list[RowImage], advance: Advance
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Compute the vector of each image.

    Parameters
    ----------
    predictor
        The model whose lowest level is looked at.
    images
        At least one.
    advance
        Called with the images done and the images there are.

    Returns
    -------
    numpy.ndarray
        (N, C) float32, see `mitolume.inference.tiled.features`.
    """
    found = []
    for done, image in enumerate(images):
        advance(done, len(images))
        _, _, ready = image.prepared(predictor)
        found.append(features(predictor.network, ready, core=predictor.core))
    advance(len(images), len(images))
    return np.stack(found)
