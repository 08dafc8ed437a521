"""Commands that work on masks: from the dye, of another kind, scored, measured, compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mitolume.cli import options as of
from mitolume.cli.options import argument, option, run_batch
from mitolume.errors import MitolumeError


def label(
    files: of.Images,
    channel: Annotated[str, option("Channel of the mitochondria's dye: name, or number from 0.")],
    out: Annotated[Path, option("Folder for masks, figures, pictures and a table.")],
    light: Annotated[
        str | None,
        option("Channel of transmitted light, for pictures and table; found where possible."),
    ] = None,
    scene: of.Scene = None,
    pixel_size: of.PixelSize = None,
    planes: Annotated[str, option("Planes, such as 3-9; all by default.")] = "",
    threshold: Annotated[
        float | None,
        option("Share of its local peak at which a structure ends.", min=0.05, max=0.95),
    ] = None,
    align: Annotated[bool, option("Move masks by the shift measured between channels.")] = False,
    resume: of.Resume = False,
    overwrite: of.Overwrite = False,
    quiet: of.Quiet = False,
) -> None:
    """Make masks from the dye's fluorescence, to train on without outlines."""
    from mitolume.batch.label import label_files

    run_batch(
        "labelling", "images", "labelled", label_files, files, out, channel=channel, light=light,
        scene=scene, pixel_size_um=pixel_size, planes=planes, threshold=threshold,
        move=align, resume=resume, overwrite=overwrite, quiet=quiet,
    )  # fmt: skip


def convert(
    masks: Annotated[
        list[Path],
        argument("Masks or label images, ROI sets (.zip), GeoJSON, TIFF with overlay; folders."),
    ],
    out: Annotated[Path, option("Result, ending in .zip or .ome.tif; with --to, a folder.")],
    to: Annotated[
        str | None, option("Format to convert a whole folder to: zip or ome.tif.")
    ] = None,
    like: of.Like = None,
    labels: Annotated[
        bool, option("Write label images, in which each object has its own number.")
    ] = False,
    mask_kind: of.MaskKind = "auto",
    overwrite: of.Overwrite = False,
    quiet: of.Quiet = False,
) -> None:
    """Convert masks between pixels and ImageJ ROIs; GeoJSON is read, too."""
    from mitolume.batch.convert import convert_files

    run_batch(
        "converting", "masks", "converted", convert_files, masks, out, to=to, like=like,
        labels=labels, mask_kind=mask_kind, overwrite=overwrite, quiet=quiet,
    )  # fmt: skip


def evaluate(
    masks: Annotated[Path, argument("Masks: a file or a folder.")],
    truth: Annotated[Path, argument("True masks, or those of another annotator.")],
    out: Annotated[
        Path | None, option("Also write the scores of each image to this CSV file.")
    ] = None,
    mask_kind: of.MaskKind = "auto",
    objects: Annotated[bool, option("Also match single objects, in z-stacks in 3D.")] = False,
    agreement: Annotated[
        bool, option("Compare the masks of two annotators; neither is the truth.")
    ] = False,
    like: of.Like = None,
    planes: Annotated[
        str, option("Planes to score, such as 0-9; those that are labelled by default.")
    ] = "",
    consensus: Annotated[
        Path | None,
        option("With --agreement: write masks with 255 where the two disagree.", metavar="DIR"),
    ] = None,
    overwrite: of.Overwrite = False,
) -> None:
    """Score masks against true masks, or compare two annotators."""
    from mitolume.batch.agreement import agree, agreement_text
    from mitolume.batch.evaluate import evaluate as score
    from mitolume.batch.evaluate import scores_text

    if out is not None and out.suffix.lower() != ".csv":
        raise MitolumeError(f"--out {out} must end in .csv: it is a table of scores")
    options: dict[str, Any] = {"like": like, "planes": planes, "out": out, "overwrite": overwrite}
    if agreement and not objects:
        found = agree(masks, truth, mask_kind, consensus_folder=consensus, **options)
        print(agreement_text(found))
    elif agreement:
        raise typer.BadParameter("--objects and --agreement are two comparisons; ask for one")
    elif consensus is not None:
        raise typer.BadParameter("--consensus needs --agreement: it is what two people agree on")
    else:
        print(scores_text(score(masks, truth, mask_kind, objects=objects, **options)))


