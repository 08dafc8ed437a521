"""Images, tables and texts to files: whole or not at all, and never over a file of someone else."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from mitolume.errors import MitolumeError, disk_fault, extra, in_words
from mitolume.io.formats import sha256
from mitolume.io.h5ad import write_h5ad
from mitolume.io.pixel_size import plane_pixel_size

if TYPE_CHECKING:
    import pandas as pd

TABLES = (".csv", ".parquet", ".h5ad")
_FILES = (".csv", ".json", ".png", ".tif", ".tiff", ".html", ".yaml")
_PART = ".part-"  # how names of files begin that are still being written
_RECORD = ".mitolume"  # in each folder with results: their hashes and names, a line each
# White, green, magenta, cyan, yellow: red, green, blue and opacity as one signed number.
_COLOURS = [-1, 0x00FF00FF, 0xFF00FFFF - 2**32, 0x00FFFFFF, 0xFFFF00FF - 2**32]
_owned: list[Path] = []  # folders of this program alone, as those of runs are
_known: dict[Path, tuple[int, dict[str, set[str]]]] = {}  # of records: bytes read, hashes by name
_RESULT = "result:"  # before the hash of what is no input, see `making_results`
_mark: ContextVar[str] = ContextVar("mark", default="")


def require_folder(folder: Path) -> None:
    """Refuse a folder for results that can't be made or written to, before there is any work.

    Raises
    ------
    MitolumeError
        It may not be written to, a file stands in the way, or it is named as files are.
    """
    if folder.suffix.lower() in _FILES and not folder.exists():
        raise MitolumeError(f"--out {folder} is to be a folder, but is named as a file")
    place = folder.absolute()
    there = next((path for path in (place, *place.parents) if os.path.lexists(path)), place)
    try:
        os.rmdir(tempfile.mkdtemp(prefix=_PART, dir=there))
    except OSError as error:
        why = f"{there} is a file" if there.is_file() else in_words(error)
        raise MitolumeError(f"{folder} can't be written: {why}; choose another place") from error


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Give a temporary name to write to; rename it to `path` when all went well.

    This is how every result gets its name. What stands there is replaced only where the program
    wrote it (`is_ours`), or in a folder that is its own (`owning`).

    Parameters
    ----------
    path
        The file, or the new folder, to be written. Its parent is made where it is missing.

    Yields
    ------
    pathlib.Path
        A name in the same folder with the same ending, so that the rename is atomic.

    Raises
    ------
    MitolumeError
        The place can't be written to, or someone else's file stands there.
    """
    path = Path(path)
    temporary, old = (path.with_name(f"{_PART}{os.getpid()}.{x}{path.name}") for x in ("", "old."))
    place = path.absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if not any(folder in place.parents for folder in _owned):
            if os.path.lexists(path):
                require_ours(path)
            _note(path, sha256(temporary))  # before the rename: a kill between them does no harm
        if path.is_dir() and temporary.is_dir():
            path.rename(old)  # a folder can't be renamed onto one that holds files
        os.replace(temporary, path)
    except OSError as error:
        said = disk_fault(error, path) or f"{path} can't be written: {in_words(error)}"
        raise MitolumeError(said) from error
    finally:
        with suppress(OSError):  # a name too long can't be looked for either
            if old.exists() and not path.exists():
                old.rename(path)
            for left in (temporary, old):
                _remove(left)


@contextmanager
def owning(folder: Path) -> Iterator[None]:
    """Take a folder for the program's own while it works there: all names in it are its."""
    _owned.append(folder.absolute())
    try:
        yield
    finally:
        _owned.remove(folder.absolute())


@contextmanager
def making_results() -> Iterator[None]:
    """Note what is written meanwhile as made of images or masks: it is neither, see `is_result`."""
    before = _mark.set(_RESULT)
    try:
        yield
    finally:
        _mark.reset(before)


