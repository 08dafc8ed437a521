"""From control to treated cells: what closes the gap, outlines by hand or masks from the dye.

Simulated dishes: 8 control fields and 4 of each treatment to learn from, other dishes as the test,
scored against exact masks; k control fields, and three others that validate, are outlined by an
imitated hand. With ``--source h9c2``, brightfield of H9c2 cells: k fields of movie 008 have the
masks that were given with them, the others of movies 008 and 009 their fluorescence; the test is
movie 010, and there is no validation. All trainings of a run together take the same number of
steps, whatever the arm.

``python benchmarks/shift.py [--source simulated] [--data FOLDER] [--scratch FOLDER] [--seeds 3]
[--steps 600] [--width 8] [--planes 3] [--outlines 8 2 1] [--arms ...]``
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from shared import Key, compute_missing, fresh, scores_by_condition, simulated_dishes

from mitolume.io.read import read
from mitolume.io.write import write_mask
from mitolume.runs.folder import Run, load
from mitolume.runs.recipe import load_recipe
from mitolume.runs.run import compute_run
from mitolume.simulate.settings import SimulationSettings

RESULTS = Path(__file__).parent / "results/shift.csv"
ALL = {"simulated": 24, "h9c2": 49}  # fields to learn from; of the former eight are control
LEAST_GAP = 0.02  # of IoU: a share of less is noise
STUDENT = 10 / 11  # what a noisy student, a tenth as long, leaves to model 1
# The table has two ways more: "outlines, then dye" trained on the outlines for half of the steps,
# then on both; "outlines, dye elsewhere" left out the dye of the outlined fields.
# Each with the share of its steps that model 1 takes, and its settings.
ARMS: dict[str, tuple[float, list[str]]] = {
    "supervised": (1, ["method=supervised"]),
    "pseudo-label": (1 / 2, ["method=pseudo_label", "unlabelled.teacher=self"]),
    "noisy student": (STUDENT, ["method=noisy_student", "unlabelled.teacher=self"]),
    "outlines and dye": (1, ["method=supervised", "unlabelled.teacher=dye"]),
    "dye alone": (1, ["method=supervised"]),
    "first weights from the dye": (1 / 2, ["method=supervised"]),
    "network that saw the dye": (1 / 2, ["method=supervised"]),
    "two more outlines": (1, ["method=supervised"]),
    "all outlined": (1, ["method=supervised"]),
}


def compute(options: argparse.Namespace, key: Key) -> pd.DataFrame:
    """Train one arm, and score its model on the test images by condition."""
    rows, more = fields_of(options, key), []
    if key["arm"] == "first weights from the dye":
        dye = fields_of(options, key | {"arm": "dye alone"})
        more = [f"init={_run(options, key, dye, 'first').path}"]
    if key["arm"] == "network that saw the dye":
        both = "inputs.channels=[Transmitted,Mitochondria]"
        teacher = _run(options, key, rows, "teacher", [both])
        rows = _labelled_by(teacher, rows)
    run = _run(options, key, rows, settings=more)
    # Whichever model the run would keep, an arm is its last one.
    return scores_by_condition(run.path, run.models[-1]).assign(kept=run.kept)


def _run(
    options: argparse.Namespace, key: Key, rows: pd.DataFrame, name: str = "",
    settings: Sequence[str] = (),
) -> Run:  # fmt: skip
    """Train on a table of fields, for the share of the arm's steps that a training takes."""
    share, own = ARMS[key["arm"]]
    values = [str(value) for value in key.values()] + [name] * bool(name)
    out = options.scratch / "_".join(values).replace(" ", "-")
    table = options.scratch / f"{out.name}.csv"
    rows.to_csv(table, index=False)
    settings = [
        *own, "views=1", f"seed={key['seed']}", f"inputs.planes={key['planes']}",
        f"training.steps={round(share * key['steps'])}", f"network.width={key['width']}", *settings,
    ]  # fmt: skip
    return compute_run(load_recipe(fields=table, settings=settings), fresh(out), quiet=True)


def _labelled_by(teacher: Run, rows: pd.DataFrame) -> pd.DataFrame:
    """Give the rows without an outline the masks of a network."""
    predictor, rows = load(teacher.path, views=1), rows.copy()
    for index in rows.index[rows["role"] == "unlabelled"]:
        image = Path(rows.loc[index, "image"])
        mask = teacher.path / "masks" / f"{image.name.split('.')[0]}.ome.tif"
        mask.parent.mkdir(exist_ok=True)
        write_mask(mask, predictor.mask(predictor.predict(read(image))))
        rows.loc[index, ["mask", "role"]] = [str(mask), "train"]
    return rows


