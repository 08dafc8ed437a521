"""The report page: sound, self-contained and escaped in every state a run can leave."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
from helpers.report_pages import (
    EVIL,
    SIZES,
    STATES,
    Page,
    content,
    empty_tables,
    images,
    page_of,
    panel,
    results,
    unlabelled,
)

from mitolume.errors import Note, ranked
from mitolume.report import run_page
from mitolume.report.panels import model_panel
from mitolume.report.run_page import render
from mitolume.report.run_tables import planes_of
from mitolume.runs.folder import Run


@pytest.fixture(scope="module")
def full() -> str:
    return page_of("full")


@pytest.mark.parametrize("state", STATES)
def test_every_state_renders_as_a_sound_page(state):
    html = page_of(state)
    page = Page(html)
    said = page.text + " ".join(page.values("alt") + page.values("aria-label"))
    assert not re.search(r"\b(nan|NaN|None|NaT|inf|Markup)\b", said)
    assert "{{" not in said
    assert "{%" not in said
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    wanted = {ref[1:] for ref in page.values("href") + page.values("xlink:href")}
    wanted |= set(re.findall(r"url\(#([^)]+)\)", html))
    assert wanted <= set(ids)
    assert all(attrs.get("alt") or not attrs.get("src") for tag, attrs in page.tags if tag == "img")
    tables = [tag for tag, _ in page.tags if tag == "table"]
    assert len(tables) == len([tag for tag, _ in page.tags if tag == "caption"])


@pytest.mark.parametrize("state", STATES)
def test_page_needs_no_network(state):
    html = page_of(state)
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:)?//""", html)
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    assert not re.findall(r"https?://", re.sub(r"xmlns(:\w+)?=\"[^\"]*\"", "", html))


def test_scenes_and_files_of_one_name_are_stacks_of_their_own() -> None:
    rows = pd.DataFrame({"image": ["a.lif"] * 4, "plane": [0, 1, 0, 1]})
    assert planes_of(rows, "image") == "4 planes of 1 stack"
    assert planes_of(rows.assign(stack=[0, 0, 1, 1]), "image") == "4 planes of 2 stacks"


def test_page_is_accessible_at_its_head(full):
    page = Page(full)
    assert ("html", {"lang": "en"}) in page.tags
    assert "viewport" in page.values("name")
    assert f"<title>{content().title}</title>" in full
    assert page.text.index("Model 2 was kept") < page.text.index("Please note")


def test_names_and_sentences_are_escaped():
    evil = dataclasses.replace(panel(EVIL, 1), image=EVIL, caption=EVIL)
    html = render(
        content(
            title=EVIL,
            verdict=[EVIL],
            notices=[EVIL],
            facts={EVIL: EVIL},
            images=images().assign(image=EVIL, specimen=EVIL, condition=EVIL, batch=EVIL),
            unlabelled=unlabelled().assign(image=EVIL, specimen=EVIL, condition=EVIL),
            panels=[evil],
            results=pd.concat([results(), results()[:1].assign(metric=EVIL)]),
            recipe_yaml=EVIL,
            command=EVIL,
            versions={EVIL: EVIL},
        )
    )
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert" in html
    page = Page(html)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not any("alert(" in value for value in page.values("style"))


