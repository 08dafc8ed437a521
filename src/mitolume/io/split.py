"""Draws roles and label budgets so that no specimen leaks, and samples. Opens no image."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator
from pydantic import Field as Setting

from mitolume.errors import MitolumeError
from mitolume.io.fields import Field, with_planes

FEWEST_OF_CONDITION = 3  # specimens: one to test, and others to learn from and to choose by
Item = TypeVar("Item")


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

    A specimen with a role in some rows keeps it in the others. The rest are drawn: test first, then
    validation, at least one specimen each while that leaves one for training; for test, at least
    one of each condition that has `FEWEST_OF_CONDITION` specimens. A role that the table itself
    uses is not drawn. Specimens with unlabelled rows are for training, unless there are too few
    without: then they are drawn too, the others first.

    Parameters
    ----------
    fields
        Rows, some with an empty role.
    settings
        Shares and seed.

    Returns
    -------
    list of Field
        The rows in the same order, all with a role, without the unlabelled ones of specimens that
        were drawn for test or validation.
    """
    given = {r.specimen: r.role for r in fields if r.role and r.role != "unlabelled"}
    explicit = {row.role for row in fields if row.role and (row.mask or row.fluorescence)}
    drawn = {"test": settings.test, "validation": settings.validation}
    drawn = {role: share for role, share in drawn.items() if role not in explicit and share}
    mixed = {row.specimen for row in fields if row.role == "unlabelled"} - given.keys()
    labelled = {row.specimen for row in fields if not row.role} - given.keys()
    rng = np.random.default_rng([settings.seed, 1])
    queue, others = (
        [names[i] for i in rng.permutation(len(names))]
        for names in (sorted(labelled - mixed), sorted(labelled & mixed))
    )
    has_training = "train" in explicit
    if len(queue) + has_training <= len(drawn):
        queue = others + queue
    else:
        has_training |= bool(others)
    n = len(queue)
    queue, n_conditions = _in_turn(queue, fields)
    fewest = {"test": max(1, n_conditions), "validation": 1}
    for role, share in drawn.items():
        spare = len(queue) - (not has_training)
        for _ in range(min(max(fewest[role], round(share * n)), spare)):
            given[queue.pop()] = role
    roles = [row.role or given.get(row.specimen, "train") for row in fields]
    return [
        replace(row, role=role)
        for row, role in zip(fields, roles, strict=True)
        if role != "unlabelled" or given.get(row.specimen, "train") == "train"
    ]


def _in_turn(names: Sequence[str], fields: Sequence[Field]) -> tuple[list[str], int]:
    """Order specimens that are drawn from the end: one of each condition, then all by their share.

    Also return how many conditions have specimens enough to be sure of a turn.
    """
    treated: dict[str, set[str]] = defaultdict(set)
    for row in fields:
        if row.role != "unlabelled":
            treated[row.specimen].add(row.condition)
    condition = {name: frozenset(treated[name]) for name in names}
    known, turn = Counter(condition.values()), Counter[frozenset[str]]()
    many = {own for own, count in known.items() if count >= FEWEST_OF_CONDITION}
    places: dict[str, tuple[bool, float]] = {}
    for name in reversed(names):
        own = condition[name]
        turn[own] += 1
        places[name] = own not in many or turn[own] > 1, turn[own] / (known[own] + 1)
    return sorted(names, key=places.__getitem__, reverse=True), len(many)


def choose_labelled(fields: Sequence[Field], labels: int | None, seed: int) -> list[Field]:
    """Keep the masks of ``labels`` training images and make the others that have one unlabelled.

    Drawn by the seed, one specimen after the other, so that a small budget still sees many. The
    rows have roles and written-out planes; each plane is one image, and a row of which only some
    are kept is cut in two. Rows that train by their dye, as those of an earlier run do by masks
    that were made of it, are not counted and stay. ``labels`` None keeps all.
    """
    if labels is None:
        return list(fields)
    images: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for index, row in enumerate(fields):
        if row.role == "train" and row.is_outlined:
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
        if row.role != "train" or not row.is_outlined:
            chosen.append(row)
            continue
        for role, is_kept in (("train", True), ("unlabelled", False)):
            planes = [z for z in row.planes or () if ((index, z) in kept) == is_kept]
            if planes:
                chosen.append(replace(with_planes(row, planes), role=role))
    return chosen


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """Return at most so many items, spread over all from end to end.

    Examples
    --------
    >>> spread("abcdefghi", 3)
    ['a', 'e', 'i']
    """
    return [
        items[i] for i in np.linspace(0, len(items) - 1, min(len(items), most)).round().astype(int)
    ]
