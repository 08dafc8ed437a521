"""Does Noise2Noise apply to stacks in files: text, figure and numbers of each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mitolume.batch.runner import Job, Outcome, Report, open_jobs, run_jobs
from mitolume.errors import MitolumeError
from mitolume.io.channels import select_channel
from mitolume.io.formats import bare_name
from mitolume.io.listing import RESULTS, image_files
from mitolume.io.read import read
from mitolume.io.windows import Plane, open_plane
from mitolume.io.write import atomic, write_text
from mitolume.preprocess.noise_check import NoiseCheck, axial_resolution, check_stack
from mitolume.preprocess.plane_shift import measure_shift, overlap, quarters
from mitolume.progress import Advance

_SHOWN = 192  # pixels a side of the example, at full size: noise is fine
_DRIFT = 0.2  # pixels, from which a shift is worth a line
_SIGNAL, _NOISE, _BOTH = "#1b7f79", "#c8553d", "#0b3c5d"


@dataclass(frozen=True)
class CheckOptions:
    """Where to look in the files, and what is known of the optics.

    Attributes
    ----------
    channel, scene
        Name or number (from 0).
    z_step_um
        Distance between planes in µm, over what the file states.
    na, wavelength_um
        Numerical aperture of the objective, and wavelength of the light in µm; the axial
        resolution is unknown without both.
    """

    channel: str | None = None
    scene: str | None = None
    z_step_um: float | None = None
    na: float | None = None
    wavelength_um: float | None = None

    def __post_init__(self) -> None:
        if (self.na is None) != (self.wavelength_um is None):
            raise MitolumeError(
                "--na and --wavelength tell the axial resolution together: give both"
            )

    @property
    def axial_resolution_um(self) -> float | None:
        """The axial resolution in µm, None where the optics are unknown."""
        if self.na is None or self.wavelength_um is None:
            return None
        return axial_resolution(self.na, self.wavelength_um)


class FilePlanes(Sequence[Plane]):
    """The planes of an image (dims ``T C Z Y X``), read when needed; of a movie, the first ones.

    Parameters
    ----------
    image
        Dims ``T C Z Y X``, C of length 1.
    advance
        Called with the number of planes read so far.
    """

    def __init__(
        self, image: xr.DataArray, advance: Callable[[int], None] = lambda done: None
    ) -> None:
        self._image, self._advance, self._seen = image, advance, set[int]()
        self._open = lru_cache(maxsize=1)(partial(open_plane, image))

    def __len__(self) -> int:
        """Return how many planes there are."""
        return int(self._image.sizes["Z"])

    def __getitem__(self, z: Any) -> Any:
        """Open a plane."""
        if not 0 <= z < len(self):
            raise IndexError(z)
        self._seen.add(z)
        self._advance(len(self._seen))
        return self._open(z=z)


def check_files(
    stacks: Sequence[Path],
    out: Path,
    options: CheckOptions = CheckOptions(),
    progress: Advance = lambda done, total, note="": None,
) -> Outcome:
    """Check stacks in files, as `mitolume.preprocess.noise_check.check_stack` does.

    Parameters
    ----------
    stacks
        Image files, or folders of them.
    out
        Folder for ``NAME_check.png`` and the numbers in ``NAME_check.json``, which are replaced.
    options
        Where to look, and the optics.
    progress
        Called with planes read, planes there are, and the file's name.

    Raises
    ------
    MitolumeError
        Two stacks have the same name.
    """
    faults: list[str] = []

    def make(file: Path) -> Iterator[Job]:
        image = select_channel(read(file, scene=options.scene), options.channel)
        figure = out / f"{bare_name(file)}_check.png"
        compute = partial(_check, file, image, figure, options)
        results = (figure.with_suffix(".json"), figure)
        yield Job(file.name, (file,), results, compute, work=image.sizes["Z"])

    jobs = open_jobs(image_files(stacks, faults, (*RESULTS, "_check")), make, faults, progress)
    return run_jobs(jobs, overwrite=True, faults=faults, progress=progress)


def _check(
    file: Path,
    image: xr.DataArray,
    figure: Path,
    options: CheckOptions,
    advance: Callable[[int], None],
) -> Report:
    step = options.z_step_um or image.attrs.get("pixel_size_um", {}).get("Z")
    resolution = options.axial_resolution_um
    check = check_stack(FilePlanes(image, advance), step, axial_resolution_um=resolution)
    found = {"image": file.name, "sentence": check.sentence, **asdict(check)}
    write_text(figure.with_suffix(".json"), json.dumps(found, indent=2) + "\n")
    _draw(figure, file.name, image, check)
    return Report(f"{check_text(file, check)}\n  figure: {figure}")


def check_text(path: Path, check: NoiseCheck) -> str:
    """Return what was found as a short table, with the verdict and what to do next."""
    lines = [str(path), f"  planes: {check.n_planes}, {_step(check)}"]
    if check.noise_sd is not None:
        moved = f"{check.shift_px:.1f} px, {check.largest_shift_px:.1f} px at most"
        lines += [
            f"  shift from plane to plane: {moved}",
            f"  noise: {check.noise_sd:.3g} grey values; of whole rows {check.row_noise_sd:.2g}, "
            f"of columns {check.column_noise_sd:.2g}",
            f"  noise shared with the next plane: {check.shared_noise:.0%}",
        ]
        if check.shift_px >= _DRIFT:
            lines.append("  planes drift; they were laid over each other before they were compared")
        if check.is_correlated:
            lines.append("  neighbouring pixels share noise: the image was smoothed or resampled")
        lines.append("  planes apart  signal alike  noise alike")
        for distance, signal, noise in zip(check.distances, check.signal, check.noise, strict=True):
            lines.append(f"  {distance:>12}  {signal:>12.2f}  {noise:>11.2f}")
        lines.append(
            f"  to be expected: {check.gain_db:+.1f} dB from neighbouring planes, "
            f"{check.best_gain_db:+.1f} dB from repeats of the same plane"
        )
    return "\n".join([*lines, f"  {check.sentence}", f"  next: {_next(path, check)}"])


def _step(check: NoiseCheck) -> str:
    step = f"{check.z_step_um:g} µm apart" if check.z_step_um else "distance unknown"
    if check.axial_resolution_um is None:
        return step
    step += f"; axial resolution {check.axial_resolution_um:.2g} µm"
    if check.z_step_um:
        step += f" ({check.z_step_um / check.axial_resolution_um:.2g} steps of it a plane)"
    return step


def _next(path: Path, check: NoiseCheck) -> str:
    if check.is_suitable:
        lines = " (scan lines are removed first)" if check.row_noise_sd else ""
        return f"mitolume denoise train {path} --out DENOISER{lines}"
    if "signal changes" in check.reason:
        return ("record planes closer to each other, or filter each plane by itself: mitolume "
                f"denoise train {path} --method wiener")  # fmt: skip
    if "shared" in check.reason:
        return ("neighbouring planes can't tell this noise from signal; if the stack was "
                "interpolated or averaged along z, use the file as it was recorded")  # fmt: skip
    if "hardly any noise" in check.reason or "constant" in check.reason:
        return "use the planes as they are"
    if "too small" in check.reason:
        return "use the planes as they are, or larger ones"
    return f"filter each plane by itself: mitolume denoise train {path} --method wiener"


def _draw(figure: Path, name: str, image: xr.DataArray, check: NoiseCheck) -> None:
    drawn = Figure(figsize=(9.6, 6.4), layout="constrained")
    drawn.suptitle(f"{name}: {check.sentence}", fontsize=11, parse_math=False)
    rows = drawn.add_gridspec(2, 1, height_ratios=[1, 1.15])
    if check.noise_sd is not None:
        curves = rows[0].subgridspec(1, 2)
        _draw_distance(drawn.add_subplot(curves[0]), check)
        _draw_fineness(drawn.add_subplot(curves[1]), check)
    if check.n_planes > 1:
        places = rows[1].subgridspec(1, 3)
        _draw_example([drawn.add_subplot(places[i]) for i in range(3)], FilePlanes(image))
    with atomic(figure) as temporary:
        drawn.savefig(temporary, dpi=120)


def _draw_distance(axes: Axes, check: NoiseCheck) -> None:
    for values, colour, name in (
        (check.signal, _SIGNAL, "signal"), (check.noise, _NOISE, "noise"),
    ):  # fmt: skip
        axes.plot(check.distances, values, "-o", color=colour, label=name, markersize=5)
    axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.set(ylim=(-0.15, 1.1), xlabel="distance in planes", ylabel="correlation")
    axes.set_title("wanted: signal stays near 1, noise near 0", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=9, loc="center right")
    axes.spines[["right", "top"]].set_visible(False)


def _draw_fineness(axes: Axes, check: NoiseCheck) -> None:
    finest = 0.5  # cycles per pixel; beyond are the corners of the spectrum
    axes.axvspan(finest, 0.7, color=_NOISE, alpha=0.12, linewidth=0)
    axes.text(0.6, 1.03, "noise only", ha="center", color=_NOISE, fontsize=8)
    axes.plot(check.frequencies, check.coherence, "-o", color=_BOTH, markersize=4)
    axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    ticks = [1 / 16, 1 / 8, 1 / 4, 1 / 2]
    axes.set_xticks(ticks, [f"{1 / tick:.0f}" for tick in ticks])
    axes.set(ylim=(-0.15, 1.1), xlim=(0, 0.7), ylabel="correlation of neighbours")
    axes.set_xlabel("size of detail: pixels per period (coarse to fine)")
    axes.set_title("what neighbouring planes share, by size of detail", fontsize=9)
    axes.spines[["right", "top"]].set_visible(False)


def _draw_example(axes: list[Axes], planes: FilePlanes) -> None:
    """Draw a part of two neighbours in the middle of the stack, and their difference."""
    z = (len(planes) - 1) // 2
    parts = quarters(planes[z].shape, 2 * _SHOWN)
    # The liveliest quarter: the middle of a field may be empty.
    box = max(parts, key=lambda part: float(np.std(planes[z][part])))
    first, second = (np.asarray(planes[i][box], np.float64) for i in (z, z + 1))
    dy, dx = measure_shift(first, second)
    mine, theirs = overlap(first.shape, (round(dy), round(dx)))
    one, other = first[mine][:_SHOWN, :_SHOWN], second[theirs][:_SHOWN, :_SHOWN]
    low, high = np.percentile(one, [0.5, 99.5])
    high = max(float(high), float(low) + 1e-6)
    middle, half = float(np.median(other - one)), (high - low) / 2
    for place, (part, title) in zip(
        axes, ((one, f"plane {z}"), (other, f"plane {z + 1}, laid over it")), strict=False
    ):
        place.imshow(part, cmap="gray", vmin=low, vmax=high)
        place.set_title(title, fontsize=9)
    axes[2].imshow(other - one, cmap="gray", vmin=middle - half, vmax=middle + half)
    axes[2].set_title("difference (wanted: noise alone)", fontsize=9)
    for place in axes:
        place.set(xticks=[], yticks=[])
