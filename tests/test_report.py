"""The report page: sound, self-contained and escaped in every state a run can leave."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from mitolume.report import run_page
from mitolume.report.panels import Panel, model_panel
from mitolume.report.run_page import RunContent, render

CONDITIONS = ["control", "FCCP", "oligomycin", "antimycin A", "rotenone"]
METRICS = ["iou", "iou_image", "miou", "dice", "precision", "recall", "cldice", "boundary_f1"]
SIZES = {"train": (30, 6), "validation": (9, 2), "test": (45, 9)}
EVIL = """<script>alert("x & 'y'")</script>"""


def field(seed: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Bright threads around dark nuclei in a noisy, uneven ground, and their mask."""
    random = np.random.default_rng(seed)
    width = side / 128
    cell = ndimage.gaussian_filter(random.normal(size=(side, side)), 12 * width, mode="wrap")
    relief = ndimage.gaussian_filter(random.normal(size=(side, side)), 2.2 * width)
    mask = (np.abs(relief) < 0.22 * relief.std()) & (cell > 0.6 * cell.std())
    mask = ndimage.binary_opening(mask, iterations=max(1, round(width / 2)))
    thread = ndimage.gaussian_filter(mask.astype(float), width / 2)
    image = 400 + 40 * cell / cell.std() + 15 * relief / relief.std() + 60 * thread
    return image + random.normal(0, 12, image.shape), mask.astype(np.uint8)


