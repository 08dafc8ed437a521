"""`mitolume measure` as a person meets it: masks in, tables, crops, outlines and pictures out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tifffile
import xarray as xr
from helpers.command import Shell
from helpers.masks import read_objects
from roifile import ImagejRoi, roiread, roiwrite

from mitolume.batch import sources
from mitolume.batch.sources import find_sources
from mitolume.errors import MitolumeError
from mitolume.io.check import check_table
from mitolume.io.fields import Field
from mitolume.io.listing import image_files
from mitolume.io.read import read
from mitolume.io.write import write_image, write_mask

SIZE = {"Y": 0.1, "X": 0.1}


def write_pair(folder: Path, name: str, shift: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Write a mask of two bars and a disc, and its two-channel image; return both arrays."""
    mask = np.zeros((80, 100), np.uint8)
    mask[10 + shift : 15 + shift, 10:40] = 1
    mask[30 + shift : 60 + shift, 70:75] = 1
    y, x = np.mgrid[:80, :100]
    mask[(y - 60) ** 2 + (x - 25) ** 2 <= 64] = 1
    image = np.random.default_rng(shift).integers(0, 4000, (2, 80, 100)).astype(np.uint16)
    (folder / "masks").mkdir(exist_ok=True)
    (folder / "images").mkdir(exist_ok=True)
    write_mask(folder / "masks" / f"{name}_mask.ome.tif",
               xr.DataArray(mask, dims=("Y", "X"), attrs={"pixel_size_um": SIZE}))  # fmt: skip
    names = np.array(["T PMT", "TMRM"], dtype=object)
    write_image(
        folder / "images" / f"{name}.ome.tif",
        xr.DataArray(image, dims=("C", "Y", "X"), coords={"C": names},
                     attrs={"pixel_size_um": SIZE}),
    )  # fmt: skip
    return mask, image


