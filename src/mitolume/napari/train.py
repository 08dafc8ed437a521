"""The widget *Train*: a run on the table of fields, its score while it learns, and its end."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.figure import Figure
from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QComboBox, QDoubleSpinBox

from mitolume.analysis.pictures import stretch_limits
from mitolume.errors import MitolumeError
from mitolume.napari.opening import mask_colours
from mitolume.napari.parts import PREVIEW, Panel, PathEdit, Work
from mitolume.runs.folder import Run, open_run
from mitolume.runs.recipe import PRESETS, load_recipe
from mitolume.workflow import run as compute

_FIELD, _FOUND = PREVIEW
_METHODS = {
    "of the preset": "",
    "labelled images alone": "supervised",
    "pseudo-labels": "pseudo_label",
    "noisy student": "noisy_student",
}


class TrainWidget(Panel):
    """Train on a table of fields; a training that is stopped leaves a model."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.table = self.row("table", PathEdit("file", shared="table", hint="fields.csv"))
        self.out = self.row("run folder", PathEdit("new", hint="a new folder"), "A new folder")
        self.preset = self.row("preset", QComboBox(), "Settings to start from")
        self.preset.addItems(["quick", *(name for name in PRESETS if name != "quick")])
        self.method = self.row("learns from", QComboBox(), "How unlabelled images are used")
        self.method.addItems(list(_METHODS))
        self.minutes = self.row(
            "minutes", QDoubleSpinBox(), "About how long the whole run takes; 0: as the preset says"
        )
        self.minutes.setRange(0, 10_000)
        made = self.buttons(Train=self.start, Stop=self.stop, Report=self.report)
        self.start_button, self.stop_button = made["Train"], made["Stop"]
        self.stop_button.setToolTip("End now: the model with what it has learnt is scored and kept")
        self.figure = Figure(figsize=(3, 2), layout="constrained")
        self.canvas: Any = FigureCanvasQTAgg(self.figure)  # type: ignore[no-untyped-call]
        self.canvas.setMinimumHeight(170)
        self.form.addRow(self.canvas)
        self.work: Work | None = None
        self._folder: Path | None = None
        self._drawn = -1

    @property
    def settings(self) -> list[str]:
        """The settings over those of the preset, as the command line takes them."""
        method, minutes = _METHODS[self.method.currentText()], self.minutes.value()
        length = [f"training.minutes={minutes:g}"] if minutes else []
        return [*([f"method={method}"] if method else []), *length]

    def start(self) -> None:
        """Begin a run."""
        if self.work is not None and self.work.is_running:
            raise MitolumeError("a training is at work: stop it first")
        table, out = self.table.path, self.out.path
        if table is None or out is None:
            raise MitolumeError("name the table of fields, and a new folder for the run")
        preset = self.preset.currentText()
        recipe = load_recipe(preset=preset, fields=table, settings=self.settings)
        Run(out).require_new()
        said = [part for setting in self.settings for part in ("--set", setting)]
        words = ["mitolume", "run", "--preset", preset, "--fields", str(table), *said]
        self.script(shlex.join([*words, "--out", str(out)]))
        self._folder, self._drawn = out, -1
        self.work = Work(
            lambda: compute(recipe, out, quiet=True),
            self._done, self.fail, self._moved, self._look,
        )  # fmt: skip
        self.said.setText("checking files")

    def stop(self) -> None:
        """Let the training end with what it has learnt."""
        if self.work is not None and self.work.is_running:
            self.work.stop()
            self.said.setText("stopping: the model is scored, and kept")

    def report(self) -> None:
        """Open the page of the run."""
        page = None if self._folder is None else Run(self._folder).report_file
        if page is None or not page.exists():
            raise MitolumeError("there is no report yet: train first")
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(page.absolute())))

    def _moved(self, title: str, done: int, total: int, note: str) -> None:
        self.said.setText(f"{title}: {done} of {total}  {note}")
        self._draw()

    def _look(self, image: Any, found: Any) -> None:
        """Show what is found of one field so far, the same after each epoch."""
        assert self._folder is not None
        record, found = Run(self._folder).record, found.astype(np.uint8)
        if not record:  # steps before the run begins only tell how long one takes
            return
        if _FOUND in self.viewer.layers and self.viewer.layers[_FOUND].data.shape == found.shape:
            self.viewer.layers[_FOUND].data = found
            self.viewer.layers[_FIELD].data = image
            return
        self.remove_layer(_FOUND)
        self.remove_layer(_FIELD)
        for layer in self.viewer.layers:
            layer.visible = False
        um = record["pixel_size_um"]
        place = {"scale": [um or 1.0] * 2, "units": ["um" if um else "pixel"] * 2}
        limits = stretch_limits(image)
        self.viewer.add_image(image, name=_FIELD, contrast_limits=limits, **place)
        self.viewer.add_labels(found, name=_FOUND, colormap=mask_colours(), opacity=0.5, **place)
        self.viewer.reset_view()

    def _draw(self) -> None:
        """Draw the score of each epoch so far."""
        assert self._folder is not None
        try:
            log = Run(self._folder).log
        except MitolumeError:  # there is none before the first epoch
            return
        if len(log) == self._drawn:
            return
        self._drawn = len(log)
        self.figure.clear()
        axes = self.figure.add_subplot()
        scored = log["validation_iou"].notna().any()
        column = "validation_iou" if scored else "loss"
        for name, rows in log.groupby("model", sort=False):
            axes.plot(rows["step"], rows[column], "o-", ms=3, label=str(name).replace("_", " "))
        axes.set_xlabel("step", fontsize=8)
        axes.set_ylabel("validation IoU" if scored else "loss", fontsize=8)
        axes.set_title("" if scored else "there are no validation images", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.legend(fontsize=7)
        self.canvas.draw_idle()

    def _done(self, folder: Path) -> None:
        self._draw()
        run = open_run(folder)
        self.tell(f"{folder}: {run.kept.replace('_', ' ')} is kept ({run.kept_reason})")
        PathEdit("folder", shared="model").set(folder)  # the other widgets take it up
