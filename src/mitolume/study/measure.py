"""Masks to tables of objects, crops, outlines and pictures, one field after the other.

Knows no network. What is measured of an object is in `mitolume.analysis.measure`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import pandas as pd
import xarray as xr

from mitolume.analysis.object_pictures import title_of
from mitolume.analysis.objects import Frame, boxes_of, held, label_field, measure_frame
from mitolume.analysis.settings import ObjectSettings
from mitolume.analysis.summary import summarise_image
from mitolume.errors import MitolumeError
from mitolume.io.convert import read_objects
from mitolume.io.mask_files import is_outline_file
from mitolume.io.masks import MaskKind, decide_kind
from mitolume.io.pixel_size import CREDIBLE_UM
from mitolume.io.read import read, select_channel
from mitolume.io.tables import write_table
from mitolume.io.write import write_text
from mitolume.progress import Advance
from mitolume.study.object_files import FieldFiles, Wanted, finish_crops, write_superplots
from mitolume.study.sources import Picture, Source

Size = dict[str, float]

_PART = "parts"
_FRONT = ("image", "t", "plane", "specimen", "condition", "batch")


@dataclass(frozen=True)
class Measuring:
    """How masks are measured: everything that changes the tables, and what is written beside."""

    settings: ObjectSettings = field(default_factory=ObjectSettings)
    mask_kind: str = "auto"
    pixel_size_um: float | None = None
    z_step_um: float | None = None
    per_plane: bool = False
    wanted: Wanted = field(default_factory=Wanted)


@dataclass(frozen=True)
class Measured:
    """The tables, and a sentence for each mask that could not be measured."""

    objects: pd.DataFrame
    images: pd.DataFrame
    faults: list[str]
    notices: list[str]

    def text(self) -> str:
        """Return what a person wants to see at once."""
        n, m = len(self.objects), len(self.images)
        lines = [f"{n} object{'s' * (n != 1)} in {m} image{'s' * (m != 1)}"]
        for column in ("area_um2", "volume_um3", "area_px", "volume_px", "length_um", "length_px"):
            if column in self.objects and n:
                low, middle, high = np.nanpercentile(self.objects[column], [25, 50, 75])
                lines.append(f"{title_of(column)}: median {middle:.3g} ({low:.3g} to {high:.3g})")
        return "\n".join(lines)


def object_settings(
    split: str, min_size: float | None, max_hole: float | None, threshold: float
) -> ObjectSettings:
    """Return the settings of objects; sizes hold in µm, or in pixels where no pixel size is known.

    Raises
    ------
    MitolumeError
        There is no such way of cutting objects.
    """
    ways = get_args(ObjectSettings.model_fields["split"].annotation)
    if split not in ways:
        raise MitolumeError(f"--split {split}: there are {', '.join(ways)}")
    sizes = {"min_size": min_size, "max_hole": max_hole}
    given = {
        f"{name}_{unit}": size
        for name, size in sizes.items()
        for unit in ("um", "px")
        if size is not None
    }
    return ObjectSettings.model_validate({"split": split, "threshold": threshold} | given)


def measure_masks(
    sources: Sequence[Source],
    out: Path,
    how: Measuring,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Advance = lambda done, total, note="": None,
) -> Measured:
    """Measure the objects of every mask, and write the tables.

    Each field is finished on its own below ``OUT.parts``, so that a measurement that was stopped
    can go on; a mask that can't be used does not stop the others.

    Parameters
    ----------
    sources
        As `find_sources` finds them.
    out
        The table of objects, ``.csv`` or ``.parquet``. Beside it ``NAME_images`` of the same kind
        has a row for each image, and ``NAME_settings.json`` says how all was made.
    how
        Settings, and what else to write.
    resume
        Go on with a measurement that was stopped.
    overwrite
        Replace results that are there already.
    progress
        Called with the masks done, the masks there are, and a name.

    Returns
    -------
    Measured

    Raises
    ------
    MitolumeError
        Nothing could be measured, masks can't be understood, or the settings differ from those of
        the measurement that was stopped.
    """
    if out.suffix.lower() not in (".csv", ".parquet"):
        raise MitolumeError(f"--out {out} must end in .csv or .parquet: it is a table")
    parts = out.with_name(f"{out.name}.{_PART}")
    if not overwrite and not (resume and parts.exists()):
        _refuse_overwriting(out, how.wanted, sources)
    if overwrite and not resume:
        shutil.rmtree(parts, ignore_errors=True)
    kinds = _kinds(sources, how.mask_kind)
    record = _record(sources, how)
    _require_same(parts, record, resume)
    objects, images, finished = [], [], []
    faults: list[str] = []
    notices = list(kinds.notices)
    for done, source in enumerate(sources):
        progress(done, len(sources), source.name)
        place = parts / f"{done:05}"
        try:
            if str(source.mask) in kinds.faults:
                raise MitolumeError(kinds.faults[str(source.mask)])
            if not place.exists():
                tell = partial(_tell, progress, done, len(sources), source.name)
                notices += _measure_source(source, kinds.of(source.mask), how, place, tell)
        except MitolumeError as error:
            faults.append(str(error))
            continue
        objects.append(pd.read_parquet(place / "objects.parquet"))
        images.append(pd.read_parquet(place / "images.parquet"))
        finished.append(place)
    progress(len(sources), len(sources), "")
    if not objects:
        shutil.rmtree(parts)
        raise MitolumeError("\n  ".join(faults))
    measured = Measured(_joined(objects), _joined(images), faults, list(dict.fromkeys(notices)))
    if how.wanted.crops is not None:
        finish_crops(how.wanted.crops, finished)
    if how.wanted.pictures is not None:
        write_superplots(how.wanted.pictures, measured.objects)
    write_table(out, measured.objects)
    write_table(out.with_name(f"{out.stem}_images{out.suffix}"), measured.images)
    write_text(out.with_name(f"{out.stem}_settings.json"), json.dumps(record, indent=2) + "\n")
    if not faults:
        shutil.rmtree(parts)
    return measured


@dataclass(frozen=True)
class _Kinds:
    """What the values of all masks mean; None: they are label images."""

    kind: MaskKind | None
    probabilities: frozenset[str]
    faults: dict[str, str]
    notices: list[str]

    def of(self, mask: Path) -> MaskKind | None:
        if is_outline_file(mask):
            return None  # every outline is an object
        return "unsure" if str(mask) in self.probabilities else self.kind


def _kinds(sources: Sequence[Source], wanted: str) -> _Kinds:
    """Decide once, for all masks, what their values mean."""
    if wanted not in get_args(MaskKind):
        raise MitolumeError(f"no mask kind {wanted!r}; there are {', '.join(get_args(MaskKind))}")
    values: dict[str, set[float]] = {}
    probabilities, faults = set(), {}
    for source in sources:
        name = str(source.mask)
        if is_outline_file(source.mask):
            continue
        try:
            found = _values(_open_mask(source))
        except MitolumeError as error:
            faults[name] = str(error)
            continue
        if any(value != int(value) for value in found) and min(found) >= 0 and max(found) <= 1:
            probabilities.add(name)
        else:
            values[name] = found
    numbered = any(found - {0.0, 1.0, 255.0} for found in values.values())
    if wanted == "auto" and numbered:
        wanted = "labels"
    kind, notices, misfits = decide_kind(values, cast(MaskKind, wanted))
    if misfits:
        raise MitolumeError("; ".join(misfits).replace("mask_kind: ", "--mask-kind "))
    positive = {value for found in values.values() for value in found if value > 0}
    given = kind == "labels" and len(positive) > 1
    return _Kinds(None if given else kind, frozenset(probabilities), faults, notices)


def _values(mask: xr.DataArray) -> set[float]:
    found: set[float] = set()
    for t in range(mask.sizes["T"]):
        frame = held(mask.isel(T=t))
        for box in boxes_of(frame.shape):
            values = np.unique(frame[box].values)
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise MitolumeError(f"{mask.attrs['source']} holds NaN, which is no mask")
            found |= {float(value) for value in values}
    return found


def _tell(progress: Advance, done: int, total: int, name: str, what: str, n: int, m: int) -> None:
    """Say how far a single large mask is."""
    if m > 1:
        progress(done, total, f"{name}: {what} {n}/{m}")


def _measure_source(
    source: Source, kind: MaskKind | None, how: Measuring, place: Path, tell: Callable[..., None]
) -> list[str]:
    """Measure one mask, and leave its tables in a folder of their own."""
    mask = _open_mask(source)
    size = _pixel_size(mask, source, how)
    image, notices = _open_image(source, mask)
    mask = mask.assign_attrs(pixel_size_um=size)
    steps = {b - a for a, b in zip(source.planes or (), (source.planes or ())[1:], strict=False)}
    in_3d = mask.sizes["Z"] > 1 and not how.per_plane and steps <= {1}
    tables, summaries = [], []
    files = FieldFiles(source.name, how.wanted, size)
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".part-") as scratch:
        labelling, measuring = partial(tell, "labelling"), partial(tell, "objects")
        for frame in label_field(
            mask, kind, how.settings, in_3d=in_3d, scratch=Path(scratch), progress=labelling
        ):
            grey = None if image is None else _grey(image, mask, frame)
            same_depth = None if grey is None else _same_depth(grey, frame)
            table = measure_frame(frame, same_depth, size, measuring)
            facts = _facts(source, mask, frame)
            summary = summarise_image(table, frame.labels.shape, size)
            tables.append(_in_front(table, facts))
            summaries.append(pd.DataFrame([facts | summary]))
            files.add(frame, grey, table, facts)
        done = Path(scratch) / "tables"
        done.mkdir()
        _joined(tables).to_parquet(done / "objects.parquet")
        _joined(summaries).to_parquet(done / "images.parquet")
        files.close(done)
        done.rename(place)
    return notices


def _open_mask(source: Source) -> xr.DataArray:
    """Open a mask, outlines as a label image: dims T Z Y X."""
    if is_outline_file(source.mask):
        like = source.pictures[0].file if source.pictures else None
        objects = read_objects(source.mask, like)
        values = (
            objects.labels[np.newaxis] if objects.labels.ndim == 3 else objects.labels[None, None]
        )
        attrs = {"source": str(source.mask), "pixel_size_um": objects.pixel_size_um}
        return xr.DataArray(values, dims=("T", "Z", "Y", "X"), attrs=attrs)
    mask = read(source.mask)
    if mask.sizes["C"] > 1:
        raise MitolumeError(
            f"mask {source.mask} has {mask.sizes['C']} channels or colours; save it in grey "
            "(Fiji: Image > Type > 8-bit)"
        )
    return mask.isel(C=0, drop=True)


def _pixel_size(mask: xr.DataArray, source: Source, how: Measuring) -> Size:
    """Return what is known of the pixel size: asked for, of the table, the mask's, the image's."""
    size: Size = {}
    for picture in source.pictures[:1]:
        size |= read(picture.file, scene=picture.scene or None).attrs.get("pixel_size_um", {})
    size |= mask.attrs.get("pixel_size_um", {}) | source.pixel_size_um
    low, high = CREDIBLE_UM
    if how.pixel_size_um is not None:
        if not low <= how.pixel_size_um <= high:
            raise MitolumeError(
                f"--pixel-size {how.pixel_size_um:g} is not within {low:g} to {high:g} µm"
            )
        size |= {"Y": how.pixel_size_um, "X": how.pixel_size_um}
    if how.z_step_um is not None:
        size["Z"] = how.z_step_um
    return size


def _open_image(source: Source, mask: xr.DataArray) -> tuple[xr.DataArray | None, list[str]]:
    """Open the pictures of a field as one image T C Z Y X, and say what should be known of it."""
    if not source.pictures:
        return None, []
    opened = [_open_picture(picture, source, mask) for picture in source.pictures]
    image = opened[0] if len(opened) == 1 else xr.concat(opened, "C", combine_attrs="override")
    names = [str(name) for name in image["C"].values]
    if len(set(names)) < len(names):
        image = image.assign_coords(
            C=np.array([f"{name} {i}" for i, name in enumerate(names)], dtype=object)
        )
    notices = []
    if mask.sizes["Z"] == 1 and image.sizes["Z"] > 1:
        notices.append(
            f"{source.mask.name} has one plane and its image {image.sizes['Z']}: grey values are "
            "means over the planes"
        )
    return image, notices


def _open_picture(picture: Picture, source: Source, mask: xr.DataArray) -> xr.DataArray:
    image = read(picture.file, scene=picture.scene or None)
    if picture.channel:
        image = select_channel(image, picture.channel)
    if source.planes is not None and image.sizes["Z"] > 1:
        image = image.isel(Z=list(source.planes))
    for axis in "TYX":
        if image.sizes[axis] != mask.sizes[axis]:
            raise MitolumeError(
                f"{picture.file} has {image.sizes[axis]} along {axis}, but its mask {source.mask} "
                f"has {mask.sizes[axis]}"
            )
    if mask.sizes["Z"] not in (1, image.sizes["Z"]):
        raise MitolumeError(
            f"{picture.file} has {image.sizes['Z']} planes, but its mask {source.mask} has "
            f"{mask.sizes['Z']}"
        )
    if image.sizes["C"] == 1 and picture.name:
        image = image.assign_coords(C=np.array([picture.name], dtype=object))
    return image


def _grey(image: xr.DataArray, mask: xr.DataArray, frame: Frame) -> xr.DataArray:
    """Return the planes of a frame, C Z Y X; all of them where the mask has one plane."""
    planes = frame.planes if mask.sizes["Z"] > 1 else slice(None)
    return held(image.isel(T=frame.t, Z=planes))


def _same_depth(grey: xr.DataArray, frame: Frame) -> xr.DataArray:
    if grey.sizes["Z"] == frame.labels.shape[0]:
        return grey
    return grey.mean("Z", keepdims=True, dtype=np.float64)


def _facts(source: Source, mask: xr.DataArray, frame: Frame) -> dict[str, Any]:
    """Return where a frame comes from; plane counts from 0 in the image, None for a volume."""
    facts: dict[str, Any] = {"image": source.name}
    if mask.sizes["T"] > 1:
        facts["t"] = frame.t
    if mask.sizes["Z"] > 1 and frame.labels.shape[0] == 1:
        facts["plane"] = (source.planes or range(mask.sizes["Z"]))[frame.planes.start]
    return facts | {name: value for name, value in source.facts.items() if value}


def _in_front(table: pd.DataFrame, facts: dict[str, Any]) -> pd.DataFrame:
    table = table.copy()
    for number, (name, value) in enumerate(facts.items()):
        dtype = "int64" if isinstance(value, int) else "string"
        table.insert(number, name, pd.Series([value] * len(table), dtype=dtype, index=table.index))
    return table


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Put tables below each other, the columns that say where a row comes from first."""
    filled = [table for table in tables if len(table)] or list(tables[:1])
    joined = pd.concat(filled, ignore_index=True)
    front = [name for name in _FRONT if name in joined]
    return joined[front + [name for name in joined if name not in front]]


