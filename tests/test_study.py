"""Recipes and whole runs: every file of the run folder, resuming, and what may not happen."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
import xarray as xr
import yaml
from helpers.command import Shell, call
from helpers.fields import TINY, blobs, tiny, write_field, write_table_of_fields
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

import mitolume
from mitolume.batch.agreement import agree
from mitolume.errors import CollapsedError, MitolumeError
from mitolume.inference.predictor import Predictor
from mitolume.io.check import check_table
from mitolume.io.fields import Field, row_names
from mitolume.io.lock import is_locked, only_one
from mitolume.io.read import read, read_plane
from mitolume.io.table import read_table, write_table
from mitolume.io.write import write_image, write_mask
from mitolume.progress import Watcher, watched
from mitolume.report.run_page import report_run
from mitolume.runs.begin import begin, resume
from mitolume.runs.folder import Run
from mitolume.runs.guard import choose_kept, two_halves
from mitolume.runs.pace import planned_work
from mitolume.runs.recipe import PRESETS, load_recipe
from mitolume.runs.rerun import circumstances, differences_of_results
from mitolume.runs.results import value_of
from mitolume.training.methods import NoisyStudent
from mitolume.training.patches import ArrayFile, Image


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of one finished run."""
    folder = tmp_path_factory.mktemp("finished")
    table = write_table_of_fields(folder)
    return mitolume.run(tiny(table), folder / "run", quiet=True)


def notices(run: Path) -> list[str]:
    return list(json.loads((run / "run.json").read_text())["notices"])


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_complete_and_written_back_equal(preset: str, tmp_path: Path) -> None:
    recipe = load_recipe(preset=preset, fields="fields.csv")
    assert recipe.arm == preset
    (tmp_path / "r.yaml").write_text(recipe.to_yaml())
    again = load_recipe(tmp_path / "r.yaml")
    assert again.model_copy(update={"fields": Path("fields.csv")}) == recipe


def test_the_paper_preset_has_the_published_settings() -> None:
    recipe = load_recipe(preset="paper", fields="f.csv")
    t = recipe.training
    assert (t.epochs, t.steps, t.batch, t.learning_rate, t.loss) == (100, None, 4, 0.002, "bce")
    assert (t.average, recipe.views) == (0, 1)
    assert (recipe.network.width, recipe.chain.sharpen, recipe.threshold) == (64, "unlabelled", 0.5)


