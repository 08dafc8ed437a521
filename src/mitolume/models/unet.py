"""U-Net and U-Net++, whose layers, names and first weights are those of MONAI's (tested).

MONAI itself takes longer to import than torch. Knows no settings.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

LEVELS = range(1, 5)  # below full resolution; the number of channels doubles with each


def _named(**parts: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(parts))


def _convolutions(channels: int, width: int, norm: bool) -> nn.Sequential:
    """Two 3 x 3 convolutions, each followed by batch normalisation, if wanted, and ReLU."""

    def one(given: int) -> nn.Sequential:
        after: dict[str, nn.Module] = {"N": nn.BatchNorm2d(width)} if norm else {}
        adn = _named(**after, A=nn.ReLU(inplace=True))
        return _named(conv=nn.Conv2d(given, width, 3, padding=1), adn=adn)

    return _named(conv_0=one(channels), conv_1=one(width))


class _Up(nn.Module):
    def __init__(self, level: int, beside: int, width: int, norm: bool) -> None:
        super().__init__()
        up = width if level > 1 else 2 * width  # as MONAI has it
        self.upsample = _named(deconv=nn.ConvTranspose2d(2 * width, up, 2, 2))
        self.convs = _convolutions(beside * width + up, width, norm)

    def forward(self, below: Tensor, *beside: Tensor) -> Tensor:
        result: Tensor = self.convs(torch.cat([*beside, self.upsample(below)], 1))
        return result


class UNet(nn.Module):
    """The U-Net (Ronneberger et al. 2015): (B, C, Y, X) to (B, 1, Y, X), multiples of 16.

    ``width`` is the number of channels at full resolution. ``norm`` is batch normalisation:
    that of instances would take its statistics from the tile, and depend on the tiling.
    """

    encoder = ("conv_0", *(f"down_{level}" for level in LEVELS))  # the way down to the lowest level

    def __init__(self, channels: int, width: int, norm: bool) -> None:
        super().__init__()
        first, *others = self.encoder
        self.add_module(first, _convolutions(channels, width, norm))
        for level, name in enumerate(others):
            convs = _convolutions(width << level, width << level + 1, norm)
            self.add_module(name, _named(max_pooling=nn.MaxPool2d(2), convs=convs))
        self._add_way_up(width, norm)

    def _add_way_up(self, width: int, norm: bool) -> None:
        for level in reversed(LEVELS):
            self.add_module(f"upcat_{level}", _Up(level, 1, width << level - 1, norm))
        self.final_conv = nn.Conv2d(width, 1, 1)

    def down(self, images: Tensor) -> list[Tensor]:
        """Return the features of each level."""
        found = [images]
        for name in self.encoder:
            found.append(getattr(self, name)(found[-1]))
        return found[1:]

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        *beside, here = self.down(images)
        for level in reversed(LEVELS):
            here = getattr(self, f"upcat_{level}")(here, beside.pop())
        result: Tensor = self.final_conv(here)
        return result


class UNetPlusPlus(UNet):
    """The U-Net++ (Zhou et al. 2018), without deep supervision."""

    encoder = tuple(f"conv_{level}_0" for level in (0, *LEVELS))

    def _add_way_up(self, width: int, norm: bool) -> None:
        for column in LEVELS:
            for level in range(5 - column):
                part = _Up(level + 1, column, width << level, norm)
                self.add_module(f"upcat_{level}_{column}", part)
        for column in LEVELS:  # only the last is used; the others are in the files of models
            self.add_module(f"final_conv_0_{column}", nn.Conv2d(width, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        rows = [[one] for one in self.down(images)]
        for column in LEVELS:
            for level in range(5 - column):
                below = rows[level + 1][column - 1]
                rows[level].append(getattr(self, f"upcat_{level}_{column}")(below, *rows[level]))
        result: Tensor = self.get_submodule("final_conv_0_4")(rows[0][-1])
        return result
