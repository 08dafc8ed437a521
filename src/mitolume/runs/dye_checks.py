"""Whether dyes can be learnt from: dimmed, of another structure, saturated, or shifted.

What a dye lacks altogether, such as cells that took up none among others that did, is not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mitolume.analysis.dye_labels import NO_DYE
from mitolume.errors import Note, some_names
from mitolume.io.alignment import Floats, depth_of_dye, fit_of_dye, shift_of
from mitolume.io.fields import Field, format_planes, with_planes
from mitolume.io.masks import UNSURE
from mitolume.io.pixel_size import plane_pixel_size
from mitolume.io.read import read, read_plane
from mitolume.io.rows import open_fluorescence, open_image, read_row
from mitolume.io.split import spread
from mitolume.io.write import write_mask
from mitolume.text import count, of_scene

WEAKER = 3.0  # times less contrast than the brighter images have, which is then named
HARDLY = 8.0  # times the noise, below which a dimmed dye has lost half of its mitochondria
MOST_FOREGROUND = 0.3  # share of a plane; mitochondria of a spread cell cover a fifth at most
MOST_BACKGROUND = 0.55  # of the level; widefield images of mitochondria had 0.5 at most
MOST_BLED = 0.1  # correlation; of good dyes, at most 0.03
MOST_SATURATED = 0.001  # share of a plane's pixels: about a hundredth of its mitochondria
MOST_APART_UM = 0.2  # half the width of a mitochondrion: the mask lies beside it
BETTER = 3.5  # standard deviations; masks that lie right gained at most 3.0 elsewhere (H9c2 cells)
MOST_SHIFTED_UM = 1.5  # three widths of a mitochondrion: beyond, channels show different places
REACH_UM, MOST_REACH = 3.0, 40  # how far a shift is looked for, in µm and in pixels at most
SURE_TOGETHER = 6.0  # standard deviations; H9c2 cells of one movie reached 5.1 at a wrong place
FEWEST_TOLD = 3  # images of a batch that tell together what they don't tell alone
MOST_OWN, MOST_DEEP = 3, 8  # planes of an image that tell its shift, images that tell one along z
THINNEST_UM, NEAR_UM = 3.0, 2.5  # the least depth that tells it, and how much is looked at
APART_Z_UM = 0.3  # single good fields lay within 0.33 (simulated), medians nearer


@dataclass(frozen=True)
class Check:
    """A fault of a dye: which planes have it, what is said of them, and whether they are used."""

    finds: Callable[[pd.DataFrame], pd.Series]
    text: str
    unusable: bool = False


def _is_dimmed(quality: pd.DataFrame) -> pd.Series:
    """Tell planes that are darker than others, and noisier, so that it is not the detector's gain.

    Others are the brighter ones, since half of the cells may have lost their potential.
    """
    dyed = quality[quality["has_dye"]]
    usual = dyed[["level", "signal_to_noise"]].quantile(0.75)
    darker = quality["level"] < usual["level"] / WEAKER
    dimmed: pd.Series = darker & (quality["signal_to_noise"] < 0.6 * usual["signal_to_noise"])
    return dimmed


def _of_stacks(quality: pd.DataFrame) -> pd.DataFrame:
    """Give planes the contrast of their stack's brighter ones: its ends show hardly anything."""
    own = quality.groupby("mask")[["level", "signal_to_noise"]].transform("quantile", 0.75)
    return quality.assign(**own)


def _shift(quality: pd.DataFrame) -> pd.Series:
    shift: pd.Series = (quality["shift_y_um"] ** 2 + quality["shift_x_um"] ** 2) ** 0.5
    return shift.round(6)


