"""Where images differ from those to learn from and no dye was recorded: which training helps.

Electron microscopy of another animal, kind and laboratory (VNC, serial sections, to EPFL, FIB-SEM,
and back; 8 labelled planes each), and simulated cells under four treatments (8 outlined control
fields, as the arm "supervised" of shift.py). Every run is scored where it has learnt as well, so
that what a gain elsewhere costs at home is seen. All trainings of a run together take the same
number of steps, whatever the arm; those of `SIMULATED` need fields of several days.

``python benchmarks/adaptation.py [--data FOLDER] [--scratch FOLDER] [--seeds 3] [--steps 600]
[--width 8] [--sources epfl vnc simulated] [--arms full photometric ...]``
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from shared import Key, compute_missing, fresh, scores_by_condition
from shift import STUDENT, fields_of
from torch import Generator, Tensor, nn

from mitolume.analysis.metrics import best_threshold, probability_histogram
from mitolume.inference.inputs import Image, InputReader, settled_inputs
from mitolume.inference.predictor import Predictor
from mitolume.io.fields import Field
from mitolume.io.masks import UNSURE
from mitolume.io.read import read
from mitolume.io.rows import open_image
from mitolume.io.table import read_table
from mitolume.io.write import write_image, write_mask
from mitolume.models.settings import InputSettings
from mitolume.preprocess.settings import ChainSettings
from mitolume.runs.folder import Run, load
from mitolume.runs.images import RowImage, predictor_inputs
from mitolume.runs.recipe import load_recipe
from mitolume.runs.run import compute_run
from mitolume.training.augment import AUGMENTATIONS, Augmentation, full, photometric
from mitolume.training.methods import METHODS, NoisyStudent, Step, Supervised
from mitolume.training.patches import Patches, PreparedImage

COARSE = 0.05  # cycles per pixel: structures of 20 px and more
RESULTS = Path(__file__).parent / "results/adaptation.csv"
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


def _rectangle(side: int, random: Generator) -> Tensor:
    """Draw where a patch gets the other's pixels: two thirds of its height and width."""
    inner = side * 2 // 3
    y, x = (int(torch.randint(side - inner, (1,), generator=random)) for _ in range(2))
    box = torch.zeros((side, side), dtype=torch.bool)
    box[y : y + inner, x : x + inner] = True
    return box


def pasted(images: Tensor, targets: Tensor, random: Generator) -> tuple[Tensor, Tensor]:
    """Change patches as ``full``, then paste a rectangle of each into the next."""
    images, targets = full(images, targets, random)
    box = _rectangle(images.shape[-1], random).to(images.device)
    images, targets = (torch.where(box, one.roll(1, 0), one) for one in (images, targets))
    return images, targets


class BidirectionalCopyPaste(NoisyStudent):
    """Bidirectional copy-paste (Bai et al. 2023), after a training on `pasted` labelled patches.

    Labelled patches are pasted into unlabelled ones, and those into labelled ones. What is
    unlabelled has the mask that a moving average of the network (0.99) makes of the whole patch,
    at half the weight. Not as published: every object of a mask counts, not the largest alone.
    """

    views = 1
    teacher: nn.Module | None = None

    def loss(self, network: nn.Module, step: Step) -> Tensor:
        """Return the loss of patches that are mixed both ways."""
        if self.teacher is None:
            self.teacher = copy.deepcopy(network).requires_grad_(False)
        own = network.state_dict()
        for name, value in self.teacher.state_dict().items():
            if value.is_floating_point():
                value.lerp_(own[name].to(value), 0.01)
        n = step.n_labelled
        images, targets = full(step.images, step.targets, step.random)
        with torch.no_grad():
            guessed = (self.teacher(images[n:]).float() >= 0).float()
        box = _rectangle(images.shape[-1], step.random).to(images.device)
        known, other = images[:n], images[n:]
        logits = network(
            torch.cat([torch.where(box, known, other), torch.where(box, other.roll(1, 0), known)])
        ).float()
        nothing = torch.full_like(targets[:n], torch.nan)
        drawn = [torch.where(box, targets[:n], nothing), torch.where(box, nothing, targets[:n])]
        taught = [torch.where(box, nothing, guessed), torch.where(box, guessed.roll(1, 0), nothing)]
        return step.loss(logits, torch.cat(drawn)) + 0.5 * step.loss(logits, torch.cat(taught))


