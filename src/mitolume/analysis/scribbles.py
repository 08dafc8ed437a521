"""A pixel classifier that learns from scribbles in seconds. Knows no file and no network."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.feature import multiscale_basic_features

from mitolume.errors import MitolumeError
from mitolume.io.masks import BACKGROUND, FOREGROUND, Mask

Image = NDArray[Any]

COARSEST_PX = 8.0  # the widest of the blurs, which double from 1 px on
_MOST = 20_000  # pixels of each kind, drawn from those that are known
_TREES, _DEPTH = 40, 12


def pixel_features(plane: Image) -> NDArray[np.float32]:
    """Return what the classifier sees of a plane, (Y, X) of any dtype, as (Y, X, features).

    These are grey values, edges and texture at four scales (`multiscale_basic_features` of
    scikit-image); brightness and contrast of the plane don't matter.
    """
    low, middle, high = np.percentile(plane, [5, 50, 95])
    grey = ((plane - middle) / max(float(high - low), 1e-6)).astype(np.float32)
    features = multiscale_basic_features(grey, sigma_min=1, sigma_max=COARSEST_PX)
    return np.asarray(features, np.float32)


class PixelClassifier:
    """A random forest (Breiman 2001) on `pixel_features`, learnt from some pixels of some planes.

    It remembers the known pixels of each plane, so that a plane's scribbles can grow, and planes
    of other fields help.
    """

    def __init__(self) -> None:
        self._known: dict[Any, tuple[NDArray[np.float32], NDArray[np.bool_]]] = {}
        self._forest: Any = None

    def learn(self, name: Any, features: NDArray[np.float32], mask: Mask) -> None:
        """Learn from the known pixels of a plane, in place of what was known of it before.

        ``mask`` is (Y, X): 1 mitochondria, 0 background, all else unknown. ``name`` is anything
        that differs between planes.

        Raises
        ------
        MitolumeError
            Only one of the two kinds is known, or scikit-learn is missing.
        """
        try:
            from sklearn.ensemble import RandomForestClassifier
        except ImportError:
            raise MitolumeError(
                "scribbles need scikit-learn: pip install 'mitolume[napari]'"
            ) from None
        kinds, draw = (BACKGROUND, FOREGROUND), np.random.default_rng(0).permutation
        where = np.concatenate([draw(np.flatnonzero(mask == kind))[:_MOST] for kind in kinds])
        values = features.reshape(-1, features.shape[-1])[where]
        self._known[name] = values, mask.ravel()[where] == FOREGROUND
        known, truth = (np.concatenate(parts) for parts in zip(*self._known.values(), strict=True))
        if truth.all() or not truth.any():
            raise MitolumeError(
                "scribble on both: on mitochondria with key 1, and on background with key b"
            )
        self._forest = RandomForestClassifier(
            _TREES, max_depth=_DEPTH, min_samples_leaf=3, class_weight="balanced_subsample",
            random_state=0,
        ).fit(known, truth)  # fmt: skip

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probability of mitochondria of each pixel, (Y, X) float32."""
        flat = features.reshape(-1, features.shape[-1])
        probability = self._forest.predict_proba(flat)[:, 1]
        return probability.reshape(features.shape[:2]).astype(np.float32)  # type: ignore[no-any-return]
