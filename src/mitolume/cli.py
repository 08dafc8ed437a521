"""The command line: each command is one call. Heavy imports wait until a command needs them."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import platform
import shlex
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from mitolume.errors import MitolumeError, full_disk, shorten
from mitolume.text import quoted

app = typer.Typer(
    name="mitolume",
    help="Segment mitochondria in label-free microscopy from a handful of labelled fields.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# Options of several commands.
Out = Annotated[Path, typer.Option(help="Folder for the results.")]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Continue an interrupted command; finished results are kept."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing results.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; can be repeated."),
]
Fields = Annotated[Path | None, typer.Option(help="Table of fields (CSV).")]
Preset = Annotated[
    str | None,
    typer.Option(help="Settings to start from: default, quick, paper; of a study also dye."),
]
Jobs = Annotated[int, typer.Option(min=1, help="Number of processes on this machine.")]
Scheduler = Annotated[
    str | None,
    typer.Option(metavar="tcp://HOST:PORT", help="Compute on the workers of this dask scheduler."),
]
Channel = Annotated[str | None, typer.Option(help="Channel to use: name, or number from 0.")]
Channels = Annotated[
    list[str] | None,
    typer.Option(
        "--channel",
        help="Channel to use: name, or number from 0; once for each that the model sees, in its "
        "order.",
    ),
]
Scene = Annotated[str | None, typer.Option(help="Scene: name, or number from 0.")]
Scenes = Annotated[str | None, typer.Option(help="Scene: name, or number from 0; or all.")]
PixelSize = Annotated[
    float | None,
    typer.Option(min=0.001, max=5, help="Pixel size in µm, in place of what the files state."),
]
MaskKind = Annotated[
    str,
    typer.Option(help="Meaning of mask values: auto, unsure (255) or labels (all above 0)."),
]
Like = Annotated[
    Path | None,
    typer.Option(metavar="IMAGES", help="Image or folder of images on which outlines were drawn."),
]


def _use(device: str | None) -> str | None:
    if device is not None:  # processes that this one starts have it too
        os.environ["MITOLUME_DEVICE"] = device
    return device


Device = Annotated[
    str | None,
    typer.Option(
        callback=_use, help="Compute on cpu, cuda, cuda:1 or mps; by default on a GPU if any."
    ),
]
Images = Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")]
Stacks = Annotated[list[Path], typer.Argument(help="Z-stacks, or folders of them.")]


@app.command()
def demo(out: Out = Path("demo"), resume: Resume = False, quiet: Quiet = False) -> None:
    """Simulate a small data set, train on it and write a report."""
    from mitolume.workflow import demo as run_demo

    print(f"report: {run_demo(out, resume=resume, quiet=quiet)}")


@contextmanager
def _no_collection() -> Iterator[None]:
    """Look for no garbage while importing, which makes none: it would take an eighth longer."""
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def _batch(
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
        _next(outcome.next, quiet)


def _next(step: str, quiet: bool) -> None:
    """Say what a user may do with the results, beside them on standard error."""
    from mitolume.progress import say

    say(f"next: {step}", quiet=quiet)


@app.command()
def sample(
    name: Annotated[str, typer.Argument(help="Name of a sample; without it, all are listed.")] = "",
    out: Out = Path(),
) -> None:
    """Fetch a public image to try things on, or list which there are, with licence and size."""
    from mitolume.io.samples import fetch_sample, samples

    if name:
        print(fetch_sample(name, out))
        return
    for one in samples().values():
        print(f"{one.name:<12} {one}")


@app.command()
def inspect(files: Images, quiet: Quiet = False) -> None:
    """Show the properties of image files, and warn of problems."""
    from mitolume.batch.inspect import inspect_files

    _batch("inspecting", "files", "read", inspect_files, files, quiet=quiet)


@app.command()
def fields(
    folder: Annotated[
        Path, typer.Argument(help="Folder with images and masks, or with folders of them.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Write the table to this CSV file, with notes beside it."),
    ] = None,
    quiet: Quiet = False,
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
    _next(f"check the table, then mitolume run --fields {quoted(out or 'TABLE')}", quiet)


@app.command()
def run(
    recipe: Annotated[Path | None, typer.Argument(help="Recipe (YAML).")] = None,
    out: Out = Path("run"),
    preset: Preset = None,
    fields: Fields = None,
    set_: Set = None,
    minutes: Annotated[
        float | None, typer.Option(help="Train as long as a run of so many minutes here allows.")
    ] = None,
    resume: Resume = False,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Train models on a table of fields and score them."""
    from mitolume.report.run_tables import results_text
    from mitolume.runs.recipe import load_recipe
    from mitolume.workflow import run as run_recipe

    settings = [f"training.minutes={minutes}"] * (minutes is not None) + (set_ or [])
    named = recipe or preset or fields or settings
    loaded = (
        load_recipe(recipe, preset=preset, fields=fields, settings=settings)
        if named or not resume
        else None
    )
    folder = run_recipe(loaded, out, resume=resume, quiet=quiet)
    print(results_text(folder))
    print(f"report: {folder / 'report.html'}")
    _next(f"mitolume predict {quoted(folder)} IMAGES --out masks", quiet)


