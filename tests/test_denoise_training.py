"""Denoisers: what they learn from, that they help, and that windows equal the whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.predictors import predictor
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

import mitolume
from mitolume.errors import MitolumeError
from mitolume.inference import denoise
from mitolume.inference.chain import PreparedPlane, sharpened
from mitolume.inference.denoise import (
    FLIPS,
    DenoisedPlane,
    Denoiser,
    NormalisedPlane,
    planes_around,
    run_network,
)
from mitolume.models.bundle import DenoiserCard, load_bundle, save_bundle
from mitolume.models.networks import DenoisingNetwork
from mitolume.models.settings import DenoiserNetworkSettings
from mitolume.preprocess.normalise import normalise
from mitolume.preprocess.settings import DENOISING, ChainSettings
from mitolume.preprocess.stripes import without_stripes
from mitolume.preprocess.wiener import (
    SIDE,
    WienerBank,
    measure_detail,
    signal_and_noise,
)
from mitolume.training.denoise_methods import (
    DENOISING_METHODS,
    Denoising,
    NeighbourMean,
    SamplePatches,
    TrainingPlane,
    hold_out,
)
from mitolume.training.loop import fit
from mitolume.training.settings import DenoisingSettings

SMALL = DenoiserNetworkSettings(width=4)
METHODS = DENOISING_METHODS | {"neighbours": NeighbourMean()}
CAREFUL = [name for name, method in METHODS.items() if method.holds_out]  # the published one isn't


def stack(
    depth: int = 10, side: int = 48, noise: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return (Z, Y, X) of smooth structures that drift slowly with z, and the same with noise."""
    rng = np.random.default_rng(seed)
    volume = gaussian_filter(rng.normal(size=(depth, side, side)), (4, 3, 3), mode="wrap")
    clean = 50 * volume / volume.std() + 300
    return clean.astype(np.float32), (clean + 50 * noise * rng.normal(size=clean.shape)).astype(
        np.float32
    )


def quick(**over: object) -> DenoisingSettings:
    values = {"steps": 30, "checks": 3, "patch": 32, "network": SMALL, "precision": "float32"}
    return DenoisingSettings(**values | over)


def learnt_planes(noisy: np.ndarray) -> list[TrainingPlane]:
    planes = [normalise(plane) for plane in noisy]
    return [TrainingPlane(p, WienerBank(signal_and_noise([p])).filter(p)) for p in planes]


def trained(
    noisy: np.ndarray,
    method: str,
    folder: Path,
    on_epoch: Callable = lambda history: None,
    **over: object,
) -> Denoiser:
    how = METHODS[method]
    network = DenoisingNetwork(SMALL, how.channels, seed=0)
    samples, held_out = hold_out([learnt_planes(noisy)], how)
    if how.learns:
        folder.mkdir(parents=True, exist_ok=True)
        task = Denoising(samples, held_out, quick(**over), seed=3)
        result = fit(
            network,
            task,
            settings=quick(**over),
            folder=folder,
            on_epoch=on_epoch or (lambda history: None),
        )
        network.load_state_dict(result.weights)
        network.eval()
    if how.channels > 1:
        answers = [run_network(network, given, FLIPS) for given, *_ in held_out]
        detail = measure_detail([plane for *_, plane in held_out], answers)
        spectra = np.stack([detail.signal, detail.noise, detail.left])
        network.detail.copy_(torch.from_numpy(spectra))
    return Denoiser(network, DenoiserCard(method=method, network=SMALL, channels=how.channels))


def cleaned(denoiser: Denoiser, plane: np.ndarray, near: Sequence[np.ndarray] = ()) -> np.ndarray:
    return DenoisedPlane(plane, denoiser, near)[slice(0, plane.shape[0]), slice(0, plane.shape[1])]


def denoised(denoiser: Denoiser, noisy: np.ndarray) -> np.ndarray:
    around = [[noisy[i] for i in planes_around(z, len(noisy))] for z in range(len(noisy))]
    return np.stack([cleaned(denoiser, p, near) for p, near in zip(noisy, around, strict=True)])


def error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean((a.astype(float) - b) ** 2))


