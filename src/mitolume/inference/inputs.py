"""What a network sees of an image: planes and channels around a plane, each prepared once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import xarray as xr

from mitolume.inference.chain import PreparedPlane
from mitolume.inference.denoise import Denoiser, NormalisedPlane, planes_around
from mitolume.inference.tiles import Box, whole
from mitolume.io.pixel_size import plane_pixel_size
from mitolume.io.windows import Plane, levelled, open_plane
from mitolume.models.settings import InputSettings
from mitolume.preprocess.normalise import is_flat
from mitolume.preprocess.settings import ChainSettings
from mitolume.preprocess.stripes import remove_stripes, without_stripes

Image = np.ndarray[Any, np.dtype[np.float32]]

# Which planes `auto` takes (docs/inputs.md). Planes up to 1 µm away show the same mitochondrion in
# transmitted light; from 2 µm on they don't, and in electron microscopy, in steps of 5 and 50 nm,
# no gain was shown.
LEAST_STEP_UM = 0.1
REACH_UM = 1.5
MOST_BESIDE = 3  # planes before, and as many behind


def settled_inputs(inputs: InputSettings, stacks: Sequence[xr.DataArray]) -> InputSettings:
    """Settle how many planes a network sees, and how far apart they are.

    Parameters
    ----------
    inputs
        With ``planes`` ``auto``, or ``step_um`` open.
    stacks
        The training images, dims ``T C Z Y X``.

    Returns
    -------
    InputSettings
        Where most images are stacks with a known z-step of `LEAST_STEP_UM` or more, ``auto``
        becomes the plane itself and those within `REACH_UM`, evenly spread and `MOST_BESIDE` at
        most before and behind, as far as the median stack has them around its middle; else 1.
        ``step_um`` becomes their distance, where the z-step is known and planes are several.
    """
    beside = np.median([image.sizes["Z"] for image in stacks]) // 2
    known = [size["Z"] for image in stacks if "Z" in (size := image.attrs.get("pixel_size_um", {}))]
    z_step = float(np.median(known)) if known else None
    planes, step = inputs.planes, inputs.step_um
    if planes == "auto":
        planes = 1
        if z_step is not None and z_step >= LEAST_STEP_UM:
            within = int(min(REACH_UM, beside * z_step) / (step or z_step) + 1e-6)
            planes = 1 + 2 * min(within, MOST_BESIDE)
            z_step *= max(1, within // MOST_BESIDE)
    step = step or (z_step if planes > 1 else None)
    return inputs.model_copy(update={"planes": planes, "step_um": step})


def unlike_stack(inputs: InputSettings, image: xr.DataArray) -> str:
    """Say how the planes of a stack differ from those that a network has learnt to see.

    Returns
    -------
    str
        What is to be said of such images where there are too few, or where their distance is
        unknown or differs by more than a quarter; else "".
    """
    if inputs.planes == 1:
        return ""
    asks = f"the model sees {inputs.planes} planes"
    if image.sizes["Z"] < 2:
        return f"{asks}, but this is a single one, which is taken for all"
    step = image.attrs.get("pixel_size_um", {}).get("Z")
    if inputs.step_um is None:
        return ""
    if step is None:
        return (
            f"{asks} {inputs.step_um:g} µm apart, but the z-step is unknown: write it into column "
            "`z_step_um` of a table (--fields), if it is another"
        )
    found = inputs.offsets(step)[2] * step
    if not 0.8 <= found / inputs.step_um <= 1.25:
        return f"{asks} {inputs.step_um:g} µm apart, but these are {found:g} µm apart"
    return ""


class NetworkInput:
    """A plane with what a network sees beside it; slices like an array (Y, X).

    Parameters
    ----------
    channels
        The planes of each channel: first the plane itself, then outward from it. All planes of a
        channel have the grey range of the first, so that what changes through focus is seen.

    Attributes
    ----------
    shape
        (Y, X) on the model's grid.
    """

    def __init__(self, channels: Sequence[Sequence[PreparedPlane]]) -> None:
        self._channels = channels
        self.shape = self.plane.shape

    @property
    def plane(self) -> PreparedPlane:
        """The plane that is segmented: the first one of the first channel."""
        return self._channels[0][0]

    def __getitem__(self, box: Box, /) -> Image:
        """Compute a box on the model's grid, (C, Y, X) float32."""
        return np.stack(
            [plane.normalised(box, planes[0].grey) for planes in self._channels for plane in planes]
        )

    def grey_values(self, box: Box) -> np.ndarray[Any, Any]:
        """Compute a box on the model's grid, (C, Y, X), before it is normalised."""
        return np.stack([plane.pixels[box] for planes in self._channels for plane in planes])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Image:
        """Compute it whole."""
        return self[whole(self.shape)]


