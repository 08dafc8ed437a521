"""Which masks to measure, and the images and facts that belong to each. Reads no pixels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from mitolume.errors import MitolumeError, some_names
from mitolume.io.fields import Field, read_table, row_names
from mitolume.io.formats import READERS, bare_name
from mitolume.runs.folder import Run, open_run

_MASKS = (*READERS, ".zip", ".roi", ".geojson")  # what a mask can be
_SAYS_MASK = re.compile(
    r"[ _.-]+(cp_masks|masks?|labels?|probability|rois?|roiset|segmentation)$", re.IGNORECASE
)


@dataclass(frozen=True)
class Picture:
    """A file to measure grey values in; ``name`` is what a channel without a name is called."""

    file: Path
    name: str = ""
    channel: str = ""
    scene: str = ""


@dataclass(frozen=True)
class Source:
    """A mask, the pictures of the same field, and what a table says of it.

    ``planes`` are the planes of the pictures that the mask's planes belong to; None: all.
    """

    mask: Path
    name: str
    pictures: tuple[Picture, ...] = ()
    planes: tuple[int, ...] | None = None
    facts: dict[str, str] = field(default_factory=dict)
    pixel_size_um: dict[str, float] = field(default_factory=dict)


def find_sources(
    masks: Sequence[Path], pictures: Sequence[Path], table: Path | None = None
) -> list[Source]:
    """Find out what is to be measured.

    Parameters
    ----------
    masks
        Mask files, folders of them, or run folders (the masks of the kept model).
    pictures
        Image files, or folders whose files have the masks' names. Several files or folders are
        several channels of the same fields.
    table
        A table of fields that says of each image to what specimen and condition it belongs.

    Returns
    -------
    list of Source
        At least one.

    Raises
    ------
    MitolumeError
        Something is missing, or files don't match.
    """
    runs = [path for path in masks if Run(path).is_begun]
    if runs and (len(runs) < len(masks) or pictures or table):
        raise MitolumeError(
            f"{runs[0]} is a run folder, which knows its images and its table; measure it alone, "
            "without --intensity and --fields"
        )
    if runs:
        found = [source for run in runs for source in _of_run(run)]
    else:
        found = _of_files(masks, pictures)
        if table is not None:
            found = _with_facts(found, table)
    twice = [name for name, n in Counter(s.name.casefold() for s in found).items() if n > 1]
    if twice:
        first, second = [s.mask for s in found if s.name.casefold() == twice[0]][:2]
        raise MitolumeError(f"{first} and {second} have the same name; measure them one by one")
    return found


def _of_run(run: Path) -> list[Source]:
    opened = open_run(run)
    rows = opened.rows
    return [
        Source(
            opened.mask_file(opened.kept, name), name, _pictures(row), row.planes,
            _facts(row), _sizes(row),
        )
        for row, name in zip(rows, row_names(rows), strict=True)
    ]  # fmt: skip


def _pictures(row: Field) -> tuple[Picture, ...]:
    """Return the image of a row and its paired fluorescence, a file or a channel of the image."""
    image = Picture(row.image, "image", row.channel, row.scene)
    if not row.fluorescence:
        return (image,)
    file = row.image.parent / row.fluorescence
    if file.exists():
        return image, Picture(file, "fluorescence")
    return image, Picture(row.image, "fluorescence", row.fluorescence, row.scene)


def _facts(row: Field) -> dict[str, str]:
    return {"specimen": row.specimen, "condition": row.condition, "batch": row.batch}


def _sizes(row: Field) -> dict[str, float]:
    sizes = {"Z": row.z_step_um, "Y": row.pixel_size_um, "X": row.pixel_size_um}
    return {axis: size for axis, size in sizes.items() if size}


def _of_files(masks: Sequence[Path], pictures: Sequence[Path]) -> list[Source]:
    files = [file for path in masks for file in _masks(path)]
    lookups = [_by_name(path) if _is_folder(path) else path for path in pictures]
    lone = [path for path in lookups if isinstance(path, Path)]
    if lone and len(files) > 1:
        raise MitolumeError(
            f"{lone[0]} is one image for {len(files)} masks; name the folder of the images"
        )
    own = {file.resolve() for file in files}
    sources = []
    for file in files:
        name = _key(file)
        found = [
            path if isinstance(path, Path) else _lookup(path, name, file, folder, own)
            for path, folder in zip(lookups, pictures, strict=True)
        ]
        named = zip(found, _short_names(found, lone=len(files) == 1), strict=True)
        sources.append(Source(file, name, tuple(Picture(p, short) for p, short in named)))
    return sources


def _lookup(
    files: dict[str, Path], name: str, mask: Path, folder: Path, masks: Collection[Path]
) -> Path:
    """Find the image of a mask: the same name, else one that goes on from it, or it from that.

    A name goes on behind a mark that is no letter or digit: ``f1_bf`` belongs to ``f1``, and
    ``f10`` does not. A mask is no image of another.
    """
    if name in files:
        return files[name]
    images = {key.casefold(): p for key, p in files.items() if p.resolve() not in masks}
    own = name.casefold()
    near = [images[own]] if own in images else [p for k, p in images.items() if _goes_on(k, own)]
    if not near:
        near = [images[k] for k in sorted(images, key=len) if _goes_on(own, k)][-1:]
    if len(near) == 1:
        return near[0]
    if near:
        listing = some_names(near)
        raise MitolumeError(f"{mask} could belong to {listing} in {folder}; rename one of them")
    raise MitolumeError(f"{folder} has no image of the name of {mask}")


def _goes_on(long: str, short: str) -> bool:
    return long.startswith(short) and not long[len(short) : len(short) + 1].isalnum()


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


def _key(file: Path) -> str:
    return _SAYS_MASK.sub("", bare_name(file))


def _is_folder(path: Path) -> bool:
    """Tell a folder of files from one that is a file to us, as OME-Zarr is."""
    return path.is_dir() and not path.name.lower().endswith(".zarr")


def _files(path: Path, endings: Sequence[str], what: str) -> list[Path]:
    if not path.exists():
        raise MitolumeError(f"{path}: no such file or folder")
    if not _is_folder(path):
        return [path]
    found = [
        file
        for file in sorted(path.iterdir())
        if not file.name.startswith(".")
        and file.name.lower().endswith(tuple(endings))
        and not file.name.lower().endswith("_overlay.png")
    ]
    if not found:
        raise MitolumeError(f"{path} holds no {what} ({', '.join(endings)})")
    return found


def _masks(path: Path) -> list[Path]:
    """Return the masks of a folder: where some files are named so, those only."""
    files = _files(path, _MASKS, "mask")
    named = [file for file in files if _key(file) != bare_name(file)]
    return named or files


def _by_name(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in _files(folder, tuple(READERS), "image"):
        if bare_name(file) in found:
            raise MitolumeError(f"{found[bare_name(file)]} and {file} have the same name")
        found[bare_name(file)] = file
    return found


def _with_facts(sources: Sequence[Source], table: Path) -> list[Source]:
    """Add what a table says of each image, and its pictures where none were named."""
    listed = read_table(table)
    named = dict(zip(row_names(listed), listed, strict=True))
    rows: dict[str | Path, list[Field]] = {}
    for row in listed:
        if row.mask:
            rows.setdefault(row.mask.resolve(), []).append(row)
        for name in {bare_name(row.image), _key(row.mask) if row.mask else ""} - {""}:
            rows.setdefault(name, []).append(row)
    found = []
    for source in sources:
        name = source.name
        own = rows.get(source.mask.resolve()) or rows.get(name) or []
        if not own and name in named:
            own = [named[name]]
        if not own:
            raise MitolumeError(
                f"{table} has no row whose image or mask has the name of {source.mask}"
            )
        if len({(row.image, row.scene, *_facts(row).values()) for row in own}) > 1:
            raise MitolumeError(
                f"{table} has {len(own)} rows of {name} that differ in image, specimen, condition "
                f"or batch; measure masks of single rows ({', '.join(_of(named, own)[:2])}, ...)"
            )
        row = own[0]
        found.append(
            Source(
                source.mask, name, source.pictures or _pictures(row),
                row.planes if len(own) == 1 else None, _facts(row), _sizes(row),
            )
        )  # fmt: skip
    return found


def _of(named: dict[str, Field], rows: Sequence[Field]) -> list[str]:
    return [f"{name}_mask" for name, row in named.items() if row in rows]
