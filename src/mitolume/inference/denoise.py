"""A trained denoiser applied to planes of any size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import nn

from mitolume.inference.tiled import CORE, predict_tiled, release_buffers
from mitolume.inference.tiles import Box, around, block_side, blocks, grown, inside, shifted, whole
from mitolume.io.windows import Plane
from mitolume.io.zarr_out import CHUNK
from mitolume.models.bundle import DenoiserCard, load_denoiser
from mitolume.models.networks import HALO, MULTIPLE, DenoisingNetwork, to_device
from mitolume.preprocess.normalise import GreyRange, is_flat, measure_range, normalise
from mitolume.preprocess.wiener import REACH, Detail, SignalNoise, WienerBank, signal_and_noise

FLIPS = (0, 2, 4, 6)  # along Y, X, both: noise of a scan line stays along the rows
_WEAKEST = 0.015  # noise (standard deviation), of a plane's spread, that is worth removing
_SQUARE = 1024  # pixels a side that are filtered at once
_MOST_KEPT = 2**24  # pixels of a plane up to which it is kept filtered, for its neighbours
Image = np.ndarray[Any, np.dtype[np.float32]]
T = TypeVar("T")


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
        self.network = to_device(network, device)
        self.core = core

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
        return Detail(*self.network.detail.cpu().double().numpy())

    def blocks(self, shape: tuple[int, int]) -> list[Box]:
        """Cut a plane of a (Y, X) shape into the boxes to denoise one after the other."""
        return blocks(shape, block_side(shape, shape, self.core, CHUNK))


class NormalisedPlane:
    """A plane of mean 0 and spread 1; slices like an array.

    What is measured on the whole plane is measured once, when it is first needed.

    Parameters
    ----------
    plane
        (Y, X), any numeric dtype.
    """

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.shape = (plane.shape[0], plane.shape[1])

    @classmethod
    def of(cls, plane: Plane) -> NormalisedPlane:
        """Return a plane that is normalised already, or wrap one that isn't."""
        return plane if isinstance(plane, cls) else cls(plane)

    @cached_property
    def grey(self) -> GreyRange:
        """The range of the whole plane."""
        return measure_range(self.plane)

    @cached_property
    def found(self) -> SignalNoise:
        """Signal and noise of the whole plane."""
        return signal_and_noise([self])

    @property
    def is_clean(self) -> bool:
        """Whether its noise is so weak that it can't be told from fine detail."""
        return float(self.found.noise.mean()) < _WEAKEST**2

    def __getitem__(self, box: Box, /) -> Image:
        """Compute a box, (Y, X) float32."""
        return normalise(self.plane[box], self.grey)

    def filtered(self, box: Box) -> Image:
        """Compute a box of the plane filtered by its own spectrum, (Y, X) float32."""
        if self.shape[0] * self.shape[1] > _MOST_KEPT:
            return self._filter(box)
        return self._filtered[box]

    @cached_property
    def _filtered(self) -> Image:
        return self._filter(whole(self.shape))

    @cached_property
    def _bank(self) -> WienerBank:
        return WienerBank(self.found)

    def _filter(self, box: Box) -> Image:
        def filter_square(square: Box) -> Image:
            outer = grown(square, REACH, self.shape)
            return self._bank.filter(self[outer])[inside(square, outer)]

        return _in_squares(filter_square, box)


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
        self._given: Sequence[Callable[[Box], Image]] = []
        if denoiser.network.channels == 1:
            self._given = [self._plane.__getitem__]
        elif neighbours:
            near = nearest(neighbours, denoiser.network.channels)
            self._given = [NormalisedPlane.of(other).filtered for other in near]
        self.shape = (plane.shape[0], plane.shape[1])

    def __getitem__(self, box: Box, /) -> Image:
        """Compute a box, (Y, X) float32."""
        plane, network = self._plane, self._denoiser.network
        # A network that sees the plane decides for itself what is noise.
        if is_flat(plane.grey) or (network.channels != 1 and plane.is_clean):
            return plane.plane[box].astype(np.float32)

        def denoise_square(square: Box) -> Image:
            change = self._change(square)
            return plane.plane[square].astype(np.float32) + np.float32(plane.grey.spread) * change

        result = _in_squares(denoise_square, box)
        release_buffers()
        return result

    def _change(self, box: Box) -> Image:
        """Return what is added to the normalised plane."""
        if not self._given:
            return self._plane.filtered(box) - self._plane[box]
        denoiser = self._denoiser
        outer = grown(box, REACH, self.shape)
        plane = self._plane[outer]
        halo = HALO if denoiser.network.channels != 2 else 0
        window = around(outer, self.shape, halo, MULTIPLE)
        given = [read(window) for read in self._given]
        here = inside(outer, window)
        answer = run_network(denoiser.network, given, FLIPS, box=here, core=denoiser.core)
        sd = np.float32(np.sqrt(self._plane.found.floor))
        answer += sd * self._bank.filter((plane - answer) / sd)
        share = np.float32(denoiser.network.share.item())
        return np.asarray(share * (answer - plane)[inside(box, outer)], np.float32)

    @cached_property
    def _bank(self) -> WienerBank:
        return self._denoiser.detail.bank(self._plane.found)


def _in_squares(compute: Callable[[Box], Image], box: Box) -> Image:
    """Compute a box of a plane in squares of at most 1,536 px a side, so that memory stays flat."""
    y, x = box
    height, width = y.stop - y.start, x.stop - x.start
    result = np.empty((height, width), np.float32)
    for rows, columns in blocks((height, width), _SQUARE):
        result[rows, columns] = compute((shifted(rows, y.start), shifted(columns, x.start)))
    return result


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


def nearest(around: Sequence[T], channels: int) -> Sequence[T]:
    """Return as many of `planes_around` as a network sees: of two on each side the nearer ones."""
    skipped = (len(around) - channels) // 2
    return around[skipped : len(around) - skipped]


def run_network(
    network: DenoisingNetwork,
    given: Sequence[Image],
    turns: Sequence[int] = (0,),
    *,
    box: Box | None = None,
    core: int = CORE,
) -> Image:
    """Send prepared planes, (Y, X) each, through a denoising network; nothing is given back.

    Averaged over the flips ``turns``, see `turned_box`. Where a network takes two planes, the
    answer is their mean.
    """
    if network.channels == 2:
        mean = np.asarray((given[0] + given[1]) / 2, np.float32)
        return mean if box is None else mean[box]
    pixels = np.stack(given)
    return predict_tiled(network, pixels, turns, activation=nn.Identity(), core=core, box=box)
