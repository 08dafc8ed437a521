"""Predict one image: every plane of it, block by block, so that any size fits into memory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import xarray as xr

from mitolume.analysis.pictures import overlay, with_bar, write_png
from mitolume.batch.runner import Report
from mitolume.batch.sources import size_of
from mitolume.errors import some_names
from mitolume.inference.predictor import Predictor
from mitolume.inference.tiles import Box, block_side, blocks
from mitolume.io.listing import result_ending
from mitolume.io.pixel_size import plane_pixel_size
from mitolume.io.read import read_channels
from mitolume.io.windows import IN_MEMORY, FilePlane
from mitolume.io.write import making_results
from mitolume.io.zarr_out import CHUNK, new_image
from mitolume.preprocess.fingerprint import unlike_training
from mitolume.preprocess.normalise import is_flat
from mitolume.preprocess.rescale import scale_factors, scaled_shape

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
class PlannedImage:
    """One image, the boxes in which its planes are predicted, and the files that it becomes."""

    file: Path
    scene: str | None
    options: PredictionOptions
    threshold: float
    boxes: tuple[Box, ...]
    mask: Path
    probability: Path | None
    pictures: dict[tuple[int, int], Path]  # (t, z) -> file


def plan_image(
    file: Path,
    scene: str | None,
    opened: xr.DataArray,
    options: PredictionOptions,
    predictor: Predictor,
    path: Path,
) -> PlannedImage:
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
    return PlannedImage(
        file, scene, options,
        threshold=predictor.threshold(options.threshold, options.condition),
        boxes=tuple(blocks(shape, block_side(shape, model_shape, predictor.core, CHUNK))),
        mask=beside(f"mask{ending}"),
        probability=beside(f"probability{ending}") if options.probability else None,
        pictures=pictures,
    )  # fmt: skip


def open_channels(
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
def predict_image(
    model: Callable[[], Predictor], image: PlannedImage, advance: Callable[[int], None]
) -> Report:
    """Predict an image block by block, and write its results."""
    predictor = model()
    opened = open_channels(predictor, image.file, image.scene, image.options)
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


def _draw(image: PlannedImage, opened: xr.DataArray, mask: Any) -> None:
    """Draw outlines over every plane; a large one is thinned out while it is read."""
    height, width = opened.sizes["Y"], opened.sizes["X"]
    size = plane_pixel_size(opened)
    large = height * width > IN_MEMORY
    thin = slice(None, None, -(-max(height, width) // _PICTURE) if large else 1)
    for (t, z), path in image.pictures.items():
        plane = FilePlane(opened, z=z, t=t)[thin, thin]
        drawn = overlay(plane, mask[t, 0, z, thin, thin])
        write_png(path, with_bar(drawn, size and size[1] * width))
