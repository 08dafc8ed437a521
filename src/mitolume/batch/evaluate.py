"""Scores of mask files against true ones. Trains and predicts nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from mitolume.analysis.object_scores import OBJECT_SCORES
from mitolume.batch.mask_pairs import match_files, open_pairs, outline_notices
from mitolume.batch.object_results import add_objects, pooled_objects, score_objects
from mitolume.errors import MitolumeError, some_names
from mitolume.runs.results import image_scores


def evaluate(
    predicted: Path,
    truth: Path,
    mask_kind: str = "auto",
    *,
    like: Path | None = None,
    objects: bool = False,
) -> pd.DataFrame:
    """Score mask files against others.

    Parameters
    ----------
    predicted, truth
        Two files, or two folders whose files are matched by name (endings and ``_mask`` ignored).
    mask_kind
        What the values mean: ``auto``, ``unsure`` or ``labels``.
    like
        The image, or folder of images, that outlines were drawn on.
    objects
        Also match objects, those of a z-stack in 3D.

    Returns
    -------
    pandas.DataFrame
        A row for each plane, with the columns of images.csv. The columns of objects are filled in
        the row of a file's first plane. ``attrs["notices"]`` is what the user should know.

    Raises
    ------
    MitolumeError
        A file is missing or unreadable, sizes differ, or values mean nothing.
    """
    files = match_files(predicted, truth)
    if alone := files.only_second:
        raise MitolumeError(
            f"{predicted} lacks a mask for {len(alone)} of {len(alone) + len(files.both)} files in "
            f"{truth} ({some_names(alone)})"
            + (f"; unmatched in it: {some_names(files.only_first)}" if files.only_first else "")
        )
    rows = []
    pairs = open_pairs(files.both, mask_kind, like)
    notices = outline_notices(pairs)
    if alone := files.only_first:
        notices.append(f"masks without a truth, not scored: {len(alone)} ({some_names(alone)})")
    for pair in pairs:
        name = pair.paths[1].name
        for number, mask, real in pair.planes():
            rows.append(
                {"image": name, "plane": number, "specimen": name} | image_scores(mask, real)
            )
    keys: dict[str, Any] = dict.fromkeys(("arm", "method", "network"), "")
    keys |= {"model": "masks", "subset": "given", "k": 0, "seed": 0}
    table = pd.DataFrame(rows).assign(**keys)
    table = add_objects(table, score_objects(pairs)) if objects else table
    table.attrs["notices"] = notices
    return table


def scores_text(results: pd.DataFrame) -> str:
    """Return the scores of masks as lines of text, chance beside them."""
    lines = []
    for row in results.to_dict("records"):
        if row["metric"] == "n_undefined":
            if row["value"]:
                lines.append(
                    "images without foreground in truth and masks, undefined and left out of "
                    f"means: {row['value']:.0f}"
                )
            continue
        n = row["n_images"]
        lines.append(f"{row['metric']:<14}{_value(row['value']):>10}   {n} image{'s' * (n != 1)}")
    return "\n".join(lines)


def objects_text(images: pd.DataFrame) -> str:
    """Return the object scores of masks, pooled over files, as lines of text."""
    c = pooled_objects(images)
    per_file = (images["objects_true"] + images["objects_predicted"]).dropna()
    n, empty = len(per_file), int((per_file == 0).sum())
    lines = [
        f"objects: {c.n_true} true, {c.n_predicted} predicted, in {n} file{'s' * (n != 1)}; "
        f"undefined, with none in truth and masks: {empty}"
    ]
    lines += [f"{name:<22}{_value(score(c)):>10}" for name, score in OBJECT_SCORES.items()]
    return "\n".join(lines)


def _value(value: float) -> str:
    return "undefined" if pd.isna(value) else f"{value:.4f}"
