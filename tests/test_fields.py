"""The table of fields: what it holds, all its faults at once, splits that don't leak."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from helpers.fields import blobs, write_field
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from roifile import ImagejRoi

from mitolume.batch.evaluate import evaluate
from mitolume.errors import MitolumeError
from mitolume.io.check import check_table
from mitolume.io.fields import Field, format_planes, leaks, parse_planes, with_label
from mitolume.io.formats import open_scenes, told_apart
from mitolume.io.masks import decide_kind, to_mask
from mitolume.io.read import read
from mitolume.io.rois import write_rois
from mitolume.io.rows import read_proposal, read_row
from mitolume.io.split import SplitSettings, assign_roles, choose_labelled
from mitolume.io.table import TableError, read_table, write_table
from mitolume.runs.begin import begin
from mitolume.runs.recipe import load_recipe


@given(st.sets(st.integers(0, 300), min_size=1))
def test_planes_are_read_as_written(planes: set[int]) -> None:
    assert parse_planes(format_planes(sorted(planes))) == tuple(sorted(planes))


@pytest.mark.parametrize("text", ["x", "3-", "5-2", "1-9:0", "-3", "1.5"])
def test_bad_planes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="planes"):
        parse_planes(text)


def test_names_that_differ_in_case_stay_short() -> None:
    files = [Path(f"/disk/dish/{name}.tif") for name in "aA"]
    assert told_apart(files) == dict(zip(files, "aA", strict=True))


def test_a_table_is_read_as_written(table: Path, tmp_path: Path) -> None:
    rows = list(check_table(table).fields)
    write_table(tmp_path / "sub" / "again.csv", rows)
    again = read_table(tmp_path / "sub" / "again.csv")
    assert [r.image.resolve() for r in again] == [r.image.resolve() for r in rows]
    assert [(r.role, r.planes, r.specimen, r.condition, r.line) for r in again] == [
        (r.role, r.planes, r.specimen, r.condition, r.line) for r in rows
    ]


def test_semicolons_capitals_and_unknown_columns(tmp_path: Path) -> None:
    write_field(tmp_path, "a", 0)
    text = "image;mask;role;user\na.ome.tif;a_mask.ome.tif;TRAIN;Ada\n"
    (tmp_path / "t.csv").write_text("\ufeff" + text, encoding="utf-8")
    (row,) = read_table(tmp_path / "t.csv")
    assert row.role == "train"
    assert row.extra == {"user": "Ada"}


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    write_field(tmp_path, "a", 0)
    (tmp_path / "t.csv").write_text(
        "image,mask,role,planes,specimen,pixel_size_um\n"
        "a.ome.tif,a_mask.ome.tif,train,,s1,\n"
        "a.ome.tif,,test,,s1,\n"
        "b.ome.tif,,unlabelled,9-1,s2,\n"
        "a.ome.tif,a_mask.ome.tif,teach,,s3,100\n"
    )
    with pytest.raises(TableError) as error:
        read_table(tmp_path / "t.csv")
    text = str(error.value)
    for part in ("6 faults", "line 3: role test needs a mask", "line 4: image b.ome.tif does not",
                 "run backwards", "'teach' is not one of", "pixel_size_um is '100'",
                 "specimen 's1' is in test and train"):  # fmt: skip
        assert part in text


def test_faults_of_files_are_named_at_once(tmp_path: Path) -> None:
    image, mask = write_field(tmp_path, "a", 0)
    tifffile.imwrite(tmp_path / "small.tif", np.ones((5, 5), np.uint8))
    tifffile.imwrite(tmp_path / "grey.tif", np.full((64, 80), 7, np.uint8))
    tifffile.imwrite(tmp_path / "nan.tif", np.full((64, 80), np.nan, np.float32))
    tifffile.imwrite(tmp_path / "turned.tif", np.ones((80, 64), np.uint8))
    (tmp_path / "cut.ome.tif").write_bytes(image.read_bytes()[:900])
    (tmp_path / "t.csv").write_text(
        "image,mask,planes\n"
        "missing.tif,,\n"
        f"{image.name},small.tif,\n"
        f"{image.name},grey.tif,0\n"
        "nan.tif,,\n"
        f"{image.name},turned.tif,\n"
        "cut.ome.tif,,\n"
        f"{image.name},{mask.name},3\n"
    )
    with pytest.raises(TableError) as error:
        check_table(tmp_path / "t.csv")
    text = str(error.value)
    for part in ("line 2: image missing.tif does not exist", "line 3: mask",
                 "is 5 x 5 pixels (Y x X), but its image",
                 "holds the values 7", "5120 pixels that are NaN", "look transposed",
                 "cut.ome.tif can't be read", "but column `planes` names 3"):  # fmt: skip
        assert part in text


def test_cells_beyond_the_header_are_a_fault_and_lines_are_the_files(tmp_path: Path) -> None:
    write_field(tmp_path, "a", 0)
    text = "image,mask,specimen\n\na.ome.tif,a_mask.ome.tif,dish 1, left\n"
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(TableError, match="line 3: it has more cells than the header"):
        read_table(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("image,mask,mask\na.ome.tif,a_mask.ome.tif,\n", "column 'mask' is there twice"),
        ("picture\na.ome.tif\n", "no column `image`; it has picture"),
        ('image,mask\n"a.ome.tif,\n\n', "line 2: column image has a line break, or a quote"),
        (f"image,mask\n{'x' * 300}.tif,\n", "does not exist"),
        (f"image,mask\n{'x' * 300}/a.tif,\n", "does not exist"),
        ("image,planes\na.ome.tif,0-99999999999\n", "go beyond any stack"),
        ("image,mask,specimen\na.ome.tif,,1\ncopy.ome.tif,,2\n", r"a\.ome\.tif is the same"),
        ("image,planes\na.ome.tif,all\n", "can't be read at 'all'"),
        ("image,planes\na.ome.tif,04.Sep\n", "Excel made a date"),
        ("image\nhttps://host/a.ome.zarr\n", "image https://host/a.ome.zarr: a table holds no"),
        ("i\0m\0a\0g\0e\0", "is not UTF-8 text; in Excel save it"),
        ("image,condition,planes\na.ome.tif,a,0\na.ome.tif,b,1\n", r"column `condition` \(a, b\)"),
        ("image,pixel_size_um\na.ome.tif,1\na.ome.tif,2\n", r"column `pixel_size_um` \(1.0, 2.0"),
        ("image,mask\na.ome.tif,rgb.png\n", "has 3 channels or colours; save it in grey"),
        ("image,mask\na.ome.tif,alpha.png\n", "holds its drawing in the transparency"),
        ("image,mask\nhuge.tif,\n", r"values up to 1e\+31, which are not grey values"),
        ("image,mask\nempty.tif,\n", r"empty\.tif is empty \(0 bytes\)"),
    ],
)
def test_odd_tables_and_files_are_named(tmp_path: Path, text: str, fault: str) -> None:
    image, _ = write_field(tmp_path, "a", 0)
    (tmp_path / "copy.ome.tif").write_bytes(image.read_bytes())
    (tmp_path / "empty.tif").write_bytes(b"")
    tifffile.imwrite(tmp_path / "huge.tif", np.full((9, 9), 1e31))
    colour = np.zeros((64, 80, 4), np.uint8)
    colour[:9, :, 0] = 255
    Image.fromarray(colour[..., :3]).save(tmp_path / "rgb.png")
    colour[..., :3], colour[:9, :, 3] = 255, 255
    Image.fromarray(colour).save(tmp_path / "alpha.png")
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(MitolumeError, match=fault):
        check_table(tmp_path / "t.csv")


def test_masks_that_nobody_drew_are_noticed(tmp_path: Path) -> None:
    planes, masks = np.stack([blobs(i) for i in range(4)], axis=1)
    masks[[1, 2]] = 0
    grey = {"photometric": "minisblack", "metadata": {"axes": "ZYX"}}
    tifffile.imwrite(tmp_path / "s.tif", planes.astype(np.uint8), **grey)
    tifffile.imwrite(tmp_path / "s_mask.tif", masks.astype(np.uint8), **grey)
    tifffile.imwrite(tmp_path / "b.tif", blobs(7)[0])
    tifffile.imwrite(tmp_path / "b_mask.tif", masks[1].astype(np.uint8))
    (tmp_path / "t.csv").write_text("image,mask\ns.tif,s_mask.tif\nb.tif,b_mask.tif\n")
    stack, single = check_table(tmp_path / "t.csv").notices
    assert "s_mask.tif (2 of 4 planes labelled): nothing is drawn at other" in stack
    assert "b_mask.tif: no foreground in the mask" in single


@pytest.mark.parametrize(
    ("kind", "drawn", "asked", "kept"),
    [
        ("zip", [2], "", [2]),
        ("zip", [1, 2], "", [1, 2]),
        ("zip", [2], "0-4", [0, 1, 2, 3, 4]),
        ("zip", [None], "3", [3]),  # outlines without a plane: that of the table
        ("zip", [None, 2], "", [0, 1, 2, 3, 4]),
        ("geojson", [0, 3], "", [0, 3]),
        ("tif", [2], "", [2]),
        ("tif", [1, 3], "", [1, 3]),
        ("tif", [1, 2], "", [0, 1, 2, 3, 4]),  # whole, as a program or an exact mask has it
        ("tif", [2], "1-3", [1, 2, 3]),
        ("tif", [], "", [0, 1, 2, 3, 4]),
    ],
)
def test_planes_that_nobody_labelled_teach_nothing(
    kind: str, drawn: list[int | None], asked: str, kept: list[int], tmp_path: Path
) -> None:
    shape, mask, image = (5, 64, 80), tmp_path / f"s_mask.{kind}", tmp_path / "s.tif"
    grey = {"photometric": "minisblack", "metadata": {"axes": "ZYX"}}
    tifffile.imwrite(image, np.stack([blobs(0)[0]] * 5), **grey)
    ring = np.array([[10.0, 10], [40, 10], [40, 30], [10, 30]])
    if kind == "zip":
        rois = [ImagejRoi.frompoints(ring, name=f"r{n}") for n in range(len(drawn))]
        for roi, z in zip(rois, drawn, strict=True):
            roi.position = 0 if z is None else z + 1
        write_rois(mask, rois)
    elif kind == "geojson":
        shapes = [{"type": "Polygon", "coordinates": [[*ring.tolist(), ring[0].tolist()]],
                   "plane": {"z": z}} for z in drawn]  # fmt: skip
        mask.write_text(json.dumps([{"type": "Feature", "geometry": one} for one in shapes]))
    else:
        pixels = np.zeros(shape, np.uint8)
        pixels[[z for z in drawn if z is not None], 10:30, 10:40] = 1
        tifffile.imwrite(mask, pixels, **grey)
    (tmp_path / "t.csv").write_text(f"image,mask,planes\ns.tif,{mask.name},{asked}\n")
    found = check_table(tmp_path / "t.csv")
    assert list(found.fields[0].planes or ()) == kept
    said = f"{len(kept)} of 5 planes labelled"
    assert any(said in notice for notice in found.notices) == (not asked and len(kept) < 5)
    if drawn and None not in drawn:  # scored as it is learnt from
        tifffile.imwrite(tmp_path / "p.tif", np.ones(shape, np.uint8), **grey)
        scores = evaluate(tmp_path / "p.tif", mask, like=image, planes=asked, objects=True)
        assert scores["plane"].tolist() == kept
        assert scores["objects_true"].count() == 1
        assert any(said in n for n in scores.attrs["notices"]) == (len(kept) < 5)


@pytest.mark.parametrize("place", ["here", "pics", "pics/a", "absolute"])
def test_a_moved_folder_is_one_fault_and_its_advice_works(place: str, tmp_path: Path) -> None:
    old, table = tmp_path / "old", tmp_path / "old" / "t.csv"
    folder = old / {"here": "", "absolute": "x"}.get(place, place)
    folder.mkdir(parents=True)
    written = str(folder) if place == "absolute" else os.path.relpath(folder, old)
    rows = []
    for seed, name in enumerate("abcd"):
        write_field(folder, name, seed)
        cells = (f"{written}/{name}{end}" for end in (".ome.tif", "_mask.ome.tif"))
        rows.append(",".join([*map(os.path.normpath, cells), name]))
    table.write_text("\n".join(["image,mask,specimen", *rows, ""]))
    new = tmp_path / "new"
    if place == "here":
        new.mkdir()
        table = shutil.move(table, new / "t.csv")
    else:
        folder.rename(new)
    with pytest.raises(TableError, match="8 of 8 files are missing") as told:
        check_table(table)
    assert len(told.value.faults) == 1
    instead = re.search(r"instead of (.*), or", str(told.value))
    if instead:
        table.write_text(table.read_text().replace(instead[1], str(new)))
    else:
        assert str(told.value).endswith("put the table beside them again")
        table = shutil.move(table, old / "t.csv")
    check_table(table)


@pytest.mark.parametrize(
    ("there", "gone"),
    [(5, [f"typo{n}.tif" for n in range(4)]), (0, ["/a/1.tif", "/b/2.tif", "/c/3.tif", "/d/4.tif"]),
     (0, ["/a/1.tif", "b/2.tif", "b/3.tif", "b/4.tif"]),
     (0, [f"https://localhost/{n}.ome.zarr/x" for n in range(4)])],
)  # fmt: skip
def test_files_without_a_folder_in_common_keep_their_lines(
    there: int, gone: list[str], tmp_path: Path
) -> None:
    names = [f"{n}.tif" for n in range(there)]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "t.csv").write_text("\n".join(["image", *names, *gone]))
    with pytest.raises(TableError) as told:
        read_table(tmp_path / "t.csv")
    lines = [f"line {there + 2 + n}: image {name}" for n, name in enumerate(gone)]
    assert [
        fault[: len(line)] for fault, line in zip(told.value.faults, lines, strict=True)
    ] == lines


def test_a_folder_is_listed_once_for_all_files_that_are_missing_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(9):
        (tmp_path / f"other{n}.tif").touch()
    (tmp_path / "t.csv").write_text("\n".join(["image", *(f"f{n}.tif" for n in range(99))]))
    listed, iterdir = [], Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: listed.append(path) or iterdir(path))
    with pytest.raises(TableError, match="99 of 99 files are missing"):
        check_table(tmp_path / "t.csv")
    assert listed == [tmp_path], "else a moved plate of 10,000 images takes minutes"


def test_nearly_right_columns_are_noticed(tmp_path: Path) -> None:
    write_field(tmp_path, "a", 0)
    (tmp_path / "t.csv").write_text("image,mask,speciman\na.ome.tif,a_mask.ome.tif,x\n")
    (notice,) = check_table(tmp_path / "t.csv").notices
    assert notice == "column 'speciman' is carried through unread; 'specimen' would be read"


def test_excels_and_fijis_habits_are_understood(tmp_path: Path) -> None:
    write_field(tmp_path, "a", 0)
    mask = blobs(0)[1]
    tifffile.imwrite(tmp_path / "a_mask.ome.tif", mask, imagej=True)  # saved anew in Fiji
    text = (
        "sep=;\r\n\r\nImage;MASK;planes;channel;scene;;\r\n"
        "a.ome.tif;a_mask.ome.tif;0.0;0.0;0.0;;\r\n"  # as pandas writes whole numbers
    )
    (tmp_path / "t.csv").write_bytes(text.encode())
    (row,) = check_table(tmp_path / "t.csv").fields
    assert (row.line, row.planes) == (4, (0,))
    np.testing.assert_array_equal(read_row(row, 0, "unsure")[1], mask)


def test_a_plane_named_twice_is_a_fault(tmp_path: Path) -> None:
    write_field(tmp_path, "a", 0)
    (tmp_path / "t.csv").write_text("image,mask\na.ome.tif,a_mask.ome.tif\na.ome.tif,\n")
    with pytest.raises(TableError, match=r"line 3: plane 0 of a\.ome\.tif is also in line 2; keep"):
        check_table(tmp_path / "t.csv")


def test_the_same_pixels_in_another_container_are_noticed_and_blank_planes_are_not(
    tmp_path: Path,
) -> None:
    pixels = np.stack([np.zeros((64, 80)), blobs(0)[0]]).astype(np.uint8)
    as_stack: dict[str, Any] = {"imagej": True, "metadata": {"axes": "ZYX"}}
    tifffile.imwrite(tmp_path / "a.tif", pixels.astype(np.uint16), **as_stack)
    tifffile.imwrite(tmp_path / "b.tif", np.stack([pixels[0], 255 - pixels[1]]), **as_stack)
    Image.fromarray(pixels[1]).save(tmp_path / "a.png")
    table = tmp_path / "t.csv"
    table.write_text("image\na.tif\nb.tif\n")
    assert len(check_table(table).fields) == 2
    table.write_text("image,specimen\na.tif,1\nb.tif,2\na.png,3\n")
    with pytest.raises(TableError, match=r"line 4: plane 0 .* in line 2: a\.tif is the same image"):
        check_table(table)


def test_names_that_differ_in_case_or_spaces_are_one_name(tmp_path: Path) -> None:
    for n in range(4):
        write_field(tmp_path, f"f{n}", n, labelled=False)
    table = tmp_path / "t.csv"
    table.write_text(
        "image,specimen,condition,batch\n"
        "f0.ome.tif,a,rotenone,d 1\nf1.ome.tif,A,Rotenone,d  1\nf2.ome.tif,b,,\n"
        "f3.ome.tif,c,x,d 1\n"
    )
    with pytest.raises(TableError) as error:
        read_table(table)
    assert "condition: 'rotenone' (line 2) and 'Rotenone' (line 3) differ in case" in str(
        error.value
    )
    assert "batch: 'd 1' (line 2, 5) and 'd  1' (line 3)" in str(error.value)
    table.write_text(table.read_text().replace("Rot", "rot").replace("  ", " "))
    (said,) = [n for n in check_table(table).notices if "differ" in n]
    assert said.startswith("specimen: 'a' (line 2) and 'A' (line 3)")


def test_wrong_tables_and_many_equal_faults_are_a_few_lines(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    for text, says in {
        "image,label,centroid_y_px\na,1,2\n": "a table of what was measured, not of fields",
        "image,n_objects,footprint_share\na,1,2\n": "not of fields",
        "image,planes\n" + "a,04. Sep\n" * 30: r"lines 2, 3, 4 and 27 more: planes '04. Sep': Ex",
        "image,role\n" + "".join(f"a,r{n}\n" for n in range(90)): "and 71 more$",
    }.items():
        table.write_text(text)
        with pytest.raises(MitolumeError, match=says) as error:
            read_table(table)
        assert str(error.value).count("\n") <= 21
    with pytest.raises(MitolumeError, match=r"is a folder, .* draft one: mitolume fields"):
        read_table(tmp_path)


def with_proposal(table: Path, pixels: np.ndarray, *, name: str = "p.tif", **how: Any) -> Path:
    """Name a proposal for the first unlabelled row, f8."""
    tifffile.imwrite(table.parent / name, pixels, **how)
    lines = table.read_text().splitlines()
    lines = [f"{line},{name if line.startswith('f8') else ''}" for line in lines[1:]]
    table.write_text("\n".join(["image,mask,role,specimen,condition,proposal", *lines]))
    return table


def test_every_file_of_a_table_is_opened_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(18):  # more than are kept open
        write_field(tmp_path, f"a{number}", number, labelled=False)
    lines = [f"a{n}.ome.tif,dish {n}" for n in range(18)]
    (tmp_path / "fields.csv").write_text("\n".join(["image,specimen", *lines]))
    opened: list[Path] = []
    monkeypatch.setattr(
        "mitolume.io.read.open_scenes", lambda path: (opened.append(path), open_scenes(path))[1]
    )
    check_table(tmp_path / "fields.csv")
    assert len(opened) == len(set(opened)) == 18


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32, np.bool_])
def test_proposals_of_other_programs_become_probabilities(table: Path, kind: type) -> None:
    shape = tuple(read(table.parent / "f8.ome.tif").sizes[axis] for axis in "YX")
    expected = np.linspace(0, 1, shape[0] * shape[1]).reshape(shape)
    most = np.iinfo(kind).max if issubclass(kind, np.integer) else 1
    pixels = np.round(expected * most) if kind is not np.float32 else expected
    checked = check_table(with_proposal(table, pixels.astype(kind)))
    (row,) = (row for row in checked.fields if row.proposal)
    assert row.proposal in checked.sha256
    found = read_proposal(row.proposal, 0)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.51 if kind is np.bool_ else 0.003)
    said = [one for one in checked.notices if "whole numbers" in one]
    assert said == (
        [f"1 row with a proposal of whole numbers: 0 to {most} are read as probabilities 0 to 1"]
        if most > 1
        else []
    )
    write_table(table.parent / "again.csv", checked.fields)
    again = [row.proposal for row in read_table(table.parent / "again.csv")]
    assert again == [row.proposal for row in checked.fields]


@pytest.mark.parametrize(
    ("make", "how", "fault"),
    [
        (lambda s: np.zeros((*s, 2), np.float32), {"photometric": "minisblack", "planarconfig":
         "contig"}, "p.tif has 2 channels, as ilastik writes one for each class"),
        (lambda s: np.zeros((3, *s), np.uint8), {"imagej": True, "metadata": {"axes": "CYX"}},
         "p.tif has 3 channels"),
        (lambda s: np.ones(s, np.uint8), {}, "up to 1, where 255 stands for 1: these are masks"),
        (lambda s: np.full(s, 40, np.uint16), {}, "where 65535 stands for 1"),
        (lambda s: np.full(s, 3.5, np.float32), {}, "holds 3.5 to 3.5 (float32), and probabil"),
        (lambda s: np.full(s, -1, np.int16), {}, "holds -1 to -1 (int16)"),
        (lambda s: np.full(s, np.nan, np.float32), {}, "NaN"),
        (lambda s: np.zeros((s[0], 7), np.uint8), {}, "x 7 pixels (Y x X), but its image"),
    ],
)  # fmt: skip
def test_what_is_no_proposal_is_a_fault(
    make: Callable[..., np.ndarray], how: dict[str, Any], fault: str, table: Path
) -> None:
    shape = tuple(read(table.parent / "f8.ome.tif").sizes[axis] for axis in "YX")
    with pytest.raises(TableError, match=re.escape(fault)):
        check_table(with_proposal(table, make(shape), **how))


def test_pixel_sizes_are_all_known_or_none(tmp_path: Path) -> None:
    write_field(tmp_path, "a", 0)
    write_field(tmp_path, "b", 1, pixel_size=None)
    text = "image,mask,pixel_size_um\na.ome.tif,a_mask.ome.tif,\nb.ome.tif,b_mask.ome.tif,{}\n"
    (tmp_path / "t.csv").write_text(text.format(""))
    with pytest.raises(TableError, match=r"line 3: b\.ome\.tif states no pixel size"):
        check_table(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text(text.format("0.3"))
    sizes = check_table(tmp_path / "t.csv").pixel_sizes
    assert sizes[2] == pytest.approx((0.1, 0.1))
    assert sizes[3] == pytest.approx((0.3, 0.3))


def test_a_stray_picture_without_pixel_size_is_left_out(tmp_path: Path) -> None:
    write_field(tmp_path, "a", 0)
    Image.fromarray(blobs(1)[0]).save(tmp_path / "overview.png")
    (tmp_path / "t.csv").write_text("image,mask\na.ome.tif,a_mask.ome.tif\noverview.png,\n")
    found = check_table(tmp_path / "t.csv")
    assert [row.image.name for row in found.fields] == ["a.ome.tif"]
    assert any("overview.png: no pixel size" in notice for notice in found.notices)


def test_masks_without_any_foreground_teach_nothing(tmp_path: Path) -> None:
    write_field(tmp_path, "a", 0)
    tifffile.imwrite(tmp_path / "empty.tif", np.zeros((64, 80), np.uint8))
    (tmp_path / "t.csv").write_text("image,mask\na.ome.tif,empty.tif\n")
    recipe = load_recipe(fields=tmp_path / "t.csv")
    with pytest.raises(TableError, match="no mask of a training image has a foreground pixel"):
        begin(tmp_path / "run", recipe, quiet=True)
    assert not (tmp_path / "run").exists()


def test_pixel_sizes_too_far_apart_are_all_named(tmp_path: Path) -> None:
    for number, size in enumerate([0.1, 0.1, 0.1, 0.5, 0.01]):
        write_field(tmp_path, f"f{number}", number, pixel_size=size)
    rows = [f"f{n}.ome.tif,f{n}_mask.ome.tif,train" for n in range(5)]
    (tmp_path / "t.csv").write_text("\n".join(["image,mask,role", *rows]))
    with pytest.raises(TableError, match="2 faults") as error:
        begin(tmp_path / "run", load_recipe(fields=tmp_path / "t.csv"), quiet=True)
    assert "line 5: " in str(error.value)
    assert "line 6: " in str(error.value)


@pytest.mark.parametrize(
    ("values", "kind", "notice", "fault"),
    [
        ({"a": [0, 1]}, "unsure", "", ""),
        ({"a": [0, 1, 255], "b": [0, 1]}, "unsure", "", ""),
        ({"a": [0, 1, 255], "b": [0, 255]}, "unsure", "", "b: 0 and 255, while a holds 1"),
        ({"a": [0, 255], "b": [0]}, "labels", "255 is read as mitochondria", ""),
        ({"a": [0, 1], "b": [0, 255]}, "unsure", "", "mitochondria or unsure"),
        ({"a": [0, 1, 2, 3]}, "unsure", "", "a holds the values 0, 1, 2, 3, but masks hold"),
        (
            {"a": [0, 1, 2], "b": [0, 3], "c": [0, 1]},
            "unsure",
            "",
            "a, b hold the values 0, 1, 2, 3,",
        ),
        ({"a": [0, 128, 255]}, "unsure", "", "a holds the values 0, 128, 255"),
    ],
)
def test_mask_values_are_decided_once_for_all(
    values: dict, kind: str, notice: str, fault: str
) -> None:
    found, notices, faults = decide_kind(values)
    assert found == kind
    assert notice in "".join(notices)
    assert len(faults) == bool(fault)
    assert fault in "".join(faults)


def test_unsure_pixels_that_become_mitochondria_are_told() -> None:
    _, notices, faults = decide_kind({"a": [0, 1, 2, 3], "b": [0, 1, 255], "c": [0, 255]}, "labels")
    assert not faults
    assert notices[0].startswith("b: 0, 1 and 255, all above 0 taken as mitochondria")


def test_values_become_masks() -> None:
    assert to_mask(np.array([0, 7, 255]), "labels").tolist() == [0, 1, 1]
    assert to_mask(np.array([0.0, 1.0, 255.0]), "unsure").tolist() == [0, 1, 255]
    with pytest.raises(MitolumeError, match="values 2"):
        to_mask(np.array([2]), "unsure")


def field(number: int, specimen: str, *, role: str = "", labelled: bool = True) -> Field:
    image = Path(f"{number}.tif")
    return Field(image, image if labelled else None, role, (0, 1), specimen, line=number)


rows = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans()), min_size=1, max_size=20).map(
    lambda spec: [
        field(i, s, role="" if labelled else "unlabelled", labelled=labelled)
        for i, (s, labelled) in enumerate(spec)
    ]
)


@given(rows, st.integers(0, 50))
def test_no_split_leaks_and_every_row_has_a_role(fields: list[Field], seed: int) -> None:
    split = assign_roles(fields, SplitSettings(seed=seed))
    assert all(row.role for row in split)
    assert not leaks(split)
    if any(row.mask for row in fields):
        assert any(row.role == "train" for row in split)
    labelled = {r.specimen for r in fields if r.mask}
    if len(labelled) >= 3:  # with unlabelled images or without
        assert {"train", "validation", "test"} <= {row.role for row in split}
    assert [r.line for r in split if r.mask] == [r.line for r in fields if r.mask]
    free = labelled - {r.specimen for r in fields if r.role}
    if len(free) >= 3:  # unlabelled images are left aside only where they must be
        assert len(split) == len(fields)


@given(
    st.dictionaries(st.sampled_from(["", "control", "FCCP", "rotenone"]), st.integers(1, 9)),
    st.integers(0, 50),
)
def test_every_condition_of_three_dishes_or_more_is_tested(
    dishes: dict[str, int], seed: int
) -> None:
    fields = [
        replace(field(i, f"{name} {dish}"), condition=name)
        for name, count in dishes.items()
        for dish in range(count)
        for i in range(2)
    ]
    split = assign_roles(fields, SplitSettings(seed=seed))
    kept = {name for name, count in dishes.items() if count >= 3}
    for role in ("train", "test"):
        assert kept <= {row.condition for row in split if row.role == role}
    if len(dishes) == 1:  # the draw of earlier versions
        plain = assign_roles(
            [replace(row, condition="") for row in fields], SplitSettings(seed=seed)
        )
        assert [row.role for row in split] == [row.role for row in plain]


def test_where_every_dish_has_unlabelled_images_dishes_are_kept_aside_all_the_same(
    tmp_path: Path,
) -> None:
    lines = ["image,mask,specimen,condition"]
    for number in range(8):
        image, mask = write_field(tmp_path, f"f{number}", number, labelled=number < 4)
        named = mask.name if number < 4 else ""
        lines.append(f"{image.name},{named},dish {number % 4},{'ab'[number % 2]}")
    (tmp_path / "fields.csv").write_text("\n".join(lines) + "\n")
    run = begin(tmp_path / "run", load_recipe(fields=tmp_path / "fields.csv"), quiet=True)
    assert run.record["n_images"] == {"train": 2, "validation": 1, "test": 1, "unlabelled": 2}
    assert any(n.startswith("2 unlabelled rows of specimen dish") for n in run.record["notices"])
    (tested,) = [row.condition for row in run.rows if row.role == "test"]
    untested = "b" if tested == "a" else "a"
    assert any(f"no test image of {untested} and " in n for n in run.record["notices"])
    assert not leaks(run.rows)


@given(rows, st.integers(0, 50), st.data())
def test_label_budgets_keep_every_image_once(
    fields: list[Field], seed: int, data: st.DataObject
) -> None:
    split = assign_roles(fields, SplitSettings(seed=seed))
    total = sum(len(r.planes or ()) for r in split if r.role == "train")
    labels = data.draw(st.integers(0, total))
    chosen = choose_labelled(split, labels, seed)
    assert sum(len(r.planes or ()) for r in chosen if r.role == "train") == labels
    images = sorted((r.image, z) for r in chosen for z in r.planes or ())
    assert images == sorted((r.image, z) for r in split for z in r.planes or ())
    assert choose_labelled(chosen, labels, seed + 1) == chosen


def test_budgets_see_many_specimens() -> None:
    fields = [field(i, "abc"[i % 3], role="train") for i in range(9)]
    chosen = choose_labelled(fields, 3, 0)
    assert len({row.specimen for row in chosen if row.role == "train"}) == 3
    with pytest.raises(MitolumeError, match="only 18 labelled training images"):
        choose_labelled(fields, 19, 0)


def test_a_label_for_some_planes_leaves_the_others_to_a_row_of_their_own() -> None:
    image, mask = Path("a.tif"), Path("a_mask.tif")
    rows = [Field(image, role="unlabelled", specimen="a"), Field(Path("b.tif"))]
    labelled, rest, other = with_label(rows, 0, mask, [1], depth=3)
    assert (labelled.mask, labelled.planes, labelled.role) == (mask, (1,), "")
    assert (rest.mask, rest.planes, rest.role) == (None, (0, 2), "unlabelled")
    assert other == rows[1]
    both, last, _ = with_label([labelled, rest, other], 0, mask, [1, 2], depth=3)
    assert (both.planes, last.planes) == ((1, 2), (0,))
    kept = [Field(image, Path("dye.tif"), "test", (0, 1), label="dye")]
    one, of_dye = with_label(kept, 0, mask, [0], depth=3)
    assert (one.role, one.label, of_dye.mask, of_dye.planes) == (
        "test", "painted", Path("dye.tif"), (1,),
    )  # fmt: skip


def test_what_is_unsure_in_a_painted_mask_is_no_mitochondrion(tmp_path: Path) -> None:
    """Alone, a file of 0 and 255 means mitochondria by 255."""
    image, _ = write_field(tmp_path, "a", 0)
    mask = np.full((64, 80), 255, np.uint8)
    mask[:9] = 0
    tifffile.imwrite(tmp_path / "m.tif", mask)
    for label, found in (("painted", {0, 255}), ("", {0, 1})):
        (tmp_path / "t.csv").write_text(f"image,mask,label\n{image.name},m.tif,{label}\n")
        checked = check_table(tmp_path / "t.csv")
        _, read = read_row(checked.fields[0], 0, checked.mask_kind)
        assert read is not None
        assert set(np.unique(read)) == found


def test_unwritable_places_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MitolumeError, match=re.escape(f"file{os.sep}t.csv can't be written")):
        write_table(tmp_path / "file" / "t.csv", [])


def test_an_image_that_is_added_again_is_listed_once(tmp_path: Path) -> None:
    from mitolume.napari.label_table import LabelTable

    image, _ = write_field(tmp_path, "a", 0, labelled=False)
    table = LabelTable(tmp_path / "mine.csv")
    first = table.add(Field(image, specimen="a"))
    assert table.add(Field(image, channel="0", specimen="a")) == first, "its only channel"
    way = tmp_path / "run" / ".." / image.name  # as the table of a run names it
    assert table.add(Field(way, specimen="a")) == first
    assert table.draft(Field(way)) == table.draft(Field(image))
    assert table.add(Field(image, planes=(0,), specimen="a")) == first + 1
    assert table.add(Field(image, planes=(0, 2), specimen="a")) == first + 2
    assert len(LabelTable(table.path).rows) == 3
    named = [title.split(": ")[0] for title in table.titles()]
    assert named == [image.name, f"{image.name}, plane 0", f"{image.name}, planes 0 2"]


def test_two_widgets_on_one_table_keep_what_the_other_wrote(tmp_path: Path) -> None:
    from mitolume.napari.label_table import LabelTable

    images = [write_field(tmp_path, name, n, labelled=False)[0] for n, name in enumerate("ab")]
    label = LabelTable(tmp_path / "mine.csv")
    for image in images:
        label.add(Field(image, specimen=image.name))
    mask = np.zeros((1, *read(images[0]).shape[-2:]), np.uint8)
    proofread = LabelTable(label.path)
    proofread.accept(0, mask, proofread="0 accepted")
    assert label.accept(label.renew(1), mask).exists()
    rows = read_table(label.path)
    assert [row.mask is not None for row in rows] == [True, True]
    assert rows[0].extra["proofread"] == "0 accepted"
    label.add(Field(images[0], specimen="a", planes=(0,)))
    assert len(read_table(label.path)) == 2
