"""Images of any size: windows agree with the whole, results go to disk in pieces, bad files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import xarray as xr
import zarr
from bioio_ome_zarr import Reader
from helpers.fields import blobs
from helpers.predictors import network, predictor, write
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.transform import resize

import mitolume
from mitolume.batch.predict import predict_files
from mitolume.batch.predict_image import PredictionOptions
from mitolume.batch.sources import find_sources
from mitolume.errors import MitolumeError
from mitolume.inference.chain import PreparedPlane
from mitolume.inference.predictor import Predictor
from mitolume.inference.tiles import around, block_side, blocks, tiles, turned_box
from mitolume.io import listing, windows
from mitolume.io.fields import Field
from mitolume.io.readers import tiff
from mitolume.io.table import read_table, write_table
from mitolume.io.zarr_out import new_image, shrink_mask
from mitolume.models.bundle import ConditionThreshold, save_bundle
from mitolume.models.settings import Views
from mitolume.preprocess.rescale import rescale, rescale_window
from mitolume.preprocess.settings import ChainSettings

sides = st.integers(1, 70)
shapes = st.tuples(sides, sides)


@st.composite
def boxes(draw: st.DrawFn, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Draw a box of a plane that holds a pixel."""
    first = [draw(st.integers(0, size - 1)) for size in shape]
    last = [draw(st.integers(a + 1, size)) for a, size in zip(first, shape, strict=True)]
    return slice(first[0], last[0]), slice(first[1], last[1])


def write_zarr(path: Path, pixels: np.ndarray, size: float = 0.1) -> Path:
    """Write (Y, X) as OME-Zarr in chunks that fit no tile."""
    group = zarr.create_group(path, zarr_format=3)
    group.create_array("0", data=pixels, chunks=(100, 90), dimension_names=["y", "x"])
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "yx"]
    steps = [{"type": "scale", "scale": [size, size]}]
    dataset = {"path": "0", "coordinateTransformations": steps}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [dataset]}]}
    return path


class InFile:
    """A plane that is no array, as one that is still in its file."""

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels, self.shape = pixels, pixels.shape

    def __getitem__(self, box: tuple[slice, slice]) -> np.ndarray:
        return self._pixels[box]


