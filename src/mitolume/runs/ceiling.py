"""How far two annotators agree, kept in a run folder for its report. Compares no masks itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from mitolume.analysis.agreement import PIXELS, mean_interval
from mitolume.analysis.metrics import Counts, iou, mean_defined
from mitolume.errors import MitolumeError, shorten
from mitolume.io.write import write_text

_Share = Annotated[float, Field(ge=0, le=1)]


class Ceiling(BaseModel):
    """Foreground IoU of two annotators with each other: what a model can be shown to reach."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    iou: _Share
    """All pixels together."""
    iou_image: _Share
    """Mean over images."""
    interval: tuple[_Share, _Share] | None
    """95 % t interval of the mean over images; None for fewer than 3 images."""
    n_images: Annotated[int, Field(ge=1)]
    """Images that either annotator marked anything in."""


def ceiling_of(path: Path) -> Ceiling:
    """Read the table that ``mitolume evaluate A B --agreement --out`` wrote.

    Raises
    ------
    MitolumeError
        The file is missing, no such table, or its images hold no mark of either annotator.
    """
    try:
        kinds: Any = {"image": str} | dict.fromkeys(PIXELS, "int64")
        table = pd.read_csv(path, usecols=list(kinds), dtype=kinds)
        if (table[list(PIXELS)] < 0).to_numpy().any():
            raise ValueError("a number of pixels is negative")
    except FileNotFoundError:
        raise MitolumeError(f"{path}: no such file") from None
    except (ValueError, OSError) as error:
        raise MitolumeError(
            f"{path} is no table of agreement ({shorten(error)}); write one with mitolume evaluate "
            "A B --agreement --out agreement.csv"
        ) from error
    images = table.groupby("image", sort=False, dropna=False)[list(PIXELS)].sum()
    ious = [iou(Counts(*row)) for row in images.to_numpy().tolist()]
    defined = [value for value in ious if not math.isnan(value)]
    if not defined:
        raise MitolumeError(f"{path}: neither annotator marked anything, so there is no agreement")
    interval = mean_interval(defined)
    return Ceiling(
        iou=iou(Counts(*images.sum().tolist())),
        iou_image=mean_defined(defined),
        interval=None if math.isnan(interval[0]) else interval,
        n_images=len(defined),
    )


def save_ceiling(path: Path, ceiling: Ceiling) -> None:
    """Write how far two annotators agree, as JSON (see `Run.ceiling_file`)."""
    write_text(path, ceiling.model_dump_json(indent=2) + "\n")


def load_ceiling(path: Path) -> Ceiling | None:
    """Read what `save_ceiling` wrote; None where there is none.

    Raises
    ------
    MitolumeError
        The file is damaged.
    """
    if not path.exists():
        return None
    try:
        return Ceiling.model_validate_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MitolumeError(f"{path} is damaged; delete it, or give --ceiling again") from error
