"""A network over a plane of any size, tile by tile. Knows no chain and no file."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from torch import nn

from mitolume.errors import MitolumeError
from mitolume.inference.tiles import Box, shifted, tiles, turned_back_box, turned_box, whole
from mitolume.io.windows import Plane
from mitolume.models.networks import HALO, MULTIPLE

Probability = np.ndarray[Any, np.dtype[np.float32]]

# Side of a tile's core: with the halo, 992 px at once. 1,024 would compute a sixth fewer pixels
# twice, but a large image then took 3 GB with a network of width 16.
CORE = 768
# Side of the smallest window that the network is given of a larger plane: for few pixels at its
# lowest level, oneDNN sums channels in another order, and the last bit would depend on the tiles.
LEAST = 736
_GLIBC = platform.libc_ver()[0] == "glibc"
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of <malloc.h>


@torch.inference_mode()
def predict_tiled(
    network: nn.Module,
    image: Plane,
    *,
    core: int = CORE,
    box: Box | None = None,
    least: int = LEAST,
    activation: Callable[[Any], Any] = expit,
) -> Probability:
    """Run a network over a prepared plane in tiles; equal to one pass over the whole plane.

    Parameters
    ----------
    network
        Takes and gives (B, 1, Y, X); in evaluation mode.
    image
        (Y, X) float32, prepared; or boxes of it have channels, (C, Y, X).
    core
        Side of the tiles' cores, a multiple of 16.
    box
        The part that is wanted; the whole plane by default.
    least
        Side of the smallest window to compute, a multiple of 16.
    activation
        What becomes of the network's answer, pixel by pixel.

    Returns
    -------
    numpy.ndarray
        (Y, X) float32, as large as the box; the probability, where the network gives logits.
    """
    device = next(network.parameters()).device
    shape = (image.shape[0], image.shape[1])
    y, x = box or whole(shape)
    padded_shape = (padded_size(shape[0]), padded_size(shape[1]))
    result = np.empty((y.stop - y.start, x.stop - x.start), np.float32)
    # Without this a GPU would round to TF32, and the answer would depend on the tiles.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for tile in tiles(padded_shape, core, HALO, MULTIPLE, (y, x), least):
            part = torch.from_numpy(read_padded(image, tile.read))
            answer = run_window(network, part.to(device))[0][tile.crop].float().cpu().numpy()
            here = shifted(tile.write[0], -y.start), shifted(tile.write[1], -x.start)
            # Not torch's sigmoid, whose last bit depends on where in memory a pixel lies.
            result[here] = activation(answer)
    return result


def predict_turned(
    network: nn.Module,
    image: Plane,
    turns: Sequence[int],
    *,
    core: int = CORE,
    box: Box | None = None,
    activation: Callable[[Any], Any] = expit,
) -> Probability:
    """Do as `predict_tiled` does, averaged over some of the 8 flips and quarter turns.

    Parameters
    ----------
    network, image, core, box, activation
        As for `predict_tiled`.
    turns
        Which, see `turned_box`; (0,) is the image as it is.
    """
    shape = (image.shape[0], image.shape[1])
    box = box or whole(shape)
    if tuple(turns) == (0,):
        return predict_tiled(network, image, core=core, box=box, activation=activation)
    total = np.zeros([part.stop - part.start for part in box], np.float32)
    for turn in turns:
        there = turned_box(box, shape, turn)
        turned = _Turned(image, turn)
        part = predict_tiled(network, turned, core=core, box=there, activation=activation)
        total += _turned_back(part, turn)
    return np.divide(total, len(turns), out=total)


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


def run_window(network: nn.Module, part: torch.Tensor) -> torch.Tensor:
    """Run a network on one window, (Y, X) or (C, Y, X), to its channels (C, Y, X)."""
    height, width = part.shape[-2:]
    try:
        result: torch.Tensor = network(part.reshape(1, -1, height, width))[0]
    except torch.OutOfMemoryError:
        raise MitolumeError(
            f"the graphics card has too little memory for {height} x {width} pixels "
            "at once; choose a smaller tile size (--tile-size of `mitolume predict`)"
        ) from None
    return result


def padded_size(size: int) -> int:
    """Return the next multiple of 16."""
    return int(-(-size // MULTIPLE) * MULTIPLE)


def read_padded(image: Plane, box: Box) -> Probability:
    """Read a box that may reach past the plane's far edges, where it is mirrored."""
    inside = tuple(slice(p.start, min(p.stop, n)) for p, n in zip(box, image.shape, strict=True))
    margin = [(0, part.stop - cut.stop) for part, cut in zip(box, inside, strict=True)]
    pixels = image[inside[0], inside[1]]
    # Symmetric works for sides shorter than the margin, down to one pixel.
    if np.any(margin):
        pixels = np.pad(pixels, [(0, 0)] * (pixels.ndim - 2) + margin, mode="symmetric")
    # torch warns of what it may not write to, such as a memory map.
    return np.require(pixels, np.float32, ["C", "W"])


class _Turned:
    """A plane after one of the 8 flips and quarter turns, read box by box."""

    def __init__(self, plane: Plane, turn: int) -> None:
        self._plane, self._turn = plane, turn
        height, width = plane.shape
        self.shape: tuple[int, ...] = (height, width) if turn % 2 == 0 else (width, height)

    def __getitem__(self, box: Box, /) -> Probability:
        shape = (self._plane.shape[0], self._plane.shape[1])
        return _turned(self._plane[turned_back_box(box, shape, self._turn)], self._turn)


def _turned(image: Probability, turn: int) -> Probability:
    flipped = image[..., ::-1] if turn >= 4 else image
    return np.ascontiguousarray(np.rot90(flipped, turn % 4, (-2, -1)))


def _turned_back(image: Probability, turn: int) -> Probability:
    back = np.rot90(image, -(turn % 4))
    return back[:, ::-1] if turn >= 4 else back
