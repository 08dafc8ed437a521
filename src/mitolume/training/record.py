"""What is kept of a training: its history, the chosen weights, the checkpoint."""

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
from mitolume.io.write import atomic, owning
from mitolume.progress import Advance, enough

# Share of the epochs, at the end, whose weights are averaged where no validation images can choose.
AVERAGED = 0.25

History = list[dict[str, float | None]]


@dataclass(frozen=True)
class TrainingResult:
    """The chosen weights and the history of a training.

    ``chosen`` says in words which weights were chosen; ``history`` has a record for each epoch.
    """

    weights: dict[str, Tensor]
    chosen: str
    history: History


class Recorder(Callback):
    """Keep history and chosen weights, inside the checkpoint so that both are of one moment.

    The checkpoint is replaced after every epoch. Where nothing is scored, the weights of the last
    epochs are averaged (`AVERAGED`).
    """

    def __init__(
        self, checkpoint: Path, epochs: int, advance: Advance, on_epoch: Callable[[History], None]
    ) -> None:
        self.checkpoint = checkpoint
        self.first_averaged = epochs - max(1, round(AVERAGED * epochs))
        self.advance = advance
        self.on_epoch = on_epoch
        self.history: History = []
        self.best_score = -math.inf
        self.best_epoch = 0
        self.n_averaged = 0
        self.weights: dict[str, Tensor] = {}  # always on the processor
        self.losses: list[Tensor] = []
        self.loss = math.nan
        self.started = time.monotonic()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Report the step; the loss is read every tenth step, because reading makes a GPU wait."""
        self.losses.append(outputs["loss"].detach())
        if batch_idx % 10 == 0:
            self.loss = _finite(self.losses[-1], pl_module)
        self._report(pl_module)
        if enough():
            trainer.should_stop = True  # the epoch ends here: it is scored, and its weights count

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Score, choose, and write the checkpoint."""
        self.loss = _finite(torch.stack(self.losses).mean(), pl_module)
        self.losses.clear()
        score = pl_module.score()
        self.history.append(
            {
                "step": trainer.global_step,
                "loss": self.loss,
                pl_module.task.score_name: score,
                "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
                "seconds": round(time.monotonic() - self.started, 1),
            }
        )
        weights = {k: v.detach().cpu() for k, v in pl_module.model.state_dict().items()}
        last = trainer.should_stop and not self.n_averaged
        self._choose(len(self.history) - 1, score, weights, last)
        with owning(self.checkpoint.parent), atomic(self.checkpoint) as temporary:
            trainer.save_checkpoint(temporary)
        self.on_epoch(self.history)
        self._report(pl_module)

    def _report(self, module: Any) -> None:
        """Show the step, the last loss that was read, and the last score."""
        score = self.history[-1][module.task.score_name] if self.history else None
        note = f"loss {self.loss:.3f}"
        if score is not None:
            note += f"  {module.task.score_label} {score:.3f}"
        self.advance(module.global_step, module.steps, note)

    def _choose(
        self, epoch: int, score: float | None, weights: dict[str, Tensor], last: bool
    ) -> None:
        if score is not None:
            # A score that is undefined (NaN) is not better than anything.
            if score > self.best_score or not self.weights:
                self.best_score, self.best_epoch = score, epoch
                self.weights = {name: tensor.clone() for name, tensor in weights.items()}
        elif epoch >= self.first_averaged or last:
            # A running mean of parameters and of the normalisation's statistics alike.
            self.n_averaged += 1
            for name, tensor in weights.items():
                if name not in self.weights or not tensor.is_floating_point():
                    self.weights[name] = tensor.clone()
                else:
                    self.weights[name] += (tensor - self.weights[name]) / self.n_averaged

    def result(self) -> TrainingResult:
        """Return the chosen weights and the history."""
        n = len(self.history)
        if not self.n_averaged:
            chosen = f"epoch {self.best_epoch + 1} of {n}, the best on the validation images"
        else:
            chosen = f"average of the last {self.n_averaged} of {n} epochs (no validation images)"
        return TrainingResult(self.weights, chosen, self.history)

    def state_dict(self) -> dict[str, Any]:
        """Return what the checkpoint stores."""
        names = ("history", "best_score", "best_epoch", "n_averaged", "weights")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what a checkpoint stores."""
        for name, value in state_dict.items():
            setattr(self, name, value)
        self.weights = {name: tensor.cpu() for name, tensor in self.weights.items()}
        if self.history:
            self.started -= self.history[-1]["seconds"] or 0
            self.on_epoch(self.history)  # a kill may have come between checkpoint and log


def _finite(loss: Tensor, module: Any) -> float:
    value = float(loss)
    if not abs(value) < float("inf"):
        raise MitolumeError(
            "the loss is no longer a number; lower the learning rate: set "
            f"{module.task.rate_key} to a tenth of its value"
        )
    return value
