"""Learning to denoise, as a task for the training loop."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from mitolume.inference.denoise import run_network
from mitolume.models.networks import DenoisingNetwork
from mitolume.training.denoise_methods import Sample
from mitolume.training.loop import Task
from mitolume.training.patches import Image
from mitolume.training.settings import DenoisingSettings


class SamplePatches(Dataset[tuple[int, Tensor, Tensor]]):
    """Batches of patches out of planes; item ``step`` is always the same batch.

    Samples are drawn in proportion to their area and flipped at random along every axis, never
    turned: noise of a scan line stays along the rows.

    Parameters
    ----------
    samples
        What is given and what is wanted.
    patch
        Side in pixels; smaller planes are mirrored at their far edges.
    batch
        Patches a step.
    seed
        Of all draws.
    """

    def __init__(self, samples: Sequence[Sample], *, patch: int, batch: int, seed: int) -> None:
        self.samples = samples
        self.patch, self.batch, self.seed = patch, batch, seed
        areas = np.array([plane.size for *_, plane in samples], dtype=float)
        self.share = areas / areas.sum()

    def __getitem__(self, step: int) -> tuple[int, Tensor, Tensor]:
        """Return the step, (B, C, Y, X) float32 that are given and (B, 1, Y, X) that are wanted."""
        rng = np.random.default_rng([self.seed, step])
        drawn = rng.choice(len(self.samples), self.batch, p=self.share)
        patches = [self._patch(self.samples[which], rng) for which in drawn]
        given, wanted = (np.stack(parts) for parts in zip(*patches, strict=True))
        return step, torch.from_numpy(given), torch.from_numpy(wanted)

    def _patch(self, sample: Sample, rng: np.random.Generator) -> tuple[Image, Image]:
        given, wanted, plane = sample
        y, x = (int(rng.integers(max(1, size - self.patch + 1))) for size in plane.shape)
        z_way, y_way, x_way = (int(way) for way in rng.integers(0, 2, 3) * -2 + 1)
        box = slice(y, y + self.patch), slice(x, x + self.patch)
        cut = [np.stack([image[box] for image in images]) for images in (given[::z_way], [wanted])]
        margin = [(0, 0), *((0, self.patch - size) for size in cut[0].shape[1:])]
        one, other = (np.pad(c, margin, mode="symmetric")[:, ::y_way, ::x_way] for c in cut)
        return one, other


class Denoising(Task):
    """Planes without noise, from noisy ones.

    Parameters
    ----------
    samples
        What to learn from.
    held_out
        What chooses the epoch; may be empty.
    settings
        Patches and batches.
    seed
        Of all draws.
    """

    section = "denoising"
    score_name = "validation_db"

    def __init__(
        self,
        samples: Sequence[Sample],
        held_out: Sequence[Sample],
        settings: DenoisingSettings,
        seed: int,
    ) -> None:
        self.batches = SamplePatches(samples, patch=settings.patch, batch=settings.batch, seed=seed)
        self.held_out = held_out

    @property
    def is_validated(self) -> bool:
        """Whether planes were held out."""
        return bool(self.held_out)

    def loss(
        self, network: nn.Module, average: nn.Module | None, batch: tuple[int, Tensor, Tensor]
    ) -> Tensor:
        """Return the mean squared error of one step."""
        _, given, wanted = batch
        return functional.mse_loss(network(given).float(), wanted)

    def score(self, network: nn.Module) -> float:
        """Return how close the answers come to what they are judged by, in dB.

        0 dB is an error as large as the contrast of the planes. What they are judged by is noisy,
        so that even the truth has a score that is far from infinite.
        """
        assert isinstance(network, DenoisingNetwork), "a task of its own kind of network"
        errors = [
            float(np.mean((run_network(network, given) - wanted) ** 2))
            for given, wanted, _ in self.held_out
        ]
        return float(-10 * np.log10(max(sum(errors) / len(errors), 1e-12)))
