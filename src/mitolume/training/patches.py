"""Patches drawn from whole images by (seed, step)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset, Sampler

from mitolume.io.masks import UNSURE, Mask

Image = np.ndarray[Any, np.dtype[np.float32]]
SoftMask = np.ndarray[Any, np.dtype[np.float16]]


@dataclass(frozen=True)
class PreparedImage:
    """An image after the chain, on the model's grid, with its targets.

    ``image`` is (C, Y, X), the plane itself first, or (Y, X) of it alone. ``mask`` is (Y, X): 0, 1,
    255 (unsure), or as float16 a teacher's probability, or None for an unlabelled image. ``weight``
    is how often it is drawn, beside another image of the same area.
    """

    image: Image
    mask: Mask | SoftMask | None = None
    weight: float = 1.0

    @property
    def plane(self) -> Image:
        """The plane itself, without what the network sees beside it: (Y, X)."""
        plane: Image = self.planes[0]
        return plane

    @property
    def planes(self) -> Image:
        """The image with an axis of channels: (C, Y, X)."""
        return self.image[None] if self.image.ndim == 2 else self.image


class Patches(Dataset[tuple[int, Tensor, Tensor]]):
    """Batches of patches; item ``step`` is always the same batch, whatever came before.

    Images are drawn in proportion to their area and weight, so that pixels of equal weight are
    about as likely, and places uniformly within them. Images smaller than a patch are mirrored at
    their far edges, the mirrored part being unsure.

    Parameters
    ----------
    images
        Labelled images.
    unlabelled
        Images that half of each batch is drawn from, so that few labelled images are not lost
        among many others. Without any, the whole batch is drawn from ``images``.
    patch
        Side of a patch in pixels.
    batch
        Number of patches in a step.
    seed
        Seed of all draws.

    Attributes
    ----------
    n_labelled
        Number of patches of a batch that are drawn from ``images``; they come first.
    """

    def __init__(
        self,
        images: Sequence[PreparedImage],
        unlabelled: Sequence[PreparedImage] = (),
        *,
        patch: int,
        batch: int,
        seed: int,
    ) -> None:
        self.images = [*images, *unlabelled]
        self.patch, self.batch, self.seed = patch, batch, seed
        self.n_labelled = max(1, batch - batch // 2) if unlabelled else batch
        areas = np.array([i.weight * np.prod(i.image.shape[-2:]) for i in self.images], dtype=float)
        self.share = areas[: len(images)] / areas[: len(images)].sum()
        self.share_of_unlabelled = areas[len(images) :] / max(1, areas[len(images) :].sum())

    def __getitem__(self, step: int) -> tuple[int, Tensor, Tensor]:
        """Return the step, (B, C, Y, X) float32 images, and (B, 1, Y, X) float32 targets.

        Targets are the probability of foreground, NaN where nothing is known.
        """
        rng = np.random.default_rng([self.seed, step])
        drawn = list(rng.choice(len(self.share), self.n_labelled, p=self.share))
        if self.n_labelled < self.batch:
            share = self.share_of_unlabelled
            more = rng.choice(len(share), self.batch - self.n_labelled, p=share)
            drawn.extend(len(self.share) + more)
        images, targets = zip(*(self._crop(self.images[i], rng) for i in drawn), strict=True)
        return step, torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(targets))

    def _crop(self, source: PreparedImage, rng: np.random.Generator) -> tuple[Image, Image]:
        shape = source.image.shape[-2:]
        y, x = (int(rng.integers(max(1, size - self.patch + 1))) for size in shape)
        box = (slice(y, y + self.patch), slice(x, x + self.patch))
        image = source.planes[:, *box]
        target = _target(source.mask, image.shape[1:], box)
        missing = [(0, self.patch - size) for size in image.shape[1:]]
        if any(after for _, after in missing):
            image = np.pad(image, [(0, 0), *missing], mode="symmetric")
            target = np.pad(target, missing, constant_values=np.nan)
        return image, target[None]


def _target(
    mask: Mask | SoftMask | None, shape: tuple[int, ...], box: tuple[slice, slice]
) -> Image:
    if mask is None:
        return np.full(shape, np.nan, np.float32)
    target = mask[box].astype(np.float32)
    if mask.dtype == np.uint8:
        target[target == UNSURE] = np.nan
    return target


def step_generator(seed: int, step: int) -> Generator:
    """Return the generator of a step's augmentation: another one than that of its patches."""
    draw = np.random.default_rng([seed, int(step), 1])
    return Generator().manual_seed(int(draw.integers(2**63)))


class StepSampler(Sampler[int]):
    """The steps of one epoch after the other, counted through the whole training.

    It has no length, as the last epoch may be shorter than the others. ``steps_done`` returns the
    number of steps done so far, also after a checkpoint was loaded.
    """

    def __init__(self, steps: int, steps_per_epoch: int, steps_done: Callable[[], int]) -> None:
        self.steps = steps
        self.steps_per_epoch = steps_per_epoch
        self.steps_done = steps_done

    def __iter__(self) -> Iterator[int]:
        first = self.steps_done()
        return iter(range(first, min(first + self.steps_per_epoch, self.steps)))


class ArrayFile:
    """Arrays of one type, one after the other in a scratch file that the caller removes.

    They are read back as views of one memory map: memory stays flat, and one file is open however
    many arrays there are.
    """

    def __init__(self, path: Path, dtype: type[np.generic]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.dtype = path, dtype
        self.shapes: list[tuple[int, ...]] = []
        self.file = path.open("wb")

    def append(self, array: np.ndarray[Any, Any]) -> None:
        """Write one more array."""
        self.shapes.append(array.shape)
        self.file.write(np.ascontiguousarray(array, self.dtype).data)

    def read_all(self) -> list[np.ndarray[Any, Any]]:
        """Finish writing, and return all arrays in their order."""
        self.file.close()
        if not self.shapes:
            return []
        flat = np.memmap(self.path, self.dtype, mode="r")
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])
        return [
            flat[end - int(np.prod(shape)) : end].reshape(shape)
            for shape, end in zip(self.shapes, ends, strict=True)
        ]
