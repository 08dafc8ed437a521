"""The networks a recipe can name. Knows no loss and no training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mitolume.models.settings import NetworkSettings

# Four halvings: image sides must be multiples of 16. Two 3 x 3 convolutions at each level going
# down and up see 92 px to each side, 107 px with the alignment to multiples of 16.
LEVELS = 4
MULTIPLE = 2**LEVELS
HALO = 7 * MULTIPLE


def unet(width: int) -> nn.Module:
    """Build a U-Net (Ronneberger et al. 2015), MONAI's `BasicUNet`."""
    from monai.networks.nets import BasicUNet

    network: nn.Module = BasicUNet(**_options(width))
    return network


def unetplusplus(width: int) -> nn.Module:
    """Build a U-Net++ (Zhou et al. 2018), MONAI's `BasicUNetPlusPlus`, without deep supervision."""
    from monai.networks.nets import BasicUNetPlusPlus

    network: nn.Module = BasicUNetPlusPlus(**_options(width))
    return network


MODELS: dict[str, Callable[[int], nn.Module]] = {"unet": unet, "unetplusplus": unetplusplus}


class SegmentationNetwork(nn.Module):
    """A network of the table, giving one plain tensor of logits.

    Parameters
    ----------
    settings
        Which network, and how wide.
    seed
        Of the initial weights; the global random state is left as it was.
    """

    def __init__(self, settings: NetworkSettings, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.body = MODELS[settings.name](settings.width)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits.

        Parameters
        ----------
        images
            (B, 1, Y, X), normalised; Y and X multiples of 16.

        Returns
        -------
        torch.Tensor
            (B, 1, Y, X) logits of the foreground.
        """
        logits = self.body(images.contiguous(memory_format=torch.channels_last))
        # MONAI's U-Net++ gives a list, one entry for each depth that is supervised.
        result: Tensor = logits[-1] if isinstance(logits, list) else logits
        return result


def _options(width: int) -> dict[str, object]:
    return {
        "spatial_dims": 2,
        "in_channels": 1,
        "out_channels": 1,
        "features": (width, 2 * width, 4 * width, 8 * width, 16 * width, width),
        "act": ("relu", {"inplace": True}),
        # Instance norm, MONAI's default, takes its statistics from the tile: the answer would
        # then depend on the tiling.
        "norm": "batch",
    }
