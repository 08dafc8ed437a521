"""Learning what images look like before any label, as a task for the one loop. Knows no mask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from mitolume.models.networks import SegmentationNetwork
from mitolume.training.augment import flips
from mitolume.training.loop import fit
from mitolume.training.patches import Patches, PreparedImage
from mitolume.training.record import Trained, Watch
from mitolume.training.settings import TrainingSettings

NOISE = 0.5  # standard deviation, of images with spread 1
BLOCK = 8  # px, side of what is masked
MASKED = 0.25  # share of the blocks
_ANSWER = "final_conv"  # the layer that is learnt anew for the masks


class Restoration:
    """Images out of noisy ones with holes.

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
        """There is nothing to score: the last weights are averaged."""
        raise NotImplementedError

    def examine(self, network: nn.Module, step: int) -> None:
        """Do nothing: what is learnt here is judged by the masks that it leads to."""


def spoil(images: Tensor, random: Generator) -> Tensor:
    """Add noise and cut holes.

    Parameters
    ----------
    images
        (B, C, Y, X) float32 with mean 0 and spread 1; Y = X, a multiple of 8.
    random
        On the processor.

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
    watch: Watch = Watch(),  # noqa: B008
) -> Trained:
    """Train a network to restore images, going on from its checkpoint where there is one.

    Parameters
    ----------
    network
        With its initial weights; changed in place.
    images
        Labelled or not: masks are not looked at.
    settings
        How long and with what, in steps.
    seed
        Of patches, noise and holes.
    folder
        Where the checkpoint is kept.
    watch
        Who is told how it goes.

    Returns
    -------
    Trained
        Its weights hold those that the network began with in the last layer, which answers.

    Raises
    ------
    MitolumeError
        The loss is no longer a number, or the checkpoint is damaged.
    """
    fresh = {
        name: tensor.clone() for name, tensor in network.state_dict().items() if _ANSWER in name
    }
    task = Restoration(images, settings, seed)
    trained = fit(network, task, settings=settings, folder=folder, watch=watch)
    return Trained(trained.weights | fresh, trained.chosen, trained.history)
