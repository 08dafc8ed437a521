"""A trained model or denoiser as one folder: weights and card. Loading it runs no code."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import safetensors.torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import Tensor, nn

from mitolume.errors import MitolumeError, in_words
from mitolume.io.formats import read_json
from mitolume.io.write import atomic, owning, write_text
from mitolume.models.foreign import ForeignNetwork, ForeignSettings
from mitolume.models.networks import DenoisingNetwork, SegmentationNetwork
from mitolume.models.settings import DenoiserNetworkSettings, InputSettings, NetworkSettings, Views
from mitolume.preprocess.fingerprint import Fingerprint
from mitolume.preprocess.settings import ChainSettings
from mitolume.preprocess.stated import StatedChain

SCHEMA_VERSION = 1  # of bundles, runs and studies: one that older programs can't read is higher
C = TypeVar("C", bound=BaseModel)
WEIGHTS, CARD = "weights.safetensors", "card.json"
GRAPH = "network.onnx"  # in place of the weights, where another program trained the model
DENOISER = "denoiser"  # folder in the bundle of a model whose chain denoises


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result depends on.

    Where the program is a working copy, also its ``commit``, with "-dirty" if files were changed.
    """
    names = ("mitolume", "torch", "lightning", "numpy", "scikit-image")
    found = {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in names
    }
    root = Path(__file__).parents[3]
    if (root / ".git").exists():
        with suppress(OSError, subprocess.CalledProcessError):
            git = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
            done = subprocess.run(git, cwd=root, capture_output=True, text=True, check=True)
            found["commit"] = done.stdout.strip()
    return found


class ConditionThreshold(BaseModel):
    """A condition's threshold, and what it was chosen on.

    ``n_images`` of ``role`` validation, or train, which have masks from the dye; with none, the
    threshold is the common one.
    """

    model_config = ConfigDict(extra="forbid")

    threshold: float = Field(gt=0, lt=1)
    n_images: int = Field(0, ge=0)
    role: Literal["validation", "train", ""] = ""


