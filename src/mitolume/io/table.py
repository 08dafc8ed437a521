"""The table of fields as text: read, with all its faults at once, and written. Opens no image.

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
from dataclasses import replace
from pathlib import Path
from unicodedata import normalize

from mitolume.errors import MitolumeError, in_words, some_lines, some_names
from mitolume.io.fields import (
    OWN_MASKS,
    Field,
    contradictions,
    format_planes,
    leaks,
    parse_planes,
)
from mitolume.io.formats import READERS, existing, is_zarr, require_file
from mitolume.io.pixel_size import CREDIBLE_UM, guess_unit
from mitolume.io.readers import address, as_number
from mitolume.io.write import write_text

ROLES = ("train", "validation", "test", "unlabelled")
COLUMNS = (
    "image", "mask", "role", "planes", "specimen", "condition", "batch",
    "channel", "scene", "fluorescence", "label", "proposal", "pixel_size_um", "z_step_um",
)  # fmt: skip

_FILES = ("image", "mask", "proposal")
_GONE, _FEW = "does not exist (looked for", 3


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
    names, rows = _read_cells(path)
    repeated = [name for name, times in Counter(names).items() if name and times > 1]
    faults = [(0, f"column {name!r} is there twice") for name in repeated]
    fields: list[Field] = []
    named: list[str] = []
    for line, row in rows:
        cells = dict(zip(names, map(str.strip, row), strict=False))
        if not any(cells.values()):
            continue
        parsed = _Row(cells, path.parent)
        fields.append(parsed.field(line))
        open_quotes = [n for n, c in zip(names, row, strict=False) if "\n" in c]
        if set(open_quotes) & set(COLUMNS):
            parsed.faults = [
                f"column {open_quotes[0]} has a line break, or a quote that isn't closed"
            ]
        if any(row[len(names) :]):
            parsed.faults.append(
                f"it has more cells than the header ({', '.join(row[len(names) :])} beyond "
                'the last); put cells with commas in "quotes"'
            )
        faults += [(line, f"line {line}: {fault}") for fault in parsed.faults]
        named += parsed.named
    if not fields:
        faults.append((0, "it has no rows"))
    faults = _as_moved(path.parent, named, faults)
    if any(row.mask and row.role in ("", "train") for row in fields):
        # With outlines to learn from, an image without is unlabelled, dye or not.
        fields = [
            row if row.mask or row.role else replace(row, role="unlabelled") for row in fields
        ]
    faults += [(0, fault) for fault in (*leaks(fields), *contradictions(fields))]
    for column in ("condition", "batch"):
        alike = spelled_twice(column, [(getattr(row, column), row.line) for row in fields])
        faults += [(0, fault) for fault in alike]
    alike = spelled_twice("specimen", [(row.specimen, row.line) for row in fields])
    return fields, faults, [*_column_notices(names), *alike]


def _read_cells(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the names of a table's columns, and the cells of each row with its line."""
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
    reader = csv.reader(io.StringIO("".join(lines[1:])), delimiter=delimiter)
    rows, line = [], skipped + 2
    try:
        for row in reader:
            rows.append((line, row))
            line = skipped + 2 + reader.line_num  # a cell may hold line breaks
    except csv.Error as error:
        raise MitolumeError(f"{path} can't be read as a CSV table: {in_words(error)}") from None
    return names, rows


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


