"""Make a study, its runs and bundles with today's program, for later versions to read.

``python tests/kept/make.py`` writes ``tests/kept/VERSION``. What an earlier version wrote is never
made anew: that it can still be read is the point.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from helpers.fields import TINY, write_field  # noqa: E402

import mitolume  # noqa: E402
from mitolume import workflow  # noqa: E402
from mitolume.study.arms import load_study  # noqa: E402

ROLES = ("train", "train", "validation", "test", "unlabelled")


def make(out: Path) -> None:
    """Write the images, a table of them, and a study of two arms and one seed."""
    lines = ["image,mask,role,specimen"]
    for number, role in enumerate(ROLES):
        labelled = role != "unlabelled"
        image, mask = write_field(out, f"f{number}", number, labelled=labelled, shape=(48, 48))
        lines.append(f"{image.name},{mask.name if labelled else ''},{role},dish {number}")
    (out / "fields.csv").write_text("\n".join(lines) + "\n")
    (out / "arms.yaml").write_text(
        "{fields: fields.csv, preset: quick, method: supervised, seeds: 0, network: {width: 2},\n"
        " arms: {plain: {}, denoised: {chain: {denoise: wiener}}}}\n"
    )
    settings = [one for one in TINY if "network" not in one]
    study = load_study(out / "arms.yaml", settings=[*settings, "denoising.network.width=4"])
    workflow.study(study, out / "study", quiet=True)
    for page in out.rglob("report.html"):  # large, and made anew by `mitolume report`
        page.unlink()
    for record in out.rglob("*.json"):  # no path of this machine
        record.write_text(record.read_text().replace(str(out.parent.absolute()), "/data"))


if __name__ == "__main__":
    place = HERE / mitolume.__version__
    place.mkdir()  # fails where it is there already
    make(place)
