"""Predict whole files, here or on a dask cluster: each scene of each file is a job of the runner.

A plane is predicted block by block, so that any size fits into memory. On a cluster pixels do not
travel: a worker opens the image itself and writes where the others write.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import product
from operator import attrgetter
from pathlib import Path
from typing import Any

import xarray as xr

from mitolume.analysis.pictures import overlay, with_bar, write_png
from mitolume.batch.runner import Finished, Job, Outcome, Report, Scheduler, run_files, side_by_side
from mitolume.batch.sources import size_of
from mitolume.errors import MitolumeError, some_names
from mitolume.inference.inputs import unlike_stack
from mitolume.inference.predictor import Predictor, load
from mitolume.inference.tiles import Box, block_side, blocks
from mitolume.io.draft_pairs import channels_beside_light
from mitolume.io.fields import Field
from mitolume.io.formats import bare_name, sha256, told_apart
from mitolume.io.listing import named_scenes, result_ending, scene_name
from mitolume.io.pixel_size import plane_pixel_size
from mitolume.io.read import read_channels
from mitolume.io.table import read_table, write_table
from mitolume.io.windows import IN_MEMORY, FilePlane
from mitolume.io.write import making_results
from mitolume.io.zarr_out import CHUNK, new_image
from mitolume.preprocess.fingerprint import unlike_training
from mitolume.preprocess.normalise import is_flat
from mitolume.preprocess.rescale import scale_factors, scaled_shape
from mitolume.progress import Advance
from mitolume.text import quoted, spare

_PICTURE = 2048  # pixels of a picture's longer side, where the plane is too large to draw as it is


@dataclass(frozen=True)
class PredictionOptions:
    """Where to look in files, and what to write.

    ``channels`` are names or numbers (from 0), in the order in which the model sees them; by
    default those it learnt from. ``scene`` is a name or number (from 0); "all" is each scene of a
    file. ``pixel_size_um``, in µm along Y and X, and ``z_step_um`` come before what files state.
    ``threshold`` is the probability from which a pixel is mitochondria; by default the model's own,
    for the ``condition`` of the cells where that is given.
    """

    channels: tuple[str, ...] = ()
    scene: str | None = None
    pixel_size_um: float | None = None
    threshold: float | None = None
    condition: str | None = None
    probability: bool = False
    overlay: bool = False
    z_step_um: float | None = None


@dataclass(frozen=True)
class _Image:
    """One image, the boxes in which its planes are predicted, and the files that it becomes."""

    file: Path
    scene: str | None
    options: PredictionOptions
    threshold: float
    boxes: tuple[Box, ...]
    mask: Path
    probability: Path | None
    pictures: dict[tuple[int, int], Path]  # (t, z) -> file


def predict_files(
    predictor: Predictor,
    files: Sequence[Path],
    out: Path,
    options: PredictionOptions = PredictionOptions(),
    *,
    table: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    scheduler: str | None = None,
    progress: Advance = lambda done, total, note="": None,
) -> Outcome:
    """Predict images, and those in folders; all are opened before the first is predicted.

    ``out`` gets ``NAME_mask.ome.tif``, ``NAME_probability.ome.tif``, ``NAME_overlay.png``;
    ``.ome.zarr`` for images that are OME-Zarr themselves or too large for a TIFF. ``table``,
    instead of files, is a table of fields, whose channels, scenes, pixel sizes and conditions
    (where the model has a threshold for them) are used; ``out`` then also gets one, ``fields.csv``,
    of the masks. ``scheduler`` is the ``tcp://HOST:PORT`` of a dask scheduler whose workers
    compute; they must see model, images and ``out`` under the same absolute paths. ``resume``,
    ``overwrite`` and ``progress`` are as for `mitolume.batch.runner.run_jobs`; work is counted in
    blocks.
    """
    predictor.threshold(options.threshold, options.condition)  # a fault is one of no file
    if bool(files) == (table is not None):
        raise MitolumeError("name either images or a table with --fields")
    if scheduler is not None:  # a worker may run in another folder
        files, out = [path.absolute() for path in files], out.absolute()
    model, compute = (
        _on_cluster(scheduler, predictor, out) if scheduler else (lambda: predictor, None)
    )
    digest = None if predictor.bundle is None else sha256(predictor.bundle)
    asked = _asked_by(table, options, predictor)
    meant: dict[tuple[Path, str | None], tuple[Field, PredictionOptions]] = {}
    made: dict[Path, Field] = {}
    unlike = defaultdict[str, dict[str, None]](dict)  # files, by what is to be said of them

    def scenes(file: Path) -> Iterator[tuple[str | None, str]]:
        plain = bare_name(file)
        for row, own, stem in asked.get(os.path.abspath(file), [(Field(file), options, plain)]):
            for scene, name in named_scenes(file, own.scene):
                name = stem + name.removeprefix(plain)
                meant[file, scene] = row, own
                yield scene, name

    def open_scene(file: Path, scene: str | None, name: str) -> Job:
        row, own = meant[file, scene]
        opened = _open_channels(predictor, file, scene, own)
        image = _image_of(file, scene, opened, own, predictor, out / name)
        made[image.mask] = row
        settings = {
            "model": digest,
            "views": predictor.views,
            "precision": predictor.precision,
            "threshold": image.threshold,
            "channels": [str(name) for name in opened["C"].values],
            "scene": scene,
            "pixel size": own.pixel_size_um,
        }
        if own.z_step_um:  # records of before know none
            settings["z-step"] = own.z_step_um
        if said := unlike_stack(predictor.card.inputs, opened):
            unlike[said][file.name] = None
        beside = filter(None, [image.probability, *image.pictures.values()])
        work = opened.sizes["T"] * opened.sizes["Z"] * len(image.boxes)
        return Job(
            file.name, opened.attrs["files"], (*beside, image.mask),
            partial(_predict, model, image), settings, work,
            smaller="choose a smaller --tile-size",
        )  # fmt: skip

    outcome = run_files(
        files or [Path(file) for file in asked],
        open_scene,
        out / "predict.jsonl",
        scenes=scenes,
        first=str(predictor.channels(options.channels)[0] or ""),
        resume=resume,
        overwrite=overwrite,
        scheduler=compute,
        progress=progress,
    )
    outcome.notices += [f"{some_names(names)}: {said}" for said, names in unlike.items()]
    outcome.notices += _copies(outcome.finished)
    images = [Path(one.inputs[0]["file"]) for one in outcome.finished if one.inputs]
    if table is None and (dyes := channels_beside_light(images)):
        outcome.notices.append(
            f"{some_names(path.name for path in dyes)}: another channel of fields whose "
            "transmitted light was predicted, too, so what is in them counts twice; name the "
            "channel to predict (--channel)"
        )
    if table is not None and (done := set(outcome.done)):
        masked = [replace(row, mask=mask) for mask, row in made.items() if mask in done]
        write_table(out / "fields.csv", masked)
        outcome.summary = f"table of fields: {out / 'fields.csv'}"
        if options.threshold is None and options.condition is None:
            outcome.notices += _unlike_thresholds(predictor, masked)
    listed = f" --fields {quoted(out / 'fields.csv')}" * bool(table)
    outcome.next = f"mitolume measure {quoted(out)}{listed}{spare('objects.csv')}"
    return outcome


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
) -> dict[str, list[tuple[Field, PredictionOptions, str]]]:
    """Return the images of a table, as whole stacks, by file, and how results of each are named.

    The user's options go before those of the table.
    """
    whole = {
        (row.image, row.scene, row.channel): replace(row, planes=None, role="unlabelled")
        for row in (read_table(table) if table else ())
    }
    found: dict[str, list[tuple[Field, PredictionOptions, str]]] = defaultdict(list)
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


def _image_of(
    file: Path,
    scene: str | None,
    opened: xr.DataArray,
    options: PredictionOptions,
    predictor: Predictor,
    path: Path,
) -> _Image:
    """Say in which boxes an image is predicted, and what it becomes."""
    size, model_um = plane_pixel_size(opened), predictor.card.pixel_size_um
    sizes, ending = opened.sizes, result_ending(file, opened[:, :1].size)
    shape = (sizes["Y"], sizes["X"])
    model_shape = scaled_shape(shape, scale_factors(size, model_um, str(file)))

    def beside(kind: str) -> Path:
        return path.with_name(f"{path.name}_{kind}")

    pictures = {}
    for t, z in _planes(opened) if options.overlay else ():
        places = [("t", t, sizes["T"]), ("z", z, sizes["Z"])]
        place = "".join(f"{axis}{i:03}_" for axis, i, length in places if length > 1)
        pictures[t, z] = beside(f"{place}overlay.png")
    return _Image(
        file, scene, options,
        threshold=predictor.threshold(options.threshold, options.condition),
        boxes=tuple(blocks(shape, block_side(shape, model_shape, predictor.core, CHUNK))),
        mask=beside(f"mask{ending}"),
        probability=beside(f"probability{ending}") if options.probability else None,
        pictures=pictures,
    )  # fmt: skip


def _open_channels(
    predictor: Predictor, file: Path, scene: str | None, options: PredictionOptions
) -> xr.DataArray:
    """Open what the model sees, with the sizes that were said over the file's own."""
    image = read_channels(file, predictor.channels(options.channels), scene=scene)
    said = size_of(options.z_step_um, options.pixel_size_um)
    return image.assign_attrs(pixel_size_um=image.attrs.get("pixel_size_um", {}) | said)


