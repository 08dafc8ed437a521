"""The settings of the chain, the steps between a file and the network."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

# The ways of learning to denoise that a recipe can name; anything else is a folder.
DENOISING = ("auto", "noise2stack", "wiener", "noise2noise")


class ChainSettings(BaseModel):
    """Steps applied to every plane, in this order: stripes, denoise, sharpen, rescale, normalise.

    ``stripes`` ``auto`` removes horizontal scan-line noise where it is found. ``denoise`` is
    ``none``, or a method of `DENOISING` by which a denoiser is learnt from the training images, or
    the folder of a denoiser. ``sharpen`` is ImageJ's unsharp
    mask (0.5 px, 0.7) on no image, on the unlabelled images only (what the published study did),
    or on all. Rescaling follows from the pixel sizes, and normalising is always done: neither
    needs a setting.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    stripes: Literal["none", "auto"] = "none"
    denoise: str = "none"
    sharpen: Literal["none", "unlabelled", "all"] = "none"

    @property
    def denoises(self) -> bool:
        """Whether the chain has a denoiser."""
        return self.denoise != "none"

    @property
    def denoiser_folder(self) -> Path | None:
        """The folder of the denoiser, where one is given."""
        return Path(self.denoise) if self.denoise not in ("none", *DENOISING) else None

    def with_method(self, method: str) -> ChainSettings:
        """Return the chain with the method of its denoiser, however it was named before."""
        return self.model_copy(update={"denoise": method})
