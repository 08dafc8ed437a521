"""How few labels suffice: three data sets, several numbers of labelled images, three ways.

Equal cost: whatever the way, all trainings of a run together take the same number of steps. Called
again, also with more sets, labels, seeds or ways, it computes what is missing. With the defaults it
takes a night on two cores. Run from the project's folder:

``python benchmarks/label_efficiency.py [--data FOLDER] [--out FOLDER] [--sets epfl vnc h9c2]
[--labels 2 8 all] [--seeds 3] [--ways supervised pseudo-label noisy-student] [--networks unet]
[--steps 2970] [--jobs 1]``

Writes a study for each data set, and a table (Markdown) and a plot (PNG) of all sets in the folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from matplotlib import pyplot as plt

from mitolume.io.write import write_text
from mitolume.report.study_tables import Table
from mitolume.training.settings import UnlabelledSettings
from mitolume.workflow import study

STUDENT = 1 / (1 + UnlabelledSettings().length)  # what a student's length leaves to model 1
# Each with the share of its steps that model 1 takes, and its settings. Pseudo-labels take as many
# steps again as model 1's.
WAYS: dict[str, tuple[float, dict[str, Any]]] = {
    "supervised": (1, {"method": "supervised"}),
    "pseudo-label": (1 / 2, {"method": "pseudo_label"}),
    "noisy-student": (STUDENT, {"method": "noisy_student"}),
    "three-planes": (1, {"method": "supervised", "inputs": {"planes": 3}}),
}


def epfl(data: Path) -> pd.DataFrame:
    """Label planes of z 0-99; blocks of z apart from them validate and test."""
    image, mask = (
        data / "epfl-hippocampus/train.ome.tif",
        data / "epfl-hippocampus/train_mask.ome.tif",
    )
    return _table(
        (image, mask, "train", "0-99:3", "z 0-99"),
        (image, mask, "validation", "105-114:3", "z 105-114"),
        (image, mask, "test", "120-164:4", "z 120-164"),
    )


def vnc(data: Path) -> pd.DataFrame:
    """Label planes of the first stack; the second one never was labelled.

    Planes 1, 7 and 18, whose masks are empty though mitochondria are seen, are left out.
    """
    folder = data / "vnc-sstem"
    image, mask = folder / "labelled.ome.tif", folder / "labelled_mask.ome.tif"
    return _table(
        (image, mask, "train", "0,2-6,8-9", "z 0-9"),
        (folder / "unlabelled.ome.tif", "", "unlabelled", "", "second stack"),
        (image, mask, "validation", "11-13", "z 11-13"),
        (image, mask, "test", "15-17,19", "z 15-19"),
    )


def h9c2(data: Path) -> pd.DataFrame:
    """Label fields of movie 008; movie 009 validates and 010 tests."""
    roles = {"movie 008": "train", "movie 009": "validation", "movie 010": "test"}
    table = pd.read_csv(data / "h9c2-brightfield/fields.csv")
    return pd.DataFrame(
        {
            "image": [data / "h9c2-brightfield" / name for name in table["image"]],
            "mask": [data / "h9c2-brightfield" / name for name in table["mask"]],
            "role": table["specimen"].map(roles),
            "planes": "",
            "specimen": table["specimen"],
        }
    )


SETS: dict[str, Callable[[Path], pd.DataFrame]] = {"epfl": epfl, "vnc": vnc, "h9c2": h9c2}


def _table(*rows: tuple[object, ...]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["image", "mask", "role", "planes", "specimen"])


def run_study(name: str, options: argparse.Namespace) -> None:
    """Run all that is missing of a data set's study."""
    out = options.out / name
    out.mkdir(parents=True, exist_ok=True)
    table = SETS[name](options.data.resolve())
    table.to_csv(out / "fields.csv", index=False)
    arms = {}
    for network in options.networks:
        for way in options.ways:
            share, settings = WAYS[way]
            arms[f"{way}-{network}"] = settings | {
                "network": {"name": network} | settings.get("network", {}),
                "training": {"steps": round(share * options.steps)},
            }
    recipe = {
        "preset": "default",
        "fields": "fields.csv",
        "arms": arms,
        "seeds": list(range(options.seeds)),
        "labels": [k if k == "all" else int(k) for k in options.labels],
    }
    # Not the study's own preset, which has arms of its own.
    (out / "study.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    study(out / "study.yaml", out / "study", jobs=options.jobs)


def scores_in(out: Path) -> pd.DataFrame:
    """Return the test foreground IoU of every run of every set in a folder.

    It is that of the kept model; for the published way, which has no guard, that of model 2.
    """
    studies = {name: out / name / "study" / "study.csv" for name in SETS}
    scores = pd.concat(
        [pd.read_csv(path).assign(data=name) for name, path in studies.items() if path.exists()],
        ignore_index=True,
    )
    published = scores["arm"].str.startswith("pseudo-label")
    stands = scores["stands"].astype(bool).where(~published, scores["model"] == "model_2")
    return scores[stands & (scores["subset"] == "test") & (scores["metric"] == "iou")]


def as_text(scores: pd.DataFrame) -> Table:
    """Return a table with a row for each data set, budget and arm.

    The ratio to the first arm is taken on the same labelled images, seed by seed.
    """
    rows = []
    for (name, budget), group in scores.groupby(["data", "budget"], sort=False):
        by_arm = group.pivot(index="seed", columns="arm", values="value")[group["arm"].unique()]
        ratios = by_arm.div(by_arm.iloc[:, 0], axis=0)
        for arm in by_arm:
            of_arm = group[group["arm"] == arm]
            images = f"{of_arm['n_images'].max()} of {of_arm['n_specimens'].max()}"
            ratio = with_spread(ratios[arm].dropna()) if arm != by_arm.columns[0] else ""
            iou = with_spread(by_arm[arm].dropna())
            rows.append([name, str(budget), arm, iou, ratio, str(len(of_arm)), images])
    return Table(
        "",
        "Foreground IoU on test images, and its ratio to that of the first way; mean and standard "
        "deviation over seeds",
        ["data", "labelled", "way", "IoU", "ratio", "seeds", "images of specimens"],
        rows,
    )


def with_spread(values: pd.Series) -> str:
    """Write a mean, with the standard deviation where there is one."""
    spread = f" ± {values.std():.3f}" if len(values) > 1 else ""
    return f"{values.mean():.3f}{spread}"


def plot(scores: pd.DataFrame, path: Path) -> None:
    """Draw a panel for each data set: every run as a dot, the mean of each arm as a bar."""
    sets, arms = list(scores["data"].unique()), list(scores["arm"].unique())
    n_budgets = scores.groupby("data")["budget"].nunique().max()
    size = (3.4 * len(sets) + 0.6, 1.5 + 0.2 * len(arms) * n_budgets)
    figure, panels = plt.subplots(1, len(sets), figsize=size, squeeze=False, layout="constrained")
    for panel, name in zip(panels[0], sets, strict=True):
        own = scores[scores["data"] == name]
        budgets = list(own["budget"].unique())
        for number, arm in enumerate(arms):
            colour, step = f"C{number}", 0.8 / len(arms)
            for row, budget in enumerate(budgets):
                values = own[(own["arm"] == arm) & (own["budget"] == budget)]["value"]
                y = row + step * (number - (len(arms) - 1) / 2)
                panel.plot(values, [y] * len(values), "o", color=colour, alpha=0.7, label=arm)
                panel.plot([values.mean()] * 2, [y - step / 2, y + step / 2], color=colour, lw=2)
        panel.set(title=name, xlabel="foreground IoU (test)", yticks=range(len(budgets)))
        panel.set_yticklabels([f"{budget} labelled" for budget in budgets])
        panel.set_ylim(len(budgets) - 0.5, -0.5)
        panel.grid(axis="x", alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    handles, names = panels[0, 0].get_legend_handles_labels()
    one_each = dict(zip(names, handles, strict=True))
    figure.legend(one_each.values(), one_each.keys(), loc="outside upper center",
                  ncols=len(arms), frameon=False)  # fmt: skip
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/label_efficiency"))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--labels", nargs="+", default=["2", "8", "all"])
    parser.add_argument("--networks", nargs="+", default=["unet"])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS)[:3])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--steps", type=int, default=2970, help="steps of a run, all its trainings together"
    )
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args(arguments)
    for name in options.sets:
        run_study(name, options)
    scores = scores_in(options.out)
    plot(scores, options.out / "label_efficiency.png")
    text = as_text(scores).to_markdown()
    write_text(options.out / "label_efficiency.md", text)
    print(text)


if __name__ == "__main__":
    main()
