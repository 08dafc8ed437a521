"""Reading: every kind of file gives the same axes, names, units and pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mitolume.errors import MitolumeError
from mitolume.io.channels import select_channel
from mitolume.io.formats import stated
from mitolume.io.pixel_size import believed_pixel_size
from mitolume.io.read import AXES, read, read_plane, scenes
from mitolume.io.write import write_image, write_mask

PLAIN = (".tif", ".tiff", ".ome.tif", ".ome.tiff", ".png")  # pixels, and little else
PLANE = np.arange(12 * 15, dtype=np.uint8).reshape(12, 15)


@pytest.mark.parametrize("ending", PLAIN)
@pytest.mark.parametrize("shape", [(12, 15), (1, 1), (1, 7), (7, 1)])
def test_plain_files_give_five_axes_lazily_and_the_pixels(
    ending: str, shape: tuple[int, int], tmp_path: Path
) -> None:
    path, values = tmp_path / f"a{ending}", PLANE[: shape[0], : shape[1]].copy()
    if ending == ".png":
        Image.fromarray(values).save(path)
    else:
        tifffile.imwrite(path, values, ome=".ome." in path.name)
    for _ in range(2):  # a file can be opened again
        image = read(path)
        assert image.dims == AXES
        assert list(image.coords) == ["C"]
        assert image.chunks is not None
        assert "pixel_size_um" not in image.attrs
        np.testing.assert_array_equal(read_plane(image), values)


def test_one_chunk_per_plane_and_tags_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.arange(5 * 8 * 9, dtype=np.uint16).reshape(5, 8, 9)
    tifffile.imwrite(tmp_path / "s.tif", pixels)
    image = read(tmp_path / "s.tif")
    assert image.data.chunksize == (1, 1, 1, 8, 9)
    monkeypatch.setattr(tifffile, "TiffFile", None)
    np.testing.assert_array_equal(image.values[0, 0], pixels)
    assert image.values.flags.writeable


@given(
    shape=st.tuples(*[st.integers(1, 3)] * 3, st.integers(1, 9), st.integers(1, 9)),
    dtype=st.sampled_from([np.uint8, np.uint16, np.float32]),
    size=st.none() | st.floats(0.001, 5),
)
@settings(max_examples=25)
def test_written_images_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, ...],
    dtype: type,
    size: float | None,
) -> None:
    path = tmp_path_factory.mktemp("a") / "a.ome.tif"
    names = np.array([f"channel <{i}>" for i in range(shape[1])], dtype=object)
    values = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    attrs = {"pixel_size_um": {"Z": 3.0, "Y": size, "X": size}} if size else {}
    image = xr.DataArray(values, dims=AXES, coords={"C": names}, attrs=attrs)
    write_image(path, image)
    back = read(path)
    np.testing.assert_array_equal(back.values, values)
    assert back.dtype == dtype
    assert list(back["C"].values) == list(names)
    if size:
        assert back.attrs["pixel_size_um"] == pytest.approx({"Z": 3.0, "Y": size, "X": size})


def test_masks_keep_their_values_and_show_in_a_viewer(tmp_path: Path) -> None:
    mask = np.array([[0, 1], [255, 0]], np.uint8)
    write_mask(tmp_path / "m.ome.tif", xr.DataArray(mask, dims=("Y", "X")))
    np.testing.assert_array_equal(read_plane(read(tmp_path / "m.ome.tif")), mask)
    shown = np.asarray(Image.open(tmp_path / "m.ome.tif").convert("L"))
    assert shown[0, 0] == 0
    assert shown[0, 1] == 255
    assert 100 < shown[1, 0] < 150


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, {}),
        ({"resolution": (1e5, 1e5), "resolutionunit": "CENTIMETER"}, {"Y": 0.1, "X": 0.1}),
        ({"resolution": (10, 10)}, {}),
    ],
)
def test_pixel_size_needs_a_unit_and_a_credible_value(
    tmp_path: Path, options: dict, expected: dict
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PLANE, **options)
    assert believed_pixel_size(stated(tmp_path / "a.tif"))[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("unit", "stated_um", "sentence"),
    [
        ("µm", 80, "probably nanometres, so 0.08 µm: --pixel-size 0.08"),
        ("µm", 8e-8, "probably metres, so 0.08 µm: --pixel-size 0.08"),
        ("mm", 0.6, "Y 600 µm, X 600 µm, which is not believed"),
        ("pixel", 0.1, "no pixel size with a length unit"),
    ],
)
def test_a_wrong_unit_is_guessed_and_not_believed(
    tmp_path: Path, unit: str, stated_um: float, sentence: str
) -> None:
    metadata = {f"PhysicalSize{axis}": stated_um for axis in "XY"}
    metadata |= {f"PhysicalSize{axis}Unit": unit for axis in "XY"}
    tifffile.imwrite(tmp_path / "a.ome.tif", PLANE, ome=True, metadata=metadata)
    size, doubt = believed_pixel_size(stated(tmp_path / "a.ome.tif"))
    assert size == {}
    assert sentence in doubt
    assert "pixel_size_um" not in read(tmp_path / "a.ome.tif").attrs


def test_ome_metadata_counts_under_any_name(tmp_path: Path) -> None:
    image = xr.DataArray(PLANE, dims=("Y", "X"), attrs={"pixel_size_um": {"Y": 0.2, "X": 0.2}})
    write_image(tmp_path / "a.ome.tif", image)
    (tmp_path / "a.ome.tif").rename(tmp_path / "b.tif")
    assert read(tmp_path / "b.tif").attrs["pixel_size_um"] == pytest.approx({"Y": 0.2, "X": 0.2})


def test_grey_saved_as_colour_is_grey_and_real_colour_needs_a_channel(tmp_path: Path) -> None:
    Image.fromarray(PLANE).convert("RGB").save(tmp_path / "grey.png")
    assert read(tmp_path / "grey.png").sizes["C"] == 1
    colour = np.stack([PLANE, PLANE // 2, PLANE], axis=-1)
    Image.fromarray(colour).save(tmp_path / "colour.png")
    image = read(tmp_path / "colour.png")
    with pytest.raises(MitolumeError, match=r"3 channels; name one of them .*green"):
        select_channel(image, None)
    np.testing.assert_array_equal(read_plane(select_channel(image, "Green")), PLANE // 2)


RGB = np.stack([PLANE, PLANE // 2, 255 - PLANE], axis=-1)


@pytest.mark.parametrize(
    ("name", "convert", "channels", "dtype"),
    [
        ("palette of greys.png", lambda im: im.convert("P"), 1, np.uint8),
        ("four greys.png", lambda im: im.quantize(4), 1, np.uint8),
        ("palette.png", lambda im: Image.fromarray(RGB).quantize(16), 3, np.uint8),
        ("one bit.png", lambda im: im.convert("1"), 1, bool),
        ("grey and alpha.png", lambda im: im.convert("LA"), 1, np.uint8),
        ("colour and alpha.png", lambda im: Image.fromarray(RGB).convert("RGBA"), 3, np.uint8),
        ("16 bit.png", lambda im: Image.fromarray(PLANE.astype(np.uint16) * 300), 1, np.uint16),
        ("grey.jpg", lambda im: im, 1, np.uint8),
        ("inks.jpg", lambda im: Image.fromarray(RGB).convert("CMYK"), 3, np.uint8),
        ("colour.jpeg", lambda im: Image.fromarray(RGB), 3, np.uint8),
    ],
)
def test_pictures_have_the_channels_that_the_eye_sees(
    tmp_path: Path, name: str, convert: Callable, channels: int, dtype: type
) -> None:
    picture = convert(Image.fromarray(PLANE))
    picture.save(tmp_path / name)
    image = read(tmp_path / name)
    assert image.dtype == dtype
    assert list(image["C"].values) == (["red", "green", "blue"] if channels == 3 else ["0"])
    shown = picture if dtype != np.uint8 else picture.convert("RGB" if channels == 3 else "L")
    values = np.atleast_3d(np.asarray(shown)).transpose(2, 0, 1).astype(float)
    lossy = 40 if "jp" in name else 0
    assert np.abs(image.values[0, :, 0].astype(float) - values).max() <= lossy


@pytest.mark.parametrize(
    ("shape", "options", "sizes"),
    [
        ((5, 12, 15), {}, {"Z": 5}),
        ((2, 5, 12, 15), {}, {"C": 2, "Z": 5}),
        ((4, 2, 5, 12, 15), {}, {"T": 4, "C": 2, "Z": 5}),
        ((5, 12, 15), {"metadata": {"axes": "TYX"}}, {"T": 5}),
        ((5, 12, 15), {"metadata": None, "compression": "lzw"}, {"Z": 5}),
        ((5, 12, 15), {"bigtiff": True}, {"Z": 5}),
        ((4, 12, 15, 3), {"photometric": "rgb"}, {"Z": 4, "C": 3}),
        ((12, 15, 4), {"photometric": "rgb"}, {"C": 3}),
        ((3, 12, 15), {"photometric": "rgb", "planarconfig": "separate"}, {"C": 3}),
        ((4, 12, 15, 3), {"imagej": True, "metadata": {"axes": "ZYXS"}}, {"Z": 4, "C": 3}),
        ((2, 5, 3, 12, 15), {"imagej": True}, {"T": 2, "Z": 5, "C": 3}),
        ((100, 130), {"tile": (32, 32), "compression": "zlib"}, {"Y": 100, "X": 130}),
    ],
)
def test_tiff_axes(tmp_path: Path, shape: tuple, options: dict, sizes: dict) -> None:
    values = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    image = read(tmp_path / "a.tif")
    assert dict(image.sizes) == {"T": 1, "C": 1, "Z": 1, "Y": 12, "X": 15} | sizes
    assert image.data.chunksize[::2] == (1, 1, image.sizes["X"])
    if options.get("photometric") != "rgb" and "imagej" not in options:
        np.testing.assert_array_equal(image.values.reshape(shape), values)


@pytest.mark.parametrize("ending", [".tif", ".ome.tif"])
def test_a_pyramid_is_read_at_its_full_size(tmp_path: Path, ending: str) -> None:
    values = np.random.default_rng(0).integers(0, 255, (256, 256), dtype=np.uint8)
    with tifffile.TiffWriter(tmp_path / f"a{ending}", ome=".ome" in ending) as tif:
        tif.write(values, subifds=1, tile=(64, 64))
        tif.write(values[::2, ::2], subfiletype=1, tile=(64, 64))
    assert scenes(tmp_path / f"a{ending}") == ["Image0" if ".ome" in ending else "Image:0"]
    np.testing.assert_array_equal(read_plane(read(tmp_path / f"a{ending}")), values)


def test_scenes_of_an_ome_tiff_go_by_name_and_number(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tif:
        for number, name in enumerate(["well A", "well B", "well B"]):
            tif.write(PLANE + number, metadata={"axes": "YX", "Name": name})
    path = tmp_path / "a.ome.tif"
    assert scenes(path) == ["well A", "well B (1)", "well B (2)"]
    assert read_plane(read(path, scene="well B (2)"))[0, 0] == 2
    assert read_plane(read(path, scene=1))[0, 0] == 1
    with pytest.raises(MitolumeError, match=r"3 scenes; name one of them .*0 = well A"):
        read(path)
    with pytest.raises(MitolumeError, match="no scene 'well C'"):
        read(path, scene="well C")


def test_only_the_plane_that_is_asked_for_is_decoded(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (3, 60, 70), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", noise, compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        places = [(tif.pages[z].dataoffsets[0], tif.pages[z].databytecounts[0]) for z in (0, 2)]
    content = bytearray((tmp_path / "a.tif").read_bytes())
    for start, length in places:
        content[start : start + length] = b"x" * length
    (tmp_path / "a.tif").write_bytes(content)
    image = read(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_plane(image, z=1), noise[1])
    with pytest.raises(MitolumeError, match="damaged"):
        read_plane(image, z=2)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize(
    "new",
    [{"description": "x" * 5000}, {"byteorder": "<"}, {"compression": "zlib"}, {"dtype": "int16"},
     {"part": np.s_[:, :50]}, {"part": np.s_[:1]}],
)  # fmt: skip
def test_a_file_that_is_replaced_while_open_is_never_read_as_the_first(
    tmp_path: Path, compression: str | None, new: dict
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (3, 60, 70), dtype=np.uint16)
    path, grey = tmp_path / "a.tif", {"photometric": "minisblack", "byteorder": ">"}
    tifffile.imwrite(path, noise, **grey, compression=compression)
    image = read(path)
    other = (noise + 300)[new.pop("part", ...)].astype(new.pop("dtype", np.uint16))
    tifffile.imwrite(path, other, **(grey | new))
    if other.shape == noise.shape and other.dtype == noise.dtype:
        np.testing.assert_array_equal(read_plane(image, z=1), other[1])
    else:
        with pytest.raises(MitolumeError, match="has changed since it was opened"):
            read_plane(image, z=1)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("ending", [".tif", ".ome.tif"])
@pytest.mark.parametrize("share", [0.001, 0.5, 0.9])
def test_a_truncated_file_is_never_read_as_a_shorter_one(
    tmp_path: Path, compression: str | None, ending: str, share: float
) -> None:
    whole, cut = tmp_path / f"whole{ending}", tmp_path / f"cut{ending}"
    noise = np.random.default_rng(0).integers(0, 255, (6, 60, 70), dtype=np.uint8)
    tifffile.imwrite(whole, noise, ome="ome" in ending, compression=compression)
    content = whole.read_bytes()
    cut.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(MitolumeError, match=r"cut.*tif can't be read .* truncated"):
        [read_plane(read(cut), z=z) for z in range(6)]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_is_refused(tmp_path: Path, bad: float) -> None:
    values = np.zeros((4, 5), np.float32)
    values[1, 2] = bad
    tifffile.imwrite(tmp_path / "a.tif", values)
    with pytest.raises(MitolumeError, match="1 pixels that are NaN or infinite"):
        read_plane(read(tmp_path / "a.tif"))


def test_faults_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(MitolumeError, match=r"nothing: no such file"):
        read(tmp_path / "nothing")
    with pytest.raises(MitolumeError, match=r"nothing\.tif: no such file"):
        read(tmp_path / "nothing.tif")
    (tmp_path / "a.docx").write_text("hello")
    with pytest.raises(MitolumeError, match=r"known are .*png"):
        read(tmp_path / "a.docx")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(MitolumeError, match=r"text\.png can't be read"):
        read(tmp_path / "text.png")


@pytest.mark.parametrize("ending", PLAIN)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1)])
def test_images_of_one_row_or_column(tmp_path: Path, ending: str, shape: tuple[int, int]) -> None:
    path = tmp_path / f"a{ending}"
    values = np.arange(shape[0] * shape[1], dtype=np.uint8).reshape(shape) + 3
    if ending == ".png":
        Image.fromarray(values).save(path)
    else:
        tifffile.imwrite(path, values, ome=".ome." in ending)
    np.testing.assert_array_equal(read_plane(read(path)), values)


def test_real_files(real_data: Path) -> None:
    image = read(real_data / "epfl-hippocampus" / "train.ome.tif")
    assert dict(image.sizes) == {"T": 1, "C": 1, "Z": 165, "Y": 384, "X": 512}
    assert image.attrs["pixel_size_um"] == pytest.approx({"Z": 0.005, "Y": 0.01, "X": 0.01})
