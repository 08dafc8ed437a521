"""How few labels suffice: three data sets, several numbers of labelled images, three ways.

Equal cost: whatever the way, a run takes as many steps, all its trainings together. Stops and
goes on as studies do, also with more sets, labels, seeds and ways: overnight on two cores with the
defaults. Run from the project's folder:

``python benchmarks/label_efficiency.py [--data FOLDER] [--out FOLDER] [--sets epfl vnc h9c2]
[--labels 2 8 all] [--seeds 3] [--ways supervised pseudo-label noisy-student] [--networks unet]
[--steps 3000] [--jobs 1]``

Writes a study for each data set, a table (Markdown) and a plot (SVG) of all.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import yaml

from mitolume.io.write import write_text
from mitolume.study.compare.study import study
from mitolume.study.report.study_tables import Table

mpl.use("Agg")
# Each with the share of its steps that model 1 takes, and its settings. Students add a quarter
# of model 1's, pseudo-labels as many again; learning to restore takes half as many before.
WAYS: dict[str, tuple[float, dict[str, Any]]] = {
    "supervised": (1, {"method": "supervised"}),
    "pseudo-label": (1 / 2, {"method": "pseudo_label"}),
    "noisy-student": (4 / 5, {"method": "noisy_student"}),
    "mean-teacher": (4 / 5, {"method": "mean_teacher"}),
    "three-rounds": (4 / 5, {"method": "noisy_student", "unlabelled": {"rounds": 3}}),
    "planes-in-3": (1, {"method": "supervised", "network": {"planes_in": 3}}),
    "init-denoise": (2 / 3, {"method": "supervised", "init": "denoise"}),
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
    """Label planes of the first stack; the second one never was labelled."""
    folder = data / "vnc-sstem"
    image, mask = folder / "labelled.ome.tif", folder / "labelled_mask.ome.tif"
    return _table(
        (image, mask, "train", "0-9", "z 0-9"),
        (folder / "unlabelled.ome.tif", "", "unlabelled", "", "second stack"),
        (image, mask, "validation", "11-13", "z 11-13"),
        (image, mask, "test", "15-19", "z 15-19"),
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


def run_study(name: str, wanted: argparse.Namespace) -> pd.DataFrame:
    """Run all that is missing of a data set's study; return its scores."""
    out = wanted.out / name
    out.mkdir(parents=True, exist_ok=True)
    table = SETS[name](wanted.data.resolve())
    table.to_csv(out / "fields.csv", index=False)
    arms = {}
    for network in wanted.networks:
        for way in wanted.ways:
            share, settings = WAYS[way]
            arms[f"{way}-{network}"] = settings | {
                "network": {"name": network} | settings.get("network", {}),
                "training": {"steps": round(share * wanted.steps)},
            }
    asked = {
        "preset": "default",
        "fields": "fields.csv",
        "arms": arms,
        "seeds": list(range(wanted.seeds)),
        "labels": [k if k == "all" else int(k) for k in wanted.labels],
    }
    # Not the study's own preset, which has arms of its own.
    (out / "asked.yaml").write_text(yaml.safe_dump(asked, sort_keys=False))
    folder = study(out / "asked.yaml", out / "study", jobs=wanted.jobs)
    return pd.read_csv(folder / "study.csv").assign(data=name)


def summarise(scores: pd.DataFrame) -> pd.DataFrame:
    """Return test foreground IoU, mean and standard deviation over seeds, as a table."""
    chosen = scores[
        (scores["subset"] == "test") & (scores["metric"] == "iou") & scores["stands"].astype(bool)
    ]
    return (
        chosen.groupby(["data", "arm", "budget"], sort=False)
        .agg(
            average=("value", "mean"),
            spread=("value", "std"),
            seeds=("seed", "nunique"),
            images=("n_images", "max"),
            specimens=("n_specimens", "max"),
        )
        .reset_index()
    )


def plot(table: pd.DataFrame, path: Path) -> None:
    """Draw a panel for each data set: a line for each arm over the number of labelled images."""
    from matplotlib import pyplot as plt

    sets = list(table["data"].unique())
    figure, panels = plt.subplots(1, len(sets), figsize=(4 * len(sets), 3.4), squeeze=False)
    for panel, name in zip(panels[0], sets, strict=True):
        for arm, rows in table[table["data"] == name].groupby("arm", sort=False):
            panel.errorbar(
                rows["budget"].astype(str), rows["average"], rows["spread"].fillna(0), label=arm,
                capsize=2, marker="o", markersize=4,
            )  # fmt: skip
        panel.set(title=name, xlabel="labelled images", ylabel="foreground IoU (test)")
    panels[0, 0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path)


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
    parser.add_argument("--steps", type=int, default=3000, help="of a run")
    parser.add_argument("--jobs", type=int, default=1)
    wanted = parser.parse_args(arguments)
    scores = pd.concat([run_study(name, wanted) for name in wanted.sets], ignore_index=True)
    table = summarise(scores)
    plot(table, wanted.out / "label_efficiency.svg")
    text = as_text(table).to_markdown()
    write_text(wanted.out / "label_efficiency.md", text)
    print(text)


def as_text(table: pd.DataFrame) -> Table:
    """Put scores into words: a row for each data set, budget and arm."""
    rows = [
        [str(r.data), str(r.budget), str(r.arm), f"{r.average:.3f} ± {r.spread:.3f}", str(r.seeds),
         f"{r.images} of {r.specimens}"]
        for r in table.itertuples()
    ]  # fmt: skip
    caption = "Foreground IoU on test images, mean and standard deviation over seeds"
    return Table(
        "", caption, ["data", "labelled", "arm", "IoU", "seeds", "images of specimens"], rows
    )


if __name__ == "__main__":
    main()
