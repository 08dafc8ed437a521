"""Does Noise2Noise apply: stacks whose answer is known, on real planes and drawn ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from helpers.command import Shell
from scipy import ndimage

from mitolume.io.read import read
from mitolume.io.write import write_image
from mitolume.preprocess.noise_check import NoiseCheck, check_stack
from mitolume.preprocess.plane_spectra import measure_spectra


def cells(planes: int = 8, *, seed: int = 0, depth: float = 8, size: int = 128) -> np.ndarray:
    """Return blobs of standard deviation 50 that change over ``depth`` planes, without noise."""
    rng = np.random.default_rng(seed)
    margin = int(4 * depth) + 1
    stack = rng.normal(size=(planes + 2 * margin, size, size))
    stack = ndimage.gaussian_filter(stack, (depth, 4, 4), mode="wrap")[margin : margin + planes]
    return 300 + 50 * stack / stack.std()


def noisy(stack: np.ndarray, sd: float = 20, seed: int = 1) -> np.ndarray:
    """Add noise that is new in each plane."""
    return stack + np.random.default_rng(seed).normal(0, sd, stack.shape)


@pytest.fixture(scope="module")
def fluorescence(real_data: Path) -> np.ndarray:
    """Return twelve planes of the stack for which Noise2Noise is made."""
    stack = read(real_data / "mito-fluorescence-zstack" / "stack.ome.tif").values[0, 0]
    return np.asarray(stack[4:10, 100:356, 100:356], np.float64)


@pytest.mark.parametrize("sd", [5, 80])
def test_slow_signal_and_new_noise_are_suitable(sd: float) -> None:
    check = check_stack(noisy(cells(), sd))
    assert check.sentence == "suitable"
    assert check.noise_sd == pytest.approx(sd, rel=0.05)
    assert check.shared_noise == pytest.approx(0, abs=0.05)


def test_the_expected_gain_is_that_of_the_filter_learnt_from_neighbours() -> None:
    clean = cells(depth=4, size=256)
    stack = noisy(clean, 20)
    spectra = measure_spectra(stack)
    ring = spectra.kind == 0
    passed = (spectra.cross[0] / spectra.power[0])[ring].clip(0, 1)
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(256)] * 2))
    gain = np.interp(frequency, spectra.frequency[ring], passed)
    filtered = np.fft.ifft2(np.fft.fft2(stack) * gain).real
    inside = np.s_[:, 16:-16, 16:-16]

    def error(planes: np.ndarray) -> float:
        off = (planes - clean)[inside]
        return float((off - off.mean(axis=(1, 2), keepdims=True)).var())

    gained = 10 * np.log10(error(stack) / error(filtered))
    assert check_stack(stack).gain_db == pytest.approx(gained, abs=1)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_shared_noise_is_not_suitable_and_measured(share: float) -> None:
    shared = np.random.default_rng(2).normal(0, 20 * share**0.5, (128, 128))
    check = check_stack(noisy(cells(), 20 * (1 - share) ** 0.5) + shared)
    assert check.sentence == "not suitable: noise is shared between planes"
    assert check.shared_noise == pytest.approx(share, abs=0.1)


def test_planes_averaged_along_z_share_their_noise() -> None:
    stack = noisy(cells())
    smooth = ndimage.gaussian_filter1d(stack, 1, axis=0)
    between = np.repeat(stack, 2, axis=0)[:-1]
    between[1::2] = (stack[1:] + stack[:-1]) / 2
    for shared in (smooth, between, np.repeat(stack, 2, axis=0)):
        assert "noise is shared" in check_stack(shared).sentence


def test_fast_signal_and_unrelated_images_are_not_suitable() -> None:
    for sd in (5, 80):
        assert "too fast" in check_stack(noisy(cells(depth=0.5), sd)).sentence
        unrelated = np.concatenate([cells(1, seed=seed) for seed in range(6)])
        assert "unrelated" in check_stack(noisy(unrelated, sd)).sentence


def test_noise_alone_is_said_to_be_noise() -> None:
    assert check_stack(noisy(np.zeros((6, 128, 128)))).reason == "nothing but noise is seen"


def test_planes_without_noise_have_none_to_remove() -> None:
    check = check_stack(cells(depth=25))
    assert not check.is_suitable


@pytest.mark.parametrize(
    ("stack", "said"),
    [
        (np.zeros((1, 64, 64)), "too few planes (there is one plane; 3 are needed)"),
        (np.zeros((2, 64, 64)), "too few planes (there are 2 planes; 3 are needed)"),
        (np.zeros((5, 3, 3)), "planes of 3 x 3 pixels are too small"),
        (np.full((5, 64, 64), 255, np.uint8), "planes are constant"),
        (np.where(np.arange(64) < 32, 255, np.arange(64)) * np.ones((5, 64, 1)), "saturated"),
    ],
)
def test_stacks_that_tell_nothing(stack: np.ndarray, said: str) -> None:
    check = check_stack(stack)
    assert check.verdict == "not suitable"
    assert said in check.reason
    assert check.gain_db is None


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_every_type_of_pixel_gets_the_same_answer(dtype: type) -> None:
    stack = noisy(cells() / 4, 8)
    typed = np.rint(stack).astype(dtype) if np.issubdtype(dtype, np.integer) else stack
    assert check_stack(typed.astype(dtype)).gain_db == pytest.approx(
        check_stack(stack).gain_db, abs=0.2
    )


@pytest.mark.parametrize("step", [(0.3, -0.1), (5.0, -2.0)])
def test_a_drifting_stack_is_laid_over_itself(step: tuple[float, float]) -> None:
    still = cells(6, size=256)
    moved = [
        np.fft.ifft2(ndimage.fourier_shift(np.fft.fft2(p), (z * step[0], z * step[1]))).real
        for z, p in enumerate(still)
    ]
    check = check_stack(noisy(np.stack(moved)))
    assert check.is_suitable
    assert check.shift_px == pytest.approx(np.hypot(*step), abs=0.15)
    assert check.gain_db == pytest.approx(check_stack(noisy(still)).gain_db, abs=1.5)


@pytest.mark.parametrize("size", [70, 100])
def test_small_planes_that_drift_are_compared(size: int) -> None:
    wide = cells(8, size=size + 40)
    moved = np.stack([p[4 * z :, 3 * z :][:size, :size] for z, p in enumerate(wide)])
    check = check_stack(noisy(moved))
    assert check.is_suitable
    assert check.shift_px == pytest.approx(5, abs=1)


def test_lines_of_rows_and_columns_are_told_apart() -> None:
    rng = np.random.default_rng(5)
    stack = noisy(cells(size=256), 10)
    rows = check_stack(stack + rng.normal(0, 6, (8, 256, 1)))
    columns = check_stack(stack + rng.normal(0, 6, (8, 1, 256)))
    assert (rows.row_noise_sd, rows.column_noise_sd) == (pytest.approx(6, rel=0.25), 0)
    assert (columns.row_noise_sd, columns.column_noise_sd) == (0, pytest.approx(6, rel=0.25))
    assert rows.is_suitable
    assert columns.is_suitable
    shared = check_stack(stack + rng.normal(0, 12, (1, 256, 1)))
    assert "noise is shared" in shared.sentence


def test_noise_that_was_smoothed_is_noticed() -> None:
    noise = np.random.default_rng(3).normal(0, 60, (8, 128, 128))
    check = check_stack(cells(depth=25) + ndimage.gaussian_filter(noise, (0, 1, 1)))
    assert check.is_suitable
    assert check.is_correlated
    assert not check_stack(noisy(cells())).is_correlated


def test_fluorescence_planes_are_suitable_with_more_noise_too(fluorescence: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    assert check_stack(fluorescence).sentence == "suitable"
    rows = rng.normal(0, 20, (*fluorescence.shape[:2], 1))
    pixels = rng.normal(0, 20, fluorescence.shape)
    assert check_stack(fluorescence + rows).sentence == "suitable"
    assert check_stack(fluorescence + pixels).sentence == "suitable"
    assert not check_stack(fluorescence + pixels[0]).is_suitable


def test_other_real_stacks(real_data: Path) -> None:
    epfl = read(real_data / "epfl-hippocampus" / "train.ome.tif").values[0, 0]
    assert check_stack(epfl[:5, :256, :256]).is_suitable
    assert not check_stack(epfl[::30, :256, :256]).is_suitable
    light = read(real_data / "transmitted-zstack" / "stack.ome.tif").values[0, 0]
    assert not check_stack(light[::3]).is_suitable
    wide = read(real_data / "vendor-formats" / "example-zstack.nd2").values[0, 0]
    assert "too fast" in check_stack(wide).sentence


def _written(path: Path, stack: np.ndarray) -> Path:
    pixels = np.rint(stack).astype(np.uint16)
    size = {"pixel_size_um": {"Z": 0.1, "Y": 0.1, "X": 0.1}}
    write_image(path, xr.DataArray(pixels, dims=("Z", "Y", "X"), attrs=size))
    return path


def test_the_command_prints_a_verdict_and_writes_figure_and_numbers(
    tmp_path: Path, shell: Shell
) -> None:
    stack = _written(tmp_path / "a.ome.tif", noisy(cells(4)))
    figure = tmp_path / "new" / "a_check.png"
    command = ["denoise", "check", stack, "--out", figure.parent, "--quiet"]
    said = shell(*command, "--channel", 0, "--scene", 0)
    assert "0.1 µm apart" in said
    assert "\n  suitable\n" in said
    asked = f"denoise train {stack} --channel 0 --scene 0 --out DENOISER"
    assert asked in said, "the command works when it is copied"
    assert figure.read_bytes().startswith(b"\x89PNG")
    found = json.loads(figure.with_suffix(".json").read_text(encoding="utf-8"))
    assert set(found) == {"image", "sentence", *NoiseCheck.__dataclass_fields__}
    assert found["sentence"] == "suitable"
    assert found["z_step_um"] == 0.1


@pytest.mark.parametrize("planes", [1, 2])
def test_the_command_draws_the_smallest_stacks(tmp_path: Path, planes: int, shell: Shell) -> None:
    stack = _written(tmp_path / "s.ome.tif", np.arange(9 * planes).reshape(planes, 3, 3))
    figure = tmp_path / "s_check.png"
    assert "too few planes" in shell("denoise", "check", stack, "--out", tmp_path)
    assert figure.exists()
    assert figure.with_suffix(".json").exists()


def test_faults_are_one_sentence(tmp_path: Path, shell: Shell) -> None:
    stack = _written(tmp_path / "a.ome.tif", np.ones((1, 3, 3)))
    command = ["denoise", "check", stack, "--channel", "DAPI", "--out", tmp_path / "out"]
    assert "DAPI" in shell(*command, code=1)
    assert not (tmp_path / "out").exists()


def test_a_bad_stack_does_not_stop_the_others(tmp_path: Path, shell: Shell) -> None:
    _written(tmp_path / "b.ome.tif", np.ones((1, 3, 3)))
    (tmp_path / "a.tif").write_bytes(b"II*\0\0\0\0\0")
    said = shell("denoise", "check", tmp_path, "--out", tmp_path, code=1)
    assert (tmp_path / "b_check.png").exists()
    assert "2 stacks found, 1 checked; the others failed:" in said
