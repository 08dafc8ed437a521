"""One run: check, train model 1, label, train model 2, score, report. Knows how, not what to say."""

from __future__ import annotations

import json
import platform
import shlex
import shutil
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from mitolume.errors import MitolumeError
from mitolume.inference.predictor import Predictor, default_device
from mitolume.io.check import CheckedTable, check_table
from mitolume.io.fields import Field, leaks, read_table, write_table
from mitolume.io.split import assign_roles, choose_labelled
from mitolume.io.write import write_text
from mitolume.models.bundle import CARD, Card, load_bundle, save_bundle, versions
from mitolume.models.networks import SegmentationNetwork
from mitolume.progress import progress_bar, say
from mitolume.study.images import RowImage, images_of, prepare, require_training
from mitolume.study.recipe import Recipe, load_recipe
from mitolume.study.results import summarise, value_of, write_csv
from mitolume.study.score import choose_threshold, score_model
from mitolume.training.loop import Progress, resolve_precision, train
from mitolume.training.methods import METHODS
from mitolume.training.patches import PreparedImage

RECIPE, FIELDS, RUN, KEPT = "recipe.yaml", "fields.csv", "run.json", "kept.json"
IMAGES, RESULTS, LOG, REPORT = "images.csv", "results.csv", "log.csv", "report.html"
MODELS = ("model_1", "model_2")


@dataclass
class Run:
    """A run folder and all that its steps need to know."""

    folder: Path
    recipe: Recipe
    table: CheckedTable
    quiet: bool = False
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def scratch(self) -> Path:
        """Where prepared images lie while the run goes on."""
        return self.folder / "scratch"

    def images(self, role: str) -> list[RowImage]:
        """Return the images of a role."""
        return images_of(self.table.fields, role, self.table.mask_kind)

    def bar(self, title: str) -> Any:
        """Show the progress of a step."""
        return progress_bar(title, quiet=self.quiet)

    def note(self, **facts: Any) -> None:
        """Add facts to run.json, at once."""
        self.record |= facts
        write_text(self.folder / RUN, json.dumps(self.record, indent=2) + "\n")


def run(
    recipe: Recipe | str | Path | None = None,
    out: str | Path = "run",
    *,
    resume: bool = False,
    quiet: bool = False,
) -> Path:
    """Train, label, train again, score and report.

    Parameters
    ----------
    recipe
        A recipe or the path of one. None goes on with the recipe in ``out``.
    out
        The run folder. It must be new, unless ``resume``.
    resume
        Go on with a run that was stopped. What is finished is kept; a training goes on from its
        last epoch and ends with the weights of an unbroken run.
    quiet
        Show no progress.

    Returns
    -------
    pathlib.Path
        The run folder, with ``report.html``.

    Raises
    ------
    MitolumeError
        The recipe, the table or a file is off; the folder holds another run.
    """
    out = Path(out)
    if isinstance(recipe, (str, Path)):
        recipe = load_recipe(recipe)
    known = out / RUN
    if known.exists():
        if not resume:
            raise MitolumeError(f"{out} already holds a run; go on with --resume, or choose another"
                                " --out")  # fmt: skip
        this = _reopen(out, recipe, quiet)
        if this.record.get("status") == "finished":
            say(f"{out} is finished: {out / REPORT}", quiet=quiet)
            return out
    else:
        if recipe is None:
            raise MitolumeError(f"{out} holds no run to resume; name a recipe or a preset")
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise MitolumeError(f"{out} exists and is no empty folder; choose another --out")
        this = _begin(out, recipe, quiet)
    started = time.monotonic()
    try:
        _train_all(this)
        _score_all(this)
    finally:
        shutil.rmtree(this.scratch, ignore_errors=True)
    seconds = this.record.get("seconds", 0) + round(time.monotonic() - started, 1)
    this.note(status="finished", seconds=seconds)
    from mitolume.study.content import report

    report(out)
    return out


