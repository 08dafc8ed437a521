"""Masks of whole files from their dye, with figures, pictures and a table to train on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import fill

import pandas as pd
from matplotlib.figure import Figure

from mitolume.analysis.dye_labels import THRESHOLD
from mitolume.analysis.object_pictures import write_figure
from mitolume.analysis.pictures import fit, overlay, to_8bit, with_bar
from mitolume.batch.runner import Job, Outcome, Report, require_free, run_files
from mitolume.errors import MitolumeError, some_names
from mitolume.io.channels import channel_in_name, file_of_channel, transmitted_channel
from mitolume.io.draft_guesses import condition_of
from mitolume.io.fields import Field, asked_planes, with_planes
from mitolume.io.formats import SHEET
from mitolume.io.pixel_size import plane_pixel_size
from mitolume.io.read import read, read_plane
from mitolume.io.rows import open_fluorescence, open_image
from mitolume.io.table import read_table, write_table
from mitolume.io.write import is_ours, write_text
from mitolume.progress import Advance
from mitolume.runs.dye import label_row
from mitolume.runs.dye_checks import judge, mask_name, measure_shifts
from mitolume.text import count, quoted

TABLE, QUALITY, RECORD = "fields.csv", "quality.csv", "label.jsonl"
_SIDE, _MOST_SHOWN = 360, 24  # pixels of a picture's longer side, and rows of the sheet


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
    resume: bool = False,
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
    resume, overwrite
        As for `mitolume.batch.runner.run_jobs`. A table to train on that was filled in since is
        left as it is.
    progress
        Called with files done, files in total, and the file's name.

    Returns
    -------
    Outcome
        Its summary says in how many planes a dye was found.

    Raises
    ------
    MitolumeError
        A result would replace something, or was made otherwise.
    """
    chosen = asked_planes(planes)
    goes_on = resume and (out / RECORD).exists()
    require_free(
        [*([] if goes_on else [out / TABLE]), out / QUALITY, out / SHEET],
        replace=overwrite or goes_on,
        hint=", or skip what is done with --resume" if (out / RECORD).exists() else "",
    )
    figures = _read_quality(out / QUALITY) if goes_on else {}
    rows: dict[str, Field] = {}
    settings = {
        "channel": channel, "light": light, "pixel size": pixel_size_um, "planes": planes,
        "threshold": threshold or THRESHOLD, "align": move,
    }  # fmt: skip

    def open_scene(file: Path, own: str | None, name: str) -> Job:
        row = _row_of(file, channel, light, own)
        treated = condition_of((file.name, *reversed(file.parent.parts)))
        row = replace(row, pixel_size_um=pixel_size_um, specimen=name, condition=treated)
        dye = open_fluorescence(row)
        depth = dye.sizes["Z"]
        if chosen and chosen[-1] >= depth:
            raise MitolumeError(f"{row.image} has planes 0 to {depth - 1}, not {chosen[-1]}")
        row = with_planes(row, chosen or range(depth))
        mask = out / f"{name}_mask.ome.tif"
        rows[mask.name] = replace(row, mask=mask, label="dye")

        def compute(advance: Callable[[int], None]) -> Report:
            found = label_row(row, mask, threshold or THRESHOLD)
            figures[mask.name] = pd.DataFrame(found).drop(columns="line")
            # What is finished is known if the command is stopped.
            _write_quality(out / QUALITY, figures.values())
            middle = "" if len(found) == 1 else " in the middle plane"
            return Report(f"{mask}: {found[len(found) // 2]['verdict']}{middle}")

        inputs = tuple(dict.fromkeys((row.image, *dye.attrs["files"])))
        return Job(file.name, inputs, (mask,), compute, settings)

    outcome = run_files(
        files, open_scene, out / RECORD, scene=scene, first=channel,
        resume=resume, overwrite=overwrite, progress=progress,
    )  # fmt: skip
    names = {mask.name for mask in outcome.done}
    if lost := names - set(figures):
        raise MitolumeError(f"{out / QUALITY} lacks {min(lost)}; make it anew with --overwrite")
    made = [row for name, row in rows.items() if name in names]
    if made:
        quality = pd.concat([figures[mask_name(row)] for row in made], ignore_index=True)
        _finish(outcome, out, made, quality, move)
    return outcome