class InputReader:
    """The planes of one image as a network sees them, each read and prepared once.

    Planes are kept until those that need them are past, when they are asked for in their order.

    Parameters
    ----------
    image
        Dims ``T C Z Y X``, the channels those of the network in its order.
    inputs
        What the network sees.
    chain
        The steps before the network. Denoising and sharpening are for the first channel.
    denoiser
        Needed where the chain has one.
    model_um
        The model's pixel size.
    unlabelled
        Whether the image is one of the unlabelled training images.

    Raises
    ------
    MitolumeError
        The pixel sizes don't fit, when the first plane is asked for.
    """

    def __init__(
        self,
        image: xr.DataArray,
        inputs: InputSettings,
        chain: ChainSettings,
        *,
        denoiser: Denoiser | None = None,
        model_um: float | None = None,
        unlabelled: bool = False,
    ) -> None:
        self.image = image = levelled(image)
        self.offsets = inputs.offsets(image.attrs.get("pixel_size_um", {}).get("Z"))
        self._chain, self._denoiser = chain, denoiser
        self._options: dict[str, Any] = {
            "pixel_size_um": plane_pixel_size(image),
            "model_um": model_um,
            "unlabelled": unlabelled,
            "source": image.attrs.get("source", "the image"),
        }
        reach = 2 * max(self.offsets) + 1
        self._prepared = lru_cache(reach * image.sizes["C"])(self._prepare)
        self._cleaned = lru_cache(reach + 4)(self._clean)

    def at(self, z: int, t: int = 0) -> NetworkInput:
        """Return what the network sees of a plane; beyond an end of the stack its last plane.

        A plane beside it that is one flat grey, as it was never recorded, is beyond the end.
        """
        last = self.image.sizes["Z"] - 1
        planes = [min(max(z + offset, 0), last) for offset in self.offsets]
        for place, near in enumerate(planes):
            while is_flat(self._prepared(0, t, near).grey) and near != z:
                near += 1 if near < z else -1
            planes[place] = near
        return NetworkInput(
            [[self._prepared(c, t, near) for near in planes] for c in range(self.image.sizes["C"])]
        )

    def _prepare(self, c: int, t: int, z: int) -> PreparedPlane:
        """Send a plane through the chain: at once where it is small, else window by window."""
        if c > 0:
            own = ChainSettings(stripes=self._chain.stripes)
            return PreparedPlane(self._open(c, t, z), own, **self._options)
        if not self._chain.denoises:
            return PreparedPlane(self._open(c, t, z), self._chain, **self._options)
        first, last = (self._last_recorded(t, z, step) for step in (-1, 1))
        around = planes_around(z - first, last - first + 1)
        return PreparedPlane(
            self._cleaned(t, z).plane,
            self._chain.model_copy(update={"stripes": "none"}),
            denoiser=self._denoiser,
            neighbours=[self._cleaned(t, first + near) for near in around],
            **self._options,
        )

    def _last_recorded(self, t: int, z: int, step: int) -> int:
        """Return the last plane from ``z`` on, of two, before one that was never recorded."""
        last = z
        for near in (z + step, z + 2 * step):
            beyond = not 0 <= near < self.image.sizes["Z"]
            if beyond or is_flat(self._cleaned(t, near).grey):
                break
            last = near
        return last

    def _clean(self, t: int, z: int) -> NormalisedPlane:
        """Return a plane of the first channel without scan lines, as a denoiser looks at it."""
        plane: Any = self._open(0, t, z)
        if self._chain.stripes == "auto":
            small = isinstance(plane, np.ndarray)
            plane = remove_stripes(plane) if small else without_stripes(plane)
        return NormalisedPlane(plane)

    def _open(self, c: int, t: int, z: int) -> Plane:
        return open_plane(self.image.isel(C=[c]), z=z, t=t)
