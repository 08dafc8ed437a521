"""One row of the table of fields: an image, its mask and role; and what rows say together."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from mitolume.errors import MitolumeError, some_names
from mitolume.io.formats import bare_name, told_apart
from mitolume.text import of_scene

OWN_MASKS = ("dye", "painted")  # values of column `label`: masks that this program wrote


@dataclass(frozen=True)
class Field:
    """One row of the table.

    ``planes`` is None for all planes; ``role`` is "" until `split.assign_roles` drew one;
    ``fluorescence`` of the mitochondria's dye is a file or the name of a channel of the image;
    ``label`` is "dye" where the mask was made from it, "painted" where it was painted in napari;
    ``proposal`` are probabilities of another program;
    ``line`` is the row's line in the file (the header is line 1); ``asked`` is whether the table
    itself gives the role.
    """

    image: Path
    mask: Path | None = None
    role: str = ""
    planes: tuple[int, ...] | None = None
    specimen: str = ""
    condition: str = ""
    batch: str = ""
    channel: str = ""
    scene: str = ""
    fluorescence: Path | str = ""
    label: str = ""
    proposal: Path | None = None
    pixel_size_um: float | None = None
    z_step_um: float | None = None
    line: int = 0
    asked: bool = field(default=False, compare=False)
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def is_labelled(self) -> bool:
        """Whether the row's mask is used."""
        return self.mask is not None and self.role != "unlabelled"

    @property
    def is_outlined(self) -> bool:
        """Whether the row's mask is used and was not made from the dye."""
        return self.is_labelled and self.label != "dye"

    @property
    def is_doubtful(self) -> bool:
        """Whether the row is there perhaps only because its file lay among the images."""
        named = self.mask or self.fluorescence or self.proposal
        return self.role == "unlabelled" and not (self.asked or named)

    @property
    def name(self) -> str:
        """How pictures and notes name the image."""
        return of_scene(self.image.name, self.scene)

    @property
    def where(self) -> str:
        """How messages name the row."""
        return f"line {self.line} ({self.image.name})"


def leaks(fields: Iterable[Field]) -> list[str]:
    """Name each specimen whose rows would let a model see what it is tested on."""
    uses = _several(
        (row.specimen, "train" if row.role == "unlabelled" else row.role) for row in fields
    )
    return [
        f"specimen {specimen!r} is in {' and '.join(sorted(used))}: give each specimen one of "
        "train (with unlabelled), validation, test"
        for specimen, used in uses.items()
    ]


def contradictions(fields: Sequence[Field]) -> list[str]:
    """Name images whose rows, which are of other planes, differ in what all planes share."""
    return [
        f"{image} has several values in column `{column}` ({some_names(sorted(map(str, said)))})"
        for column in ("pixel_size_um", "z_step_um", "condition")
        for image, said in _several(
            (of_scene(str(row.image), row.scene), getattr(row, column)) for row in fields
        ).items()
    ]


def _several(pairs: Iterable[tuple[str, Any]]) -> dict[str, set[Any]]:
    """Return what has several values, with all of them; "" and None are none."""
    found: dict[str, set[Any]] = defaultdict(set)
    for name, value in pairs:
        found[name] |= {value} - {"", None}
    return {name: values for name, values in found.items() if len(values) > 1}


def is_same_image(one: Field, other: Field) -> bool:
    """Tell whether two rows mean planes of the same image; a channel may be left out."""
    places = [(os.path.abspath(row.image), row.scene) for row in (one, other)]  # without ..
    channels = {row.channel for row in (one, other)} - {""}
    return places[0] == places[1] and len(channels) < 2


