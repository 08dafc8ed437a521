"""Writes data sets of simulated fields, with all that is true of them. Knows no optics."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from pydantic import ValidationError

from mitolume import __version__
from mitolume.analysis.measure import measure_objects
from mitolume.errors import MitolumeError
from mitolume.io.fields import Field, write_table
from mitolume.io.tables import write_table as write_rows
from mitolume.io.write import remove_parts, write_image, write_labels, write_mask, write_text
from mitolume.progress import Advance
from mitolume.run.recipe import explain, merge, parse_setting
from mitolume.simulate.field import CHANNELS, SimulatedField, simulate_field
from mitolume.simulate.presets import PRESETS, FieldPlan, Group, plan_fields
from mitolume.simulate.settings import CONDITIONS, SimulationSettings

TABLE, HAND_TABLE, RECORD, SHEET = "fields.csv", "fields_hand.csv", "simulation.json", "sheet.png"
_CLEAN_STEP = 0.125  # counts: far below any noise, and small files


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
        A name in ``PRESETS``, which says how many fields of what; nothing else may then.
    fields
        How many of each condition; 4 by default.
    conditions
        Names in ``CONDITIONS``; control by default.
    seed
        Not negative; another one gives other cells.
    set_
        ``key=value`` over the settings, such as ``planes=7`` or ``optics.condenser_na=0.4``.

    Returns
    -------
    list of FieldPlan

    Raises
    ------
    MitolumeError
        A name is unknown, a setting is off, or preset and fields contradict each other.
    """
    if preset is not None and preset not in PRESETS:
        raise MitolumeError(f"no preset {preset!r}; there are {', '.join(PRESETS)}")
    for name in conditions:
        if name not in CONDITIONS:
            raise MitolumeError(f"no condition {name!r}; there are {', '.join(CONDITIONS)}")
    if preset is not None and (fields is not None or conditions):
        raise MitolumeError(
            f"preset {preset} says itself which fields there are: leave out --fields and "
            "--condition, or --preset"
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
    """Simulate fields into a folder; those that are there already are left as they are.

    Parameters
    ----------
    plans
        What to simulate; see `plan`.
    out
        A new folder, or one that was begun with the same plans.
    jobs
        How many fields at a time, each in a process of its own.
    command
        Written down in ``simulation.json``.
    progress
        ``advance(done, total, note="")``.

    Returns
    -------
    pathlib.Path
        The table of fields.

    Raises
    ------
    MitolumeError
        The folder holds something else, or can't be written.
    """
    out = Path(out)
    _begin(plans, out, command)
    missing = [one for one in plans if not _file(out, "facts", one).exists()]
    progress(len(plans) - len(missing), len(plans))
    done = _compute(missing, out, jobs)
    for number, name in enumerate(done, len(plans) - len(missing) + 1):
        progress(number, len(plans), name)
    from mitolume.batch.simulate_sheet import write_sheet

    write_sheet(out / SHEET, [(one.name, out) for one in plans])
    for table, folder in ((HAND_TABLE, "hand_masks"), (TABLE, "masks")):
        write_table(out / table, [_row(out, one, folder) for one in plans])
    return out / TABLE


def _begin(plans: Sequence[FieldPlan], out: Path, command: str) -> None:
    """Write down what will be done, or refuse a folder in which something else was begun."""
    fields = [
        {
            "name": one.name,
            "condition": one.condition,
            "seed": one.seed,
            "role": one.role,
            "specimen": one.specimen,
            "batch": one.batch,
            "settings": one.settings.model_dump(mode="json"),
        }
        for one in plans
    ]
    record = out / RECORD
    if record.exists():
        try:
            earlier = json.loads(record.read_text(encoding="utf-8"))
            same = earlier["fields"] == fields and earlier["version"] == __version__
        except (ValueError, KeyError, TypeError, OSError):
            raise MitolumeError(f"{record} is damaged; choose another --out") from None
        if not same:
            raise MitolumeError(
                f"{out} was begun with other fields, settings, seed or version ({record} holds "
                "them); choose another --out"
            )
        remove_parts(out)
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise MitolumeError(f"{out} exists and is no empty folder; choose another --out")
    content = {"version": __version__, "command": command, "fields": fields}
    write_text(record, json.dumps(content, indent=1) + "\n")


def _compute(plans: Sequence[FieldPlan], out: Path, jobs: int) -> Iterator[str]:
    task: Callable[[FieldPlan], str] = partial(write_field, out)
    if jobs <= 1 or len(plans) <= 1:
        yield from map(task, plans)
        return
    # A terminal sends Ctrl-C to all; the workers leave it to this process.
    pool = ProcessPoolExecutor(
        min(jobs, len(plans)), get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)
    )
    try:
        for future in as_completed([pool.submit(task, one) for one in plans]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def write_field(out: Path, one: FieldPlan) -> str:
    """Simulate one field and write its files; return its name."""
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

    clean = {
        name: np.rint(image / _CLEAN_STEP) * np.float32(_CLEAN_STEP)
        for name, image in field.clean.items()
    }
    labels = xr.DataArray(field.labels, dims=tuple("ZYX"), attrs={"pixel_size_um": voxel})
    write_image(_file(out, "images", one), stack(field.images))
    write_image(_file(out, "clean", one), stack(clean))
    write_mask(_file(out, "masks", one), mask(field.masks))
    write_mask(_file(out, "hand_masks", one), mask(field.hand_masks))
    write_labels(_file(out, "labels", one), labels)
    write_rows(_file(out, "skeletons", one), field.skeletons.round(4))
    write_rows(_file(out, "objects", one), measure_truth(field))
    facts = {
        "condition": one.condition,
        "seed": one.seed,
        "z_step_um": field.z_step_um,
        "focus_um": field.focus_um.round(4).tolist(),
        "near_focus": field.near_focus,
        "foreground": field.masks.mean(axis=(1, 2)).round(6).tolist(),
    }
    # Last: a field with facts is finished.
    write_text(_file(out, "facts", one), json.dumps(facts, indent=1) + "\n")
    return one.name


def measure_truth(field: SimulatedField) -> pd.DataFrame:
    """Measure the mitochondria of a field from their labels and from their centrelines.

    Parameters
    ----------
    field
        A simulated field.

    Returns
    -------
    pandas.DataFrame
        The columns of `measure_objects`, and from the centrelines in the field
        ``true_length_um`` and ``true_diameter_um`` (mean along the centreline).
    """
    table = measure_objects(
        field.labels, pixel_size_um=dict(zip("ZYX", field.label_um, strict=True))
    )
    lengths: dict[int, float] = {}
    diameters: dict[int, float] = {}
    for number, points in field.skeletons.groupby("object"):
        paths = [path[["z", "y", "x"]].to_numpy() for _, path in points.groupby("branch")]
        steps = [np.linalg.norm(np.diff(path, axis=0), axis=1).sum() for path in paths]
        lengths[int(str(number))] = float(np.sum(steps))
        diameters[int(str(number))] = 2 * float(points["radius"].mean())
    return table.assign(
        true_length_um=table["label"].map(lengths).astype(float).round(4),
        true_diameter_um=table["label"].map(diameters).astype(float).round(4),
    )


def facts_of(out: Path, one: FieldPlan) -> dict[str, Any]:
    """Read what is true of a finished field."""
    return dict(json.loads(_file(out, "facts", one).read_text(encoding="utf-8")))


def _file(out: Path, kind: str, one: FieldPlan) -> Path:
    ending = {"skeletons": "csv", "objects": "csv", "facts": "json"}.get(kind, "ome.tif")
    return out / kind / f"{one.name}.{ending}"


def _row(out: Path, one: FieldPlan, masks: str) -> Field:
    """Row of the table of fields; test images are always scored on the exact masks."""
    facts = facts_of(out, one)
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
