"""Mask files of any kind as numbered objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mitolume.io.mask_files import distinct_values, kind_of, open_mask, stack_of
from mitolume.io.masks import meaning_of, to_objects
from mitolume.io.read import read


def read_objects(
    mask: Path, like: Path | None = None, mask_kind: str = "auto"
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return numbered objects and unsure pixels; outlines need the image they were drawn on."""
    opened = open_mask(mask, None if like is None else read(like), numbered=True)
    kind, _ = meaning_of({str(mask): distinct_values(opened)}, mask_kind)
    values = stack_of(opened)
    return to_objects(values[0] if len(values) == 1 else values, kind_of(opened, kind))