@app.command()
def rerun(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Out = Path("rerun"),
    resume: Resume = False,
    quiet: Quiet = False,
) -> None:
    """Repeat a run from its folder, and say whether its results are the same."""
    from mitolume.workflow import rerun as repeat

    other, results = repeat(run, out, resume=resume, quiet=quiet)
    for one in other:
        print(f"note: {one}")
    if results:
        raise MitolumeError("\n  ".join([f"{out} differs from {run}:", *results]))
    print(f"{out} is the same as {run}: data, weights and scores")


class _RunByDefault(TyperGroup):
    """`mitolume study RECIPE` is `mitolume study run RECIPE`; other commands have their names."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["run", *args]
        return super().parse_args(ctx, args)


study = typer.Typer(
    cls=_RunByDefault, no_args_is_help=True, help="Compare ways of training over several seeds."
)
app.add_typer(study, name="study")


@study.command("run")
def study_run(
    recipe: Annotated[Path | None, typer.Argument(help="Study file (YAML).")] = None,
    out: Out = Path("study"),
    preset: Preset = None,
    fields: Fields = None,
    set_: Set = None,
    jobs: Jobs = 1,
    scheduler: Scheduler = None,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Do all unfinished runs of a study; same as `mitolume study RECIPE`."""
    from mitolume.report.study_page import study_text
    from mitolume.study.arms import load_study
    from mitolume.study.compute import FailedRunsError
    from mitolume.workflow import study as run_study

    loaded = load_study(recipe, preset=preset, fields=fields, settings=set_ or [])
    try:
        run_study(loaded, out, jobs=jobs, scheduler=scheduler, quiet=quiet)
    except FailedRunsError:
        with suppress(MitolumeError):  # there may be too little to compare
            print(study_text(out))
        raise
    print(study_text(out))
    print(f"report: {out / 'report.html'}")
    place = f"{quoted(out / 'runs')}/RUN"
    _next(f"mitolume predict {place} IMAGES --out masks, with the run you choose", quiet)


