"""PSNR and SSIM of the default denoiser and of classical filters at their best settings.

Knows the truth, which the filters' settings are chosen by and the denoiser is not. The wavelet
filter is its own, undecimated: scikit-image's needs PyWavelets, no dependency here. Run from the
project's folder: ``python benchmarks/denoising_psnr.py [--steps N] [--data FOLDER] [STACK ...]``
prints a row for each stack. FOLDER holds `mito-fluorescence-zstack` and `epfl-hippocampus`; without
it only simulated stacks are used.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

from mitolume import read
from mitolume.batch.denoise import denoised_planes
from mitolume.inference.denoise import Denoiser
from mitolume.io.write import write_image
from mitolume.preprocess.stripes import remove_stripes
from mitolume.runs.denoiser import denoising_settings
from mitolume.simulate.field import simulate_field
from mitolume.simulate.presets import PRESETS
from mitolume.training.denoise_stacks import open_stacks
from mitolume.training.denoise_training import train_denoiser

Stack = np.ndarray[Any, np.dtype[np.float32]]
SIDE, DEPTH = 256, 13


def simulated(
    channel: str = "Transmitted",
    step: float = 0.05,
    lines: float = 0.004,
    depth: int = DEPTH,
    **camera: float,
) -> tuple[Stack, Stack]:
    """Return (Z, Y, X) without noise and as recorded."""
    settings = PRESETS["fine"].settings.model_dump()
    settings |= {"shape": (SIDE, SIDE), "planes": depth, "z_step_um": (step, step)}
    settings["camera"] |= {"scan_lines": lines, **camera}
    field = simulate_field(type(PRESETS["fine"].settings).model_validate(settings), seed=1)
    return field.clean[channel], field.images[channel].astype(np.float32)


def fluorescence(data: Path, smoothed: bool) -> Stack:
    """Return part of the real fluorescence stack, with its own noise or smoothed."""
    stack = read(data / "mito-fluorescence-zstack" / "stack.ome.tif")[0, 0].values.astype(
        np.float32
    )
    if smoothed:
        stack = gaussian_filter(stack, (1.5, 0.8, 0.8))
    return stack[4 : 4 + DEPTH, 128 : 128 + SIDE, 128 : 128 + SIDE]


def electrons(data: Path, step: int = 1) -> Stack:
    """Return part of the FIB-SEM stack."""
    image = read(data / "epfl-hippocampus" / "train.ome.tif")[0, 0]
    part = image[: DEPTH * step : step, 64 : 64 + SIDE, 100 : 100 + SIDE]
    return part.values.astype(np.float32)


def noisy(
    truth: Stack, *, photons: float = 0, sd: float = 0, rows: float = 0, shared: bool = False
) -> tuple[Stack, Stack]:
    """Return the truth, and with noise: of photons (a count each), of pixels, of scan lines."""
    rng = np.random.default_rng(1)
    recorded = rng.poisson(truth * photons) / photons if photons else truth
    pixels = rng.normal(0, sd, truth.shape)
    lines = rng.normal(0, rows, (*truth.shape[:2], 1))
    added = pixels + lines
    return truth, np.asarray(recorded + (added[:1] if shared else added), np.float32)


def stacks(data: Path | None) -> dict[str, Callable[[], tuple[Stack, Stack]]]:
    """Return what can be measured."""
    found: dict[str, Callable[[], tuple[Stack, Stack]]] = {
        "simulated transmitted, fine": lambda: simulated(),
        "simulated transmitted, 0.25 um": lambda: simulated(step=0.25),
        "simulated transmitted, lines 1 %": lambda: simulated(lines=0.01),
        "simulated transmitted, lines 3 %": lambda: simulated(lines=0.03),
        "simulated fluorescence, fine": lambda: simulated("Mitochondria"),
        "simulated, 250 photons": lambda: simulated(photons=250),
        "simulated, nearly no noise": lambda: simulated(
            photons=400_000, read_noise=0, lines=0, gain=0.005
        ),
        "simulated, steps of 5 um": lambda: simulated(step=5.0),
        "simulated, one plane": lambda: simulated(depth=1),
        "simulated, three planes": lambda: simulated(depth=3),
    }
    if data is None:
        return found
    return found | {
        "fluorescence smoothed + all noise": lambda: noisy(
            fluorescence(data, True), photons=0.3, sd=3, rows=3
        ),
        "fluorescence smoothed + lines": lambda: noisy(fluorescence(data, True), rows=10),
        "fluorescence as recorded + lines 5": lambda: noisy(fluorescence(data, False), rows=5),
        "fluorescence as recorded + lines 20": lambda: noisy(fluorescence(data, False), rows=20),
        "FIB-SEM + noise": lambda: noisy(electrons(data), sd=25),
        "FIB-SEM 20 nm + noise": lambda: noisy(electrons(data, 4), sd=25),
        "FIB-SEM + little noise": lambda: noisy(electrons(data), sd=3),
        "FIB-SEM, unrelated planes": lambda: noisy(electrons(data, 11), sd=15),
        "FIB-SEM, shared noise": lambda: noisy(electrons(data), sd=25, shared=True),
    }


def filters(plane: Stack) -> Iterator[tuple[str, Stack]]:
    """Yield a plane after each filter at each setting."""
    for sigma in (0.3, 0.5, 0.7, 1, 1.4, 2, 2.8):
        yield "gaussian", gaussian_filter(plane, sigma)
    low, spread = float(plane.min()), float(np.ptp(plane)) or 1.0
    scaled = (plane - low) / spread
    noise = max(float(np.median(np.abs(np.diff(scaled, 2, axis=1)))) / (0.6745 * 6**0.5), 1e-6)
    for weight in (0.25, 0.5, 1, 1.5, 2, 3, 5):
        yield "tv", low + spread * denoise_tv_chambolle(scaled, weight=weight * noise)
    for h in (0.4, 0.7, 1, 1.4):
        done = denoise_nl_means(
            scaled, patch_size=5, patch_distance=9, h=h * noise, sigma=noise, fast_mode=True
        )
        yield "nlm", low + spread * done
    for times in (0.5, 0.7, 1, 1.4, 2):
        yield "wavelet", low + spread * wavelet(scaled, times * noise)


def wavelet(plane: Stack, noise: float, levels: int = 4) -> Stack:
    """Shrink undecimated db2 wavelet coefficients of a plane (Chang et al. 2000, BayesShrink)."""
    low = np.array([1 + 3**0.5, 3 + 3**0.5, 3 - 3**0.5, 1 - 3**0.5]) / 8
    high = low[::-1] * np.array([1, -1, 1, -1])
    padded = np.pad(plane, 32, mode="reflect")

    def gain(taps: Any, level: int, size: int) -> Any:
        turns = -2j * np.pi * np.fft.fftfreq(size)
        return sum(tap * np.exp(turns * k * 2**level) for k, tap in enumerate(taps))

    spectrum = np.fft.fft2(padded)
    total, coarse = np.zeros_like(spectrum), np.ones_like(spectrum)
    for level in range(levels):
        (low_y, high_y), (low_x, high_x) = (
            (gain(low, level, size), gain(high, level, size)) for size in padded.shape
        )
        for y, x in ((low_y, high_x), (high_y, low_x), (high_y, high_x)):
            band = coarse * y[:, None] * x
            values = np.fft.ifft2(spectrum * band).real
            variance = noise**2 * np.mean(np.abs(band) ** 2)
            signal = max(float(np.mean(values**2)) - variance, 1e-12)
            kept = np.sign(values) * np.maximum(np.abs(values) - variance / signal**0.5, 0)
            total += np.fft.fft2(kept) * band.conj()
        coarse = coarse * low_y[:, None] * low_x
    total += spectrum * np.abs(coarse) ** 2
    return np.asarray(np.fft.ifft2(total).real[32:-32, 32:-32], np.float32)


def psnr(found: Stack, truth: Stack, reach: float) -> float:
    """Return the PSNR of a stack in dB."""
    return float(10 * np.log10(reach**2 / np.mean((found - truth) ** 2)))


def ssim(found: Stack, truth: Stack, reach: float) -> float:
    """Return the mean SSIM of planes."""
    pairs = zip(found, truth, strict=True)
    return float(np.mean([structural_similarity(a, b, data_range=reach) for a, b in pairs]))


def by_product(stack: Stack, steps: int) -> tuple[Stack, str, float]:
    """Train the default denoiser and apply it, through files as a user does."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "stack.ome.tif"
        write_image(file, xr.DataArray(stack, dims=("Z", "Y", "X")))
        begin = time.perf_counter()
        settings = denoising_settings(changes=[f"steps={steps}"] if steps else [])
        train_denoiser(open_stacks([file]), Path(folder) / "model", settings, quiet=True)
        denoiser = Denoiser.load(Path(folder) / "model")
        planes = denoised_planes(denoiser, read(file), sharpen=False)
        found = np.stack([planes.at(z).plane.pixels[:, :] for z in range(len(stack))])
        return found, denoiser.card.method, time.perf_counter() - begin


