"""A trained denoiser applied to planes of any size. Knows no training and no file of images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy.signal import oaconvolve
from torch import nn

from mitolume.inference.steps import StripelessPlane, grey_range
from mitolume.inference.tiled import (
    CORE,
    default_device,
    keep_buffers,
    predict_turned,
    release_buffers,
)
from mitolume.inference.tiles import Box, block_side, blocks, grown
from mitolume.io.windows import FilePlane, Plane
from mitolume.io.zarr_out import CHUNK
from mitolume.models.denoiser import DenoiserCard, load_denoiser
from mitolume.models.networks import DenoisingNetwork
from mitolume.preprocess.normalise import GreyRange, is_flat, normalise

FLIPS = (0, 2, 4, 6)  # along Y, X, both: noise of a scan line stays along the rows
Image = np.ndarray[Any, np.dtype[np.float32]]


class Denoiser:
    """A denoiser ready to use.

    Parameters
    ----------
    network
        Takes and gives planes (B, 1, Y, X) of mean 0 and spread 1.
    card
        What it is.
    device
        A torch device; the first GPU, or else the processor, by default.
    core
        Side of the tiles' cores in pixels, a multiple of 16: it changes memory, not results.
    """

    def __init__(
        self,
        network: DenoisingNetwork,
        card: DenoiserCard,
        *,
        device: str | None = None,
        core: int = CORE,
    ) -> None:
        self.card = card
        self.bundle: Path | None = None  # where it was loaded from
        self.device = torch.device(device or default_device())
        self.network = network.to(self.device).eval()
        self.core = core
        if self.device.type == "cpu":
            keep_buffers()

    @classmethod
    def load(cls, folder: str | Path, **options: Any) -> Denoiser:
        """Load a denoiser from its folder.

        Raises
        ------
        MitolumeError
            There is no denoiser in that place.
        """
        denoiser = cls(*load_denoiser(folder), **options)
        denoiser.bundle = Path(folder)
        return denoiser

    def denoise_plane(self, plane: Plane, neighbours: Sequence[Plane] = ()) -> Image:
        """Denoise one plane.

        Parameters
        ----------
        plane
            (Y, X), any numeric dtype: an array, or what slices like one.
        neighbours
            The planes around it, see `planes_around`; without them, a denoiser that looks at them
            filters the plane alone.

        Returns
        -------
        numpy.ndarray
            (Y, X) float32, on the grey values of the plane; a flat plane stays as it is.
        """
        if self.card.stripes == "auto":
            plane, *neighbours = (StripelessPlane(p) for p in (plane, *neighbours))
        denoised = DenoisedPlane(plane, self, neighbours)
        result = np.empty(denoised.shape, np.float32)
        for box in self.blocks(denoised.shape):
            result[box] = denoised[box]
        return result

    def blocks(self, shape: tuple[int, int]) -> list[Box]:
        """Cut a plane of a (Y, X) shape into the boxes to denoise one after the other."""
        return blocks(shape, block_side(shape, shape, self.core, CHUNK))


class DenoisedPlane:
    """A plane without its noise, computed box by box; slices like an array.

    The change, and not the answer, is scaled back to the plane's own grey values, so that pixels
    far beyond its range (`normalise` cuts them) keep their height.

    Parameters
    ----------
    plane
        (Y, X), any numeric dtype.
    denoiser
        What to denoise it with.
    neighbours
        The planes around it, see `planes_around`. Where the network needs them and there are none,
        the plane is filtered without it.
    """

    def __init__(self, plane: Plane, denoiser: Denoiser, neighbours: Sequence[Plane] = ()) -> None:
        network = denoiser.network
        self._denoiser = denoiser
        self._plane = NormalisedPlane(plane)
        self._given: list[Plane] = [self._plane]
        if network.channels != 1:
            self._given = [NormalisedPlane(other) for other in neighbours[: network.channels]]
        self._keep = (network.keep if self._given else network.alone).cpu().numpy()
        self.shape = (plane.shape[0], plane.shape[1])

    def __getitem__(self, box: Box, /) -> Image:
        """Compute a box, (Y, X) float32; its slices may have steps."""
        y, x = (slice(part.start, part.stop) for part in box)
        result = self._plane.plane[y, x].astype(np.float32)
        if not is_flat(self._plane.grey):
            result += np.float32(self._plane.grey.spread) * self._change((y, x))
            release_buffers()
        return result[:: box[0].step, :: box[1].step]

    def _change(self, box: Box) -> Image:
        """Return what is added to the normalised plane: the part of the answer not given back."""
        outer = grown(box, self._keep.shape[0] // 2, self.shape)
        change = -self._plane[outer]
        if self._given:
            change += run_network(
                self._denoiser.network, self._given, FLIPS, core=self._denoiser.core, box=outer
            )
        y, x = (
            slice(part.start - around.start, part.stop - around.start)
            for part, around in zip(box, outer, strict=True)
        )
        return np.asarray((change - _filtered(change, self._keep))[y, x], np.float32)


def _filtered(image: Image, kernel: Image) -> Image:
    """Filter an image by a kernel; it is mirrored at its edges."""
    reach = kernel.shape[0] // 2
    centre = kernel[reach, reach]
    if np.count_nonzero(kernel) == np.count_nonzero(centre):
        return np.asarray(centre * image)
    padded = np.pad(image, reach, mode="symmetric")
    return np.asarray(oaconvolve(padded, kernel, mode="valid"), np.float32)


def planes_around(z: int, depth: int) -> list[int]:
    """Return which planes a denoiser looks at: two before and two behind, never the plane itself.

    Where a stack ends, its last plane is taken twice, or those of the other side.

    Examples
    --------
    >>> planes_around(5, 9), planes_around(1, 9), planes_around(0, 9), planes_around(0, 1)
    ([3, 4, 6, 7], [0, 0, 2, 3], [2, 1, 1, 2], [])
    """
    if depth < 2:
        return []
    before = [max(z - 2, 0), max(z - 1, 0)]
    behind = [min(z + 1, depth - 1), min(z + 2, depth - 1)]
    if z == 0:
        before = behind[::-1]
    if z == depth - 1:
        behind = before[::-1]
    return [*before, *behind]


def open_neighbours(image: xr.DataArray, z: int, t: int = 0) -> list[Plane]:
    """Return the planes around one of an image (dims ``T C Z Y X``), still in their file."""
    return [FilePlane(image, z=near, t=t) for near in planes_around(z, image.sizes["Z"])]


def run_network(
    network: nn.Module, given: Sequence[Plane], turns: Sequence[int] = (0,), **options: Any
) -> Image:
    """Send prepared planes (Y, X) through a denoising network; nothing is given back.

    Parameters
    ----------
    network
        Takes and gives (B, C, Y, X).
    given
        The channels.
    turns
        Averaged over these flips, see `turned_box`.
    **options
        Passed to `predict_turned`.
    """
    return predict_turned(network, _Channels(given), turns, activation=np.asarray, **options)


class NormalisedPlane:
    """A plane of mean 0 and spread 1; slices like an array."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.shape = (plane.shape[0], plane.shape[1])

    @cached_property
    def grey(self) -> GreyRange:
        """The range of the whole plane, measured when it is first needed."""
        return grey_range(self.plane.__getitem__, self.shape)

    def __getitem__(self, box: Box, /) -> Image:
        """Compute a box, (Y, X) float32."""
        return normalise(self.plane[box], self.grey)


class _Channels:
    """Planes side by side; boxes are (C, Y, X)."""

    def __init__(self, planes: Sequence[Plane]) -> None:
        self._planes, self.shape = planes, planes[0].shape

    def __getitem__(self, box: Box, /) -> Image:
        return np.stack([plane[box] for plane in self._planes])