@study.command("status")
def study_status(folder: Annotated[Path, typer.Argument(help="A study's folder.")]) -> None:
    """Show which runs of a study are finished, running, failed or waiting."""
    from mitolume.study.folder import open_study

    print(open_study(folder).status_text())


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A model folder, or a run folder.")],
    files: Annotated[
        list[Path] | None, typer.Argument(help="Image files, or folders of them.")
    ] = None,
    out: Out = Path("masks"),
    fields: Annotated[
        Path | None, typer.Option(help="Predict the images of this table of fields.")
    ] = None,
    channel: Channels = None,
    scene: Scenes = None,
    pixel_size: PixelSize = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Probability of foreground, in place of the model's own threshold."
        ),
    ] = None,
    condition: Annotated[
        str | None,
        typer.Option(help="Condition of the cells, as in the table; its own threshold is used."),
    ] = None,
    probability: Annotated[
        bool, typer.Option("--probability", help="Also write probabilities.")
    ] = False,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also write PNG pictures with outlines.")
    ] = False,
    overwrite: Overwrite = False,
    resume: Resume = False,
    views: Annotated[
        int | None,
        typer.Option(
            help="Number of views to average: 1 (the image alone), 4 (quarter turns) or 8 (with "
            "flips); by default that of the model."
        ),
    ] = None,
    tile_size: Annotated[
        int | None,
        typer.Option(help="Side in pixels of the parts computed at once; less needs less memory."),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(help="bfloat16, float32, or auto: bfloat16 where the machine computes in it."),
    ] = "auto",
    scheduler: Scheduler = None,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Predict masks of images of any size."""
    with _no_collection():
        from mitolume.batch.predict import PredictionOptions, predict_files
        from mitolume.runs.folder import load

    options = PredictionOptions(
        tuple(channel or ()), scene, pixel_size, threshold, condition, probability, overlay
    )
    predictor = load(model, views=views, core=tile_size, precision=precision)
    _batch(
        "predicting", "images", "predicted", predict_files, predictor, files or [], out,
        options, table=fields, resume=resume, overwrite=overwrite, scheduler=scheduler, quiet=quiet,
    )  # fmt: skip


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A model folder, or a run folder.")],
    to: Annotated[str, typer.Option(help="onnx or bioimageio.")],
    out: Annotated[Path, typer.Option(help="The file to write: .onnx, or .zip for bioimageio.")],
    name: Annotated[str, typer.Option(help="For bioimageio: the model's name.")] = "",
    author: Annotated[
        list[str] | None, typer.Option(help="For bioimageio: an author; can be repeated.")
    ] = None,
    license_: Annotated[
        str, typer.Option("--license", help="For bioimageio: SPDX identifier, such as CC-BY-4.0.")
    ] = "",
    cite: Annotated[
        list[str] | None,
        typer.Option(help="For bioimageio: a text ending in a DOI or address; can be repeated."),
    ] = None,
    example: Annotated[
        Path | None,
        typer.Option(help="For bioimageio: an image that may be published, for test and cover."),
    ] = None,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(help="For bioimageio: chain.stripes, where images have no scan lines."),
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Write a model for other programs."""
    from mitolume.batch.bioimageio import Publication, export_bioimageio
    from mitolume.batch.export import export_onnx, steps_before
    from mitolume.progress import say
    from mitolume.runs.folder import load

    if to not in ("onnx", "bioimageio"):
        raise typer.BadParameter(f"--to is {to}, but must be onnx or bioimageio")
    predictor = load(model, device="cpu")
    if to == "onnx":
        export_onnx(predictor, out, overwrite=overwrite)
    else:
        said = Publication(name, author or (), license_, cite or (), example)
        export_bioimageio(predictor, out, said, leave_out=leave_out or (), overwrite=overwrite)
    print(f"model: {out}")
    for setting, step in steps_before(predictor).items():
        say(f"note: not in the file, so to be done before it ({setting}): {step}", quiet=quiet)


