"""The page of a run: what its folder holds, in words, tables, charts and pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, Template, select_autoescape

from mitolume.analysis import pictures
from mitolume.batch.agreement import Ceiling, ceiling_of
from mitolume.errors import ranked, some_names
from mitolume.io.write import owning, write_text
from mitolume.models.settings import InputSettings
from mitolume.progress import time_left
from mitolume.report import charts, run_tables
from mitolume.report.panels import SMALL, PagePicture, Panel, extremes, model_panel
from mitolume.runs.folder import MODELS, Run, open_run
from mitolume.runs.results import SUBSETS, judging_subset, labelled_share, value_of
from mitolume.text import count, number, on_page, percent, quoted, short_names

ROWS_SHOWN = 200  # of a table of images
_DOUBTFUL_SHOWN = 6  # pictures of masks of unlabelled images
_FAR = 5.0  # a mask with so many times the labelled images' share, or less than its inverse, is odd


@dataclass(frozen=True, eq=False)
class RunContent:
    """All that the page of one run shows; names and sentences may hold any characters."""

    title: str
    verdict: Sequence[str]
    """Sentences for a biologist, the first thing on the page."""
    notices: Sequence[str]
    facts: Mapping[str, str]
    results: pd.DataFrame
    """results.csv."""
    images: pd.DataFrame
    """images.csv, rows of labelled images."""
    log: pd.DataFrame
    """log.csv."""
    panels: Sequence[Panel]
    unlabelled: pd.DataFrame
    """audit.csv; without rows where there is no unlabelled image."""
    recipe_yaml: str
    command: str
    """The command that repeats this run."""
    versions: Mapping[str, str]
    ceiling: Ceiling | None = None
    """How far two annotators agree, where that was measured."""
    conditions: pd.DataFrame = field(default_factory=pd.DataFrame)
    """audit_conditions.csv."""
    agreement: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Images that were outlined and have their dye, the least alike first."""
    doubtful: Sequence[PagePicture] = ()
    """The masks of unlabelled images that are least to be trusted."""


def report_run(folder: str | Path, agreement: str | Path | None = None) -> Path:
    """Write the page of a finished run, see `mitolume.workflow.report`.

    ``agreement``, the table of agreement of two annotators, is copied into the run folder, for
    this and later reports.
    """
    run = open_run(folder)
    table = run.ceiling_file if agreement is None else Path(agreement)
    known = agreement is not None or table.exists()
    content = replace(_content(run), ceiling=ceiling_of(table) if known else None)
    page = render(content)
    with owning(run.path):
        if agreement is not None:
            write_text(run.ceiling_file, table.read_text(encoding="utf-8"))
        write_text(run.methods_file, _methods(run, content))
        write_text(run.report_file, page)
    return run.report_file


def _methods(run: Run, content: RunContent) -> str:
    """Write what the run did as a Methods section, and what a reviewer will ask."""
    network = {"unet": "U-Net", "unetplusplus": "U-Net++"}[run.recipe.network.name]
    return template("methods.md.j2").render(
        vars(content), network=network, recipe=run.recipe, record=run.record, kept=run.kept,
        divided=divided(run.record), folder=quoted(run.path.resolve().name),
    )  # fmt: skip


def divided(record: Mapping[str, Any]) -> str:
    """Say how many images of how many specimens were for what, from the record of a run."""
    uses = {"train": "to learn from", "unlabelled": "without a mask, to learn from"}
    uses |= {"validation": "to choose the epoch and the threshold", "test": "to score"}
    return "; ".join(
        f"{count(n, 'image')} of {count(record['n_specimens'][role], 'specimen')} {uses[role]}"
        for role, n in record["n_images"].items()
        if n
    )