class _Card(BaseModel):
    """What all cards say; ``weights_sha256`` is the hash of the weights, "" in older bundles."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    pixel_size_um: float | None = Field(None, gt=0)
    weights_sha256: str = ""
    seed: int = 0
    date: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    versions: dict[str, str] = Field(default_factory=lambda: dict(versions()))


class Card(_Card):
    """What a model is and where it comes from, beside its weights.

    ``inputs`` is what the network sees: channels by name, planes and their distance in µm.
    ``threshold`` makes masks of probabilities, which are averaged over ``views`` of an image and
    were computed in ``precision`` when it was chosen;
    ``thresholds`` are those of conditions by name, none where one holds for all;
    ``pixel_size_um`` is the grid the network works on, None where the training images stated none;
    ``fields`` lists the training images with the SHA-256 of their files; ``scores`` holds
    foreground IoU per subset with its number of images; ``fingerprint`` is how the prepared
    training images look, None in older bundles.
    """

    model_config = ConfigDict(validate_assignment=True)

    name: str = ""
    method: str = "supervised"
    network: NetworkSettings | ForeignSettings
    inputs: InputSettings = InputSettings(planes=1)
    chain: StatedChain | ChainSettings = ChainSettings()
    threshold: float = Field(0.5, gt=0, lt=1)
    thresholds: dict[str, ConditionThreshold] = {}
    views: Views = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    fields: list[dict[str, Any]] = []
    scores: dict[str, dict[str, float | int | None]] = {}
    fingerprint: Fingerprint | None = None

    @field_validator("inputs")
    @classmethod
    def _settled(cls, inputs: InputSettings) -> InputSettings:
        if inputs.planes == "auto":
            raise ValueError("planes is auto, but a model has learnt from a number of them")
        return inputs

    @property
    def own_network(self) -> NetworkSettings:
        """The network, where this program trained it; else a `MitolumeError` is raised."""
        if isinstance(self.network, ForeignSettings):
            raise MitolumeError(
                f"{self.name} is a model of another program: it predicts, but can't be trained "
                "further or exported; share the package that it came from"
            )
        return self.network

    def threshold_of(self, condition: str) -> float:
        """Return the threshold for images of a condition; the common one where it has none."""
        own = self.thresholds.get(condition)
        return self.threshold if own is None else own.threshold


class DenoiserCard(_Card):
    """What a denoiser is and where it comes from, beside its weights.

    ``channels`` is 1, 4 where the network gets the planes around the plane instead, 2 where there
    is not a network but the mean of the two next to it, or 0 where planes are filtered alone.
    ``kept`` is how much of what the network took away is given back, the mean over all
    frequencies (0: nothing, 1: planes stay as they are). ``stripes`` is what was done to planes
    before, ``check`` what is known of the noise of the training stacks; ``stacks`` lists them with
    the SHA-256 of their files, and ``history`` has a record for each epoch.
    """

    kind: Literal["denoiser"] = "denoiser"
    method: str
    network: DenoiserNetworkSettings
    stripes: Literal["none", "auto"] = "none"
    channels: Literal[0, 1, 2, 4] = 1
    kept: float | None = None
    settings: dict[str, Any] = {}
    stacks: list[dict[str, Any]] = []
    check: dict[str, Any] = {}
    chosen: str = ""
    scores: dict[str, float | int | None] = {}
    history: list[dict[str, float | None]] = []


def save_bundle(
    folder: str | Path, weights: dict[str, Tensor] | bytes, card: Card | DenoiserCard
) -> None:
    """Write a network's state and card to a folder; it is a bundle once its card is there, last.

    The weights of a model of another program are its ONNX graph. The card gets their hash.
    """
    folder = Path(folder)
    if isinstance(weights, bytes):
        name, written = GRAPH, weights
    else:
        plain = {name: tensor.contiguous().cpu() for name, tensor in weights.items()}
        name, written = WEIGHTS, safetensors.torch.save(plain)
    with owning(folder):
        (folder / CARD).unlink(missing_ok=True)
        with atomic(folder / name) as temporary:
            # Through Python, so that a full disk is an OSError.
            temporary.write_bytes(written)
        card.weights_sha256 = hashlib.sha256(written).hexdigest()
        write_text(folder / CARD, card.model_dump_json(indent=2) + "\n")


def load_bundle(folder: str | Path) -> tuple[SegmentationNetwork | ForeignNetwork, Card]:
    """Read the bundle of a segmentation model.

    Returns
    -------
    network, Card
        The network in evaluation mode, on the processor.

    Raises
    ------
    MitolumeError
        The folder is missing, not a bundle, from a newer version, or its weights don't fit.
    """
    card = read_card(folder, Card)
    if isinstance(card.network, ForeignSettings):
        graph = _read_weights(Path(folder) / GRAPH, card.weights_sha256)
        return ForeignNetwork(card.network, graph).eval(), card
    network = SegmentationNetwork(card.network, card.inputs.count)
    _load_weights(folder, network, card.weights_sha256)
    return network, card


def load_denoiser(folder: str | Path) -> tuple[DenoisingNetwork, DenoiserCard]:
    """Read the bundle of a denoiser, see `load_bundle`."""
    card = read_card(folder, DenoiserCard)
    network = DenoisingNetwork(card.network, card.channels)
    _load_weights(folder, network, card.weights_sha256)
    return network, card


def read_card(folder: str | Path, kind: type[C]) -> C:
    """Read the card of a bundle without its weights, see `load_bundle`."""
    folder = Path(folder)
    if not folder.exists():
        raise MitolumeError(f"{folder}: no such model")
    if not (folder / CARD).exists() or not any(
        (folder / name).exists() for name in (WEIGHTS, GRAPH)
    ):
        raise MitolumeError(f"{folder} is not a model: it lacks {CARD} or {WEIGHTS}")
    try:
        content: dict[str, Any] = read_json(folder / CARD)
        version, denoises = content.get("schema_version", 0), content.get("kind") == "denoiser"
    except (OSError, ValueError, AttributeError) as error:
        raise MitolumeError(f"{folder / CARD} is not a model card: {in_words(error)}") from error
    refuse_newer(folder, version)
    if denoises and kind is Card:
        raise MitolumeError(
            f"{folder} is a denoiser and makes no masks; use it with `mitolume denoise apply`, or "
            "as `chain.denoise` of a recipe"
        )
    if not denoises and kind is DenoiserCard:
        raise MitolumeError(
            f"{folder} is a model that segments, not a denoiser; `mitolume denoise train` makes one"
        )
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise MitolumeError(f"{folder / CARD} is not a model card: {in_words(error)}") from error


def refuse_newer(folder: Path, version: Any) -> None:
    """Refuse a bundle, run or study that says that it has a version this program can't read."""
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise MitolumeError(
            f"{folder} was written by a newer mitolume (version {version} of its files, this one "
            f"reads up to {SCHEMA_VERSION}); update mitolume"
        )


def _load_weights(folder: str | Path, network: nn.Module, known: str) -> None:
    """Fill a network with the weights that a card knows by hash; put it in evaluation mode."""
    path = Path(folder) / WEIGHTS
    content = _read_weights(path, known)
    try:
        network.load_state_dict(safetensors.torch.load(content))
        network.eval()
    except Exception as error:  # safetensors and torch raise their own kinds
        raise MitolumeError(f"{path} doesn't fit its card: {in_words(error)}") from error


def _read_weights(path: Path, known: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MitolumeError(f"{path} doesn't fit its card: {in_words(error)}") from error
    if known and hashlib.sha256(content).hexdigest() != known:
        raise MitolumeError(
            f"{path} doesn't fit its card: it is damaged or of another model; copy the whole "
            "folder again"
        )
    return content
