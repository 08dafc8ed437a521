"""Masks to tables of objects, crops, outlines and pictures, one field after the other.

What is measured of an object is in `mitolume.analysis.measure`.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from pydantic import BaseModel, ValidationError

from mitolume.analysis.labelling import ObjectSettings
from mitolume.analysis.measure import summarise_image
from mitolume.analysis.objects import BLOCK, Frame, label_field, load_if_small, measure_frame
from mitolume.batch.object_files import FieldFiles, Outputs, finish_crops, write_superplots
from mitolume.batch.runner import Job, Outcome, Report, refuse_inputs, require_free, run_jobs
from mitolume.batch.sources import (
    Source,
    find_sources,
    fit_to_mask,
    open_images,
    open_masks,
    pixel_size,
    size_of,
)
from mitolume.errors import MitolumeError, some_names
from mitolume.io.formats import read_json
from mitolume.io.mask_files import open_mask
from mitolume.io.masks import MaskKind, ValuesKind
from mitolume.io.pixel_size import odd_pixel_size, unlike_steps
from mitolume.io.read import load
from mitolume.io.suspicion import masks_of_odd_shares
from mitolume.io.write import (
    atomic,
    below_each_other,
    making_results,
    remove_parts,
    require_ours,
    table_ending,
    write_table,
    write_text,
)
from mitolume.progress import Advance
from mitolume.text import count, title_of

_MADE_OF = "made_of.jsonl"  # in OUT.parts: what is finished, and of what it was made
_FRONT = ("image", "t", "plane", "specimen", "condition", "batch", "role", "model")


@dataclass(frozen=True)
class MeasureSettings:
    """How masks are measured, and what is written beside the tables.

    ``objects`` says what counts as one object. ``pixel_size_um`` and ``z_step_um``, in µm, replace
    what files and tables state. With ``per_plane``, each plane of a stack is labelled on its own.
    """

    objects: ObjectSettings = field(default_factory=ObjectSettings)
    mask_kind: str = "auto"
    pixel_size_um: float | None = None
    z_step_um: float | None = None
    per_plane: bool = False
    outputs: Outputs = field(default_factory=Outputs)


def object_settings(split: str, min_size: float | None, threshold: float) -> ObjectSettings:
    """Return the settings of objects for the options of the command line, or refuse.

    ``min_size`` is in µm, or in pixels where the pixel size is unknown. Smaller holes are filled,
    too, but no larger ones than by default.
    """
    given: dict[str, Any] = {"split": split, "threshold": threshold}
    default = ObjectSettings()
    for unit in ("um", "px") if min_size is not None else ():
        hole = min(min_size, getattr(default, f"max_hole_{unit}"))
        given |= {f"min_size_{unit}": min_size, f"max_hole_{unit}": hole}
    try:
        return ObjectSettings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).removesuffix("_um").replace("_", "-")
        raise MitolumeError(f"--{option} {first['input']}: {first['msg'].lower()}") from error


def measure_masks(
    masks: Sequence[Path],
    out: Path,
    settings: MeasureSettings,
    *,
    images: Sequence[Path] = (),
    table: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Advance = lambda done, total, note="": None,
) -> Outcome:
    """Measure the objects of every mask, and write the tables.

    ``masks``, ``images`` and ``table`` are as `find_sources` takes them. ``out`` is the table of
    objects (one of `TABLES`); beside it, ``NAME_images`` of the same kind has a row for
    each image, and ``NAME_settings.json`` has the settings.

    Each field is finished on its own below ``OUT.parts``, so that a measurement that was stopped
    can be resumed (``resume``, ``overwrite``, ``progress``: see `mitolume.batch.runner.run_jobs`;
    work is counted in blocks of images). A mask that can't be used does not stop the others.
    """
    table_ending(out)
    sources, said = find_sources(masks, images, table)
    outputs, files = settings.outputs, _Files(out)
    if outputs.crops is not None and (blind := [s.mask for s in sources if not s.images]):
        raise MitolumeError(
            f"crops are cut out of an image, and {blind[0]} has none: name it with --intensity"
        )
    record = {"mitolume": version("mitolume")} | _record(settings)
    record["masks"] = [_record(source) for source in sources]
    inputs = [table, *(path for source in sources for path in _inputs(source))]
    if resume:
        _require_same(files, record)
    _make_room(files, outputs, [source.name for source in sources], inputs, resume or overwrite)
    if overwrite and not resume:
        _remove(files.parts)
    jobs, faults, notices = _jobs(sources, settings, files.parts, progress)
    outcome = run_jobs(
        jobs, files.parts / _MADE_OF, resume=resume, overwrite=overwrite, faults=faults,
        notices=[*said, *notices], progress=progress,
    )  # fmt: skip
    finished = [job.results[-1] for job in jobs if job.results[-1] in outcome.done]
    if not finished:
        _remove(files.parts)
        outcome.raise_faults("masks", "measured")
    objects, per_image = (
        _joined([pd.read_parquet(part / f"{name}.parquet") for part in finished])
        for name in ("objects", "images")
    )
    write_table(out, _rounded(objects))
    write_table(files.images, _rounded(per_image))
    write_text(files.settings, json.dumps(record, indent=2) + "\n")
    try:
        if outputs.crops is not None:
            finish_crops(outputs.crops, finished, [source.name for source in sources])
        if outputs.pictures is not None:
            write_superplots(outputs.pictures, objects)
    finally:
        if not outcome.faults:
            _remove(files.parts)
    shares = per_image.groupby("image")["footprint_share"].mean().dropna()
    outcome.notices += masks_of_odd_shares({str(image): share for image, share in shares.items()})
    outcome.summary = "\n".join([*_sizes(objects, per_image), f"table: {out}"])
    return outcome


@dataclass(frozen=True)
class _Files:
    """The tables of a measurement, named after that of its objects."""

    objects: Path

    @property
    def images(self) -> Path:
        return self.objects.with_name(f"{self.objects.stem}_images{self.objects.suffix}")

    @property
    def settings(self) -> Path:
        return self.objects.with_name(f"{self.objects.stem}_settings.json")

    @property
    def parts(self) -> Path:
        """The folder of what is finished, field by field."""
        return self.objects.with_name(f"{self.objects.name}.parts")


def _make_room(
    files: _Files,
    outputs: Outputs,
    names: Sequence[str],
    inputs: Sequence[Path | None],
    may_replace: bool,
) -> None:
    """Refuse to write over what isn't ours or is an input, and remove what was half written."""
    tables = [files.objects, files.images, files.settings, *outputs.shared_files()]
    refuse_inputs([*tables, files.parts, *outputs.folders()], inputs)
    require_free(tables, replace=may_replace)
    parts = files.parts
    for part in parts.iterdir() if parts.is_dir() else [parts] * os.path.lexists(parts):
        if part.name != _MADE_OF and not part.name.startswith("."):
            require_ours(part)
    starts = *(path.name for path in tables), "superplot_", *(f"{name}_" for name in names)
    for folder in {files.objects.parent, *filter(None, outputs.folders())}:
        remove_parts(folder, starts)


