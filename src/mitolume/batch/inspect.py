"""Describe image files, and warn of what will cause trouble with them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from mitolume.batch.runner import Job, Outcome, Report, run_files
from mitolume.errors import MitolumeError, some_names
from mitolume.io.channels import listed_channels, transmitted_channel
from mitolume.io.formats import stated
from mitolume.io.mask_files import says_mask
from mitolume.io.pixel_size import believed_pixel_size, odd_pixel_size
from mitolume.io.read import Image2D, decode_plane, read, scenes
from mitolume.io.readers import address
from mitolume.io.suspicion import odd_pixels
from mitolume.preprocess.normalise import measure_range
from mitolume.progress import Advance

_MOST_SCENES = 12  # whose pixels are looked at; a plate may have hundreds
_NARROW = 32  # pixels, below which a plane is a line scan or a section along z
_FULL = {2**bits - 1 for bits in (8, 10, 12, 14, 16)}  # where a camera's grey values end
_SATURATED = 0.01  # share of pixels at the top, above which structure is lost
_MOST_RANGES = 8  # channels with a line of their own


class _Scene(NamedTuple):
    image: xr.DataArray
    lines: list[str]
    warnings: list[str]


def inspect_files(
    files: Sequence[Path], progress: Advance = lambda done, total, note="": None
) -> Outcome:
    """Describe image files, and those in folders, masks and results too."""

    def open_file(file: Path, *_: object) -> Job:
        return Job(file.name, (file,), (), lambda _: Report(f"{inspect(file)}\n"))

    return run_files(files, open_file, every=True, progress=progress)


def inspect(path: Path) -> str:
    """Describe an image file, and warn of what will cause trouble.

    Parameters
    ----------
    path
        The file, or the folder of an OME-Zarr.
    """
    names = scenes(path)
    looked = names[:_MOST_SCENES]
    found: dict[str, _Scene] = {}
    broken: dict[str, MitolumeError] = {}
    for number, name in enumerate(looked):
        try:
            found[name] = _look(path, number)
        except MitolumeError as error:  # the other scenes may be whole
            broken[name] = error
    if not found:
        raise next(iter(broken.values()))
    first = next(iter(found.values()))
    lines = [address(path) or str(path), *first.lines]
    dims = [_dims(found[n].image) if n in found else "can't be read" for n in looked]
    lines[4:4] = _scene_lines(names, dims)
    everywhere = [w for w in first.warnings if all(w in one.warnings for one in found.values())]
    lines += [_line("warning", text) for text in everywhere]
    for name, scene in found.items():
        own = [text for text in scene.warnings if text not in everywhere]
        lines += [_line("warning", f"scene {name}: {text}") for text in own]
    lines += [_line("warning", f"scene {name}: {error}") for name, error in broken.items()]
    if len(names) > len(looked):
        lines.append(_line("note", f"only the first {len(looked)} scenes were looked at"))
    return "\n".join(lines)


def _look(path: Path, number: int) -> _Scene:
    """Read one plane of each channel of a scene."""
    image, said = read(path, scene=number, mask=says_mask(path)), stated(path, number)
    names = [str(name) for name in image["C"].values]
    size, doubt = believed_pixel_size(said)
    listed = ", ".join(f"{axis} {size[axis]:.4g} µm" for axis in "ZYX" if axis in size)
    lines = [_line("dims", _dims(image)), _line("channels", listed_channels(names)),
             _line("pixel size", listed or "unknown"), _line("type", str(image.dtype))]  # fmt: skip
    transmitted, unclear = _channel_choice(names, said.light)
    lines += [_line("transmitted", transmitted)] if transmitted else []
    warnings = [*_axis_warnings(image, said.guessed), *_pixel_size_warnings(size, doubt), *unclear]
    if said.inverted:
        warnings.append(
            "0 is white in this file (an inverting LUT in Fiji), but numbers are read as they are; "
            "if bright and dark should change places, use Edit > Invert in Fiji"
        )
    if image.sizes["Z"] > 1 and "Z" in said.size_um and "Z" not in size:
        warnings.append(
            f"the file states a z-step of {said.size_um['Z']:g} µm, which is not believed; say it "
            "with --z-step where it matters"
        )
    planes = [
        (name, decode_plane(image, c=c, z=image.sizes["Z"] // 2, t=image.sizes["T"] // 2))
        for c, name in enumerate(names)
    ]
    ranges = [(name, *found) for name, plane in planes if (found := _finite_range(plane))]
    lines += _range_lines(ranges, len(names))
    faults: dict[str, list[str]] = {}
    for name, plane in planes:
        for fault in plane_warnings(plane):
            faults.setdefault(fault, []).append(name)
    for fault, where in faults.items():
        which = f"channel{'s' if len(where) > 1 else ''} {', '.join(where)}: "
        warnings.append((which if len(names) > 1 else "") + fault)
    return _Scene(image, lines, warnings)


def _axis_warnings(image: xr.DataArray, guessed: str) -> list[str]:
    """Warn of planes that may not be what they are called; guessed are the axes not named."""
    warnings = []
    if guessed:
        counts = " x ".join(str(image.sizes[axis]) for axis in guessed)
        called = " x ".join({"Z": "z", "C": "channel", "T": "time"}[axis] for axis in guessed)
        warnings.append(
            f"the file doesn't say what its {counts} planes are: read as {called}, they may be z, "
            "time or channels; if that is wrong, name the axes in Fiji (Image > Hyperstacks > "
            "Stack to Hyperstack) and save it again"
        )
    height, width = image.sizes["Y"], image.sizes["X"]
    if min(height, width) < min(_NARROW, image.sizes["Z"]):
        warnings.append(
            f"its planes are only Y {height} x X {width} pixels, its depth is Z "
            f"{image.sizes['Z']}: it was scanned as vertical sections (XZ), while models look at "
            "XY planes; choose another scene or file"
        )
    names = [str(name) for name in image["C"].values]
    if names == ["red", "green", "blue"]:
        warnings.append(
            "this is a colour picture (RGB), from a colour camera or a screenshot, not raw data; "
            "name one colour, such as --channel green"
        )
    if len(names) > 2 and all(re.search(r"\d nm$", name) for name in names):
        warnings.append("this is a wavelength sweep: each channel is one wavelength")
    return warnings


def _pixel_size_warnings(size: dict[str, float], doubt: str) -> list[str]:
    """Warn of a pixel size that is unknown (and why: doubt) or looks like a default."""
    if doubt:
        way = "" if "--pixel-size" in doubt else "; say it with --pixel-size where it matters"
        return [f"the file {doubt}{way}"]
    return odd_pixel_size(size)


def _channel_choice(names: Sequence[str], light: Sequence[str]) -> tuple[str, list[str]]:
    """Say which channel is taken for transmitted light and why, or warn that it must be named."""
    if list(names) == ["red", "green", "blue"]:
        return "", []
    fits, reason = transmitted_channel(names, light)
    if len(names) == 1:
        said = "".join(light)
        if "emission" in said and not fits:
            return "", [f"its only channel, {names[0]}, is fluorescence, as the file says ({said})"]
        return "", []
    if len(fits) == 1:
        return f"{fits[0]} = {names[fits[0]]} ({reason}); taken where no channel is named", []
    if fits:
        both = ", ".join(f"{i} = {names[i]}" for i in fits)
        return "", [f"several channels may be transmitted light ({both}); name one with --channel"]
    return "", ["no channel is known to be transmitted light; name it with --channel"]


def _finite_range(plane: Image2D) -> tuple[float, float] | None:
    """Return the smallest and largest grey value, None where no pixel has one."""
    finite = plane[np.isfinite(plane)] if plane.dtype.kind in "buif" else plane[:0]
    return (float(finite.min()), float(finite.max())) if finite.size else None


def plane_warnings(plane: Image2D) -> list[str]:
    """Warn of pixel values of a plane (Y, X) that carry no picture.

    Examples
    --------
    >>> plane_warnings(np.zeros((4, 4), np.uint8))
    ['middle plane: one flat grey (0); save it again, or leave it out']
    """
    if plane.dtype.kind not in "buif":
        return [f"pixels of type {plane.dtype} are not grey values"]
    finite = plane[np.isfinite(plane)]
    warnings = []
    if bad := plane.size - finite.size:
        warnings.append(
            f"{bad} pixels of the middle plane are NaN or infinite; replace them with numbers (a "
            "crop or a division often leaves them)"
        )
    if not finite.size:
        return warnings
    if odd := odd_pixels(finite[np.newaxis]):
        return [*warnings, f"middle plane: {odd}"]
    if finite.min() < 0:
        warnings.append("negative values, as a subtracted background leaves them; they are kept")
    border = measure_range(plane).border if not bad else -np.inf
    if border > -np.inf:
        warnings.append(
            f"a black border, {(plane < border).mean():.0%} of the middle plane: left out where "
            "grey values are normalised, but counted in the shares of a field that measure gives"
        )
    high = finite.max()
    share = float((finite == high).mean())
    if plane.dtype.kind == "u" and int(high) in _FULL and share > _SATURATED:
        warnings.append(f"saturated: {share:.0%} of the middle plane is at {high:g}, the top value")
    return warnings


def _scene_lines(names: Sequence[str], dims: Sequence[str]) -> list[str]:
    """List the scenes, each with its dims where these differ."""
    if len(set(dims)) == 1:
        about = " (what follows is of the first)" if len(names) > 1 else ""
        return [_line("scenes", some_names(names, _MOST_SCENES) + about)]
    listed = [
        f"{i} = {name}: {size}" for i, (name, size) in enumerate(zip(names, dims, strict=False))
    ]
    return [_line("scenes", listed[0]), *(_line("", text) for text in listed[1:])]


def _range_lines(ranges: Sequence[tuple[str, float, float]], n_channels: int) -> list[str]:
    if len(ranges) > _MOST_RANGES:
        low, high = min(low for _, low, _ in ranges), max(high for _, _, high in ranges)
        return [_line("range", f"{low:.7g} to {high:.7g} (all channels, middle planes)")]
    return [
        _line(
            "range",
            f"{low:.7g} to {high:.7g} ({f'{name}, ' if n_channels > 1 else ''}middle plane)",
        )
        for name, low, high in ranges
    ]


def _dims(image: xr.DataArray) -> str:
    return ", ".join(f"{axis} {size}" for axis, size in image.sizes.items())


def _line(what: str, text: str) -> str:
    return f"  {what:<11} {text}"
