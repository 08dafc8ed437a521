"""The settings of objects: what counts as one mitochondrion. Knows no array."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ObjectSettings(BaseModel):
    """Which connected pixels are one mitochondrion.

    ``min_size_um`` drops objects smaller than a disc (in 3D a ball) of this diameter, and
    ``max_hole_um`` fills holes up to it; 0 drops and fills none. ``split`` says where touching
    mitochondria are cut: nowhere, at necks (``distance``), where the probability dips
    (``probability``), or at the branch points of networks (``branches``). Nothing shorter than
    ``split_distance_um`` is cut off. ``threshold`` makes a mask of a probability.

    The sizes in pixels hold where the pixel size is unknown.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    min_size_um: float = Field(0.25, ge=0)
    max_hole_um: float = Field(0.25, ge=0)
    split: Literal["none", "distance", "probability", "branches"] = "none"
    split_distance_um: float = Field(0.5, ge=0)
    threshold: float = Field(0.5, gt=0, le=1)
    min_size_px: float = Field(3.0, ge=0)
    max_hole_px: float = Field(3.0, ge=0)
    split_distance_px: float = Field(6.0, ge=0)