def _require_same(files: _Files, record: dict[str, Any]) -> None:
    """Refuse to go on from a finished measurement of something else."""
    if files.parts.exists() or not files.settings.exists():
        return
    try:
        before = read_json(files.settings) | {"mitolume": record["mitolume"]}
    except (ValueError, TypeError):
        before = None
    if before != record:
        raise MitolumeError(
            f"{files.objects} was made of other masks, rows of the table or settings (see "
            f"{files.settings}); choose another --out, or replace results with --overwrite"
        )


def _sizes(objects: pd.DataFrame, per_image: pd.DataFrame) -> list[str]:
    """Return the number of objects and their sizes as lines of text."""
    n, small = len(objects), int(per_image["n_too_small"].sum())
    lines = [f"{count(n, 'object')} in {count(len(per_image), 'image')}"]
    lines[0] += f" ({small} smaller ones left out: --min-size)" * (small > 0)
    for column in ("area_um2", "volume_um3", "area_px", "volume_px", "length_um", "length_px"):
        if column in objects and n:
            low, middle, high = np.nanpercentile(objects[column], [25, 50, 75])
            lines.append(f"{title_of(column)}: median {middle:.3g} ({low:.3g} to {high:.3g})")
    return lines


def _remove(parts: Path) -> None:
    """Remove what was kept of each field, all at once even if it is stopped half way."""
    if parts.exists():
        gone = parts.with_name(f".part-{os.getpid()}.{parts.name}")
        parts.rename(gone)
        shutil.rmtree(gone)


