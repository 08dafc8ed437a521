"""OME-Zarr on the network: read as the file is, and no more of it than is asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
from helpers.command import call
from helpers.fields import blobs
from helpers.microscope_files import write_zarr, zip_zarr
from helpers.predictors import predictor
from helpers.server import Server, serving

import mitolume
from mitolume.errors import MitolumeError
from mitolume.io.read import read_plane
from mitolume.models.bundle import save_bundle

pytest.importorskip("aiohttp", reason='needs pip install "mitolume[remote]"')
STACK = np.stack([blobs(seed, (70, 90))[0] for seed in range(5)])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "there").mkdir()
    with serving(tmp_path / "there") as made:
        yield made


def image(server: Server, version: str = "0.5", name: str = "a.ome.zarr") -> str:
    """Put a stack on the server; return its address."""
    write_zarr(server.folder / name, "zyx", STACK, version=version, scale=[0.5, 0.1, 0.1])
    return f"{server.address}/{name}"


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6", "ozx"])
def test_a_plane_is_read_and_no_other(version: str, server: Server) -> None:
    address = image(server, "0.5" if version == "ozx" else version)
    if version == "ozx":
        zip_zarr(server.folder / "a.ome.zarr", server.folder / "a.ozx")
        address = f"{server.address}/a.ozx"
    opened = mitolume.read(address)
    assert opened.attrs["source"] == address
    assert opened.attrs["pixel_size_um"] == {"Z": 0.5, "Y": 0.1, "X": 0.1}
    opening, before = len(server.asked), server.sent
    assert opening < 40
    np.testing.assert_array_equal(read_plane(opened, z=3), STACK[3])
    if version != "ozx":
        assert len(server.asked) - opening == 1, "its one chunk"
        assert server.asked[-1].endswith(("0/c/3/0/0", "0/3.0.0"))
        assert server.sent - before < 2 * STACK[3].nbytes, "compressed"


def test_commands_do_with_it_what_they_do_with_a_file(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    address, here = image(server), server.folder / "a.ome.zarr"
    made = predictor(width=2)
    save_bundle(tmp_path / "model", made.network.state_dict(), made.card)
    masks = []
    for place, out in ((address, tmp_path / "far"), (here, tmp_path / "near")):
        assert call(monkeypatch, "predict", tmp_path / "model", place, "--out", out) == 0
        masks.append(mitolume.read(out / "a_mask.ome.zarr").values)
        table = out / "objects.csv"
        command = ("measure", out / "a_mask.ome.zarr", "--intensity", place, "--out", table)
        assert call(monkeypatch, *command) == 0
        assert call(monkeypatch, "inspect", place) == 0
    assert f"\n{address}\n" in capsys.readouterr().out
    np.testing.assert_array_equal(*masks)
    tables = [(tmp_path / name / "objects.csv").read_text() for name in ("far", "near")]
    assert tables[0] == tables[1]
    # A mask on the network is measured, too.
    write_zarr(server.folder / "m.zarr", "zyx", (STACK > 100).astype(np.uint8), unit=None)
    command = ("measure", f"{server.address}/m.zarr", "--intensity", address)
    assert call(monkeypatch, *command, "--out", tmp_path / "objects.csv") == 0


def test_a_server_that_dies_leaves_a_sentence_and_nothing_half_written(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    address = image(server)
    made = predictor(width=2)
    save_bundle(tmp_path / "model", made.network.state_dict(), made.card)
    server.dies_at = "/a.ome.zarr/0/c/2/0/0"
    out = tmp_path / "masks"
    command = ("predict", tmp_path / "model", address, "--out", out, "--quiet")
    assert call(monkeypatch, *command) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"mitolume: {address} can't be read over the network (")
    assert said.count("\n") == 1
    assert not out.exists() or not list(out.iterdir())


FAULTS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    **{str(status): (status, bytes) for status in (401, 429, 500)},
    "cut": (0, lambda content: content[: len(content) // 2]),
    "nothing": (0, lambda content: b""),
    "a page": (0, lambda content: b"<html>Log in</html>"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("file", ["zarr.json", "0/zarr.json", "0/c/2/0/0", ".zattrs", "0/2.0.0"])
def test_a_server_that_fails_never_gives_zeros(file: str, fault: str, server: Server) -> None:
    address = image(server, "0.5" if "zarr.json" in file or "/c/" in file else "0.4")
    server.answers[f"/a.ome.zarr/{file}"] = FAULTS[fault]
    with pytest.raises(MitolumeError, match=f"{address}.* can't be read"):
        read_plane(mitolume.read(address), z=2)


@pytest.mark.parametrize("scheme", ["http", "https", "s3"])
@pytest.mark.parametrize(
    "command",
    [("inspect", "URL"), ("predict", "run", "URL", "--out", "o"), ("run", "--fields=URL"),
     ("measure", "a.tif", "--intensity", "URL", "--out", "o"), ("label", "URL", "--out", "o")],
)  # fmt: skip
def test_a_password_is_refused_before_anything_is_recorded(
    scheme: str, command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    url = f"{scheme}://anna:s3cr%40et@example.invalid:80/a.zarr"
    assert call(monkeypatch, *(word.replace("URL", url) for word in command)) == 1
    said = capsys.readouterr().err
    assert "leave name and password out of the address at example.invalid," in said
    assert "anna" not in said
    assert not list(tmp_path.iterdir())
    with pytest.raises(MitolumeError, match="leave name and password out"):
        mitolume.read(url)


def test_the_advice_on_passwords_works(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, server.login = image(server), "Basic YW5uYTpzM2NyZXQ="  # anna:s3cret
    with pytest.raises(MitolumeError, match="can't be read over the network"):
        mitolume.read(address)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login anna password s3cret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    opened = mitolume.read(address)
    np.testing.assert_array_equal(read_plane(opened, z=3), STACK[3])
    assert "s3cret" not in str(opened.attrs)


@pytest.mark.parametrize("version", [2, 3])
def test_a_cut_chunk_is_damaged_and_no_pixels(version: int, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    write_zarr(path, "zyx", STACK, version="0.4" if version == 2 else "0.5")
    compressor = numcodecs.Blosc("lz4") if version == 2 else zarr.codecs.BloscCodec(cname="lz4")
    zarr.create_array(
        path / "0", data=STACK, chunks=(1, *STACK.shape[1:]), zarr_format=version,
        compressors=compressor, overwrite=True,
    )  # fmt: skip
    chunk = path / "0" / ("2.0.0" if version == 2 else "c/2/0/0")
    np.testing.assert_array_equal(read_plane(mitolume.read(path), z=2), STACK[2])
    for share in (0.001, 0.5, 0.999):
        chunk.write_bytes(chunk.read_bytes()[: int(chunk.stat().st_size * share)])
        with pytest.raises(MitolumeError, match="can't be read"):
            read_plane(mitolume.read(path), z=2)


def test_what_is_not_there_is_said(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MitolumeError, match=rf"{server.address}/no.zarr: no OME-Zarr is found at"):
        mitolume.read(f"{server.address}/no.zarr")
    with pytest.raises(MitolumeError, match=r"http://127.0.0.1:9/a.zarr can't be read over the"):
        mitolume.read("http://127.0.0.1:9/a.zarr")
    with pytest.raises(MitolumeError, match=r"over the network OME-Zarr is read; download"):
        mitolume.read(f"{server.address}/a.tif")
    assert call(monkeypatch, "inspect", f"{server.address}/no.zarr") == 1
    assert capsys.readouterr().err.count("\n") == 1
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(MitolumeError, match=r'pip install "mitolume\[remote\]"'):
        mitolume.read(image(server))


def test_a_public_bucket_is_read(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs", reason='needs pip install "mitolume[remote]"')
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
    image(server, name="bucket/a.zarr")
    np.testing.assert_array_equal(read_plane(mitolume.read("s3://bucket/a.zarr"), z=2), STACK[2])
