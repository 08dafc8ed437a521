"""The table of fields that is labelled: its masks, and drafts of masks. Knows no window."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from mitolume.batch.label import QUALITY
from mitolume.io.fields import Field, format_planes, is_same_image, row_names, with_label
from mitolume.io.formats import bare_name
from mitolume.io.mask_files import distinct_values, kind_of, open_mask
from mitolume.io.masks import BACKGROUND, UNSURE, Mask, meaning_of, to_mask
from mitolume.io.read import load, read
from mitolume.io.rows import open_image
from mitolume.io.table import read_table, write_table
from mitolume.io.write import is_ours, owning, write_image, write_masks

_OWN = "_napari"  # what a table that someone else wrote is called where it goes on


class LabelTable:
    """A table of fields, and the folder of masks beside it.

    A table that someone else wrote is never changed: it goes on as ``NAME_napari.csv``, which is
    taken up when the table is opened again.

    Parameters
    ----------
    path
        The table; it need not be there yet.

    Raises
    ------
    MitolumeError
        The table is faulty.
    """

    def __init__(self, path: Path) -> None:
        tables = [path]
        while tables[-1].exists() and not is_ours(tables[-1]):
            tables.append(path.with_name(f"{tables[-1].stem}{_OWN}.csv"))
        self.path = tables[-1]
        self.masks = self.path.with_name(f"{self.path.stem}_masks")
        self.rows: list[Field] = []
        for table in reversed(tables):  # the newest first; rows that only older ones have, behind
            known = {_place(row) for row in self.rows}
            if table.exists():
                self.rows += [row for row in read_table(table) if _place(row) not in known]

    def titles(self) -> list[str]:
        """Return how a list shows each row."""
        return [
            row.image.name
            + f" {row.scene}" * bool(row.scene)
            + (f", {_named(row.planes)}" if row.planes is not None else "")
            + f": {self.state(row)}"
            for row in self.rows
        ]

    def state(self, row: Field) -> str:
        """Return what is known of a row in a word or two."""
        if self.draft(row).exists():
            return "draft"
        if not row.is_labelled:
            return "dye recorded" if row.fluorescence else "no label"
        return f"labelled ({row.label})" if row.label else "labelled"

    def signals(self) -> dict[tuple[Path, int], float]:
        """Return what `mitolume label` or a run beside the table wrote of the dye of planes.

        By image and plane: how many times brighter than the noise the dye is. Of images of one name
        in several folders, those are known whose mask is named.
        """
        images: dict[str, set[Path]] = defaultdict(set)
        for row in self.rows:
            images[row.image.name].add(row.image)
        of_mask = {row.mask.name: row.image for row in self.rows if row.mask}
        figures: dict[tuple[Path, int], float] = {}
        for file in (self.path.with_name(QUALITY), self.path.parent / "dye" / QUALITY):
            for line in pd.read_csv(file).to_dict("records") if file.exists() else ():
                same = images[str(line["image"])]
                if len(same) > 1:
                    same = same & {of_mask.get(str(line.get("mask")))}
                signal = float(line["signal_to_noise"])
                figures |= {(image, int(line["plane"])): signal for image in same if image}
        return figures

    def add(self, row: Field) -> int:
        """Add a row, unless one of the same image has its planes; return its index."""
        self._read_again()
        for index, one in enumerate(self.rows):
            if is_same_image(one, row) and row.planes in (None, one.planes):
                return index
        self.rows.append(row)
        write_table(self.path, self.rows)
        return len(self.rows) - 1

    def renew(self, index: int) -> int:
        """Read the table, which another widget may have changed; return where a row is now."""
        row = self.rows[index]
        self._read_again()
        planes = set(row.planes or ())

        def likeness(number: int) -> tuple[bool, int]:
            one = self.rows[number]
            return _place(one) == _place(row), len(planes & set(one.planes or ()))

        same = (n for n, one in enumerate(self.rows) if is_same_image(one, row))
        return max(same, key=likeness)

    def _read_again(self) -> None:
        if self.path.exists():
            now = read_table(self.path)
            self.rows = now + [
                row for row in self.rows if not any(is_same_image(row, one) for one in now)
            ]

    def load(self, row: Field) -> tuple[Mask, Mask, str]:
        """Return what is painted and where it was reviewed, both (Z, Y, X), and where it is from.

        A draft comes before the outlines of all rows of the image, of which all that is not unsure
        was reviewed.
        """
        image = open_image(row)
        shape = tuple(image.sizes[axis] for axis in "ZYX")
        if self.draft(row).exists():
            painted, reviewed = load(read(self.draft(row))).values[0]
            return painted, reviewed, "a draft"
        painted, reviewed = np.zeros((2, *shape), np.uint8)
        source = ""
        for one in self.rows:
            if one.mask is None or not one.is_outlined or not is_same_image(one, row):
                continue
            mask, source = open_mask(one.mask, image), str(one.mask)
            kind = kind_of(mask, meaning_of({one.mask.name: distinct_values(mask)})[0])
            for z in one.planes if one.planes is not None else range(shape[0]):
                own = np.asarray(mask.isel(T=0, C=0, Z=z if mask.sizes["Z"] > 1 else 0).values)
                painted[z] = to_mask(own, "unsure" if one.label else kind)
                reviewed[z] = painted[z] != UNSURE
        return painted, reviewed, source

    def draft(self, row: Field) -> Path:
        """Return the file of a row's draft, the same for all planes of an image."""
        key = "\n".join([os.path.abspath(row.image), row.scene, row.channel])
        name = f"{bare_name(row.image)}_{hashlib.sha256(key.encode()).hexdigest()[:8]}.ome.tif"
        return self.masks / "drafts" / name

    def save_draft(self, row: Field, painted: Mask, reviewed: Mask) -> None:
        """Write a draft, whole or not at all."""
        draft = self.draft(row)
        both = xr.DataArray(np.stack([painted, reviewed]), dims=tuple("CZYX"))
        with owning(draft.parent):
            write_image(draft, both, names=["painted", "reviewed"])

    def accept(
        self,
        index: int,
        mask: Mask,
        *,
        label: str = "painted",
        planes: Sequence[int] = (),
        **said: str,
    ) -> Path:
        """Write a mask, and the row that names it; the row's draft is done with.

        Parameters
        ----------
        index
            The row.
        mask
            (Z, Y, X) as `finished` returns it.
        label
            Column ``label`` of the row.
        planes
            Which planes count; by default those of which anything is known.
        said
            Further columns of the row.

        Returns
        -------
        pathlib.Path
            The mask.
        """
        index = self._home(index)
        row = self.rows[index]
        known = list(planes) or np.flatnonzero((mask != UNSURE).any(axis=(1, 2))).tolist()
        depth = len(mask)
        rows = with_label(self.rows, index, Path(), known, depth=depth, label=label)
        name = row_names(rows)[index]
        path = self.masks / f"{name}_mask.ome.tif"
        number = 2
        while path.exists() and row.mask != path:  # that of other planes of the same image
            path = self.masks / f"{name}_{number}_mask.ome.tif"
            number += 1
        write_masks(path, mask, open_image(row))
        rows[index] = replace(rows[index], mask=path, extra=rows[index].extra | said)
        write_table(self.path, rows)
        self.rows = read_table(self.path)
        self.draft(row).unlink(missing_ok=True)
        return path

    def _home(self, index: int) -> int:
        """Return the row of an image that was painted already; else the one that is meant."""
        painted = [
            number
            for number, row in enumerate(self.rows)
            if row.label == "painted" and is_same_image(row, self.rows[index])
        ]
        return next(iter(painted), index)

    def note(self, index: int, **said: str) -> None:
        """Fill in further columns of a row."""
        row = self.rows[index]
        self.rows[index] = replace(row, extra=row.extra | said)
        write_table(self.path, self.rows)


def finished(painted: Mask, reviewed: Mask) -> Mask:
    """Return the mask: what is not painted is background where it was reviewed, else unsure.

    Examples
    --------
    >>> finished(np.array([0, 1, 255, 0], np.uint8), np.array([1, 0, 1, 0], np.uint8)).tolist()
    [0, 1, 255, 255]
    """
    mask = painted.copy()
    mask[(painted == BACKGROUND) & (reviewed == 0)] = UNSURE
    return mask


def _place(row: Field) -> tuple[Any, ...]:
    return os.path.abspath(row.image), row.scene, row.channel, row.planes


def _named(planes: Sequence[int]) -> str:
    return f"plane{'s' * (len(planes) != 1)} {format_planes(planes)}"