def _dishes(options: argparse.Namespace, seed: int) -> pd.DataFrame:
    settings = SimulationSettings(shape=(256, 256), planes=5, z_step_um=(0.5, 0.5))
    return simulated_dishes(
        options.scratch / f"dishes_{seed}", settings, 200 + seed,
        control=8, treated=4, test_control=8, test_treated=4,
    )  # fmt: skip


def _movies(options: argparse.Namespace, seed: int) -> pd.DataFrame:
    """Return the fields of H9c2 cells, those of each movie in an order drawn by the seed."""
    folder = options.data / "h9c2-brightfield"
    table = pd.read_csv(folder / "fields.csv").sample(frac=1, random_state=seed)
    table = table.sort_values("specimen", kind="stable", ignore_index=True)
    files = table[["image", "mask", "fluorescence"]].map(lambda name: str(folder.resolve() / name))
    return pd.DataFrame(
        {
            "image": files["image"],
            "exact": files["mask"],
            "hand": files["mask"],
            "fluorescence": files["fluorescence"],
            "pixel_size_um": 0.08,  # likely: the files don't say
            "specimen": table["specimen"],
            "condition": table["specimen"].map(lambda name: "control" if "008" in name else name),
            "test": table["specimen"] == "movie 010",
        }
    )


def fields_of(options: argparse.Namespace, key: Key) -> pd.DataFrame:
    """Return the table of fields of a run."""
    arm, k = key["arm"], key["k"] + 2 * (key["arm"] == "two more outlines")
    source = _movies if key.get("source") == "h9c2" else _dishes
    dishes = source(options, key["seed"])
    learnt, test = dishes[~dishes["test"]], dishes[dishes["test"]]
    control = learnt["condition"] == "control"
    outlined = control & (control.cumsum() <= k)
    if arm == "all outlined":
        outlined |= True
    with_dye = arm in ("dye alone", "outlines and dye")
    train = learnt.assign(
        mask=learnt["hand"].where(outlined, ""),
        role=outlined.map({True: "train", False: "train" if arm == "dye alone" else "unlabelled"}),
        fluorescence=learnt["fluorescence"] if with_dye else "",
    )
    validates = (test["condition"] == "control") & ((test["condition"] == "control").cumsum() <= 3)
    if arm == "dye alone":
        tested = test.assign(
            mask=test["exact"].where(~validates, ""),
            fluorescence=test["fluorescence"].where(validates, ""),
        )
    else:
        tested = test.assign(mask=test["hand"].where(validates, test["exact"]), fluorescence="")
    tested["role"] = validates.map({True: "validation", False: "test"})
    return pd.concat([train, tested]).drop(columns=["exact", "hand", "test"])


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return each arm's IoU by length, network and condition: seeds, mean, spread, *gap closed*.

    The gap is what outlines of all fields gain over those of eight control fields, seed by seed;
    its share is given where it is at least `LEAST_GAP` for every seed, with its range over seeds.
    """
    seeds = table.pivot_table("iou", ["steps", "width", "planes", "arm", "k", "condition"], "seed")
    rows = seeds.agg(["count", "mean", "std"], axis=1)
    low = seeds.xs(("supervised", 8), level=("arm", "k"))
    gap = seeds.xs("all outlined", level="arm").droplevel("k") - low
    sure = gap[(gap >= LEAST_GAP).all(axis=1)]
    closed = (seeds - low).div(sure).dropna(how="all")
    return rows.join(closed.agg(["mean", "min", "max"], axis=1).add_prefix("closed_"))


def main() -> None:
    """Compute what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", choices=["simulated", "h9c2"], default="simulated")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--scratch", type=Path, default=Path("benchmark_shift"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--planes", type=int, default=3)
    parser.add_argument("--outlines", type=int, nargs="+", default=[8, 2, 1])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    keys: list[Key] = []
    for seed in range(options.seeds if options.source == "simulated" else 0):
        _dishes(options, seed)  # before the runs, so that no two simulate the same
    for arm in options.arms:
        counts = {"dye alone": [0], "all outlined": [ALL[options.source]]}.get(
            arm, options.outlines
        )
        keys += [
            {"source": options.source, "arm": arm, "k": k, "seed": seed, "steps": options.steps}
            | {"width": options.width, "planes": options.planes}
            for k in counts
            for seed in range(options.seeds)
            if not (arm == "two more outlines" and k > 6 and options.source == "simulated")
        ]
    table = compute_missing(RESULTS, keys, partial(compute, options), options.jobs)
    table = table[table["source"] == options.source]
    shown = table[table["condition"].isin(["control", "treated", "fccp", "movie 010"])]
    print(summary(shown).round(3).to_string())


if __name__ == "__main__":
    main()
