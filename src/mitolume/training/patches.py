"""Patches drawn from whole images by (seed, step). Knows no network and no loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from mitolume.io.masks import UNSURE, Mask

Image = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class PreparedImage:
    """An image after the chain, on the model's grid, with its mask (None: unlabelled)."""

    image: Image  # (Y, X)
    mask: Mask | None  # (Y, X) of 0, 1, 255


class Patches(Dataset[tuple[int, Tensor, Tensor]]):
    """Batches of patches; item ``step`` is always the same batch, whatever came before.

    Images are drawn in proportion to their area, so that every pixel is about as likely, and
    places uniformly within them. Images smaller than a patch are mirrored at their far edges, the
    mirrored part being unsure.

    Parameters
    ----------
    images
        Prepared and labelled.
    patch
        Side in pixels.
    batch
        Patches a step.
    seed
        Of all draws.
    """

    def __init__(
        self, images: Sequence[PreparedImage], *, patch: int, batch: int, seed: int
    ) -> None:
        self.images = images
        self.patch, self.batch, self.seed = patch, batch, seed
        areas = np.array([image.image.size for image in images], dtype=float)
        self.share = areas / areas.sum()

    def __getitem__(self, step: int) -> tuple[int, Tensor, Tensor]:
        """Return the step, (B, 1, Y, X) float32 images and (B, 1, Y, X) uint8 masks."""
        rng = np.random.default_rng([self.seed, step])
        drawn = rng.choice(len(self.images), self.batch, p=self.share)
        shape = (self.batch, 1, self.patch, self.patch)
        images, masks = np.empty(shape, np.float32), np.empty(shape, np.uint8)
        for i, which in enumerate(drawn):
            images[i, 0], masks[i, 0] = self._crop(self.images[which], rng)
        return step, torch.from_numpy(images), torch.from_numpy(masks)

    def _crop(self, source: PreparedImage, rng: np.random.Generator) -> tuple[Image, Mask]:
        assert source.mask is not None
        y, x = (int(rng.integers(max(1, size - self.patch + 1))) for size in source.image.shape)
        box = (slice(y, y + self.patch), slice(x, x + self.patch))
        image, mask = source.image[box], source.mask[box]
        missing = [(0, self.patch - size) for size in image.shape]
        if any(after for _, after in missing):
            image = np.pad(image, missing, mode="symmetric")
            mask = np.pad(mask, missing, constant_values=UNSURE)
        return image, mask


class StepSampler(Sampler[int]):
    """The steps of one epoch after the other, counted on through the whole training.

    It has no length, as the last epoch may be shorter than the others.

    Parameters
    ----------
    steps
        How many there are.
    steps_per_epoch
        How many of them make an epoch.
    steps_done
        Tells the steps done so far, also of a training that goes on from a checkpoint.
    """

    def __init__(self, steps: int, steps_per_epoch: int, steps_done: Callable[[], int]) -> None:
        self.steps = steps
        self.steps_per_epoch = steps_per_epoch
        self.steps_done = steps_done

    def __iter__(self) -> Iterator[int]:
        first = self.steps_done()
        return iter(range(first, min(first + self.steps_per_epoch, self.steps)))
