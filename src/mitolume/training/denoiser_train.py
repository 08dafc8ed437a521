"""From stacks to a trained denoiser: method, training, bundle. Knows no table of fields."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from mitolume.errors import MitolumeError
from mitolume.io.write import write_table, write_text
from mitolume.models.bundle import CARD, save_bundle
from mitolume.models.denoiser import DenoiserCard
from mitolume.progress import progress_bar, say
from mitolume.training.denoise_methods import DENOISING_METHODS
from mitolume.training.denoiser_course import Course, network_settings
from mitolume.training.denoiser_stacks import (
    Stack,
    check_stacks,
    prepared_runs,
    stack_entry,
    typical_pixel_size,
)
from mitolume.training.loop import CHECKPOINT, resolve_precision
from mitolume.training.settings import DenoisingSettings

BEGUN = "denoising.json"  # what a folder was begun with
LOG = "log.csv"  # the history of the card, for a table program
_SCRATCH = "scratch"


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
        One of `DENOISING_METHODS`, or ``auto``: see `Course.learn_best`.
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
        course = Course(runs, out, settings, seed, quiet)
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
        write_table(out / LOG, pd.DataFrame(card.history))
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
