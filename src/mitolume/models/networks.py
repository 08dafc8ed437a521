"""The networks a recipe can name."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from mitolume.errors import MitolumeError
from mitolume.models.settings import DenoiserNetworkSettings, NetworkSettings
from mitolume.models.unet import UNet, UNetPlusPlus

# Four halvings: image sides must be multiples of 16. Two 3 x 3 convolutions at each level going
# down and up: a square of 16 px on that grid sees 94 px to each side.
MULTIPLE = 16
HALO = 6 * MULTIPLE
SPECTRUM = 64  # frequencies along each axis of what a denoiser knows of signal and noise
_GPUS = ("cuda", "mps")  # that are taken unasked: training knows no others
DEVICE = "MITOLUME_DEVICE"  # of the environment, so that processes side by side have it too
Network = TypeVar("Network", bound=nn.Module)
Precision = Literal["float32", "bfloat16"]


class SegmentationNetwork(nn.Module):
    """A U-Net or U-Net++ that returns one plain tensor of logits.

    Parameters
    ----------
    settings
        Name and width of the network.
    channels
        Number of planes that it takes, see `InputSettings.count`.
    seed
        Seed of the initial weights; the global random state does not change.
    """

    def __init__(self, settings: NetworkSettings, channels: int = 1, seed: int = 0) -> None:
        super().__init__()
        self.body = _body(settings, channels, True, seed)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, (B, 1, Y, X), of normalised images (B, C, Y, X).

        Y and X are multiples of 16.
        """
        answer: Tensor = self.body(images.contiguous(memory_format=torch.channels_last))
        return answer


class DenoisingNetwork(nn.Module):
    """A U-Net or U-Net++ that returns a plane without its noise.

    Parameters
    ----------
    settings
        Name and width of the network.
    channels
        1: it gets the plane itself. 4: it gets two planes before and two behind, and not the plane.
        2: there is no network, but the mean of the plane before and the one behind. 0: there is
        none, and planes are filtered alone.
    seed
        Seed of the initial weights; the global random state does not change.

    Attributes
    ----------
    detail
        (3, 64, 64): signal and noise of what the answers lack, and its share of the planes' signal.
    share
        (): how much of the change is made: all, but by denoisers of earlier versions.
    """

    detail: Tensor
    share: Tensor

    def __init__(self, settings: DenoiserNetworkSettings, channels: int = 1, seed: int = 0) -> None:
        super().__init__()
        self.channels, self.residual = channels, settings.residual
        learns, norm = channels in (1, 4), settings.norm == "batch"
        self.body = _body(settings, channels, norm, seed) if learns else nn.Identity()
        self.register_buffer("detail", torch.zeros(3, SPECTRUM, SPECTRUM))
        # Earlier versions read from it how noise grows with brightness.
        self.register_buffer("line", torch.tensor([1.0, 0.0, 1.0, 1.0]))
        self.register_buffer("share", torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, 1, Y, X) without noise, on the scale of the images (B, C, Y, X).

        Y and X are multiples of 16. Nothing is given back yet.
        """
        result: Tensor = self.body(images.contiguous(memory_format=torch.channels_last))
        if not self.residual:
            return result
        near = images[:, (self.channels - 1) // 2 : self.channels // 2 + 1]
        # In float32: bfloat16 would round the plane itself.
        return near.mean(1, keepdim=True) + result.float()


def _body(settings: NetworkSettings, channels: int, norm: bool, seed: int) -> nn.Module:
    kind = {"unet": UNet, "unetplusplus": UNetPlusPlus}[settings.name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body: Any = kind(channels, settings.width, norm)
    return cast(nn.Module, body.to(memory_format=torch.channels_last))


def find_device(name: str | torch.device | None = None) -> torch.device:
    """Return a device; by default what ``MITOLUME_DEVICE`` names, else a GPU if there is one.

    Raises
    ------
    MitolumeError
        There is no such device here.
    """
    gpu = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    name = name or os.environ.get(DEVICE) or (gpu.type if gpu and gpu.type in _GPUS else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError):  # the latter where torch knows no CUDA
        cards = torch.accelerator.device_count() if gpu else 0
        here = ["cpu", *(f"{gpu.type}:{n}" for n in range(cards) if gpu)]
        only = "there is only" if len(here) == 1 else "name one of"
        raise MitolumeError(f"there is no device '{name}' here; {only} {', '.join(here)}") from None


def find_cards() -> tuple[str, ...]:
    """Return the cards that processes side by side share out; none where a device was named."""
    cards = 0 if os.environ.get(DEVICE) else torch.cuda.device_count()
    return tuple(f"cuda:{number}" for number in range(cards))


def take_share(threads: int | None, cards: Sequence[str] | None) -> None:
    """Settle with what a process computes beside others; called in it by its task.

    Parameters
    ----------
    threads
        How many it may use at most; None for all of a cluster's worker.
    cards
        Those of this machine, which its processes take in turns; None on a cluster, whose workers
        have been given theirs (``MITOLUME_DEVICE``).
    """
    from distributed import get_worker

    worker = get_worker()
    if cards is None:
        threads = min(threads or worker.state.nthreads, worker.state.nthreads)
    elif cards:
        os.environ[DEVICE] = cards[worker.name % len(cards)]
    torch.set_num_threads(threads or 1)


def to_device(network: Network, device: str | None = None) -> Network:
    """Make a network ready to predict on a device, see `find_device`."""
    return network.to(find_device(device)).eval()


def is_full(error: BaseException) -> bool:
    """Tell whether a fault is that of a graphics card with too little memory."""
    return isinstance(error, torch.OutOfMemoryError) or "MPS backend out of memory" in str(error)


def resolve_precision(precision: str, device: str | torch.device | None = None) -> Precision:
    """Return float32 or bfloat16: ``auto`` is bfloat16 where the device computes in it.

    The device is by default that of `find_device`.
    """
    if precision != "auto":
        return cast(Precision, precision)
    kind = find_device(device).type
    native = False
    if kind == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif kind == "cpu":
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if native else "float32"


def for_prediction(network: Network, precision: str) -> Network:
    """Return a copy of a trained network that predicts the same in less time.

    Convolutions compute in ``precision`` (see `resolve_precision`), all but the last, whose answers
    must be fine enough for any threshold. In float32 they take in the normalisation after them. In
    bfloat16 they only pass on their bias: rounded, biases change masks more than all weights do.
    """
    fast: Any = copy.deepcopy(network).eval()
    for part in fast.modules():
        norm = getattr(getattr(part, "adn", None), "N", None)
        if isinstance(norm, nn.BatchNorm2d) and precision == "float32":
            part.conv = nn.utils.fuse_conv_bn_eval(part.conv, norm)
            part.adn.N = nn.Identity()
        elif isinstance(norm, nn.BatchNorm2d):
            norm.running_mean -= part.conv.bias.detach()
            part.conv.bias = None
    for name, layer in fast.body.named_modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and not name.startswith("final_conv"):
            layer.to(getattr(torch, precision))
    for name, layer in list(fast.body.named_children()):
        if name.startswith("final_conv"):
            setattr(fast.body, name, nn.Sequential(_Float32(), layer))
    return cast(Network, fast)


class _Float32(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.float()
