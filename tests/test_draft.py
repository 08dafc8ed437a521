"""Drafts of the table of fields: many layouts, what is guessed of them, and what is said."""

from __future__ import annotations

import csv
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers.command import Shell, call
from helpers.fields import blobs
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mitolume.errors import MitolumeError
from mitolume.io.check import check_table
from mitolume.io.draft import Draft, draft_table, write_draft
from mitolume.io.draft_pairs import folder_kind, split_words
from mitolume.io.fields import Field, leaks
from mitolume.io.formats import natural_key
from mitolume.io.split import SplitSettings, assign_roles
from mitolume.io.table import COLUMNS, read_table

NUMBERS = ("1", "2", "3")


def lay_out(folder: Path, *names: str) -> Path:
    """Write a small picture under each name: discs under masks' names, noise on discs else."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image, mask = blobs(number, (16, 20))
        is_mask = "mask" in (folder_kind(Path(name).parts), folder_kind([path.stem]))
        values = (mask if is_mask and mask.any() else image) if is_mask else image
        if path.suffix in (".tif", ".tiff"):
            tifffile.imwrite(path, values)
        elif path.suffix in (".png", ".jpg"):
            Image.fromarray(values).save(path)
        else:
            path.write_bytes(b"x")
    return folder


def draft(folder: Path, *names: str) -> list[dict[str, str]]:
    """Draft the table of such files; return its rows."""
    return rows_of(draft_table(lay_out(folder, *names), folder))


def rows_of(drafted: Draft) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(drafted.text)))


def masks_of(rows: list[dict[str, str]]) -> dict[str, str]:
    return {row["image"]: row["mask"] for row in rows}


def said(folder: Path) -> str:
    return "\n".join(draft_table(folder, folder).lines)


# --- which file is whose mask -------------------------------------------------------------------


MASKS = """
a_mask.png a_masks.tif a-mask.tif a.mask.tif A_MASK.tif aMask.png a_label.tif a_labels.png
a_seg.tif a_gt.tif a_truth.tif a_ground_truth.tif a_annotation.tif a_manual.tif mask_a.tif
mask-a.png a_cp_masks.png a_mito_mask.tif a_mask_final.tif masks/a.png GT/a_gt.tif
a_maske.png a_Masken.tif a_masque.tif a_máscara.png Masken_von_Käthe/A_maske.png
Segmentation/a.tif a_mask.ome.tif"""


@pytest.mark.parametrize("mask", MASKS.split())
def test_a_mask_is_found_beside_its_image(tmp_path: Path, mask: str) -> None:
    assert masks_of(draft(tmp_path, "a.tif", "ab.tif", mask)) == {"a.tif": mask, "ab.tif": ""}


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/{}.tif", "masks/{}.tif"), ("img/{}.tif", "mask/{}.png"),
        ("Raw Data/{}.tif", "Ground Truth/{}.tif"),
        ("inputs/{}.tif", "targets/{}.tif"), ("JPEGImages/{}.jpg", "SegmentationClass/{}.png"),
        ("images/img_{}.tif", "labels/label_00{}.tif"), ("{}/image.tif", "{}/mask.tif"),
        ("exp{}/images/f.tif", "exp{}/manual segmentation/f.tif"),
        ("images/control/{}.tif", "masks/control/{}.tif"),
        ("img{}.tif", "mask{}.tif"), ("{}_img.tif", "{}_masks.tif"),
        ("raw/0{}.tif", "labels/labels0000000{}.png"),
        ("Exp {}/Raw/Cell 1/a.tif", "Exp {}/Annotated masks/Cell 1/a.tif"),
        ("imagesTr/cell_{}_0000.tif", "labelsTr/cell_{}.tif"),
        ("{}.tif", "{}.zip"), ("{}.tif", "{}_RoiSet.zip"), ("{}.ome.tif", "{}.roi"),
        ("{}/a.tif", "{}/RoiSet.zip"), ("{}.ome.tif", "{}.ome.tif - Series 0.geojson"),
        ("images/{}.tif", "ROIs/{}.zip"), ("label-free_{}.tif", "label-free_{}_mask.tif"),
        ("mito_{}.tif", "mito_{}_mask.tif"),
        ("mito segmentation/{}.tif", "mito segmentation/{}_mask.tif"),
        ("dish {0} raw/f{0}.tif", "masks by hand/f{0} mask final.tif"),
        ("images/Zelle {}.tif", "masks/Zelle {}.tif"), ("images/细胞{}.tif", "masks/细胞{}.tif"),
        ("Fa\u0308rbung{}.tif", "F\u00e4rbung{}_mask.tif"),
    ],
)  # fmt: skip
def test_layouts(tmp_path: Path, image: str, mask: str) -> None:
    expected = {image.format(n): mask.format(n) for n in NUMBERS}
    rows = draft(tmp_path, *expected, *expected.values())
    assert masks_of(rows) == expected
    assert [row["image"] for row in rows] == list(expected)


def test_fluorescence_of_mitochondria_is_paired_and_other_channels_are_left_out(
    tmp_path: Path,
) -> None:
    rows = draft(tmp_path, "1_BF.tif", "1_MitoTracker Deep Red.tif", "1_mask.tif", "2_DIC.tif",
                 "2_CellMaskRed.tif",
                 "3_phase.tif", "3_GFP.tif", "9_GFP.tif")  # fmt: skip
    assert [(row["image"], row["mask"], row["fluorescence"]) for row in rows] == [
        ("1_BF.tif", "1_mask.tif", "1_MitoTracker Deep Red.tif"),
        ("2_DIC.tif", "", ""),
        ("3_phase.tif", "", "3_GFP.tif"),
    ]
    assert "images and masks of other structures, left out: 1 (2_CellMaskRed.tif)" in said(tmp_path)
    assert "fluorescence without its transmitted light, left out: 1 (9_GFP.tif)" in said(tmp_path)


def test_the_channels_that_metamorph_numbers_are_paired(tmp_path: Path) -> None:
    names = ["230912 dish1 FCCP 10uM_w{}_s1.TIF", "230912 dish2_w{}_s1_t2.tif", "dish 3_w{}.TIF"]
    rows = draft(tmp_path, *(name.format(of) for name in names
                             for of in ("1BF", "2CellMask", "3TMRM")),
                 "w1a.tif", "w2a.tif")  # fmt: skip
    assert {row["image"]: row["fluorescence"] for row in rows} == {
        **{name.format("1BF"): name.format("3TMRM") for name in names},
        "w1a.tif": "", "w2a.tif": "",
    }  # fmt: skip


def test_nnunet_roles_and_channels(tmp_path: Path) -> None:
    rows = draft(tmp_path, "imagesTr/c_001_0000.tif", "imagesTr/c_001_0001.tif",
                 "imagesTs/c_002_0000.tif", "imagesTs/c_003_0000.tif", "labelsTr/c_001.tif",
                 "labelsTs/c_002.tif", "dataset.json")  # fmt: skip
    assert [(row["image"], row["mask"], row["role"]) for row in rows] == [
        ("imagesTr/c_001_0000.tif", "labelsTr/c_001.tif", "train"),
        ("imagesTs/c_002_0000.tif", "labelsTs/c_002.tif", "test"),
        ("imagesTs/c_003_0000.tif", "", "unlabelled"),
    ]
    assert "1 of test have no mask" in said(tmp_path)


def test_cellpose(tmp_path: Path) -> None:
    rows = draft(tmp_path, "a.tif", "a_cp_masks.png", "a_flows.tif", "a_outlines.png", "a_seg.npy",
                 "b.tif", "b_seg.npy")  # fmt: skip
    assert masks_of(rows) == {"a.tif": "a_cp_masks.png", "b.tif": ""}
    assert "cellpose _seg.npy files, which can't be read (in cellpose choose" in said(tmp_path)
    assert "results or previews, left out: 2 (a_flows.tif, a_outlines.png)" in said(tmp_path)


# --- doubts are said, nothing is dropped in silence ---------------------------------------------


def test_doubts_are_said(tmp_path: Path) -> None:
    rows = draft(tmp_path, "a.tif", "a_mask.tif", "a_label.tif", "b.tif", "b_mito_mask.tif",
                 "b_nuclei_mask.tif", "lost_mask.tif", "c.tif", "c.png", "images/d.tif",
                 "raw/d.tif",
                 "e.tif", "e.bmp")  # fmt: skip
    text = said(tmp_path)
    assert masks_of(rows)["b.tif"] == "b_mito_mask.tif"
    assert "--agreement): 1 (a_label.tif)" in text
    assert "images and masks of other structures, left out: 1 (b_nuclei_mask.tif)" in text
    assert "masks without an image of that name, left out (name each in column mask of its " in text
    assert "1 (lost_mask.tif)" in text
    assert "further files of an image's name (another format, folder or channel), left out" in text
    assert "column mask): 2 (c.png, raw/d.tif)" in text
    assert "files of kinds that can't be read (save them as OME-TIFF): 1 (e.bmp)" in text


def test_masks_of_single_objects_and_of_a_second_person_are_left_out(tmp_path: Path) -> None:
    rows = draft(tmp_path / "a", "f1/images/f1.png", "f1/masks/1.png", "f1/masks/2.png")
    assert masks_of(rows) == {"f1/images/f1.png": ""}
    assert "if each object has a file of its own, merge them)" in said(tmp_path / "a")
    files = [
        f"{folder}/{n}.tif" for folder in ("images", "masks Ada", "masks Ben") for n in NUMBERS
    ]
    rows = draft(tmp_path / "b", *files)
    assert set(masks_of(rows).values()) == {f"masks Ada/{n}.tif" for n in NUMBERS}
    assert "--agreement): 3" in said(tmp_path / "b")


def test_spaces_and_signs_in_a_name_do_not_part_a_mask_from_its_only_image(tmp_path: Path) -> None:
    rows = draft(tmp_path, "Feld 01.tif", "Feld-02.tif", "m/feld01_mask.png", "m/FELD_02_mask.png")
    assert masks_of(rows) == {
        "Feld 01.tif": "m/feld01_mask.png",
        "Feld-02.tif": "m/FELD_02_mask.png",
    }


def test_what_is_no_image_is_left_out(tmp_path: Path) -> None:
    rows = draft(tmp_path, "a.tif", "._a.tif", ".hidden/b.tif", "Thumbs.db", "notes.txt",
                 "sheet.png", "a_overlay.png", "a_probability.ome.tif", "run/run.json",
                 "run/masks/a_mask.tif")  # fmt: skip
    assert masks_of(rows) == {"a.tif": ""}
    assert "folders with results of mitolume, left out: 1 (run)" in said(tmp_path)
    assert f"holds masks, draft from {tmp_path.parent}" in said(tmp_path)


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        ((), "holds no image files that can be read"),
        (("notes.txt", "b.bmp"), r"save them as OME-TIFF\): 1 \(b\.bmp\)"),
        (("masks/a.tif",), "holds no images, only masks or results"),
    ],
)
def test_a_folder_without_images_is_one_sentence(
    tmp_path: Path, names: tuple[str, ...], fault: str
) -> None:
    with pytest.raises(MitolumeError, match=fault):
        draft(tmp_path, *names)


def test_a_missing_folder_and_a_file_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(MitolumeError, match="no such folder"):
        draft_table(tmp_path / "no")
    (tmp_path / "a.tif").touch()
    with pytest.raises(MitolumeError, match="is a file; name the folder"):
        draft_table(tmp_path / "a.tif")
    (tmp_path / "plate.ome.zarr" / "A" / "1").mkdir(parents=True)
    (tmp_path / "plate.ome.zarr" / ".zattrs").write_text("{}")
    with pytest.raises(MitolumeError, match="is an OME-Zarr itself; name the folder that holds it"):
        draft_table(tmp_path / "plate.ome.zarr")


# --- roles, conditions, specimens ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "mask"),
    [("{}/images/{}.tif", "{}/masks/{}.tif"), ("images/{}/{}.tif", "masks/{}/{}.tif"),
     ("{} images/{}.tif", "{} masks/{}.tif"), ("{}_{}.tif", "{}_{}_mask.tif")],
)  # fmt: skip
def test_roles_from_names(tmp_path: Path, image: str, mask: str) -> None:
    words = {"Train": "train", "val": "validation", "testing": "test"}
    files = [form.format(word, n) for word in words for n in NUMBERS for form in (image, mask)]
    rows = draft(tmp_path, *files)
    assert {row["image"]: row["role"] for row in rows} == {
        image.format(word, n): role for word, role in words.items() for n in NUMBERS
    }
    assert leaks(read_rows(tmp_path)) == []


def read_rows(folder: Path) -> list[Field]:
    (folder / "fields.csv").write_text(draft_table(folder, folder).text, encoding="utf-8")
    return read_table(folder / "fields.csv")


def test_unlabelled_folders_leave_the_others_to_be_drawn(tmp_path: Path) -> None:
    rows = draft(tmp_path, "raw/1.tif", "gt/1.tif", "no labels/2.tif", "Unlabeled/3.tif")
    assert {row["image"]: row["role"] for row in rows} == {
        "no labels/2.tif": "unlabelled", "raw/1.tif": "", "Unlabeled/3.tif": "unlabelled"
    }  # fmt: skip


def test_test_alone_is_just_a_name(tmp_path: Path) -> None:
    rows = draft(tmp_path, *[f"Test {n}/test{s}.tif" for n in NUMBERS for s in ("", "_mask")])
    assert "role" not in rows[0]
    assert "none says train" in said(tmp_path)


def test_conditions_are_whole_known_words(tmp_path: Path) -> None:
    files = {
        "ctrl_1.tif": "control", "z/untreated/2.tif": "control", "x_FCCP_1uM_4.tif": "FCCP",
        "Oligomycin5.tif": "oligomycin", "Antimycin A/7.tif": "antimycin A",
        "z/DMSO/15.tif": "DMSO", "KO_cccp/9.tif": "knockout + CCCP", "x/rot/8.tif": "",
        "rotated_10.tif": "", "aa_12.tif": "", "y/Rotes Licht/13.tif": "",
        "Kontrolle/1.tif": "control", "unbehandelt/1.tif": "control", "behandelt/1.tif": "treated",
        "Kontrollen/1.tif": "control", "Rotenon 1uM/1.tif": "rotenone", "x_ctl_3.tif": "control",
    }  # fmt: skip
    rows = draft(tmp_path, *files)
    assert {row["image"]: row["condition"] for row in rows} == files


def test_a_folder_of_a_treatment_is_no_specimen_where_its_files_are_numbered(
    tmp_path: Path,
) -> None:
    """Otherwise all dishes of one treatment would count as one, and those of others singly."""
    treated = ("control", "Antimycin A", "FCCP 1 uM")
    rows = draft(tmp_path / "a", *(f"{name}/dish{n}.tif" for name in treated for n in (8, 9)))
    assert len({row.get("specimen") or row["image"] for row in rows}) == 6
    named = ("control A", "control B", "FCCP C")
    rows = draft(tmp_path / "b", *(f"{name}/{n}.tif" for name in named for n in (1, 2)))
    assert len({row["specimen"] for row in rows}) == 3  # without numbers of dishes, folders may be


@pytest.mark.parametrize(
    ("names", "specimens"),
    [
        ("m008_t001_z009_p5_0 m008_t025_z010_p2_1 m009_t001_z009_p5_0 m010_t001_z009_p5_0",
         "m008 m008 m009 m010"),
        ("dish1_a dish1_b dish2_a dish3_a", "dish1 dish1 dish2 dish3"),
        ("cell03_z1 cell03_z2 cell04_z1 cell05_z1", "cell03 cell03 cell04 cell05"),
        ("pos01_t003 pos01_t004 pos02_t003", "pos01 pos01 pos02"),
        ("A01_s1 A01_s2 B02_s1 C12_s1", "A01 A01 B02 C12"),
        ("exp1_fov1 exp1_fov2 exp2_fov1 exp3_fov1", "exp1 exp1 exp2 exp3"),
        ("mouse1/slide1/a mouse1/slide1/b mouse1/slide2/a mouse2/slide1/a",
         "mouse1_slide1 mouse1_slide1 mouse1_slide2 mouse2_slide1"),
        ("frame_001 frame_002 frame_003", "all all all"),
        ("img1_crop1 img1_crop2 img2_crop1 img3_crop1", "1 1 2 3"),
        ("liver/1 liver/2 heart/1 kidney/1", "liver liver heart kidney"),
        ("r01c02f01p01-ch1sk1fk1fl1 r01c02f02p01-ch1sk1fk1fl1 r02c02f01p01-ch1sk1fk1fl1",
         "r01c02 r01c02 r02c02"),
        ("xy1z3t1 xy1z4t2 xy2z1t1", "xy1 xy1 xy2"),
        ("train/cell1_z1 train/cell1_z2 test/cell1_z1 test/cell1_z2",
         "train_cell1 train_cell1 test_cell1 test_cell1"),
    ],
)  # fmt: skip
def test_specimens_from_names(tmp_path: Path, names: str, specimens: str) -> None:
    images = [f"{name}.tif" for name in names.split()]
    rows = draft(tmp_path, *images, *[image.replace(".tif", "_mask.tif") for image in images])
    found = {row["image"]: row["specimen"] for row in rows}
    assert found == dict(zip(images, specimens.split(), strict=True))


@pytest.mark.parametrize(
    ("names", "specimens"),
    [
        ("2024-03-02 dish A ctrl 1, 2024-03-02 dish A ctrl 2, 2024-03-02 dish B ctrl 1",
         "dishA, dishA, dishB"),
        ("Tag 1/Schälchen A 1, Tag 2/Schälchen A 1, Tag 3/Schälchen A 1, Tag 3/Schälchen B 1",
         "Tag1, Tag2, Tag3, Tag3"),
        ("day 1 x 3, day 1 x 4, day 2 x 3, day 3 x 1", "day1, day1, day2, day3"),
        ("dish1_a, dish2_a, dish3_a, Karl/f 1, Karl/f 2", "dish1, dish2, dish3, Karl, Karl"),
    ],
)  # fmt: skip
def test_specimens_of_names_with_spaces(tmp_path: Path, names: str, specimens: str) -> None:
    images = [f"{name}.tif" for name in names.split(", ")]
    found = {row["image"]: row["specimen"] for row in draft(tmp_path, *images)}
    assert found == dict(zip(images, specimens.split(", "), strict=True))


def test_days_are_part_of_the_specimen(tmp_path: Path) -> None:
    rows = draft(tmp_path, *[f"2024-01-{day}_dish{n}_{k}{s}.tif" for day in (10, 11)
                             for n in (1, 2) for k in (1, 2) for s in ("", "_mask")])  # fmt: skip
    assert {row["specimen"] for row in rows} == {
        f"202401{day}_dish{n}" for day in (10, 11) for n in (1, 2)
    }


def test_a_day_with_several_conditions_is_told_apart_by_its_dishes(tmp_path: Path) -> None:
    names = [f"{day}/{day} DISH{n} {condition} s{s}.tif" for day in (230912, 230913, 230914)
             for n, condition in ((1, "ctrl"), (2, "FCCP"), (3, "FCCP"))
             for s in (1, 2)]  # fmt: skip
    dishes = [name.replace("DISH", "Schale " if "14/" in name else "dish") for name in names]
    rows = draft(tmp_path / "a", *dishes)
    assert len({row["specimen"] for row in rows}) == 9
    assert [rows[place]["specimen"] for place in (0, 1, 17)] == [
        "230912_dish1", "230912_dish1", "230914_Schale3",
    ]  # fmt: skip
    rows = draft(tmp_path / "b", *(name.replace("DISH", "cell") for name in names))
    assert len({row["specimen"] for row in rows}) == 3  # cells of one dish are not independent
    assert "specimens in several conditions" in said(tmp_path / "b")
    numbered = [name.replace("/", f"/exp{name[5]} ").replace("DISH", "dish") for name in names]
    rows = draft(tmp_path / "c", *numbered)  # a day's experiment is no dish
    assert rows[2]["specimen"] == "230912_exp2_dish2"


def test_a_day_stays_one_specimen_where_its_names_come_again_under_each_condition(
    tmp_path: Path,
) -> None:
    rows = draft(tmp_path, *(f"23091{day}_dish{n}_{condition}.tif" for day in (2, 3, 4)
                             for n in (1, 2) for condition in ("ctrl", "FCCP")))  # fmt: skip
    assert len({row["specimen"] for row in rows}) == 6


def test_one_specimen_and_leaks_are_said(tmp_path: Path) -> None:
    draft(tmp_path / "a", *[f"t{n}{s}.tif" for n in NUMBERS for s in ("", "_mask")])
    assert "specimens with masks: 1, too few" in said(tmp_path / "a")
    draft(tmp_path / "b", *[f"{role}/m1_t{t}{s}.tif" for role, t in (("train", 1), ("test", 2))
                            for s in ("", "_mask")])  # fmt: skip
    assert "specimen 'm1' is in test and train" in said(tmp_path / "b")
    draft(tmp_path / "c", *[f"m{n}_t{t}.tif" for n in NUMBERS for t in (1, 2)],
          *[f"m{n}_t1_mask.tif" for n in NUMBERS])  # fmt: skip
    assert "too few" not in said(tmp_path / "c")  # unlabelled images are left aside


def test_a_stack_alone_is_told_how_to_be_split(tmp_path: Path) -> None:
    stack = np.zeros((6, 16, 20), np.uint8)
    for name in ("em.tif", "em_mask.tif"):
        tifffile.imwrite(tmp_path / name, stack)
    assert "of a single z-stack, write a row for each block of z" in said(tmp_path)


def test_thousands_of_files_are_drafted_and_none_is_opened(tmp_path: Path) -> None:
    for n in range(1000):
        for name in (f"dish{n % 50}_{n}.tif", f"dish{n % 50}_{n}_mask.tif"):
            (tmp_path / name).touch()
    rows = rows_of(draft_table(tmp_path, tmp_path))
    assert len(rows) == 1000
    assert len({row["specimen"] for row in rows}) == 50


# --- real files, real tables --------------------------------------------------------------------


def test_the_home_case_is_drafted_as_it_was_written_by_hand(
    real_data: Path, tmp_path: Path
) -> None:
    data = tmp_path / "h9c2"
    shutil.copytree(real_data / "h9c2-brightfield", data, ignore=shutil.ignore_patterns("*.csv"))
    found = read_rows(data)
    by_hand = read_table(real_data / "h9c2-brightfield" / "fields.csv")
    assert [
        (
            row.image.name,
            row.mask and row.mask.name,
            Path(row.fluorescence).name,
            f"movie {row.specimen[1:]}",
        )
        for row in found
    ] == [
        (row.image.name, row.mask and row.mask.name, Path(row.fluorescence).name, row.specimen)
        for row in sorted(by_hand, key=lambda row: natural_key(row.image.name))
    ]
    roles = {row.role for row in assign_roles(found, SplitSettings())}
    assert roles == {"train", "validation", "test"}


def test_real_stacks_give_a_table_that_is_checked(real_data: Path, tmp_path: Path) -> None:
    for kind in ("vnc-sstem", "epfl-hippocampus"):
        table = tmp_path / f"{kind}.csv"
        table.write_text(draft_table(real_data / kind, tmp_path).text, encoding="utf-8")
    (em,) = read_table(tmp_path / "epfl-hippocampus.csv")
    assert (em.image.name, em.mask and em.mask.name) == ("train.ome.tif", "train_mask.ome.tif")
    labelled, unlabelled = check_table(tmp_path / "vnc-sstem.csv").fields
    assert labelled.mask
    assert labelled.mask.name == "labelled_mask.ome.tif"
    assert len(labelled.planes or ()) == 17, "of 20, without those that nobody outlined"
    assert (unlabelled.image.name, unlabelled.role) == ("unlabelled.ome.tif", "unlabelled")


def test_microscopes_files_may_have_scenes(tmp_path: Path) -> None:
    assert masks_of(draft(tmp_path, "a.lif")) == {"a.lif": ""}
    assert "may hold several scenes (write a row for each): 1 (a.lif)" in said(tmp_path)


def test_an_ome_zarr_is_one_image(tmp_path: Path) -> None:
    for name in (".zattrs", "0/.zarray", "0/0/0/0.png"):
        (tmp_path / "a.ome.zarr" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "a.ome.zarr" / name).write_text("{}")
    assert masks_of(draft(tmp_path, "a_mask.tif")) == {"a.ome.zarr": "a_mask.tif"}


NAMES = st.text(
    st.characters(exclude_characters="/\\\0\r\n:*?\"<>|", exclude_categories=["Cs", "Cc"]),
    min_size=1, max_size=20,
)  # fmt: skip


@given(st.lists(NAMES, min_size=1, max_size=5))
def test_any_name_survives_the_table(tmp_path_factory: pytest.TempPathFactory, stems: list) -> None:
    folder = tmp_path_factory.mktemp("names")
    for stem in stems:
        (folder / f"{stem}.tif").touch()
    (folder / "plain.png").touch()  # so that at least one name is no mask's
    for row in read_rows(folder):
        assert row.image.parent == folder
        assert row.image.exists()


@given(st.text(max_size=40))
def test_words_keep_every_digit_of_a_name(name: str) -> None:
    words = split_words(name)
    kept = [d for word in words for d in word.text + word.number if d.isdecimal()]
    assert sorted(kept) == sorted(d for d in name if d.isdecimal())


def test_commas_quotes_and_numbers_in_their_order(tmp_path: Path) -> None:
    names = ["f2.tif", "f10.tif", "Größe, 1.tif", "日本 f1.tif"]
    assert [row["image"] for row in draft(tmp_path, *names)] == names


# --- the command --------------------------------------------------------------------------------


def test_the_command_prints_the_table_and_says_its_guesses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    lay_out(tmp_path / "my images", *[f"d{n}{s}.tif" for n in NUMBERS for s in ("", "_mask")])
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "fields", "my images") == 0
    printed = capsys.readouterr()
    Path("fields.csv").write_text(printed.out)
    assert [row.mask for row in check_table("fields.csv").fields if row.mask] == [
        Path("my images") / f"d{n}_mask.tif" for n in NUMBERS
    ]
    assert "mask: 3 of their image's name (d1.tif and d1_mask.tif)" in printed.err


def test_the_command_writes_beside_the_table_and_never_over_it(
    tmp_path: Path, shell: Shell
) -> None:
    lay_out(tmp_path / "images", "a.tif", "a_mask.tif")
    out = tmp_path / "tables" / "t.csv"
    shell("fields", tmp_path / "images", "--out", out)
    assert out.read_text().splitlines()[1] == "../images/a.tif,../images/a_mask.tif"
    assert set(out.read_text().splitlines()[0].split(",")) <= set(COLUMNS)
    assert (
        "2 files found, 2 used: 1 as images (1 with a mask, 0 without)"
        in (out.parent / "t.txt").read_text()
    )
    for name, said in ((out, "t.csv exists already"), (tmp_path / "t.xlsx", "must end in .csv")):
        assert said in shell("fields", tmp_path / "images", "--out", name, code=1)


def specimens_of(rows: list[dict[str, str]]) -> dict[str, str]:
    return {row["image"]: row.get("specimen") or row["image"] for row in rows}


@pytest.mark.parametrize(
    ("made", "why"),
    [("MAX_f{}.tif", "projections"), ("AVG_f{}.nd2.tif", "projections"),
     ("f{} - Kopie.nd2", "copies"), ("f{} - Copy (2).nd2", "copies"),
     ("Copy of f{}.nd2", "copies"), ("f{}_copy.nd2", "copies"), ("f{} (1).nd2", "copies"),
     ("f{} (copy).nd2", "copies"), ("f{} (another copy).nd2", "copies"),
     ("f{}_mask - Kopie.tif", "copies")],
)  # fmt: skip
def test_copies_and_projections_are_no_images_of_their_own(
    tmp_path: Path, made: str, why: str
) -> None:
    names = [name.format(n) for n in NUMBERS for name in ("f{}.nd2", "f{}_mask.tif", made)]
    lay_out(tmp_path, *names)
    for n in NUMBERS:
        if "mask" in made:
            shutil.copy(tmp_path / f"f{n}_mask.tif", tmp_path / made.format(n))
    rows = rows_of(draft_table(tmp_path, tmp_path))
    assert masks_of(rows) == {f"f{n}.nd2": f"f{n}_mask.tif" for n in NUMBERS}
    assert f"{why} of a " in said(tmp_path)
    assert f"beside them, left out: {len(NUMBERS)}" in said(tmp_path)


def test_what_only_looks_like_a_copy_is_an_image(tmp_path: Path) -> None:
    """It has outlines of its own, other content, or there is nothing that it was made of."""
    names = ("MAX_f1.tif", "MAX_f1_mask.tif", "f1.tif", "MAX_f10.tif", "g (1).tif", "g (2).tif",
             "dish1.tif", "dish1-1.tif", "h.tif", "h (1).tif", "h_copy.png")  # fmt: skip
    assert {*masks_of(draft(tmp_path, *names))} == {*names} - {"MAX_f1_mask.tif"}
    assert "of other content, so used: 2 (h (1).tif, h_copy.png)" in said(tmp_path)
    (tmp_path / "h (1).tif").unlink()
    (tmp_path / "h (1).tif").symlink_to("gone.tif")
    assert "of other content, so used: 2" in said(tmp_path)


def test_versions_of_a_picture_are_of_its_specimen(tmp_path: Path) -> None:
    names = [f"{name}{n}.tif" for n in NUMBERS for name in ("f", "mask_f", "denoised/f")]
    found = specimens_of(draft(tmp_path, *names))
    for n in NUMBERS:
        assert found[f"f{n}.tif"] == found[f"denoised/f{n}.tif"]
    assert len(set(found.values())) == 3


def test_folders_of_movies_stay_specimens_where_some_frames_have_no_mask(tmp_path: Path) -> None:
    names = [f"{c}/t{n}.tif" for c in "abc" for n in NUMBERS] + [f"{c}/t1_mask.tif" for c in "abc"]
    found = specimens_of(draft(tmp_path, *names))
    assert set(found.values()) == {"a", "b", "c"}


def test_before_and_after_are_one_specimen(tmp_path: Path) -> None:
    names = [
        f"{w}/cell{n}{m}.tif" for w in ("before", "after") for n in NUMBERS for m in ("", "_seg")
    ]
    found = specimens_of(draft(tmp_path, *names))
    assert found["before/cell1.tif"] == found["after/cell1.tif"] != found["after/cell2.tif"]
    draft(tmp_path / "b", *[f"dish{n}_{w}_1.tif" for n in NUMBERS for w in ("before", "FCCP")])
    assert "look: specimens in several conditions: dish1, dish2, dish3: " in said(tmp_path / "b")


def test_the_place_that_cannot_be_written_to_is_named_as_given(tmp_path: Path) -> None:
    drafted = draft_table(lay_out(tmp_path, "a.tif"), tmp_path)
    with pytest.raises(MitolumeError, match=re.escape(str(Path("a.tif") / "t.csv"))):
        write_draft(drafted, tmp_path / "a.tif" / "t.csv")


@pytest.mark.parametrize("name", ["{}_mouse{}_cell{}", "{}/mouse{}_cell{}"])
def test_animals_of_two_genotypes_are_counted_together(tmp_path: Path, name: str) -> None:
    """Two of each are four specimens, so their cells need not be told apart."""
    stems = [name.format(g, m, c) for g in ("WT", "KO") for m in (1, 2) for c in NUMBERS]
    found = specimens_of(draft(tmp_path, *(f"{s}{m}.tif" for s in stems for m in ("", "_mask"))))
    assert len(set(found.values())) == 4
    assert found[f"{stems[0]}.tif"] == found[f"{stems[1]}.tif"] != found[f"{stems[6]}.tif"]
