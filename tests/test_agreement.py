"""Two annotators: agreement against independent computations, consensus files, the ceiling."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import xarray as xr
from helpers.command import Shell
from helpers.fields import blobs
from helpers.report_pages import Page, content, images, log
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from roifile import ImagejRoi
from scipy import ndimage
from scipy.spatial.distance import cdist

from mitolume.analysis.agreement import (
    area_ratio,
    consensus,
    mean_interval,
    outline_distance,
)
from mitolume.analysis.metrics import Counts, count, dice, iou
from mitolume.batch.agreement import (
    COLUMNS,
    Ceiling,
    agree,
    agreement_text,
    ceiling_of,
)
from mitolume.batch.evaluate import evaluate
from mitolume.errors import MitolumeError
from mitolume.io.masks import decide_kind, to_mask
from mitolume.io.read import read, read_plane
from mitolume.io.rois import write_rois
from mitolume.io.write import write_image, write_mask
from mitolume.report.run_page import render

PAIR = hnp.arrays(np.uint8, (2, 9, 12), elements=st.sampled_from([0, 0, 0, 1, 1, 255]))


def two_hands(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a mask, and the same drawn one pixel larger and shifted."""
    mask = blobs(seed)[1]
    other = np.roll(ndimage.binary_dilation(mask), 1, axis=1).astype(np.uint8)
    return mask, other


def write(folder: Path, name: str, mask: np.ndarray, **attrs: object) -> None:
    dims = ("Z", "Y", "X")[-mask.ndim :]
    write_mask(folder / f"{name}_mask.ome.tif", xr.DataArray(mask, dims=dims, attrs=attrs))


@pytest.fixture
def hands(tmp_path: Path) -> tuple[Path, Path]:
    """Write four images drawn by two people: OME-TIFF with a pixel size, and plain TIFF."""
    folders = tmp_path / "anna", tmp_path / "ben"
    for folder in folders:
        folder.mkdir()
    for seed in range(4):
        ours, theirs = two_hands(seed)
        write(folders[0], f"f{seed}", ours, pixel_size_um={"Y": 0.3, "X": 0.1})
        tifffile.imwrite(folders[1] / f"f{seed}.tif", 255 * theirs)
    return folders


# Arrays --------------------------------------------------------------------------------------


def outline(mask: np.ndarray) -> np.ndarray:
    """Coordinates of marked pixels with an unmarked one above, below, left or right of them."""
    rows, columns = mask.shape
    found = [
        (y, x)
        for y, x in zip(*np.nonzero(mask == 1), strict=True)
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
        if 0 <= v < rows and 0 <= u < columns and mask[v, u] != 1
    ]
    return np.array(sorted(set(found)), float).reshape(-1, 2)


@settings(max_examples=60)
@given(pair=PAIR, y=st.floats(0.05, 3), x=st.floats(0.05, 3))
def test_distances_are_those_of_brute_force(pair: np.ndarray, y: float, x: float) -> None:
    a, b = (pair == 1).astype(np.uint8)
    mean, percentile_95 = outline_distance(a, b, (y, x))
    lines = [outline(m) * (y, x) for m in (a, b)]
    if not all(len(line) for line in lines):
        assert math.isnan(mean)
        assert math.isnan(percentile_95)
        return
    apart = cdist(*lines)
    there, back = apart.min(axis=1), apart.min(axis=0)
    assert mean == pytest.approx((there.sum() + back.sum()) / (there.size + back.size))
    assert percentile_95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))


def test_nobody_drew_the_edge_of_the_image_or_the_rim_of_an_unsure_region() -> None:
    a, b = np.zeros((2, 20, 20), np.uint8)
    a[:, :10], b[:, :12] = 1, 1
    assert outline_distance(a, b) == (2, 2)
    a[:8], b[:8] = 255, 1  # the unsure part has an outline of its own, which counts nowhere
    assert outline_distance(a, b) == (2, 2)
    assert math.isnan(outline_distance(np.ones_like(a), b)[0])


@settings(max_examples=60)
@given(pair=PAIR)
def test_nothing_depends_on_who_is_called_a(pair: np.ndarray) -> None:
    a, b = pair
    there, back = count(a, b), count(b, a)
    for score in (iou, dice):
        assert score(there) == pytest.approx(score(back), nan_ok=True)
    assert area_ratio(there) * area_ratio(back) == pytest.approx(1) or math.isnan(area_ratio(there))
    one, two = outline_distance(a, b), outline_distance(b, a)
    assert one == pytest.approx(two, nan_ok=True)
    assert (consensus(a, b) == consensus(b, a)).all()


def test_area_ratio_says_who_draws_larger() -> None:
    small, large = two_hands(0)
    assert area_ratio(count(large, small)) == pytest.approx(large.sum() / small.sum())
    assert area_ratio(count(large, small)) > 1
    assert math.isnan(area_ratio(Counts(fp=3)))


