"""Grey values scaled as a package for bioimage.io states it. Knows no package and no network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from mitolume.preprocess.settings import ChainSettings

Linear = tuple[float, float, float, float]  # gain, offset, and where the result is cut


class Step(BaseModel):
    """A step by the specification's name, with those of its numbers that are stated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Literal["scale_linear", "zero_mean_unit_variance", "scale_range", "clip"]
    kwargs: dict[str, float] = {}


class StatedChain(ChainSettings):
    """The chain of a model of another program, whose package states how planes are normalised."""

    normalise: tuple[Step, ...]


def fit(steps: Sequence[Step], sample: np.ndarray[Any, Any]) -> list[Linear]:
    """Measure the steps on the pixels of a plane: each becomes a line with a cut.

    Examples
    --------
    >>> steps = [Step(id="clip", kwargs={"max": 4.0}), Step(id="scale_range")]
    >>> [round(gain, 3) for gain, *_ in fit(steps, np.arange(9.0))]
    [1.0, 0.25]
    """
    found: list[Linear] = []
    values = sample.astype(np.float64)
    for step in steps:
        said = {"eps": 1e-6, "min_percentile": 0.0, "max_percentile": 100.0} | step.kwargs
        gain, offset = said.get("gain", 1.0), said.get("offset", 0.0)
        low, high = said.get("min", -np.inf), said.get("max", np.inf)
        if step.id == "zero_mean_unit_variance":
            gain = 1 / (values.std() + said["eps"])
            offset = -values.mean() * gain
        elif step.id == "scale_range":
            ends = np.percentile(values, [said["min_percentile"], said["max_percentile"]])
            gain = 1 / (ends[1] - ends[0] + said["eps"])
            offset = -ends[0] * gain
        elif step.id == "clip" and {"min_percentile", "max_percentile"} & set(step.kwargs):
            ends = np.percentile(values, [said["min_percentile"], said["max_percentile"]])
            low, high = max(low, ends[0]), min(high, ends[1])
        found.append((float(gain), float(offset), low, high))
        values = apply(found[-1:], values)
    return found


def apply(lines: Sequence[Linear], values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Scale and cut pixels, (Y, X)."""
    for gain, offset, low, high in lines:
        values = np.clip(values * gain + offset, low, high)
    return values
