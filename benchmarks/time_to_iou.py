"""How long until a training is as good as a plain loop's, and do masks in bfloat16 agree.

``python benchmarks/time_to_iou.py [--data FOLDER] [--scratch FOLDER] [--seeds 3] [--steps 400]
[--width 8] [--shares 0.5 0.75] [--arms plain ours]``. The plain loop is that of ``speed.py``:
the same network and loss, float32, patches augmented one by one, Adam at a constant rate; its user
keeps the weights that are best on the validation images, of two rates the best on them. It is
stopped after ``--steps``; each of its checks has a row, so that its shorter trainings can be
compared too. Ours is the recipe of the default, ending after a share of these steps. Both choose
their threshold on the validation images. To save time the plain loop lays its arrays out channels
last, which changes only rounding; what a step costs is measured in its usual layout, in turns with
ours.

Rows go to ``results/time_to_iou.csv`` as trainings end; called again, it computes those that
are missing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from shared import Key, compute_missing, simulated_dishes
from torch.utils.data import DataLoader, Dataset

import mitolume
from mitolume.analysis.metrics import best_threshold, probability_histogram
from mitolume.inference.tiled import predict_tiled
from mitolume.models.losses import dice_bce
from mitolume.models.networks import SegmentationNetwork, for_prediction
from mitolume.models.openvino_network import OpenVINONetwork
from mitolume.models.settings import NetworkSettings
from mitolume.preprocess.normalise import measure_range, normalise
from mitolume.runs.recipe import load_recipe
from mitolume.simulate.settings import SimulationSettings
from mitolume.training.augment import full
from mitolume.training.loop import fit
from mitolume.training.methods import METHODS
from mitolume.training.patches import Patches, PreparedImage
from mitolume.training.segmentation import Segmentation, Validation

RESULTS = Path(__file__).parent / "results/time_to_iou.csv"
SPECIMENS = {"simulated": 8}  # of the test; elsewhere one
RATES = (3e-3, 1e-3)  # of the plain loop; ours has the recipe's
CHECKS = 10
PARTS = ("train", "validation", "test")
Images = dict[str, list[PreparedImage]]
# Files, planes that train, validate and test, and the specimens that are apart: one stack each.
MICROSCOPY = {
    "epfl": ("epfl-hippocampus/train", range(4, 96, 13), range(105, 115, 3), range(120, 165, 6)),
    "vnc": ("vnc-sstem/labelled", (0, 2, 3, 4, 5, 6, 8, 9), (11, 12, 13), (15, 16, 17, 19)),
}


def images(options: argparse.Namespace, data: str) -> Images:
    """Return the prepared images of a data set, by their part."""
    if data in MICROSCOPY:
        stem, *planes = MICROSCOPY[data]
        pixels, masks = (
            mitolume.read(options.data / f"{stem}{end}.ome.tif").values[0, 0]
            for end in ("", "_mask")
        )
        return {
            part: [_prepared(pixels[z], masks[z]) for z in chosen]
            for part, chosen in zip(PARTS, planes, strict=True)
        }
    if data == "h9c2":
        folder = options.data / "h9c2-brightfield"
        table = pd.read_csv(folder / "fields.csv")
        table["part"] = table["specimen"].map(
            dict(zip((f"movie {n}" for n in ("008", "009", "010")), PARTS, strict=True))
        )
        files = {part: own for part, own in table.groupby("part")}
        return {
            part: [
                _prepared(mitolume.read(folder / i).values[0, 0, 0], _mask(folder / m))
                for i, m in zip(own["image"], own["mask"], strict=True)
            ]
            for part, own in files.items()
        }
    settings = SimulationSettings(shape=(256, 256), planes=7)
    dishes = simulated_dishes(
        options.scratch / "dishes", settings, 100,
        control=8, treated=0, test_control=11, test_treated=0,
    )  # fmt: skip
    z = settings.planes // 2
    made = []
    for row in dishes.itertuples():
        image = mitolume.read(row.image)
        channel = list(image.coords["C"].values).index(row.channel)
        made.append(_prepared(image.values[0, channel, z], _mask(row.exact, z)))
    return {"train": made[:8], "validation": made[8:11], "test": made[11:]}


def _mask(path: Any, z: int = 0) -> np.ndarray[Any, Any]:
    planes = mitolume.read(path).values[0, 0]
    return np.asarray(planes[min(z, len(planes) - 1)])


def _prepared(pixels: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]) -> PreparedImage:
    return PreparedImage(normalise(pixels, measure_range(pixels)), mask.astype(np.uint8))


def network(key: Key) -> SegmentationNetwork:
    """Return a network with the first weights of a seed."""
    return SegmentationNetwork(NetworkSettings(width=key["width"]), seed=key["seed"])


class _Samples(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Patches drawn and augmented one by one."""

    def __init__(self, images: list[PreparedImage], steps: int, seed: int) -> None:
        self.patches = Patches(images, patch=128, batch=1, seed=seed)
        self.steps = steps

    def __len__(self) -> int:
        return self.steps * 8

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        _, image, target = self.patches[number]
        image, target = full(image, target, torch.Generator().manual_seed(number))
        return image[0], target[0]


