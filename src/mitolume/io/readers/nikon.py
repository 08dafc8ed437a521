"""Nikon's ND2. Knows no other format.

By nd2: bioio-nd2 2 reads no pixels where it stumbles over what is stated of the light.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr

from mitolume.io.readers import Opened, Stated, chunked, light, require_planes

_FRAME = "CYXS"  # the axes of what the camera takes at once


def open_file(path: Path) -> Opened:
    """List the positions; a frame with all its channels is a chunk."""
    import nd2

    with nd2.ND2File(path) as file:
        names = [loop.parameters.points for loop in file.experiment if loop.type == "XYPosLoop"]
        points = names[0] if names else [None]
    names = [getattr(one, "name", None) or f"XYPos:{i}" for i, one in enumerate(points)]
    return Opened(names, lambda scene: _array(path, scene))


def _array(path: Path, scene: int) -> xr.DataArray:
    """Return a position, unless it lacks frames: the library gives zeros."""
    import nd2

    with nd2.ND2File(path) as file:
        sizes, dtype = {axis: n for axis, n in file.sizes.items() if axis != "P"}, file.dtype
        outer = {axis: n for axis, n in sizes.items() if axis not in _FRAME}
        frames = {  # a loop of one step is no axis
            tuple(place.get(axis, 0) for axis in outer): number
            for number, place in enumerate(file.loop_indices)
            if place.get("P", 0) == scene
        }
        known = getattr(file._rdr, "_frame_offsets", None)  # not of files before 2012
    if known is not None:
        end = path.stat().st_size
        require_planes(path, outer, (known.get(number, end) < end for number in frames.values()))

    def load(box: dict[str, slice]) -> Any:
        with nd2.ND2File(path) as file:
            return file.read_frame(frames[tuple(box[axis].start for axis in outer)]).copy()

    return chunked(load, sizes, {axis: sizes[axis] for axis in _FRAME if axis in sizes}, dtype)


def stated(path: Path, scene: int) -> Stated:
    """Read what NIS-Elements calibrated, and the channels' names, flags and emission."""
    import nd2

    with nd2.ND2File(path) as file:
        sizes, metadata = file.sizes, file.metadata
        channels = list(getattr(metadata, "channels", None) or ())
        if not channels:
            return Stated()
        volume = channels[0].volume
        # Where Z was not calibrated, the library gives 1.
        size = {
            axis: float(value)
            for axis, value, known in zip(
                "XYZ", volume.axesCalibration, volume.axesCalibrated, strict=True
            )
            if known and (axis != "Z" or "Z" in sizes)
        }
        # The library's names of what a file only flags.
        words = {"diContrast": "DIC", "phaseContrast": "phase contrast"}
        lights = [
            light(
                [words.get(flag, flag) for flag in c.microscope.modalityFlags or ()],
                c.channel.emissionLambdaNm,
            )
            for c in channels
        ]
        names = tuple(str(c.channel.name or "") for c in channels)
    return Stated(size, channels=names, light=tuple(lights))
