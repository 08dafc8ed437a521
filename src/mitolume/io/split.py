"""Draws roles and label budgets so that no specimen leaks. Opens no image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator
from pydantic import Field as Setting

from mitolume.errors import MitolumeError
from mitolume.io.fields import Field, with_planes


class SplitSettings(BaseModel):
    """How rows without a role are divided: shares of the specimens, and the seed of the draw."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    validation: float = Setting(0.2, ge=0, lt=1)
    test: float = Setting(0.2, ge=0, lt=1)
    seed: int = Setting(0, ge=0)

    @model_validator(mode="after")
    def _leaves_training(self) -> SplitSettings:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together leave nothing to train on")
        return self


def assign_roles(fields: Sequence[Field], settings: SplitSettings) -> list[Field]:
    """Give every row a role, all rows of a specimen on the same side.

    A specimen with a role in some rows keeps it in the others; one with unlabelled rows is for
    training. The rest are drawn: test first, then validation, at least one specimen each while
    that leaves one for training. A role that the table itself uses is not drawn.

    Parameters
    ----------
    fields
        Rows, some with an empty role.
    settings
        Shares and seed.

    Returns
    -------
    list of Field
        The same rows in the same order, all with a role.
    """
    given: dict[str, str] = {}
    for row in fields:
        if row.role:
            given[row.specimen] = "train" if row.role == "unlabelled" else row.role
    explicit = {row.role for row in fields if row.role and (row.mask or row.fluorescence)}
    free = sorted({row.specimen for row in fields if not row.role} - given.keys())
    order = np.random.default_rng([settings.seed, 1]).permutation(len(free))
    queue = [free[i] for i in order]
    has_training = any(role == "train" for role in given.values()) and "train" in explicit
    for role, share in (("test", settings.test), ("validation", settings.validation)):
        if role in explicit or share == 0:
            continue
        spare = len(queue) - (0 if has_training else 1)
        for _ in range(min(max(1, round(share * len(free))), spare)):
            given[queue.pop()] = role
    given |= dict.fromkeys(queue, "train")
    return [row if row.role else replace(row, role=given[row.specimen]) for row in fields]


def choose_labelled(fields: Sequence[Field], labels: int | None, seed: int) -> list[Field]:
    """Keep the masks of ``labels`` training images and make the others that have one unlabelled.

    Drawn by the seed, one specimen after the other, so that a small budget still sees many. The
    rows have roles and written-out planes; each plane is one image, and a row of which only some
    are kept is cut in two. Rows without a mask, which train by their dye, are not counted and stay.
    ``labels`` None keeps all.
    """
    if labels is None:
        return list(fields)
    images: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for index, row in enumerate(fields):
        if row.role == "train" and row.mask:
            images[row.specimen] += [(index, z) for z in row.planes or ()]
    total = sum(map(len, images.values()))
    if labels > total:
        raise MitolumeError(
            f"labels is {labels}, but there are only {total} labelled training images"
        )
    rng = np.random.default_rng([seed, 2])
    queues = [[images[s][i] for i in rng.permutation(len(images[s]))] for s in sorted(images)]
    queues = [queues[i] for i in rng.permutation(len(queues))]
    turns = [queue[turn] for turn in range(max(map(len, queues), default=0)) for queue in queues
             if turn < len(queue)]  # fmt: skip
    kept = set(turns[:labels])
    chosen: list[Field] = []
    for index, row in enumerate(fields):
        if row.role != "train" or not row.mask:
            chosen.append(row)
            continue
        for role, is_kept in (("train", True), ("unlabelled", False)):
            planes = [z for z in row.planes or () if ((index, z) in kept) == is_kept]
            if planes:
                chosen.append(replace(with_planes(row, planes), role=role))
    return chosen
