"""Opens every file of a table once, finds all faults before anything is computed. No model."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import xarray as xr

from mitolume.errors import MitolumeError, Note, some_names
from mitolume.io.fields import OWN_MASKS, Field, format_planes, with_planes
from mitolume.io.formats import open_scenes, sha256
from mitolume.io.mask_files import (
    is_outlined,
    labelled_planes,
    open_mask,
    require_fit,
    values_in,
)
from mitolume.io.masks import (
    BACKGROUND,
    FOREGROUND,
    UNSURE,
    Mask,
    MaskKind,
    decide_kind,
)
from mitolume.io.pixel_size import plane_pixel_size
from mitolume.io.read import Image2D, read, read_plane
from mitolume.io.rows import (
    full_scale,
    open_fluorescence,
    open_image,
    plane_of_mask,
    read_row,
)
from mitolume.io.split import spread
from mitolume.io.suspicion import (
    LIKE_A_MASK,
    MOST_PLANES,
    look_closely,
    nothing_but_flat,
    odd_pixels,
)
from mitolume.io.table import TableError, parse_table
from mitolume.text import count

_NO_IMAGE = "a mask and no image, so it is left out; to learn from it, give it the role unlabelled"
_IN_COLOUR = (
    "a picture in colour, so it is left out; to learn from it, name its channel in the table"
)
PixelSize = tuple[float, float] | None  # along Y and X in µm


@dataclass(frozen=True)
class CheckedTable:
    """A table whose every file was opened and found good.

    ``fields`` have their planes written out; ``pixel_sizes`` maps the line of a row to its pixel
    size along Y and X in µm, None where unknown; ``sha256`` maps each file to its hash;
    ``empty_planes`` are the (line, z) of labelled planes whose mask has no foreground.
    """

    fields: tuple[Field, ...]
    mask_kind: MaskKind
    notices: tuple[str, ...]
    pixel_sizes: dict[int, PixelSize]
    sha256: dict[Path, str]
    empty_planes: frozenset[tuple[int, int]]


@dataclass(frozen=True)
class _Row:
    """A row whose planes are written out, and what was found in its files.

    ``values`` are those of its mask, if one is used, and ``hashes`` those of its image, both by
    plane. ``says_itself`` is whether its mask is outlines, or was made here: what its values mean
    is known. ``odd`` maps what is odd to where. ``scale`` is what stands for 1 in its proposal, and
    the proposal's largest number.
    """

    row: Field
    pixel_size: PixelSize
    values: dict[int, set[float]]
    says_itself: bool
    hashes: dict[int, str]
    odd: dict[str, list[str]]
    scale: tuple[int, float] | None

    @property
    def all_values(self) -> set[float]:
        """Those of all planes of the mask."""
        return set().union(*self.values.values())


def check_table(
    path: str | Path,
    *,
    mask_kind: MaskKind = "auto",
    channels: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> CheckedTable:
    """Read a table, and every plane and mask of it once.

    Parameters
    ----------
    path
        The table of fields.
    mask_kind
        What mask values mean; ``auto`` finds out.
    channels
        The channels that are read of each image, its own first; see `open_image`.
    progress
        Called with the rows done and the rows there are.

    Returns
    -------
    CheckedTable
        What the rest of a run stands on.

    Raises
    ------
    TableError
        Naming every fault: files that can't be read, masks of another size, planes that aren't
        there, NaN, mask values that mean nothing, a plane named twice, unknown pixel sizes.
    """
    fields, found_faults, notices = parse_table(Path(path))
    faults = [fault for _, fault in found_faults]
    faulty = {line for line, _ in found_faults}
    good = [row for row in fields if row.line not in faulty]
    steps = len(good) + 1  # the last is the closer look
    rows: list[_Row] = []
    left_out: dict[str, list[str]] = defaultdict(list)
    hashes: dict[Path, str] = {}
    for done, row in enumerate(good):
        progress(done, steps)
        try:
            found = _check_row(row, channels, notices)
        except MitolumeError as error:
            if row.is_doubtful and _is_in_colour(row):
                left_out[_IN_COLOUR].append(row.image.name)
            else:
                faults.append(f"line {row.line}: {error}")
            continue
        if row.is_doubtful and any(LIKE_A_MASK in reason for reason in found.odd):
            left_out[_NO_IMAGE].append(row.image.name)
            continue
        rows.append(found)
        files = (row.image, *open_image(found.row).attrs["files"], row.mask, row.proposal)
        hashes |= {file: sha256(file) for file in files if file and file not in hashes}
    progress(len(good), steps)
    odd: dict[str, list[str]] = defaultdict(list)
    for found in rows:
        for reason, places in found.odd.items():
            odd[reason] += places
    notices += [f"{some_names(places)}: {reason}" for reason, places in odd.items()]
    notices += [Note(f"{some_names(names)}: {reason}") for reason, names in left_out.items()]
    kind, kind_notices, kind_faults = _check_values(rows, mask_kind)
    scale_notices, scale_faults = _check_scales(rows)
    notices += scale_notices
    faults += scale_faults + nothing_but_flat(odd, sum(len(found.hashes) for found in rows))
    faults += kind_faults + _repeated_planes(rows)
    rows = _with_pixel_sizes(rows, notices, faults)
    if faults:
        raise TableError(path, faults)
    checked = tuple(found.row for found in rows)
    notices += kind_notices + look_closely(_labelled_planes(checked, kind))
    progress(steps, steps)
    return CheckedTable(
        checked,
        kind,
        tuple(dict.fromkeys(notices)),
        {found.row.line: found.pixel_size for found in rows},
        hashes,
        frozenset(
            (found.row.line, z)
            for found in rows
            for z, values in found.values.items()
            if not (FOREGROUND in values if kind == "unsure" else any(v > 0 for v in values))
        ),
    )


def _is_in_colour(row: Field) -> bool:
    try:
        return "red" in read(row.image, scene=row.scene or None)["C"].values
    except MitolumeError:
        return False


def _scale_of(row: Field, path: Path) -> tuple[int, float]:
    """Return what stands for 1 in a proposal, and its largest number."""
    samples = open_scenes(path)[0].array(0).sizes.get("S", 1)
    n_channels = samples if samples == 2 else read(path).sizes["C"]
    if n_channels > 1:
        raise MitolumeError(
            f"proposal {path} has {n_channels} channels, as ilastik writes one for each class: "
            "save that of mitochondria alone (Fiji: Image > Duplicate, one channel)"
        )
    proposal = open_mask(path)
    _check_mask_shape(row, open_image(row), proposal, f"proposal {path}")
    planes = [plane_of_mask(proposal, z) for z in row.planes or ()]
    full = full_scale(planes[0].dtype)
    least, peak = (float(f([f(p) for p in planes])) for f in (np.min, np.max))
    if full > 65535 or least < 0 or peak > full:
        raise MitolumeError(
            f"proposal {path} holds {least:g} to {peak:g} ({planes[0].dtype}), and probabilities "
            "are 0 to 1, in 8 bit 0 to 255, in 16 bit 0 to 65535"
        )
    return full, peak


def _labelled_planes(
    fields: Sequence[Field], kind: MaskKind
) -> Iterator[tuple[str, Image2D, Mask]]:
    """Read labelled planes spread over the table, as `look_closely` takes them."""
    planes = [(row, z) for row in fields if row.is_labelled for z in row.planes or ()]
    for row, z in spread(planes, MOST_PLANES):
        plane, mask = read_row(row, z, kind)
        if row.mask is not None and mask is not None:
            yield f"line {row.line} ({row.mask.name})", plane, mask


def _check_row(row: Field, channels: Sequence[str], notices: list[str]) -> _Row:
    image = open_image(row, channels)
    if channels:
        row = replace(row, channel=row.channel or channels[0])
    if found_by := image.attrs.get("channel_found_by"):
        said = f"no channel is named: took {found_by}; name another in column `channel` if it is"
        notices.append(Note(f"{said} wrong"))
    depth, asked = image.sizes["Z"], row.planes
    row = with_planes(row, range(depth) if asked is None else asked)
    assert row.planes is not None
    if row.planes[-1] >= depth:
        raise MitolumeError(
            f"{row.image} has planes 0 to {depth - 1}, but column `planes` names {row.planes[-1]}"
        )
    if row.fluorescence:
        dye = open_fluorescence(row)
        light, own = ((of.attrs["source"], str(of["C"].values[0])) for of in (image, dye))
        if light == own and not row.mask:
            raise MitolumeError(
                f"{row.image}: the image to segment is the fluorescence itself; name the channel "
                "of transmitted light in column `channel`, or its file in column `image`"
            )
    odd: dict[str, list[str]] = defaultdict(list)
    values: dict[int, set[float]] = {}
    says_itself = row.label in OWN_MASKS
    if row.is_labelled and row.mask:
        mask = open_mask(row.mask, image)
        notices.extend(mask.attrs.get("notices", ()))
        _check_mask_shape(row, image, mask, f"mask {row.mask}")
        row, values = _drawn(row, mask, depth, asked is not None, odd)
        says_itself |= is_outlined(mask)
        if says_itself:
            values = {z: of_plane - {UNSURE} for z, of_plane in values.items()}
    every = range(depth) if row.fluorescence and asked is None else row.planes
    hashes = _check_planes(row, image, every or (), odd)
    scale = _scale_of(row, row.proposal) if row.proposal else None
    return _Row(row, plane_pixel_size(image), values, says_itself, hashes, odd, scale)


def _drawn(
    row: Field, mask: xr.DataArray, depth: int, names_planes: bool, odd: dict[str, list[str]]
) -> tuple[Field, dict[int, set[float]]]:
    """Return the row without planes where nobody drew, and the values of its mask by plane."""
    planes, name = row.planes or (), Path(mask.attrs["source"]).name
    values = {z: values_in(plane_of_mask(mask, z), name) for z in planes}
    blank = [z for z, found in values.items() if found == {0.0}]
    drawn = labelled_planes(mask, blank) if mask.sizes["Z"] > 1 else planes
    left = len(set(planes) - set(drawn))
    if 0 < left < depth and not names_planes:
        odd[
            "nothing is drawn at other planes, so no outline is learnt from or scored there. "
            "Where they are truly without mitochondria, write all planes into column `planes`, "
            f"such as 0-{depth - 1}"
        ].append(f"mask {name} ({len(drawn)} of {count(depth, 'plane')} labelled)")
        return with_planes(row, drawn), {z: values[z] for z in drawn}
    if 0 < len(blank) < len(planes):
        where = "empty there and not at others; where nobody drew, leave planes out in column"
        odd[f"{where} `planes`"].append(f"mask {name} at planes {format_planes(blank)}")
    return row, values


def _check_planes(
    row: Field, image: xr.DataArray, planes: Iterable[int], odd: dict[str, list[str]]
) -> dict[int, str]:
    """Return the hash of each plane of the row's own channel, the same in any container."""
    hashes = {}
    for z in planes:
        for c, name in enumerate(image["C"].values):
            plane = read_plane(image, z=z, c=c)
            if c == 0:
                pixels = np.ascontiguousarray(plane, np.float64)
                hashes[z] = hashlib.blake2b(pixels.data, digest_size=16).hexdigest()
            if reason := odd_pixels(plane):
                place = f" plane {z}" * (image.sizes["Z"] > 1) + f" of {name}" * (c > 0)
                odd[reason].append(row.image.name + place)
                if c == 0:  # blank planes of several images are no copies
                    hashes[z] = f"{row.image} {row.scene} {name} {z}"
    return hashes


