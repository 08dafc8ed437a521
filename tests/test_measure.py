"""Measurements against objects of known size, the whole against windows, tables against files."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.measure import regionprops_table

from mitolume.analysis.grey_values import column_names
from mitolume.analysis.measure import margin_of, measure_objects, summarise_image
from mitolume.errors import MitolumeError
from mitolume.io.write import table_ending, write_table

EIGHT = np.ones((3, 3))


def tube(
    way: np.ndarray, width: float, spacing: tuple[float, ...], shift: np.ndarray | float = 0.0
) -> np.ndarray:
    """Pixels within half a width of a line through the points `way` (N, axes), all in one unit."""
    low, high = way.min(axis=0) - width, way.max(axis=0) + width
    shape = np.ceil((high - low) / spacing).astype(int) + 1
    at = np.indices(shape).reshape(len(shape), -1).T * spacing + low + shift * np.array(spacing)
    return (cKDTree(way).query(at)[0] <= width / 2).reshape(shape)


def straight(length: float, angle: float) -> np.ndarray:
    t = np.linspace(-length / 2, length / 2, int(20 * length))
    return np.stack([t * math.sin(angle), t * math.cos(angle)], axis=1)


def arc(radius: float, span: float) -> np.ndarray:
    t = np.linspace(0, span, int(20 * radius * span))
    return radius * np.stack([np.sin(t), np.cos(t)], axis=1)


def side_by_side(masks: list[np.ndarray]) -> np.ndarray:
    """Label image with the masks in a row, objects from 1."""
    shape = np.max([m.shape for m in masks], axis=0) + 2
    tiles = [
        np.pad(m, [(1, s - n - 1) for n, s in zip(m.shape, shape, strict=True)]) for m in masks
    ]
    return np.concatenate([k * t.astype(np.int32) for k, t in enumerate(tiles, 1)], axis=-1)


def blobs(seed: int, shape: tuple[int, int] = (90, 110), sigma: float = 2.0) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return ndimage.label(noise > 0.9 * noise.std(), EIGHT)[0]


ANGLES = [0, math.pi / 4, math.pi / 2, math.atan(0.5), 0.1, 0.3, 1.0, 1.3, 2.0, 2.4, 2.9]


@pytest.mark.parametrize(
    ("length", "width"), [(30, 3), (25, 4), (60, 5), (50, 8), (60, 11), (80, 15)]
)
def test_straight_tubes_have_their_length_width_area_and_perimeter(length: int, width: int) -> None:
    rng = np.random.default_rng(width)
    ways = [straight(length - width, angle) for angle in ANGLES]
    masks = [tube(way, width, (1, 1), rng.uniform(-0.5, 0.5, 2)) for way in ways]
    found = measure_objects(side_by_side(masks), pixel_size_um={"Y": 0.1, "X": 0.1})
    assert found["length_um"].to_numpy() == pytest.approx(0.1 * length, rel=0.05)
    assert found["skeleton_length_um"].to_numpy() == pytest.approx(0.1 * length, rel=0.05)
    area = 0.01 * (width * (length - width) + math.pi * width**2 / 4)
    assert found["area_um2"].mean() == pytest.approx(area, rel=0.01)
    assert found["width_um"].to_numpy() == pytest.approx(0.1 * width, rel=0.1)
    assert found["width_um"].mean() == pytest.approx(0.1 * width, rel=0.03)
    round_about = 0.1 * (2 * (length - width) + math.pi * width)
    assert found["perimeter_um"].to_numpy() == pytest.approx(round_about, rel=0.05)
    assert found["perimeter_um"].mean() == pytest.approx(round_about, rel=0.02)
    counts = found[["n_branches", "n_end_points", "n_junctions", "n_loops"]]
    assert (counts.to_numpy() == [1, 2, 0, 0]).all()


def test_bent_tubes_have_the_length_along_them() -> None:
    # Half a circle to one side, then half a circle to the other.
    s = np.concatenate([arc(15, math.pi), arc(15, math.pi) * [-1, 1] - [0, 30]])
    bent = [
        (arc(12, math.pi), 12 * math.pi, 3),
        (arc(15, math.pi), 15 * math.pi, 5),
        (arc(25, 1.5 * math.pi), 37.5 * math.pi, 5),
        (arc(20, math.pi), 20 * math.pi, 9),
        (s, 30 * math.pi, 6),
    ]
    rng = np.random.default_rng(0)
    for way, along, width in bent:
        masks = [tube(way, width, (1, 1), rng.uniform(-0.5, 0.5, 2)) for _ in range(5)]
        found = measure_objects(side_by_side(masks))
        assert found["length_px"].to_numpy() == pytest.approx(along + width, rel=0.05)
        assert found["skeleton_length_px"].to_numpy() == pytest.approx(along + width, rel=0.05)
        assert (found["n_end_points"] == 2).all()


def test_discs() -> None:
    sizes = [5, 8, 12, 20, 40]
    dots = [tube(np.zeros((1, 2)), size, (1, 1), 0.3) for size in sizes]
    found = measure_objects(side_by_side(dots))
    for name, expected, error in [
        ("perimeter_px", [math.pi * d for d in sizes], 0.05),
        ("length_px", sizes, 0.12),
        ("width_px", sizes, 0.12),
        ("aspect_ratio", 1.0, 0.1),
        ("form_factor", 1.0, 0.05),
        ("solidity", 1.0, 0.03),
    ]:
        assert found[name].to_numpy() == pytest.approx(np.broadcast_to(expected, 5), rel=error), (
            name
        )


def test_a_solid_body() -> None:
    rng = np.random.default_rng(1)
    spacing = (0.3, 0.1, 0.1)
    masks = []
    for _ in range(6):
        along = rng.normal(size=3)
        way = np.linspace(-1.4, 1.4, 200)[:, None] * along / np.linalg.norm(along)
        masks.append(tube(way, 1.0, spacing, rng.uniform(-0.5, 0.5, 3)))
    found = measure_objects(
        side_by_side(masks), pixel_size_um=dict(zip("ZYX", spacing, strict=True))
    )
    assert found["length_um"].to_numpy() == pytest.approx(3.8, rel=0.08)
    assert found["length_um"].mean() == pytest.approx(3.8, rel=0.05)
    assert found["volume_um3"].to_numpy() == pytest.approx(math.pi * (0.7 + 1 / 6), rel=0.03)
    assert found["surface_area_um2"].to_numpy() == pytest.approx(3.8 * math.pi, rel=0.07)
    assert found["width_um"].to_numpy() == pytest.approx(1.0, rel=0.05)
    assert (found["n_end_points"] == 2).all()


def test_a_solid_body_of_even_thickness_has_a_skeleton() -> None:
    # scikit-image wears it away whole: issue 3757 there.
    found = measure_objects(np.pad(np.ones((4, 4, 30), int), 3))
    assert found["length_px"].tolist() == [30]
    assert found["n_end_points"].tolist() == [2]


def cross() -> np.ndarray:
    mask = np.zeros((61, 61), bool)
    mask[28:33, 3:58] = mask[3:58, 28:33] = True
    return mask


def ring() -> np.ndarray:
    return np.abs(np.hypot(*(np.indices((61, 61)) - 30)) - 20) <= 3


def lollipop() -> np.ndarray:
    mask = np.pad(ring(), ((0, 0), (0, 40)))
    mask[28:33, 50:95] = True
    return mask


@pytest.mark.parametrize(
    ("mask", "counts", "total", "longest"),
    [
        (cross(), (4, 4, 1, 0), 110, 55),
        (cross()[:33], (3, 3, 1, 0), 85, 57.5),
        (ring(), (1, 0, 0, 1), 40 * math.pi, 20 * math.pi),
        (lollipop(), (2, 1, 1, 1), 40 * math.pi + 45, 20 * math.pi + 45),
        (np.ones((1, 1), bool), (1, 2, 0, 0), 1, 1),
        (np.ones((7, 7), bool), (1, 2, 0, 0), 7, 7),
    ],
    ids=["cross", "T", "ring", "lollipop", "pixel", "square"],
)
def test_networks_of_known_shape(
    mask: np.ndarray, counts: tuple[int, ...], total: float, longest: float
) -> None:
    (found,) = measure_objects(np.pad(mask, 2).astype(int)).to_dict("records")
    assert (
        found["n_branches"], found["n_end_points"], found["n_junctions"], found["n_loops"]
    ) == counts  # fmt: skip
    assert found["skeleton_length_px"] == pytest.approx(total, rel=0.05)
    assert found["length_px"] == pytest.approx(longest, rel=0.05)


def test_a_rough_edge_is_no_branch() -> None:
    rng = np.random.default_rng(0)
    way = straight(60, 0.5)
    for _ in range(5):
        mask = np.pad(tube(way, 9, (1, 1)), 3)
        rough = ndimage.gaussian_filter(rng.normal(size=mask.shape), 1.5)
        inside = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
        labels, _ = ndimage.label(inside + rough / rough.std() > 0.5, EIGHT)
        labels = (labels == np.bincount(labels[mask]).argmax()).astype(int)
        assert measure_objects(labels)["n_branches"].tolist() == [1]


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 6), st.booleans())
def test_objects_of_a_few_pixels_give_sane_numbers(seed: int, y: int, x: int, solid: bool) -> None:
    rng = np.random.default_rng(seed)
    shape = (2, y, x) if solid else (y, x)
    labels, n = ndimage.label(rng.random(shape) < 0.6, np.ones((3,) * len(shape)))
    found = measure_objects(labels, {"a": rng.random(shape)}, {"Z": 0.3, "Y": 0.2, "X": 0.1})
    assert len(found) == n
    numbers = found.drop(columns=[c for c in found if c.startswith(("ring", "contrast"))])
    assert np.isfinite(numbers.to_numpy(float)).all()
    for axis in "zyx" if solid else "yx":
        side = (found[f"bbox_{axis}1_px"] - found[f"bbox_{axis}0_px"]) * {
            "z": 0.3,
            "y": 0.2,
            "x": 0.1,
        }[axis]
        assert (found["length_um"] >= side - 1e-9).all()
    assert (found["skeleton_length_um"] >= found["length_um"]).all()
    assert (found["width_um"] <= found["length_um"] + 1e-9).all()
    assert (found["width_um"] > 0).all()
    assert (found[["aspect_ratio", "n_branches"]] >= 1 - 1e-9).to_numpy().all()
    assert found["solidity"].between(0, 1).all()


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.floats(1.2, 4), st.data())
def test_windows_give_the_rows_of_the_whole_image(
    seed: int, sigma: float, data: st.DataObject
) -> None:
    labels = blobs(seed, sigma=sigma)
    rng = np.random.default_rng(seed)
    images = {"a": rng.normal(size=labels.shape), "b": rng.integers(0, 99, labels.shape)}
    unsure = rng.random(labels.shape) < 0.05
    size = {"Y": 0.1, "X": 0.13}
    whole = measure_objects(labels, images, size, unsure=unsure)
    margin = margin_of(labels.shape, size)
    chosen = data.draw(st.lists(st.sampled_from(whole["label"].tolist()), min_size=1, unique=True))
    rows = whole[whole["label"].isin(chosen)].reset_index(drop=True)
    window = []
    for axis, around, most in zip("yx", margin, labels.shape, strict=True):
        low = max(rows[f"bbox_{axis}0_px"].min() - around, 0)
        high = min(rows[f"bbox_{axis}1_px"].max() + around, most)
        more = data.draw(st.integers(0, 20)), data.draw(st.integers(0, 20))
        window.append(slice(max(low - more[0], 0), high + more[1]))
    cut = tuple(window)
    found = measure_objects(
        labels[cut],
        {name: image[cut] for name, image in images.items()},
        size,
        unsure=unsure[cut],
        only=chosen,
        origin=[side.start for side in cut],
        image_shape=labels.shape,
    )
    pd.testing.assert_frame_equal(found, rows, rtol=1e-12)


def test_touching_objects_are_measured_apart() -> None:
    apart, joint = np.zeros((40, 60), int), np.zeros((40, 60), int)
    apart[10:14, 5:50], apart[24:28, 5:50] = 1, 2
    joint[10:14, 5:50], joint[14:18, 5:50] = 1, 2
    columns = ["area_px", "perimeter_px", "length_px", "width_px", "solidity", "n_branches"]
    pd.testing.assert_frame_equal(measure_objects(apart)[columns], measure_objects(joint)[columns])


@pytest.mark.parametrize("spacing", [(0.2, 0.1), (0.1, 0.25)])
def test_pixels_need_not_be_square(spacing: tuple[float, float]) -> None:
    ways = [straight(8, angle) for angle in ANGLES]
    size = dict(zip("YX", spacing, strict=True))
    found = measure_objects(
        side_by_side([tube(w, 1.6, spacing, 0.2) for w in ways]), pixel_size_um=size
    )
    fine = measure_objects(
        side_by_side([tube(w, 1.6, (0.1, 0.1), 0.2) for w in ways]),
        pixel_size_um={"Y": 0.1, "X": 0.1},
    )
    for column in ("area_um2", "perimeter_um", "length_um", "width_um", "aspect_ratio"):
        assert found[column].to_numpy() == pytest.approx(fine[column].to_numpy(), rel=0.07), column


def test_lengths_scale_with_the_pixel_size_and_say_so() -> None:
    labels = blobs(3)
    pixels = measure_objects(labels, pixel_size_um={"X": 0.5})  # half known is unknown
    micrometres = measure_objects(labels, pixel_size_um={"Y": 0.5, "X": 0.5})
    for name, factor in [("area", 0.25), ("perimeter", 0.5), ("length", 0.5), ("width", 0.5)]:
        um = micrometres[f"{name}_um{'2' if name == 'area' else ''}"]
        assert (um / factor).to_numpy() == pytest.approx(pixels[f"{name}_px"].to_numpy())
    assert not [c for c in pixels if "um" in c.split("_")[-1]]
    assert [c for c in micrometres if c.endswith("_px")] == [
        c for c in pixels if c.startswith(("centroid", "bbox"))
    ]


def test_positions_and_moments_agree_with_scikit_image() -> None:
    labels = blobs(5, sigma=4)
    names = [
        "label",
        "area",
        "centroid",
        "bbox",
        "axis_major_length",
        "axis_minor_length",
        "solidity",
    ]
    theirs = pd.DataFrame(regionprops_table(labels, properties=names))
    ours = measure_objects(labels)
    large = theirs["area"] > 60
    assert (ours["label"] == theirs["label"]).all()
    assert (ours["area_px"] == theirs["area"]).all()
    for axis, k in (("y", 0), ("x", 1)):
        assert np.allclose(ours[f"centroid_{axis}_px"], theirs[f"centroid-{k}"])
        assert (ours[f"bbox_{axis}0_px"] == theirs[f"bbox-{k}"]).all()
        assert (ours[f"bbox_{axis}1_px"] == theirs[f"bbox-{k + 2}"]).all()
    ratio = theirs["axis_major_length"] / theirs["axis_minor_length"]
    assert np.allclose(ours["aspect_ratio"][large], ratio[large], rtol=0.02)
    assert np.allclose(ours["solidity"][large], theirs["solidity"][large], rtol=0.05)
    edge = (theirs["bbox-0"] == 0) | (theirs["bbox-1"] == 0)
    edge |= (theirs["bbox-2"] == labels.shape[0]) | (theirs["bbox-3"] == labels.shape[1])
    assert (ours["touches_border"] == edge).all()


def test_intensity_in_the_object_and_in_the_ring() -> None:
    labels = np.zeros((40, 40), int)
    labels[10:14, 10:20] = 1
    labels[10:14, 24:30] = 2  # four pixels off: in the ring of 1
    image = np.full(labels.shape, 5.0)
    image[labels == 1] = np.arange(40)
    image[labels == 2] = 1000
    image[9, 10] = 777  # touches object 1: in no ring
    image[8, 10] = 45
    image[20, 20] = np.nan
    unsure = np.zeros(labels.shape, bool)
    unsure[8, 11], image[8, 11] = True, 99
    one, two = measure_objects(labels, {"a": image}, unsure=unsure).to_dict("records")
    values = np.arange(40)
    for what in ("mean", "median", "std", "min", "max", "sum"):
        assert one[f"intensity_{what}_a"] == pytest.approx(getattr(np, what)(values))
    assert one["ring_median_a"] == 5
    away = ndimage.distance_transform_edt(labels != 1)
    n = ((away > 1.5) & (away <= 4.5) & (labels == 0) & ~unsure).sum()
    assert one["ring_mean_a"] == pytest.approx(5 + 40 / n)
    assert one["contrast_a"] == pytest.approx(values.mean() - one["ring_mean_a"])
    assert two["intensity_mean_a"] == 1000


def test_a_ring_without_pixels_and_an_object_without_values_are_nan() -> None:
    labels = np.ones((5, 5), int)
    full = measure_objects(labels, {"a": labels * 3, "b": np.full((5, 5), np.nan)})
    assert full["intensity_mean_a"].tolist() == [3]
    assert (
        full[["ring_mean_a", "ring_median_a", "contrast_a", "intensity_sum_b"]]
        .isna()
        .to_numpy()
        .all()
    )


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="TMRM"):
        measure_objects(np.ones((5, 5), int), {"TMRM": np.ones((5, 6))})
    with pytest.raises(MitolumeError, match=r"\(Y, X\)"):
        measure_objects(np.ones((1, 1, 5, 5), int))


@given(st.lists(st.text(max_size=8), max_size=6))
def test_names_of_channels_make_columns_of_their_own(channels: list[str]) -> None:
    names = list(column_names(channels))
    assert len(set(names)) == len(channels)
    assert all(name and " " not in name for name in names)


@pytest.mark.parametrize("shape", [(12, 20), (4, 12, 20)])
@pytest.mark.parametrize("size", [None, {"Z": 0.3, "Y": 0.1, "X": 0.1}])
def test_an_image_without_objects_has_all_columns(
    shape: tuple[int, ...], size: dict[str, float] | None, tmp_path: Path
) -> None:
    empty = np.zeros(shape, np.int32)
    labels = empty.copy()
    labels[..., 4:8, 4:15] = 1
    image = {"TMRM 561": np.ones(shape)}
    found, full = measure_objects(empty, image, size), measure_objects(labels, image, size)
    assert len(found) == 0
    assert found.dtypes.to_dict() == full.dtypes.to_dict()
    assert list(found.columns) == list(full.columns)
    write_table(tmp_path / "empty.parquet", found)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "empty.parquet"), found)
    write_table(tmp_path / "empty.csv", found)
    assert list(pd.read_csv(tmp_path / "empty.csv").columns) == list(full.columns)
    summary, of_full = summarise_image(found, shape, size), summarise_image(full, shape, size)
    assert list(summary) == list(of_full)
    assert (summary["n_objects"], summary["footprint_share"]) == (0, 0)
    assert all(
        math.isnan(v) for k, v in summary.items() if k.startswith(("mean", "median", "frag"))
    )
    assert all(math.isfinite(v) for k, v in of_full.items() if k != "mean_branches_per_network")


def test_a_stack_of_one_plane_is_a_plane() -> None:
    labels = blobs(2)
    image = {"a": np.random.default_rng(0).random(labels.shape)}
    stack = measure_objects(labels[None], {"a": image["a"][None]}, {"Y": 0.1, "X": 0.1})
    plane = measure_objects(labels, image, {"Y": 0.1, "X": 0.1})
    pd.testing.assert_frame_equal(stack, plane)
    assert margin_of((1, 90, 110)) == (0, *margin_of((90, 110)))


def test_an_image_is_summed_up() -> None:
    labels = side_by_side([cross(), cross(), np.ones((5, 31), bool), np.ones((5, 51), bool)])
    size = {"Y": 0.1, "X": 0.1}
    objects = measure_objects(labels, pixel_size_um=size)
    found = summarise_image(objects, labels.shape, size, n_unsure=100)
    area = 0.01 * (labels > 0).sum()
    assert found["n_objects"] == 4
    assert (found["n_networks"], found["n_individuals"]) == (2, 2)
    assert found["total_area_um2"] == pytest.approx(area)
    assert found["footprint_share"] == pytest.approx((labels > 0).sum() / (labels.size - 100))
    assert found["fragmentation_index_per_um2"] == pytest.approx(4 / area)
    assert found["mean_branches_per_network"] == 4
    assert found["total_skeleton_length_um"] == pytest.approx(11 * 2 + 3.1 + 5.1, rel=0.03)
    assert found["mean_branch_length_um"] == pytest.approx(found["total_skeleton_length_um"] / 10)
    assert found["median_area_um2"] == pytest.approx(objects["area_um2"].median())
    assert found["mean_length_um"] == pytest.approx(objects["length_um"].mean())


def test_anndata_has_measurements_units_and_places_apart(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason='needs pip install "mitolume[h5ad]"')
    table = pd.DataFrame({
        "image": pd.array(["a", None], "string"), "plane": pd.array([1, None], "Int64"),
        "label": [1, 2], "centroid_y_um": [1.0, 2.0], "centroid_x_um": [3.0, 4.0],
        "touches_border": [True, False], "area_um2": [0.5, np.nan], "n_branches": [1, 2],
        "intensity_mean_a/b": [7.0, 8.0], "fragmentation_index_per_um2": [3.0, 4.0],
    })  # fmt: skip
    for n in (2, 0):
        path = tmp_path / f"{n}.h5ad"
        write_table(path, table[:n])
        with h5py.File(path) as file:
            assert {k: dict(v.attrs)["encoding-type"] for k, v in file.items()} == {
                "X": "array", "obs": "dataframe", "obsm": "dict", "var": "dataframe"
            }  # fmt: skip
            np.testing.assert_array_equal(
                file["X"], [[0.5, 1, 7, 3], [np.nan, 2, 8, 4]][:n] or file["X"]
            )
            assert list(file["var/_index"].asstr()) == [
                "area_um2", "n_branches", "intensity_mean_a_b", "fragmentation_index_per_um2"
            ]  # fmt: skip
            assert list(file["var/unit"].asstr()) == ["µm²", "", "", "1/µm²"]
            assert list(file["obs"].attrs["column-order"]) == list(table)[:6]
            assert list(file["obs/image"].asstr()) == ["a", ""][:n]
            np.testing.assert_array_equal(file["obs/plane"], [1, np.nan][:n])
            np.testing.assert_array_equal(file["obsm/spatial"], table.iloc[:n, [4, 3]])


def test_what_a_table_needs_is_known_before_it_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MitolumeError, match=r'pip install "mitolume\[h5ad\]"'):
        table_ending(tmp_path / "objects.h5ad")


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".PARQUET"])
def test_tables_come_back_from_files(ending: str, tmp_path: Path) -> None:
    table = measure_objects(blobs(1), {"é": np.ones((90, 110))}, {"Y": 0.1, "X": 0.1})
    table["condition"] = "FCCP, 1 µM"
    path = tmp_path / f"objects{ending}"
    write_table(path, table)
    back = pd.read_csv(path) if ending == ".csv" else pd.read_parquet(path)
    pd.testing.assert_frame_equal(back, table, check_dtype=ending != ".csv")
    assert {p.name for p in tmp_path.iterdir()} == {path.name, ".mitolume"}


@pytest.mark.parametrize("name", ["objects.xlsx", "objects"])
def test_other_endings_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(MitolumeError, match=r"must end in \.csv, \.parquet, \.h5ad"):
        write_table(tmp_path / name, pd.DataFrame())
    assert not list(tmp_path.iterdir())