def _inputs(source: Source) -> tuple[Path, ...]:
    return tuple(dict.fromkeys([source.mask, *(image.file for image in source.images)]))


@dataclass(frozen=True)
class _Seen:
    """What is known of a field before it is measured; without images it has no channels."""

    channels: tuple[str, ...]
    size: Mapping[str, float]
    in_3d: bool

    @property
    def is_in_pixels(self) -> bool:
        return not {"Y", "X", *"Z" * self.in_3d} <= self.size.keys()


def _jobs(
    sources: Sequence[Source], settings: MeasureSettings, parts: Path, progress: Advance
) -> tuple[list[Job], list[str], list[str]]:
    """Open all fields, and return their jobs, and faults and notices."""
    seen: dict[str, _Seen] = {}

    def open_one(source: Source) -> xr.DataArray:
        mask, images = _open(source)
        image = fit_to_mask(images, mask, source.planes)
        seen[source.name] = _Seen(
            () if image is None else tuple(map(str, image["C"].values)),
            _size(source, settings, mask, images),
            _in_3d(source, settings, mask),
        )
        return mask

    faults: list[str] = []
    opened, notices = open_masks(
        sources, open_one, settings.mask_kind, faults, progress, probabilities=True
    )
    lone, said = _channels_told(seen)
    kinds = [kind for _, kind, _ in opened]
    notices += [*_unlike_sizes(seen), *said, *_kinds_told(kinds, settings.objects)]
    jobs = []
    for source, kind, sizes in opened:
        if lone and source.images:
            source = replace(source, images=(replace(source.images[0], name=lone),))
        blocks = sizes["T"] * math.ceil(sizes["Y"] / BLOCK) * math.ceil(sizes["X"] / BLOCK)
        place = parts / f"{source.name}-{kind}"
        jobs.append(
            Job(
                source.name, _inputs(source),
                (*settings.outputs.files_of(source.name), place),
                partial(_measure_field, source, kind, settings, place, blocks),
                _record(settings) | _record(source), blocks,
            )
        )  # fmt: skip
    return jobs, faults, notices


def _unlike_sizes(seen: Mapping[str, _Seen]) -> list[str]:
    """Say where lengths of fields can't be compared."""
    notices = [unlike_steps([s.size["Z"] for s in seen.values() if s.in_3d and "Z" in s.size])]
    pixels = [name for name, field in seen.items() if field.is_in_pixels]
    if 0 < len(pixels) < len(seen):
        notices.append(
            f"the pixel size, or in stacks the z-step, of {count(len(pixels), 'image')} is unknown "
            f"({some_names(pixels)}): lengths there are in pixels, in columns of their own, and "
            "can't be compared with others; fill in `pixel_size_um` and `z_step_um` in the table "
            "of fields, and measure with --fields, or give --pixel-size and --z-step"
        )
    deep = sum(field.in_3d for field in seen.values())
    if 0 < deep < len(seen):
        notices.append(
            f"{count(deep, 'image')} measured through z, {count(len(seen) - deep, 'image')} in "
            "single planes: lengths and numbers differ by that alone; measure with --per-plane"
        )
    return [notice for notice in notices if notice]