CHECKS = (
    Check(lambda q: ~q["has_dye"], f"there is no dye to make a mask of (signal below {NO_DYE:g} x "
          "noise)", unusable=True),
    Check(lambda q: _is_dimmed(q) & (q["signal_to_noise"] < HARDLY),
          "the dye is dimmed beside other images, and hardly above the noise", unusable=True),
    Check(lambda q: (q["signal_to_noise"] >= HARDLY) & (q["background"] > MOST_BACKGROUND),
          "what the dye's channel shows is wider than mitochondria: is it their channel?",
          unusable=True),
    Check(lambda q: _shift(q) > MOST_SHIFTED_UM,
          f"the dye lies more than {MOST_SHIFTED_UM:g} µm from what transmitted light shows: align "
          "the channels, or record anew", unusable=True),
    Check(lambda q: _shift(q).between(MOST_APART_UM, MOST_SHIFTED_UM) & ~q["moved"],
          f"the dye lies {MOST_APART_UM:g} µm or more from what transmitted light shows: --set "
          "dye.align=true moves the mask (label: --align)", unusable=True),
    Check(lambda q: q["shift_z_um"].abs() >= APART_Z_UM,
          f"planes of the dye show what lies {APART_Z_UM:g} µm or more above or below those of "
          "transmitted light: are both channels recorded at the same heights?"),
    Check(lambda q: _is_dimmed(_of_stacks(q)) & (q["signal_to_noise"] >= HARDLY),
          f"the dye is {WEAKER:g} times weaker than usual or more: if these cells lost their "
          "potential, outline some by hand"),
    Check(lambda q: q["foreground"] > MOST_FOREGROUND,
          f"the dye marks more than {MOST_FOREGROUND:.0%} of the image: is this the channel of "
          "mitochondria?"),
    Check(lambda q: q["bleed_through"] > MOST_BLED,
          "the dye's channel also shows another channel of the file, away from mitochondria: "
          "unless that is a dye of theirs, look at the masks"),
    Check(lambda q: q["saturated"] > MOST_SATURATED,
          f"more than {MOST_SATURATED:.1%} of the pixels are saturated, and structures with such "
          "pixels are unsure: record it darker"),
)  # fmt: skip


def judge(rows: Sequence[Field], quality: pd.DataFrame) -> tuple[list[Field], list[str]]:
    """Say what is wrong with dyes beside each other, and leave out the planes that are unusable.

    Parameters
    ----------
    rows
        With masks that were made from the dye.
    quality
        A row for each plane, as `mitolume.runs.dye.label_row` gives them and `measure_shifts` fills
        them in; gets the columns ``used`` and ``warning``.

    Returns
    -------
    rows, notices
        The rows with the planes that are used, which may be none; how many there are, how many
        are used and why not all; and a sentence for each fault of those that are used.
    """
    quality["used"], quality["warning"] = True, ""
    reasons, said = [], []
    for check in CHECKS:
        # What is left out is named by the first reason alone.
        found = check.finds(quality) & quality["used"]
        if not found.any():
            continue
        quality.loc[found, "used"] = not check.unusable
        before = quality.loc[found, "warning"]
        quality.loc[found, "warning"] = [f"{one}; {check.text}".lstrip("; ") for one in before]
        names = _names(quality, found)
        if check.unusable:
            reasons.append(f"{check.text} in {names}")
        else:
            said.append(f"{names}: {check.text}")
    used = quality[quality["used"]].groupby("mask")["plane"].agg(list).to_dict()
    total = f"{count(len(quality), 'plane')} with the dye's channel"
    summary: str = Note(f"{total}, {int(quality['used'].sum())} used")
    if reasons:
        summary = f"{summary}, because {'; '.join(reasons)}"
    if moved := int(quality["moved"].sum()):
        said.append(Note(f"masks of {count(moved, 'plane')} moved back onto transmitted light"))
    return [with_planes(row, used.get(mask_name(row), [])) for row in rows], [summary, *said]


def _names(quality: pd.DataFrame, found: pd.Series) -> str:
    """Name images: by some of their planes, and where names recur by their specimens, too."""
    n_masks, n_planes = quality.groupby("image")["mask"].nunique(), quality["mask"].value_counts()
    named = []
    for mask, own in quality[found].groupby("mask", sort=False):
        first = own.iloc[0].dropna()
        name = of_scene(first["image"], first.get("scene", ""))
        name += f" of {first.get('specimen', mask)}" * bool(n_masks[first["image"]] > 1)
        if len(own) < n_planes[mask]:
            name += f" at plane{'s' * (len(own) > 1)} {format_planes([*own['plane']])}"
        named.append(name)
    return some_names(named)


def mask_name(row: Field) -> str:
    """Return the name of the mask that was made of a row's dye."""
    assert row.mask is not None, "a mask was made of its dye"
    return row.mask.name