def texture(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


# Windows agree with the whole: grey values to 1e-3, probabilities to 1e-5; in bfloat16 to 2e-3.


@pytest.mark.parametrize(
    ("shape", "new"),
    [((40, 60), (80, 120)), ((97, 31), (25, 60)), ((1, 1), (3, 4)), ((5, 1), (2, 2)),
     ((64, 64), (16, 17)), ((100, 90), (111, 99)), ((2, 300), (1, 80))],
)  # fmt: skip
def test_rescaling_is_scikit_images(shape: tuple[int, int], new: tuple[int, int]) -> None:
    image = texture(shape).astype(np.float32)
    expected = resize(image, new, order=1, mode="reflect", anti_aliasing=True)
    np.testing.assert_allclose(rescale(image, new), expected, atol=1e-4)


@given(shapes, shapes, st.data())
def test_a_window_of_a_rescaled_plane_is_that_of_the_whole(
    shape: tuple[int, int], new: tuple[int, int], data: st.DataObject
) -> None:
    image, box = texture(shape), data.draw(boxes(new))
    window = rescale_window(image.__getitem__, shape, new, box)
    np.testing.assert_allclose(window, rescale(image, new)[box], atol=1e-3)


SIZES, SHARPEN = st.sampled_from([0.03, 0.1, 0.13, 0.35]), st.sampled_from(["none", "all"])


@given(shapes, SIZES, SHARPEN, st.data())
def test_a_box_of_a_prepared_plane_is_that_of_the_whole(
    shape: tuple[int, int], size: float, sharpen: str, data: st.DataObject
) -> None:
    chain = ChainSettings(sharpen=sharpen)
    at_once, in_windows = (
        PreparedPlane(plane, chain, pixel_size_um=(size, 0.1), model_um=0.1)
        for plane in (texture(shape), InFile(texture(shape)))
    )
    box = data.draw(boxes(at_once.shape))
    np.testing.assert_allclose(in_windows[box], at_once[box], atol=1e-4)


@pytest.mark.parametrize("sharpen", ["none", "all"])
@pytest.mark.parametrize("size", [0.1, 0.13])
def test_a_large_plane_is_measured_on_the_same_pixels_in_parts(size: float, sharpen: str) -> None:
    """Of more than 2^22 pixels a grid is taken; parts of 2,048 px meet it in odd places."""
    image, chain = texture((2300, 2100)), ChainSettings(sharpen=sharpen)
    at_once, in_parts = (
        PreparedPlane(plane, chain, pixel_size_um=(size, size), model_um=0.1).grey
        for plane in (image, InFile(image))
    )
    assert astuple(in_parts) == pytest.approx(astuple(at_once), rel=1e-6)


@given(st.tuples(st.integers(1, 12), st.integers(1, 12)), st.integers(1, 5), st.data())
def test_tiles_cover_a_box_once_on_the_grid_and_are_not_much_too_large(
    shape: tuple[int, int], core: int, data: st.DataObject
) -> None:
    size = (shape[0] * 16, shape[1] * 16)
    box = data.draw(boxes(size))
    image, result = texture(size).astype(float), np.full(size, np.nan)
    for tile in tiles(size, core * 16, 32, 16, box):
        for part, length, crop in zip(tile.read, size, tile.crop, strict=True):
            assert part.start % 16 == 0
            assert part.stop % 16 == 0
            assert 0 <= part.start < part.stop <= length
            assert part.stop - part.start <= core * 18 + 16 + 64
            # The halo is there, but where the image ends.
            assert crop.start >= min(32, crop.start + part.start)
            assert part.stop - part.start - crop.stop >= min(32, length - part.start - crop.stop)
        assert np.isnan(result[tile.write]).all()
        result[tile.write] = image[tile.read][tile.crop]
    np.testing.assert_array_equal(result[box], image[box])
    assert np.isfinite(result).sum() == result[box].size


@given(shapes, st.integers(0, 7), st.data())
def test_a_turned_box_lies_where_its_pixels_do(
    shape: tuple[int, int], turn: int, data: st.DataObject
) -> None:
    image, box = texture(shape), data.draw(boxes(shape))

    def turned(part: np.ndarray) -> np.ndarray:
        return np.rot90(part[:, ::-1] if turn >= 4 else part, turn % 4)

    there = turned_box(box, shape, turn)
    np.testing.assert_array_equal(turned(image)[there], turned(image[box]))


@given(shapes, st.data())
def test_a_window_lies_on_the_grid_from_both_ends_and_holds_the_halo(
    shape: tuple[int, int], data: st.DataObject
) -> None:
    box = data.draw(boxes(shape))
    for part, window, size in zip(box, around(box, shape, 8, 4), shape, strict=True):
        assert window.start % 4 == (size - window.stop) % 4 == 0
        assert 0 <= window.start <= max(part.start - 8, 0)
        assert size >= window.stop >= min(part.stop + 8, size)
        assert window.stop - window.start < part.stop - part.start + 2 * 8 + 2 * 4


def test_blocks_are_whole_chunks_and_hold_about_four_tiles() -> None:
    assert block_side((9000, 9000), (9000, 9000), 1024, 1024) == 2048
    assert block_side((9000, 9000), (36000, 36000), 1024, 1024) == 1024
    assert block_side((9000, 9000), (2250, 2250), 1024, 1024) == 4096


@given(shapes, st.integers(1, 40))
def test_blocks_cover_a_plane_once_and_none_is_a_sliver(shape: tuple[int, int], side: int) -> None:
    covered = np.zeros(shape, int)
    for box in blocks(shape, side):
        covered[box] += 1
        for part, size in zip(box, shape, strict=True):
            assert part.start % side == 0
            assert min(side, size) / 2 <= part.stop - part.start <= 1.5 * side
    assert (covered == 1).all()


@pytest.mark.parametrize("views", [1, 4])
@pytest.mark.parametrize("size", [0.1, 0.17, 0.06])
def test_any_box_of_the_answer_is_that_of_the_whole(size: float, views: Views) -> None:
    ready = predictor(views=views, precision="float32")
    image = texture((150, 203))
    at_once = ready.predict_plane(image, (size, size))
    prepared = ready.prepare(InFile(image), (size, size))
    for box in [(slice(0, 150), slice(100, 203)), (slice(37, 91), slice(5, 6))]:
        part = next(ready.predict_each(prepared, image.shape, [box]))
        np.testing.assert_allclose(part, at_once[box], atol=1e-5)


@pytest.mark.parametrize("size", [0.1, 0.13])
@pytest.mark.parametrize(("views", "precision"), [(1, "float32"), (4, "float32"), (1, "bfloat16")])
def test_probabilities_do_not_depend_on_the_tile_size(
    size: float, views: Views, precision: str
) -> None:
    image, made = texture((250, 420)), network()
    # Untrained, it would say much the same everywhere.
    made.body.final_conv.weight.data *= 100
    made.body.final_conv.bias.data.fill_(-2.9)
    at_once, tiled = (
        Predictor(made, predictor().card, core=core, views=views, precision=precision)
        .predict_plane(image, (size, size))
        for core in (1024, 128)
    )  # fmt: skip
    assert np.ptp(at_once) > 0.1
    np.testing.assert_allclose(tiled, at_once, atol=1e-5 if precision == "float32" else 2e-3)


def test_a_tile_size_off_the_grid_is_refused() -> None:
    with pytest.raises(MitolumeError, match="tile size is 1000, but must be a multiple of 16"):
        Predictor(network(), predictor().card, core=1000)


def test_planes_left_in_their_file_give_the_same_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done with planes above 64 Mpx, done with a small one."""
    image = write(tmp_path / "a.ome.tif", texture((300, 420)), size=0.13)
    monkeypatch.setattr(listing, "_MOST_IN_A_TIFF", 1)
    options = PredictionOptions(probability=True, overlay=True)
    predict_files(predictor(), [image], tmp_path / "in_memory", options)
    monkeypatch.setattr(windows, "IN_MEMORY", 1)
    monkeypatch.setattr(tiff, "_LARGE", 1)
    predict_files(predictor(), [image], tmp_path / "by_boxes", options)
    for name in ("a_mask.ome.zarr", "a_probability.ome.zarr"):
        pair = [
            mitolume.read(tmp_path / where / name).values for where in ("in_memory", "by_boxes")
        ]
        np.testing.assert_array_equal(*pair)


@pytest.mark.parametrize(
    "options",
    [
        {"tile": (64, 48), "compression": "zlib"},
        {"rowsperstrip": 16, "compression": "zlib"},
        {},
        {"compression": "zlib", "rowsperstrip": 10_000},
        {"byteorder": ">"},
    ],
    ids=["tiles", "strips", "plain", "one strip", "big-endian, as Fiji writes"],
)
@pytest.mark.parametrize("name", ["a.ome.tif", "a.tif"])
def test_large_tiffs_are_read_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: dict
) -> None:
    pixels = np.stack([texture((200, 150), seed) for seed in range(6)]).reshape(2, 3, 200, 150)
    pixels = pixels.astype(np.uint16) * 200
    axes = {"axes": "ZCYX"} if name.startswith("a.ome") else None
    path = tmp_path / name
    tifffile.imwrite(path, pixels, metadata=axes, photometric="minisblack", **options)
    expected = mitolume.read(path)
    monkeypatch.setattr(tiff, "_LARGE", 1)
    found = mitolume.read(path)
    np.testing.assert_array_equal(found.values, expected.values)
    assert (found.dims, found.attrs) == (expected.dims, expected.attrs)


# OME-Zarr.


def test_an_ome_zarr_becomes_an_ome_zarr_that_other_programs_open(tmp_path: Path) -> None:
    image = write_zarr(tmp_path / "a.ome.zarr", texture((1100, 530)))
    ready, options = predictor(core=256), PredictionOptions(probability=True)
    (path,) = predict_files(ready, [image], tmp_path / "out", options).written
    assert path.name == "a_mask.ome.zarr"
    expected = ready.predict_plane(texture((1100, 530)), (0.1, 0.1)) >= ready.card.threshold

    ours = mitolume.read(path)
    assert ours.attrs["pixel_size_um"] == {"Y": 0.1, "X": 0.1}
    np.testing.assert_array_equal(ours.values[0, 0, 0], expected)
    theirs = Reader(path)
    assert theirs.dims.order == "TCZYX"
    assert theirs.channel_names == ["mask"]
    assert pytest.approx(0.1) == theirs.physical_pixel_sizes.X
    np.testing.assert_array_equal(theirs.data[0, 0, 0], expected)

    group = zarr.open_group(path, mode="r")
    levels = [group[name] for name in sorted(group.array_keys())]
    assert [level.shape[3:] for level in levels] == [(1100, 530), (550, 265), (275, 133)]
    np.testing.assert_array_equal(levels[1][0, 0, 0], shrink_mask(levels[0][0, 0, 0]))
    assert all(set(np.unique(level[:])) == {0, 1} for level in levels)
    yaozarrs = pytest.importorskip("yaozarrs", reason="validates OME-Zarr")
    for name in ("a_mask.ome.zarr", "a_probability.ome.zarr"):
        yaozarrs.validate_zarr_store(str(tmp_path / "out" / name))
    probability = zarr.open_group(tmp_path / "out" / "a_probability.ome.zarr", mode="r")
    quads = probability["0"][0, 0, 0, :1100, :530].reshape(550, 2, 265, 2)
    np.testing.assert_allclose(probability["1"][0, 0, 0], quads.mean(axis=(1, 3)), atol=1e-6)


def image_like(shape: tuple[int, ...], size: dict[str, float]) -> xr.DataArray:
    return xr.DataArray(np.empty(shape), dims=tuple("TCZYX"), attrs={"pixel_size_um": size})


@given(st.integers(1, 3), st.integers(1, 2), sides, sides)
@settings(max_examples=10)
def test_what_is_written_in_pieces_is_read_back(t: int, z: int, y: int, x: int) -> None:
    import tempfile

    shape = (t, 1, z, y * 20, x * 20)
    pixels = np.random.default_rng(0).integers(0, 2, shape).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.ome.zarr"
        size = {"Z": 1.5, "Y": 0.2, "X": 0.1}
        like = image_like(shape, size)
        with new_image(path, like, name="mask", dtype="uint8", mask=True) as part:
            part[:] = pixels
            assert not path.exists()
        found = mitolume.read(path)
        np.testing.assert_array_equal(found.values, pixels)
        assert found.attrs["pixel_size_um"] == size
        assert [p.name for p in Path(folder).iterdir() if p.name[0] != "."] == ["a.ome.zarr"]


def test_a_fault_while_writing_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.zarr"
    like = image_like((1, 1, 1, 4, 4), {})
    with new_image(path, like, name="mask", dtype="uint8") as part:
        part[:] = 1
    with pytest.raises(KeyboardInterrupt), new_image(path, like, name="mask", dtype="uint8"):
        raise KeyboardInterrupt
    assert mitolume.read(path).values.all()
    assert "pixel_size_um" not in mitolume.read(path).attrs
    assert [p.name for p in tmp_path.iterdir() if p.name[0] != "."] == ["a.ome.zarr"]


# Folders, bad files, resume, scenes.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write three good images, a cut one, one without pixel size, and things to pass over."""
    made = tmp_path / "images"
    made.mkdir()
    for number in (10, 9, 1):
        write(made / f"f{number}.ome.tif", blobs(number)[0])
    (made / "cut.tif").write_bytes((made / "f1.ome.tif").read_bytes()[:900])
    write(made / "nosize.ome.tif", blobs(0)[0], size=None)
    write(made / "f1_mask.ome.tif", blobs(1)[1])
    (made / "notes.txt").write_text("x")
    write_zarr(made / "z.ome.zarr", blobs(5)[0])
    return made


def test_bad_files_of_a_folder_are_told_at_the_end_and_the_others_done(
    folder: Path, tmp_path: Path
) -> None:
    notes: list[str] = []
    outcome = predict_files(
        predictor(), [folder], tmp_path / "out", progress=lambda *seen: notes.append(seen[2:])
    )
    assert [path.name for path in outcome.written] == [
        "f1_mask.ome.tif", "f9_mask.ome.tif", "f10_mask.ome.tif", "z_mask.ome.zarr",
    ]  # fmt: skip
    assert len(outcome.faults) == 2
    assert "cut.tif" in outcome.faults[0]
    assert "nosize.ome.tif states no pixel size" in outcome.faults[1]
    assert ("opening f1.ome.tif",) in notes
    assert ("f10.ome.tif",) in notes


def test_when_nothing_works_it_is_said_plainly(folder: Path, tmp_path: Path) -> None:
    bad = [folder / "cut.tif", folder / "nosize.ome.tif"]
    (tmp_path / "empty").mkdir()
    write(tmp_path / "made" / "a_mask.ome.tif", texture((16, 16)))
    for files, sentence in (
        (bad[1:], r"^[^\n]*nosize.ome.tif states no pixel size[^\n]*$"),
        (bad, r"^2 images found, none predicted:\n  .*cut.tif"),
        ([tmp_path / "empty"], "empty is a folder without image files"),
        ([tmp_path / "made"], r"made holds only masks or results \(a_mask.ome.tif\)"),
    ):
        with pytest.raises(MitolumeError, match=sentence):
            predict_files(predictor(), files, tmp_path / "out").raise_faults("images", "predicted")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "part",
    [lambda i: i.isel(C=0), lambda i: i.isel(Z=0), lambda i: i.values, lambda i: i.T],
    ids=["no channel", "no Z", "numpy", "other order"],
)
def test_an_image_without_its_axes_is_refused_in_a_sentence(part: Callable[[Any], Any]) -> None:
    image = xr.DataArray(np.zeros((1, 1, 1, 32, 48)), dims=tuple("TCZYX"), coords={"C": ["BF"]})
    with pytest.raises(MitolumeError, match=r"has the dims T C Z Y X, as `mitolume.read`"):
        predictor().predict(part(image))


