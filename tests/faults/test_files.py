"""Files that are old, cut, unfinished, or not what they say: read right, or refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import unicodedata
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from helpers.command import call
from helpers.microscope_files import write_lif, write_nd2, write_ndtiff, write_zarr, zip_zarr
from helpers.roi_files import OVAL, RECT, roi_file
from PIL import Image
from roifile import ImagejRoi

from mitolume.batch.denoise import denoise_files
from mitolume.batch.inspect import inspect
from mitolume.errors import MitolumeError, in_words
from mitolume.inference.inputs import InputReader
from mitolume.inference.predictor import load
from mitolume.io import rois
from mitolume.io.check import check_table
from mitolume.io.formats import stated
from mitolume.io.listing import image_files
from mitolume.io.mask_files import open_mask
from mitolume.io.pixel_size import believed_pixel_size
from mitolume.io.read import read, read_plane, scenes
from mitolume.io.table import TableError
from mitolume.models.settings import InputSettings
from mitolume.preprocess.settings import ChainSettings
from mitolume.report.run_tables import results_text
from mitolume.runs.recipe import load_recipe

STACK = np.random.default_rng(0).integers(0, 4000, (4, 24, 32)).astype(np.uint16)


def write_set(
    folder: Path,
    planes: dict[str, list[int]],
    depth: int = 4,
    pixels: str = "",
    companion: str = "",
) -> list[Path]:
    """Write a z-stack as OME-TIFF: the planes of each file, which all name each other."""
    ids = {name: f"urn:uuid:{uuid.uuid4()}" for name in planes}
    data = "".join(
        f'<TiffData FirstZ="{z}" IFD="{ifd}" PlaneCount="1">'
        f'<UUID FileName="{name}">{ids[name]}</UUID></TiffData>'
        for name, own in planes.items()
        for ifd, z in enumerate(own)
    )
    schema = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
    full = (
        f'<Image ID="Image:0" Name="a"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" '
        f'SizeX="32" SizeY="24" SizeZ="{depth}" SizeC="1" SizeT="1" {pixels}>'
        f'<Channel ID="Channel:0" Name="DIC"/>{data}</Pixels></Image>'
    )
    if companion:
        (folder / companion).write_text(f"<OME {schema}>{full}</OME>")
        full = f'<BinaryOnly MetadataFile="{companion}" UUID="urn:uuid:{uuid.uuid4()}"/>'
    for name, own in planes.items():
        xml = f'<?xml version="1.0"?><OME {schema} UUID="{ids[name]}">{full}</OME>'
        with tifffile.TiffWriter(folder / name) as tif:
            for number, z in enumerate(own):
                tif.write(STACK[z], description=xml if number == 0 else None, metadata=None)
    return [folder / name for name in planes]


def test_a_stack_in_several_files_is_one_image(tmp_path: Path) -> None:
    names = {f"z{z}.ome.tif": [z] for z in range(4)}
    files = write_set(tmp_path, names)
    np.testing.assert_array_equal(read(files[2]).values.squeeze(), STACK)
    assert set(read(files[2]).attrs["files"]) == set(files)
    tifffile.imwrite(tmp_path / "z9.tif", STACK[0])
    found, notices = image_files([tmp_path], [])
    assert found == [files[0], tmp_path / "z9.tif"]
    assert notices == [
        "5 files found, 2 used, which open the others as parts of the same images: z1.ome.tif, "
        "z2.ome.tif, z3.ome.tif"
    ]


def test_planes_of_a_file_that_was_renamed_are_not_guessed(tmp_path: Path) -> None:
    (file,) = write_set(tmp_path, {"a.ome.tif": [0, 1, 2, 3]})
    with tifffile.TiffFile(file) as tif:
        xml = re.sub(' UUID="[^"]*"', "", str(tif.ome_metadata))  # by which it knew itself
    tifffile.tiffcomment(file, xml.encode())
    assert read(file).sizes["Z"] == 4
    with pytest.raises(
        MitolumeError, match=r"place its planes in a\.ome\.tif, of which none is here"
    ):
        read(file.rename(tmp_path / "b.ome.tif"))


def test_positions_in_files_of_their_own_are_taken_once(tmp_path: Path) -> None:
    """As Micro-Manager writes them: each file names, and opens, the positions of all."""
    ids = {f"Pos{i}.ome.tif": f"urn:uuid:{uuid.uuid4()}" for i in range(3)}
    images = "".join(
        f'<Image ID="Image:{i}" Name="{name[:4]}"><Pixels ID="Pixels:{i}" DimensionOrder="XYZCT" '
        'Type="uint16" SizeX="32" SizeY="24" SizeZ="1" SizeC="1" SizeT="1"><TiffData IFD="0" '
        f'PlaneCount="1"><UUID FileName="{name}">{ids[name]}</UUID></TiffData></Pixels></Image>'
        for i, name in enumerate(ids)
    )
    for i, name in enumerate(ids):
        xml = f'<?xml version="1.0"?><OME UUID="{ids[name]}">{images}</OME>'
        tifffile.imwrite(tmp_path / name, STACK[i], description=xml, metadata=None)
    found, notices = image_files([tmp_path], [])
    assert [path.name for path in found] == ["Pos0.ome.tif"]
    assert "3 files found, 1 used" in notices[0]
    np.testing.assert_array_equal(read_plane(read(found[0], scene="Pos2")), STACK[2])


def test_files_of_one_stack_are_not_split_over_train_and_test(tmp_path: Path) -> None:
    write_set(tmp_path, {f"z{z}.ome.tif": [z] for z in range(4)})
    tifffile.imwrite(tmp_path / "m.tif", (STACK[0] > 2000).astype(np.uint8))
    (tmp_path / "t.csv").write_text(
        "image,mask,role,planes\nz0.ome.tif,m.tif,train,1\nz3.ome.tif,m.tif,test,1\n"
    )
    with pytest.raises(TableError, match=r"is also in line 2: z0\.ome\.tif is the same image"):
        check_table(tmp_path / "t.csv")


def test_a_table_names_files_and_no_folder_and_finds_names_of_a_mac(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / unicodedata.normalize("NFD", "grün.tif"), STACK[0])
    os.mkfifo(tmp_path / "pipe.tif")
    (tmp_path / "masks").mkdir()
    rows = ["grün.tif,masks", "pipe.tif,"]
    (tmp_path / "t.csv").write_text("\n".join(["image,mask", *rows]), encoding="utf-8")
    with pytest.raises(TableError) as error:
        check_table(tmp_path / "t.csv")
    faults = str(error.value).splitlines()[1:]
    for fault, said in zip(faults, ["mask masks is a folder", "pipe.tif is a pipe"], strict=True):
        assert said in fault


def test_half_precision_is_read_without_a_warning(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK[0].astype(np.float16))
    assert read_plane(read(tmp_path / "a.tif")).dtype == np.float16


def test_outlines_that_are_not_as_they_were_drawn_are_counted(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "i.tif", STACK[0])
    ring = [[-9, 5], [9, 5], [9, 9], [-9, 9]]
    line = {"type": "Polygon", "coordinates": [ring[:2]]}
    shapes = [{"type": "Polygon", "coordinates": [ring]}, None, line]
    features = [{"type": "Feature", "geometry": shape, "properties": {}} for shape in shapes]
    named = {"type": "FeatureCollection", "features": features, "crs": {"type": "name"}}
    (tmp_path / "a.geojson").write_text(json.dumps(named))
    said = open_mask(tmp_path / "a.geojson", read(tmp_path / "i.tif")).attrs["notices"]
    for part in (
        "1 of 1 outlines stick out",
        "1 Polygon, 1 object without an area",
        "a coordinate system",
    ):
        assert part in " ".join(said)


def test_measure_says_what_it_leaves_out_or_doubts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    holes = np.where(STACK[0] > 3000, np.nan, STACK[0]).astype(np.float32)
    cover = (STACK[0] > 999).astype(np.uint8)
    for name, pixels in [("nan", holes), ("cover", cover), ("complex", holes + 1j * holes),
                         ("stack", np.stack([cover] * 3)), ("likely", cover * 0.9)]:  # fmt: skip
        tifffile.imwrite(f"{name}.tif", pixels, photometric="minisblack")
    tifffile.imwrite("one.tif", cover, resolution=(10_000, 10_000), resolutionunit=3)
    measure, out = ["measure", "cover.tif", "--intensity"], ["--out", "x.csv", "--overwrite"]
    for words, code, said in [
        ([*measure, "nan.tif", *out], 0, f"{np.isnan(holes).sum()} pixels of its images are NaN"),
        (["measure", "cover.tif", *out], 0, "mitochondria cover"),
        (["measure", "one.tif", *out], 0, "one: a pixel size of exactly 1 µm is often written by"),
        (["measure", "likely.tif", *out], 0, "1 mask of probabilities: objects are where they are"),
        ([*measure, "complex.tif", *out], 1, "pixels of type complex64 are not grey values"),
        (["measure", "stack.tif", "--intensity", "nan.tif", *out], 1, "has 3 planes, but its"),
        (["convert", "stack.tif", "--like", "nan.tif", "--out", "y.zip"], 1, "has 3 planes, but"),
    ]:
        assert call(monkeypatch, *words) == code
        assert said in capsys.readouterr().err


def test_what_is_left_out_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    mask = np.zeros(STACK[0].shape, np.uint8)
    mask[2:12, 2:12], mask[20, 20] = 1, 1
    tifffile.imwrite("m.tif", mask)
    tifffile.imwrite("empty.tif", mask * 0)
    noise = np.random.default_rng(0).integers(0, 4000, (6, 40, 40)).astype(np.uint16)
    with tifffile.TiffWriter("scenes.tif") as tif:
        for scene in (noise, STACK, noise):  # planes of the second are too small to learn from
            tif.write(scene, photometric="minisblack")
    tifffile.imwrite("movie.tif", noise, imagej=True, metadata={"axes": "TYX"})
    Path("set").mkdir()
    write_set(Path("set"), {f"z{z}.ome.tif": [z] for z in range(4)})
    train = ["denoise", "train", "scenes.tif", "--scene", "all", "--method", "wiener"]
    for words, said in [
        (
            ["measure", "m.tif", "m.tif", "--out", "x.csv"],
            r"1 object in 1 image \(1 smaller ones left out: --min-size\)",
        ),
        (["convert", "empty.tif", "--out", "x.zip"], "empty.tif marks nothing, so x.zip can't be"),
        (train, r"3 stacks found, 2 used; the others:\n  scene Image:1: .* planes of 24 x 32"),
        (["focus", "movie.tif"], "the first of 6 time points was looked at"),
        (["denoise", "check", "movie.tif"], "the first of 6 time points was looked at"),
        (["fields", "set", "--out", "t.csv"], r"that another file opens, left out: 3 \(z1"),
    ]:
        assert call(monkeypatch, *words) == 0
        assert re.search(said, "".join(capsys.readouterr())), words
    assert len(Path("t.csv").read_text().splitlines()) == 2


@pytest.mark.parametrize("kind", ["auto", "labels"])
def test_an_image_is_no_label_image_though_it_holds_0(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("i.tif", STACK[0])
    tifffile.imwrite("a_mask.tif", (STACK[0] // 16).astype(np.uint8))
    Path("t.csv").write_text("image,mask\ni.tif,a_mask.tif\n")
    with pytest.raises(TableError, match=r"mask a_mask\.tif is an image"):
        check_table("t.csv", mask_kind=kind)
    for words in (["measure", "a_mask.tif"], ["evaluate", "a_mask.tif", "a_mask.tif"],
                  ["convert", "a_mask.tif", "--out", "m.zip"]):  # fmt: skip
        assert call(monkeypatch, *words, "--mask-kind", kind) == 1
        assert "mask a_mask.tif is an image" in capsys.readouterr().err


def test_a_roi_named_after_a_plane_that_is_not_there_is_on_no_other(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "i.tif", STACK, imagej=True, metadata={"axes": "ZYX"})
    with ZipFile(tmp_path / "a.zip", "w") as file:
        for name in ("0002-0009-0009", "0009-0014-0014"):
            roi = ImagejRoi.frompoints(np.array([[2, 2], [9, 2], [9, 9]]))
            roi.name = name
            file.writestr(f"{name}.roi", roi.tobytes())
    with pytest.raises(MitolumeError, match=r"lie on z-planes 2, 9 .* but the image has 4"):
        open_mask(tmp_path / "a.zip", read(tmp_path / "i.tif"))


def test_an_oval_larger_than_any_image_is_refused() -> None:
    oval = ImagejRoi.frombytes(roi_file(OVAL, (0, 0, 30_000, 30_000)))
    with pytest.raises(MitolumeError, match="is an oval of 30000 x 30000 pixels"):
        rois.outlines_of_rois([oval])
    endless = ImagejRoi.frombytes(roi_file(RECT, (0, 0, 9, 9), path=[float("inf"), 1, 1]))
    with pytest.raises(MitolumeError, match="holds curves or a damaged path"):
        rois.outlines_of_rois([endless])


def test_a_zip_that_unpacks_to_more_than_any_rois_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ZipFile(tmp_path / "a.zip", "w", ZIP_DEFLATED) as file:
        file.writestr("a.roi", bytes(10**6))
    monkeypatch.setattr(rois, "_MOST_BYTES", 10**5)
    with pytest.raises(MitolumeError, match=r"unpacks to more than 0\.0001 GB"):
        rois.read_rois(tmp_path / "a.zip")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(13, "Permission denied", "a.tif"), "Permission denied"),
        (UnicodeDecodeError("utf-8", b"", 0, 1, "invalid start byte"), "it is no text"),
        (json.JSONDecodeError("Expecting value", "{\n", 2), "its line 2 is not"),
        (ValueError("<COMPRESSION.X: 7> requires the 'x' package"), "its compression, X, is not"),
        (KeyError("axes"), "its content is not what its kind of file holds"),
    ],
)
def test_what_libraries_say_to_programmers_is_said_to_nobody(error: Exception, words: str) -> None:
    assert in_words(error).startswith(words)


@pytest.mark.parametrize("what", ["yaml", "card"])
def test_no_sentence_quotes_an_exception(tmp_path: Path, what: str) -> None:
    """Texts in the words of pydantic and PyYAML help nobody to mend a file."""
    (tmp_path / "card.json").write_text('{"threshold": "x"}')
    (tmp_path / "weights.safetensors").touch()
    (tmp_path / "a.yaml").write_text("fields: a.csv\nb: [")
    with pytest.raises(MitolumeError, match=r"its line 2 is|not a model card: its content is"):
        load_recipe(tmp_path / "a.yaml") if what == "yaml" else load(tmp_path)


def test_a_damaged_zip_is_told_in_words(tmp_path: Path) -> None:
    with ZipFile(tmp_path / "a.zip", "w", ZIP_DEFLATED) as file:
        file.writestr("a.roi", np.random.default_rng(0).bytes(10**4))
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[100:5000] = b"x" * 4900
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(MitolumeError, match=r"can't be read \(its content is not what"):
        rois.read_rois(tmp_path / "a.zip")


def test_absent_planes_are_named_and_never_read_as_zeros(tmp_path: Path) -> None:
    (stopped,) = write_set(tmp_path, {"stopped.ome.tif": [0, 1]})
    with pytest.raises(MitolumeError, match=r"name 4 planes, but 2 are missing \(Z 2, Z 3, from"):
        read(stopped)
    files = write_set(tmp_path, {f"z{z}.ome.tif": [z] for z in range(4)})
    files[2].unlink()
    with pytest.raises(MitolumeError, match=r"\(Z 2, from 0\).*names that they had: z2\.ome\.tif"):
        read(files[0])
    found, _ = image_files([tmp_path], [])
    assert found == [stopped, files[0]], "the files of a set are one image, though it is not whole"


def test_a_scene_without_a_name_gets_one(tmp_path: Path) -> None:
    write_lif(tmp_path / "a.lif", {"": ("YX", STACK[0]), "b ": ("YX", STACK[1])}, channels=["DIC"])
    assert scenes(tmp_path / "a.lif") == ["scene 0", "b"]
    np.testing.assert_array_equal(read_plane(read(tmp_path / "a.lif", scene="b")), STACK[1])


@pytest.mark.parametrize("shape", [(1, 4), (4, 1), (1, 1), (2, 2)])
def test_a_loop_of_one_step_is_no_axis(shape: tuple[int, int], tmp_path: Path) -> None:
    pixels = STACK[: shape[0] * shape[1]].reshape(*shape, *STACK.shape[1:])
    write_nd2(tmp_path / "a.nd2", pixels)
    assert np.array_equal(read(tmp_path / "a.nd2").values.squeeze(), pixels.squeeze())


@pytest.mark.parametrize("kind", ["a.nd2", "a.czi", "a.ome.zarr", "sharded.zarr", "a.ozx"])
def test_no_format_invents_planes(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    path, pixels = tmp_path / kind, STACK.copy()
    if kind == "a.nd2":
        write_nd2(path, pixels[None], lacking=[2])
    elif kind == "a.czi":
        with pytest.importorskip("pylibCZIrw.czi").create_czi(str(path)) as file:
            for z in (0, 1, 3):
                file.write(pixels[z], plane={"Z": z})
    else:
        pixels[2] = 0  # all of a chunk is the fill value, so it isn't written
        folder = path.with_suffix(".zarr")
        write_zarr(folder, "zyx", pixels)
        if kind == "sharded.zarr":
            group, shape = zarr.open_group(folder), pixels.shape
            del group["0"]
            group.create_array("0", shape=shape, chunks=(1, 12, 32), shards=shape, dtype="u2")
            group["0"][...] = pixels  # type: ignore[index]
        if kind == "a.ozx":
            zip_zarr(folder, path)
        np.testing.assert_array_equal(open_mask(path).values.squeeze(), pixels)
    tifffile.imwrite(tmp_path / "m.tif", STACK // 3000, photometric="minisblack")
    monkeypatch.chdir(tmp_path)
    for words in (["inspect", path], ["focus", path], ["measure", "m.tif", "--intensity", path,
                  "--out", "o.csv"], ["convert", "m.tif", "--like", path, "--out", "m.zip"],
                  ["denoise", "check", path]):  # fmt: skip
        assert call(monkeypatch, *words) == 1
        said = capsys.readouterr().err
        assert re.search(r"names? 4 planes, but 1 is missing \(Z 2, from 0\)", said), said
    assert not (tmp_path / "o.csv").exists()


def test_planes_are_not_looked_for_in_vain_without_end(tmp_path: Path) -> None:
    write_zarr(tmp_path / "a.zarr", "zyx", STACK)
    array = next(file for file in (tmp_path / "a.zarr" / "0").iterdir() if "zar" in file.name)
    said = json.loads(array.read_text())
    said["shape"][0] = 1_000_000
    array.write_text(json.dumps(said))
    with pytest.raises(MitolumeError, match="name 1000000 planes, but 10000 or more are missing"):
        read(tmp_path / "a.zarr")


@pytest.mark.parametrize("dtype", ["f4", "f8", "u4", "i4", "u8"])
def test_a_large_number_under_an_image_takes_no_contrast(tmp_path: Path, dtype: str) -> None:
    few = STACK // 16  # a range of 250 on top of ten millions
    high = few.astype(dtype) + np.dtype(dtype).type(10_000_000)
    seen = []
    for name, pixels in (("few", few), ("high", high)):
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, photometric="minisblack")
        image = read(tmp_path / f"{name}.tif")
        seen.append(np.asarray(InputReader(image, InputSettings(planes=1), ChainSettings()).at(1)))
    np.testing.assert_allclose(*seen, atol=1e-4)
    (tmp_path / "t.csv").write_text("image,role\nhigh.tif,unlabelled\n")
    assert check_table(tmp_path / "t.csv").notices == ()
    denoiser = SimpleNamespace(bundle=None)
    (fault,) = denoise_files(denoiser, [tmp_path / "high.tif"], tmp_path).faults  # type: ignore[arg-type]
    assert "less than float32 holds beside 1000012" in fault


@pytest.mark.parametrize("shape", [(1, 24, 32), (1, 1, 24, 32), (24, 32, 1), (1, 24, 32, 1)])
def test_an_axis_of_length_1_is_none(tmp_path: Path, shape: tuple[int, ...]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK[0].reshape(shape))
    np.testing.assert_array_equal(read_plane(read(tmp_path / "a.tif")), STACK[0])
    tifffile.imwrite(tmp_path / "b.tif", STACK[:3].reshape(1, 3, 1, 24, 32))
    assert read(tmp_path / "b.tif").shape == (1, 1, 3, 24, 32)


@pytest.mark.parametrize(
    ("imagej", "options", "size"),
    [
        ({"unit": "micron", "zunit": "nm", "spacing": 500}, {}, (0.5, 0.1, 0.1)),
        ({"unit": "micron", "yunit": "nm", "spacing": -0.5}, {}, (0.5, 1e-4, 0.1)),
        ({"unit": "\\u00B5m", "spacing": "0,5"}, {}, (0.5, 0.1, 0.1)),
        ({"unit": "um"}, {"resolution": (125_000, 125_000), "resolutionunit": 3}, (0, 0.08, 0.08)),
        ({"unit": "um"}, {"resolutionunit": 3}, (0, 0.1, 0.1)),
        ({"unit": "\\u03BCm", "spacing": 1}, {}, (1, 0.1, 0.1)),
        ({"unit": "Microns", "spacing": 1}, {}, (1, 0.1, 0.1)),
    ],
)
def test_each_axis_has_its_unit_as_in_imagej(
    tmp_path: Path, imagej: dict[str, Any], options: dict[str, Any], size: tuple[float, ...]
) -> None:
    options = {"resolution": (10, 10)} | options
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, metadata={"axes": "ZYX"} | imagej,
                     **options)  # fmt: skip
    found = stated(tmp_path / "a.tif").size_um
    assert found == pytest.approx({a: n for a, n in zip("ZYX", size, strict=True) if n})


@pytest.mark.parametrize("step", [0.005, 50, 500])
def test_a_z_step_in_another_unit_is_doubted(tmp_path: Path, step: float) -> None:
    """Pixels of 0.1 µm, said in mm, and planes "0.5" apart: no stack has steps of 500 µm."""
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, resolution=(1e4, 1e4),
                     metadata={"axes": "ZYX", "unit": "mm", "spacing": step / 1000})  # fmt: skip
    assert f"planes are {step:g} µm apart and pixels 0.1 µm" in inspect(tmp_path / "a.tif")


def test_prints_and_odd_steps_suggest_no_size(tmp_path: Path) -> None:
    """10 per cm are no 1,000 nm; a z-step of nothing, or of km, is said not to be believed."""
    tifffile.imwrite(tmp_path / "a.tif", STACK[0], resolution=(10, 20), resolutionunit=3)
    assert "--pixel-size" not in believed_pixel_size(stated(tmp_path / "a.tif"))[1]
    for spacing in ("1e-9", "nan", "1e9", "abc"):
        tifffile.imwrite(tmp_path / "b.tif", STACK, imagej=True, resolution=(10, 10),
                         metadata={"axes": "ZYX", "unit": "um", "spacing": spacing})  # fmt: skip
        assert re.search("a z-step of .* which is not believed", inspect(tmp_path / "b.tif"))
        assert read(tmp_path / "b.tif").attrs["pixel_size_um"] == pytest.approx(
            {"Y": 0.1, "X": 0.1}
        )


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"slices": 6}, r"name 6 planes, but 2 are missing \(Z 4, Z 5"),
        ({"slices": 2, "channels": 3}, r"but 2 are missing \(Z 1 C 1, Z 1 C 2"),
        ({"slices": 3}, "name 3 planes, but it has 4"),
    ],
)
def test_imagej_slices_are_as_many_as_is_said(
    tmp_path: Path, said: dict[str, int], fault: str
) -> None:
    counts = "".join(f"{name}={n}\n" for name, n in said.items())
    text = f"ImageJ=1.54f\nimages={np.prod([*said.values()])}\n{counts}"
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack", metadata=None,
                     description=text)  # fmt: skip
    with pytest.raises(MitolumeError, match=fault):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize("count", [2, 4])
def test_samples_of_a_grey_picture_are_channels(tmp_path: Path, count: int) -> None:
    """Read as colours, the fourth of four channels, or the second of two, is dropped as alpha."""
    pixels = np.moveaxis(STACK[:count], 0, -1)
    options = {"photometric": "minisblack", "planarconfig": "contig"}
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    np.testing.assert_array_equal(read(tmp_path / "a.tif").values[0, :, 0], STACK[:count])


def test_colours_of_16_bits_are_refused(tmp_path: Path) -> None:
    deep = imagecodecs.png_encode(np.stack([STACK[0]] * 3, -1))
    (tmp_path / "deep colours.png").write_bytes(deep)
    with pytest.raises(MitolumeError, match="has colours of 16 bits"):
        read(tmp_path / "deep colours.png")


@pytest.mark.parametrize("dpi", [72, 96, 100, 150, 200, 300, 600])
@pytest.mark.parametrize("per_cm", [False, True])
def test_no_pixel_size_is_proposed_from_dots_per_inch(
    tmp_path: Path, dpi: int, per_cm: bool
) -> None:
    dots, unit = (dpi / 2.54, 3) if per_cm else (dpi, 2)
    tifffile.imwrite(tmp_path / "a.tif", STACK[0], resolution=(dots, dots), resolutionunit=unit)
    size, doubt = believed_pixel_size(stated(tmp_path / "a.tif"))
    assert not size
    assert f"{dpi} dots per inch are a default" in doubt
    assert "--pixel-size" not in doubt


@pytest.mark.parametrize(
    ("pixels", "size", "doubt"),
    [
        ('PhysicalSizeX="0.08" PhysicalSizeXUnit="um" PhysicalSizeY="80" PhysicalSizeYUnit="nm"',
         {"X": 0.08, "Y": 0.08}, ""),
        ('PhysicalSizeX="0,08" PhysicalSizeY="0.08"', {"X": 0.08, "Y": 0.08}, ""),
        ('PhysicalSizeX="0.08" PhysicalSizeY="0.08" PhysicalSizeZ="0"', {"X": 0.08, "Y": 0.08}, ""),
        ('PhysicalSizeX="0" PhysicalSizeY="0.08"', {"Y": 0.08}, "X 0 µm, which is not believed"),
        ('PhysicalSizeX="x" PhysicalSizeY="0.08"', {"Y": 0.08}, "X nan µm, which is not believed"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("companion", ["", "a.companion.ome"])
def test_one_bad_attribute_takes_no_other_with_it(
    tmp_path: Path, pixels: str, size: dict[str, float], doubt: str, companion: str
) -> None:
    (file,) = write_set(tmp_path, {"a.ome.tif": [0, 1, 2, 3]}, pixels=pixels, companion=companion)
    found, said = believed_pixel_size(stated(file))
    assert found == pytest.approx(size)
    assert doubt in said
    assert list(read(file)["C"].values) == ["DIC"]
    assert read(file).sizes["Z"] == 4


def test_a_companion_that_is_not_there_is_named(tmp_path: Path) -> None:
    (file,) = write_set(tmp_path, {"a.ome.tif": [0]}, companion="a.companion.ome")
    (tmp_path / "a.companion.ome").unlink()
    assert "they are in a.companion.ome, which is not beside it" in inspect(file)


def test_a_companion_that_is_damaged_is_named(tmp_path: Path) -> None:
    (file,) = write_set(tmp_path, {"a.ome.tif": [0, 1, 2, 3]}, companion="a.companion.ome")
    xml = (tmp_path / "a.companion.ome").read_text()
    encoded = f'<?xml version="1.0" encoding="UTF-16"?>{xml}'.encode("utf-16")
    (tmp_path / "a.companion.ome").write_bytes(encoded)
    assert read(file).sizes["Z"] == 4
    (tmp_path / "a.companion.ome").write_text(xml[:99])
    with pytest.raises(
        MitolumeError, match=r"a\.companion\.ome, which says what a\.ome\.tif holds"
    ):
        read(file)


def test_planes_that_metadata_leave_out_are_not_dropped(tmp_path: Path) -> None:
    (file,) = write_set(tmp_path, {"a.ome.tif": [0, 1, 2, 3]}, depth=2)
    with tifffile.TiffFile(file) as tif:
        xml = re.sub("<TiffData.*</TiffData>", "<TiffData/>", str(tif.ome_metadata))
    tifffile.tiffcomment(file, xml.encode())
    with pytest.raises(MitolumeError, match="name 2 planes, but it has 4; say in Fiji"):
        read(file)
    with tifffile.TiffWriter(file) as tif:  # a thumbnail is no plane
        tif.write(STACK[0], description=xml.replace('SizeZ="2"', 'SizeZ="1"'), metadata=None)
        tif.write(STACK[0, ::4, ::4], metadata=None)
    np.testing.assert_array_equal(read_plane(read(file)), STACK[0])
    Image.fromarray(STACK[0].astype(np.uint8)).save(
        tmp_path / "a.png", save_all=True,
        append_images=[Image.fromarray(plane.astype(np.uint8)) for plane in STACK[1:]],
    )  # fmt: skip
    with pytest.raises(MitolumeError, match=r"a\.png has 4 frames"):
        read(tmp_path / "a.png")


def test_an_index_of_planes_is_whole(tmp_path: Path) -> None:
    path, index = tmp_path / "a_NDTiffStack.tif", tmp_path / "NDTiff.index"
    write_ndtiff(path, STACK)
    np.testing.assert_array_equal(read(path).values[0, 0], STACK)
    index.write_bytes(index.read_bytes()[:-9])
    with pytest.raises(MitolumeError, match="it ends before what it announces"):
        read(path)
    write_ndtiff(path, STACK, lacking=[2])
    with pytest.raises(MitolumeError, match=r"but 1 is missing \(Z 2"):
        read(path)


def test_a_picture_whose_0_is_white_is_said_to_be(tmp_path: Path) -> None:
    for kind in ("miniswhite", "minisblack"):
        tifffile.imwrite(tmp_path / "a.tif", STACK[0], photometric=kind)
        np.testing.assert_array_equal(read_plane(read(tmp_path / "a.tif")), STACK[0])
        assert ("0 is white" in inspect(tmp_path / "a.tif")) == (kind == "miniswhite")


def test_inks_are_no_red_green_and_blue(tmp_path: Path) -> None:
    """The fourth of them is black, and no transparency to drop."""
    inks = np.moveaxis((STACK // 16).astype(np.uint8), 0, -1)
    tifffile.imwrite(tmp_path / "a.tif", inks, photometric="separated")
    assert list(read(tmp_path / "a.tif")["C"].values) == ["0", "1", "2", "3"]


def test_a_file_that_vanishes_or_has_no_name_is_said_to(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK[0])
    image = read(tmp_path / "a.tif")
    (tmp_path / "a.tif").unlink()
    with pytest.raises(MitolumeError, match=r"a\.tif is not there$"):
        read_plane(image)
    nameless = tmp_path / os.fsdecode(b"\xff.tif")
    tifffile.imwrite(nameless, STACK[0])
    with pytest.raises(MitolumeError, match=r"udcff\.tif' is not UTF-8 text; rename"):
        read(nameless)


def test_ome_images_are_told_by_name_and_size(tmp_path: Path) -> None:
    """Of two images the first has no pixels in the file: its size is not that of the second."""
    (file,) = write_set(tmp_path, {"a.ome.tif": [0, 1, 2, 3]}, pixels='PhysicalSizeX="0.08"')
    with tifffile.TiffFile(file) as tif:
        xml = str(tif.ome_metadata)
    first = (
        '<Image ID="Image:9" Name="b"><Pixels ID="Pixels:9" DimensionOrder="XYZCT" Type="uint16" '
        'SizeX="8" SizeY="8" SizeZ="1" SizeC="1" SizeT="1" PhysicalSizeX="2"/></Image>'
    )
    tifffile.tiffcomment(file, xml.replace("<Image ", first + "<Image ", 1).encode())
    assert stated(file).size_um == {"X": 0.08}


def test_a_part_that_an_ome_zarr_lacks_is_named_and_odd_axes_are_no_fault_of_ours(
    tmp_path: Path,
) -> None:
    plate = zarr.open_group(tmp_path / "p.zarr")
    plate.attrs["ome"] = {"plate": {"wells": [{"path": "A/1"}, {"path": "A/2"}]}}
    write_zarr(tmp_path / "p.zarr" / "A" / "1", "zyx", STACK)
    np.testing.assert_array_equal(read(tmp_path / "p.zarr", scene="A/1").values[0, 0], STACK)
    with pytest.raises(MitolumeError, match=r"p\.zarr names A/2 as a part of it, which is not"):
        read(tmp_path / "p.zarr", scene="A/2")
    write_zarr(tmp_path / "a.zarr", "yyx", STACK)
    with pytest.raises(MitolumeError, match="its content is not what its kind of file holds"):
        read(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("scale", "unit", "size"),
    [
        ([0.5, "0.1", 0.1], "micrometer", {"Z": 0.5, "Y": 0.1, "X": 0.1}),
        ([0.5, None, 0.1], "micrometer", {"Z": 0.5, "X": 0.1}),
        ([0.5, 0.1], "micrometer", {}),
        ([0.5, 0.1, 0.1], "millimeter", {}),  # 100 µm a pixel: nor is the z-step 0.5 mm
    ],
)
def test_one_bad_scale_takes_no_name_with_it(
    tmp_path: Path, scale: list[Any], unit: str, size: dict[str, float]
) -> None:
    write_zarr(tmp_path / "a.zarr", "zyx", STACK, version="0.4", unit=unit, channels=["DIC"])
    group = zarr.open_group(tmp_path / "a.zarr")
    (image,) = group.attrs["multiscales"]
    image["datasets"][0]["coordinateTransformations"] = [{"type": "scale", "scale": scale}]
    group.attrs["multiscales"] = [image]
    found = read(tmp_path / "a.zarr")
    assert found.attrs.get("pixel_size_um", {}) == pytest.approx(size)
    assert list(found["C"].values) == ["DIC"]


def test_a_label_image_within_an_ome_zarr_is_a_mask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_zarr(tmp_path / "labels" / "mito", "zyx", (STACK > 3000).astype(np.uint8))
    zarr.open_group(tmp_path / "labels").attrs["ome"] = {"labels": ["mito", "cells"]}
    with pytest.raises(MitolumeError, match=r"holds 2 images \(0 = mito, 1 = cells\).* folder of"):
        open_mask(tmp_path / "labels")
    mask = tmp_path / "labels" / "mito"
    for words in (["measure", mask, "--out", tmp_path / "o.csv"], ["evaluate", mask, mask]):
        assert call(monkeypatch, *words) == 0


def test_ome_zarr_of_any_age(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    write_zarr(path, "zyx", STACK, version="0.4", scale=(0.5, 0.1, 0.1))
    group = zarr.open_group(path)
    (image,) = group.attrs["multiscales"]
    for dataset in image["datasets"]:
        del dataset["coordinateTransformations"]
    group.attrs["multiscales"] = [image]
    assert "pixel_size_um" not in read(path).attrs, "no scale is no scale of 1"
    del image["axes"]  # as before 0.3, where all had five
    group.attrs["multiscales"] = [image | {"version": "0.2"}]
    with pytest.raises(MitolumeError, match=r"version 0.2 .* 5 axes .* pixels have 3"):
        read(path)
    write_zarr(tmp_path / "b.zarr", "tczyx", STACK[None, None], version="0.4")
    group = zarr.open_group(tmp_path / "b.zarr")
    (image,) = group.attrs["multiscales"]
    del image["axes"]
    group.attrs["multiscales"] = [image]
    np.testing.assert_array_equal(read(tmp_path / "b.zarr").values.squeeze(), STACK)


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "a.nd2", "ND2, but is a pointer of Git"),
        (b"\n<!DOCTYPE html><html></html>", "a.tif", "TIF, but is a web page; download"),
        (b"\x89PNG\r\n\x1a\n", "a.ome.tif", "TIF, but is a PNG picture; rename it"),
        (b"\xff\xd8\xff\xe0", "a.czi", "CZI, but is a JPEG picture; rename it"),
        (b"II*\0\x08\0\0\0", "a.png", "PNG, but is a TIFF; rename it"),
        (b"PK\3\4", "a.lif", "LIF, but is a ZIP archive; unpack it"),
        (b"\x89HDF\r\n", "a.tif", "TIF, but is HDF5"),
        (b"hello", "a.tif", "is not a TIFF: it begins with 'hello'"),
    ],
)
def test_what_is_called_otherwise_is_said_to_be_so(
    tmp_path: Path, content: bytes, name: str, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MitolumeError, match=said):
        read(tmp_path / name)


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "zstd", "jpeg", "png"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_pixels_that_are_cut_short_are_no_picture(
    tmp_path: Path, compression: str | None, tile: tuple[int, int] | None
) -> None:
    """The file is as long as it was; a strip or a tile holds half of its pixels, or all none."""
    path = tmp_path / "a.tif"
    plane = (STACK[0] // 16).astype(np.uint8)
    for share in (0.5, 0):
        tifffile.imwrite(path, plane, compression=compression, tile=tile, rowsperstrip=8)
        read_plane(read(path))
        with tifffile.TiffFile(path, mode="r+") as tif:
            tags = tif.pages[0].tags
            counts = list(tif.pages[0].databytecounts)
            counts = [int(counts[0] * share), *counts[1:]] if share else [0] * len(counts)
            (tags.get("TileByteCounts") or tags["StripByteCounts"]).overwrite(counts)
        with pytest.raises(MitolumeError, match=r"a\.tif .*(truncated|damaged)"):
            read_plane(read(path))


WRITERS: dict[str, Callable[[Path], None]] = {
    "a.nd2": lambda path: write_nd2(path, STACK[None]),
    "a.lif": lambda path: write_lif(path, {"a": ("ZYX", STACK)}, channels=["DIC"]),
    "a.png": lambda path: Image.fromarray((STACK[0] // 16).astype(np.uint8)).save(path),
    "a.tif": lambda path: tifffile.imwrite(path, STACK, imagej=True),
    "v4.zarr": lambda path: write_zarr(path, "zyx", STACK, version="0.4"),
    "v5.zarr": lambda path: write_zarr(path, "zyx", STACK, version="0.5"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_cut_anywhere_never_gives_other_pixels(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    whole = read(path).values
    file = path if path.is_file() else path / {"v4": "0/2.0.0", "v5": "0/c/2/0/0"}[name[:2]]
    content, failed = file.read_bytes(), 0
    for share in (*np.linspace(0.01, 0.99, 15), 0.999):
        file.write_bytes(content[: int(share * len(content))])
        try:
            image = read(path)
            planes = [read_plane(image, z=z) for z in range(image.sizes["Z"])]
            assert np.array_equal(planes, whole[0, 0]), share
        except MitolumeError:
            failed += 1
    assert failed > 10


def test_a_png_that_was_damaged_is_no_picture(tmp_path: Path) -> None:
    """Its decoder takes zeros, as of a transfer that broke off, for pixels."""
    path = tmp_path / "a.png"
    WRITERS["a.png"](path)
    content = path.read_bytes()
    for at in range(100, len(content) - 20, len(content) // 9):
        for damaged in (content[:at] + bytes(len(content) - at),
                        content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]):  # fmt: skip
            path.write_bytes(damaged)
            with pytest.raises(MitolumeError, match=r"a\.png can't be read"):
                read_plane(read(path))


def test_an_image_with_an_axis_of_length_0_is_refused_at_once(tmp_path: Path) -> None:
    width = struct.pack("<HHII", 256, 4, 1, 2**30)  # all that the only directory holds
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<IH", 8, 1) + width + bytes(4))
    write_nd2(tmp_path / "b.nd2", STACK[None])
    content = (tmp_path / "b.nd2").read_bytes()
    (tmp_path / "b.nd2").write_bytes(content.replace(b'value="24"', b'value="-4"'))
    for name in ("a.tif", "b.nd2"):
        with pytest.raises(MitolumeError, match="it holds no pixels"):
            read(tmp_path / name)


def test_a_chain_of_pages_that_leads_back_is_followed_once(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[0], metadata=None)
    data = bytearray(path.read_bytes())
    (first,) = struct.unpack_from("<I", data, 4)
    (tags,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * tags, len(data))  # the next: no tag, and back
    path.write_bytes(data + struct.pack("<HI", 0, first))
    assert read(path).shape[-2:] == STACK[0].shape


def test_a_file_that_claims_to_be_huge_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[0], tile=(16, 16))
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages[0].tags["ImageWidth"].overwrite(100_000)
        tif.pages[0].tags["ImageLength"].overwrite(100_000)
    with pytest.raises(MitolumeError, match="is truncated: its pixels take 2e"):
        read(path)


def test_what_would_be_waited_for_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tif")
    (tmp_path / "b.tif").symlink_to("b.tif")
    (tmp_path / "c.tif").mkdir()
    for name, said in [("a", "no regular file, but a pipe"), ("b", "a link that leads nowhere"),
                       ("c", "is a folder")]:  # fmt: skip
        with pytest.raises(MitolumeError, match=said):
            read(tmp_path / f"{name}.tif")


@pytest.mark.parametrize("damage", [("n_images", "images"), ("n_specimens", ""), (",1,", ",x,")])
def test_a_table_of_scores_that_lacks_what_is_shown_is_damaged(
    tmp_path: Path, damage: tuple[str, str]
) -> None:
    kept = max(path for path in (Path(__file__).parents[1] / "kept").iterdir() if path.is_dir())
    run = shutil.copytree(kept / "study" / "runs" / "plain_kall_s0", tmp_path / "run")
    (run / "results.csv").write_text((run / "results.csv").read_text().replace(*damage))
    with pytest.raises(MitolumeError, match=r"results\.csv can't be used .* makes it again"):
        results_text(run)
