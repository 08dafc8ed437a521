"""Which masks to measure, and the images and facts that belong to each; opens the images."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from mitolume.errors import MitolumeError, some_names
from mitolume.io.fields import Field, row_names
from mitolume.io.formats import READERS, bare_name, by_name, is_folder, require_file, told_apart
from mitolume.io.listing import images_in, named_scenes, scene_name
from mitolume.io.mask_files import (
    distinct_values,
    goes_on,
    image_name,
    is_probability,
    kind_of,
    list_masks,
    require_fit,
)
from mitolume.io.masks import ValuesKind, meaning_of, require_kind
from mitolume.io.read import read, require_grey, select_channel
from mitolume.io.readers import address
from mitolume.io.table import read_table
from mitolume.progress import Advance
from mitolume.runs.folder import Run, open_run
from mitolume.text import count

Size = dict[str, float]
Input = TypeVar("Input")

_SAME = 0.01  # pixel sizes that differ by less are rounded ones


@dataclass(frozen=True)
class IntensityImage:
    """A file to measure grey values in; ``name`` is what a channel without a name is called."""

    file: Path
    name: str = ""
    channel: str = ""
    scene: str = ""


@dataclass(frozen=True)
class Source:
    """A mask, the images of the same field, and what a table says of it.

    ``planes`` are the planes of the images that the mask's planes belong to; None: all.
    ``table_size_um`` is the pixel size that the table states, ``Z Y X`` to µm.
    """

    mask: Path
    name: str
    images: tuple[IntensityImage, ...] = ()
    planes: tuple[int, ...] | None = None
    facts: dict[str, str] = field(default_factory=dict)
    table_size_um: Size = field(default_factory=dict)


def find_sources(
    masks: Sequence[Path], images: Sequence[Path], table: Path | None = None
) -> tuple[list[Source], list[str]]:
    """Find out what is to be measured, and say what was left out of folders.

    ``masks`` are mask files, folders of them, or run folders (the masks of the kept model).
    ``images`` are image files, or folders whose files have the masks' names; several are several
    channels of the same fields. ``table`` is a table of fields that says of each image to what
    specimen and condition it belongs.
    """
    notices: list[str] = []
    runs = [path for path in masks if Run(path).is_begun]
    if runs and (len(runs) < len(masks) or images or table):
        raise MitolumeError(
            f"{runs[0]} is a run folder, which knows its images and its table; measure it alone, "
            "without --intensity and --fields"
        )
    if runs:
        found = [source for run in runs for source in _of_run(run)]
    else:
        files, notices = list_masks(*masks)
        found = _of_files(files, images)
        if table is not None:
            found, said = _with_facts(found, table, whole=any(map(is_folder, masks)))
            notices += said
        apart = told_apart((source.mask for source in found), image_name)
        found = [replace(source, name=apart[source.mask]) for source in found]
    twice = [name for name, n in Counter(s.name.casefold() for s in found).items() if n > 1]
    if twice:
        first, second = [s.mask for s in found if s.name.casefold() == twice[0]][:2]
        raise MitolumeError(f"{first} and {second} have the same name; measure them one by one")
    return found, notices


def find_image(mask: Path, images: Path, masks: Collection[str] = ()) -> Path:
    """Find the image that a mask belongs to: ``images`` itself, or one in that folder.

    In a folder the image has the name of the mask without ``_mask``; otherwise one of the two names
    continues the other after a mark that is no letter or digit: ``f1_bf`` belongs to ``f1``, but
    ``f10`` does not. ``masks`` are files that can't be the image, since they are masks of others.
    """
    if not (images.exists() or address(images)):
        require_file(images, "file or folder")
    if not is_folder(images):
        return images
    own = image_name(mask)
    files = _images(images, images.stat().st_mtime_ns)
    if own in files:
        return files[own]
    own = own.casefold()
    others = [
        (name.casefold(), path)
        for name, path in files.items()
        if os.path.realpath(path) not in masks
    ]
    same = [path for name, path in others if name == own]
    longer = [path for name, path in others if goes_on(name, own)]
    shorter = [found for found in others if goes_on(own, found[0])]
    longest = [path for _, path in sorted(shorter, key=lambda found: len(found[0]))[-1:]]
    near = same or longer or longest
    if len(near) > 1:
        raise MitolumeError(
            f"{mask} could belong to {some_names(near)} in {images}; rename one of them"
        )
    if not near:
        raise MitolumeError(
            f"{images} has no image of the name of {mask}; folders in it are not searched (measure "
            "finds images of several by a table, with --fields)"
        )
    return near[0]


def open_masks(
    inputs: Sequence[Input],
    open_one: Callable[[Input], xr.DataArray],
    mask_kind: str,
    faults: list[str],
    progress: Advance,
    *,
    probabilities: bool = False,
) -> tuple[list[tuple[Input, ValuesKind, Mapping[Any, int]]], list[str]]:
    """Open masks of any kind, and decide what the values of all of them together mean.

    ``inputs`` are files, or whatever ``open_one`` takes to open a mask (`open_mask`). ``mask_kind``
    is what the user says: ``auto``, ``unsure`` or ``labels``. ``faults`` gets a sentence for each
    mask that can't be used; it does not stop the others. ``progress`` is called with masks opened,
    masks in total, and what is being done. With ``probabilities``, masks may hold fractions.

    Returns
    -------
    opened, notices
        Each usable input, what its values mean, and the lengths of its axes.
    """
    require_kind(mask_kind)
    opened: list[tuple[Input, ValuesKind, Mapping[Any, int]]] = []
    values: dict[str, set[float]] = {}
    for number, one in enumerate(inputs):
        progress(number, len(inputs), f"opening {getattr(one, 'name', one)}")
        try:
            mask = open_one(one)
            found = distinct_values(mask)
        except MitolumeError as error:
            faults.append(str(error))
            continue
        kind = kind_of(mask, "auto")
        if probabilities and is_probability(found):
            kind = "probability"
        if kind == "auto":
            values[mask.attrs["source"]] = found
        opened.append((one, kind, mask.sizes))
    decided, notices = meaning_of(values, mask_kind)
    return [(one, decided if k == "auto" else k, sizes) for one, k, sizes in opened], notices


def open_images(source: Source) -> list[xr.DataArray]:
    """Open the images of a field: dims ``T C Z Y X`` each."""
    opened = []
    for one in source.images:
        image = read(one.file, scene=one.scene or None)
        if one.channel:
            image = select_channel(image, one.channel)
        if image.sizes["C"] == 1 and one.name:
            image = image.assign_coords(C=np.array([one.name], dtype=object))
        require_grey(image)
        opened.append(image)
    return opened


def fit_to_mask(
    images: Sequence[xr.DataArray], mask: xr.DataArray, planes: Sequence[int] | None
) -> xr.DataArray | None:
    """Put the channels of all images of a mask into one image, None where there is none.

    Its dims are ``T C Z Y X``, T, Y and X as those of the mask, Z too unless the mask has one
    plane.
    """
    if not images:
        return None
    fitting = [_fit(image, mask, planes) for image in images]
    depths = {image.sizes["Z"]: image.attrs["source"] for image in fitting}
    if len(depths) > 1:
        (one, first), (other, second) = list(depths.items())[:2]
        raise MitolumeError(
            f"{first} and {second} are of one field, but have {one} and {other} planes (Z); give "
            "them the same planes, or measure them one by one"
        )
    image = fitting[0]
    if len(fitting) > 1:
        sources = " or ".join(one.attrs["source"] for one in fitting)
        image = xr.concat(fitting, "C", combine_attrs="override").assign_attrs(source=sources)
    names = [str(name) for name in image["C"].values]
    if len(set(names)) < len(names):
        names = [f"{name} {i}" for i, name in enumerate(names)]
        image = image.assign_coords(C=np.array(names, dtype=object))
    return image


def pixel_size(opened: Sequence[xr.DataArray], said: Size) -> Size:
    """Return a field's pixel size, ``Z Y X`` to µm: what the user said, or its files state.

    Raises
    ------
    MitolumeError
        Two files state different sizes.
    """
    size: Size = {}
    where: dict[str, str] = {}
    for image in opened:
        for axis, um in image.attrs.get("pixel_size_um", {}).items():
            known = said.get(axis, size.setdefault(axis, um))
            source = where.setdefault(axis, image.attrs["source"])
            if axis not in said and not math.isclose(known, um, rel_tol=_SAME):
                option = "--z-step" if axis == "Z" else "--pixel-size"
                raise MitolumeError(
                    f"{source} states {known:g} µm along {axis}, but {image.attrs['source']} "
                    f"{um:g} µm; say which holds with {option}"
                )
    return size | said


def _fit(image: xr.DataArray, mask: xr.DataArray, planes: Sequence[int] | None) -> xr.DataArray:
    if planes is not None and image.sizes["Z"] > 1:
        image = image.isel(Z=list(planes))
    if image.sizes["T"] != mask.sizes["T"]:
        raise MitolumeError(
            f"{image.attrs['source']} has {image.sizes['T']} time points, but its mask "
            f"{mask.attrs['source']} has {mask.sizes['T']}"
        )
    require_fit(mask, image)
    return image


def _of_run(run: Path) -> list[Source]:
    opened = open_run(run)
    rows = opened.rows
    # The planes of an outlined stack that has its dye are there twice, to be learnt from.
    narrow_first = sorted(rows, key=lambda row: len(row.planes or ()))
    widest = {(r.image, r.scene, r.channel, z): r for r in narrow_first for z in r.planes or (0,)}
    measured = {id(row) for row in widest.values()}
    return [
        Source(
            opened.mask_file(opened.kept, name), name, _images_of(row), row.planes,
            _facts(row) | {"role": row.role, "model": opened.kept},
            size_of(row.z_step_um, row.pixel_size_um),
        )
        for row, name in zip(rows, opened.row_names, strict=True)
        if id(row) in measured
    ]  # fmt: skip


def _images_of(row: Field) -> tuple[IntensityImage, ...]:
    """Return the image of a row and its paired fluorescence, a file or a channel of the image."""
    image = IntensityImage(row.image, "image", row.channel, row.scene)
    inside = isinstance(row.fluorescence, str) and not row.channel  # all channels are measured
    if not row.fluorescence or inside or row.fluorescence == row.channel:
        return (image,)
    if isinstance(row.fluorescence, Path):
        return image, IntensityImage(row.fluorescence, "fluorescence")
    return image, IntensityImage(row.image, "fluorescence", row.fluorescence, row.scene)


def _facts(row: Field) -> dict[str, str]:
    return {"specimen": row.specimen, "condition": row.condition, "batch": row.batch}


def size_of(z_step_um: float | None, pixel_size_um: float | None) -> Size:
    """Return what is known of a pixel size, ``Z Y X`` to µm."""
    sizes = {"Z": z_step_um, "Y": pixel_size_um, "X": pixel_size_um}
    return {axis: um for axis, um in sizes.items() if um is not None}


def _of_files(files: Sequence[Path], images: Sequence[Path]) -> list[Source]:
    lone = [path for path in images if not (is_folder(path) or _scenes_by_name(path))]
    if lone and len(files) > 1:
        raise MitolumeError(
            f"{lone[0]} is one image for {len(files)} masks; name the folder of the images"
        )
    masks = {os.path.realpath(file) for file in files}
    sources = []
    for file in files:
        found = [find_image(file, path, masks) for path in images]
        short = _short_names(found, lone=len(files) == 1)
        own = tuple(
            IntensityImage(path, name, scene=_scene_of(file, path))
            for path, name in zip(found, short, strict=True)
        )
        sources.append(Source(file, image_name(file), own))
    return sources


def _scene_of(mask: Path, image: Path) -> str:
    """Return the scene of an image whose results have the mask's name, "" where none does."""
    own = image_name(mask)
    return "" if own == bare_name(image) else _scenes_by_name(image).get(own, "")


