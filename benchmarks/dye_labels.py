"""Masks from the dye against exact ones: mitolume's, the simple rule's, Otsu's, Li's, nellie's.

Simulated fields of every condition, five planes 0.5 µm apart, each plane near focus scored; with
``--h9c2 DIR`` real ones too. Run from the project's folder:
``python benchmarks/dye_labels.py [--seeds 901 902 903 904] [--h9c2 ../shared/data/h9c2-brightfield]
[--nellie PYTHON]``. PYTHON is an interpreter that has nellie. Rows are added to
benchmarks/results/dye_labels.csv; called again, it computes what is missing and prints the table.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_li, threshold_otsu, threshold_triangle
from skimage.io import imread
from skimage.morphology import disk

from mitolume.analysis.dye_labels import label_dye
from mitolume.analysis.metrics import count, iou
from mitolume.io.masks import UNSURE, Mask
from mitolume.simulate.field import simulate_field
from mitolume.simulate.settings import (
    CONDITIONS,
    CameraSettings,
    DyeSettings,
    OpticsSettings,
    SimulationSettings,
)

Plane = NDArray[Any]
STACK: dict[str, Any] = {"planes": 5, "z_step_um": 0.5}
DIM = CameraSettings(fluorescence_photons=90)  # 15 % of the default
KINDS = {
    "256 px": SimulationSettings(shape=(256, 256), **STACK),
    "512 px": SimulationSettings(shape=(512, 512), **STACK),
    "dimmed to 15 %": SimulationSettings(shape=(256, 256), camera=DIM, **STACK),
    "haze 0.7": SimulationSettings(shape=(256, 256), optics=OpticsSettings(haze=0.7), **STACK),
    "NA 0.8": SimulationSettings(
        shape=(256, 256), optics=OpticsSettings(objective_na=0.8), **STACK
    ),
    "stain uneven by 0.6": SimulationSettings(
        shape=(256, 256), dye=DyeSettings(uneven=0.6), **STACK
    ),
    "0.065 µm pixels": SimulationSettings(shape=(384, 384), pixel_um=0.065, **STACK),
    "0.2 µm pixels": SimulationSettings(shape=(256, 256), pixel_um=0.2, **STACK),
}
H9C2_PIXEL_UM = 0.08  # not stated in the files; likely

# Run by the interpreter that has nellie: planes of a file to masks, its own defaults, 2D.
NELLIE = """
import os, sys, tempfile
import numpy as np, tifffile
from nellie.im_info.verifier import FileInfo, ImInfo
from nellie.segmentation.filtering import Filter
from nellie.segmentation.labelling import Label
given, masks = np.load(sys.argv[1]), []
for plane in given["planes"]:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "plane.tif")
        tifffile.imwrite(path, plane.astype(np.uint16), metadata={"axes": "YX"})
        info = FileInfo(path)
        info.find_metadata()
        info.load_metadata()
        info.change_axes("YX")
        for axis in "XY":
            info.change_dim_res(axis, float(given["pixel_um"]))
        image = ImInfo(info)
        Filter(image, device="cpu").run()
        Label(image, device="cpu").run()
        masks.append(np.squeeze(tifffile.imread(image.pipeline_paths["im_instance_label"])) > 0)
