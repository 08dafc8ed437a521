"""How many steps of training fit into the minutes of a recipe, on this machine."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mitolume.errors import Note
from mitolume.inference.inputs import InputReader
from mitolume.inference.tiled import predict_tiled
from mitolume.models.networks import (
    SegmentationNetwork,
    for_prediction,
    resolve_precision,
    to_device,
)
from mitolume.runs.folder import FOLDS, Run
from mitolume.runs.guard import needs_cross_fit
from mitolume.runs.images import network_inputs
from mitolume.runs.learn import training_title
from mitolume.runs.recipe import Recipe
from mitolume.runs.results import image_scores
from mitolume.runs.score import dye_images
from mitolume.training.loop import fit
from mitolume.training.methods import METHODS
from mitolume.training.patches import PreparedImage
from mitolume.training.segmentation import Segmentation

FEWEST = 200  # steps: after fewer, a network has hardly found its foreground
_WARM_UP, _TIMED, _LONGEST = 11, 41, 20.0  # steps, steps, seconds
_BESIDES = 10.0  # seconds for tables and the page


def within_minutes(run: Run, model_um: float | None, started: float) -> tuple[Recipe, str]:
    """Return the recipe with as many steps as its minutes allow, and what was chosen.

    Some steps of its network, on its batch and patch, and one image's way from file to scores are
    timed. All trainings of the run, their validation, and preparing and scoring all images are
    allowed for; the training of a denoiser is not. ``started`` is the `time.monotonic` of the run.
    """
    recipe, method = run.recipe, METHODS[run.recipe.method]
    train, validation, unlabelled, every = (
        len(run.images(*role)) for role in (["train"], ["validation"], ["unlabelled"], [])
    )
    chain = recipe.chain.with_method("none")
    reader = partial(InputReader, inputs=recipe.inputs, chain=chain, model_um=model_um)
    image = run.images("train")[train // 2]
    clock = [time.monotonic()]
    ((_, prepared),) = network_inputs([image], recipe.inputs, reader)
    planes = np.asarray(prepared)
    mask = (planes[0] > np.quantile(planes[0], 0.9)).astype(np.uint8)
    image_scores(mask, mask)
    clock.append(time.monotonic())
    network = SegmentationNetwork(recipe.network, recipe.inputs.count, 0)
    step = _seconds_per_step(network, recipe, PreparedImage(planes, mask))
    ready = for_prediction(to_device(network), resolve_precision("auto"))
    for _ in range(2):  # the first prediction is slower
        clock.append(time.monotonic())
        predict_tiled(ready, planes)
    clock.append(time.monotonic())
    way, view = clock[1] - clock[0], clock[-1] - clock[-2]

    two = method.uses_unlabelled and unlabelled > 0
    models, halves = 1 + two, two and needs_cross_fit(run)
    treated = {r.condition for r in run.rows if r.condition}
    treated -= {r.condition for r in run.rows if r.role == "validation"}
    chosen_on = validation + len(dye_images(run, treated))
    predicted = models * (every + chosen_on) + two * unlabelled + 2 * halves * train
    checked = models * recipe.training.checks * validation + every
    besides = _BESIDES + (way + recipe.views * view) * predicted + view * checked + way * train
    per_step = step * (1 + two * method(recipe.unlabelled).settings.length) * (1 + halves)
    besides += time.monotonic() - started
    minutes = recipe.training.minutes or 0.0
    steps = round((60 * minutes - besides) / per_step)
    said: str = Note(f"{minutes:g} minutes are enough for {steps} steps of {step:.2g} seconds each")
    if steps < FEWEST:
        steps, needed = FEWEST, (FEWEST * per_step + besides) / 60
        said = f"{minutes:g} minutes are too few: {steps} steps, the fewest that teach anything, "
        said += f"take about {needed:.1f} on this machine"
    training = recipe.training.model_copy(update={"steps": steps, "minutes": None})
    return recipe.model_copy(update={"training": training}), said


def planned_work(run: Run) -> dict[str, float]:
    """Return how much work the parts of a run are, by the titles of their bars, in their order.

    It is counted in pixels that pass the network; one that is learnt from counts three times. How
    long that takes here shows in the first steps.
    """
    recipe, learning = run.recipe, run.recipe.training
    train, unlabelled = run.images("train"), len(run.images("unlabelled"))
    method = METHODS[recipe.method](recipe.unlabelled)
    lengths = {"model_1": 1.0}
    if method.uses_unlabelled and unlabelled:
        lengths["model_2"] = method.settings.length
    steps = learning.for_images(len(train)).steps or 0
    model = 3.0 * steps * learning.batch * learning.patch**2
    plane = train[0].read()[0].size
    work = {training_title(name): model * length for name, length in lengths.items()}
    if len(lengths) > 1 and needs_cross_fit(run):
        halves = [(name, f"{FOLDS}/{half}") for half in (1, 2) for name in lengths]
        work |= {training_title(*of): model * lengths[of[0]] / 2 for of in halves}
    scored = plane * len(run.images()) * recipe.views
    work |= {f"scoring {name.replace('_', ' ')}": scored for name in lengths}
    return work | {"comparing images": plane * (len(train) + unlabelled)}


def _seconds_per_step(network: SegmentationNetwork, recipe: Recipe, image: PreparedImage) -> float:
    """Time some steps of supervised training, but the first ones."""
    settings = recipe.training.model_copy(update={"steps": _TIMED, "checks": 1})
    task = Segmentation([image], method=METHODS["supervised"](), settings=settings, seed=0)
    times: list[float] = []

    def advance(done: int, *_: Any) -> None:
        times.append(time.monotonic())
        # A GPU is waited for in every tenth step, see `Recorder`.
        if done == _TIMED or (len(times) > 3 and times[-1] - times[0] > _LONGEST):
            raise StopIteration

    with TemporaryDirectory() as folder, suppress(StopIteration):
        fit(network, task, settings=settings, folder=Path(folder), advance=advance)
    first = min(_WARM_UP, len(times) // 2) - 1
    return (times[-1] - times[first]) / (len(times) - 1 - first)
