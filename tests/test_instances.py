"""Masks to objects: known objects, cuts, and blocks that give the whole image's answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import label as skimage_label
from skimage.measure import regionprops_table

from mitolume.analysis.labelling import ObjectSettings, label_blocks, label_objects
from mitolume.analysis.object_index import BOX, index_objects
from mitolume.analysis.splitting import Cut, split_object
from mitolume.errors import MitolumeError
from mitolume.io.masks import decide_kind, to_mask
from mitolume.io.read import read

PIXEL = {"Z": 0.2, "Y": 0.1, "X": 0.1}
EVERYTHING = ObjectSettings(min_size_um=0, max_hole_um=0, min_size_px=0, max_hole_px=0)


def disc(shape: tuple[int, int], y: float, x: float, radius: float) -> np.ndarray:
    ys, xs = np.mgrid[: shape[0], : shape[1]]
    return (ys - y) ** 2 + (xs - x) ** 2 < radius**2


def tube(*lines: np.ndarray, width: float = 6, shape: tuple[int, int] = (160, 160)) -> np.ndarray:
    away = np.ones(shape, bool)
    for line in lines:
        away[tuple(np.clip(np.round(line).astype(int), 0, shape[0] - 1).T)] = False
    return (ndimage.distance_transform_edt(away) <= width / 2).astype(np.uint8)


def walk(rng: np.random.Generator, start: float, angle: float, steps: int = 50) -> np.ndarray:
    angles = angle + np.cumsum(rng.normal(0, 0.03, steps))
    return start + np.cumsum(np.stack([np.sin(angles), np.cos(angles)], axis=1), axis=0)


def noise(seed: int, shape: tuple[int, ...], smooth: float, share: float) -> np.ndarray:
    values = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), smooth)
    return (values > np.quantile(values, 1 - share)).astype(np.uint8)


def test_known_objects_have_their_numbers_and_areas() -> None:
    mask = np.zeros((60, 90), np.uint8)
    big, small = disc(mask.shape, 15, 20, 9), disc(mask.shape, 40, 70, 5)
    mask[big], mask[small] = 1, 1
    mask[15, 20] = 0  # a hole of one pixel
    mask[50, 10] = 1  # a speck
    mask[30:36, 5:15] = 255
    labels = label_objects(mask, pixel_size_um=PIXEL)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, 1 * big + 2 * small)
    table = index_objects(labels)
    assert tuple(table.columns) == ("label", *BOX, "size_px", "first")
    assert table.to_numpy().tolist() == [
        [1, 0, 1, 7, 24, 12, 29, big.sum(), np.flatnonzero(big)[0]],
        [2, 0, 1, 36, 45, 66, 75, small.sum(), np.flatnonzero(small)[0]],
    ]
    assert label_objects(mask, EVERYTHING).max() == 3


def test_sizes_in_um_mean_the_same_at_any_pixel_size() -> None:
    mask = disc((40, 40), 20, 20, 6).astype(np.uint8)  # 12 px across
    mask[19:22, 19:22] = 0  # 9 px: as large as a disc 3.4 px across
    for size in (0.05, 0.5):
        pixel = {"Y": size, "X": size}
        kept = ObjectSettings(min_size_um=11 * size, max_hole_um=3.3 * size)
        assert label_objects(mask, kept, pixel).sum() == mask.sum()
        filled = ObjectSettings(min_size_um=11 * size, max_hole_um=3.5 * size)
        assert label_objects(mask, filled, pixel).sum() == mask.sum() + 9
        dropped = ObjectSettings(min_size_um=12.5 * size)
        assert not label_objects(mask, dropped, pixel).any()
    assert not label_objects(mask, ObjectSettings(min_size_px=12.5)).any()


def test_a_volume_is_measured_along_z_too() -> None:
    mask = np.zeros((5, 9, 9), np.uint8)
    mask[1:4, 3:6, 3:6] = 1  # 27 voxels of 0.002 µm³: a ball 0.47 µm across
    assert label_objects(mask, ObjectSettings(min_size_um=0.46), PIXEL).max() == 1
    assert label_objects(mask, ObjectSettings(min_size_um=0.48), PIXEL).max() == 0


def test_in_3d_an_object_is_at_least_two_voxels_along_each_axis() -> None:
    coarse = {"Z": 0.5, "Y": 0.1, "X": 0.1}  # 0.25, 0.25 and twice 0.5 µm: 7 voxels
    mask = np.zeros((4, 9, 20), np.uint8)
    mask[1, 2:5, 2:4] = 1  # 6 voxels, which are 0.03 µm³
    mask[1:3, 2:4, 10:12] = 1  # 8
    assert label_objects(mask, None, coarse).max() == 1
    assert label_objects(mask, EVERYTHING, coarse).max() == 2
    assert label_objects(mask[1, :, :8], None, coarse).max() == 1  # in a plane a disc is enough


@given(st.integers(0, 999), st.sampled_from([(17, 23), (5, 9, 11)]), st.floats(0.1, 0.9))
@settings(max_examples=30)
def test_objects_are_those_of_other_libraries(
    seed: int, shape: tuple[int, ...], share: float
) -> None:
    mask = noise(seed, shape, 0.7, share)
    labels = label_objects(mask, EVERYTHING)
    np.testing.assert_array_equal(labels, skimage_label(mask, connectivity=mask.ndim))
    names = ["label", *(f"bbox-{i}" for i in range(2 * mask.ndim)), "area"]
    theirs = regionprops_table(labels, properties=("label", "bbox", "area"))
    pairs = [("label", "label"), ("size_px", "area")]
    for axis, name in enumerate("zyx"[-mask.ndim :]):
        pairs += [(f"{name}0", names[1 + axis]), (f"{name}1", names[1 + axis + mask.ndim])]
    for ours, other in pairs:
        np.testing.assert_array_equal(index_objects(labels)[ours], theirs[other])
    filled = label_objects(mask, EVERYTHING.model_copy(update={"max_hole_px": 1e3}))
    np.testing.assert_array_equal(filled > 0, ndimage.binary_fill_holes(mask))


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, ...], ObjectSettings]:
    side = st.integers(1, 28) if draw(st.booleans()) else st.integers(1, 12)
    shape = tuple(draw(st.lists(side, min_size=2, max_size=3)))
    seed = draw(st.integers(0, 9999))
    mask = noise(seed, shape, draw(st.sampled_from([0.0, 0.7, 1.5])), draw(st.floats(0.1, 0.9)))
    rng = np.random.default_rng(seed)
    mask[rng.random(shape) < draw(st.sampled_from([0, 0.03]))] = 255
    size = st.sampled_from([0.0, 2.0, 4.0])
    wanted = ObjectSettings(
        min_size_um=draw(size),
        max_hole_um=draw(size),
        split=draw(st.sampled_from(["none", "distance", "probability"])),
        split_distance_um=draw(size),
    )
    block = tuple(draw(st.integers(-(-n // 4), n + 1)) for n in shape)
    if wanted.split == "probability":
        mask = ndimage.gaussian_filter(rng.random(shape), 1)
    return mask, block, wanted


@given(cases())
@settings(max_examples=40)
def test_blocks_give_the_whole_images_answer(
    case: tuple[np.ndarray, tuple[int, ...], ObjectSettings],
) -> None:
    mask, block, wanted = case
    pixel = {"Z": 2.5, "Y": 1.0, "X": 1.0}
    whole = label_objects(mask, wanted, pixel)
    out = np.full(mask.shape, -7, np.int32)
    table = label_blocks(mask, out, block, wanted, pixel, above=3)
    np.testing.assert_array_equal(np.maximum(out - 3, 0), whole)
    pd.testing.assert_frame_equal(table.assign(label=table["label"] - 3), index_objects(whole))
    # Without gaps, in the order of first pixels; and cutting loses no pixel.
    numbers, first = np.unique(whole[whole > 0], return_index=True)
    assert numbers.tolist() == list(range(1, len(numbers) + 1))
    assert (np.diff(first) > 0).all()
    uncut = label_objects(mask, wanted.model_copy(update={"split": "none"}), pixel)
    np.testing.assert_array_equal(whole > 0, uncut > 0)


def test_blocks_of_zarr_and_dask_are_those_of_numpy(tmp_path: Path) -> None:
    mask = noise(1, (150, 170), 2, 0.3)
    whole = label_objects(mask, ObjectSettings(split="distance"), PIXEL)
    assert whole.max() > 10
    stored = zarr.create_array(tmp_path / "m.zarr", data=mask, chunks=(64, 64))
    for number, lazy in enumerate((stored, da.from_array(mask, chunks=50))):
        out = zarr.create_array(
            tmp_path / f"{number}.zarr", shape=mask.shape, chunks=(64, 64), dtype="int32"
        )
        seen: list[tuple[int, int]] = []
        label_blocks(
            lazy,
            out,
            (64, 50),
            ObjectSettings(split="distance"),
            PIXEL,
            progress=lambda done, total, to=seen: to.append((done, total)),
        )
        np.testing.assert_array_equal(out[:], whole)
        assert seen == [(done, len(seen)) for done in range(1, len(seen) + 1)]


def test_a_stack_of_one_plane_is_a_plane() -> None:
    mask = noise(2, (60, 70), 2, 0.4)
    for split in ("none", "distance"):
        wanted = ObjectSettings(split=split)
        plane = label_objects(mask, wanted, PIXEL)
        np.testing.assert_array_equal(label_objects(mask[None], wanted, PIXEL)[0], plane)


@pytest.mark.parametrize("width", [3, 6, 12])
def test_tubules_and_networks_stay_whole(width: int) -> None:
    rng = np.random.default_rng(width)
    for _ in range(3):
        turn = rng.uniform(0, 6)
        single = tube(walk(rng, 80, turn), walk(rng, 80, turn + 3.1), width=width)
        arms = [walk(rng, 80, turn + angle) for angle in (0, 2.1, 4.2)]
        network = tube(*arms, width=width)
        for split in ("none", "distance"):
            assert label_objects(single, ObjectSettings(split=split), PIXEL).max() == 1
        assert label_objects(network, pixel_size_um=PIXEL).max() == 1


def test_touching_balls_are_cut_at_their_neck() -> None:
    z, y, x = np.mgrid[:21, :40, :60] * np.array([0.2, 0.1, 0.1]).reshape(3, 1, 1, 1)
    balls = [(z - 2) ** 2 + (y - 2) ** 2 + (x - at) ** 2 < 1.1**2 for at in (2, 3.8)]
    mask = (balls[0] | balls[1]).astype(np.uint8)
    assert label_objects(mask, pixel_size_um=PIXEL).max() == 1
    cut = label_objects(mask, ObjectSettings(split="distance"), PIXEL)
    assert cut.max() == 2
    off_neck = (mask > 0) & (abs(x - 2.9) > 0.05)
    np.testing.assert_array_equal(cut[off_neck], np.where(x < 2.9, 1, 2)[off_neck])
    # Centres nearer than the split distance are one object.
    near = ObjectSettings(split="distance", split_distance_um=1.9)
    assert label_objects(mask, near, PIXEL).max() == 1


def test_a_dip_of_the_probability_cuts_what_the_outline_does_not() -> None:
    probability = np.zeros((20, 60), np.float32)
    probability[6:14, 5:55] = 0.95
    assert label_objects(probability, ObjectSettings(split="probability"), PIXEL).max() == 1
    probability[6:14, 28:32] = 0.55
    assert label_objects(probability, ObjectSettings(split="distance"), PIXEL).max() == 1
    cut = label_objects(probability, ObjectSettings(split="probability"), PIXEL)
    np.testing.assert_array_equal(np.unique(cut[6:14, 5:29]), [1])
    np.testing.assert_array_equal(np.unique(cut[6:14, 32:55]), [2])
    whole = label_objects(probability, ObjectSettings(threshold=0.6), PIXEL)
    assert whole.max() == 2


def test_the_images_edge_is_no_outline() -> None:
    """What joins two arms looks thin where the image cuts it off, but goes on beyond."""
    arms = np.zeros((20, 30), bool)
    arms[:, :8] = arms[:, -8:] = arms[:4] = True
    cut = Cut((1.0, 1.0), 0)
    assert split_object(arms, cut, [(False, False)] * 2).max() == 2
    assert split_object(arms, cut, [(True, False), (False, False)]).max() == 1
    everything = np.ones((9, 9), bool)
    assert split_object(everything, cut, [(True, True)] * 2).max() == 1


def test_labels_go_through_the_planes_of_a_real_stack(real_data: Path) -> None:
    opened = read(real_data / "vnc-sstem" / "labelled_mask.ome.tif")
    stack = opened[0, 0, :, :300, :300].values
    mask = to_mask(stack, decide_kind({"stack": np.unique(stack)})[0])
    pixel = opened.attrs["pixel_size_um"]
    labels = label_objects(mask, pixel_size_um=pixel)
    assert labels.max() >= 5
    above, below = labels[:-1], labels[1:]
    both = (above > 0) & (below > 0)
    np.testing.assert_array_equal(above[both], below[both])
    depth = index_objects(labels).eval("z1 - z0")
    assert depth.max() > 5
    out = np.zeros(mask.shape, np.int32)
    label_blocks(mask, out, (7, 130, 200), pixel_size_um=pixel)
    np.testing.assert_array_equal(out, labels)


def test_empty_masks_have_no_objects() -> None:
    empty = np.zeros((8, 9), np.uint8)
    for split in ("none", "distance"):
        out = np.ones(empty.shape, np.int32)
        table = label_blocks(empty, out, (4, 4), ObjectSettings(split=split))
        assert not out.any()
        pd.testing.assert_frame_equal(table, index_objects(out))
        assert set(table.dtypes) == {np.dtype(np.int64)}


@pytest.mark.parametrize(
    ("mask", "split", "said"),
    [
        (np.array([[0, 1, 2]], np.uint8), "none", "the values 2"),
        (np.array([[0, 255]], np.float32), "none", "a probability reaches 255"),
        (np.ones((3, 3), bool), "probability", "predict --probability"),
        (np.ones((2, 2, 2, 2), bool), "none", "4 axes"),
    ],
)
def test_what_is_no_mask_is_refused_in_a_sentence(mask: np.ndarray, split: str, said: str) -> None:
    with pytest.raises(MitolumeError, match=said):
        label_objects(mask, ObjectSettings(split=split))


BIG = """
import hashlib, resource, sys
import numpy as np, zarr
from mitolume.analysis.labelling import label_blocks
from mitolume.simulate.field import simulate_field
from mitolume.simulate.settings import SimulationSettings

