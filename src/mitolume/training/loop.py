"""The one training loop, on Lightning. Knows no file format, no table and no report."""

from __future__ import annotations

import copy
import logging
import math
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader

from mitolume.analysis.metrics import (
    Counts,
    best_threshold,
    count,
    iou,
    probability_histogram,
)
from mitolume.errors import MitolumeError
from mitolume.inference.predictor import predict_tiled
from mitolume.io.write import atomic
from mitolume.models.losses import LOSSES
from mitolume.models.networks import SegmentationNetwork
from mitolume.training.augment import AUGMENTATIONS
from mitolume.training.methods import Supervised
from mitolume.training.patches import Patches, PreparedImage, StepSampler
from mitolume.training.settings import TrainingSettings

CHECKPOINT = "last.ckpt"
WARM_UP = 0.03  # share of the steps over which the learning rate rises
AVERAGED = 0.25  # share of the epochs, at the end, averaged where nothing can choose a best one


@dataclass(frozen=True)
class Progress:
    """Where a training is; None where nothing was measured."""

    step: int
    steps: int
    loss: float | None = None
    validation_iou: float | None = None


Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Trained:
    """The weights chosen, and how it went.

    ``chosen`` says which weights they are; ``history`` has a record for each epoch.
    """

    weights: dict[str, Tensor]
    chosen: str
    history: list[dict[str, float | None]]


def train(
    network: SegmentationNetwork,
    images: Sequence[PreparedImage],
    validation: Sequence[PreparedImage],
    *,
    method: Supervised,
    settings: TrainingSettings,
    seed: int,
    folder: Path,
    threshold: float | None = None,
    report: Report = lambda progress: None,
    on_epoch: Callable[[list[dict[str, float | None]]], None] = lambda history: None,
) -> Trained:
    """Train a network, going on from the checkpoint in its folder where there is one.

    Patches and their augmentation depend on (seed, step) only, and a checkpoint is written after
    every epoch, so that a run that was killed and goes on gives the weights of an unbroken one.

    Parameters
    ----------
    network
        With its initial weights; changed in place.
    images
        What to learn from, all with masks.
    validation
        Whole images that choose the epoch; may be empty, then the weights of the last quarter of
        the epochs are averaged.
    method
        How a step makes its loss.
    settings
        How long and with what.
    seed
        Of patches and augmentation.
    folder
        Where the checkpoint is kept.
    threshold
        At which validation images are scored; None is each epoch's best, so that weak
        foreground that never reaches 0.5 can still show which epoch is better.
    report
        Called after every step.
    on_epoch
        Called after every epoch with the history so far.

    Returns
    -------
    Trained

    Raises
    ------
    MitolumeError
        The loss is no longer a number.
    """
    steps_per_epoch, epochs = settings.schedule_of(len(images))
    patches = Patches(images, patch=settings.patch, batch=settings.batch, seed=seed)
    module = _Module(network, method, settings, seed, steps_per_epoch * epochs)
    module.validation, module.threshold = validation, threshold
    sampler = StepSampler(steps_per_epoch, lambda: module.global_step)
    loader = DataLoader(patches, batch_size=None, sampler=sampler)
    record = _Record(folder / CHECKPOINT, epochs, bool(validation), report, on_epoch)
    with _quiet():
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator="auto",
            devices=1,
            precision="bf16-mixed" if settings.precision == "bfloat16" else "32-true",
            callbacks=[record],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        checkpoint = folder / CHECKPOINT
        trainer.fit(
            module,
            loader,
            ckpt_path=str(checkpoint) if checkpoint.exists() else None,
            weights_only=True,
        )
    return record.result()


