"""Learning to restore images, without masks: first weights for a segmentation network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from mitolume.models.networks import SegmentationNetwork
from mitolume.training.augment import flips
from mitolume.training.loop import fit
from mitolume.training.patches import Patches, PreparedImage
from mitolume.training.record import Callbacks, TrainingResult
from mitolume.training.settings import TrainingSettings

NOISE = 0.5  # standard deviation, of images with spread 1
BLOCK = 8  # px, side of what is masked
MASKED = 0.25  # share of the blocks


class Restoration:
    """Task for `fit`: restore images from noisy copies with holes.

    A denoising autoencoder (Vincent et al. 2008), whose input also lacks blocks, as in masked image
    modelling (Xie et al. 2022).

    Parameters
    ----------
    images, settings, seed
        As for `learn_to_restore`.
    """

    section = "training"
    rate_key = "training.learning_rate"
    score_name = "validation_iou"
    decay = None
    is_validated = False

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
        draw = np.random.default_rng([self.seed, int(number), 1])
        random = Generator().manual_seed(int(draw.integers(2**63)))
        with torch.autocast(images.device.type, enabled=False):
            images, _ = flips(images, nothing, random)
            given = spoil(images, random)
        middle = images.shape[1] // 2
        return functional.mse_loss(network(given).float(), images[:, middle : middle + 1])

    def score(self, network: nn.Module) -> float:
        """Not called: there is nothing to score, and the last weights are averaged."""
        raise NotImplementedError

    def check(self, network: nn.Module, step: int) -> None:
        """Do nothing: there is no teacher to compare with."""


def spoil(images: Tensor, random: Generator) -> Tensor:
    """Add noise and cut holes.

    Parameters
    ----------
    images
        (B, C, Y, X) float32 with mean 0 and spread 1; Y = X, a multiple of 8.
    random
        Generator on the CPU, so that every device draws the same.

    Returns
    -------
    torch.Tensor
        The same shape; holes are 0, the mean, in all channels alike.
    """
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
    """Train a network to restore images, continuing from its checkpoint if there is one.

    Parameters
    ----------
    network
        The network with its initial weights; changed in place.
    images
        Images to restore; their masks are not used.
    settings
        Length in steps, batch, patch and learning rate.
    seed
        Seed of patches, noise and holes.
    folder
        Folder of the checkpoint.
    callbacks
        Called after every step and every epoch.

    Returns
    -------
    TrainingResult
        The last layer, which makes the logits, has its initial weights.

    Raises
    ------
    MitolumeError
        The loss is no longer a number, or the checkpoint is damaged.
    """
    last_layer = {
        name: tensor.clone()
        for name, tensor in network.state_dict().items()
        if "final_conv" in name
    }
    task = Restoration(images, settings, seed)
    result = fit(network, task, settings=settings, folder=folder, callbacks=callbacks)
    return replace(result, weights=result.weights | last_layer)
