"""Light through the specimen: against sums over single rays and waves, and against known limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial.legendre import leggauss
from scipy.special import j1

from mitolume.simulate.optics import (
    DARKEST,
    NEAR_UM,
    Aperture,
    contrast_transfer,
    emission_transfer,
    filter_slices,
    fluorescence_stack,
    transmitted_stack,
)
from mitolume.simulate.settings import OpticsSettings

PIXEL = (0.1, 0.1)
OPTICS = OpticsSettings()
PARAXIAL = OpticsSettings(objective_na=0.2, condenser_na=0.002, immersion_index=1.0)
OBJECTIVE = Aperture(1.2, 0.6, 1.333, power=-0.5)
PARAXIAL_OBJECTIVE = Aperture(0.1, 0.6, 1.0, power=-0.5)


def bead(radius: float = 0.3, shape: tuple[int, int] = (64, 64)) -> np.ndarray:
    """Return one slice (1, Y, X) with a soft disc in its middle."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    distance = np.hypot(y - shape[0] // 2, x - shape[1] // 2) * PIXEL[0]
    return np.float32(1 / (1 + np.exp((distance - radius) / 0.03)))[None]


def tube(shape: tuple[int, int, int] = (16, 64, 64)) -> np.ndarray:
    """Return a tube of 0.4 um along x, at the height 1.5 um."""
    z = 0.2 * np.arange(shape[0])
    y = PIXEL[0] * (np.arange(shape[1]) - shape[1] // 2)
    distance = np.hypot(y, z[:, None] - 1.5)
    inside = 1 / (1 + np.exp((distance - 0.2) / 0.03))
    return np.repeat(inside[..., None], shape[2], axis=2).astype(np.float32)


def image(slices: np.ndarray, focus: list[float], optics: OpticsSettings = OPTICS) -> np.ndarray:
    heights = 0.2 * np.arange(len(slices))
    return transmitted_stack(slices, (0.2, *PIXEL), heights, focus, optics)


def glow(slices: np.ndarray, focus: list[float], haze: float, dz: float = 0.2) -> np.ndarray:
    heights = dz * np.arange(len(slices))
    return fluorescence_stack(slices, (dz, *PIXEL), heights, focus, OpticsSettings(haze=haze), 0.6)


def at(radii: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    return np.stack([np.interp(wanted, radii, row) for row in values])


def source_by_source(index: np.ndarray, focus: float, optics: OpticsSettings) -> np.ndarray:
    """Abbe's sum: the whole intensity of the Born field of every plane wave of the condenser."""
    wave = optics.immersion_index / optics.transmitted_um
    reach = optics.condenser_na / optics.transmitted_um
    nodes, weights = leggauss(60)
    rings, turn = reach * (nodes + 1) / 2, (np.arange(180)[:, None, None] + 0.5) * np.pi / 90
    fy, fx = np.meshgrid(*(np.fft.fftfreq(n, 0.1) for n in index.shape[1:]), indexing="ij")
    phases = np.fft.fft2(2 * np.pi / optics.transmitted_um * 0.2 * index)
    total, light = np.zeros(index.shape[1:]), 0.0
    for ring, weight in zip(rings, weights * rings, strict=True):
        squares = (fy + ring * np.sin(turn)) ** 2 + (fx + ring * np.cos(turn)) ** 2
        passed = squares < (optics.objective_na / optics.transmitted_um) ** 2
        axial = np.sqrt(np.where(passed, wave**2 - squares, 1.0))
        field = np.zeros(squares.shape, complex)
        for height, phase in zip(0.2 * np.arange(len(index)), phases, strict=True):
            travel = (height - focus) * (axial - np.sqrt(wave**2 - ring**2))
            field += passed * wave / axial * 1j * phase * np.exp(2j * np.pi * travel)
        total += weight * (np.abs(1 + np.fft.ifft2(field)) ** 2).mean(axis=0)
        light += weight
    return total / light


@pytest.mark.parametrize("focus", [0.0, 0.9, -1.3])
def test_the_image_is_that_of_all_plane_waves_of_the_condenser(focus: float) -> None:
    weak = 1e-4 * np.random.default_rng(0).normal(size=(3, 14, 17)).astype(np.float32)
    expected = source_by_source(weak, focus, OPTICS) - 1
    found = image(weak, [focus])[0].astype(float) - 1
    assert np.abs(found - expected).max() < 0.01 * np.abs(expected).max()


@pytest.mark.parametrize(("defocus", "tolerance"), [(0.0, 1e-3), (2.0, 1e-3), (-60.0, 1.5e-3)])
def test_the_transfer_is_the_integral_over_the_condenser(defocus: float, tolerance: float) -> None:
    radii, (found,) = contrast_transfer(np.array([defocus]), PIXEL, OPTICS)
    wave, band = OPTICS.immersion_index / OPTICS.transmitted_um, 1.2 / 0.64
    nodes, weights = leggauss(300)
    q = 0.55 / 0.64 * (nodes[:, None] + 1) / 2
    cosines = np.cos((np.arange(600) + 0.5) * np.pi / 600)
    for i in np.linspace(0, len(radii) - 1, 9).astype(int):
        squares = q**2 + radii[i] ** 2 + 2 * q * radii[i] * cosines
        axial = np.sqrt(wave**2 - np.minimum(squares, band**2))
        waves = np.exp(2j * np.pi * defocus * (axial - np.sqrt(wave**2 - q**2))) * wave / axial
        mean = np.average((waves * (squares < band**2)).mean(1), weights=weights * q[:, 0])
        assert abs(found[i] - mean) < tolerance


def test_a_thin_weak_phase_object_vanishes_in_focus_and_inverts_through_it() -> None:
    below, focus, above = image(0.02 * bead(), [-0.6, 0.0, 0.6])
    assert np.abs(focus - 1).max() < 1e-5
    assert below[32, 32] > 1.03
    np.testing.assert_allclose(below - 1, 1 - above, atol=1e-5)


def test_an_absorbing_object_is_darkest_in_focus_and_does_not_invert() -> None:
    defocus = np.linspace(-0.4, 0.4, 9)
    radii, transfer = contrast_transfer(defocus, PIXEL, OPTICS)
    low = transfer.real[:, radii < 0.6]
    assert low.min() > 0.3
    assert (low <= low[4] + 1e-3).all()
    assert (low[4] - low[0])[-1] > 0.05
    np.testing.assert_allclose(transfer.real, transfer.real[::-1], atol=1e-4)
    np.testing.assert_allclose(transfer.imag, -transfer.imag[::-1], atol=1e-4)


def test_a_point_source_gives_the_contrast_transfer_of_coherent_light() -> None:
    defocus = np.array([-20.0, -5.0, 5.0, 20.0])
    radii, transfer = contrast_transfer(defocus, PIXEL, PARAXIAL)
    below = np.linspace(0, 0.28, 20)  # 1/um; the aperture ends at 0.3125
    expected = np.sin(np.pi * 0.64 * defocus[:, None] * below**2)
    np.testing.assert_allclose(at(radii, -transfer.imag, below), expected, atol=0.03)
    assert np.abs(at(radii, transfer, np.array([0.34]))).max() < 0.01


@pytest.mark.parametrize("condenser_na", [0.1, 0.2])
def test_a_matched_or_wider_condenser_gives_the_incoherent_transfer(condenser_na: float) -> None:
    optics = OpticsSettings(objective_na=0.1, condenser_na=condenser_na, immersion_index=1.0)
    radii, transfer = contrast_transfer(np.array([0.0]), PIXEL, optics)
    share = radii / (0.2 / 0.64)
    expected = 2 / np.pi * (np.arccos(share) - share * np.sqrt(1 - share**2))
    np.testing.assert_allclose(transfer.real[0], expected, atol=0.006)
    assert np.abs(transfer.imag).max() < 1e-5


def test_opening_the_condenser_takes_contrast_and_depth() -> None:
    spreads = [
        image(0.02 * bead(), [0.6, 6.0], OpticsSettings(condenser_na=na)).std((1, 2))
        for na in (0.1, 0.55, 1.1)
    ]
    assert (np.diff(spreads, axis=0) < 0).all()


def test_phase_neither_makes_nor_takes_light_and_even_layers_do_not_show() -> None:
    inside = tube()
    stack = image(0.02 * inside, [-50.0, 0.5, 1.5, 60.0])
    np.testing.assert_allclose(stack.mean((1, 2)), 1, atol=1e-5)
    np.testing.assert_allclose(image(np.full((20, 16, 16), 0.03), [-40.0, 2.0]), 1, atol=1e-5)


def test_what_is_strong_never_gets_darker_than_the_floor() -> None:
    dark = image(2.0 * bead(0.5), [0.6])
    assert dark.min() == np.float32(DARKEST)


@settings(max_examples=8)
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    planes=st.integers(1, 3),
    roll=st.integers(0, 8),
    seed=st.integers(0, 99),
)
def test_any_size_and_the_field_closes_on_itself(
    shape: tuple[int, int, int], planes: int, roll: int, seed: int
) -> None:
    slices = np.random.default_rng(seed).uniform(0, 0.01, shape).astype(np.float32)
    focus = [0.7 * i for i in range(planes)]
    moved = np.roll(slices, (roll, roll), axis=(1, 2))
    for stack, again in (
        (image(slices, focus), image(moved, focus)),
        (glow(slices, focus, 0.5), glow(moved, focus, 0.5)),
    ):
        assert stack.shape == (planes, *shape[1:])
        assert stack.dtype == np.float32
        np.testing.assert_allclose(np.roll(stack, (roll, roll), axis=(1, 2)), again, atol=1e-5)


def test_rectangular_pixels_give_the_same_image() -> None:
    y, x = 0.1 * (np.mgrid[:64, :64] - 32)
    smooth = 0.03 * np.exp(-(y**2 + x**2) / 0.18)[None].astype(np.float32)
    narrow = smooth[:, :, ::2]
    optics = OpticsSettings(objective_na=0.8, condenser_na=0.3)
    whole = image(smooth, [0.8], optics)
    coarse = transmitted_stack(narrow, (0.2, 0.1, 0.2), [0.0], [0.8], optics)
    np.testing.assert_allclose(coarse, whole[:, :, ::2], atol=2e-4)
    assert np.ptp(coarse) > 0.02


def test_a_transfer_is_interpolated_between_radii() -> None:
    slices = np.random.default_rng(0).normal(size=(2, 9, 12)).astype(np.float32)
    radii = np.linspace(0, 8, 5)
    steep = np.array([[1.0, 3.0]])[..., None] * radii.astype(np.float32)
    (found,) = filter_slices(slices, PIXEL, radii, steep.astype(np.float32))
    frequency = np.hypot(np.fft.fftfreq(9, 0.1)[:, None], np.fft.fftfreq(12, 0.1))
    expected = np.fft.ifft2(frequency * np.fft.fft2(slices[0] + 3 * slices[1])).real
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("focus", [-60.0, -7.0, -3.0, 0.0])
def test_widefield_shows_all_light_in_every_plane(focus: float) -> None:
    stack = glow(bead(), [focus], haze=1.0)
    assert stack.mean() == pytest.approx(0.2 * bead().mean(), rel=2e-4)


def test_a_thin_layer_in_focus_is_equally_bright_at_any_haze() -> None:
    layer = np.ones((1, 16, 16), np.float32)
    for haze in (0.0, 0.3, 1.0):
        np.testing.assert_allclose(glow(layer, [0.0], haze), 0.2, rtol=1e-4)


def test_widefield_in_focus_has_the_incoherent_transfer() -> None:
    radii, (found,) = emission_transfer(np.zeros(1), PIXEL, PARAXIAL_OBJECTIVE, 1.0)
    share = np.minimum(radii / (0.2 / 0.6), 1)
    expected = 2 / np.pi * (np.arccos(share) - share * np.sqrt(1 - share**2))
    np.testing.assert_allclose(found, expected, atol=0.006)


def test_the_amplitude_in_focus_is_airys_and_on_the_axis_a_sinc() -> None:
    lens = Aperture(0.05, 0.6, 1.0)
    distance = np.linspace(0, 20, 50)
    v = 2 * np.pi * lens.cutoff * distance + 1e-9
    (focus,) = lens.spread(distance, np.zeros(1))
    np.testing.assert_allclose(focus / focus[0], 2 * j1(v) / v, atol=1e-4)
    depth = np.linspace(-400, 400, 41)
    axis = np.abs(lens.spread(np.zeros(1), depth)[:, 0]) / np.abs(focus[0])
    expected = np.abs(np.sinc(depth * lens.cutoff**2 * 0.6 / 2))
    np.testing.assert_allclose(axis, expected, atol=0.005)


def test_the_pinhole_keeps_out_what_haze_lets_in() -> None:
    inside = tube()
    ideal, wide = (glow(inside, [1.5, 3.5], haze)[:, 32, 32] for haze in (0.0, 1.0))
    assert ideal[1] < 0.02 * ideal[0]
    assert 0.1 * wide[0] < wide[1] < 0.5 * wide[0]
    mixed = glow(inside, [1.5, 3.5], 0.3)
    parts = 0.7 * glow(inside, [1.5, 3.5], 0.0) + 0.3 * glow(inside, [1.5, 3.5], 1.0)
    np.testing.assert_allclose(mixed, parts, atol=1e-4)


def test_a_confocal_point_is_sharper_than_a_widefield_one() -> None:
    point = np.zeros((1, 64, 64), np.float32)
    point[0, 32, 32] = 1
    wide, confocal = (glow(point, [0.0], haze)[0, 32] for haze in (1.0, 0.0))
    positions = 0.1 * (np.arange(64) - 32)

    def half_width(profile: np.ndarray) -> float:
        return float(np.interp(-0.5, -profile[32:] / profile[32], positions[32:]))

    assert half_width(wide) == pytest.approx(0.51 * 0.6 / 1.2 / 2, rel=0.12)
    assert half_width(confocal) < 0.8 * half_width(wide)


def test_rays_go_on_where_waves_end() -> None:
    radii, (waves, rays) = emission_transfer(
        np.array([NEAR_UM, NEAR_UM + 1e-6]), PIXEL, OBJECTIVE, 1.0
    )
    assert waves[radii > 0].max() > 0.9
    assert np.abs(waves - rays).max() < 0.03
    assert np.abs(waves - rays)[radii > 0.5].max() < 0.01