def _record(sources: Sequence[Source], how: Measuring) -> dict[str, Any]:
    from mitolume import __version__

    return {
        "mitolume": __version__,
        "objects": how.settings.model_dump(),
        "mask_kind": how.mask_kind,
        "pixel_size_um": how.pixel_size_um,
        "z_step_um": how.z_step_um,
        "per_plane": how.per_plane,
        "written": {
            name: str(value) if isinstance(value, Path) else value
            for name, value in asdict(how.wanted).items()
        },
        "masks": [
            {
                "name": source.name,
                "mask": str(source.mask),
                "images": [str(picture.file) for picture in source.pictures],
            }
            for source in sources
        ],
    }


def _refuse_overwriting(out: Path, wanted: Wanted, sources: Sequence[Source]) -> None:
    for path in [out, *wanted.files([source.name for source in sources])]:
        if path.exists():
            raise MitolumeError(f"{path} is there already; choose another place or --overwrite")


def _require_same(parts: Path, record: dict[str, Any], resume: bool) -> None:
    """Refuse to mix what was measured in different ways."""
    settings = parts / "settings.json"
    if not settings.exists():
        write_text(settings, json.dumps(record, indent=2) + "\n")
        return
    if not resume:
        raise MitolumeError(
            f"{parts} was left by a measurement that was stopped; go on with --resume, or delete it"
        )
    if json.loads(settings.read_text(encoding="utf-8")) != record:
        raise MitolumeError(
            f"{parts} was measured with other settings or masks; delete it to begin anew"
        )
