"""Simulated fields: the same bytes, what treatments change, truth that fits, the camera."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import mitolume
from mitolume import MitolumeError
from mitolume.simulate.field import CHANNELS, SimulatedField, depth_of_field, simulate_field
from mitolume.simulate.settings import CameraSettings, OpticsSettings, SimulationSettings

SHAPE = (96, 128)
DYES = CHANNELS[1:]


@cache
def field(
    condition: str = "control", seed: int = 1, planes: int = 3, camera: CameraSettings | None = None
) -> SimulatedField:
    settings = SimulationSettings(shape=SHAPE, planes=planes, camera=camera or CameraSettings())
    return simulate_field(settings, condition=condition, seed=seed)


# The same and not the same


def test_same_arguments_give_the_same_bytes() -> None:
    first, second = field(), field.__wrapped__()
    for name in CHANNELS:
        np.testing.assert_array_equal(first.images[name], second.images[name])
        np.testing.assert_array_equal(first.clean[name], second.clean[name])
    for truth in ("masks", "hand_masks", "labels"):
        np.testing.assert_array_equal(getattr(first, truth), getattr(second, truth))
    assert first.skeletons.equals(second.skeletons)


# Truth


def test_masks_are_the_labels_within_the_depth_of_field() -> None:
    result = field()
    heights = result.label_um[0] * (np.arange(len(result.labels)) + 0.5)
    for mask, focus in zip(result.masks, result.focus_um, strict=True):
        near = abs(heights - focus) <= depth_of_field(OpticsSettings()) / 2
        np.testing.assert_array_equal(mask, (result.labels[near] > 0).any(axis=0))
    assert np.diff(result.focus_um) == pytest.approx(result.z_step_um)
    points = result.skeletons[["z", "y", "x"]].to_numpy() / result.label_um
    z, y, x = np.floor(points + np.array([0, 0.5, 0.5])).astype(int).T
    hit = result.labels[z, y, x] == result.skeletons["object"].to_numpy()
    assert hit.mean() > 0.98


def test_the_middle_plane_can_lie_lower() -> None:
    low = simulate_field(SimulationSettings(shape=SHAPE, planes=1, middle_um=-0.25), seed=1)
    reference = field()
    assert low.focus_um[0] == pytest.approx(reference.focus_um[0])
    np.testing.assert_array_equal(low.masks[0], reference.masks[0])
    for name in CHANNELS:
        np.testing.assert_allclose(low.clean[name][0], reference.clean[name][0], rtol=1e-4)


def test_the_dye_shines_in_the_mask_and_treatments_dim_it() -> None:
    glow = {}
    for condition in ("control", "fccp"):
        result = field(condition)
        image, mask = result.clean["Mitochondria"] - 100, result.masks == 1
        assert image[mask].mean() > 3 * image[~mask].mean()
        glow[condition] = image[mask].mean()
    assert glow["fccp"] < 0.8 * glow["control"]


# Camera


def noise_of(result: SimulatedField, channel: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image less clean image, light, and the variance that the camera should add; in counts."""
    camera = CameraSettings()
    gain = camera.fluorescence_gain if channel in DYES else camera.gain
    clean = result.clean[channel].astype(float)
    light = clean - camera.offset
    variance = gain * light + (gain * camera.read_noise) ** 2 + 1 / 12
    return result.images[channel] - clean, light, variance


def test_the_camera_adds_noise_of_the_given_size_and_no_bias() -> None:
    result, camera = field(), CameraSettings()
    for name in CHANNELS:
        error, light, variance = noise_of(result, name)
        if name == "Transmitted":
            variance = variance + (camera.scan_lines * light) ** 2
        assert abs(error.mean()) < 4 * np.sqrt(variance.mean() / error.size) + 1
        assert error.var() == pytest.approx(variance.mean(), rel=0.05)


def test_scan_lines_are_in_transmitted_light_alone() -> None:
    for name in CHANNELS:
        error, light, variance = noise_of(field(), name)
        lines = (error.mean(axis=2) / light.mean(axis=2)).std()
        noise = np.sqrt(variance.mean(axis=2) / SHAPE[1] / light.mean(axis=2) ** 2).mean()
        if name == "Transmitted":
            assert np.sqrt(lines**2 - noise**2) == pytest.approx(0.004, rel=0.2)
        else:
            assert lines == pytest.approx(noise, rel=0.2)


def test_drift_moves_light_and_masks_together() -> None:
    still, moved = field(), field(camera=CameraSettings(drift_um=0.4))
    np.testing.assert_array_equal(still.clean["Transmitted"][1], moved.clean["Transmitted"][1])
    np.testing.assert_array_equal(still.labels, moved.labels)

    def shift(before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Where the cross-correlation of two planes is highest."""
        pair = [np.fft.fft2(plane - plane.mean()) for plane in (before, after)]
        peak = np.fft.ifft2(pair[1] * pair[0].conj()).real
        place = np.unravel_index(peak.argmax(), peak.shape)
        return (np.array(place) + np.array(SHAPE) // 2) % SHAPE - np.array(SHAPE) // 2

    for z in (0, 2):
        found = shift(still.clean["Mitochondria"][z], moved.clean["Mitochondria"][z])
        assert np.abs(found).max() > 0
        np.testing.assert_allclose(shift(still.masks[z], moved.masks[z]), found, atol=1)


# Sizes and faults


def test_shapes_and_pixel_sizes() -> None:
    bright = CameraSettings(bits=16, photons=500_000)
    settings = SimulationSettings(
        shape=(16, 40), planes=2, pixel_um=0.2, z_step_um=(4, 9), camera=bright
    )
    result = mitolume.simulate_field(settings, condition="rotenone", seed=3)
    for stack in (*result.images.values(), *result.clean.values(), result.masks):
        assert stack.shape == (2, 16, 40)
    light = result.images["Transmitted"]
    assert np.median(light) == light.max() == 65535
    assert result.labels.shape[1:] == (16, 40)
    assert result.label_um == (0.2, 0.2, 0.2)
    assert 4 <= result.z_step_um <= 9
    assert np.diff(result.focus_um) == pytest.approx(result.z_step_um)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(MitolumeError, match="no condition 'cccp'; there are control, fccp"):
        simulate_field(condition="cccp")
    with pytest.raises(MitolumeError, match="seed is -1"):
        simulate_field(seed=-1)
