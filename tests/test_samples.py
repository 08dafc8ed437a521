"""Public samples fetched from a server of this machine: whole, by their checksum, or not at all."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from helpers.command import Shell

import mitolume
from mitolume.errors import MitolumeError
from mitolume.io import samples as module
from mitolume.io.formats import reader_of
from mitolume.io.samples import Sample, fetch_sample, samples

BYTES = bytes(range(256)) * 400


class Home(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/gone.tif":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(BYTES)))
        self.end_headers()
        wrong = self.path == "/changed.tif"
        sent = BYTES[: len(BYTES) // 2] if self.path == "/cut.tif" else BYTES
        self.wfile.write(sent[::-1] if wrong else sent)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve samples named whole, changed, cut, gone and offline."""
    pytest.importorskip("pooch")
    server = HTTPServer(("127.0.0.1", 0), Home)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    digest = hashlib.sha256(BYTES).hexdigest()
    known = {
        name: Sample(name, f"{name}.tif", "a test", "CC0", 1, digest, f"{address}/{name}.tif")
        for name in ("whole", "changed", "cut", "gone", "offline")
    }
    known["offline"] = replace(known["offline"], url="http://127.0.0.1:9/offline.tif")
    monkeypatch.setattr(module, "samples", lambda: known)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield address
    server.shutdown()
    server.server_close()


def test_a_sample_is_fetched_once(home: str, tmp_path: Path, shell: Shell) -> None:
    path = tmp_path / "new" / "whole.tif"
    assert shell("sample", "whole", "--out", path.parent) == f"{path}\n"
    assert path.read_bytes() == BYTES
    time = path.stat().st_mtime_ns
    assert fetch_sample("whole", path.parent) == path
    assert path.stat().st_mtime_ns == time


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("changed", "is no longer the file that was published; nothing was written"),
        ("cut", "cut could not be fetched from 127.0.0.1:[0-9]+: are you online?"),
        ("gone", "gone could not be fetched from 127.0.0.1:[0-9]+: it answers 404"),
        ("offline", "offline could not be fetched from 127.0.0.1:9: are you online?"),
        ("other", "no sample other; there are whole, changed, cut, gone, offline"),
    ],
)
def test_a_fault_is_one_sentence_and_leaves_nothing(
    home: str, tmp_path: Path, name: str, said: str
) -> None:
    with pytest.raises(MitolumeError, match=f"^[^\n]*{said}[^\n]*$"):
        fetch_sample(name, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name != ".mitolume"]


def test_a_file_of_someone_else_is_not_replaced(home: str, tmp_path: Path) -> None:
    (tmp_path / "whole.tif").write_text("mine")
    with pytest.raises(MitolumeError, match="not written by mitolume"):
        fetch_sample("whole", tmp_path)
    assert (tmp_path / "whole.tif").read_text() == "mine"


def test_what_is_published_is_said_before(shell: Shell) -> None:
    lines = shell("sample").splitlines()
    folder = Path(mitolume.__file__).parent / "napari"
    contributions = yaml.safe_load((folder / "napari.yaml").read_text())["contributions"]
    shown = {one["key"]: one["display_name"] for one in contributions["sample_data"]}
    assert len(lines) == len(samples())
    for line, (name, sample) in zip(lines, samples().items(), strict=True):
        assert line.split(None, 1) == [name, str(sample)]
        assert shown[name] == str(sample)
        assert re.fullmatch("[0-9a-f]{64}", sample.sha256)
        assert sample.url.startswith("https://")
        assert re.search("/[0-9a-f]{40}/", sample.url), "a commit: what it names never changes"
        reader_of(Path(sample.file))
