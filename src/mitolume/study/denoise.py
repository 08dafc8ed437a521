"""From stacks to a trained denoiser: method, training, bundle. Knows no table of fields."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch

from mitolume.errors import MitolumeError
from mitolume.inference.denoise import FLIPS, run_network
from mitolume.io.write import write_text
from mitolume.models.bundle import CARD, save_bundle
from mitolume.models.denoiser import DenoiserCard
from mitolume.models.networks import DenoisingNetwork
from mitolume.models.settings import DenoiserNetworkSettings
from mitolume.preprocess.noise_check import NoiseCheck
from mitolume.preprocess.wiener import NOTHING, SignalNoise, signal_and_noise
from mitolume.progress import Advance, progress_bar, say
from mitolume.study.denoise_stacks import (
    Stack,
    check_stacks,
    prepared_runs,
    stack_entry,
    typical_pixel_size,
)
from mitolume.study.recipe import load_recipe
from mitolume.study.results import write_csv
from mitolume.training.denoise_methods import (
    DENOISING_METHODS,
    DenoisingMethod,
    GivenBack,
    Run,
    Sample,
    aligned,
)
from mitolume.training.denoising import Denoising, hold_out
from mitolume.training.loop import CHECKPOINT, fit, resolve_precision
from mitolume.training.patches import Image
from mitolume.training.record import Progress, Trained, Watch
from mitolume.training.settings import DenoisingSettings

BEGUN = "denoising.json"  # what a folder was begun with
LOG = "log.csv"  # the history of the card, for a table program
_SCRATCH = "scratch"
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
    trained: Trained
    promised: SignalNoise
    kept: float | None = None
    scores: dict[str, float | int | None] = field(default_factory=dict)


def denoising_settings(preset: str = "default", changes: Sequence[str] = ()) -> DenoisingSettings:
    """Return the section `denoising` of a preset, with some settings changed.

    Parameters
    ----------
    preset
        ``default``, ``quick`` or ``paper``.
    changes
        ``key=value`` with dots for nested keys, such as ``network.width=32``.
    """
    full = [f"denoising.{change}" for change in changes]
    return load_recipe(preset=preset, fields="none", settings=full).denoising


def train_denoiser(
    stacks: Sequence[Stack],
    out: Path,
    settings: DenoisingSettings,
    *,
    method: str = "auto",
    stripes: str = "auto",
    seed: int = 0,
    resume: bool = False,
    quiet: bool = False,
) -> DenoiserCard:
    """Train a denoiser on noisy stacks, and write its bundle.

    Parameters
    ----------
    stacks
        What to learn from.
    out
        The bundle; a new folder, unless ``resume``.
    settings
        How to train.
    method
        One of `DENOISING_METHODS`, or ``auto``: see `learn_best`.
    stripes
        ``auto`` removes scan-line noise first, ``none`` doesn't.
    seed
        Of weights and patches.
    resume
        Go on with a training that was stopped; what is finished is kept.
    quiet
        Show no progress.

    Returns
    -------
    DenoiserCard

    Raises
    ------
    MitolumeError
        The planes can't be learnt from, or the folder holds something else.
    """
    settings = settings.model_copy(update={"precision": resolve_precision(settings.precision)})
    asked = {
        "method": method,
        "stripes": stripes,
        "seed": seed,
        "settings": settings.model_dump(mode="json"),
        "stacks": [stack_entry(stack) for stack in stacks],
    }
    if _is_done(out, asked, resume):
        return DenoiserCard.model_validate_json((out / CARD).read_text(encoding="utf-8"))
    if method != "auto" and method not in DENOISING_METHODS:
        names = ", ".join(["auto", *DENOISING_METHODS])
        raise MitolumeError(f"there is no method {method!r}; there are {names}")
    if stripes not in ("auto", "none"):
        raise MitolumeError(f"stripes can be auto or none, not {stripes!r}")
    check = check_stacks(stacks) if method == "auto" else None
    neighbours = check.is_suitable if check else DENOISING_METHODS[method].channels > 1
    scratch = out / _SCRATCH
    try:
        with progress_bar("preparing planes", quiet=quiet) as advance:
            runs = prepared_runs(
                stacks, scratch, advance, stripes=stripes == "auto", filtered=neighbours
            )
        course = _Course(runs, out, settings, seed, quiet)
        learnt, reason = course.learn_best(check) if check else (course.learn(method), "")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if reason:
        say(f"note: {reason}, so the method is {learnt.method}", quiet=quiet)
    card = DenoiserCard(
        method=learnt.method,
        network=network_settings(settings, learnt.method),
        channels=DENOISING_METHODS[learnt.method].channels,
        stripes=stripes,
        kept=learnt.kept,
        pixel_size_um=typical_pixel_size(stacks),
        settings=asked["settings"],
        stacks=asked["stacks"],
        check=(asdict(check) | {"chosen_because": reason}) if check else {},
        chosen=learnt.trained.chosen,
        scores=learnt.scores,
        history=learnt.trained.history,
        seed=seed,
    )
    if card.history:
        write_csv(out / LOG, pd.DataFrame(card.history))
    save_bundle(out, learnt.network.state_dict(), card)
    (out / CHECKPOINT).unlink(missing_ok=True)
    (out / BEGUN).unlink(missing_ok=True)
    return card


def _is_done(out: Path, asked: dict[str, Any], resume: bool) -> bool:
    """Tell whether the denoiser is there already; begin its folder where it is not."""
    begun = out / BEGUN
    if out.exists() and not resume and any(out.iterdir()):
        raise MitolumeError(f"{out} is no empty folder; choose another --out, or go on with what "
                            "was stopped by --resume")  # fmt: skip
    if (out / CARD).exists():
        return True
    if begun.exists() and json.loads(begun.read_text(encoding="utf-8")) != asked:
        raise MitolumeError(f"{out} was begun with other stacks or settings; choose another --out")
    write_text(begun, json.dumps(asked, indent=2) + "\n")
    return False


@dataclass(frozen=True)
class _Course:
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
        trained, held_out = Trained({}, "no network", []), list[Sample]()
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
    ) -> Trained:
        settings = self.settings.for_images(len(samples))
        task = Denoising(samples, held_out, method, settings, self.seed)
        with progress_bar("training denoiser", quiet=self.quiet) as advance:
            watch = Watch(step=_reporting(advance))
            trained = fit(network, task, settings=settings, folder=self.out, watch=watch)
        network.load_state_dict(trained.weights)
        network.eval()
        return trained


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
    def report_step(at: Progress) -> None:
        note = "" if at.score is None else f"held-out planes {at.score:.2f} dB"
        advance(at.step, at.steps, note)

    return report_step