def render(content: RunContent) -> str:
    """Write the page as HTML that needs no other file and no network."""
    results, images = (run_tables.with_spaces(table) for table in (content.results, content.images))
    of_subset = {s: rows for s in reversed(SUBSETS) if len(rows := images[images["subset"] == s])}
    image_tables = {s: run_tables.worst_first(rows) for s, rows in of_subset.items()}
    shown = judging_subset(images)
    return template("run.html.j2").render(
        content=content,
        ranked=ranked(content.notices),
        limit=ROWS_SHOWN,
        colours=pictures,
        models=sorted(results["model"].unique()),
        sizes=dict(reversed(run_tables.sizes(results).items())),  # the test first
        scores=run_tables.scores(results),
        curves=charts.curves(run_tables.with_spaces(content.log), content.ceiling),
        shown=shown,
        # Planes of a stack are no independent images.
        unit="plane" if images.duplicated(["image", "line", "model"]).any() else "image",
        image_charts=charts.image_scores(image_tables[shown], content.ceiling) if shown else [],
        image_tables=image_tables,
        conditions=run_tables.condition_scores(of_subset[shown]) if shown else [],
        unlabelled=content.unlabelled,
        labelled_share=labelled_share(images),
        groups=run_tables.named_groups(content.conditions),
        signs=run_tables.known_columns(content.unlabelled, run_tables.SIGNS),
        group_signs=run_tables.known_columns(content.conditions, run_tables.GROUP_SIGNS),
    )


@cache
def template(name: str) -> Template:
    """Load the template of a page, with the filters that all pages use."""
    is_page = name.endswith(".html.j2")
    environment = Environment(
        loader=PackageLoader("mitolume.report"),
        autoescape=select_autoescape(("html.j2",)),
        finalize=on_page if is_page else None,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number,
        percent=percent,
        count=count,
        quoted=quoted,
        named_columns=run_tables.named_columns,
    )
    return environment.get_template(name)


# From the folder to the content ------------------------------------------------------------------


