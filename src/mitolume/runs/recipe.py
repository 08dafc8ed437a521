"""The recipe: all settings of a run, from a preset, a YAML file and --set. Opens no image."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mitolume.errors import MitolumeError, in_words
from mitolume.io.formats import require_file
from mitolume.io.masks import MaskKind
from mitolume.io.split import SplitSettings
from mitolume.models.settings import InputSettings, NetworkSettings, Views
from mitolume.preprocess.settings import DENOISING, ChainSettings
from mitolume.training.settings import DenoisingSettings, TrainingSettings, UnlabelledSettings

PRESETS = ("default", "quick", "paper")
_MOST_VALUES = 100_000
_MOST_BRACKETS = 3000  # open ones take the square of their number in time


class DyeSettings(BaseModel):
    """How masks are made from the fluorescence of the mitochondria's dye.

    ``threshold`` is the share of its local peak at which a structure ends; ``auto`` chooses it on
    outlined training images whose dye was recorded too, where there are some. ``align`` moves
    the masks by the shift that is measured between the dye and transmitted light. ``weight`` is how
    often such a mask is learnt from, beside an outline of the same area.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: Literal["auto"] | Annotated[float, Field(gt=0, lt=1)] = "auto"
    align: bool = False
    weight: float = Field(1.0, gt=0, le=100)


class Recipe(BaseModel):
    """Everything that decides a run, beside the images.

    ``fields`` is the table; ``labels`` keeps the masks of that many training images and makes
    the others unlabelled; ``threshold`` makes masks of probabilities, ``auto`` being the best on
    the validation images (0.5 without any); probabilities are averaged over ``views`` of an image:
    1, or its 4 quarter turns; ``arm`` names the run in tables. ``init`` are the
    network's first weights: ``random``, or those of a model's folder.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Literal["default", "quick", "paper"] = "default"
    arm: str = ""
    fields: Path
    mask_kind: MaskKind
    labels: Literal["all"] | Annotated[int, Field(strict=True, ge=0)]
    split: SplitSettings
    dye: DyeSettings
    chain: ChainSettings
    denoising: DenoisingSettings
    inputs: InputSettings
    network: NetworkSettings
    init: str
    training: TrainingSettings
    method: Literal["supervised", "pseudo_label", "noisy_student"]
    unlabelled: UnlabelledSettings
    threshold: Literal["auto"] | Annotated[float, Field(gt=0, lt=1)]
    views: Views
    seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _unlabelled_images_have_a_place(self) -> Self:
        if self.method == "noisy_student" and self.training.batch < 2:
            raise ValueError(
                f"training.batch is 1: {self.method} fills half of each batch with unlabelled "
                "patches, so it needs 2 or more"
            )
        return self

    def to_yaml(self) -> str:
        """Write the recipe as YAML that `load_recipe` reads back equal."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load_recipe(
    path: str | Path | None = None,
    *,
    preset: str | None = None,
    fields: str | Path | None = None,
    settings: Sequence[str] = (),
) -> Recipe:
    """Put a recipe together: preset, then file, then ``settings``, the later over the earlier.

    Parameters
    ----------
    path
        A YAML recipe; paths in it are relative to it.
    preset
        Name of a preset to start from; the file's own ``preset`` or ``default`` otherwise.
    fields
        The table of fields, where the recipe doesn't name one.
    settings
        ``key=value`` with dots for nested keys, such as ``network.width=32``.

    Returns
    -------
    Recipe

    Raises
    ------
    MitolumeError
        A file is missing or no YAML; a key is unknown (the nearest is named) or a value is off.
    """
    source = str(path) if path else f"preset {preset or 'default'}"
    return complete(read_given(path, fields, settings), source, preset)


