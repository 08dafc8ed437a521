"""Decides once, for all masks that are measured, what their values mean. Knows no object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
import xarray as xr

from mitolume.analysis.objects import boxes_of, load_if_small
from mitolume.batch.field_data import is_outlined, open_mask
from mitolume.batch.sources import Source
from mitolume.errors import MitolumeError
from mitolume.io.masks import MaskKind, decide_kind
from mitolume.io.read import load

Kind = Literal["unsure", "labels", "probability", "numbers"]

_FLAT = 0.5  # of neighbouring pixels in objects, the least share that is equal in a label image


@dataclass(frozen=True)
class MaskKinds:
    """What the values of each mask mean, by its path, or the sentence why it can't be known.

    ``numbers``: each is an object, as in label images and outlines.
    """

    kinds: dict[str, Kind]
    faults: dict[str, str]
    notices: list[str]


def mask_kinds(sources: Sequence[Source], wanted: str) -> MaskKinds:
    """Decide what the values of all masks mean.

    A mask with several numbers is a label image. Beside label images, one with the number 1 alone
    is a mask, and what 255 means can't be known.

    Parameters
    ----------
    sources
        The masks.
    wanted
        ``auto``, ``unsure`` or ``labels``, see `decide_kind`.

    Raises
    ------
    MitolumeError
        There is no such kind, or the masks contradict each other.
    """
    if wanted not in get_args(MaskKind):
        raise MitolumeError(f"no mask kind {wanted!r}; there are {', '.join(get_args(MaskKind))}")
    values: dict[str, set[float]] = {}
    kinds: dict[str, Kind] = {}
    faults = {}
    for source in sources:
        name = str(source.mask)
        try:
            if is_outlined(source.mask):
                kinds[name] = "numbers"
                continue
            found = _values(open_mask(source), wanted)
            if any(value != int(value) for value in found) and 0 <= min(found) <= max(found) <= 1:
                kinds[name] = "probability"
            else:
                _require_numbers(name, found)
                values[name] = found
        except MitolumeError as error:
            faults[name] = str(error)
    positive = {name: found - {0.0} for name, found in values.items()}
    plain = [{1.0, 255.0}] if wanted != "labels" else []
    numbered = {name for name, found in positive.items() if len(found) > 1 and found not in plain}
    if wanted == "auto" and any(found - {1.0, 255.0} for found in positive.values()):
        wanted = "labels"
        _require_no_doubt(positive, numbered)
    kind, notices, misfits = decide_kind(values, cast(MaskKind, wanted))
    if misfits:
        raise MitolumeError("; ".join(misfits).replace("mask_kind: ", "--mask-kind "))
    for name, found in positive.items():
        one_of_many = bool(numbered) and bool(found - {1.0, 255.0})
        given = kind == "labels" and (name in numbered or one_of_many)
        kinds[name] = "numbers" if given else cast(Kind, kind)
    return MaskKinds(kinds, faults, notices)


def _require_no_doubt(positive: dict[str, set[float]], numbered: set[str]) -> None:
    for name, found in positive.items():
        if 255.0 in found <= {1.0, 255.0} and (numbered or 1.0 in found):
            other = next(n for n, values in positive.items() if values - {1.0, 255.0})
            raise MitolumeError(
                f"{name} is a mask with 255, and {other} a label image: measure them apart, or say "
                "--mask-kind labels where 255 is mitochondria, too"
            )


def _require_numbers(name: str, found: set[float]) -> None:
    _, _, misfits = decide_kind({name: found}, "labels")
    if misfits:
        raise MitolumeError(misfits[0])


def _values(mask: xr.DataArray, wanted: str) -> set[float]:
    """Return the distinct values of a mask; of fractions a few, the least and the largest."""
    name = mask.attrs["source"]
    if mask.dtype.kind not in "buif":
        raise MitolumeError(f"mask {name} has pixels of type {mask.dtype}; save it in 8 bit")
    found: set[float] = set()
    touching = equal = 0
    for t in range(mask.sizes["T"]):
        frame = load_if_small(mask.isel(T=t))
        for box in boxes_of(frame.shape):
            part = load(frame[box]).values
            values = np.unique(part)
            if not np.isfinite(values).all():
                raise MitolumeError(f"{name} holds NaN or infinity, which mean nothing in a mask")
            fraction = values != np.round(values)
            some = values[fraction][[*range(min(6, fraction.sum())), -1]] if fraction.any() else []
            found |= {float(value) for value in (*values[~fraction], *some)}
            both = (part[..., :-1] > 0) & (part[..., 1:] > 0)
            touching += int(both.sum())
            equal += int((both & (part[..., :-1] == part[..., 1:])).sum())
    if name.lower().endswith((".jpg", ".jpeg")) and found - {0.0, 1.0, 255.0}:
        raise MitolumeError(
            f"mask {name} is a JPEG, which changes the values of masks; save it as PNG or TIFF"
        )
    whole = all(value == int(value) for value in found)
    if whole and wanted == "auto" and len(found) > 3 and equal < _FLAT * touching:
        raise MitolumeError(
            f"mask {name} looks like an image or a probability: its values change from pixel to "
            "pixel. Save probabilities as floating point from 0 to 1; measure it as a label image "
            "with --mask-kind labels"
        )
    return found