def _content(run: Run) -> RunContent:
    record, first = run.record, run.results.iloc[0]
    short = short_names(run.scores["image"])

    def shortened(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(image=table["image"].map(short)) if len(table) else table

    content = RunContent(
        title=_title(run),
        verdict=_verdict(run),
        notices=run.notices,
        facts=_facts(run, first),
        results=run.results,
        images=shortened(_with_stacks(run, run.scores[run.scores["subset"] != "unlabelled"])),
        log=run.log[run.log["model"].isin(run.models)],  # not one that collapsed
        panels=_panels(run, short),
        unlabelled=shortened(run.audit) if run.has_audit else run.scores.iloc[:0],
        agreement=shortened(_agreement(run)),
        recipe_yaml=run.recipe_file.read_text(encoding="utf-8"),  # of any version
        command=f"mitolume rerun {quoted(run.path)} --out again",
        versions=record["versions"],
    )
    if not run.has_audit:
        return content
    return replace(
        content,
        conditions=run.audit_conditions,
        doubtful=[
            _doubtful(run, row, short) for row in least_trusted(run.audit).to_dict("records")
        ],
    )


def _verdict(run: Run) -> list[str]:
    results, kept = run.results, run.kept
    subset = judging_subset(results)
    name = kept.replace("_", " ").capitalize()
    values = {model: value_of(results, model, subset, "iou") for model in MODELS}
    _, specimens = run_tables.sizes(results[results["metric"] == "iou"])[subset]
    scored = run.scores[(run.scores["subset"] == subset) & (run.scores["model"] == kept)]
    scored = _with_stacks(run, scored)
    on = f"{run_tables.planes_of(scored, f'{subset} image')} of {count(specimens, 'specimen')}"
    if subset == "train":  # how well a model knows what it has learnt from is no news
        values = dict.fromkeys(MODELS, math.nan)
        if (folds := run.out_of_fold) and kept in folds:
            values = {model: float(folds[model]) for model in MODELS}
            other = "specimens" if specimens > 1 else "images of the same specimen"
            on += f", each predicted by a model trained half as long on other {other}"
    if not math.isnan(values[kept]):
        sentences = [
            f"{name} finds mitochondria with a foreground IoU of {values[kept]:.3f} on {on}; "
            "marking every pixel as mitochondria would score "
            f"{value_of(results, kept, subset, 'chance_iou'):.3f}."
        ]
    elif subset == "train":
        sentences = [
            "No labelled image was kept aside, so no score says how well new images are segmented."
        ]
    else:
        sentences = [f"There is no foreground to score in the {on}."]
    if subset != "train":
        conditions = run_tables.condition_scores(scored)
        if len(conditions) > 1:
            sentences.append(f"By condition: {'; '.join(map(_in_condition, conditions))}.")
        unchecked = {r.condition for r in run.rows} - {row["name"] for row in conditions} - {""}
        if unchecked:
            listed = ", ".join(sorted(unchecked))
            sentences.append(f"No {subset} image shows how right it is on {listed}.")
    if "model_2" in run.record:
        one, two = values.values()
        if not math.isnan(two - one):
            sentences.append(
                "Learning from unlabelled images changed this IoU by "
                f"{number(two - one, signed=True)} ({one:.3f} to {two:.3f}), in this single run "
                "with one seed."
            )
        sentences.append(f"{name} was kept: {run.kept_reason}.")
    return [*sentences, *scored_by_dye(run, subset)]


def scored_by_dye(run: Run, subset: str) -> list[str]:
    """Say what scores mean where masks that they are held against come from the dye."""
    images = run.images(subset)
    drawn, dyed = ([i for i in images if (i.row.label == "dye") == dye] for dye in (False, True))
    if not dyed:
        return []
    if not drawn:
        return [
            f"The masks of the {subset} images were made from the dye: scores say how well the dye "
            "can be foretold, and not how right it is."
        ]
    by_hand, by_dye = (
        f"{count(len(own), f'{subset} image')} ({some_names(of, 9) or 'no condition'})"
        for own in (drawn, dyed)
        for of in [sorted({image.row.condition for image in own} - {""})]
    )
    return [
        f"Scored against outlines: {by_hand}; against masks made from the dye: {by_dye}. Hands and "
        "dyes draw other edges: of conditions that differ in this, scores and areas can't be "
        "compared."
    ]


def _with_stacks(run: Run, images: pd.DataFrame) -> pd.DataFrame:
    """Add which stack an image is of, as names of files and of scenes come more than once."""
    stacks = {row.line: f"{row.image} {row.scene}" for row in run.rows}
    return images.assign(stack=images["line"].map(stacks))


def _in_condition(row: Mapping[str, Any]) -> str:
    [score], [off] = row["iou"].values(), row["area_off"].values()
    words = f"{row['name'] or 'not given'} {number(score)} ({row['of']}"
    return words + f", area off by {percent(off, 0, signed=True)})"


def _title(run: Run) -> str:
    """Name a run by its folder, its labelled images and its day."""
    rows = [row for row in run.rows if row.is_labelled]
    planes = {(row.image, row.scene, z) for row in rows for z in row.planes or ()}
    stacks = {place[:2] for place in planes}  # an outlined one with a dye has two rows
    images = count(len(planes), "labelled image")
    if len(planes) > len(stacks):
        images = f"{count(len(planes), 'labelled plane')} of {count(len(stacks), 'stack')}"
    dishes = count(len({row.specimen for row in rows}), "specimen")
    day = str(run.record["started"])[:10]
    return f"{run.path.resolve().name}: {images} of {dishes}, {day}"


def _facts(run: Run, first: Any) -> dict[str, str]:
    record = run.record
    specimens, size = record["n_specimens"], record["pixel_size_um"]
    images = (
        f"{n} {role} (specimens: {specimens[role]})" for role, n in record["n_images"].items() if n
    )
    facts = {
        "Table of fields": str(record["fields"]),
        "Images": ", ".join(images),
        "Masks to learn from": labels_of(run),
        "The network sees": _inputs(run.recipe.inputs),
        "Pixel size": f"{size:g} µm" if size else "not given in the files",
        "Preset": record["preset"],
        "Network": str(first["network"]),
        "Method": str(first["method"]).replace("_", " "),
        "Denoiser": _denoiser(record.get("denoiser")),
        "Seed": str(record["seed"]),
        "Device": record["device"],
        "Started": record["started"],
        "Duration": time_left(record.get("seconds", 0)),
    }
    if (quality := run.dye_quality) is not None:
        signal = quality.groupby(quality["condition"].fillna(""))["signal_to_noise"].median()
        facts["Signal of the dye over noise, median"] = ", ".join(
            f"{condition} {value:.0f}".strip() for condition, value in signal.items()
        )
    for name in ("model_1", "model_2"):
        if model := record.get(name):
            facts[name.replace("_", " ").capitalize()] = (
                f"{model['parameters']:,} parameters, {model['steps']} steps in "
                f"{time_left(model['seconds'])}, {model['chosen']}, threshold "
                f"{model['threshold']:g}"
            )
            if own := _thresholds(model.get("thresholds", {})):
                facts[f"Thresholds by condition, {name.replace('_', ' ')}"] = own
    return facts


def _thresholds(of: Mapping[str, Mapping[str, Any]]) -> str:
    """Describe the thresholds of conditions, and what they rest on."""
    words = {"": "the common one", "validation": "{}", "train": "{} with a mask from the dye"}
    return ", ".join(
        f"{name} {own['threshold']:.2f} ("
        + words[own["role"]].format(
            count(own["n_images"], f"{own['role']} image".replace("train ", "training "))
        )
        + ")"
        for name, own in of.items()
    )


def _agreement(run: Run) -> pd.DataFrame:
    """Return the images that were outlined and have their dye, the least alike first."""
    quality = run.dye_quality
    if quality is None or "agreement" not in quality:
        return pd.DataFrame()
    both = quality.dropna(subset="agreement").sort_values("agreement", kind="stable")
    return both.fillna({"condition": "", "batch": ""})


def labels_of(run: Run) -> str:
    """Count the images that are outlined, and those whose masks come from the dye."""
    learnt = run.images("train")
    outlined = sum(image.row.is_outlined for image in learnt)
    return f"{count(outlined, 'outline')}, {len(learnt) - outlined} from the dye"


def _inputs(inputs: InputSettings) -> str:
    """Describe which planes of which channels a network sees."""
    apart = f" {inputs.step_um:g} µm apart" if inputs.step_um else ""
    planes = "one plane" if inputs.planes == 1 else f"{inputs.planes} planes{apart}"
    return f"{planes} of {' and '.join(inputs.channels) or 'one channel'}"


def _denoiser(record: dict[str, Any] | None) -> str:
    """Describe the denoiser of a run."""
    if record is None:
        return "none"
    words, check = f"{record['method']}, from {count(record['n_stacks'], 'stack')}", record["check"]
    if not check:
        return words
    why = f" ({check['reason']})" if check["verdict"] != "suitable" else ""
    return f"{words}; neighbouring planes are {check['verdict']} for learning{why}"


def _panels(run: Run, short: Mapping[str, str]) -> list[Panel]:
    """Show the worst, median and best image of the kept model, on test images where possible."""
    scores = run.scores
    scored = scores[(scores["model"] == run.kept) & scores["iou"].notna()]
    subset = judging_subset(scored)
    order = scored[scored["subset"] == subset].sort_values("iou", kind="stable")
    panels = []
    for title, row in extremes(order).items():
        image = run.image(int(row["line"]), int(row["plane"]))
        plane, truth, size = image.read()
        assert truth is not None
        models = sorted(run.models, key=lambda model: model != run.kept)
        masks = {model.replace("_", " "): run.mask(model, image) for model in models}
        caption = f"{subset} image, specimen {row['specimen']}"
        if image.row.label == "dye":
            caption += ", mask made from the dye"
        panels.append(model_panel(title, image.called(short), plane, truth, masks, caption, size))
    return panels


def least_trusted(audit: pd.DataFrame) -> pd.DataFrame:
    """Choose which masks are shown: those of an odd share first, then as audit.csv orders them."""
    odd = ~audit["share_ratio"].between(1 / _FAR, _FAR) & audit["share_ratio"].notna()
    first = audit.assign(odd=odd).sort_values("odd", ascending=False, kind="stable")
    return first.drop_duplicates("image").head(_DOUBTFUL_SHOWN)  # a stack's planes are alike


def _doubtful(run: Run, row: Mapping[Any, Any], short: Mapping[str, str]) -> PagePicture:
    """Outline the mask of an unlabelled image, and say how it differs from the labelled ones."""
    image = run.image(int(row["line"]), int(row["plane"]))
    plane, _, size = image.read()
    drawn = pictures.overlay(plane, run.mask(MODELS[0], image), longer=SMALL)
    drawn = pictures.with_bar(drawn, size and size[1] * plane.shape[1])
    marked = f"{percent(row['foreground_share'])} marked"
    if math.isfinite(row["share_ratio"]):
        marked += f" ({row['share_ratio']:.1f} times the labelled images' share)"
    words = [row["condition"], marked]
    for name in ("disagreement", "feature_distance"):
        if math.isfinite(row[name]):
            words.append(f"{name.removeprefix('feature_')} {number(row[name], 2)}")
    return PagePicture(image.called(short), ", ".join(filter(None, words)), drawn)
