"""How much accuracy more fields, more steps and wider networks buy, with masks from the dye alone.

Simulated dishes of 256 px, half of them control and the other half of four treatments in equal
shares; other dishes as the test, scored against exact masks. Smaller numbers of fields are parts of
the larger ones. Runs are ordered so that cheap and informative ones come first; stopped, it goes on
run by run.

``python benchmarks/budget.py [--scratch FOLDER] [--runs 12] [--planes 3] [--jobs 1]``
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import pandas as pd
from shared import Key, compute_missing, fresh, scores_by_condition, simulated_dishes

from mitolume.runs.recipe import load_recipe
from mitolume.runs.run import compute_run
from mitolume.simulate.settings import SimulationSettings

RESULTS = Path(__file__).parent / "results/budget.csv"
FIELDS = (8, 24, 72, 200)  # multiples of 8, so that every condition has its share
VALIDATION = 3  # control fields of the test dishes that choose the epoch, by their dye
# Width, steps, numbers of fields; each is computed for all seeds before the next.
ORDER: list[tuple[int, int, tuple[int, ...]]] = [
    (8, 600, FIELDS[:3]), (8, 1500, FIELDS[:3]), (16, 600, FIELDS[:3]), (16, 1500, FIELDS[:3]),
    (8, 3000, FIELDS[:3]), (8, 600, FIELDS[3:]), (8, 1500, FIELDS[3:]), (16, 3000, FIELDS),
    (8, 3000, FIELDS[3:]), (8, 6000, FIELDS), (16, 6000, FIELDS), (32, 1500, FIELDS),
    (32, 6000, FIELDS),
]  # fmt: skip


def compute(options: argparse.Namespace, key: Key) -> pd.DataFrame:
    """Train on the dye of some fields, and score the test images by condition."""
    out = options.scratch / "_".join(str(value) for value in key.values())
    parts = [_dishes(options, key["seed"], part) for part in FIELDS if part <= key["fields"]]
    test = _dishes(options, key["seed"], 0)
    validates = test["condition"].eq("control") & (
        test["condition"].eq("control").cumsum() <= VALIDATION
    )
    tested = test.assign(
        mask=test["exact"].where(~validates, ""),
        fluorescence=test["fluorescence"].where(validates, ""),
        role=validates.map({True: "validation", False: "test"}),
    )
    rows = pd.concat([*(part.assign(mask="", role="train") for part in parts), tested])
    table = options.scratch / f"{out.name}.csv"
    rows.drop(columns=["exact", "hand", "test"]).to_csv(table, index=False)
    settings = [
        "method=supervised", "views=1", f"seed={key['seed']}", f"inputs.planes={options.planes}",
        f"training.steps={key['steps']}", f"network.width={key['width']}",
    ]  # fmt: skip
    compute_run(load_recipe(fields=table, settings=settings), fresh(out), quiet=True)
    return scores_by_condition(out)


def _dishes(options: argparse.Namespace, seed: int, part: int) -> pd.DataFrame:
    """Return the fields that lead from one number to the next, or with 0 those of the test."""
    before = max((n for n in FIELDS if n < part), default=0)
    control, treated = ((part - before) // 2, (part - before) // 8) if part else (8, 4)
    dishes = simulated_dishes(
        options.scratch / f"dishes_{seed}_{part}",
        SimulationSettings(shape=(256, 256), planes=5, z_step_um=(0.5, 0.5)),
        10_000 + 1000 * seed + part,
        control=control, treated=treated, test_control=0, test_treated=0,
    )  # fmt: skip
    return dishes.assign(specimen=f"{part} " + dishes["specimen"])


def main() -> None:
    """Compute what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scratch", type=Path, default=Path("benchmark_budget"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--runs", type=int, help="only so many, in their order; all by default")
    parser.add_argument("--planes", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    keys: list[Key] = [
        {"width": width, "steps": steps, "fields": fields, "seed": seed}
        for width, steps, numbers in ORDER
        for fields in numbers
        for seed in range(options.seeds)
    ][: options.runs]
    for seed in range(options.seeds):  # before the runs, so that no two simulate the same
        for part in (0, *(n for n in FIELDS if n <= max(key["fields"] for key in keys))):
            _dishes(options, seed, part)
    table = compute_missing(RESULTS, keys, partial(compute, options), options.jobs)
    shown = table[table["condition"].isin(["control", "treated", "fccp"])]
    wide = shown.pivot_table("iou", ["width", "steps", "fields"], ["condition", "seed"])
    print(wide.round(3).to_string())


if __name__ == "__main__":
    main()
