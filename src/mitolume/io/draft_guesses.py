"""Role, specimen and condition of images, guessed from names. Opens no file."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mitolume.errors import some_names
from mitolume.io.draft_pairs import Found, Pair, Word, plain_words, split_words
from mitolume.io.table import ROLES

ROLE_WORDS = {
    "train": "train", "training": "train", "tr": "train", "val": "validation",
    "valid": "validation", "validation": "validation", "test": "test", "testing": "test",
    "ts": "test", "unlabelled": "unlabelled", "unlabeled": "unlabelled",
}  # fmt: skip
CONDITIONS = {
    "control": "control", "ctrl": "control", "untreated": "control", "mock": "control",
    "kontrolle": "control", "kontrollen": "control", "unbehandelt": "control",
    "ctl": "control", "ktrl": "control",
    "behandelt": "treated",
    "dmso": "DMSO", "vehicle": "vehicle", "fccp": "FCCP", "cccp": "CCCP",
    "oligomycin": "oligomycin", "antimycin": "antimycin A", "rotenone": "rotenone",
    "rotenon": "rotenone", "hypoxie": "hypoxia", "wildtyp": "wild type",
    "treated": "treated", "starved": "starved", "starvation": "starved", "hypoxia": "hypoxia",
    "wt": "wild type", "wildtype": "wild type", "ko": "knockout", "knockout": "knockout",
    "mutant": "mutant",
}  # fmt: skip
# Words that number what may leak, and words that number nearly the same picture.
_LABELS = {
    "specimen": """movie mov video m dish plate well mouse mice animal rat patient donor subject
        slide coverslip exp experiment replicate rep sample specimen culture cell cells stack
        schale schälchen platte maus präparat probe kultur zelle zellen""",
    "date": "day tag",
    "neighbour": """z zs slice slices plane planes section sections t time timepoint frame frames
        crop crops tile tiles patch patches roi x y p sk fk fl copy denoised filtered processed
        max mip projection before after ch channel""",
}
_LABEL = {word: label for label, words in _LABELS.items() for word in words.split()}
_PARTS_OF_DISH = {"movie", "mov", "video", "m", "cell", "cells", "stack", "zelle", "zellen"}
_DATE = re.compile(r"(?:20)?\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])")
_ENOUGH = 3  # specimens: one each for training, validation and test
_OWN = (
    "nothing in the names tells what belongs together, so each file is its own; if they are "
    "planes, frames or crops of one sample, fill in column specimen, or scores will be too good"
)


@dataclass(frozen=True)
class _Part:
    """A word of a path that may tell specimens apart, or a folder's whole name.

    ``label`` is what it numbers: a word for specimens, "date", "folder" with its depth,
    "neighbour", or "" where that isn't known.
    """

    label: str
    value: tuple[str, int]
    shown: str = field(compare=False)


@dataclass(frozen=True)
class Guess:
    """A column's values, one for each image, and a sentence on where they are from."""

    values: list[str]
    said: str


def guess_roles(pairs: Sequence[Pair]) -> Guess:
    """Guess roles from folders, else from the first word of file names; "" where none is said.

    Roles are believed only where some image is for training, and need a mask, or the image is
    unlabelled.
    """
    source = "from folder names"
    roles = [_role(reversed(pair.image.folders)) for pair in pairs]
    if not any(roles):
        source = "from the first word of file names"
        roles = [_role([_first_word(pair.image)]) for pair in pairs]
        # A file called test_1 or train is often just that; only beside the other it means the role.
        named = {role for role, pair in zip(roles, pairs, strict=True) if pair.mask}
        if "" in named or not named > {"train"}:
            return Guess([""] * len(pairs), "none is named; drawn by specimen when you run")
    if "train" not in roles and set(roles) & {"validation", "test"}:
        roles = [role if role == "unlabelled" else "" for role in roles]
        source += ", but none says train, so validation and test are not believed"
    lost = Counter(r for r, p in zip(roles, pairs, strict=True) if not p.mask and r in ROLES[1:3])
    roles = ["unlabelled" if r and not p.mask else r for r, p in zip(roles, pairs, strict=True)]
    found = Counter(roles)
    counts = [f"{found[r]} {r or 'to be drawn when you run'}" for r in (*ROLES, "") if found[r]]
    said = f"{source}: {', '.join(counts)}"
    if lost:
        of_roles = " and ".join(f"{count} of {role}" for role, count in lost.items())
        said += f" ({of_roles} have no mask, so they are unlabelled)"
    return Guess(roles, said)


