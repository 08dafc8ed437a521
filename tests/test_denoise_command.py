"""`mitolume denoise train` and `apply`, and a run that denoises, as a person meets them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers.command import Shell
from helpers.fields import blobs
from PIL import Image

from mitolume import load, read
from mitolume.errors import MitolumeError
from mitolume.io.write import write_image, write_mask
from mitolume.preprocess.settings import ChainSettings
from mitolume.runs.denoiser import denoising_settings, require_denoiser, training_stacks
from mitolume.runs.recipe import load_recipe
from mitolume.workflow import run

SHORT = [f"denoising.{key}" for key in ("steps=4", "checks=2", "patch=32", "network.width=4")]


@pytest.fixture
def train(shell: Shell) -> Shell:
    short = [word for key in SHORT for word in ("--set", key.removeprefix("denoising."))]
    return partial(shell, "denoise", "train", "--quiet", *short)


def write_stack(path: Path, depth: int = 5, dtype: type = np.uint16, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    planes = blobs(seed)[0] / 2 + rng.normal(60, 15, (depth, 64, 80))
    size = {"Z": 0.3, "Y": 0.1, "X": 0.1}
    image = xr.DataArray(
        planes.clip(0, 255).astype(dtype)[None],
        dims=("C", "Z", "Y", "X"),
        coords={"C": np.array(["TMRM"], dtype=object)},
        attrs={"pixel_size_um": size},
    )
    write_image(path, image)
    return path


def test_train_then_apply(tmp_path: Path, shell: Shell, train: Shell) -> None:
    file, model, out = write_stack(tmp_path / "a.ome.tif"), tmp_path / "m", tmp_path / "out"
    train(file, "--out", model, "--method", "noise2stack")
    names = sorted(p.name for p in model.iterdir())
    assert names == ["card.json", "log.csv", "weights.safetensors"]
    card = json.loads((model / "card.json").read_text())
    assert card["kind"] == "denoiser"
    assert card["method"] == "noise2stack"
    assert card["stacks"][0]["planes"] == "0-4"
    assert card["chosen"].endswith("the best on the held-out planes")
    log = pd.read_csv(model / "log.csv")
    assert list(log["step"]) == [2, 4]
    assert log["validation_db"].notna().all()
    said = shell("denoise", "apply", model, tmp_path, "--out", out)
    assert str(out / "a_denoised.ome.tif") in said
    with Image.open(out / "a_denoising.png") as picture:
        assert picture.width > 1000
    before, after = read(file), read(out / "a_denoised.ome.tif")
    assert after.dtype == np.uint16
    assert after.shape == before.shape
    assert after.attrs["pixel_size_um"] == before.attrs["pixel_size_um"]
    assert list(after["C"].values) == ["TMRM"]
    assert after.values.std() < before.values.std()
    again = ["denoise", "apply", model, file, "--out", out, "--quiet"]
    shell(*again, "--resume")
    shell(*again, "--overwrite", "--sharpen")
    assert "is not empty" in train(file, "--out", model, code=1)
    resumed = ["--out", model, "--method", "noise2stack", "--resume"]
    train(file, *resumed)
    other = write_stack(tmp_path / "other.ome.tif", seed=1)
    for stack, option, said in (
        (file, ("--seed", 3), "begun with seed 0, not 3"),
        (file, ("--method", "wiener"), "begun with method noise2stack, not wiener"),
        (file, ("--set", "steps=9"), "begun with steps 4, not 9"),
        (other, (), "begun with other stacks"),
    ):
        assert said in train(stack, *resumed, *option, code=1)
    assert "is a denoiser" in shell("predict", model, file, "--out", out, code=1)


def test_planes_that_share_their_noise_are_filtered_alone(tmp_path: Path, train: Shell) -> None:
    plane = np.random.default_rng(0).integers(0, 255, (1, 64, 64)).astype(np.uint8)
    write_image(
        tmp_path / "a.tif.ome.tif", xr.DataArray(np.repeat(plane, 6, 0), dims=("Z", "Y", "X"))
    )
    train(tmp_path / "a.tif.ome.tif", "--out", tmp_path / "m")
    card = json.loads((tmp_path / "m" / "card.json").read_text())
    assert card["method"] == "wiener"
    assert card["check"]["reason"] == "noise is shared between planes"


@pytest.mark.parametrize(("depth", "dtype"), [(1, np.uint8), (2, np.int16)])
def test_one_or_two_planes(
    depth: int, dtype: type, tmp_path: Path, shell: Shell, train: Shell
) -> None:
    file = write_stack(tmp_path / "a.ome.tif", depth, dtype)
    train(file, "--out", tmp_path / "m")
    shell("denoise", "apply", tmp_path / "m", file, "--quiet", "--out", tmp_path / "out")
    after = read(tmp_path / "out" / "a_denoised.ome.tif")
    assert after.dtype == dtype
    assert after.values.std() < read(file).values.std()


def test_what_cannot_be_learnt_from_is_refused_in_a_sentence(tmp_path: Path, train: Shell) -> None:
    def refused(pixels: np.ndarray, *options: str) -> str:
        file = tmp_path / "x.ome.tif"
        write_image(file, xr.DataArray(pixels, dims=("Z", "Y", "X")))
        error = train(file, "--out", tmp_path / "m", *options, code=1)
        assert not (tmp_path / "m" / "card.json").exists()
        assert "Traceback" not in error
        for path in (tmp_path / "m").glob("*"):
            path.unlink()
        return error

    noise = np.random.default_rng(0).integers(0, 255, (4, 40, 40)).astype(np.uint8)
    assert "3 x 3 pixels" in refused(noise[:, :3, :3])
    assert "one grey value" in refused(np.full((4, 40, 40), 255, np.uint8))
    assert "needs neighbouring planes" in refused(noise[:1], "--method", "noise2noise")
    assert "there are auto, noise2stack" in refused(noise, "--method", "nonsense")
    assert "has no plane 9" in refused(noise, "--planes", "2-9")
    assert "unknown key" in refused(noise, "--set", "stepz=3")


def test_a_z_stack_as_ome_zarr(tmp_path: Path, shell: Shell, train: Shell) -> None:
    from mitolume.io.zarr_out import new_image

    source = read(write_stack(tmp_path / "a.ome.tif"))
    file = tmp_path / "b.ome.zarr"
    with new_image(file, source, name="x", dtype="uint16") as pixels:
        pixels[:] = source.values
    train(file, "--out", tmp_path / "m")
    for path in (file, tmp_path / "a.ome.tif"):
        shell("denoise", "apply", tmp_path / "m", path, "--quiet", "--out", tmp_path / "out")
    zarr, tiff = (
        read(tmp_path / "out" / f"{n}") for n in ("b_denoised.ome.zarr", "a_denoised.ome.tif")
    )
    np.testing.assert_allclose(zarr.values.astype(float), tiff.values, atol=1)


@pytest.fixture
def stacks_table(tmp_path: Path) -> Path:
    lines = ["image,mask,role,specimen,planes"]
    for i, role in enumerate(["train", "train", "validation", "unlabelled"]):
        write_stack(tmp_path / f"f{i}.ome.tif", 4, np.uint8, i)
        mask = "" if role == "unlabelled" else f"m{i}.ome.tif"
        if mask:
            write_mask(
                tmp_path / mask, xr.DataArray(np.stack([blobs(i)[1]] * 4), dims=("Z", "Y", "X"))
            )
        lines.append(f"f{i}.ome.tif,{mask},{role},s{i},1-2")
    (tmp_path / "fields.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "fields.csv"


@pytest.mark.slow
def test_a_run_trains_its_denoiser_and_predict_replays_it(stacks_table: Path) -> None:
    short = [
        *SHORT,
        "training.steps=4",
        "training.checks=2",
        "training.patch=32",
        "network.width=4",
    ]
    recipe = load_recipe(
        fields=stacks_table, settings=["chain.denoise=noise2stack", "chain.stripes=auto", *short]
    )
    out = run(recipe, stacks_table.parent / "run", quiet=True)
    predictor = load(out)
    assert predictor.card.chain == ChainSettings(stripes="auto", denoise="noise2stack")
    assert predictor.denoiser is not None
    assert predictor.denoiser.bundle == predictor.bundle / "denoiser"
    assert "noise2stack, from 3 stacks" in (out / "report.html").read_text(encoding="utf-8")
    learnt = [stack["image"] for stack in predictor.denoiser.card.stacks]
    assert learnt == ["f0.ome.tif", "f1.ome.tif", "f3.ome.tif"]
    image = read(stacks_table.parent / "f2.ome.tif")
    assert np.isfinite(predictor.predict(image).values).all()
    given = ["chain.stripes=auto", f"chain.denoise={out / 'denoiser'}", "method=supervised", *short]
    second = run(
        load_recipe(fields=stacks_table, settings=given), stacks_table.parent / "second", quiet=True
    )
    np.testing.assert_array_equal(
        load(second).denoiser.network.detail, predictor.denoiser.network.detail
    )
    with pytest.raises(MitolumeError, match=r"trained with chain\.stripes auto"):
        require_denoiser(ChainSettings(denoise=str(out / "denoiser")))
    with pytest.raises(
        MitolumeError, match="neither a folder with a denoiser nor one of none, auto"
    ):
        require_denoiser(ChainSettings(denoise="noise2nois"))


def test_planes_that_score_are_not_learnt_from(stacks_table: Path) -> None:
    from mitolume.io.table import read_table

    rows = read_table(stacks_table)
    whole = training_stacks(rows)
    assert [stack.planes for stack in whole] == [(0, 1, 2, 3)] * 3
    test = [row for row in rows if row.role == "validation"]
    same_file = [*rows, type(rows[0])(rows[0].image, test[0].mask, "test", (3,), "block 2")]
    assert training_stacks(same_file)[0].planes == (1, 2)


def test_the_published_settings() -> None:
    paper = denoising_settings("paper")
    assert (paper.epochs, paper.batch, paper.learning_rate) == (500, 2, 1e-3)
    assert (paper.schedule, paper.network.norm) == ("constant", "batch")
