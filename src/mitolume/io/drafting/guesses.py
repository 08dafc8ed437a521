"""Role and condition of images, guessed from names. Opens no file."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from mitolume.io.drafting.matches import Item, Pair
from mitolume.io.drafting.names import CONDITIONS, NNUNET_ROLES, ROLE_WORDS, Word, split_words
from mitolume.io.fields import ROLES

_CONTROLS = ("control", "DMSO", "vehicle")
GENOTYPES = ("wild type", "knockout", "knockdown", "mutant")
_TURNS = {0, 45, 90, 180, 270}


@dataclass(frozen=True)
class Guess:
    """A column's values, one for each image, and a sentence on where they are from."""

    values: list[str]
    said: str


# --- role ---------------------------------------------------------------------------------------


def guess_roles(pairs: Sequence[Pair]) -> Guess:
    """Guess roles from folders, else from the first or last word of file names.

    Returns
    -------
    Guess
        ``""`` where nothing is said; ``unlabelled`` also where a role needs a mask and none is
        there.
    """
    roles, source = [_folder_role(pair.image.file.folders) for pair in pairs], "from folder names"
    if not any(roles):
        roles, source = [_name_role(pair.image) for pair in pairs], "from file names"
        named = {role for role, pair in zip(roles, pairs, strict=True) if pair.mask}
        if "" in named or not named > {"train"}:
            # A file called test_1 is often just that; only beside train_1 it means the role.
            return Guess([""] * len(pairs), "none is named; drawn by specimen when you run")
    elif not {"train", ""} & set(roles) and set(roles) != {"unlabelled"}:
        roles = ["unlabelled" if role == "unlabelled" else "" for role in roles]
        source += ", but none says train, so validation and test are not believed"
    unmasked = Counter(r for r, p in zip(roles, pairs, strict=True) if r and not p.mask)
    roles = ["unlabelled" if r and not p.mask else r for r, p in zip(roles, pairs, strict=True)]
    found = Counter(roles)
    counts = ", ".join(
        f"{found[r]} {r or 'to be drawn when you run'}" for r in (*ROLES, "") if found[r]
    )
    said = f"{source}: {counts}"
    if lost := [f"{unmasked[role]} of {role}" for role in ROLES[1:3] if unmasked[role]]:
        said += f" ({' and '.join(lost)} have no mask, so they are unlabelled)"
    return Guess(roles, said)


def _folder_role(folders: Sequence[str]) -> str:
    for part in reversed(folders):
        words = split_words(part)
        nnunet = any(word.kind for word in words)
        for word in words:
            if nnunet and word.text in NNUNET_ROLES:
                return NNUNET_ROLES[word.text]
            if word.text in ROLE_WORDS:
                return ROLE_WORDS[word.text]
    return ""


def _name_role(item: Item) -> str:
    words = [word for word in item.words if word.text]
    ends = words[:1] + words[-1:]
    return next((role for word in ends if (role := ROLE_WORDS.get(word.text, ""))), "")


# --- condition ----------------------------------------------------------------------------------


def guess_conditions(pairs: Sequence[Pair]) -> Guess:
    """Guess treatments and genotypes from known words; the innermost name that has one counts.

    A dose is told only where a treatment has several.
    """
    found = [_conditions(pair.image) for pair in pairs]
    doses: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for names, dose in found:
        doses[names] |= {dose} - {""}
    controls = {name for names, _ in found for name in names} & set(_CONTROLS)
    values = []
    for names, dose in found:
        if len(controls) == 1:  # where only one kind of control is there, it is the control
            shown = ["control" if name in controls else name for name in names]
        else:
            shown = list(names)
        values.append(" + ".join(shown) + (f" {dose}" if len(doses[names]) > 1 else "").rstrip())
    counts = [f"{value or 'not told'} {n}" for value, n in Counter(values).items()]
    said = f"from known words in names: {', '.join(counts)}" if any(values) else ""
    return Guess(values, said)


def _conditions(item: Item) -> tuple[tuple[str, ...], str]:
    """Return genotype and treatment, and the dose that stands beside the treatment."""
    genotype: list[str] = []
    treatment: list[str] = []
    dose = ""
    for part in (item.file.stem, *reversed(item.file.folders)):
        words = split_words(part)
        found = [
            CONDITIONS[word.text]
            for word, after in zip_longest(words, words[1:])
            if is_condition(word, after)
        ]
        genotype = genotype or [name for name in found if name in GENOTYPES]
        if not treatment and (treatment := _treatment(found)) and treatment[0] not in _CONTROLS:
            dose = " ".join(w.shown for w in words if w.text.startswith("dose "))
    return tuple(dict.fromkeys(genotype + treatment)), dose


def _treatment(found: list[str]) -> list[str]:
    if "control" in found:  # "FCCP control" is a control
        return ["control"]
    drugs = [name for name in found if name not in (*_CONTROLS, *GENOTYPES, "treated")]
    return drugs or [name for name in found if name not in GENOTYPES][:1]


def is_condition(word: Word, after: Word | None = None) -> bool:
    """Tell whether a word names a condition; ``AA`` only in capitals, ``rot 90`` is a turn."""
    if word.text not in CONDITIONS:
        return False
    if word.text == "aa":
        return word.shown.startswith("AA")
    numbers = {word.key[1], after.key[1] if after and not after.text else -1}
    return word.text != "rot" or not numbers & _TURNS


def is_said(word: Word) -> bool:
    """Tell whether a word is a role, a condition or a dose, and so not part of a specimen."""
    return (
        word.text in ROLE_WORDS
        or word.text in NNUNET_ROLES
        or word.text.startswith("dose ")
        or is_condition(word)
    )
