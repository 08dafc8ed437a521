"""The images of a run: each is a plane of a row, with its mask and what tables call it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mitolume.inference.chain import PreparedPlane
from mitolume.inference.denoise import open_neighbours
from mitolume.inference.predictor import Predictor
from mitolume.io.check import open_image, read_row
from mitolume.io.fields import Field
from mitolume.io.masks import Mask, MaskKind
from mitolume.io.pixel_size import plane_pixel_size
from mitolume.io.read import Image2D
from mitolume.io.windows import Plane


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
    """

    row: Field
    z: int
    mask_kind: MaskKind
    line: int
    row_name: str

    @property
    def name(self) -> str:
        """How people read it: the file, and the plane where there are several."""
        several = len(self.row.planes or ()) > 1 or self.z > 0
        return f"{self.row.image.name}, plane {self.z}" if several else self.row.image.name

    @property
    def facts(self) -> dict[str, Any]:
        """What tables say of it."""
        row = self.row
        return {
            "line": self.line, "image": row.image.name, "plane": self.z,
            "specimen": row.specimen, "condition": row.condition, "batch": row.batch,
        }  # fmt: skip

    def read(self) -> tuple[Image2D, Mask | None, tuple[float, float] | None]:
        """Return the plane, its mask (None: unlabelled) and its pixel size along Y and X in µm."""
        plane, mask = read_row(self.row, self.z, self.mask_kind)
        return plane, mask, plane_pixel_size(open_image(self.row))

    def prepared(self, predictor: Predictor) -> tuple[Image2D, Mask | None, PreparedPlane]:
        """Return the plane, its mask, and the plane as a model's network reads it, all (Y, X)."""
        plane, mask, size = self.read()
        ready = predictor.prepare(
            plane,
            size,
            neighbours=self.neighbours,
            unlabelled=self.row.role == "unlabelled",
            source=str(self.row.image),
        )
        return plane, mask, ready

    @property
    def neighbours(self) -> list[Plane]:
        """The planes around it in its stack, still in their file."""
        return open_neighbours(open_image(self.row), self.z)