def resolve_precision(wanted: str) -> str:
    """Return float32 or bfloat16: ``auto`` is bfloat16 where the machine computes in it."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if native else "float32"


class _Module(lightning.LightningModule):
    """Network, loss and optimiser, as Lightning wants them."""

    def __init__(
        self,
        network: SegmentationNetwork,
        method: Supervised,
        settings: TrainingSettings,
        seed: int,
        steps: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.validation: Sequence[PreparedImage] = ()
        self.threshold: float | None = None
        self.method = method
        self.settings = settings
        self.seed = seed
        self.steps = steps

    def training_step(self, batch: tuple[int, Tensor, Tensor], batch_idx: int) -> Tensor:
        step, images, masks = batch
        # Offset from the seeds of the patches, which are drawn from (seed, step) too.
        draw = np.random.default_rng([self.seed, int(step), 1])
        random = torch.Generator().manual_seed(int(draw.integers(2**63)))
        # In float32: bfloat16 is for the network only.
        with torch.autocast(self.device.type, enabled=False):
            images, masks = AUGMENTATIONS[self.settings.augment](images, masks, random)
        loss = self.method.loss(self.network, images, masks, LOSSES[self.settings.loss])
        if not torch.isfinite(loss):
            raise MitolumeError(
                f"the loss is no longer a number at step {int(step)}; lower it with "
                f"--set training.learning_rate={self.settings.learning_rate / 10:g}"
            )
        return loss

    def validation_iou(self) -> float:
        """Return the foreground IoU pooled over the whole validation images."""
        total = Counts()
        histograms = np.zeros((2, 100), np.int64)
        self.network.eval()
        bf16 = self.settings.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            for image in self.validation:
                assert image.mask is not None
                probability = predict_tiled(self.network, image.image)
                histograms += probability_histogram(probability, image.mask)
                mask = (probability >= (self.threshold or 0.5)).astype(np.uint8)
                total += count(mask, image.mask)
        self.network.train()
        return best_threshold(histograms)[1] if self.threshold is None else iou(total)

    def configure_optimizers(self) -> Any:
        optimiser = torch.optim.Adam(
            self.parameters(), lr=self.settings.learning_rate, fused=self.device.type != "mps"
        )
        if self.settings.schedule == "constant":
            return optimiser
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: cosine(step, self.steps)
        )
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def cosine(step: int, steps: int) -> float:
    """Return the share of the full learning rate: a linear rise, then half a cosine down to 0."""
    warm_up = max(1, round(WARM_UP * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


class _Record(Callback):
    """Keeps history and chosen weights, inside the checkpoint so that both are of one moment."""

    def __init__(
        self,
        checkpoint: Path,
        epochs: int,
        validated: bool,
        report: Report,
        on_epoch: Callable[[list[dict[str, float | None]]], None],
    ) -> None:
        self.checkpoint = checkpoint
        self.first_averaged = epochs - max(1, round(AVERAGED * epochs))
        self.validated = validated
        self.report, self.on_epoch = report, on_epoch
        self.history: list[dict[str, float | None]] = []
        self.best_iou = -1.0
        self.best_epoch = 0
        self.n_averaged = 0
        self.weights: dict[str, Tensor] = {}
        self.losses: list[Tensor] = []
        self.started = time.monotonic()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.losses.append(outputs["loss"].detach())
        last = self.history[-1]["validation_iou"] if self.history else None
        # The loss is read every tenth step: reading it makes a GPU wait.
        loss = float(self.losses[-1]) if batch_idx % 10 == 0 else None
        self.report(Progress(trainer.global_step, pl_module.steps, loss, last))

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        score = pl_module.validation_iou() if self.validated else None
        loss = float(torch.stack(self.losses).mean())
        self.losses.clear()
        self.history.append(
            {
                "step": trainer.global_step,
                "loss": loss,
                "validation_iou": score,
                "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
                "seconds": round(time.monotonic() - self.started, 1),
            }
        )
        self._choose(trainer.current_epoch, score, pl_module.network.state_dict())
        with atomic(self.checkpoint) as temporary:
            trainer.save_checkpoint(temporary)
        self.on_epoch(self.history)
        self.report(Progress(trainer.global_step, pl_module.steps, loss, score))

    def _choose(self, epoch: int, score: float | None, weights: dict[str, Tensor]) -> None:
        if score is not None:
            # No foreground anywhere (NaN) is not better than anything.
            if score > self.best_iou or not self.weights:
                self.best_iou, self.best_epoch = score, epoch
                self.weights = copy.deepcopy(dict(weights))
        elif epoch >= self.first_averaged:
            # A running mean of parameters and of the normalisation's statistics alike.
            self.n_averaged += 1
            for name, tensor in weights.items():
                if name not in self.weights or not tensor.is_floating_point():
                    self.weights[name] = tensor.clone()
                else:
                    self.weights[name] += (tensor - self.weights[name]) / self.n_averaged

    def result(self) -> Trained:
        n = len(self.history)
        if self.validated:
            chosen = f"epoch {self.best_epoch + 1} of {n}, the best on the validation images"
        else:
            chosen = f"average of the last {self.n_averaged} of {n} epochs (no validation images)"
        return Trained(self.weights, chosen, self.history)

    def state_dict(self) -> dict[str, Any]:
        names = ("history", "best_iou", "best_epoch", "n_averaged", "weights")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, value in state_dict.items():
            setattr(self, name, value)
        if self.history:
            self.started -= self.history[-1]["seconds"] or 0


@contextmanager
def _quiet() -> Any:
    """Keep Lightning's advice about loggers, workers and devices off the user's screen."""
    loggers = [logging.getLogger(n) for n in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
