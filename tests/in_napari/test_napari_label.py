"""Painting in the window, by keys and strokes; what is on disk while and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from helpers.fields import blobs, write_field

from mitolume.io.check import check_table
from mitolume.io.read import read
from mitolume.io.rows import read_row
from mitolume.io.table import read_table
from mitolume.io.write import write_image

QtCore, QtTest = (pytest.importorskip(f"qtpy.{name}") for name in ("QtCore", "QtTest"))
QPoint, Qt, QTest = QtCore.QPoint, QtCore.Qt, QtTest.QTest


def canvas(viewer: Any) -> Any:
    return viewer.window._qt_viewer.canvas.native


def press(viewer: Any, key: Any) -> None:
    QTest.keyClick(canvas(viewer), key)


def stroke(viewer: Any, y: int, length: int = 60) -> None:
    """Draw from left to right, `y` pixels of the screen below the middle."""
    where = canvas(viewer)
    start = QPoint(where.width() // 2 - length // 2, where.height() // 2 + y)
    QTest.mouseMove(where, start)
    QTest.mousePress(where, Qt.LeftButton, Qt.NoModifier, start)
    for step in range(0, length + 1, 10):
        QTest.mouseMove(where, start + QPoint(step, 0))
    QTest.mouseRelease(where, Qt.LeftButton, Qt.NoModifier, start + QPoint(length, 0))


def dye_field(path: Path, brightness: float) -> None:
    """Write a flat channel of light, and a dye with one bright line."""
    y, x = np.mgrid[:96, :96]
    dye = 100 + brightness * np.exp(-(((y - 30) / 3.0) ** 2)) + 0 * x
    planes = np.stack([np.full((96, 96), 500.0), dye]).round().astype(np.uint16)
    planes += np.random.default_rng(0).integers(0, 9, planes.shape, dtype=np.uint16)
    size = {"pixel_size_um": {"Y": 0.1, "X": 0.1}}
    coords = {"C": ["Transmitted", "TMRM"]}
    write_image(path, xr.DataArray(planes, dims=tuple("CYX"), coords=coords, attrs=size))


@pytest.fixture
def label(viewer: Any, tmp_path: Path, wait: Any) -> Any:
    """Open the widget on a table of one field without a mask, shown."""
    write_field(tmp_path, "a", 0, labelled=False)
    (tmp_path / "fields.csv").write_text("image,specimen\na.ome.tif,dish 1\n")
    _, widget = viewer.window.add_plugin_dock_widget("mitolume", "Label")
    widget.file.edit.setText(str(tmp_path / "fields.csv"))
    QTest.keyClick(widget.file.edit, Qt.Key_Return)
    wait(lambda: widget.list.count() == 1)
    QTest.mouseClick(
        widget.list.viewport(),
        Qt.LeftButton,
        pos=widget.list.visualItemRect(widget.list.item(0)).center(),
    )
    wait(lambda: widget.painting is not None)
    wait()
    return widget


def test_strokes_of_three_kinds_become_a_row_of_the_table(
    viewer: Any, label: Any, tmp_path: Path, wait: Any
) -> None:
    press(viewer, Qt.Key_1)
    stroke(viewer, 0)
    press(viewer, Qt.Key_U)
    stroke(viewer, 60)
    press(viewer, Qt.Key_0)
    stroke(viewer, 0, 20)
    painted = label.painting.painted[0]
    assert set(np.unique(painted)) == {0, 1, 255}
    before = painted.copy()
    press(viewer, Qt.Key_1)
    stroke(viewer, -60)
    assert (label.painting.painted[0] != before).any()
    QTest.keyClick(canvas(viewer), Qt.Key_Z, Qt.ControlModifier)
    assert (label.painting.painted[0] == before).all(), "undone"

    press(viewer, Qt.Key_R)
    assert viewer.layers.selection.active.name == "reviewed region"
    label.painting.region.mode = "paint"
    stroke(viewer, 0, 100)
    label.attempt(label.save)
    (row,) = read_table(tmp_path / "fields_napari.csv")
    assert (row.label, row.role, row.mask.parent.name) == ("painted", "", "fields_napari_masks")
    assert (tmp_path / "fields.csv").read_text() == "image,specimen\na.ome.tif,dish 1\n"
    _, mask = read_row(check_table(tmp_path / "fields_napari.csv").fields[0], 0, "unsure")
    inside = label.painting.reviewed[0] == 1
    assert (mask[before == 1] == 1).all()
    assert (mask[inside & (before == 0)] == 0).all()
    assert (mask[~inside & (before == 0)] == 255).all()


def test_each_stroke_is_on_disk_before_the_next(label: Any, viewer: Any, wait: Any) -> None:
    for number in range(5):
        stroke(viewer, 12 * number)
        wait(lambda: label.table.draft(label.field).exists(), 5)
        now = label.painting.painted[0].copy()

        def saved(now: Any = now) -> bool:
            return bool((read(label.table.draft(label.field)).values[0, 0, 0] == now).all())

        wait(saved, 5)
    label.list.setCurrentRow(0)
    label.list.itemClicked.emit(label.list.currentItem())
    assert (label.painting.painted[0] == now).all(), "the draft is taken up"


def test_a_proposal_of_the_dye_follows_the_sliders(viewer: Any, tmp_path: Path, wait: Any) -> None:
    dye_field(tmp_path / "b.ome.tif", 1000)
    viewer.open(tmp_path / "b.ome.tif", plugin="mitolume")
    viewer.layers.selection.active = viewer.layers["b [Transmitted]"]
    _, widget = viewer.window.add_plugin_dock_widget("mitolume", "Label")
    widget.file.set(tmp_path / "new.csv")
    widget.attempt(widget.add_layer)
    widget.source.setCurrentText("dye")
    wait(lambda: widget._proposal is not None)
    wide = (np.asarray(widget._proposal.data) == 1).sum()
    widget.threshold.setValue(0.8)
    wait(lambda: (np.asarray(widget._proposal.data) == 1).sum() < wide)
    widget.attempt(widget.take)
    assert 0 < (widget.painting.painted == 1).sum() < wide
    widget.attempt(widget.review)
    widget.attempt(widget.save)
    (row,) = read_table(tmp_path / "new.csv")
    assert (row.image, row.channel, row.label) == (tmp_path / "b.ome.tif", "Transmitted", "painted")
    assert set(np.unique(read(row.mask))) == {0, 1}
    assert not widget.table.draft(widget.field).exists()
    write_field(tmp_path, "no_dye", 0, labelled=False)
    viewer.open(tmp_path / "no_dye.ome.tif", plugin="mitolume")
    widget.attempt(widget.add_layer)
    assert widget.source.currentText() == "none"


def test_scribbles_teach_a_proposal(viewer: Any, label: Any, tmp_path: Path, wait: Any) -> None:
    pytest.importorskip("sklearn")
    _, truth = blobs(0)
    label.source.setCurrentText("scribbles")
    ys, xs = np.nonzero(truth)
    label.painting.labels.data_setitem((ys[:60], xs[:60]), 1)
    label.painting.labels.events.paint(value=[])
    wait(lambda: "key b" in label.said.text(), 60)
    assert label._proposal is None
    press(viewer, Qt.Key_B)
    assert (viewer.layers.selection.active.name, label.painting.region.mode) == (
        "reviewed region", "paint",
    )  # fmt: skip
    ys, xs = np.nonzero(truth == 0)
    label.painting.region.data_setitem((ys[::20], xs[::20]), 1)
    label.painting.region.events.paint(value=[])
    wait(lambda: label._proposal is not None, 60)
    found = np.asarray(label._proposal.data)
    assert (found & truth).sum() / (found | truth).sum() > 0.5
    assert "PixelClassifier" in label.line.text()
    label.attempt(label.take)
    assert (label.painting.painted[0] == found).all()


def test_fields_one_after_another_leave_no_layer(viewer: Any, tmp_path: Path, wait: Any) -> None:
    lines = ["image,fluorescence,specimen"]
    for number in range(3):
        dye_field(tmp_path / f"f{number}.ome.tif", 50 * 4.0**number)
        lines.append(f"f{number}.ome.tif,TMRM,dish {number}")
    (tmp_path / "fields.csv").write_text("\n".join(lines) + "\n")
    _, widget = viewer.window.add_plugin_dock_widget("mitolume", "Label")
    widget.file.set(tmp_path / "fields.csv")
    assert widget.list.item(0).icon().isNull()
    widget.attempt(widget.rate_all)
    wait(lambda: not widget._work.is_running)
    colours = {widget.list.item(n).icon().pixmap(12, 12).toImage().pixel(6, 6) for n in range(3)}
    assert len(colours) == 3, "each field has the colour of its signal"
    widget._open(0)
    for number in range(3):
        wait(lambda: widget._proposal is not None)
        assert len(viewer.layers) == 5, "two channels, mask, region, proposal"
        widget.attempt(widget.accept)
        assert [row.is_labelled for row in widget.table.rows].count(True) == number + 1
    assert {row.label for row in read_table(tmp_path / "fields_napari.csv")} == {"painted"}
