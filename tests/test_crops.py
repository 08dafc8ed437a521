"""Windows over large images, crops of single objects, and their contact sheet."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from mitolume.analysis.crops import contact_sheet, crop_box, cut
from mitolume.analysis.object_index import windows_of


@st.composite
def boxes(draw: st.DrawFn) -> tuple[pd.DataFrame, tuple[int, int, int]]:
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 900), st.integers(1, 900)))
    rows = []
    for label in range(draw(st.integers(0, 12))):
        row = {"label": label + 1}
        for axis, size in zip("zyx", shape, strict=True):
            start = draw(st.integers(0, size - 1))
            row |= {f"{axis}0": start, f"{axis}1": draw(st.integers(start + 1, size))}
        rows.append(row)
    columns = ["label", "z0", "z1", "y0", "y1", "x0", "x1"]
    return pd.DataFrame(rows, columns=columns), shape


@given(boxes(), st.integers(0, 9), st.integers(1, 200_000))
def test_every_object_lies_whole_in_one_window(
    drawn: tuple[pd.DataFrame, tuple[int, int, int]], margin: int, pixels: int
) -> None:
    table, shape = drawn
    seen: list[int] = []
    for window, group in windows_of(table, shape, (0, margin, margin), pixels):
        seen += group["label"].tolist()
        for axis, part, size, around in zip("zyx", window, shape, (0, margin, margin), strict=True):
            assert 0 <= part.start < part.stop <= size
            assert (group[f"{axis}0"] - around).clip(lower=0).min() >= part.start
            assert (group[f"{axis}1"] + around).clip(upper=size).max() <= part.stop
    assert sorted(seen) == table["label"].tolist()


def test_windows_stay_small_beside_a_giant_object() -> None:
    small = [(i, 0, 1, y, y + 9, x, x + 9) for i, (y, x) in enumerate(np.ndindex(50, 50), 2)]
    rows = [(1, 0, 1, 0, 20_000, 0, 20_000), *((i, a, b, y * 390, y * 390 + 9, x * 390, x * 390 + 9)
            for i, a, b, y, _, x, _ in small)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["label", "z0", "z1", "y0", "y1", "x0", "x1"])
    areas = {
        len(group): np.prod([part.stop - part.start for part in window])
        for window, group in windows_of(table, (1, 20_000, 20_000), (0, 5, 5), 2**22)
    }
    assert areas.pop(1) == 20_000**2
    assert max(areas.values()) < 2 * 2**22


def _image(shape: tuple[int, ...], dtype: type = np.uint16) -> xr.DataArray:
    values = np.random.default_rng(0).integers(0, 60_000, shape).astype(dtype)
    names = np.array([f"c{i}" for i in range(shape[0])], dtype=object)
    attrs = {"pixel_size_um": {"Z": 0.5, "Y": 0.1, "X": 0.1}}
    return xr.DataArray(values, dims=("C", "Z", "Y", "X"), coords={"C": names}, attrs=attrs)


def test_a_crop_holds_the_image_s_own_values() -> None:
    image = _image((2, 4, 30, 40))
    labels = np.zeros((4, 30, 40), np.int32)
    labels[1:3, 10:15, 20:30] = 7
    labels[1:3, 16, 20:30] = 8
    box = crop_box((1, 3, 10, 15, 20, 30), 0.2, image.attrs["pixel_size_um"], labels.shape)
    assert box == (slice(0, 4), slice(8, 17), slice(18, 32))
    crop = cut(image, labels, 7, box)
    np.testing.assert_array_equal(crop.pixels.values, image.values[(slice(None), *box)])
    assert crop.pixels.dtype == image.dtype
    assert list(crop.pixels["C"].values) == ["c0", "c1"]
    assert crop.pixels.attrs["pixel_size_um"] == image.attrs["pixel_size_um"]


def test_a_crop_of_a_window_equals_one_of_the_whole_image() -> None:
    image = _image((1, 3, 30, 40))
    labels = np.zeros((3, 30, 40), np.int32)
    labels[1:, 12:14, 20:26] = 3
    box = crop_box((1, 3, 12, 14, 20, 26), 0.1, {"Y": 0.1, "X": 0.1}, labels.shape)
    window = (slice(0, 3), slice(9, 20), slice(15, 32))
    whole = cut(image, labels, 3, box)
    part = cut(image[(slice(None), *window)], labels[window], 3, box, (0, 9, 15))
    xr.testing.assert_identical(part.pixels, whole.pixels)
    np.testing.assert_array_equal(part.inside, whole.inside)


def test_a_flat_mask_keeps_every_plane_of_a_stack() -> None:
    image = _image((1, 5, 20, 20))
    labels = np.zeros((1, 20, 20), np.int32)
    labels[0, 5:9, 5:9] = 1
    crop = cut(image, labels, 1, crop_box((0, 1, 5, 9, 5, 9), 0, {}, labels.shape))
    assert crop.pixels.shape == (1, 5, 4, 4)
    assert crop.inside.all()


@pytest.mark.parametrize("n", [1, 13, 500])
def test_the_contact_sheet_shows_at_most_240_crops(n: int) -> None:
    image = _image((1, 1, 30, 30))
    labels = np.zeros((1, 30, 30), np.int32)
    labels[0, 10:20, 10:20] = 1
    crop = cut(image, labels, 1, crop_box((0, 1, 10, 20, 10, 20), 2, {}, labels.shape))
    sheet, shown = contact_sheet([crop] * n), min(n, 240)
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] == min(12, shown) * 96
    assert len(np.unique(sheet)) > 50
