"""The trainings of a run: model 1, then model 2 round by round. Scores nothing on test images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mitolume.inference.denoise import Denoiser
from mitolume.inference.predictor import Predictor
from mitolume.io.fields import Field
from mitolume.models.bundle import CARD, DENOISER, Card, load_bundle, save_bundle
from mitolume.models.networks import SegmentationNetwork
from mitolume.progress import Advance
from mitolume.study.folder import RunFolder
from mitolume.study.images import prepare, with_masks_on_disk
from mitolume.study.likeness import fingerprint_of
from mitolume.study.run_denoiser import copy_denoiser, denoiser_of_run
from mitolume.study.score import choose_threshold
from mitolume.training.loop import CHECKPOINT
from mitolume.training.methods import METHODS, Supervised, Teacher
from mitolume.training.patches import Image, PreparedImage
from mitolume.training.record import Progress, Trained, Watch
from mitolume.training.segmentation import Validation, train
from mitolume.training.settings import TrainingSettings

MODELS = ("model_1", "model_2")
_LEARNT = {"model_1": ("train",), "model_2": ("train", "unlabelled")}


def train_models(folder: RunFolder) -> None:
    """Train model 1, and model 2 where the method has one, unless they are there already.

    Parameters
    ----------
    folder
        The run. Each model becomes a bundle in it as soon as it is trained.
    """
    for name in MODELS:
        if folder.has_model(name):
            (folder.path / name / CHECKPOINT).unlink(missing_ok=True)
    wanted = METHODS[folder.recipe.method].uses_unlabelled and bool(folder.images("unlabelled"))
    if folder.has_model("model_2" if wanted else "model_1"):
        return
    trainings = _Trainings(folder)
    if not folder.has_model("model_1"):
        trainings.first()
    if wanted:
        trainings.second()


class _Trainings:
    """The trainings of a run, and the images that all of them need."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder, self.recipe = folder, folder.recipe
        self.denoiser = denoiser_of_run(folder)
        self.labelled, self.validation = (
            _prepared(folder, role, self.denoiser) for role in ("train", "validation")
        )
        # Both models take the same number of steps: a gain by longer training would be no gain.
        self.settings = self.recipe.training.for_images(len(self.labelled))

    def first(self) -> None:
        """Train model 1 on the labelled images."""
        network = SegmentationNetwork(self.recipe.network, self._seed("model_1"))
        self._train("model_1", self.folder.path / "model_1", METHODS["supervised"](), network)

    def second(self) -> None:
        """Train model 2: each round's student is the teacher of the next."""
        folder, teacher = self.folder, self.folder.path / "model_1"
        unlabelled = _prepared(folder, "unlabelled", self.denoiser)
        rounds = METHODS[self.recipe.method](self.recipe.unlabelled).rounds
        for number in range(1, rounds + 1):
            place = folder.path / "model_2"
            place = place if number == rounds else place / f"round_{number}"
            if not (place / CARD).exists():
                self._round(number, rounds, teacher, unlabelled, place)
            teacher = place

    def _round(
        self, number: int, rounds: int, teacher: Path, images: list[PreparedImage], place: Path
    ) -> None:
        network, card = load_bundle(teacher)
        method = METHODS[self.recipe.method](self.recipe.unlabelled, card.threshold)
        predictor = Predictor(network, card, average_flips=True)
        with self.folder.bar("pseudo-labels") as advance:
            label = _counting(predictor, len(images), advance)
            others = with_masks_on_disk(
                method.label(images, label), self.folder.scratch / f"taught_{number}"
            )
        student = SegmentationNetwork(self.recipe.network, self._seed("model_2"))
        if method.start == "teacher":
            student.load_state_dict(network.state_dict())
        self._train("model_2", place, method, student, others, part=(number, rounds))

    def _train(
        self,
        name: str,
        place: Path,
        method: Supervised,
        network: SegmentationNetwork,
        others: Sequence[PreparedImage] = (),
        part: tuple[int, int] = (1, 1),
    ) -> None:
        """Train one model, or one of ``part`` = (number, rounds) of its training."""
        folder, recipe = self.folder, self.recipe
        place.mkdir(parents=True, exist_ok=True)
        title = name.replace("_", " ") + (f", round {part[0]} of {part[1]}" * (part[1] > 1))
        settings, before = _share_of_steps(self.settings, part)
        with folder.bar(f"training {title}") as advance:
            trained = train(
                network,
                self.labelled,
                Validation(
                    self.validation, None if recipe.threshold == "auto" else recipe.threshold
                ),
                others=others,
                method=method,
                settings=settings,
                seed=self._seed(name) + part[0] - 1,
                folder=place,
                watch=Watch(
                    step=_reporting(advance),
                    epoch=lambda history: folder.write_log(name, history, before),
                ),
            )
        self._save(name, place, network, trained, [*self.labelled, *others])

    def _save(
        self,
        name: str,
        place: Path,
        network: SegmentationNetwork,
        trained: Trained,
        images: Sequence[PreparedImage],
    ) -> None:
        """Choose the threshold and write the bundle."""
        folder, recipe, denoiser = self.folder, self.recipe, self.denoiser
        title = name.replace("_", " ")
        card = Card(
            name=f"{recipe.arm} {title}",
            method="supervised" if name == "model_1" else recipe.method,
            network=recipe.network,
            chain=recipe.chain.with_method(denoiser.card.method if denoiser else "none"),
            pixel_size_um=folder.record["pixel_size_um"],
            fields=[_entry(folder, r) for r in folder.table.fields if r.role in _LEARNT[name]],
            seed=recipe.seed,
            fingerprint=fingerprint_of([image.plane for image in images]),
        )
        network.load_state_dict(trained.weights)
        predictor = Predictor(network, card, denoiser=denoiser, average_flips=recipe.average_flips)
        with folder.bar(f"threshold of {title}") as advance:
            card.threshold = choose_threshold(
                predictor, folder.images("validation"), recipe.threshold, advance
            )
        folder.note(**{name: _facts(trained, self.settings.steps, card.threshold)})
        if denoiser:
            copy_denoiser(folder.path / DENOISER, place / DENOISER)
        save_bundle(place, trained.weights, card)
        (place / CHECKPOINT).unlink(missing_ok=True)

    def _seed(self, name: str) -> int:
        sequence = np.random.SeedSequence([self.recipe.seed, MODELS.index(name)])
        return int(sequence.generate_state(1)[0])


def _share_of_steps(
    settings: TrainingSettings, part: tuple[int, int]
) -> tuple[TrainingSettings, int]:
    """Return the settings of one of several rounds, and the steps made in those before."""
    number, rounds = part
    assert settings.steps is not None, "for_images says how many steps the epochs are"
    ends = [settings.steps * done // rounds for done in range(rounds + 1)]
    steps, checks = ends[number] - ends[number - 1], -(-settings.checks // rounds)
    return settings.model_copy(update={"steps": max(1, steps), "checks": checks}), ends[number - 1]


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
            planes_in=folder.recipe.network.planes_in,
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


def _facts(trained: Trained, steps: int | None, threshold: float) -> dict[str, Any]:
    return {
        "chosen": trained.chosen,
        "steps": steps,
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