@pytest.fixture
def fields(tmp_path: Path) -> Path:
    lines = ["image,mask,specimen,condition"]
    for number, condition in enumerate(["control", "control", "FCCP", "FCCP"]):
        write_pair(tmp_path, f"f{number}", number)
        lines.append(
            f"images/f{number}.ome.tif,masks/f{number}_mask.ome.tif,dish {number},{condition}"
        )
    (tmp_path / "fields.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_known_objects(tmp_path: Path, shell: Shell) -> None:
    mask, image = write_pair(tmp_path, "a")
    out = tmp_path / "out" / "objects.csv"
    said = shell(
        "measure", tmp_path / "masks", "--intensity", tmp_path / "images",
        "--out", out, "--crops", tmp_path / "crops", "--margin", 0.2, "--rois", tmp_path / "rois",
        "--labels", tmp_path / "labels", "--pictures", tmp_path / "pictures",
    )  # fmt: skip
    assert "3 objects in 1 image" in said
    table = pd.read_csv(out)
    assert table["image"].tolist() == ["a"] * 3
    assert table["area_um2"].tolist() == pytest.approx([1.5, 1.5, (mask[50:].sum() - 50) / 100])
    assert table["length_um"].tolist()[:2] == pytest.approx([3, 3], rel=0.05)
    for kind, digits in (("area|length", 4), ("intensity", 8)):  # of shapes, of grey values
        measured = table.filter(regex=kind).astype(float).to_numpy().ravel()
        assert all(float(f"{value:.{digits}g}") == value for value in measured)
    inside = image[1][10:15, 10:40]
    assert table["intensity_mean_TMRM"][0] == pytest.approx(inside.mean(), rel=5e-4)
    summary = pd.read_csv(out.with_name("objects_images.csv"))
    assert summary["n_objects"].tolist() == [3]
    assert summary["total_area_um2"][0] == pytest.approx(mask.sum() / 100)
    settings = json.loads(out.with_name("objects_settings.json").read_text())
    assert settings["objects"]["min_size_um"] == 0.25

    links = pd.read_csv(tmp_path / "crops" / "crops.csv")
    assert links["label"].tolist() == [1, 2, 3]
    for link in links.to_dict("records"):
        with tifffile.TiffFile(tmp_path / "crops" / link["crop"]) as tif:
            part = image[:, link["y0_px"] : link["y1_px"], link["x0_px"] : link["x1_px"]]
            np.testing.assert_array_equal(tif.asarray().reshape(part.shape), part)
            assert 'PhysicalSizeX="0.1"' in tif.ome_metadata
            assert "TMRM" in tif.ome_metadata
    assert (links["y0_px"][0], links["y1_px"][0]) == (8, 17)

    labels = read(tmp_path / "labels" / "a_labels.ome.tif").values.squeeze()
    assert np.array_equal(labels > 0, mask == 1)
    drawn, _ = read_objects(tmp_path / "rois" / "a_rois.zip", tmp_path / "images" / "a.ome.tif")
    np.testing.assert_array_equal(drawn, labels)
    assert (tmp_path / "pictures" / "a_objects.png").stat().st_size > 2000
    assert not list(tmp_path.rglob("*.parts"))


def test_conditions_reach_the_table_and_the_plots(fields: Path, shell: Shell) -> None:
    out = fields / "objects.parquet"
    shell(
        "measure", fields / "masks", "--fields", fields / "fields.csv", "--out", out,
        "--pictures", fields / "pictures", "--crops", fields / "crops",
    )  # fmt: skip
    table = pd.read_parquet(out)
    assert table.groupby("condition")["specimen"].nunique().to_dict() == {"control": 2, "FCCP": 2}
    assert "contrast_TMRM" in table
    assert (fields / "pictures" / "superplot_length_um.svg").exists()
    assert len(pd.read_csv(fields / "crops" / "crops.csv")) == len(table)


def test_a_run_on_two_channels_of_a_file_is_measured_on_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [Field(Path("a.nd2"), channel=name, planes=(0,)) for name in ("BF", "DIC")]
    dye = replace(rows[0], label="dye", planes=(0, 1))  # the outlined plane once more
    run = SimpleNamespace(
        rows=[*rows, dye], row_names=["one", "two", "dye"], kept="model_1",
        mask_file=lambda _, name: Path(name),
    )  # fmt: skip
    monkeypatch.setattr(sources, "open_run", lambda _: run)
    monkeypatch.setattr(sources.Run, "is_begun", True)
    assert [one.name for one in find_sources([Path("run")], [])[0]] == ["two", "dye"]


def test_masks_of_one_name_are_told_apart_by_their_folders(tmp_path: Path, shell: Shell) -> None:
    lines = ["image,mask,specimen"]
    for dish in ("dish A", "dish B"):
        (tmp_path / dish).mkdir()
        write_pair(tmp_path / dish, "1")
        lines.append(f"{dish}/images/1.ome.tif,{dish}/masks/1_mask.ome.tif,{dish}")
    (tmp_path / "fields.csv").write_text("\n".join(lines) + "\n")
    masks = [tmp_path / dish / "masks" for dish in ("dish A", "dish B")]
    out = tmp_path / "o.csv"
    shell("measure", *masks, "--fields", tmp_path / "fields.csv", "--out", out)
    known = pd.read_csv(out)[["image", "specimen"]].drop_duplicates().to_numpy().tolist()
    assert known == [["dish A_masks_1", "dish A"], ["dish B_masks_1", "dish B"]]


def test_a_bad_mask_does_not_stop_the_others_and_can_follow_later(
    fields: Path, shell: Shell
) -> None:
    bad = fields / "masks" / "f1_mask.ome.tif"
    good = bad.read_bytes()
    bad.write_bytes(good[:300])
    command = ["measure", fields / "masks", "--out", fields / "objects.csv"]
    assert "4 masks found, 3 measured; the others failed" in shell(*command, code=1)
    table = pd.read_csv(fields / "objects.csv")
    assert table["image"].unique().tolist() == ["f0", "f2", "f3"]
    bad.write_bytes(good)
    assert "--overwrite" in shell(*command, code=1)
    kept = fields / "objects.csv.parts" / "f0-unsure" / "objects.parquet"
    before = kept.stat().st_mtime_ns
    assert "f0-unsure was made with objects {" in shell(
        *command, "--split", "distance", "--resume", code=1
    )
    assert kept.stat().st_mtime_ns == before
    shell(*command, "--resume")
    resumed = pd.read_csv(fields / "objects.csv")
    shell(*command[:-1], fields / "whole.csv")
    pd.testing.assert_frame_equal(resumed, pd.read_csv(fields / "whole.csv"))
    assert not (fields / "objects.csv.parts").exists()


def test_an_image_without_objects_gives_all_columns(tmp_path: Path, shell: Shell) -> None:
    write_pair(tmp_path, "a")
    command = ["measure", tmp_path / "masks", "--intensity", tmp_path / "images"]
    shell(*command, "--out", tmp_path / "full.parquet")
    empty = xr.DataArray(np.zeros((80, 100), np.uint8), dims=("Y", "X"),
                         attrs={"pixel_size_um": SIZE})  # fmt: skip
    write_mask(tmp_path / "masks" / "a_mask.ome.tif", empty)
    shell(*command, "--out", tmp_path / "none.parquet", "--crops", tmp_path / "crops")
    full, none = (
        pd.read_parquet(tmp_path / "full.parquet"),
        pd.read_parquet(tmp_path / "none.parquet"),
    )
    assert len(none) == 0
    assert none.dtypes.to_dict() == full.dtypes.to_dict()
    assert pd.read_parquet(tmp_path / "none_images.parquet")["n_objects"].tolist() == [0]
    assert pd.read_csv(tmp_path / "crops" / "crops.csv").columns[0] == "crop"


def test_a_stack_is_labelled_through_z_or_plane_by_plane(tmp_path: Path, shell: Shell) -> None:
    mask = np.zeros((4, 40, 40), np.uint8)
    mask[:, 10:20, 10:20] = 1
    mask[2, 30:36, 30:36] = 1
    attrs = {"pixel_size_um": {"Z": 0.2, **SIZE}}
    write_mask(tmp_path / "s_mask.ome.tif", xr.DataArray(mask, dims=("Z", "Y", "X"), attrs=attrs))
    grey = (np.arange(4)[:, None, None] * 100 + np.zeros((4, 40, 40))).astype(np.uint8)
    write_image(tmp_path / "s.ome.tif", xr.DataArray(grey, dims=("Z", "Y", "X"), attrs=attrs))
    command = ["measure", tmp_path / "s_mask.ome.tif", "--intensity", tmp_path / "s.ome.tif"]
    shell(*command, "--out", tmp_path / "v.csv", "--crops", tmp_path / "c")
    volume = pd.read_csv(tmp_path / "v.csv")
    assert volume["volume_um3"].tolist() == pytest.approx([400 * 0.002, 36 * 0.002])
    crop = read(tmp_path / "c" / "s_00001.ome.tif")
    assert crop.sizes["Z"] == 4
    np.testing.assert_array_equal(crop.values[0, 0, :, 0, 0], grey[:, 0, 0])
    out = tmp_path / "p.csv"
    command += ["--per-plane", "--rois", tmp_path]
    shell(*command, "--out", out)
    planes = pd.read_csv(out)
    assert planes["plane"].tolist() == [0, 1, 2, 2, 3]
    assert planes["label"].tolist() == [1, 2, 3, 4, 5]
    assert planes["intensity_mean_0"].tolist() == [0, 100, 200, 200, 44]  # 300 wraps in 8 bit
    drawn, _ = read_objects(tmp_path / "s_rois.zip", tmp_path / "s.ome.tif")
    assert np.array_equal(drawn > 0, mask == 1)


def test_unlike_z_steps_are_told_by_measure_and_compare(tmp_path: Path, shell: Shell) -> None:
    mask = np.zeros((5, 30, 30), np.uint8)
    mask[1:, 5:20, 5:9] = 1
    rows = ["image,mask,specimen,condition"]
    for number, step in enumerate((0.5, 1.0, 0.501, 0.5)):
        attrs = {"pixel_size_um": {"Z": step, **SIZE}}
        stack = xr.DataArray(mask, dims=("Z", "Y", "X"), attrs=attrs)
        write_mask(path := tmp_path / "masks" / f"m{number}_mask.ome.tif", stack)
        write_image(image := tmp_path / f"m{number}.ome.tif", stack)
        rows.append(f"{image},{path},{number},{('control', 'FCCP')[number % 2]}")
    (tmp_path / "f.csv").write_text("\n".join(rows))
    told = "z-steps are not the same in all stacks (0.5 µm in 3 images, 1 µm in 1 image): lengths"
    measure = ["measure", tmp_path / "masks", "--fields", tmp_path / "f.csv", "--out"]
    assert told in shell(*measure, tmp_path / "o.csv")
    assert told in shell("compare", tmp_path / "o.csv", "--column", "volume")
    # Masks that the table no longer lists are left out.
    (tmp_path / "f.csv").write_text("\n".join([*rows[:2], *rows[3:]]))
    said = shell(*measure, tmp_path / "q.csv")
    assert "4 masks found, 3 used: not in " in said
    assert "f.csv: m1_mask.ome.tif" in said
    said += shell("compare", tmp_path / "q.csv", "--column", "volume")
    assert "z-steps are" not in said


def test_images_of_one_name_that_have_no_mask_are_counted_one_by_one(tmp_path: Path) -> None:
    touch(tmp_path / "masks", "a_mask.tif")
    for day in "123":
        touch(tmp_path / day, "a.tif")
    rows = ["image,mask", "1/a.tif,masks/a_mask.tif", "2/a.tif,", "3/a.tif,"]
    (tmp_path / "f.csv").write_text("\n".join(rows))
    found, (said,) = find_sources([tmp_path / "masks"], [], tmp_path / "f.csv")
    assert len(found) == 1
    assert "2 images" in said


def test_what_is_measured_in_pixels_or_in_planes_alone_is_told(
    tmp_path: Path, shell: Shell
) -> None:
    mask = np.zeros((5, 30, 30), np.uint8)
    mask[1:, 5:20, 5:9] = 1
    rows = ["image,mask,specimen,condition,z_step_um"]
    for number, planes in enumerate((5, 5, 1, 1)):
        attrs = {"pixel_size_um": SIZE | ({"Z": 0.5} if number else {})}
        stack = xr.DataArray(mask[-planes:], dims=("Z", "Y", "X"), attrs=attrs)
        write_mask(path := tmp_path / "masks" / f"m{number}_mask.ome.tif", stack)
        write_image(image := tmp_path / f"m{number}.ome.tif", stack)
        rows.append(f"{image},{path},{number},{('control', 'FCCP')[number % 2]},")
    (tmp_path / "f.csv").write_text("\n".join(rows))
    measure = ["measure", tmp_path / "masks", "--fields", tmp_path / "f.csv", "--out"]
    said = shell(*measure, tmp_path / "o.csv")
    assert "the z-step, of 1 image is unknown (m0): lengths there are in pixels" in said
    assert "2 images measured through z, 2 images in single planes" in said
    said = shell("compare", tmp_path / "o.csv", "--column", "length", code=1)
    assert "has length in several units (length_px, length_um): name one, or measure with" in said
    said = shell("compare", tmp_path / "o.csv", "--column", "length_um")
    assert "1 of 4 rows have length_px in its place" in said
    assert "1 of 3 objects were measured through z, the others in single planes" in said
    areas = pd.DataFrame({"area_um2": [1.0, 2, np.nan], "area_px": [np.nan, np.nan, 3]})
    areas[["image", "specimen"]], areas["condition"] = "a", ["control", "FCCP", "FCCP"]
    areas.to_csv(tmp_path / "areas.csv")
    said = shell("compare", tmp_path / "areas.csv", "--column", "area_um2")
    assert "1 of 3 rows have area_px in its place" in said
    rows[1] += "0.5"
    (tmp_path / "f.csv").write_text("\n".join(rows))
    said = shell(*measure, tmp_path / "q.csv", "--per-plane")
    said += shell("compare", tmp_path / "q.csv", "--column", "length")
    assert not any(word in said for word in ("unknown (", "in its place", "through z"))


def test_numbers_of_a_label_image_are_kept(tmp_path: Path, shell: Shell) -> None:
    labels = np.zeros((30, 30), np.uint16)
    labels[5:10, 5:10], labels[5:10, 10:15], labels[20:25, 3:20] = 7, 300, 12
    tifffile.imwrite(tmp_path / "cells.tif", labels)
    command = ["measure", tmp_path / "cells.tif", "--out", tmp_path / "o.csv"]
    assert "--mask-kind labels) where every value above 0" in shell(*command, code=1)
    shell(*command, "--mask-kind", "labels")
    table = pd.read_csv(tmp_path / "o.csv")
    assert table["label"].tolist() == [7, 12, 300]
    assert table["area_px"].tolist() == [25, 85, 25]


def test_the_masks_of_a_run_are_measured_in_their_images(tmp_path: Path, shell: Shell) -> None:
    run = tmp_path / "run"
    (run / "masks" / "model_1").mkdir(parents=True)
    write_pair(tmp_path, "f0")
    (tmp_path / "masks" / "f0_mask.ome.tif").rename(run / "masks" / "model_1" / "f0_mask.ome.tif")
    (run / "run.json").write_text('{"status": "finished"}')
    (run / "kept.json").write_text('{"kept": "model_1", "reason": "alone"}')
    (run / "images.csv").write_text("line,plane,model,subset,tp\n")
    (run / "results.csv").write_text("model,subset,metric,value,n_images,n_specimens\n")
    (run / "fields.csv").write_text(
        "image,specimen,condition,channel,fluorescence\n"
        "../images/f0.ome.tif,dish 1,FCCP,T PMT,TMRM\n"
    )
    shell("measure", run, "--out", tmp_path / "objects.csv")
    table = pd.read_csv(tmp_path / "objects.csv")
    assert table["condition"].tolist() == ["FCCP"] * 3
    assert [n for n in table if "_mean_" in n and "ring" not in n] == [
        "intensity_mean_image", "intensity_mean_fluorescence",
    ]  # fmt: skip
    # Where no channel is named all are measured, the dye's among them, and each once.
    (run / "fields.csv").write_text(
        "image,specimen,condition,fluorescence\n../images/f0.ome.tif,dish 1,FCCP,TMRM\n"
    )
    shell("measure", run, "--out", tmp_path / "all.csv")
    named = [n for n in pd.read_csv(tmp_path / "all.csv") if n.startswith("intensity_mean_")]
    assert named == ["intensity_mean_T_PMT", "intensity_mean_TMRM"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--crops", "crops"], "name it with --intensity"),
        (["--split", "necks"], "should be 'none', 'distance' or 'probability'"),
        (["--intensity", "small.ome.tif"], "but its image small.ome.tif is 9 x 100"),
        (["--intensity", "coarse.ome.tif"], "states 0.1 µm along Y, but coarse.ome.tif 0.2"),
        (["--threshold", "0"], "--threshold 0.0: input should be greater than 0"),
        (["--intensity", "nowhere"], "nowhere"),
        (["--out", "objects.xlsx"], "must end in .csv, .parquet, .h5ad"),
        (["--labels", "masks", "--out", "masks/a_mask.csv", "--mask-kind", "joy"], "no mask kind"),
        (["--fields", "fields.csv"], "no row whose image or mask has the name"),
    ],
)
def test_faults_are_one_sentence(
    options: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: Shell
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pair(tmp_path, "a")
    write_image("small.ome.tif", xr.DataArray(np.zeros((9, 100), np.uint8), dims=("Y", "X")))
    coarse = {"pixel_size_um": {"Y": 0.2, "X": 0.2}}
    write_image("coarse.ome.tif", xr.DataArray(np.zeros((80, 100), np.uint8), dims=("Y", "X"),
                                               attrs=coarse))  # fmt: skip
    Path("fields.csv").write_text("image,specimen\nsmall.ome.tif,dish\n")
    error = shell("measure", "masks/a_mask.ome.tif", "--quiet", *options, code=1)
    assert says in error
    assert error.count("\n") == 1
    assert not Path("objects.csv").exists()
    assert not list(tmp_path.glob("*.parts"))


def test_channels_in_files_of_their_own(tmp_path: Path, shell: Shell) -> None:
    for number in range(2):
        write_pair(tmp_path, f"f{number}", number)
        for channel in ("bf", "tmrm"):
            grey = xr.DataArray(np.full((80, 100), number + 1, np.uint8), dims=("Y", "X"))
            write_image(tmp_path / channel / f"f{number}.ome.tif", grey)
    both = ["--intensity", tmp_path / "bf", "--intensity", tmp_path / "tmrm"]
    out = tmp_path / "objects.csv"
    shell("measure", tmp_path / "masks", *both, "--out", out)
    table = pd.read_csv(out)
    assert table["intensity_mean_tmrm"].tolist() == [1, 1, 1, 2, 2, 2]
    assert table["intensity_mean_bf"].notna().all()


@pytest.mark.parametrize(
    ("channels", "columns", "note"),
    [
        ([["0"], ["DIC"]], ["DIC"], "1 image without a name of its channel, taken for DIC as"),
        ([["TL"], ["DIC"]], ["TL", "DIC"], "not the same in all 2 images (TL in 1; DIC in 1)"),
        ([["0"], ["TL", "TMRM"]], ["0", "TL", "TMRM"], "(0 in 1; TL, TMRM in 1)"),
        ([["DIC"], ["DIC"]], ["DIC"], ""),
        ([["TL", "TMRM"], ["TMRM", "TL"]], ["TL", "TMRM"], ""),
    ],
)
def test_channels_of_unlike_files_are_told(
    channels: list[list[str]], columns: list[str], note: str, tmp_path: Path, shell: Shell
) -> None:
    for number, names in enumerate(channels):
        write_pair(tmp_path, f"f{number}", number)
        grey = np.full((len(names), 80, 100), number + 1, np.uint8)
        image = xr.DataArray(grey, dims=tuple("CYX"), coords={"C": np.array(names, dtype=object)})
        write_image(tmp_path / "i" / f"f{number}.ome.tif", image)
    out = tmp_path / "o.csv"
    said = shell("measure", tmp_path / "masks", "--intensity", tmp_path / "i", "--out", out)
    found = [name.removeprefix("intensity_mean_") for name in pd.read_csv(out)]
    assert [name for name in found if name in {"0", "DIC", "TL", "TMRM"}] == columns
    assert note in said
    assert ("channels are" in said or "its channel" in said) == bool(note)


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("masks", "images", "matched"),
    [
        (["f1_mask.tif", "f10_mask.tif"], ["f1_bf.tif", "f10_bf.tif"], ["f1_bf", "f10_bf"]),
        (["f1_cp_masks.png", "f10_cp_masks.png"], ["f1.tif", "f10.tif"], ["f1", "f10"]),
        (["F1 mask.tif"], ["f1.tif", "f1_2.tif"], ["f1"]),
        (["d_1_mask.tif", "d_1_2_seg.tif"], ["d_1.tif", "d_1_2.tif"], ["d_1", "d_1_2"]),
        (["f1_RoiSet.zip"], ["f1-DAPI.tif"], ["f1-DAPI"]),
    ],
)
def test_images_are_found_by_name(
    masks: list[str], images: list[str], matched: list[str], tmp_path: Path
) -> None:
    names = sorted(touch(tmp_path / "masks", *masks).iterdir(), key=lambda p: masks.index(p.name))
    found, _ = find_sources(names, [touch(tmp_path / "images", *images)])
    assert [source.images[0].file.stem for source in found] == matched


