"""Masks to tables of objects, crops, outlines and pictures, one field after the other.

What is measured of an object is in `mitolume.analysis.measure`.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import xarray as xr
from pydantic import ValidationError

from mitolume.analysis.labelling import ObjectSettings
from mitolume.analysis.measure import summarise_image
from mitolume.analysis.object_pictures import title_of
from mitolume.analysis.objects import BLOCK, Frame, label_field, load_if_small, measure_frame
from mitolume.batch.object_files import (
    FieldFiles,
    Outputs,
    finish_crops,
    write_superplots,
)
from mitolume.batch.runner import Job, Outcome, Report, run_jobs
from mitolume.batch.sources import Source, fit_to_mask, open_images, pixel_size
from mitolume.errors import MitolumeError
from mitolume.io.fields import format_planes
from mitolume.io.mask_files import (
    distinct_values,
    hidden_outlines,
    is_outlined,
    is_probability,
    open_mask,
)
from mitolume.io.masks import MaskKind, Meaning, meaning_of, require_kind
from mitolume.io.pixel_size import CREDIBLE_UM
from mitolume.io.write import below_each_other, write_table, write_text
from mitolume.progress import Advance

# How a mask is read: numbers are those of label images and outlines, each an object.
Reading = Literal["unsure", "labels", "probability", "numbers"]

_MOST_UM = 1000  # beyond it a length has another unit than µm
_FRONT = ("image", "t", "plane", "specimen", "condition", "batch")


@dataclass(frozen=True)
class MeasureSettings:
    """How masks are measured: everything that changes the tables, and what is written beside.

    Attributes
    ----------
    objects
        What counts as one object.
    mask_kind
        What values of masks mean: ``auto``, ``unsure`` or ``labels``.
    pixel_size_um, z_step_um
        Over what files and tables state, in µm.
    per_plane
        Label each plane of a stack on its own.
    outputs
        What to write beside the tables.
    """

    objects: ObjectSettings = field(default_factory=ObjectSettings)
    mask_kind: str = "auto"
    pixel_size_um: float | None = None
    z_step_um: float | None = None
    per_plane: bool = False
    outputs: Outputs = field(default_factory=Outputs)

    def __post_init__(self) -> None:
        require_kind(self.mask_kind)
        low, high = CREDIBLE_UM
        if self.pixel_size_um is not None and not low <= self.pixel_size_um <= high:
            raise MitolumeError(
                f"--pixel-size {self.pixel_size_um:g} is not within {low:g} to {high:g} µm"
            )
        if self.z_step_um is not None and not 0 < self.z_step_um <= _MOST_UM:
            raise MitolumeError(f"--z-step {self.z_step_um:g} is not within 0 to {_MOST_UM} µm")
        if not 0 <= self.outputs.margin_um <= _MOST_UM:
            raise MitolumeError(f"--margin {self.outputs.margin_um:g} is above {_MOST_UM} µm")

    @property
    def size_um(self) -> dict[str, float]:
        """The pixel size that the user gave, ``Z Y X`` to µm."""
        given = {"Z": self.z_step_um, "Y": self.pixel_size_um, "X": self.pixel_size_um}
        return {axis: um for axis, um in given.items() if um is not None}


@dataclass(frozen=True)
class Measurements:
    """The tables, what became of each mask, and what the user should know."""

    objects: pd.DataFrame
    images: pd.DataFrame
    outcome: Outcome
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


def object_settings(split: str, min_size: float | None, threshold: float) -> ObjectSettings:
    """Return the settings of objects for what the command line was given.

    Parameters
    ----------
    split
        How touching objects are cut, see `ObjectSettings`.
    min_size
        The least size across, in µm, or in pixels where the pixel size is unknown. Holes below it
        are filled, too, but never larger ones than by default: rings keep theirs.
    threshold
        Of masks that are probabilities.

    Raises
    ------
    MitolumeError
        There is no such way of cutting objects, or a number is out of bounds.
    """
    ways = get_args(ObjectSettings.model_fields["split"].annotation)
    if split not in ways:
        raise MitolumeError(f"--split {split}: there are {', '.join(ways)}")
    given: dict[str, Any] = {"split": split, "threshold": threshold}
    if min_size is not None:
        default = ObjectSettings()
        given |= {"min_size_um": min_size, "min_size_px": min_size}
        given |= {"max_hole_um": min(min_size, default.max_hole_um)}
        given |= {"max_hole_px": min(min_size, default.max_hole_px)}
    try:
        return ObjectSettings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).removesuffix("_um").replace("_", "-")
        raise MitolumeError(f"--{option} {first['input']}: {first['msg'].lower()}") from error


def measure_masks(
    sources: Sequence[Source],
    out: Path,
    settings: MeasureSettings,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Advance = lambda done, total, note="": None,
) -> Measurements:
    """Measure the objects of every mask, and write the tables.

    Each field is finished on its own below ``OUT.parts``, so that a measurement that was stopped
    can be resumed; a mask that can't be used does not stop the others.

    Parameters
    ----------
    sources
        As `find_sources` finds them.
    out
        The table of objects, ``.csv`` or ``.parquet``. Beside it ``NAME_images`` of the same kind
        has a row for each image, and ``NAME_settings.json`` says how all was made.
    settings
        How to measure, and what else to write.
    resume
        Keep what a measurement that was stopped has finished.
    overwrite
        Replace results that exist.
    progress
        Called with the blocks of images done, the blocks there are, and a name.

    Returns
    -------
    Measurements

    Raises
    ------
    MitolumeError
        Nothing could be measured, masks can't be understood, or results exist.
    """
    if out.suffix.lower() not in (".csv", ".parquet"):
        raise MitolumeError(f"--out {out} must end in .csv or .parquet: it is a table")
    parts = out.with_name(f"{out.name}.parts")
    if settings.outputs.crops is not None and (blind := [s.mask for s in sources if not s.images]):
        raise MitolumeError(
            f"crops are cut out of an image, and {blind[0]} has none: name it with --intensity"
        )
    _refuse_losses(sources, out, settings.outputs, replace=overwrite or (resume and parts.exists()))
    if overwrite and not resume:
        _remove(parts)
    jobs, faults, notices = _jobs(sources, settings, parts, progress)
    outcome = run_jobs(
        jobs, parts / "made_of.jsonl", resume=resume, overwrite=overwrite, faults=faults,
        progress=progress,
    )  # fmt: skip
    done = {job.results[-1] for job in (*outcome.before, *(one.job for one in outcome.finished))}
    finished = [job.results[-1] for job in jobs if job.results[-1] in done]
    if not finished:
        _remove(parts)
        outcome.raise_faults("masks", "measured")
    measured = Measurements(
        _joined([pd.read_parquet(part / "objects.parquet") for part in finished]),
        _joined([pd.read_parquet(part / "images.parquet") for part in finished]),
        outcome,
        list(dict.fromkeys([*notices, *outcome.notices])),
    )
    images, described = _beside(out)
    write_table(out, measured.objects)
    write_table(images, measured.images)
    write_text(described, json.dumps(_record(sources, settings), indent=2) + "\n")
    try:
        if settings.outputs.crops is not None:
            finish_crops(settings.outputs.crops, finished)
        if settings.outputs.pictures is not None:
            write_superplots(settings.outputs.pictures, measured.objects)
    finally:
        if not outcome.faults:
            _remove(parts)
    return measured


def _beside(out: Path) -> tuple[Path, Path]:
    """Return the files of the table of images and of the settings."""
    return out.with_name(f"{out.stem}_images{out.suffix}"), out.with_name(
        f"{out.stem}_settings.json"
    )


def _refuse_losses(
    sources: Sequence[Source], out: Path, outputs: Outputs, *, replace: bool
) -> None:
    """Refuse to write over an input, or over results unless they are to be replaced."""
    inputs = {path.resolve() for source in sources for path in _inputs(source)}
    for path in [out, *_beside(out), *outputs.shared_files()]:
        if path.resolve() in inputs:
            raise MitolumeError(f"{path} is one of the inputs; name another file")
        if path.exists() and not replace:
            raise MitolumeError(
                f"{path} exists already; choose another place, or replace results with --overwrite"
            )


def _remove(parts: Path) -> None:
    """Remove what was kept of each field, all at once even if it is stopped half way."""
    if parts.exists():
        gone = parts.with_name(f".part-{os.getpid()}.{parts.name}")
        parts.rename(gone)
        shutil.rmtree(gone)


def _inputs(source: Source) -> tuple[Path, ...]:
    return tuple(dict.fromkeys([source.mask, *(image.file for image in source.images)]))


def _jobs(
    sources: Sequence[Source], settings: MeasureSettings, parts: Path, progress: Advance
) -> tuple[list[Job], list[str], list[str]]:
    """Open all fields, and decide what the values of all masks together mean.

    Returns
    -------
    jobs, faults, notices
    """
    faults: list[str] = []
    fields: list[tuple[Source, int]] = []
    values: dict[str, set[float]] = {}
    readings: dict[Path, Reading] = {}
    for number, source in enumerate(sources):
        progress(number, len(sources), f"opening {source.name}")
        try:
            mask, images = _open(source)
            fit_to_mask(images, mask, source.planes)
            pixel_size([mask, *images], source.pixel_size_um | settings.size_um)
            if is_outlined(mask):
                readings[source.mask] = "numbers"
            elif is_probability(found := distinct_values(mask)):
                readings[source.mask] = "probability"
            else:
                values[str(source.mask)] = found
            fields.append((source, _n_blocks(mask)))
        except MitolumeError as error:
            faults.append(str(error))
    meaning = meaning_of(values, settings.mask_kind)
    jobs = []
    for source, blocks in fields:
        reading = readings.get(source.mask) or _reading(meaning)
        place = parts / f"{source.name}-{reading}"
        jobs.append(
            Job(
                source.name, _inputs(source),
                (*settings.outputs.files_of(source.name), place),
                partial(_measure_field, source, reading, settings, place, blocks),
                _described(settings) | _described_source(source), 2 * blocks,
            )
        )  # fmt: skip
    notices = list(meaning.notices)
    defaults = ObjectSettings(threshold=settings.objects.threshold)
    kept = meaning.numbered or "numbers" in readings.values()
    if kept and settings.objects != defaults:
        notices.append(
            "objects of label images and outlines are kept as they are: --split and --min-size "
            "are for masks"
        )
    return jobs, faults, notices


def _open(source: Source) -> tuple[xr.DataArray, list[xr.DataArray]]:
    """Open a mask, dims ``T C Z Y X`` with C of length 1, and its images."""
    images = open_images(source)
    mask = open_mask(source.mask, images[0] if images else None, numbered=True, movie=True)
    planes = source.planes or ()
    if planes and mask.sizes["Z"] > len(planes) and mask.sizes["Z"] > max(planes):
        mask = mask.isel(Z=list(planes))  # the mask of a whole stack, of which a row means some
    return mask, images


def _reading(meaning: Meaning) -> Reading:
    if meaning.numbered:
        return "numbers"
    return "labels" if meaning.kind == "labels" else "unsure"


def _n_blocks(mask: xr.DataArray) -> int:
    height, width = (math.ceil(mask.sizes[axis] / BLOCK) for axis in "YX")
    return mask.sizes["T"] * height * width


def _measure_field(
    source: Source,
    reading: Reading,
    settings: MeasureSettings,
    place: Path,
    blocks: int,
    advance: Callable[[int], None],
) -> Report:
    """Measure one mask, and leave its tables in a folder of their own."""
    mask, images = _open(source)
    size = pixel_size([mask, *images], source.pixel_size_um | settings.size_um)
    image = fit_to_mask(images, mask, source.planes)
    mask = mask.isel(C=0, drop=True).assign_attrs(pixel_size_um=size)
    if reading != "probability" and mask.dtype.kind == "f":
        mask = mask.astype(np.int64)
    notices = [*mask.attrs.get("notices", ())]
    if image is not None and mask.sizes["Z"] == 1 and image.sizes["Z"] > 1:
        notices.append(
            f"{source.mask.name} has one plane and its image {image.sizes['Z']}: grey values are "
            "means over the planes"
        )
    steps = {b - a for a, b in zip(source.planes or (), (source.planes or ())[1:], strict=False)}
    in_3d = mask.sizes["Z"] > 1 and not settings.per_plane and steps <= {1}
    kind: MaskKind | None = {"numbers": None, "labels": "labels"}.get(reading, "unsure")
    tables, summaries = [], []
    files = FieldFiles(source.name, settings.outputs, size)
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".part-") as scratch:
        frames = mask.sizes["T"] * (1 if in_3d else mask.sizes["Z"])
        done = _Progress(advance, 2 * blocks / frames)
        for frame in label_field(
            mask, kind, settings.objects, in_3d=in_3d, scratch=Path(scratch), progress=done.labelled
        ):
            grey = None if image is None else _grey(image, mask, frame)
            same_depth = None if grey is None else _same_depth(grey, frame)
            table = measure_frame(frame, same_depth, size, done.measured)
            facts = _facts(source, mask, frame)
            summary = summarise_image(table, frame.labels.shape, size, frame.n_unsure())
            tables.append(_in_front(table, facts))
            summaries.append(pd.DataFrame([facts | summary]))
            files.add(frame, grey, table, facts)
            done.frames += 1
        finished = Path(scratch) / "tables"
        finished.mkdir()
        _joined(tables).to_parquet(finished / "objects.parquet")
        _joined(summaries).to_parquet(finished / "images.parquet")
        files.close(finished)
        if place.exists():
            shutil.rmtree(place)
        finished.rename(place)
    labels = (label for table in tables for label in table["label"])
    return Report(notices=(*notices, *hidden_outlines(mask, labels)))


@dataclass
class _Progress:
    """Turns blocks labelled and objects measured, frame by frame, into units of a job's work."""

    advance: Callable[[int], None]
    units: float
    frames: int = 0

    def labelled(self, done: int, total: int) -> None:
        self.advance(round(self.units * (self.frames + 0.5 * done / max(total, 1))))

    def measured(self, done: int, total: int) -> None:
        self.advance(round(self.units * (self.frames + 0.5 + 0.5 * done / max(total, 1))))


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


def _record(sources: Sequence[Source], settings: MeasureSettings) -> dict[str, Any]:
    """Return how all was made, for ``NAME_settings.json``."""
    from mitolume import __version__

    masks = [
        {"name": source.name, "mask": str(source.mask)} | _described_source(source)
        for source in sources
    ]
    return {"mitolume": __version__} | _described(settings) | {"masks": masks}


def _described(settings: MeasureSettings) -> dict[str, Any]:
    outputs = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in asdict(settings.outputs).items()
    }
    return {
        "objects": settings.objects.model_dump(),
        "mask_kind": settings.mask_kind,
        "pixel_size_um": settings.pixel_size_um,
        "z_step_um": settings.z_step_um,
        "per_plane": settings.per_plane,
        "written": outputs,
    }


def _described_source(source: Source) -> dict[str, Any]:
    images = [
        {name: str(value) for name, value in asdict(image).items() if value}
        for image in source.images
    ]
    facts = {name: value for name, value in source.facts.items() if value}
    return {
        "images": images,
        "planes": format_planes(source.planes),
        "size_in_table_um": source.pixel_size_um,
    } | facts
