"""The README's picture: the median control and the median treated test image of the demo.

``python benchmarks/demo_picture.py demo docs/demo.png``, after ``mitolume demo --out demo``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from mitolume.analysis.pictures import error_map, overlay, to_8bit
from mitolume.io.read import read, read_plane
from mitolume.runs.folder import open_run
from mitolume.runs.images import predictor_inputs


def main(demo: Path, out: Path) -> None:
    """Draw light, dye, what the model found, and its errors."""
    run = open_run(demo / "run")
    scores = run.scores[run.scores["subset"] == "test"].reset_index(drop=True)
    control = scores["condition"] == "control"
    figure = Figure(figsize=(10.6, 5.8), layout="constrained", facecolor="#fdfcf9")
    predictor = run.predictor(run.kept)
    for cells, axes in zip((scores[control], scores[~control]), figure.subplots(2, 4), strict=True):
        row = cells.sort_values("iou").iloc[(len(cells) - 1) // 2]
        (image,) = (
            one for one in run.images("test")
            if one.facts["image"] == row["image"] and one.z == row["plane"]
        )  # fmt: skip
        light, truth, _ = image.read()
        dye = read_plane(read(image.row.image, channel="Mitochondria"), z=image.z)
        ((_, prepared),) = predictor_inputs([image], predictor)
        probability = predictor.predict_boxes(prepared, light.shape)
        found = (probability >= predictor.threshold(condition=row["condition"])).astype("uint8")
        name = row["condition"].replace("_", " ")
        shown = {
            f"transmitted light, {name}": to_8bit(light),
            "dye, not shown to the model": to_8bit(dye),
            "what the model found": overlay(light, found),
            f"beside the exact mask: IoU {row['iou']:.2f}": error_map(light, truth, found),
        }
        for ax, (title, picture) in zip(axes, shown.items(), strict=True):
            ax.imshow(picture, cmap="gray", interpolation="nearest")
            ax.set_title(title, fontsize=9)
            ax.axis("off")
    figure.savefig(out, dpi=100)
    Image.open(out).convert("RGB").quantize(256).save(out, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
