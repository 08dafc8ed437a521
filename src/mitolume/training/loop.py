"""The one training loop, on Lightning. Images and losses are the task's."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from mitolume.errors import DamagedError, MitolumeError
from mitolume.models.networks import find_device, is_full
from mitolume.progress import Advance
from mitolume.training.patches import StepSampler
from mitolume.training.record import History, Recorder, TrainingResult
from mitolume.training.settings import LoopSettings

CHECKPOINT = "last.ckpt"


class Task:
    """What a network learns: the batches, the loss of a step, and the score of an epoch.

    The defaults are those of a task of segmentation that scores nothing.

    Attributes
    ----------
    section
        Section of the recipe that holds the task's settings.
    score_name, score_label
        The validation score's key in the history, and its name for people.
    rate_key
        The setting that the learning rate comes from.
    decay
        Decay per step of the moving average of the weights; None for no average.
    is_validated
        Whether there is something to score.
    batches
        Item ``step`` is what `loss` takes, the same whatever came before.
    """

    section: str = "training"
    score_name: str = "validation_iou"
    score_label: str = "validation IoU"
    rate_key: str = "training.learning_rate"
    decay: float | None = None
    is_validated: bool = False
    batches: Dataset[Any]

    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        """Return the loss of one step, a scalar."""
        raise NotImplementedError

    def score(self, network: nn.Module) -> float:
        """Return the validation score of a network in evaluation mode; higher is better."""
        raise NotImplementedError

    def check(self, network: nn.Module, step: int) -> None:
        """Raise where training has gone wrong: called after each epoch, with the steps made."""


def fit(
    network: nn.Module,
    task: Task,
    *,
    settings: LoopSettings,
    folder: Path,
    advance: Advance = lambda done, total, note="": None,
    on_epoch: Callable[[History], None] = lambda history: None,
) -> TrainingResult:
    """Train a network, continuing from the checkpoint in its folder if there is one.

    Batches depend on their step only, and a checkpoint is written after every epoch: a training
    that was stopped and resumed gives the weights of an uninterrupted one.

    Parameters
    ----------
    network
        The network with its initial weights; changed in place.
    task
        What it learns. Where nothing can be scored, the weights of the last quarter of the
        epochs are averaged. Where the task has a ``decay``, the model is the moving average.
    settings
        Length in steps (see `LoopSettings.for_images`), learning rate and precision.
    folder
        Folder of the checkpoint.
    advance
        Called after every step with the steps made, their number, and the loss and score as text.
    on_epoch
        Called after every epoch with the whole history.

    Returns
    -------
    TrainingResult

    Raises
    ------
    MitolumeError
        The loss is no longer a number, the graphics card has too little memory, or the checkpoint
        is damaged.
    """
    assert settings.steps is not None, "for_images says how many steps the epochs are"
    per_epoch = settings.steps_per_check
    epochs = -(-settings.steps // per_epoch)
    module = _Module(network, task, settings)
    sampler = StepSampler(settings.steps, per_epoch, lambda: module.global_step)
    checkpoint = folder / CHECKPOINT
    recorder = Recorder(checkpoint, epochs, advance, on_epoch)
    device = find_device()
    with _quiet():
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator=device.type,
            devices=[device.index or 0] if device.type == "cuda" else 1,
            # One process, whatever starts it: Lightning would take Slurm's tasks for its own.
            plugins=[LightningEnvironment()],
            precision="bf16-mixed" if settings.precision == "bfloat16" else "32-true",
            # On a GPU some kernels add up in any order unless told otherwise.
            deterministic="warn" if device.type == "cuda" else None,
            callbacks=[recorder],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        try:
            trainer.fit(
                module,
                DataLoader(task.batches, batch_size=None, sampler=sampler),
                ckpt_path=_usable(checkpoint),
                weights_only=True,
            )
        except RuntimeError as error:
            if not is_full(error):
                raise
            raise MitolumeError(
                f"the graphics card has too little memory to train {settings.batch} patches of "
                f"{settings.patch} px at once; lower {task.section}.batch, {task.section}.patch or "
                "the width of the network"
            ) from None
    return recorder.result()


def _usable(checkpoint: Path) -> str | None:
    if not checkpoint.exists():
        return None
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch raise their own kinds
        raise DamagedError(
            f"{checkpoint} is damaged; delete it to train this model from the start"
        ) from error
    return str(checkpoint)


class _Module(lightning.LightningModule):
    """Network, task and optimiser in the form that Lightning expects."""

    def __init__(self, network: nn.Module, task: Task, settings: LoopSettings) -> None:
        super().__init__()
        self.network = network
        self.task = task
        self.settings = settings
        self.steps = settings.steps or 0
        self.average = None
        if task.decay is not None:
            follow = get_ema_multi_avg_fn(task.decay)  # type: ignore[no-untyped-call]
            # With the buffers: statistics of normalisation belong to the weights they were
            # measured with.
            self.average = AveragedModel(network, multi_avg_fn=follow, use_buffers=True)

    @property
    def model(self) -> nn.Module:
        """What is scored and kept: the average of the weights where there is one."""
        return self.network if self.average is None else self.average.module

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.task.loss(self.network, batch)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.average is not None:
            self.average.update_parameters(self.network)

    def score(self) -> float | None:
        """Return the validation score, if any; raise where training has gone wrong.

        Computed in the precision of training.
        """
        model = self.model.eval()
        bf16 = self.settings.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            self.task.check(model, self.trainer.global_step)
            score = self.task.score(model) if self.task.is_validated else None
        model.train()
        return score

    def configure_optimizers(self) -> Any:
        optimiser = torch.optim.Adam(
            self.network.parameters(),
            lr=self.settings.learning_rate,
            fused=self.device.type != "mps",
        )
        if self.settings.schedule == "constant":
            return optimiser
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: cosine(step, self.steps)
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def cosine(step: int, steps: int) -> float:
    """Return the share of the full learning rate: a linear rise, then half a cosine down to 0."""
    warm_up = max(1, round(0.03 * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


@contextmanager
def _quiet() -> Any:
    """Silence Lightning's advice about loggers, workers and devices; leave torch as it was."""
    deterministic = torch.get_deterministic_debug_mode()
    loggers = [logging.getLogger(n) for n in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_deterministic_debug_mode(deterministic)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
