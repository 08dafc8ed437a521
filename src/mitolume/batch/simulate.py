"""Writes data sets of simulated fields, with the truth about them and a contact sheet."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pydantic import ValidationError

from mitolume.analysis.measure import measure_objects
from mitolume.analysis.object_pictures import write_figure
from mitolume.analysis.pictures import overlay, to_8bit, with_bar
from mitolume.batch.runner import Job, Report, run_jobs, side_by_side
from mitolume.errors import MitolumeError
from mitolume.io.fields import Field
from mitolume.io.formats import SHEET, read_json
from mitolume.io.table import write_table
from mitolume.io.write import (
    owning,
    remove_parts,
    write_image,
    write_labels,
    write_mask,
    write_text,
)
from mitolume.io.write import write_table as write_rows
from mitolume.progress import Advance
from mitolume.runs.recipe import explain, merge, parse_setting
from mitolume.simulate.field import CHANNELS, SimulatedField, simulate_field
from mitolume.simulate.presets import PRESETS, FieldPlan, Group, plan_fields
from mitolume.simulate.settings import CONDITIONS, SimulationSettings

TABLE, HAND_TABLE, RECORD = "fields.csv", "fields_hand.csv", "simulation.json"
_SIDE = 300  # px, largest side of a picture of the contact sheet, so that outlines stay whole


def plan(
    *,
    preset: str | None = None,
    fields: int | None = None,
    conditions: Sequence[str] = (),
    seed: int = 0,
    set_: Sequence[str] = (),
) -> list[FieldPlan]:
    """Decide on the fields of a data set.

    Parameters
    ----------
    preset
        A name in ``PRESETS``; it defines fields and conditions, so neither may be given.
    fields
        Number of fields of each condition; 4 by default.
    conditions
        Names in ``CONDITIONS``; control by default.
    seed
        Seed of the data set, not negative; another seed gives other cells.
    set_
        Changed settings, ``key=value``, such as ``planes=7`` or ``optics.condenser_na=0.4``.

    Returns
    -------
    list of FieldPlan

    Raises
    ------
    MitolumeError
        A name is unknown, a setting is impossible, or fields or conditions are given with a preset.
    """
    if preset is not None and preset not in PRESETS:
        raise MitolumeError(f"no preset {preset!r}; there are {', '.join(PRESETS)}")
    for name in conditions:
        if name not in CONDITIONS:
            raise MitolumeError(f"no condition {name!r}; there are {', '.join(CONDITIONS)}")
    if preset is not None and (fields is not None or conditions):
        raise MitolumeError(
            f"preset {preset} defines the fields: leave out --fields and --condition, or --preset"
        )
    own: dict[str, Any] = {}
    for setting in set_:
        own = merge(own, parse_setting(setting))
    start = PRESETS[preset].settings if preset else SimulationSettings()
    try:
        settings = SimulationSettings.model_validate(merge(start.model_dump(mode="json"), own))
    except ValidationError as error:
        raise MitolumeError(explain(error, "--set", SimulationSettings)) from None
    count = 4 if fields is None else fields
    groups = [Group(name, count) for name in dict.fromkeys(conditions or ["control"])]
    if preset:
        return plan_fields(settings, PRESETS[preset].groups, seed, PRESETS[preset].days)
    return plan_fields(settings, groups, seed)


def write_data_set(
    plans: Sequence[FieldPlan],
    out: str | Path,
    *,
    jobs: int = 1,
    command: str = "from Python",
    progress: Advance = lambda done, total, note="": None,
) -> Path:
    """Simulate fields into a folder; those that are finished already are kept.

    Parameters
    ----------
    plans
        Fields to simulate; see `plan`.
    out
        A new folder, or one that an earlier call with the same plans wrote to.
    jobs
        Number of fields simulated at the same time, each in a process of its own.
    command
        Command that is recorded in ``simulation.json``.
    progress
        Called with fields done, fields in total, and the name of a field.

    Returns
    -------
    pathlib.Path
        The table of fields.

    Raises
    ------
    MitolumeError
        The folder holds something else, or a field can't be written.
    """
    out = Path(out)
    with owning(out):
        _begin(plans, out, command)
    missing = [one for one in plans if not _file(out, "facts", one).exists()]
    before = len(plans) - len(missing)
    outcome = run_jobs(
        [
            Job(one.name, (), (_file(out, "facts", one),), partial(_write, out, one))
            for one in missing
        ],
        scheduler=side_by_side(processes=jobs) if jobs > 1 else None,
        progress=lambda done, total, note="": progress(before + done, len(plans), note),
    )
    outcome.raise_faults("fields", "simulated")
    if not (out / SHEET).exists():
        _write_sheet(out, plans)
    for table, folder in ((HAND_TABLE, "hand_masks"), (TABLE, "masks")):
        if not (out / table).exists():  # the user may have changed it since
            write_table(out / table, [_row(out, one, folder) for one in plans])
    return out / TABLE


def _begin(plans: Sequence[FieldPlan], out: Path, command: str) -> None:
    """Record what will be simulated, or refuse a folder with other fields or files."""
    fields = [asdict(one) | {"settings": one.settings.model_dump(mode="json")} for one in plans]
    record = out / RECORD
    if record.exists():
        try:
            earlier = read_json(record)
            same = earlier["fields"] == fields and earlier["version"] == version("mitolume")
        except (ValueError, KeyError, TypeError, OSError):
            raise MitolumeError(f"{record} is damaged; choose another --out") from None
        if not same:
            raise MitolumeError(
                f"{out} was begun with other fields, settings, seed or version ({record} lists "
                "them); choose another --out"
            )
        remove_parts(out)
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise MitolumeError(f"{out} exists and is not an empty folder; choose another --out")
    content = {"version": version("mitolume"), "command": command, "fields": fields}
    write_text(record, json.dumps(content, indent=1) + "\n")


def _write(out: Path, one: FieldPlan, advance: Callable[[int], None]) -> Report:
    """Simulate one field and write its files."""
    field = simulate_field(one.settings, condition=one.condition, seed=one.seed)
    px = field.pixel_um
    size = {"pixel_size_um": {"Z": field.z_step_um, "Y": px, "X": px}}
    voxel = dict(zip("ZYX", field.label_um, strict=True))

    def stack(channels: dict[str, Any]) -> xr.DataArray:
        names = np.array(CHANNELS, dtype=object)
        pixels = np.stack([channels[name] for name in CHANNELS])
        return xr.DataArray(pixels, dims=tuple("CZYX"), coords={"C": names}, attrs=size)

    def mask(masks: NDArray[np.uint8]) -> xr.DataArray:
        return xr.DataArray(masks, dims=tuple("ZYX"), attrs=size)

    # In steps of 1/8 count: far below any noise, and small files.
    clean = {
        name: np.rint(image / 0.125) * np.float32(0.125) for name, image in field.clean.items()
    }
    labels = xr.DataArray(field.labels, dims=tuple("ZYX"), attrs={"pixel_size_um": voxel})
    facts = {
        "condition": one.condition,
        "seed": one.seed,
        "z_step_um": field.z_step_um,
        "focus_um": field.focus_um.round(4).tolist(),
        "near_focus": field.near_focus,
        "foreground": field.masks.mean(axis=(1, 2)).round(6).tolist(),
        "dye": field.dye.model_dump(mode="json"),
        "unstained": round(field.unstained, 6),
    }
    with owning(out):
        write_image(_file(out, "images", one), stack(field.images))
        write_image(_file(out, "clean", one), stack(clean))
        write_mask(_file(out, "masks", one), mask(field.masks))
        write_mask(_file(out, "hand_masks", one), mask(field.hand_masks))
        write_labels(_file(out, "labels", one), labels)
        write_rows(_file(out, "skeletons", one), field.skeletons.round(4))
        write_rows(_file(out, "objects", one), _objects(field))
        # Last: a field with facts is finished.
        write_text(_file(out, "facts", one), json.dumps(facts, indent=1) + "\n")
    return Report()


def _objects(field: SimulatedField) -> pd.DataFrame:
    """Measure mitochondria from their labels (`measure_objects`) and from their centrelines.

    ``true_length_um`` is the length of the centrelines in the field, ``true_diameter_um`` the mean
    diameter along them.
    """
    table = measure_objects(
        field.labels, pixel_size_um=dict(zip("ZYX", field.label_um, strict=True))
    )
    points = field.skeletons
    steps = points.groupby(["object", "branch"])[["z", "y", "x"]].diff()
    length = np.sqrt((steps**2).sum(axis=1)).groupby(points["object"]).sum()
    diameter = 2 * points.groupby("object")["radius"].mean()
    return table.assign(
        true_length_um=table["label"].map(length).astype(float).round(4),
        true_diameter_um=table["label"].map(diameter).astype(float).round(4),
    )


def _file(out: Path, kind: str, one: FieldPlan) -> Path:
    ending = {"skeletons": "csv", "objects": "csv", "facts": "json"}.get(kind, "ome.tif")
    return out / kind / f"{one.name}.{ending}"


def _row(out: Path, one: FieldPlan, masks: str) -> Field:
    """Row of the table of fields; test images are always scored on the exact masks."""
    facts = read_json(_file(out, "facts", one))
    folder = "masks" if one.role == "test" else masks
    return Field(
        image=_file(out, "images", one),
        mask=_file(out, folder, one) if one.is_labelled else None,
        role=one.role,
        planes=tuple(facts["near_focus"]),
        specimen=one.specimen,
        condition=one.condition,
        batch=one.batch,
        channel="Transmitted",
        fluorescence="Mitochondria",
        extra={"z_step": f"{facts['z_step_um']:.3f}", "seed": str(one.seed)},
    )


def _write_sheet(out: Path, plans: Sequence[FieldPlan]) -> None:
    """Draw up to 6 fields in rows, the same number of each condition as far as there is room.

    Shown is the plane at the middle of the mitochondria. A channel has the same contrast in all
    rows, so that treatments that dim a dye show.
    """
    conditions: dict[str, list[FieldPlan]] = {}
    for one in plans:
        conditions.setdefault(one.condition, []).append(one)
    each = max(1, 6 // len(conditions))
    shown = [one for group in conditions.values() for one in group[:each]]
    images, masks, by_hand = (
        [_middle_plane(_file(out, kind, one), one.settings.planes) for one in shown]
        for kind in ("images", "masks", "hand_masks")
    )
    light_limits, *dye_limits = (
        (float(low), float(high))
        for low, high in np.percentile(np.stack(images), [0.5, 99.5], axis=(0, 2, 3)).T
    )
    figure = Figure(figsize=(15, 3.2 * len(shown)), layout="constrained")
    for row, one in enumerate(shown):
        light, *dyes = images[row]
        plane = f"{one.name}, plane {one.settings.planes // 2}"
        grey = to_8bit(light, light_limits)
        width_um = one.settings.pixel_um * light.shape[1]
        pictures = {
            f"{plane}: transmitted light": with_bar(grey, width_um),
            "exact mask": overlay(light, masks[row][0], longer=_SIDE, limits=light_limits),
            "imitated hand labels": overlay(
                light, by_hand[row][0], longer=_SIDE, limits=light_limits
            ),
        }
        for name, dye, limits in zip(CHANNELS[1:], dyes, dye_limits, strict=True):
            pictures[name] = to_8bit(dye, limits)
        for column, (title, picture) in enumerate(pictures.items()):
            axes = figure.add_subplot(len(shown), 5, 5 * row + column + 1)
            axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
            axes.set_title(title, fontsize=9)
            axes.set_axis_off()
    write_figure(out / SHEET, figure, dpi=100)


def _middle_plane(path: Path, planes: int) -> NDArray[Any]:
    """Read the plane in the middle of a stack, (C, Y, X)."""
    pixels = np.asarray(tifffile.imread(path))
    return pixels.reshape(-1, planes, *pixels.shape[-2:])[:, planes // 2]
