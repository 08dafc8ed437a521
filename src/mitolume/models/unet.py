"""U-Net and U-Net++. Knows no settings.

Layers, their names and initial weights are those of MONAI's `BasicUNet` and `BasicUNetPlusPlus`
(a test compares them), which takes longer to import than torch does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

LEVELS = range(1, 5)  # below full resolution; the number of channels doubles with each


def _convolutions(channels: int, width: int, norm: bool) -> nn.Sequential:
    """Two 3 x 3 convolutions, each followed by batch normalisation, if wanted, and ReLU."""
    both = nn.Sequential()
    for name, given in ("conv_0", channels), ("conv_1", width):
        one, adn = nn.Sequential(), nn.Sequential()
        one.add_module("conv", nn.Conv2d(given, width, 3, padding=1))
        if norm:
            adn.add_module("N", nn.BatchNorm2d(width))
        adn.add_module("A", nn.ReLU(inplace=True))
        one.add_module("adn", adn)
        both.add_module(name, one)
    return both


class _Down(nn.Sequential):
    def __init__(self, width: int, norm: bool) -> None:
        super().__init__()
        self.max_pooling = nn.MaxPool2d(2)
        self.convs = _convolutions(width // 2, width, norm)


class _Up(nn.Module):
    def __init__(self, level: int, beside: int, width: int, norm: bool) -> None:
        super().__init__()
        given = 2 * width
        up = width if level > 1 else given  # as MONAI has it
        self.upsample = nn.Sequential()
        self.upsample.add_module("deconv", nn.ConvTranspose2d(given, up, 2, 2))
        self.convs = _convolutions(beside * width + up, width, norm)

    def forward(self, below: Tensor, *beside: Tensor) -> Tensor:
        result: Tensor = self.convs(torch.cat([*beside, self.upsample(below)], 1))
        return result


class UNet(nn.Module):
    """The U-Net (Ronneberger et al. 2015).

    Parameters
    ----------
    channels
        Number of channels of the images.
    width
        Number of channels at full resolution.
    norm
        Whether there is batch normalisation. Instance normalisation would take its statistics from
        the tile: the answer would then depend on the tiling.
    """

    encoder = ("conv_0", *(f"down_{level}" for level in LEVELS))  # the way down to the lowest level

    def __init__(self, channels: int, width: int, norm: bool) -> None:
        super().__init__()
        for level, name in enumerate(self.encoder):
            here = width << level
            part = _Down(here, norm) if level else _convolutions(channels, here, norm)
            self.add_module(name, part)
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
        """Return (B, 1, Y, X) of (B, C, Y, X), whose sides are multiples of 16."""
        *beside, here = self.down(images)
        for level in reversed(LEVELS):
            here = getattr(self, f"upcat_{level}")(here, beside.pop())
        result: Tensor = self.final_conv(here)
        return result


class UNetPlusPlus(UNet):
    """The U-Net++ (Zhou et al. 2018), without deep supervision; parameters are those of `UNet`."""

    encoder = tuple(f"conv_{level}_0" for level in (0, *LEVELS))

    def _add_way_up(self, width: int, norm: bool) -> None:
        for column in LEVELS:
            for level in range(5 - column):
                part = _Up(level + 1, column, width << level, norm)
                self.add_module(f"upcat_{level}_{column}", part)
        for column in LEVELS:  # only the last is used; the others are in the files of models
            self.add_module(f"final_conv_0_{column}", nn.Conv2d(width, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, 1, Y, X) of (B, C, Y, X), whose sides are multiples of 16."""
        rows: list[list[Any]] = [[one] for one in self.down(images)]
        for column in LEVELS:
            for level in range(5 - column):
                below = rows[level + 1][column - 1]
                rows[level].append(getattr(self, f"upcat_{level}_{column}")(below, *rows[level]))
        result: Tensor = self.get_submodule("final_conv_0_4")(rows[0][-1])
        return result
