"""The recipe of a study: its arms, seeds and label budgets, and the runs that follow from them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mitolume.errors import MitolumeError, some_names
from mitolume.io.fields import Field as Row
from mitolume.io.read import read
from mitolume.io.rows import open_image
from mitolume.io.table import read_table
from mitolume.progress import say
from mitolume.runs.recipe import Recipe, complete, explain, merge, read_given, read_preset
from mitolume.study.evidence import MARGIN

STUDY_PRESETS = ("default", "quick", "paper", "dye")
_LENGTH = ("minutes", "epochs", "steps", "batch", "patch")
_OPEN = re.compile(r'"\{(light|dye|membrane|one)\}"')
_MEMBRANE = re.compile("cell[ _-]?mask|membrane", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)

Budget = Literal["all"] | int


class StudyRecipe(BaseModel):
    """All settings of a study; together with the images they determine it.

    ``base`` are the settings that all arms share, with the keys of a recipe; ``arms`` are the
    settings of each arm that differ; ``reference`` is the arm that others are compared with. Every
    arm is trained with each of the ``seeds`` (which draw the labelled subset and the weights) at
    each of the ``labels`` (budgets of labelled images). ``compare`` says which model stands for an
    arm: the one that the run kept (``kept``: chosen on validation images), or the ``last`` one
    trained, as in the published study. With ``cost`` equal, the steps (epochs, minutes) of training
    are those of a whole run: an arm with two trainings divides them, so that no arm gains by longer
    training. With ``own``, they are those of its first training, as in a recipe.
    Differences in IoU below ``margin`` are as good as none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: dict[str, Any]
    arms: dict[str, dict[str, Any]] = Field(min_length=2)
    reference: str
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    labels: tuple[Budget, ...] = Field(("all",), min_length=1)
    compare: Literal["kept", "last"] = "kept"
    cost: Literal["equal", "own"] = "equal"
    margin: float = Field(MARGIN, ge=0, lt=1)

    @field_validator("arms", mode="before")
    @classmethod
    def _named_arms(cls, arms: Any) -> Any:
        """Accept an arm without settings of its own; refuse names that cannot name a folder."""
        if not isinstance(arms, dict):
            return arms
        for name in arms:
            if not _NAME.fullmatch(str(name)):
                raise ValueError(f"name {name!r} may only have letters, digits, '.', '-' and '_'")
        return {str(name): own or {} for name, own in arms.items()}

    @field_validator("seeds", "labels", mode="before")
    @classmethod
    def _one_is_a_list_of_one(cls, value: Any) -> Any:
        return value if isinstance(value, list | tuple) else [value]

    @model_validator(mode="after")
    def _consistent(self) -> StudyRecipe:
        if self.reference not in self.arms:
            raise ValueError(f"reference {self.reference!r} is not one of {', '.join(self.arms)}")
        for name, values in (("seeds", self.seeds), ("labels", self.labels)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} has a value twice")
        if min(self.seeds) < 0 or any(k != "all" and k < 0 for k in self.labels):
            raise ValueError("seeds and labels must be 0 or more")
        return self

    def to_yaml(self) -> str:
        """Write the study as YAML that `load_study` reads back equal."""
        own = self.model_dump(mode="json")
        shared = own.pop("base")
        return yaml.safe_dump(shared | own, sort_keys=False, allow_unicode=True)


@dataclass(frozen=True)
class Planned:
    """One run of a study."""

    arm: str
    k: Budget
    seed: int
    recipe: Recipe

    @property
    def name(self) -> str:
        """Its folder below ``runs``."""
        return f"{self.arm}_k{self.k}_s{self.seed}"


def load_study(
    path: str | Path | None = None,
    *,
    preset: str | None = None,
    fields: str | Path | None = None,
    settings: Sequence[str] = (),
) -> StudyRecipe:
    """Combine preset, file and ``settings`` into a study; later ones override earlier ones.

    Parameters
    ----------
    path
        A YAML file with the keys of a recipe, shared by all arms, and `arms`, `reference`, `seeds`,
        `labels`, `compare`. Paths in it are relative to its folder.
    preset
        Name of a study that comes with the program, one of `STUDY_PRESETS`.
    fields
        The table of fields, which replaces that of the file.
    settings
        Single settings as ``key=value`` with dots, such as ``seeds=[0,1]`` or
        ``training.steps=500``.

    Raises
    ------
    MitolumeError
        A file is missing, a key is unknown, or a setting of an arm is invalid.
    """
    source = str(path) if path else f"study preset {preset or 'default'}"
    start = (
        {}
        if path
        else read_preset(preset or "default", STUDY_PRESETS, "mitolume.study", "study preset")
    )
    if path and preset:
        settings = [f"preset={preset}", *settings]
    given = _with_channels(read_given(path, fields, settings, start))
    names = StudyRecipe.model_fields.keys() - {"base"}
    own = {key: value for key, value in given.items() if key in names}
    base = {key: value for key, value in given.items() if key not in names}
    if "arms" in own and "reference" not in own and own["arms"]:
        own["reference"] = str(next(iter(own["arms"])))
    try:
        study = StudyRecipe.model_validate({"base": base, **own})
    except ValidationError as error:
        raise MitolumeError(explain(error, source)) from None
    planned_runs(study, source)
    return study


