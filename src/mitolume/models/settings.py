"""The settings of a network, and of the views of an image that it averages."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

# Number of views of an image that a prediction averages: the image alone, or its quarter turns.
# Files of earlier versions may ask for 8, with mirror images, which were no better.
Views = Annotated[Literal[1, 4], BeforeValidator(lambda views: 4 if views == 8 else views)]


class NetworkSettings(BaseModel):
    """Name and width of a network.

    ``width`` is the number of channels at full resolution; it doubles at each of four levels
    down (64 gives the published 64 to 1024).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["unet", "unetplusplus"] = "unet"
    width: int = Field(16, ge=2, le=256)


class InputSettings(BaseModel):
    """What a network that segments sees of an image.

    ``channels`` are names, the image's own first; empty for one channel, whatever its name.
    ``planes`` is how many planes of each channel it sees, an odd number: the plane itself and
    those around it. ``step_um`` is how far apart in the z-stack they are, in µm; None for planes
    that follow each other. ``auto`` planes are chosen when a run begins, from the table's z-steps.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: tuple[str, ...] = ()
    planes: Literal["auto"] | Annotated[int, Field(ge=1, le=31)] = "auto"
    step_um: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _odd_and_named_once(self) -> Self:
        if self.planes != "auto" and self.planes % 2 == 0:
            raise ValueError(
                f"planes is {self.planes}, but must be odd: as many planes before as behind"
            )
        if len({name.casefold() for name in self.channels}) < len(self.channels):
            raise ValueError("channels names one channel twice")
        return self

    @property
    def count(self) -> int:
        """Number of planes, of all channels together, that the network takes."""
        assert self.planes != "auto", "a run settles how many planes there are when it begins"
        return max(1, len(self.channels)) * self.planes

    def offsets(self, z_step_um: float | None) -> tuple[int, ...]:
        """Return where the planes lie in a stack, from the plane itself outward.

        Parameters
        ----------
        z_step_um
            Distance between the planes of the stack in µm; None where unknown.

        Examples
        --------
        >>> InputSettings(planes=5).offsets(None)
        (0, -1, 1, -2, 2)
        >>> InputSettings(planes=3, step_um=1.0).offsets(0.3)
        (0, -3, 3)
        """
        assert self.planes != "auto", "a run settles how many planes there are when it begins"
        apart = self.step_um / z_step_um if self.step_um and z_step_um else 1.0
        steps = [max(n, round(n * apart)) for n in range(1, self.planes // 2 + 1)]
        return (0, *(sign * step for step in steps for sign in (-1, 1)))


class DenoiserNetworkSettings(NetworkSettings):
    """A network that denoises.

    ``norm`` is ``batch``, as in the published study, or ``none``. With ``residual`` the network
    predicts what to add to the plane (or to the mean of its neighbours), not the plane itself.
    """

    norm: Literal["none", "batch"] = "none"
    residual: bool = True
