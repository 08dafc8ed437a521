"""Opens every file of a table once, finds all faults before anything is computed. No model."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mitolume.errors import MitolumeError, Note, some_names
from mitolume.io.fields import OWN_MASKS, Field, TableError, format_planes, parse_table, with_planes
from mitolume.io.formats import open_scenes, sha256
from mitolume.io.mask_files import (
    is_outlined,
    kind_of,
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
    ValuesKind,
    decide_kind,
    to_mask,
)
from mitolume.io.pixel_size import plane_pixel_size
from mitolume.io.read import Image2D, read, read_channels, read_plane
from mitolume.io.split import spread
from mitolume.io.suspicion import (
    LIKE_A_MASK,
    MOST_PLANES,
    look_closely,
    nothing_but_flat,
    odd_pixels,
)
from mitolume.io.windows import levelled
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
    faulty = {line for line, _ in found_faults}
    faults = [fault for _, fault in found_faults]
    checked: list[Field] = []
    values: dict[str, set[float]] = defaultdict(set)
    row_values: dict[int, dict[int, set[float]]] = {}  # of each line, by plane
    sizes: dict[int, PixelSize] = {}
    pixels: dict[int, dict[int, str]] = {}  # of each line: the hashes of its planes
    hashes: dict[Path, str] = {}
    odd: dict[str, list[str]] = defaultdict(list)
    peaks: dict[int, list[float]] = defaultdict(list)  # of proposals, by what stands for 1
    left_out: dict[str, list[str]] = defaultdict(list)
    steps = len(fields) + 1  # the last is the closer look
    for done, row in enumerate(fields):
        progress(done, steps)
        if row.line in faulty:
            continue
        own: dict[str, list[str]] = defaultdict(list)
        try:
            row, found, size, hashed = _check_row(row, channels, notices, own)
            if row.proposal:
                one, peak = _check_proposal(row, row.proposal)
                peaks[one].append(peak)
        except MitolumeError as error:
            if row.is_doubtful and _is_in_colour(row):
                left_out[_IN_COLOUR].append(row.image.name)
            else:
                faults.append(f"line {row.line}: {error}")
            continue
        if row.is_doubtful and any(LIKE_A_MASK in reason for reason in own):
            left_out[_NO_IMAGE].append(row.image.name)
            continue
        for reason, planes in own.items():
            odd[reason] += planes
        checked.append(row)
        sizes[row.line] = size
        if row.is_labelled:
            if row.label in OWN_MASKS or (
                row.mask and is_outlined(open_mask(row.mask, open_image(row)))
            ):
                # Outlines say themselves what they mean.
                found = {z: of_plane - {UNSURE} for z, of_plane in found.items()}
            else:
                values[str(row.mask)].update(*found.values())
            row_values[row.line] = found
        files, pixels[row.line] = open_image(row).attrs["files"], hashed
        for file in filter(None, (row.image, *files, row.mask, row.proposal)):
            if file not in hashes:
                hashes[file] = sha256(file)
    progress(len(fields), steps)
    notices += [f"{some_names(planes)}: {reason}" for reason, planes in odd.items()]
    notices += [Note(f"{some_names(planes)}: {reason}") for reason, planes in left_out.items()]
    whole = {line: set().union(*by_plane.values()) for line, by_plane in row_values.items()}
    empty = [row.mask.name for row in checked if row.mask and whole.get(row.line) == {0.0}]
    if empty and len(empty) < len(row_values):
        notices.append(
            f"{some_names(empty)}: no foreground in the mask, while others have some; "
            "where nobody drew, empty column `mask`"
        )
    kind, kind_notices, kind_faults = decide_kind(values, mask_kind)
    known = {BACKGROUND, UNSURE} if kind == "unsure" else {BACKGROUND}  # needn't be mitochondria
    made = [row for row in checked if row.line in whole and row.label not in OWN_MASKS]
    full = [row.where for row in made if not whole[row.line] & known]
    if full and not kind_faults:  # of which some would be none
        faults.append(
            f"{some_names(full)}: the mask marks every pixel as mitochondria; the background must "
            "be 0 (ilastik numbers it 1, and mitochondria 2)"
        )
    for one, tops in peaks.items():
        if max(tops) < one / 2:
            faults.append(
                f"column proposal: {count(len(tops), 'file')} of whole numbers up to "
                f"{max(tops):g}, where {one} stands for 1: these are masks or numbers of "
                f"objects; save probabilities, or masks of 0 and {one}"
            )
        elif one > 1:
            rows = f"{count(len(tops), 'row')} with a proposal of whole numbers"
            notices.append(Note(f"{rows}: 0 to {one} are read as probabilities 0 to 1"))
    faults += nothing_but_flat(odd, sum(map(len, pixels.values())))
    faults += kind_faults + _repeated_planes(checked, pixels)
    strays = [row.image.name for row in checked if row.is_doubtful and not sizes[row.line]]
    if strays and any(sizes[row.line] for row in checked):
        checked = [row for row in checked if sizes[row.line] or not row.is_doubtful]
        fix = "so it is left out; to learn from it, fill in column `pixel_size_um`"
        notices.append(Note(f"{some_names(strays)}: no pixel size, which others state, {fix}"))
    faults += _pixel_size_faults(checked, sizes)
    if faults:
        raise TableError(path, faults)
    notices += kind_notices + look_closely(_labelled_planes(checked, kind))
    progress(steps, steps)
    blank = frozenset(
        (line, z)
        for line, by_plane in row_values.items()
        for z, found in by_plane.items()
        if not (FOREGROUND in found if kind == "unsure" else any(value > 0 for value in found))
    )
    said = tuple(dict.fromkeys(notices))
    return CheckedTable(tuple(checked), kind, said, sizes, hashes, blank)


def _is_in_colour(row: Field) -> bool:
    try:
        return "red" in read(row.image, scene=row.scene or None)["C"].values
    except MitolumeError:
        return False


def open_image(row: Field, channels: Sequence[str] = ()) -> xr.DataArray:
    """Open the image of a row, with the table's pixel size over the file's.

    Parameters
    ----------
    row
        Its column ``channel``, where it is filled in, goes before the first of ``channels``.
    channels
        Which channels, in this order; without any, the one that the row names, or the only one.

    Returns
    -------
    xarray.DataArray
        Dims ``T C Z Y X``, T of length 1, C the channels.
    """
    names = (row.channel or next(iter(channels), ""), *channels[1:])
    image = _read_once(row.image, row.scene, names, row.image.stat().st_mtime_ns)
    if image.sizes["T"] > 1:
        raise MitolumeError(
            f"{row.image} has {image.sizes['T']} time points; save one as a file of its own"
        )
    stated = dict(image.attrs.get("pixel_size_um", {}))
    if row.pixel_size_um:
        stated |= {"Y": row.pixel_size_um, "X": row.pixel_size_um}
    if row.z_step_um:
        stated["Z"] = row.z_step_um
    return image.assign_attrs(pixel_size_um=stated) if stated else image


def open_fluorescence(row: Field) -> xr.DataArray:
    """Open the fluorescence of the mitochondria's dye, as large as the image of its row.

    Its dims are ``T C Z Y X``, T and C of length 1; the row's pixel size comes before the file's.
    """
    if not isinstance(row.fluorescence, Path):
        return open_image(replace(row, channel=row.fluorescence))
    image = open_image(row)
    dye = open_image(replace(row, image=row.fluorescence, channel="", scene=""))
    own, other = (" x ".join(str(one.sizes[axis]) for axis in "ZYX") for one in (image, dye))
    if own != other:
        raise MitolumeError(
            f"fluorescence {row.fluorescence} is {other} (Z x Y x X), but its image is {own}"
        )
    return dye


def read_row(row: Field, z: int, kind: MaskKind) -> tuple[Image2D, Mask | None]:
    """Read one plane of a checked row, in the file's dtype, and its mask.

    The mask is (Y, X) uint8 of 0, 1, 255, or None where the row is unlabelled; ``kind`` is what its
    file's values mean.
    """
    plane = read_plane(open_image(row), z=z)
    if not row.is_labelled or row.mask is None:
        return plane, None
    mask = open_mask(row.mask, open_image(row))
    return plane, to_mask(_mask_plane(mask, z), _kind_of(row, mask, kind))


def read_proposal(path: Path, z: int) -> Image2D:
    """Read the probabilities that another program gave a plane: (Y, X) float32, 0 to 1."""
    plane = _mask_plane(open_mask(path), z)
    return (plane / _full(plane.dtype)).astype(np.float32)


def _full(kind: np.dtype[Any]) -> int:
    """Return what stands for a probability of 1."""
    return int(np.iinfo(kind).max) if kind.kind == "u" else 1


def _check_proposal(row: Field, path: Path) -> tuple[int, float]:
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
    planes = [_mask_plane(proposal, z) for z in row.planes or ()]
    full = _full(planes[0].dtype)
    least, peak = (float(f([f(p) for p in planes])) for f in (np.min, np.max))
    if full > 65535 or least < 0 or peak > full:
        raise MitolumeError(
            f"proposal {path} holds {least:g} to {peak:g} ({planes[0].dtype}), and probabilities "
            "are 0 to 1, in 8 bit 0 to 255, in 16 bit 0 to 65535"
        )
    return full, peak


def _kind_of(row: Field, mask: xr.DataArray, kind: MaskKind) -> ValuesKind:
    """Return what the values of a row's mask mean; those that were made here are of one kind."""
    return "unsure" if row.label in OWN_MASKS else kind_of(mask, kind)


