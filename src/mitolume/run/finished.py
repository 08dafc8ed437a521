"""A finished run, opened to look at its images again. Trains, scores and writes nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mitolume.errors import MitolumeError, shorten
from mitolume.inference.features import features
from mitolume.inference.predictor import Predictor, load
from mitolume.io.fields import Field, read_table, row_names
from mitolume.io.masks import Mask
from mitolume.progress import Advance
from mitolume.report.run_content import saved_mask
from mitolume.run.images import RowImage
from mitolume.run.results import read_csv

MODELS = ("model_1", "model_2")


@dataclass(frozen=True, eq=False)
class RunImage:
    """An image of a run; ``line`` is its row in fields.csv, below a header."""

    line: int
    image: RowImage
    mask_name: str

    @property
    def facts(self) -> dict[str, Any]:
        """What tables say of it."""
        row = self.image.row
        return {
            "line": self.line, "image": row.image.name, "plane": self.image.z,
            "specimen": row.specimen, "condition": row.condition, "batch": row.batch,
        }  # fmt: skip

    @property
    def name(self) -> str:
        """How people read it."""
        several = len(self.image.row.planes or ()) > 1 or self.image.z > 0
        return f"{self.image.name}, plane {self.image.z}" if several else self.image.name


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """What is known of a finished run.

    Attributes
    ----------
    record
        Of run.json.
    rows
        Of fields.csv.
    images
        Of images.csv.
    kept
        The model that was kept.
    """

    path: Path
    record: dict[str, Any]
    rows: list[Field]
    images: pd.DataFrame
    kept: str

    @property
    def models(self) -> list[str]:
        """The models that left masks."""
        return [name for name in MODELS if (self.images["model"] == name).any()]

    def of_role(self, role: str) -> list[RunImage]:
        """Return the images of a role, in the order of the table."""
        kind = self.record["mask_kind"]
        return [
            RunImage(line, RowImage(row, z, kind), name)
            for line, (row, name) in enumerate(
                zip(self.rows, row_names(self.rows), strict=True), start=2
            )
            if row.role == role
            for z in row.planes or ()
        ]

    def mask(self, model: str, image: RunImage) -> Mask:
        """Read the mask that a model left of an image, (Y, X) uint8."""
        folder = self.path / "masks" / model
        mask: Mask = saved_mask(folder, image.image.row, image.mask_name, image.image.z)
        return mask

    def predictor(self, model: str) -> Predictor:
        """Load a model."""
        return load(self.path / model)

    def observer(self) -> Predictor:
        """Load the model that tells images apart: model 1, which learnt from labels alone."""
        return self.predictor("model_1" if "model_1" in self.models else self.kept)


def open_run(path: str | Path) -> FinishedRun:
    """Open a finished run.

    Parameters
    ----------
    path
        Its folder.

    Raises
    ------
    MitolumeError
        It is no run, a study, unfinished or damaged.
    """
    run = read_run(Path(path))
    if run.record["status"] != "finished":
        raise _unfinished(run.path)
    return run


def read_run(path: Path) -> FinishedRun:
    """Read a run whose scores are there, whether or not its report is; see `open_run`."""
    if not (path / "run.json").exists():
        runs = path / "runs"
        hint = f"; it is a study: name one of the runs in {runs}" if runs.is_dir() else ""
        raise MitolumeError(f"{path} holds no run (run.json is missing){hint}")
    try:
        record = json.loads((path / "run.json").read_text(encoding="utf-8"))
        _ = record["status"], record["mask_kind"]
        if not (path / "kept.json").exists():
            raise _unfinished(path)
        kept = str(json.loads((path / "kept.json").read_text(encoding="utf-8"))["kept"])
        images = read_csv(path / "images.csv")
        _ = images[["line", "plane", "model", "subset", "tp"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MitolumeError(f"{path} holds a damaged run ({shorten(error)})") from None
    return FinishedRun(path, record, read_table(path / "fields.csv"), images, kept)


def _unfinished(path: Path) -> MitolumeError:
    return MitolumeError(
        f"{path} has not finished; `mitolume run --out {path} --resume` goes on with it"
    )


def prepared(predictor: Predictor, image: RunImage) -> tuple[Any, Any]:
    """Read an image; return it as its file holds it and as the network reads it, both (Y, X)."""
    plane, _, size = image.image.read()
    ready = predictor.prepare(
        plane,
        size,
        neighbours=image.image.neighbours,
        unlabelled=image.image.row.role == "unlabelled",
        source=str(image.image.row.image),
    )
    return plane, ready


def feature_table(
    predictor: Predictor, images: list[RunImage], advance: Advance
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Compute the vector of each image.

    Parameters
    ----------
    predictor
        The model whose lowest level is looked at.
    images
        At least one.
    advance
        Called with the images done and the images there are.

    Returns
    -------
    numpy.ndarray
        (N, C) float32, see `mitolume.inference.features.features`.
    """
    found = []
    for done, image in enumerate(images):
        advance(done, len(images))
        _, ready = prepared(predictor, image)
        found.append(features(predictor.network, ready, core=predictor.core))
    advance(len(images), len(images))
    return np.stack(found)
