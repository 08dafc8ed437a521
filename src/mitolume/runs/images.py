"""The images of a run: its rows plane by plane, prepared for training. Knows no network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mitolume.inference.chain import PreparedPlane
from mitolume.inference.denoise import Denoiser, open_neighbours
from mitolume.inference.predictor import Predictor
from mitolume.io.check import open_image, read_row
from mitolume.io.fields import Field
from mitolume.io.masks import Mask, MaskKind
from mitolume.io.pixel_size import plane_pixel_size
from mitolume.io.read import Image2D
from mitolume.io.windows import Plane
from mitolume.preprocess.rescale import rescale_mask
from mitolume.preprocess.settings import ChainSettings
from mitolume.training.patches import ArrayFile, PreparedImage


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


def prepare(
    images: Sequence[RowImage],
    chain: ChainSettings,
    model_um: float | None,
    scratch: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    denoiser: Denoiser | None = None,
    planes_in: int = 1,
) -> list[PreparedImage]:
    """Bring images to the network's grid, kept on disk so that memory stays flat.

    Parameters
    ----------
    images
        Planes of one role.
    chain
        The steps.
    model_um
        The model's pixel size.
    scratch
        A folder of the run for arrays; the caller removes it.
    progress
        Called with the images done and the images there are.
    denoiser
        Needed where the chain has one.
    planes_in
        How many planes the network sees at once.

    Returns
    -------
    list of PreparedImage
        Their arrays are memory-mapped.
    """
    planes, masks = (
        ArrayFile(scratch / n, t) for n, t in (("planes", np.float32), ("masks", np.uint8))
    )
    for number, image in enumerate(images):
        progress(number, len(images))
        plane, mask, size = image.read()
        ready = PreparedPlane(
            plane,
            chain,
            planes_in=planes_in,
            denoiser=denoiser,
            neighbours=image.neighbours,
            pixel_size_um=size,
            model_um=model_um,
            unlabelled=image.row.role == "unlabelled",
            source=str(image.row.image),
        )
        planes.append(np.asarray(ready))
        if mask is not None:
            masks.append(rescale_mask(mask, ready.shape))
    progress(len(images), len(images))
    labelled = iter(masks.read_all())
    return [
        PreparedImage(plane, next(labelled) if image.row.is_labelled else None)
        for plane, image in zip(planes.read_all(), images, strict=True)
    ]


def with_masks_on_disk(images: Iterable[PreparedImage], scratch: Path) -> list[PreparedImage]:
    """Move masks that are made one after the other to disk, so that memory stays flat.

    Parameters
    ----------
    images
        All with masks or all without.
    scratch
        A folder of the run for arrays; the caller removes it.

    Returns
    -------
    list of PreparedImage
        The same, their masks memory-mapped.
    """
    file: ArrayFile | None = None
    bare: list[PreparedImage] = []
    for image in images:
        if image.mask is not None:
            file = file or ArrayFile(scratch / "masks", image.mask.dtype.type)
            file.append(image.mask)
        bare.append(PreparedImage(image.image))
    if file is None:
        return bare
    return [replace(i, mask=m) for i, m in zip(bare, file.read_all(), strict=True)]
