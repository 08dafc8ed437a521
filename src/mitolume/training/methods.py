"""The methods a recipe can name: what unlabelled images get as targets, and the loss of a step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor, nn

from mitolume.io.masks import Mask
from mitolume.models.losses import Loss, bce
from mitolume.training.augment import Augmentation
from mitolume.training.patches import Image, SoftMask
from mitolume.training.settings import UnlabelledSettings


@dataclass(frozen=True)
class Step:
    """The batch of one step, with what a method needs to make a loss of it.

    ``images`` are (B, C, Y, X), ``targets`` (B, 1, Y, X) with NaN where nothing is known; the first
    ``n_labelled`` patches come from labelled images.
    """

    images: Tensor
    targets: Tensor
    n_labelled: int
    augment: Augmentation
    loss: Loss
    random: Generator


class Supervised:
    """Learn from the labelled images only: there is no model 2.

    ``settings`` say how unlabelled images are used.

    Attributes
    ----------
    uses_unlabelled
        Whether there is a model 2, which learns from unlabelled images too.
    splits_batch
        Whether half of each batch comes from the labelled images; otherwise every pixel of all
        images is equally likely to be drawn.
    starts_as_teacher
        Whether model 2 begins with model 1's weights, and ends halfway between both.
    target_dtype
        Of the masks that `label` makes of an image.
    views
        Number of quarter turns of an image over which the teacher averages to label it.
    """

    uses_unlabelled = False
    splits_batch = False
    starts_as_teacher = False
    target_dtype: type[np.generic] = np.uint8
    views = 1
    published: UnlabelledSettings | None = None  # as a paper has them, whatever the recipe says

    def __init__(self, settings: UnlabelledSettings | None = None) -> None:
        self.settings = self.published or settings or UnlabelledSettings()

    def label(self, probability: Image) -> Mask | SoftMask:
        """Make the mask to learn from of model 1's probability (Y, X) for an unlabelled image."""
        raise NotImplementedError

    def loss(self, network: nn.Module, step: Step) -> Tensor:
        """Return the loss of one step."""
        images, targets = _augmented(step)
        return step.loss(network(images).float(), targets)


class PseudoLabel(Supervised):
    """Learn from model 1's masks of the unlabelled images as if they were labels (Lee 2013).

    As the published study did: hard masks at probability 0.5, every image kept, a new network
    trained from scratch on both.
    """

    uses_unlabelled = True
    published = UnlabelledSettings(length=1, rate=1)

    def label(self, probability: Image) -> Mask | SoftMask:
        """Return the mask."""
        return (probability >= 0.5).astype(np.uint8)


class NoisyStudent(Supervised):
    """Learn the teacher's probabilities from views noisier than the teacher saw (Xie et al. 2020).

    The teacher labels whole images without noise, averaging over their four quarter turns (Data
    Distillation, Radosavovic et al. 2018); the student gets them as augmented as labelled ones:
    stronger changes and CutMix showed no gain (docs/unlabelled_measured.md). Probabilities are
    learnt as such, by cross-entropy, whose minimum is the probability itself: nothing is cut at a
    confidence that a rare and weak foreground never reaches. Dice, which would push them to 0 and
    1, is left to the labelled half of the batch.
    """

    uses_unlabelled = True
    splits_batch = True
    starts_as_teacher = True
    target_dtype = np.float16
    views = 4

    def label(self, probability: Image) -> Mask | SoftMask:
        """Return the probability itself."""
        return probability.astype(np.float16)

    def loss(self, network: nn.Module, step: Step) -> Tensor:
        """Return the loss of the labelled half plus that of the other."""
        n = step.n_labelled
        images, targets = _augmented(step)
        logits = network(images).float()
        loss = step.loss(logits[:n], targets[:n])
        return loss + bce(logits[n:], targets[n:])


def average_with_teacher(
    teacher: dict[str, Tensor], student: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Average the state dicts of a student and of the teacher that it was initialised with.

    After Wortsman et al. 2022 (Robust fine-tuning of zero-shot models): weights on the way from the
    one to the other are about as good as the better of both, on images unlike the training images
    too, where a student may have gone too far. Statistics of normalisation are averaged too;
    integers (counters) are the student's.
    """
    return {
        name: (teacher[name].to(own) + own) / 2 if own.is_floating_point() else own
        for name, own in student.items()
    }


def _augmented(step: Step) -> tuple[Tensor, Tensor]:
    """Return the augmented patches, in float32: bfloat16 is for the network only."""
    with torch.autocast(step.images.device.type, enabled=False):
        return step.augment(step.images, step.targets, step.random)


METHODS: dict[str, type[Supervised]] = {
    "supervised": Supervised,
    "pseudo_label": PseudoLabel,
    "noisy_student": NoisyStudent,
}
