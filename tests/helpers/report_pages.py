"""The content of a run's page in every state, made up, and a reader of pages."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from html.parser import HTMLParser

import numpy as np
import pandas as pd
from scipy import ndimage

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
    if unsure:
        truth[side // 8 : side // 4, side // 2 : side // 2 + side // 8] = 255
    predictions = {model: masks[model].astype(np.uint8) for model in list(masks)[:models]}
    return model_panel(title, f"field_{seed:03d}.ome.tif", image, truth, predictions)


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
        unlabelled=unlabelled().assign(foreground_share=np.nan),
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
