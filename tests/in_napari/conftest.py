"""A real window of napari, on a screen of its own where there is none; or the reason to skip."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_windows: list[str] = []  # files of tests that had one


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let napari and what it stands on warn of what is deprecated."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.filterwarnings("ignore"))


def _missing() -> str:
    if importlib.util.find_spec("napari") is None or importlib.util.find_spec("qtpy") is None:
        return "napari is not installed: pip install mitolume[napari]"
    if not os.environ.get("DISPLAY") and shutil.which("Xvfb") is None:
        return "there is no screen and no Xvfb: apt-get install xvfb libegl1 libxcb-cursor0"
    return ""


@pytest.fixture(scope="session")
def _screen() -> Iterator[None]:
    """Start a screen where there is none, or skip what needs one."""
    if missing := _missing():
        pytest.skip(missing)
    if os.environ.get("DISPLAY"):
        yield
        return
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1280x800x24"]
    screen = subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL)
    os.environ["DISPLAY"] = ":" + os.read(reading, 16).decode().strip()
    yield
    screen.terminate()
    screen.wait()
    del os.environ["DISPLAY"]


@pytest.fixture(scope="module")
def window(
    _screen: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """Open one window of 1280 x 800 for the tests of a file; a second file needs its own process.

    A second window in one process ended, now and then, in a crash of the software renderer. So does
    an empty window (napari 0.9 with Mesa's software renderers): once a brush was shown, all layers
    are removed, the window is drawn, changes its size and is drawn again. Tests leave that out.
    """
    if _windows:
        pytest.skip(f"{_windows[0]} had the window of this process; see `make napari`")
    _windows.append(request.path.name)
    os.environ["NAPARI_CONFIG"] = str(tmp_path_factory.mktemp("napari") / "settings.yaml")
    import napari

    viewer = napari.Viewer()
    viewer.window.resize(1280, 800)
    yield viewer
    viewer.close()


@pytest.fixture
def viewer(window: Any, wait: Callable[..., None]) -> Iterator[Any]:
    """Return the window without layers and docked widgets."""
    yield window
    wait()  # what was asked for is drawn before its layers are gone
    for dock in list(window.window._wrapped_dock_widgets.values()):
        window.window.remove_dock_widget(dock)
    window.layers.clear()
    window.grid.enabled = False
    window.dims.ndisplay = 2
    wait()


@pytest.fixture
def wait(window: Any) -> Callable[..., None]:
    """Return what lets the window work until something is true."""
    from qtpy.QtWidgets import QApplication

    def until(condition: Callable[[], Any] = lambda: True, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        QApplication.processEvents()
        while not condition():
            assert time.monotonic() < end, "it did not happen in time"
            QApplication.processEvents()
            time.sleep(0.01)

    return until
