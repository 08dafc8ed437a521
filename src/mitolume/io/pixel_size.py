"""What a file says of its pixel size, and whether to believe it. Reads no pixels."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from mitolume.io.formats import quiet, reader_of

# A pixel size outside this range is a default of the writing program (72 dpi, 1 inch), not a fact.
CREDIBLE_UM = (0.001, 5.0)

_MICROMETRES = {
    "um": 1.0, "µm": 1.0, "μm": 1.0, "\\u00b5m": 1.0, "micron": 1.0, "microns": 1.0,
    "micrometer": 1.0, "micrometre": 1.0, "nm": 1e-3, "nanometer": 1e-3, "mm": 1e3, "cm": 1e4,
}  # fmt: skip


def plane_pixel_size(image: xr.DataArray) -> tuple[float, float] | None:
    """Return the pixel size along Y and X in µm, or None where either is unknown."""
    size = image.attrs.get("pixel_size_um", {})
    return (size["Y"], size["X"]) if "Y" in size and "X" in size else None


def stated_pixel_size(path: Path, scene: int = 0) -> tuple[dict[str, float], str]:
    """Return the pixel size that a file states with a length unit, and why one was not believed.

    Parameters
    ----------
    path
        The file.
    scene
        Which scene, from 0.

    Returns
    -------
    dict, str
        ``Z Y X`` to micrometres, only for the axes that are believed; a reason, or "".
    """
    stated = {} if reader_of(path) == "bioio_imageio" else _tiff_pixel_size(path, scene)
    low, high = CREDIBLE_UM
    believed = {axis: size for axis, size in stated.items() if low <= size <= high}
    # The z step of a stack may be larger than any pixel; only its sign and unit can be wrong.
    if 0 < stated.get("Z", 0) <= 1000:
        believed["Z"] = stated["Z"]
    doubtful = {axis: size for axis, size in stated.items() if axis not in believed}
    if {"Y", "X"} & doubtful.keys():
        sizes = ", ".join(f"{axis} {size:g} µm" for axis, size in doubtful.items())
        return believed, f"states {sizes}, which is not believed ({low} to {high:g} µm are)"
    if "Y" not in believed or "X" not in believed:
        return believed, "states no pixel size with a length unit"
    return believed, ""


def _ome_pixel_size(xml: str, scene: int) -> dict[str, float]:
    from ome_types import from_xml

    pixels = from_xml(xml).images[scene].pixels
    stated = {}
    for axis in "ZYX":
        size = getattr(pixels, f"physical_size_{axis.lower()}")
        unit = getattr(pixels, f"physical_size_{axis.lower()}_unit").value
        # OME's default unit is µm; "pixel" and "reference frame" are no lengths.
        if size is not None and unit in _MICROMETRES:
            stated[axis] = float(size) * _MICROMETRES[unit]
    return stated


def _tiff_pixel_size(path: Path, scene: int) -> dict[str, float]:
    """Read OME metadata, else ImageJ's unit, else the resolution tags and their unit."""
    import tifffile

    with quiet(), tifffile.TiffFile(path) as tif:
        if tif.is_ome and tif.ome_metadata:
            return _ome_pixel_size(tif.ome_metadata, scene)
        page = tif.pages[0]
        imagej = tif.imagej_metadata or {}
        resolution = {
            axis: value[0] / value[1]
            for axis, tag in (("Y", "YResolution"), ("X", "XResolution"))
            if (value := page.tags.valueof(tag)) and value[0] and value[1]
        }
        unit = str(imagej.get("unit", "")).lower()
        if imagej:
            scale = _MICROMETRES.get(unit)
            spacing = imagej.get("spacing")
        else:
            scale = {2: 25_400.0, 3: 10_000.0}.get(page.tags.valueof("ResolutionUnit") or 0)
            spacing = None
    if scale is None:
        return {}
    stated = {axis: scale / per_unit for axis, per_unit in resolution.items()}
    if isinstance(spacing, int | float) and spacing:
        stated["Z"] = float(spacing) * scale
    return stated
