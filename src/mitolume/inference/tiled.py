"""A network over a plane of any size, tile by tile."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mitolume.errors import MitolumeError
from mitolume.inference.tiles import Box, around, inside, shifted, tiles, turned_box, whole
from mitolume.io.windows import Plane
from mitolume.models.networks import HALO, MULTIPLE

Image = np.ndarray[Any, np.dtype[np.float32]]
Probability = Image

CORE = 768  # side of a tile's core: with the halo, 992 px at once; larger ones take more memory
_GLIBC = platform.libc_ver()[0] == "glibc"
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of <malloc.h>


@torch.inference_mode()
def predict_tiled(
    network: nn.Module,
    image: Any,
    *,
    core: int = CORE,
    box: Box | None = None,
    activation: Callable[[Tensor], Tensor] = torch.sigmoid,
) -> Image:
    """Run a network over a prepared plane in tiles; equal to one pass over the whole plane.

    Parameters
    ----------
    network
        Takes and gives (B, C, Y, X), and gives one channel; in evaluation mode.
    image
        (Y, X) or (C, Y, X), float32, prepared.
    core
        Side of the tiles' cores, a multiple of 16.
    box
        The part to compute; the whole plane by default.
    activation
        What becomes of the network's answer, pixel by pixel.

    Returns
    -------
    numpy.ndarray
        (Y, X) float32, as large as the box; the probability, where the network gives logits.
    """
    image = np.asarray(image)
    device = next(network.parameters()).device
    y, x = box or whole(image.shape[-2:])
    result = np.empty((y.stop - y.start, x.stop - x.start), np.float32)
    # Without this a GPU would round to TF32.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for tile in tiles(padded_shape(image), core, HALO, MULTIPLE, (y, x)):
            part = read_padded(image, tile.read).to(device)
            answer = activation(run_window(network, part)[0][tile.crop].float())
            here = shifted(tile.write[0], -y.start), shifted(tile.write[1], -x.start)
            result[here] = answer.cpu().numpy()
    return result


def predict_turned(
    network: nn.Module,
    image: Any,
    turns: Sequence[int],
    *,
    core: int = CORE,
    box: Box | None = None,
    activation: Callable[[Tensor], Tensor] = torch.sigmoid,
) -> Image:
    """Do as `predict_tiled` does, averaged over some of the 8 flips and quarter turns.

    Parameters
    ----------
    network, image, core, box, activation
        As for `predict_tiled`.
    turns
        Which, see `turned_box`; (0,) is the image as it is.
    """
    image = np.asarray(image)
    shape = image.shape[-2:]
    box = box or whole(shape)
    total = np.zeros([part.stop - part.start for part in box], np.float32)
    for turn in turns:
        flipped = image[..., ::-1] if turn >= 4 else image
        turned = np.rot90(flipped, turn % 4, (-2, -1))
        there = turned_box(box, shape, turn)
        part = predict_tiled(network, turned, core=core, box=there, activation=activation)
        back = np.rot90(part, -(turn % 4))
        total += back[:, ::-1] if turn >= 4 else back
    return np.divide(total, len(turns), out=total)


def predict_window(
    network: nn.Module, plane: Plane, box: Box, *, turns: Sequence[int], core: int = CORE
) -> Probability:
    """Do as `predict_turned` does for a box of a plane, of which only what it needs is read.

    Parameters
    ----------
    network, turns, core
        As for `predict_turned`.
    plane
        (Y, X), prepared: an array, or what slices like one; boxes of it may be (C, Y, X).
    box
        The part to compute.
    """
    window = around(box, (plane.shape[0], plane.shape[1]), HALO, MULTIPLE)
    return predict_turned(network, plane[window], turns, core=core, box=inside(box, window))


def default_device() -> str:
    """Return the best device of this machine for prediction."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def keep_buffers() -> None:
    """Let this process keep the memory of most buffers, where its C library is glibc.

    By default it is handed back to the system after every layer of the network, and cleared page
    by page before the next: prediction on a processor took twice as long. Keeping the largest
    as well would leave too many gaps.
    """
    if _GLIBC:
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, 2**27)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def release_buffers() -> None:
    """Hand back what `keep_buffers` kept, before gaps between buffers add up."""
    if _GLIBC:
        ctypes.CDLL(None).malloc_trim(0)


def run_window(network: nn.Module, part: Tensor) -> Tensor:
    """Run a network on one window, (Y, X) or (C, Y, X), to its channels (C, Y, X)."""
    height, width = part.shape[-2:]
    try:
        result: Tensor = network(part.reshape(1, -1, height, width))[0]
    except torch.OutOfMemoryError:
        raise MitolumeError(
            f"the graphics card has too little memory for {height} x {width} pixels "
            "at once; choose a smaller tile size (--tile-size of `mitolume predict`)"
        ) from None
    return result


def padded_shape(image: Image) -> tuple[int, int]:
    """Return the (Y, X) of an image, enlarged to multiples of 16."""
    height, width = (int(-(-size // MULTIPLE) * MULTIPLE) for size in image.shape[-2:])
    return height, width


def read_padded(image: Image, box: Box) -> Tensor:
    """Cut a box that may reach past the image's far edges, where it is mirrored."""
    pixels = image[(..., *box)]
    sizes = [part.stop - part.start for part in box]
    margin = [(0, want - have) for want, have in zip(sizes, pixels.shape[-2:], strict=True)]
    # Symmetric works for sides shorter than the margin, down to one pixel.
    if np.any(margin):
        pixels = np.pad(pixels, [(0, 0)] * (pixels.ndim - 2) + margin, mode="symmetric")
    # torch warns of what it may not write to, such as a memory map.
    return torch.from_numpy(np.require(pixels, np.float32, ["C", "W"]))
