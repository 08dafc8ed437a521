"""Predict one image: arrays or OME-Zarr, filled plane by plane and block by block, and pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mitolume.analysis.pictures import overlay, write_png
from mitolume.batch.runner import Report
from mitolume.errors import MitolumeError
from mitolume.inference.chain import PreparedPlane
from mitolume.inference.denoise import open_neighbours
from mitolume.inference.predictor import Predictor
from mitolume.inference.suspicion import unlike_training
from mitolume.inference.tiles import Box, block_side, blocks
from mitolume.io.channels import select_channel
from mitolume.io.pixel_size import CREDIBLE_UM, plane_pixel_size
from mitolume.io.read import read
from mitolume.io.windows import IN_MEMORY, FilePlane, open_plane
from mitolume.io.write import write_image, write_mask
from mitolume.io.zarr_out import CHUNK, build_pyramid, full_size, new_ome_zarr
from mitolume.preprocess.normalise import GreyRange

_PICTURE = 2048  # pixels of a picture's longer side, where the plane is too large to draw as it is
_TYPES = {"mask": "uint8", "probability": "float32"}
Arrays = dict[str, Any]  # "mask", "probability" -> what is written to by (t, c, z, y, x)
Place = tuple[int, int]  # t, z of a plane


@dataclass(frozen=True)
class PredictionOptions:
    """Where to look in files, and what to write.

    Attributes
    ----------
    channel, scene
        Name or number (from 0); scene "all" is each scene of a file.
    pixel_size_um
        Pixel size along Y and X in µm, over what the files state.
    threshold
        Probability from which a pixel is mitochondria, 0 to 1; the model's own by default.
    probability, overlay
        Write probabilities and PNG pictures with outlines beside the masks.
    """

    channel: str | None = None
    scene: str | None = None
    pixel_size_um: float | None = None
    threshold: float | None = None
    probability: bool = False
    overlay: bool = False

    def __post_init__(self) -> None:
        low, high = CREDIBLE_UM
        if self.pixel_size_um is not None and not low <= self.pixel_size_um <= high:
            raise MitolumeError(
                f"--pixel-size {self.pixel_size_um:g} is not within {low:g} to {high:g} µm"
            )


@dataclass(frozen=True)
class ImagePrediction:
    """One image and the files that it becomes.

    ``shape`` is (T, C, Z, Y, X) with C of length 1, ``model_shape`` (Y, X) at the model's pixel
    size; ``pictures`` are (t, z, file).
    """

    file: Path
    scene: str | None
    options: PredictionOptions
    shape: tuple[int, ...]
    model_shape: tuple[int, int]
    mask: Path
    probability: Path | None
    pictures: tuple[tuple[int, int, Path], ...]

    @property
    def by_pieces(self) -> bool:
        """Whether results go to disk piece by piece, as OME-Zarr, and not as a whole."""
        return self.mask.suffix == ".zarr"

    @property
    def planes(self) -> list[Place]:
        """All (t, z)."""
        return list(product(range(self.shape[0]), range(self.shape[2])))

    @property
    def typical_plane(self) -> Place:
        """The (t, z) by which the image is judged: the ends of a stack are often out of focus."""
        return self.planes[len(self.planes) // 2]

    @property
    def results(self) -> tuple[Path, ...]:
        """All files that the image becomes; the mask is written last."""
        pictures = (path for _, _, path in self.pictures)
        return (*filter(None, [self.probability]), *pictures, self.mask)

    def boxes(self, core: int) -> list[Box]:
        """Return the boxes in which each plane is predicted."""
        shape = (self.shape[3], self.shape[4])
        return blocks(shape, block_side(shape, self.model_shape, core, CHUNK))

    def open(self) -> xr.DataArray:
        """Open the channel to predict."""
        return open_channel(self.file, self.scene, self.options)


def open_channel(file: Path, scene: str | None, options: PredictionOptions) -> xr.DataArray:
    """Open the channel to predict, with the pixel size that was said over the file's own."""
    image = select_channel(read(file, scene=scene), options.channel)
    if options.pixel_size_um is None:
        return image
    stated = dict(image.attrs.get("pixel_size_um", {}))
    stated |= {"Y": options.pixel_size_um, "X": options.pixel_size_um}
    return image.assign_attrs(pixel_size_um=stated)