def test_files_go_over_presets_and_set_goes_over_files(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("fields: sub/f.csv\ntraining: {steps: 7}\nlabels: 16\n")
    recipe = load_recipe(tmp_path / "r.yaml", settings=["network.width=32", "training.epochs=3"])
    assert recipe.fields == tmp_path / "sub" / "f.csv"
    assert recipe.labels == 16
    assert recipe.network.width == 32
    assert (recipe.training.steps, recipe.training.epochs) == (None, 3)
    assert recipe.training.batch == load_recipe(fields="f").training.batch


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fields: f.csv\nnetwrk: {width: 3}", "unknown key 'netwrk': did you mean 'network'"),
        (
            "fields: f.csv\ntraining: {batchs: 3}",
            r"'training\.batchs': did you mean 'training\.batch'",
        ),
        ("fields: f.csv\ntraining: {patch: 30}", r"training\.patch is 30: .*multiple of 16"),
        (
            "fields: f.csv\nmethod: magic",
            "method is 'magic': .*'supervised', 'pseudo_label'",
        ),
        ("fields: f.csv\nlabels: many", "labels is 'many'"),
        ("fields: f.csv\nlabels: -2", "labels is -2: .*greater than or equal to 0"),
        ("fields: f.csv\nthreshold: 50", "threshold is 50: .*less than 1"),
        ("fields: f.csv\ntraining: {patch: 16, batch: 1}", "needs a batch of 2"),
        ("fields: f.csv\nunlabelled: {start: random}", "`start` is no longer a setting"),
        ("fields: f.csv\ntraining: {batch: 1}", "training.batch is 1: noisy_student fills half"),
        ("fields: f.csv\nsplit: {test: 0.6, validation: 0.5}", "leave nothing to train on"),
        ("labels: 3", "names no table of fields"),
        ("- a\n- b", "holds no `key: value` lines; a table of fields is named with --fields"),
        ("a: [", "is not a readable YAML recipe"),
        ("preset: papr\nfields: f.csv", "no preset 'papr'; there are default, quick, paper"),
    ],
)
def test_faults_of_a_recipe_are_one_clear_sentence(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(MitolumeError, match=message):
        load_recipe(tmp_path / "r.yaml")


def test_what_was_a_setting_may_ask_for_what_is_done_anyway(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("fields: f.csv\nunlabelled: {start: teacher, weight: 1}\n")
    now = load_recipe(fields=tmp_path / "f.csv")
    assert load_recipe(tmp_path / "r.yaml").unlabelled == now.unlabelled


def test_a_run_leaves_all_that_was_promised(finished: Path) -> None:
    expected = {
        "recipe.yaml", "run.json", "fields.csv", "model_1", "model_2", "kept.json", "masks",
        "results.csv", "images.csv", "report.html", "methods.md", "log.csv",
        "audit.csv", "audit_conditions.csv",
        ".lock",
    }  # fmt: skip
    assert {p.name for p in finished.iterdir()} == expected
    for model in ("model_1", "model_2"):
        assert {p.name for p in (finished / model).iterdir()} == {
            "card.json", "weights.safetensors"}  # fmt: skip
        assert len(list((finished / "masks" / model).iterdir())) == 10
    record = json.loads((finished / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["n_images"] == {"train": 3, "validation": 3, "test": 2, "unlabelled": 2}
    assert len(record["sha256"]) == 18
    log = pd.read_csv(finished / "log.csv")
    assert log.groupby("model")["step"].max().to_dict() == {"model_1": 8, "model_2": 4}


def test_scores_are_those_of_the_masks_on_disk(finished: Path) -> None:
    images = pd.read_csv(finished / "images.csv")
    results = pd.read_csv(finished / "results.csv")
    assert len(images) == 2 * 10
    assert images[images["subset"] == "unlabelled"]["tp"].isna().all()
    tests = images[(images["subset"] == "test") & (images["model"] == "model_2")]
    tp = union = 0
    for number in (6, 7):
        name = f"f{number}"
        mask = read_plane(read(finished / "masks" / "model_2" / f"{name}_mask.ome.tif"))
        truth = blobs(number)[1]
        found = tests[tests["image"] == f"{name}.ome.tif"].iloc[0]
        assert found["tp"] == (mask & truth).sum()
        tp += (mask & truth).sum()
        union += (mask | truth).sum()
    assert value_of(results, "model_2", "test", "iou") == pytest.approx(tp / union)
    part = results[(results["subset"] == "test") & (results["metric"] == "iou")].iloc[0]
    assert (part["n_images"], part["n_specimens"], part["k"]) == (2, 2, 3)


def test_cards_say_where_a_model_comes_from(finished: Path) -> None:
    card = json.loads((finished / "model_2" / "card.json").read_text())
    assert card["method"] == "noisy_student"
    assert card["pixel_size_um"] == pytest.approx(0.1)
    assert [f["role"] for f in card["fields"]] == ["train"] * 3 + ["unlabelled"] * 2
    assert len(card["fields"][0]["sha256"]) == 64
    assert card["scores"]["test"]["n_images"] == 2
    loaded = mitolume.load(finished)
    assert loaded.card.name in ("default model 1", "default model 2")


def test_the_report_can_be_written_anew_and_names_the_run(finished: Path) -> None:
    before = (finished / "report.html").read_bytes()
    (finished / "report.html").unlink()
    page = report_run(finished).read_text()
    assert before == page.encode(), "the first one was written when all was known"
    assert "Model 1" in page
    assert "FCCP" in page
    assert "<h1>run: 8 labelled images of 8 specimens, 20" in page
    assert "By condition" not in page, "all test images are of one condition"
    assert "No test image shows how right it is on FCCP." in page
    methods = Run(finished).methods_file.read_text(encoding="utf-8")
    own = methods.partition("## What")[0].split("\n\n")
    assert not [paragraph for paragraph in own if "\n" in paragraph.strip()]
    assert methods.count("was kept") == 1
    for words in ("U-Net of width 4", "8 steps of 2 patches of 32 px", "foreground IoU of 0."):
        assert words in methods
    assert "&" not in methods


def test_the_report_keeps_how_far_two_annotators_agree(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data" / "run"
    shutil.copytree(finished.parent, tmp_path / "data")
    table = tmp_path / "anna_and_ben.csv"
    agree(
        tmp_path / "data" / "f0_mask.ome.tif", tmp_path / "data" / "f1_mask.ome.tif"
    ).planes.to_csv(table, index=False)
    with pytest.raises(MitolumeError, match="no such file"):
        report_run(folder, tmp_path / "nothing.csv")
    assert not Run(folder).ceiling_file.exists()
    for more in (["--ceiling", table], []):
        assert call(monkeypatch, "report", folder, *more) == 0
        page = (folder / "report.html").read_text(encoding="utf-8")
        # In the captions of two charts, which are their alternative texts, too.
        assert page.count("Dotted: two annotators agree to ") == 2 * 2
        assert Run(folder).ceiling_file.read_bytes() == table.read_bytes()
    with pytest.raises(MitolumeError, match="holds no run"):
        report_run(tmp_path, table)
    assert not Run(tmp_path).ceiling_file.exists()


def test_a_used_folder_is_not_written_over(finished: Path, table: Path, tmp_path: Path) -> None:
    with pytest.raises(MitolumeError, match="already holds a run; continue it with --resume"):
        mitolume.run(tiny(table), finished)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.txt").write_text("")
    with pytest.raises(MitolumeError, match="exists and is not empty"):
        mitolume.run(tiny(table), tmp_path / "used")
    with pytest.raises(MitolumeError, match=r"other settings \(seed was 0 and is 3\)"):
        mitolume.run(tiny(table, "seed=3"), finished, resume=True)
    assert mitolume.run(None, finished, resume=True, quiet=True) == finished


def test_a_run_repeated_from_its_folder_is_the_same(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    again = tmp_path / "again"
    assert call(monkeypatch, "rerun", finished, "--out", again, "--quiet") == 0
    assert f"{again} is the same as {finished}: data, weights and" in capsys.readouterr().out
    for model in ("model_1", "model_2"):
        first, second = (load_file(f / model / "weights.safetensors") for f in (finished, again))
        assert all(np.array_equal(first[name], second[name]) for name in first)
    assert (again / "results.csv").read_bytes() == (finished / "results.csv").read_bytes()
    other = shutil.copytree(finished, finished.with_name("other"))  # images are seen from there
    record = json.loads((other / "run.json").read_text())
    assert re.fullmatch("[0-9a-f]{40}(-dirty)?|none", record["versions"].get("commit", "none"))
    record["versions"]["torch"] = "1.0"
    record["sha256"] |= dict.fromkeys(list(record["sha256"])[:1], "0")
    (other / "run.json").write_text(json.dumps(record))
    shutil.copy(other / "model_2" / "weights.safetensors", other / "model_1")
    table = pd.read_csv(other / "results.csv")
    table.loc[:4, "value"] = 0.123
    table.to_csv(other / "results.csv", index=False)
    assert circumstances(Run(other), Run(again)) == [f"torch was 1.0 and is {torch.__version__}"]
    found = "; ".join(differences_of_results(Run(other), Run(again)))
    for part in ("1 file of the data changed: ", "the weights of model 1 are others",
                 " was 0.123 and is ", "2 more scores differ"):  # fmt: skip
        assert part in found
    shutil.rmtree(other)


def test_without_validation_test_or_unlabelled_rows_the_run_says_so(
    table: Path, tmp_path: Path
) -> None:
    lines = table.read_text().splitlines()
    table.write_text("\n".join(lines[:3]) + "\n")
    folder = mitolume.run(tiny(table), tmp_path / "run", quiet=True)
    notices = " ".join(json.loads((folder / "run.json").read_text())["notices"])
    for part in ("no validation images", "no test images", "model 2 is not trained"):
        assert part in notices
    assert not (folder / "model_2").exists()
    results = pd.read_csv(folder / "results.csv")
    assert set(results["subset"]) == {"train"}
    page = (folder / "report.html").read_text()
    assert "no test score" in page.lower()
    verdict = page[page.index('class="verdict"') : page.index("</header>")]
    assert "no score says how well new images are segmented" in verdict
    assert "IoU" not in verdict


def test_files_that_changed_since_are_noticed(table: Path, tmp_path: Path) -> None:
    begin(tmp_path / "run", tiny(table), quiet=True)
    write_field(table.parent, "f0", 99)
    with pytest.raises(MitolumeError, match=r"f0.ome.tif has changed since"):
        mitolume.run(None, tmp_path / "run", resume=True, quiet=True)


def test_a_resumed_run_keeps_the_drawn_roles_and_the_models_pixel_size(tmp_path: Path) -> None:
    sizes = [0.1, 0.1, 0.1, 0.2, 0.2, 0.2, 0.2]
    for number, size in enumerate(sizes):
        write_field(tmp_path, f"f{number}", number, pixel_size=size)
    rows = [f"f{n}.ome.tif,f{n}_mask.ome.tif" for n in range(len(sizes))]
    (tmp_path / "fields.csv").write_text("\n".join(["image,mask", *rows]))
    for seed in range(3):
        recipe = tiny(tmp_path / "fields.csv", f"split.seed={seed}")
        folder = begin(tmp_path / f"run{seed}", recipe, quiet=True)
        again = resume(tmp_path / f"run{seed}", recipe, quiet=True)
        trained = [r for r in folder.table.fields if r.role == "train"]
        expected = np.median([sizes[int(r.image.name[1])] for r in trained])
        assert folder.record["pixel_size_um"] == pytest.approx(expected)
        assert again.record == folder.record
        assert [r.role for r in again.table.fields] == [r.role for r in folder.table.fields]


def test_a_run_and_its_images_can_be_moved_together(
    finished: Path, tmp_path: Path, shell: Shell
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(finished.parent, moved)
    (moved / finished.name / "report.html").unlink()
    mitolume.run(tiny(moved / "fields.csv"), moved / finished.name, resume=True, quiet=True)
    assert (moved / finished.name / "report.html").exists()
    shutil.copy(moved / "fields.csv", moved / "others.csv")
    with pytest.raises(MitolumeError, match="was begun with the table"):
        mitolume.run(tiny(moved / "others.csv"), moved / finished.name, resume=True, quiet=True)
    # Gone or edited, the table is not looked at again: a run has its own copy.
    (moved / "fields.csv").write_text("image\ngone.tif\n")
    settings = [word for one in TINY for word in ("--set", one)]
    for table, said in (("fields.csv", "report: "), ("gone.csv", "was begun with the table")):
        again = ("run", "--fields", moved / table, *settings, "--resume", "--quiet")
        assert said in shell(*again, "--out", moved / finished.name, code="begun" in said)


def test_links_and_other_ways_to_a_file_are_the_same_file(table: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (tmp_path / "f0.ome.tif").rename(store / "ab12cd")
    (tmp_path / "f0.ome.tif").symlink_to(store / "ab12cd")
    begin(tmp_path / "run", tiny(table), quiet=True)
    (tmp_path / "link").symlink_to(tmp_path)
    assert not resume(tmp_path / "link" / "run", None, quiet=True).is_finished
    (store / "ab12cd").write_bytes(write_field(tmp_path, "other", 99)[0].read_bytes())
    with pytest.raises(MitolumeError, match=r"f0\.ome\.tif has changed since"):
        resume(tmp_path / "link" / "run", None, quiet=True)


def test_supervised_runs_have_one_model_and_u_net_plus_plus_runs_too(
    table: Path, tmp_path: Path
) -> None:
    recipe = tiny(table, "method=supervised", "network.name=unetplusplus", "training.steps=2")
    folder = mitolume.run(recipe, tmp_path / "run", quiet=True)
    assert not (folder / "model_2").exists()
    assert json.loads((folder / "kept.json").read_text())["kept"] == "model_1"
    assert set(pd.read_csv(folder / "results.csv")["network"]) == {"unetplusplus"}


def test_the_paper_preset_runs_narrowed_and_says_so(table: Path, tmp_path: Path) -> None:
    narrowed = ["network.width=4", "training.epochs=2", "training.patch=32"]
    recipe = load_recipe(preset="paper", fields=table, settings=narrowed)
    folder = mitolume.run(recipe, tmp_path / "run", quiet=True)
    record = json.loads((folder / "run.json").read_text())
    assert "scores are not those of the study" in " ".join(record["notices"])
    assert (record["model_1"]["steps"], record["model_2"]["steps"]) == (2, 2)
    assert record["model_1"]["threshold"] == 0.5


def test_many_images_need_few_open_files(tmp_path: Path) -> None:
    file = ArrayFile(tmp_path / "arrays", np.float32)
    arrays = [np.full((2, n % 5 + 1), n) for n in range(3000)]
    for array in arrays:
        file.append(array)
    back = file.read_all()
    assert len(back) == 3000
    assert all(np.array_equal(a, b) for a, b in zip(arrays, back, strict=True))


def test_every_row_has_a_mask_file_of_its_own(tmp_path: Path) -> None:
    rows = [Field(tmp_path / f / n) for f, n in
            (("x", "a.tif"), ("y", "A.tif"), ("z", "a_1.tif"), ("z", "b.tif"))]  # fmt: skip
    assert row_names(rows) == ["x_a", "y_A", "a_1", "b"]
    deep = ("d/FCCP/1.tif", "e/FCCP/1.tif", "c/FCCP_1.tif", "f/1.png")
    assert row_names([Field(tmp_path / name) for name in deep]) == [
        "d_FCCP_1",
        "e_FCCP_1",
        "c_FCCP_1",
        "f_1",
    ]
    twins = [Field(tmp_path / "a.tif"), Field(tmp_path / "a.png")]
    assert row_names(twins) == ["a_1", "a_2"]


def test_masks_of_old_runs_keep_their_names(tmp_path: Path) -> None:
    """Images of one name were numbered before their folders told them apart."""
    for name in ("x/a.tif", "y/a.tif", "masks/model_1/a_1_mask.ome.tif",
                 "masks/model_1/a_2_mask.ome.tif"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "fields.csv").write_text("image\nx/a.tif\ny/a.tif\n")
    assert Run(tmp_path).row_names == ["a_1", "a_2"]
    (tmp_path / "masks/model_1/a_2_mask.ome.tif").unlink()
    assert Run(tmp_path).row_names == ["x_a", "y_a"]


def test_two_processes_in_one_folder_are_refused(table: Path, tmp_path: Path) -> None:
    with only_one(tmp_path / "run"), pytest.raises(MitolumeError, match="another mitolume"):
        mitolume.run(tiny(table), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_looking_whether_a_folder_is_locked_keeps_no_one_out(tmp_path: Path) -> None:
    with only_one(tmp_path):
        assert is_locked(tmp_path)
    (before,) = tmp_path.glob(".lock")  # never deleted: one may lock that file, another a new one
    inode = before.stat().st_ino
    looks = Thread(target=lambda: [is_locked(tmp_path) for _ in range(300)])
    looks.start()
    while looks.is_alive():
        with only_one(tmp_path):  # never busy
            pass
    assert before.stat().st_ino == inode
    assert not is_locked(tmp_path)


def test_lost_or_damaged_files_of_a_finished_run(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "run"
    shutil.copytree(finished.parent, tmp_path / "data")
    (folder / "report.html").unlink()
    mitolume.run(None, folder, resume=True, quiet=True)
    assert (folder / "report.html").exists()
    before = (folder / "results.csv").read_bytes()
    (folder / "results.csv").unlink()
    (folder / "log.csv").write_text("")
    with pytest.raises(MitolumeError, match="has not finished"):
        report_run(folder)
    (folder / "log.csv").write_bytes((finished / "log.csv").read_bytes())
    mitolume.run(None, folder, resume=True, quiet=True)
    assert (folder / "results.csv").read_bytes() == before
    names = ("kept.json", "results.csv", "images.csv", "audit.csv", "audit_conditions.csv")
    right = {name: (folder / name).read_bytes() for name in names}
    for name, content in right.items():
        for damage in (b"", b"[]", content[:40], content[:-9], content + b"\xff"):
            (folder / name).write_bytes(damage)
            with pytest.raises(MitolumeError, match=rf"damaged run: {name}.*--resume` makes it"):
                report_run(folder)
        assert not Run(folder).is_finished
        (folder / name).write_bytes(content)
    for name in right:
        (folder / name).write_bytes(b"[]")
    (folder / "folds" / "1").mkdir(parents=True)  # a kill came while it was removed
    (folder / "out_of_fold.json").write_text("{}")
    mitolume.run(None, folder, resume=True, quiet=True)
    assert {name: (folder / name).read_bytes() for name in right} == right
    assert not (folder / "folds").exists()
    (folder / "log.csv").write_bytes(b"[]")
    with pytest.raises(MitolumeError, match=r"damaged run: log\.csv.*put the file back"):
        report_run(folder)
    (folder / "run.json").write_text("{}")
    with pytest.raises(MitolumeError, match="damaged run: its record lacks"):
        mitolume.run(None, folder, resume=True)


def test_the_kept_model_is_chosen_by_validation_alone() -> None:
    def table(first: float, second: float, subset: str) -> pd.DataFrame:
        return pd.DataFrame(
            {"model": ["model_1", "model_2"], "subset": subset, "metric": "iou",
             "value": [first, second]}
        )  # fmt: skip

    names = ["model_1", "model_2"]
    assert choose_kept(table(0.5, 0.6, "validation"), names)[0] == "model_2"
    assert choose_kept(table(0.6, 0.6, "validation"), names)[0] == "model_1"
    kept, reason = choose_kept(table(0.1, 0.9, "test"), names)
    assert kept == "model_1"
    assert "no validation images" in reason


def test_recipes_are_plain_yaml(finished: Path) -> None:
    recipe = yaml.safe_load((finished / "recipe.yaml").read_text())
    assert recipe["fields"] == "fields.csv"
    assert recipe["training"]["precision"] == "float32"


def test_few_validation_images_leave_the_choice_to_images_not_seen(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here no image is kept aside at all."""
    lines = table.read_text().splitlines()
    left = [line for line in lines if ",validation," not in line and ",test," not in line]
    table.write_text("\n".join(left) + "\n")
    planned: list[dict[str, float]] = []
    monkeypatch.setattr(
        "mitolume.runs.run.planned_work",
        lambda run: planned.append(planned_work(run)) or planned[-1],
    )
    shown: dict[str, int] = {}
    watcher = Watcher(lambda title, *_: shown.update({title: len(shown)}), lambda: False)
    with watched(watcher):
        out = mitolume.run(tiny(table, "method=noisy_student"), tmp_path / "run", quiet=True)
    (work,) = (list(one) for one in planned)
    assert work == [title for title in shown if title in work], "the time left is foretold of them"
    assert len([title for title in work if title.endswith("to judge model 2")]) == 4
    found = json.loads((out / "out_of_fold.json").read_text())
    assert (found["n_images"], found["n_specimens"]) == (3, 3)
    kept = json.loads((out / "kept.json").read_text())
    assert kept["kept"] == ("model_2" if found["model_2"] > found["model_1"] else "model_1")
    assert "3 labelled images of 3 specimens, each predicted by models" in kept["reason"]
    assert not (out / "folds").exists()
    page, score = (out / "report.html").read_text(), found[kept["kept"]]
    assert f"IoU of {score:.3f} on 3 train images of 3 specimens, each predicted by" in page


def test_a_student_that_goes_astray_while_models_are_compared_is_not_kept(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def astray(*_: object) -> None:
        raise CollapsedError("model 2 came to find nothing")

    lines = table.read_text().splitlines()
    table.write_text("\n".join(line for line in lines if ",validation," not in line) + "\n")
    monkeypatch.setattr("mitolume.runs.guard._scores_of_halves", astray)
    out = mitolume.run(tiny(table), tmp_path / "run", quiet=True)
    kept = json.loads((out / "kept.json").read_text())
    assert kept["kept"] == "model_1"
    assert "half of the labelled images, to compare: model 2 came to find" in kept["reason"]
    assert (out / "model_2" / "card.json").exists(), "the run's own student did not go astray"


def test_planes_without_foreground_are_told_from_their_stack(tmp_path: Path) -> None:
    image, mask = blobs(0)
    planes = [mask * (z == 2) for z in range(5)]
    write_image(tmp_path / "stack.ome.tif", xr.DataArray(np.stack([image] * 5), dims=tuple("ZYX")))
    write_mask(tmp_path / "stack_mask.ome.tif", xr.DataArray(np.stack(planes), dims=tuple("ZYX")))
    table = tmp_path / "fields.csv"
    table.write_text("image,mask,role,planes\nstack.ome.tif,stack_mask.ome.tif,train,0-4\n")
    assert check_table(table).empty_planes == {(2, 0), (2, 1), (2, 3), (2, 4)}
    with pytest.raises(MitolumeError, match="no mask of a training image has a foreground pixel"):
        begin(tmp_path / "run", tiny(table, "labels=1"), quiet=True)  # the seed draws another plane


@given(st.lists(st.sampled_from("abcde"), min_size=2, max_size=12))
def test_halves_share_no_specimen(specimens: list[str]) -> None:
    halves = two_halves(specimens)
    assert set(halves) == {0, 1}
    if len(set(specimens)) > 1:
        assert all(len({h for s, h in zip(specimens, halves, strict=True) if s == name}) == 1
                   for name in specimens)  # fmt: skip


def test_model_2_learns_proposals_where_there_are_some(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its two unlabelled images one has a proposal, and model 1 labels the other.

    The student goes back to its teacher the whole way here, so that model 2 is model 1.
    """
    rows = read_table(table)
    plane = mitolume.read(rows[8].image).values[0, 0, 0]
    tifffile.imwrite(tmp_path / "p.tif", (plane > np.median(plane)).astype(np.uint8) * 255)
    rows[8] = replace(rows[8], proposal=tmp_path / "p.tif")
    table.unlink()
    write_table(table, rows)
    learnt, views = [], []
    label, predict = NoisyStudent.label, Predictor.predict_prepared

    def watched(self: NoisyStudent, probability: Image) -> Image:
        learnt.append(probability)
        return label(self, probability)

    def watched_views(self: Predictor, image: Image, n: int = 1) -> Image:
        views.append(n)
        return predict(self, image, n)

    monkeypatch.setattr(NoisyStudent, "label", watched)
    monkeypatch.setattr(Predictor, "predict_prepared", watched_views)
    monkeypatch.setattr("mitolume.runs.learn.average_with_teacher", lambda teacher, own: teacher)
    run = Run(mitolume.run(tiny(table), tmp_path / "run", quiet=True))
    assert run.recipe.unlabelled.teacher == "proposal"
    assert 4 in views, "the recipe itself asks for one"
    one, two = (load_file(run.path / name / "weights.safetensors") for name in run.models)
    assert all(np.array_equal(one[name], two[name]) for name in one)
    proposed, own = learnt[:2]
    np.testing.assert_array_equal(proposed, plane > np.median(plane))
    assert len(np.unique(own)) > 2, "the other is labelled by model 1"
    assert (
        "model 2 learns 1 of 2 unlabelled images from proposals, and the others from model 1"
        in (" ".join(run.record["notices"]))
    )
    assert run.rows[8].proposal.samefile(tmp_path / "p.tif")
    own = begin(tmp_path / "self", tiny(table, "unlabelled.teacher=self"), quiet=True)
    assert not any(row.proposal for row in own.rows)
    rows[8] = replace(rows[8], proposal=None)
    write_table(table, rows)
    with pytest.raises(MitolumeError, match=r"teacher is proposal, but no unlabelled row of"):
        begin(tmp_path / "none", tiny(table, "unlabelled.teacher=proposal"), quiet=True)


def test_a_student_that_finds_nothing_more_is_stopped_and_model_1_kept(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The teacher is trained too little to agree with anybody: any student is far from it."""
    monkeypatch.setattr("mitolume.training.segmentation.FIRST_CHECK", 1)
    monkeypatch.setattr("mitolume.training.segmentation.MOST_CHANGE", 1.0)
    out = mitolume.run(tiny(table), tmp_path / "my run", quiet=True)
    kept = json.loads((out / "kept.json").read_text())
    assert kept["kept"] == "model_1"
    assert "learning from unlabelled images was stopped: model 2 finds" in kept["reason"]
    assert "was stopped" in (out / "report.html").read_text()
    assert not (out / "model_2" / "card.json").exists()
    log = pd.read_csv(out / "log.csv")
    log = pd.concat([log[log["model"] == "model_1"], log.assign(model="model_2")])
    log.to_csv(out / "log.csv", index=False)
    page = report_run(out).read_text()
    assert "Model 1 ends at" in page
    assert "Model 2 ends at" not in page, "it was deleted"
    assert f"mitolume rerun &#39;{out}&#39; --out again" in page, "for a shell"


def test_first_weights_can_be_those_of_a_model(table: Path, finished: Path, tmp_path: Path) -> None:
    still = ["training.steps=1", "training.learning_rate=1e-12", "method=supervised"]
    goes_on = mitolume.run(
        tiny(table, f"init={finished / 'model_1'}", *still), tmp_path / "on", quiet=True
    )
    begun = load_file(finished / "model_1" / "weights.safetensors")
    for name, weights in load_file(goes_on / "model_1" / "weights.safetensors").items():
        if "running" not in name and "num_batches" not in name:
            np.testing.assert_allclose(weights, begun[name], atol=1e-6)

    assert not any("has learnt" in notice for notice in notices(goes_on))
    redrawn = finished.parent / "redrawn.csv"
    lines = (finished.parent / "fields.csv").read_text()
    swapped = lines.replace(",train,dish 0", ",test,dish 0").replace(
        ",test,dish 6", ",train,dish 6"
    )
    redrawn.write_text(swapped)
    leaky = tiny(redrawn, f"init={finished / 'model_1'}", *still)
    said = begin(tmp_path / "leaky", leaky, quiet=True).record["notices"]
    assert "has learnt from 1 of the validation and test rows (f0.ome.tif)" in " ".join(said)

    for init, message in ((finished, "unet of width 4 .*network a unet of width 2"),
                          ("nowhere", "nowhere: no such model")):  # fmt: skip
        with pytest.raises(MitolumeError, match=message):
            mitolume.run(tiny(table, f"init={init}", "network.width=2"), tmp_path / "x", quiet=True)
        assert not (tmp_path / "x" / "run.json").exists()
