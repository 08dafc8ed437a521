"""The trainings of a run: model 1, then model 2 round by round. Scores no test image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from mitolume.errors import MitolumeError
from mitolume.inference.denoise import Denoiser
from mitolume.inference.predictor import Predictor, find_bundle, load
from mitolume.io.fields import Field
from mitolume.models.bundle import CARD, DENOISER, Card, load_bundle, read_card, save_bundle
from mitolume.models.networks import SegmentationNetwork
from mitolume.preprocess.fingerprint import Fingerprint
from mitolume.progress import Advance
from mitolume.run.denoiser import copy_denoiser
from mitolume.run.folder import RunFolder
from mitolume.run.images import prepare, with_masks_on_disk
from mitolume.run.likeness import fingerprint_of
from mitolume.run.recipe import INIT, Recipe
from mitolume.run.score import choose_threshold
from mitolume.training.loop import CHECKPOINT
from mitolume.training.methods import METHODS, Supervised, Teacher, average_with_teacher
from mitolume.training.patches import Image, PreparedImage
from mitolume.training.pretext import learn_to_restore
from mitolume.training.record import Callbacks, History, TrainingProgress, TrainingResult
from mitolume.training.segmentation import CollapseCheck, Validation, train
from mitolume.training.settings import TrainingSettings

MODELS = ("model_1", "model_2")
RESTORED = "restored"  # folder of the first weights, where they were learnt without labels
_LEARNT = {"model_1": ("train",), "model_2": ("train", "unlabelled")}


@dataclass
class Trainings:
    """The trainings of a run's models, or of models from a part of its labelled images.

    Parameters
    ----------
    folder
        The run.
    denoiser
        Of its chain.
    labelled, validation, unlabelled
        Prepared images.
    part
        For models from a part of the labelled images: their place in the run's folder.
    shorter
        By which factor trainings are shorter than the recipe says.
    """

    folder: RunFolder
    denoiser: Denoiser | None
    labelled: Sequence[PreparedImage]
    validation: Sequence[PreparedImage]
    unlabelled: Sequence[PreparedImage]
    part: str = ""
    shorter: int = 1

    def place(self, name: str) -> Path:
        """Return the folder of a model."""
        return self.folder.path / self.part / name

    def first(self) -> None:
        """Train model 1 on the labelled images, unless it is there."""
        if not (self.place("model_1") / CARD).exists():
            network = SegmentationNetwork(self.folder.recipe.network, self._seed("model_1"))
            self._train(
                "model_1", self.place("model_1"), METHODS["supervised"](), self._begun(network)
            )

    def _begun(self, network: SegmentationNetwork) -> SegmentationNetwork:
        """Give a network its first weights, as `Recipe.init` says."""
        folder, init = self.folder, self.folder.recipe.init
        if init == "denoise":
            if not (folder.path / RESTORED / CARD).exists():
                self._restore(network)
            network.load_state_dict(load_bundle(folder.path / RESTORED)[0].state_dict())
        elif init != "random":
            network.load_state_dict(load_bundle(find_bundle(init))[0].state_dict())
        return network

    def _restore(self, network: SegmentationNetwork) -> None:
        """Let the network learn from all training images without their masks, for half as long."""
        folder, recipe, place = self.folder, self.folder.recipe, self.folder.path / RESTORED
        place.mkdir(exist_ok=True)
        settings = recipe.training.for_images(len(self.labelled))
        steps = -(-(settings.steps or 0) // 2)
        with folder.bar("learning what images look like") as advance:
            trained = learn_to_restore(
                network,
                [*self.labelled, *self.unlabelled],
                settings=settings.model_copy(update={"steps": steps}),
                seed=self._seed("model_1"),
                folder=place,
                callbacks=Callbacks(_reporting(advance)),
            )
        card = Card(name=f"{recipe.arm} {RESTORED}", method="denoise", network=recipe.network)
        save_bundle(place, trained.weights, card)
        (place / CHECKPOINT).unlink(missing_ok=True)

    def second(self) -> None:
        """Train model 2, unless it is there: each round's student teaches the next."""
        recipe, teacher = self.folder.recipe, self.place("model_1")
        rounds = METHODS[recipe.method](recipe.unlabelled).settings.rounds
        for number in range(1, rounds + 1):
            place = self.place("model_2")
            place = place if number == rounds else place / f"round_{number}"
            if not (place / CARD).exists():
                self._round((number, rounds), teacher, place)
            teacher = place

    def _round(self, which: tuple[int, int], teacher: Path, place: Path) -> None:
        folder, recipe, images = self.folder, self.folder.recipe, self.unlabelled
        network, card = load_bundle(teacher)
        method = METHODS[recipe.method](recipe.unlabelled, card.threshold)
        predictor = Predictor(network, card)
        with folder.bar("pseudo-labels") as advance:
            label = _counting(predictor, method.views, len(images), advance)
            scratch = folder.scratch / self.part / f"taught_{which[0]}"
            others = with_masks_on_disk(method.label(images, label), scratch)
        student = SegmentationNetwork(recipe.network, self._seed("model_2"))
        begun = network.state_dict() if method.settings.start == "teacher" else None
        if begun:
            student.load_state_dict(begun)
        collapse_check = CollapseCheck.against(images, *self._model_1())
        self._train("model_2", place, method, student, others, collapse_check, which, begun)

    def _model_1(self) -> tuple[nn.Module, float]:
        """Return model 1 and its threshold."""
        predictor = load(self.place("model_1"))
        return predictor.network, predictor.card.threshold

    def _train(
        self,
        name: str,
        place: Path,
        method: Supervised,
        network: SegmentationNetwork,
        others: Sequence[PreparedImage] = (),
        collapse_check: CollapseCheck | None = None,
        which: tuple[int, int] = (1, 1),
        begun: dict[str, Tensor] | None = None,
    ) -> None:
        """Train a model, or the round ``which`` = (number, rounds) of it, and write its bundle.

        A student that went on from its teacher, whose weights it has ``begun`` with, ends halfway.
        """
        folder, recipe = self.folder, self.folder.recipe
        place.mkdir(parents=True, exist_ok=True)
        settings, before = self._settings(method, which)
        title = name.replace("_", " ") + (f", round {which[0]} of {which[1]}" * (which[1] > 1))
        with folder.bar(f"training {title}{' (guard)' * bool(self.part)}") as advance:
            trained = train(
                network,
                self.labelled,
                Validation(
                    self.validation, None if recipe.threshold == "auto" else recipe.threshold
                ),
                unlabelled=others,
                collapse_check=collapse_check,
                method=method,
                settings=settings,
                seed=self._seed(name) + which[0] - 1,
                folder=place,
                callbacks=Callbacks(_reporting(advance), partial(self._log, name, before)),
            )
        weights = average_with_teacher(begun, trained.weights) if begun else trained.weights
        network.load_state_dict(weights)
        looks = fingerprint_of([image.plane for image in (*self.labelled, *others)])
        card = self._card(name, network, looks)
        if not self.part:
            chosen = trained.chosen + "; averaged with its teacher" * bool(begun)
            self._note(name, which, _facts(trained, chosen, card.threshold))
        if self.denoiser:
            copy_denoiser(folder.path / DENOISER, place / DENOISER)
        save_bundle(place, weights, card)
        (place / CHECKPOINT).unlink(missing_ok=True)

    def _note(self, name: str, which: tuple[int, int], facts: dict[str, Any]) -> None:
        """Note how a model was trained; in its last round, the steps and time of all."""
        record, (number, rounds) = self.folder.record, which
        if number < rounds:
            self.folder.note(**{f"{name}_round_{number}": facts})
            return
        for earlier in (record[f"{name}_round_{n}"] for n in range(1, rounds)):
            facts |= {key: facts[key] + earlier[key] for key in ("steps", "seconds")}
        self.folder.note(**{name: facts})

    def _card(self, name: str, network: SegmentationNetwork, looks: Fingerprint | None) -> Card:
        """Write down what a model is; its threshold is chosen on the validation images."""
        folder, recipe, title = self.folder, self.folder.recipe, name.replace("_", " ")
        denoiser = self.denoiser
        card = Card(
            name=f"{recipe.arm} {title}",
            method="supervised" if name == "model_1" else recipe.method,
            network=recipe.network,
            chain=recipe.chain.with_method(denoiser.card.method if denoiser else "none"),
            pixel_size_um=folder.record["pixel_size_um"],
            fields=[_entry(folder, r) for r in folder.table.fields if r.role in _LEARNT[name]],
            views=recipe.views,
            seed=recipe.seed,
            fingerprint=looks,
        )
        predictor = Predictor(network, card, denoiser=denoiser)
        images = folder.images("validation") if self.validation else []
        with folder.bar(f"threshold of {title}") as advance:
            card.threshold = choose_threshold(predictor, images, recipe.threshold, advance)
        return card

    def _settings(self, method: Supervised, which: tuple[int, int]) -> tuple[TrainingSettings, int]:
        """Return the settings of a round, and the steps made in those before.

        Steps don't depend on how many unlabelled images there are, nor on the rounds: a gain by
        longer training would be no gain.
        """
        n_labelled = len(self.folder.images("train"))  # not the part's: it has its own shortening
        settings = self.folder.recipe.training.for_images(n_labelled)
        assert settings.steps is not None, "for_images says how many steps the epochs are"
        number, rounds = which
        length, rate = (
            (method.settings.length, method.settings.rate) if method.uses_unlabelled else (1, 1)
        )
        steps = round(-(-settings.steps // self.shorter) * length)
        ends = [steps * done // rounds for done in range(rounds + 1)]
        own = {
            "steps": max(1, ends[number] - ends[number - 1]),
            "checks": -(-settings.checks // rounds),
            "learning_rate": settings.learning_rate * rate,
        }
        return settings.model_copy(update=own), ends[number - 1]

    def _log(self, name: str, before: int, history: History) -> None:
        if not self.part:
            self.folder.write_log(name, history, before)

    def _seed(self, name: str) -> int:
        sequence = np.random.SeedSequence([self.folder.recipe.seed, MODELS.index(name)])
        return int(sequence.generate_state(1)[0])


def prepared(folder: RunFolder, role: str, denoiser: Denoiser | None) -> list[PreparedImage]:
    """Return the images of a role after the chain."""
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
            planes_in=folder.recipe.network.planes_in,
        )


def _counting(predictor: Predictor, views: int, total: int, advance: Advance) -> Teacher:
    done = 0

    def teacher(image: Image) -> Image:
        nonlocal done
        advance(done, total)
        done += 1
        return predictor.predict_prepared(image, views)

    return teacher


def _reporting(advance: Advance) -> Callable[[TrainingProgress], None]:
    loss = float("nan")

    def report_step(at: TrainingProgress) -> None:
        nonlocal loss
        loss = loss if at.loss is None else at.loss
        note = f"loss {loss:.3f}"
        if at.score is not None:
            note += f"  validation IoU {at.score:.3f}"
        advance(at.step, at.steps, note)

    return report_step


def _facts(trained: TrainingResult, chosen: str, threshold: float) -> dict[str, Any]:
    return {
        "chosen": chosen,
        "steps": trained.history[-1]["step"],
        "seconds": trained.history[-1]["seconds"],
        "parameters": _size(trained.weights),
        "threshold": threshold,
    }


def _size(weights: dict[str, Tensor]) -> int:
    """Count the numbers that were learnt: statistics of normalisation are measured."""
    measured = ("running_mean", "running_var", "num_batches_tracked")
    return sum(tensor.numel() for name, tensor in weights.items() if not name.endswith(measured))


def _entry(folder: RunFolder, row: Field) -> dict[str, Any]:
    return {
        "image": row.image.name,
        "n_planes": len(row.planes or ()),
        "role": row.role,
        "specimen": row.specimen,
        "sha256": folder.table.sha256[row.image],
    }


def require_init(recipe: Recipe) -> None:
    """Refuse first weights that aren't there or don't fit, before anything is computed."""
    if recipe.init in INIT:
        return
    card = read_card(find_bundle(recipe.init))
    if card.network != recipe.network:
        own, theirs = (
            f"{n.name} of width {n.width} with planes_in {n.planes_in}"
            for n in (recipe.network, card.network)
        )
        raise MitolumeError(
            f"init: {recipe.init} is a {theirs}, the recipe's network a {own}: make them the same"
        )