def read_given(
    path: str | Path | None,
    fields: str | Path | None,
    settings: Sequence[str],
    start: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Read what a YAML file says, or else begin with ``start``; lay table and settings over it.

    Paths in the file are relative to it.
    """
    given, base = dict(start), Path()
    if path is not None:
        given, base = read_yaml(Path(path)), Path(path).parent
        if given.get("fields"):
            given["fields"] = str(base / str(given["fields"]))
    given = _with_folders(given, base)
    if fields is not None:
        given["fields"] = str(fields)
    for setting in settings:
        given = merge(given, parse_setting(setting))
    return _with_folders(given, Path())


def complete(own: Mapping[str, Any], source: str, preset: str | None = None) -> Recipe:
    """Lay settings, as a YAML recipe holds them, over their preset (or another) and check them.

    ``source`` is how messages name where they come from.

    Raises
    ------
    MitolumeError
        There is no table, a key is unknown or a value is off.
    """
    start = preset or str(own.get("preset") or "default")
    merged = merge(load_preset(start), {k: v for k, v in own.items() if k != "preset"})
    merged["preset"] = start
    if not merged.get("arm"):
        merged["arm"] = start
    if not merged.get("fields"):
        raise MitolumeError(f"{source} names no table of fields; add `fields: fields.csv`"
                            " or --fields fields.csv")  # fmt: skip
    try:
        return Recipe.model_validate(merged)
    except ValidationError as error:
        raise MitolumeError(explain(error, source)) from None


def _with_folders(own: dict[str, Any], base: Path) -> dict[str, Any]:
    """Make folders of models, seen from ``base``, absolute: run folders must find them too."""
    if isinstance(arms := own.get("arms"), dict):  # of a study
        arms = {n: _with_folders(a, base) if isinstance(a, dict) else a for n, a in arms.items()}
        own = own | {"arms": arms}
    if isinstance(own.get("init"), str) and own["init"] != "random":
        own = own | {"init": str((base / own["init"]).absolute())}
    chain = own.get("chain")
    if not isinstance(chain, dict) or not isinstance(chain.get("denoise"), str):
        return own
    if chain["denoise"] in ("none", *DENOISING):
        return own
    return own | {"chain": chain | {"denoise": str((base / chain["denoise"]).absolute())}}


def load_preset(name: str) -> dict[str, Any]:
    """Return the settings of a preset, on top of those of the preset it starts from."""
    own = read_preset(name, PRESETS, "mitolume.runs", "preset")
    parent = own.pop("preset", None)
    return merge(load_preset(parent), own) if parent else own


def read_preset(name: str, known: Sequence[str], package: str, kind: str) -> dict[str, Any]:
    """Return what the file of a preset says, one of the ``known`` ones of a package."""
    if name not in known:
        raise MitolumeError(f"no {kind} {name!r}; there are {', '.join(known)}")
    file = resources.files(package) / "presets" / f"{name}.yaml"
    return dict(yaml.safe_load(file.read_text(encoding="utf-8")))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML recipe, whatever its keys."""
    require_file(path, "recipe")
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise MitolumeError(f"{path} is not a readable YAML recipe: {in_words(error)}") from None
    if not isinstance(content, dict):
        hint = "; a table of fields is named with --fields"
        raise MitolumeError(f"{path} is no recipe: it holds no `key: value` lines{hint}")
    return content


def load_yaml(text: str) -> Any:
    """Read YAML that has an end: a few aliases of aliases are gigabytes, or refer to themselves."""
    try:
        if text.count("[") + text.count("{") > _MOST_BRACKETS:
            raise RecursionError
        content = yaml.safe_load(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    found = [content]
    for one in found:
        found += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        if len(found) > _MOST_VALUES:
            raise ValueError("it refers to itself, or is too large")
    return content


def parse_setting(text: str) -> dict[str, Any]:
    """Turn ``key=value``, with dots for nested keys, into settings."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise MitolumeError(f"--set {text!r} is not key=value, such as network.width=32")
    try:
        parsed = load_yaml(value)
    except (ValueError, yaml.YAMLError):
        parsed = value
    for name in reversed(key.strip().split(".")):
        parsed = {name: parsed}
    return dict(parsed)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay settings over others, key by key; ``steps`` and ``epochs`` replace each other.

    ``minutes`` replace both, but they don't replace minutes: who gives both is asked.
    """
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    # Whoever says one of the ways to give a length means to replace the other.
    ways = ("epochs", "steps"), ("steps", "epochs"), ("minutes", "steps"), ("minutes", "epochs")
    for given, other in ways:
        if over.get(given) is not None and over.get(other) is None and other in merged:
            merged[other] = None
    return merged


def explain(error: ValidationError, source: str, model: type[BaseModel] = Recipe) -> str:
    """Say all that is wrong with settings, each with the nearest name or the allowed values."""
    unknown: list[str] = []
    wrong: dict[str, tuple[Any, list[str]]] = {}  # key: its value, what it should be
    for fault in error.errors():
        location = [str(part) for part in fault["loc"] if not _is_union_branch(str(part))]
        key = ".".join(location)
        if fault["type"] == "extra_forbidden":
            names = _names_at(location[:-1], model)
            inner = fault["input"] if isinstance(fault["input"], Mapping) else ()
            meant = (
                difflib.get_close_matches(str(one), names, n=1, cutoff=0.5)
                for one in (location[-1], *inner)  # a section may be named where there is none
            )
            near = next(filter(None, meant), [])
            nearest = ".".join([*location[:-1], *near])
            hint = f"did you mean {nearest!r}?" if near else f"known are {', '.join(names)}"
            unknown.append(f"unknown key {key!r}: {hint}")
        elif fault["type"] == "model_type":
            names = _names_at(location, model)
            unknown.append(f"{key} needs its own keys below it ({', '.join(names)})")
        else:
            within = [other["loc"][: len(fault["loc"])] for other in error.errors()]
            if fault["type"] == "too_short" and within.count(fault["loc"]) > 1:
                continue  # as what was there is wrong itself
            message = re.sub(r"^(Value error, |(Input|Tuple|List) (?=should))", "", fault["msg"])
            message = message.partition(", unable to parse")[0]
            wrong.setdefault(key, (fault["input"], []))[1].append(message[0].lower() + message[1:])
    told = [
        (f"{key}: " if key else "") + " or ".join(reasons)
        if isinstance(value, Mapping)
        else f"{key} is {value!r}: it {' or it '.join(reasons)}"
        for key, (value, reasons) in wrong.items()
    ]
    return f"{source}: " + "; ".join(unknown + told)


def differences(own: Recipe, asked: Recipe) -> list[str]:
    """Say in which settings a recipe differs from a folder's: ``seed was 0 and is 1``."""
    old = dict(_flat(own.model_dump(mode="json")))
    new = dict(_flat(asked.model_dump(mode="json")))
    # The folder has its own table, and "auto" was settled when the run began.
    settled = {
        "training.precision": "auto",
        "inputs.planes": "auto",
        "inputs.step_um": None,
        "unlabelled.teacher": "auto",
    }
    ignored = {"fields", *(key for key, unsettled in settled.items() if new[key] == unsettled)}
    if new["training.minutes"] is not None:
        ignored |= {"training.minutes", "training.steps", "training.epochs"}
    changed = [key for key in old if key not in ignored and old[key] != new.get(key)]
    return [f"{key} was {old[key]} and is {new.get(key)}" for key in changed]


def _flat(nested: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in nested.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _is_union_branch(part: str) -> bool:
    return part in ("int", "float") or part.startswith(("literal[", "constrained-"))


def _names_at(location: Sequence[str], model: Any) -> list[str]:
    for name in location:
        model = model.model_fields[name].annotation
    return list(model.model_fields)
