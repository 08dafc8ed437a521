"""Which image files a call means: folders in natural order, scenes named. Reads no pixels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from mitolume.errors import MitolumeError
from mitolume.io.formats import bare_name, natural_key, reader_of
from mitolume.io.read import scenes

_OURS = ("_mask", "_probability", "_overlay")  # how names of results end


def image_files(
    paths: Sequence[Path], faults: list[str], ours: tuple[str, ...] = _OURS
) -> Iterator[Path]:
    """Put the images in a folder, in natural order and without our results, in its place.

    Parameters
    ----------
    paths
        Files and folders.
    faults
        Gets a sentence for each folder without images.
    ours
        How names of results end.
    """
    for path in paths:
        if not path.is_dir() or _is_image(path):
            yield path
            continue
        found = [p for p in path.iterdir() if _is_image(p) and not p.name.startswith(".")]
        found = [p for p in found if not bare_name(p).endswith(ours)]
        if not found:
            faults.append(f"{path} is a folder without image files; name one that has some")
        yield from sorted(found, key=lambda path: natural_key(path.name))


def _is_image(path: Path) -> bool:
    try:
        return (reader_of(path) == "ome_zarr") == path.is_dir()
    except MitolumeError:
        return False


def named_scenes(file: Path, scene: str | None) -> list[tuple[str | None, str]]:
    """Return the scenes of a file to predict, and how the results of each are named."""
    if scene != "all":
        return [(scene, bare_name(file))]
    names = scenes(file)
    if len(names) == 1:
        return [(None, bare_name(file))]
    plain = [re.sub(r"[^\w.-]+", "_", name) for name in names]
    if len({name.casefold() for name in plain}) < len(plain):
        plain = [f"{number}_{name}" for number, name in enumerate(plain)]
    return [(own, f"{bare_name(file)}_{name}") for own, name in zip(names, plain, strict=True)]
