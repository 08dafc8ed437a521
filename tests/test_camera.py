"""Counts of the camera: statistics of noise and lines, saturation, drift."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitolume.simulate.camera import drift_path, drifted
from mitolume.simulate.camera import expose as take
from mitolume.simulate.settings import CameraSettings

EVEN = CameraSettings(shading=0.0, scan_lines=0.0, bits=16)


def even(shape: tuple[int, int, int] = (4, 200, 300)) -> np.ndarray:
    return np.ones(shape, np.float32)


def expose(*args, **options) -> np.ndarray:
    return take(*args, **options)[0]


def clean_counts(intensity: np.ndarray, camera: CameraSettings, photons: float) -> np.ndarray:
    return take(intensity, camera, rng(), photons=photons)[1]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(("gain", "photons", "read_noise"), [(0.5, 4000, 3), (2, 30, 0), (1, 5, 8)])
def test_noise_is_that_of_photons_and_reading(
    gain: float, photons: float, read_noise: float
) -> None:
    camera = EVEN.model_copy(update={"gain": gain, "read_noise": read_noise})
    counts = expose(even(), camera, rng(), photons=photons).astype(float)
    expected = gain**2 * (photons + read_noise**2)
    assert counts.mean() == pytest.approx(camera.offset + gain * photons, rel=2e-3)
    assert counts.var() == pytest.approx(expected + 1 / 12, rel=0.02)


def test_clean_counts_are_the_mean_of_many_exposures() -> None:
    camera = CameraSettings(scan_lines=0.02)
    intensity = np.asarray(rng(1).uniform(0.5, 1.5, (1, 12, 20)), np.float32)
    clean = clean_counts(intensity, camera, photons=900)
    many = expose(np.repeat(intensity, 2000, axis=0), camera, rng(), photons=900)
    assert clean.dtype == np.float32
    assert np.abs(many.mean(axis=0) - clean[0]).max() < 5 * 18 / np.sqrt(2000)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_counts_end_at_saturation_and_at_zero(bits: int) -> None:
    camera = CameraSettings(bits=bits, offset=0.0, gain=1.0, read_noise=5.0)
    bright_and_dark = np.stack([np.full((8, 8), 100.0), np.full((8, 8), -1.0)]).astype(np.float32)
    bright, dark = expose(bright_and_dark, camera, rng(), photons=4000)
    assert bright.dtype == np.uint16
    assert (bright == 2**bits - 1).all()
    assert dark.min() == 0
    assert dark.max() < 30


def test_shading_falls_to_the_corners() -> None:
    camera = CameraSettings(shading=0.2, offset=0.0, gain=1.0)
    (light,) = clean_counts(even((1, 101, 151)), camera, photons=1000)
    assert light[50, 75] == pytest.approx(1000)
    for corner in (light[0, 0], light[-1, 0], light[0, -1], light[-1, -1]):
        assert corner == pytest.approx(800)
    assert 800 < light[50, 0] < 1000
    np.testing.assert_array_equal(light, light[::-1, ::-1])


def test_scan_lines_are_bright_and_dark_lines_new_in_every_plane() -> None:
    camera = EVEN.model_copy(update={"scan_lines": 0.02})
    counts = expose(even((6, 400, 256)), camera, rng(), photons=4000) - camera.offset
    lines = counts.mean(axis=2) / counts.mean() - 1
    assert lines.std() == pytest.approx(0.02, rel=0.1)
    neighbours = [np.corrcoef(line[1:], line[:-1])[0, 1] for line in lines]
    assert 0.15 < np.mean(neighbours) < 0.45
    assert abs(np.mean([np.corrcoef(line[4:], line[:-4])[0, 1] for line in lines])) < 0.1
    between = np.corrcoef(lines)[np.triu_indices(6, 1)]
    assert np.abs(between).max() < 0.25
    halves = counts[..., :128].mean(axis=2).ravel(), counts[..., 128:].mean(axis=2).ravel()
    assert 0.9 < np.corrcoef(*halves)[0, 1] < 0.999
    assert counts.mean(axis=1).std() < 0.004 * counts.mean()  # nothing along y


def test_fluorescence_has_no_scan_lines() -> None:
    camera = EVEN.model_copy(update={"scan_lines": 0.1})
    without = expose(even(), camera, rng(), photons=300, scan_lines=False)
    np.testing.assert_array_equal(
        without, expose(even(), EVEN, rng(), photons=300, scan_lines=False)
    )
    assert without.mean(axis=2).std() < 2 * without.std() / np.sqrt(300)


@settings(max_examples=20)
@given(shape=st.tuples(*[st.integers(1, 5)] * 3), scan_lines=st.booleans())
def test_any_size(shape: tuple[int, int, int], scan_lines: bool) -> None:
    counts = expose(even(shape), CameraSettings(), rng(), photons=100, scan_lines=scan_lines)
    assert counts.shape == clean_counts(even(shape), CameraSettings(), photons=100).shape == shape


def test_drift_is_a_walk_around_the_middle_plane() -> None:
    camera = CameraSettings(drift_um=0.05)
    paths = np.stack([drift_path(13, 0.1, camera, rng(seed)) for seed in range(300)])
    assert (paths[:, 6] == 0).all()
    assert np.diff(paths, axis=1).std() == pytest.approx(0.5, rel=0.05)
    assert paths[:, 0].std() == pytest.approx(0.5 * np.sqrt(6), rel=0.1)
    assert not drift_path(1, 0.1, camera, rng()).any()


def test_planes_and_masks_move_alike() -> None:
    y, x = np.mgrid[:40, :50]
    light = np.exp(-((y - 15.0) ** 2 + (x - 20.0) ** 2) / 30)[None].repeat(3, axis=0)
    masks = (light > 0.5).astype(np.uint8)
    path = np.array([[0.0, 0.0], [2.0, -3.0], [0.4, 5.3]])
    moved, outlines = drifted(light, path), drifted(masks, path)
    np.testing.assert_allclose(moved[1], np.roll(light[1], (2, -3), axis=(0, 1)), atol=1e-10)
    np.testing.assert_array_equal(outlines[1], np.roll(masks[1], (2, -3), axis=(0, 1)))
    expected = np.exp(-((y - 15.4) ** 2 + (x - 25.3) ** 2) / 30)
    np.testing.assert_allclose(moved[2], expected, atol=2e-3)
    assert outlines.dtype == np.uint8
    assert set(np.unique(outlines)) == {0, 1}
    assert drifted(light, np.zeros((3, 2))) is light


def test_the_same_seed_gives_the_same_counts() -> None:
    first, again, other = (
        expose(even((2, 9, 7)), CameraSettings(), rng(seed), photons=500) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
