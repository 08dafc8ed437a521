"""The ways of learning to denoise without clean images: what is predicted from what, and how well.

A method says what the network gets and what it is compared with; `Denoising` is the task for the
training loop.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from mitolume.inference.denoise import nearest, planes_around, run_network
from mitolume.models.networks import DenoisingNetwork
from mitolume.training.loop import Task
from mitolume.training.patches import Image
from mitolume.training.settings import DenoisingSettings

_EVERY = 12  # planes of a stack of which one is held out
_FEWEST = 9  # planes of a stack from which one can be spared; of fewer, a quarter of the rows


class TrainingPlane(NamedTuple):
    """A plane of mean 0 and spread 1, (Y, X), and the same filtered by its own spectrum."""

    noisy: Image
    filtered: Image


PlaneRun = Sequence[TrainingPlane]  # planes of one stack, neighbours in z
# What the network gets, (C, Y, X) as a list of planes; what that is compared with; and the plane.
Sample = tuple[list[Image], Image, Image]


class DenoisingMethod:
    """What all methods share; by default a plane is predicted from those around it.

    ``name`` is that of the method for users and in cards, ``channels`` the number of planes that
    the network gets, ``learns`` whether there is a network to train, ``fewest_planes`` how many
    planes a stack must have, ``holds_out`` whether some planes choose the epoch instead of being
    learnt from.
    """

    name = ""
    channels = 1
    learns = True
    fewest_planes = 1
    holds_out = True

    def samples(self, run: PlaneRun, spare: Collection[int] = ()) -> list[Sample]:
        """Return what is learnt from, by default every plane but those ``spare`` (numbers)."""
        return [self.judged(run, z) for z in range(len(run)) if z not in spare]

    def judged(self, run: PlaneRun, z: int) -> Sample:
        """Return by what a held-out plane is judged: itself, with the filtered ones around it."""
        around = nearest(planes_around(z, len(run)), self.channels) if self.channels else []
        return [run[i].filtered for i in around], run[z].noisy, run[z].noisy


class Noise2Noise(DenoisingMethod):
    """Predict a plane from its neighbour, whose noise is another (Lehtinen et al. 2018).

    As the published study did: the 2nd plane from the 1st, the 4th from the 3rd, and so on;
    nothing is held out, and the answer is taken as it is.
    """

    name = "noise2noise"
    fewest_planes = 2
    holds_out = False

    def samples(self, run: PlaneRun, spare: Collection[int] = ()) -> list[Sample]:
        """Return the pairs."""
        return [([a.noisy], b.noisy, a.noisy) for a, b in zip(run[::2], run[1::2], strict=False)]


class Noise2Stack(DenoisingMethod):
    """Predict a plane from two before and two behind it (Papkov et al. 2020; Lecoq et al. 2021).

    The plane itself is what is predicted, so that nothing that changes between planes is blurred
    for good: the neighbours' answer lacks it, and it is found again in the difference. Neighbours
    are filtered first, one by one, so that their noise stays independent of the plane's.
    """

    name = "noise2stack"
    channels = 4
    fewest_planes = 2


class NeighbourMean(Noise2Stack):
    """Predict a plane by the mean of the one before and the one behind it, without a network.

    Only `auto` uses it: where no network is better.
    """

    name = "neighbours"
    channels = 2
    learns = False


class Wiener(DenoisingMethod):
    """Filter a plane by its own spectrum; there is no network and nothing to train."""

    name = "wiener"
    channels = 0
    learns = False


DENOISING_METHODS: dict[str, DenoisingMethod] = {
    method.name: method for method in (Noise2Stack(), Wiener(), Noise2Noise())
}


def hold_out(
    runs: Sequence[PlaneRun], method: DenoisingMethod
) -> tuple[list[Sample], list[Sample]]:
    """Return what is learnt from, and what is held out: no noise of the latter is in the former.

    One of every twelve planes, or rows where there are few planes; nothing where the method says
    so.
    """
    samples: list[Sample] = []
    held_out: list[Sample] = []
    for run in runs:
        if not method.holds_out:
            samples += method.samples(run)
        elif len(run) >= _FEWEST:
            count = len(run) // _EVERY or 1
            spare = [round((i + 0.5) * len(run) / count) for i in range(count)]
            samples += method.samples(run, spare)
            held_out += [method.judged(run, z) for z in spare]
        else:
            height = run[0].noisy.shape[0]
            cut = height - height // 4
            above, below = (
                [TrainingPlane(plane.noisy[rows], plane.filtered[rows]) for plane in run]
                for rows in (slice(cut), slice(cut, height))
            )
            samples += method.samples(above)
            held_out += [method.judged(below, z) for z in range(len(run))]
    return samples, held_out


class SamplePatches(Dataset[tuple[int, Tensor, Tensor]]):
    """Batches of patches out of planes; item ``step`` is always the same batch.

    Samples are drawn in proportion to their area and flipped at random along every axis, never
    turned: noise of a scan line stays along the rows. Planes smaller than a patch are mirrored at
    their far edges.
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
        patches = [self._patch(self.samples[i], rng) for i in drawn]
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
    """Planes without noise, from noisy ones; ``held_out`` samples choose the epoch."""

    section = "denoising"
    rate_key = "denoising.learning_rate"
    score_name = "validation_db"
    score_label = "held-out planes, dB:"

    def __init__(
        self,
        samples: Sequence[Sample],
        held_out: Sequence[Sample],
        settings: DenoisingSettings,
        seed: int,
    ) -> None:
        self.batches = SamplePatches(samples, patch=settings.patch, batch=settings.batch, seed=seed)
        self.held_out = held_out
        self.is_validated = bool(held_out)

    def loss(self, network: nn.Module, batch: tuple[int, Tensor, Tensor]) -> Tensor:
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
