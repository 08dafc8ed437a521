"""Batch and specimen of images, guessed from names: what may leak. Opens no file."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from mitolume.io.drafting.guesses import GENOTYPES, Guess, is_said
from mitolume.io.drafting.layouts import plain_words
from mitolume.io.drafting.listing import few
from mitolume.io.drafting.matches import Item, Pair
from mitolume.io.drafting.names import CONDITIONS, ROLE_WORDS, Word, split_words

_ENOUGH = 3  # specimens: one each for training, validation and test
Label = str | tuple[str, int]  # a known word, or an unknown one by its place


@dataclass(frozen=True)
class _Part:
    """A piece of a path that may tell specimens apart; the same label means the same thing."""

    label: Label
    value: tuple[str, int]
    shown: str
    unit: str


def guess_batches(pairs: Sequence[Pair]) -> Guess:
    """Guess the batch from dates and days in names, where there are several."""
    values = [
        "_".join(part.shown for part in _parts(pair.image) if part.unit == "batch")
        for pair in pairs
    ]
    several = len(set(values)) > 1
    said = f"dates or days in names: {few(sorted(set(values) - {''}))}" if several else ""
    return Guess(values if several else [""] * len(pairs), said)


def guess_specimens(pairs: Sequence[Pair]) -> Guess:
    """Guess what may leak from one image to another: the coarsest thing that names number.

    Words for planes, frames, crops and tiles never tell specimens apart; places in a dish do only
    where nothing coarser does. The coarsest level with at least three specimens is taken.

    Returns
    -------
    Guess
        ``""`` for all where each file is a specimen of its own.
    """
    lettered = _lettered(pairs)
    rows = [_parts(pair.image, lettered=lettered) for pair in pairs]
    tags = [_tag(pair.image) for pair in pairs]
    restart = _names_restart(rows, tags)
    if not restart:
        tags = [()] * len(pairs)
    labelled = [n for n, pair in enumerate(pairs) if pair.mask] or range(len(pairs))
    labels, how = _level(rows, [(rows[n], tags[n]) for n in labelled])
    keys: list[Hashable] = []
    shown: list[str] = []
    for row, tag in zip(rows, tags, strict=True):
        chosen = [part for part in row if part.label in labels]
        # A name without the chosen words is told apart by all that it has.
        chosen = chosen or [part for part in row if part.unit != "fine"]
        keys.append((tag, tuple((part.label, part.value) for part in chosen)))
        shown.append("_".join([*tag, *(part.shown for part in chosen)]) or "all")
    first = dict(zip(reversed(keys), reversed(shown), strict=True))
    number = len(first)
    if len(pairs) == 1:
        return Guess([""], "")
    again = (
        "; the same names under another role or condition are different specimens"
        if restart
        else ""
    )
    if number == len(pairs):
        own = f"{how}: each file is its own{again}"
        return Guess([""] * number, own if labels else _FILES)
    # Two specimens must not come out with one name.
    clash = {name for name, n in Counter(first.values()).items() if n > 1}
    names = {key: f"{s} #{i}" if s in clash else s for i, (key, s) in enumerate(first.items())}
    examples = few(list(dict.fromkeys(names[key] for key in keys)))
    count = "one specimen" if number == 1 else f"{number} specimens"
    return Guess([names[key] for key in keys], f"{how}: {count} ({examples}){again}")


_FILES = (
    "nothing in the names tells what belongs together, so each file is its own; if they are "
    "planes, frames or crops of one sample, fill in column specimen, or scores will be too good"
)


def _level(
    rows: list[list[_Part]], labelled: list[tuple[list[_Part], tuple[str, ...]]]
) -> tuple[set[Label], str]:
    """Choose what tells specimens apart: labels, and how to say it."""
    varying = _varying(rows)
    units = _units(rows, set(varying))
    batches = [label for label in varying if units[label] == "batch"]
    coarse = [label for label in varying if units[label] == "coarse"]
    if not coarse:
        coarse, batches = batches, []
    for end in range(1, len(coarse) + 1):
        chosen = {*batches, *coarse[:end]}
        if _count(labelled, chosen) >= _ENOUGH or end == len(coarse):
            return chosen, f"by {_say(coarse[:end])} in the names"
    positions = [label for label in varying if units[label] == "position"]
    if positions:
        return set(positions), f"by {_say(positions)} in the names (nothing coarser is numbered)"
    if any(units[label] == "index" for label in varying):
        return set(), "by the names without planes, frames and crops"
    return set(), "nothing but planes, frames or crops is numbered"


def _units(rows: list[list[_Part]], varying: set[Label]) -> dict[Label, str]:
    """Say of each label what it numbers; unknown words count when something finer follows."""
    units: dict[Label, str] = {}
    followed: Counter[Label] = Counter()
    present: Counter[Label] = Counter()
    for row in rows:
        finer = False
        for part in reversed(row):
            present[part.label] += 1
            followed[part.label] += finer
            finer |= part.label in varying
    for row in rows:
        for part in row:
            follows = 2 * followed[part.label] > present[part.label]
            unknown = "coarse" if follows else "index"
            units.setdefault(part.label, part.unit or unknown)
    return units


def _varying(rows: list[list[_Part]]) -> list[Label]:
    """Return the labels with several values or missing in some rows, in the order of the names."""
    values: dict[Label, set[tuple[str, int]]] = defaultdict(set)
    present: Counter[Label] = Counter()
    for row in rows:
        for part in {part.label: part for part in row}.values():
            values[part.label].add(part.value)
            present[part.label] += 1
    return [label for label, vs in values.items() if len(vs) > 1 or present[label] < len(rows)]


def _count(rows: list[tuple[list[_Part], tuple[str, ...]]], labels: set[Label]) -> int:
    return len({(tag, *(part.value for part in row if part.label in labels)) for row, tag in rows})


def _say(labels: Iterable[Label]) -> str:
    names = []
    for label in labels:
        what, place = label if isinstance(label, tuple) else (repr(label), 0)
        ordinal = (["first", "second", "third"][place - 1 : place] or ["later"])[0]
        what = f"the {ordinal} {what}" if what in ("number", "word") else what
        names.append(what)
    return " and ".join(dict.fromkeys(names))


def _parts(item: Item, *, lettered: bool = False) -> list[_Part]:
    """Split a path into what may tell specimens apart, folders first."""
    parts: list[_Part] = []
    depth = 0
    for folder in item.file.folders:
        words = [word for word in plain_words(folder) if not is_said(word) and not word.is_version]
        known = [word for word in words if word.unit]
        parts += [_Part(_label(word), word.key, word.shown, word.unit) for word in known]
        if words and not known:
            depth += 1
            text = " ".join(f"{word.text}{word.key[1]}" for word in words)
            parts.append(_Part(("folder", depth), (text, -1), folder, "coarse"))
    counts: Counter[str] = Counter()
    words = [left for word in item.words for left in _unsaid(word)] or list(
        item.words
    )  # just ``test``
    if lettered:
        counts["word"] = 1
        letter, *rest = words
        parts.append(_Part(("word", 1), (letter.text, -1), letter.shown[:1], ""))
        words = [Word("", letter.number, letter.number)] * bool(letter.number) + rest
    tiled = {"x", "y"} <= {word.text for word in words}
    for word in words:
        what = "number" if not word.text else word.text if word.number else "word"
        counts[what] += 1
        if word.text in ("x", "y") and not tiled:
            parts.append(_Part((what, counts[what]), word.key, word.shown, ""))
        else:
            label = _label(word) or (what, counts[what])
            parts.append(_Part(label, word.key, word.shown, word.unit))
    return parts


def _lettered(pairs: Sequence[Pair]) -> bool:
    """Tell whether names begin with letters that count: in a_1, b_1, c_1, b is no batch."""
    first = [next((left for w in pair.image.words for left in _unsaid(w)), None) for pair in pairs]
    letters = {word.text if word else "" for word in first}
    return len(letters) > 1 and all(len(letter) == 1 for letter in letters)


def _label(word: Word) -> str:
    """Return what a word numbers, where that is known."""
    return "well" if word.text.startswith("well ") else word.text if word.unit else ""


def _unsaid(word: Word) -> Sequence[Word]:
    if not is_said(word) and not word.is_version:
        return [word]
    return [Word("", word.number, word.number)] if word.number else []


def _tag(item: Item) -> tuple[str, ...]:
    """Return what says role or condition of many files: there, names may start anew."""
    folders = [part for part in item.file.folders if any(map(is_said, split_words(part)))]
    roles = [word.shown for word in item.words if word.text in ROLE_WORDS]
    genotypes = [
        word.shown.removesuffix(word.number)
        for word in item.words
        if CONDITIONS.get(word.text) in GENOTYPES  # no mouse has two; two dyes or drugs it may
    ]
    return (*folders, *roles, *genotypes)


def _names_restart(rows: list[list[_Part]], tags: list[tuple[str, ...]]) -> bool:
    """Tell whether the same names come back in folders of another role or condition."""
    names: dict[tuple[str, ...], set[Hashable]] = defaultdict(set)
    for row, tag in zip(rows, tags, strict=True):
        names[tag].add(tuple((part.label, part.value) for part in row))
    seen: set[Hashable] = set()
    for found in sorted(names.values(), key=len, reverse=True):
        if seen and 2 * len(found & seen) >= len(found):
            return True
        seen |= found
    return False