@lru_cache(maxsize=8)
def _scenes_by_name(path: Path) -> dict[str, str]:
    """Return a file's scenes by how their results are named; none of a file with only one."""
    with suppress(MitolumeError):  # it is said when the image is opened
        return {name: scene for scene, name in named_scenes(path, "all") if scene}
    return {}


def _short_names(files: Sequence[Path], *, lone: bool) -> list[str]:
    """Name each of a field's files by what tells it from the others; a lone one needs no name.

    Unless there is but one field, the names must be those of the next field's files too, for they
    become names of columns: what the files' names share is the field's.
    """
    if len(files) < 2:
        return [""] * len(files)
    words = [re.split(r"[ _.-]+", bare_name(file)) for file in files]
    together = list(zip(*words, strict=False))
    shared = len(list(takewhile(lambda at: len(set(at)) == 1, together)))
    short = ["_".join(own[shared:]) for own in words] if shared or lone else []
    for names in (short, [file.parent.name for file in files]):
        if names and all(names) and len(set(names)) == len(names):
            return names
    return [str(number) for number in range(len(files))]


@lru_cache(maxsize=8)
def _images(folder: Path, modified_ns: int) -> dict[str, Path]:
    """List the images of a folder by name; thousands of masks ask for the same folder."""
    found = by_name(images_in(folder))
    if not found:
        raise MitolumeError(f"{folder} holds no image ({', '.join(READERS)})")
    return found


