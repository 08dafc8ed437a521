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
from mitolume.batch.runner import Job, Outcome, Report, require_free, run_files
from mitolume.errors import MitolumeError, some_names
from mitolume.io.channels import channel_in_name, file_of_channel, transmitted_channel
from mitolume.io.check import open_fluorescence, open_image
from mitolume.io.fields import Field, parse_planes, with_planes, write_table
from mitolume.io.listing import SHEET, named_scenes
from mitolume.io.read import read, read_plane
from mitolume.io.write import atomic, write_text
from mitolume.progress import Advance
from mitolume.runs.dye import label_row, quality_notices, register
from mitolume.text import count

TABLE, QUALITY = "fields.csv", "quality.csv"
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
    move: bool = False,
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
        Name or number (from 0); "all" is each scene of a file.
    pixel_size_um
        Pixel size along Y and X in µm, over what the files state.
    planes
        Which planes, such as ``3-9``; all by default.
    threshold
        At which share of its local peak a structure ends, 0 to 1; `THRESHOLD` by default.
    move
        Move the masks by the shift that is measured between the dye and transmitted light.
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
    try:
        chosen = parse_planes(planes)
    except ValueError as error:
        raise MitolumeError(f"--planes: {error}") from None
    require_free([out / TABLE, out / QUALITY, out / SHEET], replace=overwrite)
    qualities: list[dict[str, Any]] = []
    rows: list[Field] = []

    def make(file: Path) -> Iterator[Job]:
        for own_scene, name in named_scenes(file, scene):
            yield job_of(_row_of(file, channel, light, own_scene), name)

    def job_of(row: Field, name: str) -> Job:
        row = replace(row, pixel_size_um=pixel_size_um, specimen=name)
        dye = open_fluorescence(row)
        depth = dye.sizes["Z"]
        if chosen and chosen[-1] >= depth:
            raise MitolumeError(f"{row.image} has planes 0 to {depth - 1}, not {chosen[-1]}")
        row = with_planes(row, chosen or range(depth))
        mask = out / f"{name}_mask.ome.tif"

        def compute(advance: Callable[[int], None]) -> Report:
            found = label_row(row, mask, threshold or THRESHOLD)
            qualities.extend(found)
            shown = [one["plane"] for one in found if one["has_dye"]]
            if shown:
                rows.append(replace(with_planes(row, shown), mask=mask, label="dye"))
            middle = "" if len(found) == 1 else " in the middle plane"
            return Report(f"{mask}: {found[len(found) // 2]['verdict']}{middle}")

        inputs = tuple(dict.fromkeys((row.image, *dye.attrs["files"])))
        return Job(name, inputs, (mask,), compute)

    outcome = run_files(files, make, first=channel, overwrite=overwrite, progress=progress)
    if qualities:
        quality = pd.DataFrame(qualities).drop(columns="line")
        write_text(out / QUALITY, quality.to_csv(index=False, float_format="%.4f"))
        found = f"a dye in {int(quality['has_dye'].sum())} of {count(len(quality), 'plane')}"
        outcome.summary = f"{found}; figures: {out / QUALITY}"
        outcome.notices += quality_notices(quality)
    if rows:
        outcome.notices += register([row for row in rows if row.channel], move)
        _write_sheet(out / SHEET, rows[:: -(-len(rows) // _MOST_SHOWN)])
        outcome.summary += f"\nlook at {out / SHEET}"
    if lit := [row for row in rows if row.channel]:
        write_table(out / TABLE, lit)
        outcome.summary += (
            f", fill in specimen and condition in {out / TABLE} (so far each image is a specimen),"
            f"\nthen: mitolume run --fields {out / TABLE} --out RUN"
        )
    if dark := [row.image for row in rows if not row.channel]:
        outcome.notices.append(
            f"no transmitted light found for {count(len(dark), 'image')}, which {TABLE} leaves "
            f"out: {some_names(dark)}; name its channel with --light"
        )
    return outcome


def _row_of(file: Path, channel: str, light: str | None, scene: str | None) -> Field:
    """Return the row of a file; ``channel`` is "" where no transmitted light is surely known.

    Where each channel is a file of its own, named after it, this is the dye's file, and the image
    is the one beside it.
    """
    image = read(file, scene=scene)
    row = Field(file, channel=light or "", scene=scene or "", fluorescence=channel)
    if image.sizes["C"] == 1 and channel_in_name(file, channel):
        beside = file_of_channel(file, channel, light or channel)
        if beside and beside != file and beside.exists():
            return replace(row, image=beside, fluorescence=file)
        return replace(row, channel="")
    if light:
        open_image(row)
        return row
    names = [str(name) for name in image["C"].values]
    fits, _ = transmitted_channel(names, image.attrs.get("channel_light", ()))
    return replace(row, channel=names[fits[0]] if len(fits) == 1 else "")


def _write_sheet(path: Path, rows: Sequence[Field]) -> None:
    """Draw the middle plane of fields: transmitted light, where it is known, dye, and outline."""
    figure = Figure(figsize=(9, 3.1 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 3, squeeze=False)
    for row, (left, middle, right) in zip(rows, axes, strict=True):
        z = (row.planes or (0,))[len(row.planes or ()) // 2]
        dye = read_plane(open_fluorescence(row), z=z)
        assert row.mask is not None
        mask = read_plane(read(row.mask), z=z)
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
