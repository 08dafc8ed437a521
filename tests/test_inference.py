"""Tiles, networks and prediction: tiled equals whole, axes and pixel size are kept."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import xarray as xr
from helpers.fields import blobs
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import mitolume
from mitolume.batch.predict import predict_files
from mitolume.batch.predict_image import PredictionOptions
from mitolume.batch.runner import Job, run_jobs
from mitolume.errors import MitolumeError, TooLittleMemoryError
from mitolume.inference.predictor import Predictor
from mitolume.inference.tiled import _run_window, _sent, launch_tiled, predict_tiled
from mitolume.inference.tiles import tiles
from mitolume.io.read import AXES, read
from mitolume.io.write import write_image
from mitolume.models.bundle import CARD, WEIGHTS, Card, load_bundle, save_bundle
from mitolume.models.losses import LOSSES
from mitolume.models.networks import (
    HALO,
    MULTIPLE,
    DenoisingNetwork,
    SegmentationNetwork,
    find_device,
    for_prediction,
)
from mitolume.models.settings import DenoiserNetworkSettings, NetworkSettings, Views
from mitolume.runs.folder import find_bundle
from mitolume.training.methods import METHODS
from mitolume.training.patches import PreparedImage
from mitolume.training.segmentation import Segmentation
from mitolume.training.settings import TrainingSettings


def network(name: str = "unet", width: int = 4) -> SegmentationNetwork:
    """Return a network whose normalisation has seen something, as after training."""
    made = SegmentationNetwork(NetworkSettings(name=name, width=width), seed=1)
    made.train()
    with torch.no_grad():
        for seed in range(3):
            made(torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(seed)))
    return made.eval()


def predictor(**card: object) -> Predictor:
    settings_ = NetworkSettings(width=4)
    return Predictor(network(), Card(network=settings_, **card))


@given(st.tuples(st.integers(1, 12), st.integers(1, 12)), st.integers(1, 5), st.integers(0, 4))
def test_tiles_cover_an_image_once_and_keep_to_the_grid(
    shape: tuple[int, int], core: int, halo: int
) -> None:
    height, width = shape[0] * 16, shape[1] * 16
    image = np.random.default_rng(0).normal(size=(height, width))
    result = np.full((height, width), np.nan)
    for tile in tiles((height, width), core * 16, halo * 16, 16):
        part = image[tile.read]
        assert all(s.start % 16 == 0 and s.stop % 16 == 0 for s in tile.read)
        assert np.isnan(result[tile.write]).all()
        result[tile.write] = part[tile.crop]
    np.testing.assert_array_equal(result, image)


@pytest.mark.parametrize("name", ["unet", "unetplusplus"])
def test_every_network_keeps_the_contract(name: str) -> None:
    made = network(name)
    images = torch.randn(2, 1, 32, 48)
    logits = made(images)
    assert logits.shape == images.shape
    same = SegmentationNetwork(NetworkSettings(name=name, width=4), seed=3).state_dict()
    again = SegmentationNetwork(NetworkSettings(name=name, width=4), seed=3).state_dict()
    other = SegmentationNetwork(NetworkSettings(name=name, width=4), seed=4).state_dict()
    assert all(torch.equal(same[key], again[key]) for key in same)
    assert any(not torch.equal(same[key], other[key]) for key in same)


@pytest.mark.parametrize("name", ["unet", "unetplusplus"])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_networks_are_those_of_monai(name: str, norm: str) -> None:
    """Names, order, initial weights and answers: files of models fit both."""
    from monai.networks.nets import BasicUNet, BasicUNetPlusPlus

    kind = {"unet": BasicUNet, "unetplusplus": BasicUNetPlusPlus}[name]
    torch.manual_seed(3)
    theirs = kind(
        spatial_dims=2, in_channels=4, out_channels=1, features=(2, 4, 8, 16, 32, 2), act="relu",
        norm=None if norm == "none" else norm,
    )  # fmt: skip
    ours = DenoisingNetwork(DenoiserNetworkSettings(name=name, width=2, norm=norm), 4, seed=3).body
    weights, own = theirs.state_dict(), ours.state_dict()
    assert list(weights) == list(own)
    assert all(torch.equal(weights[key], own[key]) for key in own)
    images = torch.randn(2, 4, 32, 48)
    answer = theirs.eval()(images)
    torch.testing.assert_close(ours.eval()(images), answer[-1] if name != "unet" else answer)


@pytest.mark.parametrize("name", ["unet", "unetplusplus"])
def test_the_halo_covers_what_a_pixel_sees(name: str) -> None:
    """Changing the image beyond the halo changes nothing; within it, something."""
    made = network(name).double()
    side = 2 * HALO + 3 * MULTIPLE
    centre = slice(HALO + MULTIPLE, HALO + 2 * MULTIPLE)
    image = torch.randn(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    made(image)[0, 0, centre, centre].sum().backward()
    assert image.grad is not None
    touched = np.argwhere(image.grad[0, 0].abs().sum(1).numpy() > 0)
    assert centre.start - touched.min() <= HALO
    assert touched.max() - (centre.stop - 1) <= HALO
    assert centre.start - touched.min() > HALO - MULTIPLE


@pytest.mark.parametrize("name", ["unet", "unetplusplus"])
def test_the_network_is_as_wide_as_the_study_says(name: str) -> None:
    made = SegmentationNetwork(NetworkSettings(name=name, width=64))
    widths = {m.out_channels for m in made.modules() if isinstance(m, torch.nn.Conv2d)}
    assert {64, 128, 256, 512, 1024} <= widths


@pytest.mark.parametrize("name", ["unet", "unetplusplus"])
@given(shape=st.tuples(st.integers(1, 300), st.integers(1, 300)))
@settings(max_examples=6)
def test_tiled_equals_whole(name: str, shape: tuple[int, int]) -> None:
    made = network(name)
    image = np.random.default_rng(shape).normal(size=shape).astype(np.float32)
    whole = predict_tiled(made, image, core=4096)
    assert whole.shape == shape
    np.testing.assert_allclose(predict_tiled(made, image, core=80), whole, atol=1e-5)


@given(st.data())
@settings(max_examples=8)
def test_a_part_of_the_answer_is_cut_from_the_whole(data: st.DataObject) -> None:
    """A U-Net computes on its way up only what is kept; tiles are cut by their halo or an edge."""
    image = torch.randn(1, 1, 240, 272, generator=torch.Generator().manual_seed(0))
    crop = tuple(
        slice(data.draw(st.sampled_from([0, 97, 100, 111])), data.draw(st.integers(112, size)))
        for size in (240, 272)
    )
    made = network()
    with torch.inference_mode():
        whole = made(image)[0][..., *crop]
        np.testing.assert_allclose(_run_window(made, image, crop), whole, atol=1e-5)


@pytest.mark.parametrize("name", ["unet", "unetplusplus"])
def test_networks_predict_what_they_were_trained_to(name: str) -> None:
    made = network(name, width=8)
    image = np.random.default_rng(0).normal(size=(96, 80)).astype(np.float32)
    expected = predict_tiled(made, image)
    before = {key: value.clone() for key, value in made.state_dict().items()}
    for precision, atol in ("float32", 1e-5), ("bfloat16", 0.01):
        fast = for_prediction(made, precision)
        found = predict_tiled(fast, image)
        np.testing.assert_allclose(found, expected, atol=atol)
        assert len(np.unique(found)) > 0.8 * len(np.unique(expected)), "fine enough to cut anywhere"
    assert all(torch.equal(value, made.state_dict()[key]) for key, value in before.items())
    with pytest.raises(MitolumeError, match="precision is 'float16', but must be auto, float32 or"):
        Predictor(network(), predictor().card, precision="float16")


@pytest.mark.parametrize(("own", "views"), [(4, 1), (1, 4)])
def test_averaging_turns_commutes_with_turning(own: Views, views: int) -> None:
    averaged = Predictor(network(), predictor().card, views=own)
    image = np.random.default_rng(0).normal(size=(48, 64)).astype(np.float32)
    straight = averaged.predict_prepared(image, views)
    turned = averaged.predict_prepared(np.ascontiguousarray(np.rot90(image)), views)
    np.testing.assert_allclose(np.rot90(straight), turned, atol=1e-5)


def test_a_model_says_how_many_views_it_wants() -> None:
    image = np.random.default_rng(0).normal(size=(48, 64)).astype(np.float32)
    one, four = (predictor(views=views).predict_prepared(image) for views in (1, 4))
    turned = [
        np.rot90(predictor().predict_prepared(np.ascontiguousarray(np.rot90(image, k))), -k)
        for k in range(4)
    ]
    np.testing.assert_allclose(np.mean(turned, 0), four, atol=1e-5)
    assert predictor(views=8).card.views == 4, "of earlier versions"
    asked = Predictor(network(), predictor(views=4).card, views=1)
    np.testing.assert_array_equal(asked.predict_prepared(image), one)
    with pytest.raises(MitolumeError, match="views is 3, but must be 1 or 4"):
        Predictor(network(), predictor().card, views=3)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_ignores_unsure_pixels_and_falls_towards_the_truth(name: str) -> None:
    loss = LOSSES[name]
    generator = torch.Generator().manual_seed(0)
    target = (torch.rand(2, 1, 16, 16, generator=generator) > 0.8).float()
    truth = target.clone()
    target[:, :, :4] = torch.nan
    logits = torch.randn(2, 1, 16, 16, generator=generator)
    changed = logits.clone()
    changed[:, :, :4] += 7
    assert loss(logits, target) == loss(changed, target)
    good, bad = (2 * truth - 1) * 5, (1 - 2 * truth) * 5
    assert loss(good, target) < loss(logits, target) < loss(bad, target)
    logits.requires_grad_()
    loss(logits, torch.full_like(target, torch.nan)).backward()
    assert torch.isfinite(logits.grad).all()


def test_false_positives_in_empty_patches_are_punished() -> None:
    empty, ones = torch.zeros(1, 1, 16, 16), torch.ones(1, 1, 16, 16)
    for loss in LOSSES.values():
        assert loss(4 * ones, empty) > loss(-4 * ones, empty) + 0.5


def test_a_bundle_gives_the_same_answer_after_loading(tmp_path: Path) -> None:
    original = predictor(pixel_size_um=0.1, threshold=0.4)
    save_bundle(tmp_path / "m", original.network.state_dict(), original.card)
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == [CARD, WEIGHTS]
    loaded = mitolume.load(tmp_path / "m")
    assert loaded.card == original.card
    assert mitolume.load(tmp_path / "m", precision="float32").precision == "float32"
    plane = blobs(0)[0]
    expected = original.predict_plane(plane, (0.1, 0.1))
    np.testing.assert_array_equal(loaded.predict_plane(plane, (0.1, 0.1)), expected)


def test_bundles_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MitolumeError, match="no such model"):
        load_bundle(tmp_path / "nothing")
    (tmp_path / "m").mkdir()
    with pytest.raises(MitolumeError, match="is not a model"):
        load_bundle(tmp_path / "m")
    good = predictor()
    save_bundle(tmp_path / "m", good.network.state_dict(), good.card)
    weights = (tmp_path / "m" / WEIGHTS).read_bytes()
    (tmp_path / "m" / WEIGHTS).write_bytes(weights[:1000])
    with pytest.raises(MitolumeError, match="doesn't fit its card"):
        load_bundle(tmp_path / "m")
    other = bytearray(weights)
    other[-1] ^= 1  # one bit of one weight
    (tmp_path / "m" / WEIGHTS).write_bytes(other)
    with pytest.raises(MitolumeError, match="damaged or of another model; copy the whole folder"):
        load_bundle(tmp_path / "m")
    text = (tmp_path / "m" / CARD).read_text()
    (tmp_path / "m" / CARD).write_text(text.replace('"schema_version": 1', '"schema_version": 99'))
    with pytest.raises(MitolumeError, match="update mitolume"):
        load_bundle(tmp_path / "m")
    for wrong in ("[]", text.replace('"planes": 1', '"planes": "auto"')):
        assert wrong != text
        (tmp_path / "m" / CARD).write_text(wrong)
        with pytest.raises(MitolumeError, match="is not a model card"):
            load_bundle(tmp_path / "m")
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "run.json").write_text("{}")
    with pytest.raises(MitolumeError, match="not finished"):
        find_bundle(tmp_path / "r")


def stack(tmp_path: Path, name: str = "s", size: float | None = 0.2) -> Path:
    planes = np.stack([[blobs(t * 2 + z)[0] for z in range(2)] for t in range(3)])[:, None]
    attrs = {"pixel_size_um": {"Z": 1.0, "Y": size, "X": size}} if size else {}
    names = np.array(["T PMT"], dtype=object)
    write_image(tmp_path / f"{name}.ome.tif",
                xr.DataArray(planes, dims=AXES, coords={"C": names}, attrs=attrs))  # fmt: skip
    return tmp_path / f"{name}.ome.tif"


def test_stacks_are_predicted_plane_by_plane_keeping_axes_and_pixel_size(tmp_path: Path) -> None:
    path, ready = stack(tmp_path), predictor(pixel_size_um=0.1)
    seen: list[tuple[int, int]] = []
    options = PredictionOptions(probability=True, overlay=True)
    (mask,) = predict_files(
        ready,
        [path],
        tmp_path / "out",
        options,
        progress=lambda done, total, note="": seen.append((done, total)),
    ).written
    assert seen[-1] == (6, 6)
    written = read(mask)
    assert {a: written.sizes[a] for a in "TZYX"} == {"T": 3, "Z": 2, "Y": 64, "X": 80}
    assert written.attrs["pixel_size_um"] == pytest.approx({"Z": 1, "Y": 0.2, "X": 0.2})
    probability = read(tmp_path / "out" / "s_probability.ome.tif")
    one = ready.predict_plane(read(path).values[1, 0, 1], (0.2, 0.2))
    np.testing.assert_allclose(probability.values[1, 0, 1], one, atol=1e-6)
    np.testing.assert_array_equal(written.values, probability.values >= ready.card.threshold)
    pictures = sorted((tmp_path / "out").glob("*.png"))
    assert [p.name for p in pictures][:2] == ["s_t000_z000_overlay.png", "s_t000_z001_overlay.png"]
    with Image.open(pictures[0]) as picture:
        assert picture.size[0] >= 80


@pytest.mark.parametrize("missing", [np.zeros((64, 64)), np.eye(64) + 1e7])
def test_planes_that_show_nothing_are_named(tmp_path: Path, missing: np.ndarray) -> None:
    """Formats read planes that were never recorded as zeros; float32 drowns others in an offset."""
    stack = np.stack([blobs(0)[0][:64, :64], missing, missing]).astype(np.float32)
    write_image(tmp_path / "a.ome.tif", xr.DataArray(stack, dims=("Z", "Y", "X")))
    options = PredictionOptions(pixel_size_um=0.1)
    found = predict_files(predictor(), [tmp_path / "a.ome.tif"], tmp_path, options)
    assert "2 of 3 planes are one flat grey" in found.notices[0]
    assert "(z 1, z 2, from 0)" in found.notices[0]


def test_pixel_sizes_are_asked_for_and_can_be_said(tmp_path: Path) -> None:
    path, ready = stack(tmp_path, size=None), predictor(pixel_size_um=0.1)
    (fault,) = predict_files(ready, [path], tmp_path / "out").faults
    assert "s.ome.tif states no pixel size" in fault
    assert "--pixel-size" in fault
    assert not list((tmp_path / "out").glob("*"))
    options = PredictionOptions(pixel_size_um=0.1)
    assert predict_files(ready, [path], tmp_path / "out", options).written


def test_two_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    files = [stack(tmp_path / "a"), stack(tmp_path / "b")]
    written = predict_files(predictor(), files, tmp_path / "out").written
    assert len({str(path) for path in written}) == 2


def test_copies_of_an_image_are_told(tmp_path: Path) -> None:
    (tmp_path / "day 1").mkdir()
    for name, seed in (("a", 1), ("a (copy)", 1), ("b", 2), ("day 1/b", 2)):
        tifffile.imwrite(tmp_path / f"{name}.tif", blobs(seed)[0])
    told = predict_files(predictor(), [tmp_path, tmp_path / "day 1"], tmp_path / "out").notices
    assert "a (copy).tif, a.tif: the same file, so what is in it counts 2 times" in told
    assert any(f"{tmp_path.name}/b.tif, day 1/b.tif: the same file" in said for said in told)


def test_images_mapped_from_disk_are_predicted_without_a_warning() -> None:
    image = np.random.default_rng(0).normal(size=(64, 96)).astype(np.float32)
    ready = predictor()
    expected = ready.predict_prepared(image)
    image.flags.writeable = False
    np.testing.assert_array_equal(ready.predict_prepared(image), expected)


def test_images_of_one_pixel_are_predicted(tmp_path: Path) -> None:
    Image.fromarray(np.full((1, 1), 9, np.uint8)).save(tmp_path / "dot.png")
    (mask,) = predict_files(predictor(), [tmp_path / "dot.png"], tmp_path / "out").written
    assert read(mask).shape == (1, 1, 1, 1, 1)


@pytest.mark.slow
def test_a_model_in_python_leaves_the_process_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Library:
        def __getattr__(self, name: str) -> object:
            asked.append(name)
            return lambda *_: 0

    monkeypatch.setattr("ctypes.CDLL", lambda _: Library())
    predictor(pixel_size_um=0.1).predict_plane(np.zeros((16, 16), np.uint8), (0.1, 0.1))
    assert set(asked) <= {"malloc_trim"}
    assert xr.get_options()["arithmetic_join"] == "inner", "xarray's default"


def test_too_little_memory_is_said_with_options_that_the_command_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def need(error: Exception) -> None:
        raise error

    for error, smaller, said in (
        (MemoryError("Unable to allocate 7 TiB"), "", "a: too little memory (Unable to allocate 7 "
         "TiB); close other programs"),
        (TooLittleMemoryError("too little for 9 px"), "lower X", "a: too little for 9 px; or lower "
         "X"),
    ):  # fmt: skip
        given: dict[str, Any] = {"smaller": smaller} if smaller else {}
        job = Job("a", (), (), lambda _, error=error: need(error), **given)
        assert run_jobs([job]).faults == [said]
    ready = predictor(pixel_size_um=0.1)
    write_image(tmp_path / "a.ome.tif", xr.DataArray(blobs(0)[0], dims=("Y", "X")))
    options, image = PredictionOptions(pixel_size_um=0.1), tmp_path / "a.ome.tif"
    monkeypatch.setattr(Predictor, "predict_each", lambda *_: need(MemoryError("of 7 TiB")))
    outcome = predict_files(ready, [image], tmp_path, options)
    assert outcome.faults == [
        "a.ome.tif: too little memory (of 7 TiB); choose a smaller --tile-size"
    ]


def test_channels_last_is_no_slower() -> None:
    """Paired timing in one process; the layout is chosen because it is faster here."""
    image = torch.randn(1, 1, 256, 256)
    ours = network(width=16)
    plain = network(width=16)
    plain.body = plain.body.to(memory_format=torch.contiguous_format)
    ratios = []
    with torch.inference_mode():
        for _ in range(5):
            seconds = []
            for call in (lambda: ours(image), lambda: plain.body(image.contiguous())):
                started = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - started)
            ratios.append(seconds[0] / seconds[1])
    print(f"channels-last against contiguous: {sorted(ratios)[2]:.2f} of the time")
    assert sorted(ratios)[2] < 1.1


def test_a_card_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """On "meta", where reading a result fails: pixels go there once, and nothing comes back."""
    sent: list[int] = []
    monkeypatch.setattr(
        "mitolume.inference.tiled._sent", lambda part, w, s=_sent: sent.append(1) or s(part, w)
    )
    there = network().to("meta")
    answer = launch_tiled(there, np.zeros((400, 70), np.float32), range(8), core=96)
    assert (answer.device.type, answer.shape) == ("meta", (400, 70))
    assert len(sent) == 8 * len(list(tiles((400, 80), 96, HALO, MULTIPLE)))

    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no "meta"
    shown = PreparedImage(np.zeros((64, 64), np.float32), np.zeros((64, 64), np.uint8))
    for name, augment in (("supervised", "full"), ("noisy_student", "photometric")):
        task = Segmentation(
            [shown], [shown], method=METHODS[name](), seed=0,
            settings=TrainingSettings(batch=4, patch=32, augment=augment),
        )  # fmt: skip
        step, images, targets = task.batches[0]
        loss = task.loss(there.train(), (step, images.to("meta"), targets.to("meta")))
        loss.backward()
        assert loss.device.type == "meta"


def test_a_card_computes_while_the_next_part_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    class Answer:
        def numpy(self, force: bool) -> np.ndarray:
            done.append("fetched")
            return np.zeros((8, 8), np.float32)

    monkeypatch.setattr(
        "mitolume.inference.predictor.launch_tiled",
        lambda *_, **__: done.append("begun") or Answer(),
    )
    ready, plane = predictor(), np.zeros((16, 16), np.float32)
    boxes = [(slice(0, 8), slice(0, 8)), (slice(0, 8), slice(8, 16)), (slice(8, 16), slice(0, 8))]
    assert len(list(ready.predict_each(ready.prepare(plane), plane.shape, boxes))) == 3
    assert done == ["begun", "begun", "fetched", "begun", "fetched", "fetched"]


def test_devices_are_chosen_by_name_and_full_ones_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cuda:99", "gpu", "mps:7"):
        with pytest.raises(MitolumeError, match=f"no device '{name}' here; .* cpu"):
            Predictor(network(), Card(network=NetworkSettings(width=4)), device=name)
    monkeypatch.setenv("MITOLUME_DEVICE", "meta")
    assert find_device().type == "meta"
    assert find_device("cpu").type == "cpu"
    made, full = network(), RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)")
    monkeypatch.setattr(torch.nn.functional, "conv2d", lambda *_: (_ for _ in ()).throw(full))
    with pytest.raises(TooLittleMemoryError, match="--device cpu"):
        predict_tiled(made, np.zeros((32, 32), np.float32))
