"""What to label next: features, distances, disagreement, the choice, and whole folders."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from helpers.command import Shell
from helpers.fields import blobs, tiny, write_field
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mitolume.analysis.agreement import disagreement, disagreement_map
from mitolume.analysis.feature_distance import choose_diverse, labelled_set
from mitolume.analysis.metrics import count, iou
from mitolume.analysis.pictures import FALSE_COLOUR, heat
from mitolume.errors import MitolumeError
from mitolume.inference.tiled import encoder_of, features
from mitolume.io.write import write_image
from mitolume.models.networks import SegmentationNetwork
from mitolume.models.settings import NetworkSettings
from mitolume.report.suggest_page import suggest
from mitolume.runs.committee import Committee
from mitolume.runs.folder import open_run
from mitolume.runs.run import compute_run

EVIL = "<script>alert('x')</script>"
DEEPEST = {"unet": "down_4", "unetplusplus": "conv_4_0"}


def network(name: str) -> SegmentationNetwork:
    """Return a network whose normalisation has seen something, so that no channel is special."""
    made = SegmentationNetwork(NetworkSettings(name=name, width=2), seed=1)
    with torch.no_grad():
        made(torch.randn(4, 1, 64, 64, generator=torch.Generator().manual_seed(0)))
    return made.eval()


# Features ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["unet", "unetplusplus"])
def test_features_are_the_mean_of_what_the_lowest_level_gives(name: str) -> None:
    body, seen = network(name), []
    getattr(body.body, DEEPEST[name]).register_forward_hook(lambda _m, _i, out: seen.append(out))
    image = np.random.default_rng(0).normal(size=(96, 160)).astype(np.float32)
    with torch.inference_mode():
        body(torch.from_numpy(image)[None, None])
    expected = seen[0].mean(dim=(0, 2, 3)).numpy()
    assert expected.shape == (32,)
    assert expected.any()
    np.testing.assert_allclose(features(body, image), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["unet", "unetplusplus"])
def test_tiled_features_are_those_of_the_whole_image(name: str) -> None:
    body = network(name)
    image = np.random.default_rng(1).normal(size=(1300, 83)).astype(np.float32)
    image[:400] += 2  # halves that differ, so that a wrong weight of a tile would show
    whole = np.pad(image, [(0, 12), (0, 13)], mode="symmetric")
    with torch.inference_mode():
        found = encoder_of(body)(torch.from_numpy(whole)[None, None])
    expected = found.mean(dim=(0, 2, 3)).numpy()
    np.testing.assert_allclose(features(body, image, core=512), expected, rtol=1e-4, atol=1e-6)


def test_features_of_a_large_plane_read_it_in_windows() -> None:
    class Large:
        shape = (2600, 500)
        largest = 0

        def __getitem__(self, box: tuple[slice, slice]) -> np.ndarray:
            y, x = (part.stop - part.start for part in box)
            self.largest = max(self.largest, y * x)
            return np.ones((y, x), np.float32)

    plane = Large()
    features(network("unet"), plane, core=512)
    assert 0 < plane.largest <= (512 * 9 / 8 + 2 * 112) * 512


# Distances -----------------------------------------------------------------------------------


def test_distance_one_is_as_far_as_labelled_images_are_from_each_other() -> None:
    rng = np.random.default_rng(0)
    known = labelled_set(rng.normal(size=(12, 40)), [str(i) for i in range(12)])
    alike = known.distances(rng.normal(size=(50, 40)))
    assert 0.85 < np.median(alike) < 1.15
    assert (known.distances(rng.normal(size=(50, 40)) + 3) > 2).all()
    assert known.distances(known.vectors) == pytest.approx(0)


def test_neighbouring_planes_do_not_make_all_others_look_far() -> None:
    rng = np.random.default_rng(1)
    stacks = rng.normal(size=(4, 1, 30)) + rng.normal(size=(4, 5, 30)) / 100
    vectors, names = stacks.reshape(20, 30), np.repeat(list("abcd"), 5).tolist()
    new = rng.normal(size=(20, 30))
    by_stack = labelled_set(vectors, names).distances(new)
    assert 0.7 < np.median(by_stack) < 1.4
    assert np.median(labelled_set(vectors, [str(i) for i in range(20)]).distances(new)) > 20


@pytest.mark.parametrize("vectors", [np.ones((1, 4)), np.ones((3, 4))])
def test_one_labelled_image_or_copies_of_it_give_no_scale(vectors: np.ndarray) -> None:
    known = labelled_set(vectors, [str(i) for i in range(len(vectors))])
    assert np.isnan(known.distances(np.zeros((2, 4)))).all()


@given(
    arrays(float, (5, 3), elements=st.floats(-100, 100).map(lambda v: round(v, 2))),
    st.floats(0.01, 100),
    st.floats(-10, 10),
)
def test_distances_do_not_depend_on_the_scale(vectors: np.ndarray, by: float, to: float) -> None:
    names, new = list("abcde"), np.arange(6.0).reshape(2, 3)
    one = labelled_set(vectors, names)
    other = labelled_set(vectors * by + to, names)
    np.testing.assert_allclose(
        other.distances(new * by + to), one.distances(new), rtol=1e-3, atol=1e-6
    )


# Disagreement --------------------------------------------------------------------------------


@given(arrays(np.uint8, (3, 4, 5), elements=st.integers(0, 1)))
def test_disagreement_is_that_of_pairs_of_masks(masks: np.ndarray) -> None:
    pairs = [(0, 1), (0, 2), (1, 2)]
    apart = np.mean([masks[a] != masks[b] for a, b in pairs], axis=0)
    np.testing.assert_allclose(disagreement_map(masks.mean(axis=0), 3), apart, atol=1e-6)
    two = masks[:2].mean(axis=0)
    if masks[:2].any():
        assert disagreement(two, 2) == pytest.approx(1 - iou(count(masks[0], masks[1])), abs=1e-6)
    else:
        assert disagreement(two, 2) == 0


def test_specks_in_an_empty_image_are_no_great_disagreement() -> None:
    votes = np.zeros((50, 50))
    votes[3, 3] = 0.5
    assert disagreement(votes, 2) == pytest.approx(1)
    assert disagreement(votes, 2, least=0.1) == pytest.approx(1 / 250, abs=1e-6)


# The choice ----------------------------------------------------------------------------------


def test_chosen_images_are_unsure_and_unlike_each_other() -> None:
    vectors = np.array([[0.0], [5.0], [5.1], [-3.5], [9.0]])
    weights = np.array([1.0, 1.0, 1.0, 1.0, 0.1])
    groups = [("one",)] * 5
    assert choose_diverse(vectors, np.zeros((1, 1)), weights, groups, 3) == [2, 3, 4]
    assert choose_diverse(vectors, np.zeros((1, 1)), np.zeros(5), groups, 2) == [4, 1]


def test_specimens_and_stacks_take_turns() -> None:
    vectors = np.arange(1.0, 7)[:, None]
    groups = [("a", 1), ("a", 1), ("a", 2), ("b", 3), ("b", 3), ("c", 4)]
    chosen = choose_diverse(vectors, np.zeros((1, 1)), np.ones(6), groups, 6)
    assert sorted(chosen) == list(range(6))
    assert {groups[i][0] for i in chosen[:3]} == {"a", "b", "c"}
    assert {groups[i] for i in chosen if groups[i][0] == "a"} == {("a", 1), ("a", 2)}
    of_a = [groups[i][1] for i in chosen if groups[i][0] == "a"]
    assert of_a[0] != of_a[1]


def test_a_map_is_laid_over_the_image() -> None:
    values = np.zeros((4, 4))
    values[0, 0] = 1
    picture = heat(np.zeros((4, 4)), values)
    assert tuple(picture[0, 0]) == FALSE_COLOUR
    assert len(set(picture[1, 1])) == 1
    with pytest.raises(ValueError, match="shape"):
        heat(np.zeros((4, 4)), np.zeros((4, 5)))


# Whole runs ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 5 labelled fields, 3 unlabelled ones and an unlabelled z-stack; return the table."""
    folder = tmp_path_factory.mktemp("suggest")
    lines = ["image,mask,role,specimen,condition"]
    # Three validation images decide which model is kept, and nothing is trained for that.
    roles = ["train"] * 2 + ["validation"] * 3 + ["unlabelled"] * 3
    for number, role in enumerate(roles):
        labelled = role != "unlabelled"
        image, mask = write_field(folder, f"f{number}", number, labelled=labelled)
        mask_name = mask.name if labelled else ""
        lines.append(f"{image.name},{mask_name},{role},dish {number},{EVIL}")
    stack = xr.DataArray(np.stack([blobs(9)[0]] * 4), dims=("Z", "Y", "X"))
    stack.attrs["pixel_size_um"] = {"Z": 1.0, "Y": 0.1, "X": 0.1}
    write_image(folder / "stack.ome.tif", stack)
    lines.append("stack.ome.tif,,unlabelled,dish 9,")
    (folder / "fields.csv").write_text("\n".join(lines) + "\n")
    return folder / "fields.csv"


