"""Runs that learn from the dye: without an outline, and with some."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers.command import call
from helpers.fields import blobs
from helpers.microscope_files import write_lif
from scipy import ndimage

import mitolume
from mitolume.analysis.metrics import best_threshold, probability_histogram
from mitolume.batch import label
from mitolume.batch.sources import find_sources
from mitolume.errors import MitolumeError
from mitolume.io.check import check_table
from mitolume.io.fields import Field
from mitolume.io.read import read
from mitolume.io.table import read_table
from mitolume.io.write import owning, write_image, write_mask
from mitolume.napari.label_table import LabelTable
from mitolume.report.run_page import scored_by_dye
from mitolume.runs import dye_checks
from mitolume.runs.begin import begin, resume
from mitolume.runs.committee import Committee
from mitolume.runs.dye import label_rows
from mitolume.runs.dye_checks import judge
from mitolume.runs.folder import Run
from mitolume.runs.recipe import DyeSettings, load_recipe
from mitolume.runs.run import compute_run
from mitolume.runs.score import score_model
from mitolume.training.patches import Patches, PreparedImage
from mitolume.workflow import rerun

QUICK = (
    "training.steps=4", "training.checks=2", "training.patch=32", "training.batch=2",
    "network.width=2", "views=1",
)  # fmt: skip
SIZE = {"Y": 0.05, "X": 0.05}


def dyed(seed: int, brightness: float = 1000.0) -> tuple[np.ndarray, np.ndarray]:
    """Return transmitted light and dye, (2, Y, X), and the exact mask."""
    light, mask = blobs(seed)
    rng = np.random.default_rng(seed)
    dye = 100 + brightness * ndimage.gaussian_filter(mask.astype(float), 1.5)
    return np.stack([light, rng.poisson(dye)]).astype(np.uint16), mask


def write_dyed(folder: Path, name: str, seed: int, *, outlined: bool, **options: float) -> Path:
    channels, mask = dyed(seed, **options)
    image = xr.DataArray(
        channels, dims=("C", "Y", "X"), coords={"C": ["BF", "Mito"]}, attrs={"pixel_size_um": SIZE}
    )
    write_image(folder / f"{name}.ome.tif", image)
    if outlined:
        write_mask(folder / f"{name}_mask.ome.tif", xr.DataArray(mask, dims=("Y", "X")))
    return folder / f"{name}.ome.tif"


def table_of(folder: Path, *rows: dict[str, object]) -> Path:
    """Write fields and their table; a row is role, outlined, dye, and brightness of the dye."""
    folder.mkdir(exist_ok=True)
    lines = []
    for number, row in enumerate(rows):
        outlined = bool(row.get("outlined"))
        options = {"brightness": float(str(row["brightness"]))} if "brightness" in row else {}
        write_dyed(folder, f"f{number}", number, outlined=outlined, **options)
        lines.append(
            {
                "image": f"f{number}.ome.tif", "mask": f"f{number}_mask.ome.tif" * outlined,
                "role": row.get("role", ""), "channel": "BF",
                "fluorescence": "Mito" if row.get("dye", True) else "", "specimen": f"d{number}",
                "condition": row.get("condition", ""),
            }
        )  # fmt: skip
    with (folder / "fields.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0].keys())
        writer.writeheader()
        writer.writerows(lines)
    return folder / "fields.csv"


def begun(table: Path, out: Path, *settings: str) -> Run:
    """Begin a run: its rows, masks from the dye, and notices are there."""
    return begin(out, load_recipe(fields=table, settings=[*QUICK, *settings]), quiet=True)


def computed(table: Path, out: Path, *settings: str) -> Run:
    """Do a run but for its page."""
    recipe = load_recipe(fields=table, settings=[*QUICK, *settings])
    return compute_run(recipe, out, quiet=True)


def run_of(table: Path, out: Path, *settings: str) -> Run:
    recipe = load_recipe(fields=table, settings=[*QUICK, *settings])
    return Run(mitolume.run(recipe, out, quiet=True))


def test_a_table_without_outlines_trains_and_is_scored(tmp_path: Path) -> None:
    table = table_of(tmp_path / "data", *({"dye": True} for _ in range(6)))
    run = run_of(table, tmp_path / "run")
    assert {row.role for row in run.rows} == {"train", "validation", "test"}
    assert all(row.label == "dye" and row.mask and row.mask.exists() for row in run.rows)
    assert run.scores["iou"].notna().all()
    assert "6 planes with the dye's channel, 6 used" in " ".join(run.record["notices"])
    page = run.report_file.read_text(encoding="utf-8")
    assert "how well the dye can be foretold" in page.replace("\n", " ")
    assert "0 outlines, " in page
    assert "Signal of the dye over noise" in page
    for row in run.rows:  # the masks are those of the mitochondria
        found, exact = np.asarray(read(row.mask)).squeeze(), dyed(int(row.image.name[1]))[1]
        sure = found != 255
        both = ((found == 1) & (exact == 1))[sure].sum()
        assert both / ((found == 1) | (exact == 1))[sure].sum() > 0.7
    assert mitolume.run(None, run.path, resume=True, quiet=True) == run.path


def test_conditions_that_the_draw_leaves_untested_are_named(tmp_path: Path) -> None:
    table = table_of(tmp_path / "data", *({"condition": name} for name in "abcd"))
    run = begun(table, tmp_path / "run")
    tested = {row.condition for row in run.rows if row.role == "test"}
    untested = ", ".join(sorted({*"abcd"} - tested))
    assert any(f"no test image of {untested} and no validation" in n for n in run.record["notices"])


@pytest.mark.parametrize(
    ("planes", "other", "learnt"),
    [("", "", (0, 1, 2)), ("1", "", (1,)), ("", "0", (1, 2))],
    ids=["all", "those of the table", "without those of another row"],
)
def test_the_dye_of_a_stack_is_learnt_where_nobody_outlined_it(
    tmp_path: Path, planes: str, other: str, learnt: tuple[int, ...]
) -> None:
    channels, mask = dyed(0)
    dims, coords = ("C", "Z", "Y", "X"), {"C": ["BF", "Mito"]}
    stack = np.stack([channels + z for z in range(3)], axis=1)  # no two planes are the same
    size = SIZE | {"Z": 1.0}
    image = xr.DataArray(stack, dims=dims, coords=coords, attrs={"pixel_size_um": size})
    write_image(tmp_path / "s.ome.tif", image)
    drawn = np.stack([0 * mask, mask, 0 * mask]).astype(np.uint8)
    write_mask(tmp_path / "s_mask.ome.tif", xr.DataArray(drawn, dims=("Z", "Y", "X")))
    write_dyed(tmp_path, "f1", 1, outlined=False)
    rows = [f"s.ome.tif,s_mask.ome.tif,train,{planes},a", "f1.ome.tif,,unlabelled,,b"]
    rows += [f"s.ome.tif,,unlabelled,{other},a"] * bool(other)
    lines = "".join(f"{row},BF,Mito\n" for row in rows)
    header = "image,mask,role,planes,specimen,channel,fluorescence\n"
    (tmp_path / "fields.csv").write_text(header + lines)
    run = begun(tmp_path / "fields.csv", tmp_path / "run")
    outline, dye, *_ = run.rows
    assert (outline.planes, outline.label) == ((1,), "")
    assert (dye.planes, dye.label, dye.role) == (learnt, "dye", "train")
    places = [(i.row.image, i.z) for i in run.images("train") if i.row.label == "dye"]
    assert len(set(places)) == len(places)


def test_flat_planes_beside_few_outlined_ones_are_no_table_of_flat_images(tmp_path: Path) -> None:
    channels, mask = dyed(0)
    stack = np.stack([channels, *[0 * channels + z for z in range(3)]], axis=1)
    coords, attrs = {"C": ["BF", "Mito"]}, {"pixel_size_um": SIZE | {"Z": 1.0}}
    image = xr.DataArray(stack, dims=("C", "Z", "Y", "X"), coords=coords, attrs=attrs)
    write_image(tmp_path / "s.ome.tif", image)
    drawn = np.stack([mask, *[0 * mask] * 3]).astype(np.uint8)
    write_mask(tmp_path / "m.ome.tif", xr.DataArray(drawn, dims=("Z", "Y", "X")))
    (tmp_path / "fields.csv").write_text(
        "image,mask,channel,fluorescence\ns.ome.tif,m.ome.tif,BF,Mito\n"
    )
    checked = check_table(tmp_path / "fields.csv")
    assert checked.fields[0].planes == (0,)
    assert any("one flat grey" in said for said in checked.notices)


def test_stacks_of_an_unknown_z_step_are_told_what_to_fill_in(tmp_path: Path) -> None:
    channels, _ = dyed(0)
    for number, step in enumerate([{"Z": 1.0}, {"Z": 1.0}, {}]):
        stack = np.stack([channels + 9 * number + z for z in range(3)], axis=1)
        coords, attrs = {"C": ["BF", "Mito"]}, {"pixel_size_um": SIZE | step}
        image = xr.DataArray(stack, dims=("C", "Z", "Y", "X"), coords=coords, attrs=attrs)
        write_image(tmp_path / f"{number}.ome.tif", image)
    rows = "".join(f"{number}.ome.tif,train,{number},BF,Mito\n" for number in range(3))
    (tmp_path / "fields.csv").write_text(f"image,role,specimen,channel,fluorescence\n{rows}")
    run = begun(tmp_path / "fields.csv", tmp_path / "run", "inputs.planes=3")
    told = "2.ome.tif: the z-step is unknown, while the network sees 3 planes 1 µm apart: fill in"
    assert any(str(note).startswith(told) for note in run.record["notices"])


def test_outlines_are_what_is_scored_where_the_table_has_some(tmp_path: Path) -> None:
    rows = [{"role": "train"}] * 3 + [{"role": "test", "outlined": True}] * 2
    run = run_of(table_of(tmp_path / "data", *rows), tmp_path / "run")
    assert [row.label for row in run.rows] == ["dye"] * 3 + [""] * 2
    assert "foretold" not in run.report_file.read_text(encoding="utf-8")


def test_outlines_beside_masks_of_the_dye_are_no_common_measure(tmp_path: Path) -> None:
    """A hand and the dye end elsewhere, so conditions may seem unlike that are alike."""
    rows = [
        *[{"role": "train"}] * 2,
        {"role": "test", "outlined": True, "condition": "control"},
        *[{"role": "test", "condition": "FCCP"}] * 2,
    ]
    run = begun(table_of(tmp_path / "data", *rows), tmp_path / "run")
    (said,) = scored_by_dye(run, "test")
    assert said.startswith("Scored against outlines: 1 test image (control); against masks made")
    assert "from the dye: 2 test images (FCCP). " in said
    assert not scored_by_dye(run, "validation")


def test_a_field_without_dye_is_named_and_left_out(tmp_path: Path) -> None:
    rows = [{"role": "train"}] * 3 + [{"role": "train", "brightness": 0.0}]
    run = begun(table_of(tmp_path / "data", *rows), tmp_path / "run")
    assert [row.image.name for row in run.rows] == ["f0.ome.tif", "f1.ome.tif", "f2.ome.tif"]
    said = " ".join(run.record["notices"])
    assert "4 planes with the dye's channel, 3 used, because there is no dye" in said
    assert "(signal below 3 x noise) in f3.ome.tif" in said
    assert list(run.dye_quality["has_dye"]) == [True] * 3 + [False]


def test_a_weak_dye_is_named(tmp_path: Path) -> None:
    rows = [{"role": "train"}] * 3 + [{"role": "train", "brightness": 60.0}]
    run = begun(table_of(tmp_path / "data", *rows), tmp_path / "run")
    assert "f3.ome.tif: the dye is 3 times weaker than usual" in " ".join(run.record["notices"])


def test_what_is_odd_about_a_dye_is_said_of_the_images_it_is_odd_in() -> None:
    usual = {
        "has_dye": True, "signal_to_noise": 60.0, "level": 800.0, "background": 0.2,
        "bleed_through": 0.0, "foreground": 0.1, "saturated": 0.0, "shift_y_um": 0.0,
        "shift_x_um": np.nan, "shift_z_um": np.nan, "moved": False, "plane": 0,
    }  # fmt: skip
    odd: dict[str, tuple[str, bool, dict[str, object]]] = {
        "none": ("no dye", False, {"has_dye": False, "signal_to_noise": 1.5, "level": 2.0}),
        "faint": ("dimmed beside", False, {"signal_to_noise": 5.0, "level": 20.0}),
        "weak": ("weaker than usual", True, {"signal_to_noise": 15.0, "level": 200.0}),
        "gain": ("", True, {"level": 200.0}),
        "nuclei": ("wider than mitochondria", False, {"background": 2.0}),
        "much": ("is this the channel", True, {"foreground": 0.4}),
        "bled": ("another channel of the file", True, {"bleed_through": 0.2}),
        "burnt": ("pixels are saturated", True, {"saturated": 0.03}),
        "apart": ("0.2 µm or more", False, {"shift_y_um": 0.2, "shift_x_um": 0.0}),
        "moved": ("", True, {"shift_y_um": 0.3, "shift_x_um": 0.5, "moved": True}),
        "far": ("more than 1.5 µm", False, {"shift_y_um": 0.0, "shift_x_um": -2.0, "moved": True}),
    }
    facts = [usual] * 20 + [usual | own for _, _, own in odd.values()]
    names = [*(f"f{n}" for n in range(20)), *odd]
    quality = pd.DataFrame(facts).assign(image=names, mask=names)
    rows, (summary, *said) = judge([Field(Path(name), mask=Path(name)) for name in names], quality)
    assert not any(quality["warning"][:20])
    n_used = 20 + sum(used for _, used, _ in odd.values())
    assert summary.startswith(f"{len(names)} planes with the dye's channel, {n_used} used, because")
    for name, row, warning in zip(names[20:], rows[20:], quality["warning"][20:], strict=True):
        words, used, _ = odd[name]
        assert bool(row.planes) == used, name
        assert words in warning if words else warning == "", name
        assert (f" in {name}" in summary) != used
        assert sum(sentence.startswith(f"{name}: ") for sentence in said) == bool(used and words)


def test_the_dark_ends_of_a_stack_say_nothing_of_its_dye() -> None:
    """Above a cell, a good dye shows hardly anything; and what is said names planes and dishes."""
    level = {"good": [80.0, 900, 900, 900, 60], "weak": [50.0, 150, 150, 150, 50]}
    level |= {f"f{n}": [800.0] * 5 for n in range(4)}
    planes = [
        {
            "has_dye": True, "signal_to_noise": at / 10 + 4, "level": at, "background": 0.2,
            "bleed_through": 0.0, "foreground": 0.1, "saturated": 0.0, "shift_y_um": np.nan,
            "shift_x_um": np.nan, "shift_z_um": np.nan, "moved": False, "plane": z, "mask": name,
            "image": "dish.tif", "specimen": f"dish {name}",
        }
        for name, levels in level.items() for z, at in enumerate(levels)
    ]  # fmt: skip
    planes[2]["background"] = 0.9
    quality = pd.DataFrame(planes)
    summary, *said = judge([Field(Path(name), mask=Path(name)) for name in level], quality)[1]
    assert "is it their channel? in dish.tif of dish good at plane 2" in summary
    (weaker,) = [one for one in said if "weaker" in one]
    assert weaker.startswith("dish.tif of dish weak: ")


def test_a_dye_in_a_file_of_its_own_gives_the_same_masks(tmp_path: Path) -> None:
    table = table_of(tmp_path / "data", *({"role": "train"} for _ in range(2)))
    by_channel = begun(table, tmp_path / "one")
    rows = pd.read_csv(table)
    (tmp_path / "data" / "dyes").mkdir()
    for number in range(2):
        dye = xr.DataArray(dyed(number)[0][1], dims=("Y", "X"), attrs={"pixel_size_um": SIZE})
        write_image(tmp_path / "data" / "dyes" / f"d{number}.ome.tif", dye)
    rows["fluorescence"] = [f"dyes/d{number}.ome.tif" for number in range(2)]
    rows.to_csv(table, index=False)
    by_file = begun(table, tmp_path / "two")
    for one, other in zip(by_channel.rows, by_file.rows, strict=True):
        np.testing.assert_array_equal(read(one.mask).values, read(other.mask).values)
    # The run's own table finds the file, from its own folder.
    assert read_table(by_file.fields_file)[0].fluorescence == tmp_path / "data/dyes/d0.ome.tif"


MIXED = [
    *[{"role": "train", "outlined": True}] * 3,
    *[{"role": "unlabelled"}] * 2,
    *[{"role": "validation", "outlined": True}] * 3,
]


def test_outlines_and_dye_are_learnt_in_one_training(tmp_path: Path) -> None:
    run = run_of(table_of(tmp_path / "data", *MIXED), tmp_path / "run")
    assert run.models == ["model_1"]
    assert run.recipe.unlabelled.teacher == "dye"
    learnt = [(row.image.name, row.label) for row in run.rows if row.role == "train"]
    outlined = [(f"f{n}.ome.tif", label) for n in range(3) for label in ("", "dye")]
    assert learnt == [*outlined, ("f3.ome.tif", "dye"), ("f4.ome.tif", "dye")]
    measured, _ = find_sources([run.path], [])
    assert len({source.images[0].file for source in measured}) == len(measured) == 8
    assert "8 labelled images of 8 specimens" in run.report_file.read_text(encoding="utf-8")
    assert set(run.scores["k"]) == {3}
    again = begin(tmp_path / "again", load_recipe(run.recipe_file), quiet=True)
    assert [(row.image, row.mask, row.label, row.role) for row in again.rows] == [
        (row.image, row.mask, row.label, row.role) for row in run.rows
    ], "the folder's table names the masks from the dye"
    quality = run.dye_quality
    assert quality["agreement"].notna().tolist() == [True] * 3 + [False] * 2
    assert quality["agreement"].min() > 0.7
    assert quality["dye_to_outline_area"].dropna().between(0.7, 1.4).all()
    said = "outlines and masks from the dye agree with a mean IoU of 0."
    assert said in " ".join(run.record["notices"])
    page = run.report_file.read_text(encoding="utf-8")
    assert "3 outlines, 5 from the dye" in page
    assert "Agreement of outline and dye, least first" in page
    (run.path / "kept.json").unlink()  # stopped just before its end
    run.note(status="running")
    assert mitolume.run(None, run.path, resume=True, quiet=True) == run.path


def test_thresholds_are_chosen_by_condition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        *[{"role": "train", "outlined": True, "condition": "control"}] * 2,
        *[{"role": "unlabelled", "condition": "FCCP"}] * 2,
        *[{"role": "validation", "outlined": True, "condition": "control"}] * 2,
        {"role": "test", "outlined": True, "condition": "FCCP"},
        {"role": "test", "condition": "rotenone"},
        {"role": "test", "outlined": True},
    ]
    run = run_of(table_of(tmp_path / "data", *rows), tmp_path / "run")
    ready = mitolume.load(run.path)
    common, own = ready.card.threshold, ready.card.thresholds
    rests_on = {name: (of.n_images, of.role) for name, of in own.items()}
    assert rests_on == {"control": (2, "validation"), "FCCP": (2, "train"), "rotenone": (0, "")}
    # All validation images are of control, test images choose nothing.
    assert own["control"].threshold == pytest.approx(common, abs=1e-4)
    assert own["rotenone"].threshold == common
    learnt = [image for image in run.images("train") if image.row.condition == "FCCP"]
    total: Any = 0
    for image in learnt:
        plane, mask, size = image.read()
        total = total + probability_histogram(ready.predict_plane(plane, size), mask)
    expected = (2 * best_threshold(total)[0] + common) / 3
    assert own["FCCP"].threshold == pytest.approx(expected, abs=1e-4)
    used = dict(zip(run.scores["condition"].fillna(""), run.scores["threshold"], strict=True))
    assert used == {name: of.threshold for name, of in own.items()} | {"": common}
    page = run.report_file.read_text(encoding="utf-8")
    assert "(2 training images with a mask from the dye), rotenone" in page
    assert f"rotenone {common:.2f} (the common one)" in page
    methods = run.methods_file.read_text(encoding="utf-8")
    assert "By condition, the threshold was: " in methods

    # Masks of the run, of `predict`, of Python and votes of the committee follow the condition.
    bundle = run.model_folder("model_1") / "card.json"
    card = json.loads(bundle.read_text())
    seen = ready.predict(read(run.images("test")[0].row.image), channel="BF")
    card["thresholds"]["FCCP"]["threshold"] = cut = float(np.quantile(seen, 0.7))
    card["threshold"] = float(np.quantile(seen, 0.4))
    bundle.write_text(json.dumps(card))
    ready, image = mitolume.load(run.path), run.images("test")[0]
    expected_mask = seen.isel(C=0).values >= cut
    np.testing.assert_array_equal(ready.mask(seen, condition="FCCP").values, expected_mask)
    with owning(run.path):
        score_model(ready, run, "model_1")
    np.testing.assert_array_equal(run.mask("model_1", image), expected_mask.squeeze())
    asked = ("predict", run.path, image.row.image, "--channel", "BF", "--engine", "torch", "--out")
    assert call(monkeypatch, *asked, tmp_path / "masks", "--condition", "FCCP") == 0
    (written,) = (tmp_path / "masks").glob("*_mask.ome.tif")
    np.testing.assert_array_equal(read(written).isel(C=0).values, expected_mask)
    card["thresholds"]["FCCP"]["threshold"] = 1e-6
    bundle.write_text(json.dumps(card))
    committee = Committee(run)
    assert committee.map(image).max() == 0  # all votes are for mitochondria
    assert committee.map(run.images("test")[2]).max() > 0

    capsys.readouterr()
    for given, sentence in (
        (("--condition", "fcp"), "no condition 'fcp'; did you mean 'FCCP'? known are control, FCC"),
        (("--condition", "x"), "no condition 'x'; known are control, FCCP, rotenone"),
        (("--condition", "FCCP", "--threshold", "0.5"), "leave out one of them"),
    ):
        assert call(monkeypatch, *asked, tmp_path / "none", *given) == 1
        assert sentence in capsys.readouterr().err
    del card["thresholds"]  # as in older models
    bundle.write_text(json.dumps(card))
    assert call(monkeypatch, *asked, tmp_path / "none", "--condition", "FCCP") == 1
    assert "the model has one threshold for all conditions" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_threshold_that_the_recipe_gives_holds_for_all_conditions(tmp_path: Path) -> None:
    rows = [{"role": "train", "condition": name} for name in ("control", "FCCP")]
    table = table_of(tmp_path / "data", *rows)
    fixed = computed(table, tmp_path / "a", "threshold=0.4")
    assert set(fixed.scores["threshold"]) == {0.4}
    assert not mitolume.load(fixed.path).card.thresholds
    said = " ".join(fixed.record["notices"])
    assert "or by condition where training images have masks from the dye" in said


def test_a_label_budget_counts_outlines_only(tmp_path: Path) -> None:
    rows = [{"role": "train", "outlined": True}] * 2 + [{"role": "train"}] * 4
    run = begun(table_of(tmp_path / "data", *rows), tmp_path / "run", "labels=1")
    assert sum(row.is_outlined for row in run.rows) == 1
    assert sorted(row.image.name for row in run.rows if row.label == "dye") == [
        f"f{n}.ome.tif" for n in range(6)
    ]
    again = begin(tmp_path / "again", load_recipe(run.recipe_file), quiet=True)
    assert [(row.mask, row.role) for row in again.rows] == [(r.mask, r.role) for r in run.rows]
    with pytest.raises(MitolumeError, match="only 2 labelled training images"):
        begun(table_of(tmp_path / "data", *rows), tmp_path / "b", "labels=3")


def test_the_dye_of_outlined_images_alone_is_learnt_from_on_request_only(tmp_path: Path) -> None:
    rows = [{"role": "train", "outlined": True}] * 2
    table = table_of(tmp_path / "data", *rows)
    assert [row.label for row in begun(table, tmp_path / "a").rows] == [""] * 2
    asked = begun(table, tmp_path / "b", "unlabelled.teacher=dye")
    assert [row.label for row in asked.rows] == ["", "dye"] * 2


def test_the_dye_is_left_aside_on_request(tmp_path: Path) -> None:
    table = table_of(tmp_path / "data", *MIXED)
    run = begun(table, tmp_path / "run", "unlabelled.teacher=self")
    assert run.recipe.unlabelled.teacher == "self"
    assert [row.label for row in run.rows] == [""] * 8
    assert run.dye_quality is None
    assert any("is left aside" in notice for notice in run.record["notices"])
    assert not any("left aside" in n for n in begun(table, tmp_path / "b").record["notices"])


@pytest.mark.parametrize("teacher", ["self", "auto", "dye"])
def test_a_run_of_the_dye_alone_is_resumed_by_its_own_recipe(tmp_path: Path, teacher: str) -> None:
    """Without an outline there is nothing but the dye, also where the recipe would leave it aside.

    A study of the preset dye has runs of labels 0 under the teacher self.
    """
    settings = [*QUICK, "labels=0", f"unlabelled.teacher={teacher}"]
    recipe = load_recipe(fields=table_of(tmp_path / "data", *MIXED), settings=settings)
    run = begin(tmp_path / "run", recipe, quiet=True)
    assert {row.label for row in run.rows if row.role == "train"} == {"dye"}
    assert resume(run.path, recipe, quiet=True).rows == run.rows


def test_masks_from_the_dye_are_drawn_by_their_weight() -> None:
    plane = np.zeros((32, 32), np.float32)
    outlined = PreparedImage(plane, np.ones((32, 32), np.uint8))
    dyed_too = PreparedImage(plane, np.zeros((32, 32), np.uint8), weight=3)
    patches = Patches([outlined, dyed_too], patch=32, batch=400, seed=0)
    assert patches[0][2].mean() == pytest.approx(1 / 4, abs=0.07)


def test_a_plane_may_be_there_twice_only_as_outline_and_dye(tmp_path: Path) -> None:
    table = table_of(tmp_path / "data", {"role": "train", "outlined": True})
    rows = pd.read_csv(table)
    again = rows.assign(mask="", specimen="another")
    pd.concat([rows, again]).to_csv(table, index=False)
    with pytest.raises(MitolumeError, match=r"plane 0 of f0\.ome\.tif is also in line 2"):
        run_of(table, tmp_path / "run")
    pd.concat([rows, rows.assign(mask="", fluorescence="")]).to_csv(table, index=False)
    with pytest.raises(MitolumeError, match="needs a mask, or"):
        run_of(table, tmp_path / "run")
    for role in ("unlabelled", "test"):  # a test image is not scored against its dye as well
        pd.concat([rows, rows.assign(mask="", role=role)]).to_csv(table, index=False)
        with pytest.raises(MitolumeError, match="is also in line 2"):
            run_of(table, tmp_path / "run")
    both = pd.concat([rows, rows.assign(mask="")])
    both.assign(role="test").to_csv(table, index=False)
    with pytest.raises(MitolumeError, match=r"plane 0 of f0\.ome\.tif is also in line 2"):
        run_of(table, tmp_path / "run")


def test_a_budget_of_no_outlines_learns_from_the_dye_alone(tmp_path: Path) -> None:
    rows = [{"role": "train", "outlined": True}] * 3 + [{"role": "test", "outlined": True}]
    run = computed(table_of(tmp_path / "data", *rows), tmp_path / "run", "labels=0")
    assert [row.label for row in run.rows] == ["dye"] * 3 + [""]
    assert rerun(run.path, tmp_path / "again", quiet=True) == ([], []), "from its own table, too"


def crowd(folder: Path, *shifts: int, noise: float = 6) -> Path:
    """Write fields of many mitochondria whose dye lies too low, and their table."""
    for number, shift in enumerate(shifts):
        rng = np.random.default_rng(number)
        mask = np.zeros((300, 260), bool)
        y, x = np.mgrid[:300, :260]
        for cy, cx in rng.uniform(0, (300, 260), (80, 2)):
            mask |= (y - cy) ** 2 / 2 + (x - cx) ** 2 < rng.uniform(9, 25)
        light = (
            100
            + 60 * ndimage.gaussian_filter(mask.astype(float), 1)
            + rng.normal(0, noise, mask.shape)
        )
        dye = 100 + 1000 * ndimage.gaussian_filter(mask.astype(float), 1.5)
        channels = np.stack(
            [light[40:-40, 20:-20], rng.poisson(dye)[40 - shift : 260 - shift, 20:-20]]
        )
        image = xr.DataArray(
            channels.astype(np.uint16),
            dims=("C", "Y", "X"), coords={"C": ["BF", "Mito"]}, attrs={"pixel_size_um": SIZE},
        )  # fmt: skip
        write_image(folder / f"c{number}.ome.tif", image)
    rows = [f"c{number}.ome.tif,BF,Mito,train" for number in range(len(shifts))]
    (folder / "crowd.csv").write_text("\n".join(["image,channel,fluorescence,role", *rows]) + "\n")
    return folder / "crowd.csv"


def masks_of(table: Path, folder: Path, *, align: bool) -> tuple[list[Field], pd.DataFrame, str]:
    """Make masks as a run does before it trains; the notices as one text."""
    rows, quality, said = label_rows(
        check_table(table).fields, folder, DyeSettings(align=align), "unsure"
    )
    return rows, quality, " ".join(said)


def mask_in(row: Field) -> np.ndarray:
    assert row.mask
    return np.asarray(read(row.mask)).squeeze()


def test_a_shifted_dye_is_named_and_moved_back_on_request(tmp_path: Path) -> None:
    table = crowd(tmp_path, 3, 3)
    as_it_is, quality, _ = masks_of(table, tmp_path / "a", align=False)
    np.testing.assert_allclose(quality[["shift_y_um", "shift_x_um"]], [[0.15, 0]] * 2)
    moved, _, said = masks_of(table, tmp_path / "b", align=True)
    assert "masks of 2 planes moved back" in said
    one, other = mask_in(as_it_is[0]), mask_in(moved[0])
    np.testing.assert_array_equal(other[:-3], one[3:])
    assert (other[-3:] == 255).all()


def test_a_dye_shifted_in_some_images_alone_is_left_out(tmp_path: Path) -> None:
    table = crowd(tmp_path, 0, 6, 0, 36)
    used, quality, said = masks_of(table, tmp_path / "a", align=False)
    assert [row.image.name for row in used] == ["c0.ome.tif", "c2.ome.tif"]
    assert "4 planes with the dye's channel, 2 used, because the dye lies more than 1.5 µm" in said
    assert "in c3.ome.tif; the dye lies 0.2 µm or more from" in said
    np.testing.assert_allclose(quality["shift_y_um"], [0, 0.3, 0, 1.8], atol=0.051)
    moved, _, _ = masks_of(table, tmp_path / "b", align=True)
    assert [row.image.name for row in moved] == ["c0.ome.tif", "c1.ome.tif", "c2.ome.tif"]
    assert (mask_in(moved[1])[-5:] == 255).all()


@pytest.mark.parametrize("scatter", [0, 3])
def test_a_small_shift_is_told_where_the_others_scatter_less(
    monkeypatch: pytest.MonkeyPatch, scatter: int
) -> None:
    found = [(scatter * (-1) ** n, 0, 1.0) for n in range(8)] + [(6, 0, 1.0), (np.nan,) * 3]
    rows = [Field(Path("a"), mask=Path(str(n))) for n in range(10)]
    quality = pd.DataFrame({"mask": [str(n) for n in range(10)], "moved": False})
    monkeypatch.setattr(dye_checks, "open_fluorescence", lambda row: None)
    monkeypatch.setattr(dye_checks, "plane_pixel_size", lambda image: (0.05, 0.05))
    monkeypatch.setattr(dye_checks, "_depth_um", lambda row: np.nan)
    monkeypatch.setattr(dye_checks, "_fit", lambda row, *_: row.mask.name)
    monkeypatch.setattr(
        dye_checks,
        "shift_of",
        lambda fits, *_: found[int(fits[0])] if len(fits) == 1 else (0, 0, 0.0),
    )
    dye_checks.measure_shifts(rows, quality, move=False)
    assert quality["shift_y_um"][8] == pytest.approx(0 if scatter else 0.3)
    assert quality["shift_y_um"][9] == 0, "unknown: as the others"


@pytest.mark.parametrize(("planes", "named"), [(0, False), (-2, True), (2, True)])
def test_a_dye_of_other_heights_is_named(tmp_path: Path, planes: int, named: bool) -> None:
    for number in range(3):
        rng = np.random.default_rng(number)
        y, x = np.mgrid[:120, :120]
        z = np.arange(7)[:, None, None]
        dye, light = np.full((2, 7, 120, 120), 100.0)
        for cy, cx, height in rng.uniform(0, (120, 120, 7), (60, 3)):
            spot = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 12)
            dye += 1000 * spot * np.exp(-((z + planes - height) ** 2) / 0.8)
            light += 60 * spot * np.exp(-((z - height) ** 2) / 4)
        image = xr.DataArray(
            rng.poisson([light, dye]).astype(np.uint16), dims=("C", "Z", "Y", "X"),
            coords={"C": ["BF", "Mito"]}, attrs={"pixel_size_um": SIZE | {"Z": 0.5}},
        )  # fmt: skip
        write_image(tmp_path / f"s{number}.ome.tif", image)
    rows = [f"s{number}.ome.tif,BF,Mito,train,3" for number in range(3)]
    names = "image,channel,fluorescence,role,planes"
    (tmp_path / "s.csv").write_text("\n".join([names, *rows]) + "\n")
    _, quality, said = masks_of(tmp_path / "s.csv", tmp_path / "masks", align=False)
    assert quality["used"].all()
    assert ("recorded at the same heights?" in said) is named
    assert not planes or (np.sign(quality["shift_z_um"]) == np.sign(planes)).all()


def test_a_shift_that_no_image_tells_alone_is_told_by_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = crowd(tmp_path, *[6] * 5, noise=30)
    _, together, said = masks_of(table, tmp_path / "a", align=False)
    np.testing.assert_allclose(together["shift_y_um"], 0.3, atol=0.051)
    assert "5 planes with the dye's channel, 0 used" in said
    monkeypatch.setattr(dye_checks, "FEWEST_TOLD", 6)
    _, alone, _ = masks_of(table, tmp_path / "b", align=False)
    assert alone["shift_y_um"].isna().sum() == 4


def test_the_threshold_is_chosen_on_outlines_to_learn_from_alone(tmp_path: Path) -> None:
    rows = [
        {"role": "train", "outlined": True},
        {"role": "train"},
        {"role": "test", "outlined": True},
    ]
    table = table_of(tmp_path, *rows)

    def ends(*drawn_wider: int) -> float:
        for number in (0, 2):
            mask = dyed(number)[1]
            if number in drawn_wider:
                mask = ndimage.binary_dilation(mask, iterations=3).astype(np.uint8)
            write_mask(tmp_path / f"f{number}_mask.ome.tif", xr.DataArray(mask, dims=("Y", "X")))
        _, _, said = masks_of(table, tmp_path / "out", align=False)
        return float(said.split("end at ")[1][:4])

    usual = ends()
    assert ends(0) < usual - 0.05
    assert ends(2) == usual


def test_what_can_not_be_labelled_is_said(tmp_path: Path) -> None:
    rows = [{"role": "train", "outlined": True, "dye": False}, {"role": "unlabelled", "dye": False}]
    table = table_of(tmp_path / "data", *rows)
    with pytest.raises(MitolumeError, match=r"no row of .* to learn from has its"):
        run_of(table, tmp_path / "a", "unlabelled.teacher=dye")
    table.write_text("image,channel,fluorescence\nf0.ome.tif,BF,Mitos\n")
    with pytest.raises(MitolumeError, match="no channel 'Mitos'"):
        run_of(table, tmp_path / "b")
    table.write_text("image,channel,fluorescence\nf0.ome.tif,BF,dye/f0.tif\n")
    with pytest.raises(MitolumeError, match=r"fluorescence dye/f0.tif does not exist"):
        run_of(table, tmp_path / "b")
    table = table_of(tmp_path / "dark", {"brightness": 0}, {"brightness": 0})
    for _ in range(2):  # what was begun is no hindrance, though masks were made already
        with pytest.raises(MitolumeError, match="0 used, because there is no dye"):
            run_of(table, tmp_path / "b")
    assert (tmp_path / "b" / "dye").exists()
    table.write_text("image,channel,role\nf0.ome.tif,BF,train\n")
    with pytest.raises(MitolumeError, match="needs a mask, or the mitochondria's fluorescence"):
        run_of(table, tmp_path / "c")


def test_label_writes_masks_figures_and_a_table_to_train_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, brightness in enumerate((1000.0, 1000.0, 0.0)):
        write_dyed(tmp_path, f"f{number}", number, outlined=False, brightness=brightness)
    files = [tmp_path / f"f{number}.ome.tif" for number in range(3)]
    out = tmp_path / "out"
    assert call(monkeypatch, "label", *files, "--channel", "mito", "--out", out) == 0
    assert (
        "3 planes with the dye's channel, 2 used, because there is no dye"
        in capsys.readouterr().out
    )
    assert list(pd.read_csv(out / "quality.csv")["has_dye"]) == [True, True, False]
    assert (np.asarray(read(out / "f2_mask.ome.tif")) == 255).all()
    rows = read_table(out / "fields.csv")
    assert [(row.image, row.label, row.channel) for row in rows] == [
        (file, "dye", "BF") for file in files[:2]
    ]
    assert (out / "sheet.png").stat().st_size > 10_000
    assert len(begun(out / "fields.csv", tmp_path / "run").rows) == 2


def test_files_of_one_name_are_labelled_after_their_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, condition in enumerate(("control", "FCCP")):
        (tmp_path / condition).mkdir()
        write_dyed(tmp_path / condition, "dish1", number, outlined=False)
    folders = tmp_path / "control", tmp_path / "FCCP"
    asked = "label", *folders, "--channel", "Mito", "--out", tmp_path / "out"
    assert call(monkeypatch, *asked) == 0
    rows = read_table(tmp_path / "out" / "fields.csv")
    assert [row.specimen for row in rows] == ["control_dish1", "FCCP_dish1"]
    assert [row.condition for row in rows] == ["control", "FCCP"], "guessed from their names"
    names = ["control_dish1_mask.ome.tif", "FCCP_dish1_mask.ome.tif"]
    assert [row.mask.name for row in rows if row.mask] == names
    assert call(monkeypatch, *asked, "--resume") == 0


def test_scenes_are_named_on_the_sheet_and_in_what_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, dark = dyed(0)[0], dyed(1, 0.0)[0]
    scenes = {"A1": ("CYX", whole), "A2": ("YX", whole[0]), "A3": ("CYX", dark)}
    write_lif(tmp_path / "plate.lif", scenes, channels=("BF", "Mito"), size_um=SIZE)
    titles: list[str] = []
    monkeypatch.setattr(label, "write_figure", lambda path, figure, dpi: titles.extend(
        part.get_suptitle().split(":")[0] for part in figure.subfigs
    ))  # fmt: skip
    asked = ("label", tmp_path / "plate.lif", "--scene", "all", "--channel", "Mito", "--out")
    assert call(monkeypatch, *asked, tmp_path / "out") == 1
    said = capsys.readouterr()
    assert "3 images found, 2 labelled; the others failed" in said.err
    assert "plate.lif (scene A2) has no channel" in said.err
    assert "noise) in plate.lif (scene A3)" in said.out
    assert titles == [f"plate.lif (scene {name}), plane 0" for name in ("A3", "A1")]
    assert list(pd.read_csv(tmp_path / "out" / "quality.csv")["scene"]) == ["A1", "A3"]


def test_label_pairs_files_of_one_channel_each_and_loses_no_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = read(write_dyed(tmp_path, "whole", 0, outlined=False))
    data, out = tmp_path / "data", tmp_path / "out"
    for name in ("BF", "Mito"):
        one = whole.sel(C=[name]).assign_coords(C=["Channel:0"])
        write_image(data / f"a_{name}.ome.tif", one)
    asked = ("label", data, "--channel", "Mito", "--out")
    assert call(monkeypatch, *asked, out, "--light", "BF") == 0
    said = capsys.readouterr()
    assert "1 file taken as other channels of those named Mito" in said.err
    (row,) = read_table(out / "fields.csv")
    assert (row.image, row.fluorescence) == (data / "a_BF.ome.tif", data / "a_Mito.ome.tif")
    assert call(monkeypatch, *asked, out) == 1
    assert "fields.csv exists already" in capsys.readouterr().err
    for _ in range(2):  # the sheet and the masks in the folder are not taken for images
        assert call(monkeypatch, *asked, data, "--overwrite") == 0
    assert "no transmitted light found for 1 image, which" in capsys.readouterr().err
    assert not (data / "fields.csv").exists()
    assert call(monkeypatch, *asked, tmp_path / "no", "--planes", "first") == 1
    assert "planes 'first' can't be read" in capsys.readouterr().err


def test_the_dye_is_not_trained_on_as_if_it_were_the_image(tmp_path: Path) -> None:
    table = table_of(tmp_path / "data", {"dye": True})
    table.write_text("image,channel,fluorescence\nf0.ome.tif,Mito,mito\n")
    with pytest.raises(MitolumeError, match="the image to segment is the fluorescence itself"):
        run_of(table, tmp_path / "run")


def test_the_page_says_where_masks_come_from(tmp_path: Path) -> None:
    rows = [{"role": "train", "outlined": True}, {"role": "unlabelled"}, {"role": "test"}]
    run = run_of(table_of(tmp_path / "data", *rows), tmp_path / "run", "inputs.planes=3",
                 "inputs.channels=[BF, Mito]")  # fmt: skip
    page = run.report_file.read_text(encoding="utf-8")
    single = "f0.ome.tif, f1.ome.tif, f2.ome.tif: a single plane"
    for sentence in (
        single,
        "the network sees the dye that",
        "with the dye&#39;s channel, 3 used",
        "mask made from the dye",
        "can be foretold",
    ):
        assert sentence in page
    assert "labelled by model 1" not in page
    assert "n_undefined" not in page


def test_label_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [write_dyed(tmp_path, f"f{n}", n, outlined=False) for n in range(3)]
    whole, out = tmp_path / "whole", tmp_path / "out"
    asked = ("label", *files, "--channel", "mito", "--out")
    assert call(monkeypatch, *asked, whole) == 0
    capsys.readouterr()
    label_row, made = label.label_row, []

    def stopped(row: Field, path: Path, threshold: float) -> list[dict[str, Any]]:
        if len(made) == 1:
            raise KeyboardInterrupt
        made.append(path)
        return label_row(row, path, threshold)

    monkeypatch.setattr(label, "label_row", stopped)
    assert call(monkeypatch, *asked, out) == 130
    made.append(made[0])  # now it goes on
    assert call(monkeypatch, *asked, out) == 1
    assert "skip what is done with --resume" in capsys.readouterr().err
    assert call(monkeypatch, *asked, out, "--resume", "--threshold", "0.5") == 1
    assert "was made with threshold 0.37, not 0.5" in capsys.readouterr().err
    assert call(monkeypatch, *asked, out, "--resume") == 0
    assert [path.name for path in made[2:]] == ["f1_mask.ome.tif", "f2_mask.ome.tif"]
    assert "3 planes with the dye's channel, 3 used" in capsys.readouterr().out
    for name in ("quality.csv", "fields.csv"):
        assert (out / name).read_text("utf-8") == (whole / name).read_text("utf-8")
    # What was filled in stays, and an image that has changed is labelled again.
    text = (out / "fields.csv").read_text("utf-8").replace(",f0,", ",dish 7,").splitlines()
    (out / "fields.csv").write_text("\n".join(text[:2]) + "\n", "utf-8")
    write_dyed(tmp_path, "f2", 3, outlined=False)
    assert call(monkeypatch, *asked, out, "--resume") == 0
    said = capsys.readouterr().err
    assert [path.name for path in made[4:]] == ["f2_mask.ome.tif"]
    assert "was filled in since and is left as it is; it lacks f1.ome.tif, f2.ome.tif" in said
    assert [row.specimen for row in read_table(out / "fields.csv")] == ["dish 7"]
    assert list(pd.read_csv(out / "quality.csv")["used"]) == [True] * 3


def test_signals_of_dyes_belong_to_images_and_not_to_their_names(tmp_path: Path) -> None:
    """As the window shows them beside the fields: there are two images called a.tif."""
    for name in ("d1/a.tif", "d2/a.tif", "d1/b.tif", "d1_mask.tif", "d2_mask.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    lines = ["image,mask,label"] + [f"{day}/a.tif,{day}_mask.tif,dye" for day in ("d1", "d2")]
    (tmp_path / "fields.csv").write_text("\n".join([*lines, "d1/b.tif,,"]) + "\n")
    figures = [f"a.tif,0,{day}_mask.tif,{signal}" for day, signal in (("d1", 8), ("d2", 40))]
    quality = ["image,plane,mask,signal_to_noise", *figures, "b.tif,1,,5"]
    (tmp_path / "quality.csv").write_text("\n".join(quality) + "\n")
    table = LabelTable(tmp_path / "fields.csv")
    signals = {(image.relative_to(tmp_path).as_posix(), z): signal
               for (image, z), signal in table.signals().items()}  # fmt: skip
    assert signals == {("d1/a.tif", 0): 8, ("d2/a.tif", 0): 40, ("d1/b.tif", 1): 5}
