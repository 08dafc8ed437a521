"""Whether Noise2Noise applies to stacks in files: text, figure and numbers of each."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mitolume.analysis.object_pictures import write_figure
from mitolume.batch.runner import Job, Outcome, Report, run_files
from mitolume.io.channels import select_channel
from mitolume.io.read import read
from mitolume.io.windows import Plane, first_time, levelled, open_plane
from mitolume.io.write import write_text
from mitolume.preprocess.noise_check import NoiseCheck, check_stack
from mitolume.progress import Advance
from mitolume.text import quoted

_DRIFT = 0.2  # pixels, from which a shift is worth a line


class _Planes(Sequence[Plane]):
    """The planes of an image (T C Z Y X), opened when needed; of a movie, the first ones."""

    def __init__(self, image: xr.DataArray, advance: Callable[[int], None]) -> None:
        self._image, self._advance, self._seen = image, advance, set[int]()
        self._open = lru_cache(maxsize=1)(partial(open_plane, image))

    def __len__(self) -> int:
        return int(self._image.sizes["Z"])

    def __getitem__(self, z: Any) -> Any:
        if not 0 <= z < len(self):
            raise IndexError(z)
        self._seen.add(z)
        self._advance(len(self._seen))
        return self._open(z=z)


def check_files(
    stacks: Sequence[Path],
    out: Path,
    *,
    channel: str | None = None,
    scene: str | None = None,
    progress: Advance = lambda done, total, note="": None,
) -> Outcome:
    """Check stacks in files, as `mitolume.preprocess.noise_check.check_stack` does.

    ``out`` gets ``NAME_check.png`` and the numbers in ``NAME_check.json``, which are replaced.
    ``channel`` and ``scene`` are names or numbers (from 0); scene "all" is each one.
    ``progress`` is called with planes read, planes in total, and the file's name.
    """

    def open_scene(file: Path, own: str | None, name: str) -> Job:
        image = levelled(select_channel(read(file, scene=own), channel))
        figure = out / f"{name}_check.png"
        numbers = figure.with_suffix(".json")

        def compute(advance: Callable[[int], None]) -> Report:
            step = image.attrs.get("pixel_size_um", {}).get("Z")
            check = check_stack(_Planes(image, advance), step)
            found = {"image": file.name, "sentence": check.sentence, **asdict(check)}
            write_text(numbers, json.dumps(found, indent=2) + "\n")
            _draw(figure, file.name, check)
            asked = {"": file, " --channel ": channel, " --scene ": own}
            given = "".join(option + quoted(what) for option, what in asked.items() if what)
            return Report(f"{_text(file, given, check)}\n  figure: {figure}", first_time(image))

        inputs = image.attrs["files"]
        return Job(file.name, inputs, (numbers, figure), compute, work=image.sizes["Z"])

    return run_files(stacks, open_scene, scene=scene, overwrite=True, progress=progress)


def _text(path: Path, given: str, check: NoiseCheck) -> str:
    """Return what was found as a short table, with the verdict and what to do next."""
    step = f"{check.z_step_um:g} µm apart" if check.z_step_um else "distance unknown"
    lines = [str(path), f"  planes: {check.n_planes}, {step}"]
    if check.noise_sd is not None:
        moved = f"{check.shift_px:.1f} px, {check.largest_shift_px:.1f} px at most"
        lines += [
            f"  shift from plane to plane: {moved}",
            f"  noise: {check.noise_sd:.3g} grey values; of whole rows {check.row_noise_sd:.2g}, "
            f"of columns {check.column_noise_sd:.2g}",
            f"  noise shared with the next plane: {check.shared_noise:.0%}",
        ]
        if check.shift_px >= _DRIFT:
            lines.append("  planes drift; they were registered before they were compared")
        if check.is_correlated:
            lines.append("  neighbouring pixels share noise: the image was smoothed or resampled")
        lines.append("  planes apart  signal alike  noise alike")
        for distance, signal, noise in zip(check.distances, check.signal, check.noise, strict=True):
            lines.append(f"  {distance:>12}  {signal:>12.2f}  {noise:>11.2f}")
        lines.append(
            f"  expected gain: {check.gain_db:+.1f} dB from neighbouring planes, "
            f"{check.best_gain_db:+.1f} dB from repeats of the same plane"
        )
    return "\n".join([*lines, f"  {check.sentence}", f"  next: {_next(given, check)}"])


def _next(given: str, check: NoiseCheck) -> str:
    """Say what to do; ``given`` are the file and options of the check, as for the shell."""
    train = f"mitolume denoise train {given} --out DENOISER"
    if check.is_suitable:
        return train + " (scan lines are removed first)" * bool(check.row_noise_sd)
    alone = f"filter each plane by itself: {train} --method wiener"
    if "signal changes" in check.reason:
        return f"record planes closer to each other, or {alone}"
    if "shared" in check.reason:
        return (
            "neighbouring planes can't tell this noise from signal; if the stack was interpolated "
            "or averaged along z, use the file as it was recorded"
        )
    if "hardly any noise" in check.reason or "constant" in check.reason:
        return "use the planes as they are"
    if "too small" in check.reason:
        return "use the planes as they are, or larger ones"
    return alone


def _draw(path: Path, name: str, check: NoiseCheck) -> None:
    """Draw what neighbouring planes share: against their distance, and against size of detail."""
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    figure.suptitle(f"{name}: {check.sentence}", fontsize=11, parse_math=False)
    if check.noise_sd is not None:
        by_distance, by_size = figure.subplots(1, 2, sharey=True)
        by_distance.plot(check.distances, check.signal, "-o", color="#1b7f79", label="signal")
        by_distance.plot(check.distances, check.noise, "-o", color="#c8553d", label="noise")
        by_distance.set(ylim=(-0.15, 1.1), xlabel="distance in planes", ylabel="correlation")
        by_distance.set_title("should be: signal near 1, noise near 0", fontsize=9)
        by_distance.xaxis.set_major_locator(MaxNLocator(integer=True))
        by_distance.legend(frameon=False, fontsize=9, loc="center right")
        by_size.axvspan(0.5, 0.7, color="#c8553d", alpha=0.12, linewidth=0, label="noise only")
        by_size.plot(check.frequencies, check.coherence, "-o", color="#0b3c5d")
        by_size.set_xticks([1 / 16, 1 / 8, 1 / 4, 1 / 2], ["16", "8", "4", "2"])
        by_size.set(xlim=(0, 0.7), xlabel="size of detail: pixels per period (coarse to fine)")
        by_size.set_title("neighbouring planes, by size of detail", fontsize=9)
        by_size.legend(frameon=False, fontsize=9, loc="upper right")
        for axes in (by_distance, by_size):
            axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
            axes.spines[["right", "top"]].set_visible(False)
    write_figure(path, figure, dpi=120)