@pytest.fixture(scope="module")
def two_models(data: Path) -> Path:
    recipe = tiny(data, "network.width=2", "method=pseudo_label", "threshold=0.5")
    return compute_run(recipe, data.parent / "two", quiet=True).path


@pytest.fixture(scope="module")
def one_model(data: Path) -> Path:
    recipe = tiny(data, "network.width=2", "method=supervised", "training.steps=24")
    return compute_run(recipe, data.parent / "one", quiet=True).path


def test_the_command_writes_table_and_page(two_models: Path, tmp_path: Path, shell: Shell) -> None:
    printed = shell("suggest", two_models, "--n", 4, "--out", tmp_path / "next")
    assert re.search(r"^ +1 .* plane \d \(dish \d", printed, re.MULTILINE)
    assert re.search(r"^random +[01]\.\d", printed, re.MULTILINE)
    table = pd.read_csv(tmp_path / "next" / "suggest.csv", keep_default_na=False)
    assert list(table.columns) == [
        "rank", "line", "image", "plane", "specimen", "condition", "batch", "disagreement",
        "distance", "why", "random",
    ]  # fmt: skip
    assert len(table) == 7
    assert table["rank"].tolist() == ["1", "2", "3", "4", "", "", ""]
    assert sorted(filter(None, table["random"])) == ["1", "2", "3", "4"]
    assert set(table["specimen"][:4]) == {"dish 5", "dish 6", "dish 7", "dish 9"}
    assert (table["why"] != "").tolist() == [True] * 4 + [False] * 3
    page = (tmp_path / "next" / "suggest.html").read_text()
    assert EVIL not in page
    assert "&lt;script&gt;" in page
    assert "script" not in re.sub(r"&lt;/?script", "", page)
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert page.count("<img") == 3 * 4 + 4


