"""A trained denoiser applied to planes of any size. Knows no training and no file of images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from mitolume.inference.filtered import NormalisedPlane
from mitolume.inference.steps import Channels, StripelessPlane
from mitolume.inference.tiled import (
    CORE,
    default_device,
    keep_buffers,
    predict_turned,
    release_buffers,
)
from mitolume.inference.tiles import Box, block_side, blocks, grown, inside, whole
from mitolume.io.windows import FilePlane, Plane
from mitolume.io.zarr_out import CHUNK
from mitolume.models.denoiser import DenoiserCard, load_denoiser
from mitolume.models.networks import DenoisingNetwork
from mitolume.preprocess.normalise import is_flat
from mitolume.preprocess.wiener import REACH, Detail, WienerBank

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

    @cached_property
    def detail(self) -> Detail:
        """What the network's answers lack."""
        signal, noise, left = self.network.detail.double().cpu().numpy()
        a, b, least, most = self.network.line.tolist()
        return Detail(signal, noise, left, (a, b, least, most))

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

    The network's answer lacks what it could not know, so part of the plane's difference to it is
    given back, see `mitolume.preprocess.wiener.Detail`. The change, and not the answer, is scaled
    back to the plane's own grey values, so that pixels far beyond its range (`normalise` cuts
    them) keep their height.

    Parameters
    ----------
    plane
        (Y, X), any numeric dtype.
    denoiser
        What to denoise it with.
    neighbours
        The planes around it, see `planes_around`. Where the network needs them and there are none,
        the plane is filtered alone.
    """

    def __init__(self, plane: Plane, denoiser: Denoiser, neighbours: Sequence[Plane] = ()) -> None:
        self._denoiser = denoiser
        self._plane = NormalisedPlane.of(plane)
        self._given: list[Plane] = []
        if denoiser.network.channels == 1:
            self._given = [self._plane]
        elif neighbours:
            skipped = (len(neighbours) - denoiser.network.channels) // 2
            near = neighbours[skipped : len(neighbours) - skipped]
            self._given = [NormalisedPlane.of(other).filtered for other in near]
        self.shape = (plane.shape[0], plane.shape[1])

    def __getitem__(self, box: Box, /) -> Image:
        """Compute a box, (Y, X) float32; its slices may have steps."""
        y, x = (slice(part.start, part.stop) for part in box)
        result = self._plane.plane[y, x].astype(np.float32)
        if not self._stays:
            result += np.float32(self._plane.grey.spread) * self._change((y, x))
            release_buffers()
        return result[:: box[0].step, :: box[1].step]

    @property
    def _stays(self) -> bool:
        """Whether the plane is to stay as it is; a network that sees it decides for itself."""
        plane, network = self._plane, self._denoiser.network
        return is_flat(plane.grey) or (network.channels != 1 and plane.is_clean)

    def _change(self, box: Box) -> Image:
        """Return what is added to the normalised plane."""
        if not self._given:
            return np.asarray(self._plane.filtered[box] - self._plane[box], np.float32)
        outer = grown(box, REACH, self.shape)
        plane, answer = self._plane[outer], self._answer(outer)
        detail, found = self._denoiser.detail, self._plane.found
        sd = detail.noise_sd(answer, found.floor)
        answer += sd * self._bank.filter((plane - answer) / sd)
        share = self._denoiser.network.share.item()
        return np.asarray(share * (answer - plane)[inside(box, outer)], np.float32)

    @cached_property
    def _bank(self) -> WienerBank:
        return self._denoiser.detail.bank(self._plane.found)

    def _answer(self, box: Box) -> Image:
        return run_network(
            self._denoiser.network, self._given, FLIPS, core=self._denoiser.core, box=box
        )


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
    network: DenoisingNetwork,
    given: Sequence[Plane],
    turns: Sequence[int] = (0,),
    *,
    box: Box | None = None,
    core: int = CORE,
) -> Image:
    """Send prepared planes (Y, X) through a denoising network; nothing is given back.

    Parameters
    ----------
    network
        Takes and gives (B, C, Y, X); or takes two planes, of which the answer is the mean.
    given
        The channels.
    turns
        Averaged over these flips, see `turned_box`.
    box, core
        As for `predict_turned`.
    """
    if network.channels == 2:
        box = box or whole((given[0].shape[0], given[0].shape[1]))
        return np.asarray((given[0][box] + given[1][box]) / 2, np.float32)
    channels = Channels(given)
    return predict_turned(network, channels, turns, activation=np.asarray, box=box, core=core)
