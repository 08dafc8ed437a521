"""Zeiss' CZI. Knows no other format.

By pylibCZIrw: bioio-czi 3 gives one of several scenes without names, and one of three colours.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import xarray as xr

from mitolume.errors import MitolumeError, extra
from mitolume.io.readers import Opened, Stated, chunked, light, require_planes

_MOST_NAMED = 10_000  # planes that are looked for one by one, where a file lacks some
_MOST_AXES = 40  # of a tile: libCZI has room for no more
# Where bytes lie in a CZI, whose segments begin with 32 bytes of their own: the position of the
# directory of tiles, its first entry, and the number of axes in the entry that a tile repeats.
_DIRECTORY, _ENTRIES, _AXES = 84, 160, 76
_TILE = 4096  # pixels a side: a slide scanner's plane is larger than memory
_TYPES = {
    "Gray8": np.uint8, "Gray16": np.uint16, "Gray32Float": np.float32,
    "Bgr24": np.uint8, "Bgr48": np.uint16, "Bgr96Float": np.float32,
}  # fmt: skip


def open_file(path: Path) -> Opened:
    """List the scenes of a Zeiss file; its tiles are stitched, as they say where they lie."""
    czi = extra(path, "pylibCZIrw.czi", "czi")
    with czi.open_czi(str(path)) as file:
        bounds = dict(file.total_bounding_box_no_pyramid)
        _refuse_vast(path, file, bounds)
        places = dict(file.scenes_bounding_rectangle)
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
        own = dict(bounds)
        if number is not None:
            place = places[number]
            own |= {"X": (place.x, place.x + place.w), "Y": (place.y, place.y + place.h)}
        return _array(path, number, own, set(types.values()))

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
    return Stated(
        size_um=size,
        channels=tuple(c.get("Name") or c.get("Id") or "" for c in channels),
        light=tuple(lights),
    )


def _array(
    path: Path, scene: int | None, bounds: dict[str, tuple[int, int]], types: set[str]
) -> xr.DataArray:
    """Return a scene of a CZI, one chunk a tile of a plane; samples in the order red, green, blue.

    ``bounds`` are first and last + 1 of each axis, ``types`` the names of the pixel types.
    """
    czi = extra(path, "pylibCZIrw.czi", "czi")
    if not types or not types <= _TYPES.keys():
        raise MitolumeError(f"{path} has pixels of type {', '.join(types)}, which aren't read")
    dtype = np.result_type(*(_TYPES[name] for name in types))
    outer = [axis for axis in bounds if axis not in ("X", "Y")]
    positions = _tile_positions(path)
    colours = {"S": 3} if any(name.startswith("Bgr") for name in types) else {}

    def load(box: dict[str, slice]) -> Any:
        plane = {axis: bounds[axis][0] + box[axis].start for axis in outer}
        y, x = box["Y"], box["X"]
        roi = bounds["X"][0] + x.start, bounds["Y"][0] + y.start, x.stop - x.start, y.stop - y.start
        with czi.open_czi(str(path)) as file:
            own = [positions[number] for number in _tiles(file, plane, scene, roi=roi)]
            _require_axes(path, own)
            pixels = file.read(plane=plane, scene=scene, roi=roi)
        return pixels[..., ::-1] if colours else pixels[..., 0]

    sizes = {axis: bounds[axis][1] - bounds[axis][0] for axis in (*outer, "Y", "X")} | colours
    require_planes(path, sizes, _are_there(path, scene, {a: bounds[a] for a in outer}))
    return chunked(load, sizes, {"Y": _TILE, "X": _TILE} | colours, dtype)


def _refuse_vast(path: Path, file: Any, bounds: dict[str, tuple[int, int]]) -> None:
    """Refuse a file that claims far more planes than it holds: looking for each takes minutes."""
    planes = math.prod(last - first for axis, (first, last) in bounds.items() if axis not in "XY")
    tiles = _tiles(file)
    if len(tiles) < planes > _MOST_NAMED:
        raise MitolumeError(
            f"{path}: its metadata name {planes} planes, but it holds {len(tiles)} tiles; it is "
            "damaged: copy it again, or export its planes in ZEN"
        )


def _are_there(path: Path, scene: int | None, outer: dict[str, tuple[int, int]]) -> Iterator[bool]:
    """Tell of each plane of a scene whether all its tiles are there."""
    tiles: list[list[int]] = []
    with extra(path, "pylibCZIrw.czi", "czi").open_czi(str(path)) as file:
        for place in np.ndindex(*(last - first for first, last in outer.values())):
            at = {axis: outer[axis][0] + i for axis, i in zip(outer, place, strict=True)}
            at = {a: i for a, i in at.items() if outer[a][1] - outer[a][0] > 1}
            tiles.append(_tiles(file, at, scene, only_layer0=True))
    most = max(map(len, tiles))
    return (len(found) == most > 0 for found in tiles)


def _tiles(
    file: Any, plane: dict[str, int] | None = None, scene: int | None = None, **kwargs: Any
) -> list[int]:
    """Return the numbers of the tiles of a plane, in a region or a layer if one is given."""
    found: list[int] = []

    def note(number: int, _: Any) -> bool:
        found.append(number)
        return True

    if plane is not None and scene is not None:
        plane = plane | {"S": scene}
    file.enumerate_subblocks_subset(note, plane=plane, **kwargs)
    return found


def _tile_positions(path: Path) -> list[int]:
    """Return the byte at which each tile begins, from the directory of tiles."""
    with path.open("rb") as file:
        file.seek(_DIRECTORY)
        (directory,) = struct.unpack("<q", file.read(8))
        file.seek(directory + 32)
        (count,) = struct.unpack("<i", file.read(4))
        file.seek(directory + _ENTRIES)
        found = []
        for _ in range(count):
            position, axes = struct.unpack("<6xq14xi", file.read(32))
            found.append(position)
            file.seek(20 * axes, 1)  # a name and four numbers each
    return found


def _require_axes(path: Path, positions: list[int]) -> None:
    """Refuse tiles that claim more axes than libCZI has room for: it would write beyond its end."""
    with path.open("rb") as file:
        for position in positions:
            file.seek(position + _AXES)
            if int.from_bytes(file.read(4), "little") > _MOST_AXES:
                raise MitolumeError(
                    f"{path}: a tile claims more axes than there are; the file is damaged: copy it "
                    "again"
                )
