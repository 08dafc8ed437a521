"""Which fields a data set holds: conditions, dishes, days, roles, seeds. Draws none of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mitolume.simulate.settings import CameraSettings, SimulationSettings

DAYS = 4  # of a preset with several dishes; a day is a batch


@dataclass(frozen=True)
class Group:
    """Dishes of one condition that are used for the same.

    ``role`` is that of the table of fields, or "" where `mitolume run` is to draw it.
    """

    condition: str
    dishes: int
    fields_per_dish: int = 1
    role: str = ""


@dataclass(frozen=True)
class Preset:
    """A data set: what is simulated how."""

    settings: SimulationSettings
    groups: tuple[Group, ...]


TREATMENTS = ("fccp", "oligomycin", "antimycin_a", "rotenone")

PRESETS: dict[str, Preset] = {
    # As the published study: few labelled control fields, treated ones without labels, and steps
    # in z far above the depth of field.
    "study": Preset(
        SimulationSettings(planes=7, z_step_um=(4.0, 9.0)),
        (
            Group("control", 6, 5, "train"),
            Group("control", 3, 3, "validation"),
            Group("control", 4, 3, "test"),
            Group("control", 1, 1, "test"),
            *(Group(name, 2, 5, "unlabelled") for name in TREATMENTS),
        ),
    ),
    # Neighbouring planes show nearly the same and each has much noise of its own, so that one is a
    # second exposure of the other: what Noise2Noise on odd and even planes assumes.
    "fine": Preset(
        SimulationSettings(
            planes=20,
            z_step_um=(0.05, 0.05),
            camera=CameraSettings(
                photons=800, gain=2.5, fluorescence_photons=100, fluorescence_gain=24
            ),
        ),
        (Group("control", 12),),
    ),
    "demo": Preset(
        SimulationSettings(shape=(256, 256), planes=3, z_step_um=(1.0, 1.0)),
        (
            Group("control", 6, 1, "train"),
            Group("control", 3, 1, "validation"),
            Group("control", 6, 1, "test"),
            *(Group(name, 2, 1, "unlabelled") for name in ("control", *TREATMENTS)),
        ),
    ),
}


@dataclass(frozen=True)
class FieldPlan:
    """One field that is to be simulated, and how the table of fields names it."""

    name: str
    condition: str
    seed: int
    settings: SimulationSettings
    role: str
    specimen: str
    batch: str

    @property
    def is_labelled(self) -> bool:
        """Whether the table of fields gives its mask away."""
        return self.role != "unlabelled"


def plan_fields(
    settings: SimulationSettings, groups: Sequence[Group], seed: int
) -> list[FieldPlan]:
    """List the fields of a data set.

    Every field has cells of its own. Dishes are spread over `DAYS` days, each with its own
    brightness of the lamp, dyes and condenser: see `vary_day`.

    Parameters
    ----------
    settings
        Of all fields, before a day varies them.
    groups
        Which conditions, dishes and roles.
    seed
        Of the data set. The seed of each field is drawn from it and is in its plan.

    Returns
    -------
    list of FieldPlan
        In the order of the groups.
    """
    dishes = [group for group in groups for _ in range(group.dishes)]
    varied = [vary_day(settings, seed, day) for day in range(DAYS)]
    digits = len(str(sum(group.fields_per_dish for group in dishes)))
    used: dict[str, int] = {}
    plans: list[FieldPlan] = []
    for group in dishes:
        dish = used[group.condition] = used.get(group.condition, 0) + 1
        day = (dish - 1) % DAYS
        for _ in range(group.fields_per_dish):
            number = len(plans) + 1
            plan = FieldPlan(
                name=f"{number:0{digits}}_{group.condition}",
                condition=group.condition,
                seed=int(np.random.SeedSequence([seed, number]).generate_state(1)[0]),
                settings=varied[day],
                role=group.role,
                specimen=f"{group.condition} dish {dish}",
                batch=f"day {day + 1}",
            )
            plans.append(plan)
    return plans


def vary_day(settings: SimulationSettings, seed: int, day: int) -> SimulationSettings:
    """Set the microscope up anew: lamp and dyes are never quite as bright as the day before.

    Parameters
    ----------
    settings
        As they are meant.
    seed, day
        Of the data set, and which day from 0.

    Returns
    -------
    SimulationSettings
        ``camera.photons`` and ``camera.fluorescence_photons`` times a log-normal factor (spread
        0.1 and 0.2), ``optics.condenser_na`` times one with a spread of 0.03.
    """
    rng = np.random.default_rng([seed, day, 0xDA7])
    light, dye, condenser = np.exp(rng.normal(0.0, [0.1, 0.2, 0.03]))
    camera, optics = settings.camera, settings.optics
    return settings.model_copy(
        update={
            "camera": camera.model_copy(
                update={
                    "photons": camera.photons * float(light),
                    "fluorescence_photons": camera.fluorescence_photons * float(dye),
                }
            ),
            "optics": optics.model_copy(
                update={"condenser_na": optics.condenser_na * float(condenser)}
            ),
        }
    )
