"""Learning to denoise, as a task for the one loop. Knows no file and no stack's metadata."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.utils.data import Dataset

from mitolume.inference.denoise import run_network
from mitolume.models.networks import DenoisingNetwork
from mitolume.training.denoise_methods import DenoisingMethod, LearntPlane, Run, Sample
from mitolume.training.patches import Image
from mitolume.training.settings import DenoisingSettings

_EVERY = 12  # planes of a stack of which one is held out
_FEWEST = 9  # planes of a stack from which one can be spared
_BAND = 4  # of fewer planes, one in so many rows is held out


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


class Denoising:
    """Planes without noise, from noisy ones.

    Parameters
    ----------
    samples
        What to learn from.
    held_out
        What chooses the epoch; may be empty.
    method
        How noise is told from signal.
    settings
        Patches and batches.
    seed
        Of all draws.
    """

    section = "denoising"
    rate_key = "denoising.learning_rate"
    score_name = "validation_db"
    decay = None

    def __init__(
        self,
        samples: Sequence[Sample],
        held_out: Sequence[Sample],
        method: DenoisingMethod,
        settings: DenoisingSettings,
        seed: int,
    ) -> None:
        self.patches = SamplePatches(samples, patch=settings.patch, batch=settings.batch, seed=seed)
        self.held_out = held_out
        self.method = method
        self.seed = seed

    @property
    def batches(self) -> SamplePatches:
        """The patches, batch by batch."""
        return self.patches

    @property
    def is_validated(self) -> bool:
        """Whether planes were held out."""
        return bool(self.held_out)

    def loss(
        self, network: nn.Module, average: nn.Module | None, batch: tuple[int, Tensor, Tensor]
    ) -> Tensor:
        """Return the loss of one step."""
        step, given, wanted = batch
        # Offset from the seeds of the patches, which are drawn from (seed, step) too.
        draw = np.random.default_rng([self.seed, int(step), 1])
        random = Generator().manual_seed(int(draw.integers(2**63)))
        return self.method.loss(network, given, wanted, random)

    def check(self, network: nn.Module, step: int) -> None:
        """Do nothing: a denoiser's share of the change shows when it has learnt nothing."""

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


def hold_out(
    runs: Sequence[Run], method: DenoisingMethod, directions: str
) -> tuple[list[Sample], list[Sample]]:
    """Keep some planes aside: one of every twelve, or rows where there are few planes.

    Parameters
    ----------
    runs
        All planes.
    method
        What is predicted from what.
    directions
        As for `DenoisingMethod.samples`.

    Returns
    -------
    samples, held_out
        What is learnt from, and what is not; no noise of the latter is in the former.
    """
    samples: list[Sample] = []
    held_out: list[Sample] = []
    for run in runs:
        if len(run) >= _FEWEST:
            count = len(run) // _EVERY or 1
            spare = [round((i + 0.5) * len(run) / count) for i in range(count)]
            samples += method.samples(run, spare, directions)
            held_out += [method.judged(run, z) for z in spare]
        else:
            height = run[0].noisy.shape[0]
            cut = height - height // _BAND
            above, below = (
                [LearntPlane(plane.noisy[rows], plane.filtered[rows]) for plane in run]
                for rows in (slice(cut), slice(cut, height))
            )
            samples += method.samples(above, (), directions)
            held_out += [method.judged(below, z) for z in range(len(run))]
    return samples, held_out
