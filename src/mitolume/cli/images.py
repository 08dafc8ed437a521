"""Commands that work on images: look at them, list them, denoise and simulate them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

from mitolume.cli import options as of
from mitolume.cli.options import argument, next_step, option, run_batch
from mitolume.text import quoted, spare


def sample(
    name: Annotated[str, argument("Name of a sample; without it, all are listed.")] = "",
    out: of.Out = Path(),
) -> None:
    """Fetch a public image to try things on, or list which there are, with licence and size."""
    from mitolume.io.samples import fetch_sample, samples

    if name:
        print(fetch_sample(name, out))
        return
    for one in samples().values():
        print(f"{one.name:<12} {one}")


def inspect(files: of.Images, quiet: of.Quiet = False) -> None:
    """Show the properties of image files, and warn of problems."""
    from mitolume.batch.inspect import inspect_files

    run_batch("inspecting", "files", "read", inspect_files, files, quiet=quiet)


def fields(
    folder: Annotated[Path, argument("Folder with images and masks, or with folders of them.")],
    out: Annotated[
        Path | None, option("Write the table to this CSV file, with notes beside it.")
    ] = None,
    quiet: of.Quiet = False,
) -> None:
    """Draft a table of fields from the images in a folder."""
    from mitolume.io.draft import draft_table, write_draft
    from mitolume.progress import say

    draft = draft_table(folder, out.parent if out else ".")
    if out is None:
        sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
        print(draft.text, end="")
    else:
        write_draft(draft, out)
    for line in draft.lines:
        say(line, quiet=quiet)
    table = quoted(out or "TABLE")
    next_step(f"check the table, then mitolume run --fields {table}{spare('run')}", quiet)


def focus(
    stacks: Annotated[list[Path] | None, argument("Z-stacks, or folders of them.")] = None,
    out: Annotated[Path, option("Folder for the curves; with --fields, the new table.")] = Path(
        "focus"
    ),
    channel: of.Channel = None,
    scene: of.Scene = None,
    planes: Annotated[
        str, option("auto, all, a number (3), a thickness (4um), or a list (2,5-7).")
    ] = "auto",
    fields: Annotated[
        Path | None, option("Choose planes for the rows of this table of fields.")
    ] = None,
    quiet: of.Quiet = False,
) -> None:
    """Find the planes of a z-stack that are in focus."""
    from mitolume.batch.focus import focus_files

    run_batch(
        "focus", "stacks", "measured", focus_files, stacks or [], out, table=fields,
        channel=channel, scene=scene, planes=planes, quiet=quiet,
    )  # fmt: skip


def denoise_check(
    stacks: of.Stacks,
    out: Annotated[Path, option("Folder for NAME_check.png and .json.")] = Path("."),
    channel: of.Channel = None,
    scene: of.Scene = None,
    quiet: of.Quiet = False,
) -> None:
    """Check whether a stack is suitable for Noise2Noise."""
    from mitolume.batch.denoise_check import check_files

    run_batch(
        "checking", "stacks", "checked", check_files, stacks, out, channel=channel, scene=scene,
        quiet=quiet,
    )  # fmt: skip


def denoise_train(
    stacks: of.Stacks,
    out: Annotated[Path, option("Folder for the denoiser.")] = Path("denoiser"),
    method: Annotated[str, option("auto, noise2stack, wiener or noise2noise.")] = "auto",
    preset: Annotated[
        str, option("Settings to start from: default, or paper (500 epochs).")
    ] = "default",
    set_: of.Set = None,
    planes: Annotated[
        str | None, option("Planes to use, from 0, such as 3-20; or all, or focus.")
    ] = None,
    stripes: Annotated[
        str, option("auto: first remove scan lines if there are any; or none.")
    ] = "auto",
    channel: of.Channel = None,
    scene: of.Scene = None,
    seed: Annotated[int, option("Seed of weights and patches.", min=0)] = 0,
    resume: of.Resume = False,
    device: of.Device = None,
    quiet: of.Quiet = False,
) -> None:
    """Train a denoiser on noisy z-stacks."""
    from mitolume.progress import say
    from mitolume.runs.denoiser import denoising_settings
    from mitolume.training.denoise_stacks import open_stacks
    from mitolume.training.denoise_training import train_denoiser

    settings = denoising_settings(preset, set_ or [])
    opened, notices = open_stacks(stacks, planes or settings.planes, channel=channel, scene=scene)
    for notice in notices:
        say(f"note: {notice}")
    card = train_denoiser(
        opened, out, settings, method=method, stripes=stripes, seed=seed, resume=resume, quiet=quiet
    )  # fmt: skip
    print(f"denoiser: {out} ({card.method}; {card.chosen})")
    next_step(f"mitolume denoise apply {quoted(out)} STACKS", quiet)


def denoise_apply(
    model: Annotated[Path, argument("Folder of a denoiser, or of a model that contains one.")],
    files: of.Images,
    out: Annotated[Path, option("Folder for the results.")] = Path("denoised"),
    channel: of.Channel = None,
    scene: of.Scene = None,
    sharpen: Annotated[
        bool, option("Apply an unsharp mask (0.5 px, 0.7) afterwards, as published.")
    ] = False,
    overwrite: of.Overwrite = False,
    resume: of.Resume = False,
    device: of.Device = None,
    quiet: of.Quiet = False,
) -> None:
    """Remove noise from images with a trained denoiser."""
    from mitolume.batch.denoise import denoise_files
    from mitolume.inference.denoise import Denoiser

    run_batch(
        "denoising", "images", "denoised", denoise_files, Denoiser.load(model), files, out,
        channel=channel, scene=scene, sharpen=sharpen, resume=resume, overwrite=overwrite,
        quiet=quiet,
    )  # fmt: skip


def simulate(
    out: of.Out = Path("simulated"),
    fields: Annotated[
        int | None, option("Number of fields per condition; 4 by default.", min=1)
    ] = None,
    condition: Annotated[
        list[str] | None,
        option("control, fccp, oligomycin, antimycin_a or rotenone; can be repeated."),
    ] = None,
    seed: Annotated[int, option("Seed; another one gives other cells.", min=0)] = 0,
    preset: Annotated[
        str | None, option("Whole data set: study, fine, demo, treatments or brightfield.")
    ] = None,
    set_: of.Set = None,
    jobs: of.Jobs = 1,
    quiet: of.Quiet = False,
) -> None:
    """Simulate z-stacks of living cells with exact masks.

    Repeat the command to continue after an interruption.
    """
    from mitolume.batch.simulate import plan, write_data_set
    from mitolume.progress import progress_bar

    plans = plan(
        preset=preset, fields=fields, conditions=condition or [], seed=seed, set_=set_ or []
    )
    command = shlex.join(["mitolume", *sys.argv[1:]])
    with progress_bar("simulating fields", quiet=quiet) as advance:
        table = write_data_set(plans, out, jobs=jobs, command=command, progress=advance)
    print(f"table of fields: {table}")
    next_step(f"mitolume run --fields {quoted(table)}{spare('run')}", quiet)
