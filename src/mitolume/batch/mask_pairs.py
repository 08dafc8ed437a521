"""Two sets of mask files, matched by name and opened. Knows neither truth nor scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import numpy as np
import xarray as xr

from mitolume.errors import MitolumeError, some_names
from mitolume.io.formats import READERS, bare_name
from mitolume.io.mask_files import is_outline_file, is_outlined, kind_of, open_mask
from mitolume.io.masks import Mask, MaskKind, decide_kind, to_mask
from mitolume.io.read import read, read_plane

_ENDINGS = (*READERS, ".zip", ".roi", ".geojson")


@dataclass(frozen=True)
class MatchedFiles:
    """Files of two sets: those with the same name, and those that only one set has."""

    both: tuple[tuple[Path, Path], ...]
    only_first: tuple[Path, ...] = ()
    only_second: tuple[Path, ...] = ()


@dataclass(frozen=True, eq=False)
class MaskPair:
    """Two open masks of the same size, and what their values mean."""

    paths: tuple[Path, Path]
    images: tuple[xr.DataArray, xr.DataArray]
    kinds: tuple[MaskKind, MaskKind]

    def planes(self) -> Iterator[tuple[int, Mask, Mask]]:
        """Yield the number of each plane and both masks of it, (Y, X)."""
        for z in range(self.images[0].sizes["Z"]):
            first, second = (
                to_mask(read_plane(image, z=z), kind_of(image, kind))
                for image, kind in zip(self.images, self.kinds, strict=True)
            )
            yield z, first, second


def match_files(first: Path, second: Path) -> MatchedFiles:
    """Match two files, or the files of two folders by name.

    Parameters
    ----------
    first, second
        Two files, or two folders; endings and ``_mask`` are ignored in names.

    Returns
    -------
    MatchedFiles
        At least one pair, in the order of names.

    Raises
    ------
    MitolumeError
        One is missing, only one is a folder, names repeat, or no name is in both.
    """
    for path in (first, second):
        if not path.exists():
            raise MitolumeError(f"{path}: no such file or folder")
    if first.is_dir() != second.is_dir():
        raise MitolumeError(f"{first} and {second} must both be files or both be folders")
    if not first.is_dir():
        return MatchedFiles(((first, second),))
    ours, theirs = _by_name(first), _by_name(second)
    for folder, found in ((first, ours), (second, theirs)):
        if not found:
            raise MitolumeError(f"{folder} holds no mask file ({', '.join(_ENDINGS)})")
    both = sorted(ours.keys() & theirs.keys())
    if not both:
        raise MitolumeError(
            f"no file in {first} ({some_names(ours.values())}) has the name of one in "
            f"{second} ({some_names(theirs.values())}); give masks of one image the same "
            "name, with or without _mask"
        )
    return MatchedFiles(
        tuple((ours[name], theirs[name]) for name in both),
        tuple(ours[name] for name in ours if name not in theirs),
        tuple(theirs[name] for name in theirs if name not in ours),
    )


def open_pairs(
    files: Sequence[tuple[Path, Path]], mask_kind: str = "auto", like: Path | None = None
) -> list[MaskPair]:
    """Open pairs of mask files and decide what their values mean, once for each side.

    Parameters
    ----------
    files
        As `match_files` pairs them.
    mask_kind
        ``auto``, ``unsure`` or ``labels``.
    like
        The image, or the folder of images of the masks' names, that outlines were drawn on.

    Raises
    ------
    MitolumeError
        A file can't be read, sizes differ, values mean nothing, or an image is missing.
    """
    if mask_kind not in get_args(MaskKind):
        raise MitolumeError(
            f"no mask kind {mask_kind!r}; there are {', '.join(get_args(MaskKind))}"
        )
    originals = [None if like is None else read(_image_of(first, like)) for first, _ in files]
    opened = [_opened(*paths, image) for paths, image in zip(files, originals, strict=True)]
    for paths, images in zip(files, opened, strict=True):
        _require_same_size(paths, images)
    kinds = []
    for side in (0, 1):
        values = {
            str(paths[side]): _values(images[side])
            for paths, images in zip(files, opened, strict=True)
            if not is_outlined(images[side])
        }
        kind, _, faults = decide_kind(values, cast(MaskKind, mask_kind))
        if faults:
            raise MitolumeError("; ".join(faults))
        kinds.append(kind)
    return [
        MaskPair(paths, images, (kinds[0], kinds[1]))
        for paths, images in zip(files, opened, strict=True)
    ]


def mask_name(path: Path) -> str:
    """Return the name that a mask file goes by: without its ending and without ``_mask``."""
    return bare_name(path).removesuffix("_mask")


def outline_notices(pairs: Sequence[MaskPair]) -> list[str]:
    """Return what was left out or guessed in reading outlines, each said once."""
    said = (
        notice for p in pairs for image in p.images for notice in image.attrs.get("notices", ())
    )
    return list(dict.fromkeys(said))


def _image_of(mask: Path, like: Path) -> Path:
    """Find the image that a mask was drawn on."""
    if not like.exists():
        raise MitolumeError(f"{like}: no such file or folder")
    if not like.is_dir():
        return like
    found = [
        path
        for path in sorted(like.iterdir())
        if path.name.lower().endswith(tuple(READERS)) and bare_name(path) == mask_name(mask)
    ]
    if len(found) != 1:
        what = f"{len(found)} images" if found else "no image"
        raise MitolumeError(f"{like} holds {what} of the name {mask_name(mask)}, that of {mask}")
    return found[0]


def _opened(
    first: Path, second: Path, image: xr.DataArray | None
) -> tuple[xr.DataArray, xr.DataArray]:
    """Open two masks; outlines take their size from the image, or from the other one."""
    if image is not None:
        return _on_image(first, image), _on_image(second, image)
    if is_outline_file(first) and is_outline_file(second):
        raise MitolumeError(
            f"{first} and {second} both hold outlines, and neither says how large the image is; "
            "name the image, or the folder of images (--like IMAGES)"
        )
    if is_outline_file(first):
        mask = open_mask(second)
        return open_mask(first, mask), mask
    mask = open_mask(first)
    return mask, open_mask(second, mask if is_outline_file(second) else None)


def _on_image(path: Path, image: xr.DataArray) -> xr.DataArray:
    """Open a mask; outlines also take their pixel size from the image."""
    mask = open_mask(path, image)
    size = image.attrs.get("pixel_size_um")
    return mask.assign_attrs(pixel_size_um=size) if size and is_outlined(mask) else mask


def _by_name(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(".") and path.name.lower().endswith(_ENDINGS):
            key = mask_name(path)
            if key in found:
                raise MitolumeError(f"{found[key]} and {path} have the same name")
            found[key] = path
    return found


def _require_same_size(paths: tuple[Path, Path], images: tuple[xr.DataArray, xr.DataArray]) -> None:
    first, second = images
    if first.shape == second.shape:
        return
    turned = first.transpose("T", "C", "Z", "X", "Y").shape == second.shape
    hint = " (they look transposed)" if turned else ""
    raise MitolumeError(
        f"{paths[0]} is {_size(first)}, but {paths[1]} is {_size(second)}{hint}; two masks of "
        "one image have the same size"
    )


def _values(image: xr.DataArray) -> set[float]:
    found: set[float] = set()
    for z in range(image.sizes["Z"]):
        found |= {float(v) for v in np.unique(read_plane(image, z=z))}
    return found


def _size(image: xr.DataArray) -> str:
    return " x ".join(
        f"{axis} {image.sizes[axis]}" for axis in "ZYX" if image.sizes[axis] > 1 or axis != "Z"
    )
