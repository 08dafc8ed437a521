"""Can the dye be left out: the preset that asks it, and light alone held against the dye."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import xarray as xr
from helpers.fields import blobs
from scipy import ndimage

from mitolume.errors import MitolumeError
from mitolume.io.read import read
from mitolume.io.write import write_image, write_mask
from mitolume.report import study_page
from mitolume.report.study_page import StudyContent
from mitolume.runs.folder import Run
from mitolume.study.arms import load_study, planned_runs
from mitolume.study.beside_dye import DYE, LIGHT, OBJECTS, TRUTH, bias, judge_beside_dye
from mitolume.study.folder import Study, open_study
from mitolume.workflow import study

QUICK = [
    "training.steps=4", "training.checks=2", "training.patch=32", "training.batch=2",
    "network.width=2", "views=1", "seeds=[0,1]",
]  # fmt: skip


def table_of(
    folder: Path, outlined: str = "test", channels: tuple[str, ...] = ("BF", "Mito"), depth: int = 1
) -> Path:
    """Write four training and four test fields of light and dye, outlined where it is said."""
    rows = []
    for number, role in enumerate(["train"] * 4 + ["test"] * 4):
        light, mask = blobs(number)
        dye = 100 + 1000 * ndimage.gaussian_filter(mask.astype(float), 1.5)
        every = [light, np.random.default_rng(number).poisson(dye), light[::-1]][: len(channels)]
        size = {"Z": 0.5, "Y": 0.05, "X": 0.05}
        stack = np.stack([np.stack(every)] * depth, axis=1).astype(np.uint16)
        image = xr.DataArray(
            stack, dims=tuple("CZYX"), coords={"C": list(channels)}, attrs={"pixel_size_um": size}
        )
        write_image(folder / f"f{number}.ome.tif", image)
        name = f"f{number}_mask.ome.tif" if role in outlined else ""
        if name:
            write_mask(folder / name, xr.DataArray(mask, dims=("Y", "X")))
        rows.append(
            {"image": f"f{number}.ome.tif", "mask": name, "role": role, "specimen": f"d{number}",
             "condition": ("control", "FCCP")[number % 2], "planes": str(depth // 2),
             "channel": "BF", "fluorescence": "Mito"}
        )  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "fields.csv", index=False)
    return folder / "fields.csv"


def test_the_preset_takes_its_channels_from_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = table_of(tmp_path, channels=("BF", "Mito", "Cell_Mask deep red"), depth=3)
    asked = load_study(preset="dye", fields=table)
    assert {name: own.get("inputs") for name, own in asked.arms.items()} == {
        "light": None,
        "light-one-plane": {"planes": 1},
        "light-membrane": {"channels": ["BF", "Cell_Mask deep red"]},
        "light-dye": {"channels": ["BF", "Mito"]},
    }
    assert asked.labels == (0,)  # nobody drew an outline to learn from
    assert load_study(preset="dye", fields=table, settings=["labels=[0,2]"]).labels == (0, 2)
    steps = {(run.recipe.training.steps, run.recipe.method) for run in planned_runs(asked)}
    assert steps == {(2970, "supervised")}
    assert capsys.readouterr().err == ""


def test_arms_that_the_table_has_nothing_for_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = load_study(preset="dye", fields=table_of(tmp_path, outlined="train test"))
    assert list(asked.arms) == ["light", "light-dye"]
    assert asked.labels == (0, "all")
    said = (
        "note: arm light-membrane is left out: there is nothing to show it in line 2 (f0.ome.tif)"
    )
    assert said in capsys.readouterr().err


def test_arms_that_one_image_has_nothing_for_are_left_out_before_anything_is_computed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first image speaks for all, but a later one may have no names of channels."""
    table = table_of(tmp_path, channels=("BF", "Mito", "CellMask"), depth=3)
    rows = pd.read_csv(table, dtype=str)
    stack = np.zeros((2, 40, 40), np.uint16)
    tifffile.imwrite(tmp_path / "f5.tif", stack, imagej=True, metadata={"axes": "CYX"})
    rows.loc[5, ["image", "channel", "fluorescence"]] = ["f5.tif", "0", "1"]
    rows.to_csv(table, index=False)
    asked = load_study(preset="dye", fields=table)
    assert list(asked.arms) == ["light", "light-one-plane"]
    said = capsys.readouterr().err
    assert "note: arm light-dye is left out: there is nothing to show it in line 7 (f5.tif)" in said
    # What the preset asks is answered all the same.
    content = object.__new__(StudyContent)
    vars(content).update(study=Study(tmp_path / "s", asked), reference="light", scored=None)
    monkeypatch.setattr(study_page, "measure_beside_dye", lambda *_: None)
    monkeypatch.setattr(study_page, "judge_beside_dye", lambda _: [{"k": 0}])
    assert content.beside_dye == {0: [{"k": 0}]}


