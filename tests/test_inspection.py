"""What `mitolume inspect` says of a file, and of what will cause trouble with it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
import xarray as xr
from helpers.command import Shell
from helpers.microscope_files import write_lif, write_zarr
from PIL import Image

from mitolume.batch.inspect import inspect, plane_warnings
from mitolume.io.write import making_results, write_image

NOISE = np.random.default_rng(0).integers(10, 250, (60, 70), dtype=np.uint8)


@pytest.mark.parametrize(
    ("plane", "warning"),
    [
        (np.zeros((4, 5), np.uint16), "one flat grey (0)"),
        (np.where(NOISE > 200, 255, NOISE), "saturated"),
        (np.where(NOISE > 200, 4095, NOISE.astype(np.uint16)), "is at 4095"),
        (NOISE.astype(np.int16) - 100, "negative values"),
        (np.where(NOISE > 240, np.nan, NOISE), "NaN or infinite"),
        ((NOISE > 100) * np.uint8(255), "only the values 0 and 255, as in a mask"),
        (np.pad(NOISE // 4 + 150, 9), "a black border, 39% of the middle plane"),
        (NOISE.astype(np.complex64), "not grey values"),
        (NOISE, None),
        (NOISE.astype(np.float32), None),
        (np.where(NOISE == 200, 255, NOISE), None),  # single bright pixels saturate nothing
    ],
)
def test_planes_that_carry_no_picture(plane: np.ndarray, warning: str | None) -> None:
    found = plane_warnings(plane)
    assert len(found) == (warning is not None)
    assert warning is None or warning in found[0]


def test_a_plain_stack_may_be_anything(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.stack([NOISE] * 5))
    assert "what its 5 planes are: read as z" in inspect(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", np.stack([NOISE] * 5), metadata={"axes": "TYX"})
    assert "planes are" not in inspect(tmp_path / "b.tif")
    for metadata, doubtful in ({"axes": "ZYX"}, True), ({"axes": "ZYX", "spacing": 0.3}, False):
        tifffile.imwrite(tmp_path / "c.tif", np.stack([NOISE] * 5), imagej=True, metadata=metadata)
        assert ("read as z" in inspect(tmp_path / "c.tif")) == doubtful


def test_pixel_size_and_colours(tmp_path: Path) -> None:
    Image.fromarray(np.stack([NOISE, NOISE[::-1], NOISE], -1)).save(tmp_path / "a.jpg", quality=95)
    text = inspect(tmp_path / "a.jpg")
    assert "colour picture (RGB)" in text
    assert "states no pixel size" in text
    assert "--pixel-size" in text
    write_zarr(tmp_path / "b.zarr", "yx", NOISE, scale=(80, 80))
    assert "probably nanometres, so 0.08 µm: --pixel-size 0.08" in inspect(tmp_path / "b.zarr")
    write_zarr(tmp_path / "c.zarr", "yx", NOISE, scale=(1, 1))
    assert "exactly 1 µm" in inspect(tmp_path / "c.zarr")
    write_zarr(tmp_path / "d.zarr", "yx", NOISE, scale=(0.1, 0.2))
    assert "not square (Y 0.1 µm, X 0.2 µm)" in inspect(tmp_path / "d.zarr")


def test_scenes_that_differ_are_listed_with_their_dims(tmp_path: Path) -> None:
    dark = np.zeros((2, 60, 70), np.uint8)
    scenes = {"one": ("YX", NOISE), "two": ("ZYX", dark)}
    write_lif(tmp_path / "a.lif", scenes, size_um={"X": 0.1, "Y": 0.1})
    lines = inspect(tmp_path / "a.lif").splitlines()
    assert "  scenes      0 = one: T 1, C 1, Z 1, Y 60, X 70" in lines
    assert "              1 = two: T 1, C 1, Z 2, Y 60, X 70" in lines
    assert any("scene two: middle plane: one flat grey" in line for line in lines)
    assert not any("scene one" in line for line in lines)
    (tmp_path / "cut.lif").write_bytes((tmp_path / "a.lif").read_bytes()[:-5000])
    lines = inspect(tmp_path / "cut.lif").splitlines()
    assert "              1 = two: can't be read" in lines
    assert any("scene two: " in line and "may be truncated" in line for line in lines)


def test_a_bad_file_does_not_hide_the_others(tmp_path: Path, shell: Shell) -> None:
    (tmp_path / "bad.nd2").write_text("hello")
    tifffile.imwrite(tmp_path / "nan.tif", np.where(NOISE > 240, np.nan, NOISE).astype(np.float32))
    write_zarr(tmp_path / "good.ome.zarr", "yx", NOISE)
    files = [tmp_path / name for name in ("bad.nd2", "nan.tif", "good.ome.zarr")]
    said = shell("inspect", *files, code=1)
    for part in ("NaN or infinite", "good.ome.zarr", "3 files found, 2 read; the others failed:",
                 "bad.nd2 can't be read"):  # fmt: skip
        assert part in said


def test_what_is_no_image_is_named_and_the_others_shown(tmp_path: Path, shell: Shell) -> None:
    """A TIFF that was just opened by its writer, a pipe, and links that go round in a circle."""
    tifffile.imwrite(tmp_path / "good.tif", NOISE)
    (tmp_path / "header.tif").write_bytes(b"II*\0\0\0\0\0")
    os.mkfifo(tmp_path / "pipe.tif")
    (tmp_path / "one.tif").symlink_to("two.tif")
    (tmp_path / "two.tif").symlink_to("one.tif")
    shown, named = shell("inspect", tmp_path, code=1).split("1 read; the others failed:\n")
    assert "5 files found, " in shown
    assert "good.tif" in shown
    faults = ("it holds no image", "leads nowhere", "no regular file", "leads nowhere")
    for line, said in zip(named.splitlines(), faults, strict=True):
        assert said in line


def test_results_are_described_too(tmp_path: Path, shell: Shell) -> None:
    with making_results():
        write_image(tmp_path / "crop.ome.tif", xr.DataArray(NOISE, dims=("Y", "X")))
    (tmp_path / "day 2").mkdir()
    tifffile.imwrite(tmp_path / "day 2" / "a.tif", NOISE)
    said = shell("inspect", tmp_path)
    assert "crop.ome.tif" in said
    assert "images in the folders below it are left out (day 2)" in said
