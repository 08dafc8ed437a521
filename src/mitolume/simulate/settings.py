"""What is simulated: the condition of the cells, the microscope, the camera, the annotator."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

Positive = Annotated[float, Field(gt=0, le=1e6)]
NotNegative = Annotated[float, Field(ge=0, le=1e4)]
Share = Annotated[float, Field(ge=0, le=1)]
Shift = Annotated[float, Field(ge=0, le=5)]  # um
Sideways = Annotated[float, Field(ge=-3, le=3)]  # um; the margin of a field is 3.2 um
Wavelength = Annotated[float, Field(ge=0.3, le=1.2)]  # um; nanometres are refused
Side = Annotated[int, Field(ge=16, le=2048)]  # memory grows with the area: 3 kB a pixel
FARTHEST_UM = 200.0  # between the outermost planes; far light needs a fine grid of frequencies


@dataclass(frozen=True, kw_only=True)
class Condition:
    """How mitochondria look under one treatment; the defaults are those of control.

    Attributes
    ----------
    volume_share
        Share of a cell's cytoplasm that mitochondria fill, where there is room.
    length_um, length_spread
        Median length of an unbranched tube and the standard deviation of its logarithm.
    diameter_um
        Median diameter of the tubes.
    turning
        Standard deviation of the centreline's curvature, 1/um.
    branching
        Share of the mass that grows as branches of other tubes.
    clustering_um
        Distance from the nucleus over which the density falls by a factor e.
    index
        Refractive index.
    brightness
        Concentration of a steady dye.
    potential
        Concentration of a dye that follows the membrane potential: 1 as in control, 0 what is left
        where there is no potential.
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
    potential: float = 1.0


# Sources are named where a number or its direction has one; every other number is chosen, so that
# fields look like those of H9c2 cells. Doses and hours differ between papers: ``CONDITIONS`` shows
# what a treatment can do, not what it does in every cell.
#
# Control. Tubes 0.3 to 0.7 um wide that fill 8 % of the cytoplasm: chosen. Refractive index of an
# isolated mitochondrion 1.41 +- 0.01, the higher the higher its membrane potential (Haseda et al.
# 2015, Biomed Opt Express 6:859); here 1.40, and less under the drugs that lower the potential.
#
# FCCP and its relative CCCP dissipate the membrane potential. Fusion stops and tubes rapidly fall
# apart (Legros et al. 2002, Mol Biol Cell 13:4343); they also shorten to indented spheroids within
# 10 min, without fission (Miyazono et al. 2018, Sci Rep 8:350). Spheroids here, without indents.
# How much they swell and how far the index falls is chosen.
#
# Oligomycin. Inhibited ATP synthase has been found to fragment mitochondria while the potential
# stays (reviewed by Karavaeva et al. 2015, Biochemistry (Moscow) 80,
# doi:10.1134/S0006297915050053). Other stresses, such as ultraviolet light, fuse them into one
# network first (Tondera et al. 2009, EMBO J 28:1589, who did not use oligomycin). Here it is the
# hyperfused condition, so that one of the treatments lengthens mitochondria: long tubes, much
# branched. Expect cells to disagree.
#
# Antimycin A and rotenone inhibit electron transport. Mitochondria fragment rapidly, by way of AMPK
# (Toyama et al. 2016, Science 351:275). 100 nM rotenone for three days did the opposite in
# fibroblasts: longer and more branched (Koopman et al. 2005, Am J Physiol Cell Physiol 288:C1440).
# Clustering around the nucleus has been shown under hypoxia (Al-Mehdi et al. 2012, Sci Signal
# 5:ra47); that antimycin A does it, and that rotenone leaves fewer mitochondria, is chosen, to tell
# the two apart.
#
# Potential. FCCP takes it away; oligomycin raises it, since protons no longer flow back through the
# ATP synthase; without electron transport it falls in part, held up by the ATP synthase in reverse
# (reviewed by Brand and Nicholls 2011, Biochem J 435:297). The sizes are chosen.
_INHIBITED = Condition(
    length_spread=0.4, turning=0.6, branching=0.0, index=1.394, brightness=0.7, potential=0.6
)
CONDITIONS: dict[str, Condition] = {
    "control": Condition(),
    "fccp": Condition(  # fragmented, swollen
        length_um=0.4, diameter_um=0.72, branching=0.0, index=1.388, brightness=0.4, potential=0.0
    ),
    "oligomycin": Condition(  # hyperfused; the gradient it hyperpolarises holds more dye
        length_um=9.0,
        length_spread=0.4,
        diameter_um=0.44,
        branching=0.4,
        brightness=1.1,
        potential=1.2,
    ),
    "antimycin_a": replace(  # fragmented, perinuclear
        _INHIBITED, volume_share=0.045, length_um=0.9, diameter_um=0.5, clustering_um=2.5
    ),
    "rotenone": replace(_INHIBITED, volume_share=0.016, length_um=1.2),  # fragmented, fewer
}


