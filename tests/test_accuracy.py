"""A short training learns, on simulated cells: everyone has these, with exact masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mitolume
from mitolume.batch.simulate import plan, write_data_set
from mitolume.io.table import read_table, write_table
from mitolume.runs.folder import open_run
from mitolume.runs.recipe import load_recipe
from mitolume.runs.results import value_of

ROLES = ("train", "train", "train", "validation", "test", "unlabelled")


def test_a_short_training_on_simulated_cells_learns(tmp_path: Path) -> None:
    plans = plan(fields=len(ROLES), seed=3, set_=["shape=[128,128]", "planes=3"])
    rows = read_table(write_data_set(plans, tmp_path / "data"))
    write_table(
        tmp_path / "fields.csv",
        [
            replace(
                row,
                role=role,
                planes=(1,) if role in ("train", "unlabelled") else (0, 1, 2),
                mask=None if role == "unlabelled" else row.mask,
            )
            for row, role in zip(rows, ROLES, strict=True)
        ],
    )
    recipe = load_recipe(
        fields=tmp_path / "fields.csv",
        settings=["training.steps=120", "training.checks=3", "training.learning_rate=0.01",
                  "network.width=8", "training.augment=flips",
                  "training.batch=4", "training.patch=96", "views=1", "unlabelled.teacher=self"],
    )  # fmt: skip
    results = open_run(mitolume.run(recipe, tmp_path / "run", quiet=True)).results
    for model in ("model_1", "model_2"):
        chance = value_of(results, model, "test", "chance_iou")
        assert value_of(results, model, "test", "iou") > 2 * chance
