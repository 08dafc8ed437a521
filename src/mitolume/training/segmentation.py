"""Learning to segment, as a task for the training loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from mitolume.analysis.metrics import Counts, best_threshold, count, iou, probability_histogram
from mitolume.errors import CollapsedError
from mitolume.inference.tiled import predict_tiled
from mitolume.io.masks import FOREGROUND
from mitolume.io.split import spread
from mitolume.models.losses import LOSSES
from mitolume.progress import watcher
from mitolume.training.augment import AUGMENTATIONS
from mitolume.training.loop import Task
from mitolume.training.methods import Step, Supervised
from mitolume.training.patches import Patches, PreparedImage, step_generator
from mitolume.training.settings import TrainingSettings

FIRST_CHECK = 100  # step; before it a student that starts anew has not found its foreground yet
MOST_CHANGE = 6.0  # of the odds of foreground, from model 1 to a student; beyond, it has collapsed


@dataclass(frozen=True)
class Validation:
    """Whole images that choose the epoch, and the threshold at which they are scored.

    With ``threshold`` None each epoch is scored at its best threshold, so that weak foreground that
    never reaches 0.5 can still show which epoch is better. Images without any foreground can't
    choose an epoch: a `Validation` of such images alone is false.
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
            probability = predict_tiled(network, image.image)
            if self.threshold is None:
                histograms += probability_histogram(probability, mask)
            else:
                total += count((probability >= self.threshold).astype(np.uint8), mask)
        return best_threshold(histograms)[1] if self.threshold is None else iou(total)


@dataclass(frozen=True)
class CollapseCheck:
    """Stops a student that finds much more or much less foreground than model 1.

    ``images`` are some of the unlabelled ones, ``share`` is the share of foreground that model 1
    finds in them at ``threshold``.
    """

    images: Sequence[PreparedImage]
    share: float
    threshold: float

    @classmethod
    def against(
        cls, images: Sequence[PreparedImage], network: nn.Module, threshold: float
    ) -> CollapseCheck:
        """Measure model 1 on at most 8 of the images, on at most 512 px a side of each."""
        some = [PreparedImage(image.planes[:, :512, :512]) for image in spread(images, 8)]
        return cls(some, foreground_share(network, some, threshold), threshold)

    def check(self, network: nn.Module) -> None:
        """Compare the odds of foreground, which are symmetric in rare and in common foreground.

        Raises
        ------
        CollapsedError
            The odds have changed by more than a factor of `MOST_CHANGE`.
        """
        found = foreground_share(network, self.images, self.threshold)
        # Below 0.1 % of the pixels, odds are noise.
        before, now = (np.clip(share, 1e-3, 1 - 1e-3) for share in (self.share, found))
        if abs(np.log(now / (1 - now)) - np.log(before / (1 - before))) > np.log(MOST_CHANGE):
            raise CollapsedError(
                f"learning from unlabelled images was stopped: model 2 finds {found:.1%} "
                f"foreground in them, where model 1 finds {self.share:.1%}"
            )


def foreground_share(
    network: nn.Module, images: Sequence[PreparedImage], threshold: float
) -> float:
    """Return the share of pixels whose probability, by a network in evaluation mode, reaches it."""
    found = [predict_tiled(network, i.image) >= threshold for i in images]
    return sum(int(f.sum()) for f in found) / sum(f.size for f in found)


class Segmentation(Task):
    """Task for `fit`: masks of mitochondria, from patches of images.

    ``images`` all have masks; ``unlabelled`` have the targets that the method gave them;
    ``validation`` are the images that choose the epoch. ``collapse_check`` stops a training that
    goes astray on the unlabelled images. ``method`` says how a step makes its loss. ``settings``
    have the length in steps, see `LoopSettings.for_images`; ``seed`` is that of patches and
    augmentation.
    """

    batches: Patches

    def __init__(
        self,
        images: Sequence[PreparedImage],
        unlabelled: Sequence[PreparedImage] = (),
        validation: Validation = Validation(),
        collapse_check: CollapseCheck | None = None,
        *,
        method: Supervised,
        settings: TrainingSettings,
        seed: int,
    ) -> None:
        if not method.splits_batch:
            images, unlabelled = [*images, *unlabelled], ()
        self.images = images
        self.batches = Patches(
            images, unlabelled, patch=settings.patch, batch=settings.batch, seed=seed
        )
        self.validation = validation
        self.collapse_check = collapse_check
        self.method = method
        self.settings = settings
        self.seed = seed
        if method.splits_batch:
            self.rate_key = "unlabelled.rate"
        self.is_validated = bool(validation)
        self.decay = settings.decay

    def loss(self, network: nn.Module, batch: tuple[int, Tensor, Tensor]) -> Tensor:
        """Return the loss of one step: its number, (B, C, Y, X) images, and targets."""
        number, images, targets = batch
        step = Step(
            images,
            targets,
            self.batches.n_labelled,
            AUGMENTATIONS[self.settings.augment],
            LOSSES[self.settings.loss],
            step_generator(self.seed, number),
        )
        return self.method.loss(network, step)

    def score(self, network: nn.Module) -> float:
        """Return the foreground IoU on the validation images."""
        return self.validation.iou(network)

    def check(self, network: nn.Module, step: int) -> None:
        """Check for collapse in the second half of the steps, and not before `FIRST_CHECK`."""
        if by := watcher():
            seen = (*self.validation.images, *self.images)[0]
            assert seen.mask is not None
            probability = predict_tiled(network, seen.image)
            histograms = probability_histogram(probability, seen.mask.astype(np.uint8))
            by.look(seen.plane, probability >= best_threshold(histograms)[0])
        if self.collapse_check and step >= max(FIRST_CHECK, (self.settings.steps or 0) / 2):
            self.collapse_check.check(network)
