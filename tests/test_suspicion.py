"""Silent nonsense: each kind is noticed with its fix, and no good data set is."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from mitolume.io.alignment import TURNS, find_shift, find_turn, measure_fit, turned
from mitolume.io.check import check_table
from mitolume.io.rows import read_row
from mitolume.io.suspicion import look_closely, masks_of_odd_shares, odd_pixels
from mitolume.io.table import TableError
from mitolume.models.bundle import Card, read_card, save_bundle
from mitolume.models.settings import NetworkSettings
from mitolume.preprocess.fingerprint import unlike_training
from mitolume.preprocess.normalise import normalise
from mitolume.runs.likeness import fingerprint_of, unlike_rows
from mitolume.simulate.field import simulate_field
from mitolume.simulate.settings import SimulationSettings


@cache
def discs(seed: int, side: int = 240) -> tuple[np.ndarray, np.ndarray]:
    """Return an image of dark discs among clutter, and the discs' mask."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    mask, clutter = np.zeros((side, side), bool), np.zeros((side, side))
    for _ in range(24):
        cy, cx, r = rng.uniform(0, side), rng.uniform(0, side), rng.uniform(6, 12)
        mask |= (y - cy) ** 2 + ((x - cx) / 1.5) ** 2 < r**2
    for _ in range(60):
        cy, cx, r = rng.uniform(0, side), rng.uniform(0, side), rng.uniform(2, 5)
        clutter += np.hypot(y - cy, x - cx) < r
    image = 120 - 30 * mask + 20 * clutter + rng.normal(0, 8, (side, side))
    return np.clip(gaussian_filter(image, 1), 0, 255).astype(np.uint8), mask.astype(np.uint8)


def moved(mask: np.ndarray, down: int, right: int) -> np.ndarray:
    return np.roll(mask, (down, right), (0, 1))


Pairs = list[tuple[np.ndarray, np.ndarray]]  # images and masks


def write_table_of(folder: Path, pairs: Pairs, **columns: str) -> Path:
    lines = [",".join(["image", "mask", *columns])]
    for number, (image, mask) in enumerate(pairs):
        tifffile.imwrite(folder / f"i{number}.tif", image)
        tifffile.imwrite(folder / f"m{number}.tif", mask)
        lines.append(",".join([f"i{number}.tif", f"m{number}.tif", *columns.values()]))
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    return folder / "t.csv"


# Masks: values


def test_masks_of_0_and_1_may_be_floating_point(tmp_path: Path) -> None:
    image, mask = discs(0)
    table = check_table(write_table_of(tmp_path, [(image, mask.astype(np.float32))]))
    np.testing.assert_array_equal(read_row(table.fields[0], 0, table.mask_kind)[1], mask)
    assert table.notices == ()


@pytest.mark.parametrize(
    ("change", "fix"),
    [
        (lambda mask: gaussian_filter(mask.astype(np.float32), 2), "threshold them first"),
        (lambda mask: mask.astype(np.int8) - 1, "make background 0, mitochondria 1"),
        (lambda mask: mask * np.float32(1.5), "without interpolation"),
    ],
)
def test_masks_that_are_none_are_refused_with_the_fix(tmp_path: Path, change, fix: str) -> None:  # type: ignore[no-untyped-def]
    image, mask = discs(0)
    with pytest.raises(TableError, match=fix):
        check_table(write_table_of(tmp_path, [(image, change(mask))]))


def test_imagejs_inverting_lut_leaves_the_values_as_they_are(tmp_path: Path) -> None:
    """Fiji shows 255 black there; it is the foreground all the same, as in Fiji itself."""
    image, mask = discs(0)
    path = write_table_of(tmp_path, [(image, mask)])
    tifffile.imwrite(tmp_path / "m0.tif", mask * 255, photometric="miniswhite",
                     description="ImageJ=1.54f\n", metadata=None)  # fmt: skip
    table = check_table(path)
    np.testing.assert_array_equal(read_row(table.fields[0], 0, table.mask_kind)[1], mask)
    assert table.notices == ("masks hold only 0 and 255: 255 is read as mitochondria",)


def test_inverted_masks_are_noticed(tmp_path: Path) -> None:
    pairs = [discs(seed) for seed in range(4)]
    assert check_table(write_table_of(tmp_path, pairs)).notices == ()
    (notice,) = check_table(write_table_of(tmp_path, [(i, 1 - m) for i, m in pairs])).notices
    assert "of the masks" in notice
    assert "Edit > Invert" in notice
    pairs[2] = (pairs[2][0], 1 - pairs[2][1])
    (notice,) = check_table(write_table_of(tmp_path, pairs)).notices
    assert notice.startswith("line 4 (m2.tif): mitochondria cover more than 70 %")