@pytest.mark.parametrize(("mask", "image"), [("f10_mask.tif", "f1.tif"), ("f1.tif", "f10.tif")])
def test_f10_is_not_f1(mask: str, image: str, tmp_path: Path) -> None:
    with pytest.raises(MitolumeError, match="no image of the name"):
        find_sources([touch(tmp_path / "m", mask) / mask], [touch(tmp_path / "i", image)])


def test_a_mask_is_no_image_of_another(tmp_path: Path) -> None:
    both = touch(tmp_path / "both", "f1_mask.tif", "f1_bf.tif", "f2_mask.tif")
    with pytest.raises(MitolumeError, match=r"no image of the name of .*f2_mask"):
        find_sources([both], [both])


def test_channels_are_named_by_whole_words(tmp_path: Path) -> None:
    folders = [touch(tmp_path / c, f"f1_{c}.tif", f"f2_{c}.tif") for c in ("tmrm", "tom20")]
    found, _ = find_sources([touch(tmp_path / "masks", "f1.tif", "f2.tif")], folders)
    names = [[image.name for image in source.images] for source in found]
    assert names == [["tmrm", "tom20"]] * 2


BAR = np.zeros((8, 20), np.uint8)
BAR[2:5, 2:18] = 1
PAIR = BAR * np.repeat([1, 2], 10).astype(np.uint8)
SLOPE = np.broadcast_to(np.arange(20, dtype=np.uint8) * 12, (8, 20))


