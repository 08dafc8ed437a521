"""A model trained on simulated brightfield alone, scored on real fields; and the reverse.

The real fields are a folder with a table `fields.csv`, in which `specimen` names the movie; their
pixels are taken to be as large as the simulated ones.
Run from the project's folder: ``python benchmarks/simulated_beside_real.py FOLDER [--out DIR]
[--steps N]``. It simulates preset `brightfield`, trains twice, and prints two tables;
DIR/side_by_side.png shows simulated and real fields. Called again, it computes what is missing.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitolume import load, load_recipe, run
from mitolume.analysis.metrics import (
    Counts,
    best_threshold,
    chance_iou,
    count,
    iou,
    probability_histogram,
)
from mitolume.analysis.pictures import error_map, write_png
from mitolume.batch.simulate import plan, write_data_set
from mitolume.io.check import check_table
from mitolume.io.fields import Field
from mitolume.io.rows import read_row
from mitolume.io.table import write_table
from mitolume.simulate.presets import PRESETS

Floats = NDArray[np.float64]
TRAINED_ON, CHOSEN_ON = "movie 008", "movie 009"  # of the model trained on real fields
LABELS = 16
PIXEL_UM = (PRESETS["brightfield"].settings.pixel_um,) * 2
SIDE = 256  # px of a picture, and of the patches whose spectra are compared
SLOPE = (0.03, 0.2)  # cycles a pixel: below the lens's limit, above the size of cells


def main() -> None:
    """Print the tables, write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("real", type=Path, help="folder with fields.csv")
    parser.add_argument("--out", type=Path, default=Path("runs/simulated_beside_real"))
    parser.add_argument("--steps", type=int, default=1000, help="steps of each training")
    options = parser.parse_args()
    simulated = write_data_set(plan(preset="brightfield", seed=1), options.out / "simulated")
    real = options.real / "fields.csv"
    print_looks({"simulated": simulated, "real": real})
    split = options.out / "real.csv"
    write_table(split, by_movie(check_table(real).fields))
    runs = {"simulated": train(simulated, options.out / "on_simulated", options.steps)}
    runs["real"] = train(split, options.out / "on_real", options.steps, labels=LABELS)
    print_scores(runs, real, simulated)
    write_png(options.out / "side_by_side.png", side_by_side(simulated, real, runs["simulated"]))


def by_movie(rows: Sequence[Field]) -> list[Field]:
    """Give each movie one role, so that no frame of a scored movie was trained on."""
    roles = {TRAINED_ON: "train", CHOSEN_ON: "validation"}
    return [replace(row, role=roles.get(row.specimen, "test")) for row in rows]


def train(table: Path, out: Path, steps: int, labels: int | str = "all") -> Path:
    """Train the default network with masks only; return the run folder."""
    settings = [f"training.steps={steps}", "method=supervised", f"labels={labels}"]
    return run(load_recipe(fields=table, settings=settings), out, resume=True, quiet=True)


def planes(table: Path) -> Iterator[tuple[Field, int, NDArray[Any], NDArray[np.uint8]]]:
    """Yield row, plane, image (Y, X) and mask of each labelled plane."""
    checked = check_table(table)
    for row in checked.fields:
        for z in row.planes or (0,):
            image, mask = read_row(row, z, checked.mask_kind)
            if mask is not None:
                yield row, z, image, mask


def print_scores(runs: dict[str, Path], real: Path, simulated: Path) -> None:
    """Print the IoU of each model by movie, and on the simulated test fields."""
    print("| scored on | planes | chance | model | IoU | IoU at the best threshold |")
    print("|---|---|---|---|---|---|")
    for trained, folder in runs.items():
        predictor = load(folder)
        groups: dict[str, list[tuple[Counts, NDArray[np.int64]]]] = {}
        for kind, table in (("real", real), ("simulated", simulated)):
            for row, _, image, mask in planes(table):
                if kind == "simulated" and row.role != "test":
                    continue
                found = predictor.predict_plane(image, PIXEL_UM)
                cut = (found >= predictor.card.threshold).astype(np.uint8)
                scored = count(cut, mask), probability_histogram(found, mask)
                name = row.specimen if kind == "real" else "simulated test fields"
                groups.setdefault(name, []).append(scored)
        for name, scores in groups.items():
            pooled = sum((one for one, _ in scores), Counts())
            best = best_threshold(np.sum([one for _, one in scores], axis=0))[1]
            seen = trained == "real" and name in (TRAINED_ON, CHOSEN_ON)
            note = " (seen)" if seen else ""
            print(
                f"| {name} | {len(scores)} | {chance_iou(pooled):.3f} | trained on "
                f"{trained}{note} | {iou(pooled):.3f} | {best:.3f} |"
            )


