"""What the values in mask files mean, decided once for all masks of a set.

In memory a mask is uint8: 0 background, 1 mitochondria, 255 unsure (in no loss and no score).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Literal, cast, get_args

import numpy as np
from scipy import ndimage

from mitolume.errors import MitolumeError, Note, some_names

BACKGROUND, FOREGROUND, UNSURE = 0, 1, 255

# unsure: 1 is mitochondria, 255 is unsure; labels: every value above 0 is mitochondria
MaskKind = Literal["auto", "unsure", "labels"]
# numbers: those of objects, and -1 for unsure
ValuesKind = Literal[MaskKind, "numbers", "probability"]
Mask = np.ndarray[Any, np.dtype[np.uint8]]
Array = np.ndarray[Any, Any]

MANY = 20  # values: more without a 0 among them are grey values
_HINT = (
    "say mask_kind: labels (run and study: --set mask_kind=labels; others: --mask-kind labels) "
    "where every value above 0 is mitochondria, or unsure where 1 is mitochondria and 255 is unsure"
)


def meaning_of(
    values: Mapping[str, set[float]], kind: str = "auto"
) -> tuple[ValuesKind, list[str]]:
    """Decide what the values of a set of masks mean, as `decide_kind` does, or refuse.

    Returns
    -------
    kind, notices
        ``numbers`` if the masks are label images, whose numbers are objects; in masks of kind
        ``labels`` or ``unsure`` objects are connected pixels.

    Raises
    ------
    MitolumeError
        There is no such kind, or the values of a mask don't fit.
    """
    require_kind(kind)
    decided, notices, faults = decide_kind(values, cast(MaskKind, kind))
    if faults:
        raise MitolumeError("; ".join(faults))
    if decided == "labels" and set().union(*values.values()) - {BACKGROUND, FOREGROUND, UNSURE}:
        return "numbers", notices
    return decided, notices


def require_kind(kind: str) -> None:
    """Refuse a kind of mask that does not exist."""
    if kind not in get_args(MaskKind):
        raise MitolumeError(f"no mask kind {kind!r}; there are {', '.join(get_args(MaskKind))}")


def decide_kind(
    values: Mapping[str, Iterable[float]], kind: MaskKind = "auto"
) -> tuple[MaskKind, list[str], list[str]]:
    """Decide once, for all masks of a set, what their values mean.

    ``values`` are the distinct values of each mask by its file's name; the kind ``auto`` finds out,
    and refuses what can't be known. Also returned: what the user should know, and a sentence for
    each unfit mask.

    Examples
    --------
    >>> decide_kind({"a.png": [0, 1, 255], "b.png": [0, 1]})[0]
    'unsure'
    >>> decide_kind({"a.png": [0, 255]})
    ('labels', ['masks hold only 0 and 255: 255 is read as mitochondria'], [])
    """
    found = {name: {float(v) for v in vs} for name, vs in values.items()}
    notices: list[str] = []
    faults: list[str] = []
    allowed = {0.0, 1.0, 255.0}
    classes = {name: vs for name, vs in found.items() if 255 in vs and vs <= allowed}
    binary = [name for name, vs in classes.items() if 1 not in vs]
    others = [name for name, vs in found.items() if 1 in vs and vs <= allowed]
    if kind == "auto" and binary and others:
        faults = [
            f"{some_names(binary)}: 0 and 255, while {others[0]} holds 1, so 255 could mean "
            f"mitochondria or unsure: save them alike, or {_HINT}"
        ]
    elif kind == "auto" and binary:
        kind, allowed = "labels", {0.0, 255.0}
        notices.append(Note("masks hold only 0 and 255: 255 is read as mitochondria"))
    elif kind == "labels":
        allowed = set()
        if unsure := [name for name in classes if name not in binary]:
            notices.append(
                f"{some_names(unsure)}: 0, 1 and 255, all above 0 taken as mitochondria; where 255 "
                "is unsure, make the label images 0 and 1 (Fiji: Process > Math > Max, 1), and "
                "leave mask_kind out"
            )
    unfit: dict[str, dict[str, set[float]]] = defaultdict(dict)  # by what is wrong
    for name, vs in found.items():
        if fault := _fault(name, vs, allowed):
            unfit[fault][name] = vs
    for fault, of in unfit.items():
        verb = "holds" if len(of) == 1 else "hold"
        faults.append(f"{some_names(of)} {verb} {_listing(set().union(*of.values()))}{fault}")
    return "unsure" if kind == "auto" else kind, notices, faults


def to_mask(values: Array, kind: ValuesKind) -> Mask:
    """Turn the values of a file into a mask.

    Parameters
    ----------
    values
        Any shape, as read from the file.
    kind
        ``unsure`` or ``labels``, as `decide_kind` found; or ``numbers``, -1 being unsure.

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
    if kind in ("labels", "numbers"):
        mask = (values > 0).astype(np.uint8)
        mask[values < 0] = UNSURE
        return mask
    mask = values.astype(np.uint8)
    fits = (mask == values) & ((mask <= FOREGROUND) | (mask == UNSURE))
    if not fits.all():
        found = set(np.unique(values[~fits]).tolist())
        raise MitolumeError(f"a mask holds {_listing(found)}{_remedy(found) or ': ' + _HINT}")
    return mask