def _check_mask_shape(row: Field, image: xr.DataArray, mask: xr.DataArray, name: str) -> None:
    require_fit(mask, image)
    assert row.planes is not None
    if mask.sizes["Z"] == 1 and len(row.planes) > 1:
        raise MitolumeError(
            f"{name} has one plane for {len(row.planes)} planes of the image; "
            "say in column `planes` which plane it belongs to"
        )


def _check_values(
    rows: Sequence[_Row], mask_kind: MaskKind
) -> tuple[MaskKind, list[str], list[str]]:
    """Return what the values of masks mean, what the user should know of them, and their faults."""
    labelled = [found for found in rows if found.row.is_labelled]
    values: dict[str, set[float]] = defaultdict(set)
    for found in labelled:
        if not found.says_itself:
            values[str(found.row.mask)] |= found.all_values
    kind, notices, faults = decide_kind(values, mask_kind)
    known = {BACKGROUND, UNSURE} if kind == "unsure" else {BACKGROUND}  # needn't be mitochondria
    full = [
        found.row.where
        for found in labelled
        if found.row.label not in OWN_MASKS and not found.all_values & known
    ]
    if full and not faults:  # of which some would be none
        faults.append(
            f"{some_names(full)}: the mask marks every pixel as mitochondria; the background must "
            "be 0 (ilastik numbers it 1, and mitochondria 2)"
        )
    empty = [f.row.mask.name for f in labelled if f.row.mask and f.all_values == {0.0}]
    if empty and len(empty) < len(labelled):
        notices.append(
            f"{some_names(empty)}: no foreground in the mask, while others have some; "
            "where nobody drew, empty column `mask`"
        )
    return kind, notices, faults


