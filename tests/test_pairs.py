"""Pairs of planes: numbers by counting, geometry by planes whose shift is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import fft, ndimage

from mitolume.preprocess.pairs import (
    both_directions,
    measure_shift,
    neighbour_pairs,
    overlap,
    quarters,
    register,
)


def structure(seed: int, shape: tuple[int, int] = (160, 192)) -> np.ndarray:
    """Return a smooth periodic plane of standard deviation 100."""
    plane = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3, mode="wrap")
    return 100 * plane / plane.std()


def moved(plane: np.ndarray, shift: tuple[float, float]) -> np.ndarray:
    """Move what a periodic plane shows by ``shift``, exactly."""
    return fft.ifft2(ndimage.fourier_shift(fft.fft2(plane), shift)).real


@pytest.mark.parametrize(
    ("planes", "pairs"),
    [
        ([], []),
        ([4], []),
        ([0, 1], [(0, 1)]),
        ([0, 1, 2], [(0, 1)]),
        ([1, 2, 3, 4], [(1, 2), (3, 4)]),
        ([0, 2, 4], []),
        ([0, 2, 3, 4, 5, 9], [(2, 3), (4, 5)]),
    ],
)
def test_gaps_are_not_bridged(planes: list[int], pairs: list[tuple[int, int]]) -> None:
    assert neighbour_pairs(planes) == pairs


@given(st.sets(st.integers(0, 60)))
def test_pairs_are_neighbours_and_no_plane_is_used_twice(planes: set[int]) -> None:
    pairs = neighbour_pairs(sorted(planes))
    used = [plane for pair in pairs for plane in pair]
    assert all(b == a + 1 for a, b in pairs)
    assert len(used) == len(set(used))
    assert set(used) <= planes
    assert not any(a in planes - set(used) and a + 1 in planes - set(used) for a in planes)


def test_the_published_way_is_odd_against_even() -> None:
    pairs = neighbour_pairs(range(34))
    assert [a + 1 for a, _ in pairs] == list(range(1, 34, 2))
    assert both_directions(pairs)[:4] == [(0, 1), (1, 0), (2, 3), (3, 2)]


@given(st.tuples(st.integers(-9, 9), st.integers(-9, 9)))
def test_overlapping_boxes_show_the_same(shift: tuple[int, int]) -> None:
    world = np.arange(40 * 50).reshape(40, 50)
    first = world[10:30, 10:40]
    second = world[10 - shift[0] : 30 - shift[0], 10 - shift[1] : 40 - shift[1]]
    mine, theirs = overlap(first.shape, shift)
    assert np.array_equal(first[mine], second[theirs])


def test_quarters_lie_apart_inside() -> None:
    seen = np.zeros((101, 700), int)
    for box in quarters(seen.shape, 256):
        assert seen[box].shape == (50, 256)
        seen[box] += 1
    assert seen.max() == 1


@settings(max_examples=15, deadline=None)
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
    assert measure_shift(flat, flat) == measure_shift(flat[:9, :9], flat[:9, :9]) == (0, 0)


@pytest.mark.parametrize("shift", [(3.0, -2.0), (0.4, 0.7), (-5.3, 1.5)])
def test_registered_planes_show_the_same(shift: tuple[float, float]) -> None:
    first = structure(1)
    one, other = register(first, moved(first, shift), shift)
    assert one.shape == other.shape
    assert np.std((one - other)[12:-12, 12:-12]) < 2  # of 100


@pytest.mark.parametrize("shift", [(0.5, 0.5), (2.3, -1.4)])
def test_registration_keeps_the_noise_of_both_planes(shift: tuple[float, float]) -> None:
    noise = np.random.default_rng(3).normal(0, 10, (2, 200, 200))
    one, other = register(*noise, shift)
    spectra = [np.abs(fft.fft2(part)) ** 2 / part.size for part in (one, other)]
    frequency = np.hypot(*np.meshgrid(*(fft.fftfreq(size) for size in one.shape), indexing="ij"))
    for spectrum in spectra:  # as much in fine detail as in all: white, as it was
        assert spectrum[frequency > 0.4].mean() == pytest.approx(100, rel=0.06)
    assert np.array_equal(one, noise[0][overlap(noise[0].shape, tuple(map(round, shift)))[0]])


def test_planes_that_lie_still_come_out_as_they_went_in() -> None:
    plane = structure(5).astype(np.int16)
    one, other = register(plane, plane)
    assert one.dtype == other.dtype == np.int16
    assert np.array_equal(one, plane)
    assert np.array_equal(other, plane)