def untrained(channels: int = 4) -> Denoiser:
    network = DenoisingNetwork(SMALL, channels, seed=1)
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(SIDE)] * 2))
    signal = 30 * np.exp(-((frequency / 0.1) ** 2))
    spectra = np.stack([signal, np.ones_like(signal), np.full_like(signal, 0.5)])
    network.detail.copy_(torch.from_numpy(spectra))
    return Denoiser(network, DenoiserCard(method="x", network=SMALL, channels=channels))


def test_the_recipe_names_every_method() -> None:
    assert set(DENOISING) == {"auto", *DENOISING_METHODS}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_brings_planes_closer_to_the_truth(method: str, tmp_path: Path) -> None:
    clean, noisy = stack()
    found = denoised(trained(noisy, method, tmp_path, learning_rate=0.01), noisy)
    assert error(found, clean) < 0.8 * error(noisy, clean)


@pytest.mark.parametrize("method", CAREFUL)
def test_clean_planes_stay_as_they_are(method: str, tmp_path: Path) -> None:
    clean, _ = stack()
    lost = error(denoised(trained(clean, method, tmp_path), clean), clean)
    assert lost < 0.01 * clean.var()


def test_unrelated_planes_are_not_made_worse(tmp_path: Path) -> None:
    planes = [stack(1, noise=0.5, seed=i) for i in range(10)]
    clean, noisy = (np.concatenate(parts) for parts in zip(*planes, strict=True))
    assert error(denoised(trained(noisy, "noise2stack", tmp_path), noisy), clean) < error(
        noisy, clean
    )


def test_a_training_that_was_stopped_ends_with_the_same_weights(tmp_path: Path) -> None:
    _, noisy = stack(4)

    def stop(history: list) -> None:
        raise KeyError("killed")

    whole = trained(noisy, "noise2noise", tmp_path / "a", steps=6)
    with pytest.raises(KeyError):
        trained(noisy, "noise2noise", tmp_path / "b", stop, steps=6)
    again = trained(noisy, "noise2noise", tmp_path / "b", steps=6)
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name])


@given(st.integers(0, 40), st.integers(2, 40))
def test_no_plane_is_predicted_from_itself(z: int, depth: int) -> None:
    z = z % depth
    around = planes_around(z, depth)
    assert len(around) == 4
    assert z not in around
    assert all(0 <= i < depth and abs(i - z) <= 2 for i in around)


@pytest.mark.parametrize("method", CAREFUL)
@pytest.mark.parametrize("depth", [2, 5, 9, 30])
def test_what_is_held_out_is_not_learnt(method: str, depth: int) -> None:
    run = [TrainingPlane(*[np.full((40, 40), z, np.float32)] * 2) for z in range(depth)]
    samples, held_out = hold_out([run], METHODS[method])
    assert samples
    assert held_out
    if depth >= 9 and METHODS[method].learns:
        judged = {float(plane[0, 0]) for *_, plane in held_out}
        wanted = {float(target[0, 0]) for _, target, _ in samples}
        assert not judged & wanted
    else:
        rows = {plane.shape[0] for *_, plane in samples}
        assert depth >= 9 or rows == {30}


def test_published_pairs_are_odd_to_even() -> None:
    run = [TrainingPlane(*[np.full((4, 4), z, np.float32)] * 2) for z in range(11)]
    samples, held_out = hold_out([run], DENOISING_METHODS["noise2noise"])
    assert [(g[0][0, 0], t[0, 0]) for g, t, _ in samples] == [(z, z + 1) for z in range(0, 10, 2)]
    assert not held_out


def test_a_batch_depends_on_seed_and_step_only() -> None:
    run = learnt_planes(stack(5)[1])
    samples = DENOISING_METHODS["noise2stack"].samples(run)
    first = SamplePatches(samples, patch=48, batch=3, seed=1)
    first[9]
    for a, b in zip(
        first[4][1:], SamplePatches(samples, patch=48, batch=3, seed=1)[4][1:], strict=True
    ):
        assert torch.equal(a, b)
    assert first[4][1].shape == (3, 4, 48, 48)
    assert not torch.equal(first[4][1], first[5][1])


