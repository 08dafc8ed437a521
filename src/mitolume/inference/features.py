"""What a segmentation network sees in an image, as one vector."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mitolume.inference.tiled import CORE, padded_shape, read_padded, run_window
from mitolume.inference.tiles import tiles
from mitolume.models.networks import HALO, MULTIPLE

Features = np.ndarray[Any, np.dtype[np.float32]]

# The blocks that lead down to the lowest level, of each network of the table.
_ENCODERS = {
    "BasicUNet": ("conv_0", "down_1", "down_2", "down_3", "down_4"),
    "BasicUNetPlusPlus": ("conv_0_0", "conv_1_0", "conv_2_0", "conv_3_0", "conv_4_0"),
}


class Encoder(nn.Module):
    """The way down of a network, without the way up: less than half of the work.

    Parameters
    ----------
    network
        A `SegmentationNetwork`, whose weights are shared, not copied.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        names = _ENCODERS[type(network.body).__name__]
        self.blocks = nn.Sequential(*(getattr(network.body, name) for name in names))

    def forward(self, images: Tensor) -> Tensor:
        """Compute the activations of the lowest level.

        Parameters
        ----------
        images
            (B, C, Y, X), normalised; Y and X multiples of 16.

        Returns
        -------
        torch.Tensor
            (B, 16 x width, Y / 16, X / 16).
        """
        result: Tensor = self.blocks(images.contiguous(memory_format=torch.channels_last))
        return result


@torch.inference_mode()
def features(network: nn.Module, image: Any, *, core: int = CORE) -> Features:
    """Average the activations of a network's lowest level over an image, tile by tile.

    The mean over the pixels is the usual summary of a layer for telling how unlike an image is
    (Lee et al., NeurIPS 2018); the lowest level of U-Nets was used so by Woodland et al. (MELBA
    2024:020).

    Parameters
    ----------
    network
        A `SegmentationNetwork` in evaluation mode.
    image
        (Y, X) or (C, Y, X), float32, prepared.
    core
        Side of the tiles' cores, a multiple of 16; it changes memory, not results.

    Returns
    -------
    numpy.ndarray
        (16 x width,) float32.
    """
    image = np.asarray(image)
    device = next(network.parameters()).device
    encoder = Encoder(network)
    padded = padded_shape(image)
    total: Any = 0.0
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for tile in tiles(padded, core, HALO, MULTIPLE):
            y, x = (slice(s.start // MULTIPLE, s.stop // MULTIPLE) for s in tile.crop)
            found = run_window(encoder, read_padded(image, tile.read).to(device))[:, y, x]
            total = total + found.double().sum(dim=(1, 2)).cpu().numpy()
    mean = total / (padded[0] // MULTIPLE * padded[1] // MULTIPLE)
    return np.asarray(mean, np.float32)
