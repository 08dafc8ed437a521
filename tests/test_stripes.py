"""Scan lines: measured as drawn, removed to gain, and not seen where there are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mitolume.io.read import read, read_plane
from mitolume.preprocess.stripes import Stripes, measure_stripes, remove_stripes

WHOLE = (slice(0, None), slice(0, None))


def cells(seed: int = 0, shape: tuple[int, int] = (256, 300), noise: float = 5) -> np.ndarray:
    """Return smooth structure with pixel noise."""
    rng = np.random.default_rng(seed)
    structure = 300 * ndimage.gaussian_filter(rng.normal(size=shape), 3)
    return np.asarray(500 + structure + rng.normal(0, noise, shape))


def lines(strength: float, height: int, seed: int = 9) -> np.ndarray:
    return strength * np.random.default_rng(seed).normal(size=(height, 1))


def filaments(noise: float, n: int = 512) -> np.ndarray:
    """Return filaments that run from edge to edge along X."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:n, :n]
    plane = np.full((n, n), 100.0)
    for _ in range(12):
        place, sway = rng.uniform(0, n), rng.uniform(0, 2)
        axis = place + sway * np.sin(x / 80 + rng.uniform(0, 6))
        plane += 60 * np.exp(-((y - axis) ** 2) / 8)
    return plane + rng.normal(0, noise, plane.shape)


def gain_db(truth: np.ndarray, before: np.ndarray, after: np.ndarray) -> float:
    return float(10 * np.log10(np.mean((before - truth) ** 2) / np.mean((after - truth) ** 2)))


def without_row_medians(plane: np.ndarray, truth: np.ndarray) -> float:
    """Return the gain of subtracting row medians, smoothed off by whatever width suits best."""
    median = np.median(plane, axis=1)
    smooth = [np.full(len(median), median.mean())]
    smooth += [ndimage.gaussian_filter1d(median, s) for s in (1, 2, 4, 8, 16, 32)]
    clean = truth - truth.mean()
    return max(
        gain_db(clean, plane - truth.mean(), plane - (median - s)[:, None] - truth.mean())
        for s in smooth
    )


def is_unchanged(plane: np.ndarray) -> bool:
    after = remove_stripes(plane)
    return after.dtype == np.float32 and np.array_equal(after, plane.astype(np.float32))


@pytest.mark.parametrize("strength", [0.3, 0.5, 1, 2, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_drawn_lines_are_measured_and_removed(strength: float, dtype: type) -> None:
    rng = np.random.default_rng(7)
    truth = 120 + 60 * ndimage.gaussian_filter(rng.normal(size=(256, 300)), 3)
    truth += rng.normal(0, 5, truth.shape)
    plane = truth + lines(5 * strength, 256)
    plane = np.clip(plane, 0, 255).round().astype(dtype)
    found = measure_stripes(plane)
    assert found.found
    assert found.significance > 5
    assert found.strength == pytest.approx(strength, rel=0.2, abs=0.05)
    assert found.line_noise == pytest.approx(5 * strength, rel=0.2, abs=0.25)
    assert gain_db(truth, plane, found.remove(plane, WHOLE)) > (4 if strength < 1 else 8)


def test_weak_lines_in_structure_are_removed_better_than_by_row_medians() -> None:
    for truth in (cells(), filaments(5)):
        plane = truth + lines(0.3 * 5, len(truth))
        ours = gain_db(truth, plane, remove_stripes(plane))
        assert ours > without_row_medians(plane, truth) + 0.5
        assert ours > 2


@given(st.integers(0, 10_000), st.integers(1, 120), st.integers(1, 120))
@settings(max_examples=60)
def test_noise_and_structure_of_any_size_come_out_unchanged(seed: int, h: int, w: int) -> None:
    rng = np.random.default_rng(seed)
    assert is_unchanged(rng.poisson(20, (h, w)).astype(np.uint16))
    blurred = ndimage.gaussian_filter(rng.normal(size=(h, w)), rng.uniform(0.7, 4))
    assert is_unchanged((100 + 100 * blurred + rng.normal(0, 3, (h, w))).clip(0, 255).astype("u1"))


def test_significance_is_in_standard_errors() -> None:
    rng = np.random.default_rng(5)
    found = [measure_stripes(rng.normal(size=(96, 160))).significance for _ in range(150)]
    assert abs(np.mean(found)) < 0.25
    assert 0.8 < np.std(found) < 1.2


@pytest.mark.parametrize("noise", [0.5, 5])
def test_filaments_along_the_lines_are_not_flattened(noise: float) -> None:
    truth = filaments(noise)
    assert is_unchanged(truth)
    plane = truth + lines(1.0 * noise, len(truth))
    after = remove_stripes(plane)
    assert gain_db(truth, plane, after) > 0
    bright = truth > 150
    assert after[bright].mean() == pytest.approx(truth[bright].mean(), rel=0.01)


def test_vertical_lines_gradients_and_edges_are_left_alone() -> None:
    plane = cells()
    assert is_unchanged(plane + 20 * np.random.default_rng(0).normal(size=(1, 300)))
    assert is_unchanged(plane + np.arange(256)[:, None])
    assert is_unchanged(plane + 400 * (np.arange(256)[:, None] > 100))


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (1, 500), (500, 1), (32, 32), (70, 90)])
def test_planes_without_content(shape: tuple[int, int]) -> None:
    for plane in (np.zeros(shape, np.uint8), np.full(shape, 65_535, np.uint16), np.zeros(shape)):
        found = measure_stripes(plane)
        assert (found.line_noise, found.pixel_noise, found.strength) == (0, 0, 0)
        assert is_unchanged(plane)


