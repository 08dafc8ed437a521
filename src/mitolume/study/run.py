"""One run: check, train model 1, label, train model 2, score, report. Knows no array operation."""

from __future__ import annotations

import gc
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mitolume.errors import MitolumeError
from mitolume.inference.denoise import Denoiser
from mitolume.inference.predictor import Predictor, load
from mitolume.io.fields import Field
from mitolume.io.write import write_text
from mitolume.models.bundle import CARD, DENOISER, Card, load_bundle, save_bundle
from mitolume.models.networks import SegmentationNetwork
from mitolume.progress import Advance, say
from mitolume.study.content import report
from mitolume.study.folder import (
    IMAGES,
    KEPT,
    REPORT,
    RESULTS,
    RUN,
    RunFolder,
    begin,
    reopen,
    require_new,
)
from mitolume.study.images import prepare, with_masks_on_disk
from mitolume.study.likeness import fingerprint_of
from mitolume.study.lock import only_one
from mitolume.study.recipe import Recipe, load_recipe
from mitolume.study.results import IMAGE_COLUMNS, summarise, value_of, write_csv
from mitolume.study.run_denoiser import copy_denoiser, denoiser_of_run, require_denoiser
from mitolume.study.score import choose_threshold, score_model
from mitolume.training.loop import CHECKPOINT
from mitolume.training.methods import METHODS, PSEUDO_THRESHOLD, Teacher
from mitolume.training.patches import Image, PreparedImage
from mitolume.training.record import Progress, Trained, Watch
from mitolume.training.segmentation import Validation, train

MODELS = ("model_1", "model_2")
_LEARNT = {"model_1": ("train",), "model_2": ("train", "unlabelled")}


def run(
    recipe: Recipe | str | Path | None = None,
    out: str | Path = "run",
    *,
    resume: bool = False,
    quiet: bool = False,
) -> Path:
    """Train, label, train again, score and report.

    Parameters
    ----------
    recipe
        A recipe or the path of one. None goes on with the recipe in ``out``.
    out
        The run folder. It must be new, unless ``resume``.
    resume
        Go on with a run that was stopped, or begin where there is none. What is finished is
        kept; a training goes on from its last epoch and ends with the weights of an unbroken run.
    quiet
        Show no progress.

    Returns
    -------
    pathlib.Path
        The run folder, with ``report.html``.

    Raises
    ------
    MitolumeError
        The recipe, the table or a file is off; the folder holds another run.
    """
    out = Path(out)
    if isinstance(recipe, str | Path):
        recipe = load_recipe(recipe)
    if recipe is not None and not (out / RUN).exists():
        require_new(out)
    with only_one(out):
        return _run(recipe, out, resume, quiet)


def _run(recipe: Recipe | None, out: Path, resume: bool, quiet: bool) -> Path:
    if not (out / RUN).exists():
        if recipe is None:
            raise MitolumeError(f"{out} holds no run to resume; name a recipe or a preset")
        require_denoiser(recipe.chain)
        folder = begin(out, recipe, quiet=quiet)
    elif resume:
        folder = reopen(out, recipe, quiet=quiet)
    else:
        raise MitolumeError(
            f"{out} already holds a run; go on with --resume, or choose another --out"
        )
    if folder.is_finished:
        say(f"{out} is already finished", quiet=quiet)
        if not (out / REPORT).exists():
            report(out)
        return out
    with _timed(folder):
        _train_models(folder)
        _score_models(folder)
        report(out)
    folder.note(status="finished")
    return out


@contextmanager
def _timed(folder: RunFolder) -> Iterator[None]:
    """Add up the time over interruptions; leave no scratch files whatever happens."""
    before, started = folder.record.get("seconds", 0.0), time.monotonic()
    shutil.rmtree(folder.scratch, ignore_errors=True)
    try:
        yield
    finally:
        gc.collect()  # Windows can't remove files that a forgotten array still maps
        shutil.rmtree(folder.scratch, ignore_errors=True)
        folder.note(seconds=round(before + time.monotonic() - started, 1))


