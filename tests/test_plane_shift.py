"""Shifts between planes, on planes whose shift is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import fft, ndimage

from mitolume.preprocess.plane_spectra import measure_spectra, overlap, quarters


def measure_shift(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    (shift,) = measure_spectra([first, second]).shifts
    return tuple(shift)


def structure(seed: int, shape: tuple[int, int] = (160, 192)) -> np.ndarray:
    """Return a smooth periodic plane of standard deviation 100."""
    plane = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3, mode="wrap")
    return 100 * plane / plane.std()


def moved(plane: np.ndarray, shift: tuple[float, float]) -> np.ndarray:
    """Move what a periodic plane shows by ``shift``, exactly."""
    return fft.ifft2(ndimage.fourier_shift(fft.fft2(plane), shift)).real


@given(st.tuples(st.integers(-9, 9), st.integers(-9, 9)))
def test_overlapping_boxes_show_the_same(shift: tuple[int, int]) -> None:
    world = np.arange(40 * 50).reshape(40, 50)
    first = world[10:30, 10:40]
    second = world[10 - shift[0] : 30 - shift[0], 10 - shift[1] : 40 - shift[1]]
    mine, theirs = overlap(first.shape, shift)
    assert np.array_equal(first[mine], second[theirs])


def test_quarters_lie_apart_inside() -> None:
    seen = np.zeros((101, 700), int)
    for box in quarters(seen.shape):
        assert seen[box].shape == (50, 256)
        seen[box] += 1
    assert seen.max() == 1


@settings(max_examples=15)
@given(st.floats(-6, 6), st.floats(-6, 6), st.integers(0, 99))
def test_shifts_are_found_in_noise(dy: float, dx: float, seed: int) -> None:
    first = structure(seed)
    noise = np.random.default_rng(seed + 100).normal(0, 50, (2, *first.shape))
    found = measure_shift(first + noise[0], moved(first, (dy, dx)) + noise[1])
    wanted = (dy, dx) if np.hypot(dy, dx) > 0.4 else found
    assert found == pytest.approx(wanted, abs=0.2)


def test_unrelated_planes_and_noise_have_no_shift() -> None:
    rng = np.random.default_rng(0)
    for seed in range(5):
        noise = rng.normal(0, 10, (2, 160, 192))
        assert measure_shift(*noise) == (0, 0)
        assert np.hypot(*measure_shift(structure(seed), structure(seed + 50))) < 40
    flat = np.full((160, 192), 7, np.uint8)
    assert measure_shift(flat, flat) == measure_shift(flat[:60, :60], flat[:60, :60]) == (0, 0)