def is_ours(path: Path) -> bool:
    """Tell whether a file, or the folder of an OME-Zarr, is still as the program wrote it."""
    known = _hashes_of(path)
    return bool(known) and not known.isdisjoint((digest := sha256(path), _RESULT + digest))


def is_result(path: Path) -> bool:
    """Tell whether a file is still a prediction, crop, picture or the like of this program.

    Folders of images and outlines may hold such files, and must not be taken to mean them. One that
    someone corrected since is theirs.
    """
    known = _hashes_of(path)
    made = any(one.startswith(_RESULT) for one in known)
    return made and _RESULT + (digest := sha256(path)) in known and digest not in known


def require_ours(path: Path) -> None:
    """Refuse to replace a file that someone else wrote or changed."""
    if not is_ours(path):
        raise MitolumeError(
            f"{path} was not written by mitolume, or was changed since, and is not replaced; move "
            "it away, or write elsewhere"
        )


def _hashes_of(path: Path) -> set[str]:
    """Return the hashes of all that was written under the name of a path in its folder."""
    record = path.absolute().parent / _RECORD
    size, found = _known.get(record, (0, dict[str, set[str]]()))
    try:
        now = record.stat().st_size
        if now < size:
            size, found = 0, {}
        if now > size:
            with record.open("rb") as file:
                file.seek(size)
                added = file.read(now - size)
            for line in added.decode(errors="replace").splitlines():
                digest, _, name = line.partition(" ")
                found.setdefault(name, set()).add(digest)
    except OSError:  # there is none
        now, found = 0, {}
    _known[record] = now, found
    return found.get(json.dumps(path.name), set())


def _note(path: Path, digest: str) -> None:
    if (digest := _mark.get() + digest) not in _hashes_of(path):
        with (path.parent / _RECORD).open("ab") as file:
            # a line that a full disk cut ends here
            file.write(f"\n{digest} {json.dumps(path.name)}".encode())


def remove_parts(folder: Path, starts: tuple[str, ...] = ()) -> None:
    """Remove what killed processes had half written below a folder.

    With ``starts``, only in the folder itself, and only of files whose names start so: others may
    be at work there.
    """
    for part in list(folder.glob(f"{_PART}*") if starts else folder.rglob(f"{_PART}*")):
        ours = re.fullmatch(rf"{_PART}(\d+\.(old\.)?(?P<name>.+)|\w{{8}})", part.name)
        if ours and (not starts or (ours["name"] or "").startswith(starts)):
            _remove(part)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file (UTF-8), whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_image(
    path: str | Path, image: xr.DataArray, *, names: list[str] | None = None, **options: Any
) -> None:
    """Write an image as OME-TIFF, with axes, channel names and pixel size.

    Parameters
    ----------
    path
        Must end in ``.ome.tif``.
    image
        Dims out of ``T C Z Y X``; ``attrs["pixel_size_um"]`` where known.
    names
        The channels' names; by default those of the coordinate ``C``.
    options
        Further arguments of `tifffile.imwrite`.
    """
    import tifffile

    metadata: dict[str, Any] = {"axes": "".join(str(dim) for dim in image.dims)}
    for axis, size in image.attrs.get("pixel_size_um", {}).items():
        metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "µm"}
    if names is None and "C" in image.coords:
        names = [str(name) for name in image["C"].values]
    if names:
        metadata["Channel"] = {"Name": names}
        if len(names) > 1:
            metadata["Channel"]["Color"] = [_COLOURS[i % len(_COLOURS)] for i in range(len(names))]
    pixels = np.ascontiguousarray(image.values)
    # Named after the content, not the time, so that the same image is the same file.
    content = hashlib.sha256(repr((metadata, pixels.shape, pixels.dtype.str)).encode())
    content.update(pixels.data)
    metadata["UUID"] = f"urn:uuid:{uuid.UUID(bytes=content.digest()[:16])}"
    options.setdefault("photometric", "minisblack")
    if plane := plane_pixel_size(image):
        # Fiji's File > Open knows no OME metadata; of pixels per cm it makes µm.
        options.setdefault("resolution", tuple(1e4 / size for size in plane[::-1]))
        options.setdefault("resolutionunit", "CENTIMETER")
    with atomic(path) as temporary:
        tifffile.imwrite(
            temporary,
            pixels,
            ome=True,
            metadata=metadata,
            compression="zlib",
            # Planes above 4 GiB need BigTIFF; below, more programs read the classic kind.
            bigtiff=image.nbytes > 2**31,
            **options,
        )