folder, side, block = sys.argv[1], 20_000, int(sys.argv[2])
mask = zarr.create_array(f"{folder}/mask", shape=(side, side), chunks=(2000, 2000), dtype="uint8",
                         overwrite=True)
small = SimulationSettings(shape=(500, 500), planes=1)
fields = [np.tile(simulate_field(small, seed=seed).masks[0], (2, 2)) for seed in range(2)]
rng = np.random.default_rng(0)
for y in range(0, side, 1000):
    for x in range(0, side, 1000):
        field = np.roll(fields[rng.integers(2)], rng.integers(0, 1000, 2), (0, 1))
        field[500:504] = 1  # a tubule through the whole image
        mask[y : y + 1000, x : x + 1000] = field
labels = zarr.create_array(f"{folder}/labels", shape=(side, side), chunks=(2048, 2048),
                           dtype="int32", overwrite=True)
table = label_blocks(mask, labels, (block, block), pixel_size_um={"Y": 0.1, "X": 0.1})
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
digest = hashlib.sha256(table.to_csv().encode())
for y in range(0, side, 2048):
    digest.update(labels[y : y + 2048].tobytes())
print(peak, len(table), digest.hexdigest())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in other units")
def test_a_large_image_needs_little_memory_and_no_certain_tiles(tmp_path: Path) -> None:
    found = []
    for block in (2048, 3000):
        command = [sys.executable, "-c", BIG, str(tmp_path), str(block)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peak, n, digest = done.stdout.split()
        print(f"blocks of {block} px: {n} objects, at most {int(peak) / 2**20:.2f} GB")
        assert int(peak) < 3 * 2**20  # KiB
        found.append((n, digest))
    assert found[0] == found[1]