def _with_facts(
    sources: Sequence[Source], table: Path, *, whole: bool
) -> tuple[list[Source], list[str]]:
    """Add what a table says of each image, and its images where none were named.

    Masks that it does not know are left out, and a sentence names them; where the ``whole`` table
    is meant, another names its images without a mask.
    """
    listed = read_table(table)
    names = dict(zip(row_names(listed), listed, strict=True))
    rows: dict[str, list[Field]] = {}
    for row in listed:
        if row.mask:
            rows.setdefault(os.path.realpath(row.mask), []).append(row)
        called = bare_name(row.image), scene_name(row.image, row.scene)
        for name in {*called, image_name(row.mask) if row.mask else ""} - {""}:
            rows.setdefault(name, []).append(row)
    found: list[Source] = []
    measured: set[tuple[Path, str]] = set()
    unknown: list[Path] = []
    for source in sources:
        name = source.name
        own = rows.get(os.path.realpath(source.mask)) or rows.get(name) or []
        if not own and name in names:
            own = [names[name]]
        if not own:
            unknown.append(source.mask)
            continue
        if len({(row.image, row.scene, *_facts(row).values()) for row in own}) > 1:
            single = [f"{name}_mask" for name, row in names.items() if row in own]
            raise MitolumeError(
                f"{table} has {len(own)} rows of {name} that differ in image, specimen, condition "
                f"or batch; measure masks of single rows ({', '.join(single[:2])}, ...)"
            )
        row = own[0]
        measured.add((row.image, row.scene))
        found.append(
            replace(
                source, images=source.images or _images_of(row),
                planes=row.planes if len(own) == 1 else None, facts=_facts(row),
                table_size_um=size_of(row.z_step_um, row.pixel_size_um),
            )
        )  # fmt: skip
    if unknown and not found:
        raise MitolumeError(f"{table} has no row whose image or mask has the name of {unknown[0]}")
    left = f"{count(len(sources), 'mask')} found, {len(found)} used: not in {table}: "
    said = [left + some_names(unknown)] if unknown else []
    images = {(row.image, row.scene): row.name for row in listed}
    lacking = [name for image, name in images.items() if image not in measured]
    if whole and lacking:
        said.append(
            f"not measured, as no mask of theirs was found: {count(len(lacking), 'image')} of "
            f"{table} ({some_names(lacking)})"
        )
    return found, said
