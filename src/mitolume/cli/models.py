"""Commands that train models, use them, and show what they are worth."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mitolume.cli import options as of
from mitolume.cli.options import argument, next_step, option, run_batch
from mitolume.errors import MitolumeError
from mitolume.text import quoted

if TYPE_CHECKING:
    from mitolume.io.masks import MaskKind


def demo(out: of.Out = Path("demo"), resume: of.Resume = False, quiet: of.Quiet = False) -> None:
    """Simulate a small data set, train on it and write a report."""
    from mitolume.workflow import demo as run_demo

    print(f"report: {run_demo(out, resume=resume, quiet=quiet)}")


def _require_table(path: Path, mask_kind: MaskKind = "auto", channels: Sequence[str] = ()) -> None:
    """Refuse a table of fields at once, before what computes is imported."""
    from mitolume.io.check import check_table
    from mitolume.io.table import parse_table

    if parse_table(path)[1]:
        # raises, and names the faults of files as well
        check_table(path, mask_kind=mask_kind, channels=channels)


def run(
    recipe: Annotated[Path | None, argument("Recipe (YAML).")] = None,
    out: of.Out = Path("run"),
    preset: of.Preset = None,
    fields: of.Fields = None,
    set_: of.Set = None,
    minutes: Annotated[
        float | None, option("Train as long as a run of so many minutes here allows.")
    ] = None,
    resume: of.Resume = False,
    device: of.Device = None,
    quiet: of.Quiet = False,
) -> None:
    """Train models on a table of fields and score them."""
    from mitolume.runs.recipe import load_recipe

    settings = [f"training.minutes={minutes}"] * (minutes is not None) + (set_ or [])
    named = recipe or preset or fields or settings
    loaded = (
        load_recipe(recipe, preset=preset, fields=fields, settings=settings)
        if named or not resume
        else None
    )
    if loaded is not None and not resume:  # which goes on without it
        _require_table(loaded.fields, loaded.mask_kind, loaded.inputs.channels)
    from mitolume.report.run_tables import results_text
    from mitolume.workflow import run as run_recipe

    folder = run_recipe(loaded, out, resume=resume, quiet=quiet)
    print(results_text(folder))
    print(f"report: {folder / 'report.html'}")
    next_step(f"mitolume predict {quoted(folder)} IMAGES --out masks", quiet)


def rerun(
    run: Annotated[Path, argument("Folder of a finished run.")],
    out: of.Out = Path("rerun"),
    resume: of.Resume = False,
    quiet: of.Quiet = False,
) -> None:
    """Repeat a run from its folder, and say whether its results are the same."""
    from mitolume.workflow import rerun as repeat

    other, results = repeat(run, out, resume=resume, quiet=quiet)
    for one in other:
        print(f"note: {one}")
    if results:
        raise MitolumeError("\n  ".join([f"{out} differs from {run}:", *results]))
    print(f"{out} is the same as {run}: data, weights and scores")


def study_run(
    recipe: Annotated[Path | None, argument("Study file (YAML).")] = None,
    out: of.Out = Path("study"),
    preset: of.Preset = None,
    fields: of.Fields = None,
    set_: of.Set = None,
    jobs: of.Jobs = 1,
    scheduler: of.Scheduler = None,
    device: of.Device = None,
    quiet: of.Quiet = False,
) -> None:
    """Do all unfinished runs of a study; same as `mitolume study RECIPE`."""
    from mitolume.study.arms import load_study

    if fields is not None:
        _require_table(fields)
    loaded = load_study(recipe, preset=preset, fields=fields, settings=set_ or [])
    from mitolume.report.study_page import study_text
    from mitolume.study.compute import FailedRunsError
    from mitolume.workflow import study as run_study

    try:
        run_study(loaded, out, jobs=jobs, scheduler=scheduler, quiet=quiet)
    except FailedRunsError:
        with suppress(MitolumeError):  # there may be too little to compare
            print(study_text(out))
        raise
    print(study_text(out))
    print(f"report: {out / 'report.html'}")
    place = f"{quoted(out / 'runs')}/RUN"
    next_step(f"mitolume predict {place} IMAGES --out masks, with the run you choose", quiet)


def study_status(folder: Annotated[Path, argument("A study's folder.")]) -> None:
    """Show which runs of a study are finished, running, failed or waiting."""
    from mitolume.study.folder import open_study

    print(open_study(folder).status_text())


@contextmanager
def _no_collection() -> Iterator[None]:
    """Look for no garbage while importing, which makes none: it would take an eighth longer."""
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def predict(
    model: Annotated[Path, argument("A model folder, or a run folder.")],
    files: Annotated[list[Path] | None, argument("Image files, or folders of them.")] = None,
    out: of.Out = Path("masks"),
    fields: Annotated[Path | None, option("Predict the images of this table of fields.")] = None,
    channel: of.Channels = None,
    scene: of.Scene = None,
    pixel_size: of.PixelSize = None,
    threshold: Annotated[
        float | None,
        option("Probability of foreground, in place of the model's own threshold.", min=0, max=1),
    ] = None,
    condition: Annotated[
        str | None, option("Condition of the cells, as in the table; its own threshold is used.")
    ] = None,
    probability: Annotated[bool, option("Also write probabilities.")] = False,
    overlay: Annotated[bool, option("Also write PNG pictures with outlines.")] = False,
    overwrite: of.Overwrite = False,
    resume: of.Resume = False,
    views: Annotated[
        int | None,
        option(
            "Number of views to average: 1 (the image alone) or 4 (quarter turns); by default that "
            "of the model."
        ),
    ] = None,
    tile_size: Annotated[
        int | None, option("Side in pixels of the parts computed at once; less needs less memory.")
    ] = None,
    precision: Annotated[
        str, option("bfloat16, float32, or auto: bfloat16 where the machine computes in it.")
    ] = "auto",
    engine: Annotated[
        str, option("torch, openvino, or auto: OpenVINO on a processor, where it is installed.")
    ] = "auto",
    jobs: of.Jobs = 1,
    scheduler: of.Scheduler = None,
    device: of.Device = None,
    quiet: of.Quiet = False,
) -> None:
    """Predict masks of images of any size."""
    if fields is not None:  # a faulty one is refused before what computes is imported
        from mitolume.io.table import read_table

        read_table(fields)
    with _no_collection():
        from mitolume.batch.predict import predict_files
        from mitolume.batch.predict_image import PredictionOptions
        from mitolume.runs.folder import load

    options = PredictionOptions(
        tuple(channel or ()), scene, pixel_size, threshold, condition, probability, overlay
    )
    if scheduler is not None and engine == "auto":
        engine = "torch"  # workers may have cards, or no OpenVINO
    predictor = load(model, views=views, core=tile_size, precision=precision, engine=engine)
    run_batch(
        "predicting", "images", "predicted", predict_files, predictor, files or [], out,
        options, table=fields, resume=resume, overwrite=overwrite, jobs=jobs, scheduler=scheduler,
        quiet=quiet,
    )  # fmt: skip


def suggest(
    run: Annotated[Path, argument("A run folder.")],
    n: Annotated[int | None, option("Number of images to choose; 10 by default.", min=1)] = None,
    out: Annotated[
        Path | None, option("Folder for table and page; RUN/suggest by default.")
    ] = None,
    quiet: of.Quiet = False,
) -> None:
    """Choose the unlabelled images to label next."""
    from mitolume.report.suggest_page import PAGE, TABLE
    from mitolume.report.suggest_page import suggest as choose

    found, place = choose(run, n, out, quiet=quiet)
    print(found.text())
    print(f"table: {place / TABLE}")
    print(f"page: {place / PAGE}")
    next_step("outline these images, name their masks in the table of fields, and run again", quiet)


def report(
    folder: Annotated[Path, argument("Folder of a run or a study.")],
    ceiling: Annotated[
        Path | None,
        option("Table of `evaluate --agreement --out`; shows how far two annotators agree."),
    ] = None,
    export: Annotated[
        Path | None, option("For a study: folder for its tables (CSV, Markdown) and figures.")
    ] = None,
) -> None:
    """Rewrite report.html of a run or a study."""
    from mitolume.workflow import report as write

    print(f"report: {write(folder, ceiling=ceiling, export=export)}")


def export(
    model: Annotated[Path, argument("A model folder, or a run folder.")],
    to: Annotated[str, option("onnx or bioimageio.")],
    out: Annotated[Path, option("The file to write: .onnx, or .zip for bioimageio.")],
    name: Annotated[str, option("For bioimageio: the model's name.")] = "",
    author: Annotated[
        list[str] | None, option("For bioimageio: an author; can be repeated.")
    ] = None,
    license_: Annotated[
        str, option("For bioimageio: SPDX identifier, such as CC-BY-4.0.", "--license")
    ] = "",
    cite: Annotated[
        list[str] | None,
        option("For bioimageio: a text ending in a DOI or address; can be repeated."),
    ] = None,
    example: Annotated[
        Path | None, option("For bioimageio: an image that may be published, for test and cover.")
    ] = None,
    leave_out: Annotated[
        list[str] | None, option("For bioimageio: chain.stripes, where images have no scan lines.")
    ] = None,
    overwrite: of.Overwrite = False,
    quiet: of.Quiet = False,
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


def import_(
    package: Annotated[Path, argument("A package of bioimage.io (.zip).")],
    out: Annotated[Path, option("Folder for the model.")],
    output: Annotated[
        str | None, option("Channel of mitochondria, of several: name, or number from 0.")
    ] = None,
    overwrite: of.Overwrite = False,
    quiet: of.Quiet = False,
) -> None:
    """Take in a model from bioimage.io."""
    from mitolume.batch.import_package import import_package
    from mitolume.progress import say

    notes = import_package(package, out, output=output, overwrite=overwrite)
    print(f"model: {out}")
    for note in notes:
        say(f"note: {note}", quiet=quiet)
    next_step(f"mitolume predict {quoted(out)} IMAGES --out masks", quiet)