def planned_runs(study: StudyRecipe, source: str = "the study") -> list[Planned]:
    """Return all runs of a study, seed by seed, the reference first.

    In this order, the report of a study that is half finished already shows all arms. ``source``
    says in messages where the settings come from.
    """
    names = sorted(study.arms, key=lambda name: name != study.reference)
    runs = []
    for seed, k, name in product(study.seeds, study.labels, names):
        own = merge(study.base, study.arms[name]) | {"arm": name, "labels": k, "seed": seed}
        recipe = complete(own, f"{source}, arm {name}")
        recipe = _divided(recipe) if study.cost == "equal" else recipe
        runs.append(Planned(name, k, seed, recipe))
    return runs


def _divided(recipe: Recipe) -> Recipe:
    """Return a recipe whose trainings together are as long as its first one would have been."""
    from mitolume.training.methods import METHODS

    method, length = METHODS[recipe.method](recipe.unlabelled), recipe.training
    share = 1 + method.uses_unlabelled * method.settings.length
    own = {
        unit: max(1, round(given / share))
        for unit in ("steps", "epochs")
        if (given := getattr(length, unit)) is not None
    }
    return recipe.model_copy(update={"training": length.model_copy(update=own)})


def require_equal_cost(study: StudyRecipe, rows: Sequence[Row]) -> None:
    """Refuse arms of which one is trained longer than another: it may be better for that alone.

    ``rows`` are those of the table: without unlabelled images there is no second training.
    """
    from mitolume.training.methods import METHODS

    if study.cost == "own":
        return
    costs: dict[str, str] = {}
    for name, own in study.arms.items():
        recipe = complete(merge(study.base, own), f"arm {name}")
        units = {unit: getattr(recipe.training, unit) for unit in _LENGTH}
        costs[name] = ", ".join(f"{unit} {value}" for unit, value in units.items() if value)
        by_dye = recipe.unlabelled.teacher in ("auto", "dye")
        taught = any(row.role == "unlabelled" and not (by_dye and row.fluorescence) for row in rows)
        if METHODS[recipe.method].uses_unlabelled and "all" in study.labels and not taught:
            raise MitolumeError(
                f"arm {name} would be trained less than others: with labels all, no image is left "
                "unlabelled for it; add some, or set labels to fewer than are outlined, such as "
                "--set labels=4"
            )
    if len(set(costs.values())) > 1:
        said = "; ".join(f"{name}: {cost}" for name, cost in costs.items())
        raise MitolumeError(
            f"not all arms are trained equally long ({said}), so one may be better for that alone; "
            "leave these settings out of the arms, or set cost to own"
        )


def _with_channels(given: dict[str, Any]) -> dict[str, Any]:
    """Fill channels of the table into arms that leave them open, as those of preset ``dye`` do.

    The first image with a dye speaks for all. Arms for which it, or another one, has nothing are
    left out, and so are, where nobody drew any, all outlines.
    """
    text, source = json.dumps(given.get("arms"), default=str), given.get("fields")
    if not source or not _OPEN.search(text):
        return given
    rows = read_table(source)
    row = next((row for row in rows if row.fluorescence), None)
    if row is None or ("{dye}" in text and isinstance(row.fluorescence, Path)):
        raise MitolumeError(
            f"{source}: column `fluorescence` names no channel of the dye; fill it in, or name both"
            " channels with --set 'arms.light-dye.inputs.channels=[LIGHT, DYE]'"
        )
    names = [str(name) for name in read(row.image, scene=row.scene or None)["C"].values]
    known = {
        "light": row.channel or str(open_image(row)["C"].values[0]),
        "dye": row.fluorescence,
        "membrane": next((name for name in names if _MEMBRANE.search(name)), None),
        "one": 1 if open_image(row).sizes["Z"] > 1 else None,
    }
    arms = {}
    for name, own in given["arms"].items():
        text = json.dumps(own)
        filled = json.loads(_OPEN.sub(lambda place: json.dumps(known[place[1]]), text))
        open_ones = any(known[place] is None for place in _OPEN.findall(text))
        lacking = [row] if open_ones else [one for one in rows if not _has(one, filled)]
        if lacking:
            where = some_names(one.where for one in lacking)
            say(f"note: arm {name} is left out: there is nothing to show it in {where}")
        else:
            arms[name] = filled
    if len(arms) == 1:
        raise MitolumeError(f"{source}: only arm {next(iter(arms))} is left, and a study takes two")
    if given["labels"] == [0, "all"] and not any(r.mask and r.role in ("", "train") for r in rows):
        given = given | {"labels": [0]}
    return given | {"arms": arms}


def _has(row: Row, arm: Any) -> bool:
    """Whether the image of a row has the channels of an arm; what is no arm is refused later."""
    with suppress(KeyError, TypeError):
        channels = arm["inputs"]["channels"]
        try:
            open_image(row, channels if isinstance(channels, list) else ())
        except MitolumeError:
            return False
    return True