class _Row:
    """The cells of one row, read one by one; what is wrong with them is gathered in ``faults``."""

    def __init__(self, cells: dict[str, str], base: Path) -> None:
        self.cells, self.base = cells, base
        self.faults: list[str] = []
        self.named = [cells[column] for column in _FILES if cells.get(column)]
        dye = cells.get("fluorescence", "")
        self.named += [dye] * dye.lower().endswith(tuple(READERS))

    def field(self, line: int) -> Field:
        image, mask = self._file("image"), self._file("mask")
        if image is None:
            self.faults.append("no image is named")
        role, fluorescence = self._role(), self._fluorescence()
        if not (mask or fluorescence) and role in ("train", "validation", "test"):
            self.faults.append(
                f"role {role} needs a mask, or the mitochondria's fluorescence to make one of; "
                "without either the role is unlabelled"
            )
        text = {
            name: self.cells.get(name, "") for name in ("condition", "batch", "channel", "scene")
        }
        return Field(
            image=image or self.base,
            mask=mask,
            role=role or ("" if mask or fluorescence else "unlabelled"),
            specimen=self.cells.get("specimen") or _relative(image or self.base, self.base),
            **text,
            fluorescence=fluorescence,
            label=self._label(),
            planes=self._planes(),
            proposal=self._file("proposal"),
            pixel_size_um=self._length("pixel_size_um", *CREDIBLE_UM),
            z_step_um=self._length("z_step_um", 0.001, 1000),
            line=line,
            asked=bool(role),
            extra={name: cell for name, cell in self.cells.items() if name and name not in COLUMNS},
        )

    def _file(self, column: str) -> Path | None:
        name = self.cells.get(column)
        if not name:
            return None
        found = existing(Path(os.path.normpath(self.base / name)))
        if url := address(name):
            self.faults.append(f"{column} {url}: a table holds no addresses; download it first")
        elif not os.path.exists(found):  # pathlib raises an error where a name is too long
            self.faults.append(f"{column} {name} {_GONE} {found})")
        elif not (os.path.isfile(found) or is_zarr(found)):
            kind = "a folder" if found.is_dir() else "a pipe or a device"
            self.faults.append(f"{column} {name} is {kind}, not a file or an OME-Zarr")
        return found

    def _role(self) -> str:
        role = self.cells.get("role", "").lower()
        if role == "unlabeled":
            return "unlabelled"
        if role not in ("", *ROLES):
            self.faults.append(f"role {role!r} is not one of {', '.join(ROLES)} (or empty)")
            return ""
        return role

    def _fluorescence(self) -> Path | str:
        name = self.cells.get("fluorescence", "")
        beside = existing(Path(os.path.normpath(self.base / name)))
        if name and os.path.exists(beside):
            return beside
        if name.lower().endswith(tuple(READERS)):
            self.faults.append(f"fluorescence {name} {_GONE} {beside})")
        return name

    def _label(self) -> str:
        label = self.cells.get("label", "")
        if label not in ("", *OWN_MASKS):
            self.faults.append(
                f"label is {label!r}, but only dye, for a mask made of it, painted, or empty"
            )
        return label

    def _planes(self) -> tuple[int, ...] | None:
        text = self.cells.get("planes", "")
        try:
            return parse_planes(text)
        except ValueError as error:
            hint = (
                ": Excel made a date of planes such as 4-9; give the column the format Text, and "
            )
            is_date = re.search(r"\d.*[^\W\d_]{3}|[^\W\d_]{3}.*\d|\d[./]\d", text)
            self.faults.append(f"planes {text!r}{hint}write them again" if is_date else str(error))
            return None

    def _length(self, column: str, low: float, high: float) -> float | None:
        text = self.cells.get(column)
        if not text:
            return None
        value = as_number(text)
        if low <= value <= high:
            return value
        meant = guess_unit(value, low, high)
        self.faults.append(
            f"{column} is {text!r}; it must be {low:g} to {high:g} µm"
            + (f": where these are {meant[0]}, write {meant[1]:g}" if meant else "")
        )
        return None


def write_table(
    path: str | Path, fields: Iterable[Field], columns: Sequence[str] = COLUMNS
) -> None:
    """Write a table of fields that `read_table` reads back equal.

    Parameters
    ----------
    path
        The CSV file; paths in it are made relative to its folder.
    fields
        The rows.
    columns
        Of `COLUMNS` those to write.
    """
    write_text(path, table_text(list(fields), Path(path).parent, columns))


def used_columns(fields: Sequence[Field]) -> list[str]:
    """Return the columns that some row fills in, and those of images and masks."""
    return [c for c in COLUMNS if c in ("image", "mask") or any(getattr(f, c) for f in fields)]


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


def _relative(path: Path, base: Path) -> str:
    try:
        # Not resolved: a link stays the name that its owner gave it.
        found = Path(os.path.relpath(path, base)).as_posix()
    except ValueError:  # another drive on Windows
        return path.absolute().as_posix()
    return f"./{found}" if found[0].isspace() else found  # cells are read without spaces around
