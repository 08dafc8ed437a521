"""The settings of training."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mitolume.models.settings import DenoiserNetworkSettings


class _Settings(BaseModel):
    """Settings, of which earlier versions had more.

    ``former`` ones are left aside where a recipe asks for what is now always done, and refused
    elsewhere.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    former: ClassVar[dict[str, tuple[object, ...]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _without_former(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        for key, done in cls.former.items():
            if given.get(key, done[0]) not in done:
                raise ValueError(f"`{key}` is no longer a setting; it is always {done[0]}")
        return {key: value for key, value in given.items() if key not in cls.former}


class LoopSettings(_Settings):
    """How long a network is trained, and at which rate.

    The length is ``steps`` of ``batch`` patches, or ``epochs`` (passes over the training images),
    not both. ``learning_rate`` is that of Adam; ``schedule`` is ``cosine`` (a short warm-up, then
    down to 0) or ``constant``. ``checks`` is the number of times the validation images are scored.
    ``precision`` ``auto`` is bfloat16 where the machine supports it, float32 elsewhere.
    """

    steps: int | None = Field(1500, ge=1)
    epochs: int | None = Field(None, ge=1)
    batch: int = Field(8, ge=1)
    patch: int = Field(128, ge=16, multiple_of=16)
    learning_rate: float = Field(3e-3, gt=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    checks: int = Field(20, ge=1)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if [self.steps, self.epochs, getattr(self, "minutes", None)].count(None) != 2:
            raise ValueError("give one of `steps`, `epochs` and (of a run) `minutes`, not several")
        return self

    def for_images(self, n_images: int) -> Self:
        """Return the settings with the length in steps; ``epochs`` are checked one by one."""
        if self.epochs is None:
            return self
        steps = -(-n_images // self.batch) * self.epochs
        return self.model_copy(update={"steps": steps, "epochs": None, "checks": self.epochs})

    @property
    def steps_per_check(self) -> int:
        """Number of steps from one check to the next; the last interval may be shorter."""
        assert self.steps is not None, "for_images says how many steps the epochs are"
        return -(-self.steps // self.checks)


class TrainingSettings(LoopSettings):
    """How one segmentation model is trained.

    ``minutes``, instead of steps, are those of the whole run: how many steps that is on a machine
    is measured when a run begins. ``patch`` is the side of a patch in pixels of the model's grid, a
    multiple of 16. ``augment``: ``flips`` is flips and quarter turns, ``full`` changes gain, offset
    and noise too, ``photometric`` also gamma, blur and shading, for images of another microscope.
    ``average``: the model is a moving average of the weights over about this share of the steps;
    0 for no average.
    """

    minutes: float | None = Field(None, gt=0)
    loss: Literal["bce", "dice_bce"] = "dice_bce"
    augment: Literal["none", "flips", "full", "photometric"] = "full"
    average: float = Field(0.1, ge=0, le=1)

    @property
    def decay(self) -> float | None:
        """Decay per step of the moving average of the weights; None for no average."""
        assert self.steps is not None, "for_images says how many steps the epochs are"
        window = self.average * self.steps
        return 1 - 1 / window if window > 1 else None

    @model_validator(mode="after")
    def _enough_to_normalise(self) -> Self:
        if self.batch * (self.patch // 16) ** 2 < 2:
            raise ValueError(
                "patch 16 needs a batch of 2 or more: normalisation averages over both"
            )
        return self


class UnlabelledSettings(_Settings):
    """How the unlabelled images are used, by the methods that use them.

    ``teacher`` says where their masks come from: the ``dye``, where its fluorescence was recorded
    beside them; a ``proposal``, the probabilities that the table names for them; or, with
    ``self``, from model 1. ``auto`` takes for each image the first of these that there is. Masks
    from the dye are labels of model 1, whatever the ``method``.
    ``length`` and ``rate`` are the steps and the learning rate of model 2, relative to those of
    model 1. ``pseudo_label`` ignores them: as published, its training is as long as model 1's.
    """

    former = {"start": ("teacher",), "weight": (1.0,)}

    teacher: Literal["auto", "dye", "proposal", "self"] = "auto"
    length: float = Field(0.1, gt=0, le=10)
    rate: float = Field(0.3, gt=0, le=10)


class DenoisingSettings(LoopSettings):
    """How a denoiser is trained.

    ``planes``: ``all`` of a stack, those in ``focus``, or numbers such as ``3-20``.
    """

    # Each method has its own.
    former = {"directions": ("both", "forward"), "protect": (True, False)}

    steps: int | None = Field(1000, ge=1)
    batch: int = Field(4, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    checks: int = Field(12, ge=1)
    planes: str = "all"
    network: DenoiserNetworkSettings = DenoiserNetworkSettings()
