"""PNG and JPEG. Knows no other format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mitolume.errors import MitolumeError
from mitolume.io.readers import Opened, Stated, chunked

_RESOLVED = ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV")  # palettes and inks


def open_file(path: Path) -> Opened:
    """Open a picture, which is one chunk; a palette and inks are resolved to grey or colours."""
    return Opened([path.stem], lambda scene: _array(path))


def stated(path: Path, scene: int) -> Stated:
    """Return nothing: a picture's dots per inch are not a pixel size."""
    return Stated()


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, str]]:
    """Open a picture, and say to which mode it is resolved."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            stored = str(image.tile[0][3]) if image.tile else ""
            if ";16" in stored and not image.mode.startswith("I"):
                raise MitolumeError(f"{path} has colours of 16 bits; save it in grey, or as TIFF")
            frames = getattr(image, "n_frames", 1) if image.format == "PNG" else 1
            if frames > 1:  # of a JPEG, the others are previews
                raise MitolumeError(f"{path} has {frames} frames; save it as TIFF")
            clear = "transparency" in image.info or image.mode == "PA"
            mode = ("RGBA" if clear else "RGB") if image.mode in _RESOLVED else image.mode
            yield image, mode
    except Image.DecompressionBombError as error:
        raise MitolumeError(f"{path} is too large for its format; save it as TIFF") from error


def _array(path: Path) -> xr.DataArray:
    from PIL import Image

    with _opened(path) as (image, mode):
        one = np.asarray(Image.new(mode, (1, 1)))
        sizes = dict(zip("YXS", (*image.size[::-1], *one.shape[2:]), strict=False))

    def load(box: dict[str, slice]) -> Any:
        with _opened(path) as (image, _):
            image.verify()  # the sums of a PNG, which its decoder doesn't look at
        with _opened(path) as (image, mode):
            return np.asarray(image if mode == image.mode else image.convert(mode))

    return chunked(load, sizes, sizes, one.dtype)
