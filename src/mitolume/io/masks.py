"""What the values in mask files mean. Knows no image and no model.

In memory a mask is uint8: 0 background, 1 mitochondria, 255 unsure (in no loss and no score).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np

from mitolume.errors import MitolumeError

BACKGROUND, FOREGROUND, UNSURE = 0, 1, 255

MaskKind = Literal["auto", "unsure", "labels"]
Mask = np.ndarray[Any, np.dtype[np.uint8]]

_HINT = (
    "say mask_kind: labels where every value above 0 is mitochondria, "
    "or mask_kind: unsure where 1 is mitochondria and 255 is unsure"
)


def decide_kind(
    values: Mapping[str, Iterable[float]], kind: MaskKind = "auto"
) -> tuple[MaskKind, list[str], list[str]]:
    """Decide once, for all masks of a table, what their values mean.

    Parameters
    ----------
    values
        File name to the distinct values of that mask.
    kind
        ``unsure``: 1 is mitochondria, 255 is unsure. ``labels``: every value above 0 is
        mitochondria. ``auto``: find out, refuse where it can't be known.

    Returns
    -------
    kind, notices, faults
        ``unsure`` or ``labels``; what the user should know; one sentence for each mask whose
        values don't fit, naming them.

    Examples
    --------
    >>> decide_kind({"a.png": [0, 1, 255], "b.png": [0, 255]})[0]
    'unsure'
    >>> decide_kind({"a.png": [0, 255]})
    ('labels', ['masks hold only 0 and 255: 255 is read as mitochondria'], [])
    """
    found = {name: {float(v) for v in vs} for name, vs in values.items()}
    notices: list[str] = []
    if kind == "auto":
        if any({1, 255} <= vs for vs in found.values()):
            kind = "unsure"
        elif any(255 in vs for vs in found.values()):
            mixed = [name for name, vs in found.items() if 1 in vs]
            if mixed:
                fault = (
                    f"{mixed[0]} holds 0 and 1 while other masks hold 0 and 255, so 255 could "
                    f"mean mitochondria or unsure: {_HINT}"
                )
                return "unsure", [], [fault]
            notices.append("masks hold only 0 and 255: 255 is read as mitochondria")
            return "labels", notices, _misfits(found, {0.0, 255.0})
        else:
            kind = "unsure"
    if kind == "unsure":
        return kind, notices, _misfits(found, {0.0, 1.0, 255.0})
    faults = [
        f"{name} is no label image: it holds {_listing(vs)}{_remedy(vs)}"
        for name, vs in found.items()
        if any(v < 0 or v != int(v) for v in vs)
    ]
    return kind, notices, faults


def to_mask(values: np.ndarray[Any, Any], kind: MaskKind) -> Mask:
    """Turn the values of a file into a mask.

    Parameters
    ----------
    values
        Any shape, as read from the file.
    kind
        ``unsure`` or ``labels``, as `decide_kind` found.

    Returns
    -------
    numpy.ndarray
        The same shape, uint8, values 0, 1 and 255.

    Raises
    ------
    MitolumeError
        A value doesn't fit the kind.
    """
    values = np.asarray(values)
    if kind == "labels":
        return (values > 0).astype(np.uint8)
    mask = values.astype(np.uint8)
    fits = (mask == values) & ((mask <= FOREGROUND) | (mask == UNSURE))
    if not fits.all():
        found = set(np.unique(values[~fits]).tolist())
        raise MitolumeError(f"a mask holds {_listing(found)}{_remedy(found) or ': ' + _HINT}")
    return mask


def _misfits(found: Mapping[str, set[float]], allowed: set[float]) -> list[str]:
    names = ", ".join(f"{v:g}" for v in sorted(allowed))
    return [
        f"{name} holds {_listing(vs)}, but masks hold {names}{_remedy(vs) or ': ' + _HINT}"
        for name, vs in found.items()
        if vs - allowed
    ]


def _remedy(values: set[float]) -> str:
    """Return the fix where values can be told to be no classes at all."""
    if any(v < 0 for v in values):
        return (
            "; -1 and other negative numbers mean nothing here: make background 0, mitochondria 1 "
            "and unsure 255 (Fiji: Process > Math)"
        )
    if all(v <= 1 for v in values) and any(v != int(v) for v in values):
        return "; these look like probabilities: threshold them first (Fiji: Image > Adjust)"
    if any(v != int(v) for v in values):
        return (
            "; a mask has whole numbers: it was resized or saved with smoothing, so make it "
            "again without interpolation"
        )
    return ""


def _listing(values: set[float]) -> str:
    shown = ", ".join(f"{v:g}" for v in sorted(values)[:8])
    return f"the values {shown}" + (f" and {len(values) - 8} more" if len(values) > 8 else "")
