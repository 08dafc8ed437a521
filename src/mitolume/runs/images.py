"""The images of a run: each is a plane of a row, with its mask and what tables call it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from mitolume.inference.inputs import InputReader, NetworkInput
from mitolume.inference.predictor import Predictor
from mitolume.io.fields import Field
from mitolume.io.masks import Mask, MaskKind
from mitolume.io.pixel_size import plane_pixel_size
from mitolume.io.read import Image2D
from mitolume.io.rows import open_image, read_proposal, read_row
from mitolume.models.settings import InputSettings


@dataclass(frozen=True, eq=False)
class RowImage:
    """One plane of one row of the table: what scores call an image.

    Attributes
    ----------
    row
        Its row.
    z
        The plane in the file, from 0.
    mask_kind
        What the values of the row's mask mean.
    line
        The line of its row in the run's fields.csv, whose first line is the header.
    row_name
        What the row's mask files are called, see `mitolume.io.fields.row_names`.
    shown
        What people read of its file: the name, after folders where several have it, and the scene.
    """

    row: Field
    z: int
    mask_kind: MaskKind
    line: int
    row_name: str
    shown: str

    @property
    def name(self) -> str:
        """How people read it: the file, and the plane where there are several."""
        several = len(self.row.planes or ()) > 1 or self.z > 0
        return f"{self.shown}, plane {self.z}" if several else self.shown

    def called(self, short: Mapping[str, str]) -> str:
        """Return its `name` with the file's by what tells it from others, see `short_names`."""
        return self.name.replace(self.shown, short.get(self.shown, self.shown))

    @property
    def facts(self) -> dict[str, Any]:
        """What tables say of it."""
        row = self.row
        return {
            "line": self.line, "image": self.shown, "plane": self.z,
            "specimen": row.specimen, "condition": row.condition, "batch": row.batch,
        }  # fmt: skip

    def read(self) -> tuple[Image2D, Mask | None, tuple[float, float] | None]:
        """Return the plane, its mask (None: unlabelled) and its pixel size along Y and X in µm."""
        plane, mask = read_row(self.row, self.z, self.mask_kind)
        return plane, mask, plane_pixel_size(open_image(self.row))

    def read_proposal(self) -> Image2D | None:
        """Return the probabilities that another program gave an unlabelled image, if it did."""
        path = None if self.row.is_labelled else self.row.proposal
        return None if path is None else read_proposal(path, self.z)


def network_inputs(
    images: Iterable[RowImage], inputs: InputSettings, reader: Callable[..., InputReader]
) -> Iterator[tuple[RowImage, NetworkInput]]:
    """Yield each image with what a network sees of it; the planes of a row are read once.

    The images are in the order of the table. ``reader`` makes the reader of an opened row, such as
    `Predictor.reader`.
    """
    for _, planes in groupby(images, key=lambda image: image.line):
        opened: InputReader | None = None
        for image in planes:
            if opened is None:
                row = image.row
                opened = reader(
                    open_image(row, inputs.channels), unlabelled=row.role == "unlabelled"
                )
            yield image, opened.at(image.z)


def predictor_inputs(
    images: Iterable[RowImage], predictor: Predictor
) -> Iterator[tuple[RowImage, NetworkInput]]:
    """Yield each image with what the network of a predictor sees of it."""
    return network_inputs(images, predictor.card.inputs, predictor.reader)
