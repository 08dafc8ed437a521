"""Random changes to a batch of patches, all patches at once. Knows no image file and no loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

Augmentation = Callable[[Tensor, Tensor, Generator], tuple[Tensor, Tensor]]


def none(images: Tensor, masks: Tensor, random: Generator) -> tuple[Tensor, Tensor]:
    """Change nothing."""
    return images, masks


def flips(images: Tensor, masks: Tensor, random: Generator) -> tuple[Tensor, Tensor]:
    """Flip and turn each patch by quarters, exactly.

    Parameters
    ----------
    images
        (B, 1, Y, X) float32, Y = X.
    masks
        (B, 1, Y, X) uint8 of 0, 1, 255.
    random
        On the processor, so that every device draws the same.

    Returns
    -------
    images, masks
        As they came.
    """
    turns = torch.randint(8, (len(images),), generator=random)
    images, masks = images.clone(), masks.clone()
    for turn in sorted(set(turns.tolist())):
        chosen = turns == turn
        for batch in (images, masks):
            part = batch[chosen].rot90(turn % 4, (2, 3))
            batch[chosen] = part.flip(3) if turn >= 4 else part
    return images, masks


def full(images: Tensor, masks: Tensor, random: Generator) -> tuple[Tensor, Tensor]:
    """Flip and turn, then change intensities: takes and gives what `flips` does."""
    images, masks = flips(images, masks, random)
    return intensity(images, random), masks


AUGMENTATIONS: dict[str, Augmentation] = {"none": none, "flips": flips, "full": full}


def intensity(images: Tensor, random: Generator) -> Tensor:
    """Change what differs between days and microscopes: gain, offset and noise.

    Turns by any angle, scaling, blurring and shading were tried too, and cost accuracy in
    trainings as short as the default (docs/architecture.md).

    Parameters
    ----------
    images
        (B, 1, Y, X) float32 with mean 0 and spread 1.
    random
        On the processor.

    Returns
    -------
    torch.Tensor
        The same shape.
    """

    def draw(low: float, high: float) -> Tensor:
        uniform = torch.rand(len(images), generator=random) * (high - low) + low
        return uniform.view(-1, 1, 1, 1).to(images.device)

    noise = torch.randn(images.shape, generator=random).to(images.device)
    return images * torch.exp(draw(-0.3, 0.3)) + draw(-0.3, 0.3) + draw(0, 0.15) * noise