@given(st.lists(st.floats(0.01, 0.45), min_size=1, max_size=20))
def test_dense_masks_are_not_called_inverted(shares: list[float]) -> None:
    assert masks_of_odd_shares({str(i): share for i, share in enumerate(shares)}) == []


# Images: values


@pytest.mark.parametrize(
    "same",
    [
        lambda image: image / np.float32(255),  # 0 to 1
        lambda image: image.astype(np.uint16) * 16,  # 12 bit in 16
        lambda image: image.astype(np.int16) - 200,  # signed, offset taken away
        lambda image: image.astype(np.float64) * 1e3,
    ],
)
def test_the_range_of_grey_values_does_not_matter(same) -> None:  # type: ignore[no-untyped-def]
    image = discs(1)[0]
    np.testing.assert_allclose(normalise(same(image)), normalise(image), atol=2e-4)
    assert odd_pixels(same(image)) == ""


def test_flat_images_and_masks_as_images_are_named(tmp_path: Path) -> None:
    pairs = [discs(seed) for seed in range(3)]
    pairs[1] = (np.full_like(pairs[1][0], 7), pairs[1][1])
    (notice,) = check_table(write_table_of(tmp_path, pairs)).notices
    assert notice == "i1.tif: one flat grey (7); save it again, or leave it out"
    pairs[1] = (discs(1)[0] / 16 + np.float32(1e9), pairs[1][1])
    assert "one flat grey but for rounding" in check_table(
        write_table_of(tmp_path, pairs)
    ).notices[0]  # fmt: skip
    pairs[1] = (pairs[1][1] * 255, pairs[1][1])
    assert "i1.tif: only the values 0 and 255" in check_table(
        write_table_of(tmp_path, pairs)
    ).notices[0]  # fmt: skip
    flat = [(np.full_like(image, seed), mask) for seed, (image, mask) in enumerate(pairs)]
    with pytest.raises(TableError, match=r"i0.tif, i1.tif, i2.tif: no image shows anything"):
        check_table(write_table_of(tmp_path, flat))


# Sizes


@pytest.mark.parametrize(
    ("written", "fix"),
    [("80", "are nanometres"), ("0.00008", "are millimetres"), ("8e-8", "are metres")],
)
def test_other_units_in_the_table_are_guessed(tmp_path: Path, written: str, fix: str) -> None:
    with pytest.raises(TableError, match=f"{fix}, write 0.08"):
        check_table(write_table_of(tmp_path, [discs(0)], pixel_size_um=written))


# Places


@settings(max_examples=15)
@given(st.integers(-14, 14), st.integers(-14, 14), st.integers(0, 3))
def test_shifts_are_found(down: int, right: int, seed: int) -> None:
    evidence = []
    for number in (seed, seed + 1):
        image, mask = discs(number)
        evidence.append(measure_fit(image, moved(mask, down, right)))
    found = find_shift(evidence, least=3.5)
    if np.hypot(down, right) > 4.5:
        assert found is not None
        assert np.hypot(found[0] - down, found[1] - right) < 1.5
    elif np.hypot(down, right) < 2.5:
        assert found is None


@pytest.mark.parametrize("turn", range(8))
def test_turns_are_found_and_named_by_what_undoes_them(turn: int) -> None:
    image, mask = discs(3)
    other = discs(4)
    evidence = [measure_fit(i, turned(m, turn)) for i, m in ((image, mask), other)]
    found = find_turn(evidence)
    np.testing.assert_array_equal(turned(turned(mask, turn), found), mask)
    assert (found == 0) == (turn == 0)
    assert TURNS[5] == "y and x swapped"
    np.testing.assert_array_equal(turned(mask, 5), mask.T)


def test_misplaced_masks_are_noticed_together_or_singly(tmp_path: Path) -> None:
    pairs = [discs(seed) for seed in range(4)]
    (notice,) = check_table(
        write_table_of(tmp_path, [(i, moved(m, 5, -6)) for i, m in pairs])
    ).notices
    assert "about 5 px below and 6 px left of what their images show" in notice
    (notice,) = check_table(write_table_of(tmp_path, [(i, m.T) for i, m in pairs])).notices
    assert notice == "masks fit their images when y and x swapped; check how both were exported"
    pairs[1] = (pairs[1][0], moved(pairs[1][1], 0, 9))
    pairs[3] = (pairs[3][0], pairs[3][1][::-1])
    turned_one, shifted_one = check_table(write_table_of(tmp_path, pairs)).notices
    assert shifted_one.startswith("line 3 (m1.tif) about 9 px right: ")
    assert turned_one.startswith("line 5 (m3.tif): the mask fits its image when flipped top to")


