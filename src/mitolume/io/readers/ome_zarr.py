"""OME-Zarr 0.4 and 0.5: images, plates, labels, what bioformats2raw writes. Full size only.

By zarr: bioio-ome-zarr 3 reads neither plates nor the folders of bioformats2raw.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from mitolume.errors import MitolumeError
from mitolume.io.readers import MICROMETRES, Opened, Stated


@dataclass(frozen=True)
class _Part:
    """A scene: a folder, and which of its images."""

    name: str
    number: int
    path: Path


def open_file(path: Path) -> Opened:
    """List the images of a folder; a chunk is a chunk of the file."""
    import dask.array as da
    import zarr

    parts = _parts(path)

    def array(scene: int) -> xr.DataArray:
        part = parts[scene]
        multiscale = _metadata(part.path)["multiscales"][part.number]
        level = zarr.open_array(part.path / multiscale["datasets"][0]["path"], mode="r")
        axes = [axis["name"] if isinstance(axis, dict) else axis for axis in multiscale["axes"]]
        pixels = da.from_array(level, chunks=level.chunks)
        return xr.DataArray(pixels, dims=[str(axis).upper() for axis in axes])

    return Opened([part.name for part in parts], array)


def stated(path: Path, scene: int) -> Stated:
    """Read units and scales of the full size, and the labels of channels."""
    image = _parts(path)[scene]
    metadata = _metadata(image.path)
    multiscale = metadata["multiscales"][image.number]
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in multiscale["axes"]]
    scale = [1.0] * len(axes)
    for steps in (multiscale, multiscale["datasets"][0]):
        for transformation in steps.get("coordinateTransformations", ()):
            if transformation.get("type") == "scale":
                scale = [a * b for a, b in zip(scale, transformation["scale"], strict=True)]
    size: dict[str, float] = {}
    without: dict[str, float] = {}
    for axis, step in zip(axes, scale, strict=True):
        if (name := axis["name"].upper()) in "ZYX":
            unit = str(axis.get("unit") or "").lower()
            (size if unit in MICROMETRES else without)[name] = step * MICROMETRES.get(unit, 1)
    channels = metadata.get("omero", {}).get("channels", ())
    return Stated(size, without, tuple(str(c.get("label") or "") for c in channels))


def _parts(path: Path) -> list[_Part]:
    """List the images of an OME-Zarr folder: its own, those of a plate, or of bioformats2raw."""
    metadata = _metadata(path)
    if multiscales := metadata.get("multiscales"):
        names = [str(m.get("name") or f"Image:{i}") for i, m in enumerate(multiscales)]
        return [_Part(name, i, path) for i, name in enumerate(names)]
    if "plate" in metadata:
        inner = [well["path"] for well in metadata["plate"]["wells"]]
    elif "well" in metadata:
        inner = [image["path"] for image in metadata["well"]["images"]]
    elif "labels" in metadata:
        inner = list(metadata["labels"])
    elif "bioformats2raw.layout" in metadata:
        inner = sorted((p.name for p in path.iterdir() if p.name.isdecimal()), key=int)
    else:
        raise MitolumeError(
            f"{path} is a Zarr folder without the metadata of an OME-Zarr image; name the folder "
            "above or below it that has them, or save the array as OME-Zarr"
        )
    parts = []
    for name in inner:
        images = _parts(path / name)
        for image in images:
            own = image.path.relative_to(path).as_posix()
            several = len(images) > 1 and image.path == path / name
            parts.append(_Part(f"{own} {image.name}" if several else own, image.number, image.path))
    return parts


def _metadata(path: Path) -> dict[str, Any]:
    """Return the OME metadata of a Zarr group: under ``ome`` in 0.5, at the top in 0.4."""
    import zarr

    try:
        attributes = dict(zarr.open_group(path, mode="r").attrs)
    except (zarr.errors.ContainsArrayError, zarr.errors.GroupNotFoundError):
        return {}
    found = attributes.get("ome", attributes)
    return dict(found) if isinstance(found, dict) else {}
