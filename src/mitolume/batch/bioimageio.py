"""Packages for bioimage.io (model description 0.5): a model with all that its page shows."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mitolume.analysis.pictures import overlay, png_bytes
from mitolume.batch.export import NORMALISATION, checked_graph, facts, probability, steps_before
from mitolume.batch.runner import require_free
from mitolume.errors import MitolumeError, extra, shorten
from mitolume.inference.inputs import InputReader
from mitolume.inference.onnx_graph import INPUT, OUTPUT
from mitolume.inference.predictor import Predictor
from mitolume.inference.tiles import Box
from mitolume.io.read import read_channels
from mitolume.io.write import atomic, making_results
from mitolume.models.bundle import CARD, WEIGHTS
from mitolume.models.onnx_layers import OPSET
from mitolume.preprocess.settings import ChainSettings

_FORMAT = "0.5.4"
_SIDE = 512  # pixels of the test image and of the cover, at most
_LEFT_OUT = "chain.stripes"  # does nothing to most images, and so may be left out


@dataclass(frozen=True)
class Publication:
    """What a package says beside the model; what is asked of a person, not of the model.

    ``authors`` are names; ``cite`` are texts that end in a DOI or an address; ``license`` is an
    SPDX identifier, such as CC-BY-4.0; ``example`` is an image that may be published, of which the
    middle becomes the test image and the cover.
    """

    name: str = ""
    authors: Sequence[str] = ()
    license: str = ""
    cite: Sequence[str] = ()
    example: Path | None = None

    @property
    def missing(self) -> list[str]:
        """The options of the command line that were not given."""
        asked = {
            "--name": self.name, "--author": self.authors, "--license": self.license,
            "--cite": self.cite, "--example": self.example,
        }  # fmt: skip
        return [option for option, given in asked.items() if not given]


def export_bioimageio(
    predictor: Predictor,
    out: Path,
    said: Publication,
    *,
    leave_out: Sequence[str] = (),
    overwrite: bool = False,
) -> Path:
    """Write a package that passes ``bioimageio test``; its test output is computed by mitolume.

    Parameters
    ----------
    predictor
        The model, loaded from its folder.
    out
        The package; ends in ``.zip``.
    said
        What the package says.
    leave_out
        Steps of the chain that images of the package's users don't need: ``chain.stripes``.
    overwrite
        Replace an existing result.

    Raises
    ------
    MitolumeError
        Something is not said, the chain has a step that a package can't express, the place is
        taken, or the package doesn't pass the test.
    """
    if out.suffix != ".zip":
        raise MitolumeError(f"--out {out} must end in .zip")
    if said.missing or said.example is None:
        raise MitolumeError(f"a package for bioimage.io also needs {', '.join(said.missing)}")
    _refuse_steps(predictor, leave_out)
    require_free([out], replace=overwrite)
    core = extra("exporting", "bioimageio.core", "export")
    planes = _example(predictor, said.example)
    answer = probability(predictor, planes)
    mask = (answer >= predictor.card.threshold).astype(np.uint8)
    assert predictor.bundle is not None, "a model to be exported was loaded from a folder"
    files = {
        "model.onnx": checked_graph(predictor),
        "test_image.npy": _npy(planes[None]),
        "test_probability.npy": _npy(answer[None, None]),
        "cover.png": png_bytes(overlay(planes[0], mask)),
        "README.md": _readme(predictor, said, leave_out).encode(),
        **{name: (predictor.bundle / name).read_bytes() for name in (CARD, WEIGHTS)},
    }
    described = _description(predictor, said, files, float(answer.max()))
    files["rdf.yaml"] = yaml.safe_dump(described, sort_keys=False, allow_unicode=True).encode()
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        _require_passing(core, Path(folder) / "rdf.yaml")
    with making_results(), atomic(out) as file, zipfile.ZipFile(file, "w") as package:
        for name, content in files.items():
            # No time in it, so that the same package is the same file.
            package.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return out


def _refuse_steps(predictor: Predictor, leave_out: Sequence[str]) -> None:
    """Refuse a chain with steps that a package can't express."""
    if wrong := [name for name in leave_out if name != _LEFT_OUT]:
        raise MitolumeError(f"--leave-out {wrong[0]}: only {_LEFT_OUT} can be left out")
    _ = predictor.card.own_network
    steps = steps_before(predictor)
    for name in ("pixel_size_um", *leave_out):  # the pixel size is that of the package's axes
        steps.pop(name, None)
    for name, step in steps.items():
        raise MitolumeError(
            f"the model's step {name} can't be expressed in a package for bioimage.io ({step}); "
            + (
                f"where images have no scan lines, add --leave-out {_LEFT_OUT}"
                if name == _LEFT_OUT
                else "train a model without it, or export with --to onnx, which states the step"
            )
        )