@given(pair=PAIR)
def test_consensus_is_sure_exactly_where_both_agree(pair: np.ndarray) -> None:
    a, b = pair
    mask = consensus(a, b)
    assert mask.dtype == np.uint8
    sure = mask != 255
    assert (mask[sure] == a[sure]).all()
    assert (mask[sure] == b[sure]).all()
    assert ((a != b) | (a == 255))[~sure].all()


def test_interval_of_a_mean() -> None:
    # 0.6, 0.7, 0.8: mean 0.7, standard error 0.1 / sqrt 3, t(0.975, 2) = 4.302653
    low, high = mean_interval([0.6, math.nan, 0.7, 0.8])
    assert (low, high) == pytest.approx((0.7 - 0.2484138, 0.7 + 0.2484138))
    assert mean_interval([0.1, 0.9, 1.0])[1] == 1
    assert all(math.isnan(v) for v in mean_interval([0.6, 0.7, math.nan]))


# Files ---------------------------------------------------------------------------------------


def test_table_of_two_folders(hands: tuple[Path, Path]) -> None:
    found = agree(*hands)
    table = found.planes
    assert tuple(table.columns) == COLUMNS
    assert list(table["image"]) == ["f0", "f1", "f2", "f3"]
    for seed, row in enumerate(table.to_dict("records")):
        a, b = two_hands(seed)
        both, either = int((a & b).sum()), int((a | b).sum())
        assert (row["n_both_px"], row["iou"]) == (both, pytest.approx(both / either))
        assert row["n_only_a_px"] == int((a & ~b & 1).sum())
        assert row["outline_mean_um"] == pytest.approx(outline_distance(a, b, (0.3, 0.1))[0])
        assert math.isnan(row["outline_mean_px"])
    assert found.notices == ("masks hold only 0 and 255: 255 is read as mitochondria",)
    pooled = table["n_both_px"].sum() / table.filter(regex="n_(both|only).*px").sum().sum()
    scores = evaluate(*hands)
    assert pooled == pytest.approx(scores["tp"].sum() / scores[["tp", "fp", "fn"]].to_numpy().sum())


def test_words_name_images_interval_and_what_is_left_out(hands: tuple[Path, Path]) -> None:
    anna, ben = hands
    write(anna, "alone", blobs(9)[1])
    for folder in hands:
        write(folder, "nothing", np.zeros((64, 80), np.uint8))
    found = agree(anna, ben)
    mean = found.planes["iou"].mean()
    text = agreement_text(found)
    for part in (
        f"Two people agree to IoU {mean:.2f} on these 4 images (mean over images)",
        "Images are not specimens",
        "1 of 6 masks in",
        "alone_mask.ome.tif",
        "images without a mark of either: 1",
        "planes without an outline of one or both: 1",
        "95 % t interval of the mean over images",
    ):
        assert part in text
    assert "nan" not in text
    lone = agreement_text(agree(anna / "f0_mask.ome.tif", ben / "f0.tif"))
    assert "on this one image: no model" in lone
    assert "No interval" in lone
    assert "a copy is not a second opinion" in agreement_text(agree(anna, anna))


def test_neither_marked_anything(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((9, 9), np.uint8))
    text = agreement_text(agree(tmp_path / "a.tif", tmp_path / "a.tif"))
    assert "Neither of the two marked anything" in text
    assert "nan" not in text


def test_distances_are_in_pixels_where_the_size_is_unknown_or_contradicted(tmp_path: Path) -> None:
    a, b = two_hands(0)
    for name, mask, size in (("a", a, 0.1), ("b", b, 0.2), ("c", b, None), ("d", b, 0.1003)):
        attrs = {"pixel_size_um": {"Y": size, "X": size}} if size else {}
        write(tmp_path, name, mask, **attrs)
    tifffile.imwrite(tmp_path / "e.tif", a)

    def row(first: str, second: str) -> tuple[pd.Series, tuple[str, ...]]:
        found = agree(tmp_path / first, tmp_path / second)
        return found.planes.iloc[0], found.notices

    pixels = outline_distance(a, b)[0]
    against, notices = row("a_mask.ome.tif", "b_mask.ome.tif")
    assert against["outline_mean_px"] == pytest.approx(pixels)
    assert "0.1 x 0.1 µm in" in notices[0]
    unknown, notices = row("e.tif", "c_mask.ome.tif")
    assert (unknown["outline_mean_px"], notices) == (pytest.approx(pixels), ())
    near, notices = row("a_mask.ome.tif", "d_mask.ome.tif")
    assert (near["outline_mean_um"], notices) == (pytest.approx(0.1 * pixels), ())


