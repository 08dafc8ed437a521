"""The widget *Label*: outlines painted field by field, from proposals of the dye or of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox, QComboBox, QGridLayout, QWidget

from mitolume.analysis.dye_contrast import CHANCE
from mitolume.analysis.dye_labels import SMALLEST_UM, THRESHOLD, DyeLabels
from mitolume.analysis.pictures import FALSE_COLOUR
from mitolume.analysis.scribbles import PixelClassifier, pixel_features
from mitolume.errors import MitolumeError
from mitolume.io.fields import Field, with_planes
from mitolume.io.masks import BACKGROUND, FOREGROUND, UNSURE, Mask
from mitolume.io.read import read, read_plane
from mitolume.io.rows import open_fluorescence, open_image
from mitolume.io.write import write_image
from mitolume.napari.label_table import LabelTable
from mitolume.napari.opening import KEY, as_image, image_layers, mask_colours, place_of
from mitolume.napari.painting import KEYS, Painting
from mitolume.napari.parts import Panel, PathEdit, Work, narrow_button, rate, slider
from mitolume.runs.dye import label_planes
from mitolume.runs.folder import load
from mitolume.text import count, quoted

_shown: list[FieldPanel] = []  # the panel whose field is shown


class FieldPanel(Panel):
    """A panel that shows one field at a time, with its channels and what is painted of it."""

    def __init__(self, viewer: Any) -> None:
        super().__init__(viewer)
        self.table: Any = None  # a LabelTable
        self.index = -1
        self.painting: Any = None  # a Painting
        self._layers: list[Any] = []

    @property
    def field(self) -> Field:
        """The row that is shown."""
        if self.table is None or self.painting is None:
            raise MitolumeError("no field is open: choose a table, and one of its fields")
        row: Field = self.table.rows[self.index]
        return row

    def show_field(self, index: int) -> Any:
        """Show a row of the table; return the `Painting` of it, with what was painted before."""
        for panel in {*_shown, self}:  # one field at a time, lest two drafts of it differ
            panel.close_field()
        _shown[:] = [self]
        for layer in self.viewer.layers:
            layer.visible = False
        index = self.table.renew(index)
        row, table = self.table.rows[index], self.table
        chosen = open_image(row)
        whole = read(row.image, scene=row.scene or None)
        if size := chosen.attrs.get("pixel_size_um"):
            whole = whole.assign_attrs(pixel_size_um=size)
        shown = image_layers(whole, row.image.name, row.scene)
        if isinstance(row.fluorescence, Path):
            shown += image_layers(open_fluorescence(row), row.fluorescence.name)
        own = str(chosen["C"].values[0])
        for data, settings, _ in shown:
            layer = self.viewer.add_image(data, **settings)
            said = settings["metadata"][KEY]
            layer.visible = said["channel"] == own and said["path"] == str(row.image)
            self._layers.append(layer)
        image = next(layer for layer in self._layers if layer.visible)
        painted, reviewed, source = table.load(row)
        self.painting = Painting(
            self.viewer, image, painted, reviewed, lambda *now: table.save_draft(row, *now)
        )
        self.painting.guides = [layer for layer in self._layers if layer is not image]
        self.index = index
        if row.planes and image.ndim == 3:
            self.viewer.dims.set_current_step(0, row.planes[len(row.planes) // 2])
        self.viewer.reset_view()
        if source:
            self.tell(f"{row.image.name}: taken up from {source}")
        return self.painting

    def close_field(self) -> None:
        """Put the field away; what was painted is a draft."""
        if self.painting is not None:
            self.painting.close()
            self.painting = None
        for layer in self._layers:
            self.remove_layer(layer)
        self._layers = []

    def hideEvent(self, event: Any) -> None:
        """Write what is not written yet where the widget or the window is closed."""
        if self.painting is not None:
            self.painting.flush()
        super().hideEvent(event)

    def key_buttons(self) -> None:
        """Add a button for each key."""
        holder = QWidget()
        layout = QGridLayout(holder)
        layout.setContentsMargins(0, 0, 0, 0)
        for number, (key, name) in enumerate(KEYS.items()):
            button = narrow_button(f"{key}: {name}")
            button.setToolTip(f"Key {key} while the layer of the mask or of the region is selected")
            button.clicked.connect(lambda _, key=key: self.attempt(lambda: self._press(key)))
            layout.addWidget(button, *divmod(number, 3))
        self.form.addRow(holder)

    def _press(self, key: str) -> None:
        _ = self.field
        self.painting.press(key)


class LabelWidget(FieldPanel):
    """Paint masks, or correct proposals, and put them into the table of fields."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.file = self.row(
            "table", PathEdit("new", shared="table", hint="fields.csv, old or new")
        )
        self.file.changed.connect(lambda: self.attempt(self.open_table))
        self.list = self.names(110, self._open)
        self.buttons(Add_the_selected_image=self.add_layer)
        self.key_buttons()
        self.source = self.row("proposal", QComboBox())
        self.source.addItems(["none", "dye", "scribbles", "model"])
        self.channel = self.row("dye", QComboBox(), "Channel of the mitochondria's dye")
        self.model = self.row(
            "model", PathEdit("folder", shared="model", hint="run or model folder")
        )
        self.threshold = self.row(
            "ends at", slider(0.05, 0.95, THRESHOLD),
            "Dye: share of its local peak at which a structure ends. Others: least probability",
        )  # fmt: skip
        self.smallest = self.row(
            "smallest (µm)", slider(0, 2, SMALLEST_UM), "Diameter of the smallest structure"
        )
        self.noise = self.row(
            "noise (times)", slider(0, 30, CHANCE, 1),
            "How many times brighter than the noise a structure has to be, lest it be unsure",
        )  # fmt: skip
        self.live = self.row("", QCheckBox("show the proposal"))
        self.live.setChecked(True)
        self.dyes = self.buttons(Accept_and_next=self.accept, Rate_all_dyes=self.rate_all)
        self.dyes["Accept_and_next"].setToolTip("Save the proposal as it is; open the next field")
        self.dyes["Rate_all_dyes"].setToolTip("Colour the fields by the signal of their dye")
        self.buttons(Take_proposal=self.take, Plane_reviewed=self.review, Save_mask=self.save)
        self._timer = QTimer(self, singleShot=True, interval=150)
        self._timer.timeout.connect(lambda: self.attempt(self.propose))
        self._proposal: Any = None
        self._found: tuple[Any, ...] = ()  # of what, by what, and the probability of each pixel
        self._features: tuple[Any, ...] = ()  # of which plane, and what scribbles are learnt on
        self._classifier = PixelClassifier()
        self._signals: dict[tuple[Path, int], float] = {}
        self._work: Work | None = None
        for moved in (self.threshold, self.smallest, self.noise):
            moved.valueChanged.connect(self._soon)
        for chosen in (self.source, self.channel):
            chosen.currentIndexChanged.connect(self._soon)
        self.source.currentIndexChanged.connect(self._show_settings)
        self.model.changed.connect(self._soon)
        self.live.toggled.connect(self._soon)
        self.follow([self.viewer.dims.events.current_step], self._soon)
        self._show_settings()

    def close_field(self) -> None:
        """Put the field away, and what was proposed for it."""
        self._remove_proposal()
        super().close_field()

    # The table -------------------------------------------------------------------------------

    def open_table(self) -> None:
        """List the fields of the table; a table that is not there yet is empty."""
        if self.file.path is None:
            return
        self.close_field()
        self.table = LabelTable(self.file.path)
        self._signals = self.table.signals()
        self._list()
        labelled = sum(row.is_labelled for row in self.table.rows)
        self.tell(f"{self.table.path}: {count(len(self.table.rows), 'field')}, {labelled} labelled")

    def add_layer(self) -> None:
        """Put the image of the selected layer into the table, and show it."""
        layer = self.viewer.layers.selection.active
        if not isinstance(layer, Image):
            raise MitolumeError("select the layer of an image in the list of layers")
        if self.file.path is None:
            raise MitolumeError("name a table first, a new one perhaps: fields.csv")
        if self.table is None:
            self.table = LabelTable(self.file.path)
        said = layer.metadata.get(KEY) or self._written(layer)
        path = Path(said["path"])
        row = Field(path, channel=said["channel"], scene=said["scene"], specimen=path.name)
        index = self.table.add(row)
        for other in list(self.viewer.layers):
            if other.metadata.get(KEY, {}).get("path") == said["path"]:
                self.viewer.layers.remove(other)
        self.remove_layer(layer)
        self._list()
        self.tell(f"{row.image.name} is in {self.table.path}: paint, or choose a proposal")
        self._open(index)

    def _written(self, layer: Any) -> dict[str, str]:
        """Write the pixels of a layer that came of no file, beside the table."""
        path = self.table.path.parent / "images" / f"{layer.name.replace('/', '_')}.ome.tif"
        write_image(path, as_image(layer))
        return {"path": str(path), "scene": "", "channel": ""}

    def _list(self) -> None:
        self.list.clear()
        self.list.addItems(self.table.titles())
        rate(self.list, [self._signal(row) for row in self.table.rows])

    def _signal(self, row: Field) -> float:
        """Return the best signal of the dye among the planes of a row that were looked at."""
        known = [
            signal
            for (image, z), signal in self._signals.items()
            if image == row.image and (row.planes is None or z in row.planes)
        ]
        return max(known, default=np.nan)

    def _open(self, index: int) -> None:
        painting = self.show_field(index)
        self.script("")  # that of the field before
        self._list()
        self.list.setCurrentRow(self.index)
        row = self.field
        names = [layer.metadata[KEY]["channel"] for layer in painting.guides]
        self.channel.blockSignals(True)
        self.channel.clear()
        self.channel.addItems(names)
        if row.fluorescence:
            self.channel.setCurrentText(str(row.fluorescence))
        self.channel.blockSignals(False)
        for event in (painting.labels.events, painting.region.events):
            event.paint.connect(self._soon)
            event.labels_update.connect(self._soon)
        is_new = not painting.painted[painting.z].any()
        if not names and self.source.currentText() == "dye":
            self.source.setCurrentText("none")
        elif row.fluorescence and is_new and self.source.currentText() == "none":
            self.source.setCurrentText("dye")
        self._soon()

    # Proposals -------------------------------------------------------------------------------

    def propose(self) -> None:
        """Show what the dye or the model proposes for this plane, at the settings of now."""
        source = self.source.currentText()
        if self.painting is None or source == "none" or not self.live.isChecked():
            self._remove_proposal()
        elif source == "dye":
            self._show_proposal(self._of_dye())
        elif source == "scribbles":
            self._of_scribbles()
        elif self.model.path is not None:
            self._of_model(self.model.path)

    def _of_dye(self) -> Mask:
        row, z = self._dye_row(), self.painting.z if self.painting else 0
        settings = {
            "threshold": self.threshold.value(),
            "smallest_um": self.smallest.value(),
            "chance": self.noise.value(),
        }
        ((_, labels),) = label_planes(with_planes(row, [z]), open_fluorescence(row), **settings)
        self._rate(row, z, labels)
        self.said.setText(f"{row.image.name}, plane {z}: {labels.quality}")
        said = ", ".join(f"{name}={value:.4g}" for name, value in settings.items())
        self.script(f"label_dye(dye, pixel_size_um, z={z}, z_step_um=z_step_um, {said})")
        return labels.mask

    def _dye_row(self) -> Field:
        if not self.channel.currentText():
            raise MitolumeError("the image has one channel, and the dye is not among its files")
        if isinstance(self.field.fluorescence, Path):
            return self.field
        return replace(self.field, fluorescence=self.channel.currentText())

    def _rate(self, row: Field, z: int, labels: DyeLabels) -> None:
        self._signals[row.image, z] = labels.quality.signal_to_noise
        rate(self.list, [self._signal(one) for one in self.table.rows])

    def rate_all(self) -> None:
        """Look at the dye of every field, in its middle plane; the list takes its colours."""
        if self.table is None:
            raise MitolumeError("name a table first")
        rows = [row for row in self.table.rows if row.fluorescence]
        if not rows:
            raise MitolumeError(f"{self.table.path} names no dye (column `fluorescence`)")

        def compute() -> list[tuple[Any, ...]]:
            found = []
            for row in rows:
                dye = open_fluorescence(row)
                planes = row.planes or range(dye.sizes["Z"])
                middle = with_planes(row, [planes[len(planes) // 2]])
                found += [(row, *one) for one in label_planes(middle, dye)]
            return found

        def done(found: Any) -> None:
            for one in found:
                self._rate(*one)
            self.tell(f"the dye of {count(len(found), 'field')}: dark is weak, yellow is strong")

        self._begin(compute, done, self.fail)

    def _of_scribbles(self) -> None:
        """Learn from what is known of this plane, and of those before it."""
        row, z = self.field, self.painting.z
        place, mask = (row.image, row.scene, row.channel, z), self.painting.mask[z]

        def compute() -> Any:
            if not self._features or self._features[0] != place:
                self._features = place, pixel_features(read_plane(open_image(row), z=z))
            self._classifier.learn(place, self._features[1], mask)
            return self._classifier.predict(self._features[1]), None

        line = f"PixelClassifier().learn({row.image.name!r}, pixel_features(plane), mask)"
        self._of_probability((place, mask.tobytes()), compute, line)

    def _of_model(self, model: Path) -> None:
        row, z = self.field, self.painting.z

        def compute() -> Any:
            predictor = load(model)
            image = open_image(row, predictor.card.inputs.channels)
            shape = (image.sizes["Y"], image.sizes["X"])
            ready = predictor.reader(image).at(z)
            new = not self._found or self._found[0][0] != model
            return predictor.predict_boxes(ready, shape), predictor.threshold() if new else None

        line = f"mitolume predict {quoted(model)} {quoted(row.image)} --out masks"
        self._of_probability((model, row.image, row.scene, z), compute, line)

    def _of_probability(self, key: Any, compute: Callable[[], Any], line: str) -> None:
        """Compute the probability in a thread; the threshold then moves without it."""
        if self._found and self._found[0] == key:
            if self._found[1] is not None:
                self._show_proposal((self._found[1] >= self.threshold.value()).astype(np.uint8))
            return

        def done(found: Any) -> None:
            self._found = key, found[0]
            if found[1] is not None:
                self.threshold.setValue(found[1])
            self.script(line)
            self.tell(f"{self.source.currentText()}: the proposal is in orange")
            self._soon()

        def failed(error: Exception) -> None:
            self._found = key, None
            self.tell(str(error))
            self._soon()  # more may have been painted meanwhile

        self._begin(compute, done, failed)

    def _begin(self, *calls: Callable[..., Any]) -> None:
        """Compute beside the window, unless something is at work, which `_soon` follows."""
        if self._work is None or not self._work.is_running:
            self._work = Work(*calls)

    def _show_proposal(self, mask: Mask) -> None:
        shown = mask if self.painting.labels.ndim == 2 else np.zeros_like(self.painting.painted)
        if self.painting.labels.ndim == 3:
            shown[self.painting.z] = mask
        if self._proposal is None or self._proposal not in self.viewer.layers:
            labels, active = self.painting.labels, self.viewer.layers.selection.active
            self._proposal = self.viewer.add_labels(
                shown, name="proposal", colormap=mask_colours(FALSE_COLOUR), **place_of(labels)
            )
            self._proposal.contour = 1
            self.viewer.layers.selection.active = active
        else:
            self._proposal.data = shown

    def _remove_proposal(self) -> None:
        self.remove_layer(self._proposal)
        self._proposal = None

    def take(self) -> None:
        """Paint what is proposed."""
        _ = self.field
        if self._proposal is None:
            raise MitolumeError("nothing is proposed: choose the dye or a model")
        proposal = np.asarray(self._proposal.data)
        self.painting.take(proposal[self.painting.z] if proposal.ndim == 3 else proposal)
        self.live.setChecked(False)

    def accept(self) -> None:
        """Save what is proposed for the plane as its mask, and open the next field without one."""
        self.take()
        self.review()
        self.save()
        self.live.setChecked(True)
        left = [n for n, row in enumerate(self.table.rows) if not row.is_labelled]
        if left:
            self._open(next((n for n in left if n > self.index), left[0]))

    def review(self) -> None:
        """Say that the whole plane was reviewed."""
        _ = self.field
        self.painting.review_plane()

    def save(self) -> None:
        """Write the mask and the row of the table."""
        row, painting, table = self.field, self.painting, self.table
        mask = painting.mask
        if not (mask == BACKGROUND).any():
            raise MitolumeError(
                "no background is known: press r and outline the part that you looked at, or press "
                "Plane reviewed"
            )
        painting.settle()
        path = table.accept(self.index, mask)
        self.index = next(i for i, one in enumerate(table.rows) if one.mask == path)
        self._list()
        self.list.setCurrentRow(self.index)
        known = int((mask != UNSURE).sum())
        self.tell(
            f"{path.name}: {(mask == FOREGROUND).sum() / known:.1%} of {known / mask.size:.0%} "
            f"reviewed pixels are mitochondria; {row.image.name} is in {table.path.name}"
        )
        self.script(f"mitolume run --fields {quoted(table.path)} --out run")

    # Settings --------------------------------------------------------------------------------

    def _soon(self, *_: Any) -> None:
        self._timer.start()

    def _show_settings(self, *_: Any) -> None:
        source = self.source.currentText()
        self._found = ()
        self.threshold.setValue(THRESHOLD if source == "dye" else 0.5)
        shown = {
            self.channel: source == "dye",
            self.model: source == "model",
            self.threshold: source != "none",
            self.smallest: source == "dye",
            self.noise: source == "dye",
            self.live: source != "none",
            self.dyes["Rate_all_dyes"].parentWidget(): source == "dye",
        }
        for widget, is_shown in shown.items():
            self.form.setRowVisible(widget, is_shown)
