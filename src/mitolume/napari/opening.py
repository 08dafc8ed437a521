"""Images and masks as layers of napari, lazily, with names, units and contrast; samples.

Knows no widget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from napari.utils.colormaps import DirectLabelColormap

from mitolume.analysis.objects import load_if_small
from mitolume.analysis.pictures import OUTLINE_COLOUR, UNSURE_COLOUR, stretch_limits
from mitolume.errors import MitolumeError
from mitolume.io.channels import transmitted_channel
from mitolume.io.formats import bare_name, reader_of
from mitolume.io.mask_files import says_mask
from mitolume.io.masks import FOREGROUND, UNSURE
from mitolume.io.read import read, scenes
from mitolume.io.samples import fetch_sample
from mitolume.io.windows import FilePlane
from mitolume.simulate.field import CHANNELS, simulate_field
from mitolume.simulate.settings import SimulationSettings

LayerData = tuple[Any, dict[str, Any], str]

KEY = "mitolume"  # of what layers' metadata say: path, scene and channel
_MOST_SCENES = 12  # that are opened at once; the files of a plate have hundreds
_SAMPLED = 1024  # pixels along a side of a plane that decide on its contrast
_DYES = ("magenta", "cyan", "yellow", "green", "red", "blue")
_OWN_COLOURS = ("red", "green", "blue")  # of photographs, see `mitolume.read`


def get_reader(path: str | Sequence[str]) -> Callable[..., list[LayerData]] | None:
    """Return what opens a file, or the folder of an OME-Zarr; None for what isn't read."""
    if not isinstance(path, str):
        return None
    try:
        reader_of(Path(path))
    except MitolumeError:
        return None
    return lambda name: open_file(Path(name))


def open_file(path: Path) -> list[LayerData]:
    """Open the scenes of a file, a layer for each channel; all but the first scene are hidden.

    A file whose name says that it is a mask becomes a layer of labels.
    """
    names, layers = scenes(path), []
    for number, scene in enumerate(names[:_MOST_SCENES]):
        own = scene if len(names) > 1 else ""
        image = read(path, scene=scene if own else None, mask=says_mask(path))
        title = bare_name(path) + f" {own}" * bool(own)
        made = [mask_layer(image, title)] if says_mask(path) else image_layers(image, title, own)
        layers += [(data, settings, kind) for data, settings, kind in made]
        for _, settings, _ in made if number else ():
            settings["visible"] = False
    return layers


def image_layers(image: xr.DataArray, title: str, scene: str = "") -> list[LayerData]:
    """Return a layer for each channel; transmitted light is grey, and what glows lies over it.

    Parameters
    ----------
    image
        Dims ``T C Z Y X``, as `mitolume.read` returns it.
    title
        Of the layers, before the name of the channel.
    scene
        Where the file has several.
    """
    names = [str(name) for name in image["C"].values]
    light = transmitted_channel(names, image.attrs.get("channel_light", ()))[0] or [0]
    dyes = iter(_DYES * len(names))
    layers = []
    for c, name in enumerate(names):
        colour = "gray" if c in light else name if name in _OWN_COLOURS else next(dyes)
        settings = {
            "name": f"{title} [{name}]" if len(names) > 1 else title,
            "colormap": colour,
            "blending": "translucent_no_depth" if c == light[0] else "additive",
            "contrast_limits": contrast_limits(image.isel(C=[c])),
            "metadata": {KEY: {"path": image.attrs["source"], "scene": scene, "channel": name}},
        }
        layers.append((*_placed(image.isel(C=c), settings), "image"))
    return sorted(layers, key=lambda layer: layer[1]["colormap"] != "gray")


def mask_layer(mask: xr.DataArray, title: str) -> LayerData:
    """Return the layer of a mask or label image, in memory where it is small."""
    values = load_if_small(mask.isel(C=0))
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    if values.dtype.kind not in "iu":
        raise MitolumeError(f"{mask.attrs['source']} is no mask: it holds no whole numbers")
    settings: dict[str, Any] = {
        "name": title,
        "metadata": {KEY: {"path": mask.attrs["source"], "scene": "", "channel": ""}},
    }
    if isinstance(values.data, np.ndarray) and set(np.unique(values)) <= {0, FOREGROUND, UNSURE}:
        settings |= {"colormap": mask_colours(), "opacity": 0.5}
    return (*_placed(values, settings), "labels")


