"""A network over a plane of any size, tile by tile."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mitolume.errors import TooLittleMemoryError
from mitolume.inference.tiles import Box, Shape, grown, inside, tiles, turned_box, whole
from mitolume.io.windows import Plane
from mitolume.models.networks import HALO, MULTIPLE, SegmentationNetwork, is_full
from mitolume.models.unet import UNet

Image = np.ndarray[Any, np.dtype[np.float32]]
Probability = Image

CORE = 1024  # side of a tile's core: with the halo, 1,216 px at once; larger take more memory
_GLIBC = platform.libc_ver()[0] == "glibc"


def predict_tiled(
    network: nn.Module, image: Any, turns: Sequence[int] = (0,), **options: Any
) -> Image:
    """Do what `launch_tiled` does, with its parameters, and return the answer as an array."""
    return launch_tiled(network, image, turns, **options).numpy(force=True)


@torch.inference_mode()
def launch_tiled(
    network: nn.Module,
    image: Any,
    turns: Sequence[int] = (0,),
    *,
    core: int = CORE,
    box: Box | None = None,
    activation: Callable[[Tensor], Tensor] = torch.sigmoid,
) -> Tensor:
    """Run a network over a prepared plane in tiles; equal to one pass over the whole plane.

    The answer stays on the network's device, and a graphics card is not waited for. Tiles are large
    enough to fill it one by one.

    Parameters
    ----------
    network
        Takes and gives (B, C, Y, X), and gives one channel; in evaluation mode.
    image
        (Y, X) or (C, Y, X), float32, prepared.
    turns
        Averaged over these of the 8 flips and quarter turns, see `turned_box`; (0,) is the image
        as it is.
    core
        Side of the tiles' cores, a multiple of 16.
    box
        The part to compute; the whole plane by default.
    activation
        What becomes of the network's answer, pixel by pixel.

    Returns
    -------
    Tensor
        (Y, X) float32, as large as the box; the probability, where the network gives logits.
    """
    weights, image = next(network.parameters()), np.asarray(image)
    shape = image.shape[-2:]
    box = box or whole(shape)
    total = torch.zeros([p.stop - p.start for p in box], device=weights.device)
    for turn in turns:
        turned = np.rot90(image[..., ::-1] if turn >= 4 else image, turn % 4, (-2, -1))
        here = turned_box(box, shape, turn)
        part = torch.empty([p.stop - p.start for p in here], device=weights.device)
        with _exact():
            for tile in tiles(_padded_shape(turned.shape[-2:]), core, HALO, MULTIPLE, here):
                pixels = _sent(_padded(turned[(..., *tile.read)], tile.read), weights)
                answer = activation(_run_window(network, pixels, tile.crop)[0].float())
                part[inside(tile.write, here)] = answer
        back = part.rot90(-(turn % 4))
        total += back.flip(1) if turn >= 4 else back
    return total.div_(len(turns))


def _sent(pixels: Tensor, weights: Tensor) -> Tensor:
    """Copy to where the weights are, in their precision; a card computes meanwhile."""
    cuda = weights.device.type == "cuda"
    pixels = pixels.pin_memory() if cuda else pixels
    return pixels.to(weights.device, weights.dtype, non_blocking=cuda)


@torch.inference_mode()
def features(network: nn.Module, plane: Plane, *, core: int = CORE) -> Image:
    """Average the activations of a network's lowest level over a plane, tile by tile.

    The mean over the pixels is the usual summary of a layer for telling how unlike an image is
    (Lee et al., NeurIPS 2018); the lowest level of U-Nets was used so by Woodland et al. (MELBA
    2024:020).

    Parameters
    ----------
    network
        A `SegmentationNetwork` in evaluation mode.
    plane
        (Y, X), prepared: an array, or what slices like one; boxes of it may be (C, Y, X).
    core
        Side of the tiles' cores, a multiple of 16; it changes memory, not results.
    """
    weights = next(network.parameters())
    encoder = encoder_of(network)
    height, width = plane.shape
    padded = _padded_shape((height, width))
    total: Any = 0.0
    with _exact():
        for tile in tiles(padded, core, HALO, MULTIPLE):
            y, x = (slice(s.start // MULTIPLE, s.stop // MULTIPLE) for s in tile.crop)
            rows, columns = tile.read
            rows = slice(rows.start, min(rows.stop, height))
            known = plane[rows, columns.start : min(columns.stop, width)]
            part = _sent(_padded(known, tile.read), weights)
            found = _run_window(encoder, part.contiguous(memory_format=torch.channels_last), (y, x))
            total = total + found.sum(dim=(1, 2)).cpu().double().numpy()
    mean = total / (padded[0] // MULTIPLE * padded[1] // MULTIPLE)
    return np.asarray(mean, np.float32)


def _exact() -> AbstractContextManager[None]:
    """Keep a GPU from rounding to TF32, and from kernels that add up in any order."""
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)


def encoder_of(network: nn.Module) -> nn.Module:
    """Return the way down of a `SegmentationNetwork`, with its weights: less than half the work."""
    body: Any = network.body
    return nn.Sequential(*(getattr(body, name) for name in body.encoder))


def release_buffers() -> None:
    """Hand back what the command line lets a process keep, before gaps between buffers add up."""
    if _GLIBC:
        ctypes.CDLL(None).malloc_trim(0)


def _run_window(network: nn.Module, part: Tensor, crop: Box) -> Tensor:
    """Run a network on one window (1, C, Y, X), to a crop of its channels (C, Y, X)."""
    try:
        if isinstance(network, SegmentationNetwork) and type(network.body) is UNet:
            return _run_unet(network.body, part, crop)
        result: Tensor = network(part)[0][(..., *crop)]
    except RuntimeError as error:
        if not is_full(error):
            raise
        height, width = part.shape[-2:]
        raise TooLittleMemoryError(
            f"the graphics card has too little memory for {height} x {width} pixels at once; with "
            "--device cpu, the processor computes"
        ) from None
    return result


def _run_unet(body: UNet, part: Tensor, crop: Box) -> Tensor:
    """Run a U-Net, whose way up computes no more than the crop needs: it is most of the work.

    The margins are what two convolutions at each level up see around the crop.
    """
    *found, here = body.down(part.contiguous(memory_format=torch.channels_last))
    at = whole((here.shape[-2], here.shape[-1]))
    for level, margin in ((4, 2), (3, 2), (2, 2), (1, 1)):
        y, x = (slice(s.start >> level, -(-s.stop >> level)) for s in crop)
        kept = grown((y, x), margin, (part.shape[-2] >> level, part.shape[-1] >> level))
        here = here[(..., *inside(kept, at))]
        y, x = (slice(2 * s.start, 2 * s.stop) for s in kept)
        here = getattr(body, f"upcat_{level}")(here, found.pop()[..., y, x])
        at = (y, x)
    answer: Tensor = body.final_conv(here)[0]
    return answer[(..., *inside(crop, at))]


def _padded_shape(shape: Shape) -> Shape:
    """Return a (Y, X) enlarged to multiples of 16."""
    height, width = (int(-(-size // MULTIPLE) * MULTIPLE) for size in shape)
    return height, width


def _padded(pixels: Image, box: Box) -> Tensor:
    """Return the pixels of a box, (1, C, Y, X), mirrored where it reaches past the far edges."""
    pixels = pixels.reshape(1, -1, *pixels.shape[-2:])
    sizes = [part.stop - part.start for part in box]
    margin = [(0, want - have) for want, have in zip(sizes, pixels.shape[-2:], strict=True)]
    # Symmetric works for sides shorter than the margin, down to one pixel.
    if np.any(margin):
        pixels = np.pad(pixels, [(0, 0), (0, 0), *margin], mode="symmetric")
    # torch warns of what it may not write to, such as a memory map.
    return torch.from_numpy(np.require(pixels, np.float32, ["C", "W"]))
