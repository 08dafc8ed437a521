"""Which masks to measure, and the images and facts that belong to each. Reads no pixels."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mitolume.errors import MitolumeError
from mitolume.io.fields import Field, read_table
from mitolume.io.formats import READERS, bare_name

_MASKS = (*READERS, ".zip", ".roi", ".geojson")  # what a mask can be
_SUFFIXES = ("_mask", "_masks", "_labels", "_label", "_probability")


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
    runs = [path for path in masks if (path / "run.json").exists()]
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
    from mitolume.study.images import row_names  # brings torch

    kept = run / "kept.json"
    if not kept.exists():
        raise MitolumeError(f"{run} is a run that has not finished; go on with --resume")
    model = json.loads(kept.read_text(encoding="utf-8"))["kept"]
    rows = read_table(run / "fields.csv")
    return [
        Source(
            run / "masks" / model / f"{name}_mask.ome.tif", name, _pictures(row), row.planes,
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
    sources = []
    for file in files:
        name = _key(file)
        found = [
            path if isinstance(path, Path) else _lookup(path, name, file, folder)
            for path, folder in zip(lookups, pictures, strict=True)
        ]
        named = zip(found, _short_names(found), strict=True)
        sources.append(Source(file, name, tuple(Picture(p, short) for p, short in named)))
    return sources


def _lookup(files: dict[str, Path], name: str, mask: Path, folder: Path) -> Path:
    """Find the image of a mask: the same name, or the only one that begins or is begun by it."""
    if name in files:
        return files[name]
    near = [path for key, path in files.items() if key.startswith(name) or name.startswith(key)]
    if len(near) == 1:
        return near[0]
    if near:
        listing = ", ".join(path.name for path in near[:3])
        raise MitolumeError(f"{mask} could belong to {listing} in {folder}; rename one of them")
    raise MitolumeError(f"{folder} has no image of the name of {mask}")


def _short_names(files: Sequence[Path]) -> list[str]:
    """Name each of a field's files by what tells it from the others; a lone one needs no name.

    The names must be those of the next field's files too, for they become names of columns.
    """
    if len(files) < 2:
        return [""] * len(files)
    names = [bare_name(file) for file in files]
    letters = zip(*names, strict=False)
    shared = next((n for n, at in enumerate(letters) if len(set(at)) > 1), min(map(len, names)))
    for short in ([n[shared:].strip("_- .") for n in names], [f.parent.name for f in files]):
        if all(short) and len(set(short)) == len(short):
            return short
    return [str(number) for number in range(len(files))]


def _key(file: Path) -> str:
    name = bare_name(file)
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _is_folder(path: Path) -> bool:
    """Tell a folder of files from one that is a file to us, as OME-Zarr is."""
    return path.is_dir() and not path.name.lower().endswith(".zarr")


def _files(path: Path, endings: Sequence[str]) -> list[Path]:
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
        raise MitolumeError(f"{path} holds no mask ({', '.join(endings)})")
    return found


def _masks(path: Path) -> list[Path]:
    """Return the masks of a folder: where some files are named so, those only."""
    files = _files(path, _MASKS)
    named = [file for file in files if _key(file) != bare_name(file)]
    return named or files


def _by_name(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in _files(folder, tuple(READERS)):
        if bare_name(file) in found:
            raise MitolumeError(f"{found[bare_name(file)]} and {file} have the same name")
        found[bare_name(file)] = file
    return found


def _with_facts(sources: Sequence[Source], table: Path) -> list[Source]:
    """Add what a table says of each image, and its pictures where none were named."""
    rows: dict[str, list[Field]] = {}
    for row in read_table(table):
        for name in {bare_name(row.image), _key(row.mask) if row.mask else ""} - {""}:
            rows.setdefault(name, []).append(row)
    found = []
    for source in sources:
        own = rows.get(source.name, [])
        if not own:
            raise MitolumeError(
                f"{table} has no row whose image or mask has the name of {source.mask}"
            )
        if len({tuple(_facts(row).values()) for row in own}) > 1:
            raise MitolumeError(
                f"{table} has {len(own)} rows of {source.name} that differ in specimen, condition "
                "or batch; measure the run folder instead"
            )
        row = own[0]
        found.append(
            Source(
                source.mask, source.name, source.pictures or _pictures(row),
                row.planes if len(own) == 1 else None, _facts(row), _sizes(row),
            )
        )  # fmt: skip
    return found
