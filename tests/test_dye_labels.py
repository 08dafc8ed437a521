"""Masks from the dye: what they hold, what they don't depend on, and when they say 'unsure'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from skimage.io import imread

from mitolume.analysis.dye_contrast import contrast_of, pixel_noise, planes_near
from mitolume.analysis.dye_labels import THRESHOLD, choose_threshold, label_dye
from mitolume.analysis.metrics import Counts, count, iou
from mitolume.errors import MitolumeError
from mitolume.simulate.field import SimulatedField, simulate_field
from mitolume.simulate.settings import CONDITIONS, SimulationSettings

PX = 0.1
SMALL = SimulationSettings(shape=(144, 144), planes=3, z_step_um=0.5)


@pytest.fixture(scope="module", params=CONDITIONS)
def field(request: pytest.FixtureRequest) -> SimulatedField:
    return simulate_field(SMALL, condition=request.param, seed=31)


@pytest.fixture(scope="module")
def control() -> SimulatedField:
    return simulate_field(SMALL, seed=31)


def dye(field: SimulatedField) -> NDArray[Any]:
    return field.images["Mitochondria"]


def tubes(peak: float, background: float = 100.0, blur: float = 1.5) -> NDArray[np.float64]:
    """Draw three crossing tubes, 4 pixels wide, and blur them."""
    drawn = np.zeros((128, 128))
    drawn[30:34, 10:118] = drawn[80:84, 10:100] = drawn[20:110, 60:64] = 1
    return background + peak * ndimage.gaussian_filter(drawn, blur)


def noisy(light: NDArray[np.float64], seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).poisson(light).astype(np.float64)


def test_exact_masks_are_met_in_every_condition(field: SimulatedField) -> None:
    labels = label_dye(dye(field), PX, z_step_um=0.5)
    truth = field.masks[1]
    assert labels.mask.dtype == np.uint8
    assert set(np.unique(labels.mask)) <= {0, 1, 255}
    assert labels.score.shape == labels.mask.shape
    assert iou(count((labels.mask == 1).astype(np.uint8), truth)) > 0.6
    assert iou(count(labels.mask, truth)) > 0.65
    assert labels.quality.has_dye
    assert labels.quality.unsure < 0.05


def test_one_plane_is_a_stack_of_one(control: SimulatedField) -> None:
    stack = dye(control)
    assert np.array_equal(label_dye(stack[2], PX).mask, label_dye(stack, PX, z=2).mask)


@pytest.mark.parametrize(("gain", "offset"), [(0.05, 0.0), (7.0, -300.0), (1.0, 5000.0)])
def test_gain_and_offset_change_nothing(
    control: SimulatedField, gain: float, offset: float
) -> None:
    plain = label_dye(dye(control)[1], PX)
    changed = label_dye(dye(control)[1] * gain + offset, PX)
    assert np.mean(plain.mask != changed.mask) < 1e-3
    assert changed.quality.signal_to_noise == pytest.approx(plain.quality.signal_to_noise, rel=0.01)


def test_turned_and_mirrored_planes_give_turned_and_mirrored_masks(
    control: SimulatedField,
) -> None:
    plane = dye(control)[1]
    turned = label_dye(np.rot90(plane)[:, ::-1].copy(), PX).mask
    assert np.mean(turned != np.rot90(label_dye(plane, PX).mask)[:, ::-1]) < 1e-3


def test_a_stain_that_varies_and_a_slope_of_light_change_little() -> None:
    light = tubes(2000.0)
    uneven = light * np.linspace(0.4, 1.6, 128) + np.linspace(0, 500, 128)[:, None]
    even, varied = label_dye(noisy(light), PX).mask, label_dye(noisy(uneven), PX).mask
    assert iou(count(varied, even)) > 0.9


def test_a_dim_cell_is_outlined_by_its_own_light_not_by_that_of_the_field() -> None:
    light = tubes(4000.0)
    light[:, 64:] = 100  # so that a dim copy has a bright one far away only
    light = np.hstack([light, 100 + 0.12 * (light[:, :64] - 100)])
    score = label_dye(noisy(light), PX).score
    assert np.median(score[31:33, 140:180]) > 0.6


@pytest.mark.parametrize("blur", [0.8, 1.5, 2.0])
def test_a_tube_keeps_its_width_whatever_the_blur_and_the_brightness(blur: float) -> None:
    truth = (tubes(1.0, 0.0, 0.01) > 0.5).astype(np.uint8)
    for peak in (500.0, 5000.0):
        mask = label_dye(noisy(tubes(peak, blur=blur)), PX).mask
        assert 0.75 < mask[truth == 1].mean() <= 1
        assert 0.7 < (mask == 1).sum() / truth.sum() < 1.6


@pytest.mark.parametrize("level", [5.0, 100.0, 3000.0])
@pytest.mark.parametrize("pixel_um", [0.065, 0.2])
def test_without_dye_the_whole_mask_is_unsure(level: float, pixel_um: float) -> None:
    haze = level * (1 + np.linspace(0, 0.5, 96))[:, None] * np.ones(96)
    labels = label_dye(noisy(haze), pixel_um)
    assert (labels.mask == 255).all()
    assert not labels.quality.has_dye
    assert str(labels.quality).startswith("no dye here: signal")


@pytest.mark.parametrize("value", [0, 255])
def test_a_plane_of_one_value_has_no_dye(value: int) -> None:
    labels = label_dye(np.full((32, 32), value, np.uint8), PX)
    assert (labels.mask == 255).all()
    assert labels.quality.saturated == 0
    assert labels.quality.foreground == 0


def test_saturated_structures_are_unsure() -> None:
    plane = noisy(tubes(2000.0))
    plane[79:85, 20:60] = 9000
    plane = plane.clip(max=4095)
    labels = label_dye(plane, PX)
    assert (labels.mask[79:85, 20:60] == 255).all()
    assert (labels.mask[31:33, 12:50] == 1).all()  # the other tube is far from it
    assert labels.quality.saturated == pytest.approx(240 / 128**2)
    assert "saturated" in str(labels.quality)
    assert label_dye(noisy(tubes(2000.0)), PX).quality.saturated == 0


def test_a_dimmed_dye_says_so_and_invents_nothing(control: SimulatedField) -> None:
    rng = np.random.default_rng(0)
    electrons = (control.clean["Mitochondria"][1] - 100) / 4
    quality, smoothing = [], []
    for share in (1.0, 0.05):
        plane = 100 + 4 * (rng.poisson(share * electrons) + rng.normal(0, 3, electrons.shape))
        labels = label_dye(plane, PX)
        quality.append(labels.quality)
        smoothing.append(contrast_of(plane[None], 0, PX).smoothing_um)
        found = labels.mask == 1
        assert control.masks[1][found].mean() > 0.8
    assert quality[1].signal_to_noise < 0.3 * quality[0].signal_to_noise
    assert smoothing[1] > smoothing[0]
    assert quality[1].unsure > quality[0].unsure


def test_neighbouring_planes_help_only_where_they_are_near_and_noise_asks() -> None:
    def signal(planes: np.ndarray, step: float | None) -> float:
        return label_dye(planes, PX, z_step_um=step).quality.signal_to_noise

    stack = np.stack([noisy(tubes(40.0, 20), seed) for seed in range(3)])
    assert signal(stack, 0.3) > 1.1 * signal(stack, None)
    assert signal(stack, 2.0) == signal(stack, None) == signal(stack[1:2], None)
    clear = np.stack([noisy(tubes(9000.0))] * 3)
    assert signal(clear, 0.3) == signal(clear, None)


def test_planes_above_tell_what_lies_beyond_the_depth_of_field() -> None:
    near, far = tubes(1.0, 0.0), tubes(1.0, 0.0)
    near[60:], far[:60] = 0, 0  # one tube each
    heights = np.arange(-2, 3) * 0.5

    def seen(from_um: float) -> NDArray[np.float64]:
        return 1 / (1 + ((heights - from_um) / 0.35) ** 2)

    light = 100 + 2000 * (seen(0.5)[:, None, None] * near + seen(1.0)[:, None, None] * far)
    stack = noisy(light)
    alone, among = (label_dye(stack, PX, z_step_um=step).mask for step in (None, 0.5))
    assert (among[31:33, 20:100] == 1).all()
    assert (alone[81:83, 20:58] == 1).all()
    assert (among[81:83, 20:58] == 0).all()


def test_planes_that_tell_depth_are_few_and_near() -> None:
    assert planes_near(None) == planes_near(0.7) == planes_near(0) == ()
    assert planes_near(0.5) == (-2, -1, 1, 2)
    assert planes_near(0.25) == (-4, -2, 2, 4)
    assert len(planes_near(0.01)) == 8


def test_masks_are_righter_with_planes_beside(control: SimulatedField) -> None:
    masks = [label_dye(dye(control), PX, z_step_um=step).mask for step in (None, 0.5)]
    alone, among = (iou(count((m == 1).astype(np.uint8), control.masks[1])) for m in masks)
    assert among > alone + 0.01


def test_a_threshold_is_chosen_that_outlines_as_a_person_did(control: SimulatedField) -> None:
    score = label_dye(dye(control), PX).score
    wide = (score > 0.3).astype(np.uint8)
    wide[:20] = 255
    assert choose_threshold([score] * 2, [wide] * 2) == pytest.approx(
        (0.6 + THRESHOLD) / 3, abs=0.01
    )
    nothing = np.zeros_like(wide)
    assert choose_threshold([score], [nothing]) == THRESHOLD
    assert choose_threshold([], []) == THRESHOLD
    low, high = (label_dye(dye(control), PX, threshold=t).quality.foreground for t in (0.3, 0.5))
    assert low > high


@pytest.mark.parametrize("sigma", [0.5, 4.0])
def test_noise_is_measured_beside_structures(sigma: float) -> None:
    noise = np.random.default_rng(1).normal(0, sigma, (128, 128))
    assert pixel_noise(noise) == pytest.approx(sigma, rel=0.05)
    assert pixel_noise(tubes(200.0) + noise) == pytest.approx(sigma, rel=0.15)


@pytest.mark.parametrize(
    ("stack", "options", "message"),
    [
        (np.zeros(9), {}, r"it must be \(Y, X\) or \(Z, Y, X\)"),
        (np.zeros((4, 4)), {}, "it must be"),
        (np.full((16, 16), np.nan), {}, "not finite"),
        (np.zeros((16, 16)), {"z": 1}, "there is no plane 1: the stack has 1"),
        (np.zeros((16, 16)), {"threshold": 1.5}, "threshold is 1.5"),
        (np.zeros((16, 16)), {"pixel_size_um": 65.0}, "pixels of 65 µm"),
    ],
)
def test_what_cannot_be_labelled_is_refused(
    stack: NDArray[Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(MitolumeError, match=message):
        label_dye(stack, **{"pixel_size_um": PX} | options)


def test_real_cells_agree_with_the_masks_they_came_with(real_data: Path) -> None:
    folder = real_data / "h9c2-brightfield"
    total = Counts()
    for row in pd.read_csv(folder / "fields.csv").iloc[::12].itertuples():
        mask = label_dye(imread(folder / str(row.fluorescence)), 0.08).mask
        total += count(mask, imread(folder / str(row.mask)))
    assert iou(total) > 0.75
