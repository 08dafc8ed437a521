"""ND2, PNG and JPEG, by bioio's readers."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from mitolume.io.readers import Opened, Stated, light


def open_file(path: Path) -> Opened:
    """List the positions of an ND2 (a frame with all its channels is a chunk), or a picture.

    A picture's palette is resolved to grey or colours.
    """
    if path.suffix.lower() == ".nd2":
        from bioio_nd2 import Reader
    else:
        from bioio_imageio import Reader

    reader = Reader(path)

    def array(scene: int) -> xr.DataArray:
        reader.set_scene(scene)
        image: xr.DataArray = reader.xarray_dask_data
        return image

    return Opened([str(name) for name in reader.scenes], array)


def stated(path: Path, scene: int) -> Stated:
    """Read what NIS-Elements calibrated, and the channels' names, flags and emission.

    A picture states nothing: its dots per inch are not a pixel size.
    """
    if path.suffix.lower() != ".nd2":
        return Stated()
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
    return Stated(size, {}, names, tuple(lights))