def _begin(out: Path, recipe: Recipe, quiet: bool) -> Run:
    """Check everything before anything is computed, then write down what will be done."""
    table = _checked(recipe.fields, recipe, quiet)
    rows = assign_roles(table.fields, recipe.split)
    rows = choose_labelled(rows, None if recipe.labels == "all" else recipe.labels, recipe.seed)
    if faults := leaks(rows):
        raise MitolumeError("; ".join(faults))
    require_training(rows, str(recipe.fields))
    checked = CheckedTable(
        tuple(rows), table.mask_kind, table.pixel_size_um, table.notices, table.sha256
    )
    resolved = recipe.training.model_copy(
        update={"precision": resolve_precision(recipe.training.precision)}
    )
    own = recipe.model_copy(update={"training": resolved, "fields": Path(FIELDS)})
    write_table(out / FIELDS, rows)
    write_text(out / RECIPE, own.to_yaml())
    this = Run(out, own, checked, quiet)
    this.note(
        status="running",
        command=_command(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        fields=str(recipe.fields),
        preset=recipe.preset,
        seed=recipe.seed,
        mask_kind=table.mask_kind,
        pixel_size_um=table.pixel_size_um,
        n_images={role: len(this.images(role)) for role in _SUBSETS},
        n_specimens={
            role: len({row.specimen for row in rows if row.role == role}) for role in _SUBSETS
        },
        notices=[*table.notices, *_notices(this)],
        device=_device(),
        versions=versions(),
        sha256={path: digest for path, digest in table.sha256.items()},
    )
    for notice in this.record["notices"]:
        say(f"note: {notice}", quiet=quiet)
    return this


_SUBSETS = ("train", "validation", "test", "unlabelled")


def _reopen(out: Path, recipe: Recipe | None, quiet: bool) -> Run:
    """Read a run folder back, refusing to go on with other settings or other images."""
    try:
        record = json.loads((out / RUN).read_text(encoding="utf-8"))
    except ValueError as error:
        raise MitolumeError(f"{out / RUN} is damaged ({error}); choose another --out") from None
    own = load_recipe(out / RECIPE)
    if recipe is not None:
        # `fields` names the original table, and "auto" was settled when the run began.
        ours, theirs = (
            {k: v for k, v in _flat(r.model_dump(mode="json")) if k != "fields"}
            for r in (own, recipe)
        )
        if theirs["training.precision"] == "auto":
            theirs["training.precision"] = ours["training.precision"]
        changed = [key for key in ours if ours[key] != theirs.get(key)]
        if changed:
            listing = ", ".join(f"{k} was {ours[k]} and is {theirs.get(k)}" for k in changed)
            raise MitolumeError(f"{out} was begun with other settings ({listing}); choose another"
                                " --out")  # fmt: skip
    if record.get("status") == "finished":
        return Run(out, own, CheckedTable((), "auto", None, (), {}), quiet, record)
    table = _checked(out / FIELDS, own, quiet, kind=record["mask_kind"])
    for path, digest in table.sha256.items():
        if record["sha256"].get(path, digest) != digest:
            raise MitolumeError(f"{path} has changed since {out} was begun; choose another --out")
    return Run(out, own, table, quiet, record)


def _checked(path: Path, recipe: Recipe, quiet: bool, kind: Any = None) -> CheckedTable:
    rows = read_table(path)
    with progress_bar("checking files", quiet=quiet) as advance:
        table = check_table(path, rows, mask_kind=kind or recipe.mask_kind, progress=advance)
    # On the first look the roles are still to be drawn; rescaling must be possible for all rows.
    return table


def _train_all(this: Run) -> None:
    """Train model 1, and model 2 where the method has one."""
    shutil.rmtree(this.scratch, ignore_errors=True)
    method = METHODS[this.recipe.method]
    unlabelled = this.images("unlabelled") if method.uses_unlabelled else []
    if _has_bundle(this, "model_2") or (_has_bundle(this, "model_1") and not unlabelled):
        return
    prepared = {
        role: _prepared(this, role) for role in ("train", "validation") if this.images(role)
    }
    labelled, validation = prepared["train"], prepared.get("validation", [])
    if not _has_bundle(this, "model_1"):
        _train_one(this, "model_1", labelled, labelled, validation)
    if not unlabelled:
        return
    network, card = load_bundle(this.folder / "model_1")
    predictor = Predictor(network, card, average_flips=this.recipe.average_flips)
    images = _prepared(this, "unlabelled")
    with this.bar("pseudo-labels") as advance:

        def teacher(image: Any) -> Any:
            teacher.done += 1  # type: ignore[attr-defined]
            advance(teacher.done, len(images))  # type: ignore[attr-defined]
            return predictor.predict_prepared(image)

        teacher.done = 0  # type: ignore[attr-defined]
        both = list(method.training_images(labelled, images, teacher))
    _train_one(this, "model_2", both, labelled, validation)


def _train_one(
    this: Run,
    name: str,
    images: list[PreparedImage],
    labelled: list[PreparedImage],
    validation: list[PreparedImage],
) -> None:
    recipe, folder = this.recipe, this.folder / name
    folder.mkdir(exist_ok=True)
    seed = int(np.random.SeedSequence([recipe.seed, MODELS.index(name)]).generate_state(1)[0])
    network = SegmentationNetwork(recipe.network, seed)
    method = METHODS["supervised" if name == "model_1" else recipe.method]
    # Both models take the same number of steps: a gain by longer training would be no gain.
    settings = recipe.training
    steps_per_epoch, epochs = settings.schedule_of(len(labelled))
    settings = settings.model_copy(
        update={"steps": steps_per_epoch * epochs, "epochs": None, "checks": epochs}
    )
    title = name.replace("_", " ")
    with this.bar(f"training {title}") as advance:

        def report(at: Progress, latest: list[float] = [float("nan")]) -> None:  # noqa: B006
            latest[0] = latest[0] if at.loss is None else at.loss
            note = f"loss {latest[0]:.3f}"
            if at.validation_iou is not None:
                note += f"  validation IoU {at.validation_iou:.3f}"
            advance(at.step, at.steps, note)

        trained = train(
            network,
            images,
            validation,
            method=method,
            settings=settings,
            seed=seed,
            folder=folder,
            report=report,
            on_epoch=lambda history: _write_log(this.folder / LOG, name, history),
        )
    card = Card(
        name=f"{recipe.arm} {title}",
        method=recipe.method if name == "model_2" else "supervised",
        network=recipe.network,
        chain=recipe.chain,
        pixel_size_um=this.table.pixel_size_um,
        fields=[_field_entry(this, row) for row in this.table.fields if row.role in _LEARNT[name]],
        seed=recipe.seed,
    )
    weights = trained.weights
    facts = {
        "chosen": trained.chosen,
        "steps": steps_per_epoch * epochs,
        "seconds": trained.history[-1]["seconds"],
        "parameters": sum(p.numel() for p in network.parameters()),
    }
    # The threshold belongs to the model, so it is settled before the bundle is written.
    network.load_state_dict(weights)
    predictor = Predictor(network, card, average_flips=recipe.average_flips)
    with this.bar(f"threshold of {title}") as advance:
        card.threshold = choose_threshold(
            predictor, this.images("validation"), recipe.threshold, advance
        )
    this.note(**{name: facts | {"threshold": card.threshold}})
    save_bundle(folder, weights, card)


_LEARNT = {"model_1": ("train",), "model_2": ("train", "unlabelled")}


def _score_all(this: Run) -> None:
    """Score the models on all labelled images, keep one, leave masks and tables."""
    names = [name for name in MODELS if _has_bundle(this, name)]
    tables = []
    for name in names:
        network, card = load_bundle(this.folder / name)
        predictor = Predictor(network, card, average_flips=this.recipe.average_flips)
        with this.bar(f"scoring {name.replace('_', ' ')}") as advance:
            table = score_model(
                predictor, this.table, this.folder / "masks" / name, progress=advance
            )
        k = this.record["n_images"]["train"]
        tables.append(
            table.assign(
                model=name,
                arm=this.recipe.arm,
                method=this.recipe.method,
                network=this.recipe.network.name,
                k=k,
                seed=this.recipe.seed,
            )
        )
    images = pd.concat(tables, ignore_index=True)
    from mitolume.study.results import IMAGE_COLUMNS

    images = images.reindex(columns=list(IMAGE_COLUMNS))
    results = summarise(images)
    write_csv(this.folder / IMAGES, images)
    write_csv(this.folder / RESULTS, results)
    for name in names:
        _write_scores(this.folder / name, results, name)
    kept, reason = choose_kept(results, names)
    write_text(this.folder / KEPT, json.dumps({"kept": kept, "reason": reason}, indent=2) + "\n")


def choose_kept(results: pd.DataFrame, names: list[str]) -> tuple[str, str]:
    """Choose the model to keep, by validation images only, and say why.

    Parameters
    ----------
    results
        The long table.
    names
        The models there are.

    Returns
    -------
    str, str
        The name and a sentence.
    """
    if len(names) == 1:
        return names[0], "it is the only model of this run"
    first, second = (value_of(results, name, "validation", "iou") for name in names)
    if np.isnan(first) or np.isnan(second):
        return names[0], (
            "there are no validation images that could show that unlabelled images helped"
        )
    better = names[1] if second > first else names[0]
    return better, (
        f"foreground IoU on the validation images is {first:.3f} for model 1 and {second:.3f} "
        "for model 2"
    )


def _prepared(this: Run, role: str) -> list[PreparedImage]:
    with this.bar(f"preparing {role}") as advance:
        return prepare(
            this.images(role),
            this.recipe.chain,
            this.table.pixel_size_um,
            this.scratch / role,
            advance,
        )


def _has_bundle(this: Run, name: str) -> bool:
    return (this.folder / name / CARD).exists()


def _write_log(path: Path, name: str, history: list[dict[str, float | None]]) -> None:
    """Replace a model's lines in log.csv, keeping the other model's."""
    lines = pd.DataFrame(history).assign(model=name)
    if path.exists():
        other = pd.read_csv(path)
        lines = pd.concat([other[other["model"] != name], lines], ignore_index=True)
    columns = ["model", "step", "loss", "validation_iou", "learning_rate", "seconds"]
    write_csv(path, lines[columns])


def _write_scores(folder: Path, results: pd.DataFrame, name: str) -> None:
    """Put the scores on a model's card."""
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    own = results[(results["model"] == name) & results["metric"].isin(["iou", "chance_iou"])]
    card["scores"] = {}
    for row in own.to_dict("records"):
        scores = card["scores"].setdefault(
            row["subset"], {"n_images": row["n_images"], "n_specimens": row["n_specimens"]}
        )
        scores[row["metric"]] = None if np.isnan(row["value"]) else round(row["value"], 4)
    write_text(folder / CARD, json.dumps(card, indent=2) + "\n")


def _field_entry(this: Run, row: Field) -> dict[str, Any]:
    return {
        "image": row.image.name,
        "planes": len(row.planes or ()),
        "role": row.role,
        "specimen": row.specimen,
        "sha256": this.table.sha256[str(row.image)],
    }


def _notices(this: Run) -> list[str]:
    """Say beforehand what the user might not expect of the results."""
    recipe, notices = this.recipe, []
    if not this.images("validation"):
        notices.append("no validation images: the length of training is fixed, the weights of the"
                       " last quarter are averaged, and the threshold is not tuned")  # fmt: skip
    if not this.images("test"):
        notices.append("no test images: no score here is a test score")
    if METHODS[recipe.method].uses_unlabelled and not this.images("unlabelled"):
        notices.append("no unlabelled images: model 2 is not trained")
    if recipe.preset == "paper" and recipe.network.width < 64:
        notices.append(f"the published networks have 64 channels at full resolution, this one"
                       f" {recipe.network.width}: scores are not those of the study")  # fmt: skip
    return notices


def _flat(nested: dict[str, Any], prefix: str = "") -> Any:
    for key, value in nested.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _command() -> str:
    return "mitolume " + shlex.join(sys.argv[1:]) if sys.argv[0].endswith("mitolume") else "Python"


def _device() -> str:
    if default_device() == "cuda":
        return str(torch.cuda.get_device_name())
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