def test_a_table_is_predicted_and_measured_with_what_it_says(tmp_path: Path) -> None:
    rows = ["image,mask,specimen,condition,pixel_size_um"]
    for seed, (dish, condition) in enumerate((("d1", "control"), ("d2", "FCCP"))):
        (tmp_path / dish).mkdir()
        write(tmp_path / dish / "f.ome.tif", texture((48, 64), seed))
        rows.append(f"{dish}/f.ome.tif,,dish {dish},{condition},0.1")
    table, out = tmp_path / "fields.csv", tmp_path / "masks"
    table.write_text("\n".join(rows) + "\n")
    ready = predictor()
    ready.card.thresholds["FCCP"] = ConditionThreshold(threshold=1e-9, role="train", n_images=3)
    options = PredictionOptions(probability=True)
    outcome = predict_files(ready, [], out, options, table=table)
    assert [path.name for path in outcome.written] == ["d1_f_mask.ome.tif", "d2_f_mask.ome.tif"]
    assert mitolume.read(out / "d2_f_mask.ome.tif").values.all(), "by the threshold of FCCP"
    folders = predict_files(ready, [tmp_path / "d1", tmp_path / "d2"], tmp_path / "plain")
    assert [path.name for path in folders.written] == [path.name for path in outcome.written]
    common = f"{ready.card.threshold:g}"
    assert outcome.notices == [
        f"the common threshold, {common}, was used for control: the model has others for FCCP "
        "alone",
        f"thresholds by condition: FCCP 1e-09, control {common}; to see what of a difference is "
        f"theirs, predict once more with --threshold {common}",
    ]
    found = read_table(out / "fields.csv")
    assert [(row.specimen, row.condition) for row in found] == [
        ("dish d1", "control"), ("dish d2", "FCCP"),
    ]  # fmt: skip
    assert predict_files(ready, [], out, options, table=table, resume=True).before
    table.write_text("\n".join(rows).replace("FCCP", "fccp") + "\n")
    (said,) = predict_files(ready, [], tmp_path / "fccp", options, table=table).notices
    assert said.endswith("was used for control, fccp: the model has others for FCCP alone")
    asked = replace(options, threshold=0.5)
    assert not predict_files(ready, [], tmp_path / "one", asked, table=table).notices
    sources, _ = find_sources([out], [], out / "fields.csv")
    assert [source.facts["condition"] for source in sources] == ["control", "FCCP"]
    assert [source.images[0].file.parent.name for source in sources] == ["d1", "d2"]
    with pytest.raises(MitolumeError, match=r"masks.csv is to be a folder, but is named as a file"):
        predict_files(ready, [], tmp_path / "masks.csv", table=table)
    with pytest.raises(MitolumeError, match="name either images or a table"):
        predict_files(ready, [table], out, table=table)