def _pair(names: str) -> BeforeValidator:
    def two(value: Any) -> Any:
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise ValueError(f"must be {names}")
        return value

    return BeforeValidator(two)


_Range = Annotated[tuple[Positive, Positive], _pair("a number or a range [smallest, largest]")]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OpticsSettings(_Settings):
    """The microscope.

    ``objective_na`` and ``condenser_na`` are numerical apertures in a medium of index
    ``immersion_index``; ``transmitted_um`` is the vacuum wavelength of the transmitted light,
    ``mitochondria_um`` and ``membrane_um`` those of the emission of the two dyes. ``haze`` is the
    share of the fluorescence that a confocal pinhole lets through from out of focus: 0 is an ideal
    confocal, 1 a widefield microscope.

    Raises
    ------
    pydantic.ValidationError
        A value is impossible, such as an aperture above ``immersion_index`` or a wavelength in
        nanometres.
    """

    objective_na: Positive = 1.2
    condenser_na: Positive = 0.55
    immersion_index: Positive = 1.333
    transmitted_um: Wavelength = 0.64
    mitochondria_um: Wavelength = 0.60
    membrane_um: Wavelength = 0.66
    haze: Share = 0.3

    @model_validator(mode="after")
    def _apertures_are_possible(self) -> Self:
        for name in ("objective_na", "condenser_na"):
            if (na := getattr(self, name)) >= self.immersion_index:
                raise ValueError(
                    f"{name} {na:g} must be below immersion_index {self.immersion_index:g}; "
                    "water has 1.333, oil 1.515"
                )
        return self


class CameraSettings(_Settings):
    """Camera or detector, and what a scanning laser adds.

    ``photons`` is the mean number of photoelectrons a pixel in the transmitted-light background,
    ``fluorescence_photons`` in the brightest mitochondria of control cells; ``read_noise`` in
    electrons, ``gain`` in counts an electron (``fluorescence_gain`` of the two dyes' detectors),
    ``offset`` in counts, ``bits`` 8 to 16. ``scan_lines`` is the standard
    deviation of the brightness from line to line relative to the background (transmitted light
    only), ``shading`` the relative fall of the light towards the corners, ``drift_um`` the standard
    deviation of the sideways step from one plane to the next.
    """

    photons: Positive = 4000
    fluorescence_photons: Positive = 600
    read_noise: NotNegative = 3.0
    gain: Positive = 0.5
    fluorescence_gain: Positive = 4.0
    offset: NotNegative = 100.0
    bits: Annotated[int, Field(ge=8, le=16)] = 12
    scan_lines: Share = 0.004
    shading: Share = 0.1
    drift_um: Shift = 0.0


