"""The trainings of a run: model 1, then model 2 round by round. Sees no test image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mitolume.inference.chain import PreparedPlane
from mitolume.inference.denoise import Denoiser
from mitolume.inference.predictor import Predictor
from mitolume.inference.predictor import load as load_model
from mitolume.io.fields import Field
from mitolume.models.bundle import CARD, DENOISER, Card, load_bundle, save_bundle
from mitolume.models.networks import SegmentationNetwork
from mitolume.preprocess.fingerprint import Fingerprint
from mitolume.preprocess.rescale import rescale_mask
from mitolume.progress import Advance
from mitolume.runs.denoiser import copy_denoiser
from mitolume.runs.folder import MODELS, Run, find_bundle
from mitolume.runs.likeness import fingerprint_of
from mitolume.runs.score import choose_threshold
from mitolume.training.loop import CHECKPOINT, fit
from mitolume.training.methods import METHODS, Supervised, Teacher, average_with_teacher
from mitolume.training.patches import ArrayFile, Image, PreparedImage
from mitolume.training.pretext import learn_to_restore
from mitolume.training.record import Callbacks, History, TrainingProgress, TrainingResult
from mitolume.training.segmentation import CollapseCheck, Segmentation, Validation
from mitolume.training.settings import TrainingSettings

_LEARNT_FROM = {"model_1": ("train",), "model_2": ("train", "unlabelled")}


@dataclass(frozen=True)
class _Round:
    """One of the rounds in which model 2 is trained."""

    number: int = 1
    of: int = 1

    @property
    def suffix(self) -> str:
        """What titles say of it, where there are several."""
        return f", round {self.number} of {self.of}" * (self.of > 1)


@dataclass
class ModelTrainer:
    """Trains the models of a run, or models of the same kind from a part of its labelled images.

    Parameters
    ----------
    run
        The run, which knows where models lie and which are finished.
    denoiser
        The denoiser of its chain, where it has one.
    labelled, validation, unlabelled
        Prepared images.
    part
        For models from a part of the labelled images: the folder inside the run's.
    shortening
        How many times fewer steps than the recipe says, 1 or more.
    """

    run: Run
    denoiser: Denoiser | None
    labelled: Sequence[PreparedImage]
    validation: Sequence[PreparedImage]
    unlabelled: Sequence[PreparedImage]
    part: str = ""
    shortening: int = 1

    def place(self, name: str) -> Path:
        """Return the folder of a model."""
        return self.run.model_folder(name, self.part)

    def train_model_1(self) -> None:
        """Train model 1 on the labelled images, unless it is finished."""
        if not self.run.has_model("model_1", self.part):
            network = self._first_weights(self._new_network("model_1"))
            self._train("model_1", self.place("model_1"), METHODS["supervised"](), network)

    def train_model_2(self) -> None:
        """Train model 2, unless it is finished: each round's student teaches the next."""
        recipe, teacher = self.run.recipe, self.place("model_1")
        rounds = METHODS[recipe.method](recipe.unlabelled).settings.rounds
        for number in range(1, rounds + 1):
            place = self.place("model_2")
            place = place if number == rounds else place / f"round_{number}"
            if not (place / CARD).exists():
                self._train_student(_Round(number, rounds), teacher, place)
            teacher = place

    # First weights ---------------------------------------------------------------------------

    def _new_network(self, name: str) -> SegmentationNetwork:
        return SegmentationNetwork(self.run.recipe.network, self._seed(name))

    def _first_weights(self, network: SegmentationNetwork) -> SegmentationNetwork:
        """Give a network its first weights, as `Recipe.init` says."""
        init = self.run.recipe.init
        if init == "denoise":
            learnt = self.run.first_weights_folder
            if not (learnt / CARD).exists():
                self._learn_first_weights(network, learnt)
            network.load_state_dict(load_bundle(learnt)[0].state_dict())
        elif init != "random":
            network.load_state_dict(load_bundle(find_bundle(init))[0].state_dict())
        return network

    def _learn_first_weights(self, network: SegmentationNetwork, place: Path) -> None:
        """Let a network learn from all training images without their masks, for half as long."""
        recipe = self.run.recipe
        place.mkdir(exist_ok=True)
        settings = recipe.training.for_images(len(self.labelled))
        steps = -(-(settings.steps or 0) // 2)
        with self.run.bar("learning what images look like") as advance:
            trained = learn_to_restore(
                network,
                [*self.labelled, *self.unlabelled],
                settings=settings.model_copy(update={"steps": steps}),
                seed=self._seed("model_1"),
                folder=place,
                callbacks=Callbacks(_reporting(advance)),
            )
        card = Card(name=f"{recipe.arm} restored", method="denoise", network=recipe.network)
        save_bundle(place, trained.weights, card)
        (place / CHECKPOINT).unlink(missing_ok=True)

    # Training --------------------------------------------------------------------------------

    def _train_student(self, turn: _Round, teacher: Path, place: Path) -> None:
        """Let a teacher label the unlabelled images, and train a student on all."""
        recipe, images = self.run.recipe, self.unlabelled
        network, card = load_bundle(teacher)
        method = METHODS[recipe.method](recipe.unlabelled, card.threshold)
        with self.run.bar("pseudo-labels") as advance:
            label = _counting(Predictor(network, card), method.views, len(images), advance)
            scratch = self.run.scratch / self.part / f"taught_{turn.number}"
            taught = _on_disk(method.label(images, label), scratch)
        student = self._new_network("model_2")
        starts_as_teacher = method.settings.start == "teacher"
        if starts_as_teacher:
            student.load_state_dict(network.state_dict())
        model_1 = load_model(self.place("model_1"))
        collapse_check = CollapseCheck.against(images, model_1.network, model_1.card.threshold)
        self._train("model_2", place, method, student, taught, collapse_check, turn,
                    network.state_dict() if starts_as_teacher else None)  # fmt: skip

    def _train(
        self,
        name: str,
        place: Path,
        method: Supervised,
        network: SegmentationNetwork,
        taught: Sequence[PreparedImage] = (),
        collapse_check: CollapseCheck | None = None,
        turn: _Round = _Round(),
        teacher_weights: dict[str, Tensor] | None = None,
    ) -> None:
        """Train a model, or one round of it, and write its bundle.

        A student that started with ``teacher_weights`` ends halfway between them and its own.
        """
        run, recipe = self.run, self.run.recipe
        place.mkdir(parents=True, exist_ok=True)
        settings, steps_before = self._settings(method, turn)
        title = name.replace("_", " ") + turn.suffix
        threshold = None if recipe.threshold == "auto" else recipe.threshold
        task = Segmentation(
            self.labelled,
            taught,
            Validation(self.validation, threshold),
            collapse_check,
            method=method,
            settings=settings,
            seed=self._seed(name) + turn.number - 1,
        )
        with run.bar(f"training {title}{' (guard)' * bool(self.part)}") as advance:
            trained = fit(
                network,
                task,
                settings=settings,
                folder=place,
                callbacks=Callbacks(
                    _reporting(advance),
                    lambda history: (
                        None if self.part else run.write_log(name, history, steps_before)
                    ),
                ),
            )
        weights = trained.weights
        if teacher_weights:
            weights = average_with_teacher(teacher_weights, weights)
        network.load_state_dict(weights)
        looks = fingerprint_of([image.plane for image in (*self.labelled, *taught)])
        card = self._card(name, network, looks)
        if not self.part:
            averaged = "; averaged with its teacher" * bool(teacher_weights)
            self._note(name, turn, _training_facts(trained, averaged, card.threshold))
        if self.denoiser:
            copy_denoiser(run.denoiser_folder, place / DENOISER)
        save_bundle(place, weights, card)
        (place / CHECKPOINT).unlink(missing_ok=True)

    def _settings(self, method: Supervised, turn: _Round) -> tuple[TrainingSettings, int]:
        """Return the settings of a round, and the steps made in those before.

        Steps don't depend on how many unlabelled images there are, nor on the rounds: a gain by
        longer training would be no gain.
        """
        # Of the run, also for a part: `shortening` says how much shorter a part is trained.
        settings = self.run.recipe.training.for_images(len(self.run.images("train")))
        assert settings.steps is not None, "for_images says how many steps the epochs are"
        length, rate = (
            (method.settings.length, method.settings.rate) if method.uses_unlabelled else (1, 1)
        )
        steps = round(-(-settings.steps // self.shortening) * length)
        ends = [steps * done // turn.of for done in range(turn.of + 1)]
        own = {
            "steps": max(1, ends[turn.number] - ends[turn.number - 1]),
            "checks": -(-settings.checks // turn.of),
            "learning_rate": settings.learning_rate * rate,
        }
        return settings.model_copy(update=own), ends[turn.number - 1]

    def _seed(self, name: str) -> int:
        sequence = np.random.SeedSequence([self.run.recipe.seed, MODELS.index(name)])
        return int(sequence.generate_state(1)[0])

    # What is written down --------------------------------------------------------------------

    def _card(self, name: str, network: SegmentationNetwork, looks: Fingerprint | None) -> Card:
        """Write down what a model is; its threshold is chosen on the validation images."""
        run, recipe, title = self.run, self.run.recipe, name.replace("_", " ")
        denoiser = self.denoiser
        card = Card(
            name=f"{recipe.arm} {title}",
            method=recipe.method if name == "model_2" else "supervised",
            network=recipe.network,
            chain=recipe.chain.with_method(denoiser.card.method if denoiser else "none"),
            pixel_size_um=run.record["pixel_size_um"],
            fields=[_entry(run, row) for row in run.rows if row.role in _LEARNT_FROM[name]],
            views=recipe.views,
            seed=recipe.seed,
            fingerprint=looks,
        )
        predictor = Predictor(network, card, denoiser=denoiser)
        images = run.images("validation") if self.validation else []
        with run.bar(f"threshold of {title}") as advance:
            card.threshold = choose_threshold(predictor, images, recipe.threshold, advance)
        return card

    def _log(self, name: str, steps_before: int, history: History) -> None:
        if not self.part:
            self.run.write_log(name, history, steps_before)

    def _note(self, name: str, turn: _Round, facts: dict[str, Any]) -> None:
        """Note how a model was trained; in its last round, the steps and time of all."""
        if turn.number < turn.of:
            self.run.note(**{f"{name}_round_{turn.number}": facts})
            return
        for earlier in (self.run.record[f"{name}_round_{n}"] for n in range(1, turn.of)):
            facts |= {key: facts[key] + earlier[key] for key in ("steps", "seconds")}
        self.run.note(**{name: facts})


def prepare_images(run: Run, role: str, denoiser: Denoiser | None) -> list[PreparedImage]:
    """Bring the images of a role to the network's grid, on disk so that memory stays flat.

    Parameters
    ----------
    run
        Its scratch folder gets the arrays, and its chain says how images are prepared.
    role
        ``train``, ``validation`` or ``unlabelled``.
    denoiser
        The denoiser of the chain, where it has one.

    Returns
    -------
    list of PreparedImage
        Their arrays are memory-mapped; empty where no image has the role.
    """
    images = run.images(role)
    if not images:
        return []
    planes = ArrayFile(run.scratch / role / "planes", np.float32)
    masks = ArrayFile(run.scratch / role / "masks", np.uint8)
    with run.bar(f"preparing {role}") as advance:
        for number, image in enumerate(images):
            advance(number, len(images))
            plane, mask, size = image.read()
            ready = PreparedPlane(
                plane,
                run.recipe.chain,
                planes_in=run.recipe.network.planes_in,
                denoiser=denoiser,
                neighbours=image.neighbours,
                pixel_size_um=size,
                model_um=run.record["pixel_size_um"],
                unlabelled=role == "unlabelled",
                source=str(image.row.image),
            )
            planes.append(np.asarray(ready))
            if mask is not None:
                masks.append(rescale_mask(mask, ready.shape))
        advance(len(images), len(images))
    on_disk = iter(masks.read_all())
    return [
        PreparedImage(plane, next(on_disk) if image.row.is_labelled else None)
        for plane, image in zip(planes.read_all(), images, strict=True)
    ]


def _on_disk(images: Iterable[PreparedImage], scratch: Path) -> list[PreparedImage]:
    """Move masks that are made one after the other to disk; all images have one, or none has."""
    bare: list[PreparedImage] = []
    masks: ArrayFile | None = None
    for image in images:
        if image.mask is not None:
            masks = masks or ArrayFile(scratch / "masks", image.mask.dtype.type)
            masks.append(image.mask)
        bare.append(PreparedImage(image.image))
    if masks is None:
        return bare
    return [replace(i, mask=mask) for i, mask in zip(bare, masks.read_all(), strict=True)]


def _counting(predictor: Predictor, views: int, total: int, advance: Advance) -> Teacher:
    """Return a teacher that reports how many images it has labelled."""
    done = 0

    def teacher(image: Image) -> Image:
        nonlocal done
        advance(done, total)
        done += 1
        return predictor.predict_prepared(image, views)

    return teacher


def _reporting(advance: Advance) -> Callable[[TrainingProgress], None]:
    """Return what shows a training's progress: its loss, and its last validation score."""
    loss = float("nan")

    def report_step(at: TrainingProgress) -> None:
        nonlocal loss
        loss = loss if at.loss is None else at.loss
        note = f"loss {loss:.3f}"
        if at.score is not None:
            note += f"  validation IoU {at.score:.3f}"
        advance(at.step, at.steps, note)

    return report_step


def _training_facts(trained: TrainingResult, averaged: str, threshold: float) -> dict[str, Any]:
    return {
        "chosen": trained.chosen + averaged,
        "steps": trained.history[-1]["step"],
        "seconds": trained.history[-1]["seconds"],
        "parameters": _size(trained.weights),
        "threshold": threshold,
    }


def _size(weights: dict[str, Tensor]) -> int:
    """Count the numbers that were learnt: statistics of normalisation are measured."""
    measured = ("running_mean", "running_var", "num_batches_tracked")
    return sum(tensor.numel() for name, tensor in weights.items() if not name.endswith(measured))


def _entry(run: Run, row: Field) -> dict[str, Any]:
    return {
        "image": row.image.name,
        "n_planes": len(row.planes or ()),
        "role": row.role,
        "specimen": row.specimen,
        "sha256": run.table.sha256[row.image],
    }