def _labelled_planes(
    fields: Sequence[Field], kind: MaskKind
) -> Iterator[tuple[str, Image2D, Mask]]:
    """Read labelled planes spread over the table, as `look_closely` takes them."""
    planes = [(row, z) for row in fields if row.is_labelled for z in row.planes or ()]
    for row, z in spread(planes, MOST_PLANES):
        plane, mask = read_row(row, z, kind)
        if row.mask is not None and mask is not None:
            yield f"line {row.line} ({row.mask.name})", plane, mask


def _check_row(
    row: Field, channels: Sequence[str], notices: list[str], odd: dict[str, list[str]]
) -> tuple[Field, dict[int, set[float]], PixelSize, dict[int, str]]:
    """Return the row with its planes, its mask's values by plane, pixel size, hashes by plane."""
    image = open_image(row, channels)
    if channels:
        row = replace(row, channel=row.channel or channels[0])
    if found_by := image.attrs.get("channel_found_by"):
        said = f"no channel is named: took {found_by}; name another in column `channel` if it is"
        notices.append(Note(f"{said} wrong"))
    depth, names_planes = image.sizes["Z"], row.planes is not None
    row = with_planes(row, row.planes if row.planes is not None else range(depth))
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
    found: dict[int, set[float]] = {}
    if row.is_labelled and row.mask:
        mask = open_mask(row.mask, image)
        notices.extend(mask.attrs.get("notices", ()))
        _check_mask_shape(row, image, mask, f"mask {row.mask}")
        name = Path(mask.attrs["source"]).name
        found = {z: values_in(_mask_plane(mask, z), name) for z in row.planes}
        blank = [z for z, values in found.items() if values == {0.0}]
        drawn = labelled_planes(mask, blank) if mask.sizes["Z"] > 1 else row.planes
        left = [z for z in row.planes if z not in drawn]
        if left and len(left) < depth and not names_planes:
            row = with_planes(row, drawn)
            found = {z: found[z] for z in drawn}
            odd[
                "nothing is drawn at other planes, so no outline is learnt from or scored there. "
                "Where they are truly without mitochondria, write all planes into column `planes`, "
                f"such as 0-{depth - 1}"
            ].append(f"mask {name} ({len(drawn)} of {count(depth, 'plane')} labelled)")
        elif blank and len(blank) < len(row.planes or ()):
            where = "empty there and not at others; where nobody drew, leave planes out in column"
            odd[f"{where} `planes`"].append(f"mask {name} at planes {format_planes(blank)}")
    hashed = {}
    every = range(depth) if row.fluorescence and not names_planes else row.planes
    for z in every or ():
        for c, name in enumerate(image["C"].values):
            plane = read_plane(image, z=z, c=c)
            if c == 0:
                pixels = np.ascontiguousarray(plane, np.float64)  # the same in any container
                hashed[z] = hashlib.blake2b(pixels.data, digest_size=16).hexdigest()
            if reason := odd_pixels(plane):
                place = f" plane {z}" * (depth > 1) + f" of {name}" * (c > 0)
                odd[reason].append(row.image.name + place)
                if c == 0:  # blank planes of several images are no copies
                    hashed[z] = f"{row.image} {row.scene} {name} {z}"
    return row, found, plane_pixel_size(image), hashed