def test_resume_does_what_is_missing_with_the_same_model_only(
    folder: Path, model: Path, tmp_path: Path
) -> None:
    files, out = [folder / f"f{n}.ome.tif" for n in (1, 9, 10)], tmp_path / "out"
    ready = mitolume.load(model)
    predict_files(ready, files[:1], out)
    with pytest.raises(MitolumeError, match=r"exists already.*--overwrite.*--resume"):
        predict_files(ready, files, out)
    before = (out / "f1_mask.ome.tif").stat().st_mtime_ns
    outcome = predict_files(ready, files, out, resume=True)
    assert [path.name for path in outcome.written] == ["f9_mask.ome.tif", "f10_mask.ome.tif"]
    assert (out / "f1_mask.ome.tif").stat().st_mtime_ns == before
    assert len(predict_files(ready, files, out, resume=True).before) == 3
    with pytest.raises(MitolumeError, match=r"f1_mask.ome.tif was made with threshold 0\.\d+, not"):
        predict_files(ready, files, out, PredictionOptions(threshold=0.9), resume=True)
    other = predictor(width=4)
    save_bundle(tmp_path / "other", other.network.state_dict(), other.card)
    with pytest.raises(MitolumeError, match=r"f1_mask.ome.tif was made with model"):
        predict_files(mitolume.load(tmp_path / "other"), files, out, resume=True)
    with_overlay = predict_files(ready, files, out, PredictionOptions(overlay=True), resume=True)
    assert len(with_overlay.written) == 3
    assert len(list(out.glob("*_overlay.png"))) == 3


