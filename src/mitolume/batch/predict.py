"""Predict whole files, here or on a dask cluster: each scene of each file is a job of the runner.

In other processes pixels do not travel: each opens the image itself and writes where the others
write. What becomes of one image is said by ``batch/predict_image.py``.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch

from mitolume.batch.predict_image import (
    PlannedImage,
    PredictionOptions,
    open_channels,
    plan_image,
    predict_image,
)
from mitolume.batch.runner import Finished, Job, Outcome, Scheduler, run_files, side_by_side
from mitolume.errors import MitolumeError, some_names
from mitolume.inference.inputs import unlike_stack
from mitolume.inference.predictor import Predictor, load
from mitolume.io.draft_pairs import channels_beside_light
from mitolume.io.fields import Field
from mitolume.io.formats import bare_name, sha256, told_apart
from mitolume.io.listing import named_scenes, scene_name
from mitolume.io.table import read_table, write_table
from mitolume.models.networks import find_cards, take_share
from mitolume.progress import Advance
from mitolume.text import quoted, spare

_DEFAULTS = PredictionOptions()
Model = Callable[[], Predictor]  # gives the process that calls it its model
Asked = tuple[Field, PredictionOptions, str]  # a row, how its image is predicted, and named


def predict_files(
    predictor: Predictor,
    files: Sequence[Path],
    out: Path,
    options: PredictionOptions = _DEFAULTS,
    *,
    table: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    jobs: int = 1,
    scheduler: str | None = None,
    progress: Advance = lambda done, total, note="": None,
) -> Outcome:
    """Predict images, and those in folders; all are opened before the first is predicted.

    ``out`` gets ``NAME_mask.ome.tif``, ``NAME_probability.ome.tif``, ``NAME_overlay.png``;
    ``.ome.zarr`` for images that are OME-Zarr themselves or too large for a TIFF. ``table``,
    instead of files, is a table of fields, whose channels, scenes, pixel sizes and conditions
    (where the model has a threshold for them) are used; ``out`` then also gets one, ``fields.csv``,
    of the masks. ``jobs`` is the number of processes, each of which predicts an image, on a
    graphics card of its own where there are several. ``scheduler`` is the ``tcp://HOST:PORT`` of a
    dask scheduler whose workers compute instead; they must see model, images and ``out`` under the
    same absolute paths. ``resume``, ``overwrite`` and ``progress`` are as for
    `mitolume.batch.runner.run_jobs`; work is counted in blocks.
    """
    predictor.threshold(options.threshold, options.condition)  # a fault is one of no file
    if bool(files) == (table is not None):
        raise MitolumeError("name either images or a table with --fields")
    elsewhere = scheduler is not None or jobs > 1
    if elsewhere:  # a process there may run in another folder
        files, out = [path.absolute() for path in files], out.absolute()
    model, compute = (
        _elsewhere(predictor, out, jobs, scheduler) if elsewhere else (lambda: predictor, None)
    )
    batch = _Batch(predictor, model, out, options, table)
    outcome = run_files(
        files or [Path(file) for file in batch.asked],
        batch.job,
        out / "predict.jsonl",
        scenes=batch.scenes,
        first=str(predictor.channels(options.channels)[0] or ""),
        resume=resume,
        overwrite=overwrite,
        scheduler=compute,
        progress=progress,
    )
    batch.tell(outcome)
    if table is not None and (masked := batch.masked(outcome)):
        write_table(out / "fields.csv", masked)
        outcome.summary = f"table of fields: {out / 'fields.csv'}"
    listed = f" --fields {quoted(out / 'fields.csv')}" * bool(table)
    outcome.next = f"mitolume measure {quoted(out)}{listed}{spare('objects.csv')}"
    return outcome


class _Batch:
    """The images of one call: how each is predicted, and what is to be said of them."""

    def __init__(
        self,
        predictor: Predictor,
        model: Model,
        out: Path,
        options: PredictionOptions,
        table: Path | None,
    ) -> None:
        self.predictor, self.model, self.out, self.options = predictor, model, out, options
        self.table = table
        self.asked = _asked_by(table, options, predictor)
        self._digest = None if predictor.bundle is None else sha256(predictor.bundle)
        self._meant: dict[tuple[Path, str | None], tuple[Field, PredictionOptions]] = {}
        self._rows: dict[Path, Field] = {}  # by the mask that each image becomes
        self._unlike = defaultdict[str, dict[str, None]](dict)  # files, by what is said of them

    def scenes(self, file: Path) -> Iterator[tuple[str | None, str]]:
        """Yield the scenes of a file that are predicted, and what their results are called."""
        plain = bare_name(file)
        whole = [(Field(file), self.options, plain)]
        for row, own, stem in self.asked.get(os.path.abspath(file), whole):
            for scene, name in named_scenes(file, own.scene):
                self._meant[file, scene] = row, own
                yield scene, stem + name.removeprefix(plain)

    def job(self, file: Path, scene: str | None, name: str) -> Job:
        """Open a scene."""
        row, own = self._meant[file, scene]
        opened = open_channels(self.predictor, file, scene, own)
        image = plan_image(file, scene, opened, own, self.predictor, self.out / name)
        self._rows[image.mask] = row
        if said := unlike_stack(self.predictor.card.inputs, opened):
            self._unlike[said][file.name] = None
        beside = filter(None, [image.probability, *image.pictures.values()])
        return Job(
            file.name, opened.attrs["files"], (*beside, image.mask),
            partial(predict_image, self.model, image),
            self._settings(image, [str(channel) for channel in opened["C"].values]),
            work=opened.sizes["T"] * opened.sizes["Z"] * len(image.boxes),
            smaller="choose a smaller --tile-size",
        )  # fmt: skip

    def _settings(self, image: PlannedImage, channels: list[str]) -> dict[str, Any]:
        """Return all that changes the results."""
        by = " by OpenVINO" * (self.predictor.engine == "openvino")
        settings = {
            "model": self._digest,
            "views": self.predictor.views,
            "precision": self.predictor.precision + by,
            "threshold": image.threshold,
            "channels": channels,
            "scene": image.scene,
            "pixel size": image.options.pixel_size_um,
        }
        if image.options.z_step_um:  # records of before know none
            settings["z-step"] = image.options.z_step_um
        return settings

    def masked(self, outcome: Outcome) -> list[Field]:
        """Return the rows of the images that are done, with their masks."""
        done = {*outcome.done}
        return [replace(row, mask=mask) for mask, row in self._rows.items() if mask in done]

    def tell(self, outcome: Outcome) -> None:
        """Add what a user should know of the images."""
        told = [f"{some_names(names)}: {said}" for said, names in self._unlike.items()]
        told += _copies(outcome.finished)
        images = [Path(one.inputs[0]["file"]) for one in outcome.finished if one.inputs]
        if self.table is None and (dyes := channels_beside_light(images)):
            told.append(
                f"{some_names(path.name for path in dyes)}: another channel of fields whose "
                "transmitted light was predicted, too, so what is in them counts twice; name the "
                "channel to predict (--channel)"
            )
        if self.table is not None and {self.options.threshold, self.options.condition} == {None}:
            told += _unlike_thresholds(self.predictor, self.masked(outcome))
        outcome.notices += told


def _copies(finished: Sequence[Finished]) -> list[str]:
    """Name images that are the same as others."""
    alike: dict[tuple[str | None, ...], set[Path]] = defaultdict(set)  # by their content
    for one in finished:
        content = one.job.scene, *(file["sha256"] for file in one.inputs)
        alike[content].add(Path(one.inputs[0]["file"]))
    named = (
        told_apart(sorted(files), attrgetter("name"), "/").values() for files in alike.values()
    )
    return [
        f"{some_names(names)}: the same file, so what is in it counts {len(names)} times"
        for names in named
        if len(names) > 1
    ]


def _unlike_thresholds(predictor: Predictor, rows: Sequence[Field]) -> list[str]:
    """Say at which probability masks end, where not all conditions have one, or the same."""
    own, common = predictor.card.thresholds, predictor.card.threshold
    used = {r.condition: own[r.condition].threshold if r.condition in own else common for r in rows}
    unknown = sorted(used.keys() - own.keys() - {""}) if own else []
    notes = [
        f"the common threshold, {common:g}, was used for {some_names(unknown, 9)}: the model has "
        f"others for {some_names(own, 9)} alone"
    ] * bool(unknown)
    if len({*used.values()}) < 2:
        return notes
    said = ", ".join(f"{name or 'no condition'} {used[name]:g}" for name in sorted(used))
    return [
        *notes,
        f"thresholds by condition: {said}; to see what of a difference is theirs, predict once "
        f"more with --threshold {common:g}",
    ]


def _asked_by(
    table: Path | None, given: PredictionOptions, predictor: Predictor
) -> dict[str, list[Asked]]:
    """Return the images of a table, as whole stacks, by file, and how results of each are named.

    The user's options go before those of the table.
    """
    whole = {
        (row.image, row.scene, row.channel): replace(row, planes=None, role="unlabelled")
        for row in (read_table(table) if table else ())
    }
    found: dict[str, list[Asked]] = defaultdict(list)
    for (file, scene, channel), row in whole.items():
        name = scene_name(file, scene)
        known = given.threshold is None and row.condition in predictor.card.thresholds
        seen = (channel, *map(str, predictor.channels()[1:])) if channel else ()
        own = replace(
            given,
            channels=given.channels or seen,
            scene=scene or given.scene,
            pixel_size_um=given.pixel_size_um or row.pixel_size_um,
            z_step_um=given.z_step_um or row.z_step_um,
            condition=given.condition or (row.condition if known else None),
        )
        found[os.path.abspath(file)].append((row, own, name))
    return found


def _elsewhere(
    predictor: Predictor, out: Path, jobs: int, address: str | None
) -> tuple[Model, Scheduler]:
    """Return what gives other processes their model, and what computes jobs there."""
    if predictor.bundle is None:
        raise MitolumeError("only a model that was loaded from a folder works in other processes")
    bundle = predictor.bundle.absolute()
    written_ns = max(path.stat().st_mtime_ns for path in bundle.iterdir())
    same = {
        "views": predictor.views, "core": predictor.core,
        "precision": predictor.precision, "engine": predictor.engine,
    }  # fmt: skip
    # All threads of a cluster's worker; here the processes share them, and the cards.
    share = (None, None) if address else (max(1, torch.get_num_threads() // jobs), find_cards())
    there = side_by_side(processes=jobs, scheduler=address, inputs=[bundle], out=out)
    return partial(_load_once, bundle, written_ns, *share, **same), there


@lru_cache(maxsize=1)
def _load_once(
    bundle: Path, written_ns: int, threads: int | None, cards: Sequence[str] | None, **options: Any
) -> Predictor:
    """Keep a model in a process for the next image; the time tells a new one in the same place."""
    take_share(threads, cards)
    return load(bundle, **options)