def _check_mask_shape(row: Field, image: xr.DataArray, mask: xr.DataArray, name: str) -> None:
    require_fit(mask, image)
    assert row.planes is not None
    if mask.sizes["Z"] == 1 and len(row.planes) > 1:
        raise MitolumeError(
            f"{name} has one plane for {len(row.planes)} planes of the image; "
            "say in column `planes` which plane it belongs to"
        )


def _mask_plane(mask: xr.DataArray, z: int) -> Image2D:
    return read_plane(mask, z=z if mask.sizes["Z"] > 1 else 0)


@lru_cache(maxsize=16)
def _read_once(path: Path, scene: str, channels: tuple[str, ...], modified_ns: int) -> xr.DataArray:
    """Keep the last files open: the rows of one stack follow each other."""
    return levelled(read_channels(path, channels, scene=scene or None))


def _repeated_planes(fields: Sequence[Field], pixels: dict[int, dict[int, str]]) -> list[str]:
    """Name planes that are there twice: in a copy, a link, or another container.

    A plane to train on may be there twice, with its outline and with its dye: see `_is_twin`.
    """
    seen: dict[str, list[Field]] = defaultdict(list)
    faults = []
    for row in fields:
        keys = {pixels[row.line][z]: z for z in row.planes or ()}
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


def _pixel_size_faults(fields: Sequence[Field], sizes: dict[int, PixelSize]) -> list[str]:
    """All pixel sizes or none must be known: otherwise rescaling would be a guess."""
    unknown = [row for row in fields if sizes[row.line] is None]
    if not unknown or len(unknown) == len(fields):
        return []
    return [
        f"line {row.line}: {row.image.name} states no pixel size while others do; "
        "fill in column `pixel_size_um`"
        for row in unknown
    ]
