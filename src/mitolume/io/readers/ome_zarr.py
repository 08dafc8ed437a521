"""OME-Zarr 0.1 to 0.5: images, plates, labels, what bioformats2raw writes. Full size only.

By zarr: bioio-ome-zarr 3 reads neither plates nor the folders of bioformats2raw.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from mitolume.errors import MitolumeError
from mitolume.io.readers import Opened, Stated, lengths


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
        axes = [axis["name"].upper() for axis in _axes(multiscale)]
        if len(axes) != level.ndim:
            raise MitolumeError(
                f"{path}: an OME-Zarr of version {multiscale.get('version', 'unknown')} that names "
                f"{len(axes)} axes ({' '.join(axes)}), but its pixels have {level.ndim}"
            )
        return xr.DataArray(da.from_array(level, chunks=level.chunks), dims=axes)

    return Opened([part.name for part in parts], array)


def stated(path: Path, scene: int) -> Stated:
    """Read units and scales of the full size, and the labels of channels."""
    image = _parts(path)[scene]
    metadata = _metadata(image.path)
    multiscale = metadata["multiscales"][image.number]
    axes = _axes(multiscale)
    scale: list[float] = []
    for steps in (multiscale, multiscale["datasets"][0]):
        for transformation in steps.get("coordinateTransformations", ()):
            if transformation.get("type") == "scale":
                own = transformation["scale"]
                scale = [a * b for a, b in zip(scale or [1.0] * len(own), own, strict=True)]
    said = {
        axis["name"].upper(): (step, axis.get("unit"))
        for axis, step in zip(axes, scale, strict=bool(scale))
        if axis["name"].upper() in "ZYX"
    }
    channels = metadata.get("omero", {}).get("channels", ())
    return Stated(*lengths(said), channels=tuple(str(c.get("label") or "") for c in channels))


def _axes(multiscale: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the axes of an image; before version 0.3 all had these five."""
    axes = multiscale.get("axes", "tczyx")
    return [axis if isinstance(axis, dict) else {"name": str(axis)} for axis in axes]


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
