"""What a person should know of a file before using it. Changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mitolume.io.pixel_size import stated_pixel_size
from mitolume.io.read import read, read_plane, scenes


def inspect(path: str | Path) -> str:
    """Describe an image file.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    str
        Lines of text: dims, channels, pixel size, scenes, type, range, warnings.
    """
    path = Path(path)
    names = scenes(path)
    image = read(path, scene=0)
    shape = ", ".join(f"{axis} {size}" for axis, size in image.sizes.items())
    channels = ", ".join(f"{i} = {name}" for i, name in enumerate(image["C"].values))
    size, doubt = stated_pixel_size(path)
    sizes = ", ".join(f"{axis} {size[axis]:g} µm" for axis in "ZYX" if axis in size) or "unknown"
    lines = [str(path), f"  dims        {shape}", f"  channels    {channels}",
             f"  pixel size  {sizes}", f"  scenes      {', '.join(names)}",
             f"  type        {image.dtype}"]  # fmt: skip
    warnings = [f"the file {doubt}; say it with --pixel-size where it matters"] if doubt else []
    for c, name in enumerate(image["C"].values):
        plane = read_plane(image, c=c, z=image.sizes["Z"] // 2)
        low, high = plane.min(), plane.max()
        lines.append(f"  range       {low:g} to {high:g} ({name}, middle plane)")
        if low == high:
            warnings.append(f"channel {name} is one flat grey")
        elif plane.dtype.kind == "u" and (plane == np.iinfo(plane.dtype).max).mean() > 0.01:
            warnings.append(f"channel {name} is saturated in more than 1 % of the pixels")
    if [str(name) for name in image["C"].values] == ["red", "green", "blue"]:
        warnings.append("this is a colour picture, probably a screenshot, not raw data")
    return "\n".join(lines + [f"  warning     {warning}" for warning in warnings])
