"""Random changes to a batch of patches, all patches at once. Knows no image file and no loss."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional

from mitolume.io.masks import UNSURE

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
    """Turn by any angle, flip, scale by 0.8 to 1.25; change contrast, sharpness and noise."""
    images, masks = affine(images, masks, random)
    return intensity(images, random), masks


AUGMENTATIONS: dict[str, Augmentation] = {"none": none, "flips": flips, "full": full}


def affine(images: Tensor, masks: Tensor, random: Generator) -> tuple[Tensor, Tensor]:
    """Turn, flip and scale each patch about its centre.

    Images are sampled linearly and mirrored at the edges, masks by nearest neighbour; what came
    from outside is unsure.

    Parameters
    ----------
    images, masks, random
        As for `flips`.

    Returns
    -------
    images, masks
        As they came.
    """
    n = len(images)
    angle = _uniform(n, 0, 2 * math.pi, random)
    scale = torch.exp(_uniform(n, math.log(0.8), math.log(1.25), random))
    mirror = torch.randint(2, (n,), generator=random) * 2 - 1
    cos, sin, zero = torch.cos(angle) * scale, torch.sin(angle) * scale, torch.zeros(n)
    matrix = torch.stack(
        [torch.stack([cos * mirror, -sin, zero], 1), torch.stack([sin * mirror, cos, zero], 1)], 1
    )
    grid = functional.affine_grid(matrix.to(images.device), list(images.shape), align_corners=False)
    images = functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    # Outside pixels sample as 0; shifting the values by one tells them from background.
    shifted = functional.grid_sample(
        masks.float() + 1, grid, mode="nearest", padding_mode="zeros", align_corners=False
    )
    moved = torch.where(shifted == 0, torch.full_like(shifted, UNSURE), shifted - 1)
    return images, moved.to(torch.uint8)


def intensity(images: Tensor, random: Generator) -> Tensor:
    """Change what differs between microscopes and days: gain, offset, shading, focus, noise.

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
    n, device = len(images), images.device

    def draw(low: float, high: float) -> Tensor:
        return _uniform(n, low, high, random).view(n, 1, 1, 1).to(device)

    # Towards the blurred image: out of focus; away from it: sharper.
    images = images + draw(-0.6, 1.0) * (_blurred(images) - images)
    # Contrast that differs across the field, from 3 x 3 random knots.
    knots = torch.randn((n, 1, 3, 3), generator=random).to(device)
    shading = functional.interpolate(knots, images.shape[2:], mode="bicubic", align_corners=True)
    images = images * torch.exp(draw(-0.4, 0.4)) + draw(-0.4, 0.4) + 0.2 * shading
    noise = torch.randn(images.shape, generator=random).to(device)
    return images + draw(0, 0.25) * noise


def _uniform(n: int, low: float, high: float, random: Generator) -> Tensor:
    return torch.rand(n, generator=random) * (high - low) + low


def _blurred(images: Tensor, sigma: float = 1.5) -> Tensor:
    reach = math.ceil(3 * sigma)
    x = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-(x**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    padded = functional.pad(images, [reach] * 4, mode="replicate")
    rows = functional.conv2d(padded, kernel.view(1, 1, 1, -1))
    return functional.conv2d(rows, kernel.view(1, 1, -1, 1))