def as_image(layer: Any) -> xr.DataArray:
    """Return the pixels of a layer with its axes, and the pixel sizes that it states in µm."""
    axes = [str(axis) for axis in layer.axis_labels]
    units = zip(axes, layer.units, layer.scale, strict=True)
    size = {axis: float(um) for axis, unit, um in units if str(unit) == "micrometer"}
    dims = axes if set(axes) <= set("TZYX") else list("TZYX")[-layer.ndim :]
    return xr.DataArray(np.asarray(layer.data), dims=dims, attrs={"pixel_size_um": size})


def place_of(layer: Any) -> dict[str, Any]:
    """Return where the pixels of a layer lie, for another one that lies over it."""
    return {name: getattr(layer, name) for name in ("scale", "units", "axis_labels")}


def label_colours(colours: Mapping[int, Any]) -> DirectLabelColormap:
    """Return what shows labels in colours (red, green, blue, opacity, 0 to 1), and no others."""
    clear: dict[int | None, Any] = {None: np.zeros(4), 0: np.zeros(4)}
    return DirectLabelColormap(color_dict=clear | dict(colours))


def mask_colours(foreground: tuple[int, int, int] = OUTLINE_COLOUR) -> DirectLabelColormap:
    """Return the colours of masks, by default those of reports: unsure is grey."""
    colours = {FOREGROUND: foreground, UNSURE: UNSURE_COLOUR}
    return label_colours({value: np.array([*rgb, 255]) / 255 for value, rgb in colours.items()})


def contrast_limits(image: xr.DataArray) -> tuple[float, float] | None:
    """Return the grey values of black and white, from the middle plane of one channel."""
    step = -(-max(image.sizes["Y"], image.sizes["X"]) // _SAMPLED)
    middle = FilePlane(image, z=image.sizes["Z"] // 2, t=image.sizes["T"] // 2)
    try:
        return stretch_limits(middle[::step, ::step])
    except MitolumeError:  # NaN in a plane: napari shows it, and training says what is wrong
        return None


def _placed(image: xr.DataArray, settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Drop axes of one element along T and Z, and say where the pixels of the others lie."""
    shown = image.squeeze([axis for axis in "TZ" if image.sizes[axis] == 1])
    size = image.attrs.get("pixel_size_um", {})
    axes = [str(axis) for axis in shown.dims]
    return shown.data, settings | {
        "axis_labels": axes,
        "scale": [size.get(axis, 1.0) for axis in axes],
        "units": ["um" if axis in size else "pixel" for axis in axes],
    }


def simulated(condition: str) -> list[LayerData]:
    """Simulate a field of cells, a few seconds, and return its channels and exact mask."""
    settings = SimulationSettings(shape=(192, 192), planes=3, z_step_um=(0.5, 0.5))
    field = simulate_field(settings, condition=condition)
    size = {"Z": field.z_step_um, "Y": field.pixel_um, "X": field.pixel_um}
    attrs = {"pixel_size_um": size, "source": ""}
    image = xr.DataArray(
        np.stack([field.images[name] for name in CHANNELS])[None],
        dims=tuple("TCZYX"), coords={"C": list(CHANNELS)}, attrs=attrs,
    )  # fmt: skip
    mask = xr.DataArray(field.masks[None, None], dims=tuple("TCZYX"), attrs=attrs)
    layers = [*image_layers(image, f"simulated {condition}"), mask_layer(mask, "exact mask")]
    for _, said, _ in layers:
        del said["metadata"]  # it is in no file
    return layers


def public(name: str) -> list[LayerData]:
    """Fetch a public sample, once, and open it."""
    import pooch

    return open_file(fetch_sample(name, Path(pooch.os_cache(KEY))))


control_cells, treated_cells = partial(simulated, "control"), partial(simulated, "fccp")
phase_cell, blood_cells = partial(public, "phase-cell"), partial(public, "blood-cells")
yeast = partial(public, "yeast")
