"""Data sets of simulated fields: whole, repeatable, and read as any other data."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from mitolume import MitolumeError, cli, read
from mitolume.batch.simulate import plan, write_data_set
from mitolume.io.check import check_table
from mitolume.simulate.hand_labels import imitate_hand_labels
from mitolume.simulate.presets import PRESETS, plan_fields
from mitolume.simulate.settings import HandLabelSettings

SMALL = ("shape=[64,96]", "planes=3")


def plans(seed: int = 7, count: int = 1) -> list:
    return plan(fields=count, conditions=["control", "fccp"], seed=seed, set_=SMALL)


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "set"
    write_data_set(plans(), out)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


@pytest.mark.slow
def test_the_same_bytes_in_one_process_or_two(data_set: Path, tmp_path: Path) -> None:
    write_data_set(plans(), tmp_path / "again", jobs=2)
    assert contents(tmp_path / "again") == contents(data_set)


def test_the_table_and_the_files_are_read_as_any_other(data_set: Path) -> None:
    table = check_table(data_set / "fields.csv")
    assert [row.condition for row in table.fields] == ["control", "fccp"]
    image = read(data_set / "images" / "1_control.ome.tif")
    assert image.sizes == {"T": 1, "C": 3, "Z": 3, "Y": 64, "X": 96}
    assert image["C"].values.tolist() == ["Transmitted", "Mitochondria", "CellMask"]
    assert image.attrs["pixel_size_um"] == pytest.approx({"Z": 0.25, "Y": 0.1, "X": 0.1})
    labels = read(data_set / "labels" / "1_control.ome.tif")
    assert labels.attrs["pixel_size_um"]["Z"] == pytest.approx(0.2)
    objects = pd.read_csv(data_set / "objects" / "1_control.csv")
    assert set(objects["label"]) == set(np.unique(labels.values)) - {0}


def test_the_clean_stack_is_the_image_without_noise(data_set: Path) -> None:
    noisy, clean = (
        tifffile.imread(data_set / kind / "1_control.ome.tif").astype(float)
        for kind in ("images", "clean")
    )
    assert abs((noisy - clean).mean()) < 1
    assert 0.6 < np.corrcoef(noisy.ravel(), clean.ravel())[0, 1] < 1


def test_it_goes_on_where_it_was_stopped(data_set: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    write_data_set(plans(), out)
    (out / "facts" / "2_fccp.json").unlink()
    before = (out / "images" / "1_control.ome.tif").stat().st_mtime_ns
    write_data_set(plans(), out)
    assert (out / "images" / "1_control.ome.tif").stat().st_mtime_ns == before
    assert contents(out) == contents(data_set)
    with pytest.raises(MitolumeError, match="begun with other fields"):
        write_data_set(plans(seed=8), out)


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    words = ["simulate", "--fields", "1", "--out", str(tmp_path / "s"), "--set", "planes=1"]
    monkeypatch.setattr(sys, "argv", ["mitolume", *words, "--set", "shape=[48,64]", "--quiet"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"table of fields: {tmp_path / 's' / 'fields.csv'}\n"
    assert json.loads((tmp_path / "s" / "simulation.json").read_text())["command"].startswith(
        "mitolume simulate --fields 1"
    )
    height, width = tifffile.imread(tmp_path / "s" / "masks" / "1_control.ome.tif").shape
    assert (height, width) == (48, 64)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"preset": "studdy"}, "there are study, fine, demo"),
        ({"conditions": ["cccp"]}, "no condition 'cccp'"),
        ({"preset": "study", "fields": 3}, "leave out --fields"),
        ({"set_": ["plains=3"]}, "did you mean 'planes'"),
        ({"set_": ["z_step_um=[3,1]"]}, "smaller step first"),
        ({"set_": ["z_step_um=wide"]}, "must be a number or a range"),
        ({"set_": ["shape=64"]}, r"must be \[rows, columns\]"),
        ({"set_": ["shape=[64,30000]"]}, "less than or equal to 2048"),
        ({"set_": ["shape=[8,64]"]}, "greater than or equal to 16"),
        ({"set_": ["camera.bits=17"]}, "less than or equal to 16"),
        ({"set_": ["optics.objective_na=1.4"]}, "1.4 must be below immersion_index 1.333; water"),
        ({"set_": ["optics.transmitted_um=640"]}, "transmitted_um is 640: it should be less"),
        ({"set_": ["camera.gain=.nan"]}, "camera.gain is nan"),
        ({"set_": ["z_step_um=0"]}, "--set: z_step_um is 0: it must be above 0$"),
        ({"set_": ["z_step_um=50"]}, "--set: 13 planes with steps of 50 um span 600 um"),
    ],
)
def test_what_can_not_be_simulated_is_refused_in_a_sentence(wanted: dict, said: str) -> None:
    with pytest.raises(MitolumeError, match=said):
        plan(**wanted)


def test_each_day_of_preset_brightfield_has_another_condenser() -> None:
    fields = plan(preset="brightfield")
    condensers = {(one.batch, one.settings.optics.condenser_na) for one in fields}
    assert len(fields) == 40
    assert len(condensers) == len({one.batch for one in fields}) == 11
    assert {one.condition for one in fields} == {"control", "antimycin_a"}
    apertures = [na for _, na in condensers]
    assert 0.12 < min(apertures) < 0.2 < 0.28 < max(apertures) < 0.45


def test_preset_study_is_that_of_the_study() -> None:
    preset = PRESETS["study"]
    fields = plan_fields(preset.settings, preset.groups, 0)
    roles = pd.Series([one.role for one in fields]).value_counts().to_dict()
    assert roles == {"unlabelled": 40, "train": 30, "test": 13, "validation": 9}
    assert len({one.seed for one in fields}) == len(fields)
    assert all(len({o.role for o in fields if o.specimen == one.specimen}) == 1 for one in fields)


def test_hand_labels_err_at_the_given_rates() -> None:
    mask = np.zeros((400, 400), np.uint8)
    for y in range(10, 390, 20):
        for x in range(10, 390, 40):
            mask[y : y + 5, x : x + 20] = 1
    rng = np.random.default_rng(0)

    def drawn(jitter: float, missed: float, invented: float) -> np.ndarray:
        how = HandLabelSettings(jitter_um=jitter, missed=missed, invented=invented)
        return imitate_hand_labels(mask, 0.1, rng, how)

    np.testing.assert_array_equal(drawn(0, 0, 0), mask)
    assert not drawn(0, 1, 0).any()
    assert drawn(0, 0.3, 0).sum() == pytest.approx(0.7 * mask.sum(), rel=0.15)
    more = drawn(0, 0, 0.2)
    assert (more[mask == 1] == 1).all()
    assert more.sum() == pytest.approx(1.2 * mask.sum(), rel=0.15)
    errors = [(drawn(jitter, 0, 0) != mask).mean() for jitter in (0.05, 0.1, 0.2)]
    assert errors == sorted(errors)
    assert errors[0] > 0


def test_what_is_invented_lies_where_it_may() -> None:
    mask = np.zeros((200, 200), np.uint8)
    for y in range(10, 190, 20):
        mask[y : y + 5, 20:40] = 1
    may = np.zeros(mask.shape, bool)
    may[:, :90] = True
    how = HandLabelSettings(jitter_um=0, missed=0, invented=2)
    drawn = imitate_hand_labels(mask, 0.1, np.random.default_rng(0), how, plausible=may)
    assert (drawn & ~mask).any()
    assert not drawn[:, 90:].any()


def test_the_contact_sheet_has_a_row_for_each_field(data_set: Path) -> None:
    sheet = np.asarray(Image.open(data_set / "sheet.png").convert("L"))
    assert sheet.shape == (640, 1500)
    panels = [part for row in np.split(sheet, 2) for part in np.split(row, 5, axis=1)]
    assert all(panel.std() > 10 for panel in panels)
