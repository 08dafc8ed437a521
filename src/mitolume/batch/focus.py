"""Which planes of image files and tables of fields are in focus, with a picture of each stack."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mitolume.analysis.object_pictures import write_figure
from mitolume.batch.runner import (
    Job,
    Outcome,
    Report,
    refuse_inputs,
    require_free,
    run_files,
    run_jobs,
)
from mitolume.errors import MitolumeError
from mitolume.io.channels import select_channel
from mitolume.io.fields import Field, format_planes, with_planes
from mitolume.io.read import read
from mitolume.io.table import read_table, write_table
from mitolume.io.windows import Plane, first_time, levelled, open_plane
from mitolume.preprocess.focus import choose_planes, focus_scores
from mitolume.progress import Advance

_THUMBNAIL = 256  # pixels a side
_MOST_LINES = 60  # of a table on the screen


@dataclass(frozen=True, eq=False)
class StackFocus:
    """How sharp the planes of one stack are, and which are chosen."""

    file: Path
    scores: np.ndarray[Any, np.dtype[np.float64]]
    planes: tuple[int, ...]

    @property
    def best(self) -> int:
        """The plane with most detail."""
        return int(self.scores.argmax())

    def text(self) -> str:
        """Return a small table, with the chosen planes as `fields.csv` reads them."""
        most = self.scores.max()
        lines = [str(self.file), "  plane         score  of best"]
        for z, score in enumerate(self.scores):
            chosen = "  chosen" if z in self.planes else ""
            lines.append(f"  {z:>5}  {score:>12.4g}  {score / (most or 1):>6.0%}{chosen}")
        if len(lines) > _MOST_LINES:
            lines[_MOST_LINES:] = [f"  ... {len(lines) - _MOST_LINES} more planes"]
        lines.append(f"  planes: {format_planes(self.planes)} (best: {self.best})")
        if len(self.scores) == 1:
            lines.append("  one plane: nothing to choose from")
        elif most == 0:
            lines.append("  no plane shows any detail, so none can be told from another")
        elif self.scores.min() >= 0.5 * most:
            lines.append("  all planes show much the same detail: none is clearly out of focus")
        return "\n".join(lines)


def focus_files(
    stacks: Sequence[Path],
    out: Path,
    *,
    table: Path | None = None,
    channel: str | None = None,
    scene: str | None = None,
    planes: str = "auto",
    progress: Advance = lambda done, total, note="": None,
) -> Outcome:
    """Measure stacks and draw the curve of each, or choose planes for the rows of a table.

    ``stacks`` are image files, or folders of them; ``out`` is then a folder for ``NAME_focus.png``,
    which are replaced. With ``table``, ``out`` is the new table (CSV); rows that name planes, and
    images of one plane, stay as they are. ``channel`` and ``scene`` are names or numbers (from 0);
    scene "all" is each one, and without ``channel`` it is that of transmitted light. ``planes`` is
    as `mitolume.preprocess.focus.choose_planes` reads it: auto, all, 3, 4um or 2,5-7. Nothing is
    written if a row can't be read; the error names all of them.
    """
    if bool(stacks) == (table is not None):
        raise MitolumeError("name either z-stacks or a table with --fields")
    if table is not None:
        if channel is not None or scene is not None:
            raise MitolumeError("the table of --fields says which channel and scene")
        return _fill_planes(table, out, planes, progress)

    def open_scene(file: Path, own: str | None, name: str) -> Job:
        picture = out / f"{name}_focus.png"
        image = _open(file, channel, own)

        def compute(advance: Callable[[int], None]) -> Report:
            found = measure_focus(file, image, planes, advance=advance)
            _draw(picture, found, image)
            return Report(f"{found.text()}\n  curve:  {picture}", first_time(image))

        inputs = image.attrs["files"]
        return Job(file.name, inputs, (picture,), compute, work=image.sizes["Z"])

    return run_files(stacks, open_scene, scene=scene, overwrite=True, progress=progress)


def measure_focus(
    path: Path,
    image: xr.DataArray,
    choice: str = "auto",
    z_step_um: float | None = None,
    advance: Callable[[int], None] = lambda done: None,
) -> StackFocus:
    """Measure the planes of a stack, one after the other, and choose some.

    ``image`` has the dims ``T C Z Y X`` with C of length 1; of a movie, the first frame is
    measured. ``choice`` is as `choose_planes` reads it; ``z_step_um`` comes before what the file
    states.
    """
    size = image.attrs.get("pixel_size_um", {})

    def planes() -> Iterator[Plane]:
        for z in range(image.sizes["Z"]):
            yield open_plane(image, z=z)
            advance(z + 1)

    scores = focus_scores(planes(), size.get("Y"))
    try:
        chosen = choose_planes(choice, scores, z_step_um or size.get("Z"))
    except MitolumeError as error:
        raise MitolumeError(f"{path}: {error}") from None
    return StackFocus(path, scores, tuple(chosen))


def _fill_planes(table: Path, out: Path, planes: str, progress: Advance) -> Outcome:
    """Write a table of fields in which every row of several planes says which are meant."""
    if out.suffix.lower() != ".csv":
        raise MitolumeError(f"--out {out} must end in .csv: it is a table of fields")
    refuse_inputs([out], [table])
    require_free([out], replace=True)
    rows = read_table(table)

    def fill(number: int, row: Field, advance: Callable[[int], None]) -> Report:
        image = _open(row.image, row.channel or None, row.scene or None)
        if image.sizes["Z"] == 1:
            return Report()
        found = measure_focus(row.image, image, planes, row.z_step_um)
        rows[number] = with_planes(row, found.planes)
        chosen = f"planes {format_planes(found.planes)} of {len(found.scores)}"
        return Report(f"{row.where}: {chosen}")

    outcome = run_jobs(
        [
            Job(row.where, (), (), partial(fill, number, row))
            for number, row in enumerate(rows)
            if row.planes is None
        ],
        progress=progress,
    )
    if outcome.faults:
        raise MitolumeError("\n  ".join(["no table was written:", *outcome.faults]))
    write_table(out, rows)
    n_filled = sum(bool(one.report.text) for one in outcome.finished)
    outcome.summary = f"table: {out} ({n_filled} rows were given planes)"
    return outcome


def _open(path: Path, channel: str | None, scene: str | None) -> xr.DataArray:
    return levelled(select_channel(read(path, scene=scene), channel))


def _draw(path: Path, found: StackFocus, image: xr.DataArray) -> None:
    """Draw the score against the plane, with parts of the first, best and last plane."""
    count = len(found.scores)
    figure = Figure(figsize=(7.2, 5.2), layout="constrained")
    grid = figure.add_gridspec(2, 3, height_ratios=[1.2, 1])
    _draw_curve(figure.add_subplot(grid[0, :]), found)
    names: dict[int, list[str]] = {}
    for name, z in (("first", 0), ("best", found.best), ("last", count - 1)):
        names.setdefault(z, []).append(name)
    parts = {z: _middle(open_plane(image, z=z)) for z in names}
    low, high = np.percentile(parts[found.best], [0.5, 99.5])
    for place, (z, part) in enumerate(parts.items()):
        axes = figure.add_subplot(grid[1, place])
        axes.imshow(part, cmap="gray", vmin=low, vmax=max(high, low + 1e-6))
        axes.set_title(f"plane {z} ({', '.join(names[z])})", fontsize=9)
        axes.set(xticks=[], yticks=[])
    write_figure(path, figure, dpi=120)


def _draw_curve(axes: Axes, found: StackFocus) -> None:
    z = np.arange(len(found.scores))
    for chosen in found.planes:
        axes.axvspan(chosen - 0.5, chosen + 0.5, color="#1b7f79", alpha=0.15, linewidth=0)
    axes.plot(z, found.scores, "-o", color="#0b3c5d", markersize=3.5, linewidth=1.3)
    axes.plot(found.best, found.scores[found.best], "o", color="#c8553d", markersize=7)
    axes.set(xlabel="plane", ylabel="detail", xlim=(-0.6, len(z) - 0.4))
    axes.set_ylim(0, 1.08 * float(found.scores.max()) or 1.0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    title = f"{found.file.name}: planes {format_planes(found.planes)} chosen (shaded)"
    axes.set_title(title, fontsize=10, parse_math=False)
    axes.spines[["right", "top"]].set_visible(False)


def _middle(plane: Plane) -> np.ndarray[Any, Any]:
    """Return the middle of a plane at full size, as fine detail is what matters."""
    starts = [max(0, (size - _THUMBNAIL) // 2) for size in plane.shape]
    y, x = (slice(start, start + _THUMBNAIL) for start in starts)
    return np.asarray(plane[y, x], np.float64)
