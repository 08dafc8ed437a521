"""The pictures of docs/napari.md: each widget in a window of 1280 x 800, on simulated fields.

``xvfb-run -a -s "-screen 0 1280x800x24" python benchmarks/napari_pictures.py FOLDER docs``: FOLDER
is new, or that of an earlier call, whose fields are used again.
"""

from __future__ import annotations

import csv
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mitolume.batch.simulate import plan, write_data_set

SETTINGS = ["shape=[192,192]", "planes=3", "z_step_um=[0.5,0.5]"]
SHORT = [
    "method=supervised", "unlabelled.teacher=self", "training.steps=48", "training.checks=12",
    "training.batch=2", "training.patch=96",
]  # fmt: skip


def prepare(folder: Path) -> Path:
    """Simulate two fields, and return a table in which two planes of the first have no mask."""
    table = write_data_set(plan(fields=2, conditions=["control"], set_=SETTINGS), folder / "data")
    first, second = csv.DictReader(table.open())
    rows = [
        first | {"role": "train", "planes": "1"},
        second | {"role": "validation", "planes": "1"},
        first | {"role": "unlabelled", "planes": "0 2", "mask": ""},
    ]
    mine = table.with_name("mine.csv")
    with mine.open("w", newline="") as file:
        writer = csv.DictWriter(file, first)
        writer.writeheader()
        writer.writerows(rows)
    for left in ("mine_napari.csv", "mine_napari_masks", "objects"):
        path = table.with_name(left)
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    return mine


def main(folder: Path, docs: Path) -> None:
    """Go through the widgets as the page does, and take a picture of each."""
    docs = docs.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)  # so that the pictures show no path of this machine
    folder = Path()
    os.environ.setdefault("NAPARI_CONFIG", "settings.yaml")
    table = prepare(folder)
    import napari
    from PIL import Image
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer()
    viewer.window.resize(1280, 800)

    def wait(until: Callable[[], Any] = lambda: False, seconds: float = 300) -> None:
        end = time.monotonic() + seconds
        while not until() and time.monotonic() < end:
            QApplication.processEvents()
            time.sleep(0.01)

    def picture(name: str) -> None:
        wait(seconds=1)
        shot = Image.fromarray(viewer.screenshot(canvas_only=False, flash=False)).convert("RGB")
        shot.quantize(128).save(docs / f"napari_{name}.png", optimize=True)

    def dock(name: str) -> Any:
        for old in list(viewer.window._wrapped_dock_widgets.values()):
            old.inner_widget().hide()
            viewer.window.remove_dock_widget(old)
        viewer.layers.clear()
        return viewer.window.add_plugin_dock_widget("mitolume", name)[1]

    label = dock("Label")
    label.file.set(table)
    label._open(2)
    wait(lambda: label._proposal is not None)
    picture("label")
    label.close_field()

    train = dock("Train")
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    train.table.set(table)
    train.out.set(run)
    type(train).settings = SHORT  # for the picture's sake
    train.start()
    log = lambda: len(train.figure.axes[0].lines[0].get_xdata()) if train.figure.axes else 0  # noqa: E731
    wait(lambda: log() >= 8)
    picture("train")
    train.stop()
    wait(lambda: not train.work.is_running)
    print(train.said.text())

    proofread = dock("Proofread")
    proofread.source.set(run)
    picture("proofread")
    proofread.accept()
    print(proofread.said.text())
    proofread.close_field()

    measure = dock("Measure")
    image, mask = (folder / "data" / kind / "1_control.ome.tif" for kind in ("images", "masks"))
    viewer.open(image, plugin="mitolume")
    name = shutil.copy(mask, folder / "data" / "1_control_mask.ome.tif")
    viewer.open(name, plugin="mitolume")
    measure.out.set(folder / "data" / "objects")
    measure.crops.setChecked(True)
    measure.rois.setChecked(True)
    measure.measure()
    wait(lambda: not measure.work.is_running)
    measure.colour.setCurrentIndex(measure.colour.findData("volume_um3"))
    for layer in viewer.layers:
        layer.visible = layer.name in ("objects", "1_control [Transmitted]")
    measure.view.selectRow(3)
    picture("measure")

    compare = dock("Compare")
    viewer.open(image, plugin="mitolume")
    viewer.open(name, plugin="mitolume")
    viewer.layers[-1].name = "exact"
    hand = shutil.copy(
        folder / "data" / "hand_masks" / "1_control.ome.tif",
        folder / "data" / "1_control_hand_mask.ome.tif",
    )
    viewer.open(hand, plugin="mitolume")
    viewer.layers[-1].name = "by hand"
    compare.truth.setCurrentText("exact")
    compare.found.setCurrentText("by hand")
    compare.image.setCurrentText("1_control [Transmitted]")
    compare.compare()
    picture("compare")
    print(compare.said.text())
    viewer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
