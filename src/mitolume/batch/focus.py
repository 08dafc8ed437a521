"""Which planes of image files and tables of fields are in focus, with a picture. Knows no model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mitolume.errors import MitolumeError
from mitolume.io.channels import select_channel
from mitolume.io.fields import Field, read_table, with_planes, write_table
from mitolume.io.formats import bare_name
from mitolume.io.planes import format_planes
from mitolume.io.read import read
from mitolume.io.windows import Plane, open_plane
from mitolume.io.write import atomic
from mitolume.preprocess.focus import choose_planes, focus_scores

_THUMBNAIL = 256  # pixels a side: a part at full size, as fine detail is what matters
_MOST_LINES = 60  # of a table on the screen

Progress = Callable[..., None]


@dataclass(frozen=True, eq=False)
class StackFocus:
    """How sharp the planes of one stack are, and which are chosen."""

    file: Path
    scores: np.ndarray[Any, np.dtype[np.float64]]
    planes: tuple[int, ...]
    z_step_um: float | None
    method: str

    @property
    def best(self) -> int:
        """The plane with most detail."""
        return int(self.scores.argmax())

    def text(self) -> str:
        """Return a small table, with the chosen planes as `fields.csv` reads them."""
        most = self.scores.max() or 1.0
        lines = [str(self.file), f"  {'plane':>5}  {self.method:>12}  of best"]
        for z, score in enumerate(self.scores):
            chosen = "  chosen" if z in self.planes else ""
            lines.append(f"  {z:>5}  {score:>12.4g}  {score / most:>6.0%}{chosen}")
        if len(lines) > _MOST_LINES:
            lines[_MOST_LINES:] = [f"  ... {len(lines) - _MOST_LINES} more planes"]
        lines.append(f"  planes: {format_planes(self.planes)} (best: {self.best})")
        if len(self.scores) == 1:
            lines.append("  one plane: nothing to choose from")
        elif self.scores.max() == 0:
            lines.append("  no plane shows any detail, so that none can be told from another")
        elif self.scores.min() >= 0.5 * self.scores.max():
            lines.append("  all planes show much the same detail: none is clearly out of focus")
        return "\n".join(lines)


def measure_focus(
    path: str | Path,
    *,
    channel: str | None = None,
    scene: str | None = None,
    time: int = 0,
    choice: str = "auto",
    method: str = "band_power",
    z_step_um: float | None = None,
    progress: Progress = lambda done, total, note="": None,
) -> StackFocus:
    """Measure the planes of a stack, one after the other, and choose some.

    Parameters
    ----------
    path
        An image file.
    channel, scene
        Name or number; the channel of transmitted light where none is named.
    time
        Which time point, from 0.
    choice
        As `mitolume.preprocess.focus.choose_planes` reads it.
    method
        A name in `mitolume.preprocess.focus.METHODS`.
    z_step_um
        Over what the file states.
    progress
        Called with planes done, planes there are, and the file's name.

    Raises
    ------
    MitolumeError
        The file can't be read, or lacks the channel, scene, time point or planes.
    """
    image = _open(path, channel, scene, time)
    stated = image.attrs.get("pixel_size_um", {})
    step = z_step_um or stated.get("Z")

    def planes() -> Iterator[Plane]:
        for z in range(image.sizes["Z"]):
            progress(z, image.sizes["Z"], Path(path).name)
            yield open_plane(image, z=z, t=time)

    scores = focus_scores(planes(), method, stated.get("Y"))
    progress(len(scores), len(scores), Path(path).name)
    try:
        chosen = choose_planes(choice, scores, step)
    except MitolumeError as error:
        raise MitolumeError(f"{path}: {error}") from None
    return StackFocus(Path(path), scores, tuple(chosen), step, method)


def fill_planes(
    table: str | Path,
    out: str | Path,
    *,
    choice: str = "auto",
    method: str = "band_power",
    progress: Progress = lambda done, total, note="": None,
) -> list[str]:
    """Write a table of fields in which every row of several planes says which are meant.

    Parameters
    ----------
    table, out
        CSV; rows that name planes, and images of one plane, stay as they are.
    choice, method
        As for `measure_focus`.
    progress
        Called with rows done, rows there are, and the image's name.

    Returns
    -------
    list of str
        A sentence for each row that was filled.

    Raises
    ------
    MitolumeError
        The table or an image can't be read; nothing is written then.
    """
    if Path(out).suffix.lower() != ".csv":
        raise MitolumeError(f"--out {out} must end in .csv: it is a table of fields")
    rows, said = read_table(table), []
    known: dict[tuple[object, ...], StackFocus] = {}
    for number, row in enumerate(rows):
        progress(number, len(rows), row.image.name)
        key = (row.image, row.scene, row.channel, row.z_step_um)
        if row.planes is not None or _open(row.image, row.channel, row.scene, 0).sizes["Z"] == 1:
            continue
        if key not in known:
            known[key] = measure_focus(
                row.image, channel=row.channel or None, scene=row.scene or None, choice=choice,
                method=method, z_step_um=row.z_step_um,
            )  # fmt: skip
        found = known[key]
        rows[number] = with_planes(row, found.planes)
        said.append(_said(row, found))
    write_table(out, rows)
    return said


def draw_focus(
    path: str | Path,
    found: StackFocus,
    *,
    channel: str | None = None,
    scene: str | None = None,
    time: int = 0,
) -> None:
    """Draw the score against the plane, with parts of the first, best and last plane.

    Parameters
    ----------
    path
        The PNG to be written.
    found
        What `measure_focus` found.
    channel, scene, time
        As there.
    """
    image = _open(found.file, channel, scene, time)
    count = len(found.scores)
    shown = dict.fromkeys([0, found.best, count - 1])  # each once
    figure = Figure(figsize=(7.2, 5.2), layout="constrained")
    grid = figure.add_gridspec(2, 3, height_ratios=[1.2, 1])
    _draw_curve(figure.add_subplot(grid[0, :]), found)
    parts = {z: _middle(open_plane(image, z=z, t=time)) for z in shown}
    low, high = np.percentile(parts[found.best], [0.5, 99.5])
    for place, (z, part) in enumerate(parts.items()):
        axes = figure.add_subplot(grid[1, place])
        axes.imshow(part, cmap="gray", vmin=low, vmax=max(high, low + 1e-6))
        names = [name for name, own in (("first", 0), ("best", found.best), ("last", count - 1))
                 if own == z]  # fmt: skip
        axes.set_title(f"plane {z} ({', '.join(names)})", fontsize=9)
        axes.set(xticks=[], yticks=[])
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=120)


def picture_paths(
    folder: str | Path,
    stacks: Sequence[Path],
    *,
    channel: str | None = None,
    scene: str | None = None,
    time: int = 0,
) -> list[Path]:
    """Return what the picture of each stack will be called: ``NAME_focus.png`` in a folder.

    Raises
    ------
    MitolumeError
        Two would be called the same.
    """
    where = [f"scene{scene}" if scene else "", f"channel{channel}" if channel else ""]
    ending = "_".join(filter(None, [*where, f"t{time}" if time else "", "focus.png"]))
    ending = re.sub(r"[^\w.-]+", "_", ending)
    paths = [Path(folder) / f"{bare_name(stack)}_{ending}" for stack in stacks]
    for path, times in Counter(paths).items():
        if times > 1:
            raise MitolumeError(
                f"{times} stacks would all get {path}; look at them one by one, each with its --out"
            )
    return paths


def _open(path: str | Path, channel: str | None, scene: str | None, time: int) -> xr.DataArray:
    image = select_channel(read(path, scene=scene or None), channel or None)
    if not 0 <= time < image.sizes["T"]:
        raise MitolumeError(
            f"{path} has no time point {time}; it has {image.sizes['T']}, counted from 0"
        )
    return image


def _draw_curve(axes: Axes, found: StackFocus) -> None:
    z = np.arange(len(found.scores))
    for first, last in _runs(found.planes):
        axes.axvspan(first - 0.5, last + 0.5, color="#1b7f79", alpha=0.15, linewidth=0)
    axes.plot(z, found.scores, "-o", color="#0b3c5d", markersize=3.5, linewidth=1.3)
    axes.plot(found.best, found.scores[found.best], "o", color="#c8553d", markersize=7)
    axes.set(xlabel="plane", ylabel=found.method.replace("_", " "), xlim=(-0.6, len(z) - 0.4))
    axes.set_ylim(0, 1.08 * float(found.scores.max()) or 1.0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(
        f"{found.file.name}: planes {format_planes(found.planes)} chosen (shaded)", fontsize=10,
        parse_math=False,
    )  # fmt: skip
    axes.spines["right"].set_visible(False)
    if found.z_step_um:
        top = axes.twiny()
        top.set_xlim(*(z * found.z_step_um for z in axes.get_xlim()))
        top.set_xlabel("µm from the first plane", fontsize=8)
        top.tick_params(labelsize=8)
    else:
        axes.spines["top"].set_visible(False)


def _runs(planes: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return first and last of each run of neighbouring planes."""
    breaks = [i for i in range(1, len(planes)) if planes[i] != planes[i - 1] + 1]
    starts = [0, *breaks]
    return [
        (planes[a], planes[b - 1])
        for a, b in zip(starts, [*breaks, len(planes)], strict=True)
    ]  # fmt: skip


def _middle(plane: Plane) -> np.ndarray[Any, Any]:
    starts = [max(0, (size - _THUMBNAIL) // 2) for size in plane.shape]
    y, x = (slice(start, start + _THUMBNAIL) for start in starts)
    return np.asarray(plane[y, x], np.float64)


def _said(row: Field, found: StackFocus) -> str:
    return f"{row.where}: planes {format_planes(found.planes)} of {len(found.scores)}"