def predict_image(
    predictor: Predictor,
    image: ImagePrediction,
    advance: Callable[[int], None] = lambda done: None,
) -> Report:
    """Predict an image and write its results; the mask comes last.

    Parameters
    ----------
    predictor
        The model.
    image
        The image, and what it becomes.
    advance
        Called with the blocks done.

    Returns
    -------
    Report
        With a notice where the image does not look like those the model knows.

    Raises
    ------
    MitolumeError
        A plane can't be read, or a result not be written; none is left half written.
    """
    opened = image.open()
    if image.by_pieces:
        with new_folders(image, opened) as folders:
            arrays: Arrays = {kind: full_size(folder) for kind, folder in folders.items()}
            notices = _fill(predictor, image, opened, arrays, advance)
            finish_folders(image, folders)
    else:
        arrays = {kind: np.zeros(image.shape, _TYPES[kind]) for kind in _paths(image)}
        notices = _fill(predictor, image, opened, arrays, advance)
        _write(image, opened, arrays)
    return Report(str(image.mask), notices)


def _fill(
    predictor: Predictor,
    image: ImagePrediction,
    opened: xr.DataArray,
    arrays: Arrays,
    advance: Callable[[int], None],
) -> tuple[str, ...]:
    """Predict every plane of an image into arrays; return notices."""
    boxes = image.boxes(predictor.core)
    done, notice = 0, ""
    for place in image.planes:
        prepared = prepare_plane(predictor, image, opened, place)
        if place == image.typical_plane:
            notice = unlike_training(predictor.card, prepared.middle, str(image.file))
        for box in boxes:
            predict_into(predictor, image, prepared, arrays, place, box)
            done += 1
            advance(done)
    return (notice,) if notice else ()


def prepare_plane(
    predictor: Predictor,
    image: ImagePrediction,
    opened: xr.DataArray,
    place: Place,
    grey: GreyRange | None = None,
) -> PreparedPlane:
    """Send a plane through the chain: at once where it is small, else box by box."""
    t, z = place
    return predictor.prepare(
        open_plane(opened, t=t, z=z),
        plane_pixel_size(opened),
        neighbours=open_neighbours(opened, z, t),
        source=str(image.file),
        grey=grey,
    )


def predict_into(
    predictor: Predictor,
    image: ImagePrediction,
    prepared: PreparedPlane,
    arrays: Arrays,
    place: Place,
    box: Box,
) -> None:
    """Predict a box of a plane into the arrays of results."""
    t, z = place
    probability = predictor.predict_box(prepared, (image.shape[3], image.shape[4]), box)
    arrays["mask"][t, 0, z, *box] = probability >= threshold_of(predictor, image.options)
    if "probability" in arrays:
        arrays["probability"][t, 0, z, *box] = probability


@contextmanager
def new_folders(image: ImagePrediction, opened: xr.DataArray) -> Iterator[dict[str, Path]]:
    """Make the OME-Zarr folders of an image under temporary names; rename them at the end."""
    size = opened.attrs.get("pixel_size_um", {})
    names = {"mask": "mask", "probability": "mitochondria"}
    with ExitStack() as stack:
        # Left in the reverse order: the mask is renamed last.
        yield {
            kind: stack.enter_context(
                new_ome_zarr(
                    path, image.shape, name=names[kind], dtype=_TYPES[kind], pixel_size_um=size
                )
            )
            for kind, path in _paths(image).items()
        }


def finish_folders(image: ImagePrediction, folders: dict[str, Path]) -> None:
    """Make the smaller levels and the pictures, once every box is written."""
    for folder in folders.values():
        build_pyramid(folder)
    if image.pictures:
        _draw(image, image.open(), full_size(folders["mask"]))


def _write(image: ImagePrediction, opened: xr.DataArray, arrays: Arrays) -> None:
    """Write arrays as OME-TIFF."""
    single = {axis: 0 for axis in "TZ" if opened.sizes[axis] == 1}
    labelled = {
        kind: xr.DataArray(array, dims=opened.dims, attrs=opened.attrs).isel(single)
        for kind, array in arrays.items()
    }
    if image.probability:
        named = labelled["probability"].assign_coords(C=np.array(["mitochondria"], dtype=object))
        write_image(image.probability, named)
    _draw(image, opened, arrays["mask"])
    write_mask(image.mask, labelled["mask"].isel(C=0))


def _draw(image: ImagePrediction, opened: xr.DataArray, mask: Any) -> None:
    """Draw outlines over every plane; a large one is thinned out while it is read."""
    height, width = image.shape[3:]
    large = height * width > IN_MEMORY
    thin = slice(None, None, -(-max(height, width) // _PICTURE) if large else 1)
    for t, z, path in image.pictures:
        plane = FilePlane(opened, z=z, t=t)[thin, thin]
        write_png(path, overlay(plane, mask[t, 0, z, thin, thin]))


def _paths(image: ImagePrediction) -> dict[str, Path]:
    """Return the arrays that are written, and where."""
    both = {"mask": image.mask, "probability": image.probability}
    return {kind: path for kind, path in both.items() if path is not None}


def threshold_of(predictor: Predictor, options: PredictionOptions) -> float:
    """Return the probability from which a pixel is mitochondria."""
    return predictor.card.threshold if options.threshold is None else options.threshold
