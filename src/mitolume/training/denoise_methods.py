"""The ways of learning to denoise without clean images. Knows no file and no loop.

A method says what is predicted from what, how a step makes its loss, and how much of what the
network took away is given back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from mitolume.inference.denoise import planes_around
from mitolume.preprocess.pairs import register
from mitolume.preprocess.wiener import NOTHING, Detail, measure_detail
from mitolume.training.patches import Image


class LearntPlane(NamedTuple):
    """A plane of mean 0 and spread 1, (Y, X), and the same filtered by its own spectrum."""

    noisy: Image
    filtered: Image


Run = Sequence[LearntPlane]  # planes of one stack, neighbours in z
# What the network gets, (C, Y, X) as a list of planes; what that is compared with; and the plane.
Sample = tuple[list[Image], Image, Image]
Denoise = Callable[[list[Image]], Image]


@dataclass(frozen=True)
class GivenBack:
    """What a network's answers lack, and how much of the change they make is made."""

    detail: Detail
    share: float = 1.0

    @property
    def kept(self) -> float:
        """Share of the difference to a plane that is given back, the mean over all frequencies."""
        signal, noise = self.detail.signal, self.detail.noise
        own = float((signal / np.maximum(signal + noise, 1e-12)).mean())
        return 1 - self.share * (1 - own)


def aligned(sample: Sample) -> Sample:
    """Lay what is wanted over the one plane that is given; both are cut to what they share."""
    given, wanted = register(sample[0][0], sample[1])
    return [given], wanted, given


class DenoisingMethod:
    """What all methods share.

    Attributes
    ----------
    channels
        Planes that the network gets.
    learns
        Whether there is a network at all.
    in_pairs
        Whether a plane is compared with another that the network didn't get.
    fewest_planes
        Planes that a stack must have.
    residual
        Whether the network may give what is to be added to what it gets.
    """

    channels = 1
    learns = True
    in_pairs = False
    fewest_planes = 1
    residual = True

    def samples(
        self, run: Run, spare: Collection[int] = (), directions: str = "both"
    ) -> list[Sample]:
        """Return what is learnt from.

        Parameters
        ----------
        run
            Neighbouring planes.
        spare
            Planes (numbers in the run) whose noise may not be learnt.
        directions
            ``both`` or ``forward``, for methods that take pairs.
        """
        raise NotImplementedError

    def judged(self, run: Run, z: int) -> Sample:
        """Return by what a held-out plane is judged."""
        raise NotImplementedError

    def loss(self, network: nn.Module, given: Tensor, wanted: Tensor, random: Generator) -> Tensor:
        """Return the loss of one step: (B, C, Y, X) and (B, 1, Y, X)."""
        return functional.mse_loss(network(given).float(), wanted)

    def given_back(self, samples: Sequence[Sample], answers: list[Image]) -> GivenBack:
        """Measure what is to be given back.

        For methods whose answer knows nothing of the plane's own noise: what the network could
        not predict is noise and signal, told apart by their spectrum.
        """
        return GivenBack(measure_detail([plane for *_, plane in samples], answers))


class Noise2Noise(DenoisingMethod):
    """Predict a plane from its neighbour, whose noise is another (Lehtinen et al. 2018).

    The network can't know the noise of the plane that it has to predict; the mean of all it
    could be is the plane without noise, as far as neighbours show the same.
    """

    in_pairs = True
    fewest_planes = 2

    def samples(
        self, run: Run, spare: Collection[int] = (), directions: str = "both"
    ) -> list[Sample]:
        """Return neighbours: each with the next and back, or 1st to 2nd, 3rd to 4th, ... only."""
        used = [not {i - 1, i, i + 1} & set(spare) for i in range(len(run))]
        pairs = [(a, b) for a, b in pairwise(range(len(run))) if used[a] and used[b]]
        if directions == "forward":
            pairs = [(a, b) for a, b in pairs if a % 2 == 0]
        else:
            pairs = [turn for a, b in pairs for turn in ((a, b), (b, a))]
        return [([run[a].noisy], run[b].noisy, run[a].noisy) for a, b in pairs]

    def judged(self, run: Run, z: int) -> Sample:
        """Return a plane with the mean of its neighbours, whose noise is independent of its own."""
        near = [run[i].noisy for i in (z - 1, z + 1) if 0 <= i < len(run)]
        return [run[z].noisy], np.mean(near, axis=0, dtype=np.float32), run[z].noisy

    def given_back(self, samples: Sequence[Sample], answers: list[Image]) -> GivenBack:
        """Return a share of each pixel's change, so that the error is least.

        The share ``a`` of the change that brings ``x + a (f - x)`` closest to ``t`` in squared
        error, where ``x`` is a plane, ``f`` the denoised plane, and ``t`` a noisy picture of the
        same whose noise is independent: ``a = <f - x, t - x> / <f - x, f - x>``.
        """
        agreed = changed = 0.0
        for (_, noisy, plane), answer in zip(samples, answers, strict=True):
            change = answer.astype(np.float64) - plane
            agreed += float((change * (noisy - plane)).sum())
            changed += float((change**2).sum())
        return GivenBack(NOTHING, float(np.clip(agreed / changed, 0, 1)) if changed > 0 else 0.0)


