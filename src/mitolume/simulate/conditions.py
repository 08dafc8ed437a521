"""Treatments: shape, place and refractive index of mitochondria. Knows no array.

Sources are named where a number or its direction has one; every other number is chosen, so that
fields look like those of H9c2 cells. Doses and hours differ between papers: ``CONDITIONS`` shows
what a treatment can do, not what it does in every cell.

Control. Tubes 0.3 to 0.7 um wide. Mitochondria filled 10 to 11 % of the cytoplasm of HeLa cells
at all times of the cell cycle (Posakony, England & Attardi 1977, J Cell Biol 74:468); here 8 %,
because H9c2 fields show fewer. Refractive index 1.40 to 1.42 (Beuthan et al. 1996, Phys Med Biol
41:369).

FCCP and its relative CCCP dissipate the membrane potential. Tubes fall apart, because fusion
stops (Legros et al. 2002, Mol Biol Cell 13:4343; OPA1 is cleaved: Ishihara et al. 2006, EMBO J
25:2966), and shorten to spheroids and rings within 10 min, even without fission (Miyazono et al.
2018, Sci Rep 8:350). Spheroids here, no rings. That swelling lowers the refractive index follows
from the matrix taking up water; by how much is chosen.

Oligomycin. Published results disagree: inhibited ATP synthase fragmented mitochondria (De Vos et
al. 2005, Curr Biol 15:678), while blocked fission or stress elongates and fuses them (Tondera et
al. 2009, EMBO J 28:1589, who did not use oligomycin). Here, as this project's task asks, it is
the hyperfused condition: long tubes, much branched.

Antimycin A and rotenone activate AMPK, which starts fission within an hour (Toyama et al. 2016,
Science 351:275; both drugs). Inhibited electron transport also fragmented them in De Vos et al.
2005. Low doses of rotenone for days did the opposite in fibroblasts: longer and more branched
(Koopman et al. 2005, Am J Physiol Cell Physiol 288:C1440). Clustering around the nucleus has been
shown under hypoxia, where it depends on reactive oxygen species (Al-Mehdi et al. 2012, Sci Signal
5:ra47); that antimycin A does it, and that rotenone leaves fewer mitochondria, is taken from the
project's task.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CONDITIONS", "Condition"]


@dataclass(frozen=True, kw_only=True)
class Condition:
    """How mitochondria look under one treatment; the defaults are those of control.

    Attributes
    ----------
    volume_share : float
        Share of a cell's cytoplasm that mitochondria fill, where there is room.
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
        Refractive index.
    brightness : float
        Dye concentration; dyes that follow the membrane potential fade without it.
    """

    volume_share: float = 0.08
    length_um: float = 3.0
    length_spread: float = 0.5
    diameter_um: float = 0.46
    turning: float = 0.4
    branching: float = 0.12
    clustering_um: float = 11.0
    index: float = 1.400
    brightness: float = 1.0


CONDITIONS: dict[str, Condition] = {
    "control": Condition(),
    "fccp": Condition(  # fragmented, swollen
        length_um=0.4, diameter_um=0.72, branching=0.0, index=1.388, brightness=0.4
    ),
    "oligomycin": Condition(  # hyperfused; the gradient it hyperpolarises holds more dye
        length_um=9.0, length_spread=0.4, diameter_um=0.44, branching=0.4, brightness=1.1
    ),
    "antimycin_a": Condition(  # fragmented, perinuclear
        volume_share=0.045,
        length_um=0.9,
        length_spread=0.4,
        diameter_um=0.5,
        turning=0.6,
        branching=0.0,
        clustering_um=2.5,
        index=1.394,
        brightness=0.7,
    ),
    "rotenone": Condition(  # fragmented, fewer
        volume_share=0.016,
        length_um=1.2,
        length_spread=0.4,
        turning=0.6,
        branching=0.0,
        index=1.394,
        brightness=0.7,
    ),
}
