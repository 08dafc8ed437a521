"""How time and memory grow: with pixels, with the rows of a table, with objects.

``python benchmarks/growth.py [--largest 20000] [--smallest 1024] [--only pixels]``: each case is a
command of its own, on one thread, whose processor time and largest memory the system reports (with
workers, the sum of all processes' time, and the memory of the largest). Rows go to
``results/growth.csv``; called again, it measures what is missing there. ``docs/growth.png`` is
drawn from all of them. Images are made by this file; the network is half as wide as the default's,
and untrained: time and memory do not depend on that.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile
import torch
from scipy.ndimage import gaussian_filter

from mitolume.models.bundle import Card, save_bundle
from mitolume.models.networks import SegmentationNetwork
from mitolume.models.settings import NetworkSettings

RESULTS = Path(__file__).parent / "results/growth.csv"
Case = tuple[float, list[object]]  # the size, and what Python is called with


def mitolume(*arguments: object) -> list[object]:
    """Return what Python is called with for a command."""
    return ["-m", "mitolume", *arguments, "--quiet"]


def noise(side: int) -> np.ndarray:
    """Return smooth noise, made of squares that repeat."""
    square = gaussian_filter(np.random.default_rng(0).normal(size=(1024, 1024)), 4, mode="wrap")
    return np.tile(square, (-(-side // 1024),) * 2)[:side, :side]


def write(path: Path, side: int, mask: bool) -> Path:
    """Write an image, or a mask of about 990 objects per megapixel, in tiles."""
    pixels = noise(side)
    pixels = (pixels > 0.11).astype(np.uint8) if mask else (2000 + 3000 * pixels).astype(np.uint16)
    tifffile.imwrite(path, pixels, tile=(512, 512), compression="zlib" if mask else None)
    return path


SIDES = (1024, 2048, 4096, 8192, 16384, 20000)  # of images


def model(folder: Path) -> Path:
    """Save an untrained network."""
    settings = NetworkSettings(width=8)
    save_bundle(
        folder / "model", SegmentationNetwork(settings).state_dict(), Card(network=settings)
    )
    return folder / "model"


def pixels(folder: Path, wanted: Callable[[float], bool]) -> Iterator[Case]:
    """Predict one image: megapixels."""
    made = model(folder)
    for side in SIDES:
        if wanted(side**2 / 1e6):
            image = write(folder / f"{side}.tif", side, mask=False)
            yield side**2 / 1e6, mitolume("predict", made, image, "--out", folder / f"{side}")


def objects(folder: Path, wanted: Callable[[float], bool], *more: str) -> Iterator[Case]:
    """Measure one mask: thousands of objects."""
    for side in SIDES:
        found = side**2 / 1e6 * 0.99
        if wanted(found):
            mask = write(folder / f"{side}.tif", side, mask=True)
            out = folder / f"{side}.csv"
            yield found, mitolume("measure", mask, "--pixel-size", "0.1", "--out", out, *more)


def rows(folder: Path, wanted: Callable[[float], bool]) -> Iterator[Case]:
    """Begin a run on a table whose one fault is its last row: thousands of rows."""
    image = write(folder / "a.tif", 64, mask=False)
    mask = write(folder / "m.tif", 64, mask=True)
    for count in filter(lambda count: wanted(count / 1000), (10, 100, 1000, 10_000)):
        place = folder / str(count)
        place.mkdir()
        lines = ["image,mask,specimen"]
        for number in range(count):
            os.link(image, place / f"f{number}.tif")
            os.link(mask, place / f"f{number}_m.tif")
            lines.append(f"f{number}.tif,f{number}_m.tif,dish {number % 9}")
        (place / "fields.csv").write_text("\n".join([*lines, "missing.tif,,dish 1\n"]))
        out = ["--out", place / "run"]
        yield count / 1000, mitolume("run", "--fields", place / "fields.csv", *out)


WORKERS = """
import sys, mitolume
from pathlib import Path
from distributed import LocalCluster
from mitolume.batch.predict import predict_files
model, image, out, count = sys.argv[1:]
if __name__ == "__main__":
    with LocalCluster(n_workers=int(count), threads_per_worker=1, dashboard_address=None) as c:
        ready = mitolume.load(model)
        predict_files(ready, [Path(image)], Path(out), scheduler=c.scheduler_address)