def with_label(
    rows: Sequence[Field],
    index: int,
    mask: Path,
    planes: Sequence[int],
    *,
    depth: int,
    label: str = "painted",
) -> list[Field]:
    """Return the rows of a table with a mask for some planes of one row.

    Parameters
    ----------
    rows, index
        The table, and which of its rows is labelled; the role of an unlabelled one is drawn.
    mask
        The file of the mask.
    planes
        The planes that it labels.
    depth
        How many planes the image has.
    label
        Where the mask comes from, see `Field`.

    Returns
    -------
    list of Field
        Planes of the row that the mask leaves out follow as a row with the mask they had, or as an
        unlabelled one unless the row is kept for validation or test. No other row keeps a plane
        that is labelled now.
    """
    row, taken = rows[index], set(planes)
    role = "" if row.role == "unlabelled" else row.role
    new = replace(with_planes(row, sorted(taken)), mask=mask, label=label, role=role)
    rest = [z for z in row.planes or range(depth) if z not in taken]
    found: list[Field] = []
    for number, other in enumerate(rows):
        if number == index:
            found.append(new)
            if rest and row.is_labelled and row.label != "painted":
                found.append(with_planes(row, rest))
            elif rest and role in ("", "train"):
                left = replace(with_planes(row, rest), mask=None, label="", role="unlabelled")
                found.append(left)
        elif is_same_image(row, other):
            own = [z for z in other.planes or range(depth) if z not in taken]
            found += [with_planes(other, own)] * bool(own)
        else:
            found.append(other)
    return found


def with_planes(row: Field, planes: Sequence[int]) -> Field:
    """Return the row, meaning only these planes."""
    return replace(row, planes=tuple(planes))


def row_names(rows: Sequence[Field], *, folders: bool = True) -> list[str]:
    """Return a name for each row that is free of endings and unlike all others'.

    The file's name, after folders where several have it, with its planes where several rows share
    a file, and numbered where that is still not enough. Without ``folders`` it is that of old runs.
    """
    files = Counter(row.image for row in rows)
    apart = told_apart(files) if folders else {file: bare_name(file) for file in files}
    names = []
    for row in rows:
        name = apart[row.image]
        if files[row.image] > 1:
            name += "_z" + format_planes(row.planes).replace(" ", "_")
        # A file name may have 255 bytes, and endings are still to come.
        names.append(name.encode()[:200].decode(errors="ignore"))
    times = Counter(name.casefold() for name in names)
    taken = {name for name, n in times.items() if n == 1}
    for i, name in enumerate(names):
        if times[name.casefold()] > 1:
            numbered = (f"{name}_{n}" for n in count(1))
            names[i] = next(new for new in numbered if new.casefold() not in taken)
            taken.add(names[i].casefold())
    return names


def parse_planes(text: str) -> tuple[int, ...] | None:
    """Read a choice of planes.

    Parameters
    ----------
    text
        Numbers from 0 and ranges with both ends, separated by commas or spaces; ``a-b:step``
        takes every step-th. Empty means all.

    Returns
    -------
    tuple of int, or None
        Sorted; None means all.

    Examples
    --------
    >>> parse_planes("3, 0-6:2")
    (0, 2, 3, 4, 6)
    """
    if not text.strip():
        return None
    planes: set[int] = set()
    for part in re.split(r"[,;\s]+", text.strip()):
        # pandas writes 3.0 where others of the column are empty
        match = re.fullmatch(r"(\d+)(?:\.0|-(\d+)(?::([1-9]\d*))?)?", part)
        if not match:
            raise ValueError(f"planes {text!r} can't be read at {part!r}; write 3 or 0-9 or 0-9:2")
        first = int(match[1])
        last = int(match[2]) if match[2] else first
        if last > 100_000:
            raise ValueError(f"planes {part!r} go beyond any stack")
        if last < first:
            raise ValueError(f"planes {part!r} run backwards")
        planes |= set(range(first, last + 1, int(match[3] or 1)))
    return tuple(sorted(planes))


def asked_planes(text: str) -> tuple[int, ...] | None:
    """Read the choice of planes of an option, see `parse_planes`."""
    try:
        return parse_planes(text)
    except ValueError as error:
        raise MitolumeError(f"--planes: {error}") from None


def format_planes(planes: Sequence[int] | None) -> str:
    """Write a choice of planes in the shortest form that `parse_planes` reads.

    Examples
    --------
    >>> format_planes([0, 1, 2, 5])
    '0-2 5'
    """
    runs: list[list[int]] = []
    for plane in planes or ():
        if runs and plane == runs[-1][1] + 1:
            runs[-1][1] = plane
        else:
            runs.append([plane, plane])
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
