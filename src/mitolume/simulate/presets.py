"""Which fields a data set holds: conditions, dishes, days, roles, seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mitolume.simulate.settings import CameraSettings, OpticsSettings, SimulationSettings


@dataclass(frozen=True)
class Group:
    """Dishes of one condition with one role in the table of fields ("" for `run` to draw it)."""

    condition: str
    dishes: int
    fields_per_dish: int = 1
    role: str = ""


@dataclass(frozen=True)
class Days:
    """Days over which the dishes of a data set are spread, and how different they are.

    ``lamp``, ``dyes`` and ``condenser`` are the standard deviations of the logarithm of
    ``camera.photons``, ``camera.fluorescence_photons`` and ``optics.condenser_na``.
    """

    count: int = 4
    lamp: float = 0.1
    dyes: float = 0.2
    condenser: float = 0.03


@dataclass(frozen=True)
class Preset:
    """A data set: settings of its fields, its dishes and its days."""

    settings: SimulationSettings
    groups: tuple[Group, ...]
    days: Days = Days()


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
        SimulationSettings(shape=(256, 256), planes=5, z_step_um=(0.5, 0.5)),
        (
            Group("control", 6, 1, "train"),
            *(Group(name, 2, 1, "unlabelled") for name in TREATMENTS),
            Group("control", 3, 1, "validation"),
            Group("control", 4, 1, "test"),
            *(Group(name, 1, 1, "test") for name in TREATMENTS),
        ),
    ),
    # For benchmarks of labels from the dye: planes close enough for neighbours to help, test fields
    # of other dishes in every condition.
    "treatments": Preset(
        SimulationSettings(shape=(256, 256), planes=7, z_step_um=(0.5, 0.5)),
        (
            Group("control", 4, 2, "train"),
            Group("control", 2, 2, "validation"),
            Group("control", 4, 2, "test"),
            *(Group(name, 2, 2, "unlabelled") for name in TREATMENTS),
            *(Group(name, 2, 2, "test") for name in TREATMENTS),
        ),
    ),
    # Brightfield of live H9c2 cells: a condenser nearly closed, focus below the mitochondria,
    # little light, crowds of droplets and vesicles. In half of the fields mitochondria are short
    # and lie around the nucleus, as in cells with much OMP25 (Nemoto & De Camilli 1999, EMBO J
    # 18:2991), which is part of the real ones' label. Each day has another condenser.
    "brightfield": Preset(
        SimulationSettings(
            shape=(320, 320),
            planes=3,
            pixel_um=0.08,
            z_step_um=(0.25, 0.25),
            middle_um=-1.2,
            crowding=2.5,
            optics=OpticsSettings(objective_na=1.25, condenser_na=0.24, transmitted_um=0.5),
            camera=CameraSettings(photons=215, gain=4, offset=0, scan_lines=0),
        ),
        (
            *(Group(name, 7, 2, "train") for name in ("control", "antimycin_a")),
            *(Group(name, 2, 1, "validation") for name in ("control", "antimycin_a")),
            *(Group(name, 2, 2, "test") for name in ("control", "antimycin_a")),
        ),
        Days(count=11, condenser=0.2),
    ),
}


@dataclass(frozen=True)
class FieldPlan:
    """One field to simulate, and its row in the table of fields."""

    name: str
    condition: str
    seed: int
    settings: SimulationSettings
    role: str
    specimen: str
    batch: str

    @property
    def is_labelled(self) -> bool:
        """Whether the table of fields names its mask."""
        return self.role != "unlabelled"


def plan_fields(
    settings: SimulationSettings, groups: Sequence[Group], seed: int, days: Days = Days()
) -> list[FieldPlan]:
    """List the fields of a data set in the order of its groups.

    Every field has cells of its own, from a seed that is drawn from the data set's ``seed``. Dishes
    are spread over days, each with its own brightness of lamp and dyes, and its own condenser: they
    are the batches of the table of fields.
    """
    dishes = [group for group in groups for _ in range(group.dishes)]
    varied = [_vary_day(settings, seed, day, days) for day in range(days.count)]
    digits = len(str(sum(group.fields_per_dish for group in dishes)))
    used: dict[str, int] = {}
    plans: list[FieldPlan] = []
    for group in dishes:
        dish = used[group.condition] = used.get(group.condition, 0) + 1
        day = (dish - 1) % days.count
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


def _vary_day(settings: SimulationSettings, seed: int, day: int, days: Days) -> SimulationSettings:
    """Multiply photons, fluorescence photons and condenser by log-normal factors of a day."""
    rng = np.random.default_rng([seed, day, 0xDA7])
    lamp, dye, condenser = np.exp(rng.normal(0.0, [days.lamp, days.dyes, days.condenser])).tolist()
    camera, optics = settings.camera, settings.optics
    brightness = {
        "photons": camera.photons * lamp,
        "fluorescence_photons": camera.fluorescence_photons * dye,
    }
    camera = camera.model_copy(update=brightness)
    optics = optics.model_copy(update={"condenser_na": optics.condenser_na * condenser})
    return settings.model_copy(update={"camera": camera, "optics": optics})