def _train_models(folder: RunFolder) -> None:
    """Train model 1, and model 2 where the method has one, unless they are there already."""
    recipe = folder.recipe
    for name in MODELS:
        if folder.has_model(name):
            (folder.path / name / CHECKPOINT).unlink(missing_ok=True)
    method = METHODS[recipe.method]
    wants_second = method.uses_unlabelled and bool(folder.images("unlabelled"))
    if folder.has_model("model_2" if wants_second else "model_1"):
        return
    denoiser = denoiser_of_run(folder)
    labelled, validation = (_prepared(folder, role, denoiser) for role in ("train", "validation"))
    if not folder.has_model("model_1"):
        _train_model(folder, "model_1", labelled, len(labelled), validation, denoiser)
    if not wants_second:
        return
    network, card = load_bundle(folder.path / "model_1")
    predictor = Predictor(network, card, average_flips=recipe.average_flips)
    unlabelled = _prepared(folder, "unlabelled", denoiser)
    with folder.bar("pseudo-labels") as advance:
        teacher = _counting(predictor, len(unlabelled), advance)
        taught = method.training_images(labelled, unlabelled, teacher)
        images = with_masks_on_disk(taught, folder.scratch / "taught")
    _train_model(folder, "model_2", images, len(labelled), validation, denoiser)


def _train_model(
    folder: RunFolder,
    name: str,
    images: Sequence[PreparedImage],
    n_labelled: int,
    validation: Sequence[PreparedImage],
    denoiser: Denoiser | None,
) -> None:
    recipe, place = folder.recipe, folder.path / name
    place.mkdir(exist_ok=True)
    # Both models take the same number of steps: a gain by longer training would be no gain.
    settings = recipe.training.for_images(n_labelled)
    seed = int(np.random.SeedSequence([recipe.seed, MODELS.index(name)]).generate_state(1)[0])
    network = SegmentationNetwork(recipe.network, seed)
    method = "supervised" if name == "model_1" else recipe.method
    title = name.replace("_", " ")
    with folder.bar(f"training {title}") as advance:
        trained = train(
            network,
            images,
            Validation(validation, None if recipe.threshold == "auto" else recipe.threshold),
            method=METHODS[method],
            settings=settings,
            seed=seed,
            folder=place,
            watch=Watch(
                step=_reporting(advance),
                epoch=lambda history: folder.write_log(name, history),
            ),
        )
    card = Card(
        name=f"{recipe.arm} {title}",
        method=method,
        network=recipe.network,
        chain=recipe.chain.with_method(denoiser.card.method if denoiser else "none"),
        pixel_size_um=folder.record["pixel_size_um"],
        fields=[_entry(folder, r) for r in folder.table.fields if r.role in _LEARNT[name]],
        seed=recipe.seed,
        fingerprint=fingerprint_of([image.image for image in images]),
    )
    network.load_state_dict(trained.weights)
    predictor = Predictor(network, card, denoiser=denoiser, average_flips=recipe.average_flips)
    with folder.bar(f"threshold of {title}") as advance:
        card.threshold = choose_threshold(
            predictor, folder.images("validation"), recipe.threshold, advance
        )
    folder.note(**{name: _facts(trained, network, settings.steps, card.threshold)})
    if denoiser:
        copy_denoiser(folder.path / DENOISER, place / DENOISER)
    save_bundle(place, trained.weights, card)
    (place / CHECKPOINT).unlink(missing_ok=True)


