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
from typing import Any, get_args

import numpy as np
import pandas as pd
import xarray as xr
from pydantic import ValidationError

from mitolume.analysis.labelling import ObjectSettings
from mitolume.analysis.measure import summarise_image
from mitolume.analysis.object_pictures import title_of
from mitolume.analysis.objects import Frame, label_field, load_if_small, measure_frame
from mitolume.batch.field_data import as_one, open_mask, open_pictures, pixel_size
from mitolume.batch.mask_kinds import Kind, MaskKinds, mask_kinds
from mitolume.batch.object_files import FieldFiles, Wanted, finish_crops, write_superplots
from mitolume.batch.sources import Source
from mitolume.errors import MitolumeError
from mitolume.io.fields import format_planes
from mitolume.io.masks import MaskKind
from mitolume.io.pixel_size import CREDIBLE_UM
from mitolume.io.write import below_each_other, write_table, write_text
from mitolume.progress import Advance

_PART = "parts"
_MOST_UM = 1000  # beyond it a length has another unit than µm
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

    def __post_init__(self) -> None:
        low, high = CREDIBLE_UM
        if self.pixel_size_um is not None and not low <= self.pixel_size_um <= high:
            raise MitolumeError(
                f"--pixel-size {self.pixel_size_um:g} is not within {low:g} to {high:g} µm"
            )
        if self.z_step_um is not None and not 0 < self.z_step_um <= _MOST_UM:
            raise MitolumeError(f"--z-step {self.z_step_um:g} is not within 0 to {_MOST_UM} µm")
        if not 0 <= self.wanted.margin_um <= _MOST_UM:
            raise MitolumeError(f"--margin {self.wanted.margin_um:g} is above {_MOST_UM} µm")

    @property
    def size_um(self) -> dict[str, float]:
        """The pixel size that was asked for, ``Z Y X`` to µm."""
        asked = {"Z": self.z_step_um, "Y": self.pixel_size_um, "X": self.pixel_size_um}
        return {axis: um for axis, um in asked.items() if um is not None}


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
        There is no such way of cutting objects, or a number is out of bounds.
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
    try:
        return ObjectSettings.model_validate({"split": split, "threshold": threshold} | given)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).removesuffix("_um").replace("_", "-")
        raise MitolumeError(f"--{option} {first['input']}: {first['msg'].lower()}") from error


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
    _require_possible(sources, how.wanted)
    if parts.exists() and not (resume or overwrite):
        raise MitolumeError(
            f"{parts} was left by a measurement that was stopped; go on with --resume, or begin "
            "anew with --overwrite"
        )
    if not overwrite and not (resume and parts.exists()):
        _refuse_overwriting(out, how.wanted, sources)
    if overwrite and not resume:
        shutil.rmtree(parts, ignore_errors=True)
    kinds = mask_kinds(sources, how.mask_kind)
    record = _record(sources, how)
    _require_same(parts, record)
    objects, images, finished = [], [], []
    faults: list[str] = []
    notices = [*kinds.notices, *_kept_as_they_are(kinds, how.settings)]
    for done, source in enumerate(sources):
        progress(done, len(sources), source.name)
        path = str(source.mask)
        try:
            if path in kinds.faults:
                raise MitolumeError(kinds.faults[path])
            # What was read otherwise is measured again: a mended mask may say what 255 means.
            place = parts / f"{done:05}-{kinds.kinds[path]}"
            if not place.exists():
                tell = partial(_tell, progress, done, len(sources), source.name)
                notices += _measure_source(source, kinds.kinds[path], how, place, tell)
        except MitolumeError as error:
            faults.append(str(error))
            continue
        objects.append(pd.read_parquet(place / "objects.parquet"))
        images.append(pd.read_parquet(place / "images.parquet"))
        finished.append(place)
    progress(len(sources), len(sources), "")
    if not objects:
        shutil.rmtree(parts)
        raise MitolumeError("\n  ".join(dict.fromkeys(faults)))
    measured = Measured(_joined(objects), _joined(images), faults, list(dict.fromkeys(notices)))
    write_table(out, measured.objects)
    write_table(out.with_name(f"{out.stem}_images{out.suffix}"), measured.images)
    write_text(out.with_name(f"{out.stem}_settings.json"), json.dumps(record, indent=2) + "\n")
    try:
        if how.wanted.crops is not None:
            finish_crops(how.wanted.crops, finished)
        if how.wanted.pictures is not None:
            write_superplots(how.wanted.pictures, measured.objects)
    finally:
        if not faults:
            shutil.rmtree(parts)
    return measured


