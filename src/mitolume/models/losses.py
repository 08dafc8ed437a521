"""The losses a recipe can name; unsure pixels count in none. Knows no network."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def bce(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Binary cross-entropy, the mean over the pixels that count.

    Parameters
    ----------
    logits
        (B, 1, Y, X).
    target
        (B, 1, Y, X), 0 to 1.
    weight
        (B, 1, Y, X), 0 where a pixel is unsure.

    Returns
    -------
    torch.Tensor
        A scalar; 0 where no pixel counts.
    """
    losses = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (losses * weight).sum() / weight.sum().clamp(min=1)


def dice_bce(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Soft Dice (Milletari et al. 2016) plus binary cross-entropy.

    Dice is pooled over the batch: it keeps a rare foreground from ending in an all-black mask,
    while cross-entropy punishes false positives in patches without any foreground.

    Parameters
    ----------
    logits, target, weight
        As for `bce`.

    Returns
    -------
    torch.Tensor
        A scalar.
    """
    probability = logits.sigmoid() * weight
    overlap = (probability * target).sum()
    total = probability.sum() + (target * weight).sum()
    dice = (2 * overlap + 1) / (total + 1)
    return 1 - dice + bce(logits, target, weight)


LOSSES: dict[str, Loss] = {"bce": bce, "dice_bce": dice_bce}
