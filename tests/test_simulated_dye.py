"""Dyes that fail and hands of three qualities: each setting does what it says, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

from mitolume import MitolumeError
from mitolume.batch.simulate import plan
from mitolume.simulate.cells import lay_out_cells
from mitolume.simulate.dye import as_seen, dye_of_field, dyed, stain
from mitolume.simulate.field import CHANNELS, SimulatedField, simulate_field
from mitolume.simulate.settings import CONDITIONS, HANDS, DyeSettings, SimulationSettings
from mitolume.simulate.specimen import grow_specimen

OFFSET = SimulationSettings().camera.offset
WORST = {"kind": "potential", "brightness": 0.2, "unstained": 0.5, "uneven": 1.0}
WORST |= {"bleaching": 0.8, "bleed_through": 0.3, "shift_um": (1, 1), "saturated": 0.5}


@pytest.fixture(scope="module", autouse=True)
def _grown_once() -> Iterator[None]:
    """Keep the specimens: most of these fields show the same one, under other dyes and hands."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mitolume.simulate.field.grow_specimen", cache(grow_specimen))
        yield


@cache
def field(
    condition: str = "control", hand: str = "rough", shading: float = 0.1, **dye: Any
) -> SimulatedField:
    settings = {"shape": (96, 128), "planes": 3, "dye": dye, "hand_labels": hand}
    settings["camera"] = {"shading": shading}
    return simulate_field(SimulationSettings.model_validate(settings), condition=condition, seed=1)


def light(one: SimulatedField, channel: str = "Mitochondria") -> np.ndarray:
    return one.clean[channel].astype(float) - OFFSET


def same(one: SimulatedField, other: SimulatedField, but: tuple[str, ...] = ()) -> None:
    """Assert that two fields are equal, except for these channels."""
    for name in set(CHANNELS) - set(but):
        np.testing.assert_array_equal(one.images[name], other.images[name])
        np.testing.assert_array_equal(one.clean[name], other.clean[name])
    for truth in ("masks", "hand_masks", "labels"):
        np.testing.assert_array_equal(getattr(one, truth), getattr(other, truth))


@pytest.mark.slow
def test_neutral_values_change_nothing() -> None:
    same(field(), field(kind="potential"))  # in control cells, which have their potential
    same(field(), field(affected=0.0, **WORST))
    assert field(affected=0.0, **WORST).dye == DyeSettings()
    assert field().hand_masks.shape == field(hand="expert").hand_masks.shape
    assert HANDS["rough"] == SimulationSettings().hand_labels


def test_a_bad_dye_changes_the_channel_of_mitochondria_alone() -> None:
    still = {name: value for name, value in WORST.items() if name != "shift_um"}
    same(field(), field(**still), but=("Mitochondria",))
    assert (field().images["Mitochondria"] != field(**still).images["Mitochondria"]).any()


def test_a_dye_that_follows_the_potential_is_lost_under_fccp() -> None:
    dye = DyeSettings(kind="potential", left=0.1)
    bright = {name: dyed(one, dye).brightness for name, one in CONDITIONS.items()}
    assert bright["control"] == pytest.approx(1)
    assert bright["fccp"] == pytest.approx(0.1)
    assert bright["fccp"] < bright["rotenone"] == bright["antimycin_a"] < 1 < bright["oligomycin"]
    assert all(dyed(one, DyeSettings()) is one for one in CONDITIONS.values())
    ratio = light(field("fccp", kind="potential", left=0.1)) / light(field("fccp"))
    np.testing.assert_allclose(ratio, 0.1 / CONDITIONS["fccp"].brightness, rtol=1e-3)


def test_light_is_dimmed_and_bleaches_from_plane_to_plane() -> None:
    seen = light(field(brightness=0.5, bleaching=0.75)) / light(field())
    expected = np.array([0.5, 0.25, 0.125])[:, None, None]
    np.testing.assert_allclose(seen, np.broadcast_to(expected, seen.shape), rtol=2e-3)
    one = np.ones((1, 4, 4), np.float32)
    np.testing.assert_array_equal(as_seen(one, one, DyeSettings(bleaching=0.9)), one)


def test_the_membrane_bleeds_through() -> None:
    mixed = light(field(bleed_through=0.3)) - light(field())
    np.testing.assert_allclose(mixed, 0.3 * light(field(), "CellMask"), atol=0.05)


def test_fluorescence_moves_against_light_and_masks() -> None:
    still = field(shading=0.0)
    moved = field(shading=0.0, shift_um=(0.5, -0.3), shift_z_um=0.25)  # along z, by a plane
    same(still, moved, but=CHANNELS[1:])
    for name in CHANNELS[1:]:
        before = np.roll(light(still, name), (-1, 5, -3), axis=(0, 1, 2))
        away = (light(moved, name) - before)[:-1, 5:, :-3]
        assert np.abs(away).max() < 1e-3 * before.max()