def test_a_single_arm_that_is_left_is_no_study(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    image = read(tmp_path / "f5.ome.tif").isel(T=0, C=[0]).compute()
    (tmp_path / "f5.ome.tif").unlink()
    write_image(tmp_path / "f5.ome.tif", image)
    with pytest.raises(MitolumeError, match="only arm light is left, and a study takes two"):
        load_study(preset="dye", fields=table)


@pytest.mark.parametrize("setting", ["inputs=null", "inputs.channels=BF"])
def test_what_is_no_list_of_channels_is_refused_in_a_sentence(tmp_path: Path, setting: str) -> None:
    said = f"preset dye, arm light-dye: {setting.partition('=')[0]} "
    with pytest.raises(MitolumeError, match=said):
        load_study(preset="dye", fields=table_of(tmp_path), settings=[f"arms.light-dye.{setting}"])


def test_a_table_without_a_dye_is_refused_in_a_sentence(table: Path) -> None:
    with pytest.raises(MitolumeError, match="column `fluorescence` names no channel of the dye"):
        load_study(preset="dye", fields=table)


@pytest.mark.slow
def test_light_alone_is_held_against_the_dye_on_outlines(tmp_path: Path) -> None:
    table = table_of(tmp_path, outlined="train test")
    folder = study(
        load_study(preset="dye", fields=table, settings=QUICK), tmp_path / "s", quiet=True
    )
    content = StudyContent(open_study(folder))
    assert set(content.scored["k"]) == {0, 4}  # masks from the dye are no outlines
    one, other = content.beside_dye[0]
    assert (one["name"], other["name"], one["sizes"]) == ("control", "FCCP", (2, 2, 2))
    assert one["iou"][DYE] > 0.7 > one["iou"][LIGHT]
    found = one["compared"].difference
    assert found == pytest.approx(one["iou"][LIGHT] - one["iou"][DYE])
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Can the dye be left out?" in page
    assert ".Not told from noise" not in page
    assert "learnt from masks of the dye, no outline" in page
    assert "learnt from 4 outlines" in page
    assert "Two seeds hardly show how much trainings differ" in page
    assert Run(folder / "runs" / "light_k0_s0").scores["k"].eq(0).all()


def test_without_outlines_nothing_is_called_right(tmp_path: Path) -> None:
    settings = [*QUICK, "seeds=0"]
    asked = load_study(preset="dye", fields=table_of(tmp_path, outlined=""), settings=settings)
    folder = study(asked, tmp_path / "s", quiet=True)
    page = " ".join((folder / "report.html").read_text(encoding="utf-8").split())
    assert "it can't be judged how right either of them is" in page
    assert "not judged" in page
    methods = (folder / "methods.md").read_text(encoding="utf-8")
    assert "The masks of the test images were made from the dye" in methods
    assert "0 outlines, " in methods
    ((judged, *_),) = StudyContent(open_study(folder)).beside_dye.values()
    assert list(judged["biases"]) == [(LIGHT, DYE)]


def made(objects: dict[str, list[list[float]]], area: float = 2.0) -> pd.DataFrame:
    """Return rows as they are measured, from numbers of objects by specimen and seed."""
    rows = [
        {"arm": arm, "k": 0, "seed": seed, "specimen": f"d{specimen}", "condition": "control",
         "image": f"{specimen}.tif", "plane": 0, "model": "model_1", "subset": "test",
         "line": specimen,
         "run": f"r{seed}", "tp": 50, "fp": 50 * (arm != TRUTH), "fn": 0, "tn": 9, "n_unsure": 0,
         OBJECTS[0]: n, OBJECTS[1]: n * area, OBJECTS[2]: n}
        for arm, table in objects.items()
        for specimen, of_seeds in enumerate(table)
        for seed, n in enumerate(of_seeds)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_errors_of_objects_are_relative_with_their_noise() -> None:
    truth = [[10, 10], [20, 20], [30, 30]]
    light = [[15, 15], [24, 26], [36, 34]]
    rows = made({LIGHT: light, DYE: truth, TRUTH: truth})
    value, low, high = bias(rows, LIGHT, TRUTH, OBJECTS[0])
    assert value == pytest.approx(0.25)
    assert low < value < high
    assert bias(rows, LIGHT, TRUTH, OBJECTS[1]) == pytest.approx((0, 0, 0))  # of one
    ((judged),) = judge_beside_dye(rows)
    assert judged["sizes"] == (3, 3, 2)
    assert judged["biases"][DYE, TRUTH][OBJECTS[0]] == pytest.approx((0, 0, 0))
    assert judged["compared"].reference == DYE


def test_a_condition_without_mitochondria_is_left_out() -> None:
    there = made({key: [[3, 3], [4, 4]] for key in (LIGHT, DYE, TRUTH)})
    nowhere = there.assign(condition="empty", tp=0, fn=0)
    assert [one["name"] for one in judge_beside_dye(pd.concat([there, nowhere]))] == ["control"]
    assert judge_beside_dye(there.iloc[:0]) == []


def test_no_object_anywhere_leaves_its_size_unknown() -> None:
    nothing = [[0.0, 0.0]]
    rows = made({LIGHT: nothing, DYE: nothing, TRUTH: nothing})
    assert all(np.isnan(bias(rows, LIGHT, TRUTH, what)).all() for what in OBJECTS)
