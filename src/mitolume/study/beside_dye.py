"""Light alone beside the dye: the reference of a study and masks of the dye, on the same images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mitolume.analysis.dye_labels import THRESHOLD
from mitolume.analysis.labelling import label_objects
from mitolume.analysis.measure import measure_objects
from mitolume.analysis.metrics import count
from mitolume.io.fields import with_planes
from mitolume.io.masks import FOREGROUND, UNSURE, Mask
from mitolume.io.rows import open_fluorescence
from mitolume.runs.dye import label_planes
from mitolume.study.cells import cell_scores, image_count
from mitolume.study.crossed import interval
from mitolume.study.evidence import LEVEL, compare
from mitolume.study.folder import Study

LIGHT, DYE, TRUTH = "light alone", "the dye itself", "the truth"
OBJECTS = ("number of objects", "area of one", "length of one")


def measure_beside_dye(study: Study, scored: pd.DataFrame) -> pd.DataFrame:
    """Score and measure the masks of the reference, those of the dye, and the true ones.

    ``scored`` are rows of study_images.csv. Of each row of the reference whose dye was recorded the
    table has one of `LIGHT`, one of `DYE` and, if it is outlined, one of `TRUTH` (column ``arm``),
    with counts of pixels and sums over objects. Unsure pixels of the truth count in none.
    """
    found: list[dict[str, Any]] = []
    once: dict[Any, dict[str, dict[str, Any]]] = {}
    for row in scored[scored["arm"] == study.recipe.reference].to_dict("records"):
        run = study.run(row["run"])
        image, threshold = run.image(row["line"], row["plane"]), run.recipe.dye.threshold
        if not image.row.fluorescence:
            continue
        truth, size = image.read()[1:]
        truth = None if image.row.label == "dye" else truth
        key = (row["specimen"], row["image"], row["plane"])
        if key not in once:
            field = with_planes(image.row, [image.z])
            share = THRESHOLD if threshold == "auto" else threshold
            ((_, dye),) = label_planes(field, open_fluorescence(field), threshold=share)
            sides = {DYE: (dye.mask == FOREGROUND).astype(np.uint8), TRUTH: truth}
            once[key] = {n: _measure(m, truth, size) for n, m in sides.items() if m is not None}
        light = _measure(run.mask(row["model"], image), truth, size)
        for arm, own in {LIGHT: light, **once[key]}.items():
            found.append({**row, "arm": arm, **own})  # type: ignore[dict-item]
    return pd.DataFrame(found, columns=[*scored.columns, *OBJECTS])


def _measure(mask: Mask, truth: Mask | None, size: tuple[float, float] | None) -> dict[str, Any]:
    sure = mask if truth is None else np.where(truth == UNSURE, 0, mask)
    um = dict(zip("YX", size or (1.0, 1.0), strict=True))
    objects = measure_objects(label_objects(sure, None, um), None, um)
    sums = len(objects), objects["area_um2"].sum(), objects["length_um"].sum()
    counts = {"tp": np.nan} if truth is None else vars(count(sure, truth))
    return counts | dict(zip(OBJECTS, sums, strict=True))


def judge_beside_dye(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Judge the rows of `measure_beside_dye` by k and condition.

    A judgement has ``name`` and ``k``; numbers of images, specimens and seeds; ``iou`` by arm and
    ``compared`` (light less dye), where there is a truth; and ``biases``: how much more of each of
    `OBJECTS` one side has than another, see `bias`.
    """
    sides = [(LIGHT, DYE)]
    if judged := bool(rows["tp"].notna().any()):  # without outlines images would tell nothing here
        rows, sides = rows[rows["tp"].notna()], [(LIGHT, TRUTH), (DYE, TRUTH), *sides]
    return [
        {
            "name": name or "images without a condition",
            "k": k,
            "sizes": (image_count(own), own["specimen"].nunique(), own["seed"].nunique()),
            "compared": compare(own[own["arm"] != TRUTH], DYE, 0)[0] if judged else None,
            "iou": cell_scores(own).groupby("arm")["score"].mean() if judged else {},
            "biases": {side: {what: bias(own, *side, what) for what in OBJECTS} for side in sides},
        }
        for (k, name), own in rows.groupby(["k", "condition"], sort=False)
        if not judged or own[["tp", "fn"]].to_numpy().sum()  # else no IoU is defined
    ]


def bias(rows: pd.DataFrame, arm: str, other: str, what: str) -> tuple[float, float, float]:
    """Return how much more of something an arm has than another, and the interval of that.

    It is the mean difference over specimens and seeds, relative to the mean of the other; the 95 %
    interval holds by itself. NaN where there is too little to tell.
    """
    sums = rows.groupby(["arm", "specimen", "seed"])[list(OBJECTS)].sum()
    value = sums[what] / (1 if what == OBJECTS[0] else sums[OBJECTS[0]])
    sides = value.unstack("arm")
    table = (sides[arm] - sides[other]).unstack("seed").dropna()
    level = sides[other].unstack("seed").loc[table.index].to_numpy().mean() if len(table) else 0
    if not level:
        return (np.nan,) * 3
    return interval(table.to_numpy(float) / level, 1 - LEVEL)
