"""OME-Zarr 0.1 to 0.6: images, plates, labels, scenes, what bioformats2raw writes. Full size only.

A zip of one (``.ozx``, RFC-9) is read as its folder is; paths lead into it.

On the network, the chunks that are asked for are all that is fetched of an image.

By zarr: bioio-ome-zarr 3 reads neither plates nor the folders of bioformats2raw.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import xarray as xr

from mitolume.errors import MitolumeError, extra
from mitolume.io.readers import Opened, Stated, address, as_number, lengths, require_planes


@dataclass(frozen=True)
class _Part:
    """A scene: a folder, and which of its images."""

    name: str
    path: Path
    multiscale: dict[str, Any]
    metadata: dict[str, Any]  # of the folder


def open_file(path: Path) -> Opened:
    """List the images of a folder; a chunk is a chunk of the file."""
    import dask.array as da
    import zarr

    _refuse_cut_chunks()
    parts = _parts(path)

    @cache
    def opened(scene: int) -> tuple[Path, Any, list[str]]:
        multiscale = parts[scene].multiscale
        if not multiscale:
            raise MitolumeError(
                f"{path} names {parts[scene].name} as a part of it, which is not there or no image"
            )
        folder = parts[scene].path / multiscale["datasets"][0]["path"]
        level = zarr.open_array(**_place(folder))
        axes = [axis["name"].upper() for axis in _axes(multiscale)]
        if len(axes) != level.ndim:
            raise MitolumeError(
                f"{path}: an OME-Zarr of version {multiscale.get('version', 'unknown')} that names "
                f"{len(axes)} axes ({' '.join(axes)}), but its pixels have {level.ndim}"
            )
        return folder, level, axes

    def array(scene: int) -> xr.DataArray:
        _, level, axes = opened(scene)
        return xr.DataArray(da.from_array(level, chunks=level.chunks), dims=axes)

    def require_whole(scene: int) -> None:
        if address(path):  # it would be a question to the server for each plane
            return
        folder, level, axes = opened(scene)
        if "image-label" not in parts[scene].metadata:
            sizes = dict(zip(axes, level.shape, strict=True))
            require_planes(path, sizes, _are_there(folder, level, axes))

    return Opened([part.name for part in parts], array, require_whole=require_whole)


@cache
def _refuse_cut_chunks() -> None:
    """Check the length of Blosc chunks: numcodecs takes what lies behind a cut one in memory.

    zarr makes its decoder deep inside, so the check is put on the class, for the whole process: it
    refuses what can't be decoded rightly, and changes nothing else.
    """
    from numcodecs.blosc import Blosc  # type: ignore[import-untyped]

    decode = Blosc.decode

    def checked(self: Any, buf: Any, out: Any = None) -> Any:
        content = memoryview(buf).cast("B")
        if len(content) < max(16, int.from_bytes(content[12:16], "little")):
            raise ValueError("a chunk is shorter than it says")
        return decode(self, buf, out)

    Blosc.decode = checked


def _are_there(folder: Path, level: Any, axes: list[str]) -> Iterator[bool]:
    """Tell of each plane whether any chunk of it was written.

    Chunks that hold nothing but the fill value need not be, and so are masks and blank corners
    stored; but no microscope records a plane of them. Only in shards pixels are read.
    """
    archive = _archive(folder)
    with ZipFile(archive) if archive else nullcontext() as zipped:
        names = set(zipped.namelist()) if zipped else set()
    pieces = level.shards or level.chunks

    def is_written(piece: Iterable[int]) -> bool:
        name = folder / level.metadata.encode_chunk_key(tuple(piece))
        return name.relative_to(archive).as_posix() in names if archive else name.exists()

    def is_there(plane: tuple[slice, ...]) -> bool:
        grid = (
            range(part.start // n, -(-part.stop // n))
            for part, n in zip(plane, pieces, strict=True)
        )
        written = any(map(is_written, product(*grid)))
        if level.shards is None or not written:
            return written
        return bool((level[plane] != level.fill_value).any())

    ranges = (
        [slice(0, n)] if axis in "YX" else [slice(i, i + 1) for i in range(n)]
        for axis, n in zip(axes, level.shape, strict=True)
    )
    return map(is_there, product(*ranges))


def stated(path: Path, scene: int) -> Stated:
    """Read units and scales of the full size, and the labels of channels."""
    image = _parts(path)[scene]
    axes = _axes(image.multiscale)
    scales = [own for own in _scales(image.multiscale) if len(own) == len(axes)]
    said = {
        axis["name"].upper(): (math.prod(map(as_number, steps)), axis.get("unit"))
        for axis, *steps in zip(axes, *scales, strict=True)
        if scales and axis["name"].upper() in "ZYX"
    }
    channels = image.metadata.get("omero", {}).get("channels", ())
    return Stated(*lengths(said), channels=tuple(str(c.get("label") or "") for c in channels))


def _axes(multiscale: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the axes of an image; before version 0.3 all had these five."""
    axes = multiscale.get("axes", "tczyx")
    if systems := multiscale.get("coordinateSystems"):  # 0.6: that to which the pixels are brought
        to = multiscale["datasets"][0]["coordinateTransformations"][0].get("output")
        name = to.get("name") if isinstance(to, dict) else to
        axes = next((one["axes"] for one in systems if one["name"] == name), systems[0]["axes"])
    return [axis if isinstance(axis, dict) else {"name": str(axis)} for axis in axes]


