"""The settings of the chain, the steps between a file and the network. Knows no table."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class ChainSettings(BaseModel):
    """Steps applied to every plane, in this order: sharpen, rescale, normalise.

    ``sharpen`` is ImageJ's unsharp mask (0.5 px, 0.7) on no image, on the unlabelled images only
    (what the published study did), or on all. Rescaling follows from the pixel sizes, and
    normalising is always done: neither needs a setting.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sharpen: Literal["none", "unlabelled", "all"] = "none"