def measure(
    masks: Annotated[
        list[Path], argument("Masks, label images, outlines, folders, or a run folder.")
    ],
    out: Annotated[Path, option("Table of the objects: .csv, .parquet or .h5ad.")] = Path(
        "objects.csv"
    ),
    intensity: Annotated[
        list[Path] | None,
        option("Image or folder of images; repeat it for channels in separate files."),
    ] = None,
    fields: Annotated[
        Path | None, option("Table of fields with specimens, conditions and images.")
    ] = None,
    crops: Annotated[Path | None, option("Save a crop of every object in this folder.")] = None,
    margin: Annotated[
        float,
        option(
            "Space around each object in its crop, in µm; in pixels if their size is unknown.",
            min=0,
            max=1000,
        ),
    ] = 0.5,
    rois: Annotated[Path | None, option("Save ImageJ ROIs in this folder.")] = None,
    labels: Annotated[Path | None, option("Save label images in this folder.")] = None,
    pictures: Annotated[
        Path | None, option("Save outlines coloured by length, and superplots, in this folder.")
    ] = None,
    split: Annotated[
        str, option("How to separate touching objects: none, distance or probability.")
    ] = "none",
    min_size: Annotated[
        float | None,
        option(
            "Drop objects smaller than a disc of this diameter, in µm; "
            "below 0.25, larger holes are not filled either.",
            min=0,
        ),
    ] = None,
    threshold: Annotated[
        float, option("Threshold for masks that are probabilities.", min=0, max=1)
    ] = 0.5,
    per_plane: Annotated[bool, option("Label each plane of a stack on its own.")] = False,
    mask_kind: of.MaskKind = "auto",
    pixel_size: of.PixelSize = None,
    z_step: Annotated[
        float | None,
        option("Distance between planes in µm, in place of what files state.", min=0.001, max=1000),
    ] = None,
    resume: of.Resume = False,
    overwrite: of.Overwrite = False,
    quiet: of.Quiet = False,
) -> None:
    """Measure single mitochondria and cut them out."""
    from mitolume.batch.measure import MeasureSettings, measure_masks, object_settings
    from mitolume.batch.object_files import Outputs

    settings = MeasureSettings(
        object_settings(split, min_size, threshold), mask_kind, pixel_size, z_step, per_plane,
        Outputs(crops, margin, rois, labels, pictures),
    )  # fmt: skip
    run_batch(
        "measuring", "masks", "measured", measure_masks, masks, out, settings, table=fields,
        images=intensity or [], resume=resume, overwrite=overwrite, quiet=quiet,
    )  # fmt: skip


def compare(
    objects: Annotated[Path, argument("Table of `measure`: of objects, or of images.")],
    column: Annotated[str, option("Measurement to compare, such as area or length.")],
    by: Annotated[str, option("Column that names the conditions.")] = "condition",
    control: Annotated[
        str | None, option("The control; found where one condition is called so.")
    ] = None,
    run: Annotated[
        Path | None, option("Run that made the masks: what its errors add to the comparison.")
    ] = None,
    scale: Annotated[str, option("auto, linear (differences of means) or log (ratios).")] = "auto",
    out: Annotated[
        Path | None, option("Page (.html), table (.csv) or superplot (.png, .svg).")
    ] = None,
    overwrite: of.Overwrite = False,
) -> None:
    """Compare treated cells with control cells, on the means of specimens."""
    from mitolume.report.compare_page import compare as compare_table

    found = compare_table(
        objects, column, by=by, control=control, run=run, scale=scale, out=out, overwrite=overwrite
    )
    print(found.text)
    if out is not None:
        print(f"written: {out}")