def test_masks_of_another_image_raise_no_alarm() -> None:
    """A mask that fits nowhere is no shifted one."""
    planes = [(str(n), discs(n)[0], discs(n + 10)[1]) for n in range(4)]
    assert look_closely(planes) == []


# Another channel


BELOW_FOCUS = SimulationSettings(shape=(192, 192), planes=2, z_step_um=1.0)


def field_of(seed: int, condition: str = "control") -> dict[str, np.ndarray]:
    """Simulate channels and mask of a plane 1 um below the middle of the mitochondria."""
    field = simulate_field(BELOW_FOCUS, condition=condition, seed=seed)
    planes = {name: stack[0] for name, stack in field.images.items()}
    return {"light": planes["Transmitted"], "dye": planes["Mitochondria"], "mask": field.masks[0]}


@pytest.fixture(scope="module")
def fields() -> list[dict[str, np.ndarray]]:
    return [field_of(seed) for seed in range(6)]


def card_of(planes: list[np.ndarray]) -> Card:
    return Card(
        network=NetworkSettings(),
        fingerprint=fingerprint_of([normalise(plane) for plane in planes]),
    )


@pytest.mark.slow
def test_other_channels_and_inverted_images_are_unlike_training(
    fields: list[dict[str, np.ndarray]],
) -> None:
    known = card_of([field["light"] for field in fields[:4]]).fingerprint
    treated = field_of(9, "fccp")
    for good in (fields[4], fields[5], treated):
        assert unlike_training(known, normalise(good["light"])) == ""
    warning = unlike_training(known, normalise(fields[4]["dye"]), "a.tif")
    assert warning.startswith("a.tif does not look like the images the model was trained on")
    assert "--channel" in warning
    assert "Edit > Invert" in unlike_training(known, normalise(4095 - fields[5]["light"]))
    blurred = gaussian_filter(fields[4]["light"].astype(float), 4)
    assert "fine detail is much weaker" in unlike_training(known, normalise(blurred))


def test_what_can_not_be_told_is_not_said(fields: list[dict[str, np.ndarray]]) -> None:
    known = card_of([field["light"] for field in fields[:2]]).fingerprint
    assert unlike_training(known, normalise(fields[3]["dye"][:40])) == ""
    assert unlike_training(None, normalise(fields[3]["dye"])) == ""
    assert card_of([fields[0]["light"]]).fingerprint is None  # one small image says too little
    assert card_of([fields[0]["light"][:40]] * 20).fingerprint is None


def test_fingerprints_survive_the_card(fields: list[dict[str, np.ndarray]], tmp_path: Path) -> None:
    card = card_of([field["light"] for field in fields[:3]])
    assert card.fingerprint is not None
    save_bundle(tmp_path, {}, card)
    assert read_card(tmp_path, Card).fingerprint == card.fingerprint


def test_rows_of_another_channel_are_named(
    fields: list[dict[str, np.ndarray]], tmp_path: Path
) -> None:
    pairs = [(field["light"], field["mask"]) for field in fields]
    table = check_table(write_table_of(tmp_path, pairs))
    assert unlike_rows(table.fields, table, None)[1] == []
    pairs[3] = (fields[3]["dye"], fields[3]["mask"])
    table = check_table(write_table_of(tmp_path, pairs))
    rows, (notice,) = unlike_rows(table.fields, table, None)
    assert notice.startswith("line 5 (i3.tif): looks unlike the other images (")
    assert len(rows) == len(pairs)  # it has a mask, so it is meant
    # One such plane of three is no sign of a wrong file, two are.
    path = tmp_path / "t.csv"
    known = [line for line in path.read_text().splitlines()[1:] if "i3" not in line]
    for n_odd in (1, 2):
        stack = np.stack([fields[n]["dye" if n < n_odd else "light"][::-1] for n in range(3)])
        tifffile.imwrite(tmp_path / "s.tif", stack, imagej=True, metadata={"axes": "ZYX"})
        path.write_text(
            "\n".join(["image,mask,role", *(f"{k}," for k in known), "s.tif,,unlabelled"])
        )
        table = check_table(path)
        assert len(unlike_rows(table.fields, table, None)[1]) == n_odd - 1


