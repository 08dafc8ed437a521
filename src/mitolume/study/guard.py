"""Which model of a run is kept, and why. Trains nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mitolume.study.results import value_of


def choose_kept(results: pd.DataFrame, names: Sequence[str]) -> tuple[str, str]:
    """Choose the model to keep, by validation images only, and say why.

    Parameters
    ----------
    results
        The long table.
    names
        The models there are.

    Returns
    -------
    str, str
        The name and the reason, for a sentence.
    """
    if len(names) == 1:
        return names[0], "it is the only model of this run"
    first, second = (value_of(results, name, "validation", "iou") for name in names)
    if np.isnan(first) or np.isnan(second):
        return names[0], (
            "no validation images could show that learning from unlabelled images helped"
        )
    return names[1] if second > first else names[0], (
        f"foreground IoU on the validation images is {first:.3f} for model 1 and {second:.3f} "
        "for model 2"
    )
