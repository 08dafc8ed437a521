"""The losses a recipe can name; unsure pixels count in none."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]


def bce(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy, the mean over the pixels that count.

    Parameters
    ----------
    logits
        (B, 1, Y, X), logits of the foreground.
    target
        (B, 1, Y, X), the probability of foreground, NaN where a pixel is unsure.

    Returns
    -------
    torch.Tensor
        A scalar; 0 where no pixel counts.
    """
    target, weight = _known(target)
    losses = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (losses * weight).sum() / weight.sum().clamp(min=1)


def dice_bce(logits: Tensor, target: Tensor) -> Tensor:
    """Soft Dice (Milletari et al. 2016) plus binary cross-entropy.

    Dice is pooled over the batch: it keeps a rare foreground from ending in an all-black mask,
    while cross-entropy punishes false positives in patches without any foreground.
    """
    known, weight = _known(target)
    probability = logits.sigmoid() * weight
    overlap = (probability * known).sum()
    total = probability.sum() + known.sum()
    dice = (2 * overlap + 1) / (total + 1)
    return 1 - dice + bce(logits, target)


def _known(target: Tensor) -> tuple[Tensor, Tensor]:
    """Return targets without NaN, and 1 where they count."""
    return target.nan_to_num(0.0), (~target.isnan()).float()


LOSSES: dict[str, Loss] = {"bce": bce, "dice_bce": dice_bce}
