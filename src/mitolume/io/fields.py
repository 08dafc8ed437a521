"""The table of fields: one row for each image, with its mask and role. Opens no image.

Columns and their meaning are in docs/fields.md; `check` opens the files, `split` draws roles.
"""

from __future__ import annotations

import csv
import difflib
import io
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any
from unicodedata import normalize

from mitolume.errors import MitolumeError, in_words, some_lines, some_names
from mitolume.io.formats import READERS, bare_name, existing, is_zarr, require_file, told_apart
from mitolume.io.pixel_size import CREDIBLE_UM, guess_unit
from mitolume.io.readers import address, as_number
from mitolume.io.write import write_text
from mitolume.text import of_scene

ROLES = ("train", "validation", "test", "unlabelled")
COLUMNS = (
    "image", "mask", "role", "planes", "specimen", "condition", "batch",
    "channel", "scene", "fluorescence", "label", "proposal", "pixel_size_um", "z_step_um",
)  # fmt: skip

_FILES = ("image", "mask", "proposal")
_GONE, _FEW = "does not exist (looked for", 3
OWN_MASKS = ("dye", "painted")  # values of column `label`: masks that this program wrote


class TableError(MitolumeError):
    """All faults of a table at once."""

    def __init__(self, table: str | Path, faults: Sequence[str]) -> None:
        self.faults = [fault for fault in faults if fault]
        alike: dict[str, list[str]] = defaultdict(list)
        for fault in self.faults:
            found = re.fullmatch(r"line (\d+): (.*)", fault, re.DOTALL)
            alike[found[2] if found else fault] += [found[1]] if found else []
        told = [f"line{'s' * (len(n) > 1)} {some_names(n)}: {text}" if n else text
                for text, n in alike.items()]  # fmt: skip
        count = "a fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        super().__init__("\n  ".join([f"{table} has {count}:", *some_lines(told)]))


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


def read_table(path: str | Path) -> list[Field]:
    """Read a table of fields.

    Parameters
    ----------
    path
        CSV (comma, semicolon or tab), UTF-8; paths in it are relative to it.

    Returns
    -------
    list of Field
        In the order of the file.

    Raises
    ------
    TableError
        Naming every fault that can be seen without opening an image.
    MitolumeError
        The file is missing or is not a table.
    """
    fields, faults, _ = parse_table(Path(path))
    if faults:
        raise TableError(path, [fault for _, fault in faults])
    return fields


def parse_table(path: Path) -> tuple[list[Field], list[tuple[int, str]], list[str]]:
    """Read a table of fields, and say what is wrong with it instead of raising `TableError`.

    Returns
    -------
    fields, faults, notices
        The rows, faulty ones too; each fault with the line it is in (0: the table as a whole);
        what the user should know.
    """
    require_file(path, "table of fields")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if "\0" in text:
            raise UnicodeError
    except UnicodeError:
        raise MitolumeError(
            f"{path} is not UTF-8 text; in Excel save it as *CSV UTF-8 (comma delimited)*"
        ) from None
    except OSError as error:
        raise MitolumeError(f"{path} can't be read: {in_words(error)}") from None
    # Excel may write its separator into a line of its own; editors leave empty lines.
    lines = text.splitlines(keepends=True)
    skipped = 0
    while lines and (not lines[0].strip() or lines[0].startswith("sep=")):
        del lines[0]
        skipped += 1
    header = lines[0] if lines else ""
    delimiter = max(",;\t", key=header.count)
    names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
    names = [name.lower() if name.lower() in COLUMNS else name for name in names]
    if "image" not in names:
        raise TableError(path, [f"no column `image`; it has {', '.join(names) or 'nothing'}"])
    if {"label", "centroid_y_px"} <= set(names) or "footprint_share" in names:
        raise MitolumeError(
            f"{path} is a table of what was measured, not of fields; `mitolume fields FOLDER` "
            "drafts one of images"
        )
    fields: list[Field] = []
    faults: list[tuple[int, str]] = []
    repeated = [name for name, times in Counter(names).items() if name and times > 1]
    faults += [(0, f"column {name!r} is there twice") for name in repeated]
    reader = csv.reader(io.StringIO("".join(lines[1:])), delimiter=delimiter)
    line, named = skipped + 2, list[str]()
    try:
        rows = [(row, skipped + 2 + reader.line_num) for row in reader]
    except csv.Error as error:
        raise MitolumeError(f"{path} can't be read as a CSV table: {in_words(error)}") from None
    for row, next_line in rows:
        cells = dict(zip(names, map(str.strip, row), strict=False))
        if any(cells.values()):
            parsed, wrong = _parse_row(cells, path.parent, line)
            open_quotes = [n for n, c in zip(names, row, strict=False) if "\n" in c]
            if set(open_quotes) & set(COLUMNS):
                wrong = [f"column {open_quotes[0]} has a line break, or a quote that isn't closed"]
            if any(row[len(names) :]):
                wrong.append(
                    f"it has more cells than the header ({', '.join(row[len(names) :])} beyond "
                    'the last); put cells with commas in "quotes"'
                )
            faults += [(line, f"line {line}: {fault}") for fault in wrong]
            fields.append(parsed)
            named += [cells[column] for column in _FILES if cells.get(column)]
            dye = cells.get("fluorescence", "")
            named += [dye] * dye.lower().endswith(tuple(READERS))
        line = next_line
    if not fields:
        faults.append((0, "it has no rows"))
    faults = _as_moved(path.parent, named, faults)
    if any(row.mask and row.role in ("", "train") for row in fields):
        # With outlines to learn from, an image without is unlabelled, dye or not.
        fields = [
            row if row.mask or row.role else replace(row, role="unlabelled") for row in fields
        ]
    faults += [(0, fault) for fault in (*leaks(fields), *_contradictions(fields))]
    for column in ("condition", "batch"):
        alike = spelled_twice(column, [(getattr(row, column), row.line) for row in fields])
        faults += [(0, fault) for fault in alike]
    alike = spelled_twice("specimen", [(row.specimen, row.line) for row in fields])
    return fields, faults, [*_column_notices(names), *alike]


