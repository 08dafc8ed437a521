"""Files of microscopes and their like: the same contract for every reader, and the real files."""

from __future__ import annotations

import shutil
import sys
import tracemalloc
from pathlib import Path

import nd2
import numpy as np
import pytest
import tifffile
import zarr
from helpers.microscope_files import write_czi, write_lif, write_zarr, zip_zarr
from liffile import LifFile
from PIL import Image

from mitolume.batch.inspect import inspect
from mitolume.errors import MitolumeError
from mitolume.io.channels import select_channel
from mitolume.io.check import check_table
from mitolume.io.formats import READERS, sha256
from mitolume.io.read import AXES, read, read_plane, scenes

# (T, C, Z, Y, X); each pixel says where it lies, so that no two planes are alike.
STACK = np.arange(2 * 2 * 3 * 40 * 50, dtype=np.uint16).reshape(2, 2, 3, 40, 50)
NAMES = ["EGFP", "TL Brightfield"]
SIZE_UM = {"Z": 0.5, "Y": 0.1, "X": 0.1}


def write_stack(path: Path, pixels: np.ndarray = STACK, names: list[str] = NAMES) -> None:
    """Write all that the format can hold: names and pixel sizes, or just pixels."""
    kind = "".join(path.suffixes)
    if kind == ".lif":
        write_lif(path, {"field": ("TCZYX", pixels)}, channels=names, size_um=SIZE_UM)
    elif kind == ".czi":
        write_czi(path, pixels, channels=names, size_um=tuple(SIZE_UM.values()))
    elif kind == ".ozx":
        scale = (1, 1, 0.5, 0.1, 0.1)
        folder = path.with_suffix(".unzipped")
        write_zarr(folder, "tczyx", pixels, version="0.6", scale=scale, channels=names)
        zip_zarr(folder, path)
    elif "zarr" in kind:
        version = "0.5" if "ome" in kind else "0.4"
        write_zarr(
            path, "tczyx", pixels, version=version, scale=(1, 1, 0.5, 0.1, 0.1), channels=names
        )
    elif "ome" in kind:
        metadata = {"axes": "TCZYX", "Channel": {"Name": names}}
        for axis, size in SIZE_UM.items():
            metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "µm"}
        tifffile.imwrite(path, pixels, ome=True, metadata=metadata)
    elif "tif" in kind:
        metadata = {"axes": "TZCYX", "unit": "micron", "spacing": 0.5}
        metadata["Labels"] = names * (pixels.shape[0] * pixels.shape[2])
        swapped = pixels.swapaxes(1, 2)
        tifffile.imwrite(path, swapped, imagej=True, metadata=metadata, resolution=(10, 10))
    else:
        Image.fromarray((pixels[0, 0, 0] // 4).astype(np.uint8)).save(path)


WRITTEN = [ending for ending in READERS if ending != ".nd2"]  # ours writes no channels
STACKED = [ending for ending in WRITTEN if ending not in (".png", ".jpg", ".jpeg")]


@pytest.mark.parametrize("ending", STACKED)
def test_every_reader_keeps_the_contract(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{ending}"
    write_stack(path)
    for _ in range(2):  # a file can be opened again
        image = read(path)
        assert image.dims == AXES
        assert dict(image.sizes) == dict(zip(AXES, STACK.shape, strict=True))
        assert list(image.coords) == ["C"]
        assert list(image["C"].values) == NAMES
        assert image.attrs["pixel_size_um"] == pytest.approx(SIZE_UM)
        assert image.dtype == STACK.dtype
        assert image.data.chunksize[:3] == (1, 1, 1)
        np.testing.assert_array_equal(image.values, STACK)
        found = select_channel(image, None)
        assert list(found["C"].values) == ["TL Brightfield"]
        assert "channel 1 = TL Brightfield" in found.attrs["channel_found_by"]
        np.testing.assert_array_equal(read_plane(found, z=2, t=1), STACK[1, 1, 2])
    # Nothing keeps the file open: it can be moved and read from its new place.
    path.rename(tmp_path / f"b{ending}")
    np.testing.assert_array_equal(
        read(tmp_path / f"b{ending}", channel="egfp")[1, 0, 2], STACK[1, 0, 2]
    )


def bytes_read() -> int:
    counts = Path("/proc/self/io")
    if not counts.exists():
        pytest.skip("only Linux counts the bytes that a process reads")
    return int(counts.read_text().split()[1])


@pytest.mark.parametrize("ending", STACKED)
def test_reading_one_plane_touches_one_plane(ending: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 60_000, (2, 2, 3, 600, 700), dtype=np.uint16)
    write_stack(tmp_path / f"a{ending}", pixels)
    read_plane(read(tmp_path / f"a{ending}"))  # libraries load code on first use
    before = bytes_read()
    image = read(tmp_path / f"a{ending}")
    opened = bytes_read() - before
    plane = read_plane(image, t=1, c=1, z=1)
    np.testing.assert_array_equal(plane, pixels[1, 1, 1])
    assert opened < plane.nbytes / 2
    assert bytes_read() - before < 2 * plane.nbytes


def test_opening_needs_no_memory_for_pixels(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "big.tif") as tif:
        tif.write(shape=(40, 2000, 2000), dtype=np.uint16)
    read(tmp_path / "big.tif")
    tracemalloc.start()
    read(tmp_path / "big.tif")
    assert tracemalloc.get_traced_memory()[1] < 8e6
    tracemalloc.stop()


VENDOR = "vendor-formats"


@pytest.mark.parametrize("name", ["cerevisiae", "multichannel", "pbmc", "timelapse", "zstack"])
def test_nikon_files_agree_with_the_nd2_library(real_data: Path, name: str) -> None:
    path = real_data / VENDOR / f"example-{name}.nd2"
    image = read(path)
    with nd2.ND2File(path) as file:
        expected = file.to_xarray(squeeze=False).isel(P=0)
        voxel, names = file.voxel_size(), [c.channel.name for c in file.metadata.channels]
    assert len(scenes(path)) == 1
    assert list(image["C"].values) == names
    assert image.attrs["pixel_size_um"]["Y"] == pytest.approx(voxel.y)
    assert image.attrs["pixel_size_um"].get("Z") == (voxel.z if name == "zstack" else None)
    values = expected.drop_vars(list(expected.coords)).expand_dims(
        [axis for axis in AXES if axis not in expected.dims]
    )
    np.testing.assert_array_equal(image.values, values.transpose(*AXES).values)
    # All channels lie in one frame of the file, so that a chunk holds them all.
    assert image.data.chunksize == (1, image.sizes["C"], 1, *image.shape[3:])


@pytest.mark.parametrize("name", ["xz-example", "wavelength-sweep"])
def test_leica_files_agree_with_liffile(real_data: Path, name: str) -> None:
    path = real_data / VENDOR / f"{name}.lif"
    with LifFile(path) as lif:
        assert scenes(path) == [image.name for image in lif.images]
        for number, expected in enumerate(lif.images):
            image, values = read(path, scene=number), expected.asxarray()
            values = values.rename({axis: "C" for axis in ("λ", "Λ") if axis in values.dims})
            values = values.drop_vars(list(values.coords)).expand_dims(
                [axis for axis in AXES if axis not in values.dims]
            )
            values = values.transpose(*AXES).values
            for t, c, z in np.ndindex(values.shape[:3]):
                if (t + c + z) % 50 == 0:
                    np.testing.assert_array_equal(read_plane(image, t=t, c=c, z=z), values[t, c, z])
            for axis, size in image.attrs["pixel_size_um"].items():
                coordinates = expected.coords[axis]
                assert size == pytest.approx(abs(coordinates[1] - coordinates[0]) * 1e6)


@pytest.mark.parametrize("name", ["CD_s_1_t_3_c_2_z_5", "s_1_t_1_c_1_z_1", "tiles_z"])
def test_zeiss_files_agree_with_another_reader(real_data: Path, name: str) -> None:
    from aicspylibczi import CziFile

    path = real_data / VENDOR / f"{name}.czi"
    image = read(path)
    with path.open("rb") as opened:
        file = CziFile(opened)
        distance = file.meta.find(".//Scaling/Items/Distance[@Id='X']/Value").text
        assert image.attrs["pixel_size_um"]["X"] == pytest.approx(float(distance) * 1e6)
        named = [c.get("Name") for c in file.meta.findall(".//Image/Dimensions/Channels/Channel")]
        assert list(image["C"].values) == named
        for t, c, z in np.ndindex(image.shape[:3]):
            where = {axis: i for axis, i in zip("TCZ", (t, c, z), strict=True) if axis in file.dims}
            stitched = file.is_mosaic()
            expected = file.read_mosaic(scale_factor=1.0, **where) if stitched else None
            expected = expected if stitched else file.read_image(**where)[0]
            np.testing.assert_array_equal(read_plane(image, t=t, c=c, z=z), np.squeeze(expected))


def test_what_inspect_says_of_the_real_files(real_data: Path) -> None:
    folder = real_data / VENDOR
    assert "transmitted 0 = DIC (its name says so)" in inspect(folder / "example-cerevisiae.nd2")
    mono = inspect(folder / "example-multichannel.nd2")
    assert "0 = Mono (it is the only one without an emission wavelength)" in mono
    assert "its only channel, FITC BP, is fluorescence" in inspect(folder / "example-zstack.nd2")
    assert "transmitted 1 = T PMT" in inspect(folder / "tiles_z.czi")
    sections = inspect(folder / "xz-example.lif")
    assert "1 = xzy: T 1, C 2, Z 128, Y 23, X 128" in sections
    assert "scene xz: its planes are only Y 1 x X 512 pixels" in sections
    assert "wavelength sweep" in inspect(folder / "wavelength-sweep.lif")


def test_leica_tiles_colours_and_detectors(tmp_path: Path) -> None:
    tiles, colour = STACK[0, 0], np.ascontiguousarray(STACK[0, 0].transpose(1, 2, 0))
    scene_pixels = {
        "scan": ("MYX", tiles),
        "colour": ("YXS", colour),
        "both": ("CYX", STACK[0, :, 0]),
    }
    write_lif(
        tmp_path / "a.lif", scene_pixels, channels=("Green", "Gray"), detectors=("HyD", "PMT Trans")
    )
    assert scenes(tmp_path / "a.lif") == [
        "scan tile 0",
        "scan tile 1",
        "scan tile 2",
        "colour",
        "both",
    ]
    np.testing.assert_array_equal(read_plane(read(tmp_path / "a.lif", scene=1)), tiles[1])
    image = read(tmp_path / "a.lif", scene="colour", channel="red")
    np.testing.assert_array_equal(read_plane(image), tiles[2])  # Leica stores blue first
    found = select_channel(read(tmp_path / "a.lif", scene="both"), None)
    assert "1 = Gray (the file says PMT Trans)" in found.attrs["channel_found_by"]
    (tmp_path / "cut.lif").write_bytes((tmp_path / "a.lif").read_bytes()[:-5000])
    with pytest.raises(MitolumeError, match=r"cut\.lif can't be read"):
        read_plane(read(tmp_path / "cut.lif", scene="both"), c=1)


def test_a_zeiss_file_that_claims_far_more_planes_than_it_holds_is_refused_at_once(
    tmp_path: Path,
) -> None:
    from pylibCZIrw import czi

    with czi.create_czi(str(tmp_path / "a.czi")) as file:
        for t in (0, 2_000_000):
            file.write(np.ones((8, 9), np.uint8), plane={"T": t})
    with pytest.raises(MitolumeError, match="name 2000001 planes, but it holds 2 tiles"):
        scenes(tmp_path / "a.czi")


def test_zeiss_scenes_tiles_and_colours(tmp_path: Path) -> None:
    from pylibCZIrw import czi

    plane = STACK[0, 0, 0]
    with czi.create_czi(str(tmp_path / "a.czi")) as file:
        for scene, columns in enumerate((50, 30)):
            for left, right in ((0, 20), (10, columns)):  # two tiles that overlap
                pixels = np.ascontiguousarray(plane[:, left:right])
                file.write(pixels, location=(1000 * scene + left, -7), scene=scene)
    assert scenes(tmp_path / "a.czi") == ["scene 0", "scene 1"]
    for scene, columns in enumerate((50, 30)):
        image = read(tmp_path / "a.czi", scene=scene)
        np.testing.assert_array_equal(read_plane(image), plane[:, :columns])
        assert "pixel_size_um" not in image.attrs
    blue_first = np.ascontiguousarray(STACK[0, 0].transpose(1, 2, 0).astype(np.uint8))
    with czi.create_czi(str(tmp_path / "b.czi")) as file:
        file.write(blue_first)
    image = read(tmp_path / "b.czi", channel="blue")
    np.testing.assert_array_equal(read_plane(image), blue_first[..., 0])


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pylibCZIrw.czi", None)  # as where it is not installed
    (tmp_path / "a.czi").write_text("x")
    with pytest.raises(MitolumeError, match=r'pip install "mitolume\[czi\]"'):
        read(tmp_path / "a.czi")


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6"])
def test_folders_of_several_zarr_images(tmp_path: Path, version: str) -> None:
    form = 2 if version == "0.4" else 3

    def describe(path: Path, metadata: dict) -> None:
        group = zarr.open_group(path, mode="a", zarr_format=form)
        group.attrs.update(metadata if version == "0.4" else {"ome": metadata})

    plate = tmp_path / "plate.ome.zarr"
    describe(plate, {"plate": {"wells": [{"path": "A/1"}, {"path": "B/2"}]}})
    for number, well in enumerate(("A/1", "B/2")):
        describe(plate / well, {"well": {"images": [{"path": "0"}]}})
        write_zarr(plate / well / "0", "yx", STACK[0, 0, number], version=version)
    write_zarr(plate / "B/2/0/labels/cells", "yx", STACK[0, 0, 2], version=version)
    describe(plate / "B/2/0/labels", {"labels": ["cells"]})
    assert scenes(plate) == ["A/1/0", "B/2/0"]
    for path, scene, z in (
        (plate, "B/2/0", 1),
        (plate / "A/1/0", None, 0),
        (plate / "B/2/0/labels", None, 2),
    ):
        np.testing.assert_array_equal(read_plane(read(path, scene=scene)), STACK[0, 0, z])
    describe(tmp_path / "converted.zarr", {"bioformats2raw.layout": 3})
    write_zarr(tmp_path / "converted.zarr" / "0", "zyx", STACK[0, 0], version=version, unit="nm")
    assert read(tmp_path / "converted.zarr").sizes["Z"] == 3
    describe(tmp_path / "scene.zarr", {"scene": {"coordinateTransformations": []}})
    write_zarr(tmp_path / "scene.zarr" / "crop", "zyx", STACK[0, 0], version=version)
    describe(tmp_path / "scene.zarr" / "coordinateTransformations", {})
    for name, inside in (("plate.ome", "A/1/0 B/2/0"), ("converted", "0"), ("scene", "crop")):
        zipped = zip_zarr(tmp_path / f"{name}.zarr", tmp_path / f"{name}.ozx")
        assert scenes(zipped) == scenes(tmp_path / f"{name}.zarr") == inside.split()
    np.testing.assert_array_equal(
        read_plane(read(tmp_path / "plate.ome.ozx", scene="B/2/0")), STACK[0, 0, 1]
    )
    zarr.save_array(tmp_path / "array.zarr", STACK, zarr_format=form)
    with pytest.raises(MitolumeError, match=r"array\.zarr .*without the metadata of an OME-Zarr"):
        read(tmp_path / "array.zarr")


@pytest.mark.parametrize(
    ("unit", "step", "expected"),
    [
        ("micrometer", 0.1, 0.1),
        ("nanometer", 100, 0.1),
        ("millimeter", 1e-4, 0.1),
        (None, 0.1, None),
        ("micrometer", 80, None),
    ],
)
def test_zarr_units(tmp_path: Path, unit: str | None, step: float, expected: float | None) -> None:
    write_zarr(tmp_path / "a.zarr", "yx", STACK[0, 0, 0], unit=unit, scale=(step, step))
    size = read(tmp_path / "a.zarr").attrs.get("pixel_size_um")
    assert size == (pytest.approx({"Y": expected, "X": expected}) if expected else None)


def test_the_hash_of_a_folder_is_that_of_its_files(tmp_path: Path) -> None:
    write_zarr(tmp_path / "a.zarr", "zyx", STACK[0, 0])
    shutil.copytree(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert sha256(tmp_path / "a.zarr") == sha256(tmp_path / "b.zarr")
    chunk = next(p for p in (tmp_path / "b.zarr" / "0" / "c").rglob("*") if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"!")
    assert sha256(tmp_path / "a.zarr") != sha256(tmp_path / "b.zarr")


def test_a_table_takes_folders_and_says_which_channel_it_took(tmp_path: Path) -> None:
    write_zarr(tmp_path / "a.ome.zarr", "czyx", STACK[0], channels=["GFP", "DIC"])
    write_zarr(tmp_path / "a_mask.zarr", "zyx", (STACK[0, 0] % 7 == 0).astype(np.uint8))
    (tmp_path / "fields.csv").write_text("image,mask\na.ome.zarr,a_mask.zarr\n")
    checked = check_table(tmp_path / "fields.csv")
    assert checked.fields[0].planes == (0, 1, 2)
    assert any("took channel 1 = DIC (its name says so)" in text for text in checked.notices)


def test_a_zeiss_tile_with_more_axes_than_there_is_room_for(tmp_path: Path) -> None:
    """The library would write pixels over its own stack."""
    write_czi(tmp_path / "a.czi", np.zeros((1, 1, 1, 32, 32), np.uint8))
    content = bytearray((tmp_path / "a.czi").read_bytes())
    axes = content.index(b"ZISRAWSUBBLOCK") + 76
    content[axes : axes + 4] = (1000).to_bytes(4, "little")
    (tmp_path / "a.czi").write_bytes(content)
    with pytest.raises(MitolumeError, match="a tile claims more axes than there are"):
        read(tmp_path / "a.czi").load()
