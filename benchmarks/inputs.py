"""How many neighbouring planes help, and how far apart: IoU against planes and z-step.

Simulated stacks of 7 planes, eight outlined control fields, exact masks of other dishes as the
test; and two volumes of electron microscopy, 8 labelled planes each (EPFL: FIB-SEM, VNC: serial
sections). Each way trains for as many steps.

``python benchmarks/inputs.py [--data FOLDER] [--scratch FOLDER] [--seeds 1] [--steps 600]
[--width 8] [--planes 1 3] [--z-steps 0.5] [--apart 0.5]``; ``--apart`` is the distance in µm of the
planes that the network sees, by default the z-step.
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

RESULTS = Path(__file__).parent / "results/inputs.csv"
PLANES = (1, 3, 5, 7)
Z_STEPS_UM = (0.5, 1.0, 2.0, 5.0, 0.25)
MICROSCOPY = {"epfl": 0.005, "vnc": 0.05}  # z-steps in µm of volumes of electron microscopy


def compute(options: argparse.Namespace, key: Key) -> pd.DataFrame:
    """Train with some planes as input, and score the test images by condition."""
    out = options.scratch / "_".join(map(str, key.values()))
    simulated = key["data"] == "simulated"
    fields = _simulated(options, key) if simulated else _electron_microscopy(options, key["data"])
    table = options.scratch / f"{out.name}.csv"
    fields.to_csv(table, index=False)
    settings = [
        "method=supervised", "views=1", f"seed={key['seed']}", f"training.steps={options.steps}",
        f"inputs.planes={key['planes']}", f"network.width={options.width}",
        f"inputs.step_um={key['apart_um']}",
    ]  # fmt: skip
    compute_run(load_recipe(fields=table, settings=settings), fresh(out), quiet=True)
    return scores_by_condition(out).assign(steps=options.steps, width=options.width)


def _simulated(options: argparse.Namespace, key: Key) -> pd.DataFrame:
    step = key["z_step_um"]
    settings = SimulationSettings(shape=(256, 256), planes=7, z_step_um=(step, step))
    dishes = simulated_dishes(
        options.scratch / f"dishes_{step}_{key['seed']}", settings, 100 + key["seed"],
        control=8, treated=0, test_control=8, test_treated=2,
    )  # fmt: skip
    test = dishes["test"]
    return dishes.assign(mask=dishes["hand"].where(~test, dishes["exact"])).assign(
        role=test.map({True: "test", False: "train"})
    )[["image", "mask", "role", "channel", "planes", "specimen", "condition"]]


def _electron_microscopy(options: argparse.Namespace, name: str) -> pd.DataFrame:
    folder, image, train, test = {
        "epfl": ("epfl-hippocampus", "train", "4-95:13", "120-164:4"),
        "vnc": ("vnc-sstem", "labelled", "0,2-6,8-9", "15-17,19"),
    }[name]
    return pd.DataFrame(
        {
            "image": (options.data / folder / f"{image}.ome.tif").resolve(),
            "mask": (options.data / folder / f"{image}_mask.ome.tif").resolve(),
            "role": ["train", "test"],
            "planes": [train, test],
            "specimen": ["first planes", "last planes"],
            "condition": name,
        }
    )


def main() -> None:
    """Compute what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--scratch", type=Path, default=Path("benchmark_inputs"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--planes", type=int, nargs="+", default=PLANES)
    parser.add_argument("--z-steps", type=float, nargs="+", default=Z_STEPS_UM, metavar="UM")
    parser.add_argument("--apart", type=float, metavar="UM")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    data = [("simulated", step) for step in options.z_steps]
    if options.data.exists():
        data = [*MICROSCOPY.items(), *data]
    keys: list[Key] = [
        {"data": name, "z_step_um": step, "apart_um": options.apart or step}
        | {"planes": planes, "seed": seed}
        for seed in range(options.seeds)
        for planes in options.planes
        for name, step in data
    ]
    # The data sets first, one process each, so that no two runs simulate the same.
    for seed in range(options.seeds):
        for step in options.z_steps:
            _simulated(options, {"z_step_um": step, "seed": seed})
    table = compute_missing(RESULTS, keys, partial(compute, options), options.jobs)
    shown = table[table["condition"].isin(["control", "treated", *MICROSCOPY])]
    rows = ["data", "condition", "z_step_um", "apart_um", "seed"]
    print(shown.pivot_table("iou", rows, "planes").round(3).to_string())


if __name__ == "__main__":
    main()