def _kept_as_they_are(kinds: MaskKinds, settings: ObjectSettings) -> list[str]:
    for_masks = settings.model_dump(exclude={"threshold"})
    if "numbers" not in kinds.kinds.values() or for_masks == ObjectSettings().model_dump(
        exclude={"threshold"}
    ):
        return []
    return [
        "objects of label images and outlines are kept as they are: --split, --min-size and "
        "--max-hole are for masks"
    ]


def _tell(progress: Advance, done: int, total: int, name: str, what: str, n: int, m: int) -> None:
    """Say how far a single large mask is."""
    if m > 1:
        progress(done, total, f"{name}: {what} {n}/{m}")


def _measure_source(
    source: Source, kind: Kind, how: Measuring, place: Path, tell: Callable[..., None]
) -> list[str]:
    """Measure one mask, and leave its tables in a folder of their own."""
    mask = open_mask(source)
    if kind != "probability" and mask.dtype.kind == "f":
        mask = mask.astype(np.int64)
    pictures = open_pictures(source, mask)
    size = pixel_size([mask, *pictures], source.pixel_size_um | how.size_um)
    image = as_one(pictures)
    notices = [*mask.attrs.get("notices", ())]
    if image is not None and mask.sizes["Z"] == 1 and image.sizes["Z"] > 1:
        notices.append(
            f"{source.mask.name} has one plane and its image {image.sizes['Z']}: grey values are "
            "means over the planes"
        )
    mask = mask.assign_attrs(pixel_size_um=size)
    steps = {b - a for a, b in zip(source.planes or (), (source.planes or ())[1:], strict=False)}
    in_3d = mask.sizes["Z"] > 1 and not how.per_plane and steps <= {1}
    tables, summaries = [], []
    files = FieldFiles(source.name, how.wanted, size)
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".part-") as scratch:
        labelling, measuring = partial(tell, "labelling"), partial(tell, "objects")
        read_as: MaskKind | None = {"numbers": None, "labels": "labels"}.get(kind, "unsure")
        for frame in label_field(
            mask, read_as, how.settings, in_3d=in_3d, scratch=Path(scratch), progress=labelling
        ):
            grey = None if image is None else _grey(image, mask, frame)
            same_depth = None if grey is None else _same_depth(grey, frame)
            table = measure_frame(frame, same_depth, size, measuring)
            facts = _facts(source, mask, frame)
            summary = summarise_image(table, frame.labels.shape, size, frame.n_unsure())
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


def _grey(image: xr.DataArray, mask: xr.DataArray, frame: Frame) -> xr.DataArray:
    """Return the planes of a frame, C Z Y X; all of them where the mask has one plane."""
    planes = frame.planes if mask.sizes["Z"] > 1 else slice(None)
    return load_if_small(image.isel(T=frame.t, Z=planes))


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
    joined = below_each_other(tables)
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
                "images": [
                    {name: str(value) for name, value in asdict(picture).items() if value}
                    for picture in source.pictures
                ],
                "planes": format_planes(source.planes),
                "pixel_size_um": source.pixel_size_um,
                **source.facts,
            }
            for source in sources
        ],
    }


def _refuse_overwriting(out: Path, wanted: Wanted, sources: Sequence[Source]) -> None:
    for path in [out, *wanted.files([source.name for source in sources])]:
        if path.exists():
            raise MitolumeError(f"{path} is there already; choose another place or --overwrite")


def _require_possible(sources: Sequence[Source], wanted: Wanted) -> None:
    """Refuse what can't be written, before anything is measured."""
    blind = [source.mask for source in sources if not source.pictures]
    if wanted.crops is not None and blind:
        raise MitolumeError(
            f"crops are cut out of an image, and {blind[0]} has none: name it with --intensity"
        )
    if wanted.rois is not None and wanted.rois_in_one_file and len(sources) > 1:
        raise MitolumeError(
            f"--rois {wanted.rois} is one ROI set, but there are {len(sources)} masks; name a "
            "folder"
        )


def _require_same(parts: Path, record: dict[str, Any]) -> None:
    """Refuse to mix what was measured in different ways."""
    settings = parts / "settings.json"
    if not settings.exists():
        write_text(settings, json.dumps(record, indent=2) + "\n")
        return
    if json.loads(settings.read_text(encoding="utf-8")) != record:
        raise MitolumeError(
            f"{parts} was measured with other settings, masks or facts; begin anew with "
            "--overwrite, without --resume"
        )
