"""Options of several commands, and what commands over files have in common."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from mitolume.cli import process


def option(help: str, *names: str, **limits: Any) -> Any:
    """Return what typer needs of an option; it has the name of its parameter, or the given one."""
    return typer.Option(*names, help=help, **limits)


def argument(help: str) -> Any:
    """Return what typer needs of an argument."""
    return typer.Argument(help=help)


Out = Annotated[Path, option("Folder for the results.")]


def _resumable(asked: bool) -> bool:
    process.again = ", with --resume,"  # called for each command that has the option, given or not
    return asked


Resume = Annotated[
    bool, option("Continue an interrupted command; finished results are kept.", callback=_resumable)
]
Overwrite = Annotated[bool, option("Replace existing results.")]
Quiet = Annotated[bool, option("Show no progress.")]
Set = Annotated[
    list[str] | None, option("Change a setting; can be repeated.", "--set", metavar="KEY=VALUE")
]
Fields = Annotated[Path | None, option("Table of fields (CSV).")]
Preset = Annotated[
    str | None, option("Settings to start from: default, quick, paper; of a study also dye.")
]
Jobs = Annotated[int, option("Number of processes on this machine.", min=1)]
Scheduler = Annotated[
    str | None, option("Compute on the workers of this dask scheduler.", metavar="tcp://HOST:PORT")
]
Channel = Annotated[str | None, option("Channel to use: name, or number from 0.")]
Channels = Annotated[
    list[str] | None,
    option(
        "Channel to use: name, or number from 0; once for each that the model sees, in its order.",
        "--channel",
    ),
]
Scene = Annotated[str | None, option("Scene: name, or number from 0; or all.")]
PixelSize = Annotated[
    float | None, option("Pixel size in µm, in place of what the files state.", min=0.001, max=5)
]
MaskKind = Annotated[
    str, option("Meaning of mask values: auto, unsure (255) or labels (all above 0).")
]
Like = Annotated[
    Path | None, option("Image or folder of images on which outlines were drawn.", metavar="IMAGES")
]


def _use(device: str | None) -> str | None:
    if device is not None:  # processes that this one starts have it too
        os.environ["MITOLUME_DEVICE"] = device
    return device


Device = Annotated[
    str | None,
    option(
        "Compute on cpu, cuda, cuda:1 or mps; by default on a GPU if any.",
        callback=_use,
        envvar="MITOLUME_DEVICE",
    ),
]
Images = Annotated[list[Path], argument("Image files, or folders of them.")]
Stacks = Annotated[list[Path], argument("Z-stacks, or folders of them.")]


def run_batch(
    title: str, what: str, done: str, compute: Callable[..., Any], *arguments: Any,
    quiet: bool = False, **options: Any,
) -> None:  # fmt: skip
    """Do a command over files; faults end in a sentence that counts and names them."""
    from mitolume.progress import progress_bar, say

    with progress_bar(title, quiet=quiet) as advance:
        outcome = compute(*arguments, **options, progress=advance)
    for one in outcome.finished:
        if one.report.text:
            print(one.report.text)
    for notice in outcome.notices:
        say(f"note: {notice}")
    if outcome.before:
        say(f"{len(outcome.before)} were finished before", quiet=quiet)
    if outcome.summary:
        print(outcome.summary)
    outcome.raise_faults(what, done)
    if outcome.next:
        next_step(outcome.next, quiet)


def next_step(step: str, quiet: bool) -> None:
    """Say what a user may do with the results, beside them on standard error."""
    from mitolume.progress import say

    say(f"next: {step}", quiet=quiet)
