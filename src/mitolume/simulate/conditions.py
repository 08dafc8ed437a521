"""Treatments: shape, place and refractive index of mitochondria. Knows no array.

Sources are named where a number or its direction has one; every other number is chosen, so that
fields look like those of H9c2 cells. Doses and hours differ between papers: ``CONDITIONS`` shows
what a treatment can do, not what it does in every cell.

Control. Tubes 0.3 to 0.7 um wide that fill 8 % of the cytoplasm: chosen. Refractive index of an
isolated mitochondrion 1.41 +- 0.01, the higher the higher its membrane potential (Haseda et al.
2015, Biomed Opt Express 6:859); here 1.40, and less under the drugs that lower the potential.

FCCP and its relative CCCP dissipate the membrane potential. Fusion stops and tubes rapidly fall
apart (Legros et al. 2002, Mol Biol Cell 13:4343); they also shorten to indented spheroids within
10 min, without fission (Miyazono et al. 2018, Sci Rep 8:350). Spheroids here, without indents. How
much they swell and how far the index falls is chosen.

Oligomycin. Inhibited ATP synthase has been found to fragment mitochondria while the potential stays
(reviewed by Karavaeva et al. 2015, Biochemistry (Moscow) 80, doi:10.1134/S0006297915050053). Other
stresses, such as ultraviolet light, fuse them into one network first (Tondera et al. 2009, EMBO J
28:1589, who did not use oligomycin). Here it is the hyperfused condition, so that one of the
treatments lengthens mitochondria: long tubes, much branched. Expect cells to disagree.

Antimycin A and rotenone inhibit electron transport. Mitochondria fragment rapidly, by way of AMPK
(Toyama et al. 2016, Science 351:275). 100 nM rotenone for three days did the opposite in
fibroblasts: longer and more branched (Koopman et al. 2005, Am J Physiol Cell Physiol 288:C1440).
Clustering around the nucleus has been shown under hypoxia (Al-Mehdi et al. 2012, Sci Signal
5:ra47); that antimycin A does it, and that rotenone leaves fewer mitochondria, is chosen, to tell
the two apart.
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