class InContext(Supervised):
    """Learn from the labelled patches; the others only share their statistics of normalisation."""

    def loss(self, network: nn.Module, step: Step) -> Tensor:
        """Return the loss on the labelled patches."""
        n = step.n_labelled
        images, targets = full(step.images, step.targets, step.random)
        return step.loss(network(images).float()[:n], targets[:n])


class OneDay(Patches):
    """Batches of one day each: half of them labelled, half any field of that day."""

    def __init__(
        self, days: Sequence[str], context: Sequence[tuple[str, Image]],
        images: Sequence[PreparedImage], unlabelled: Sequence[PreparedImage] = (), **settings: Any,
    ) -> None:  # fmt: skip
        assert len(days) == len(images), "the rows to learn from, in their order"
        super().__init__(images, [PreparedImage(image) for _, image in context], **settings)
        self.days, self.context_days = np.array(days), np.array([day for day, _ in context])

    def __getitem__(self, step: int) -> tuple[int, Tensor, Tensor]:
        """Return the batch of a step, days taking turns."""
        every = sorted(set(self.days))
        today = self.days == every[step % len(every)], self.context_days == every[step % len(every)]
        self.share, self.share_of_unlabelled = (mine / mine.sum() for mine in today)
        return super().__getitem__(step)


@dataclass(frozen=True)
class Arm:
    """How an arm learns, and the share of the steps that model 1 takes.

    A student learns from images of the other kind, without masks; a tenth of the steps is its own.
    """

    augmentation: Augmentation | None = full
    method: str = "supervised"
    share: float = 1
    settings: tuple[str, ...] = ()


ARMS = {
    "full": Arm(),
    "photometric": Arm(photometric),
    "every other": Arm(every_other),
    "every other, student": Arm(every_other, "noisy_student", STUDENT),
    "amplitudes mixed": Arm(None),
    "student": Arm(full, "noisy_student", STUDENT),
    "pseudo-label": Arm(full, "pseudo_label", 1 / 2),
    # A quarter of the steps before the pasting of unlabelled patches, as published.
    "copy-paste": Arm(pasted, "noisy_student", 1 / 4, ("unlabelled.length=3", "unlabelled.rate=1")),
    "inconsistency masks": Arm(share=1 / 3),
    "CS-ARM-BN": Arm(),
}
SIMULATED = {"student", "pseudo-label", "copy-paste", "inconsistency masks", "CS-ARM-BN"}


def compute(options: argparse.Namespace, key: Key) -> pd.DataFrame:
    """Train one arm, and score its model on the test images by condition."""
    name, arm = key["arm"], ARMS[key["arm"]]
    out = options.scratch / "_".join(map(str, key.values())).replace(" ", "-")
    if key["source"] == "simulated":
        rows = fields_of(options, key | {"arm": "supervised", "k": 8})
    else:
        rows = _microscopy(options.data, key["source"])
    table = options.scratch / f"{out.name}.csv"
    rows.to_csv(table, index=False)
    if name == "inconsistency masks":
        first = [
            _run(table, options.scratch / f"{out.name}_{n}", arm, key | {"seed": seed})
            for n, seed in enumerate((key["seed"], 100 + key["seed"]))
        ]
        _agreed(first, rows, fresh(options.scratch / f"{out.name}_agreed")).to_csv(
            table, index=False
        )
    with ExitStack() as stack:
        if name == "copy-paste":
            stack.enter_context(patch.dict(METHODS, noisy_student=BidirectionalCopyPaste))
            last = "mitolume.runs.learn.average_with_teacher"
            stack.enter_context(patch(last, lambda teacher, student: student))
        if name == "CS-ARM-BN":
            train = [row for row in read_table(table) if row.role == "train"]
            batches = partial(OneDay, [_day(row) for row in train], _seen(table, "unlabelled"))
            stack.enter_context(patch.dict(METHODS, supervised=InContext))
            stack.enter_context(patch("mitolume.training.segmentation.Patches", batches))
        if arm.augmentation is None:
            others = [image for _, image in _seen(table, "unlabelled")]
            stack.enter_context(patch.dict(AUGMENTATIONS, full=partial(amplitudes_mixed, others)))
        else:
            stack.enter_context(patch.dict(AUGMENTATIONS, full=arm.augmentation))
        run = _run(table, out, arm, key)
    if name == "CS-ARM-BN":
        return scores_by_condition(out, run.models[-1], Controls(run, table).adapt)
    return scores_by_condition(out, run.models[-1])