def test_cells_without_dye_are_dark_as_a_whole() -> None:
    cells = lay_out_cells((60.0, 60.0), np.random.default_rng(3))
    shape, pixel_um = (300, 300), 0.2

    def drawn(**dye: Any) -> np.ndarray:
        return stain(cells, shape, pixel_um, DyeSettings(**dye), np.random.default_rng(0))

    owner = cells.on_grid(cells.cell, shape, pixel_um, order=0)
    few, many = drawn(unstained=0.3), drawn(unstained=0.7)
    for number in np.unique(owner):
        assert len(np.unique(few[owner == number])) == 1
    assert ((few == 0) <= (many == 0)).all()
    assert (many == 0).sum() > 0
    assert drawn().min() == drawn().max() == 1
    assert np.log(drawn(uneven=0.4)).std() == pytest.approx(0.4, rel=0.4)
    assert not drawn(unstained=1.0).any()


def test_mitochondria_of_cells_without_dye_do_not_shine() -> None:
    without = field(unstained=1.0)
    assert not without.stain.any()
    assert np.abs(light(without)).max() < 1e-3
    assert field().stain.shape == (96, 128)
    assert (field().stain == 1).all()


@pytest.mark.parametrize("share", [0.05, 0.4])
def test_saturation_clips_a_share_of_the_mitochondria(share: float) -> None:
    one = field(saturated=share)
    clipped = one.images["Mitochondria"][one.masks == 1] == 2**12 - 1
    assert clipped.mean() == pytest.approx(share, abs=0.03)


def test_a_share_of_the_fields_is_affected() -> None:
    bad = {share: DyeSettings(brightness=0.1, affected=share) for share in (0.0, 0.25, 0.5, 1.0)}
    for share, dye in bad.items():
        drawn = [dye_of_field(dye, np.random.default_rng([seed, 5])) for seed in range(200)]
        assert set(drawn) <= {dye, DyeSettings()}
        assert sum(one == dye for one in drawn) == pytest.approx(200 * share, abs=20)


def test_hands_are_as_exact_as_they_say() -> None:
    scores = {}
    for hand in HANDS:
        one = field(hand=hand)
        both, either = one.hand_masks & one.masks, one.hand_masks | one.masks
        scores[hand] = both.sum() / either.sum()
        same_light = field().images["Transmitted"] == one.images["Transmitted"]
        assert same_light.all()
    assert scores == pytest.approx({"rough": 0.6, "careful": 0.75, "expert": 0.9}, abs=0.05)


def test_a_command_sets_dye_and_hand() -> None:
    words = ["dye.kind=potential", "dye.shift_um=[0.2,-0.1]", "hand_labels=careful"]
    for one in plan(preset="treatments", set_=[*words, "z_step_um=1", "planes=5"]):
        assert one.settings.dye == DyeSettings(kind="potential", shift_um=(0.2, -0.1))
        assert one.settings.hand_labels == HANDS["careful"]
        assert one.settings.z_step_um == (1, 1)
        assert one.settings.model_dump(mode="json")["hand_labels"]["missed"] == 0.05
    changed = plan(set_=["hand_labels.missed=0"])[0].settings.hand_labels
    assert changed.missed == 0
    assert changed.jitter_um == HANDS["rough"].jitter_um


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("hand_labels=perfect", "must be one of rough, careful, expert"),
        ("dye.kind=bright", "dye.kind is 'bright': it should be 'steady' or 'potential'"),
        ("dye.shift_um=0.5", r"must be \[down, right\] in um"),
        ("dye.shift_um=[0,9]", "less than or equal to 3"),
        ("dye.bleach=0.2", "did you mean 'dye.bleaching'"),
    ],
)
def test_wrong_settings_of_the_dye_are_named(setting: str, said: str) -> None:
    with pytest.raises(MitolumeError, match=said):
        plan(set_=[setting])


def test_preset_treatments_tests_every_condition_on_other_dishes() -> None:
    plans = plan(preset="treatments")
    for condition in CONDITIONS:
        mine = [one for one in plans if one.condition == condition]
        roles: dict[str, set[str]] = {}
        for one in mine:
            roles.setdefault(one.role, set()).add(one.specimen)
        assert "test" in roles
        assert sum(len(dishes) for dishes in roles.values()) == len({one.specimen for one in mine})
    assert {(one.settings.shape, one.settings.planes) for one in plans} == {((256, 256), 7)}