def panel(title: str, seed: int, side: int = 64, unsure: bool = True, models: int = 2) -> Panel:
    image, truth = field(seed, side)
    random = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(random.normal(size=truth.shape), side / 50)
    noise /= 4 * noise.std()
    smooth = ndimage.gaussian_filter(truth.astype(float), side / 256)
    masks = {"model 1": smooth + 1.5 * noise > 0.55, "model 2": smooth + noise > 0.5}
    scores = {m: (p & (truth == 1)).sum() / (p | (truth == 1)).sum() for m, p in masks.items()}
    if unsure:
        truth[side // 8 : side // 4, side // 2 : side // 2 + side // 8] = 255
    predictions = {model: masks[model].astype(np.uint8) for model in list(masks)[:models]}
    return model_panel(title, f"field_{seed:03d}.ome.tif", image, truth, predictions, scores)


def results(models=("model_1", "model_2"), subsets=tuple(SIZES)) -> pd.DataFrame:
    random = np.random.default_rng(1)
    rows = [
        {
            "arm": "default", "method": "pseudo_label", "network": "unet", "k": 30, "seed": 0,
            "model": model, "subset": subset, "metric": metric, "value": value,
            "n_images": SIZES[subset][0], "n_specimens": SIZES[subset][1],
        }
        for model, subset, metric in itertools.product(
            models, subsets, [*METRICS, "object_recall", "chance_iou", "chance_miou"]
        )
        for value in [
            {"chance_iou": 0.094, "chance_miou": 0.453}.get(metric, random.uniform(0.6, 0.9))
        ]
    ]  # fmt: skip
    return pd.DataFrame(rows)


def images(models=("model_1", "model_2"), subsets=tuple(SIZES)) -> pd.DataFrame:
    rows = []
    for subset, model in itertools.product(subsets, models):
        for number in range(SIZES[subset][0]):
            random = np.random.default_rng([number, models.index(model), len(subset)])
            base = np.random.default_rng([number, len(subset)]).normal(0.68, 0.09)
            iou = float(np.clip(base + random.normal(0.012, 0.02), 0.02, 0.95))
            union = int(np.random.default_rng(number).integers(4_000, 9_000))
            tp = int(iou * union)
            fn = (union - tp) // 2
            rows.append(
                {
                    "line": number, "image": f"{subset}/field_{number:03d}.ome.tif",
                    "plane": number % 3,
                    "model": model, "subset": subset, "specimen": f"dish {number // 5}",
                    "condition": CONDITIONS[number % 5], "batch": "", "seed": 0, "tp": tp,
                    "fp": union - tp - fn, "fn": fn, "tn": 65_536 - union, "n_unsure": 0,
                    "threshold": 0.5, "iou": iou,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def log(models=("model_1", "model_2"), validated: bool = True) -> pd.DataFrame:
    random = np.random.default_rng(3)
    frames = []
    for number, model in enumerate(models):
        step = np.arange(20, 4001, 20)
        noise = random.normal(0, 0.01, step.size)
        loss = (0.6 - 0.1 * number) * np.exp(-step / 700) + 0.11 + noise
        iou = 0.70 + 0.02 * number - 0.5 * np.exp(-step / 600) + noise
        iou[step % 200 != 0] = np.nan
        frames.append(
            pd.DataFrame(
                {"model": model, "step": step, "loss": loss, "learning_rate": 1e-3,
                 "validation_iou": iou if validated else np.nan}
            )
        )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def unlabelled(number: int = 40) -> pd.DataFrame:
    random = np.random.default_rng(4)
    kind = np.arange(number) % 4
    return pd.DataFrame(
        {
            "image": [f"treated/field_{i:03d}.ome.tif" for i in range(number)],
            "plane": 0,
            "specimen": [f"dish {20 + i // 5}" for i in range(number)],
            "condition": [CONDITIONS[1 + k] for k in kind],
            "batch": "",
            "foreground_share": np.clip(random.normal(0.1 - 0.015 * kind, 0.015), 0, 1),
            "mean_confidence": random.uniform(0.8, 0.97, number),
            "accepted_foreground": random.uniform(0.2, 0.5, number),
            "disagreement": random.uniform(0, 0.2, number),
            "feature_distance": np.nan,
        }
    )


def content(**changes) -> RunContent:
    full = RunContent(
        title="Mitochondria in label-free HeLa, 30 labelled images",
        verdict=[
            "Model 2 was kept: validation IoU 0.72 against 0.70 for model 1.",
            "On 45 test images of 9 specimens that no model has seen, it shares 71 % of the area "
            "with the hand labels.",
        ],
        notices=["3 images say 1.0 µm per pixel, which is not believable; 0.108 µm was used."],
        facts={
            "Data set": "fields.csv, 124 images",
            "Images": "30 train, 9 validation, 45 test, 40 unlabelled",
            "Network": "U-Net, 1.9 million parameters",
            "Method": "pseudo-labels",
            "Seed": "0",
            "Steps": "4000 and 4000",
            "Device": "1 GPU",
            "Duration": "41 min",
        },
        results=results(),
        images=images(),
        log=log(),
        panels=[panel("median", 5)],
        unlabelled=unlabelled(),
        recipe_yaml="network:\n  name: unet\n  width: 32\nmethod: pseudo_label\nseed: 0\n",
        command="mitolume run recipe.yaml --out runs/default_k30_s0",
        versions={"mitolume": "0.1.0", "torch": "2.13.0", "Python": "3.11.7"},
    )
    return dataclasses.replace(full, **changes)


def one_model(**changes) -> RunContent:
    return content(
        results=results(("model_1",)),
        images=images(("model_1",)),
        log=log(("model_1",)),
        panels=[panel("worst", 2, models=1)],
        unlabelled=unlabelled()[:0],
        **changes,
    )


def all_undefined() -> RunContent:
    return content(
        results=results().assign(value=np.nan, n_specimens=np.nan),
        images=images().assign(iou=np.nan, tp=0, fp=0, fn=0, condition=""),
        log=log().assign(loss=np.nan, validation_iou=np.nan),
        unlabelled=unlabelled().assign(foreground_share=np.nan, mean_confidence=np.nan),
    )


def empty_tables(**changes) -> RunContent:
    tables = {"results": results()[:0], "images": images()[:0], "log": log()[:0]}
    return content(**(tables | {"panels": [], "unlabelled": unlabelled()[:0]} | changes))


STATES = {
    "full": lambda: content(panels=[panel("worst", 2), panel("median", 5), panel("best", 9)]),
    "no model 2": one_model,
    "no validation": lambda: content(
        results=results(subsets=("train", "test")),
        images=images(subsets=("train", "test")),
        log=log(validated=False),
    ),
    "no test": lambda: content(
        results=results(subsets=("train", "validation")),
        images=images(subsets=("train", "validation")),
    ),
    "train only": lambda: content(
        results=results(subsets=("train",)), images=images(subsets=("train",))
    ),
    "nothing": lambda: empty_tables(
        verdict=[], notices=[], facts={}, recipe_yaml="", command="", versions={}
    ),
    "undefined": all_undefined,
    "one image": lambda: content(
        results=results().assign(n_images=1, n_specimens=1),
        images=images().groupby(["subset", "model"]).head(1),
        panels=[panel("only image", 1, unsure=False)],
        unlabelled=unlabelled(1),
    ),
}  # fmt: skip


@functools.cache
def page_of(state: str) -> str:
    return render(STATES[state]())


class Page(HTMLParser):
    """Text, tags and attributes of a page; checks that tags close in order."""

    VOID = frozenset({"meta", "img", "col"})

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def values(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.tags if name in attrs]


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


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["$\\frac{", "x^2_$a$", "対照", "", "a" * 300, EVIL])
def test_any_condition_name_can_be_drawn(name):
    named = unlabelled().assign(condition=name)
    html = render(empty_tables(unlabelled=named))
    assert "Foreground share of pseudo-labels" in html


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


def test_page_stays_small_with_large_noisy_images():
    random = np.random.default_rng(0)
    noise = random.normal(size=(1024, 1024))
    truth = random.choice(np.array([0, 1, 255], np.uint8), noise.shape)
    masks = {model: (noise > 0).astype(np.uint8) for model in ("model 1", "model 2")}
    large = model_panel("worst", "noise.tif", noise, truth, masks, dict.fromkeys(masks, 0.3))
    alone = empty_tables(panels=[large])
    assert len(render(alone).encode()) < 15e6 / 4


def test_same_content_gives_the_same_page(full):
    assert render(STATES["full"]()) == full