def _run(table: Path, out: Path, arm: Arm, key: Key) -> Run:
    settings = [
        f"method={arm.method}", "unlabelled.teacher=self", "views=1", f"seed={key['seed']}",
        f"training.steps={round(arm.share * key['steps'])}", f"network.width={key['width']}",
        "training.augment=full", *arm.settings,
    ]  # fmt: skip
    return compute_run(load_recipe(fields=table, settings=settings), fresh(out), quiet=True)


def _agreed(runs: Sequence[Run], rows: pd.DataFrame, out: Path) -> pd.DataFrame:
    """Label the unlabelled fields where two models agree (Vorndran and Roeck 2024).

    Where they do not, the mask is unsure, and the image has the mean of its plane.
    """
    out.mkdir(parents=True)
    predictors, rows = [load(run.path, views=1) for run in runs], rows.copy()
    for index in rows.index[rows["role"] == "unlabelled"]:
        image = read(Path(rows.loc[index, "image"]))
        first, second = (np.asarray(p.predict(image)) >= 0.5 for p in predictors)
        z = int(rows.loc[index, "planes"])
        unsure = (first != second).squeeze()[z]
        seen = image.isel(T=0).compute()
        pixels = np.where(unsure, seen.mean(("Y", "X")).values[..., None, None], seen)
        masks = np.full(pixels.shape[-3:], UNSURE, np.uint8)
        masks[z] = np.where(unsure, UNSURE, first.squeeze()[z])
        paths = [out / f"{index}.ome.tif", out / f"{index}_mask.ome.tif"]
        write_image(paths[0], seen.copy(data=pixels.round().astype(seen.dtype)))
        write_mask(paths[1], seen.isel(C=0, drop=True).copy(data=masks))
        rows.loc[index, ["image", "mask", "role"]] = [*map(str, paths), "train"]
    return rows


def _day(row: Field) -> str:
    """Return the day of a simulated field, which its data set knows."""
    known = pd.read_csv(row.image.parents[1] / "fields.csv", dtype=str)
    return str(known.loc[known["image"].str.endswith(row.image.name), "batch"].iloc[0])


class Controls:
    """Statistics of normalisation from the control fields of a day and the field itself.

    CS-ARM-BN, Sanchez-Fernandez et al. 2026: as in training, a field is normalised together with
    control fields of its own batch. Here they are all of the table, whatever their role.
    """

    def __init__(self, run: Run, table: Path) -> None:
        self.predictor = run.predictor(run.models[-1])
        every = [image for role in ("train", "validation", "test") for image in run.images(role)]
        every = [image for image in every if image.row.condition == "control"]
        seen = predictor_inputs(every, self.predictor)
        self.fields = [(_day(image.row), np.asarray(ready)) for image, ready in seen]
        histograms: Any = 0
        for image, ready in predictor_inputs(run.images("validation"), self.predictor):
            plane, truth, _ = image.read()
            assert truth is not None
            probability = self.adapt(image, ready).predict_boxes(ready, plane.shape)
            histograms = histograms + probability_histogram(probability, truth)
        self.predictor.card.threshold = best_threshold(histograms)[0]

    def adapt(self, image: RowImage, ready: Any) -> Predictor:
        """Return the predictor of an image."""
        own, network = np.asarray(ready), copy.deepcopy(self.predictor.network).train()
        day = _day(image.row)
        beside = [f for of, f in self.fields if of == day and not np.array_equal(f, own)]
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = 1.0
        with torch.no_grad():
            network(torch.from_numpy(np.stack([own, *beside])))
        return Predictor(network, self.predictor.card)


def _seen(table: Path, role: str) -> list[tuple[str, Image]]:
    """Return the images of a role as the network sees them, (C, Y, X) each, with their day."""
    found = []
    for row in read_table(table):
        if row.role == role:
            opened = open_image(row)
            inputs = settled_inputs(InputSettings(), [opened])
            reader = InputReader(opened, inputs, ChainSettings(stripes="auto"))
            day = _day(row) if row.condition not in PLANES else ""
            found += [(day, np.asarray(reader.at(z))) for z in row.planes or ()]
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
        if source == "simulated" or arm not in SIMULATED
    ]
    table = compute_missing(RESULTS, keys, partial(compute, options), options.jobs)
    shown = table[table["condition"].isin(["control", "treated", "fccp", *PLANES])]
    rows = ["source", "condition", "seed"]
    print(shown.pivot_table(["iou", "best"], rows, "arm").round(3).to_string())


if __name__ == "__main__":
    main()
