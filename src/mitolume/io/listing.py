"""Which image files a call means, and what their results are called. Reads no pixels."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from mitolume.errors import MitolumeError, some_names
from mitolume.io.channels import channel_in_name
from mitolume.io.formats import bare_name, files_of, is_folder, reader_of, whole_images
from mitolume.io.mask_files import says_mask
from mitolume.io.read import scenes
from mitolume.io.write import is_result
from mitolume.text import quoted

# How names of results end that are no images: of `predict`, `denoise` and `focus`.
_RESULTS = ("_probability", "_overlay", "_check", "_denoising", "_focus")
RUN_RECORD = "run.json"  # by this file a run folder is known, whose masks are results
_MOST_BELOW = 3  # folders that are named; a share of a laboratory has thousands
_MOST_IN_A_TIFF = 2**28  # pixels of a result, above which it is written piece by piece


def image_files(
    paths: Sequence[Path], faults: list[str], *, every: bool = False
) -> tuple[list[Path], list[str]]:
    """List image files; a folder stands for the images in it.

    Each file comes once, those of a folder in natural order (``f2`` before ``f10``), and an image
    in several files once. Of a folder, results and masks (see `says_mask`) are not listed, except
    with ``every``. ``faults`` gets a sentence for each folder without images. Also returned are
    sentences that say what was left out.
    """
    found: dict[str, Path] = {}
    notices = []
    for path in paths:
        files, left_out = images_in(path), list[Path]()
        if is_folder(path) and not every:
            files, left_out = _sorted_out(files)
        if files and left_out:
            notices.append(
                f"{path}: {len(files) + len(left_out)} image files found, {len(files)} used; left "
                f"out, being masks or results: {some_names(left_out)}"
            )
        walk = _with_images(path) if is_folder(path) else iter(())
        below = sorted(islice(walk, _MOST_BELOW))
        named = some_names(below) + " and perhaps others" * (len(below) == _MOST_BELOW)
        if files and below:
            notices.append(
                f"{path}: images in the folders below it are left out ({named}); name these "
                "folders, or, to predict, list all images in a table: mitolume fields"
            )
        if not files:
            here = "is a folder without image files"
            if left_out:
                here = f"holds only masks or results ({some_names(left_out)})"
            there = f", such as {' '.join(map(quoted, below))}" if below else ""
            faults.append(f"{path} {here}; name a folder that has images{there}")
        for file in files:
            found.setdefault(os.path.abspath(file), file)
    whole, said = whole_images(found.values())
    return whole, notices + said


def _sorted_out(listed: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Part the images of a folder into those to work on, and masks and results."""
    files: list[Path] = []
    left_out: list[Path] = []
    names = {bare_name(path) for path in listed}
    for path in listed:
        name = bare_name(path)
        noisy = name.removesuffix("_denoised")  # if that is here, too
        made = name.endswith(_RESULTS) or (noisy != name and noisy in names)
        (left_out if made or is_result(path) or says_mask(path) else files).append(path)
    return files, left_out


def images_in(path: Path) -> list[Path]:
    """List the images in a folder, masks and results too; a file is its own list."""
    return [one for one in files_of(path) if _is_image(one)] if is_folder(path) else [path]


def _with_images(folder: Path, levels: int = 3) -> Iterator[Path]:
    """Yield the folders with images some levels below a folder, the uppermost of each branch.

    Those that may not be read are passed over: this is for a note only.
    """
    for path in folder.iterdir() if levels else ():
        hidden = path.name.startswith(".") or path.is_symlink()  # a link may lead back up
        with suppress(OSError):
            if is_folder(path) and not hidden:
                here = bool(_sorted_out(images_in(path))[0])
                yield from (path,) if here else _with_images(path, levels - 1)


def _is_image(path: Path) -> bool:
    try:
        return (reader_of(path) == "ome_zarr") == path.is_dir()
    except MitolumeError:
        return False


def is_other_channel(file: Path, files: Sequence[Path], first: str) -> bool:
    """Tell whether a file is named like one of the others but for its channel.

    ``first`` is what the other is named after: a model's first channel, or the dye's.
    """
    for other in files:
        named = channel_in_name(other, first)
        if named and other != file and file.parent == other.parent:
            start, end = other.name[: named.start()], other.name[named.end() :]
            own = file.name.removeprefix(start).removesuffix(end)
            if file.name == start + own + end and re.fullmatch(r"[^\W\d][\w -]*", own):
                return True
    return False


def named_scenes(file: Path, scene: str | None = None) -> list[tuple[str | None, str]]:
    """Return the scenes of a file that are meant, and how the results of each are named."""
    if scene != "all":
        return [(scene, bare_name(file))]
    names = scenes(file)
    if len(names) == 1:
        return [(None, bare_name(file))]
    plain = [scene_name(file, name) for name in names]
    if len({name.casefold() for name in plain}) < len(plain):
        plain = [scene_name(file, f"{number}_{name}") for number, name in enumerate(names)]
    return list(zip(names, plain, strict=True))


def scene_name(file: Path, scene: str) -> str:
    """Return how results of a scene are named; wells of a plate (``A/1/0``) are no folders.

    Examples
    --------
    >>> scene_name(Path("plate.ome.zarr"), "A/1/0"), scene_name(Path("a.tif"), "")
    ('plate_A_1_0', 'a')
    """
    return "_".join(filter(None, (bare_name(file), re.sub(r"[^\w.-]+", "_", scene))))


def result_ending(file: Path, n_pixels: int) -> str:
    """Return how the result of an image ends: OME-Zarr for OME-Zarr and for very large images."""
    streamed = reader_of(file) == "ome_zarr" or n_pixels > _MOST_IN_A_TIFF
    return ".ome.zarr" if streamed else ".ome.tif"