@app.command("import")
def import_(
    package: Annotated[Path, typer.Argument(help="A package of bioimage.io (.zip).")],
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    output: Annotated[
        str | None,
        typer.Option(help="Channel of mitochondria, of several: name, or number from 0."),
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Take in a model from bioimage.io."""
    from mitolume.batch.import_package import import_package
    from mitolume.progress import say

    notes = import_package(package, out, output=output, overwrite=overwrite)
    print(f"model: {out}")
    for note in notes:
        say(f"note: {note}", quiet=quiet)
    _next(f"mitolume predict {quoted(out)} IMAGES --out masks", quiet)


@app.command()
def evaluate(
    masks: Annotated[Path, typer.Argument(help="Masks: a file or a folder.")],
    truth: Annotated[Path, typer.Argument(help="True masks, or those of another annotator.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Also write the scores of each image to this CSV file."),
    ] = None,
    mask_kind: MaskKind = "auto",
    objects: Annotated[
        bool, typer.Option("--objects", help="Also match single objects, in z-stacks in 3D.")
    ] = False,
    agreement: Annotated[
        bool,
        typer.Option(
            "--agreement", help="Compare the masks of two annotators; neither is the truth."
        ),
    ] = False,
    like: Like = None,
    consensus: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="With --agreement: write masks with 255 where the two disagree."
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Score masks against true masks, or compare two annotators."""
    from mitolume.batch.agreement import compare
    from mitolume.batch.evaluate import evaluate as score
    from mitolume.batch.evaluate import scores_text

    if out is not None and out.suffix.lower() != ".csv":
        raise MitolumeError(f"--out {out} must end in .csv: it is a table of scores")
    options: dict[str, Any] = {"like": like, "out": out, "overwrite": overwrite}
    if agreement and not objects:
        print(compare(masks, truth, mask_kind, consensus_folder=consensus, **options))
    elif agreement:
        raise typer.BadParameter("--objects needs true masks; --agreement counts objects anyway")
    elif consensus is not None:
        raise typer.BadParameter("--consensus needs --agreement: it is what two people agree on")
    else:
        print(scores_text(score(masks, truth, mask_kind, objects=objects, **options)))


@app.command()
def label(
    files: Images,
    channel: Annotated[
        str, typer.Option(help="Channel of the mitochondria's dye: name, or number from 0.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for masks, figures, pictures and a table.")],
    light: Annotated[
        str | None,
        typer.Option(
            help="Channel of transmitted light, for pictures and table; found where possible."
        ),
    ] = None,
    scene: Scenes = None,
    pixel_size: PixelSize = None,
    planes: Annotated[str, typer.Option(help="Planes, such as 3-9; all by default.")] = "",
    threshold: Annotated[
        float | None,
        typer.Option(min=0.05, max=0.95, help="Share of its local peak at which a structure ends."),
    ] = None,
    align: Annotated[
        bool, typer.Option("--align", help="Move masks by the shift measured between channels.")
    ] = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Make masks from the dye's fluorescence, to train on without outlines."""
    from mitolume.batch.label import label_files

    _batch(
        "labelling", "images", "labelled", label_files, files, out, channel=channel, light=light,
        scene=scene, pixel_size_um=pixel_size, planes=planes, threshold=threshold,
        move=align, resume=resume, overwrite=overwrite, quiet=quiet,
    )  # fmt: skip


@app.command()
def convert(
    masks: Annotated[
        list[Path],
        typer.Argument(
            help="Masks or label images, ROI sets (.zip), GeoJSON, TIFF with overlay; folders."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(help="Result, ending in .zip, .geojson or .ome.tif; with --to, a folder."),
    ],
    to: Annotated[
        str | None,
        typer.Option(help="Format to convert a whole folder to: zip, geojson or ome.tif."),
    ] = None,
    like: Like = None,
    labels: Annotated[
        bool,
        typer.Option(
            "--labels", help="Write label images, in which each object has its own number."
        ),
    ] = False,
    mask_kind: MaskKind = "auto",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Convert masks between pixels, ImageJ ROIs and GeoJSON."""
    from mitolume.batch.convert import convert_files

    _batch(
        "converting", "masks", "converted", convert_files, masks, out, to=to, like=like,
        labels=labels, mask_kind=mask_kind, overwrite=overwrite, quiet=quiet,
    )  # fmt: skip


@app.command()
def measure(
    masks: Annotated[
        list[Path], typer.Argument(help="Masks, label images, outlines, folders, or a run folder.")
    ],
    out: Annotated[
        Path, typer.Option(help="Table of the objects: .csv, .parquet or .h5ad.")
    ] = Path("objects.csv"),
    intensity: Annotated[
        list[Path] | None,
        typer.Option(help="Image or folder of images; repeat it for channels in separate files."),
    ] = None,
    fields: Annotated[
        Path | None, typer.Option(help="Table of fields with specimens, conditions and images.")
    ] = None,
    crops: Annotated[
        Path | None,
        typer.Option(help="Save a crop of every object in this folder."),
    ] = None,
    margin: Annotated[
        float,
        typer.Option(
            min=0,
            max=1000,
            help="Space around each object in its crop, in µm; in pixels if their size is unknown.",
        ),
    ] = 0.5,
    rois: Annotated[Path | None, typer.Option(help="Save ImageJ ROIs in this folder.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Save label images in this folder.")] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(help="Save outlines coloured by length, and superplots, in this folder."),
    ] = None,
    split: Annotated[
        str,
        typer.Option(help="How to separate touching objects: none, distance or probability."),
    ] = "none",
    min_size: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Drop objects smaller than a disc of this diameter, in µm; "
            "below 0.25, larger holes are not filled either.",
        ),
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Threshold for masks that are probabilities.")
    ] = 0.5,
    per_plane: Annotated[
        bool, typer.Option("--per-plane", help="Label each plane of a stack on its own.")
    ] = False,
    mask_kind: MaskKind = "auto",
    pixel_size: PixelSize = None,
    z_step: Annotated[
        float | None,
        typer.Option(
            min=0.001, max=1000, help="Distance between planes in µm, in place of what files state."
        ),
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Measure single mitochondria and cut them out."""
    from mitolume.batch.measure import MeasureSettings, measure_masks, object_settings
    from mitolume.batch.object_files import Outputs

    settings = MeasureSettings(
        object_settings(split, min_size, threshold), mask_kind, pixel_size, z_step, per_plane,
        Outputs(crops, margin, rois, labels, pictures),
    )  # fmt: skip
    _batch(
        "measuring", "masks", "measured", measure_masks, masks, out, settings, table=fields,
        images=intensity or [], resume=resume, overwrite=overwrite, quiet=quiet,
    )  # fmt: skip


@app.command()
def compare(
    objects: Annotated[Path, typer.Argument(help="Table of `measure`: of objects, or of images.")],
    column: Annotated[str, typer.Option(help="Measurement to compare, such as area or length.")],
    by: Annotated[str, typer.Option(help="Column that names the conditions.")] = "condition",
    control: Annotated[
        str | None, typer.Option(help="The control; found where one condition is called so.")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Run that made the masks: what its errors add to the comparison."),
    ] = None,
    scale: Annotated[
        str, typer.Option(help="auto, linear (differences of means) or log (ratios).")
    ] = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Page (.html), table (.csv) or superplot (.png, .svg).")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Compare treated cells with control cells, on the means of specimens."""
    from mitolume.report.compare_page import compare as compare_table

    found = compare_table(
        objects, column, by=by, control=control, run=run, scale=scale, out=out, overwrite=overwrite
    )
    print(found.text)
    if out is not None:
        print(f"written: {out}")


@app.command()
def focus(
    stacks: Annotated[
        list[Path] | None, typer.Argument(help="Z-stacks, or folders of them.")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for the curves; with --fields, the new table.")
    ] = Path("focus"),
    channel: Channel = None,
    scene: Scene = None,
    planes: Annotated[
        str, typer.Option(help="auto, all, a number (3), a thickness (4um), or a list (2,5-7).")
    ] = "auto",
    fields: Annotated[
        Path | None, typer.Option(help="Choose planes for the rows of this table of fields.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Find the planes of a z-stack that are in focus."""
    from mitolume.batch.focus import focus_files

    _batch(
        "focus", "stacks", "measured", focus_files, stacks or [], out, table=fields,
        channel=channel, scene=scene, planes=planes, quiet=quiet,
    )  # fmt: skip


denoise = typer.Typer(help="Remove noise from z-stacks without clean images.", no_args_is_help=True)
app.add_typer(denoise, name="denoise")


@denoise.command("check")
def denoise_check(
    stacks: Stacks,
    out: Annotated[Path, typer.Option(help="Folder for NAME_check.png and .json.")] = Path("."),
    channel: Channel = None,
    scene: Scene = None,
    quiet: Quiet = False,
) -> None:
    """Check whether a stack is suitable for Noise2Noise."""
    from mitolume.batch.denoise_check import check_files

    _batch(
        "checking", "stacks", "checked", check_files, stacks, out, channel=channel, scene=scene,
        quiet=quiet,
    )  # fmt: skip


@denoise.command("train")
def denoise_train(
    stacks: Stacks,
    out: Annotated[Path, typer.Option(help="Folder for the denoiser.")] = Path("denoiser"),
    method: Annotated[
        str,
        typer.Option(help="auto, noise2stack, wiener or noise2noise."),
    ] = "auto",
    preset: Annotated[
        str, typer.Option(help="Settings to start from: default, or paper (500 epochs).")
    ] = "default",
    set_: Set = None,
    planes: Annotated[
        str | None, typer.Option(help="Planes to use, from 0, such as 3-20; or all, or focus.")
    ] = None,
    stripes: Annotated[
        str, typer.Option(help="auto: first remove scan lines if there are any; or none.")
    ] = "auto",
    channel: Channel = None,
    scene: Scenes = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights and patches.")] = 0,
    resume: Resume = False,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Train a denoiser on noisy z-stacks."""
    from mitolume.runs.denoiser import denoising_settings
    from mitolume.training.denoise_stacks import open_stacks
    from mitolume.training.denoise_training import train_denoiser

    settings = denoising_settings(preset, set_ or [])
    opened = open_stacks(stacks, planes or settings.planes, channel=channel, scene=scene)
    card = train_denoiser(
        opened, out, settings, method=method, stripes=stripes, seed=seed, resume=resume, quiet=quiet
    )  # fmt: skip
    print(f"denoiser: {out} ({card.method}; {card.chosen})")
    _next(f"mitolume denoise apply {quoted(out)} STACKS", quiet)


@denoise.command("apply")
def denoise_apply(
    model: Annotated[
        Path, typer.Argument(help="Folder of a denoiser, or of a model that contains one.")
    ],
    files: Images,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("denoised"),
    channel: Channel = None,
    scene: Scenes = None,
    sharpen: Annotated[
        bool,
        typer.Option(
            "--sharpen", help="Apply an unsharp mask (0.5 px, 0.7) afterwards, as published."
        ),
    ] = False,
    overwrite: Overwrite = False,
    resume: Resume = False,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Remove noise from images with a trained denoiser."""
    from mitolume.batch.denoise import denoise_files
    from mitolume.inference.denoise import Denoiser

    _batch(
        "denoising", "images", "denoised", denoise_files, Denoiser.load(model), files, out,
        channel=channel, scene=scene, sharpen=sharpen, resume=resume, overwrite=overwrite,
        quiet=quiet,
    )  # fmt: skip


@app.command()
def suggest(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    n: Annotated[
        int | None, typer.Option(min=1, help="Number of images to choose; 10 by default.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for table and page; RUN/suggest by default."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Choose the unlabelled images to label next."""
    from mitolume.report.suggest_page import PAGE, TABLE
    from mitolume.report.suggest_page import suggest as choose

    found, place = choose(run, n, out, quiet=quiet)
    print(found.text())
    print(f"table: {place / TABLE}")
    print(f"page: {place / PAGE}")
    _next("outline these images, name their masks in the table of fields, and run again", quiet)


@app.command()
def simulate(
    out: Out = Path("simulated"),
    fields: Annotated[
        int | None, typer.Option(min=1, help="Number of fields per condition; 4 by default.")
    ] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(help="control, fccp, oligomycin, antimycin_a or rotenone; can be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed; another one gives other cells.")] = 0,
    preset: Annotated[
        str | None,
        typer.Option(help="Whole data set: study, fine, demo, treatments or brightfield."),
    ] = None,
    set_: Set = None,
    jobs: Jobs = 1,
    quiet: Quiet = False,
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
    _next(f"mitolume run --fields {quoted(table)}", quiet)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a run or a study.")],
    ceiling: Annotated[
        Path | None,
        typer.Option(
            help="Table of `evaluate --agreement --out`; shows how far two annotators agree."
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(help="For a study: folder for its tables (CSV, Markdown) and figures."),
    ] = None,
) -> None:
    """Rewrite report.html of a run or a study."""
    from mitolume.workflow import report as write

    print(f"report: {write(folder, ceiling=ceiling, export=export)}")


_PREDICT = ("demo", "run", "study", "predict", "denoise", "suggest", "rerun")


def _keep_buffers() -> None:
    """Keep the memory of most buffers, here and in the processes of this command, with glibc.

    By default it is handed back to the system after every layer of a network, and cleared page by
    page before the next: prediction took a tenth more of the processor's time. Keeping the largest
    as well would leave too many gaps.
    """
    mmap_threshold, trim_threshold = 2**27, 2**31 - 1
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(mmap_threshold)
    os.environ["MALLOC_TRIM_THRESHOLD_"] = str(trim_threshold)
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, mmap_threshold)  # the numbers are those of <malloc.h>
        libc.mallopt(-1, trim_threshold)


@app.callback(invoke_without_command=True)
def _version(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if context.invoked_subcommand in _PREDICT:
        _keep_buffers()
    if version:
        from mitolume import __version__

        print(__version__)
        raise typer.Exit


_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PATIENCE = 1.2  # seconds that a command has to tidy up when it is stopped


class _Stopped(BaseException):
    """Ctrl-C or a request to end, as an exception that no library catches."""


class _Stop:
    """Ends the command within two seconds of SIGINT or SIGTERM, whatever it is doing.

    The signal becomes an exception, so that what is half done is tidied up. A long call into C
    puts that off, and processes may take long to end: a thread, woken by Python's own handler of
    signals, then ends all at once. Nothing is lost by that, as results get their names last.
    """

    def __init__(self) -> None:
        self.number = 0
        self._ending = threading.Lock()
        woken, self._wake = socket.socketpair()
        self._wake.setblocking(False)
        self._before = {one: signal.signal(one, self._raise) for one in _SIGNALS}
        self._fd = signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(woken,), daemon=True).start()
        self._hook, sys.unraisablehook = sys.unraisablehook, self._unraisable

    def _unraisable(self, fault: Any) -> None:
        """Say nothing of a stop that came while an object was deleted: the thread ends all."""
        if fault.exc_type is not _Stopped:
            self._hook(fault)

    def _raise(self, number: int, _: object) -> None:
        if not self.number:
            self.number = number
            raise _Stopped

    def _watch(self, woken: socket.socket) -> None:
        with woken:
            while received := woken.recv(1):
                if received[0] in _SIGNALS:
                    time.sleep(_PATIENCE)
                    self.end(received[0])

    def end(self, number: int) -> NoReturn:
        """Leave with one sentence and no process behind."""
        self._ending.acquire()  # for good: only one thread gets further
        for child in multiprocessing.active_children():
            child.kill()
        print(
            "mitolume: stopped; finished results are kept. Repeat the command, with --resume if "
            "it has that option, to continue",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        os._exit(128 + number)

    def close(self) -> None:
        """Let signals do what they did before."""
        sys.unraisablehook = self._hook
        signal.set_wakeup_fd(self._fd)
        for one, handler in self._before.items():
            signal.signal(one, handler)
        self._wake.close()


def main() -> None:
    """Run the command line; every fault ends in a sentence and status 1, not in a traceback."""
    stop = _Stop()
    try:
        app()
    except MitolumeError as error:
        _fail(str(error))
    except _Stopped:
        stop.end(stop.number)
    except BrokenPipeError:
        sys.exit(1)
    except MemoryError as error:
        _fail(f"too little memory ({shorten(error)}); close other programs, or use smaller images")
    except Exception as error:  # the last place where a person could be shown a sentence
        _fail(full_disk(error) or _report(error))
    finally:
        stop.close()


def _report(error: Exception) -> str:
    """Keep what is needed to mend a fault of the program, and ask for it."""
    fault = f"unexpected {type(error).__name__}: {shorten(error)}. This is a fault of mitolume; "
    try:
        with tempfile.NamedTemporaryFile(
            "w", suffix=".txt", prefix="mitolume-", delete=False, encoding="utf-8"
        ) as f:
            traceback.print_exc(file=f)
    except OSError:  # no room even for that
        return f"{fault}please report it"
    return f"{fault}please report it with {f.name}"


def _fail(sentence: str) -> None:
    print(f"mitolume: {sentence}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