@pytest.mark.parametrize(
    ("arrays", "kind", "n_objects"),
    [
        ([BAR, BAR * 0.7], "auto", [1, 1]),  # the second is a probability
        ([BAR * 255.0], "auto", [1]),
        ([PAIR, BAR, BAR * 7], "labels", [2, 1, 1]),
        ([BAR, BAR * 255], "labels", [1, 1]),
        ([BAR + 1], "labels", [2]),
    ],
)
def test_what_values_mean(
    arrays: list[np.ndarray], kind: str, n_objects: list[int], tmp_path: Path, shell: Shell
) -> None:
    masks = write_masks(tmp_path / "m", arrays)
    out = tmp_path / "o.csv"
    shell("measure", masks, "--mask-kind", kind, "--out", out)
    assert pd.read_csv(tmp_path / "o_images.csv")["n_objects"].tolist() == n_objects


def write_masks(folder: Path, arrays: list[np.ndarray]) -> Path:
    folder.mkdir()
    for number, array in enumerate(arrays):
        kept = array.astype(np.float32 if array.dtype.kind == "f" else np.uint16)
        tifffile.imwrite(folder / f"{number}.tif", kept)
    return folder


@pytest.mark.parametrize(
    ("arrays", "kind", "says"),
    [
        ([BAR, SLOPE], "auto", "1.tif holds the values 0, 12, 24"),
        ([BAR * 255, PAIR * 3], "auto", "1.tif holds the values 0, 3, 6"),
        ([BAR, BAR * 255], "auto", "255 could mean mitochondria or unsure"),
        ([BAR + 1], "auto", "as ilastik numbers its classes: make mitochondria 1"),
        ([BAR * 1e20], "labels", "objects have no such numbers"),
    ],
)
def test_what_cannot_be_known_is_refused_by_every_command(
    arrays: list[np.ndarray], kind: str, says: str, tmp_path: Path, shell: Shell
) -> None:
    masks = write_masks(tmp_path / "m", arrays)
    for command in (
        ["measure", masks, "--out", tmp_path / "o.csv"],
        ["evaluate", masks, masks],
        ["convert", masks, "--out", tmp_path, "--to", "zip"],
    ):
        assert says in shell(*command, "--mask-kind", kind, code=1)
    for n in range(len(arrays)):
        image = np.random.default_rng(n).integers(0, 255, BAR.shape).astype(np.uint8)
        tifffile.imwrite(tmp_path / f"{n}.tif", image)
    rows = "".join(f"{n}.tif,m/{n}.tif\n" for n in range(len(arrays)))
    (tmp_path / "t.csv").write_text("image,mask\n" + rows)
    with pytest.raises(MitolumeError, match=re.escape(says)):
        check_table(tmp_path / "t.csv", mask_kind=kind)


