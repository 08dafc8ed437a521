"""The ways of learning a recipe can name. Each enters the one loop; none copies another.

A method says what model 2 learns from, and how a step makes its loss. Knows no file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
from torch import Tensor, nn

from mitolume.io.masks import UNSURE
from mitolume.models.losses import Loss
from mitolume.training.patches import Image, PreparedImage

Teacher = Callable[[Image], Image]  # a prepared image to its probability, both (Y, X)


PSEUDO_THRESHOLD = 0.5  # as published


class Supervised:
    """Learn from the labelled images only: there is no model 2."""

    uses_unlabelled = False

    def training_images(
        self, labelled: list[PreparedImage], unlabelled: Iterable[PreparedImage], teacher: Teacher
    ) -> Iterator[PreparedImage]:
        """Yield what model 2 learns from.

        Parameters
        ----------
        labelled, unlabelled
            The training images.
        teacher
            Model 1.

        Yields
        ------
        PreparedImage
            With a mask.
        """
        yield from labelled

    def loss(self, network: nn.Module, images: Tensor, masks: Tensor, loss: Loss) -> Tensor:
        """Return the loss of one step: (B, 1, Y, X) images and masks of 0, 1, 255."""
        sure = (masks != UNSURE).float()
        return loss(network(images).float(), (masks == 1).float(), sure)


class PseudoLabel(Supervised):
    """Learn from model 1's masks of the unlabelled images as if they were labels (Lee 2013).

    As the published study did: hard masks at probability 0.5, every image kept, a new network
    trained from scratch on both.
    """

    uses_unlabelled = True

    def training_images(
        self, labelled: list[PreparedImage], unlabelled: Iterable[PreparedImage], teacher: Teacher
    ) -> Iterator[PreparedImage]:
        """Yield the labelled images, then the unlabelled ones with model 1's masks."""
        yield from labelled
        for image in unlabelled:
            mask = (teacher(image.image) >= PSEUDO_THRESHOLD).astype(np.uint8)
            yield replace(image, mask=mask)


METHODS: dict[str, Supervised] = {"supervised": Supervised(), "pseudo_label": PseudoLabel()}
