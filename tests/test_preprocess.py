"""The chain's steps against their definitions and limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from mitolume.errors import MitolumeError
from mitolume.inference.chain import PreparedPlane, unsharp_mask
from mitolume.preprocess.normalise import measure_range, normalise
from mitolume.preprocess.rescale import rescale, rescale_mask, scale_factors
from mitolume.preprocess.settings import ChainSettings

planes = hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))


@given(planes)
def test_normalised_planes_are_finite_whatever_they_hold(plane: np.ndarray) -> None:
    result = normalise(plane)
    assert result.dtype == np.float32
    assert np.isfinite(result).all()


@given(planes, st.floats(0.5, 200), st.floats(-500, 500))
def test_normalising_undoes_gain_and_offset(plane: np.ndarray, gain: float, offset: float) -> None:
    scaled = plane.astype(np.float64) * gain + offset
    np.testing.assert_allclose(normalise(scaled), normalise(plane), atol=2e-2)


def test_a_part_normalised_by_the_whole_is_the_part_of_the_whole() -> None:
    plane = np.random.default_rng(0).normal(size=(30, 40))
    part = normalise(plane[5:20, 7:30], measure_range(plane))
    np.testing.assert_array_equal(part, normalise(plane)[5:20, 7:30])


def test_a_flat_plane_becomes_nothing() -> None:
    assert not normalise(np.full((4, 4), 65535, np.uint16)).any()


def test_bright_dirt_does_not_set_the_scale() -> None:
    plane = np.random.default_rng(0).normal(100, 5, (200, 200))
    dirty = plane.copy()
    dirty[:4, :4] = 60_000
    assert abs(normalise(dirty)[50:].std() - normalise(plane)[50:].std()) < 0.05


@pytest.mark.parametrize("turned", [0, 4])
def test_a_black_border_does_not_set_the_scale(turned: float) -> None:
    plane = np.random.default_rng(0).normal(1500, 200, (200, 200)).astype(np.uint16)
    bordered = ndimage.rotate(np.pad(plane, 20), turned, order=0, reshape=turned > 0)
    found = normalise(bordered)
    assert measure_range(bordered).border > 0
    assert abs(found[bordered > 0].std() - normalise(plane).std()) < 0.02
    assert not found[bordered == 0].any()


@pytest.mark.parametrize("share", [0.1, 0.4, 0.7])
def test_dark_places_of_fluorescence_are_no_border(share: float) -> None:
    light = np.random.default_rng(0).gamma(2, 20, (100, 100))
    for clipped in (np.clip(light - np.quantile(light, share), 0, None), light > np.median(light)):
        assert measure_range(clipped.astype(np.uint8)).border == -np.inf


def test_pixels_without_a_photon_are_no_border() -> None:
    photons = np.random.default_rng(0).poisson(1, (100, 100))
    for one in (1, 32):  # as counted, and spread over the greys of 8 bit
        assert measure_range((photons * one).astype(np.uint8)).border == -np.inf


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.float32, bool])
def test_unsharp_mask_is_imagejs_formula_without_wrap_around(dtype: type) -> None:
    whole = np.issubdtype(dtype, np.integer)
    low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max) if whole else (0, 1)
    image = np.random.default_rng(0).choice([low, (low + high) // 2, high], (20, 20)).astype(dtype)
    exact = image.astype(np.float64)
    blurred = ndimage.gaussian_filter(exact, 0.5, mode="nearest")
    result = unsharp_mask(image)
    assert result.dtype == np.float32
    expected = (exact - 0.7 * blurred) / 0.3
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4 * (high - low))
    assert result.max() > high
    assert result.min() < low


@pytest.mark.parametrize(
    ("pixel", "model", "expected"),
    [
        ((0.1, 0.1), None, (1, 1)),
        (None, None, (1, 1)),
        ((0.108, 0.1), 0.1, (1, 1)),
        ((0.2, 0.2), 0.1, (2, 2)),
        ((0.1, 0.2), 0.1, (1, 2)),
        ((0.025, 0.025), 0.1, (0.25, 0.25)),
    ],
)
def test_rescaling_follows_the_rule(pixel: tuple, model: float, expected: tuple) -> None:
    assert scale_factors(pixel, model) == pytest.approx(expected)


def test_unknown_or_distant_pixel_sizes_are_refused_with_the_fix() -> None:
    with pytest.raises(MitolumeError, match=r"a.tif states no pixel size.*--pixel-size"):
        scale_factors(None, 0.1, "a.tif")
    with pytest.raises(MitolumeError, match="more than 4 times apart"):
        scale_factors((0.5, 0.5), 0.1)


@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20)),
               elements=st.sampled_from([0, 1, 255])),
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
)  # fmt: skip
def test_rescaled_masks_hold_only_values_they_had(mask: np.ndarray, shape: tuple) -> None:
    result = rescale_mask(mask, shape)
    assert result.shape == shape
    assert set(np.unique(result)) <= set(np.unique(mask))
    np.testing.assert_array_equal(rescale_mask(mask, mask.shape), mask)


def test_rescaling_there_and_back_keeps_smooth_images() -> None:
    y, x = np.mgrid[:40, :60] / 10
    image = np.sin(y) * np.cos(x)
    back = rescale(rescale(image, (80, 120)), (40, 60))
    assert np.abs(back - image)[4:-4, 4:-4].max() < 0.05


def test_only_the_images_meant_are_sharpened() -> None:
    plane = np.random.default_rng(0).integers(0, 200, (32, 32)).astype(np.uint8)
    plain = np.asarray(PreparedPlane(plane, ChainSettings()))
    for setting, labelled, unlabelled in (
        ("none", False, False), ("unlabelled", False, True), ("all", True, True),
    ):  # fmt: skip
        chain = ChainSettings(sharpen=setting)
        assert (not np.array_equal(PreparedPlane(plane, chain), plain)) == labelled
        sharpened = PreparedPlane(plane, chain, unlabelled=True)
        assert (not np.array_equal(sharpened, plain)) == unlabelled
