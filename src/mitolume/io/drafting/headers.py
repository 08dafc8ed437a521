"""Sizes that a file's header states. Reads no pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mitolume.errors import MitolumeError
from mitolume.io.formats import quiet
from mitolume.io.read import read, scenes

MANY_SCENES = (".nd2", ".lif", ".czi", ".ome.zarr", ".zarr")
_PILLOW = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Header:
    """Sizes along Y, X, Z and T."""

    y: int
    x: int
    z: int = 1
    t: int = 1


def read_header(path: Path) -> Header | None:
    """Read what a file's header says of its size.

    Parameters
    ----------
    path
        TIFF, PNG and JPEG headers take about a millisecond; a microscope's own files longer.

    Returns
    -------
    Header or None
        None where it can't be told: `check_table` will say what is wrong with the file.
    """
    name = path.name.lower()
    try:
        if name.endswith(_PILLOW):
            return _pillow(path)
        if name.endswith((".tif", ".tiff")):
            return _tiff(path)
        return _microscope(path)
    except Exception:  # a parser may raise anything on a damaged file
        return None


def is_drawn(path: Path) -> bool:
    """Tell whether a picture has one bit or a colour table, as masks have and images hardly."""
    try:
        if path.name.lower().endswith(_PILLOW):
            from PIL import Image

            with quiet(), Image.open(path) as picture:
                return picture.mode in ("1", "P")
        import tifffile

        with quiet(), tifffile.TiffFile(path) as tif:
            page = tif.pages.first
            return bool(page.bitspersample == 1 or page.photometric == 3)  # 3: palette
    except Exception:  # a parser may raise anything on a damaged file
        return False


def _pillow(path: Path) -> Header:
    from PIL import Image

    with quiet(), Image.open(path) as picture:
        return Header(picture.height, picture.width)


def _tiff(path: Path) -> Header:
    import tifffile

    with quiet(), tifffile.TiffFile(path) as tif:
        series = tif.series[0]
        axes = dict(zip(series.axes, series.shape, strict=True))
    # Pages without a named axis (I, Q) are planes, as `read` takes them.
    depth = next((axes[name] for name in "ZIQ" if name in axes), 1)
    return Header(axes["Y"], axes["X"], depth, axes.get("T", 1))


def _microscope(path: Path) -> Header:
    sizes = read(path, scene=0).sizes
    return Header(sizes["Y"], sizes["X"], sizes["Z"], sizes["T"])


def list_scenes(path: Path) -> list[str]:
    """Return what tells the scenes of a file apart: names, or numbers where names don't."""
    try:
        names = scenes(path)
    except MitolumeError:  # `check_table` will say what is wrong with the file
        return []
    plain = len(set(names)) == len(names) and all(name and name == name.strip() for name in names)
    return names if plain else [str(number) for number in range(len(names))]
