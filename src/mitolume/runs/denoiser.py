"""The denoiser of a run: learnt from its training images, or given."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from mitolume.errors import MitolumeError
from mitolume.inference.denoise import Denoiser
from mitolume.io.fields import Field
from mitolume.io.rows import open_image
from mitolume.io.write import atomic
from mitolume.models.bundle import CARD, DenoiserCard, read_card
from mitolume.preprocess.settings import DENOISING, ChainSettings
from mitolume.runs.folder import Run
from mitolume.runs.recipe import load_recipe
from mitolume.training.denoise_stacks import Stack, chosen_planes
from mitolume.training.denoise_training import train_denoiser
from mitolume.training.settings import DenoisingSettings

_LEARNT = ("train", "unlabelled")


def denoiser_of_run(run: Run) -> Denoiser | None:
    """Return the denoiser of a run's chain, trained or copied into the run folder if need be.

    It learns from train and unlabelled rows only. None where the chain has none.
    """
    chain, place = run.recipe.chain, run.denoiser_folder
    if not chain.denoises:
        return None
    if not chain.denoiser_folder:
        train_denoiser(
            training_stacks(run.rows, run.recipe.denoising.planes),
            place,
            run.recipe.denoising,
            method=chain.denoise,
            stripes=chain.stripes,
            seed=run.recipe.seed,
            resume=True,
            quiet=run.quiet,
        )
    elif not (place / CARD).exists():
        copy_denoiser(chain.denoiser_folder, place)
    denoiser = Denoiser.load(place)
    card = denoiser.card
    run.note(
        denoiser={
            "method": card.method,
            "check": card.check,
            "kept": card.kept,
            "chosen": card.chosen,
            "n_stacks": len(card.stacks),
        }
    )
    return denoiser


def training_stacks(rows: Iterable[Field], planes: str = "all") -> list[Stack]:
    """Return the stacks that a run's denoiser may learn from.

    All planes of the files of train and unlabelled rows; of a file that has validation or test
    rows too, only the planes of the former, so that no plane that scores is learnt from.
    """
    files: dict[tuple[Path, str, str], list[Field]] = defaultdict(list)
    for row in rows:
        files[(row.image, row.scene, row.channel)].append(row)
    scoring = {key[0] for key, same in files.items() if any(r.role not in _LEARNT for r in same)}
    stacks = []
    for (path, _, _), same in files.items():
        learnt = [row for row in same if row.role in _LEARNT]
        if not learnt:
            continue
        image = open_image(learnt[0])
        chosen = chosen_planes(image, planes)
        if path in scoring:
            listed = {z for row in learnt for z in row.planes or ()}
            chosen = tuple(z for z in chosen if z in listed)
        if chosen:
            stacks.append(Stack(path, image, chosen))
    return stacks


def require_denoiser(chain: ChainSettings) -> None:
    """Refuse a chain whose denoiser is not there, or was trained on other planes."""
    if chain.denoiser_folder is None:
        return
    if not chain.denoiser_folder.exists():
        methods = ", ".join(["none", *DENOISING])
        raise MitolumeError(
            f"chain.denoise is {chain.denoise}, which is neither a folder with a denoiser nor one "
            f"of {methods}"
        )
    card = read_card(chain.denoiser_folder, DenoiserCard)
    if card.stripes != chain.stripes:
        raise MitolumeError(
            f"the denoiser {chain.denoise} was trained with chain.stripes {card.stripes}, and here "
            f"it is {chain.stripes}; make them equal"
        )


def copy_denoiser(source: Path, place: Path) -> None:
    """Copy a denoiser's folder."""
    with atomic(place) as temporary:
        shutil.copytree(source, temporary)


def denoising_settings(preset: str = "default", changes: Sequence[str] = ()) -> DenoisingSettings:
    """Return the section `denoising` of a preset, changed by ``key=value`` settings.

    Their names may begin with ``denoising.``, as in recipes and in what is advised.
    """
    full = [f"denoising.{change.removeprefix('denoising.')}" for change in changes]
    return load_recipe(preset=preset, fields="none", settings=full).denoising
