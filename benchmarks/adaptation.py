"""Where images differ from those to learn from and no dye was recorded: which training helps.

Electron microscopy of another animal, kind and laboratory (VNC, serial sections, to EPFL, FIB-SEM,
and back; 8 labelled planes each), and simulated cells under four treatments (8 outlined control
fields, as the arm "supervised" of shift.py). Every run is scored where it has learnt as well, so
that what a gain elsewhere costs at home is seen. All take as many steps.

``python benchmarks/adaptation.py [--data FOLDER] [--scratch FOLDER] [--seeds 3] [--steps 600]
[--width 8] [--sources epfl vnc simulated] [--arms full photometric ...]``
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from shared import Key, compute_missing, fresh, scores_by_condition
from shift import STUDENT, fields_of
from torch import Generator, Tensor

from mitolume.inference.inputs import Image, InputReader, settled_inputs
from mitolume.io.check import open_image
from mitolume.io.fields import read_table
from mitolume.models.settings import InputSettings
from mitolume.preprocess.settings import ChainSettings
from mitolume.runs.folder import Run
from mitolume.runs.recipe import load_recipe
from mitolume.runs.run import compute_run
from mitolume.training.augment import AUGMENTATIONS, Augmentation, full, photometric

COARSE = 0.05  # cycles per pixel: structures of 20 px and more
RESULTS = Path(__file__).with_name("adaptation.csv")
# The masks of VNC lack planes 1, 7 and 18, though mitochondria are seen there.
PLANES = {
    "vnc": {"train": "0,2-6,8-9", "validation": "11-13", "test": "15-17,19"},
    "epfl": {"train": "4-95:13", "validation": "105-114:3", "test": "120-164:4"},
}
FILES = {"vnc": "vnc-sstem/labelled", "epfl": "epfl-hippocampus/train"}


def every_other(images: Tensor, targets: Tensor, random: Generator) -> tuple[Tensor, Tensor]:
    """Change every other patch as ``photometric`` does, and those between as ``full``."""
    ways = (full, photometric)
    parts = [way(images[i::2], targets[i::2], random) for i, way in enumerate(ways)]
    images, targets = (torch.stack(both, 1).flatten(0, 1) for both in zip(*parts, strict=True))
    return images, targets


def amplitudes_mixed(
    others: Sequence[Image], images: Tensor, targets: Tensor, random: Generator
) -> tuple[Tensor, Tensor]:
    """Give patches the coarse pattern of images of the other kind, then change them as ``full``.

    After Yang and Soatto 2020 (FDA): the amplitudes of frequencies up to `COARSE` move towards
    those of a random patch of another image, by a share drawn for each patch; phases stay.
    """
    side, patches = images.shape[-1], []
    for number in torch.randint(len(others), (len(images),), generator=random):
        other = others[number]
        y, x = (
            int(torch.randint(size - side + 1, (1,), generator=random)) for size in other.shape[1:]
        )
        patches.append(torch.from_numpy(other[:, y : y + side, x : x + side]))
    own, theirs = (torch.fft.rfft2(batch) for batch in (images, torch.stack(patches).to(images)))
    coarse = (torch.fft.fftfreq(side).abs()[:, None] <= COARSE) & (
        torch.fft.rfftfreq(side) <= COARSE
    )
    share = torch.rand((len(images), 1, 1, 1), generator=random) * coarse
    amplitude = torch.lerp(own.abs(), theirs.abs(), share.to(images))
    mixed = torch.fft.irfft2(torch.polar(amplitude, own.angle()), s=(side, side))
    return full(mixed, targets, random)


# Each with its augmentation and method. A student learns from images of the other kind, without
# masks; a tenth of the steps is its own.
ARMS: dict[str, tuple[Augmentation | None, str]] = {
    "full": (full, "supervised"),
    "photometric": (photometric, "supervised"),
    "every other": (every_other, "supervised"),
    "every other, student": (every_other, "noisy_student"),
    "amplitudes mixed": (None, "supervised"),
}


def compute(options: argparse.Namespace, key: Key) -> pd.DataFrame:
    """Train one arm, and score its model on the test images by condition."""
    augmentation, method = ARMS[key["arm"]]
    out = options.scratch / "_".join(map(str, key.values())).replace(" ", "-")
    if key["source"] == "simulated":
        rows = fields_of(options, key | {"arm": "supervised", "k": 8})
    else:
        rows = _microscopy(options.data, key["source"])
    table = options.scratch / f"{out.name}.csv"
    rows.to_csv(table, index=False)
    if augmentation is None:
        augmentation = partial(amplitudes_mixed, _unlabelled(table))
    share = STUDENT if method == "noisy_student" else 1
    settings = [
        f"method={method}", "unlabelled.teacher=self", "views=1", f"seed={key['seed']}",
        f"training.steps={round(share * key['steps'])}", f"network.width={key['width']}",
        "training.augment=full",
    ]  # fmt: skip
    with patch.dict(AUGMENTATIONS, full=augmentation):
        compute_run(load_recipe(fields=table, settings=settings), fresh(out), quiet=True)
    return scores_by_condition(out, Run(out).models[-1])


def _unlabelled(table: Path) -> list[Image]:
    """Return the unlabelled images of a table as the network sees them, (C, Y, X) each."""
    found = []
    for row in read_table(table):
        if row.role == "unlabelled":
            opened = open_image(row)
            inputs = settled_inputs(InputSettings(), [opened])
            reader = InputReader(opened, inputs, ChainSettings(stripes="auto"))
            found += [np.asarray(reader.at(z)) for z in row.planes or ()]
    return found


def _microscopy(data: Path, source: str) -> pd.DataFrame:
    """Learn and validate on one volume; test on the last planes of both."""
    target = next(volume for volume in PLANES if volume != source)
    uses = [(source, "train", "train"), (source, "validation", "validation")]
    uses += [(target, "train", "unlabelled"), (source, "test", "test"), (target, "test", "test")]
    return pd.DataFrame(
        {
            "image": (data / f"{FILES[volume]}.ome.tif").resolve(),
            "mask": ""
            if role == "unlabelled"
            else (data / f"{FILES[volume]}_mask.ome.tif").resolve(),
            "role": role,
            "planes": PLANES[volume][planes],
            "specimen": f"{volume} {planes}",
            "condition": volume,
        }
        for volume, planes, role in uses
    )


def main() -> None:
    """Compute what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--scratch", type=Path, default=Path("benchmark_adaptation"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--width", type=int, default=8)
    sources = ["epfl", "vnc", "simulated"]
    parser.add_argument("--sources", nargs="+", choices=sources, default=sources)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    if not options.data.exists():
        print(f"{options.data} does not exist: simulated cells only")
        options.sources = [source for source in options.sources if source == "simulated"]
    keys: list[Key] = [
        {"source": source, "arm": arm, "seed": seed, "steps": options.steps}
        | {"width": options.width}
        for seed in range(options.seeds)
        for source in options.sources
        for arm in options.arms
    ]
    table = compute_missing(RESULTS, keys, partial(compute, options), options.jobs)
    shown = table[table["condition"].isin(["control", "treated", "fccp", *PLANES])]
    rows = ["source", "condition", "seed"]
    print(shown.pivot_table(["iou", "best"], rows, "arm").round(3).to_string())


if __name__ == "__main__":
    main()