def _scales(multiscale: dict[str, Any]) -> list[list[float]]:
    """Return the scales of the full size that belong to its axes."""
    steps = list(multiscale["datasets"][0].get("coordinateTransformations", ()))
    if "coordinateSystems" not in multiscale:  # in 0.6, those of the image lead to other axes
        steps += multiscale.get("coordinateTransformations", ())
    steps += [inner for step in steps for inner in step.get("transformations", ())]
    return [step["scale"] for step in steps if step.get("type") == "scale"]


def _parts(path: Path) -> list[_Part]:
    """List the images of an OME-Zarr folder: its own, those of a plate, or of bioformats2raw."""
    metadata = _metadata(path)
    if multiscales := metadata.get("multiscales"):
        names = [str(m.get("name") or f"Image:{i}") for i, m in enumerate(multiscales)]
        return [_Part(n, path, m, metadata) for n, m in zip(names, multiscales, strict=True)]
    if "plate" in metadata:
        inner = [well["path"] for well in metadata["plate"]["wells"]]
    elif "well" in metadata:
        inner = [image["path"] for image in metadata["well"]["images"]]
    elif "labels" in metadata:
        inner = list(metadata["labels"])
    elif "bioformats2raw.layout" in metadata:
        inner = _metadata(path / "OME").get("series") or sorted(
            (name for name in _groups(path) if name.isdecimal()), key=int
        )
    elif "scene" in metadata:
        inner = sorted(name for name in _groups(path) if "multiscales" in _metadata(path / name))
    elif url := address(path):
        raise MitolumeError(f"{url}: no OME-Zarr is found at this address; check it")
    else:
        raise MitolumeError(
            f"{path} is a Zarr folder without the metadata of an OME-Zarr image; name the folder "
            "above or below it that has them, or save the array as OME-Zarr"
        )
    parts = []
    for name in inner:
        try:
            images = _parts(path / name)
        except MitolumeError:  # refused when it is opened: the others may be there
            images = [_Part(name, path / name, {}, {})]
        for image in images:
            own = image.path.relative_to(path).as_posix()
            several = len(images) > 1 and image.path == path / name
            parts.append(replace(image, name=f"{own} {image.name}" if several else own))
    return parts


def _archive(path: Path) -> Path | None:
    """Return the zip file that a path leads into, None where it is a folder."""
    is_archive = Path.is_file if not address(path) else lambda part: part.suffix == ".ozx"
    return next((part for part in (path, *path.parents) if is_archive(part)), None)


def _place(path: Path) -> dict[str, Any]:
    """Return how zarr opens a folder, or what lies in a zip file at the end of a path."""
    from zarr.storage import ZipStore

    archive, url = _archive(path), address(path)
    if archive is None and not url:
        return {"store": path, "mode": "r"}
    inner = path.relative_to(archive or path).as_posix().lstrip(".")
    if not url:
        return {"store": ZipStore(archive, mode="r"), "path": inner, "mode": "r"}
    scheme = url.partition(":")[0]
    options: dict[str, Any] = {"anon": True}
    if scheme == "s3":
        extra(url, "s3fs", "remote")
    else:
        wait = extra(url, "aiohttp", "remote").ClientTimeout(sock_connect=20, sock_read=60)
        options = {"client_kwargs": {"timeout": wait, "trust_env": True}}
    if archive is None:
        return {"store": url, "storage_options": options, "mode": "r"}
    inside, options = f"zip::{address(archive)}", {scheme: options}
    return {"store": inside, "storage_options": options, "path": inner, "mode": "r"}


def _groups(path: Path) -> list[str]:
    import zarr

    return list(zarr.open_group(**_place(path)).group_keys())


def _metadata(path: Path) -> dict[str, Any]:
    """Return the OME metadata of a Zarr group: under ``ome`` from 0.5 on, at the top in 0.4."""
    import zarr

    try:
        attributes = dict(zarr.open_group(**_place(path)).attrs)
    except (zarr.errors.ContainsArrayError, FileNotFoundError):
        return {}
    found = attributes.get("ome", attributes)
    return dict(found) if isinstance(found, dict) else {}