def histograms(made: torch.nn.Module, chosen: list[PreparedImage]) -> np.ndarray[Any, Any]:
    """Count the probabilities of background and foreground pixels."""
    counts = np.zeros((2, 100), np.int64)
    for image in chosen:
        assert image.mask is not None
        counts += probability_histogram(predict_tiled(made, image.image), image.mask)
    return counts


def scores(made: torch.nn.Module, data: Images) -> dict[str, float]:
    """Return the IoU on the validation images, and on the test images at the same threshold."""
    threshold, validation = best_threshold(histograms(made, data["validation"]))
    counts = histograms(made, data["test"])
    found = counts[:, round(threshold * 100) :].sum(1)
    iou = found[1] / (counts[1].sum() + found[0])
    return {"threshold": threshold, "validation": validation, "iou": iou}


def plain(key: Key, data: Images, last: bool = False) -> pd.DataFrame:
    """Train by the plain loop; a row for each check, with the best weights so far."""
    made = network(key).train()
    if not last:
        made.body.to(memory_format=torch.contiguous_format)
    forward = made if last else made.body
    optimiser = torch.optim.Adam(made.parameters(), lr=key["rate"])
    rows: list[dict[str, float]] = []
    batches = DataLoader(_Samples(data["train"], key["length"], key["seed"]), batch_size=8)
    for step, (image, target) in enumerate(batches, 1):
        optimiser.zero_grad()
        dice_bce(forward(image), target).backward()
        optimiser.step()
        if data["validation"] and step % (key["length"] // CHECKS) == 0:
            found = best_threshold(histograms(made.eval(), data["validation"]))[1]
            best = rows and rows[-1]["validation"] >= found
            rows.append({**(rows[-1] if best else scores(made, data)), "step": step})
            made.train()
    return pd.DataFrame(rows)


def ours(key: Key, data: Images) -> pd.DataFrame:
    """Train by the recipe; one row.

    Masks in float32 are compared with those in bfloat16, by torch and by OpenVINO.
    """
    settings = load_recipe(fields=Path("none.csv")).training.model_copy(
        update={
            "steps": key["length"],
            "learning_rate": key["rate"],
            "checks": CHECKS,
            "precision": "bfloat16",
        }
    )
    task = Segmentation(
        data["train"], validation=Validation(data["validation"]),
        method=METHODS["supervised"](), settings=settings, seed=key["seed"],
    )  # fmt: skip
    made = network(key)
    with tempfile.TemporaryDirectory() as place:
        trained = fit(made, task, settings=settings, folder=Path(place))
    if not data["validation"]:
        return pd.DataFrame()
    made.load_state_dict(trained.weights)
    exact, fast = (for_prediction(made.eval(), name) for name in ("float32", "bfloat16"))
    row = scores(fast, data)
    ways = (exact, fast, OpenVINONetwork(made, 1, "bfloat16"))
    tp, union, differ, pixels = np.zeros(3), np.zeros(3), np.zeros(3), 0
    for image in data["test"]:
        masks = [predict_tiled(one, image.image) >= row["threshold"] for one in ways]
        sure, truth = image.mask != 255, image.mask == 1
        tp += [(mask & truth & sure).sum() for mask in masks]
        union += [((mask | truth) & sure).sum() for mask in masks]
        differ += [(mask != masks[0]).sum() for mask in masks]
        pixels += truth.size
    (in_float32, _, by_openvino), (_, low, there) = tp / union, differ / pixels
    row |= {"step": key["length"], "iou_float32": in_float32, "differ": low}
    row |= {"iou_openvino": by_openvino, "differ_openvino": there}
    return pd.DataFrame([row])


def compute(options: argparse.Namespace, key: Key) -> pd.DataFrame:
    """Do one training."""
    torch.set_num_threads(1)
    data = images(options, key["data"])
    began = time.process_time()
    rows = ours(key, data) if key["arm"] == "ours" else plain(key, data, last=True)
    seconds = time.process_time() - began
    rows = rows.assign(images=len(data["test"]), specimens=SPECIMENS.get(key["data"], 1))
    return rows.assign(cpu_seconds=seconds)


def cost(options: argparse.Namespace, rounds: int = 5, steps: int = 20) -> None:
    """Print what a step costs, in turns, without any check."""
    torch.set_num_threads(1)
    data = images(options, "simulated") | {"validation": []}
    key = {"width": options.width, "seed": 0, "length": steps, "rate": 1e-3}
    times = np.zeros((rounds + 1, 2))
    for row in times:
        for number, work in enumerate((ours, plain)):
            began = time.process_time()
            work(key, data)
            row[number] = (time.process_time() - began) / steps
    ratios = times[1:, 0] / times[1:, 1]
    print(
        f"width {options.width}: seconds a step (ours, plain) {np.median(times[1:], 0).round(4)}, "
        f"ratio {np.median(ratios):.3f} ({ratios.min():.3f} to {ratios.max():.3f})"
    )


def main() -> None:
    """Compute what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--scratch", type=Path, default=Path("benchmark_time_to_iou"))
    parser.add_argument("--sets", nargs="+", default=["epfl", "vnc", "simulated"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.75, 0.5])
    parser.add_argument("--rate", type=float, help="of ours, in place of the recipe's")
    parser.add_argument("--arms", nargs="+", default=["plain", "ours"])
    parser.add_argument("--cost", action="store_true", help="only measure what a step costs")
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    if options.cost:
        return cost(options)

    def key(data: str, seed: int, arm: str, rate: float, length: int) -> Key:
        return {
            "data": data, "width": options.width, "seed": seed,
            "arm": arm, "rate": rate, "length": length,
        }  # fmt: skip

    own = options.rate or load_recipe(fields=Path("none.csv")).training.learning_rate
    lengths = [round(share * options.steps) for share in options.shares]
    work = partial(compute, options)
    for seed in range(options.seeds):
        keys = []
        for data in options.sets:
            if "plain" in options.arms:
                rates = RATES if seed == 0 else (_best_rate(data, options),)
                keys += [key(data, seed, "plain", rate, options.steps) for rate in rates]
            if "ours" in options.arms:
                keys += [key(data, seed, "ours", own, length) for length in lengths]
        compute_missing(RESULTS, keys, work, jobs=1)
    if options.data.exists():  # masks in bfloat16 only
        compute_missing(RESULTS, [key("h9c2", 0, "ours", own, options.steps)], work, jobs=1)
    if "plain" in options.arms:
        print(as_text(options))


def as_text(options: argparse.Namespace) -> str:
    """Return a row for each data set and length of ours: the IoU of both, seed by seed compared."""
    table = pd.read_csv(RESULTS)
    table = table[(table["width"] == options.width) & table["data"].isin(options.sets)]
    lines = ["| data | seeds | plain loop | ours, of its steps | ours | difference, each seed |"]
    for data, own in table.groupby("data", sort=False):
        rate = _best_rate(str(data), options)
        is_last = (own["step"] == options.steps) & (own["rate"] == rate)
        theirs = own[(own["arm"] == "plain") & is_last].set_index("seed")["iou"]
        for length, run in own[own["arm"] == "ours"].groupby("length"):
            iou = run.set_index("seed")["iou"]
            gain = (iou - theirs).dropna()
            means = [f"{one[gain.index].mean():.3f}" for one in (theirs, iou)]
            each = ", ".join(f"{one:+.3f}" for one in gain)
            cells = [data, len(gain), f"{means[0]} (rate {rate:g})", length / options.steps]
            lines.append("| " + " | ".join(map(str, [*cells, means[1], each])) + " |")
    return "\n".join(lines)


def _best_rate(data: str, options: argparse.Namespace) -> float:
    """Return the plain loop's rate that was best on the validation images of seed 0."""
    table = pd.read_csv(RESULTS)
    own = table[
        (table["data"] == data) & (table["seed"] == 0) & (table["arm"] == "plain")
        & (table["width"] == options.width) & (table["step"] == options.steps)
    ]  # fmt: skip
    return float(own.loc[own["validation"].idxmax(), "rate"])


if __name__ == "__main__":
    main()