def print_looks(tables: dict[str, Path]) -> None:
    """Print median, 10th and 90th percentile over planes of what can be measured in each."""
    print("| planes | contrast | noise | slope of the power spectrum | foreground |")
    print("|---|---|---|---|---|")
    for name, table in tables.items():
        looks = [look(image, mask) for _, _, image, mask in planes(table)]
        low, middle, high = np.nanpercentile(looks, [10, 50, 90], axis=0)
        cells = [f"{m:.3f} ({a:.3f} to {b:.3f})" for a, m, b in zip(low, middle, high, strict=True)]
        print(f"| {name}, {len(looks)} | {' | '.join(cells)} |")


def look(image: NDArray[Any], mask: NDArray[np.uint8]) -> tuple[float, float, float, float]:
    """Return contrast (std/mean), noise/mean, slope of the spectrum, foreground share."""
    relative = np.asarray(image, float) / float(image.mean())
    finest = relative[1:, 1:] - relative[1:, :-1] - relative[:-1, 1:] + relative[:-1, :-1]
    noise = float(np.median(np.abs(finest))) / 0.6745 / 2
    share = float((mask == 1).sum() / max((mask != 255).sum(), 1))
    return float(relative.std()), noise, slope(relative), share


def slope(image: Floats) -> float:
    """Return the exponent of the power over spatial frequency, without the noise's power."""
    side = min(*image.shape, SIDE)
    window = np.outer(np.hanning(side), np.hanning(side))
    patch = (image[:side, :side] - image[:side, :side].mean()) * window
    power = np.abs(np.fft.fft2(patch)) ** 2
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))
    edges = np.geomspace(*SLOPE, 9)
    rings = [(frequency >= a) & (frequency < b) for a, b in pairwise(edges)]
    noise = power[frequency > 0.42].mean()
    means = np.array([power[ring].mean() for ring in rings if ring.any()]) - noise
    centres = np.array([frequency[ring].mean() for ring in rings if ring.any()])
    kept = means > 0
    if kept.sum() < 3:
        return float("nan")
    return float(np.polyfit(np.log(centres[kept]), np.log(means[kept]), 1)[0])


def side_by_side(simulated: Path, real: Path, folder: Path) -> NDArray[np.uint8]:
    """Draw simulated fields (left) and real ones (right), and below each what is found in it."""
    predictor = load(folder)
    columns = []
    for table, role in ((simulated, "test"), (real, "")):
        large = [
            one
            for one in planes(table)
            if min(one[2].shape) >= SIDE - 8 and (not role or (one[0].role == role and one[1] == 1))
        ]
        for _, _, image, mask in large[:: max(len(large) // 3, 1)][:3]:
            cut = (predictor.predict_plane(image, PIXEL_UM) >= predictor.card.threshold).astype(
                np.uint8
            )
            below = error_map(image, mask, cut)
            columns.append(np.concatenate([framed(grey(image)), framed(below)]))
    return np.concatenate(columns, axis=1)


def grey(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Show the mean in middle grey and 0.7 of it as the whole range to either side."""
    relative = np.asarray(image, float) / float(image.mean()) - 1
    shown = (128 + relative * 127 / 0.7).clip(0, 255).astype(np.uint8)
    return np.repeat(shown[..., None], 3, axis=2)


def framed(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut to a square, or fill up, with a white line around it."""
    square = np.full((SIDE + 4, SIDE + 4, 3), 255, np.uint8)
    part = picture[:SIDE, :SIDE]
    square[2 : 2 + part.shape[0], 2 : 2 + part.shape[1]] = part
    return square


if __name__ == "__main__":
    main()
