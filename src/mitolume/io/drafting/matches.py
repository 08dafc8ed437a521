"""Masks whose names are not quite their image's. Compares words; opens no file."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

from mitolume.io.drafting.listing import Found, Notes
from mitolume.io.drafting.names import Word, split_words

Key = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Item:
    """A file with what its name says.

    ``place`` are the words of its folders and ``words`` those of its name, both without the words
    that tell mask from image; files of one field share them.
    """

    file: Found
    kind: str
    place: Key
    words: tuple[Word, ...]
    channel: int | None = None

    @property
    def key(self) -> Key:
        """What the files of one field share in their names."""
        return tuple(word.key for word in self.words)


@dataclass(frozen=True)
class Pair:
    """An image, its mask and its paired fluorescence; ``how`` says what linked image and mask."""

    image: Item
    mask: Item | None = None
    fluorescence: Item | None = None
    how: str = ""


OTHER_MASK = (
    "masks left out, as their image has another (where two people drew them, compare them: "
    "mitolume evaluate A B --agreement)"
)
# A rule names what an image and its mask have in common; it holds where one of each has it.
Rule = Callable[[Item], Hashable | None]


def match_rest(pairs: Sequence[Pair], masks: Sequence[Item], notes: Notes) -> list[Pair]:
    """Find the images of masks that share no exact name with one.

    Parameters
    ----------
    pairs
        All images; those without a mask may be given one.
    masks
        The masks that are left.
    notes
        Told of the masks that stay without an image.

    Returns
    -------
    list of Pair
        The same images.
    """
    found = list(pairs)
    left = list(masks)
    free = {n: pair.image for n, pair in enumerate(found) if pair.mask is None}
    crowd = Counter(pair.image.place for pair in found)
    piles = Counter(mask.place for mask in masks)
    # Where names fit, a mask that fits none has lost its image: guess on only elsewhere. More
    # masks than images are masks of single objects.
    fitting = {pair.mask.place for pair in found if pair.mask is not None}
    objects = {place for place, number in piles.items() if number > max(1, crowd[place])}
    for how, match in (
        ("beginning", _prefixes),
        ("number", lambda i, m: _unique(i, _outside(m, fitting | objects), _numbers)),
        (
            "only",
            lambda i, m: _unique({n: x for n, x in i.items() if crowd[x.place] < 2}, m, _only),
        ),
        ("name", lambda i, m: _by_folder(i, _outside(m, fitting), _numbered_place)),
        ("name", lambda i, m: _by_folder(i, _outside(m, fitting), _name)),
    ):
        matched = match(free, left)
        for number, mask in matched.items():
            found[number] = replace(found[number], mask=mask, how=how)
            del free[number]
        taken = {mask.file for mask in matched.values()}
        left = [mask for mask in left if mask.file not in taken]
    masked = {pair.image.key for pair in found if pair.mask is not None and pair.how == "name"}
    for mask in left:
        if mask.key in masked and mask.place not in fitting:
            notes.add(OTHER_MASK, mask.file.path)
            continue
        what = "outlines" if mask.file.is_roi else "masks"
        hint = (
            " (if each object has a file of its own, merge them; if they are of several people, "
            "keep one's)"
            if mask.place in objects
            else ""
        )
        notes.add(f"{what} without an image of that name, left out{hint}", mask.file.path)
    return found


def _outside(masks: Iterable[Item], places: set[Key]) -> list[Item]:
    return [mask for mask in masks if mask.place not in places]


def _unique(images: dict[int, Item], masks: Iterable[Item], rule: Rule) -> dict[int, Item]:
    """Match where exactly one image and one mask give the same answer to the rule."""
    of_images: dict[Hashable, list[int]] = defaultdict(list)
    of_masks: dict[Hashable, list[Item]] = defaultdict(list)
    for number, image in images.items():
        of_images[rule(image)].append(number)
    for mask in masks:
        of_masks[rule(mask)].append(mask)
    return {
        of_images[answer][0]: found[0]
        for answer, found in of_masks.items()
        if answer is not None and len(found) == 1 and len(of_images.get(answer, ())) == 1
    }


def _by_folder(images: dict[int, Item], masks: Iterable[Item], rule: Rule) -> dict[int, Item]:
    """Match the masks of one folder after the other: a second person's are left."""
    folders: dict[tuple[str, ...], list[Item]] = defaultdict(list)
    for mask in masks:
        folders[mask.file.folders].append(mask)
    found: dict[int, Item] = {}
    for here in folders.values():
        free = {number: image for number, image in images.items() if number not in found}
        found |= _unique(free, here, rule)
    return found


def _prefixes(images: dict[int, Item], masks: Iterable[Item]) -> dict[int, Item]:
    """Match where one name begins with the other: ``a.tif`` and ``a_cells_mask.tif``."""
    whole = {(image.place, image.key): number for number, image in images.items()}
    longer: dict[tuple[Key, Key], list[int]] = defaultdict(list)
    for number, image in images.items():
        for end in range(1, len(image.key)):
            longer[image.place, image.key[:end]].append(number)
    wanted: dict[int, list[Item]] = defaultdict(list)
    for mask in masks:
        begins = ((mask.place, mask.key[:end]) for end in range(len(mask.key) - 1, 0, -1))
        longest = [whole[begin] for begin in begins if begin in whole][:1]
        ends = longest or longer.get((mask.place, mask.key), [])
        if len(ends) == 1:
            wanted[ends[0]].append(mask)
    return {number: found[0] for number, found in wanted.items() if len(found) == 1}


def _numbers(item: Item) -> Hashable | None:
    """Return all numbers of a name, with its place."""
    numbers = tuple(word.key[1] for word in item.words if word.number)
    return (item.place, numbers) if numbers else None


def _only(item: Item) -> Hashable | None:
    """Return the place; an archive must say that it holds outlines."""
    words = {word.text for word in split_words(item.file.stem)}
    if item.file.ending == ".zip" and not words & {"roi", "rois", "roiset", "mask", "masks"}:
        return None
    return item.place


def _numbered_place(item: Item) -> Hashable | None:
    """Return the name and the numbered folders: exp1/cell2 in trees of other names."""
    numbered = tuple(key for key in item.place if key[1] >= 0)
    return (numbered, item.key) if numbered else None


def _name(item: Item) -> Hashable | None:
    """Return the name, wherever it lies."""
    return item.key or None
