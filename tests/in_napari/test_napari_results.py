"""Masks looked at in the window: proofread, measured, compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers.fields import TINY, blobs, write_field

import mitolume
from mitolume.analysis.pictures import CORRECT_COLOUR, FALSE_COLOUR, MISSED_COLOUR
from mitolume.io.check import check_table
from mitolume.io.rows import read_row
from mitolume.io.table import read_table
from mitolume.io.write import write_mask
from mitolume.runs.folder import Run
from mitolume.runs.recipe import load_recipe

QtCore, QtTest = (pytest.importorskip(f"qtpy.{name}") for name in ("QtCore", "QtTest"))


def press(viewer: Any, key: Any) -> None:
    QtTest.QTest.keyClick(viewer.window._qt_viewer.canvas.native, key)


def test_masks_of_a_run_come_least_trusted_first_and_join_the_table(
    viewer: Any, table: Path, tmp_path: Path, wait: Any
) -> None:
    recipe = load_recipe(fields=table, settings=[*TINY, "method=supervised"])
    run = Run(mitolume.run(recipe, tmp_path / "run", quiet=True))
    _, widget = viewer.window.add_plugin_dock_widget("mitolume", "Proofread")
    widget.source.set(run.path)
    wait(lambda: widget.painting is not None)
    shown = [item.row.image.name for item in widget.items]
    assert shown == list(run.audit["image"])
    found = run.mask(run.kept, run.image(*run.audit[["line", "plane"]].iloc[0]))
    assert (widget.painting.painted[0] == found).all()
    press(viewer, QtCore.Qt.Key_A)
    assert "1 left, 1 accepted" in widget.said.text()
    widget.painting.labels.data[:5, :5] = 1
    press(viewer, QtCore.Qt.Key_A)
    assert "all are done: 0 left, 1 accepted, 1 corrected, 0 unsure" in widget.said.text()
    rows = {row.image.name: row for row in read_table(tmp_path / "fields_napari.csv")}
    assert [rows[name].extra["proofread"] for name in shown] == ["0 accepted", "0 corrected"]
    checked = check_table(tmp_path / "fields_napari.csv")
    first = next(row for row in checked.fields if row.image.name == shown[0])
    assert (read_row(first, 0, "unsure")[1] == found).all()


def test_unsure_masks_of_the_dye_are_not_asked_again(
    viewer: Any, tmp_path: Path, wait: Any
) -> None:
    lines = ["image,mask,specimen,label,planes"]
    for number in range(2):
        image, mask = write_field(tmp_path, f"f{number}", number)
        lines.append(f"{image.name},{mask.name},dish {number},dye,0")
    (tmp_path / "fields.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "quality.csv").write_text(
        "image,plane,signal_to_noise\nf0.ome.tif,0,40\nf1.ome.tif,0,8\n"
    )
    _, label = viewer.window.add_plugin_dock_widget("mitolume", "Label")
    label.file.set(tmp_path / "fields.csv")
    label._open(0)
    _, widget = viewer.window.add_plugin_dock_widget("mitolume", "Proofread")
    widget.source.set(tmp_path / "fields.csv")
    names = [layer.name for layer in viewer.layers if layer.visible]
    assert names == ["f1.ome.tif", "reviewed region", "mask"], "one field is shown, in one widget"
    assert label.painting is None
    assert [item.row.image.name for item in widget.items] == ["f1.ome.tif", "f0.ome.tif"]
    press(viewer, QtCore.Qt.Key_S)
    press(viewer, QtCore.Qt.Key_A)
    labels = {row.image.name: row.label for row in read_table(tmp_path / "fields_napari.csv")}
    assert labels == {"f0.ome.tif": "painted", "f1.ome.tif": "dye"}
    widget.source.set(tmp_path / "fields.csv")
    assert "0 left, 1 accepted, 0 corrected, 1 unsure" in widget.said.text()


def test_a_row_leads_to_its_object_and_an_object_to_its_row(
    viewer: Any, tmp_path: Path, wait: Any
) -> None:
    image, mask = write_field(tmp_path, "a", 3, shape=(96, 128))
    viewer.open([image, mask], plugin="mitolume")
    _, widget = viewer.window.add_plugin_dock_widget("mitolume", "Measure")
    assert (widget.mask.currentText(), widget.image.currentText()) == ("a_mask", "a")
    widget.out.set(tmp_path / "objects")
    widget.crops.setChecked(True)
    widget.rois.setChecked(True)
    widget.attempt(widget.measure)
    wait(lambda: not widget.work.is_running)
    table = pd.read_csv(tmp_path / "objects" / "objects.csv")
    assert len(table) == widget.model.rowCount() > 1
    assert (tmp_path / "objects" / "rois" / "a_rois.zip").exists()
    assert len(list((tmp_path / "objects" / "crops").glob("a_0*.ome.tif"))) == len(table)
    assert widget.line.text().startswith("mitolume measure")

    area = list(table).index("area_um2")
    widget.view.sortByColumn(area, QtCore.Qt.DescendingOrder)
    largest = int(table.loc[table["area_um2"].idxmax(), "label"])
    cell = widget.view.visualRect(widget.model.index(0, 1)).center()
    QtTest.QTest.mouseClick(widget.view.viewport(), QtCore.Qt.LeftButton, pos=cell)
    assert widget.objects.selected_label == largest
    inside = np.argwhere(np.asarray(widget.objects.data) == largest).mean(axis=0) * 0.1
    assert np.allclose(viewer.camera.center[-2:], inside, atol=1)
    other = int(table.loc[table["area_um2"].idxmin(), "label"])
    smallest = np.argwhere(np.asarray(widget.objects.data) == other)
    viewer.camera.center = (0, *smallest[len(smallest) // 2] * 0.1)
    wait()
    canvas = viewer.window._qt_viewer.canvas.native
    QtTest.QTest.mouseMove(canvas, canvas.rect().center())
    wait()
    QtTest.QTest.mouseClick(canvas, QtCore.Qt.LeftButton, pos=canvas.rect().center())
    wait(lambda: widget.view.currentIndex().row() == len(table) - 1, 10)

    widget.colour.setCurrentIndex(widget.colour.findData("area_um2"))
    colours = widget.objects.get_color(largest), widget.objects.get_color(other)
    assert not np.allclose(*colours)


def test_errors_have_the_colours_of_the_report(viewer: Any, tmp_path: Path, wait: Any) -> None:
    image, mask = write_field(tmp_path, "a", 3)
    other = np.roll(blobs(3)[1], 4, axis=1)
    write_mask(tmp_path / "b_mask.ome.tif", xr.DataArray(other, dims=tuple("YX")))
    viewer.open([image, mask, tmp_path / "b_mask.ome.tif"], plugin="mitolume")
    viewer.add_labels(other, name="found so far")  # of a training, no mask to compare
    _, widget = viewer.window.add_plugin_dock_widget("mitolume", "Compare")
    assert (widget.truth.currentText(), widget.found.currentText()) == ("a_mask", "b_mask")
    viewer.layers["b_mask"].name = "by another"
    wait(lambda: widget.found.currentText() == "by another")
    widget.attempt(widget.compare)
    picture, true = np.asarray(viewer.layers["errors"].data), blobs(3)[1]
    for colour, where in (
        (CORRECT_COLOUR, (true == 1) & (other == 1)),
        (MISSED_COLOUR, (true == 1) & (other == 0)),
        (FALSE_COLOUR, (true == 0) & (other == 1)),
    ):
        assert where.any()
        assert (picture[where] == colour).all()
    shared = ((true == 1) & (other == 1)).sum() / ((true == 1) | (other == 1)).sum()
    assert f"IoU {shared:.3f}" in widget.said.text()
    assert viewer.grid.enabled