def test_all_scenes_of_a_file_become_results_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "two.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        for name, seed in (("left/top", 0), ("right", 1)):
            size = {"PhysicalSizeX": 0.1, "PhysicalSizeY": 0.1}
            file.write(blobs(seed)[0], metadata={"axes": "YX", "Name": name, **size})
    outcome = predict_files(predictor(), [path], tmp_path / "out", PredictionOptions(scene="all"))
    assert [p.name for p in outcome.written] == [
        "two_left_top_mask.ome.tif", "two_right_mask.ome.tif",
    ]  # fmt: skip
    expected = predictor().predict_plane(blobs(1)[0], (0.1, 0.1)) >= predictor().card.threshold
    np.testing.assert_array_equal(mitolume.read(outcome.written[1]).values[0, 0, 0], expected)


def test_scenes_after_one_that_cannot_be_opened_are_predicted(tmp_path: Path) -> None:
    plane, path = (blobs(0)[0] * 99).astype(np.uint16), tmp_path / "plate.ome.tif"
    scenes = {"A/1": ("YX", plane), "A2": ("CYX", np.stack([plane, plane])), "A3": ("YX", plane)}
    sizes = {"PhysicalSizeX": 0.1, "PhysicalSizeY": 0.1}
    with tifffile.TiffWriter(path, ome=True) as file:
        for name, (axes, pixels) in scenes.items():  # a well is no folder
            file.write(
                pixels, metadata={"Name": name, "axes": axes} | sizes, photometric="minisblack"
            )
    write_table(table := tmp_path / "f.csv", [Field(path, scene=scene) for scene in scenes])
    every = PredictionOptions(scene="all")
    for asked in ({"files": [path], "options": every}, {"files": [], "table": table}):
        outcome = predict_files(predictor(), out=tmp_path / f"out{len(asked['files'])}", **asked)
        out = tmp_path / f"out{len(asked['files'])}"
        names = [p.relative_to(out).as_posix() for p in outcome.written]
        assert names == ["plate_A_1_mask.ome.tif", "plate_A3_mask.ome.tif"]
        assert len(outcome.faults) == 1
        assert "plate.ome.tif (scene A2)" in outcome.faults[0]
        found, said = find_sources([out], [], table)
        assert [source.images[0].scene for source in found] == ["A3", "A/1"]
        assert said == [
            f"not measured, as no mask of theirs was found: 1 image of {table} (plate.ome.tif "
            "(scene A2))"
        ]
        assert not find_sources([outcome.written[0]], [], table)[1], "a file was asked for"
        for images in (path, tmp_path):
            found, _ = find_sources([out], [images])
            assert [source.images[0].scene for source in found] == ["A3", "A/1"]
        tifffile.imwrite(dye := tmp_path / "dye.tif", plane)
        with pytest.raises(MitolumeError, match=r"dye.tif is one image for 2 masks"):
            find_sources([out], [path, dye])
        dye.unlink()
    assert len(read_table(tmp_path / "out0" / "fields.csv")) == 2


def test_overlays_of_large_planes_are_thinned_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mitolume.batch import predict_image as files

    monkeypatch.setattr(files, "IN_MEMORY", 1)
    monkeypatch.setattr(files, "_PICTURE", 50)
    image = write(tmp_path / "a.ome.tif", blobs(0, (120, 200))[0])
    predict_files(predictor(), [image], tmp_path / "out", PredictionOptions(overlay=True))
    with Image.open(tmp_path / "out" / "a_overlay.png") as picture:
        assert picture.size == (50, 30)
