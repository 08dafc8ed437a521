"""The trainings of a run: model 1, then model 2. Sees no test image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mitolume.inference.denoise import Denoiser
from mitolume.inference.inputs import InputReader
from mitolume.inference.predictor import Predictor
from mitolume.inference.predictor import load as load_model
from mitolume.io.fields import Field
from mitolume.models.bundle import DENOISER, Card, load_bundle, save_bundle
from mitolume.models.networks import SegmentationNetwork
from mitolume.preprocess.fingerprint import Fingerprint
from mitolume.preprocess.rescale import rescale, rescale_mask
from mitolume.runs.denoiser import copy_denoiser
from mitolume.runs.folder import MODELS, Run, find_bundle
from mitolume.runs.images import network_inputs
from mitolume.runs.likeness import fingerprint_of
from mitolume.runs.score import choose_thresholds
from mitolume.training.loop import CHECKPOINT, fit
from mitolume.training.methods import METHODS, Supervised, average_with_teacher
from mitolume.training.patches import ArrayFile, PreparedImage
from mitolume.training.record import TrainingResult
from mitolume.training.segmentation import CollapseCheck, Segmentation, Validation
from mitolume.training.settings import TrainingSettings

_LEARNT_FROM = {"model_1": ("train",), "model_2": ("train", "unlabelled")}


@dataclass
class ModelTrainer:
    """Trains the models of a run, or models of the same kind from a part of its labelled images.

    ``labelled``, ``validation`` and ``unlabelled`` are prepared images; ``denoiser`` is that of the
    chain, where it has one. For models from a part of the labelled images, ``part`` is the folder
    inside the run's, and ``shortening`` says how many times fewer steps they take.
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
        if self.run.has_model("model_1", self.part):
            return
        network, init = self._new_network("model_1"), self.run.recipe.init
        if init != "random":
            network.load_state_dict(load_bundle(find_bundle(init))[0].state_dict())
        self._train("model_1", METHODS["supervised"](), network)

    def train_model_2(self) -> None:
        """Let model 1 label the unlabelled images, and train model 2 on all, unless finished."""
        if self.run.has_model("model_2", self.part):
            return
        recipe, images = self.run.recipe, self.unlabelled
        teacher = load_model(self.place("model_1"))
        method = METHODS[recipe.method](recipe.unlabelled)
        taught = self._labelled_by(teacher, method)
        student = self._new_network("model_2")
        weights = teacher.network.state_dict() if method.starts_as_teacher else None
        if weights:
            student.load_state_dict(weights)
        check = CollapseCheck.against(images, teacher.network, teacher.card.threshold)
        self._train("model_2", method, student, taught, check, weights)

    def _new_network(self, name: str) -> SegmentationNetwork:
        return SegmentationNetwork(
            self.run.recipe.network, self.run.recipe.inputs.count, self._seed(name)
        )

    def _labelled_by(self, teacher: Predictor, method: Supervised) -> Sequence[PreparedImage]:
        """Give the unlabelled images masks, by their proposals or else the teacher, on disk."""
        images = self.unlabelled
        masks = ArrayFile(self.run.scratch / self.part / "taught", method.target_dtype)
        for image in self.run.each("pseudo-labels", images):
            given: Any = image.mask
            if given is None:
                given = teacher.predict_prepared(image.image, method.views)
            masks.append(method.label(given.astype(np.float32)))
        return [
            replace(image, mask=mask) for image, mask in zip(images, masks.read_all(), strict=True)
        ]

    def _train(
        self,
        name: str,
        method: Supervised,
        network: SegmentationNetwork,
        taught: Sequence[PreparedImage] = (),
        collapse_check: CollapseCheck | None = None,
        teacher_weights: dict[str, Tensor] | None = None,
    ) -> None:
        """Train a model and write its bundle.

        A student that started with ``teacher_weights`` ends halfway between them and its own.
        """
        run, recipe, place = self.run, self.run.recipe, self.place(name)
        place.mkdir(parents=True, exist_ok=True)
        settings = self._settings(method)
        threshold = None if recipe.threshold == "auto" else recipe.threshold
        task = Segmentation(
            self.labelled,
            taught,
            Validation(self.validation, threshold),
            collapse_check,
            method=method,
            settings=settings,
            seed=self._seed(name),
        )
        with run.bar(training_title(name, self.part)) as advance:
            trained = fit(
                network,
                task,
                settings=settings,
                folder=place,
                advance=advance,
                on_epoch=lambda history: None if self.part else run.write_log(name, history),
            )
        weights = trained.weights
        if teacher_weights:
            weights = average_with_teacher(teacher_weights, weights)
        network.load_state_dict(weights)
        looks = fingerprint_of([image.plane for image in (*self.labelled, *taught)])
        card = self._card(name, network, looks)
        if not self.part:
            averaged = "; averaged with its teacher" * bool(teacher_weights)
            run.note(**{name: _training_facts(trained, averaged, card)})
        if self.denoiser:
            copy_denoiser(run.denoiser_folder, place / DENOISER)
        save_bundle(place, weights, card)
        (place / CHECKPOINT).unlink(missing_ok=True)

    def _settings(self, method: Supervised) -> TrainingSettings:
        """Return the settings of a training.

        Steps don't depend on how many unlabelled images there are: a gain by longer training would
        be no gain.
        """
        # Of the run, also for a part: `shortening` says how much shorter a part is trained.
        settings = self.run.recipe.training.for_images(len(self.run.images("train")))
        assert settings.steps is not None, "for_images says how many steps the epochs are"
        length, rate = (
            (method.settings.length, method.settings.rate) if method.uses_unlabelled else (1, 1)
        )
        steps = round(-(-settings.steps // self.shortening) * length)
        own = {"steps": max(1, steps), "learning_rate": settings.learning_rate * rate}
        return settings.model_copy(update=own)

    def _seed(self, name: str) -> int:
        sequence = np.random.SeedSequence([self.run.recipe.seed, MODELS.index(name)])
        return int(sequence.generate_state(1)[0])

    def _card(self, name: str, network: SegmentationNetwork, looks: Fingerprint | None) -> Card:
        """Write down what a model is, and choose its thresholds."""
        run, recipe, title = self.run, self.run.recipe, _title(name)
        denoiser = self.denoiser
        card = Card(
            name=f"{recipe.arm} {title}",
            method=recipe.method if name == "model_2" else "supervised",
            network=recipe.network,
            inputs=recipe.inputs,
            chain=recipe.chain.with_method(denoiser.card.method if denoiser else "none"),
            pixel_size_um=run.record["pixel_size_um"],
            fields=[_entry(run, row) for row in run.rows if row.role in _LEARNT_FROM[name]],
            views=recipe.views,
            seed=recipe.seed,
            fingerprint=looks,
        )
        predictor = Predictor(network, card, denoiser=denoiser)
        card.precision = predictor.precision
        if recipe.threshold != "auto":
            card.threshold = recipe.threshold
        elif not self.part:
            choose_thresholds(predictor, run, title)
        return card


def training_title(name: str, part: str = "") -> str:
    """Call a training as its progress shows it; ``part`` is as of `ModelTrainer`."""
    title = f"training {_title(name)}"
    return f"{title} without half {part[-1]} of the images, to judge model 2" if part else title


def prepare_images(run: Run, role: str, denoiser: Denoiser | None) -> list[PreparedImage]:
    """Bring the images of a role to the network's grid, on disk so that memory stays flat."""
    images = run.images(role)
    if not images:
        return []
    planes = ArrayFile(run.scratch / role / "planes", np.float32)
    kind = np.float16 if role == "unlabelled" else np.uint8  # their masks are proposals
    masks = ArrayFile(run.scratch / role / "masks", kind)
    has_mask = []
    reader = partial(
        InputReader,
        inputs=run.recipe.inputs,
        chain=run.recipe.chain,
        denoiser=denoiser,
        model_um=run.record["pixel_size_um"],
    )
    every = run.each(f"preparing {role}", images)
    for image, ready in network_inputs(every, run.recipe.inputs, reader):
        planes.append(np.asarray(ready))
        mask, proposal = image.read()[1], image.read_proposal()
        if mask is not None:
            masks.append(rescale_mask(mask, ready.shape))
        elif proposal is not None:
            masks.append(rescale(proposal, ready.shape).astype(kind))
        has_mask.append(mask is not None or proposal is not None)
    on_disk = iter(masks.read_all())
    return [
        PreparedImage(
            plane,
            next(on_disk) if there else None,
            run.recipe.dye.weight if image.row.label == "dye" else 1.0,
        )
        for plane, image, there in zip(planes.read_all(), images, has_mask, strict=True)
    ]


def _title(name: str) -> str:
    return name.replace("_", " ")


def _training_facts(trained: TrainingResult, averaged: str, card: Card) -> dict[str, Any]:
    return {
        "chosen": trained.chosen + averaged,
        "steps": trained.history[-1]["step"],
        "seconds": trained.history[-1]["seconds"],
        "parameters": _size(trained.weights),
        "threshold": card.threshold,
        "thresholds": {name: own.model_dump() for name, own in card.thresholds.items()},
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