def _channels_told(seen: Mapping[str, _Seen]) -> tuple[str, list[str]]:
    """Return the channel that images without a channel's name are taken for, and what to say."""
    sets = Counter(frozenset(field.channels) for field in seen.values() if field.channels)
    unnamed = sets[frozenset({"0"})]
    named = [each for each in sets if each != {"0"}]
    if unnamed and len(named) == 1 and len(named[0]) == 1:
        (lone,) = named[0]
        said = f"{count(unnamed, 'image')} without a name of its channel, taken for {lone}"
        return lone, [f"{said} as the others"]
    if len(sets) < 2:
        return "", []
    said = "; ".join(f"{', '.join(sorted(each))} in {n}" for each, n in sets.items())
    return "", [
        f"channels are not the same in all {sets.total()} images ({said}): each has columns of "
        "its own, empty for other images"
    ]


def _kinds_told(kinds: Sequence[ValuesKind], objects: ObjectSettings) -> list[str]:
    """Say how masks that are no plain masks are read."""
    notices = []
    if likely := kinds.count("probability"):
        notices.append(
            f"{count(likely, 'mask')} of probabilities: objects are where they are "
            f"{objects.threshold:g} or more (--threshold)"
        )
    if "numbers" in kinds and objects != ObjectSettings(threshold=objects.threshold):
        notices.append(
            "objects of label images and outlines are kept as they are: --split and --min-size "
            "are for masks"
        )
    return notices


def _open(source: Source) -> tuple[xr.DataArray, list[xr.DataArray]]:
    """Open a mask, dims ``T C Z Y X`` with C of length 1, and its images."""
    images = open_images(source)
    mask = open_mask(source.mask, images[0] if images else None, numbered=True, movie=True)
    planes = source.planes or ()
    if planes and mask.sizes["Z"] > len(planes) and mask.sizes["Z"] > max(planes):
        mask = mask.isel(Z=list(planes))  # the mask of a whole stack, of which a row means some
    return mask, images


def _size(
    source: Source, settings: MeasureSettings, mask: xr.DataArray, images: Sequence[xr.DataArray]
) -> dict[str, float]:
    given = size_of(settings.z_step_um, settings.pixel_size_um)
    return pixel_size([mask, *images], source.table_size_um | given)


@making_results()
def _measure_field(
    source: Source,
    kind: ValuesKind,
    settings: MeasureSettings,
    place: Path,
    blocks: int,
    advance: Callable[[int], None],
) -> Report:
    """Measure one mask, and leave its tables in a folder of their own."""
    mask, images = _open(source)
    size = _size(source, settings, mask, images)
    image = fit_to_mask(images, mask, source.planes)
    mask = mask.isel(C=0, drop=True).assign_attrs(pixel_size_um=size)
    if kind != "probability" and mask.dtype.kind == "f":
        mask = mask.astype(np.int64)
    notices = [*mask.attrs.get("notices", ())]
    if not (settings.pixel_size_um or "Y" in source.table_size_um):
        notices += [f"{source.name}: {text}" for text in odd_pixel_size(size)]
    if image is not None and mask.sizes["Z"] == 1 and image.sizes["Z"] > 1:
        notices.append(
            f"{source.mask.name} has one plane and its image {image.sizes['Z']}: grey values are "
            "means over the planes"
        )
    in_3d = _in_3d(source, settings, mask)
    meaning: MaskKind | None = {"numbers": None, "labels": "labels"}.get(kind, "unsure")
    tables: list[pd.DataFrame] = []
    summaries: list[pd.DataFrame] = []
    files = FieldFiles(source.name, settings.outputs, size)
    unknown = 0
    frames = mask.sizes["T"] * (1 if in_3d else mask.sizes["Z"])

    def progress(before: float, done: int, total: int) -> None:
        """Show half of a frame's work as done before, labelling and measuring half each."""
        advance(round(blocks / frames * (len(tables) + before + done / max(total, 1) / 2)))

    with (
        atomic(place) as finished,
        tempfile.TemporaryDirectory(dir=place.parent, prefix=".part-") as scratch,
    ):
        for frame in label_field(
            mask, meaning, settings.objects, in_3d=in_3d, scratch=Path(scratch),
            progress=partial(progress, 0),
        ):  # fmt: skip
            grey = None if image is None else _grey(image, mask, frame)
            projected = grey
            if grey is not None and grey.dtype.kind == "f":
                unknown += int(load((~np.isfinite(grey)).sum()))
            if grey is not None and grey.sizes["Z"] != frame.labels.shape[0]:
                projected = grey.mean("Z", keepdims=True, dtype=np.float64)
            table = measure_frame(frame, projected, size, partial(progress, 0.5))
            facts = _facts(source, mask, frame)
            summary = summarise_image(table, frame.labels.shape, size, frame.n_unsure())
            summary["n_too_small"] = frame.index.attrs.get("n_small", 0)
            files.add(frame, grey, table, facts)
            tables.append(_with_facts(table, facts))
            summaries.append(pd.DataFrame([facts | summary]))
        finished.mkdir()
        _joined(tables).to_parquet(finished / "objects.parquet")
        _joined(summaries).to_parquet(finished / "images.parquet")
        files.close(finished)
    if unknown:
        notices.append(
            f"{source.name}: {unknown} pixels of its images are NaN or infinite, and left out of "
            "grey values"
        )
    return Report(notices=tuple(notices))


