"""Small images with masks on disk, and tables of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import xarray as xr

from mitolume.io.write import write_image, write_mask
from mitolume.runs.recipe import Recipe, load_recipe


def blobs(seed: int, shape: tuple[int, int] = (64, 80)) -> tuple[np.ndarray, np.ndarray]:
    """Return a noisy 8-bit image of bright discs, and their mask."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    mask = np.zeros(shape, bool)
    for _ in range(5):
        cy, cx, r = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(4, 8)
        mask |= (y - cy) ** 2 + (x - cx) ** 2 < r**2
    image = np.clip(90 + 60 * mask + rng.normal(0, 12, shape), 0, 255).astype(np.uint8)
    return image, mask.astype(np.uint8)


def write_field(
    folder: Path,
    name: str,
    seed: int,
    *,
    pixel_size: float | None = 0.1,
    labelled: bool = True,
    shape: tuple[int, int] = (64, 80),
) -> tuple[Path, Path]:
    """Write an image and its mask as OME-TIFF; return their paths."""
    image, mask = blobs(seed, shape)
    attrs = {"pixel_size_um": {"Y": pixel_size, "X": pixel_size}} if pixel_size else {}
    paths = folder / f"{name}.ome.tif", folder / f"{name}_mask.ome.tif"
    write_image(paths[0], xr.DataArray(image, dims=("Y", "X"), attrs=attrs))
    if labelled:
        write_mask(paths[1], xr.DataArray(mask, dims=("Y", "X"), attrs=attrs))
    return paths


def write_table_of_fields(folder: Path) -> Path:
    """Write 3 training, 3 validation, 2 test and 2 unlabelled fields; return their table."""
    roles = ["train"] * 3 + ["validation"] * 3 + ["test"] * 2 + ["unlabelled"] * 2
    lines = ["image,mask,role,specimen,condition"]
    for number, role in enumerate(roles):
        labelled = role != "unlabelled"
        image, mask = write_field(folder, f"f{number}", number, labelled=labelled)
        condition = "control" if labelled else "FCCP"
        lines.append(
            f"{image.name},{mask.name if labelled else ''},{role},dish {number},{condition}"
        )
    path = folder / "fields.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


TINY = [
    "training.steps=8", "training.checks=2", "training.batch=2", "training.patch=32",
    "network.width=4", "views=1", "training.precision=float32", "unlabelled.length=0.5",
]  # fmt: skip


def tiny(table: Path, *more: str) -> Recipe:
    """Return a recipe that trains for a moment; ``more`` are settings as for --set."""
    return load_recipe(fields=table, settings=[*TINY, *more])


def tiny_study(folder: Path) -> Path:
    """Write the recipe of a study of two short runs on the fields of `write_table_of_fields`."""
    arms = {"plain": {"method": "supervised"}, "wide": {"method": "supervised", "views": 4}}
    training = {"steps": 4, "batch": 2, "patch": 32, "checks": 2, "precision": "float32"}
    recipe = {"fields": "fields.csv", "preset": "quick", "arms": arms, "seeds": [0]}
    recipe |= {"training": training, "network": {"width": 2}}
    (folder / "study.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    return folder / "study.yaml"