def _check_scales(rows: Sequence[_Row]) -> tuple[list[str], list[str]]:
    """Return what the user should know of proposals, and their faults."""
    peaks: dict[int, list[float]] = defaultdict(list)
    for one, peak in (found.scale for found in rows if found.scale):
        peaks[one].append(peak)
    notices: list[str] = []
    faults: list[str] = []
    for one, tops in peaks.items():
        if max(tops) < one / 2:
            faults.append(
                f"column proposal: {count(len(tops), 'file')} of whole numbers up to "
                f"{max(tops):g}, where {one} stands for 1: these are masks or numbers of "
                f"objects; save probabilities, or masks of 0 and {one}"
            )
        elif one > 1:
            of_rows = f"{count(len(tops), 'row')} with a proposal of whole numbers"
            notices.append(Note(f"{of_rows}: 0 to {one} are read as probabilities 0 to 1"))
    return notices, faults


def _repeated_planes(rows: Sequence[_Row]) -> list[str]:
    """Name planes that are there twice: in a copy, a link, or another container.

    A plane to train on may be there twice, with its outline and with its dye: see `_is_twin`.
    """
    seen: dict[str, list[Field]] = defaultdict(list)
    faults = []
    for found in rows:
        row = found.row
        keys = {found.hashes[z]: z for z in row.planes or ()}
        twins = ((z, r) for key, z in keys.items() for r in seen[key] if _is_twin(row, r))
        for z, first in islice(twins, 1):
            same = "" if first.image == row.image else f": {first.image.name} is the same image"
            faults.append(
                f"line {row.line}: plane {z} of {row.image.name} is also in line "
                f"{first.line}{same}; keep it in one of them"
            )
        for key in keys:
            seen[key].append(row)
    return faults


def _is_twin(one: Field, other: Field) -> bool:
    """Whether rows of one plane are a mistake, and not an outline and a dye that train together."""
    outline, dye = (one, other) if one.is_outlined else (other, one)
    together = one.role == other.role == "train" and one.specimen == other.specimen
    by_dye = bool(dye.fluorescence) and not dye.is_outlined
    return not (together and outline.is_outlined and by_dye)


def _with_pixel_sizes(rows: Sequence[_Row], notices: list[str], faults: list[str]) -> list[_Row]:
    """Return the rows whose pixel size is known, or all where none is.

    All or none must be known: otherwise rescaling would be a guess.
    """
    known = [found for found in rows if found.pixel_size]
    if not known or len(known) == len(rows):
        return list(rows)
    unknown = [found.row for found in rows if not found.pixel_size]
    if strays := [row.image.name for row in unknown if row.is_doubtful]:
        fix = "so it is left out; to learn from it, fill in column `pixel_size_um`"
        notices.append(Note(f"{some_names(strays)}: no pixel size, which others state, {fix}"))
    faults += [
        f"line {row.line}: {row.image.name} states no pixel size while others do; "
        "fill in column `pixel_size_um`"
        for row in unknown
        if not row.is_doubtful
    ]
    return known