def _example(predictor: Predictor, path: Path) -> Any:
    """Return the grey values (C, Y, X) of the middle of an image, on the model's pixel size."""
    card = predictor.card
    image = read_channels(path, predictor.channels())
    seen = InputReader(image, card.inputs, ChainSettings(), model_um=card.pixel_size_um).at(
        image.sizes["Z"] // 2
    )
    side = min(*seen.shape, _SIDE)
    starts = [(size - side) // 2 for size in seen.shape]
    box: Box = (slice(starts[0], starts[0] + side), slice(starts[1], starts[1] + side))
    return seen.grey_values(box).astype(np.float32)


def _npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _description(
    predictor: Predictor, said: Publication, files: dict[str, bytes], most: float
) -> dict[str, Any]:
    """Return the description of a package, as ``rdf.yaml`` holds it."""
    card = predictor.card
    # In float32, any number of pixels times the scale, over the scale, is that number again: others
    # compute an output's size so, and in float64 they find 192 px of 0.1 µm to be no whole number.
    scale = float(np.float32(card.pixel_size_um or 1))
    grid = {} if card.pixel_size_um is None else {"scale": scale, "unit": "micrometer"}

    def file(name: str) -> dict[str, str]:
        return {"source": name, "sha256": hashlib.sha256(files[name]).hexdigest()}

    def axes(channels: list[str], size: Any) -> list[dict[str, Any]]:
        sides = [{"type": "space", "id": axis, "size": size(axis)} | grid for axis in "yx"]
        return [{"type": "batch"}, {"type": "channel", "channel_names": channels}, *sides]

    planes = [
        f"{channel or 'image'}" + (f" z{offset:+d}" if offset else "")
        for channel in card.inputs.channels or ("",)
        for offset in card.inputs.offsets(None)
    ]
    tolerance = {"relative_tolerance": 1e-3, "absolute_tolerance": min(1e-4, most / 100)}
    return {
        "format_version": _FORMAT,
        "type": "model",
        "name": said.name,
        "description": "Mitochondria in label-free microscopy: the probability of each pixel.",
        "authors": [{"name": name} for name in said.authors],
        "license": said.license,
        "cite": [_cited(text) for text in said.cite],
        "documentation": "README.md",
        "covers": ["cover.png"],
        "tags": ["mitochondria", "label-free", "segmentation", "unet", "2d"],
        "inputs": [
            {
                "id": INPUT,
                "description": "grey values of whole planes, as the image file holds them",
                "axes": axes(planes, lambda axis: {"min": 16, "step": 1}),
                "test_tensor": file("test_image.npy"),
                "data": {"type": "float32"},
                "preprocessing": [{"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}],
            }
        ],
        "outputs": [
            {
                "id": OUTPUT,
                "description": f"of mitochondria; a mask is from {card.threshold:g} on",
                "axes": axes(["mitochondria"], lambda axis: {"tensor_id": INPUT, "axis_id": axis}),
                "test_tensor": file("test_probability.npy"),
                "data": {"type": "float32", "range": [0, 1]},
            }
        ],
        "weights": {"onnx": file("model.onnx") | {"opset_version": OPSET}},
        "attachments": [file(name) for name in (CARD, WEIGHTS)],
        "config": {
            "bioimageio": {"reproducibility_tolerance": [tolerance]},
            "mitolume": json.loads(json.dumps(facts(predictor))),
        },
    }


def _cited(text: str) -> dict[str, str]:
    """Cut a citation into its text and the DOI or address at its end."""
    words, _, place = text.strip().rpartition(" ")
    doi = place.removeprefix("https://doi.org/").removeprefix("doi:")
    if words and doi.startswith("10."):
        return {"text": words, "doi": doi}
    if words and place.startswith(("https://", "http://")):
        return {"text": words, "url": place}
    raise MitolumeError(
        f"--cite {text!r} must be a text that ends in a DOI or an address, such as "
        '"Ronneberger et al. 2015 https://doi.org/10.1007/978-3-319-24574-4_28"'
    )


def _readme(predictor: Predictor, said: Publication, left_out: Sequence[str]) -> str:
    """Return the documentation of a package."""
    card = predictor.card
    grid = "" if card.pixel_size_um is None else f" with {card.pixel_size_um:g} µm per pixel"
    scores = "".join(
        f"\n- {subset}: " + ", ".join(f"{name} {value}" for name, value in found.items())
        for subset, found in card.scores.items()
    )
    without = "".join(
        f" Without the step {name} of the model it was made from." for name in left_out
    )
    return f"""# {said.name}

Segments mitochondria in label-free microscopy. Made with mitolume {card.versions["mitolume"]}
({card.method}, {card.own_network.name} of width {card.own_network.width}).{without}

- Input: grey values of whole planes{grid}, as the image file holds them.
- Normalisation: {NORMALISATION}. The specification's own steps can't express it, so the weights
  contain it. A tile is normalised by its own grey values: give whole planes.
- Output: the probability of mitochondria, the mean over {predictor.views} views of the image. A
  mask is from {card.threshold:g} on.

## Validation

Trained on {len(card.fields)} images, which `{CARD}` lists. Scores of the model, as recorded when
it was trained:{scores or " none were recorded."}

Before use on other cells or another microscope, outline a few images and compare them with the
masks of this model.
"""


def _require_passing(core: Any, description: Path) -> None:
    """Raise what ``bioimageio test`` finds wrong with a package."""
    summary = core.test_model(description)
    if summary.status != "passed":
        faults = [
            f"{'.'.join(map(str, error.loc))}: {error.msg}"
            for detail in summary.details
            for error in detail.errors
        ]
        first = shorten(ValueError(faults[0] if faults else summary.status))
        raise MitolumeError(
            f"the package doesn't pass `bioimageio test` ({first}); nothing is kept"
        )
