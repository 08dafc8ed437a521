"""Which file is whose mask, told from names alone. Opens no file; knows no roles, no specimens."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from mitolume.io.drafting.listing import Found, Notes, Word, split_words

Key = tuple[tuple[str, int], ...]

# What a word says a file is. "structure" is fluorescence, or masks, of something else.
KINDS: dict[str, str] = {
    "left out": """overlay overlays flows outline outlines probability probabilities prediction
        predictions preview previews thumbnail thumbnails""",
    "mask": """mask masks label labels seg segmentation segmentations gt groundtruth truth
        annotation annotations annotated manual target targets""",
    "transmitted": """brightfield bf dic tl phase phasecontrast ph trans transmitted td
        labelfree""",
    "fluorescence": """fluorescence fluorescent fluo mito mitochondria mitochondrial mitotracker
        tmrm tmre gfp egfp yfp rfp mcherry dsred""",
    "structure": """nuclei nucleus nuclear dapi hoechst cellmask actin phalloidin tubulin
        lysotracker golgi membrane membranes synapses""",
    "image": "image images img imgs raw original originals input inputs source",
}
_KIND = {word: kind for kind, words in KINDS.items() for word in words.split()}
# Words without a meaning of their own beside one that says what a file is.
_IDLE = {
    "mask": {"cp"},  # cellpose: NAME_cp_masks
    "fluorescence": {"red", "green", "orange", "deep", "far"},
    "structure": {"red", "green", "orange", "deep"},
    "outline": {"roi", "rois", "roiset", "set"},
    "folder": {"data", "dir", "folder", "files", "tr", "ts"},
}
_OTHER_MASK = (
    "masks left out, as their image has another (where two people drew them, compare them: "
    "mitolume evaluate A B --agreement)"
)


@dataclass(frozen=True)
class Item:
    """A file with what its name says.

    ``place`` are the words of its folders and ``key`` those of its name, both without the words
    that tell mask from image: files of one field share them. ``channel`` is the number of a
    channel that has a file of its own.
    """

    file: Found
    kind: str
    place: Key
    key: Key
    channel: int | None = None

    @property
    def kinds(self) -> set[str]:
        """All that the words of its path say of it."""
        return {kind for part in (*self.file.folders, self.file.stem) for kind in _kinds(part)}


@dataclass(frozen=True)
class Pair:
    """An image, its mask and its paired fluorescence; ``how`` says what linked image and mask."""

    image: Found
    mask: Found | None = None
    fluorescence: Found | None = None
    how: str = ""


def pair_files(files: Sequence[Found], notes: Notes) -> list[Pair]:
    """Find the images among files, and the mask and paired fluorescence of each.

    Parameters
    ----------
    files
        As `list_files` returns them.
    notes
        Told of every file that ended in no pair, and of every doubt.

    Returns
    -------
    list of Pair
        One for each image, in the order of the files.
    """
    groups: dict[tuple[Key, Key], list[Item]] = defaultdict(list)
    for item in _classify(files, notes):
        groups[item.place, item.key].append(item)
    pairs: dict[Item, Pair] = {}
    lonely: list[Item] = []
    for group in groups.values():
        masks = [item for item in group if item.kind == "mask"]
        if len(masks) == len(group):
            lonely += masks
        else:
            pairs |= _pairs_of_field([i for i in group if i.kind != "mask"], masks, notes)
    _match_rest(pairs, lonely, notes)
    if any(image.kind == "transmitted" for image in pairs):
        for image, pair in list(pairs.items()):
            if not pair.mask and image.kind in ("fluorescence", "structure"):
                notes.add("fluorescence without its transmitted light, left out", image.file.path)
                del pairs[image]
    order = {file: number for number, file in enumerate(files)}
    return sorted(pairs.values(), key=lambda pair: order[pair.image])


# --- what a file is -----------------------------------------------------------------------------


@lru_cache(maxsize=65536)
def _kinds(name: str) -> frozenset[str]:
    return frozenset(_KIND[word.text] for word in split_words(name) if word.text in _KIND)


def folder_kind(folders: Sequence[str]) -> str:
    """Return what the innermost folder with a telling name says of the files in it."""
    found = (kind for part in reversed(folders) for kind in KINDS if kind in _kinds(part))
    return next(found, "")


def plain_words(folder: str) -> list[Word]:
    """Return the words of a folder's name that don't say what kind of file it holds."""
    words = [word for word in split_words(folder) if word.text not in _IDLE["folder"]]
    return [left for word in words for left in _without_kind(word)]


def _without_kind(word: Word) -> list[Word]:
    """Return what is left of a word where what it says has been understood: its number."""
    if word.text not in _KIND:
        return [word]
    return [Word("", word.number, word.number)] if word.number else []


def _classify(files: Sequence[Found], notes: Notes) -> list[Item]:
    by_folder: dict[tuple[str, ...], list[Found]] = defaultdict(list)
    for file in files:
        by_folder[file.folders].append(file)
    items: list[Item] = []
    for folders, here in by_folder.items():
        kind = folder_kind(folders)
        if kind == "mask":
            named = {_key(file)[0] for file in here if "mask" in _kinds(file.stem)}
            if named & {_key(file)[0] for file in here if "mask" not in _kinds(file.stem)}:
                kind = ""  # images and masks lie together in a folder that is called after masks
        for file in here:
            found = _file_kind(file, kind)
            if found == "left out":
                notes.add("results or previews, left out", file.path)
                continue
            idle = _IDLE["outline"] if file.is_outline else ()
            place = [w.key for part in folders for w in plain_words(part) if w.text not in idle]
            key, channel = _key(file)
            items.append(Item(file, found, tuple(place), key, channel))
    return items


def _file_kind(file: Found, folder: str) -> str:
    kinds = _kinds(file.stem)
    if file.is_outline:
        return "mask"
    for kind in ("left out", "mask", "transmitted"):
        if kind in kinds or folder == kind:
            return kind
    if folder not in ("", "image"):
        return folder
    return next((kind for kind in ("fluorescence", "structure") if kind in kinds), "image")


def _key(file: Found) -> tuple[Key, int | None]:
    """Return what the files of one field share in their names, and the number of a channel."""
    stem = file.stem
    kinds = _kinds(stem)
    idle = set().union(*(_IDLE.get(kind, set()) for kind in kinds))
    if file.is_outline:
        stem = stem.split(" - Series", 1)[0].removesuffix(".tif").removesuffix(".ome")  # QuPath
        idle |= _IDLE["outline"]
    words = [left for word in split_words(stem) for left in _without_kind(word)]
    words = [word for word in words if word.text not in idle or (word.number and file.is_outline)]
    numbered = [word for word in words if word.text in ("ch", "channel") and word.number]
    if numbered:
        words = [word for word in words if word not in numbered]
        return tuple(word.key for word in words), int(numbered[0].number)
    nnunet = any(word.text in ("tr", "ts") for part in file.folders for word in split_words(part))
    if nnunet and folder_kind(file.folders) == "image" and words and len(words[-1].number) == 4:
        last = words.pop()
        words += [Word(last.text)] if last.text else []
        return tuple(word.key for word in words), int(last.number)
    return tuple(word.key for word in words), None


# --- one field ----------------------------------------------------------------------------------


def _pairs_of_field(pictures: list[Item], masks: list[Item], notes: Notes) -> dict[Item, Pair]:
    """Make the pairs of files that share place and key."""
    kinds = ("transmitted", "image", "fluorescence", "structure")
    kind = next(k for k in kinds if any(picture.kind == k for picture in pictures))
    images = _one_channel([p for p in pictures if p.kind == kind], masks, notes)
    dyes = [p for p in pictures if p.kind == "fluorescence" != kind]
    paired = dyes[0].file if len(dyes) == 1 else None
    for other in pictures:
        if other.kind != kind and other.file != paired:
            notes.add("other channels or structures, left out", other.file.path)
    kept: dict[tuple[tuple[str, ...], str], Item] = {}
    for image in sorted(images, key=lambda i: i.file.ending in (".png", ".jpg", ".jpeg")):
        if kept.setdefault((image.file.folders, image.file.stem.lower()), image) is not image:
            notes.add(
                "files named like an image in another format, left out (where it is the image's "
                "mask, name it in column mask)",
                image.file.path,
            )
    first, *more = kept.values()
    if more:
        notes.add(
            "images named alike but for words such as raw; look whether they are one picture",
            " = ".join(image.file.path for image in kept.values()),
        )
    if "structure" not in first.kinds:
        for mask in masks:
            if mask.kinds & {"structure", "fluorescence"} == {"structure"}:
                notes.add("masks of other structures, left out", mask.file.path)
        masks = [m for m in masks if m.kinds & {"structure", "fluorescence"} != {"structure"}]
    masks = sorted(masks, key=_mask_rank)
    for mask in masks[1:]:
        notes.add(_OTHER_MASK, mask.file.path)
    pair = Pair(first.file, masks[0].file if masks else None, paired, "same name")
    return {first: pair} | {image: Pair(image.file) for image in more}


def _mask_rank(mask: Item) -> tuple[bool, bool, bool]:
    """Put masks that say mitochondria first, then those that say mask; pixels before outlines."""
    said = "mask" in mask.file.path.lower()
    return "fluorescence" not in mask.kinds, not said, mask.file.is_outline


def _one_channel(images: list[Item], masks: list[Item], notes: Notes) -> list[Item]:
    """Keep the channel that the masks name, else the first."""
    channels = {image.channel for image in images if image.channel is not None}
    if len(channels) < 2:
        return images
    kept = min({mask.channel for mask in masks if mask.channel in channels} or channels)
    for image in images:
        if image.channel not in (kept, None):
            notes.add(
                f"further channels, left out as channel {kept} is taken (put another in column "
                "image if it is the transmitted light)",
                image.file.path,
            )
    return [image for image in images if image.channel in (kept, None)]


# --- masks whose names are not quite their image's ----------------------------------------------


def _match_rest(pairs: dict[Item, Pair], masks: Sequence[Item], notes: Notes) -> None:
    """Find the images of masks that share no exact name with one; note those that have none."""
    whole = {(image.place, image.key): image for image in reversed(pairs)}
    by_place, by_name = defaultdict(list), defaultdict(list)
    for item in pairs:
        by_place[item.place].append(item)
        by_name[item.key].append(item)
    crowd = Counter(mask.place for mask in masks)
    fitting = {pair.mask.folders for pair in pairs.values() if pair.mask}
    for mask in masks:
        begins = [(mask.place, mask.key[:end]) for end in range(len(mask.key) - 1, 0, -1)]
        near = by_place[mask.place]
        alike = by_name[mask.key]
        image = next((whole[begin] for begin in begins if begin in whole), None)
        how = "beginning"
        if image is None and len(near) == crowd[mask.place] == 1:
            image, how = near[0], "only"
        # Where others fit, a mask that fits none has lost its image.
        if image is None and mask.key and len(alike) == 1 and mask.file.folders not in fitting:
            image, how = alike[0], "elsewhere"
        if image is None:
            what = "outlines" if mask.file.is_outline else "masks"
            several = crowd[mask.place] > 1 and mask.file.folders not in fitting
            hint = " (if each object has a file of its own, merge them)" if several else ""
            notes.add(f"{what} without an image of that name, left out{hint}", mask.file.path)
        elif pairs[image].mask is None:
            pairs[image] = replace(pairs[image], mask=mask.file, how=how)
        else:
            notes.add(_OTHER_MASK, mask.file.path)