def test_streaks_in_some_lines_are_lines() -> None:
    truth = cells()
    some = np.random.default_rng(3).random((256, 1)) < 0.15
    plane = truth + some * lines(15, 256)
    assert measure_stripes(plane).found
    assert gain_db(truth, plane, remove_stripes(plane)) > 4


def test_lines_and_nothing_else() -> None:
    plane = np.broadcast_to(100 + lines(8, 128), (128, 140))
    found = measure_stripes(plane)
    assert found.strength == 1000
    assert remove_stripes(plane).std() < 0.2 * plane.std()


def test_lines_that_end_within_the_image_are_followed() -> None:
    truth = cells(shape=(300, 2400))
    left, right = lines(5, 300, seed=1), lines(5, 300, seed=2)
    x = np.arange(2400) < 1200
    plane = truth + np.where(x, left, right)
    found = measure_stripes(plane)
    after = found.remove(plane, WHOLE)
    assert gain_db(truth[:, :800], plane[:, :800], after[:, :800]) > 6
    assert gain_db(truth[:, 1600:], plane[:, 1600:], after[:, 1600:]) > 6
    assert gain_db(truth, plane, after) > 5


@given(st.data())
@settings(max_examples=40)
def test_any_window_is_a_part_of_the_whole(data: st.DataObject) -> None:
    plane, found, whole = striped()
    y, x = (
        slice(*sorted((data.draw(st.integers(0, n)), data.draw(st.integers(0, n)))),
              data.draw(st.integers(1, 4)))
        for n in plane.shape
    )  # fmt: skip
    np.testing.assert_array_equal(found.remove(plane[y, x], (y, x)), whole[y, x])


_STRIPED: list[tuple[np.ndarray, Stripes, np.ndarray]] = []


def striped() -> tuple[np.ndarray, Stripes, np.ndarray]:
    """Return a wide plane with lines, made once."""
    if not _STRIPED:
        plane = (cells(shape=(100, 1500)) + lines(8, 100)).astype(np.uint16)
        found = measure_stripes(plane)
        assert len(found.knots) > 2
        _STRIPED.append((plane, found, found.remove(plane, WHOLE)))
    return _STRIPED[0]


def test_reading_in_bands_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    plane, found, _ = striped()
    monkeypatch.setattr("mitolume.preprocess.stripes._BAND", 17 * plane.shape[1])
    again = measure_stripes(plane)
    assert again.strength == pytest.approx(found.strength, rel=0.02)
    np.testing.assert_allclose(again.offsets, found.offsets, atol=0.05)


def real_planes(folder: Path) -> list[np.ndarray]:
    planes = [read_plane(read(f)) for f in sorted(folder.glob("h9c2-brightfield/*field.png"))[::8]]
    planes += [read_plane(read(f)) for f in sorted(folder.glob("h9c2-br*/*escence.png"))[::20]]
    for name in ("epfl-hippocampus/train", "transmitted-zstack/stack",
                 "mito-fluorescence-zstack/stack", "vnc-sstem/unlabelled"):  # fmt: skip
        image = read(folder / f"{name}.ome.tif")
        planes += [read_plane(image, z=z) for z in range(0, image.sizes["Z"], 16)]
    return planes


def test_real_images_come_out_unchanged_and_with_drawn_lines_better(real_data: Path) -> None:
    planes = real_planes(real_data)
    assert len(planes) > 20
    for number, plane in enumerate(planes):
        assert is_unchanged(plane)
        noise = measure_stripes(plane).pixel_noise
        if min(plane.shape) >= 128 and number % 4 == 0:
            spoilt = plane + lines(0.5 * noise, len(plane))
            assert gain_db(plane, spoilt, remove_stripes(spoilt)) > 4
