"""Treatments: shape, place and refractive index of mitochondria. Knows no array."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CONDITIONS", "Condition"]


@dataclass(frozen=True)
class Condition:
    """How mitochondria look under one treatment.

    Attributes
    ----------
    volume_share : float
        Share of the cytoplasm's volume that mitochondria fill.
    length_um, length_spread : float
        Median length of an unbranched tube and the standard deviation of its logarithm.
    diameter_um : float
        Median diameter of the tubes.
    turning : float
        Standard deviation of the centreline's curvature, 1/um.
    branching : float
        Share of the mass that grows as branches of other tubes.
    clustering_um : float
        Distance from the nucleus over which the density falls by a factor e.
    index : float
        Refractive index of the matrix.
    brightness : float
        Dye concentration relative to control; most dyes follow the membrane potential.
    """

    volume_share: float
    length_um: float
    length_spread: float
    diameter_um: float
    turning: float
    branching: float
    clustering_um: float
    index: float
    brightness: float


CONDITIONS: dict[str, Condition] = {
    "control": Condition(0.08, 3.0, 0.5, 0.46, 0.40, 0.12, 11.0, 1.410, 1.0),
    "fccp": Condition(0.08, 0.4, 0.4, 0.72, 0.6, 0.0, 10.0, 1.395, 0.4),
    "oligomycin": Condition(0.08, 8.0, 0.4, 0.44, 0.35, 0.45, 12.0, 1.410, 1.1),
    "antimycin_a": Condition(0.08, 0.9, 0.4, 0.5, 0.6, 0.0, 3.0, 1.402, 0.7),
    "rotenone": Condition(0.045, 1.0, 0.4, 0.48, 0.6, 0.0, 10.0, 1.402, 0.7),
}
