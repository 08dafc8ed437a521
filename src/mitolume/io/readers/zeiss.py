"""Zeiss' CZI. Knows no other format.

By pylibCZIrw: bioio-czi 3 gives one of several scenes without names, and one of three colours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import xarray as xr

from mitolume.errors import MitolumeError
from mitolume.io.readers.common import Opened, Stated, extra, light

_TILE = 4096  # pixels a side: a slide scanner's plane is larger than memory
_TYPES = {
    "Gray8": np.uint8, "Gray16": np.uint16, "Gray32Float": np.float32,
    "Bgr24": np.uint8, "Bgr48": np.uint16, "Bgr96Float": np.float32,
}  # fmt: skip


def open_file(path: Path) -> Opened:
    """List the scenes of a Zeiss file; its tiles are stitched, as they say where they lie."""
    czi = extra(path, "pylibCZIrw.czi", "czi")
    with czi.open_czi(str(path)) as file:
        places = dict(file.scenes_bounding_rectangle)
        bounds = dict(file.total_bounding_box_no_pyramid)
        types = dict(file.pixel_types)
        root = ElementTree.fromstring(file.raw_metadata)
    stated = {
        int(scene.get("Index", -1)): scene.get("Name")
        for scene in root.findall(".//Information/Image/Dimensions/S/Scenes/Scene")
    }
    numbers = sorted(places) or [None]
    names = [stated.get(n or 0) or f"scene {n or 0}" for n in numbers]

    def array(scene: int) -> xr.DataArray:
        number = numbers[scene]
        if number is not None:
            place = places[number]
            bounds["X"], bounds["Y"] = (place.x, place.x + place.w), (place.y, place.y + place.h)
        return _array(path, number, bounds, set(types.values()))

    return Opened(names, array)


def stated(path: Path, scene: int) -> Stated:
    """Read scaling, and the channels' names, contrast and emission."""
    with extra(path, "pylibCZIrw.czi", "czi").open_czi(str(path)) as file:
        root = ElementTree.fromstring(file.raw_metadata)
    size = {}
    for distance in root.findall(".//Scaling/Items/Distance"):
        value = distance.findtext("Value")
        if value and distance.get("Id") in ("X", "Y", "Z"):
            size[distance.get("Id", "")] = float(value) * 1e6  # always metres
    image = root.find(".//Information/Image")
    channels = [] if image is None else image.findall("./Dimensions/Channels/Channel")
    keys = ("IlluminationType", "ContrastMethod", "Fluor")
    lights = [
        light([c.findtext(key) for key in keys], c.findtext("EmissionWavelength")) for c in channels
    ]
    bits = None if image is None else image.findtext("ComponentBitCount")
    return Stated(
        size_um=size,
        channels=tuple(c.get("Name") or c.get("Id") or "" for c in channels),
        light=tuple(lights),
        bits=int(bits) if bits else None,
    )


def _array(
    path: Path, scene: int | None, bounds: dict[str, tuple[int, int]], types: set[str]
) -> xr.DataArray:
    """Return a scene of a CZI, one chunk a tile of a plane; samples in the order red, green, blue.

    ``bounds`` are first and last + 1 of each axis, ``types`` the names of the pixel types.
    """
    import dask.array as da

    czi = extra(path, "pylibCZIrw.czi", "czi")
    if not types or not types <= _TYPES.keys():
        raise MitolumeError(f"{path} has pixels of type {', '.join(types)}, which aren't read")
    dtype = np.result_type(*(_TYPES[name] for name in types))
    outer = [axis for axis in bounds if axis not in ("X", "Y")]
    colours = (3,) if any(name.startswith("Bgr") for name in types) else ()

    def load(block_info: dict[Any, Any]) -> np.ndarray[Any, np.dtype[Any]]:
        spans = block_info[None]["array-location"]
        (top, bottom), (left, right) = spans[len(outer) : len(outer) + 2]
        plane = {a: bounds[a][0] + span[0] for a, span in zip(outer, spans, strict=False)}
        roi = bounds["X"][0] + left, bounds["Y"][0] + top, right - left, bottom - top
        with czi.open_czi(str(path)) as file:
            pixels = file.read(plane=plane, scene=scene, roi=roi)
        pixels = pixels[..., ::-1] if colours else pixels[..., 0]
        return np.asarray(pixels, dtype)[(None,) * len(outer)]

    sizes = {axis: last - first for axis, (first, last) in bounds.items()}
    chunks = da.core.normalize_chunks(
        (*(1 for _ in outer), _TILE, _TILE, *colours),
        shape=(*(sizes[axis] for axis in outer), sizes["Y"], sizes["X"], *colours),
        dtype=dtype,
    )
    blank = np.empty((0,) * len(chunks), dtype)
    pixels = da.map_blocks(load, chunks=chunks, dtype=dtype, meta=blank)
    return xr.DataArray(pixels, dims=[*outer, "Y", "X", *("S" for _ in colours)])