@pytest.mark.parametrize(
    ("names", "used"),
    [
        (["a.tif", "b.tif", "c_mask.tif"], ["a", "b", "c"]),
        (["a.tif", "a_mask.tif", "b.tif", "b_bf_labels.tif"], ["a", "b_bf"]),
        (["a.tif", "a_cp_masks.png", "a_overlay.png", "a_probability.tif"], ["a"]),
        (["a_mask.tif", "b mask final.png", "sheet.png"], ["a", "b"]),  # sheet.png is of `label`
    ],
)
def test_the_masks_of_a_folder(names: list[str], used: list[str], tmp_path: Path) -> None:
    found, notices = find_sources([touch(tmp_path / "m", *names)], [])
    assert [source.name for source in found] == used
    listed = [name for name in names if "overlay" not in name and name != "sheet.png"]
    left_out = len(listed) > len(used)
    assert [f"{len(listed)} files found, {len(used)} used" in n for n in notices] == [True] * (
        left_out
    )


def test_masks_are_no_images_to_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["a.tif", "a_cp_masks.png", "a_labels.tif", "a_mask.ome.tif", "masked.tif"]
    listed, notices = image_files([touch(tmp_path / "i", *names)], [])
    assert [path.name for path in listed] == ["a.tif", "masked.tif"]
    assert "5 image files found, 2 used" in notices[0]
    touch(tmp_path / "i" / "masks", "a_mask.tif")  # results below are no images left out
    assert image_files([tmp_path / "i"], [])[1] == notices
    touch(tmp_path / "i" / "day 2", "b.tif")
    touch(tmp_path / "i" / "week 2" / "dish B" / "day 9", "c.tif")
    said = image_files([tmp_path / "i"], [])[1][1]
    assert "in the folders below it are left out (day 2, day 9)" in said
    touch(tmp_path / "i" / "1" / "2" / "3" / "4", "deep.tif")  # too deep for a note
    denied, iterdir = tmp_path / "i" / "denied", Path.iterdir
    touch(denied, "d.tif")

    def refusing(path: Path) -> Iterator[Path]:
        if path == denied:
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refusing)
    assert image_files([tmp_path / "i"], [])[1][1] == said
    for n in range(9):
        touch(tmp_path / "i" / f"well {n}", "w.tif")
    assert "and perhaps others); name these" in image_files([tmp_path / "i"], [])[1][1]


