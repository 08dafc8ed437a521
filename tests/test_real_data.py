"""The whole way on real images; the benchmarks to accuracy behind `-m slow`."""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd
import pytest

import mitolume
from mitolume.io.check import check_table
from mitolume.runs.recipe import load_recipe
from mitolume.runs.results import value_of

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("epfl4", {"train": 4, "unlabelled": 96, "validation": 10, "test": 45}),
        ("vnc4", {"train": 4, "unlabelled": 20, "test": 5}),
        ("h9c2", {"train": 49, "validation": 13}),
    ],
)
def test_benchmark_tables_hold_what_they_say(
    real_data: Path, name: str, counts: dict[str, int]
) -> None:
    recipe = load_recipe(BENCHMARKS / f"{name}.yaml")
    table = check_table(recipe.fields)
    roles = [row.role for row in table.fields for _ in row.planes or ()]
    assert {role: roles.count(role) for role in set(roles)} == counts
    assert table.mask_kind == "unsure"


@pytest.mark.slow
def test_a_short_training_on_real_electron_microscopy_learns(
    real_data: Path, tmp_path: Path
) -> None:
    folder = real_data / "epfl-hippocampus"
    image, mask = folder / "train.ome.tif", folder / "train_mask.ome.tif"
    (tmp_path / "fields.csv").write_text(
        "image,mask,role,planes,specimen\n"
        f"{image},{mask},train,10 55,z000-099\n"
        f"{image},,unlabelled,70,z000-099\n"
        f"{image},{mask},validation,105,z105-114\n"
        f"{image},{mask},test,140,z120-164\n"
    )
    recipe = load_recipe(
        fields=tmp_path / "fields.csv",
        settings=["training.steps=40", "training.checks=3", "training.learning_rate=0.01",
                  "network.width=8", "training.augment=flips",
                  "training.batch=4", "training.patch=96", "views=1"],
    )  # fmt: skip
    run = mitolume.run(recipe, tmp_path / "run", quiet=True)
    results = pd.read_csv(run / "results.csv")
    for model in ("model_1", "model_2"):
        chance = value_of(results, model, "test", "chance_iou")
        assert value_of(results, model, "test", "iou") > 3 * chance


@pytest.mark.slow
def test_the_default_reaches_the_guide_on_epfl4_in_ten_minutes(
    real_data: Path, tmp_path: Path
) -> None:
    started = time.monotonic()
    run = mitolume.run(BENCHMARKS / "epfl4.yaml", tmp_path / "run")
    minutes = (time.monotonic() - started) / 60
    results = pd.read_csv(run / "results.csv")
    scores = {m: value_of(results, m, "test", "iou") for m in ("model_1", "model_2")}
    print(f"test IoU {scores}, {minutes:.1f} minutes")
    kept = mitolume.load(run).card.name.replace("default ", "").replace(" ", "_")
    assert scores[kept] >= 0.879