np.save(sys.argv[2], np.asarray(masks))
"""


def difference(plane: Plane) -> Plane:
    """Difference of Gaussians, 0.7 and 3 px."""
    plane = plane.astype(np.float32)
    fine, coarse = (ndimage.gaussian_filter(plane, sigma) for sigma in (0.7, 3))
    return np.asarray(fine - coarse)


def above_background(plane: Plane) -> Plane:
    """White top-hat of the smoothed plane, radius 10 px."""
    smooth = ndimage.gaussian_filter(plane.astype(np.float32), 0.7)
    return np.asarray(ndimage.white_tophat(smooth, footprint=disk(10)))


def thresholded(prepare: Callable[[Plane], Plane], rule: Callable[[Plane], float]) -> Any:
    """Return a method: a threshold chosen from the histogram of a plane."""

    def method(stack: Plane, pixel_um: float, z: int, z_step_um: float | None) -> Mask:
        plane = prepare(stack[z])
        return (plane > rule(plane)).astype(np.uint8)

    return method


def ours(stack: Plane, pixel_um: float, z: int, z_step_um: float | None) -> Mask:
    """`label_dye` as it is."""
    return label_dye(stack, pixel_um, z=z, z_step_um=z_step_um).mask


METHODS: dict[str, Any] = {
    "label_dye": ours,
    "difference of Gaussians, triangle": thresholded(difference, threshold_triangle),
    "top-hat, Otsu": thresholded(above_background, threshold_otsu),
    "top-hat, Li": thresholded(above_background, threshold_li),
}


def by_nellie(stack: Plane, pixel_um: float, near: Sequence[int], python: Path) -> list[Mask]:
    """Masks of planes by nellie, in its own interpreter."""
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder, "given.npz"), Path(folder, "made.npy")
        np.savez(given, planes=stack[list(near)], pixel_um=pixel_um)
        subprocess.run([python, "-c", NELLIE, given, made], check=True, capture_output=True)
        return list(np.load(made).astype(np.uint8))


def scores(found: Sequence[Mask], truths: Sequence[Mask]) -> dict[str, float]:
    """Mean IoU over planes: unsure pixels counted as background, left out; and their share."""
    every = [iou(count((f == 1).astype(np.uint8), t)) for f, t in zip(found, truths, strict=True)]
    sure = [iou(count(f, t)) for f, t in zip(found, truths, strict=True)]
    unsure = [float((f == UNSURE).mean()) for f in found]
    return {"iou": float(np.mean(every)), "iou_sure": float(np.mean(sure)),
            "unsure": float(np.mean(unsure))}  # fmt: skip


def rows_of(
    stack: Plane, truths: Plane, near: Sequence[int], px: float, step: float | None,
    missing: Sequence[str], python: Path | None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Score the missing methods on one field."""
    rows = []
    for name in missing:
        start = time.process_time()
        if name == "nellie":
            assert python is not None
            found = by_nellie(stack, px, near, python)
        else:
            found = [METHODS[name](stack, px, z, step) for z in near]
        seconds = (time.process_time() - start) / len(near)
        seconds = float("nan") if name == "nellie" else round(seconds, 3)
        values = {k: round(v, 4) for k, v in scores(found, [truths[z] for z in near]).items()}
        rows.append({"method": name, **values, "planes": len(near), "seconds": seconds})
    return rows


def main() -> None:
    """Compute what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/dye_labels.csv"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[901, 902, 903, 904])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--h9c2", type=Path)
    parser.add_argument("--nellie", type=Path, metavar="PYTHON")
    options = parser.parse_args()
    methods = [*METHODS, *(["nellie"] if options.nellie else [])]
    table = pd.read_csv(options.out) if options.out.exists() else pd.DataFrame()
    done = set() if table.empty else set(
        table[["kind", "condition", "field", "method"]].astype(str).itertuples(index=False)
    )  # fmt: skip

    def missing(*key: str) -> list[str]:
        return [name for name in methods if (*key, name) not in done]

    def add(key: Sequence[str], rows: list[dict[str, Any]]) -> None:
        named = [dict(zip(("kind", "condition", "field"), key, strict=True)) | row for row in rows]
        header = not options.out.exists()
        pd.DataFrame(named).to_csv(options.out, mode="a", header=header, index=False)

    for kind in options.kinds:
        for seed in options.seeds:
            for condition in CONDITIONS:
                key = (kind, condition, str(seed))
                if left := missing(*key):
                    field = simulate_field(KINDS[kind], condition=condition, seed=seed)
                    stack, step = field.images["Mitochondria"], field.z_step_um
                    add(key, rows_of(stack, field.masks, field.near_focus, field.pixel_um, step,
                                     left, options.nellie))  # fmt: skip
    if options.h9c2:
        for row in pd.read_csv(options.h9c2 / "fields.csv").itertuples():
            key = ("H9c2", str(row.specimen), str(row.image))
            if left := missing(*key):
                stack = imread(options.h9c2 / str(row.fluorescence))[None]
                mask = imread(options.h9c2 / str(row.mask))[None]
                add(key, rows_of(stack, mask, [0], H9C2_PIXEL_UM, None, left, options.nellie))
    table = pd.read_csv(options.out)
    means = table.groupby(["kind", "method", "condition"], sort=False)[["iou"]].mean()
    print(means["iou"].unstack().round(3).to_string())
    own = table[table["method"] == "label_dye"].groupby(["kind", "condition"], sort=False)
    print(own[["iou", "iou_sure", "unsure", "seconds"]].mean().round(3).to_string())


if __name__ == "__main__":
    main()
