"""One field: its mask becomes numbered objects, a table and crops, a window at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from mitolume.analysis.crops import Crop, crop_box, cut
from mitolume.analysis.labelling import ObjectSettings, label_blocks
from mitolume.analysis.measure import margin_of, measure_objects
from mitolume.analysis.object_index import (
    BOX,
    Window,
    blocks_of,
    index_objects,
    join_parts,
    windows_of,
)
from mitolume.errors import MitolumeError
from mitolume.io.masks import UNSURE, MaskKind, to_mask
from mitolume.io.read import load

Array = np.ndarray[Any, Any]
PixelSize = dict[str, float]

BLOCK = 2048  # side of the blocks that are labelled one by one
_IN_MEMORY = 2**26  # pixels; a larger image's labels and grey values stay on disk


class _LazyArray:
    """A labelled array of which each part is read, and converted, when it is asked for."""

    def __init__(self, source: xr.DataArray, convert: Callable[[Array], Array]) -> None:
        self.shape, self.dtype = source.shape, source.dtype
        self._source, self._convert = source, convert

    def __getitem__(self, part: Any) -> Array:
        return self._convert(np.asarray(load(self._source[part]).values))


def load_if_small(image: xr.DataArray) -> xr.DataArray:
    """Read an image that fits into memory whole, so that its file isn't opened for each part."""
    return load(image) if image.size <= _IN_MEMORY else image


@dataclass(frozen=True)
class Frame:
    """What is labelled at once: some planes of one time point, and its objects.

    ``labels`` is (Z, Y, X), int32; ``index`` lists the objects (see `label_blocks`); ``doubt`` is
    True where nobody knows what is there, None where the mask can't say so.
    """

    t: int
    planes: slice
    labels: Any
    index: pd.DataFrame
    doubt: _LazyArray | None = None

    def n_unsure(self) -> int:
        """Count the pixels of which nobody knows what they are; those of filled holes are known."""
        if self.doubt is None:
            return 0
        return sum(
            int((self.doubt[box] & (np.asarray(self.labels[box]) == 0)).sum())
            for box in _boxes_of(self.labels.shape)
        )


def label_field(
    mask: xr.DataArray,
    kind: MaskKind | None,
    settings: ObjectSettings,
    *,
    in_3d: bool,
    scratch: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Frame]:
    """Label the objects of a field, frame by frame, numbered without gaps through all frames.

    ``mask`` has the dims ``T Z Y X``; where ``kind`` is None it is a label image, whose numbers are
    kept, and -1 unsure. With ``in_3d``, objects go on from plane to plane; else each plane is
    labelled on its own. ``scratch`` is an empty folder for what does not fit into memory.
    ``progress`` is called with the blocks done and the blocks of one frame.
    """

    def marked(values: Array) -> Array:
        # Probabilities stay as they are: `label_blocks` cuts them at the settings' threshold.
        return values if kind is None or values.dtype.kind == "f" else to_mask(values, kind)

    def unsure(values: Array) -> Array:
        return values < 0 if kind is None else np.asarray(to_mask(values, kind) == UNSURE)

    size = mask.attrs.get("pixel_size_um", {})
    depth = mask.sizes["Z"]
    spans = [slice(0, depth)] if in_3d else [slice(z, z + 1) for z in range(depth)]
    before = 0
    for t in range(mask.sizes["T"]):
        for number, span in enumerate(spans):
            frame = load_if_small(mask.isel(T=t, Z=span))
            labels = _store(frame.shape, scratch / f"labels_{t}_{number}.zarr")
            if kind is None:
                index = _copy_labels(frame, labels)
            else:
                values = _LazyArray(frame, marked)
                block = (frame.shape[0], BLOCK, BLOCK)
                index = label_blocks(values, labels, block, settings, size, progress, before)
                before += len(index)
            sure = frame.dtype.kind == "f" or (kind is None and frame.dtype.kind != "i")
            doubt = None if sure else _LazyArray(frame, unsure)
            yield Frame(t, span, labels, index, doubt)


def measure_frame(
    frame: Frame,
    image: xr.DataArray | None,
    size: PixelSize,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """Measure the objects of a frame, a row for each (see `measure_objects`).

    ``image`` has dims ``C Z Y X``, the planes of the frame; None measures shapes only. ``progress``
    is called with the objects done and the objects there are.
    """
    names = [] if image is None else [str(name) for name in image["C"].values]
    shape = tuple(frame.labels.shape)
    tables, done = [], 0
    # Without objects a corner of the image gives the empty table its columns and types.
    nothing = [(tuple(slice(0, 1) for _ in shape), frame.index)]
    for window, group in list(windows_of(frame.index, shape, margin_of(shape, size))) or nothing:
        grey = None if image is None else load(image[(slice(None), *window)]).values
        tables.append(
            measure_objects(
                np.asarray(frame.labels[window]),
                None if grey is None else dict(zip(names, grey, strict=True)),
                size,
                unsure=None if frame.doubt is None else frame.doubt[window],
                only=group["label"].tolist(),
                origin=[part.start for part in window],
                image_shape=shape,
            )
        )
        done += len(group)
        progress(done, len(frame.index))
    return pd.concat(tables, ignore_index=True).sort_values("label", ignore_index=True)


def crops_of_frame(
    frame: Frame, image: xr.DataArray, size: PixelSize, margin_um: float
) -> Iterator[Crop]:
    """Cut every object of a frame out of an image, with a margin as for `crop_box`.

    The image has dims ``C Z Y X``: the planes of the frame, or every plane of a stack whose mask
    has one.
    """
    shape = frame.labels.shape
    whole = crop_box((0, 0, 0, 0, 0, 0), margin_um, size, (2**31,) * 3)
    margin = tuple(part.stop for part in whole)
    for window, group in windows_of(frame.index, shape, margin):
        labels = np.asarray(frame.labels[window])
        planes = window[0] if shape[0] > 1 else slice(None)
        part = load(image[(slice(None), planes, *window[1:])])
        origin = [span.start for span in window]
        for row in group.to_dict("records"):
            box = crop_box([row[edge] for edge in BOX], margin_um, size, shape)
            yield cut(part, labels, row["label"], box, origin)


def _boxes_of(shape: Sequence[int]) -> list[Window]:
    """Cut (Z, Y, X) into blocks of whole depth."""
    return blocks_of(shape, (shape[0], BLOCK, BLOCK))


def _store(shape: tuple[int, ...], place: Path) -> Any:
    if np.prod(shape) <= _IN_MEMORY:
        return np.zeros(shape, np.int32)
    import zarr

    chunks = (1, min(BLOCK // 2, shape[1]), min(BLOCK // 2, shape[2]))
    return zarr.create_array(str(place), shape=shape, chunks=chunks, dtype="int32")


def _copy_labels(frame: xr.DataArray, labels: Any) -> pd.DataFrame:
    """Take a label image as it is, and list its objects."""
    tables = []
    for box in _boxes_of(frame.shape):
        values = np.maximum(load(frame[box]).values, 0)
        if values.max(initial=0) > np.iinfo(np.int32).max:
            raise MitolumeError(
                f"{frame.attrs.get('source', 'the mask')} has object numbers up to {values.max()}; "
                "renumber the objects (Fiji: MorphoLibJ > Remap Labels)"
            )
        labels[box] = values.astype(np.int32)
        tables.append(index_objects(values.astype(np.int32), [s.start for s in box], frame.shape))
    return join_parts(pd.concat(tables, ignore_index=True))
