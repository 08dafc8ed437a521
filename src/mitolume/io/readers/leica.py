"""Leica's LIF. Knows no other format.

By liffile: bioio-lif 2 drops the steps of a wavelength sweep and stumbles over colours.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mitolume.errors import MitolumeError
from mitolume.io.readers import Opened, Stated, chunked, lengths, light


@dataclass(frozen=True)
class _Part:
    """A scene: an image, or one tile of it."""

    name: str
    number: int
    tile: int | None = None


def open_file(path: Path) -> Opened:
    """List the images of a LIF, and each tile of those that were not merged."""
    import liffile

    with liffile.LifFile(path) as lif:
        parts = _parts(lif)
    if not parts:
        raise MitolumeError(f"{path} holds no image")
    return Opened([part.name for part in parts], lambda scene: _array(path, parts[scene]))


def stated(path: Path, scene: int) -> Stated:
    """Read the dimensions' lengths, and names and detectors of channels."""
    import liffile

    with liffile.LifFile(path) as lif:
        image = lif.images[_parts(lif)[scene].number].xml_element.find("Data/Image")
    if image is None:
        return Stated()
    size: dict[str, tuple[float, str | None]] = {}
    for dim in image.findall(".//Dimensions/DimensionDescription"):
        axis = {"1": "X", "2": "Y", "3": "Z"}.get(dim.get("DimID", ""))
        steps = int(dim.get("NumberOfElements", 0)) - 1
        if axis is None or steps < 1:
            continue
        # Leica's length goes from the centre of the first pixel to that of the last.
        size[axis] = abs(float(dim.get("Length", 0))) / steps, dim.get("Unit")
    channels = sorted(
        image.findall(".//Channels/ChannelDescription"), key=lambda c: int(c.get("BytesInc", 0))
    )
    detectors = [
        detector.get("Name", "")
        for setting in image.findall(".//ATLConfocalSettingDefinition")[:1]
        for detector in setting.findall("./DetectorList/Detector")
        if detector.get("IsActive") == "1"
    ]
    if len(detectors) != len(channels):
        detectors = [""] * len(channels)
    details = {d.get("LUT", ""): d for d in image.findall(".//WideFieldChannelInfo")}
    names, lights = [], []
    for channel, detector in zip(channels, detectors, strict=True):
        lut = channel.get("LUTName", "")
        keys = ("ContrastingMethodName", "FluoCubeName", "UserDefName")
        wide = [details[lut].get(key, "") for key in keys] if lut in details else []
        properties = [p.findtext("Value") or "" for p in channel.findall("ChannelProperty")]
        names.append(" ".join(dict.fromkeys(filter(None, [lut, *wide]))))
        lights.append(light([*wide, *properties, detector], None))
    return Stated(*lengths(size), channels=tuple(names), light=tuple(lights))


def _parts(lif: Any) -> list[_Part]:
    """List the scenes of an open LIF: its images, and each tile of those that were not merged."""
    images = list(lif.images)
    by_name = len({image.name for image in images}) == len(images)
    parts = []
    for number, image in enumerate(images):
        name = str(image.name if by_name else image.path)
        tiles = image.sizes.get("M", 1)
        parts += (
            [_Part(name, number)]
            if tiles == 1
            else [_Part(f"{name} tile {tile}", number, tile=tile) for tile in range(tiles)]
        )
    return parts


def _array(path: Path, part: _Part) -> xr.DataArray:
    """Return an image of a LIF, one chunk a frame; wavelengths become channels.

    A frame is what the microscope scanned at once: X and Y, or X and Z.
    """
    import liffile

    with liffile.LifFile(path) as lif:
        image = lif.images[part.number]
        if not isinstance(image, liffile.LifImage):
            raise MitolumeError(
                f"{path}, scene {part.name}, holds arrival times of photons (FLIM) and no "
                "picture; export its intensity in LAS X"
            )
        sizes, frame, dtype = dict(image.sizes), image.frames.frame_dims, image.dtype
        waves: dict[str, Any] = {axis: image.coords[axis] for axis in ("λ", "Λ") if axis in sizes}

    def load(box: dict[str, slice]) -> Any:
        with liffile.LifFile(path) as lif:
            image = lif.images[part.number]
            assert isinstance(image, liffile.LifImage)
            return image.frame(**{axis: box[axis].start for axis in box if axis not in frame})

    sizes = {axis: sizes[axis] for axis in (*(a for a in sizes if a not in frame), *frame)}
    array = chunked(load, sizes, {axis: sizes[axis] for axis in frame}, dtype)
    if part.tile is not None:
        array = array.isel(M=part.tile)
    return _waves_to_channels(array, waves) if waves else array


def _waves_to_channels(
    array: xr.DataArray, waves: dict[str, np.ndarray[Any, np.dtype[Any]]]
) -> xr.DataArray:
    """Make a channel of each step of a wavelength sweep, named by its wavelengths (in metres)."""
    steps = [[f"{metres * 1e9:.0f} nm" for metres in values] for values in waves.values()]
    if "C" in array.dims:
        steps.insert(0, [f"channel {i}" for i in range(array.sizes["C"])])
    merged = [axis for axis in ("C", *waves) if axis in array.dims]
    array = array.stack(merged=merged, create_index=False).rename(merged="C")
    return array.assign_coords(C=[" ".join(names) for names in product(*steps)])
