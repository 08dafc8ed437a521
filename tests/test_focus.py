"""Planes in focus: on waves and stacks whose focus is known, on odd planes, on real stacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from helpers.command import Shell
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from mitolume.batch.focus import focus_files, measure_focus
from mitolume.errors import MitolumeError
from mitolume.io.channels import select_channel
from mitolume.io.fields import format_planes, parse_planes
from mitolume.io.read import read, read_plane
from mitolume.io.table import read_table
from mitolume.io.write import write_image
from mitolume.preprocess.focus import (
    band_power,
    choose_planes,
    focus_scores,
    planes_in_focus,
)

scores = st.lists(st.floats(0, 1e6), min_size=1, max_size=30)


def blurred_stack(best: int = 3, n: int = 8, dtype: type = np.uint16) -> np.ndarray:
    """Return noisy planes of one texture, blurred more the further they are from the best."""
    rng = np.random.default_rng(0)
    texture = 100 + 400 * ndimage.gaussian_filter(rng.normal(size=(96, 120)), 1.2)
    planes = [ndimage.gaussian_filter(texture, 0.8 * abs(z - best)) for z in range(n)]
    return np.clip(planes + rng.normal(0, 2, (n, 96, 120)), 0, 255).astype(dtype)


def phase_stack(focus_um: np.ndarray) -> np.ndarray:
    """Image a thin phase object in partially coherent light: no contrast in focus."""
    rng = np.random.default_rng(1)
    phase = np.fft.fft2(ndimage.gaussian_filter(rng.normal(size=(128, 128)), 1.0))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(128, 0.1), np.fft.fftfreq(128, 0.1)))
    planes = []
    for z in focus_um:
        transfer = 2 * np.sin(np.pi * 0.6 * z * frequency**2) * np.exp(-((z * frequency) ** 2))
        planes.append(1000 + 100 * np.fft.ifft2(phase * transfer).real)
    return np.stack(planes) + rng.normal(0, 1, (len(planes), 128, 128))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_the_sharpest_plane_is_found(dtype: type) -> None:
    found = focus_scores(blurred_stack(dtype=dtype))
    assert found.argmax() == 3
    assert np.all(np.diff(found[:4]) > 0)
    assert 3 in planes_in_focus(found)
    assert len(planes_in_focus(found)) < 6


def test_scan_lines_and_noise_do_not_pass_for_detail() -> None:
    rng = np.random.default_rng(2)
    stack = blurred_stack().astype(np.float64)
    stack[6] += rng.normal(0, 40, (96, 1))
    stack[7] += rng.normal(0, 10, (96, 120))
    assert focus_scores(stack).argmax() == 3
    clean, spoilt = band_power(blurred_stack()[6]), band_power(stack[6])
    assert spoilt == pytest.approx(clean, rel=0.05)


def test_band_power_is_the_slope_of_a_wave_in_the_band_and_nothing_beside_it() -> None:
    y, x = np.mgrid[:256, :256]

    def wave(period: float) -> float:
        return band_power(10 * np.sin(2 * np.pi * (x + y) / period / np.sqrt(2)))

    assert wave(8) == pytest.approx(10 / np.sqrt(2) * 2 * np.pi / 8, rel=0.02)
    assert wave(40) < 0.02 * wave(8)
    assert wave(2.8) < 0.02 * wave(8)


def test_a_stack_without_focus_between_two_maxima_is_in_focus_throughout() -> None:
    heights = np.arange(-6, 6.1, 0.5)
    found = focus_scores(phase_stack(heights), pixel_size_um=0.1)
    middle = len(heights) // 2
    assert found[middle] < 0.3 * found.max(), "a phase object vanishes in focus"
    chosen = planes_in_focus(found)
    assert middle in chosen
    assert abs(heights[chosen[0]] + heights[chosen[-1]]) <= 0.5
    assert heights[chosen[-1]] < 4


def test_dips_are_bridged_and_other_layers_are_not() -> None:
    assert planes_in_focus([0, 9, 10, 1, 8, 9, 0]) == [1, 2, 3, 4, 5]
    assert planes_in_focus([0, 9, 10, 1, 1, 1, 9, 0]) == [1, 2]


@given(scores)
def test_chosen_planes_are_a_run_with_the_best(values: list[float]) -> None:
    chosen = planes_in_focus(values)
    assert chosen == list(range(chosen[0], chosen[-1] + 1))
    assert int(np.argmax(values)) in chosen
    assert parse_planes(format_planes(chosen)) == tuple(chosen)


@given(scores, st.integers(1, 40))
def test_as_many_planes_as_asked_for_and_no_better_run(values: list[float], count: int) -> None:
    chosen = choose_planes(str(count), values)
    assert len(chosen) == min(count, len(values))
    most = max(sum(values[i : i + len(chosen)]) for i in range(len(values) - len(chosen) + 1))
    assert sum(values[z] for z in chosen) == pytest.approx(most)


def test_choices_are_read_as_people_write_them() -> None:
    values = [1, 2, 7, 10, 6, 2, 1, 1]
    assert choose_planes("auto", values) == [2, 3, 4]
    assert choose_planes("all", values) == list(range(8))
    assert choose_planes("2,5-7", values) == [2, 5, 6, 7]
    assert choose_planes("3-3", values) == [3]
    assert choose_planes("4um", values, 2.0) == choose_planes("4 µm", values, 2.0) == [2, 3, 4]
    assert choose_planes("1um", values, 6.0) == [3]
    assert choose_planes("1um", values, 0.5002) == [2, 3, 4]
    for wrong in ("", "0", "some", "5-2", "2,"):
        with pytest.raises(MitolumeError, match=r"can't be read|backwards"):
            choose_planes(wrong, values)
    with pytest.raises(MitolumeError, match="no plane 8: the stack has 8, from 0 to 7"):
        choose_planes("5-8", values)
    with pytest.raises(MitolumeError, match="distance between planes is not known"):
        choose_planes("4um", values)


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (2, 40), (40, 2), (300, 17), (64, 64)])
def test_planes_of_any_size_and_no_content(shape: tuple) -> None:
    rng = np.random.default_rng(3)
    saturated = np.full(shape, 255, np.uint8)
    noisy = rng.integers(0, 65_536, shape).astype(np.uint16)
    found = focus_scores([np.zeros(shape), saturated, noisy])
    assert np.isfinite(found).all()
    assert not found[:2].any()
    assert planes_in_focus(found[:2]) == [0, 1]
    assert planes_in_focus(found[:1]) == [0]
    assert planes_in_focus([]) == []


def stack_file(path: Path, stack: np.ndarray, z_um: float | None = 0.5) -> Path:
    size = {"pixel_size_um": {"Z": z_um, "Y": 0.1, "X": 0.1}} if z_um else {}
    write_image(path, xr.DataArray(stack, dims=("Z", "Y", "X"), attrs=size))
    return path


def test_the_command_prints_planes_and_draws_a_curve(tmp_path: Path, shell: Shell) -> None:
    # Letters that the font of figures lacks are no fault.
    stack = stack_file(tmp_path / "対照.day1.ome.tif", blurred_stack(dtype=np.uint8))
    said = shell("focus", stack, "--out", tmp_path / "o", "--planes", "1um")
    assert "planes: 2-4 (best: 3)" in said
    (picture,) = (tmp_path / "o").glob("*.png")
    assert picture.name == "対照.day1_focus.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    one = stack_file(tmp_path / "one.ome.tif", np.zeros((1, 3, 3), np.uint8))
    assert "one plane" in shell("focus", one, "--out", tmp_path / "o")


def test_faults_name_the_file_and_the_fix(tmp_path: Path, shell: Shell) -> None:
    stack = stack_file(tmp_path / "a.ome.tif", blurred_stack(n=4), z_um=None)
    with pytest.raises(MitolumeError, match=r"a\.ome\.tif: 4 µm can't be .* number of planes"):
        measure_focus(stack, read(stack), "4um")
    other = stack_file(tmp_path / "a.tif.ome.tif", blurred_stack(n=4)).rename(tmp_path / "a.tif")
    assert "would both become" in shell("focus", stack, other, code=1)
    assert "name either z-stacks" in shell("focus", code=1)


def test_a_bad_stack_does_not_stop_the_others(tmp_path: Path, shell: Shell) -> None:
    stack_file(tmp_path / "b.ome.tif", blurred_stack(n=4))
    (tmp_path / "a.tif").write_bytes(b"II*\0\0\0\0\0")
    said = shell("focus", tmp_path, "--out", tmp_path / "o", code=1)
    assert "2 stacks found, 1 measured; the others failed:" in said
    assert (tmp_path / "o" / "b_focus.png").exists()


def test_rows_of_a_table_without_a_choice_are_given_one(tmp_path: Path) -> None:
    stack_file(tmp_path / "a.ome.tif", blurred_stack())
    stack_file(tmp_path / "flat.ome.tif", blurred_stack()[:1])
    table, out = tmp_path / "fields.csv", tmp_path / "new" / "chosen.csv"
    table.write_text("image,planes,dye\na.ome.tif,,X\na.ome.tif,6-7,Y\nflat.ome.tif,,Z\n")
    outcome = focus_files([], out, table=table, planes="3")
    said = [one.report.text for one in outcome.finished]
    assert said == ["line 2 (a.ome.tif): planes 2-4 of 8", ""]
    assert outcome.summary == f"table: {out} (1 rows were given planes)"
    rows = read_table(out)
    assert [row.planes for row in rows] == [(2, 3, 4), (6, 7), None]
    assert [row.extra["dye"] for row in rows] == ["X", "Y", "Z"]
    with pytest.raises(MitolumeError, match=r"must end in \.csv"):
        focus_files([], tmp_path / "folder", table=table)


@pytest.mark.parametrize(
    ("name", "best", "least", "most"),
    [
        ("mito-fluorescence-zstack/stack.ome.tif", 18, 12, 30),
        ("vendor-formats/example-zstack.nd2", 5, 2, 4),
        ("transmitted-zstack/stack.ome.tif", 11, 6, 13),
    ],
)
def test_real_stacks(real_data: Path, name: str, best: int, least: int, most: int) -> None:
    image = select_channel(read(real_data / name), None)
    found = measure_focus(real_data / name, image)
    assert abs(found.best - best) <= 1
    assert least <= len(found.planes) <= most
    plane = read_plane(image, z=found.best)
    size = image.attrs.get("pixel_size_um", {}).get("Y")
    assert found.scores[found.best] == band_power(plane, size)