@settings(max_examples=8)
@given(st.integers(40, 90), st.integers(40, 90), st.data())
def test_windows_of_a_denoised_plane_equal_the_whole(
    height: int, width: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(height)
    planes = [rng.normal(100, 20, (height, width)).astype(np.float32) for _ in range(5)]
    plane = DenoisedPlane(planes[0], untrained(), planes[1:])
    y, x = (
        sorted(data.draw(st.tuples(st.integers(0, s - 1), st.integers(1, s))))
        for s in (height, width)
    )
    box = tuple(slice(a, min(b + 1, s)) for (a, b), s in zip((y, x), (height, width), strict=True))
    whole = plane[slice(0, height), slice(0, width)]
    np.testing.assert_allclose(plane[box], whole[box], atol=1e-3)


@pytest.mark.parametrize("channels", [0, 1, 2, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(3, 3), (1, 17), (40, 33)])
def test_any_size_and_type_gives_numbers(
    channels: int, dtype: type, shape: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    planes = rng.integers(0, 255, (5, *shape)).astype(dtype)
    result = cleaned(untrained(channels), planes[0], list(planes[1:]))
    assert result.shape == shape
    assert result.dtype == np.float32
    assert np.isfinite(result).all()
    for flat in (0, 255):
        constant = np.full(shape, flat, dtype)
        np.testing.assert_array_equal(
            cleaned(untrained(channels), constant, [constant] * 4), constant
        )


def test_a_bright_spot_far_beyond_the_range_keeps_its_height(tmp_path: Path) -> None:
    _, noisy = stack()
    denoiser = trained(noisy, "noise2stack", tmp_path, steps=6)
    noisy[4, 30, 30] = 60_000
    assert denoised(denoiser, noisy)[4, 30, 30] > 58_000


@pytest.mark.parametrize("stripes", ["none", "auto"])
@pytest.mark.parametrize("sharpen", ["none", "all"])
def test_the_chain_runs_its_steps_in_order_and_in_windows(stripes: str, sharpen: str) -> None:
    rng = np.random.default_rng(1)
    planes = [rng.normal(100, 20, (70, 60)) + rng.normal(0, 30, (70, 1)) for _ in range(5)]
    planes = [plane.astype(np.float32) for plane in planes]
    denoiser = untrained()
    chain = ChainSettings(stripes=stripes, denoise="noise2stack", sharpen=sharpen)
    options = {"denoiser": denoiser, "neighbours": planes[1:]}
    at_once = np.asarray(PreparedPlane(planes[0], chain, **options))
    steps = planes
    if stripes == "auto":
        steps = [without_stripes(p)[slice(0, 70), slice(0, 60)] for p in planes]
    expected = DenoisedPlane(steps[0], denoiser, steps[1:])[slice(0, 70), slice(0, 60)]
    if sharpen == "all":
        expected = sharpened(expected)[slice(0, 70), slice(0, 60)]
    np.testing.assert_allclose(at_once, normalise(expected), atol=1e-4)

    class Lazy:
        shape = (70, 60)

        def __init__(self, pixels: np.ndarray) -> None:
            self.pixels = pixels

        def __getitem__(self, box: tuple[slice, slice]) -> np.ndarray:
            return self.pixels[box]

    options["neighbours"] = [Lazy(p) for p in planes[1:]]
    windows = PreparedPlane(Lazy(planes[0]), chain, **options)
    box = slice(13, 51), slice(5, 44)
    np.testing.assert_allclose(windows[box], at_once[box], atol=1e-3)


def test_signal_and_noise_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.7, (256, 256)).astype(np.float32)
    found = signal_and_noise([noise])
    assert found.floor == pytest.approx(0.49, rel=0.15)
    assert found.kept.mean() < 0.02
    rows = noise + rng.normal(0, 0.7, (256, 1)).astype(np.float32)
    striped = signal_and_noise([rows])
    assert striped.floor == pytest.approx(0.49, rel=0.15)
    assert striped.noise[SIDE // 3, 0] > 10 * striped.floor


def test_the_expected_error_is_that_of_the_filter() -> None:
    rng = np.random.default_rng(0)
    clean = gaussian_filter(rng.normal(size=(256, 256)), 3, mode="wrap")
    clean = (clean / clean.std()).astype(np.float32)
    noisy = clean + rng.normal(0, 0.7, clean.shape).astype(np.float32)
    found = signal_and_noise([noisy])
    filtered = WienerBank(found).filter(noisy)
    assert 0.5 < found.error / error(filtered, clean) < 2
    assert error(filtered, clean) < 0.2 * 0.49


def test_places_with_more_signal_are_filtered_less() -> None:
    rng = np.random.default_rng(0)
    clean = gaussian_filter(rng.normal(size=(128, 256)), 1.5)
    clean *= np.where(np.arange(256) < 128, 0.1, 3) / clean.std()
    noisy = (clean + rng.normal(0, 0.5, clean.shape)).astype(np.float32)
    filtered = WienerBank(signal_and_noise([noisy])).filter(noisy)
    left, right = (
        error(filtered[:, part], clean[:, part]) for part in (slice(90), slice(170, 256))
    )
    assert left < 0.1 * 0.25
    assert right < 0.6 * 0.25


@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_faint_structures_are_kept_where_there_is_little_noise(noise: float) -> None:
    rng = np.random.default_rng(0)
    clean = gaussian_filter(rng.normal(size=(128, 256)), 2)
    clean *= np.where(np.arange(256) < 128, 0.1, 3) / clean.std()
    noisy = (clean + rng.normal(0, noise, clean.shape)).astype(np.float32)
    filtered = WienerBank(signal_and_noise([noisy])).filter(noisy)
    faint = slice(90)
    assert error(filtered[:, faint], clean[:, faint]) < error(noisy[:, faint], clean[:, faint])


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_planes_with_hardly_any_noise_stay_as_they_are(channels: int) -> None:
    plane, *near = stack(5, side=96, noise=0.005)[1]
    np.testing.assert_array_equal(cleaned(untrained(channels), plane, near), plane)
    plane, *near = stack(5, side=96, noise=0.05)[1]
    assert not np.array_equal(cleaned(untrained(channels), plane, near), plane)


@pytest.mark.parametrize("level", [0.02, 0.3, 1])
def test_a_denoiser_adapts_to_the_noise_of_other_stacks(level: float, tmp_path: Path) -> None:
    _, learnt = stack(side=96, noise=0.5)
    denoiser = trained(learnt, "neighbours", tmp_path)
    clean, noisy = stack(side=96, noise=level, seed=1)
    assert error(denoised(denoiser, noisy), clean) < 0.6 * error(noisy, clean)


def test_squares_of_a_filtered_plane_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    pixels = gaussian_filter(rng.normal(size=(700, 1100)), 2) + rng.normal(0, 0.1, (700, 1100))
    plane = NormalisedPlane(pixels)
    whole = slice(0, 700), slice(0, 1100)
    at_once = WienerBank(plane.found).filter(plane[whole])
    np.testing.assert_allclose(plane.filtered(whole), at_once, atol=1e-4)
    monkeypatch.setattr(denoise, "_MOST_KEPT", 1)
    box = slice(500, 650), slice(1, 1030)
    np.testing.assert_allclose(plane.filtered(box), at_once[box], atol=1e-4)


def test_bundles_of_denoisers_and_models_are_told_apart(tmp_path: Path) -> None:
    denoiser = untrained()
    save_bundle(tmp_path / "d", denoiser.network.state_dict(), denoiser.card)
    again = Denoiser.load(tmp_path / "d")
    assert again.card == denoiser.card
    plane = np.random.default_rng(0).normal(size=(40, 40))
    np.testing.assert_array_equal(cleaned(again, plane), cleaned(denoiser, plane))
    model = predictor(width=4)
    model.card.chain = ChainSettings(denoise="wiener")
    save_bundle(tmp_path / "m", model.network.state_dict(), model.card)
    save_bundle(tmp_path / "m" / "denoiser", denoiser.network.state_dict(), denoiser.card)
    inside = mitolume.load(tmp_path / "m", device="cpu", core=64).denoiser
    assert inside is not None
    assert inside.core == 64, "the options reach the denoiser"
    with pytest.raises(MitolumeError, match="is a denoiser and makes no masks"):
        load_bundle(tmp_path / "d")
    (tmp_path / "d" / "card.json").write_text('{"network": {}}')
    with pytest.raises(MitolumeError, match="not a denoiser"):
        Denoiser.load(tmp_path / "d")
