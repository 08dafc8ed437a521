"""Whether to believe the pixel size that a file states. Reads no pixels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import xarray as xr

from mitolume.io.readers import CREDIBLE_UM as CREDIBLE_UM
from mitolume.io.readers import Stated
from mitolume.text import count

# The z step of a stack may be larger than any pixel; only its sign and unit can be wrong.
_LARGEST_Z_STEP_UM = 1000.0
# What light microscopes have: a wrong unit is guessed only where the right one lands here.
_LIKELY_UM = (0.02, 2.0)


def plane_pixel_size(image: xr.DataArray) -> tuple[float, float] | None:
    """Return the pixel size along Y and X in µm, or None where either is unknown."""
    size = image.attrs.get("pixel_size_um", {})
    return (size["Y"], size["X"]) if "Y" in size and "X" in size else None


def believed_pixel_size(said: Stated) -> tuple[dict[str, float], str]:
    """Return what is believed of a statement, and why the rest is not.

    Returns
    -------
    dict, str
        ``Z Y X`` to micrometres, only for the axes that are believed; a reason, or "".
    """
    if said.fault:
        return {}, f"has metadata that can't be read ({said.fault}), so its pixel size is unknown"
    low, high = CREDIBLE_UM
    believed = {
        axis: size
        for axis, size in said.size_um.items()
        if low <= size <= (_LARGEST_Z_STEP_UM if axis == "Z" else high)
    }
    doubtful = {axis: said.size_um[axis] for axis in "YX" if axis in said.size_um.keys() - believed}
    if doubtful:
        if not {"Y", "X"} & believed.keys():  # in this unit, the z-step is as doubtful
            believed = {}
        sizes = ", ".join(f"{axis} {size:g} µm" for axis, size in doubtful.items())
        reason = f"states {sizes}, which is not believed ({low} to {high:g} µm are)"
        first = next(iter(doubtful.values()))
        if _is_for_screens(first):
            reason += f": {25_400 / first:.3g} dots per inch are a default of programs that export"
        elif not said.coarse and (meant := guess_unit(first, *_LIKELY_UM)):
            reason += f"; probably {meant[0]}, so {meant[1]:.3g} µm: --pixel-size {meant[1]:.3g}"
        return believed, reason
    known = [axis for axis in "YX" if axis in believed]
    if len(known) == 1:
        return believed, f"states a pixel size along {known[0]} only"
    if not known:
        numbers = {f"{said.without_unit[axis]:g}" for axis in "YX" if axis in said.without_unit}
        bare = f" (the number {' and '.join(sorted(numbers))}, but not of what)"
        return believed, "states no pixel size with a length unit" + (bare if numbers else "")
    return believed, ""


def odd_pixel_size(size: Mapping[str, float]) -> list[str]:
    """Say what is odd about a pixel size that is believed, ``Z Y X`` to µm."""
    if not {"Y", "X"} <= size.keys():
        return []
    if size["Y"] == size["X"] == 1:
        return ["a pixel size of exactly 1 µm is often written by programs that know none"]
    if not 0.99 < size["Y"] / size["X"] < 1.01:
        return [f"pixels are not square (Y {size['Y']:.4g} µm, X {size['X']:.4g} µm)"]
    step = size.get("Z", size["Y"])
    if not 0.1 < step / size["Y"] < 100:
        return [
            f"planes are {step:.4g} µm apart and pixels {size['Y']:.4g} µm: is the z-step in "
            "another unit? Volumes and lengths would be wrong; say it with --z-step"
        ]
    return []


def unlike_steps(steps_um: Iterable[float]) -> str:
    """Say that stacks have several z-steps, in µm, each one's; "" where all agree within 1 %.

    Examples
    --------
    >>> unlike_steps([0.5, 1, 0.502]).partition(":")[0]
    'z-steps are not the same in all stacks (0.5 µm in 2 images, 1 µm in 1 image)'
    """
    found: dict[float, int] = {}
    for step in sorted(steps_um):
        near = next((one for one in found if step <= 1.01 * one), step)
        found[near] = found.get(near, 0) + 1
    if len(found) < 2:
        return ""
    told = ", ".join(f"{step:.3g} µm in {count(n, 'image')}" for step, n in found.items())
    return (
        f"z-steps are not the same in all stacks ({told}): lengths, surfaces and volumes may "
        "differ by them alone; compare images of one z-step"
    )


def _is_for_screens(size_um: float) -> bool:
    """Tell whether a size is that of whole dots per inch, as screens and printers have them."""
    dots = 25_400 / size_um if size_um > 0 else 0
    # 254 are 100 µm, which may be 100 nm with a wrong unit.
    return abs(dots - round(dots)) < 0.02 and 12 < dots < 2500 and round(dots) != 254


def guess_unit(size: float, low: float, high: float) -> tuple[str, float] | None:
    """Guess the unit of a length that must be `low` to `high` µm; return it and the µm."""
    for unit, factor in (("nanometres", 1e-3), ("millimetres", 1e3), ("metres", 1e6)):
        if low <= size * factor <= high:
            return unit, size * factor
    return None