def test_a_stack_is_one_image_of_many_planes(tmp_path: Path) -> None:
    stacks = np.stack([two_hands(seed) for seed in range(5)], axis=1)
    folders = [tmp_path / name for name in "ab"]
    for folder, stack in zip(folders, stacks, strict=True):
        folder.mkdir()
        write(folder, "s", stack, pixel_size_um={"Z": 0.5, "Y": 0.1, "X": 0.1})
    found = agree(*folders)
    assert list(found.planes["plane"]) == [0, 1, 2, 3, 4]
    assert "on this one image" in agreement_text(found)
    agree(*folders, consensus_folder=tmp_path / "both")
    written = read(tmp_path / "both" / "s_mask.ome.tif")
    assert written.attrs["pixel_size_um"] == {"Z": 0.5, "Y": 0.1, "X": 0.1}
    for z in range(5):
        assert (read_plane(written, z=z) == consensus(*stacks[:, z])).all()


@pytest.mark.parametrize(("planes", "compared"), [("", [2, 3]), ("1-3", [1, 2, 3])])
def test_only_planes_that_either_outlined_are_compared(
    planes: str, compared: list[int], tmp_path: Path
) -> None:
    ring = np.array([[2.0, 2], [9, 2], [9, 9], [2, 9]])
    for name, drawn in (("a", [2]), ("b", [2, 3])):
        rois = [ImagejRoi.frompoints(ring, name=f"r{z}") for z in drawn]
        for roi, z in zip(rois, drawn, strict=True):
            roi.position = z + 1
        (tmp_path / name).mkdir()
        write_rois(tmp_path / name / "f.zip", rois)
    image = tmp_path / "f.ome.tif"
    write_image(image, xr.DataArray(np.zeros((5, 12, 12), np.uint8), dims=tuple("ZYX")))
    both = tmp_path / "a", tmp_path / "b"
    found = agree(*both, like=image, planes=planes)
    assert found.planes["plane"].tolist() == compared
    assert any(f"{len(compared)} of 5 planes labelled" in notice for notice in found.notices)
    agree(*both, like=image, planes=planes, consensus_folder=tmp_path / "c")
    mask = read(tmp_path / "c" / "f_mask.ome.tif").values.squeeze()
    assert [z for z in range(5) if (mask[z] != 255).any()] == compared, "the others stay unsure"


def test_planes_count_that_either_labels_and_those_that_are_there(tmp_path: Path) -> None:
    stacks = np.zeros((2, 6, 20, 20), np.uint8)
    stacks[:, 1, 3:9, 3:9] = stacks[1, 3, 3:9, 3:9] = 1
    folders = [tmp_path / name for name in "ab"]
    for folder, stack in zip(folders, stacks, strict=True):
        folder.mkdir()
        write(folder, "s", stack)
        write(folder, "apart", np.roll(stack, stack[3].any(), axis=0))  # no plane of both
    one = agree(*(folder / "s_mask.ome.tif" for folder in folders)).planes
    assert one["plane"].tolist() == [1, 3]
    assert one["n_both_px"].sum() / (one["n_both_px"] + one["n_only_b_px"]).sum() == 0.5
    assert agree(*folders).planes.groupby("image")["plane"].agg(list)["apart"] == [1, 2, 4]
    same = agree(folders[0] / "s_mask.ome.tif", folders[0] / "s_mask.ome.tif")
    assert "a copy is not" not in agreement_text(same), "only one plane of six was compared"
    with pytest.raises(MitolumeError, match=r"--planes 9-12: it has planes 0 to 5$"):
        evaluate(*folders, planes="9-12")


def test_consensus_goes_through_files(
    hands: tuple[Path, Path], tmp_path: Path, shell: Shell
) -> None:
    out = tmp_path / "both"
    arguments = ("evaluate", *hands, "--agreement", "--consensus", out)
    assert "masks: 4" in shell(*arguments, "--out", tmp_path / "agreement.csv")
    assert tuple(pd.read_csv(tmp_path / "agreement.csv").columns) == COLUMNS
    files = sorted(out.glob("*.tif"))
    assert [file.name for file in files] == [f"f{i}_mask.ome.tif" for i in range(4)]
    for seed, file in enumerate(files):
        values = read_plane(read(file))
        kind = decide_kind({file.name: np.unique(values)})[0]
        assert (to_mask(values, kind) == consensus(*two_hands(seed))).all()
    # A model's masks are scored against the consensus: what people dispute counts nowhere.
    assert (evaluate(hands[0], out)["iou"] == 1).all()
    assert "is a folder of masks that are compared" in shell(*arguments[:-1], hands[1], code=1)


def test_consensus_needs_agreement(hands: tuple[Path, Path], shell: Shell) -> None:
    assert "--consensus needs --agreement" in shell(
        "evaluate", *hands, "--consensus", hands[0].parent / "both", code=2
    )
    assert not (hands[0].parent / "both").exists()
    assert "--objects and --agreement are two comparisons" in shell(
        "evaluate", *hands, "--agreement", "--objects", code=2
    )


