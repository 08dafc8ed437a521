"""A pixel classifier that learns from some pixels."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.fields import blobs

from mitolume.analysis.scribbles import PixelClassifier, pixel_features
from mitolume.errors import MitolumeError

pytest.importorskip("sklearn")


def scribbled(truth: np.ndarray, every: int, offset: int = 0) -> np.ndarray:
    """Make all pixels unknown but those of every few rows."""
    mask = np.full_like(truth, 255)
    mask[offset::every] = truth[offset::every]
    return mask


def iou(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found & (truth == 1)).sum() / (found | (truth == 1)).sum())


def test_some_rows_teach_the_others_at_any_brightness_and_another_plane() -> None:
    image, truth = blobs(0)
    classifier = PixelClassifier()
    classifier.learn("a", pixel_features(image), scribbled(truth, 8))
    assert iou(classifier.predict(pixel_features(image)) > 0.5, truth) > 0.75
    other, other_truth = blobs(1)
    bright = other.astype(np.uint16) * 100 + 7000
    assert iou(classifier.predict(pixel_features(bright)) > 0.5, other_truth) > 0.6


def test_planes_add_up_and_a_plane_learnt_again_replaces_itself() -> None:
    planes = [blobs(seed) for seed in range(2)]
    features = [pixel_features(image) for image, _ in planes]
    once, twice = PixelClassifier(), PixelClassifier()
    for classifier, rounds in ((once, 1), (twice, 3)):
        for _ in range(rounds):
            for n, (_, truth) in enumerate(planes):
                classifier.learn(n, features[n], scribbled(truth, 16))
    assert (once.predict(features[0]) == twice.predict(features[0])).all()


def test_one_kind_alone_teaches_nothing_until_another_plane_has_the_other() -> None:
    image, truth = blobs(0)
    features, classifier = pixel_features(image), PixelClassifier()
    for kind in (0, 1):
        mask = np.where(truth == kind, truth, 255).astype(np.uint8)
        if kind == 0:
            with pytest.raises(MitolumeError, match="scribble on both"):
                classifier.learn(kind, features, mask)
        else:
            classifier.learn(kind, features, mask)
    assert classifier.predict(features).shape == truth.shape
    with pytest.raises(MitolumeError, match="scribble on both"):
        PixelClassifier().learn("b", features, np.full_like(truth, 255))