def _score_models(folder: RunFolder) -> None:
    """Score the models on all labelled images, leave masks and tables, keep one model."""
    names = [name for name in MODELS if folder.has_model(name)]
    tables = []
    for name in names:
        predictor = load(folder.path / name, average_flips=folder.recipe.average_flips)
        with folder.bar(f"scoring {name.replace('_', ' ')}") as advance:
            table = score_model(
                predictor, folder.table, folder.path / "masks" / name, PSEUDO_THRESHOLD, advance
            )
        tables.append(table.assign(model=name))
    images = pd.concat(tables, ignore_index=True).assign(
        arm=folder.recipe.arm,
        method=folder.recipe.method,
        network=folder.recipe.network.name,
        k=folder.record["n_images"]["train"],
        seed=folder.recipe.seed,
    )[list(IMAGE_COLUMNS)]
    results = summarise(images)
    write_csv(folder.path / IMAGES, images)
    write_csv(folder.path / RESULTS, results)
    for name in names:
        _write_scores(folder.path / name / CARD, results[results["model"] == name])
    kept, reason = choose_kept(results, names)
    write_text(folder.path / KEPT, json.dumps({"kept": kept, "reason": reason}, indent=2) + "\n")


def choose_kept(results: pd.DataFrame, names: Sequence[str]) -> tuple[str, str]:
    """Choose the model to keep, by validation images only, and say why.

    Parameters
    ----------
    results
        The long table.
    names
        The models there are.

    Returns
    -------
    str, str
        The name and the reason, for a sentence.
    """
    if len(names) == 1:
        return names[0], "it is the only model of this run"
    first, second = (value_of(results, name, "validation", "iou") for name in names)
    if np.isnan(first) or np.isnan(second):
        return names[0], (
            "no validation images could show that learning from unlabelled images helped"
        )
    return names[1] if second > first else names[0], (
        f"foreground IoU on the validation images is {first:.3f} for model 1 and {second:.3f} "
        "for model 2"
    )


def _prepared(folder: RunFolder, role: str, denoiser: Denoiser | None) -> list[PreparedImage]:
    images = folder.images(role)
    if not images:
        return []
    with folder.bar(f"preparing {role}") as advance:
        return prepare(
            images,
            folder.recipe.chain,
            folder.record["pixel_size_um"],
            folder.scratch / role,
            advance,
            denoiser=denoiser,
        )


def _counting(predictor: Predictor, total: int, advance: Advance) -> Teacher:
    done = 0

    def teacher(image: Image) -> Image:
        nonlocal done
        advance(done, total)
        done += 1
        return predictor.predict_prepared(image)

    return teacher


def _reporting(advance: Advance) -> Callable[[Progress], None]:
    loss = float("nan")

    def report_step(at: Progress) -> None:
        nonlocal loss
        loss = loss if at.loss is None else at.loss
        note = f"loss {loss:.3f}"
        if at.score is not None:
            note += f"  validation IoU {at.score:.3f}"
        advance(at.step, at.steps, note)

    return report_step


def _facts(
    trained: Trained, network: SegmentationNetwork, steps: int | None, threshold: float
) -> dict[str, Any]:
    return {
        "chosen": trained.chosen,
        "steps": steps,
        "seconds": trained.history[-1]["seconds"],
        "parameters": sum(p.numel() for p in network.parameters()),
        "threshold": threshold,
    }


def _entry(folder: RunFolder, row: Field) -> dict[str, Any]:
    return {
        "image": row.image.name,
        "n_planes": len(row.planes or ()),
        "role": row.role,
        "specimen": row.specimen,
        "sha256": folder.table.sha256[row.image],
    }


def _write_scores(path: Path, results: pd.DataFrame) -> None:
    """Put a model's scores on its card."""
    card = json.loads(path.read_text(encoding="utf-8"))
    card["scores"] = {}
    for row in results[results["metric"].isin(["iou", "chance_iou"])].to_dict("records"):
        scores = card["scores"].setdefault(
            row["subset"], {"n_images": row["n_images"], "n_specimens": row["n_specimens"]}
        )
        scores[row["metric"]] = None if np.isnan(row["value"]) else round(row["value"], 4)
    write_text(path, json.dumps(card, indent=2) + "\n")