def test_unsure_pixels_are_no_field_and_no_ring(tmp_path: Path, shell: Shell) -> None:
    corners = {"a": (10, 10, 30, 20), "unsure": (10, 21, 30, 40)}
    boxes = [
        ImagejRoi.frompoints([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], name=name)
        for name, (x0, y0, x1, y1) in corners.items()
    ]
    roiwrite(tmp_path / "drawn.zip", boxes)
    values = np.zeros((50, 40), np.uint8)
    values[10:20, 10:30], values[21:40, 10:30] = 1, 255
    tifffile.imwrite(tmp_path / "mask.tif", values)
    tifffile.imwrite(tmp_path / "image.tif", np.where(values == 255, 999, values * 50))
    tables = []
    for mask in ("drawn.zip", "mask.tif"):
        out = tmp_path / f"{mask}.csv"
        shell("measure", tmp_path / mask, "--intensity", tmp_path / "image.tif",
              "--out", out, "--mask-kind", "unsure")  # fmt: skip
        tables.append(pd.read_csv(out).drop(columns="image"))
        shares = pd.read_csv(tmp_path / f"{mask}_images.csv")["footprint_share"]
        assert shares.tolist() == pytest.approx([200 / (2000 - 380)], rel=5e-4)
    assert tables[0]["ring_mean_0"].tolist() == [0]
    pd.testing.assert_frame_equal(*tables)


