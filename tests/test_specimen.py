from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from skimage.measure import regionprops_table

from mitolume.simulate.capsules import Capsules, fill
from mitolume.simulate.mitochondria import grow_network
from mitolume.simulate.settings import CONDITIONS
from mitolume.simulate.specimen import Specimen, Volume, grow_specimen

SHAPE, PIXEL_UM, DZ_UM = (190, 200), 0.1, 0.2
SEEDS = (1, 5)  # each shows a nucleus and much cytoplasm


@cache
def specimen(condition: str = "control", seed: int = 1) -> Specimen:
    return grow_specimen(SHAPE, PIXEL_UM, CONDITIONS[condition], seed)


@cache
def volume(condition: str = "control", seed: int = 1) -> Volume:
    return specimen(condition, seed).volume(DZ_UM)


@cache
def objects(condition: str) -> dict[str, np.ndarray]:
    """Measurements of the 3D labels and skeletons of all seeds."""
    rows = []
    for seed in SEEDS:
        grown, solid = specimen(condition, seed), volume(condition, seed)
        names = ("label", "area", "axis_major_length", "axis_minor_length")
        table = regionprops_table(solid.labels, properties=names, spacing=solid.voxel_um)
        points = grown.skeletons(SHAPE).groupby(["object", "branch"]).size()
        length = points.sub(1).groupby("object").sum() * 0.15
        shape = table["axis_minor_length"] / table["axis_major_length"].clip(0.01)
        lengths = length.reindex(table["label"]).to_numpy()
        seen = lengths >= 0  # not a sliver whose centreline lies beyond the field's edge
        rows.append(np.stack([table["area"], lengths, shape])[:, seen])
    names = ("volume", "length", "roundness")
    return dict(zip(names, np.concatenate(rows, axis=1), strict=True))


def tube_volume(points: np.ndarray, radius: np.ndarray) -> float:
    """Volume of one tube with round ends from its centreline."""
    pieces = np.linalg.norm(np.diff(points, axis=0), axis=1)
    middle = (radius[1:] ** 2 + radius[1:] * radius[:-1] + radius[:-1] ** 2) / 3
    return float(np.pi * (pieces * middle).sum() + 2 / 3 * np.pi * (radius[[0, -1]] ** 3).sum())


# Capsules


@settings(max_examples=25)
@given(
    direction=st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda d: np.linalg.norm(d) > 0.1),
    radius=st.floats(0.25, 0.5),  # a grid this coarse fills thinner tubes less exactly
    length=st.floats(0.5, 2.0),
    shift=st.floats(0, 0.2),
)
def test_filled_volume_is_that_of_the_capsule(direction, radius, length, shift):
    along = np.array(direction) / np.linalg.norm(direction) * length / 2
    centre = np.array([2.0, 2.0, 2.0]) + shift
    radii = np.array([[radius, radius]])
    capsule = Capsules((centre - along)[None], (centre + along)[None], radii, np.array([0]))
    filling = fill(capsule, (20, 40, 40), (0.2, 0.1, 0.1))
    expected = tube_volume(np.stack([centre - along, centre + along]), radii[0])
    assert filling.share.sum() * 0.002 == pytest.approx(expected, rel=0.08)


def test_capsules_outside_the_grid_fill_nothing():
    far = Capsules.balls(np.array([[1.0, -5.0, 1.0], [90.0, 1.0, 1.0]]), np.array([0.5, 0.5]))
    assert len(fill(far, (10, 20, 20), (0.2, 0.1, 0.1)).voxel) == 0
    none = Capsules.balls(np.empty((0, 3)), np.empty(0))
    assert len(fill(none, (10, 20, 20), (0.2, 0.1, 0.1)).voxel) == 0


def test_balls_at_the_edge_are_cut_in_half():
    half = Capsules.balls(np.array([[1.0, -0.05, 1.0]]), np.array([0.6]))
    filled = fill(half, (12, 20, 24), (0.2, 0.1, 0.1)).share.sum() * 0.002
    assert filled == pytest.approx(2 / 3 * np.pi * 0.6**3, rel=0.02)


# What belongs together