def measure_shifts(rows: Sequence[Field], quality: pd.DataFrame, move: bool) -> None:
    """Measure how far the dye of images lies from what transmitted light shows.

    Parameters
    ----------
    rows
        With masks that were made from the dye, and the channel of transmitted light.
    quality
        A row for each plane; ``shift_y_um``, ``shift_x_um``, ``shift_z_um`` and ``moved`` are
        filled in. An image has a shift of its own where its mask fits much better there, or lies
        far outside the scatter of the others; else that which `FEWEST_TOLD` or more of its batch
        show together. Along z all have the median of their batch.
    move
        Whether to move the masks back, in their files, unless they lie too far.
    """
    quality["shift_z_um"] = np.nan
    if not rows:
        return
    sizes = [plane_pixel_size(open_fluorescence(row)) or (1.0, 1.0) for row in rows]
    fits = [_fit(row, quality, size) for row, size in zip(rows, sizes, strict=True)]
    own = np.array([(np.nan,) * 3 if fit is None else shift_of([fit]) for fit in fits])
    found, gain = own[:, :2] * sizes, own[:, 2]
    sure = found[~np.isnan(gain)]
    apart = np.hypot(*(found - np.median(sure, axis=0)).T) if len(sure) else gain
    outlier = apart > max(MOST_APART_UM, 4 * np.nanmedian(apart)) if len(sure) >= 8 else apart < 0
    told = outlier | (gain >= BETTER) | (np.hypot(*found.T) < MOST_APART_UM)
    shifts = np.where(told[:, None], found, np.nan)
    batches = pd.Series([row.batch for row in rows])
    for _, images in batches.groupby([batches, pd.Series(sizes)]):
        maps = [fit for i in images.index if (fit := fits[i]) is not None]
        down, right, better = shift_of(maps, SURE_TOGETHER) if maps else (np.nan,) * 3
        um = np.multiply((down, right), sizes[images.index[0]])
        if len(maps) >= FEWEST_TOLD and (better >= BETTER or np.hypot(*um) < MOST_APART_UM):
            shifts[images.index] = np.where(told[images.index, None], shifts[images.index], um)
    for row, size, um in zip(rows, sizes, shifts, strict=True):
        shift = tuple(-round(one) for one in um / size if np.isfinite(one))
        moved = move and any(shift) and np.hypot(*um) <= MOST_SHIFTED_UM
        if moved:
            _move(row, (shift[0], shift[1]))
        mine = quality["mask"] == mask_name(row)
        quality.loc[mine, ["shift_y_um", "shift_x_um"]] = um
        quality.loc[mine, "moved"] = bool(moved)
    for _, images in batches.groupby(batches):
        depths = [_depth_um(rows[i]) for i in spread(list(images.index), MOST_DEEP)]
        if np.isfinite(depths).sum() >= FEWEST_TOLD:
            mine = quality["mask"].isin([mask_name(rows[i]) for i in images.index])
            quality.loc[mine, "shift_z_um"] = np.nanmedian(depths)


def _depth_um(row: Field) -> float:
    """Measure how far a row's dye lies along z, see `depth_of_dye`; not a number in thin stacks."""
    dye, light = open_fluorescence(row), open_image(row)
    step, size = dye.attrs.get("pixel_size_um", {}).get("Z"), plane_pixel_size(dye)
    if not step or size is None or light.sizes["Z"] != (depth := dye.sizes["Z"]):
        return float("nan")
    middle, every = int(np.median(row.planes or range(depth))), max(1, round(0.5 / step))
    near = [z for z in range(middle % every, depth, every) if abs(z - middle) * step <= NEAR_UM]
    if len(near) * every * step < THINNEST_UM:
        return float("nan")
    shown, dyed = (np.stack([read_plane(one, z=z) for z in near]) for one in (light, dye))
    return depth_of_dye(shown, dyed, every * step, float(np.mean(size)))


def _fit(row: Field, quality: pd.DataFrame, size: tuple[float, float]) -> Floats | None:
    """Measure how well a row's masks fit at each shift, see `fit_of_dye`."""
    dyed = quality[(quality["mask"] == mask_name(row)) & (quality["foreground"] > 0)]
    read = [read_row(row, int(z), "unsure") for z in spread(list(dyed["plane"]), MOST_OWN)]
    pixel_um = float(np.mean(size))
    reach = min(round(REACH_UM / pixel_um) + 1, MOST_REACH)
    return fit_of_dye([(p, mask) for p, mask in read if mask is not None], pixel_um, reach)


def _move(row: Field, by: tuple[int, int]) -> None:
    """Move a mask by whole pixels along Y and X; what was beyond its edge is unsure."""
    assert row.mask is not None, "a mask was made of its dye"
    mask = read(row.mask).isel(T=0, C=0, drop=True)
    write_mask(row.mask, mask.compute().shift(Y=by[0], X=by[1], fill_value=UNSURE))
