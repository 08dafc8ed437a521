"""Simulated studies, as counts of pixels, and how often the verdicts on them err.

``python tests/helpers/score_tables.py`` prints the tables of docs/evidence.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mitolume.study.crossed import MeanSquares, detectable, half_width, mean_squares

Array = np.ndarray[Any, Any]
IMAGE_PX = 200_000


@dataclass(frozen=True)
class Truth:
    """Spreads of IoU on the logit scale, where 0.1 is about 0.025 of IoU."""

    arm_seed: float = 0.15  # what the draw of weights and subset does to one arm
    arm_specimen: float = 0.0  # arms that suit some specimens more; 0: identical arms
    arm_cell: float = 0.10
    arm_image: float = 0.15


LUCK = {
    "little luck of seeds": Truth(arm_seed=0.03),
    "some": Truth(),
    "much": Truth(arm_seed=0.5),
}
UNLIKE = Truth(arm_specimen=0.2)


def simulate(
    rng: np.random.Generator,
    n: int,
    *,
    arms: int,
    specimens: int,
    seeds: int,
    truth: Truth = LUCK["some"],
    gains: Array | float = 0.0,
) -> dict[str, Array]:
    """Draw counts of ``n`` studies, (tables, arms, specimens, seeds, images).

    Arm 0 is the reference. Specimens have 1 to 6 images of unequal area of mitochondria.
    Specimens, images and seeds are hard or easy for all arms alike, beside what ``truth`` says;
    all but seeds with the heavy tails of a t distribution of 4 degrees of freedom. ``gains``
    (arms,) are on the logit scale.
    """
    full = (n, arms, specimens, seeds, 6)

    def heavy(spread: float, *axes: int) -> Array:
        shape = [full[axis] if axis in axes else 1 for axis in range(5)]
        return spread * rng.standard_t(4, shape) / np.sqrt(2)

    ease = 0.5 + heavy(0.5, 0, 2) + heavy(0.4, 0, 2, 4)
    ease = ease + 0.2 * rng.normal(size=(n, 1, 1, seeds, 1))
    ease = ease + truth.arm_seed * rng.normal(size=(n, arms, 1, seeds, 1))
    ease = ease + heavy(truth.arm_specimen, 0, 1, 2) + heavy(truth.arm_cell, 0, 1, 2, 3)
    ease = ease + heavy(truth.arm_image, 0, 1, 2, 3, 4)
    ease = ease + np.broadcast_to(gains, arms)[:, None, None, None]
    iou = 1 / (1 + np.exp(-ease))
    missed = (1 - iou) / (1 + iou)  # as much of the truth is missed as is called falsely
    area = np.minimum(rng.lognormal(8, 0.8, (n, 1, specimens, 1, 6)), IMAGE_PX / 3).round()
    there = np.arange(6) < rng.integers(1, 7, (n, 1, specimens, 1, 1))
    tp = np.where(there, (area * (1 - missed)).round(), 0)
    fp = np.where(there, (area * missed).round(), 0)
    fn = np.where(there, area - tp, 0)
    tn = np.where(there, IMAGE_PX - tp - fp - fn, 0)
    return {"tp": tp, "fp": fp, "fn": fn, "tn": tn}


def differences(counts: dict[str, Array]) -> Array:
    """Pooled IoU less that of arm 0: (tables, arms - 1, specimens, seeds)."""
    tp, fp, fn = (counts[name].sum(-1) for name in ("tp", "fp", "fn"))
    iou = tp / (tp + fp + fn)
    return iou[:, 1:] - iou[:, :1]


def as_images(counts: dict[str, Array], table: int, k: int = 8) -> pd.DataFrame:
    """One study as the program's images.csv; arm 0 is called reference."""
    there = (counts["tp"] + counts["fn"] + counts["tn"])[table] > 0
    where = np.argwhere(there)
    arm, specimen, seed, image = where.T
    names = np.array(["reference", *(f"arm {i}" for i in range(1, there.shape[0]))])
    frame = pd.DataFrame(
        {
            "arm": names[arm],
            "method": "supervised",
            "network": "unet",
            "k": k,
            "seed": seed,
            "model": "model_1",
            "subset": "test",
            "image": [f"s{s}_{i}.tif" for s, i in zip(specimen, image, strict=True)],
            "plane": 0,
            "specimen": [f"dish {s}" for s in specimen],
            "n_unsure": 0,
        }
    )
    return frame.assign(**{c: values[table][tuple(where.T)] for c, values in counts.items()})


@dataclass(frozen=True)
class Rates:
    """How often verdicts are right, in shares of one."""

    no_difference: float
    covered: float  # all true differences of a study at once
    power: float  # at the stated difference, averaged over the tables that state it
    power_at_median: float  # at the median of the stated differences
    stated: float  # that median
    unlike_called_equal: float  # arms just a margin of 0.05 apart, in any comparison of a study
    like_called_equal: float


def rates(
    truth: Truth, *, arms: int, specimens: int, seeds: int, n: int = 4000, seed: int = 0
) -> Rates:
    """Simulate ``n`` studies of ``arms`` arms and a reference, none better than another."""
    rng = np.random.default_rng([seed, arms, specimens, seeds])
    counts = simulate(rng, n, arms=arms + 1, specimens=specimens, seeds=seeds, truth=truth)
    found = mean_squares(differences(counts))
    alpha = 0.05 / arms
    half = half_width(found, alpha)
    right = np.abs(found.mean) <= half
    stated = detectable(first_of(found, 600), alpha)
    needed = np.sort(half[:, 0] - found.mean[:, 0])  # the gain at which this study shows it

    def power(gain: Array) -> Array:
        return np.searchsorted(needed, gain) / n

    margin, one_sided = 0.05, half_width(found, 2 * alpha)
    apart = [np.abs(found.mean + shift) + one_sided < margin for shift in (-margin, margin)]

    return Rates(
        float(right.mean()),
        float(right.all(axis=1).mean()),
        float(power(stated).mean()),
        float(power(np.median(stated))),
        float(np.median(stated)),
        max(float(called.any(axis=1).mean()) for called in apart),
        float((np.abs(found.mean) + one_sided < margin).mean()),
    )


def first_of(found: MeanSquares, n: int) -> MeanSquares:
    """Take the first comparison of the first ``n`` studies."""
    parts = (found.mean, found.specimens, found.seeds, found.rest)
    return MeanSquares(*(part[:n, 0] for part in parts), found.n_specimens, found.n_seeds)


DESIGNS = ((3, 3), (5, 3), (10, 3), (20, 3), (5, 2), (10, 2), (5, 5), (20, 5), (1, 3), (1, 5))

if __name__ == "__main__":
    for arms in (1, 6):
        print(f"\n{arms} arms\n| specimens x seeds | luck | no difference | all covered "
              "| power | at median | stated | unlike | like |\n" + 9 * "|---" + "|")  # fmt: skip
        for specimens, seeds in DESIGNS:
            for name, truth in (LUCK | {"unlike specimens": UNLIKE}).items():
                r = rates(truth, arms=arms, specimens=specimens, seeds=seeds)
                print(
                    f"| {specimens} x {seeds} | {name} | {100 * r.no_difference:.1f} | "
                    f"{100 * r.covered:.1f} | {100 * r.power:.1f} | "
                    f"{100 * r.power_at_median:.1f} | {r.stated:.3f} | "
                    f"{100 * r.unlike_called_equal:.1f} | {100 * r.like_called_equal:.0f} |",
                    flush=True,
                )