@pytest.mark.parametrize("condition", CONDITIONS)
def test_labels_dye_and_index_hold_the_volume_of_the_tubes(condition):
    grown, solid = specimen(condition), volume(condition)
    network, voxel = grown.network, np.prod(solid.voxel_um)
    low, high = network.radius.max() + 0.2, (np.array(SHAPE) - 1) * PIXEL_UM
    inside = ((network.points[:, 1:] > low) & (network.points[:, 1:] < high - low)).all(axis=1)
    expected, labelled, dyed = 0.0, 0.0, 0.0
    counts = np.bincount(solid.labels.ravel(), minlength=len(network.brightness) + 1)
    dye = np.bincount(solid.labels.ravel(), solid.mitochondria.ravel(), len(counts))
    for number in range(len(network.brightness)):
        mine = network.object == number
        if inside[mine].all() and len(np.unique(network.branch[mine])) == 1:
            expected += tube_volume(network.points[mine], network.radius[mine])
            labelled += counts[number + 1] * voxel
            dyed += dye[number + 1] * voxel / network.brightness[number]
    assert expected > 1.0
    assert labelled == pytest.approx(expected, rel=0.03)
    assert 0.75 * expected < dyed < labelled  # part of the dye lies in voxels around the labels
    core = solid.mitochondria > 0
    number = solid.labels[core & (solid.labels > 0)] - 1
    full = solid.mitochondria[core & (solid.labels > 0)] > 0.999 * network.brightness[number]
    found = solid.index[core & (solid.labels > 0)][full]
    np.testing.assert_allclose(found, (network.index[number] - 1.337)[full], atol=1e-4)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_skeletons_lie_in_their_labels(condition):
    grown, solid = specimen(condition), volume(condition)
    table = grown.skeletons(SHAPE)
    place = table[["z", "y", "x"]].to_numpy() - [solid.heights[0], 0, 0]
    index = np.rint(place / solid.voxel_um).astype(int)
    found = solid.labels[tuple(index.T)]
    assert len(table) > 100
    assert (found == table["object"]).mean() > 0.999
    assert set(np.unique(solid.labels)) - {0} >= set(table["object"])


@pytest.mark.parametrize("condition", CONDITIONS)
def test_mitochondria_stay_in_the_cytoplasm_and_apart(condition):
    grown = specimen(condition)
    network, cells = grown.network, grown.cells
    z, place = network.points[:, 0], network.points[:, 1:]
    assert (z - network.radius > 0).all()
    assert (z + network.radius < cells.at(cells.height, place)).all()
    assert (cells.at(cells.nucleus, place) > network.radius).all()
    pairs = cKDTree(network.points).query_pairs(2 * network.radius.max(), output_type="ndarray")
    pairs = pairs[network.object[pairs[:, 0]] != network.object[pairs[:, 1]]]
    gaps = np.linalg.norm(network.points[pairs[:, 0]] - network.points[pairs[:, 1]], axis=1)
    assert (gaps > network.radius[pairs].sum(axis=1)).all()


def test_each_label_is_one_piece_of_the_network():
    network = specimen("oligomycin").network
    branches = np.unique(np.stack([network.branch, network.object]), axis=1)[0]
    assert len(branches) == network.branch.max() + 1  # no branch belongs to two objects
    assert len(np.unique(network.object)) == len(network.brightness) < len(branches)
    for branch in branches:  # each branch starts on another one of its object, or is a trunk
        mine = network.branch == branch
        others = (network.object == network.object[mine][0]) & (network.branch < branch)
        if others.any():
            gap = np.linalg.norm(network.points[others] - network.points[mine][0], axis=1).min()
            assert gap < 0.2


# Bodies