def test_pictures_that_are_no_images_are_left_out_unless_asked_for(
    fields: list[dict[str, np.ndarray]], tmp_path: Path
) -> None:
    pairs = [(field["light"], field["mask"]) for field in fields]
    path = write_table_of(tmp_path, pairs, role="train", channel="")
    slide = np.full((200, 300), 240, np.uint8)
    slide[20:60, 20:280], slide[100:180, 40:120] = 40, np.arange(80)
    tifffile.imwrite(tmp_path / "screen.tif", slide)
    tifffile.imwrite(tmp_path / "final.tif", 255 * (slide < 100).astype(np.uint8))
    tifffile.imwrite(tmp_path / "nice figure.tif", np.stack([255 - slide, slide, slide], -1))
    names, lines = ["screen.tif", "final.tif", "nice figure.tif"], path.read_text()
    for asked in (False, True):
        end = ",,unlabelled,0\n" if asked else ",,,\n"
        path.write_text(lines + "".join(name + end for name in names))
        table = check_table(path)
        rows, notices = unlike_rows(table.fields, table, None)
        assert {row.image.name for row in rows} & set(names) == (set(names) if asked else set())
        said = [notice for notice in (*table.notices, *notices) if "left out" in notice]
        assert len(said) == (0 if asked else 3)


@pytest.mark.parametrize("values", [(1, 2), (1, 1), (255, 255)])
def test_masks_without_background_are_refused(values: tuple[int, int], tmp_path: Path) -> None:
    pairs = [(image, np.array(values, np.uint8)[mask]) for image, mask in map(discs, (0, 1))]
    with pytest.raises(TableError, match=r"i0.tif.*i1.tif.*marks every pixel as mito"):
        check_table(write_table_of(tmp_path, pairs), mask_kind="labels")


# Real images


def real_planes(data: Path, name: str) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    if name == "h9c2-brightfield":
        with (data / name / "fields.csv").open() as file:
            for row in list(csv.DictReader(file))[::5]:
                image, mask = (
                    np.array(Image.open(data / name / row[c])) for c in ("image", "mask")
                )
                yield row["mask"], image, mask
    else:
        stem, planes = {
            "epfl-hippocampus": ("train", (10, 32, 55, 77)),
            "vnc-sstem": ("labelled", (2, 4, 8, 10)),
        }[name]
        image = tifffile.imread(data / name / f"{stem}.ome.tif")
        mask = tifffile.imread(data / name / f"{stem}_mask.ome.tif")
        for z in planes:
            yield f"{name} {z}", image[z], mask[z]


@pytest.mark.parametrize("name", ["h9c2-brightfield", "epfl-hippocampus", "vnc-sstem"])
def test_real_images_are_silent_and_speak_up_when_spoilt(real_data: Path, name: str) -> None:
    planes = list(real_planes(real_data, name))
    assert look_closely(planes) == []
    assert [odd_pixels(plane) for _, plane, _ in planes] == [""] * len(planes)

    def spoilt(change) -> str:  # type: ignore[no-untyped-def]
        return "\n".join(look_closely([(n, p, change(m)) for n, p, m in planes]))

    shift = 6 if name.startswith("h9c2") else 4
    assert " px right of what their images show" in spoilt(lambda mask: moved(mask, 0, shift))
    assert "flipped top to bottom" in spoilt(lambda mask: mask[::-1])
    assert "Edit > Invert" in spoilt(lambda mask: np.where(mask == 255, mask, 1 - mask))


@pytest.mark.parametrize("name", ["h9c2-brightfield", "epfl-hippocampus", "vnc-sstem"])
def test_real_images_of_the_same_kind_look_alike(real_data: Path, name: str) -> None:
    planes = [plane for _, plane, _ in real_planes(real_data, name)]
    known = card_of(planes[:8]).fingerprint  # of the H9c2 cells, movie 008
    if name == "h9c2-brightfield":
        folder = real_data / name
        same = [np.array(Image.open(p)) for p in sorted(folder.glob("m010*_brightfield.png"))[::2]]
        other = [
            np.array(Image.open(p)) for p in sorted(folder.glob("m010*_fluorescence.png"))[::2]
        ]
    elif name == "vnc-sstem":
        same = list(tifffile.imread(real_data / name / "unlabelled.ome.tif")[::4])
        other = list(tifffile.imread(real_data / name / "labelled_mask.ome.tif")[2:6])
    else:
        same = list(tifffile.imread(real_data / name / "train.ome.tif")[120::15])
        other = [gaussian_filter(plane.astype(float), 4) for plane in same]
    assert [unlike_training(known, normalise(plane)) for plane in same] == [""] * len(same)
    assert all(unlike_training(known, normalise(plane)) for plane in other)
    inverted = [unlike_training(known, normalise(255 - plane)) for plane in same]
    assert all("dark and bright look swapped" in warning for warning in inverted)
