"""A trained denoiser as one folder: weights and card. Runs no code from it. Knows no image."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mitolume.errors import MitolumeError
from mitolume.models.bundle import (
    SCHEMA_VERSION,
    checked_card,
    load_weights,
    read_content,
    versions,
)
from mitolume.models.networks import DenoisingNetwork
from mitolume.models.settings import DenoiserNetworkSettings


class DenoiserCard(BaseModel):
    """What a denoiser is and where it comes from, beside its weights.

    ``channels`` is 1, 4 where the network gets the planes around the plane instead, 2 where there
    is no network but the mean of the two next to it, or 0 where planes are filtered alone.
    ``kept`` is how much of what the network took away is given back, the mean over all
    frequencies (0: nothing, 1: planes stay as they are). ``stripes`` is what was done to planes
    before, ``check`` what is known of the noise of the training stacks; ``stacks`` lists them with
    the SHA-256 of their files, and ``history`` has a record for each epoch.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Literal["denoiser"] = "denoiser"
    schema_version: int = SCHEMA_VERSION
    method: str
    network: DenoiserNetworkSettings
    stripes: Literal["none", "auto"] = "none"
    channels: Literal[0, 1, 2, 4] = 1
    kept: float | None = None
    pixel_size_um: float | None = Field(None, gt=0)
    settings: dict[str, Any] = {}
    stacks: list[dict[str, Any]] = []
    check: dict[str, Any] = {}
    chosen: str = ""
    scores: dict[str, float | int | None] = {}
    history: list[dict[str, float | None]] = []
    seed: int = 0
    date: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    versions: dict[str, str] = Field(default_factory=versions)


def load_denoiser(folder: str | Path) -> tuple[DenoisingNetwork, DenoiserCard]:
    """Read the bundle of a denoiser, as `save_bundle` wrote it.

    Parameters
    ----------
    folder
        With ``card.json`` and ``weights.safetensors``.

    Returns
    -------
    DenoisingNetwork, DenoiserCard
        The network in evaluation mode, on the processor.

    Raises
    ------
    MitolumeError
        The folder is missing, no denoiser, from a newer version, or its weights don't fit.
    """
    content = read_content(folder)
    if content.get("kind") != "denoiser":
        raise MitolumeError(
            f"{folder} is a model that segments, no denoiser; `mitolume denoise train` makes one"
        )
    card = checked_card(folder, content, DenoiserCard)
    network = DenoisingNetwork(card.network, card.channels)
    load_weights(folder, network)
    return network, card
