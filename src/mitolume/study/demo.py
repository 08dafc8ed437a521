"""The demo: simulated fields as a lab would have them, and a run on them. Knows no optics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from mitolume.errors import MitolumeError
from mitolume.io.fields import Field, write_table
from mitolume.io.write import atomic, write_image, write_mask
from mitolume.progress import progress_bar, say
from mitolume.simulate.cells import simulate_field
from mitolume.study.recipe import load_recipe
from mitolume.study.run import run

# Few labels and more unlabelled fields, most of treated cells, as in the study.
PLAN = {
    "train": ["control"] * 6,
    "validation": ["control"] * 3,
    "test": ["control"] * 6,
    "unlabelled": ["control", "fccp", "oligomycin", "antimycin_a", "rotenone"] * 2,
}
SHAPE = (256, 256)


def demo(out: str | Path, *, resume: bool = False, quiet: bool = False) -> Path:
    """Simulate a small data set and run preset ``quick`` on it.

    Parameters
    ----------
    out
        A new folder; ``data`` and ``run`` are made in it.
    resume
        Go on with a demo that was stopped.
    quiet
        Show no progress.

    Returns
    -------
    pathlib.Path
        The report.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not resume)):
        raise MitolumeError(
            f"{out} exists and is no empty folder; choose another --out, or --resume"
        )
    if not (out / "data").exists():
        with atomic(out / "data") as temporary:
            _write_fields(temporary, quiet)
    say("training on them with preset quick (some minutes on a laptop)", quiet=quiet)
    recipe = load_recipe(preset="quick", fields=out / "data" / "fields.csv")
    return run(recipe, out / "run", resume=resume, quiet=quiet) / "report.html"


def _write_fields(folder: Path, quiet: bool) -> None:
    folder.mkdir(parents=True)
    plan = [(role, condition) for role, conditions in PLAN.items() for condition in conditions]
    rows = []
    with progress_bar("simulating fields", quiet=quiet) as advance:
        for number, (role, condition) in enumerate(plan):
            advance(number, len(plan))
            rows.append(_write_field(folder, number, role, condition))
        advance(len(plan), len(plan))
    write_table(folder / "fields.csv", rows)


def _write_field(folder: Path, number: int, role: str, condition: str) -> Field:
    field = simulate_field(SHAPE, condition=condition, seed=number)
    size = {"pixel_size_um": {"Y": field.pixel_size_um, "X": field.pixel_size_um}}
    channels = np.stack([field.transmitted, field.fluorescence])
    names = np.array(["T PMT", "mitochondria"], dtype=object)
    image = xr.DataArray(channels, dims=("C", "Y", "X"), coords={"C": names}, attrs=size)
    stem = f"{condition}_{number:02}"
    write_image(folder / f"{stem}.ome.tif", image)
    mask = folder / f"{stem}_mask.ome.tif"
    if role != "unlabelled":
        write_mask(mask, xr.DataArray(field.mask, dims=("Y", "X"), attrs=size))
    return Field(
        image=folder / f"{stem}.ome.tif",
        mask=mask if role != "unlabelled" else None,
        role=role,
        specimen=f"dish {number:02}",
        condition=condition,
        channel="T PMT",
        fluorescence="mitochondria",
    )
