"""Image files to labelled arrays, one plane at a time. Knows no table and no model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mitolume.errors import MitolumeError
from mitolume.io.channels import Channel, asked_number, file_of_channel
from mitolume.io.channels import select_channel as select_channel
from mitolume.io.formats import damaged, decoding, open_scenes, stated
from mitolume.io.pixel_size import believed_pixel_size
from mitolume.io.readers import Stated, address

AXES = ("T", "C", "Z", "Y", "X")
_OTHER_AXES = {
    "M": "tiles", "V": "views", "H": "phases", "I": "illuminations", "R": "rotations",
    "A": "rotations", "B": "blocks", "L": "loops", "N": "slices", "P": "positions",
}  # fmt: skip
_MOST_COMPARED = 2**26  # pixels of a plane, up to which equal colours are looked for
_MOST = 1e30  # beyond this, float32 arithmetic on grey values overflows
Image2D = np.ndarray[Any, np.dtype[Any]]


def read(
    path: str | Path,
    *,
    scene: str | int | None = None,
    channel: str | int | None = None,
    mask: bool = False,
) -> xr.DataArray:
    """Open an image file without reading its pixels.

    Parameters
    ----------
    path
        A TIFF, OME-TIFF, ND2, LIF, CZI, PNG or JPEG file, or the folder of an OME-Zarr, perhaps on
        the network (``https://``, ``s3://``).
    scene
        Name or number (from 0) of the scene; needed only where the file has several.
    channel
        Name or number (from 0) of the channel to keep; all channels by default.
    mask
        Whether it is a mask: planes of which an OME-Zarr holds nothing are empty then.

    Returns
    -------
    xarray.DataArray
        Dims ``T C Z Y X``, all five present, dask-backed with one chunk per plane or smaller; where
        the file holds several channels in one frame (Nikon, colours), one per frame. The only
        coordinate is ``C`` (channel names). ``attrs["pixel_size_um"]`` maps those of
        ``Z Y X`` that the file states believably to micrometres (absent when none is),
        ``attrs["channel_light"]`` is what the file says of each channel's light (absent when
        nothing), ``attrs["source"]`` is the path, and ``attrs["files"]`` are all files that hold
        the pixels.

    Raises
    ------
    MitolumeError
        The file is missing, truncated, of an unknown kind, or lacks the scene, the channel, or
        planes that its metadata name.
    """
    path = Path(path)
    opened, complaints = open_scenes(path)
    if mask and scene is None and len(opened.names) > 1:
        raise MitolumeError(
            f"mask {path} holds {len(opened.names)} images ({_listed(opened.names)}); save one as "
            "a file, or of an OME-Zarr name the folder of one"
        )
    number = _scene_number(opened.names, scene, path)
    with decoding(path):
        image = opened.array(number)
        if min(image.shape) < 1:
            raise damaged(path, "it holds no pixels")
        if not mask:
            opened.require_whole(number)
        said = stated(path, number)
        image = _to_axes(image, _names(image, said), path)
    if complaints:
        raise damaged(path, complaints[0])
    pixel_size, _ = believed_pixel_size(said)
    image.attrs = {"source": address(path) or str(path)} | (
        {"pixel_size_um": pixel_size} if pixel_size else {}
    )
    image.attrs["files"] = opened.files or (path,)
    if any(said.light) and len(said.light) == image.sizes["C"]:
        image.attrs["channel_light"] = said.light
    return image if channel is None else select_channel(image, channel)


def read_channels(
    path: str | Path, channels: Sequence[Channel], *, scene: str | int | None = None
) -> xr.DataArray:
    """Open several channels of an image, in the order in which they are named.

    Parameters
    ----------
    path
        The image file, as for `read`.
    channels
        Each as for `select_channel`. Where every channel is a file of its own, ``path`` is that of
        the first, and the others are called alike but for the channel's name:
        ``a_Transmitted.tif`` and ``a_CellMask.tif``.
    scene
        As for `read`.

    Returns
    -------
    xarray.DataArray
        As `read` returns it, ``C`` in the order of ``channels``; ``attrs["files"]`` lists the
        files.

    Raises
    ------
    MitolumeError
        A channel is missing or ambiguous, or its file has another size.
    """
    path = Path(path)
    image = read(path, scene=scene)
    kept = [_channel_of_set(path, image, channels[0], one, scene) for one in channels]
    for name, other in zip(channels[1:], kept[1:], strict=True):
        sizes = [{axis: of.sizes[axis] for axis in "TZYX"} for of in (kept[0], other)]
        if sizes[0] != sizes[1]:
            raise MitolumeError(
                f"{other.attrs['source']}: channel {name} is {_by(sizes[1])}, but "
                f"{channels[0]} of {path.name} is {_by(sizes[0])} (T x Z x Y x X)"
            )
    files = tuple(dict.fromkeys(file for one in kept for file in one.attrs["files"]))
    whole = kept[0] if len(kept) == 1 else xr.concat(kept, "C", combine_attrs="override")
    return whole.assign_attrs(files=files)


def _channel_of_set(
    path: Path, image: xr.DataArray, first: Channel, name: Channel, scene: str | int | None
) -> xr.DataArray:
    """Return a channel of an image, or of the file beside it that is named after the channel."""
    file = file_of_channel(path, first, name)
    if image.sizes["C"] > 1 or file is None:
        return select_channel(image, name)
    if name == first:
        return image.assign_coords(C=[name])
    if not file.exists():
        raise MitolumeError(
            f"{path} holds one channel, {first} by its name, and {file.name} with {name} is not "
            "beside it"
        )
    return select_channel(read(file, scene=scene), None).assign_coords(C=[name])


def _by(sizes: dict[str, int]) -> str:
    return " x ".join(map(str, sizes.values()))


def read_plane(image: xr.DataArray, *, z: int = 0, t: int = 0, c: int = 0) -> Image2D:
    """Read the pixels of one plane.

    Parameters
    ----------
    image
        Dims ``T C Z Y X``, as `read` returns it.
    z, t, c
        Which plane, from 0.

    Returns
    -------
    numpy.ndarray
        (Y, X), the file's dtype.

    Raises
    ------
    MitolumeError
        The pixels can't be decoded, or contain NaN or infinity.
    """
    source = image.attrs.get("source", "the image")
    plane = decode_plane(image, z=z, t=t, c=c)
    if plane.dtype.kind == "f" and not np.isfinite(plane).all():
        bad = int(np.size(plane) - np.isfinite(plane).sum())
        raise MitolumeError(
            f"{source}: plane {z} has {bad} pixels that are NaN or infinite; "
            "replace them with numbers (a crop or a division often leaves them)"
        )
    if plane.dtype.kind == "f" and np.abs(plane).max().astype(float) > _MOST:
        raise MitolumeError(
            f"{source}: plane {z} holds values up to {np.abs(plane).max():.0e}, which are not grey "
            "values"
        )
    require_grey(image)
    return plane


def require_grey(image: xr.DataArray) -> None:
    """Refuse pixels that are no grey values, such as complex numbers."""
    if image.dtype.kind not in "buif":
        source = image.attrs.get("source", "the image")
        raise MitolumeError(f"{source}: pixels of type {image.dtype} are not grey values")


def decode_plane(image: xr.DataArray, *, z: int = 0, t: int = 0, c: int = 0) -> Image2D:
    """Read the pixels of one plane as `read_plane` does, but of any type and with NaN in them.

    Raises
    ------
    MitolumeError
        The pixels can't be decoded.
    """
    with decoding(image.attrs.get("source", "the image")):
        return _computed(image.variable.isel(T=t, C=c, Z=z))


def _computed(image: xr.Variable) -> np.ndarray[Any, Any]:
    """Compute in this process; to look for another scheduler, dask loads `distributed` (0.8 s)."""
    import dask
    from dask.core import flatten
    from dask.threaded import get

    data = image.data
    if getattr(data, "npartitions", 0) == 1:
        # One chunk: there is nothing to share out, and dask's own way takes 2 ms for it.
        keys = list(flatten(data.__dask_keys__()))
        return np.asarray(dask.get(data.__dask_graph__().cull(set(keys)), keys)[0])
    return np.asarray(image.compute(scheduler=dask.config.get("scheduler", get)).values)


def load(image: xr.DataArray) -> xr.DataArray:
    """Read the pixels of an image, or of a part of one, into memory.

    Raises
    ------
    MitolumeError
        The pixels can't be decoded.
    """
    with decoding(image.attrs.get("source", "the image")):
        return image.copy(data=_computed(image.variable))


def scenes(path: str | Path) -> list[str]:
    """Return the names of a file's scenes."""
    return list(open_scenes(Path(path))[0].names)


