"""How time and memory grow: with pixels, with the rows of a table, with objects.

``python benchmarks/growth.py [--largest 8192] [--only pixels]``: each case is a
command of its own, on one thread, whose processor time and largest memory the system reports. Rows
go to ``growth.csv``;
``docs/growth.png`` is drawn from all of them. Images are made by this file; the network is half as
wide as the default's, and untrained: time and memory do not depend on that.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
import torch
from scipy.ndimage import gaussian_filter

from mitolume.models.bundle import Card, save_bundle
from mitolume.models.networks import SegmentationNetwork
from mitolume.models.settings import NetworkSettings

RESULTS = Path(__file__).with_name("growth.csv")
Case = tuple[float, list[object]]  # the size, and the command's arguments


def noise(side: int) -> np.ndarray:
    """Return smooth noise, made of squares that repeat."""
    square = gaussian_filter(np.random.default_rng(0).normal(size=(1024, 1024)), 4, mode="wrap")
    return np.tile(square, (-(-side // 1024),) * 2)[:side, :side]


def write(path: Path, side: int, mask: bool) -> Path:
    """Write an image, or a mask of about 990 objects per megapixel, in tiles."""
    pixels = noise(side)
    pixels = pixels > 0.11 if mask else 2000 + 3000 * pixels
    kind = np.uint8 if mask else np.uint16
    tifffile.imwrite(
        path, pixels.astype(kind), tile=(512, 512), compression="zlib" if mask else None
    )
    return path


def sides(largest: int) -> list[int]:
    """Return sides of images whose pixels grow fourfold."""
    return [side for side in (1024, 2048, 4096, 8192, 16384, 20000) if side <= largest]


def model(folder: Path) -> Path:
    """Save an untrained network."""
    settings = NetworkSettings(width=8)
    save_bundle(
        folder / "model", SegmentationNetwork(settings).state_dict(), Card(network=settings)
    )
    return folder / "model"


def pixels(folder: Path, largest: int) -> Iterator[Case]:
    """Predict one image: megapixels."""
    made = model(folder)
    for side in sides(largest):
        image = write(folder / f"{side}.tif", side, mask=False)
        yield side**2 / 1e6, ["predict", made, image, "--out", folder / f"{side}"]


def objects(folder: Path, largest: int, *more: str) -> Iterator[Case]:
    """Measure one mask: thousands of objects."""
    for side in sides(largest):
        mask = write(folder / f"{side}.tif", side, mask=True)
        found = side**2 / 1e6 * 0.99
        yield (
            found,
            ["measure", mask, "--pixel-size", "0.1", "--out", folder / f"{side}.csv", *more],
        )


def rows(folder: Path, largest: int) -> Iterator[Case]:
    """Begin a run on a table whose one fault is its last row: thousands of rows."""
    image = write(folder / "a.tif", 64, mask=False)
    mask = write(folder / "m.tif", 64, mask=True)
    for count in (10, 100, 1000, 10_000):
        place = folder / str(count)
        place.mkdir()
        lines = ["image,mask,specimen"]
        for number in range(count):
            os.link(image, place / f"f{number}.tif")
            os.link(mask, place / f"f{number}_m.tif")
            lines.append(f"f{number}.tif,f{number}_m.tif,dish {number % 9}")
        (place / "fields.csv").write_text("\n".join([*lines, "missing.tif,,dish 1\n"]))
        yield count / 1000, ["run", "--fields", place / "fields.csv", "--out", place / "run"]


PARTS = {
    "pixels": pixels,
    "objects": objects,
    "objects split": lambda folder, largest: objects(folder, largest, "--split", "distance"),
    "rows": rows,
}


def cost(arguments: list[object]) -> tuple[float, float, float]:
    """Run a command; return its seconds of processor time and on the clock, and its MB."""
    began = time.perf_counter()
    # A small process between: a child's largest memory includes that of the one it was forked from.
    code = (
        "import resource, subprocess as s, sys; "
        "s.run(sys.argv[1:], stdout=s.DEVNULL, stderr=s.DEVNULL); "
        "used = resource.getrusage(resource.RUSAGE_CHILDREN); "
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)"
    )
    command = [sys.executable, "-m", "mitolume.cli", *map(str, arguments), "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    cpu, mb = map(float, done.stdout.split())
    return cpu, time.perf_counter() - began, mb


def draw(table: pd.DataFrame, path: Path) -> None:
    """Draw processor time against size, one line for each part."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for part, own in table.sort_values("size").groupby("part", sort=False):
        axes.loglog(own["size"], own["cpu_seconds"], "o-", label=part)
    axes.set(xlabel="megapixels, or thousands of objects or rows", ylabel="processor time (s)")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, and add the rows to the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--largest", type=int, default=8192, help="side in pixels")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = pd.read_csv(RESULTS) if RESULTS.exists() else pd.DataFrame()
    for part in options.only:
        with tempfile.TemporaryDirectory() as folder:
            for size, arguments in PARTS[part](Path(folder), options.largest):
                cpu, wall, mb = cost(arguments)
                print(f"{part:14} {size:9.2f}  {cpu:8.1f} s  {mb:6.0f} MB", flush=True)
                row = {"part": part, "size": size, "cpu_seconds": cpu, "seconds": wall, "mb": mb}
                row["date"] = datetime.now(UTC).date().isoformat()
                known = pd.concat([known, pd.DataFrame([row])], ignore_index=True)
                known.to_csv(RESULTS, index=False, float_format="%.5g")
    draw(known, Path(__file__).parents[1] / "docs" / "growth.png")


if __name__ == "__main__":
    main()