class DyeSettings(_Settings):
    """The dye of the mitochondria, and what goes wrong with it; by default, nothing does.

    ``kind`` is ``steady``, or ``potential`` for a dye that follows the membrane potential: where
    there is none, the share ``left`` of control's light remains. ``brightness`` multiplies its
    light. ``unstained`` is the share of cells that took up none. ``uneven`` is the standard
    deviation of the logarithm of its concentration, which varies smoothly across the field.
    ``bleaching`` is the share of its light lost from the first plane to the last, exponentially.
    ``bleed_through`` is the share of the membrane dye's light that its channel shows as well.
    ``shift_um`` (Y, X) moves both fluorescence channels against transmitted light and masks, and
    ``shift_z_um`` takes their planes so much higher.
    ``saturated`` is the share of the pixels of mitochondria that the camera clips: where it is
    above 0, it sets the gain of the channel. ``affected`` is the share of fields, drawn by their
    seeds, that these settings hold for; the dye of the others is the default one.
    """

    kind: Literal["steady", "potential"] = "steady"
    left: Share = 0.15
    brightness: Positive = 1.0
    unstained: Share = 0.0
    uneven: Annotated[float, Field(ge=0, le=2)] = 0.0
    bleaching: Annotated[float, Field(ge=0, le=0.99)] = 0.0
    bleed_through: Share = 0.0
    shift_um: Annotated[tuple[Sideways, Sideways], _pair("[down, right] in um")] = (0.0, 0.0)
    shift_z_um: Sideways = 0.0
    saturated: Share = 0.0
    affected: Share = 1.0


class HandLabelSettings(_Settings):
    """How a person's outlines differ from the truth.

    ``jitter_um`` is the standard deviation of the boundary's displacement, smooth along it;
    ``missed`` the share of objects not outlined; ``invented`` the number of outlines of what is
    no mitochondrion, relative to the number of objects.
    """

    jitter_um: Shift = 0.1
    missed: Share = 0.1
    invented: NotNegative = 0.05


# IoU with the exact masks in planes near focus: 0.60, 0.75, 0.90 (docs/simulate.md has a table).
HANDS = {
    "rough": HandLabelSettings(),
    "careful": HandLabelSettings(jitter_um=0.06, missed=0.05, invented=0.03),
    "expert": HandLabelSettings(jitter_um=0.035, missed=0.03, invented=0.015),
}


class SimulationSettings(_Settings):
    """One kind of simulated field: size, planes, microscope, camera, dye, annotator.

    ``shape`` is (Y, X) in pixels, ``planes`` the number of planes, ``z_step_um`` their distance:
    drawn from a range field by field, or one number. ``middle_um`` is the height of plane
    ``planes // 2`` above the mean height of the mitochondria: below it, they are bright.
    ``crowding`` is the number of droplets, lysosomes, vesicles and granules in the cytoplasm
    relative to the default's. ``hand_labels`` may be a name in ``HANDS``.

    Raises
    ------
    pydantic.ValidationError
        A value is impossible or too large to compute, or a name is unknown.
    """

    shape: Annotated[tuple[Side, Side], _pair("[rows, columns] in pixels")] = (512, 512)
    planes: Annotated[int, Field(ge=1, le=200)] = 13
    pixel_um: float = Field(0.1, ge=0.03, le=0.3)
    z_step_um: _Range = (0.25, 0.25)
    middle_um: Annotated[float, Field(ge=-20, le=20)] = 0.0
    crowding: Annotated[float, Field(ge=0, le=5)] = 1.0
    optics: OpticsSettings = OpticsSettings()
    camera: CameraSettings = CameraSettings()
    dye: DyeSettings = DyeSettings()
    hand_labels: HandLabelSettings = HANDS["rough"]

    @field_validator("hand_labels", mode="before")
    @classmethod
    def _one_name_is_a_hand(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in HANDS:
            raise ValueError(f"must be one of {', '.join(HANDS)}, or have keys below it")
        return HANDS[value] if isinstance(value, str) else value

    @field_validator("z_step_um", mode="before")
    @classmethod
    def _one_number_is_a_range(cls, value: Any) -> Any:
        if isinstance(value, int | float):
            if not value > 0:
                raise ValueError("must be above 0")
            return value, value
        return value

    @model_validator(mode="after")
    def _planes_are_not_too_far_apart(self) -> Self:
        if self.z_step_um[0] > self.z_step_um[1]:
            raise ValueError("z_step_um must name the smaller step first")
        if (extent := (self.planes - 1) * self.z_step_um[1]) > FARTHEST_UM:
            raise ValueError(
                f"{self.planes} planes with steps of {self.z_step_um[1]:g} um span {extent:g} um; "
                f"{FARTHEST_UM:g} um is the most"
            )
        return self
