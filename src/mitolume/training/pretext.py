"""Learning to restore images, without masks: first weights for a segmentation network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from mitolume.models.networks import SegmentationNetwork
from mitolume.training.augment import flips
from mitolume.training.loop import Task, fit
from mitolume.training.patches import Patches, PreparedImage, step_generator
from mitolume.training.record import Callbacks, TrainingResult
from mitolume.training.settings import TrainingSettings

NOISE = 0.5  # standard deviation, of images with spread 1
BLOCK = 8  # px, side of what is masked
MASKED = 0.25  # share of the blocks


class Restoration(Task):
    """Task for `fit`: restore images from noisy copies with holes.

    A denoising autoencoder (Vincent et al. 2008), whose input also lacks blocks, as in masked image
    modelling (Xie et al. 2022).
    """

    def __init__(
        self, images: Sequence[PreparedImage], settings: TrainingSettings, seed: int
    ) -> None:
        bare = [PreparedImage(image.image) for image in images]
        self.batches = Patches(bare, patch=settings.patch, batch=settings.batch, seed=seed)
        self.seed = seed

    def loss(
        self, network: nn.Module, average: nn.Module | None, batch: tuple[int, Tensor, Tensor]
    ) -> Tensor:
        """Return the mean squared error over the plane in the middle."""
        number, images, nothing = batch
        random = step_generator(self.seed, number)
        with torch.autocast(images.device.type, enabled=False):
            images, _ = flips(images, nothing, random)
            given = spoil(images, random)
        middle = images.shape[1] // 2
        return functional.mse_loss(network(given).float(), images[:, middle : middle + 1])


def spoil(images: Tensor, random: Generator) -> Tensor:
    """Add noise to (B, C, Y, X) images, and cut holes in all channels alike: 0, the mean."""
    n, side = len(images), images.shape[-1] // BLOCK
    kept = (torch.rand((n, 1, side, side), generator=random) >= MASKED).float()
    kept = kept.repeat_interleave(BLOCK, 2).repeat_interleave(BLOCK, 3).to(images.device)
    noise = torch.randn(images.shape, generator=random).to(images.device)
    return (images + NOISE * noise) * kept


def learn_to_restore(
    network: SegmentationNetwork,
    images: Sequence[PreparedImage],
    *,
    settings: TrainingSettings,
    seed: int,
    folder: Path,
    callbacks: Callbacks = Callbacks(),  # noqa: B008
) -> TrainingResult:
    """Train a network to restore images, whose masks are not used: see `fit`.

    Returns
    -------
    TrainingResult
        The last layer, which makes the logits, has its initial weights.
    """
    last_layer = {
        name: tensor.clone()
        for name, tensor in network.state_dict().items()
        if "final_conv" in name
    }
    task = Restoration(images, settings, seed)
    result = fit(network, task, settings=settings, folder=folder, callbacks=callbacks)
    return replace(result, weights=result.weights | last_layer)