def test_a_faulty_mask_leaves_nothing_behind(hands: tuple[Path, Path], tmp_path: Path) -> None:
    small = np.zeros((5, 80), np.uint8)
    tifffile.imwrite(hands[1] / "f3.tif", small)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(MitolumeError, match=r"f3_mask.ome.tif is Y 64 x X 80, but .* Y 5 x X 80"):
        agree(*hands, out=tmp_path / "a.csv", consensus_folder=tmp_path / "both")
    tifffile.imwrite(hands[1] / "f3.tif", np.zeros((80, 64), np.uint8))
    with pytest.raises(MitolumeError, match="two masks of one image"):
        agree(*hands, consensus_folder=tmp_path / "both")
    tifffile.imwrite(hands[1] / "f3.tif", np.full((64, 80), 7, np.uint8))
    with pytest.raises(MitolumeError, match="holds the values 7"):
        agree(*hands, consensus_folder=tmp_path / "both")
    assert set(tmp_path.rglob("*")) == before


def test_names_of_both_sides_are_shown_where_none_match(tmp_path: Path) -> None:
    for folder, names in (("a", "pqrstu"), ("b", "xy"), ("c", "px"), ("d", "")):
        (tmp_path / folder).mkdir()
        for name in names:
            tifffile.imwrite(tmp_path / folder / f"{name}.tif", np.zeros((9, 9), np.uint8))
    for compared in (agree, evaluate):
        with pytest.raises(MitolumeError, match=r"\(p.tif, q.tif, r.tif and 3 more\).*x.tif, y"):
            compared(tmp_path / "a", tmp_path / "b")
        with pytest.raises(MitolumeError, match="holds no mask file"):
            compared(tmp_path / "a", tmp_path / "d")
    with pytest.raises(MitolumeError, match=r"lacks a mask for 1 of 2 files in .*\(x.tif\).*q.tif"):
        evaluate(tmp_path / "a", tmp_path / "c")


# The ceiling ---------------------------------------------------------------------------------

CLEAR = Ceiling(iou=0.732, iou_image=0.711, interval=(0.65, 0.77), n_images=12)


@pytest.mark.parametrize(
    "ceiling", [CLEAR, Ceiling(iou=0.02, iou_image=0.01, interval=None, n_images=1)]
)
def test_the_report_draws_and_explains_the_ceiling(ceiling: Ceiling) -> None:
    html = render(content(ceiling=ceiling, panels=[]))
    label = "Dotted: two annotators agree to {:.2f}"
    assert html.count(f"{label.format(ceiling.iou_image)} on average. ") == 2  # read aloud, too
    assert html.count(f"{label.format(ceiling.iou)}.<") == 1
    text = Page(html).text
    assert f"to a foreground IoU of {ceiling.iou_image:.2f}" in text
    assert ("95 % t interval over images 0.65 to 0.77" in text) == (ceiling is CLEAR)
    assert "annotators" not in render(content(panels=[]))


def test_the_ceiling_is_drawn_without_a_validation_curve_and_without_model_2() -> None:
    alone = images(("model_1",), ("train", "test"))
    html = render(content(ceiling=CLEAR, panels=[], images=alone, log=log(validated=False)))
    assert html.count("two annotators agree to 0.71 on average.<") == 1
    assert "two annotators agree to 0.73" not in html


def test_the_ceiling_of_a_table(hands: tuple[Path, Path]) -> None:
    folder = hands[0].parent
    agree(*hands, out=folder / "agreement.csv")
    ceiling = ceiling_of(folder / "agreement.csv")
    table = agree(*hands).planes
    assert ceiling.iou_image == pytest.approx(table["iou"].mean())
    assert ceiling.n_images == 4
    assert ceiling.interval == pytest.approx(mean_interval(table["iou"]))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "not a table of agreement"),
        ("image,iou\na,0.7\n", "not a table of agreement"),
        ("image,{}\na,1,2,x,4,5\n", "not a table of agreement"),
        ("image,{}\na,1,2,-3,4,5\n", "negative"),
        ("image,{}\na,0,0,0,4,5\n", "neither annotator marked anything"),
        ("image,{}\n", "neither annotator marked anything"),
    ],
)
def test_other_tables_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    pixels = "n_both_px,n_only_a_px,n_only_b_px,n_neither_px,n_unsure_px"
    (tmp_path / "a.csv").write_text(text.format(pixels))
    with pytest.raises(MitolumeError, match=sentence):
        ceiling_of(tmp_path / "a.csv")
    with pytest.raises(MitolumeError, match="no such file"):
        ceiling_of(tmp_path / "b.csv")
