"""Packages for bioimage.io taken in: those of this program, and 2D networks of others, as ONNX."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import yaml

from mitolume.batch.runner import require_free
from mitolume.errors import DAMAGED_ZIP, MitolumeError, some_names
from mitolume.inference.predictor import Predictor
from mitolume.io.formats import require_file, sha256
from mitolume.io.pixel_size import believed_pixel_size
from mitolume.io.readers import Stated, lengths
from mitolume.io.write import atomic
from mitolume.models.bundle import CARD, WEIGHTS, Card, load_bundle, save_bundle
from mitolume.models.foreign import ForeignNetwork, ForeignSettings, upright
from mitolume.models.networks import HALO, MULTIPLE
from mitolume.models.settings import InputSettings
from mitolume.preprocess.stated import StatedChain, Step
from mitolume.runs.recipe import load_yaml

_AGREE = 1e-3  # of a probability, between a package's own answer and this program's
_MOST = 2**31  # bytes of a file in a package
_MOST_TEXT = 2**20  # bytes of a description
_STEPS = get_args(Step.model_fields["id"].annotation)


def import_package(
    package: Path, out: Path, *, output: str | None = None, overwrite: bool = False
) -> list[str]:
    """Make a model folder of a package of bioimage.io (``.zip``), running nothing in it as code.

    One that `mitolume.batch.bioimageio` wrote gives the model that it was made from; of others, the
    weights in ONNX are taken, if the package's own test image has the same probabilities here.
    ``output`` is the name or number (from 0) of the channel of mitochondria, where the network
    gives several. Returned is what the user should know.

    Raises
    ------
    MitolumeError
        The package is damaged, or something of it doesn't fit.
    """
    require_file(package, "package")
    require_free([out], replace=overwrite)
    try:
        with zipfile.ZipFile(package) as files, atomic(out) as folder:
            folder.mkdir()
            if not {CARD, WEIGHTS} <= set(files.namelist()):
                return _import_foreign(package, files, folder, output)
            for name in (CARD, WEIGHTS):
                (folder / name).write_bytes(_content(files, {"source": name}))
            load_bundle(folder)
            return []
    except _UnfitError as error:
        raise MitolumeError(f"{package} is not taken: {error}") from error
    except DAMAGED_ZIP as error:
        raise MitolumeError(
            f"{package} is no whole zip file, as packages are; download it again"
        ) from error
    except (LookupError, TypeError, ValueError, AttributeError, yaml.YAMLError) as error:
        raise MitolumeError(
            f"{package} is not taken: its rdf.yaml lacks what the model description 0.5 asks for, "
            "or has it in another form; `bioimageio test` says more"
        ) from error


class _UnfitError(Exception):
    """Why a package is not taken."""


def _require(fits: object, why: str) -> None:
    if not fits:
        raise _UnfitError(why)


def _import_foreign(
    package: Path, files: zipfile.ZipFile, folder: Path, output: str | None
) -> list[str]:
    """Write the bundle of a model of another program; see `import_package`."""
    named = {"rdf.yaml", "bioimageio.yaml"} & set(files.namelist())
    _require(named, "it holds no rdf.yaml, as packages for bioimage.io do")
    text = _content(files, {"source": min(named, key=len)})
    _require(len(text) < _MOST_TEXT, "its rdf.yaml is too large")
    said = load_yaml(text.decode())
    _require(
        str(said["format_version"]).startswith("0.5"),
        f"its model description is of version {said['format_version']}, and 0.5 is read; "
        "`bioimageio update-format` brings it up to date",
    )
    _require(
        "onnx" in said["weights"],
        f"it holds weights as {some_names(said['weights'])} only, and ONNX is taken, as reading "
        "the others may run code; where you trust its authors, `bioimageio add-weights` adds ONNX",
    )
    (given,), (answer,) = said["inputs"], said["outputs"]
    sides = {axis["id"].upper(): (axis.get("scale"), axis.get("unit")) for axis in _sides(given)}
    size, _ = believed_pixel_size(Stated(lengths(sides)[0]))
    told = ("name", "authors", "license", "cite")
    after = [one["id"] for one in answer.get("postprocessing") or ()]
    after = [one for one in after if one != "ensure_dtype"] or ["none"]
    known = get_args(ForeignSettings.model_fields["activation"].annotation)
    fits = after[1:] == [] and after[0] in known
    _require(fits, f"its answer goes through {some_names(after)}; sigmoid or softmax is taken")
    card = Card(
        name=str(said["name"]),
        method="imported",
        network=ForeignSettings(
            axes_in=_axes(given),
            axes_out=_axes(answer),
            sides=_fitting(given),
            channel=_channel(answer, output),
            activation=after[0],
            source={n: said[n] for n in told if n in said} | {"sha256": sha256(package)},
        ),
        inputs=InputSettings(planes=1),
        chain=StatedChain(normalise=_steps(given.get("preprocessing") or ())),
        pixel_size_um=size.get("Y") if size.get("Y") == size.get("X") else None,
    )
    save_bundle(folder, _content(files, said["weights"]["onnx"]), card)
    tests = [np.load(io.BytesIO(_content(files, one["test_tensor"]))) for one in (given, answer)]
    return _compared(folder, *tests)


def _content(files: zipfile.ZipFile, said: dict[str, Any]) -> bytes:
    """Read a file of a package, and compare it with its hash."""
    name = str(said["source"]).removeprefix("./")
    _require(name in files.namelist(), f"it lacks {name[:80]}; download the whole package")
    _require(files.getinfo(name).file_size <= _MOST, f"{name[:80]} is too large for a model")
    content = files.read(name)
    digest = hashlib.sha256(content).hexdigest()
    same = said.get("sha256") in (None, digest)
    _require(same, f"it holds another {name[:80]} than it says; download it again")
    return content


def _axes(tensor: dict[str, Any]) -> str:
    """Return the letters of the axes of a tensor: a 2D network has no others than these."""
    names = [str(axis.get("id", axis["type"])) for axis in tensor["axes"]]
    letters = "".join({"batch": "b", "channel": "c"}.get(name, name) for name in names)
    fits = set("yx") <= set(letters) <= set("bcyx") and len(letters) == len(names)
    _require(fits, f"a tensor has the axes {some_names(names, 5)}, not those of a plane")
    return letters


def _sides(tensor: dict[str, Any]) -> list[dict[str, Any]]:
    return [axis for axis in tensor["axes"] if axis.get("id") in ("y", "x")]


def _channels(tensor: dict[str, Any]) -> list[str]:
    named = [axis["channel_names"] for axis in tensor["axes"] if axis["type"] == "channel"]
    return [str(name)[:40] for name in named[0]] if named else ["0"]


def _fitting(tensor: dict[str, Any]) -> tuple[int, int]:
    """Return which sides an image may have, see `ForeignSettings`."""
    _require(len(_channels(tensor)) == 1, "its network sees several channels, and one is given")
    sizes = [side["size"] for side in _sides(tensor)]
    found = {(s["min"], s["step"]) if isinstance(s, dict) else (s, 0) for s in sizes}
    _require(len(found) == 1, "its network sees images that are no squares")
    ((least, step),) = found
    smallest = 2 * HALO + MULTIPLE
    _require(
        step or least >= smallest,
        f"its network sees {least} px only, and tiles with their margins take {smallest} at least",
    )
    return least, step


def _channel(tensor: dict[str, Any], asked: str | None) -> int:
    """Return which channel of the answer is that of mitochondria."""
    names = _channels(tensor)
    asked = "0" if asked is None and len(names) == 1 else asked or ""
    number = asked if asked.isdecimal() and asked not in names else None
    _require(
        asked in names or (number is not None and int(number) < len(names)),
        f"its network gives {some_names(names, 8)}: say which is that of mitochondria, by "
        "--output with its name or its number from 0",
    )
    return names.index(asked) if number is None else int(number)


def _steps(stated: Sequence[dict[str, Any]]) -> tuple[Step, ...]:
    """Translate steps that are lines and cuts, measured on a whole plane."""
    steps = []
    for one in stated:
        name, numbers = str(one["id"]), dict(one.get("kwargs") or {})
        if name == "ensure_dtype" and str(numbers["dtype"]).startswith("float"):
            continue
        axes = numbers.pop("axes", None) or "yx"
        if name == "fixed_zero_mean_unit_variance":
            name, gain = "scale_linear", 1 / np.asarray(numbers["std"], float)
            numbers = {"gain": gain, "offset": -np.asarray(numbers["mean"], float) * gain}
        _require(
            name in _STEPS and {"y", "x"} <= set(axes) and "reference_tensor" not in numbers,
            f"its step {name[:40]} is none of ensure_dtype to float, scale_linear, scale_range, "
            "clip, (fixed_)zero_mean_unit_variance, over a whole plane",
        )
        values = {key: np.asarray(v, float).item() for key, v in numbers.items() if key != "axis"}
        steps.append(Step(id=name, kwargs=values))
    return tuple(steps)


def _compared(folder: Path, given: Any, answer: Any) -> list[str]:
    """Compute a package's test image, as a whole and in tiles, and compare it with its answer."""
    network, card = load_bundle(folder)
    assert isinstance(network, ForeignNetwork)
    own, um = network.settings, card.pixel_size_um
    size = None if um is None else (um, um)
    plane = upright(given, own.axes_in)[0]
    expected = upright(answer, own.axes_out)[own.channel]
    least, most = float(expected.min()), float(expected.max())
    fits = -_AGREE <= least <= most <= 1 + _AGREE
    _require(fits, f"its answer is from {least:.3g} to {most:.3g}, so no probability")
    core = (min(plane.shape) - 2 * HALO) // 2 // MULTIPLE * MULTIPLE
    predictor = Predictor(network, card, device="cpu", core=max(MULTIPLE, core))
    found = network.probability(np.asarray(predictor.prepare(plane, size))[0])
    off = float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf
    _require(off <= _AGREE, f"its test image has other probabilities here (up to {off:.2g} off)")
    notes = [f"its test image has the probabilities that it says (at most {off:.1g} off)"]
    inner = (slice(MULTIPLE, -MULTIPLE),) * 2  # what is beyond the edge is another matter
    apart = float(np.abs(predictor.predict_plane(plane, size) - found)[inner].max())
    if apart > _AGREE:
        notes.append(
            "in tiles, as large images are computed, the test image has probabilities up to "
            f"{apart:.2g} off: the network sees farther than {HALO} px, or scales by all it sees"
        )
    return notes + ["it states no pixel size, so images are not resampled"] * (um is None)