def test_rois_of_a_time_series_know_their_time(tmp_path: Path, shell: Shell) -> None:
    movie = np.zeros((3, 2, 30, 30), np.uint8)
    movie[:, :, 5:10, 5:15] = 1
    write_mask(tmp_path / "m.ome.tif", xr.DataArray(movie, dims=tuple("TZYX")))
    shell("measure", tmp_path / "m.ome.tif", "--rois", tmp_path / "r", "--out", tmp_path / "o.csv")
    places = [(roi.t_position, roi.z_position) for roi in roiread(tmp_path / "r" / "m_rois.zip")]
    assert places == [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)]


def test_tables_of_planes_and_movies_keep_whole_numbers(tmp_path: Path, shell: Shell) -> None:
    write_mask(tmp_path / "a_mask.ome.tif", xr.DataArray(BAR, dims=("Y", "X")))
    both = xr.DataArray(np.stack([BAR, BAR]), dims=("T", "Y", "X"))
    write_mask(tmp_path / "b_mask.ome.tif", both)
    shell("measure", tmp_path, "--out", tmp_path / "o.csv")
    assert [line.split(",")[:3] for line in (tmp_path / "o.csv").read_text().splitlines()] == [
        ["image", "t", "label"], ["a", "", "1"], ["b", "0", "1"], ["b", "1", "2"]
    ]  # fmt: skip


