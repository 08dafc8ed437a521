"""Random changes to a batch of patches, all patches at once."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional

Augmentation = Callable[[Tensor, Tensor, Generator], tuple[Tensor, Tensor]]


def none(images: Tensor, targets: Tensor, random: Generator) -> tuple[Tensor, Tensor]:
    """Change nothing."""
    return images, targets


def flips(images: Tensor, targets: Tensor, random: Generator) -> tuple[Tensor, Tensor]:
    """Flip and turn each patch by quarters, exactly.

    Parameters
    ----------
    images
        (B, C, Y, X) float32, Y = X.
    targets
        (B, 1, Y, X) float32, NaN where unsure.
    random
        Generator on the CPU, so that every device draws the same.

    Returns
    -------
    images, targets
        The same shapes.
    """
    turns = torch.randint(8, (len(images),), generator=random).tolist()

    def turned(batch: Tensor) -> Tensor:  # by no index: that would make a card wait
        parts = [one.rot90(turn % 4, (1, 2)) for one, turn in zip(batch, turns, strict=True)]
        return torch.stack([p.flip(2) if t >= 4 else p for p, t in zip(parts, turns, strict=True)])

    return turned(images), turned(targets)


def full(images: Tensor, targets: Tensor, random: Generator) -> tuple[Tensor, Tensor]:
    """Flip and turn, then change what differs between days and microscopes: as for `flips`.

    Contrast, offset and noise. Turns by any angle, scaling, blurring and shading were tried too,
    and cost accuracy in trainings as short as the default (docs/architecture.md). Images have mean
    0 and spread 1.
    """
    images, targets = flips(images, targets, random)
    gain, offset, spread = (
        _draw(images, limits, random) for limits in ((-0.3, 0.3), (-0.3, 0.3), (0, 0.15))
    )
    noise = torch.randn(images.shape, generator=random).to(images.device)
    return images * torch.exp(gain) + offset + spread * noise, targets


def photometric(images: Tensor, targets: Tensor, random: Generator) -> tuple[Tensor, Tensor]:
    """Flip and turn, then change all that another microscope would: arguments as for `flips`.

    Gamma, blur, sharpness, shading, contrast, offset and noise, all stronger than in `full`.
    Images have mean 0 and spread 1.
    """
    images, targets = flips(images, targets, random)
    images = _blurred_by(_gamma(images, random), random)
    images = images + _draw(images, (-0.5, 1), random) * (images - _blurred(images))
    gain, offset, shade, spread = (
        _draw(images, limits, random) for limits in ((-0.4, 0.4), (-0.4, 0.4), (0, 0.5), (0, 0.4))
    )
    coarse = torch.randn((len(images), 1, 3, 3), generator=random).to(images.device)
    shading = functional.interpolate(
        coarse, size=images.shape[-2:], mode="bicubic", align_corners=True
    )
    noise = torch.randn(images.shape, generator=random).to(images.device)
    images = (images + shade * shading) * torch.exp(gain) + offset
    return images + spread * noise, targets


AUGMENTATIONS: dict[str, Augmentation] = {
    "none": none,
    "flips": flips,
    "full": full,
    "photometric": photometric,
}


def _draw(images: Tensor, limits: tuple[float, float], random: Generator) -> Tensor:
    """Draw a number for each patch, uniformly: (B, 1, 1, 1)."""
    low, high = limits
    uniform = torch.rand(len(images), generator=random) * (high - low) + low
    return uniform.view(-1, 1, 1, 1).to(images.device)


def _gamma(images: Tensor, random: Generator) -> Tensor:
    """Bend the grey values by an exponent of 1/2 to 2, keeping mean and spread of each channel."""
    exponent = torch.exp(_draw(images, (-0.7, 0.7), random))
    bent = ((images + 4) / 8).clamp(1e-3, 1) ** exponent  # four spreads on either side of the mean
    (std, mean), (new_std, new_mean) = (
        torch.std_mean(batch, (2, 3), keepdim=True) for batch in (images, bent)
    )
    return (bent - new_mean) / (new_std + 1e-5) * std + mean


def _blurred_by(images: Tensor, random: Generator, most: float = 2.0) -> Tensor:
    """Blur half of the patches by a Gaussian of up to ``most`` px."""
    sigma = torch.rand(len(images), generator=random) * most
    sigma[torch.rand(len(images), generator=random) < 0.5] = 0
    reach = math.ceil(3 * most)
    at = torch.arange(-reach, reach + 1)
    row = torch.exp(-0.5 * (at / sigma.clamp(min=0.1)[:, None]) ** 2)  # (B, taps)
    row = (row / row.sum(1, keepdim=True)).to(images.device)
    n, channels = images.shape[:2]
    # Each channel of each patch is a group of its own, so that every patch has its own kernel.
    kernel = row.repeat_interleave(channels, 0)
    flat = functional.pad(images, (reach,) * 4, mode="reflect").flatten(0, 1)[None]
    flat = functional.conv2d(flat, kernel[:, None, :, None], groups=n * channels)
    return functional.conv2d(flat, kernel[:, None, None], groups=n * channels).view(images.shape)


def _blurred(images: Tensor) -> Tensor:
    """Blur by the binomial kernel of 5 x 5, a Gaussian of 1 px."""
    row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=images.device) / 16
    channels = images.shape[1]
    kernel = (row[:, None] * row).expand(channels, 1, 5, 5)
    padded = functional.pad(images, (2, 2, 2, 2), mode="reflect")
    return functional.conv2d(padded, kernel, groups=channels)