def _in_3d(source: Source, settings: MeasureSettings, mask: xr.DataArray) -> bool:
    planes = source.planes
    gapless = planes is None or planes == tuple(range(planes[0], planes[0] + len(planes)))
    return mask.sizes["Z"] > 1 and not settings.per_plane and gapless


def _grey(image: xr.DataArray, mask: xr.DataArray, frame: Frame) -> xr.DataArray:
    """Return the planes of a frame, C Z Y X; all of them where the mask has one plane."""
    planes = frame.planes if mask.sizes["Z"] > 1 else slice(None)
    return load_if_small(image.isel(T=frame.t, Z=planes))


def _facts(source: Source, mask: xr.DataArray, frame: Frame) -> dict[str, Any]:
    """Return where a frame comes from; plane counts from 0 in the image, None for a volume."""
    facts: dict[str, Any] = {"image": source.name}
    if mask.sizes["T"] > 1:
        facts["t"] = frame.t
    if mask.sizes["Z"] > 1 and frame.labels.shape[0] == 1:
        facts["plane"] = (source.planes or range(mask.sizes["Z"]))[frame.planes.start]
    return facts | {name: value for name, value in source.facts.items() if value}


def _with_facts(table: pd.DataFrame, facts: dict[str, Any]) -> pd.DataFrame:
    dtypes = {n: "int64" if isinstance(value, int) else "string" for n, value in facts.items()}
    return table.assign(**facts).astype(dtypes)


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Put tables below each other, the columns that say where a row comes from first."""
    joined = below_each_other(tables)
    front = [name for name in _FRONT if name in joined]
    return joined[front + [name for name in joined if name not in front]]


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Round shapes to four digits, as far as any is exact, and places to a thousandth.

    Means of grey values are more exact, beside whatever the detector adds, and pixels are counted.
    """
    digits = {
        name: ".3f"
        if name.startswith("centroid")
        else ".8g"
        if "intensity" in name or name.endswith("_px")
        else ".4g"
        for name in map(str, table.select_dtypes("float"))
    }
    return table.assign(
        **{name: [float(f"{x:{kind}}") for x in table[name]] for name, kind in digits.items()}
    )


def _record(what: MeasureSettings | Source) -> dict[str, Any]:
    """Return settings, or where a mask and its facts come from, as JSON can hold them."""

    def plain(value: Any) -> Any:
        return value.model_dump() if isinstance(value, BaseModel) else str(value)

    record: dict[str, Any] = json.loads(json.dumps(asdict(what), default=plain))
    facts: dict[str, str] = record.pop("facts", {})
    return record | facts