def measure(name: str, truth: Stack, stack: Stack, steps: int) -> str:
    """Return a row of the table."""
    reach = float(np.ptp(truth))
    chosen = slice(len(stack) // 6, None, -(-len(stack) // 3))
    # A setting is chosen for all planes that are compared; a few stand for the stack.
    true, done = truth[chosen], [list(filters(plane)) for plane in stack[chosen]]
    kinds = [kind for kind, _ in done[0]]
    settings = [np.stack([plane[i][1] for plane in done]) for i in range(len(kinds))]
    lineless = np.stack([remove_stripes(plane) for plane in stack])
    cells = [
        f"{psnr(found, truth, reach):.2f} / {ssim(found, truth, reach):.3f}"
        for found in (stack, lineless)
    ]
    for kind in dict.fromkeys(kinds):
        own = [found for found, of in zip(settings, kinds, strict=True) if of == kind]
        best = max(own, key=lambda found: psnr(found, true, reach))
        cells.append(f"{psnr(best, true, reach):.2f} / {ssim(best, true, reach):.3f}")
    found, method, seconds = by_product(stack, steps)
    cells.append(f"{psnr(found, truth, reach):.2f} / {ssim(found, truth, reach):.3f}")
    return f"| {name} | {' | '.join(cells)} | `{method}` | {seconds:.0f} s |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stacks", nargs="*", help="names to measure; all by default")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--steps", type=int, default=0, help="of training; the default's without")
    asked = parser.parse_args()
    print("| stack | noisy | no lines | gaussian | tv | nlm | wavelet | default | method | time |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, make in stacks(asked.data).items():
        if not asked.stacks or name in asked.stacks:
            print(measure(name, *make(), asked.steps), flush=True)


if __name__ == "__main__":
    main()
