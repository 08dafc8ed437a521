"""The settings of a network, and of the views of an image that it averages."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

# Number of views of an image that a prediction averages: the image alone, its four quarter turns,
# or these and their mirror images.
Views = Literal[1, 4, 8]
VIEWS: tuple[int, ...] = get_args(Views)


class BodySettings(BaseModel):
    """Name and width of a network.

    ``width`` is the number of channels at full resolution; it doubles at each of four levels
    down (64 gives the published 64 to 1024).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["unet", "unetplusplus"] = "unet"
    width: int = Field(16, ge=2, le=256)


class NetworkSettings(BodySettings):
    """A network that segments.

    ``planes_in`` is 1, or 3 for a network that also sees the planes before and behind in the
    z-stack (a single plane counts as its own neighbours).
    """

    planes_in: Literal[1, 3] = 1


class DenoiserNetworkSettings(BodySettings):
    """A network that denoises.

    ``norm`` is ``batch``, as in the published study, or ``none``. With ``residual`` the network
    predicts what to add to the plane (or to the mean of its neighbours), not the plane itself.
    """

    norm: Literal["none", "batch"] = "none"
    residual: bool = True
