"""Masks of whole files from their dye, with figures, pictures and a table to train on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from mitolume.analysis.dye_labels import THRESHOLD
from mitolume.analysis.pictures import fit, overlay, to_8bit
from mitolume.batch.runner import Job, Outcome, Report, run_files
from mitolume.errors import MitolumeError
from mitolume.io.channels import transmitted_channel
from mitolume.io.check import open_fluorescence, open_image, read_row
from mitolume.io.fields import Field, parse_planes, with_planes, write_table
from mitolume.io.formats import bare_name
from mitolume.io.read import read, read_plane
from mitolume.io.write import atomic, write_text
from mitolume.progress import Advance
from mitolume.runs.dye import label_row
from mitolume.text import count

TABLE, QUALITY, SHEET = "fields.csv", "quality.csv", "sheet.png"
_SIDE, _MOST_SHOWN = 360, 24  # pixels of a picture's longer side, and rows of the sheet
_TITLES = ("transmitted light", "dye", "outline")


def label_files(
    files: Sequence[Path],
    out: Path,
    *,
    channel: str,
    light: str | None = None,
    scene: str | None = None,
    pixel_size_um: float | None = None,
    planes: str = "",
    threshold: float | None = None,
    overwrite: bool = False,
    progress: Advance = lambda done, total, note="": None,
) -> Outcome:
    """Make masks of mitochondria from the fluorescence of their dye.

    Parameters
    ----------
    files
        Image files, or folders of them, that hold the dye as one of their channels.
    out
        Folder for ``NAME_mask.ome.tif``, ``quality.csv`` with a row for each plane, ``sheet.png``
        with transmitted light, dye and outline, and ``fields.csv``, a table to train on.
    channel
        The dye's channel: name, or number from 0.
    light
        The channel of transmitted light, for the sheet and the table; found where possible.
    scene
        Name or number (from 0).
    pixel_size_um
        Pixel size along Y and X in µm, over what the files state.
    planes
        Which planes, such as ``3-9``; all by default.
    threshold
        At which share of its local peak a structure ends, 0 to 1; `THRESHOLD` by default.
    overwrite
        Replace results.
    progress
        Called with files done, files in total, and the file's name.

    Returns
    -------
    Outcome
        Its summary says in how many planes a dye was found.

    Raises
    ------
    MitolumeError
        A result would replace something.
    """
    chosen = parse_planes(planes)
    qualities: list[dict[str, Any]] = []
    rows: list[Field] = []

    def make(file: Path) -> Iterator[Job]:
        row = Field(
            file, channel=light or _light_of(file, scene), scene=scene or "", fluorescence=channel,
            pixel_size_um=pixel_size_um, specimen=bare_name(file),
        )  # fmt: skip
        depth = open_fluorescence(row).sizes["Z"]
        if chosen and chosen[-1] >= depth:
            raise MitolumeError(f"{file} has planes 0 to {depth - 1}, not {chosen[-1]}")
        row = with_planes(row, chosen or range(depth))
        mask = out / f"{bare_name(file)}_mask.ome.tif"

        def compute(advance: Callable[[int], None]) -> Report:
            found = label_row(row, mask, threshold or THRESHOLD)
            qualities.extend(found)
            shown = [one["plane"] for one in found if one["has_dye"]]
            if shown:
                rows.append(replace(with_planes(row, shown), mask=mask, label="dye"))
            middle = "" if len(found) == 1 else " in the middle plane"
            return Report(f"{mask}: {found[len(found) // 2]['verdict']}{middle}")

        yield Job(file.name, (file,), (mask,), compute)

    outcome = run_files(files, make, overwrite=overwrite, progress=progress)
    if qualities:
        quality = pd.DataFrame(qualities).drop(columns="line")
        write_text(out / QUALITY, quality.to_csv(index=False, float_format="%.4f"))
        found = f"a dye in {int(quality['has_dye'].sum())} of {count(len(quality), 'plane')}"
        outcome.summary = f"{found}; figures: {out / QUALITY}"
    if rows:
        write_table(out / TABLE, rows)
        _write_sheet(out / SHEET, rows[:_MOST_SHOWN])
        outcome.summary += (
            f"\nlook at {out / SHEET}, then: mitolume run --fields {out / TABLE} --out RUN"
        )
    return outcome


def _light_of(file: Path, scene: str | None) -> str:
    """Return the channel of transmitted light, or "" where none is surely that."""
    names = [str(name) for name in read(file, scene=scene)["C"].values]
    fits, _ = transmitted_channel(names)
    return names[fits[0]] if len(fits) == 1 else ""


def _write_sheet(path: Path, rows: Sequence[Field]) -> None:
    """Draw the middle plane of fields: transmitted light, where it is known, dye, and outline."""
    figure = Figure(figsize=(9, 3.1 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 3, squeeze=False)
    for row, (left, middle, right) in zip(rows, axes, strict=True):
        z = (row.planes or (0,))[len(row.planes or ()) // 2]
        dye = read_plane(open_fluorescence(row), z=z)
        mask = read_row(row, z, "unsure")[1]
        assert mask is not None
        if row.channel:
            left.imshow(fit(to_8bit(read_plane(open_image(row), z=z)), _SIDE, smooth=True), "gray")
        middle.imshow(fit(to_8bit(dye), _SIDE, smooth=True), "gray")
        right.imshow(overlay(dye, mask, longer=_SIDE))
        for one, title in zip((left, middle, right), _TITLES, strict=True):
            one.set_title(title, fontsize=9)
            one.set_axis_off()
        left.set_title(f"{row.image.name}, plane {z}", fontsize=9, parse_math=False)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=100)
