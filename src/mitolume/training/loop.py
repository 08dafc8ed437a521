"""The one training loop, on Lightning. Knows no file format, no table and no report."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
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
from mitolume.io.masks import FOREGROUND
from mitolume.models.losses import LOSSES
from mitolume.models.networks import SegmentationNetwork
from mitolume.training.augment import AUGMENTATIONS
from mitolume.training.methods import Supervised
from mitolume.training.patches import Patches, PreparedImage, StepSampler
from mitolume.training.record import Record, Trained, Watch
from mitolume.training.settings import TrainingSettings

CHECKPOINT = "last.ckpt"
WARM_UP = 0.03  # share of the steps over which the learning rate rises


@dataclass(frozen=True)
class Validation:
    """Whole images that choose the epoch, and the threshold at which they are scored.

    ``threshold`` None is each epoch's best, so that weak foreground that never reaches 0.5 can
    still show which epoch is better. Images without any foreground can't choose, and count as none.
    """

    images: Sequence[PreparedImage] = ()
    threshold: float | None = None

    def __bool__(self) -> bool:
        return any(np.any(image.mask == FOREGROUND) for image in self.images)

    def iou(self, network: SegmentationNetwork) -> float:
        """Return the foreground IoU of a network, pooled over the images."""
        histograms = np.zeros((2, 100), np.int64)
        total = Counts()
        for image in self.images:
            assert image.mask is not None
            probability = predict_tiled(network, image.image)
            if self.threshold is None:
                histograms += probability_histogram(probability, image.mask)
            else:
                total += count((probability >= self.threshold).astype(np.uint8), image.mask)
        return best_threshold(histograms)[1] if self.threshold is None else iou(total)


def train(
    network: SegmentationNetwork,
    images: Sequence[PreparedImage],
    validation: Validation,
    *,
    method: Supervised,
    settings: TrainingSettings,
    seed: int,
    folder: Path,
    watch: Watch = Watch(),  # noqa: B008
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
        What chooses the epoch; where it is empty, the weights of the last quarter of the epochs
        are averaged.
    method
        How a step makes its loss.
    settings
        How long (in steps, see `TrainingSettings.for_images`) and with what.
    seed
        Of patches and augmentation.
    folder
        Where the checkpoint is kept.
    watch
        Who is told how it goes.

    Returns
    -------
    Trained

    Raises
    ------
    MitolumeError
        The loss is no longer a number, or the checkpoint is damaged.
    """
    assert settings.steps is not None, "for_images says how many steps the epochs are"
    per_epoch = settings.steps_per_check
    epochs = -(-settings.steps // per_epoch)
    patches = Patches(images, patch=settings.patch, batch=settings.batch, seed=seed)
    module = _Module(network, validation, method, settings, seed)
    sampler = StepSampler(settings.steps, per_epoch, lambda: module.global_step)
    checkpoint = folder / CHECKPOINT
    record = Record(checkpoint, epochs, bool(validation), watch)
    with _quiet():
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator="auto",
            devices=1,
            precision="bf16-mixed" if settings.precision == "bfloat16" else "32-true",
            # On a GPU some kernels add up in any order unless told otherwise.
            deterministic="warn" if torch.cuda.is_available() else None,
            callbacks=[record],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        trainer.fit(
            module,
            DataLoader(patches, batch_size=None, sampler=sampler),
            ckpt_path=_usable(checkpoint),
            weights_only=True,
        )
    return record.result()


def _usable(checkpoint: Path) -> str | None:
    if not checkpoint.exists():
        return None
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch raise their own kinds
        raise MitolumeError(
            f"{checkpoint} is damaged; delete it to train this model anew"
        ) from error
    return str(checkpoint)


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
        validation: Validation,
        method: Supervised,
        settings: TrainingSettings,
        seed: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.validation = validation
        self.method = method
        self.settings = settings
        self.seed = seed
        self.steps = settings.steps or 0

    def training_step(self, batch: tuple[int, Tensor, Tensor], batch_idx: int) -> Tensor:
        step, images, masks = batch
        # Offset from the seeds of the patches, which are drawn from (seed, step) too.
        draw = np.random.default_rng([self.seed, int(step), 1])
        random = torch.Generator().manual_seed(int(draw.integers(2**63)))
        # In float32: bfloat16 is for the network only.
        with torch.autocast(self.device.type, enabled=False):
            images, masks = AUGMENTATIONS[self.settings.augment](images, masks, random)
        return self.method.loss(self.network, images, masks, LOSSES[self.settings.loss])

    def validation_iou(self) -> float:
        """Return the score of the validation images, computed in the precision of training."""
        self.network.eval()
        bf16 = self.settings.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            score = self.validation.iou(self.network)
        self.network.train()
        return score

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