def _first_word(image: Found) -> str:
    return next((word.text for word in split_words(image.stem)), "")


def _role(parts: Iterable[str]) -> str:
    for part in parts:
        words = [word.text for word in split_words(part)]
        # "Tr" and "Ts" are nnU-Net's, beside "images".
        known = [w for w in words if w in ROLE_WORDS and (w not in ("tr", "ts") or len(words) > 1)]
        if known:
            return ROLE_WORDS[known[0]]
    return ""


def guess_conditions(pairs: Sequence[Pair]) -> Guess:
    """Guess treatments and genotypes from known words; the innermost name that has one counts."""
    values = [condition_of((p.image.stem, *reversed(p.image.folders))) for p in pairs]
    counts = [f"{value or 'not told'} {number}" for value, number in Counter(values).items()]
    return Guess(values, f"from names: {', '.join(counts)}" if any(values) else "")


def condition_of(names: Iterable[str]) -> str:
    """Guess the treatment or genotype from the names of a file and its folders, innermost first."""
    known = ([CONDITIONS[w.text] for w in split_words(n) if w.text in CONDITIONS] for n in names)
    return " + ".join(dict.fromkeys(next(filter(None, known), [])))


def guess_specimens(pairs: Sequence[Pair], conditions: Sequence[str]) -> Guess:
    """Guess what may leak from one image to another: the coarsest thing that names number.

    Words for planes, frames, crops and tiles never tell specimens apart. The coarsest level with
    at least three specimens is taken; where nothing known is numbered, the folders; else the
    names without planes, frames and crops. Where the same names come again under another condition
    or role, they are taken for different specimens. ``""`` for all where each file is its own.
    """
    rows = [_parts(pair.image) for pair in pairs]
    roles = [_role((*pair.image.folders[::-1], _first_word(pair.image))) for pair in pairs]
    tags = [tuple(filter(None, both)) for both in zip(roles, conditions, strict=True)]
    again = defaultdict(set)
    for row, tag in zip(rows, tags, strict=True):
        again[tuple(row)].add(tag)
    restart = any(len(found) > 1 for found in again.values())
    if not restart:
        tags = [()] * len(pairs)
    labelled = [n for n, pair in enumerate(pairs) if pair.mask] or range(len(pairs))
    # What comes again is told apart by its condition, so that a day needs no dishes for it.
    held = [""] * len(pairs) if restart else conditions
    labels = _level(rows, [(rows[n], tags[n]) for n in labelled], held)
    folders = {part.label for row in rows for part in row if part.label.startswith("folder")}
    ways = [labels, [*folders], None]  # a name without what others number goes with its folder
    keys = [
        (tag, tuple(next(filter(None, (_chosen(row, way) for way in ways)), ())))
        for tag, row in zip(tags, rows, strict=True)
    ]
    number = len(set(keys))
    if len(pairs) == 1:
        return Guess([""], "")
    how = "by the names without planes, frames and crops"
    if labels:
        how = f"by {' and '.join(labels)} in the names"
    if restart:
        how += " (names that come again under another role or condition are other specimens)"
    if any(label.startswith("folder") for label in labels):
        how += " (give versions of one picture in several folders the same specimen)"
    if number == len(pairs):
        return Guess([""] * number, f"{how}: each file is one of its own" if labels else _OWN)
    names: dict[object, str] = {}
    for key in keys:
        name = "_".join([*key[0], *(part.shown for part in key[1])]) or "all"
        if key not in names:
            names[key] = name if name not in names.values() else f"{name} #{len(names) + 1}"
    count = "one specimen" if number == 1 else f"{number} specimens"
    return Guess([names[key] for key in keys], f"{how}: {count} ({some_names(names.values())})")