def write_mask(path: str | Path, mask: xr.DataArray) -> None:
    """Write a mask as OME-TIFF with values 0, 1 and 255.

    A colour table shows mitochondria white and unsure pixels grey, so that the file is not black
    in a viewer although its values are 0 and 1.

    Parameters
    ----------
    path
        Must end in ``.ome.tif``.
    mask
        uint8, dims out of ``T Z Y X``; ``attrs["pixel_size_um"]`` where known. A stack of one plane
        becomes a plane.
    """
    if mask.sizes.get("Z") == 1:
        mask = mask.isel(Z=0)
    colours = np.zeros((3, 256), np.uint16)
    colours[:, 1:] = 65_535
    colours[:, 255] = 32_768
    write_image(
        path, mask.astype(np.uint8), photometric="palette", colormap=colours, names=["mask"]
    )


def write_masks(path: Path, planes: ArrayLike, image: xr.DataArray) -> None:
    """Write masks of planes, (Y, X) each, as one stack with the pixel size of their image."""
    size = image.attrs.get("pixel_size_um", {})
    stack = xr.DataArray(np.asarray(planes), dims=tuple("ZYX"), attrs={"pixel_size_um": size})
    write_mask(path, stack)


def write_labels(path: str | Path, labels: xr.DataArray) -> None:
    """Write a label image as OME-TIFF: 0 is background, every object has its number.

    Parameters
    ----------
    path
        Must end in ``.ome.tif``.
    labels
        Whole numbers from 0, dims out of ``T Z Y X``; ``attrs["pixel_size_um"]`` where known.
        Written as uint16, or as uint32 where a number is above 65,535.
    """
    most = int(labels.max()) if labels.size else 0
    dtype = np.uint16 if most <= np.iinfo(np.uint16).max else np.uint32
    write_image(path, labels.astype(dtype), names=["labels"])


def table_ending(path: str | Path) -> str:
    """Return how a table is written, or refuse another ending, or one that needs a library."""
    ending = Path(path).suffix.lower()
    if ending not in TABLES:
        raise MitolumeError(f"{path} is a table: its name must end in {', '.join(TABLES)}")
    if ending == ".h5ad":
        extra(path, "h5py", "h5ad")
    return ending


def write_table(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table; the ending of the file says how.

    Parameters
    ----------
    path
        Ends in one of `TABLES`. Parquet keeps the types of columns, also of an empty table; CSV is
        UTF-8 with a header, NaN is an empty cell; for ``.h5ad`` see `write_h5ad`.
    table
        Its index is not written.

    Raises
    ------
    MitolumeError
        The ending is another, or the place can't be written to.
    """
    ending = table_ending(path)
    with atomic(path) as temporary:
        if ending == ".csv":
            table.to_csv(temporary, index=False, encoding="utf-8")
        elif ending == ".h5ad":
            write_h5ad(temporary, table)
        else:
            table.to_parquet(temporary, index=False)


def below_each_other(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Put tables with different columns below each other.

    Of empty ones only the columns of the first count, and those only where all are empty. Whole
    numbers that some tables lack stay whole numbers (``Int64``), and are missing there.
    """
    import pandas as pd

    filled = [table for table in tables if len(table)] or list(tables[:1])
    joined = pd.concat(filled, ignore_index=True)
    for name in joined:
        own = [table[name].dtype.kind for table in filled if name in table]
        if joined[name].dtype.kind == "f" and set(own) <= {"i", "u"}:
            joined[name] = joined[name].astype("Int64")
    return joined
