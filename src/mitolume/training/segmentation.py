"""Learning to segment, as a task for the one loop. Knows no file, no table and no report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mitolume.analysis.metrics import (
    Counts,
    best_threshold,
    count,
    iou,
    probability_histogram,
)
from mitolume.errors import CollapsedError
from mitolume.inference.predictor import predict_tiled
from mitolume.inference.steps import side_by_side
from mitolume.io.masks import FOREGROUND
from mitolume.models.losses import LOSSES
from mitolume.models.networks import SegmentationNetwork
from mitolume.training.augment import AUGMENTATIONS
from mitolume.training.loop import fit
from mitolume.training.methods import Step, Supervised
from mitolume.training.patches import Patches, PreparedImage
from mitolume.training.record import Trained, Watch
from mitolume.training.settings import TrainingSettings

_SETTLED = 100  # steps before which a network has learnt too little to judge it
_DRIFT = 6.0  # change of the odds of foreground beyond which a student has gone astray
_FAINT = 1e-3  # share of foreground below which its odds are noise


@dataclass(frozen=True)
class Validation:
    """Whole images that choose the epoch, and the threshold at which they are scored.

    ``threshold`` None is each epoch's best, so that weak foreground that never reaches 0.5 can
    still show which epoch is better. Images without any foreground can't choose, and count as none.
    """

    images: Sequence[PreparedImage] = ()
    threshold: float | None = None

    def __bool__(self) -> bool:
        return any(np.any(image.mask == FOREGROUND) for image in self.images)

    def iou(self, network: nn.Module) -> float:
        """Return the foreground IoU of a network, pooled over the images."""
        histograms = np.zeros((2, 100), np.int64)
        total = Counts()
        for image in self.images:
            assert image.mask is not None
            mask = image.mask.astype(np.uint8, copy=False)
            probability = predict_tiled(network, side_by_side(image.image))
            if self.threshold is None:
                histograms += probability_histogram(probability, mask)
            else:
                total += count((probability >= self.threshold).astype(np.uint8), mask)
        return best_threshold(histograms)[1] if self.threshold is None else iou(total)


@dataclass(frozen=True)
class Drift:
    """Stops a student that finds much more or less foreground than its teacher.

    ``images`` are some of the unlabelled ones, ``share`` is the foreground that the teacher finds
    in them at the threshold ``cut``.
    """

    images: Sequence[PreparedImage]
    share: float
    cut: float

    @classmethod
    def watching(cls, images: Sequence[PreparedImage], network: nn.Module, cut: float) -> Drift:
        """Take at most 8 of the images, spread over all, and at most 512 px a side of each."""
        which = np.unique(np.linspace(0, len(images) - 1, 8).round().astype(int))
        some = [PreparedImage(images[i].planes[:, :512, :512]) for i in which]
        return cls(some, foreground_share(network, some, cut), cut)

    def examine(self, network: nn.Module) -> None:
        """Compare the odds of foreground, which are symmetric in rare and in common foreground.

        Raises
        ------
        CollapsedError
            They have changed more than sixfold.
        """
        found = foreground_share(network, self.images, self.cut)
        before, now = (np.clip(share, _FAINT, 1 - _FAINT) for share in (self.share, found))
        if abs(np.log(now / (1 - now)) - np.log(before / (1 - before))) > np.log(_DRIFT):
            raise CollapsedError(
                f"learning from unlabelled images was stopped: model 2 came to find {found:.1%} "
                f"foreground in them, where model 1 finds {self.share:.1%}"
            )


def foreground_share(network: nn.Module, images: Sequence[PreparedImage], cut: float) -> float:
    """Return the share of pixels that reach a threshold, over all images."""
    networks_mode = network.training
    network.eval()
    found = [predict_tiled(network, side_by_side(i.image)) >= cut for i in images]
    network.train(networks_mode)
    return sum(int(f.sum()) for f in found) / sum(f.size for f in found)


class Segmentation:
    """Masks of mitochondria, from patches of images.

    Parameters
    ----------
    images, others, validation, drift, method, settings, seed
        As for `train`.
    """

    section = "training"
    score_name = "validation_iou"

    def __init__(
        self,
        images: Sequence[PreparedImage],
        others: Sequence[PreparedImage],
        validation: Validation,
        drift: Drift | None,
        method: Supervised,
        settings: TrainingSettings,
        seed: int,
    ) -> None:
        if not method.halves:
            images, others = [*images, *others], ()
        self.patches = Patches(
            images, others, patch=settings.patch, batch=settings.batch, seed=seed
        )
        self.validation = validation
        self.drift = drift
        self.method = method
        self.settings = settings
        self.seed = seed

    @property
    def rate_key(self) -> str:
        """The setting that the learning rate comes from."""
        return "unlabelled.rate" if self.method.halves else "training.learning_rate"

    @property
    def batches(self) -> Patches:
        """The patches, batch by batch."""
        return self.patches

    @property
    def is_validated(self) -> bool:
        """Whether some validation image has foreground."""
        return bool(self.validation)

    @property
    def decay(self) -> float | None:
        """How slowly the average of the weights follows them: a teacher's, or the recipe's."""
        return self.method.settings.decay if self.method.averages else self.settings.decay

    def loss(
        self, network: nn.Module, average: nn.Module | None, batch: tuple[int, Tensor, Tensor]
    ) -> Tensor:
        """Return the loss of one step: its number, (B, C, Y, X) images, and targets."""
        number, images, targets = batch
        # Offset from the seeds of the patches, which are drawn from (seed, step) too.
        draw = np.random.default_rng([self.seed, int(number), 1])
        step = Step(
            images,
            targets,
            self.patches.n_first,
            AUGMENTATIONS[self.settings.augment],
            LOSSES[self.settings.loss],
            torch.Generator().manual_seed(int(draw.integers(2**63))),
        )
        return self.method.loss(network, average, step)

    def score(self, network: nn.Module) -> float:
        """Return the foreground IoU on the validation images."""
        return self.validation.iou(network)

    def examine(self, network: nn.Module, step: int) -> None:
        """Look at the foreground in unlabelled images, in the second half of the steps."""
        if self.drift and step >= max(_SETTLED, (self.settings.steps or 0) / 2):
            self.drift.examine(network)


def train(
    network: SegmentationNetwork,
    images: Sequence[PreparedImage],
    validation: Validation,
    *,
    others: Sequence[PreparedImage] = (),
    drift: Drift | None = None,
    method: Supervised,
    settings: TrainingSettings,
    seed: int,
    folder: Path,
    watch: Watch = Watch(),  # noqa: B008
) -> Trained:
    """Train a segmentation network, going on from its checkpoint where there is one (see `fit`).

    Parameters
    ----------
    network
        With its initial weights; changed in place.
    images
        What to learn from, all with masks.
    validation
        What chooses the epoch; where it is empty, the weights of the last quarter of the epochs
        are averaged.
    others
        The unlabelled images, with what the method gave them as targets.
    drift
        What stops a training that goes astray on them.
    method
        How a step makes its loss.
    settings
        How long (in steps, see `LoopSettings.for_images`) and with what.
    seed
        Of patches and augmentation.
    folder
        Where the checkpoint is kept.
    watch
        Who is told how it goes.

    Returns
    -------
    Trained

    Raises
    ------
    MitolumeError
        The loss is no longer a number, or the checkpoint is damaged.
    CollapsedError
        See `Drift`.
    """
    task = Segmentation(images, others, validation, drift, method, settings, seed)
    return fit(network, task, settings=settings, folder=folder, watch=watch)
