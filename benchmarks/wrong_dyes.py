"""Dyes that lie on a share of the fields to learn from, against outlines of three hands.

The dishes of shift.py: 24 fields to learn from (8 control, 4 of each treatment), tested on others
against exact masks. The network learns from the dye alone, a quarter or half of it wrong, with
the checks of a run and without; or from outlines of the same 24 fields, or of the 8 control ones,
by a rough (0.60 IoU with the exact masks), a careful (0.75) or an expert (0.90) hand.

``python benchmarks/wrong_dyes.py [--scratch FOLDER] [--seeds 1] [--steps 300] [--runs N]``; results
are kept in benchmarks/results/wrong_dyes.csv, and called again it computes what is missing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import xarray as xr
from dye_faults import HAND_IOU
from numpy.typing import NDArray
from shared import Key, compute_missing, fresh, scores_by_condition
from shift import fields_of

from mitolume.io.fields import Field, with_planes
from mitolume.io.read import read
from mitolume.io.write import write_image, write_mask
from mitolume.runs.recipe import load_recipe
from mitolume.runs.run import compute_run
from mitolume.simulate.hand_labels import imitate_hand_labels
from mitolume.simulate.settings import HANDS, CameraSettings

RESULTS = Path(__file__).parent / "results/wrong_dyes.csv"
PIXEL_UM = 0.1
# Those that say most come first: which fault, on which share of the fields, whether checked.
RUNS: list[tuple[str, int, bool]] = [
    ("none", 0, True),
    ("shifted", 50, False),
    ("rough hand, 24", 0, True),
    ("another dye", 50, False),
    ("careful hand, 24", 0, True),
    ("shifted", 50, True),
    ("dimmed", 50, False),
    ("expert hand, 24", 0, True),
    ("another dye", 25, False),
    ("shifted", 25, False),
    ("rough hand, 8", 0, True),
    ("careful hand, 8", 0, True),
    ("expert hand, 8", 0, True),
    ("dimmed", 25, False),
    ("shifted", 25, True),
    # The checks leave out the same fields as above, or none: nothing else would be learnt.
    ("another dye", 50, True),
    ("dimmed", 50, True),
    ("another dye", 25, True),
    ("dimmed", 25, True),
]


def wrong(image: xr.DataArray, fault: str, rng: np.random.Generator) -> NDArray[Any]:
    """Return the dye's channel (Z, Y, X) with a fault: 0.3 µm off, 5 % of its light, CellMask."""
    dye = image.sel(C="Mitochondria").values
    if fault == "shifted":
        turn = rng.uniform(0, 2 * np.pi)
        away = np.rint(0.3 / PIXEL_UM * np.array([np.sin(turn), np.cos(turn)])).astype(int)
        return np.roll(dye, tuple(away), axis=(-2, -1))
    if fault == "another dye":
        return np.asarray(image.sel(C="CellMask").values)
    camera = CameraSettings()  # fewer photons: each is kept by chance
    photons = ((dye.astype(float) - camera.offset) / camera.fluorescence_gain).round().clip(0)
    kept = rng.binomial(photons.astype(int), 0.05) * camera.fluorescence_gain + camera.offset
    return np.asarray(kept.astype(dye.dtype))


def compute(options: argparse.Namespace, key: Key) -> pd.DataFrame:
    """Train on one table, and score its model by condition."""
    out = options.scratch / "_".join(map(str, key.values())).replace(" ", "-").replace(",", "")
    name, rng = key["fault"].split()[0], np.random.default_rng(key["seed"])
    fresh(out).mkdir(parents=True)
    if name in HANDS:
        arm = "all outlined" if "24" in key["fault"] else "supervised"
        rows = redrawn(fields_of(options, {"arm": arm, "k": 8, "seed": key["seed"]}), name, out)
    else:
        rows = fields_of(options, {"arm": "dye alone", "k": 0, "seed": key["seed"]})
        learnt = rng.permutation(rows.index[rows["role"] == "train"])
        for index in learnt[: round(key["percent"] / 100 * len(learnt))]:
            image = read(Path(rows.loc[index, "image"])).isel(T=0).compute()
            image.loc[{"C": "Mitochondria"}] = wrong(image, key["fault"], rng)
            rows.loc[index, "image"] = str(out / f"{index}.ome.tif")
            write_image(out / f"{index}.ome.tif", image)
    rows.to_csv(out / "fields.csv", index=False)
    settings = [
        "method=supervised", "views=1", f"seed={key['seed']}", f"inputs.planes={key['planes']}",
        f"training.steps={key['steps']}", f"network.width={key['width']}",
    ]  # fmt: skip
    recipe = load_recipe(fields=out / "fields.csv", settings=settings)
    unchecked = patch("mitolume.runs.dye.judge", all_used)
    with nullcontext() if key["checked"] else unchecked:
        run = compute_run(recipe, out / "run", quiet=True)
    used = sum(row.role == "train" for row in run.rows)
    return scores_by_condition(run.path, run.models[-1]).assign(used=used)


def redrawn(rows: pd.DataFrame, hand: str, out: Path) -> pd.DataFrame:
    """Outline the fields to learn from and to validate on by another hand."""
    for index in rows.index[rows["mask"].str.contains("hand_masks")]:
        path = Path(rows.loc[index, "mask"])
        drawn = read(path.parents[1] / "masks" / path.name).isel(T=0, C=0).compute()
        for z in range(drawn.sizes["Z"]):
            exact = (drawn[z].values == 1).astype(np.uint8)
            rng = np.random.default_rng([int(index), z])
            drawn[z] = imitate_hand_labels(exact, PIXEL_UM, rng, HANDS[hand])
        rows.loc[index, "mask"] = str(out / f"{index}_mask.ome.tif")
        write_mask(out / f"{index}_mask.ome.tif", drawn)
    return rows


def all_used(rows: Sequence[Field], quality: pd.DataFrame) -> tuple[list[Field], list[str]]:
    """Stand in for the checks: every plane is used."""
    quality["used"], quality["warning"] = True, ""
    return [with_planes(row, row.planes or ()) for row in rows], ["unchecked"]


def main() -> None:
    """Compute what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scratch", type=Path, default=Path("benchmark_shift"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--planes", type=int, default=3)
    parser.add_argument("--runs", type=int, help="of each seed, in their order; all by default")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    keys: list[Key] = [
        {"fault": fault, "percent": percent, "checked": checked, "seed": seed}
        | {"steps": options.steps, "width": options.width, "planes": options.planes}
        for seed in range(options.seeds)
        for fault, percent, checked in RUNS[: options.runs]
    ]
    table = compute_missing(RESULTS, keys, partial(compute, options), options.jobs)
    print(f"hands: {HAND_IOU}")
    shown = table[table["condition"].isin(["control", "treated", "fccp"])]
    names = ["steps", "fault", "percent", "checked"]
    print(shown.pivot_table(["iou", "used"], names, "condition").round(3).to_string())


if __name__ == "__main__":
    main()
