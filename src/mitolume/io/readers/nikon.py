"""Nikon's ND2. Knows no other format."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from mitolume.io.readers.common import Opened, Stated, light


def open_file(path: Path) -> Opened:
    """List the positions of an ND2; all channels of a frame are one chunk, as in the file."""
    from bioio_nd2 import Reader

    reader = Reader(path)

    def array(scene: int) -> xr.DataArray:
        reader.set_scene(scene)
        image: xr.DataArray = reader.xarray_dask_data
        return image

    return Opened([str(name) for name in reader.scenes], array)


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
    return Stated(size, {}, names, tuple(lights), volume.bitsPerComponentSignificant)