def _chosen(row: Sequence[_Part], labels: Sequence[str] | None) -> list[_Part]:
    """Return the parts with these labels; without any, all but neighbours."""
    return [p for p in row if (p.label in labels if labels else p.label != "neighbour")]


def _level(
    rows: Sequence[Sequence[_Part]],
    labelled: Sequence[tuple[Sequence[_Part], tuple[str, ...]]],
    conditions: Sequence[str],
) -> list[str]:
    """Choose the labels that tell specimens apart; none where nothing known is numbered.

    A day with several conditions is told apart by its dishes or animals, if they are numbered.
    """
    known = dict.fromkeys(p.label for row in rows for p in row if p.label not in ("", "neighbour"))
    varying = [label for label in known if len({tuple(_chosen(r, [label])) for r in rows}) > 1]
    for end in range(1, len(varying) + 1):
        if len({(tag, *_chosen(row, varying[:end])) for row, tag in labelled}) >= _ENOUGH:
            return _of_days(rows, varying, end, conditions)
    return varying


def _of_days(
    rows: Sequence[Sequence[_Part]], varying: list[str], end: int, conditions: Sequence[str]
) -> list[str]:
    """Add labels to the first ones until no day alone stands for several conditions, if it can."""
    by_day = [{p.label for p in _chosen(row, varying[:end])} == {"date"} for row in rows]
    for further in range(end, len(varying) + 1):
        labels = [*varying[:end], *(la for la in varying[end:further] if la not in _PARTS_OF_DISH)]
        held = defaultdict(set)
        for row, condition, is_day in zip(rows, conditions, by_day, strict=True):
            if is_day:
                held[tuple(_chosen(row, labels))].add(condition)
        if all(len(of) == 1 for of in held.values()):
            return labels
    return varying[:end]


def _parts(image: Found) -> list[_Part]:
    """Split a path into what may tell specimens apart, folders first, each once.

    A folder named after a treatment (*FCCP 1 uM*) tells none where its files are numbered.
    """
    names, parts = _name_parts(plain_words(image.stem)), list[_Part]()
    numbered = any(part.label not in ("", "neighbour") for part in names)
    for depth, folder in enumerate(image.folders):
        words = plain_words(folder)
        found = _name_parts(words)
        known = [part for part in found if part.label]
        if any(part.label != "neighbour" for part in known):
            parts += known
        elif any(part.label == "" for part in found) and not (
            numbered and any(word.text in CONDITIONS for word in words)
        ):
            parts.append(_Part(f"folder {depth + 1}", (folder.lower(), -1), folder))
    return parts + [part for part in names if part not in parts or not part.label]


def _name_parts(words: Sequence[Word]) -> list[_Part]:
    """Say of each word what it numbers; leave out roles, conditions and channels."""
    parts: list[_Part] = []
    for place, word in enumerate(words):
        before = words[place - 1] if place else Word("")
        label = _LABEL.get(word.text, "")
        kind = "" if before.number else _LABEL.get(before.text, "")
        lettered = kind == "specimen" and len(word.text) == 1 and not label and not word.number
        if (kind and not word.text) or lettered:  # dish 2, dish A
            value, shown = (before.text + word.text, word.key[1]), before.shown + word.shown
            parts[-1:] = [_Part(before.text if kind == "specimen" else kind, value, shown)]
        elif word.text in ROLE_WORDS or word.text in CONDITIONS:
            parts += [_Part("", ("", word.key[1]), word.number)] if word.number else []
        elif (label == "date" and word.number) or (not word.text and _DATE.fullmatch(word.number)):
            parts.append(_Part("date", word.key, word.shown))
        elif word.text.startswith("well ") or (label == "specimen" and word.number):
            parts.append(_Part(word.text.split(" ")[0], word.key, word.shown))
        elif label == "neighbour" and (word.number or len(word.text) > 1):
            parts.append(_Part("neighbour", word.key, word.shown))
        else:
            parts.append(_Part("", word.key, word.shown))
    return parts
