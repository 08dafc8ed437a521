from functools import cache

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.measure import label, regionprops_table

from mitolume.simulate.cells import CONDITIONS, SimulatedField, simulate_field

SEEDS = (0, 1)
SMALL = (64, 96)


@cache
def field(condition: str = "control", seed: int = 0) -> SimulatedField:
    return simulate_field(condition=condition, seed=seed)


def share(condition: str) -> float:
    return float(np.mean([field(condition, seed).mask.mean() for seed in SEEDS]))


@cache
def objects(condition: str) -> dict[str, np.ndarray]:
    names = ("area", "axis_major_length", "axis_minor_length", "eccentricity")
    tables = [
        regionprops_table(label(field(condition, seed).mask), properties=names) for seed in SEEDS
    ]
    columns = {name: np.concatenate([table[name] for table in tables]) for name in names}
    whole = columns["area"] > 10  # drop slivers cut off by the field's edge
    return {name: column[whole] for name, column in columns.items()}


def clustering(condition: str) -> float:
    """Spread of the local density (2 um) over whole cells relative to its mean."""
    wide = [
        simulate_field((200, 200), condition=condition, seed=seed, pixel_size_um=0.25)
        for seed in SEEDS
    ]
    density = [gaussian_filter(result.mask * 1.0, 8) for result in wide]
    return float(np.mean([image.std() / image.mean() for image in density]))


def best_threshold_iou(image: np.ndarray, mask: np.ndarray) -> float:
    truth, scores = mask == 1, []
    for cut in np.quantile(image, np.linspace(0.02, 0.98, 33)):
        for found in (image < cut, image > cut):
            scores.append((found & truth).sum() / (found | truth).sum())
    return float(max(scores))


@pytest.mark.parametrize("condition", CONDITIONS)
def test_arrays_keep_the_contract(condition):
    result = field(condition)
    for image in (result.transmitted, result.fluorescence):
        assert (image.shape, image.dtype) == ((256, 256), np.uint16)
        assert image.max() <= 4095
        assert (image == 4095).mean() < 0.001
        assert image.std() > 10
    assert (result.mask.shape, result.mask.dtype) == ((256, 256), np.uint8)
    assert np.unique(result.mask).tolist() == [0, 1]
    assert result.pixel_size_um == 0.1


def test_same_arguments_give_the_same_bytes():
    first, second = (simulate_field(SMALL, condition="fccp", seed=3) for _ in range(2))
    for name in ("transmitted", "fluorescence", "mask"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_other_seeds_give_other_cells():
    first, second = field(seed=0), field(seed=1)
    for name in ("transmitted", "fluorescence", "mask"):
        assert (getattr(first, name) != getattr(second, name)).mean() > 0.05


def test_treatments_of_one_seed_share_their_cells():
    def likeness(a: SimulatedField, b: SimulatedField) -> float:
        pair = [gaussian_filter(f.transmitted * 1.0, 2) for f in (a, b)]
        flat = [image - gaussian_filter(image, 15) for image in pair]  # without the illumination
        return float(np.corrcoef(flat[0].ravel(), flat[1].ravel())[0, 1])

    control = field("control", 0)
    assert likeness(control, field("rotenone", 0)) > 0.5
    assert likeness(control, field("rotenone", 1)) < 0.3


def test_foreground_share_is_that_of_real_fields():
    shares = [field("control", seed).mask.mean() for seed in range(6)]
    assert 0.08 < np.mean(shares) < 0.15
    assert min(shares) > 0.02
    assert max(shares) < 0.3


@pytest.mark.parametrize("condition", CONDITIONS)
def test_fluorescence_shows_the_mask(condition):
    result = field(condition)
    inside = result.fluorescence[result.mask == 1]
    outside = result.fluorescence[result.mask == 0]
    assert inside.mean() > 2 * outside.mean()
    assert best_threshold_iou(result.fluorescence, result.mask) > 0.5


def test_transmitted_light_shows_the_mask_but_no_threshold_finds_it():
    for seed in SEEDS:
        result = field("control", seed)
        flat = gaussian_filter(result.transmitted * 1.0, 1)
        flat -= gaussian_filter(flat, 15)
        assert flat[result.mask == 1].mean() < -0.3 * flat.std()
        assert best_threshold_iou(result.transmitted, result.mask) < 0.42
        assert best_threshold_iou(flat, result.mask) < 0.45


def test_oligomycin_fuses_and_the_others_fragment():
    length = {name: objects(name)["axis_major_length"].mean() for name in CONDITIONS}
    assert length["oligomycin"] > 1.3 * length["control"]
    for name in ("fccp", "antimycin_a", "rotenone"):
        assert length[name] < 0.7 * length["control"]


def test_fccp_swells():
    fccp, rotenone = objects("fccp"), objects("rotenone")
    assert np.median(fccp["axis_minor_length"]) > 1.3 * np.median(rotenone["axis_minor_length"])
    assert np.median(fccp["eccentricity"]) < np.median(rotenone["eccentricity"]) - 0.05


def test_rotenone_leaves_fewer():
    assert share("rotenone") < 0.7 * share("control")
    assert len(objects("rotenone")["area"]) < 0.8 * len(objects("antimycin_a")["area"])


def test_antimycin_a_crowds_mitochondria_together():
    assert clustering("antimycin_a") > 1.1 * clustering("rotenone")


@pytest.mark.parametrize("shape", [(200, 333), (32, 48), (16, 16)])
def test_any_shape_works(shape):
    result = simulate_field(shape, seed=5)
    for image in (result.transmitted, result.fluorescence, result.mask):
        assert image.shape == shape
    assert result.transmitted.std() > 5


def test_pixel_size_rescales_the_picture():
    coarse = simulate_field((96, 96), seed=2, pixel_size_um=0.2)
    fine = simulate_field((192, 192), seed=2, pixel_size_um=0.1)
    assert coarse.pixel_size_um == 0.2
    assert coarse.mask.mean() == pytest.approx(fine.mask.mean(), rel=0.5)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="'cccp'.*" + ", ".join(CONDITIONS)):
        simulate_field(condition="cccp")
    with pytest.raises(ValueError, match=r"\(8, 64\)"):
        simulate_field((8, 64))
    with pytest.raises(ValueError, match=r"got 1\.0"):
        simulate_field(pixel_size_um=1.0)
