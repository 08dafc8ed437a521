"""What a person paints of one field: two layers, their keys, and a draft that grows with them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from napari.utils.notifications import show_error

from mitolume.errors import MitolumeError
from mitolume.io.masks import BACKGROUND, FOREGROUND, UNSURE, Mask
from mitolume.napari.label_table import finished
from mitolume.napari.opening import label_colours, mask_colours, place_of

REVIEWED = 1
_REVIEWED_COLOUR = np.array([0, 158, 115, 255]) / 255  # bluish green of Okabe and Ito (2008)
KEYS = {
    "1": "mitochondria",
    "b": "background",
    "u": "unsure",
    "0": "erase",
    "r": "reviewed region",
    "g": "guides",
}


class Painting:
    """The layers ``mask`` and ``reviewed region`` over an image.

    Parameters
    ----------
    viewer
        The window.
    image
        The layer of the image, (Y, X) or (Z, Y, X).
    painted, reviewed
        (Z, Y, X) uint8, see `mitolume.napari.label_table.LabelTable.load`.
    save
        Writes a draft of both; called in a thread of its own after each stroke.
    """

    def __init__(
        self,
        viewer: Any,
        image: Any,
        painted: Mask,
        reviewed: Mask,
        save: Callable[[Mask, Mask], None],
    ) -> None:
        self._viewer, self._save = viewer, save
        self.guides: list[Any] = []  # layers that the key g shows and hides
        flat = image.ndim == 2
        self.region = viewer.add_labels(
            reviewed[0] if flat else reviewed, name="reviewed region",
            colormap=label_colours({REVIEWED: _REVIEWED_COLOUR}), **place_of(image),
        )  # fmt: skip
        self.region.contour = 2
        self.labels = viewer.add_labels(
            painted[0] if flat else painted, name="mask",
            colormap=mask_colours(), opacity=0.5, **place_of(image),
        )  # fmt: skip
        self._changed, self._closed = threading.Event(), False
        self._lock, self._saved = threading.Lock(), (painted.copy(), reviewed.copy())
        self._thread = threading.Thread(target=self._write_drafts, daemon=True)
        self._thread.start()
        for layer in (self.labels, self.region):
            layer.brush_size = 8
            layer.n_edit_dimensions = 2
            for key in KEYS:
                layer.bind_key(key, lambda _, key=key: self.press(key), overwrite=True)
            for event in (layer.events.paint, layer.events.labels_update, layer.events.set_data):
                event.connect(self._changed.set)
        self.press("1")

    @property
    def z(self) -> int:
        """The plane that is shown."""
        return int(self._viewer.dims.current_step[-3]) if self.labels.ndim == 3 else 0

    @property
    def painted(self) -> Mask:
        """What is painted, (Z, Y, X): 0, 1 or 255."""
        return self._stack(self.labels)

    @property
    def reviewed(self) -> Mask:
        """Where it was reviewed, (Z, Y, X): 0 or 1."""
        return self._stack(self.region)

    @property
    def mask(self) -> Mask:
        """The mask as it stands, see `finished`."""
        return finished(self.painted, self.reviewed)

    def press(self, key: str) -> None:
        """Do what a key of `KEYS` does."""
        if key == "g":
            shown = not any(layer.visible for layer in self.guides)
            for layer in self.guides:
                layer.visible = shown
            return
        layer = self.region if key in "rb" else self.labels
        self._viewer.layers.selection.active = layer
        layer.mode = "polygon" if key == "r" else "paint"
        layer.selected_label = {"0": BACKGROUND, "u": UNSURE}.get(key, FOREGROUND)

    def review_plane(self) -> None:
        """Say that the whole plane was reviewed."""
        self._fill(self.region, np.ones(self.reviewed.shape[1:], bool), REVIEWED)

    def take(self, proposal: Mask) -> None:
        """Paint what is proposed for this plane, where nothing is painted yet; it can be undone."""
        free = (self.painted[self.z] == BACKGROUND) & (proposal != BACKGROUND)
        self._fill(self.labels, free, proposal[free])

    def flush(self) -> None:
        """Write a draft, if anything has changed since the last."""
        with self._lock:
            now = self.painted.copy(), self.reviewed.copy()
            if not all(map(np.array_equal, now, self._saved)):
                try:
                    self._save(*now)
                    self._saved = now
                except MitolumeError as error:
                    show_error(str(error))

    def settle(self) -> None:
        """Take what is painted now as saved."""
        with self._lock:
            self._saved = self.painted.copy(), self.reviewed.copy()

    def close(self) -> None:
        """Write what is not written yet, and remove the layers."""
        if not self._closed:
            self._closed = True
            self._changed.set()
            self._thread.join()
        for layer in (self.labels, self.region):
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)

    def _stack(self, layer: Any) -> Mask:
        pixels = np.asarray(layer.data)
        return pixels if pixels.ndim == 3 else pixels[None]

    def _fill(self, layer: Any, where: Any, values: Any) -> None:
        indices = np.nonzero(where)
        if layer.ndim == 3:
            indices = (np.full(len(indices[0]), self.z), *indices)
        if len(indices[0]):
            values = np.broadcast_to(np.asarray(values, layer.data.dtype), len(indices[0]))
            layer.data_setitem(indices, values)

    def _write_drafts(self) -> None:
        """Write a draft whenever something was painted; what is painted meanwhile, afterwards."""
        last = False
        while not last:
            self._changed.wait()
            self._changed.clear()
            last = self._closed
            self.flush()