def to_objects(values: Array, kind: ValuesKind) -> tuple[Array, Any]:
    """Turn the values of a file, (Y, X) or (Z, Y, X), into numbered objects.

    Returns
    -------
    labels, unsure
        The same shape: int64, 0 is background; bool. Unless the kind is ``numbers``, connected
        pixels are objects (8 neighbours, in a stack 26).
    """
    if kind == "numbers":
        return np.maximum(values, 0).astype(np.int64), values < 0
    mask = to_mask(values, kind)
    labels, _ = ndimage.label(mask == FOREGROUND, np.ones((3,) * mask.ndim))
    return labels.astype(np.int64), mask == UNSURE


def compact(labels: Array) -> tuple[Array, Array]:
    """Return labels no larger than there are pixels, and which number each of them stands for.

    Lists by label would otherwise be as long as the largest number, which may be any; 0 stays 0.
    """
    most = int(labels.max(initial=0))
    if most <= labels.size:
        return labels, np.arange(most + 1)
    present, numbered = np.unique(np.append(labels, labels.dtype.type(0)), return_inverse=True)
    return numbered[:-1].reshape(labels.shape), present


def _fault(name: str, values: set[float], allowed: set[float]) -> str:
    """Say why the values of a mask don't fit; ``allowed`` is empty for label images."""
    if values == {1.0, 2.0} and allowed:
        return (
            " and no 0, as ilastik numbers its classes: make mitochondria 1 and the background 0 "
            "(in Fiji by Process > Math > Macro, v=(v==2) where 2 is mitochondria, and v=(v==1) "
            "where 1 is)"
        )
    if name.lower().endswith((".jpg", ".jpeg")) and values - {0.0, 1.0, 255.0}:
        return "; a JPEG changes the values of masks: save PNG or TIFF"
    remedy = _remedy(values)
    if not allowed:
        return remedy
    if not values - allowed:
        return ""
    names = ", ".join(f"{v:g}" for v in sorted(allowed))
    if len(values) > 256:
        remedy = remedy or "; is it the image? Of a label image, " + _HINT
    return f", but masks hold {names}{remedy or ': ' + _HINT}"


def _remedy(values: set[float]) -> str:
    """Return the fix for values that are neither classes nor numbers of objects."""
    if any(v < 0 for v in values):
        return (
            "; -1 and other negative numbers mean nothing here: make background 0, mitochondria 1 "
            "and unsure 255 (Fiji: Process > Math)"
        )
    if len(values) > MANY and 0 not in values:
        return "; with so many values and no background (0) it is an image: name its mask"
    if max(values, default=0) >= 2**32:
        return "; objects have no such numbers, so save it again as a mask"
    if all(v == int(v) for v in values):
        return ""
    if all(v <= 1 for v in values):
        return "; these look like probabilities: threshold them first (Fiji: Image > Adjust)"
    return (
        "; a mask has whole numbers: it was resized or saved with smoothing, so make it again "
        "without interpolation"
    )


def _listing(values: set[float]) -> str:
    return f"the values {some_names([f'{v:g}' for v in sorted(values)], most=8)}"