def test_pixels_that_cannot_be_decoded_are_named(fields: Path, shell: Shell) -> None:
    for bad in (fields / "masks" / "f1_mask.ome.tif", fields / "images" / "f2.ome.tif"):
        with tifffile.TiffFile(bad) as tif:
            start = tif.pages[0].dataoffsets[0]
        content = bytearray(bad.read_bytes())
        content[start + 5 : start + 25] = b"x" * 20
        bad.write_bytes(bytes(content))
    error = shell("measure", fields / "masks", "--intensity", fields / "images",
                  "--out", fields / "o.csv", code=1)  # fmt: skip
    assert "4 masks found, 2 measured" in error
    assert "f1_mask.ome.tif can't be read" in error
    assert "f2.ome.tif can't be read" in error
    assert pd.read_csv(fields / "o.csv")["image"].unique().tolist() == ["f0", "f3"]


def test_a_table_that_was_changed_is_not_mixed_with_what_was_measured(
    fields: Path, shell: Shell
) -> None:
    (fields / "masks" / "f1_mask.ome.tif").write_bytes(b"")
    command = ["measure", fields / "masks", "--fields", fields / "fields.csv",
               "--out", fields / "o.csv"]  # fmt: skip
    shell(*command, code=1)
    table = fields / "fields.csv"
    table.write_text(table.read_text().replace("dish 0", "dish 9"))
    assert "was made with specimen dish 0, not dish 9" in shell(*command, "--resume", code=1)


def test_crops_of_an_earlier_measurement_are_replaced(fields: Path, shell: Shell) -> None:
    own = fields / "crops" / "mine.ome.tif"
    own.parent.mkdir()
    own.touch()
    command = ["measure", fields / "masks", "--intensity", fields / "images", "--overwrite",
               "--out", fields / "o.csv", "--crops", fields / "crops"]  # fmt: skip
    crops = fields / "crops"
    for options, kept in (([], 12), (["--min-size", 1.5], 4)):
        shell(*command, *options)
        assert len(list(crops.glob("*f*.ome.tif"))) == kept == len(pd.read_csv(crops / "crops.csv"))
        (crops / ".part-7.f0_00001.ome.tif").touch()  # left by a kill
    assert own.exists()
    shell(*command)
    (crops / "crops.csv").unlink()  # killed before the crops were listed
    shell(*command, "--min-size", 1.5)
    assert len(list(crops.glob("*f*.ome.tif"))) == 4


def test_a_finished_measurement_is_resumed(fields: Path, shell: Shell) -> None:
    """A kill may have come while it was tidied up."""
    command = ["measure", fields / "masks", "--out", fields / "o.csv", "--rois", fields / "rois",
               "--resume"]  # fmt: skip
    shell(*command)
    made = [p for p in (*fields.glob("o*"), *fields.glob("rois/*")) if p.is_file()]
    before = {path: path.read_bytes() for path in made}
    (fields / ".part-77.o.csv.parts").mkdir()
    (fields / "rois" / ".part-77.f0_rois.zip").touch()
    shell(*command)
    assert {path: path.read_bytes() for path in made} == before
    assert not list(fields.rglob(".part-*"))
    assert "made of other masks, rows of the table or settings (see" in shell(
        *command, "--min-size", 1.5, code=1
    )
    assert {path: path.read_bytes() for path in made} == before


def test_high_numbers_need_no_more_memory(tmp_path: Path, shell: Shell) -> None:
    labels = np.zeros((9, 30), np.uint32)
    labels[2:5, 2:9], labels[2:5, 12:20] = 2_000_000_000, 5
    tifffile.imwrite(tmp_path / "l.tif", labels)
    shell("measure", tmp_path / "l.tif", "--out", tmp_path / "o.csv", "--mask-kind", "labels")
    assert pd.read_csv(tmp_path / "o.csv")["label"].tolist() == [5, 2_000_000_000]


def test_a_row_means_some_planes_of_a_mask(tmp_path: Path, shell: Shell) -> None:
    stack = np.zeros((6, 8, 20), np.uint8)
    stack[:, 2:5, 2:18] = 1
    depth = np.arange(6, dtype=np.uint8)[:, None, None]
    for name, values in (("s_mask", stack), ("s", stack * depth)):
        image = xr.DataArray(values, dims=("Z", "Y", "X"))
        write_image(tmp_path / f"{name}.ome.tif", image)
    (tmp_path / "f.csv").write_text("image,mask,planes\ns.ome.tif,s_mask.ome.tif,2 4\n")
    command = ["measure", tmp_path / "s_mask.ome.tif", "--fields", tmp_path / "f.csv"]
    shell(*command, "--out", tmp_path / "o.csv")
    table = pd.read_csv(tmp_path / "o.csv")
    assert table["plane"].tolist() == [2, 4]
    assert table["intensity_mean_image"].tolist() == [2, 4]
