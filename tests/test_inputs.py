"""Channels and planes as input: each is read once, in the network's order, in every command."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import mitolume
from mitolume.batch.predict import predict_files
from mitolume.errors import MitolumeError
from mitolume.inference import inputs as inputs_module
from mitolume.inference.chain import PreparedPlane
from mitolume.inference.denoise import Denoiser, planes_around
from mitolume.inference.inputs import InputReader, settled_inputs
from mitolume.inference.predictor import Predictor
from mitolume.io.read import read, read_channels
from mitolume.io.write import write_image
from mitolume.models.bundle import Card, DenoiserCard, save_bundle
from mitolume.models.networks import DenoisingNetwork, SegmentationNetwork
from mitolume.models.settings import DenoiserNetworkSettings, InputSettings, NetworkSettings
from mitolume.preprocess.normalise import measure_range, normalise
from mitolume.preprocess.settings import ChainSettings

CHANNELS = ("Transmitted", "CellMask")


def stack(shape: tuple[int, ...] = (1, 2, 6, 48, 40), step: float | None = 0.5) -> xr.DataArray:
    """Return an image of two channels; every plane has its own grey range."""
    rng = np.random.default_rng(3)
    pixels = rng.normal(1000, 100, shape).astype(np.float32)
    pixels *= np.arange(1, shape[2] + 1, dtype=np.float32)[:, None, None]
    size = {"Y": 0.1, "X": 0.1} | ({"Z": step} if step else {})
    return xr.DataArray(
        pixels,
        dims=("T", "C", "Z", "Y", "X"),
        coords={"C": list(CHANNELS[: shape[1]])},
        attrs={"pixel_size_um": size, "source": "made here"},
    )


def predictor(channels: tuple[str, ...] = CHANNELS, planes: int = 3) -> Predictor:
    inputs = InputSettings(channels=channels, planes=planes, step_um=0.5)
    settings = NetworkSettings(width=4)
    network = SegmentationNetwork(settings, inputs.count, seed=1).train()
    with torch.no_grad():
        network(torch.randn(2, inputs.count, 64, 64, generator=torch.Generator().manual_seed(0)))
    return Predictor(network.eval(), Card(network=settings, inputs=inputs, pixel_size_um=0.1))


def test_planes_have_the_grey_range_of_the_plane_that_is_segmented() -> None:
    image = stack()
    reader = InputReader(image, InputSettings(channels=CHANNELS, planes=3), ChainSettings())
    found = np.asarray(reader.at(2))
    assert found.shape == (6, 48, 40)
    for c in range(2):
        grey = measure_range(image.values[0, c, 2])
        for place, z in enumerate((2, 1, 3)):
            expected = normalise(image.values[0, c, z], grey)
            np.testing.assert_array_equal(found[3 * c + place], expected)


def test_beyond_an_end_of_a_stack_its_last_plane_is_seen() -> None:
    reader = InputReader(stack(), InputSettings(planes=5, channels=CHANNELS), ChainSettings())
    first, last = np.asarray(reader.at(0)), np.asarray(reader.at(5))
    np.testing.assert_array_equal(first[[1, 3]], first[[0, 0]])
    np.testing.assert_array_equal(last[[2, 4]], last[[0, 0]])


def test_planes_that_were_never_recorded_are_beyond_the_end() -> None:
    image, inputs = stack(), InputSettings(planes=5, channels=CHANNELS)
    whole = np.asarray(InputReader(image.isel(Z=[0, 1, 2]), inputs, ChainSettings()).at(1))
    image.values[0, :, 3:] = 0
    np.testing.assert_array_equal(InputReader(image, inputs, ChainSettings()).at(1), whole)


@given(st.sampled_from([1, 3, 5, 7]), st.floats(0.1, 4), st.floats(0.1, 4))
def test_planes_are_as_far_apart_as_the_model_learnt(planes: int, step: float, z: float) -> None:
    offsets = InputSettings(planes=planes, step_um=step).offsets(z)
    assert len(offsets) == len(set(offsets)) == planes
    assert offsets[0] == 0
    assert set(offsets) == {-offset for offset in offsets}
    for n, offset in enumerate(offsets[2::2], 1):
        assert abs(offset * z - n * step) <= z / 2 + 1e-9 or offset == n


def test_each_plane_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: Counter[tuple[str, int]] = Counter()
    real = inputs_module.open_plane

    def counting(image: xr.DataArray, *, z: int, t: int) -> object:
        opened[str(image["C"].values[0]), z] += 1
        return real(image, z=z, t=t)

    monkeypatch.setattr(inputs_module, "open_plane", counting)
    reader = InputReader(stack(), InputSettings(channels=CHANNELS, planes=5), ChainSettings())
    for z in range(6):
        np.asarray(reader.at(z))
    assert opened == {(name, z): 1 for name in CHANNELS for z in range(6)}


@pytest.mark.parametrize("stripes", ["none", "auto"])
def test_every_plane_of_the_image_is_denoised_with_its_own_neighbours(stripes: str) -> None:
    settings = DenoiserNetworkSettings(width=4)
    card = DenoiserCard(method="noise2stack", network=settings, channels=4)
    denoiser = Denoiser(DenoisingNetwork(settings, 4).eval(), card)
    chain = ChainSettings(stripes=stripes, denoise="noise2stack", sharpen="all")
    image = stack()
    reader = InputReader(
        image, InputSettings(channels=CHANNELS, planes=3), chain, denoiser=denoiser
    )
    found = np.asarray(reader.at(2))
    own = [
        PreparedPlane(
            image.values[0, 0, z],
            chain,
            denoiser=denoiser,
            neighbours=[image.values[0, 0, near] for near in planes_around(z, 6)],
        )
        for z in (2, 1, 3)
    ]
    whole = slice(0, 48), slice(0, 40)
    for place, plane in enumerate(own):
        expected = plane.normalised(whole, own[0].grey)
        np.testing.assert_allclose(found[place], expected, atol=1e-5)
    reader = InputReader(
        image.isel(Z=[0, 1, 2, 3]),
        InputSettings(channels=CHANNELS, planes=1),
        chain,
        denoiser=denoiser,
    )
    last = np.asarray(reader.at(3))
    image.values[0, :, 4] = 0  # a plane that was never recorded is nobody's neighbour
    reader = InputReader(
        image, InputSettings(channels=CHANNELS, planes=1), chain, denoiser=denoiser
    )
    np.testing.assert_array_equal(reader.at(3), last)
    # The other channel is neither denoised nor sharpened.
    membrane = PreparedPlane(image.values[0, 1, 2], ChainSettings(stripes=stripes))
    np.testing.assert_allclose(found[3], membrane, atol=1e-5)


def test_box_by_box_is_as_at_once() -> None:
    ready = predictor()
    prepared = ready.reader(stack((1, 2, 3, 90, 70))).at(1)
    whole = ready.predict_boxes(prepared, (90, 70))
    part = next(ready.predict_each(prepared, (90, 70), [(slice(13, 51), slice(5, 44))]))
    np.testing.assert_allclose(part, whole[13:51, 5:44], atol=1e-5)


def test_channels_in_one_file_or_in_one_file_each(tmp_path: Path) -> None:
    ready, image = predictor(), stack()
    write_image(tmp_path / "all.ome.tif", image)
    for name in CHANNELS:
        one = image.sel(C=[name]).assign_coords(C=["Channel:0"])
        write_image(tmp_path / f"a_{name}.ome.tif", one)
    at_once = ready.predict(read_channels(tmp_path / "all.ome.tif", CHANNELS))
    apart = ready.predict(read_channels(tmp_path / "a_Transmitted.ome.tif", CHANNELS))
    np.testing.assert_array_equal(at_once.values, apart.values)
    alike = read_channels(tmp_path / "a_Transmitted.ome.tif", ("transmitted", "cellmask"))
    np.testing.assert_array_equal(
        ready.predict(alike, channel=["transmitted", "cellmask"]).values, at_once
    )
    write_image(tmp_path / "n0.ome.tif", image.sel(C=["Transmitted"]))
    write_image(tmp_path / "n1.ome.tif", image.sel(C=["CellMask"]))
    with pytest.raises(MitolumeError, match="has no channel '1'"):  # a number is no file's name
        read_channels(tmp_path / "n0.ome.tif", ("0", "1"))
    turned = read_channels(tmp_path / "all.ome.tif", CHANNELS[::-1])
    assert not np.allclose(ready.predict(turned, channel=CHANNELS[::-1]).values, at_once.values)
    (tmp_path / "a_CellMask.ome.tif").unlink()
    with pytest.raises(MitolumeError, match=r"a_CellMask.ome.tif with CellMask is not beside it"):
        read_channels(tmp_path / "a_Transmitted.ome.tif", CHANNELS)
    write_image(tmp_path / "a_CellMask.ome.tif", image.sel(C=["CellMask"])[..., :30])
    with pytest.raises(MitolumeError, match="1 x 6 x 48 x 30, but Transmitted"):
        read_channels(tmp_path / "a_Transmitted.ome.tif", CHANNELS)


def test_further_channels_in_a_folder_are_not_predicted_as_images(tmp_path: Path) -> None:
    for name in CHANNELS:
        one = stack().sel(C=[name]).assign_coords(C=["Channel:0"])
        write_image(tmp_path / f"a_{name}.ome.tif", one)
    write_image(tmp_path / "b_CellMask.ome.tif", one)
    outcome = predict_files(predictor(), [tmp_path], tmp_path / "out")
    assert [path.name for path in outcome.written] == ["a_Transmitted_mask.ome.tif"]
    assert "1 file taken as other channels" in " ".join(outcome.notices)
    assert "b_CellMask.ome.tif has no channel 'Transmitted'" in " ".join(outcome.faults)


def test_the_z_step_of_a_table_comes_before_that_of_the_file(tmp_path: Path) -> None:
    ready = predictor((), planes=3)
    image = stack((1, 1, 5, 48, 40), None).assign_coords(C=["0"])
    write_image(tmp_path / "a_BF.ome.tif", image)
    write_image(tmp_path / "a_TMRM.ome.tif", (image + 1).assign_attrs(image.attrs))
    said, twice = predict_files(ready, [tmp_path], tmp_path / "out").notices
    assert said.startswith("a_BF.ome.tif, a_TMRM.ome.tif: the model sees 3 planes 0.5 µm apart")
    assert twice.startswith("a_TMRM.ome.tif: another channel of fields whose transmitted light was")
    table = tmp_path / "fields.csv"
    table.write_text("image,z_step_um\na_BF.ome.tif,0.25\n")
    assert not predict_files(ready, [], tmp_path / "steps", table=table).notices
    mask = mitolume.read(tmp_path / "steps" / "a_BF_mask.ome.tif")
    assert mask.attrs["pixel_size_um"]["Z"] == 0.25


def test_a_model_of_several_channels_says_what_it_needs(tmp_path: Path) -> None:
    ready = predictor()
    with pytest.raises(MitolumeError, match=r"one plane, but the model sees 2 channels"):
        ready.predict_plane(np.zeros((32, 32)), (0.1, 0.1))
    with pytest.raises(MitolumeError, match="1 channel named, but the model sees 2"):
        ready.predict(stack(), channel="Transmitted")
    write_image(tmp_path / "one.ome.tif", stack().sel(C=["Transmitted"]))
    with pytest.raises(MitolumeError, match="'CellMask'"):
        ready.predict(read(tmp_path / "one.ome.tif"))


def test_the_bundle_keeps_what_the_network_sees(tmp_path: Path) -> None:
    ready = predictor()
    save_bundle(tmp_path / "m", ready.network.state_dict(), ready.card)
    loaded = mitolume.load(tmp_path / "m")
    assert loaded.card.inputs == InputSettings(channels=CHANNELS, planes=3, step_um=0.5)
    np.testing.assert_array_equal(loaded.predict(stack()).values, ready.predict(stack()).values)


@pytest.mark.parametrize(
    ("depth", "step", "planes", "apart"),
    [
        (9, 0.5, 7, 0.5),
        (5, 0.5, 5, 0.5),  # no plane beyond the ends of a stack is asked for
        (3, 0.5, 3, 0.5),
        (7, 0.25, 7, 0.25),
        (13, 0.25, 7, 0.5),  # deep and fine: every other plane
        (40, 0.1, 7, 0.5),
        (9, 1.0, 3, 1.0),
        (9, 2.0, 1, None),  # far apart
        (9, 0.005, 1, None),  # electron microscopy
        (9, None, 1, None),  # nobody knows
        (1, 0.5, 1, None),
    ],
)
def test_auto_asks_the_stacks(
    depth: int, step: float | None, planes: int, apart: float | None
) -> None:
    images = [stack((1, 1, depth, 8, 8), step=step)]
    found = settled_inputs(InputSettings(), images)
    assert (found.planes, found.step_um) == (planes, apart and pytest.approx(apart))
    assert settled_inputs(InputSettings(planes=7), images).planes == 7


def test_auto_takes_planes_as_far_apart_as_asked_and_asks_the_median_stack() -> None:
    deep = [stack(step=step) for step in (0.4, 0.5, 0.9)]
    assert settled_inputs(InputSettings(), deep) == InputSettings(planes=7, step_um=0.5)
    assert settled_inputs(InputSettings(step_um=1), deep) == InputSettings(planes=3, step_um=1)


@pytest.mark.parametrize("planes", [2, 0, -1])
def test_an_even_number_of_planes_is_refused(planes: int) -> None:
    with pytest.raises(ValueError, match=r"must be odd|greater than or equal to 1"):
        InputSettings(planes=planes)
