"""From stacks to a trained denoiser: method, training, bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from mitolume.errors import MitolumeError, shorten
from mitolume.inference.denoise import FLIPS, run_network
from mitolume.io.formats import read_json
from mitolume.io.split import spread
from mitolume.io.write import owning, remove_parts, write_table, write_text
from mitolume.models.bundle import CARD, DenoiserCard, read_card, save_bundle
from mitolume.models.networks import DenoisingNetwork, resolve_precision
from mitolume.preprocess.noise_check import NoiseCheck
from mitolume.preprocess.wiener import Detail, measure_detail
from mitolume.progress import progress_bar, say
from mitolume.training.denoise_methods import (
    DENOISING_METHODS,
    Denoising,
    DenoisingMethod,
    NeighbourMean,
    Noise2Stack,
    PlaneRun,
    Sample,
    Wiener,
    hold_out,
)
from mitolume.training.denoise_stacks import (
    Stack,
    check_stacks,
    prepared_runs,
    stack_entry,
    typical_pixel_size,
)
from mitolume.training.loop import CHECKPOINT, fit
from mitolume.training.patches import Image
from mitolume.training.record import TrainingResult
from mitolume.training.settings import DenoisingSettings

STARTED = "denoising.json"  # what a training was started with
LOG = "log.csv"  # the history of the card, for a table program
_SCRATCH = "scratch"
_MEASURED = 12  # planes by which answers are measured
_MEASURED_SIDE = 512  # pixels a side, of larger ones
_SHARED = 0.72  # of the noise of planes: where answers leave less of it, they predict noise


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
    """Train a denoiser on noisy stacks, and write its bundle to the folder ``out``.

    ``out`` is new or empty, unless ``resume``, which goes on with a training that was stopped and
    keeps what is finished. ``method`` is one of `DENOISING_METHODS`, or ``auto``: see
    `_Training.learn_best`. With ``stripes`` ``auto``, scan-line noise is removed first; with
    ``none`` it isn't. ``seed`` is that of weights and patches.
    """
    if method != "auto" and method not in DENOISING_METHODS:
        names = ", ".join(["auto", *DENOISING_METHODS])
        raise MitolumeError(f"there is no method {method!r}; there are {names}")
    if stripes not in ("auto", "none"):
        raise MitolumeError(f"stripes can be auto or none, not {stripes!r}")
    started_with = {
        "method": method,
        "stripes": stripes,
        "seed": seed,
        "settings": settings.model_dump(mode="json"),
        "stacks": [stack_entry(stack) for stack in stacks],
    }
    if (finished := _start(out, started_with, resume)) is not None:
        say(f"{out} is already finished", quiet=quiet)
        return finished
    settings = DenoisingSettings.model_validate(started_with["settings"])
    check = check_stacks(stacks) if method == "auto" else None
    neighbours = check.is_suitable if check else DENOISING_METHODS[method].channels > 1
    scratch = out / _SCRATCH
    try:
        with progress_bar("preparing planes", quiet=quiet) as advance:
            runs = prepared_runs(
                stacks, scratch, advance, stripes=stripes == "auto", filtered=neighbours
            )
        training = _Training(runs, out, settings, seed, quiet)
        if check:
            learnt, reason = training.learn_best(check)
        else:
            learnt, reason = training.learn(DENOISING_METHODS[method]), ""
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if reason:
        say(f"note: {reason}, so the method is {learnt.method.name}", quiet=quiet)
    card = DenoiserCard(
        method=learnt.method.name,
        network=settings.network,
        channels=learnt.method.channels,
        stripes=stripes,
        kept=learnt.kept,
        pixel_size_um=typical_pixel_size(stacks),
        settings=started_with["settings"],
        stacks=started_with["stacks"],
        check=(asdict(check) | {"chosen_because": reason}) if check else {},
        chosen=learnt.trained.chosen,
        scores=learnt.scores,
        history=learnt.trained.history,
        seed=seed,
    )
    if card.history:
        with owning(out):
            write_table(out / LOG, pd.DataFrame(card.history))
    save_bundle(out, learnt.network.state_dict(), card)
    _tidy(out)
    return card


def _tidy(out: Path) -> None:
    """Remove what only a training that was stopped needs."""
    for left in (CHECKPOINT, STARTED):
        (out / left).unlink(missing_ok=True)


def _start(out: Path, asked: dict[str, Any], resume: bool) -> DenoiserCard | None:
    """Return the card of a denoiser that is finished; start its folder where it is not.

    A precision of ``auto`` is settled in ``asked``, by what was begun or else by this machine.
    """
    if out.exists() and not out.is_dir():
        raise MitolumeError(f"{out} is a file, and a denoiser is a folder; choose another --out")
    card = read_card(out, DenoiserCard) if resume and (out / CARD).exists() else None
    begun = _begun_with(out / STARTED, card) if resume else {}
    if out.exists() and not begun and any(out.iterdir()):
        raise MitolumeError(f"{out} exists and is not empty; choose another --out, or --resume a "
                            "training that was stopped")  # fmt: skip
    if asked["settings"]["precision"] == "auto":
        asked["settings"]["precision"] = begun.get("precision", resolve_precision("auto"))
    for name, now in (asked | asked["settings"]).items():
        if name != "settings" and (before := begun.get(name, now)) != now:
            told = "other stacks" if name == "stacks" else f"{name} {before}, not {now}"
            raise MitolumeError(f"{out} was begun with {told}; choose another --out")
    if out.exists():
        remove_parts(out)
    if card is None:
        with owning(out):
            write_text(out / STARTED, json.dumps(asked, indent=2) + "\n")
    else:
        _tidy(out)  # a kill may have come before that
    return card


def _begun_with(started: Path, card: DenoiserCard | None) -> dict[str, Any]:
    """Return what a denoiser was begun with, its settings among the rest; {} where none was."""
    if card is not None:
        method = "auto" if card.check else card.method
        return {**card.settings, "method": method, "stripes": card.stripes, "seed": card.seed,
                "stacks": card.stacks}  # fmt: skip
    if not started.exists():
        return {}
    try:
        begun = read_json(started)
        return {**begun, **begun["settings"]}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise MitolumeError(
            f"{started} is damaged ({shorten(error)}); choose another --out"
        ) from None


@dataclass(frozen=True)
class _Learnt:
    """A denoiser, before it is written.

    ``promised`` is what its answers lack: what can be expected without knowing the truth.
    """

    method: DenoisingMethod
    network: DenoisingNetwork
    trained: TrainingResult
    promised: Detail
    kept: float | None = None
    scores: dict[str, float | int | None] = field(default_factory=dict)


@dataclass(frozen=True)
class _Training:
    """Trains by one method after the other, on the same planes."""

    runs: list[PlaneRun]
    out: Path
    settings: DenoisingSettings
    seed: int
    quiet: bool

    def learn_best(self, check: NoiseCheck) -> tuple[_Learnt, str]:
        """Learn by the method with the least error to be expected, and say why.

        The error follows from the spectrum of planes minus answers; no truth is needed. An answer
        that predicts noise is not a candidate: noise that planes share would stay.
        """
        alone = self.learn(Wiener())
        if not check.is_suitable:
            return alone, check.reason
        mean = self.learn(NeighbourMean())
        if mean.promised.floor < _SHARED * alone.promised.floor:
            return alone, "neighbouring planes share their noise"
        candidates = [alone, mean, self.learn(Noise2Stack())]
        best = min(
            (c for c in candidates if c.promised.floor >= _SHARED * alone.promised.floor),
            key=lambda learnt: learnt.promised.error,
        )
        errors = {
            f"error_{learnt.method.name}": round(float(np.sqrt(learnt.promised.error)), 4)
            for learnt in candidates
        }
        best.scores.update(errors)
        if best.method.name == "noise2stack":
            return best, ""
        whose = "neighbouring planes" if best.method.name == "wiener" else "the network"
        return best, f"{whose} would leave a larger error"

    def learn(self, method: DenoisingMethod) -> _Learnt:
        """Learn by one method, and measure what its answers lack."""
        settings = self.settings
        runs = _usable(self.runs, method)
        network = DenoisingNetwork(settings.network, method.channels, self.seed)
        every = [sample for run in runs for sample in method.samples(run)]
        trained, held_out = TrainingResult({}, "no network", []), list[Sample]()
        scores: dict[str, float | int | None] = {}
        if method.learns:
            samples, held_out = hold_out(runs, method)
            trained = self._fit(network, samples, held_out)
        if held_out:
            best = max(record["validation_db"] or -np.inf for record in trained.history)
            scores = {"validation_db": round(best, 3), "n_held_out": len(held_out)}
        # A spectrum needs many planes; those that were learnt from tell as much of it.
        more = spread(every, _MEASURED) if method.channels != 1 else []
        judged = [_middle(sample) for sample in [*held_out, *more]] or every[:1]
        answers = [_answer(network, sample) for sample in judged]
        detail = measure_detail([plane for *_, plane in judged], answers)
        kept = None
        if method.channels > 1:  # an answer that knows the plane's own noise is taken as it is
            kept = round(float(detail.kept.mean()), 4)
            spectra = np.stack([detail.signal, detail.noise, detail.left])
            network.detail.copy_(torch.from_numpy(spectra))
        return _Learnt(method, network, trained, detail, kept, scores)

    def _fit(
        self, network: DenoisingNetwork, samples: list[Sample], held_out: list[Sample]
    ) -> TrainingResult:
        settings = self.settings.for_images(len(samples))
        task = Denoising(samples, held_out, settings, self.seed)
        with progress_bar("training denoiser", quiet=self.quiet) as advance:
            trained = fit(network, task, settings=settings, folder=self.out, advance=advance)
        network.load_state_dict(trained.weights)
        network.eval()
        chosen = trained.chosen.replace("validation images", "held-out planes")
        return replace(trained, chosen=chosen)


def _usable(runs: list[PlaneRun], method: DenoisingMethod) -> list[PlaneRun]:
    if not runs:
        raise MitolumeError("all planes have one grey value only: there is nothing to learn from")
    usable = [run for run in runs if len(run) >= method.fewest_planes]
    if not usable:
        raise MitolumeError(
            f"{method.name} needs neighbouring planes, and there are only single ones; give it "
            "z-stacks, or choose --method wiener"
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
