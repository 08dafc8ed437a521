"""What the widgets share: paths, sliders, the line of a button, work beside the window."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from napari.qt.threading import create_worker
from napari.utils import progress
from napari.utils.notifications import show_error
from qtpy.QtCore import QObject, QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QListWidget,
    QPushButton,
    QScrollArea,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QLabeledDoubleSlider
from superqt.utils import qthrottled

from mitolume.analysis.object_pictures import colours_by_value
from mitolume.errors import MitolumeError
from mitolume.progress import Watcher, watched

PREVIEW = ("field while it learns", "found so far")  # layers of a training, for the eye alone
_last: dict[str, str] = {}  # the table and the model that were used last, for the other widgets


class PathEdit(QWidget):
    """A path that is typed or chosen; ``kind`` is file, folder or new (a file that may not be)."""

    changed = Signal()

    def __init__(self, kind: str = "file", *, shared: str = "", hint: str = "") -> None:
        super().__init__()
        self._kind, self._shared = kind, shared
        self.edit = QLineEdit(_last.get(shared, ""))
        self.edit.setPlaceholderText(hint)
        self.edit.editingFinished.connect(self._tell)
        self.button = QToolButton(text="...")
        self.button.clicked.connect(self._choose)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.edit)
        layout.addWidget(self.button)

    @property
    def path(self) -> Path | None:
        """The path; None where nothing is named."""
        text = self.edit.text().strip()
        return Path(text).expanduser() if text else None

    def set(self, path: Path | str) -> None:
        """Name a path, as if it had been chosen."""
        self.edit.setText(str(path))
        self._tell()

    def showEvent(self, event: Any) -> None:
        """Take over what another widget was told meanwhile."""
        if not self.edit.text() and (known := _last.get(self._shared)):
            self.set(known)
        super().showEvent(event)

    def _choose(self) -> None:
        start = str((self.path or Path()).parent)
        if self._kind == "folder":
            chosen = QFileDialog.getExistingDirectory(self, "Choose a folder", start)
        elif self._kind == "new":
            chosen, _ = QFileDialog.getSaveFileName(self, "Choose a file", start)
        else:
            chosen, _ = QFileDialog.getOpenFileName(self, "Choose a file", start)
        if chosen:
            self.set(chosen)

    def _tell(self) -> None:
        if self._shared and self.edit.text():
            _last[self._shared] = self.edit.text()
        self.changed.emit()


class _Scrolled(QScrollArea):
    """As wide as what it holds; lower where several widgets share the height of a window."""

    def minimumSizeHint(self) -> Any:
        """Leave room for the bar at the side, and a gap."""
        bar = self.verticalScrollBar().sizeHint().width() + 4
        return QSize(self.widget().minimumSizeHint().width() + bar, 120)


class Panel(QWidget):
    """A widget of the plugin: rows of a form, buttons, and below them what a script would say."""

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.viewer = viewer
        self._follows: list[tuple[Any, Callable[..., None]]] = []
        scrolled, held = _Scrolled(widgetResizable=True), QWidget()
        scrolled.setFrameStyle(0)
        scrolled.setWidget(held)
        whole, column = QVBoxLayout(self), QVBoxLayout(held)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.addWidget(scrolled)
        column.setContentsMargins(6, 6, 6, 6)
        self.form = QFormLayout()
        self.form.setFieldGrowthPolicy(QFormLayout.AllNonFixedFieldsGrow)
        column.addLayout(self.form)
        column.addStretch()
        self.said = QLabel()
        self.said.setWordWrap(True)
        column.addWidget(self.said)
        column.addWidget(QLabel("the same as a line of the shell or of Python:"))
        self.line = QLineEdit(readOnly=True)
        column.addWidget(self.line)

    def row(self, name: str, widget: QWidget, tip: str = "") -> Any:
        """Add a widget with its name; return it."""
        widget.setToolTip(tip)
        if isinstance(widget, QComboBox):  # long names of layers widen no widget
            widget.setSizeAdjustPolicy(QComboBox.AdjustToMinimumContentsLengthWithIcon)
            widget.setMinimumContentsLength(8)
        if name:
            self.form.addRow(name, widget)
        else:
            self.form.addRow(widget)
        return widget

    def buttons(self, **calls: Callable[[], Any]) -> dict[str, QPushButton]:
        """Add a row of buttons; ``_`` in their names is a space."""
        holder, made = QWidget(), {}
        layout = QHBoxLayout(holder)
        layout.setContentsMargins(0, 0, 0, 0)
        for name, call in calls.items():
            made[name] = narrow_button(name.replace("_", " "))
            made[name].clicked.connect(lambda _=False, call=call: self.attempt(call))
            layout.addWidget(made[name])
        self.form.addRow(holder)
        return made

    def names(self, height: int, open_one: Callable[[int], Any]) -> Any:
        """Add a list of names, of which one is opened by its number when it is clicked; return it.

        One that is too long is cut in its middle, not at its telling end.
        """
        made = self.row("", QListWidget())
        made.setMaximumHeight(height)
        made.setTextElideMode(Qt.ElideMiddle)
        made.setHorizontalScrollBarPolicy(Qt.ScrollBarAlwaysOff)
        for chosen in (made.itemActivated, made.itemClicked):
            chosen.connect(lambda _: self.attempt(lambda: open_one(made.currentRow())))
        return made

    def follow(self, sources: Sequence[Any], *calls: Callable[..., None]) -> None:
        """Call at each of some events of the viewer while the widget is shown, and once now."""
        self._follows += [(source, call) for source in sources for call in calls]
        for call in calls:
            call()

    def follow_layers(self, *calls: Callable[..., None]) -> None:
        """Call whenever the list of layers changes."""
        events = self.viewer.layers.events
        names = ("inserted", "removed", "renamed")  # old versions lack the last
        self.follow([getattr(events, name) for name in names if hasattr(events, name)], *calls)

    def showEvent(self, event: Any) -> None:
        """Follow the viewer from now on."""
        super().showEvent(event)
        for source, call in self._follows:
            source.connect(call)
            call()

    def hideEvent(self, event: Any) -> None:
        """Follow the viewer no longer: what is hidden may be deleted next."""
        for source, call in self._follows:
            source.disconnect(call)
        super().hideEvent(event)

    def script(self, line: str) -> None:
        """Show how a script says what was done."""
        self.line.setText(line)
        self.line.setToolTip(line)
        self.line.setCursorPosition(0)

    def attempt(self, call: Callable[[], Any]) -> Any:
        """Call, and say what a person can mend."""
        try:
            return call()
        except MitolumeError as error:
            self.fail(error)
            return None

    def fail(self, error: Exception) -> None:
        """Show an error in the widget and as napari shows errors."""
        self.said.setText(str(error))
        show_error(str(error))

    def tell(self, text: str) -> None:
        """Say in the widget what has happened."""
        self.said.setText(text)

    def remove_layer(self, layer: Any) -> None:
        """Remove a layer, or the one of a name, if it is there."""
        if layer in self.viewer.layers:
            self.viewer.layers.remove(layer)


def layer_box(viewer: Any, kind: type[Any], hidden: tuple[str, ...]) -> tuple[Any, Any]:
    """Return a box with the names of some layers, and what brings it up to date."""
    box = QComboBox()

    def fill(_: Any = None) -> None:
        now = box.currentText()
        box.clear()
        names = [layer.name for layer in viewer.layers if isinstance(layer, kind)]
        box.addItems([name for name in names if name not in (*hidden, *PREVIEW)])
        box.setCurrentText(now)

    return box, fill


def narrow_button(text: str) -> Any:
    """Return a button that is no wider than its text, so that several fit beside each other."""
    button = QPushButton(text)
    button.setStyleSheet("padding: 4px 2px")
    button.setMinimumWidth(button.fontMetrics().horizontalAdvance(text) + 14)
    return button


def slider(low: float, high: float, value: float, decimals: int = 2) -> Any:
    """Return a slider that shows its number."""
    made = QLabeledDoubleSlider(Qt.Horizontal)
    made.setRange(low, high)
    made.setDecimals(decimals)
    made.setSingleStep(10.0**-decimals)
    made.setValue(value)
    return made


def rate(listed: QListWidget, figures: Sequence[float]) -> None:
    """Put a square before each entry of a list: dark blue where its figure is low, yellow if high.

    Entries whose figure is not known (NaN) are grey.
    """
    values = np.asarray(figures, np.float64)
    if np.isfinite(values).sum() > 1:
        for row, rgba in enumerate(colours_by_value(values)):
            square = QPixmap(12, 12)
            square.fill(QColor.fromRgbF(*rgba))
            listed.item(row).setIcon(QIcon(square))


class Work(QObject):
    """A call in a thread, with its progress in napari's activity dock.

    ``done`` is called in the window's own thread with what the call returned, ``failed`` with the
    error that it raised. `stop` asks the call to end soon (see `mitolume.progress.Watcher`), as
    closing the window does.
    """

    _moved = Signal(str, int, int, str)
    _seen = Signal(object, object)

    def __init__(
        self,
        call: Callable[[], Any],
        done: Callable[[Any], None],
        failed: Callable[[Exception], None],
        moved: Callable[[str, int, int, str], None] = lambda title, done, total, note: None,
        look: Callable[[Any, Any], None] = lambda image, found: None,
    ) -> None:
        super().__init__()
        self._call, self._done, self._failed = call, done, failed
        self._stop = threading.Event()
        self._bar: Any = progress(total=0, desc="mitolume")
        self._show_bar, self._show = qthrottled(self._advance, timeout=100), moved
        self._moved.connect(self._show_bar)
        self._moved.connect(moved)
        self._seen.connect(look)
        self._result: Any = MitolumeError("a fault of the program stopped the work")
        self.is_running = True
        self.worker = create_worker(self._run)
        self.worker.finished.connect(self._finish)
        self.worker.start()

    def stop(self) -> None:
        """Ask the call to end with what it has."""
        self._stop.set()

    def _run(self) -> None:
        def enough() -> bool:
            return self._stop.is_set() or bool(self.worker.abort_requested)

        try:
            with watched(Watcher(self._moved.emit, enough, self._seen.emit)):
                self._result = self._call()
        except MitolumeError as error:  # napari shows all others, with where they come from
            self._result = error

    def _advance(self, title: str, done: int, total: int, note: str) -> None:
        if self.is_running:
            self._bar.total = total
            self._bar.n = done
            self._bar.set_description(f"{title}  {note}")
            self._bar.events.value(value=done)

    def _finish(self) -> None:
        self.is_running = False
        self._bar.close()
        if isinstance(self._result, Exception):
            self._failed(self._result)
        else:
            self._done(self._result)
