"""Images, tables and texts to files, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mitolume.errors import MitolumeError, shorten

if TYPE_CHECKING:
    import pandas as pd

_PART = ".part-"  # how names of files begin that are still being written


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Give a temporary name to write to; rename it to `path` when all went well.

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
        The place can't be written to.
    """
    path = Path(path)
    temporary = path.with_name(f"{_PART}{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise MitolumeError(f"{path} can't be written: {shorten(error)}") from error
    finally:
        with suppress(OSError):  # a name too long can't be looked for either
            if temporary.is_dir():
                shutil.rmtree(temporary)
            elif temporary.exists():
                temporary.unlink()


def remove_parts(folder: Path) -> None:
    """Remove what a killed process had half written below a folder."""
    for part in list(folder.rglob(f"{_PART}*")):
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink()


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
    pixels = np.ascontiguousarray(image.values)
    # Named after the content, not the time, so that the same image is the same file.
    content = hashlib.sha256(repr((metadata, pixels.shape, pixels.dtype.str)).encode())
    content.update(pixels.data)
    metadata["UUID"] = f"urn:uuid:{uuid.UUID(bytes=content.digest()[:16])}"
    options.setdefault("photometric", "minisblack")
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
        uint8, dims out of ``T Z Y X``; ``attrs["pixel_size_um"]`` where known.
    """
    colours = np.zeros((3, 256), np.uint16)
    colours[:, 1:] = 65_535
    colours[:, 255] = 32_768
    write_image(
        path, mask.astype(np.uint8), photometric="palette", colormap=colours, names=["mask"]
    )


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


def write_table(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table; the ending of the file says how.

    Parameters
    ----------
    path
        Ends in ``.csv`` or ``.parquet``. Parquet keeps the types of columns, also of an empty
        table; CSV is UTF-8 with a header, NaN is an empty cell.
    table
        Its index is not written.

    Raises
    ------
    MitolumeError
        The ending is another, or the place can't be written to.
    """
    ending = Path(path).suffix.lower()
    if ending not in (".csv", ".parquet"):
        raise MitolumeError(
            f"{path} ends in {ending or 'nothing'}, but a table is written as .csv or .parquet: "
            "name the file so"
        )
    with atomic(path) as temporary:
        if ending == ".csv":
            table.to_csv(temporary, index=False, encoding="utf-8")
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