def spelled_twice(column: str, rows: Iterable[tuple[str, int]]) -> list[str]:
    """Name what differs in case or spaces only, of the values of a column with their lines."""
    alike: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for name, line in rows:
        alike[" ".join(normalize("NFC", name).casefold().split())][name].append(line)
    return [
        f"{column}: {' and '.join(f'{n!r} (line {some_names(at)})' for n, at in own.items())} "
        "differ in case or spaces only: write them alike"
        for own in alike.values()
        if len(own) > 1
    ]


def _as_moved(
    base: Path, named: Iterable[str], faults: list[tuple[int, str]]
) -> list[tuple[int, str]]:
    """Say in one sentence what most files have in common that are missing: their folder."""
    files = dict.fromkeys(named)
    gone = [file for file in files if not os.path.exists(existing(base / file))]
    if len(gone) <= max(_FEW, (len(files) - 1) // 2) or any(map(address, gone)):
        return faults
    try:
        folder = os.path.commonpath([os.path.dirname(file) for file in gone])
    except ValueError:  # other drives of Windows, or places from here and from the root
        return faults
    if folder and not Path(folder).name:  # a root
        return faults
    fix = "put the table beside them again"
    if folder.strip("."):
        fix = f"write its new place into the table instead of {folder}, or move it back"
    said = (
        f"{len(gone)} of {len(files)} files are missing ({some_names(gone)}), seen from "
        f"{base.absolute()}. Was their folder moved? Then {fix}"
    )
    return [(0, said), *((line, "" if _GONE in fault else fault) for line, fault in faults)]


def _column_notices(names: Sequence[str]) -> list[str]:
    """Name columns that nearly have the name of one that is read."""
    missing = [column for column in COLUMNS if column not in names]
    notices = []
    for name in names:
        near = difflib.get_close_matches(name.lower(), missing, n=1, cutoff=0.8)
        if name and name not in COLUMNS and near:
            notices.append(f"column {name!r} is carried through unread; {near[0]!r} would be read")
    return notices


def write_table(path: str | Path, fields: Iterable[Field]) -> None:
    """Write a table of fields that `read_table` reads back equal.

    Parameters
    ----------
    path
        The CSV file; paths in it are made relative to its folder.
    fields
        The rows.
    """
    write_text(path, table_text(list(fields), Path(path).parent))


def table_text(fields: Sequence[Field], base: Path, columns: Sequence[str] = COLUMNS) -> str:
    """Return the rows of a table as CSV, with these of its columns and paths from a folder on."""
    extras = dict.fromkeys(name for row in fields for name in row.extra)
    out = io.StringIO()
    names = [*columns, *extras]
    writer = csv.DictWriter(out, names, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in fields:
        cells = {name: getattr(row, name) for name in COLUMNS}
        cells |= {n: _relative(cell, base) for n, cell in cells.items() if isinstance(cell, Path)}
        cells |= {"role": "" if row.is_doubtful else row.role, "planes": format_planes(row.planes)}
        writer.writerow(cells | row.extra)
    return out.getvalue()


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


def _contradictions(fields: Sequence[Field]) -> list[str]:
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


def _parse_row(cells: dict[str, str], base: Path, line: int) -> tuple[Field, list[str]]:
    faults: list[str] = []

    def file(column: str) -> Path | None:
        if not cells.get(column):
            return None
        found = Path(os.path.normpath(base / cells[column]))
        found = existing(found)
        if url := address(cells[column]):
            faults.append(f"{column} {url}: a table holds no addresses; download it first")
        elif not os.path.exists(found):  # pathlib raises an error where a name is too long
            faults.append(f"{column} {cells[column]} {_GONE} {found})")
        elif not (os.path.isfile(found) or is_zarr(found)):
            kind = "a folder" if found.is_dir() else "a pipe or a device"
            faults.append(f"{column} {cells[column]} is {kind}, not a file or an OME-Zarr")
        return found

    def length(column: str, low: float, high: float) -> float | None:
        if not cells.get(column):
            return None
        value = as_number(cells[column])
        if not low <= value <= high:
            meant = guess_unit(value, low, high)
            faults.append(
                f"{column} is {cells[column]!r}; it must be {low:g} to {high:g} µm"
                + (f": where these are {meant[0]}, write {meant[1]:g}" if meant else "")
            )
            return None
        return value

    image, mask = file("image"), file("mask")
    if image is None:
        faults.append("no image is named")
    role = cells.get("role", "").lower()
    if role == "unlabeled":
        role = "unlabelled"
    if role not in ("", *ROLES):
        faults.append(f"role {role!r} is not one of {', '.join(ROLES)} (or empty)")
        role = ""
    fluorescence: Path | str = cells.get("fluorescence", "")
    beside = existing(Path(os.path.normpath(base / fluorescence)))
    if fluorescence and os.path.exists(beside):
        fluorescence = beside
    elif str(fluorescence).lower().endswith(tuple(READERS)):
        faults.append(f"fluorescence {fluorescence} {_GONE} {beside})")
    if not (mask or fluorescence) and role in ("train", "validation", "test"):
        faults.append(
            f"role {role} needs a mask, or the mitochondria's fluorescence to make one of; "
            "without either the role is unlabelled"
        )
    label = cells.get("label", "")
    if label not in ("", *OWN_MASKS):
        faults.append(f"label is {label!r}, but only dye, for a mask made of it, painted, or empty")
    try:
        planes = parse_planes(cells.get("planes", ""))
    except ValueError as error:
        planes, text = None, cells["planes"]
        hint = ": Excel made a date of planes such as 4-9; give the column the format Text, and "
        is_date = re.search(r"\d.*[^\W\d_]{3}|[^\W\d_]{3}.*\d|\d[./]\d", text)
        faults.append(f"planes {text!r}{hint}write them again" if is_date else str(error))
    row = Field(
        image=image or base,
        mask=mask,
        role=role or ("" if mask or fluorescence else "unlabelled"),
        planes=planes,
        specimen=cells.get("specimen") or _relative(image or base, base),
        **{name: cells.get(name, "") for name in ("condition", "batch", "channel", "scene")},
        fluorescence=fluorescence,
        label=label,
        proposal=file("proposal"),
        pixel_size_um=length("pixel_size_um", *CREDIBLE_UM),
        z_step_um=length("z_step_um", 0.001, 1000),
        line=line,
        asked=bool(role),
        extra={name: value for name, value in cells.items() if name and name not in COLUMNS},
    )
    return row, faults


def _relative(path: Path, base: Path) -> str:
    try:
        # Not resolved: a link stays the name that its owner gave it.
        found = Path(os.path.relpath(path, base)).as_posix()
    except ValueError:  # another drive on Windows
        return path.absolute().as_posix()
    return f"./{found}" if found[0].isspace() else found  # cells are read without spaces around


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