def _planes(opened: xr.DataArray) -> list[tuple[int, int]]:
    """List all (t, z)."""
    return list(product(range(opened.sizes["T"]), range(opened.sizes["Z"])))


@making_results()
def _predict(
    model: Callable[[], Predictor], image: _Image, advance: Callable[[int], None]
) -> Report:
    """Predict an image block by block, and write its results."""
    predictor = model()
    opened = _open_channels(predictor, image.file, image.scene, image.options)
    first, reader = opened.isel(C=[0]), predictor.reader(opened)
    shape = (opened.sizes["Y"], opened.sizes["X"])
    planes, done = _planes(opened), 0
    notices, flat = list[str](), list[str]()
    with ExitStack() as stack:  # left in reverse order: the mask is finished last
        mask = stack.enter_context(
            new_image(image.mask, first, name="mask", dtype="uint8", mask=True)
        )
        probabilities: Any = image.probability and stack.enter_context(
            new_image(image.probability, first, name="mitochondria", dtype="float32")
        )
        for t, z in planes:
            prepared = reader.at(z, t)
            if is_flat(prepared.plane.grey):  # perhaps a plane that the file lacks
                flat.append(f"z {z}" + f" of time {t}" * (opened.sizes["T"] > 1))
            if (t, z) == planes[len(planes) // 2]:  # the ends of a stack are often out of focus
                known = predictor.card.fingerprint
                notices.append(unlike_training(known, prepared.plane, str(image.file)))
            found = predictor.predict_each(prepared, shape, image.boxes)
            for box, probability in zip(image.boxes, found, strict=True):
                mask[t, 0, z, *box] = probability >= image.threshold
                if probabilities is not None:
                    probabilities[t, 0, z, *box] = probability
                done += 1
                advance(done)
        _draw(image, first, mask)
    if flat:
        notices.append(
            f"{image.file}: {len(flat)} of {len(planes)} planes are one flat grey, in which "
            f"nothing can be found ({some_names(flat)}, from 0); perhaps they were never recorded"
        )
    return Report(str(image.mask), tuple(filter(None, notices)))


def _draw(image: _Image, opened: xr.DataArray, mask: Any) -> None:
    """Draw outlines over every plane; a large one is thinned out while it is read."""
    height, width = opened.sizes["Y"], opened.sizes["X"]
    size = plane_pixel_size(opened)
    large = height * width > IN_MEMORY
    thin = slice(None, None, -(-max(height, width) // _PICTURE) if large else 1)
    for (t, z), path in image.pictures.items():
        plane = FilePlane(opened, z=z, t=t)[thin, thin]
        drawn = overlay(plane, mask[t, 0, z, thin, thin])
        write_png(path, with_bar(drawn, size and size[1] * width))


def _on_cluster(
    address: str, predictor: Predictor, out: Path
) -> tuple[Callable[[], Predictor], Scheduler]:
    """Return what gives a model to the workers of a dask cluster, and what computes jobs there."""
    if predictor.bundle is None:
        raise MitolumeError("only a model that was loaded from a folder works on a cluster")
    bundle = predictor.bundle.absolute()
    written_ns = max(path.stat().st_mtime_ns for path in bundle.iterdir())
    same = (predictor.views, predictor.core, predictor.precision)
    there = side_by_side(scheduler=address, inputs=[bundle], out=out)
    return partial(_load_once, bundle, written_ns, *same), there


@lru_cache(maxsize=1)
def _load_once(bundle: Path, written_ns: int, views: Any, core: int, precision: str) -> Predictor:
    """Keep a model on a worker for the next image; the time tells a new one in the same place."""
    import torch
    from distributed import get_worker

    torch.set_num_threads(get_worker().state.nthreads)  # the worker's other threads help
    return load(bundle, views=views, core=core, precision=precision)
