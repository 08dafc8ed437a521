"""`mitolume measure` as a person meets it: masks in, tables, crops, outlines and pictures out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import xarray as xr
from bioio_ome_zarr import Reader
from test_cli import call

from mitolume.io.convert import read_objects
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


def test_known_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    mask, image = write_pair(tmp_path, "a")
    out = tmp_path / "out" / "objects.csv"
    assert call(
        monkeypatch, "measure", tmp_path / "masks", "--intensity", tmp_path / "images",
        "--out", out, "--crops", tmp_path / "crops", "--margin", 0.2, "--rois", tmp_path / "a.zip",
        "--labels", tmp_path / "labels", "--pictures", tmp_path / "pictures",
    ) == 0  # fmt: skip
    assert "3 objects in 1 image" in capsys.readouterr().out
    table = pd.read_csv(out)
    assert table["image"].tolist() == ["a"] * 3
    assert table["area_um2"].tolist() == pytest.approx([1.5, 1.5, (mask[50:].sum() - 50) / 100])
    assert table["length_um"].tolist()[:2] == pytest.approx([3, 3], rel=0.05)
    inside = image[1][10:15, 10:40]
    assert table["intensity_mean_TMRM"][0] == pytest.approx(inside.mean())
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
    drawn = read_objects(tmp_path / "a.zip", tmp_path / "images" / "a.ome.tif").labels
    np.testing.assert_array_equal(drawn, labels)
    assert (tmp_path / "pictures" / "a_objects.png").stat().st_size > 2000
    assert not list(tmp_path.rglob("*.parts"))


def test_conditions_reach_the_table_and_the_plots(
    fields: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = fields / "objects.parquet"
    assert call(
        monkeypatch, "measure", fields / "masks", "--fields", fields / "fields.csv", "--out", out,
        "--pictures", fields / "pictures", "--crops", fields / "crops.ome.zarr",
    ) == 0  # fmt: skip
    table = pd.read_parquet(out)
    assert table.groupby("condition")["specimen"].nunique().to_dict() == {"control": 2, "FCCP": 2}
    assert "contrast_TMRM" in table
    assert (fields / "pictures" / "superplot_length_um.svg").exists()
    stack = Reader(fields / "crops.ome.zarr").xarray_dask_data
    links = pd.read_csv(fields / "crops.csv")
    assert stack.sizes["T"] == len(links) == len(table)
    row = links.iloc[7]
    image = read(fields / "images" / f"{row['image']}.ome.tif").values[0, :, 0]
    part = image[:, row["y0_px"] : row["y1_px"], row["x0_px"] : row["x1_px"]]
    crop = stack[row["t_in_store"], :, 0, : part.shape[1], : part.shape[2]]
    np.testing.assert_array_equal(crop.values, part)


def test_a_bad_mask_does_not_stop_the_others_and_can_follow_later(
    fields: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    bad = fields / "masks" / "f1_mask.ome.tif"
    good = bad.read_bytes()
    bad.write_bytes(good[:300])
    command = ["measure", fields / "masks", "--out", fields / "objects.csv"]
    assert call(monkeypatch, *command) == 1
    assert "1 of 4 masks could not be measured" in capsys.readouterr().err
    table = pd.read_csv(fields / "objects.csv")
    assert table["image"].unique().tolist() == ["f0", "f2", "f3"]
    bad.write_bytes(good)
    assert call(monkeypatch, *command) == 1
    assert "--overwrite" in capsys.readouterr().err
    kept = fields / "objects.csv.parts" / "00000-unsure" / "objects.parquet"
    before = kept.stat().st_mtime_ns
    assert call(monkeypatch, *command, "--split", "distance", "--resume") == 1
    assert "other settings" in capsys.readouterr().err
    assert kept.stat().st_mtime_ns == before
    assert call(monkeypatch, *command, "--resume") == 0
    resumed = pd.read_csv(fields / "objects.csv")
    assert call(monkeypatch, *command[:-1], fields / "whole.csv") == 0
    pd.testing.assert_frame_equal(resumed, pd.read_csv(fields / "whole.csv"))
    assert not (fields / "objects.csv.parts").exists()


def test_an_image_without_objects_gives_all_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pair(tmp_path, "a")
    call(monkeypatch, "measure", tmp_path / "masks", "--intensity", tmp_path / "images",
         "--out", tmp_path / "full.parquet")  # fmt: skip
    empty = xr.DataArray(np.zeros((80, 100), np.uint8), dims=("Y", "X"),
                         attrs={"pixel_size_um": SIZE})  # fmt: skip
    write_mask(tmp_path / "masks" / "a_mask.ome.tif", empty)
    assert call(
        monkeypatch, "measure", tmp_path / "masks", "--intensity", tmp_path / "images",
        "--out", tmp_path / "none.parquet", "--crops", tmp_path / "crops",
    ) == 0  # fmt: skip
    full, none = (
        pd.read_parquet(tmp_path / "full.parquet"),
        pd.read_parquet(tmp_path / "none.parquet"),
    )
    assert len(none) == 0
    assert none.dtypes.to_dict() == full.dtypes.to_dict()
    assert pd.read_parquet(tmp_path / "none_images.parquet")["n_objects"].tolist() == [0]
    assert pd.read_csv(tmp_path / "crops" / "crops.csv").columns[0] == "crop"


def test_a_stack_is_labelled_through_z_or_plane_by_plane(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = np.zeros((4, 40, 40), np.uint8)
    mask[:, 10:20, 10:20] = 1
    mask[2, 30:36, 30:36] = 1
    attrs = {"pixel_size_um": {"Z": 0.2, **SIZE}}
    write_mask(tmp_path / "s_mask.ome.tif", xr.DataArray(mask, dims=("Z", "Y", "X"), attrs=attrs))
    grey = (np.arange(4)[:, None, None] * 100 + np.zeros((4, 40, 40))).astype(np.uint8)
    write_image(tmp_path / "s.ome.tif", xr.DataArray(grey, dims=("Z", "Y", "X"), attrs=attrs))
    command = ["measure", tmp_path / "s_mask.ome.tif", "--intensity", tmp_path / "s.ome.tif"]
    assert call(monkeypatch, *command, "--out", tmp_path / "v.csv", "--crops", tmp_path / "c") == 0
    volume = pd.read_csv(tmp_path / "v.csv")
    assert volume["volume_um3"].tolist() == pytest.approx([400 * 0.002, 36 * 0.002])
    crop = read(tmp_path / "c" / "s_00001.ome.tif")
    assert crop.sizes["Z"] == 4
    np.testing.assert_array_equal(crop.values[0, 0, :, 0, 0], grey[:, 0, 0])
    out = tmp_path / "p.csv"
    command += ["--per-plane", "--rois", tmp_path / "r.zip"]
    assert call(monkeypatch, *command, "--out", out) == 0
    planes = pd.read_csv(out)
    assert planes["plane"].tolist() == [0, 1, 2, 2, 3]
    assert planes["label"].tolist() == [1, 2, 3, 4, 5]
    assert planes["intensity_mean_0"].tolist() == [0, 100, 200, 200, 44]  # 300 wraps in 8 bit
    drawn = read_objects(tmp_path / "r.zip", tmp_path / "s.ome.tif").labels
    assert np.array_equal(drawn > 0, mask == 1)


def test_numbers_of_a_label_image_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.zeros((30, 30), np.uint16)
    labels[5:10, 5:10], labels[5:10, 10:15], labels[20:25, 3:20] = 7, 300, 12
    tifffile.imwrite(tmp_path / "cells.tif", labels)
    assert call(monkeypatch, "measure", tmp_path / "cells.tif", "--out", tmp_path / "o.csv") == 0
    table = pd.read_csv(tmp_path / "o.csv")
    assert table["label"].tolist() == [7, 12, 300]
    assert table["area_px"].tolist() == [25, 85, 25]


def test_the_masks_of_a_run_are_measured_in_their_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    (run / "masks" / "model_1").mkdir(parents=True)
    write_pair(tmp_path, "f0")
    (tmp_path / "masks" / "f0_mask.ome.tif").rename(run / "masks" / "model_1" / "f0_mask.ome.tif")
    (run / "run.json").write_text("{}")
    (run / "kept.json").write_text('{"kept": "model_1"}')
    (run / "fields.csv").write_text(
        "image,specimen,condition,channel,fluorescence\n"
        "../images/f0.ome.tif,dish 1,FCCP,T PMT,TMRM\n"
    )
    assert call(monkeypatch, "measure", run, "--out", tmp_path / "objects.csv") == 0
    table = pd.read_csv(tmp_path / "objects.csv")
    assert table["condition"].tolist() == ["FCCP"] * 3
    assert {"intensity_mean_image", "intensity_mean_fluorescence"} <= set(table)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--crops", "crops"], "name it with --intensity"),
        (["--split", "necks"], "there are none, distance, probability, branches"),
        (["--pixel-size", "80"], "not within 0.001 to 5"),
        (["--intensity", "small.ome.tif"], "along Y"),
        (["--intensity", "nowhere"], "nowhere"),
        (["--out", "objects.xlsx"], "must end in .csv or .parquet"),
        (["--intensity", "images/a.ome.tif", "--pictures", "p", "--colour-by", "joy"], "area_um2"),
        (["--fields", "fields.csv"], "no row whose image or mask has the name"),
    ],
)
def test_faults_are_one_sentence(
    options: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pair(tmp_path, "a")
    write_image("small.ome.tif", xr.DataArray(np.zeros((9, 100), np.uint8), dims=("Y", "X")))
    Path("fields.csv").write_text("image,specimen\nsmall.ome.tif,dish\n")
    assert call(monkeypatch, "measure", "masks/a_mask.ome.tif", "--quiet", *options) == 1
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not Path("objects.csv").exists()
    assert not list(tmp_path.glob("*.parts"))


def test_channels_in_files_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2):
        write_pair(tmp_path, f"f{number}", number)
        for channel in ("bf", "tmrm"):
            grey = xr.DataArray(np.full((80, 100), number + 1, np.uint8), dims=("Y", "X"))
            write_image(tmp_path / channel / f"f{number}.ome.tif", grey)
    both = ["--intensity", tmp_path / "bf", "--intensity", tmp_path / "tmrm"]
    out = tmp_path / "objects.csv"
    assert call(monkeypatch, "measure", tmp_path / "masks", *both, "--out", out) == 0
    table = pd.read_csv(out)
    assert table["intensity_mean_tmrm"].tolist() == [1, 1, 1, 2, 2, 2]
    assert table["intensity_mean_bf"].notna().all()
