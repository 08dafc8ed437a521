"""The widget *Measure*: the objects of a mask in a table, and each leads to the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from napari.layers import Image, Labels
from qtpy.QtCore import QAbstractTableModel, Qt
from qtpy.QtWidgets import QCheckBox, QComboBox, QTableView

from mitolume.analysis.object_pictures import colours_by_value
from mitolume.batch.measure import MeasureSettings, measure_masks
from mitolume.batch.object_files import Outputs
from mitolume.errors import MitolumeError
from mitolume.io.formats import bare_name
from mitolume.io.mask_files import image_name
from mitolume.io.read import read
from mitolume.io.write import write_image
from mitolume.napari.opening import KEY, as_image, label_colours, mask_layer
from mitolume.napari.parts import Panel, PathEdit, Work, layer_box
from mitolume.text import count, quoted, title_of


class ObjectTable(QAbstractTableModel):
    """A table of objects, sorted by any column; the row of an object is found by its number."""

    def __init__(self, table: pd.DataFrame) -> None:
        super().__init__()
        self.table = table

    def rowCount(self, parent: Any = None) -> int:
        """Count the objects."""
        return len(self.table)

    def columnCount(self, parent: Any = None) -> int:
        """Count the measurements."""
        return len(self.table.columns)

    def data(self, index: Any, role: int = Qt.DisplayRole) -> Any:
        """Write a number shortly."""
        if role != Qt.DisplayRole:
            return None
        value = self.table.iat[index.row(), index.column()]
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    def headerData(self, section: int, way: Any, role: int = Qt.DisplayRole) -> Any:
        """Name a column."""
        if role != Qt.DisplayRole or way != Qt.Horizontal:
            return None
        return title_of(str(self.table.columns[section]))

    def sort(self, column: int, order: Any = Qt.AscendingOrder) -> None:
        """Sort the objects by a measurement."""
        self.layoutAboutToBeChanged.emit()
        name = self.table.columns[column]
        self.table = self.table.sort_values(name, ascending=order == Qt.AscendingOrder)
        self.layoutChanged.emit()


class MeasureWidget(Panel):
    """Measure the objects of a mask, and look at them one by one."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        hidden = ("objects", "reviewed region", "proposal")
        mask, fill_masks = layer_box(self.viewer, Labels, hidden)
        image, fill_images = layer_box(self.viewer, Image, hidden)
        self.mask = self.row("mask", mask, "A layer of labels: a mask, or numbered objects")
        self.image = self.row("intensities of", image, "Channels of the image of this layer")
        self.follow_layers(fill_masks, fill_images)
        self.out = self.row("folder", PathEdit("folder", hint="for tables, crops and outlines"))
        self.crops = self.row("", QCheckBox("crops of each object"))
        self.rois = self.row("", QCheckBox("outlines as a ROI set for Fiji"))
        self.buttons(Measure=self.measure)
        self.colour = self.row("colour by", QComboBox())
        self.colour.currentIndexChanged.connect(lambda _: self.recolour())
        self.view = QTableView(sortingEnabled=True)
        self.view.setSelectionBehavior(QTableView.SelectRows)
        self.view.setMinimumHeight(220)
        self.form.addRow(self.view)
        self.objects: Any = None
        self.model = ObjectTable(pd.DataFrame())
        self.work: Work | None = None

    def measure(self) -> None:
        """Measure in a thread; the files are those of the command line."""
        names = [layer.name for layer in self.viewer.layers]
        if self.mask.currentText() not in names:
            raise MitolumeError("there is no mask among the layers: open one, or paint one")
        mask_layer_, out = self.viewer.layers[self.mask.currentText()], self.out.path
        if out is None:
            raise MitolumeError("name a folder for the tables")
        image = None
        if self.image.currentText() in names:
            said = self.viewer.layers[self.image.currentText()].metadata.get(KEY, {})
            image = Path(said["path"]) if said.get("path") else None
        mask = self._file_of(mask_layer_, image, out)
        if self.crops.isChecked() and image is None:
            raise MitolumeError("crops are cut out of an image: choose one that is in a file")
        outputs = Outputs(
            crops=out / "crops" if self.crops.isChecked() else None,
            rois=out / "rois" if self.rois.isChecked() else None,
            labels=out / "labels",
        )
        table = out / "objects.csv"
        images = [] if image is None else [image]
        given = {"out": table, "labels": outputs.labels, "intensity": image}
        given |= {"crops": outputs.crops, "rois": outputs.rois}
        said = [f" --{option} {quoted(path)}" for option, path in given.items() if path]
        self.script(f"mitolume measure {quoted(mask)}{''.join(said)} --overwrite")
        settings = MeasureSettings(outputs=outputs)

        def compute() -> Any:
            outcome = measure_masks([mask], table, settings, images=images, overwrite=True)
            outcome.raise_faults("masks", "measured")
            return pd.read_csv(table), outcome, mask, out

        self.said.setText("measuring")
        self.work = Work(compute, lambda found: self._show(*found), self.fail)

    def _file_of(self, layer: Any, image: Path | None, out: Path) -> Path:
        """Return the mask's file; where it is painted or changed, as it is now, in the folder."""
        said = layer.metadata.get(KEY, {}).get("path")
        if said and np.array_equal(mask_layer(read(Path(said)), "")[0], layer.data):
            return Path(said)
        path = out / f"{bare_name(image) if image else 'painted'}_mask.ome.tif"
        write_image(path, as_image(layer))
        return path

    def _show(self, *found: Any) -> None:
        table, outcome, mask, out = found
        labels = read(out / "labels" / f"{image_name(mask)}_labels.ome.tif")
        data, settings, _ = mask_layer(labels, "objects")
        self.remove_layer("objects")
        settings.pop("colormap", None)
        self.objects = self.viewer.add_labels(np.asarray(data), **(settings | {"opacity": 0.7}))
        self.objects.mouse_drag_callbacks.append(self._to_row)
        self.model = ObjectTable(table[["label", *(name for name in table if name != "label")]])
        self.view.setModel(self.model)
        self.view.selectionModel().currentRowChanged.connect(lambda now, _: self._fly(now.row()))
        self.view.resizeColumnsToContents()
        self.colour.clear()
        numbers = [str(n) for n in table.select_dtypes("number") if n != "label"]
        for name in ["", *numbers]:
            self.colour.addItem(title_of(name) if name else "number", name)
        self.tell(outcome.summary or count(len(table), "object"))

    def _fly(self, row: int) -> None:
        """Go to an object, and mark it."""
        if row < 0 or self.objects is None:
            return
        label = int(self.model.table["label"].to_numpy()[row])
        where = np.argwhere(np.asarray(self.objects.data) == label)
        if not len(where):
            return
        self.objects.selected_label = label
        centre = self.objects.data_to_world(where[len(where) // 2])
        for axis in range(self.objects.ndim - 2):
            self.viewer.dims.set_point(axis, centre[axis])
        middle = (where.min(axis=0) + where.max(axis=0)) / 2
        self.viewer.camera.center = tuple(self.objects.data_to_world(middle))

    def _to_row(self, layer: Any, event: Any) -> Iterator[None]:
        """Select the row of the object that was clicked on, not that of a drag's beginning."""
        yield
        if event.type == "mouse_move":
            return
        value = layer.get_value(
            event.position, view_direction=event.view_direction,
            dims_displayed=event.dims_displayed, world=True,
        )  # fmt: skip
        found = np.flatnonzero(self.model.table["label"].to_numpy() == value)
        if len(found):
            self.view.selectRow(int(found[0]))

    def recolour(self) -> None:
        """Colour the objects by a measurement."""
        name = self.colour.currentData()
        if self.objects is None or not name:
            return
        colours = colours_by_value(self.model.table[name].to_numpy(np.float64))
        labels = self.model.table["label"].tolist()
        self.objects.colormap = label_colours(dict(zip(labels, colours, strict=True)))