def test_nuclei_are_less_dense_than_cytoplasm_and_medium_is_zero():
    grown, solid = specimen(), volume()
    cells = grown.cells
    low = cells.on_grid(cells.nucleus_low, SHAPE, PIXEL_UM)
    high = cells.on_grid(cells.nucleus_high, SHAPE, PIXEL_UM)
    height = cells.on_grid(cells.height, SHAPE, PIXEL_UM)
    z = solid.heights[:, None, None]
    nucleus = (z > low + DZ_UM) & (z < high - DZ_UM)
    cytoplasm = (z < height - DZ_UM) & ((z < low - DZ_UM) | (z > high + DZ_UM) | (high == low))
    assert np.median(solid.index[nucleus]) < np.median(solid.index[cytoplasm]) - 0.002
    above = z > max(height.max(), *(grown.inclusions["debris"].balls.start[:, 0] + 0.6)) + DZ_UM / 2
    assert (solid.index[np.broadcast_to(above, solid.index.shape)] == 0).all()


def test_membrane_covers_the_cells_twice():
    grown, solid = specimen(), volume()
    edge = grown.cells.on_grid(grown.cells.edge, SHAPE, PIXEL_UM)
    footprint = (edge > 0).sum() * PIXEL_UM**2
    assert 2.0 < solid.membrane.sum() * np.prod(solid.voxel_um) / footprint < 2.8


def test_finer_slices_show_the_same_specimen():
    fine = specimen().volume(0.1)
    for name in ("index", "mitochondria", "membrane"):
        coarse, thin = getattr(volume(), name), getattr(fine, name)
        assert coarse.sum() * DZ_UM == pytest.approx(thin.sum() * 0.1, rel=0.02)


def test_same_seed_same_specimen_and_same_cells_under_another_condition():
    again = grow_specimen(SHAPE, PIXEL_UM, CONDITIONS["control"], 1).volume(DZ_UM)
    for field in fields(Volume):
        assert np.array_equal(getattr(again, field.name), getattr(volume(), field.name))
    other = specimen("fccp")
    assert np.array_equal(other.cells.height, specimen().cells.height)
    assert np.array_equal(volume("fccp").membrane, volume().membrane)
    assert not np.array_equal(volume("fccp").labels, volume().labels)
    assert not np.array_equal(specimen(seed=5).cells.height, specimen().cells.height)


def test_crowding_is_the_number_of_organelles():
    none, few, many = (
        grow_specimen((64, 64), PIXEL_UM, CONDITIONS["control"], 1, crowding)
        for crowding in (0, 1, 4)
    )
    assert np.array_equal(few.cells.edge, many.cells.edge)
    nothing, count, more = (
        len(cells.inclusions["organelles"].index) for cells in (none, few, many)
    )
    assert 3.4 * count < more < 4.6 * count
    assert nothing == 0


def test_no_cell_no_mitochondria():
    cells = specimen().cells
    empty = replace(cells, height=np.zeros_like(cells.height))
    nothing = Capsules.balls(np.empty((0, 3)), np.empty(0))
    network = grow_network(
        empty, (19.0, 20.0), CONDITIONS["control"], nothing, np.random.default_rng(0)
    )
    assert len(network.points) == len(network.brightness) == len(network.capsules.start) == 0


# Conditions differ as published

LESS, MORE = 0.75, 1.3


@pytest.mark.parametrize(
    ("condition", "changes"),
    [
        ("fccp", {"number": 1, "length": LESS, "roundness": MORE}),
        ("oligomycin", {"number": LESS, "length": MORE, "volume": MORE}),
        ("antimycin_a", {"number": 1, "length": LESS, "volume": LESS}),
        ("rotenone", {"number": LESS, "length": LESS, "volume": LESS}),
    ],
)
def test_objects_differ_from_control(condition, changes):
    found, control = objects(condition), objects("control")
    ratios = {name: found[name].mean() / control[name].mean() for name in control}
    ratios["number"] = len(found["volume"]) / len(control["volume"])
    for name, change in changes.items():
        assert ratios[name] < LESS if change == LESS else ratios[name] > change, name


def test_antimycin_a_draws_mitochondria_to_the_nucleus():
    distance = {}
    for condition in ("control", "antimycin_a"):
        grown = grow_specimen((200, 200), 0.15, CONDITIONS[condition], seed=1)
        away = grown.cells.at(grown.cells.nucleus, grown.network.points[:, 1:])
        distance[condition] = away.mean()
    assert distance["antimycin_a"] < LESS * distance["control"]
