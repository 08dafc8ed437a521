"""Image files to labelled arrays, one plane at a time. Knows no table and no model."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mitolume.errors import MitolumeError, shorten
from mitolume.io.formats import quiet, reader_of
from mitolume.io.pixel_size import stated_pixel_size

# Two images whose coordinates differ must never be silently cut to their intersection.
xr.set_options(arithmetic_join="exact")  # type: ignore[no-untyped-call]

AXES = ("T", "C", "Z", "Y", "X")
_MOST = 1e30  # beyond this, float32 arithmetic on grey values overflows
Image2D = np.ndarray[Any, np.dtype[Any]]


def read(
    path: str | Path, *, scene: str | int | None = None, channel: str | int | None = None
) -> xr.DataArray:
    """Open an image file without reading its pixels.

    Parameters
    ----------
    path
        A TIFF, OME-TIFF or PNG file.
    scene
        Name or number (from 0) of the scene; needed only where the file has several.
    channel
        Name or number (from 0) of the channel to keep; all channels by default.

    Returns
    -------
    xarray.DataArray
        Dims ``T C Z Y X``, all five present, dask-backed with one chunk per plane. The only
        coordinate is ``C`` (channel names). ``attrs["pixel_size_um"]`` maps those of ``Z Y X``
        that the file states believably to micrometres (absent when none is), and
        ``attrs["source"]`` is the path.

    Raises
    ------
    MitolumeError
        The file is missing, truncated, of an unknown kind, or lacks the scene or channel.
    """
    path = Path(path)
    reader, complaints = _open(path)
    _set_scene(reader, scene, path)
    with quiet():
        try:
            image = _one_pixel_wide(reader, path)
            if image is None:
                image = reader.xarray_dask_data
        except Exception as error:  # a decoder may raise anything on a damaged file
            raise _damaged(path, error) from error
    if complaints:
        raise _damaged(path, complaints[0])
    pixel_size, _ = stated_pixel_size(path, reader.current_scene_index)
    image = _to_axes(image, _channel_names(image), path)
    image.attrs = {"source": str(path)} | ({"pixel_size_um": pixel_size} if pixel_size else {})
    return image if channel is None else select_channel(image, channel)


def select_channel(image: xr.DataArray, channel: str | int | None) -> xr.DataArray:
    """Keep one channel of an image.

    Parameters
    ----------
    image
        Dims ``T C Z Y X``.
    channel
        Name (case ignored) or number from 0; None is enough where there is only one.

    Returns
    -------
    xarray.DataArray
        The same dims, ``C`` of length 1.

    Raises
    ------
    MitolumeError
        The image has no such channel, or several and none was named.
    """
    names = [str(name) for name in image["C"].values]
    listing = ", ".join(f"{i} = {name}" for i, name in enumerate(names))
    where = image.attrs.get("source", "the image")
    if channel is None or channel == "":
        if len(names) == 1:
            return image
        raise MitolumeError(f"{where} has {len(names)} channels; name one of them ({listing})")
    wanted = str(channel)
    matches = [i for i, name in enumerate(names) if name.lower() == wanted.lower()]
    if not matches and wanted.isdecimal() and wanted.isascii() and int(wanted) < len(names):
        matches = [int(wanted)]
    if len(matches) != 1:
        raise MitolumeError(f"{where} has no single channel {wanted!r}; it has {listing}")
    return image.isel(C=matches)


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
    with quiet():
        try:
            plane = np.asarray(image.isel(T=t, C=c, Z=z).values)
        except Exception as error:  # a decoder may raise anything on a damaged file
            raise _damaged(source, error) from error
    if plane.dtype.kind == "f" and not np.isfinite(plane).all():
        bad = int(np.size(plane) - np.isfinite(plane).sum())
        raise MitolumeError(
            f"{source}: plane {z} has {bad} pixels that are NaN or infinite; "
            "replace them with numbers (a crop or a division often leaves them)"
        )
    if plane.dtype.kind == "f" and np.abs(plane).max() > _MOST:
        raise MitolumeError(
            f"{source}: plane {z} holds values up to {np.abs(plane).max():.0e}, which are no grey "
            "values"
        )
    if plane.dtype.kind not in "buif":
        raise MitolumeError(f"{source}: pixels of type {plane.dtype} are not grey values")
    return plane


def scenes(path: str | Path) -> list[str]:
    """Return the names of a file's scenes."""
    return [str(name) for name in _open(Path(path))[0].scenes]


def _open(path: Path) -> tuple[Any, list[str]]:
    """Return a file's bioio reader and what tifffile complained of that means a damaged file."""
    plugin = reader_of(path)
    if not path.exists():
        raise MitolumeError(f"{path}: no such file")
    if path.is_dir():
        raise MitolumeError(f"{path} is a folder; name the image files in it")
    if path.stat().st_size == 0:
        raise MitolumeError(f"{path} is empty (0 bytes); copy it again")
    if plugin == "bioio_ome_tiff" and not _has_ome(path):
        plugin = "bioio_tifffile"  # Fiji saves under the old name, without OME metadata
    options = {} if plugin == "bioio_imageio" else {"chunk_dims": ["Y", "X"]}
    with quiet() as complaints:
        try:
            reader = importlib.import_module(plugin).Reader(path, **options)
        except Exception as error:  # a parser may raise anything on a damaged file
            reason = error.__cause__ or error.__context__ or error
            raise _damaged(path, reason) from error
        # Makes tifffile walk the page chain, so that a cut file complains here, not never.
        _ = reader.scenes
    return reader, complaints


