"""The report of a study: its words and numbers, and every control of the page in a real browser."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from helpers.chromium import Page, find_browser
from helpers.fields import blobs, write_field
from helpers.report_pages import page_of
from PIL import Image
from scipy.ndimage import gaussian_filter

from mitolume.analysis.pictures import CORRECT_COLOUR, FALSE_COLOUR, MISSED_COLOUR
from mitolume.batch.simulate import plan, write_data_set
from mitolume.errors import MitolumeError
from mitolume.inference.predictor import Predictor
from mitolume.io.check import check_table
from mitolume.io.fields import parse_planes
from mitolume.io.read import read, read_plane
from mitolume.io.write import write_image
from mitolume.models.bundle import Card
from mitolume.models.networks import SegmentationNetwork
from mitolume.models.settings import NetworkSettings
from mitolume.preprocess.fingerprint import UNLIKE
from mitolume.preprocess.normalise import normalise
from mitolume.report.study_page import StudyContent, report_study, study_text
from mitolume.report.study_tables import by_group, group_table, sizes
from mitolume.report.study_words import shift_sentences
from mitolume.runs.folder import Run
from mitolume.runs.likeness import fingerprint_of
from mitolume.runs.results import summarise
from mitolume.runs.score import score_model
from mitolume.study.arms import load_study
from mitolume.study.folder import open_study
from mitolume.workflow import study

EVIL = "<script>alert('x')</script>"
ODD = 'Müller "A" & co'


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a small study whose names would break a page that didn't escape them."""
    folder = tmp_path_factory.mktemp("study")
    roles = ["train"] * 3 + ["validation"] * 3 + ["test"] * 4 + ["unlabelled"] * 2
    rows = []
    for number, role in enumerate(roles):
        labelled = role != "unlabelled"
        image, mask = write_field(folder, f"f{number}", number, labelled=labelled)
        row = {"image": image.name, "mask": mask.name if labelled else "", "role": role}
        condition = EVIL if number % 2 else ODD
        rows.append(row | {"specimen": f"dish {number}", "condition": condition})
    pd.DataFrame(rows).to_csv(folder / "fields.csv", index=False)
    recipe = {
        "preset": "quick",
        "fields": "fields.csv",
        "arms": {"supervised": {"method": "supervised"}, "pseudo": {"method": "pseudo_label"}},
        "labels": [2, "all"],
        "seeds": [0],
        "training": {"steps": 4, "batch": 2, "patch": 32, "checks": 2},
        "network": {"width": 2},
        "chain": {"denoise": "none"},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    out = study(folder / "study.yaml", folder / "out", quiet=True)
    add_a_seed(out)
    report_study(out, folder / "exported")
    return out


def add_a_seed(out: Path) -> None:
    """Give each run a twin with somewhat other counts: a report asks no more of a second seed."""
    for run in list((out / "runs").iterdir()):
        twin = copytree(run, out / "runs" / run.name.replace("_s0", "_s1"))
        images = pd.read_csv(twin / "images.csv")
        lost = (images["tp"] * (0.1 + 0.02 * images.index % 3)).round().fillna(0)
        images = images.assign(seed=1, tp=images["tp"] - lost, fn=images["fn"] + lost)
        images.to_csv(twin / "images.csv", index=False)
        summarise(images).to_csv(twin / "results.csv", index=False)
        Run(twin).finish()
    recipe = yaml.safe_load((out / "study.yaml").read_text())
    (out / "study.yaml").write_text(yaml.safe_dump(recipe | {"seeds": [0, 1]}))


@pytest.fixture(scope="module")
def page(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Open the report in a browser."""
    browser = find_browser()
    if browser is None:
        pytest.skip("no Chromium: install it with `apt-get install chromium`, or Google Chrome")
    page = Page(browser, tmp_path_factory.mktemp("profile"))
    page.open(made / "report.html")
    page.until("document.getElementById('browser-canvas').dataset.shown !== undefined")
    yield page
    page.close()


def shown(page: Page) -> tuple[str, str]:
    """Return the image and the arm that the canvas shows, once it shows what is asked for."""
    page.until(
        "(([i, a, c]) => c.dataset.shown === `${i.value} ${a.value}`)"
        "(['image', 'arm', 'canvas'].map((n) => document.getElementById('browser-' + n)))"
    )
    number, _, arm = page.run("document.getElementById('browser-canvas').dataset.shown").partition(
        " "
    )
    return number, arm


def canvas(page: Page) -> np.ndarray:
    """Return the pixels of the canvas, (Y, X, 3)."""
    uri = page.run("document.getElementById('browser-canvas').toDataURL('image/png')")
    return np.asarray(
        Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")
    )


def choose(page: Page, name: str, value: str) -> None:
    page.run(
        f"(() => {{ const e = document.getElementById('browser-{name}'); e.value = '{value}';"
        " e.dispatchEvent(new Event(e.type === 'range' ? 'input' : 'change')); })()"
    )


def click(page: Page, selector: str) -> None:
    page.run(f"document.querySelector({json.dumps(selector)}).click()")


def test_the_page_has_no_faults_and_asks_for_nothing(page: Page) -> None:
    assert page.faults == []
    summaries = page.run("[...document.querySelectorAll('summary')].map((s) => s.textContent)")
    assert "Every setting of pseudo, first run" in summaries
    assert page.run("document.scripts.length") == 2
    assert page.run("document.querySelectorAll('script').length") == 2


def test_names_are_text(page: Page) -> None:
    text = page.run("document.body.innerText")
    assert EVIL in text
    assert ODD in text


def test_every_image_and_arm_can_be_chosen(page: Page) -> None:
    pictures = {}
    for number in range(4):
        for arm in ("supervised", "pseudo"):
            choose(page, "image", str(number))
            choose(page, "arm", arm)
            assert shown(page) == (str(number), arm)
            pictures[number, arm] = canvas(page).tobytes()
    assert len({pictures[n, "supervised"] for n in range(4)}) == 4


def test_previous_next_and_arrow_keys_go_round(page: Page) -> None:
    choose(page, "image", "0")
    click(page, "#browser-next")
    assert shown(page)[0] == "1"
    click(page, "#browser-previous")
    click(page, "#browser-previous")
    assert shown(page)[0] == "3"
    page.run("document.getElementById('browser-canvas').focus()")
    page.press("ArrowRight")
    assert shown(page)[0] == "0"
    page.press("ArrowLeft")
    assert shown(page)[0] == "3"


def test_the_slider_goes_from_image_to_errors(page: Page) -> None:
    choose(page, "image", "1")
    choose(page, "arm", "pseudo")
    shown(page)
    stages = {}
    for stage in ("image", "truth", "prediction", "errors"):
        click(page, f"#browser-stages button[data-stage='{stage}']")
        assert page.run("document.getElementById('browser-canvas').dataset.stage") == stage
        assert page.run("document.getElementById('browser-stage').value") == str(len(stages))
        stages[stage] = canvas(page).astype(float)
    page.run("document.getElementById('browser-stage').focus()")
    page.press("Home")
    assert (canvas(page) == stages["image"]).all()
    choose(page, "stage", "0.5")
    between = (stages["image"] + stages["truth"]) / 2
    assert np.abs(canvas(page) - between).max() <= 1


def test_errors_have_the_colours_of_the_key(page: Page, made: Path) -> None:
    """The canvas against the masks on disk, pixel by pixel."""
    content = StudyContent(open_study(made))
    entry = content.browsed[2]
    name = entry["name"].removesuffix(".ome.tif")
    run = made / "runs" / "supervised_kall_s0" / "masks" / "model_1"
    found = np.asarray(read_plane(read(run / f"{name}_mask.ome.tif"))) == 1
    truth = np.asarray(read_plane(read(made.parent / f"{name}_mask.ome.tif"))) == 1
    choose(page, "image", "2")
    choose(page, "arm", "supervised")
    shown(page)
    choose(page, "stage", "0")
    grey = canvas(page).astype(float)
    choose(page, "stage", "3")
    errors = canvas(page).astype(float)
    factor = errors.shape[0] // truth.shape[0]  # small pictures are enlarged
    truth, found = (m.repeat(factor, 0).repeat(factor, 1) for m in (truth, found))
    wanted = grey.copy()
    for where, colour in (
        (truth & found, CORRECT_COLOUR),
        (truth & ~found, MISSED_COLOUR),
        (~truth & found, FALSE_COLOUR),
    ):
        wanted[where] = 0.45 * grey[where] + 0.55 * np.array(colour)
    assert np.abs(errors - wanted).max() <= 1


def test_scores_stand_beside_the_picture(page: Page, made: Path) -> None:
    choose(page, "image", "0")
    choose(page, "arm", "supervised")
    shown(page)
    click(page, "#browser-scores tr:nth-child(2) button")
    assert shown(page)[1] == "pseudo"
    text = page.run("document.getElementById('browser-scores').innerText")
    images = pd.read_csv(made / "study_images.csv")
    said = page.run("document.getElementById('browser-said').textContent")
    name = said.split(" (")[0].strip("\u2068\u2069")  # set apart from the text around it
    for run in ("supervised_kall_s0", "pseudo_kall_s0"):
        own = images[
            (images["run"] == run)
            & images["stands"]
            & (images["image"].str.contains(name, regex=False))
        ]
        value = own["iou"].iloc[0]
        assert (f"{value:.3f}" if np.isfinite(value) else "undefined") in text


def test_all_can_be_reached_by_keyboard(page: Page) -> None:
    page.run("document.activeElement.blur(); document.body.focus(); window.scrollTo(0, 0)")
    reached = set()
    for _ in range(80):
        page.press("Tab")
        reached.add(page.run("document.activeElement.id || document.activeElement.tagName"))
    wanted = {"image", "previous", "next", "arm", "canvas", "stage"}
    assert {f"browser-{name}" for name in wanted} <= reached
    assert {"SUMMARY", "BUTTON", "A"} <= reached


def test_folds_open_and_sections_can_be_gone_to(page: Page) -> None:
    count = page.run("document.querySelectorAll('details').length")
    assert count >= 4
    page.run("document.querySelectorAll('details:not([open]) > summary').forEach((s) => s.click())")
    assert page.run("document.querySelectorAll('details[open]').length") == count
    links = page.run("[...document.querySelectorAll('nav a')].map((a) => a.getAttribute('href'))")
    assert all(page.run(f"document.querySelector('{link}') !== null") for link in links)
    assert page.faults == []


def test_nothing_is_cut_off_on_a_phone(page: Page, made: Path, tmp_path: Path) -> None:
    (tmp_path / "run.html").write_text(page_of("full"), encoding="utf-8")
    size = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.call("Emulation.setDeviceMetricsOverride", **size)
    for file in (tmp_path / "run.html", made / "report.html"):
        page.open(file)
        assert page.run("document.documentElement.scrollWidth") <= 400
        cells, too_wide = (
            "[...document.querySelectorAll('th, td')]",
            "c.scrollWidth > c.offsetWidth + 1",
        )
        over = page.run(f"{cells}.filter((c) => {too_wide}).map((c) => c.innerText)")
        assert over == [], "printed over its neighbour"
    page.call("Emulation.clearDeviceMetricsOverride")


def test_exports_hold_the_numbers(made: Path) -> None:
    folder = made.parent / "exported"
    content = StudyContent(open_study(made))
    table = pd.read_csv(folder / "comparisons.csv")
    assert set(table["arm"]) == {"pseudo"}
    assert list(table["verdict"]) == [one.verdict for one in content.comparisons]
    assert "| pseudo |" in (folder / "comparisons.md").read_text()
    for name in ("comparisons", "labels", "panels"):
        with Image.open(folder / f"{name}.png") as picture:
            assert min(picture.size) > 200
        assert "<svg" in (folder / f"{name}.svg").read_text()
    assert "pseudo" in study_text(made)
    assert (made / "report.html").stat().st_size < 15e6


def test_the_study_is_told_as_a_methods_section(made: Path) -> None:
    study = open_study(made)
    methods = " ".join(study.methods_file.read_text(encoding="utf-8").split())
    for one in StudyContent(study).comparisons:
        assert one.sentence in methods
    for words in (
        "2 ways of training (arms)",
        'pseudo: {"method": "pseudo_label"}; `runs/pseudo_kall_s0/methods.md`',
        "Seeds: 0, 1;",
        "(numbers of outlined images: 2, 3)",
        "in the run named of the reference: 3 outlines, 0 from the dye",
        "on 4 test images of 4 specimens",
        "equal within ±0.02 by two one-sided tests",
    ):
        assert words in methods
    assert (made / "runs/pseudo_kall_s0/methods.md").exists()


def test_arms_without_a_run_of_all_labels_have_a_place_in_the_methods(made: Path) -> None:
    half = copytree(made, made.with_name("half"))
    for run in (half / "runs").glob("pseudo_kall_*"):
        rmtree(run)
    report_study(half)
    methods = open_study(half).methods_file.read_text(encoding="utf-8")
    assert "`runs/pseudo_k2_s0/methods.md`" in methods
    for run in (half / "runs").glob("supervised_kall_*"):
        rmtree(run)
    report_study(half)


def test_pictures_shrink_to_what_there_is_room_for(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def size(entries: Sequence[Mapping[str, Any]]) -> int:
        uris = [uri for e in entries for uri in (e["image"], e["truth"], *e["masks"].values())]
        return sum(len(base64.b64decode(uri.partition(",")[2])) for uri in uris)

    large = StudyContent(open_study(made)).browsed
    room = size(large) // 2
    monkeypatch.setattr("mitolume.report.panels.MOST_BYTES", room)
    small = StudyContent(open_study(made)).browsed
    assert size(small) < 0.7 * size(large)
    assert [entry["name"] for entry in small] == [entry["name"] for entry in large]
    assert all(entry["width"] < 512 for entry in small)


@pytest.mark.slow
def test_the_published_study_ends_in_its_tables_and_panels(tmp_path: Path) -> None:
    """All arms of both parts on simulated stacks, far too narrow to learn anything."""
    plans = plan(fields=2, conditions=["control", "fccp"], set_=["shape=[64,96]", "planes=6"])
    simulated = write_data_set(plans, tmp_path / "set")
    rows = pd.read_csv(simulated, dtype=str, keep_default_na=False)
    rows = rows.assign(role=["train", "test", "train", "unlabelled"], specimen=list("abcd"))
    rows.loc[3, "mask"] = ""
    rows.to_csv(simulated, index=False)
    asked = load_study(
        preset="paper",
        fields=simulated,
        settings=[
            "seeds=0", "network.width=2", "training.epochs=1", "training.patch=32",
            "denoising.network.width=2", "denoising.epochs=1", "denoising.patch=32",
        ],
    )  # fmt: skip
    out = study(asked, tmp_path / "out", quiet=True)
    assert set(open_study(out).status()["state"]) == {"finished"}
    content = StudyContent(open_study(out))
    first = content.score_tables[0]
    assert first.title == "Mean IoU"
    assert first.columns == ["Arm", "Labels", "Train", "Test", "Seeds"]
    assert [row[0] for row in first.rows] == list(asked.arms)
    assert all(0 < float(score) < 1 for row in first.rows for score in row[2:4])
    titles = [picture.title for picture in content.panels[0].pictures]
    assert titles == ["image", "truth", *asked.arms]
    planes = {
        arm: json.loads((out / "runs" / f"{arm}_kall_s0" / "denoiser" / "card.json").read_text())
        for arm in ("unet-denoised-all", "unet-denoised-focus")
    }
    learnt = [len(parse_planes(card["stacks"][0]["planes"])) for card in planes.values()]
    assert learnt[0] == 6 > learnt[1]


def test_what_is_missing_is_said(made: Path, tmp_path: Path) -> None:
    with pytest.raises(MitolumeError, match="holds no study"):
        report_study(tmp_path)
    kept = made / "runs" / "pseudo_k2_s1" / "kept.json"
    text = kept.read_text()
    kept.unlink()
    try:
        notices = StudyContent(open_study(made)).notices
        assert any("1 of 8 runs are not finished (pseudo_k2_s1)" in line for line in notices)
    finally:
        kept.write_text(text)


@pytest.mark.parametrize(("chance", "said"), [(0.0, False), (1.0, True)])
def test_arms_that_learnt_nothing_are_told(
    made: Path, chance: float, said: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StudyContent, "chance", chance)
    notices = StudyContent(open_study(made)).notices
    assert any("No arm does better than marking everything" in n for n in notices) == said


def test_a_student_that_was_stopped_is_named(made: Path) -> None:
    record = made / "runs" / "pseudo_k2_s1" / "run.json"
    text = record.read_text()
    record.write_text(json.dumps(json.loads(text) | {"stopped": "it found nothing"}))
    try:
        notices = StudyContent(open_study(made)).notices
        assert any("In 1 of 8 runs (pseudo_k2_s1) learning from unlabelled" in n for n in notices)
    finally:
        record.write_text(text)


def counted(condition: str, tp: int, fp: int, fn: int, specimen: str) -> dict[str, object]:
    names = {
        "run": "a_kall_s0",
        "condition": condition,
        "arm": "a",
        "specimen": specimen,
        "image": specimen,
    }
    return names | {"plane": 0, "line": int(specimen), "tp": tp, "fp": fp, "fn": fn, "tn": 100}


def test_images_are_counted_once_however_runs_number_them() -> None:
    """Where a stack is labelled in part, its planes are on another line in each run."""
    runs = [("a_k2_s0", 4), ("a_k8_s0", 3), ("a_k8_s1", 5)]
    rows = [
        {"run": run, "model": model, "line": line, "plane": z, "subset": "test", "specimen": "b"}
        for run, line in runs
        for model in ("model_1", "model_2")
        for z in range(11)
    ]
    assert sizes(pd.DataFrame(rows), "test") == "11 test images of 1 specimen"
    assert sizes(pd.DataFrame(rows), "train") == "0 train images of 0 specimens"


def test_unlike_images_are_far_from_the_training_images(tmp_path: Path) -> None:
    """A real model on a new image of its kind, and on a treated one that nobody labelled."""
    lines = ["image,mask,role,specimen,condition"]
    for number in range(3):
        image, mask = write_field(tmp_path, f"f{number}", number, shape=(300, 320))
        lines.append(f"{image.name},{mask.name},{('train', 'train', 'test')[number]},{number},")
    blurred = gaussian_filter(blobs(3, (300, 320))[0], 3)
    attrs = {"pixel_size_um": {"Y": 0.1, "X": 0.1}}
    write_image(tmp_path / "blurred.ome.tif", xr.DataArray(blurred, dims=("Y", "X"), attrs=attrs))
    table = tmp_path / "fields.csv"
    table.write_text("\n".join([*lines, "blurred.ome.tif,,unlabelled,3,FCCP\n"]))
    learnt = [normalise(blobs(seed, (300, 320))[0]) for seed in range(2)]
    settings = NetworkSettings(width=2)
    card = Card(network=settings, fingerprint=fingerprint_of(learnt))
    predictor = Predictor(SegmentationNetwork(settings), card)
    run = Run(tmp_path / "run", table=check_table(table))
    scored = score_model(predictor, run, "model_1")
    distance = dict(zip(scored["image"], scored["distance"], strict=True))
    assert distance["f2.ome.tif"] < 1.7
    assert distance["blurred.ome.tif"] > UNLIKE
    groups = by_group(scored.assign(arm="a", run="a_kall_s0"), "condition")
    known, far = groups.itertuples()
    assert (far.name, far.n_images) == ("FCCP", 1)
    assert far.distance == distance["blurred.ome.tif"]
    assert np.isnan(far.iou)
    assert np.isfinite(known.iou)
    (sentence,) = shift_sentences(groups, "a", {})
    assert f"Images of FCCP ({far.distance:.1f}) do not look like those that a was" in sentence
    assert group_table("condition", groups).rows[1][-4:-1] == ["\N{EN DASH}"] * 3


def test_a_shift_between_conditions_is_warned_of() -> None:
    images = pd.DataFrame(
        [
            counted("control", 80, 20, 20, "1"),  # 100 marked, 100 true
            counted("control", 80, 40, 20, "2"),  # 120 marked, 100 true
            counted("FCCP", 40, 10, 60, "3"),  # 50 marked, 100 true
        ]
    )
    groups = by_group(images, "condition")
    control, treated = groups.itertuples()
    assert (control.area_bias, control.low, control.high) == pytest.approx((0.1, 0.0, 0.2))
    assert treated.area_bias == pytest.approx(-0.5)
    assert (control.n_images, control.n_specimens) == (2, 2)
    (warning, unknown) = shift_sentences(groups, "a", {"rotenone": 7})
    assert "10 % more mitochondrial area than there is in control" in warning
    assert "50 % less in FCCP" in warning
    assert "0.45 times" in warning  # 0.5 / 1.1
    assert "rotenone (7)" in unknown
    assert by_group(images[images["condition"] == "FCCP"], "condition").empty
