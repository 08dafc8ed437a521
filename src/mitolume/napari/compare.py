"""The widget *Compare*: two masks of one image side by side, errors in the colours of reports."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Image, Labels

from mitolume.analysis.metrics import Counts, count, iou
from mitolume.analysis.pictures import error_map
from mitolume.errors import MitolumeError
from mitolume.io.masks import UNSURE
from mitolume.napari.opening import KEY, place_of
from mitolume.napari.parts import Panel, layer_box
from mitolume.text import quoted


class CompareWidget(Panel):
    """Hold a mask against another one: of two models, or of two people."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        hidden = ("errors", "reviewed region", "proposal")
        boxes = [layer_box(self.viewer, kind, hidden) for kind in (Labels, Labels, Image)]
        self.truth = self.row("reference", boxes[0][0], "What counts as true")
        self.found = self.row("compared with it", boxes[1][0])
        self.image = self.row("over", boxes[2][0], "The image below")
        fills = [fill for _, fill in boxes]
        self.follow_layers(*fills, self._choose_another)
        self.buttons(Compare=self.compare, One_view=self.one_view)

    def compare(self) -> None:
        """Show the image and the errors side by side, and say how far the masks agree."""
        boxes = (self.truth, self.found, self.image)
        if not all(box.currentText() for box in boxes):
            raise MitolumeError("open an image and two masks of it first")
        truth, found, image = (self.viewer.layers[box.currentText()] for box in boxes)
        true, other = (_mask(layer) for layer in (truth, found))
        if true.shape != other.shape or true.shape != tuple(image.data.shape):
            raise MitolumeError(
                f"{truth.name} is {true.shape}, {found.name} {other.shape} and {image.name} "
                f"{tuple(image.data.shape)}: they must be of the same image"
            )
        planes = [tuple(index) for index in np.ndindex(*true.shape[:-2])]
        picture, counts = np.zeros((*true.shape, 3), np.uint8), Counts()
        for at in planes:
            picture[at] = error_map(np.asarray(image.data[at]), true[at], other[at])
            counts += count((other[at] == 1).astype(np.uint8), true[at])
        self.remove_layer("errors")
        self.viewer.add_image(picture, rgb=True, name="errors", **place_of(truth))
        for layer in self.viewer.layers:
            layer.visible = layer.name in ("errors", image.name)
        self.viewer.grid.enabled, self.viewer.grid.stride = True, len(self.viewer.layers) - 1
        self.viewer.reset_view()
        self.tell(
            f"IoU {iou(counts):.3f} in {len(planes)} planes. Blue: both; yellow: {truth.name} "
            f"alone; orange: {found.name} alone; hatched: unsure"
        )
        files = [layer.metadata.get(KEY, {}).get("path") or layer.name for layer in (found, truth)]
        self.script(f"mitolume evaluate {quoted(files[0])} {quoted(files[1])}")

    def one_view(self) -> None:
        """Lay the layers over each other again."""
        self.viewer.grid.enabled = False

    def _choose_another(self, _: Any = None) -> None:
        if self.found.currentText() == self.truth.currentText():
            self.found.setCurrentIndex(self.found.count() - 1)


def _mask(layer: Any) -> Any:
    """Return 0, 1 and 255 of a mask; of a label image, 1 for every object."""
    values = np.asarray(layer.data)
    if set(np.unique(values)) <= {0, 1, UNSURE}:
        return values.astype(np.uint8)
    return (values > 0).astype(np.uint8)