def _scene_number(names: Sequence[str], scene: str | int | None, path: Path) -> int:
    if scene is None or scene == "":
        if len(names) > 1:
            raise MitolumeError(
                f"{path} has {len(names)} scenes; name one of them ({_listed(names)})"
            )
        return 0
    text = str(scene)
    if text in names:
        return names.index(text)
    number = asked_number(text, len(names))
    if number is not None:
        return number
    raise MitolumeError(f"{path} has no scene {text!r}; it has {_listed(names)}")


def _listed(names: Sequence[str], most: int = 12) -> str:
    """Write names with their numbers; a plate may have hundreds."""
    more = f", ... {len(names) - 1} = {names[-1]}" if len(names) > most else ""
    return ", ".join(f"{i} = {name}" for i, name in enumerate(names[:most])) + more


def _names(image: xr.DataArray, said: Stated) -> list[str]:
    """Return the channels' names: the file's own, else the plugin's, else numbers."""
    count = image.sizes.get("C", 1)
    if "C" in image.coords and image.coords["C"].ndim == 1:
        given = [str(name) for name in image["C"].values]
    else:
        given = [""] * count
    if len(said.channels) == count:
        given = [own or name for own, name in zip(said.channels, given, strict=True)]
    # "Channel:0:2" is what bioio calls a channel without a name.
    given = [re.sub(r"^Channel:(\d+:)?\d+(:|$)", "", name) for name in given]
    return [name or str(i) for i, name in enumerate(given)]