"""


def workers(folder: Path, wanted: Callable[[float], bool]) -> Iterator[Case]:
    """Predict 32 images of 1 Mpx on workers of dask, of this machine: their number."""
    made = model(folder)
    (folder / "images").mkdir()
    write(folder / "images" / "0.tif", 1024, mask=False)
    for number in range(1, 32):
        shutil.copy(folder / "images" / "0.tif", folder / "images" / f"{number}.tif")
    (folder / "there.py").write_text(WORKERS)
    for count in filter(wanted, (1, 2, 4)):
        yield count, [folder / "there.py", made, folder / "images", folder / str(count), count]


PARTS = {
    "pixels": pixels,
    "objects": objects,
    "objects split": lambda folder, wanted: objects(folder, wanted, "--split", "distance"),
    "rows": rows,
    "workers": workers,
}

LINES = {  # drawn, with what is counted
    "pixels": "predict (megapixels)",
    "objects": "measure (thousand objects)",
    "objects split": "measure --split (thousand objects)",
    "rows": "begin a run (thousand rows)",
}


def cost(arguments: list[object]) -> tuple[float, float, float]:
    """Run a command; return its seconds of processor time and on the clock, and its MB."""
    began = time.perf_counter()
    # A small process between: a child's largest memory includes that of the one it was forked from.
    code = (
        "import resource, subprocess as s, sys; "
        "end = s.run(sys.argv[1:], stdout=s.DEVNULL, stderr=s.DEVNULL).returncode; "
        "used = resource.getrusage(resource.RUSAGE_CHILDREN); "
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, end)"
    )
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    cpu, mb, end = map(float, done.stdout.split())
    assert end == ("run" in arguments), "only the run is to fail, at the faulty row of its table"
    return cpu, time.perf_counter() - began, mb


def draw(table: pd.DataFrame, path: Path) -> None:
    """Draw processor time and memory against size, one line for each part."""
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
    for part, label in LINES.items():
        own = table[table["part"] == part].sort_values("size")
        left.loglog(own["size"], own["cpu_seconds"], "o-", label=label)
        right.semilogx(own["size"], own["mb"] / 1000, "o-")
    left.set(xlabel="megapixels, or thousands", ylabel="processor time (s)")
    right.set(xlabel="megapixels, or thousands", ylabel="most memory (GB)", ylim=(0, None))
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize="small")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure what is missing, and add the rows to the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--largest", type=int, default=8192, help="side in pixels")
    parser.add_argument("--smallest", type=int, default=1024, help="side in pixels")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = pd.read_csv(RESULTS) if RESULTS.exists() else pd.DataFrame({"part": [], "size": []})
    for part in options.only:
        there = known.loc[known["part"] == part, "size"].to_numpy()

        def wanted(size: float, part: str = part, there: Any = there) -> bool:
            if np.isclose(there, size, rtol=1e-3).any():
                return False
            in_mpx = part not in ("rows", "workers")
            return not in_mpx or options.smallest**2 <= size * 1.02e6 <= 1.03 * options.largest**2

        with tempfile.TemporaryDirectory() as folder:
            for size, arguments in PARTS[part](Path(folder), wanted):
                cpu, wall, mb = cost(arguments)
                print(f"{part:14} {size:9.2f}  {cpu:8.1f} s  {mb:6.0f} MB", flush=True)
                row = {"part": part, "size": size, "cpu_seconds": cpu, "seconds": wall, "mb": mb}
                row["date"] = datetime.now(UTC).date().isoformat()
                known = pd.concat([known, pd.DataFrame([row])], ignore_index=True)
                known.to_csv(RESULTS, index=False, float_format="%.5g")
    draw(known, Path(__file__).parents[1] / "docs" / "growth.png")


if __name__ == "__main__":
    main()