def test_names_from_right_to_left_turn_no_text_around():
    name = "\u202ehalf\u2069 \u05d0\u05d1.tif"
    html = render(content(notices=[f"{name} (a) is flat"], panels=[panel(name, 1)]))
    shown = "\ufffdhalf\ufffd \u05d0\u05d1.tif"
    assert f"<bdi>{shown}</bdi> (a)" in html
    assert not any("<bdi>" in value or "&lt;bdi" in value for value in Page(html).values("alt"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["$\\frac{", "x^2_$a$", "対照", "", "a" * 300, EVIL])
def test_any_condition_name_can_be_drawn(name):
    named = unlabelled().assign(condition=name)
    assert "Masks of model 1, least trustworthy" in render(empty_tables(unlabelled=named))


def test_scores_chance_and_difference_are_told(full):
    text = Page(full).text
    table = results().set_index(["subset", "metric", "model"])["value"]
    for subset in SIZES:
        one, two = table[subset, "miou", "model_1"], table[subset, "miou", "model_2"]
        assert f"{one:.3f}" in text
        assert f"{two - one:+.3f}".replace("-", "\N{MINUS SIGN}") in text
    assert "45 images / 9 specimens" in text
    assert "0.453" in text
    assert "0.094" in text
    assert "one seed on one split" in text


def test_no_test_rows_is_said():
    assert "There is no test score" in Page(page_of("no test")).text
    assert "There is no test score" not in Page(page_of("full")).text


def test_undefined_scores_are_named_and_counted():
    text = Page(page_of("undefined")).text
    assert "undefined" in text
    assert "45 images" in text


def test_images_come_worst_first_and_long_tables_are_cut():
    few = page_of("full")
    table = images().query("subset == 'test'")
    order = table.groupby("image")["iou"].min().sort_values().index
    rows = re.findall(r'<th scope="row">(test/[^<]+)<', few)
    assert rows == list(order)
    test = images(subsets=("test",))
    many = pd.concat(
        [
            test.assign(image=test["image"] + str(copy), line=test["line"] + 100 * copy)
            for copy in range(6)
        ]
    )
    html = render(empty_tables(images=many, unlabelled=unlabelled(450)))
    assert html.count('<th scope="row">test/') == run_page.ROWS_SHOWN
    assert html.count('<th scope="row">treated/') == run_page.ROWS_SHOWN
    assert "Only the 200 worst of 270 are listed" in html
    assert "Only the first 200 of 450 are listed" in html


def test_fields_of_one_file_are_kept_apart():
    same = images(subsets=("test",)).assign(image="many.nd2", plane=0, specimen="", condition="")
    html = render(empty_tables(images=same))
    assert html.count('<th scope="row">many.nd2') == SIZES["test"][0]


def test_pseudo_labels_are_compared_with_the_labelled_images(full):
    counts = (
        images().query("subset == 'train' and model == 'model_1'")[["tp", "fp", "fn", "tn"]].sum()
    )
    share = (counts["tp"] + counts["fn"]) / counts.sum()
    assert f"{100 * share:.1f} % is foreground" in Page(full).text


def test_pictures_come_in_pairs(full):
    page = Page(full)
    alts = [attrs["alt"] for tag, attrs in page.tags if tag == "img" and attrs.get("src")]
    assert len(alts) == 3 * 6
    assert alts[0] == "Image of field_002.ome.tif"
    assert len([alt for alt in alts if "errors" in alt]) == 6
    assert "grey stripes: unsure" in page.text


def test_notes_are_ranked_and_losses_apart(full):
    notices = [Note("255 is read as mitochondria"), "masks lie 6 px right", Note("amiss", "Errors")]
    page = Page(render(content(notices=notices))).text
    order = ["Errors", "amiss", "Warnings", "masks lie", "Information", "255 is read"]
    places = [page.index(word, page.index("Please note")) for word in order]
    assert places == sorted(places)
    assert "Training loss of model 1" in page
    assert "Training loss of model 2" in page


def test_ranks_of_notes_are_kept_in_the_run(tmp_path):
    run = Run(tmp_path)
    run.note(notices=["look", Note("done"), Note("wrong", "Errors")])
    run.note(stopped="enough", notices=[*run.record["notices"], "stopped"])
    again = ranked(Run(tmp_path).notices)
    assert again == {
        "Errors": ["wrong"], "Warnings": ["look", "stopped"], "Information": ["done"]
    }  # fmt: skip


def test_planes_of_a_stack_are_not_counted_as_images():
    rows = pd.DataFrame({"image": ["a.tif"] * 5, "line": 2, "plane": range(5)})
    assert planes_of(rows, "test image") == "5 planes of 1 stack"
    assert planes_of(rows[:1], "test image") == "1 test image"


def test_page_stays_small_with_large_noisy_images():
    random = np.random.default_rng(0)
    noise = random.normal(size=(1024, 1024))
    truth = random.choice(np.array([0, 1, 255], np.uint8), noise.shape)
    masks = {model: (noise > 0).astype(np.uint8) for model in ("model 1", "model 2")}
    large = model_panel("worst", "noise.tif", noise, truth, masks)
    alone = empty_tables(panels=[large])
    assert len(render(alone).encode()) < 15e6 / 4


def test_same_content_gives_the_same_page(full):
    assert render(STATES["full"]()) == full