def test_disagreement_of_two_models_is_that_of_their_masks(two_models: Path) -> None:
    run = open_run(two_models)
    committee = Committee(run)
    share = run.scores[run.scores["subset"] == "train"].iloc[:2][["tp", "fn", "fp", "tn"]].sum()
    least = 0.5 * (share["tp"] + share["fn"]) / share.sum()
    images = run.images("unlabelled")
    for image, found in zip(images, committee.disagreements(images), strict=True):
        one, two = (run.mask(model, image) == 1 for model in ("model_1", "model_2"))
        expected = (one != two).mean() / max((one | two).mean(), least)
        assert found == pytest.approx(expected)


def test_a_single_model_is_asked_in_eight_ways(one_model: Path) -> None:
    found, place = suggest(one_model, quiet=True)
    assert place == one_model / "suggest"
    assert len(found.table) == 7
    assert found.table["rank"].notna().all()  # fewer than the usual 10
    assert found.table["disagreement"].between(0, 1).all()
    assert found.table["disagreement"].max() > 0
    run = open_run(one_model)
    shown = Committee(run).map(run.images("unlabelled")[0])
    assert shown.shape == (64, 80)
    assert set(np.round(np.unique(shown) * 28)) <= {0, 7, 12, 15, 16}  # of 28 pairs


def test_equal_planes_of_a_stack_are_not_chosen_together(two_models: Path, tmp_path: Path) -> None:
    table = suggest(two_models, 5, tmp_path, quiet=True)[0].table
    assert (table["image"][:4] == "stack.ome.tif").sum() == 1
    again = suggest(two_models, 5, tmp_path, quiet=True)[0].table
    pd.testing.assert_frame_equal(table, again)


def test_what_can_not_be_ranked_is_said(two_models: Path, tmp_path: Path) -> None:
    with pytest.raises(MitolumeError, match=r"--n is 8, but .* has 7 unlabelled images; ask for"):
        suggest(two_models, 8, tmp_path, quiet=True)
    with pytest.raises(MitolumeError, match="holds no run"):
        suggest(tmp_path, quiet=True)
    (tmp_path / "study" / "runs").mkdir(parents=True)
    with pytest.raises(MitolumeError, match="it is a study: name one of the runs in"):
        suggest(tmp_path / "study", quiet=True)


def test_an_unfinished_or_damaged_run_is_said(two_models: Path, tmp_path: Path) -> None:
    record = json.loads((two_models / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(record | {"status": "running"}))
    with pytest.raises(MitolumeError, match=r"has not finished; .*--resume"):
        suggest(tmp_path, quiet=True)
    (tmp_path / "run.json").write_text(json.dumps(record))
    for name in ("images.csv", "results.csv", "fields.csv"):
        shutil.copy(two_models / name, tmp_path / name)
    (tmp_path / "kept.json").write_text("{}")
    with pytest.raises(MitolumeError, match="damaged run"):
        suggest(tmp_path, quiet=True)


def test_a_run_without_unlabelled_images_is_said(two_models: Path, tmp_path: Path) -> None:
    run = shutil.copytree(two_models.parent, tmp_path / "data") / "two"
    table = pd.read_csv(two_models / "fields.csv")
    table[table["role"] == "train"].to_csv(run / "fields.csv", index=False)
    with pytest.raises(MitolumeError, match="no unlabelled images to choose from; add rows"):
        suggest(run, quiet=True)