def _to_axes(image: xr.DataArray, names: list[str], path: Path) -> xr.DataArray:
    """Turn colour samples into channels, and give all five axes, and channels their names."""
    if image.sizes.get("S") == 1:
        image = image.isel(S=0)
    if "S" in image.dims:
        image, names = _samples_to_channels(image, path)
    for dim in [str(dim) for dim in image.dims if dim not in AXES]:
        if image.sizes[dim] > 1:
            meaning = _OTHER_AXES.get(dim, "unknown")
            raise MitolumeError(
                f"{path} has an axis {dim!r} ({meaning}) of length {image.sizes[dim]} that is none "
                f"of {' '.join(AXES)}; save one of them, or name its axes, as OME-TIFF in Fiji"
            )
        image = image.isel({dim: 0})
    pixels = image.variable.set_dims(AXES)  # type: ignore[no-untyped-call]
    if len(names) != pixels.sizes["C"]:
        names = [str(i) for i in range(pixels.sizes["C"])]
    return xr.DataArray(pixels, coords={"C": np.array(names, dtype=object)})


def _samples_to_channels(image: xr.DataArray, path: Path) -> tuple[xr.DataArray, list[str]]:
    """Make channels of red, green and blue, or one of them where all are equal; drop alpha."""
    count = image.sizes["S"]
    if image.sizes.get("C", 1) > 1:
        raise MitolumeError(f"{path} has both channels and colours; save it with channels only")
    image = image.isel(C=0) if "C" in image.dims else image
    if count > 4:
        return image.rename(S="C"), [str(i) for i in range(count)]
    colours = ["red", "green", "blue"][: count if count > 2 else 1]
    pixels = image.isel(S=slice(0, len(colours)))
    if image.sizes["Y"] * image.sizes["X"] > _MOST_COMPARED:
        return pixels.rename(S="C"), colours
    outer = {axis: size for axis, size in image.sizes.items() if axis not in ("S", "Y", "X")}
    grey = True
    for share in (0, 0.5, 1):  # the first plane, one in the middle and the last
        place = {axis: int(share * (size - 1)) for axis, size in outer.items()}
        with decoding(path):
            plane = image.isel(place).transpose("S", "Y", "X").values
        samples, alpha = plane[: len(colours)], plane[len(colours) :]
        if (samples == samples.flat[0]).all() and alpha.size and alpha.min() != alpha.max():
            raise MitolumeError(f"{path} holds its drawing in the transparency; save it in grey")
        grey = grey and bool((samples == samples[:1]).all())
    return (pixels.isel(S=0), ["0"]) if grey else (pixels.rename(S="C"), colours)
