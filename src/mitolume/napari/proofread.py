"""The widget *Proofread*: masks of a run's model or of the dye, the least trusted first."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mitolume.errors import MitolumeError
from mitolume.io.fields import Field, is_same_image, with_planes
from mitolume.io.listing import RUN_RECORD
from mitolume.io.masks import FOREGROUND, Mask
from mitolume.io.rows import read_row
from mitolume.napari.label import FieldPanel
from mitolume.napari.label_table import LabelTable, finished
from mitolume.napari.parts import PathEdit, rate
from mitolume.runs.folder import Run, open_run
from mitolume.text import quoted

_COLUMN = "proofread"  # of the table: what was decided of a row
_LEFT = "left"


@dataclass(frozen=True)
class Item:
    """A mask of one plane to look at: the row, the plane, how far it is trusted, what it is.

    ``mask`` is a call that reads it, ``figure`` the number behind ``trust``, higher for more.
    """

    row: Field
    z: int
    trust: str
    mask: Any
    figure: float


def items_of_run(run: Run) -> list[Item]:
    """Return the unlabelled images of a run with the masks of its kept model, by its audit."""
    if not run.has_audit:
        raise MitolumeError(f"{run.path} has no unlabelled images, whose masks could be proofread")
    items = []
    for line in run.audit.to_dict("records"):
        image = run.image(line["line"], line["plane"])
        sign = "disagreement" if np.isfinite(line["disagreement"]) else "feature_distance"
        known = bool(np.isfinite(line[sign]))  # of one labelled image, no distance is known
        trust = f"{sign.replace('_', ' ')} {line[sign]:.2f}" if known else "not compared"
        read = lambda image=image: run.mask(run.kept, image)  # noqa: E731
        items.append(Item(image.row, image.z, trust, read, -line[sign]))
    return items


def items_of_table(table: LabelTable) -> list[Item]:
    """Return the masks that were made from the dye, and what became of them, weakest first."""
    figures, items = table.signals(), []
    for row in table.rows:
        for z in row.planes or ():
            if row.label != "dye" and f", {z} " not in f", {row.extra.get(_COLUMN, '')}":
                continue
            signal = figures.get((row.image, z), float("nan"))
            trust = f"signal {signal:.0f} x noise" if np.isfinite(signal) else "of the dye"
            read = lambda row=row, z=z: read_row(replace(row, role=""), z, "unsure")[1]  # noqa: E731
            items.append(Item(row, z, trust, read, signal))
    if not items:
        raise MitolumeError(f"{table.path} has no mask that was made from the dye (column `label`)")
    return sorted(items, key=lambda item: item.figure)


class ProofreadWidget(FieldPanel):
    """Accept or correct masks one by one; what is accepted joins the table of fields."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.source = self.row(
            "masks of",
            PathEdit("file", shared="model", hint="run folder, or table with dye masks"),
        )
        self.source.changed.connect(lambda: self.attempt(self.open_source))
        self.list = self.names(180, self._show)
        self.key_buttons()
        made = self.buttons(Accept=self.accept, Unsure=self.unsure, Next=self.next)
        made["Accept"].setToolTip("The mask as it is now, corrected or not, joins the table (a)")
        made["Unsure"].setToolTip("Leave the field unlabelled, and don't ask again (s)")
        self.items: list[Item] = []
        self._at = -1
        self._before: Mask | None = None

    def open_source(self) -> None:
        """List the masks of a run or of a table."""
        path = self.source.path
        if path is None:
            return
        self.close_field()
        if (path / RUN_RECORD).exists():
            run = open_run(path)
            self.table = LabelTable(Path(run.record["fields"]))
            self.items = items_of_run(run)
            self.script(f"mitolume suggest {quoted(path)}")
        else:
            self.table = LabelTable(path)
            self.items = items_of_table(self.table)
        self._list()
        self.next()

    def accept(self) -> None:
        """Take the mask as it is now: what is not painted is background."""
        painting, item, table = self.painting, self._item(), self.table
        same = bool((painting.painted[item.z] == self._before).all())
        painting.settle()
        reviewed = painting.reviewed.copy()
        reviewed[item.z] = 1
        planes = {z for row in self._rows(item) if row.label == "painted" for z in row.planes or ()}
        mask = finished(painting.painted, reviewed)
        self._decide(
            item,
            "accepted" if same else "corrected",
            lambda number, **said: table.accept(
                number, mask, planes=sorted({item.z, *planes}), **said
            ),
        )

    def unsure(self) -> None:
        """Leave the field as it is, and say so in the table."""
        self._decide(self._item(), "unsure", self.table.note)

    def next(self) -> None:
        """Show the next mask that nobody has decided on."""
        states = [self._state(item) for item in self.items]
        left = [n for n, state in enumerate(states) if state == _LEFT]
        if not left:  # the last one stays: an empty window crashes some renderers
            self.tell(f"all are done: {self._counts()}")
            return
        self._show(next((n for n in left if n > self._at), left[0]))

    # Inside ----------------------------------------------------------------------------------

    def _item(self) -> Item:
        _ = self.field
        return self.items[self._at]

    def _rows(self, item: Item) -> list[Field]:
        return [row for row in self.table.rows if is_same_image(row, item.row)]

    def _index(self, item: Item) -> Any:
        """Return the row of the table that holds an item's plane, added where there is none."""
        for number, row in enumerate(self.table.rows):
            if is_same_image(row, item.row) and (row.planes is None or item.z in row.planes):
                return number
        return self.table.add(replace(with_planes(item.row, [item.z]), mask=None, role=""))

    def _decided(self, item: Item) -> dict[int, str]:
        """Return what was decided of the planes of an image, as column `_COLUMN` says it."""
        said = ", ".join(row.extra.get(_COLUMN, "") for row in self._rows(item))
        parts = (part.split(" ", 1) for part in said.split(", ") if " " in part)
        return {int(z): state for z, state in parts if z.isdecimal()}

    def _state(self, item: Item) -> str:
        return self._decided(item).get(item.z, _LEFT)

    def _decide(self, item: Item, done: str, write: Any) -> None:
        """Write a decision into the table, and go on to the next mask."""
        decided = sorted((self._decided(item) | {item.z: done}).items())
        write(self._index(item), **{_COLUMN: ", ".join(f"{z} {state}" for z, state in decided)})
        self._list()
        self.tell(f"{item.row.image.name}, plane {item.z}: {done}. {self._counts()}")
        self.next()

    def _show(self, number: int) -> None:
        item = self.items[number]
        painting = self.show_field(self._index(item))
        for key, call in (("a", self.accept), ("s", self.unsure)):
            for layer in (painting.labels, painting.region):
                layer.bind_key(key, lambda _, call=call: self.attempt(call), overwrite=True)
        self._at = number
        self.list.setCurrentRow(number)
        if painting.labels.ndim == 3:
            self.viewer.dims.set_current_step(0, item.z)
        mask = np.asarray(item.mask())
        if not painting.painted[item.z].any() and not painting.reviewed[item.z].any():
            painting.painted[item.z] = mask
            painting.settle()
            painting.labels.refresh()
        self._before = painting.painted[item.z].copy()
        share = float((mask == FOREGROUND).mean())
        place = f"{item.row.image.name}, plane {item.z}"
        self.said.setText(f"{place}: {item.trust}, {share:.1%} marked. {self._counts()}")

    def _list(self) -> None:
        self.list.clear()
        self.list.addItems(
            f"{self._state(item)}: {item.row.image.name}, plane {item.z} ({item.trust})"
            for item in self.items
        )
        rate(self.list, [item.figure for item in self.items])

    def _counts(self) -> str:
        counts = Counter(self._state(item) for item in self.items)
        names = (_LEFT, "accepted", "corrected", "unsure")
        return ", ".join(f"{counts[name]} {name}" for name in names)