def _has_ome(path: Path) -> bool:
    """Tell whether a TIFF holds OME metadata; a damaged one is left to its reader to refuse."""
    import tifffile

    with quiet():
        try:
            with tifffile.TiffFile(path) as tif:
                description = tif.pages.first.description
        except Exception:  # whatever is wrong with it, the reader says so in words
            return True
    return not description.startswith("ImageJ=") and not description.startswith("{")


def _one_pixel_wide(reader: Any, path: Path) -> xr.DataArray | None:
    """Read an OME-TIFF of one row or column, over which bioio-ome-tiff 1.4 stumbles."""
    if reader_of(path) != "bioio_ome_tiff":
        return None
    import tifffile
    from ome_types import from_xml

    with tifffile.TiffFile(path) as tif:
        series = tif.series[reader.current_scene_index]
        if 1 not in (series.keyframe.imagelength, series.keyframe.imagewidth):
            return None
        values = series.asarray().reshape(series.get_shape(squeeze=False))
        axes = series.get_axes(squeeze=False)
        channels = from_xml(tif.ome_metadata).images[reader.current_scene_index].pixels.channels
    image = xr.DataArray(values, dims=tuple(axes)).chunk()
    if "C" not in image.dims:
        image = image.expand_dims("C")
    names = [channel.name or channel.id for channel in channels]
    return image.assign_coords(C=names) if len(names) == image.sizes["C"] else image


def _damaged(path: str | Path, reason: BaseException | str) -> MitolumeError:
    why = shorten(reason) if isinstance(reason, BaseException) else reason
    return MitolumeError(
        f"{path} can't be read ({why}); it may be truncated or damaged: copy it again, "
        "or open and save it in Fiji"
    )


def _set_scene(reader: Any, scene: str | int | None, path: Path) -> None:
    names = [str(name) for name in reader.scenes]
    if scene is None or scene == "":
        if len(names) > 1:
            raise MitolumeError(
                f"{path} has {len(names)} scenes; name one of them ({', '.join(names)})"
            )
        return
    wanted = str(scene)
    if wanted in names:
        reader.set_scene(wanted)
    elif wanted.isdecimal() and wanted.isascii() and int(wanted) < len(names):
        reader.set_scene(int(wanted))
    else:
        raise MitolumeError(f"{path} has no scene {wanted!r}; it has {', '.join(names)}")


def _channel_names(image: xr.DataArray) -> list[str]:
    if "C" not in image.coords:
        return [str(i) for i in range(image.sizes.get("C", 1))]
    return [str(name).removeprefix("Channel:0:") for name in image["C"].values]


def _to_axes(image: xr.DataArray, names: list[str], path: Path) -> xr.DataArray:
    """Strip coordinates, turn colour samples into channels, and give all five axes."""
    image = image.drop_vars(list(image.coords))
    if image.sizes.get("S") == 1:
        image = image.isel(S=0)
    if "S" in image.dims:
        image, names = _samples_to_channels(image, path)
    unknown = [str(dim) for dim in image.dims if dim not in AXES]
    for dim in unknown:
        if image.sizes[dim] > 1:
            raise MitolumeError(
                f"{path} has an axis {dim!r} of length {image.sizes[dim]} that is none of "
                f"{' '.join(AXES)}; save it as OME-TIFF with named axes"
            )
        image = image.isel({dim: 0})
    image = image.expand_dims([axis for axis in AXES if axis not in image.dims])
    image = image.transpose(*AXES)
    if len(names) != image.sizes["C"]:
        names = [str(i) for i in range(image.sizes["C"])]
    return image.assign_coords(C=np.array(names, dtype=object))


def _samples_to_channels(image: xr.DataArray, path: Path) -> tuple[xr.DataArray, list[str]]:
    """Make channels of red, green and blue, or one of them where all are equal; drop alpha."""
    colours = ["red", "green", "blue"][: image.sizes["S"] if image.sizes["S"] > 2 else 1]
    if image.sizes.get("C", 1) > 1:
        raise MitolumeError(f"{path} has both channels and colours; save it with channels only")
    image = image.isel(C=0) if "C" in image.dims else image
    with quiet():
        try:
            samples = np.asarray(image.transpose("S", ...).values)
        except Exception as error:  # a decoder may raise anything on a damaged file
            raise _damaged(path, error) from error
    samples, alpha = samples[: len(colours)], samples[len(colours) :]
    if (samples == samples.flat[0]).all() and alpha.size and alpha.min() != alpha.max():
        raise MitolumeError(f"{path} holds its drawing in the transparency; save it in grey")
    image = image.isel(S=slice(0, len(colours)))
    if (samples == samples[:1]).all():
        return image.isel(S=0), ["0"]
    return image.rename(S="C"), colours
