"""What is kept of a training: its history, the chosen weights, the checkpoint. Computes no loss."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from mitolume.errors import MitolumeError
from mitolume.io.write import atomic

AVERAGED = 0.25  # share of the epochs, at the end, averaged where nothing can choose a best one

History = list[dict[str, float | None]]


@dataclass(frozen=True)
class Progress:
    """Where a training is; None where nothing was measured."""

    step: int
    steps: int
    loss: float | None = None
    score: float | None = None


@dataclass(frozen=True)
class Watch:
    """Who is told: ``step`` after every step, ``epoch`` after every epoch, with all so far."""

    step: Callable[[Progress], None] = lambda progress: None
    epoch: Callable[[History], None] = lambda history: None


@dataclass(frozen=True)
class Trained:
    """The weights chosen, and how it went.

    ``chosen`` says which weights they are; ``history`` has a record for each epoch.
    """

    weights: dict[str, Tensor]
    chosen: str
    history: History


class Record(Callback):
    """Keeps history and chosen weights, inside the checkpoint so that both are of one moment.

    Parameters
    ----------
    checkpoint
        The file, replaced after every epoch.
    epochs
        How many there will be.
    score_name
        What history calls the validation score, of which higher is better.
    validated
        Whether epochs have such a score; without, the last ones are averaged.
    watch
        Who is told.
    """

    def __init__(
        self, checkpoint: Path, epochs: int, score_name: str, validated: bool, watch: Watch
    ) -> None:
        self.checkpoint = checkpoint
        self.first_averaged = epochs - max(1, round(AVERAGED * epochs))
        self.score_name = score_name
        self.validated = validated
        self.watch = watch
        self.history: History = []
        self.best_score = -math.inf
        self.best_epoch = 0
        self.n_averaged = 0
        self.weights: dict[str, Tensor] = {}  # always on the processor
        self.losses: list[Tensor] = []
        self.started = time.monotonic()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tell the watcher; the loss is read every tenth step, as reading makes a GPU wait."""
        self.losses.append(outputs["loss"].detach())
        loss = _finite(self.losses[-1], pl_module) if batch_idx % 10 == 0 else None
        last = self.history[-1][self.score_name] if self.history else None
        self.watch.step(Progress(trainer.global_step, pl_module.steps, loss, last))

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Score, choose, and write the checkpoint."""
        loss = _finite(torch.stack(self.losses).mean(), pl_module)
        self.losses.clear()
        score = pl_module.score()
        self.history.append(
            {
                "step": trainer.global_step,
                "loss": loss,
                self.score_name: score,
                "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
                "seconds": round(time.monotonic() - self.started, 1),
            }
        )
        weights = {k: v.detach().cpu() for k, v in pl_module.model.state_dict().items()}
        self._choose(len(self.history) - 1, score, weights)
        with atomic(self.checkpoint) as temporary:
            trainer.save_checkpoint(temporary)
        self.watch.epoch(self.history)
        self.watch.step(Progress(trainer.global_step, pl_module.steps, loss, score))

    def _choose(self, epoch: int, score: float | None, weights: dict[str, Tensor]) -> None:
        if score is not None:
            # A score that is undefined (NaN) is not better than anything.
            if score > self.best_score or not self.weights:
                self.best_score, self.best_epoch = score, epoch
                self.weights = {name: tensor.clone() for name, tensor in weights.items()}
        elif epoch >= self.first_averaged:
            # A running mean of parameters and of the normalisation's statistics alike.
            self.n_averaged += 1
            for name, tensor in weights.items():
                if name not in self.weights or not tensor.is_floating_point():
                    self.weights[name] = tensor.clone()
                else:
                    self.weights[name] += (tensor - self.weights[name]) / self.n_averaged

    def result(self) -> Trained:
        """Return what was kept."""
        n = len(self.history)
        if self.validated:
            chosen = f"epoch {self.best_epoch + 1} of {n}, the best on the validation images"
        else:
            chosen = f"average of the last {self.n_averaged} of {n} epochs (no validation images)"
        return Trained(self.weights, chosen, self.history)

    def state_dict(self) -> dict[str, Any]:
        """Return what the checkpoint holds of this."""
        names = ("history", "best_score", "best_epoch", "n_averaged", "weights")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what a checkpoint holds."""
        for name, value in state_dict.items():
            setattr(self, name, value)
        self.weights = {name: tensor.cpu() for name, tensor in self.weights.items()}
        if self.history:
            self.started -= self.history[-1]["seconds"] or 0


def _finite(loss: Tensor, module: Any) -> float:
    value = float(loss)
    if not abs(value) < float("inf"):
        raise MitolumeError(
            "the loss is no longer a number; set the learning rate lower, with "
            f"{module.task.rate_key} a tenth of what it is"
        )
    return value
