"""Segment mitochondria in label-free microscopy from a handful of labelled fields.

The public names load what they need on first use, so that importing mitolume is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mitolume.errors import MitolumeError

if TYPE_CHECKING:
    from mitolume.inference.predictor import Predictor
    from mitolume.io.read import read
    from mitolume.runs.folder import load
    from mitolume.runs.recipe import Recipe, load_recipe
    from mitolume.simulate.field import simulate_field
    from mitolume.simulate.settings import SimulationSettings
    from mitolume.workflow import run

__version__ = "0.1.0"

_HOME = {
    "read": "mitolume.io.read",
    "load": "mitolume.runs.folder",
    "Predictor": "mitolume.inference.predictor",
    "Recipe": "mitolume.runs.recipe",
    "load_recipe": "mitolume.runs.recipe",
    "run": "mitolume.workflow",
    "simulate_field": "mitolume.simulate.field",
    "SimulationSettings": "mitolume.simulate.settings",
}

__all__ = [
    "MitolumeError", "Predictor", "Recipe", "SimulationSettings", "__version__", "load",
    "load_recipe", "read", "run", "simulate_field",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'mitolume' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