class Noise2Stack(DenoisingMethod):
    """Predict a plane from two before and two behind it (Papkov et al. 2020; Lecoq et al. 2021).

    The plane itself is what is predicted, so that nothing that changes between planes is blurred
    for good: the neighbours' answer lacks it, and it is found again in the difference. Neighbours
    are filtered first, one by one, so that their noise stays independent of the plane's.
    """

    channels = 4
    fewest_planes = 2

    def samples(
        self, run: Run, spare: Collection[int] = (), directions: str = "both"
    ) -> list[Sample]:
        """Return every plane with those around it."""
        return [self.judged(run, z) for z in range(len(run)) if z not in spare]

    def judged(self, run: Run, z: int) -> Sample:
        """Return a plane with those around it."""
        around = planes_around(z, len(run))
        skipped = (len(around) - self.channels) // 2
        near = around[skipped : len(around) - skipped]
        return [run[i].filtered for i in near], run[z].noisy, run[z].noisy


class Neighbours(Noise2Stack):
    """Predict a plane by the mean of the one before and the one behind it, without a network."""

    channels = 2
    learns = False


class Wiener(DenoisingMethod):
    """Filter a plane by its own spectrum; there is no network and nothing to train."""

    channels = 0
    learns = False

    def samples(
        self, run: Run, spare: Collection[int] = (), directions: str = "both"
    ) -> list[Sample]:
        """Return every plane."""
        return [self.judged(run, z) for z in range(len(run))]

    def judged(self, run: Run, z: int) -> Sample:
        """Return a plane."""
        return [], run[z].noisy, run[z].noisy

    def given_back(self, samples: Sequence[Sample], answers: list[Image]) -> GivenBack:
        """Return nothing: there are no answers."""
        return GivenBack(NOTHING)


class BlindSpot(DenoisingMethod):
    """Predict hidden pixels of a plane from those around them (Noise2Void, Krull et al. 2019).

    Pixels to the left and right can be hidden too, so that noise along a scan line is not guessed
    from its neighbours (structured Noise2Void, Broaddus et al. 2020).
    """

    share = 0.01  # of the pixels that are predicted
    window = 2  # pixels around from which a value is put in the place of a hidden one
    reach = 4  # pixels to the left and right that are hidden with it
    residual = False  # the plane would show through

    def samples(
        self, run: Run, spare: Collection[int] = (), directions: str = "both"
    ) -> list[Sample]:
        """Return every plane with itself."""
        return [self.judged(run, z) for z in range(len(run)) if z not in spare]

    def judged(self, run: Run, z: int) -> Sample:
        """Return a plane with itself."""
        return [run[z].noisy], run[z].noisy, run[z].noisy

    def loss(self, network: nn.Module, given: Tensor, wanted: Tensor, random: Generator) -> Tensor:
        """Return the mean squared error of the hidden pixels."""
        hidden, chosen = self.hide(given, random)
        error = functional.mse_loss(network(hidden).float(), wanted, reduction="none")
        return (error * chosen).sum() / chosen.sum().clamp(min=1)

    def hide(self, planes: Tensor, random: Generator) -> tuple[Tensor, Tensor]:
        """Put other values of the neighbourhood in the place of some pixels.

        Returns
        -------
        hidden, chosen
            (B, 1, Y, X): the planes, and 1 where a pixel is to be predicted.
        """
        chosen = (torch.rand(planes.shape, generator=random) < self.share).float()
        around = (1, 2 * self.reach + 1), 1, (0, self.reach)
        covered = functional.max_pool2d(chosen, *around).bool()
        shift = torch.randint(-self.window, self.window + 1, (2, *planes.shape), generator=random)
        # A pixel never stands in for itself.
        shift[0][(shift == 0).all(0)] = self.window
        height, width = planes.shape[2:]
        y = (torch.arange(height)[:, None] + shift[0]).clamp(0, height - 1)
        x = (torch.arange(width) + shift[1]).clamp(0, width - 1)
        places = (y * width + x).flatten(2).to(planes.device)
        other = planes.flatten(2).gather(2, places).view_as(planes)
        return torch.where(covered.to(planes.device), other, planes), chosen.to(planes.device)


DENOISING_METHODS: dict[str, DenoisingMethod] = {
    "noise2stack": Noise2Stack(),
    "neighbours": Neighbours(),
    "wiener": Wiener(),
    "noise2noise": Noise2Noise(),
    "blind_spot": BlindSpot(),
}
