"""Masks drawn as outlines: in tables, in scores, and converted on the command line."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import tifffile
import xarray as xr
from helpers.command import Shell
from helpers.masks import read_objects
from helpers.roi_files import (
    ELSEWHERE,
    POLYGON,
    RECT,
    SUBPIXEL,
    image,
    roi_file,
    roi_set,
)

from mitolume.batch.agreement import agree
from mitolume.batch.evaluate import evaluate
from mitolume.errors import MitolumeError
from mitolume.io.check import check_table
from mitolume.io.geojson import read_geojson
from mitolume.io.mask_files import open_mask
from mitolume.io.outlines import Outline, draw, fill
from mitolume.io.read import read, read_plane
from mitolume.io.rows import read_row
from mitolume.io.write import write_labels, write_mask

# --- masks ---------------------------------------------------------------------------------


def test_a_roi_set_is_a_mask(tmp_path: Path) -> None:
    rois = {
        "a.roi": roi_file(RECT, (1, 1, 5, 5), name="a"),
        "unsure-2.roi": roi_file(RECT, (4, 4, 7, 7), name="Unsure-2"),
        "b.roi": roi_file(RECT, (18, 18, 30, 30), name="b"),
    }
    like = image(tmp_path / "i.ome.tif")
    mask = open_mask(roi_set(tmp_path / "a.zip", rois), like)
    plane = read_plane(mask)
    assert mask.shape == (1, 1, 1, 20, 20)
    assert plane.dtype == np.uint8
    assert (plane[1:4, 1:4] == 1).all()
    assert (plane[4:7, 4:7] == 255).all()  # also where it lies on a mitochondrion
    assert (plane[18:, 18:] == 1).all()  # cut off at the image's edge
    assert np.bincount(plane.ravel(), minlength=256)[[0, 1, 255]].tolist() == [400 - 28, 19, 9]


def test_outlines_need_an_image_and_must_lie_in_it(tmp_path: Path) -> None:
    path = roi_set(tmp_path / "a.zip", {"far.roi": roi_file(RECT, (30, 2, 40, 9), name="far")})
    with pytest.raises(MitolumeError, match="do not say how large their image is"):
        open_mask(path)
    with pytest.raises(MitolumeError, match=r"'far' \(x 30 to 40.* outside the image, which is 20"):
        open_mask(path, image(tmp_path / "i.ome.tif"))
    roi_set(tmp_path / "b.zip", {"l.roi": ELSEWHERE["line.roi"]})
    with pytest.raises(MitolumeError, match=r"outlines no object .*1 line"):
        open_mask(tmp_path / "b.zip", image(tmp_path / "i.ome.tif"))


@pytest.mark.parametrize(
    "where",
    [
        {"position": 3},
        {"czt": (1, 3, 1)},
        {"czt": (1, 0, 3)},  # Fiji took planes without names for time points
        {"name": "0003-0123-0456"},
    ],
)
def test_outlines_lie_on_their_plane_of_a_stack(tmp_path: Path, where: dict[str, Any]) -> None:
    elsewhere = {key: 1 if key == "position" else value for key, value in where.items()}
    if "czt" in where:
        elsewhere = {"czt": (1, 1, 1)}
    if "name" in where:
        elsewhere = {"name": "0001-0123-0456"}
    rois = {
        "a.roi": roi_file(RECT, (1, 1, 5, 5), **where),
        "b.roi": roi_file(RECT, (8, 8, 9, 9), **elsewhere),
    }
    mask = open_mask(roi_set(tmp_path / "a.zip", rois), image(tmp_path / "i.ome.tif", (4, 20, 20)))
    assert [int(read_plane(mask, z=z).sum()) for z in range(4)] == [1, 0, 16, 0]


def test_planes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    rois = {f"{p}.roi": roi_file(RECT, (1, 1, 5, 5), position=p) for p in (2, 5)}
    path = roi_set(tmp_path / "a.zip", rois)
    for depth in (1, 4):
        with pytest.raises(MitolumeError, match=rf"z-planes 2, 5 .*the image has {depth}"):
            open_mask(path, image(tmp_path / f"{depth}.ome.tif", (depth, 20, 20)))
    one_plane = roi_set(tmp_path / "b.zip", {"a.roi": rois["5.roi"]})
    assert read_plane(open_mask(one_plane, image(tmp_path / "c.ome.tif"))).sum() == 16


def test_outlines_without_a_plane_are_of_one(tmp_path: Path) -> None:
    like = image(tmp_path / "i.ome.tif", (4, 20, 20))
    path = roi_set(tmp_path / "a.zip", {"a.roi": roi_file(RECT, (1, 1, 5, 5), name="a")})
    assert open_mask(path, like).sizes["Z"] == 1
    (tmp_path / "t.csv").write_text("image,mask\ni.ome.tif,a.zip\n")
    with pytest.raises(MitolumeError, match="say in column `planes`"):
        check_table(tmp_path / "t.csv")


def overlay(path: Path, pixels: np.ndarray, rois: list[bytes], key: str = "Overlays") -> Path:
    tifffile.imwrite(
        path, pixels, imagej=True, metadata={key: rois if key == "Overlays" else rois[0]}
    )
    return path


def test_of_other_files_the_pixels_are_the_mask(tmp_path: Path) -> None:
    drawn = np.zeros((20, 20), np.uint8)
    drawn[5:9] = 255
    path = overlay(tmp_path / "mask.tif", drawn, [ELSEWHERE["rectangle.roi"]])
    np.testing.assert_array_equal(read_plane(open_mask(path)), drawn)
    selection = overlay(tmp_path / "selection.tiff", drawn, [ELSEWHERE["rectangle.roi"]], "ROI")
    assert read_plane(open_mask(selection, read(selection))).sum() == 32


def test_an_image_may_be_its_own_mask_by_its_overlay(tmp_path: Path) -> None:
    two_greys = np.eye(20, dtype=np.uint8) * 9  # as pixels, this could be a mask
    overlay(tmp_path / "a.tif", two_greys, [ELSEWHERE["rectangle.roi"]])
    assert read_plane(open_mask(tmp_path / "a.tif", read(tmp_path / "a.tif"))).sum() == 32
    (tmp_path / "t.csv").write_text("image,mask\na.tif,a.tif\n")
    (row,) = check_table(tmp_path / "t.csv").fields
    picture, mask = read_row(row, 0, "unsure")
    assert mask is not None
    assert (picture.max(), mask.sum()) == (9, 32)
    like = image(tmp_path / "i.ome.tif")
    with pytest.raises(MitolumeError, match="is the image itself and holds no overlay"):
        open_mask(tmp_path / "i.ome.tif", like)


def test_a_table_mixes_outlines_and_pixels(tmp_path: Path) -> None:
    rois = {
        "a.roi": ELSEWHERE["rectangle.roi"],
        "255.roi": roi_file(RECT, (1, 1, 2, 2), name="255"),
    }
    roi_set(tmp_path / "a.zip", rois)
    for name in ("a", "b"):
        image(
            tmp_path / f"{name}.ome.tif", value=np.random.default_rng(ord(name)).random((1, 20, 20))
        )
    tifffile.imwrite(tmp_path / "b.tif", np.eye(20, dtype=np.uint8) * 255)
    (tmp_path / "t.csv").write_text("image,mask\na.ome.tif,a.zip\nb.ome.tif,b.tif\n")
    table = check_table(tmp_path / "t.csv")
    assert table.mask_kind == "labels"  # of the pixels; outlines say themselves what they mean
    sums = [read_row(row, 0, table.mask_kind)[1] for row in table.fields]
    assert [int((m == 1).sum()) for m in sums if m is not None] == [32, 20]
    assert [int((m == 255).sum()) for m in sums if m is not None] == [1, 0]


# --- QuPath --------------------------------------------------------------------------------


def feature(name: str = "", z: int | None = None, **more: Any) -> dict[str, Any]:
    left = more.pop("left", 1)
    ring = [[left, 1], [left + 4, 1], [left + 4, 5], [left, 5], [left, 1]]
    geometry: dict[str, Any] = {"type": "Polygon", "coordinates": [ring]}
    if z is not None:
        geometry["plane"] = {"c": -1, "z": z, "t": 0}
    properties: dict[str, Any] = {"objectType": "annotation"} | more
    if name:
        properties["classification"] = {"name": name, "color": [1, 2, 3]}
    return {"type": "Feature", "id": "x", "geometry": geometry, "properties": properties}


def geojson(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_geojson_in_every_wrapping(tmp_path: Path) -> None:
    single = feature()
    nested = feature("Mitochondria") | {"properties": {"childObjects": [feature(left=9)]}}
    for content, count in [
        (single, 1),
        ([single, single], 2),
        ({"type": "FeatureCollection", "features": [single]}, 1),
        (single["geometry"], 1),
        (nested, 2),
    ]:
        outlines, notices = read_geojson(geojson(tmp_path / "a.geojson", content))
        assert len(outlines) == count
        assert not notices
        assert outlines[0].rings[0][:2].tolist() == [[1, 1], [5, 1]]


def test_polygons_with_holes_and_several_pieces(tmp_path: Path) -> None:
    outer = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
    hole = [[2.5, 2.5], [6.5, 2.5], [6.5, 6.5], [2.5, 6.5], [2.5, 2.5]]
    piece = [[12, 12], [14, 12], [14, 14], [12, 14], [12, 12]]
    content = {"type": "MultiPolygon", "coordinates": [[outer, hole], [piece]]}
    like = image(tmp_path / "i.ome.tif")
    plane = read_plane(open_mask(geojson(tmp_path / "a.geojson", content), like))
    assert plane.sum() == 100 - 16 + 4


def test_classes_of_qupath(tmp_path: Path) -> None:
    features = [feature("Mitochondria"), feature("Ignore*"), feature("Cell"), feature("Region*")]
    outlines, notices = read_geojson(geojson(tmp_path / "a.json", features))
    assert [outline.unsure for outline in outlines] == [False, True]
    assert notices == ["taken as mitochondria: Mitochondria; left out: 1 Cell, 1 Region*"]
    others = [feature("Tubular"), feature("Round"), feature(name="", left=3)]
    outlines, notices = read_geojson(geojson(tmp_path / "b.json", others))
    assert len(outlines) == 3
    assert notices == ["all of these are taken as mitochondria: Round, Tubular, without a class"]
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}}
    derived = feature() | {"properties": {"classification": {"names": ["Mito", "fused"]}}}
    outlines, notices = read_geojson(geojson(tmp_path / "c.json", [derived, point]))
    assert len(outlines) == 1
    assert notices == ["1 Point without an area left out"]


def test_planes_of_qupath(tmp_path: Path) -> None:
    like = image(tmp_path / "i.ome.tif", (3, 20, 20))
    path = geojson(tmp_path / "a.geojson", [feature(), feature(z=2, left=9)])
    mask = open_mask(path, like)
    assert [int(read_plane(mask, z=z).sum()) for z in range(3)] == [16, 0, 16]
    alone = geojson(tmp_path / "b.geojson", [feature()])
    assert open_mask(alone, like).sizes["Z"] == 1
    planes = [feature(z=z) for z in (0, 1)]  # of one object, as earlier versions wrote it
    for one in planes:
        one["properties"]["name"] = "0007"
    found, _ = read_objects(geojson(tmp_path / "c.geojson", planes), tmp_path / "i.ome.tif")
    assert np.unique(found).tolist() == [0, 7]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[1, 2]",
        '{"type": "Polygon"}',
        '{"type": "Polygon", "coordinates": [[[1, 2], [3, NaN], [4, 5]]]}',
        '{"type": "Polygon", "coordinates": [[1, 2, 3]]}',
    ],
)
def test_what_is_no_geojson_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.geojson").write_text(text)
    with pytest.raises(MitolumeError, match=r"a\.geojson is not readable GeoJSON"):
        read_geojson(tmp_path / "a.geojson")


@pytest.mark.parametrize("keys", [("images", "annotations"), ("shapes", "imagePath"), ("a",)])
def test_json_of_another_program_is_called_so(tmp_path: Path, keys: tuple[str, ...]) -> None:
    (tmp_path / "a.json").write_text(json.dumps({key: [] for key in keys}))
    with pytest.raises(MitolumeError, match=rf"a.json is JSON, but not GeoJSON: it has {keys[0]}"):
        read_geojson(tmp_path / "a.json")


# --- scores and the command line -----------------------------------------------------------


def test_evaluate_takes_outlines_on_either_side(tmp_path: Path) -> None:
    truth = np.zeros((20, 20), np.uint8)
    truth[1:9, 3:7] = 1
    for folder in ("masks", "truth"):
        (tmp_path / folder).mkdir()
    write_mask(tmp_path / "truth" / "a_mask.ome.tif", xr.DataArray(truth, dims=("Y", "X")))
    rois = {
        "a.roi": ELSEWHERE["rectangle.roi"],
        "u.roi": roi_file(RECT, (15, 15, 17, 17), name="unsure"),
    }
    drawn = roi_set(tmp_path / "masks" / "a.zip", {"a.roi": rois["a.roi"]})
    for sides in (
        (tmp_path / "masks", tmp_path / "truth"),
        (tmp_path / "truth", tmp_path / "masks"),
    ):
        scores = evaluate(*sides)
        assert scores["iou"].tolist() == [1.0]
    both = roi_set(tmp_path / "b.zip", rois)
    scores = evaluate(tmp_path / "truth" / "a_mask.ome.tif", both, "labels")
    assert scores["n_unsure"].tolist() == [4]
    counted = evaluate(both, tmp_path / "truth" / "a_mask.ome.tif", objects=True)
    assert counted[["objects_true", "objects_predicted", "object_tp_50"]].values.tolist() == [
        [1] * 3
    ]
    with pytest.raises(MitolumeError, match="both hold outlines"):
        evaluate(drawn, both)


def test_two_sets_of_outlines_are_compared_on_their_images(tmp_path: Path) -> None:
    like = tmp_path / "images" / "a.ome.tif"
    size = {"pixel_size_um": {"Y": 0.5, "X": 0.5}}
    write_labels(like, xr.DataArray(np.ones((20, 20), np.uint8), dims=("Y", "X"), attrs=size))
    for who, right in (("anna", 12), ("ben", 14)):
        rois = {"1.roi": roi_file(RECT, (2, 2, right, 12)), "2.roi": ELSEWHERE["line.roi"]}
        (tmp_path / who).mkdir()
        roi_set(tmp_path / who / "a.zip", rois)
    for images in (like, like.parent):
        found = agree(tmp_path / "anna", tmp_path / "ben", like=images)
        assert found.planes["iou"].tolist() == [100 / 120]
        assert found.planes["outline_95_percent_um"].tolist() == [1.0]
        assert [notice.split(":")[0] for notice in found.notices] == ["a.zip"]
    scores = evaluate(tmp_path / "anna", tmp_path / "ben", like=like.parent)
    assert scores.attrs["notices"] == list(found.notices)
    with pytest.raises(MitolumeError, match="anna holds no image"):
        evaluate(tmp_path / "anna", tmp_path / "ben", like=tmp_path / "anna")


def test_convert_there_and_back(tmp_path: Path, shell: Shell) -> None:
    rng = np.random.default_rng(3)
    mask = (rng.random((3, 24, 30)) < 0.4).astype(np.uint8)
    mask[:, :4, :4] = 255
    source = tmp_path / "a_mask.ome.tif"
    size = {"Z": 1.0, "Y": 0.1, "X": 0.1}
    write_mask(source, xr.DataArray(mask, dims=("Z", "Y", "X"), attrs={"pixel_size_um": size}))
    out, back = tmp_path / "out.zip", tmp_path / "back.ome.tif"
    shell("convert", source, "--out", out, "--mask-kind", "unsure")
    shell("convert", out, "--out", back, "--like", source)
    again = read(back)
    assert again.attrs["pixel_size_um"] == size
    np.testing.assert_array_equal(again.values[0, 0], mask)
    labels = read_objects(out, source)[0]
    np.testing.assert_array_equal(labels, read_objects(source)[0])  # numbers join the planes


def test_no_object_number_means_unsure(tmp_path: Path, shell: Shell) -> None:
    labels = np.zeros((8, 20), np.int64)
    for place, number in enumerate((1, 254, 255, 2550, 70_000, 255_001)):
        labels[2:6, 3 * place : 3 * place + 2] = number
    write_labels(tmp_path / "labels.ome.tif", xr.DataArray(labels, dims=("Y", "X")))
    source, out, back = (tmp_path / name for name in ("labels.ome.tif", "a.zip", "b.ome.tif"))
    assert "--mask-kind labels" in shell("convert", source, "--out", out, code=1)
    shell("convert", source, "--out", out, "--mask-kind", "labels")
    found, unsure = read_objects(out, source)
    np.testing.assert_array_equal(found, labels)
    assert not unsure.any()
    shell("convert", out, "--out", back, "--like", source, "--labels")
    np.testing.assert_array_equal(read(back).values[0, 0, 0], labels)


def test_outlines_drawn_later_lie_on_top_and_have_their_own_number(tmp_path: Path) -> None:
    rois = {f"{x}.roi": roi_file(RECT, (x, 1, x + 4, 3), name=f"{x}") for x in (1, 3)}
    image(tmp_path / "i.ome.tif")
    labels, _ = read_objects(roi_set(tmp_path / "a.zip", rois), tmp_path / "i.ome.tif")
    assert labels[1, :8].tolist() == [0, 1, 1, 2, 2, 2, 2, 0]


def test_convert_refuses(tmp_path: Path, shell: Shell) -> None:
    image(tmp_path / "i.ome.tif", value=np.ones((1, 20, 20), np.uint8))
    source = tmp_path / "i.ome.tif"
    (tmp_path / "d.zip").touch()
    for out, more, wanted in [
        ("d.zip", (), "d.zip exists already"),
        (".", ("--to", "png"), "--to png: masks are written as .zip"),
        ("a.png", (), r"a.png: masks are written as .zip (an ImageJ ROI set), .ome.tif"),
        ("a.zip", ("--labels",), "must end in .ome.tif"),
        ("i.ome.tif", (), "i.ome.tif is one of the inputs"),
        ("b.zip", ("--mask-kind", "x"), "no mask kind 'x'"),
        ("c.zip", ("--like", roi_set(tmp_path / "r.zip")), "r.zip"),
    ]:
        assert wanted in shell("convert", source, "--out", tmp_path / out, *more, code=1)
    assert sorted(p.name for p in tmp_path.glob("?.*")) == ["d.zip", "i.ome.tif", "r.zip"]


def test_convert_takes_folders(tmp_path: Path, shell: Shell) -> None:
    for name in ("a", "b", "c"):
        labels = xr.DataArray(np.eye(12, dtype=np.uint8) * 7, dims=("Y", "X"))
        write_labels(tmp_path / "m" / f"{name}_cp_masks.ome.tif", labels)
    (tmp_path / "m" / "c_cp_masks.ome.tif").write_bytes(b"II*")
    options = ("--to", "zip", "--mask-kind", "labels", "--out", tmp_path / "r")
    said = shell("convert", tmp_path / "m", *options, code=1)
    assert "3 masks found, 2 converted; the others failed:" in said
    assert sorted(p.name for p in (tmp_path / "r").glob("*.zip")) == ["a_rois.zip", "b_rois.zip"]
    back = ("convert", tmp_path / "r", "--to", "ome.tif", "--out", tmp_path / "b")
    shell(*back, "--like", tmp_path / "m", "--labels")
    np.testing.assert_array_equal(
        read(tmp_path / "b" / "a_labels.ome.tif").values.squeeze(), np.eye(12) * 7
    )


def test_outlines_that_others_cover_are_pointed_out(tmp_path: Path, shell: Shell) -> None:
    image(tmp_path / "i.ome.tif")
    boxes = [(6, 6, 9, 9), (4, 4, 12, 12), (14, 14, 18, 18)]
    rois = {f"{n}.roi": roi_file(RECT, box) for n, box in enumerate(boxes)}
    path = roi_set(tmp_path / "a.zip", rois)
    out, source = tmp_path / "o.ome.tif", tmp_path / "i.ome.tif"
    said = shell("convert", path, "--out", out, "--like", source, "--labels")
    assert "a.zip: 1 of 3 objects lie in part under smaller ones" in said
    assert "(numbers 2)" in said
    assert np.unique(read(out).values, return_counts=True)[1][1:].tolist() == [9, 55, 16]


def test_outlines_without_pixels_of_their_own_are_counted(tmp_path: Path, shell: Shell) -> None:
    """Two of one name, which a zip can hold; twins; one between the middles of pixels."""
    image(tmp_path / "i.ome.tif")
    with warnings.catch_warnings(), ZipFile(tmp_path / "a.zip", "w") as file:
        warnings.simplefilter("ignore")  # of the two of one name
        for name, box in [("a", (2, 2, 5, 5)), ("a", (8, 2, 12, 5)), ("b", (8, 2, 12, 5))]:
            file.writestr(f"{name}.roi", roi_file(RECT, box))
        corners = [(14, 0), (15, 0), (14, 1)]
        thin = [(14.6, 14.6), (15.4, 14.6), (15.4, 15.4)]
        file.writestr(
            "c.roi", roi_file(POLYGON, (14, 14, 16, 16), corners, floats=thin, options=SUBPIXEL)
        )
    command = ("convert", tmp_path / "a.zip", "--out", tmp_path / "o.ome.tif", "--labels")
    said = shell(*command, "--like", tmp_path / "i.ome.tif")
    assert "a.zip: 1 of 4 objects are lost, for others cover them" in said
    assert "a.zip: 1 of 4 objects hold the middle of no pixel, and are left out (numbers 4)" in said
    mask = open_mask(tmp_path / "a.zip", read(tmp_path / "i.ome.tif"))
    assert "hold the middle of no pixel" in mask.attrs["notices"][0]


def test_thousands_of_outlines_are_drawn_in_their_boxes() -> None:
    """A drawing per outline over the whole image would take minutes."""
    corners = np.array([[0.5, 0], [12, 3], [9, 11], [1, 8]])
    at = np.random.default_rng(0).uniform(0, 4000, (4000, 2))
    outlines = [Outline(str(n), (corners + corner,)) for n, corner in enumerate(at)]
    labels = draw(zip(range(1, 4001), outlines, strict=True), (4096, 4096))
    window, inside = fill(outlines[-1].rings, labels.shape)
    assert (labels[window][inside] == 4000).all()
    assert inside.size < 15 * 15


def test_a_label_image_of_one_number_is_one_object(tmp_path: Path) -> None:
    labels = np.zeros((8, 8), np.uint8)
    labels[1:3], labels[5:7] = 7, 7
    write_labels(tmp_path / "a.ome.tif", xr.DataArray(labels, dims=("Y", "X")))
    assert read_objects(tmp_path / "a.ome.tif", mask_kind="labels")[0].max() == 7
