"""The settings of a network, and of how it looks at an image. Knows no torch."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

# Over how many views of an image an answer is averaged: the image, its quarter turns, their mirror
# images too.
Views = Literal[1, 4, 8]
VIEWS: tuple[int, ...] = get_args(Views)


class BodySettings(BaseModel):
    """Which network, and how wide.

    ``width`` is the number of channels at full resolution; it doubles at each of four levels
    down (64 gives the published 64 to 1024).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["unet", "unetplusplus"] = "unet"
    width: int = Field(16, ge=2, le=256)


class NetworkSettings(BodySettings):
    """Which network segments.

    ``planes_in`` is 1, or 3 where the network also sees the plane before and the one behind in the
    z-stack (a single plane counts as its own neighbours).
    """

    planes_in: Literal[1, 3] = 1


class DenoiserNetworkSettings(BodySettings):
    """Which network denoises.

    ``norm`` is ``batch``, as in the published study, or ``none``. ``residual`` lets the network
    predict what to add to the plane (or to the mean of its neighbours), not the plane itself.
    """

    norm: Literal["none", "batch"] = "none"
    residual: bool = True
