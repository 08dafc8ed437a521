"""A training in the window: its score is drawn while it learns, and it can be stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.fields import TINY

import mitolume
from mitolume.runs.folder import Run

QtCore, QtTest = (pytest.importorskip(f"qtpy.{name}") for name in ("QtCore", "QtTest"))


def click(button: Any) -> None:
    QtTest.QTest.mouseClick(button, QtCore.Qt.LeftButton)


def test_a_training_that_is_stopped_leaves_a_model(
    viewer: Any, table: Path, tmp_path: Path, wait: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, widget = viewer.window.add_plugin_dock_widget("mitolume", "Train")
    widget.table.edit.setText(str(table))
    widget.out.edit.setText(str(tmp_path / "run"))
    length = [*TINY, "training.steps=100000", "training.checks=50000", "method=supervised"]
    monkeypatch.setattr(type(widget), "settings", length)
    click(widget.start_button)
    assert widget.line.text().startswith("mitolume run --preset quick --fields")
    wait(lambda: widget.figure.axes and len(widget.figure.axes[0].lines[0].get_xdata()) > 2, 120)
    assert widget.figure.axes[0].get_ylabel() == "validation IoU"
    field, found = viewer.layers["field while it learns"], viewer.layers["found so far"]
    assert field.data.shape == found.data.shape == (64, 80)
    um = Run(tmp_path / "run").record["pixel_size_um"]
    assert np.allclose([*field.scale, *found.scale], um), "it lies where the field lies"
    assert {str(unit) for unit in field.units + found.units} == {"micrometer"}
    click(widget.stop_button)
    wait(lambda: not widget.work.is_running, 120)
    run = Run(tmp_path / "run")
    assert run.is_finished
    assert not run.is_running
    assert "stopped on request" in " ".join(run.record["notices"])
    assert mitolume.load(run.path).card.seed == 0
    assert "model 1 is kept" in widget.said.text()


def test_what_is_missing_is_said(viewer: Any) -> None:
    _, widget = viewer.window.add_plugin_dock_widget("mitolume", "Train")
    widget.table.edit.setText("")
    click(widget.start_button)
    assert "name the table" in widget.said.text()


def test_all_widgets_beside_each_other_fit_into_the_window(viewer: Any, wait: Any) -> None:
    viewer.add_image(np.eye(64), name="a long name of a layer, " * 5)
    for name in ("Label", "Train", "Proofread", "Measure", "Compare"):
        _, widget = viewer.window.add_plugin_dock_widget("mitolume", name)
        wait()
        scrolled = widget.layout().itemAt(0).widget()
        assert scrolled.horizontalScrollBar().maximum() == 0, "nothing is cut off at the side"
    assert viewer.window._qt_window.height() <= 800
    assert viewer.window._qt_window.width() <= 1280
