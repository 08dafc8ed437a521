"""Learning to denoise by one method, or by the one that leaves the least error. Knows no file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from mitolume.errors import MitolumeError
from mitolume.inference.denoise import FLIPS, run_network
from mitolume.models.networks import DenoisingNetwork
from mitolume.models.settings import DenoiserNetworkSettings
from mitolume.preprocess.noise_check import NoiseCheck
from mitolume.preprocess.wiener import NOTHING, SignalNoise, signal_and_noise
from mitolume.progress import Advance, progress_bar
from mitolume.training.denoise_methods import (
    DENOISING_METHODS,
    DenoisingMethod,
    GivenBack,
    Run,
    Sample,
    aligned,
)
from mitolume.training.denoising import Denoising, hold_out
from mitolume.training.loop import fit
from mitolume.training.patches import Image
from mitolume.training.record import Callbacks, TrainingProgress, TrainingResult
from mitolume.training.settings import DenoisingSettings

_MEASURED = 12  # planes by which answers are measured
_MEASURED_SIDE = 512  # pixels a side, of larger ones
_SHARED = 0.72  # of the noise of planes: where answers leave less of it, they predict noise
T = TypeVar("T")


@dataclass(frozen=True)
class Learnt:
    """A denoiser, before it is written.

    ``promised`` is the signal and noise of planes minus answers, in units of the planes' noise:
    what can be expected without knowing the truth.
    """

    method: str
    network: DenoisingNetwork
    trained: TrainingResult
    promised: SignalNoise
    kept: float | None = None
    scores: dict[str, float | int | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Course:
    """What all methods of one training share."""

    runs: list[Run]
    out: Path
    settings: DenoisingSettings
    seed: int
    quiet: bool

    def learn_best(self, check: NoiseCheck) -> tuple[Learnt, str]:
        """Learn by the method with the least error to be expected, and say why.

        The error follows from the spectrum of planes minus answers; no truth is needed. An answer
        that predicts noise is no candidate: noise that planes share would stay.
        """
        alone = self.learn("wiener")
        if not check.is_suitable:
            return alone, check.reason
        mean = self.learn("neighbours")
        if mean.promised.floor < _SHARED * alone.promised.floor:
            return alone, "neighbouring planes share their noise"
        candidates = [alone, mean, self.learn("noise2stack")]
        best = min(
            (c for c in candidates if c.promised.floor >= _SHARED * alone.promised.floor),
            key=lambda learnt: learnt.promised.error,
        )
        errors = {
            f"error_{learnt.method}": round(float(np.sqrt(learnt.promised.error)), 4)
            for learnt in candidates
        }
        best.scores.update(errors)
        if best.method == "noise2stack":
            return best, ""
        whose = "neighbouring planes" if best.method == "wiener" else "the network"
        return best, f"{whose} would leave a larger error"

    def learn(self, name: str) -> Learnt:
        """Learn by one method, and measure what its answers lack."""
        method, settings = DENOISING_METHODS[name], self.settings
        runs = _usable(self.runs, name, method)
        network = DenoisingNetwork(network_settings(settings, name), method.channels, self.seed)
        every = [s for run in runs for s in method.samples(run, (), settings.directions)]
        trained, held_out = TrainingResult({}, "no network", []), list[Sample]()
        scores: dict[str, float | int | None] = {}
        if method.learns:
            samples = every
            if settings.protect:
                samples, held_out = hold_out(runs, method, settings.directions)
            if settings.align and method.in_pairs:
                samples, held_out = [[aligned(s) for s in some] for some in (samples, held_out)]
            trained = self._fit(network, method, samples, held_out)
        if held_out:
            best = max(record["validation_db"] or -np.inf for record in trained.history)
            scores = {"validation_db": round(best, 3), "n_held_out": len(held_out)}
        # A spectrum needs many planes; those that were learnt from tell as much of it.
        more = spread_over(every, _MEASURED) if method.channels != 1 else []
        judged = [_middle(sample) for sample in [*held_out, *more]] or every[:1]
        answers = [_answer(network, sample) for sample in judged]
        given_back = GivenBack(NOTHING)
        if settings.protect:
            given_back = method.given_back(judged, answers)
        detail = given_back.detail
        spectra = np.stack([detail.signal, detail.noise, detail.left])
        network.detail.copy_(torch.from_numpy(spectra))
        network.line.copy_(torch.tensor(detail.line))
        network.share.fill_(given_back.share)
        kept = round(given_back.kept, 4) if method.channels and settings.protect else None
        return Learnt(name, network, trained, _promised(judged, answers), kept, scores)

    def _fit(
        self,
        network: DenoisingNetwork,
        method: DenoisingMethod,
        samples: list[Sample],
        held_out: list[Sample],
    ) -> TrainingResult:
        settings = self.settings.for_images(len(samples))
        task = Denoising(samples, held_out, method, settings, self.seed)
        with progress_bar("training denoiser", quiet=self.quiet) as advance:
            callbacks = Callbacks(on_step=_reporting(advance))
            trained = fit(network, task, settings=settings, folder=self.out, callbacks=callbacks)
        network.load_state_dict(trained.weights)
        network.eval()
        chosen = trained.chosen.replace("validation images", "held-out planes")
        return replace(trained, chosen=chosen)


def _usable(runs: list[Run], name: str, method: DenoisingMethod) -> list[Run]:
    if not runs:
        raise MitolumeError("all planes have one grey value only: there is nothing to learn from")
    usable = [run for run in runs if len(run) >= method.fewest_planes]
    if not usable:
        raise MitolumeError(
            f"{name} needs neighbouring planes, and there are only single ones; give it z-stacks, "
            "or choose --method wiener or blind_spot"
        )
    return usable


def _middle(sample: Sample) -> Sample:
    """Return the middle of a large sample: enough to measure, and much faster."""
    given, wanted, plane = sample
    box = tuple(
        slice(first, first + _MEASURED_SIDE)
        for first in (max(0, (size - _MEASURED_SIDE) // 2) for size in plane.shape)
    )
    return [image[box] for image in given], wanted[box], plane[box]


def _answer(network: DenoisingNetwork, sample: Sample) -> Image:
    given, _, plane = sample
    return run_network(network, given, FLIPS) if given else np.zeros_like(plane)


def _promised(samples: Sequence[Sample], answers: Sequence[Image]) -> SignalNoise:
    """Return signal and noise of planes minus answers, in units of each plane's noise."""
    return signal_and_noise(
        (plane - answer) / np.float32(np.sqrt(signal_and_noise([plane]).floor))
        for (*_, plane), answer in zip(samples, answers, strict=True)
    )


def network_settings(settings: DenoisingSettings, method: str) -> DenoiserNetworkSettings:
    """Return the network of some settings, as a method can use it."""
    residual = settings.network.residual and DENOISING_METHODS[method].residual
    return settings.network.model_copy(update={"residual": residual})


def spread_over(items: Sequence[T], most: int) -> list[T]:
    """Return at most so many items, evenly spread over all."""
    count = min(most, len(items))
    return [items[int(i)] for i in np.linspace(0, len(items) - 1, count)]


def _reporting(advance: Advance) -> Any:
    def report_step(at: TrainingProgress) -> None:
        note = "" if at.score is None else f"held-out planes {at.score:.2f} dB"
        advance(at.step, at.steps, note)

    return report_step
