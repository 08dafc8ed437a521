"""The images of a run: its rows plane by plane, prepared for training. Knows no network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mitolume.inference.chain import apply_chain
from mitolume.io.check import open_image, read_row
from mitolume.io.fields import Field, format_planes
from mitolume.io.formats import bare_name
from mitolume.io.masks import Mask, MaskKind
from mitolume.io.pixel_size import plane_pixel_size
from mitolume.io.read import Image2D
from mitolume.preprocess.rescale import rescale_mask
from mitolume.preprocess.settings import ChainSettings
from mitolume.training.patches import PreparedImage


@dataclass(frozen=True)
class RowImage:
    """One plane of one row: what scores call an image."""

    row: Field
    z: int
    mask_kind: MaskKind

    @property
    def name(self) -> str:
        """How tables and messages name it."""
        return self.row.image.name

    def read(self) -> tuple[Image2D, Mask | None, tuple[float, float] | None]:
        """Return the plane, its mask (None: unlabelled) and its pixel size along Y and X."""
        plane, mask = read_row(self.row, self.z, self.mask_kind)
        return plane, mask, plane_pixel_size(open_image(self.row))


def images_of(rows: Iterable[Field], role: str, mask_kind: MaskKind) -> list[RowImage]:
    """Return the images of all rows of a role, in the order of the table."""
    return [
        RowImage(row, z, mask_kind) for row in rows if row.role == role for z in row.planes or ()
    ]


def row_names(rows: Sequence[Field]) -> list[str]:
    """Return a name for each row that is free of endings and unlike all others'.

    The file's name, with its planes where several rows share a file, and numbered where that is
    still not enough.
    """
    files = Counter(row.image for row in rows)
    names = []
    for row in rows:
        name = bare_name(row.image)
        if files[row.image] > 1:
            name += "_z" + format_planes(row.planes).replace(" ", "_")
        # A file name may have 255 bytes, and endings are still to come.
        names.append(name[:120])
    seen: Counter[str] = Counter()
    repeated = Counter(names)
    for i, name in enumerate(names):
        seen[name] += 1
        if repeated[name] > 1:
            names[i] = f"{name}_{seen[name]}"
    return names


def prepare(
    images: Sequence[RowImage],
    chain: ChainSettings,
    model_um: float | None,
    scratch: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
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

    Returns
    -------
    list of PreparedImage
        Their arrays are memory-mapped.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    prepared = []
    for number, image in enumerate(images):
        progress(number, len(images))
        plane, mask, size = image.read()
        ready = apply_chain(
            plane,
            chain,
            pixel_size_um=size,
            model_um=model_um,
            unlabelled=image.row.role == "unlabelled",
            source=str(image.row.image),
        )
        files = scratch / f"{number}_image.npy", scratch / f"{number}_mask.npy"
        np.save(files[0], ready)
        if mask is not None:
            np.save(files[1], rescale_mask(mask, (ready.shape[0], ready.shape[1])))
        prepared.append(
            PreparedImage(
                np.load(files[0], mmap_mode="r"),
                None if mask is None else np.load(files[1], mmap_mode="r"),
                f"{image.name} plane {image.z}",
            )
        )
    progress(len(images), len(images))
    return prepared