def _finish(
    outcome: Outcome, out: Path, made: list[Field], quality: pd.DataFrame, move: bool
) -> None:
    """Judge the masks that were made; write their figures, a sheet and a table to train on."""
    moved = set(quality.loc[quality["moved"], "mask"])
    lit = [row for row in made if row.channel and mask_name(row) not in moved]
    measure_shifts(lit, quality, move)
    judged, (summary, *said) = judge(made, quality)
    _write_quality(out / QUALITY, [quality])
    outcome.notices += said
    outcome.summary = f"{summary}\nfigures: {out / QUALITY}"
    _write_sheet(out / SHEET, made, quality)
    outcome.summary += f"\nlook at {out / SHEET}"
    shown = [row for row in judged if row.planes]
    if lit := [row for row in shown if row.channel]:
        if (out / TABLE).exists() and not is_ours(out / TABLE):
            listed = [(row.image, row.scene) for row in read_table(out / TABLE)]
            lacking = [row.name for row in lit if (row.image, row.scene) not in listed]
            text = f"{out / TABLE} was filled in since and is left as it is"
            outcome.notices.append(text + f"; it lacks {some_names(lacking)}" * bool(lacking))
        else:
            write_table(out / TABLE, lit)
        outcome.summary += (
            f", fill in specimen in {out / TABLE} (so far each image is one), check its conditions,"
            f"\nthen: mitolume run --fields {quoted(out / TABLE)} --out RUN"
        )
    if dark := [row.name for row in shown if not row.channel]:
        outcome.notices.append(
            f"no transmitted light found for {count(len(dark), 'image')}, which {TABLE} leaves "
            f"out: {some_names(dark)}; name its channel with --light"
        )


def _write_quality(path: Path, tables: Iterable[pd.DataFrame]) -> None:
    table = pd.concat(tables, ignore_index=True)
    write_text(path, table.to_csv(index=False, float_format="%.4f"))


def _read_quality(path: Path) -> dict[str, pd.DataFrame]:
    """Return the figures of each mask that was made before."""
    if not path.exists():
        return {}
    texts = dict.fromkeys(
        ("image", "scene", "specimen", "condition", "batch", "mask", "verdict"), str
    )
    table = pd.read_csv(path, dtype=texts).fillna(dict.fromkeys(texts, ""))
    table = table.drop(columns=["used", "warning"], errors="ignore")  # judged anew, with others
    return {str(name): own for name, own in table.groupby("mask", sort=False)}


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


def _write_sheet(path: Path, rows: Sequence[Field], quality: pd.DataFrame) -> None:
    """Draw the middle plane of fields, those whose dye has a fault first."""
    faulty = set(quality.loc[quality["warning"] != "", "mask"])
    rows = sorted(rows, key=lambda row: mask_name(row) not in faulty)[:_MOST_SHOWN]
    figure = Figure(figsize=(9, 3.4 * len(rows)), layout="constrained")
    for row, part in zip(rows, figure.subfigures(len(rows), 1, squeeze=False).flat, strict=True):
        z = (row.planes or (0,))[len(row.planes or ()) // 2]
        own = quality[(quality["mask"] == mask_name(row)) & (quality["plane"] == z)].iloc[0]
        dye = read_plane(opened := open_fluorescence(row), z=z)
        size = plane_pixel_size(opened)
        pictures = {"dye": fit(to_8bit(dye), _SIDE, smooth=True)}
        if row.channel:
            light = fit(to_8bit(read_plane(open_image(row), z=z)), _SIDE, smooth=True)
            pictures = {"transmitted light": light} | pictures
        mask = read_plane(read(row.mask or "", mask=True), z=z)
        pictures["outline" if own["used"] else "left out"] = with_bar(
            overlay(dye, mask, longer=_SIDE), size and size[1] * dye.shape[1]
        )
        part.suptitle(
            f"{row.name}, plane {z}: {own['verdict']}\n{fill(own['warning'], 110)}".strip(),
            fontsize=9, parse_math=False, color="tab:red" if own["warning"] else "black",
        )  # fmt: skip
        for axes, (title, picture) in zip(part.subplots(1, 3), pictures.items(), strict=False):
            axes.imshow(picture, "gray")
            axes.set_title(title, fontsize=9)
        for axes in part.axes:
            axes.set_axis_off()
    write_figure(path, figure, dpi=100)
