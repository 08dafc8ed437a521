"""Which file is whose mask, told from names alone. Opens no file; knows no roles, no specimens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from mitolume.io.drafting.channel_files import without_channels
from mitolume.io.drafting.listing import Found, Notes
from mitolume.io.drafting.matches import OTHER_MASK, Item, Key, Pair, match_rest
from mitolume.io.drafting.names import Word, split_words

# Words that say nothing about which image a file belongs to.
_ROI_WORDS = {"roi", "rois", "roiset", "roisets", "set", "imagej", "qupath"}
_MASK_COMPANIONS = {"cp", "man", "of", "class", "object"}
_DYE_WORDS = {"red", "green", "orange", "blue", "deep", "far", "fm", "cmxros"}
_FOLDER_COMPANIONS = {"data", "dir", "folder", "files", "class", "object", "stacks"}
# Of several kinds of picture of one field, the first is the image.
_IMAGE_KINDS = ("transmitted", "image", "mitochondria", "fluorescence", "structure")
_KIND_PRECEDENCE = ("left out", "mask", *_IMAGE_KINDS[:1], *_IMAGE_KINDS[2:], "image")
_CHANNEL_KINDS = {"transmitted", "mitochondria", "fluorescence", "structure"}


def pair_files(
    files: Sequence[Found], notes: Notes, drawn: Callable[[Found], bool] = lambda file: False
) -> list[Pair]:
    """Find the images among files, and the mask and paired fluorescence of each.

    Parameters
    ----------
    files
        As `list_files` returns them.
    notes
        Told of every file that ended in no pair, and of every doubt.
    drawn
        Tells whether a picture is a drawing; asked of files that share an image's name.

    Returns
    -------
    list of Pair
        One for each image, in the order of the files.
    """
    items = without_channels(_classify(files, notes))
    groups: dict[tuple[Key, Key], list[Item]] = defaultdict(list)
    for item in items:
        groups[item.place, item.key].append(item)
    pairs: list[Pair] = []
    lonely: list[Item] = []
    for group in groups.values():
        found, left = _resolve(group, notes, drawn)
        pairs += found
        lonely += left
    pairs = _transmitted_only(match_rest(pairs, lonely, notes), notes)
    order = {file: number for number, file in enumerate(files)}
    return sorted(pairs, key=lambda pair: order[pair.image.file])


def _transmitted_only(pairs: list[Pair], notes: Notes) -> list[Pair]:
    """Leave out fluorescence that lost its image, where the images are transmitted light."""
    if not any(pair.image.kind == "transmitted" for pair in pairs):
        return pairs
    kept = []
    for pair in pairs:
        if pair.mask or pair.image.kind in ("transmitted", "image"):
            kept.append(pair)
        else:
            notes.add("fluorescence without its transmitted light, left out", pair.image.file.path)
    return kept


# --- what a file is -----------------------------------------------------------------------------


def _classify(files: Sequence[Found], notes: Notes) -> list[Item]:
    by_folder: dict[tuple[str, ...], list[Found]] = defaultdict(list)
    for file in files:
        by_folder[file.folders].append(file)
    kinds = {folders: folder_kind(folders) for folders in by_folder}
    places = {folders: _place(folders) for folders in by_folder}
    masked_places = {places[folders] for folders, kind in kinds.items() if kind == "mask"}
    items: list[Item] = []
    for folders, here in by_folder.items():
        kind = kinds[folders]
        named = {file for file in here if "mask" in _name_kinds(file.stem)}
        rest = [file for file in here if file not in named and not file.is_roi]
        channels = {kind for file in here for kind in _name_kinds(file.stem)} & _CHANNEL_KINDS
        if kind in _CHANNEL_KINDS and len(channels) > 1:
            kind = ""  # so is one called after a channel, in which the files name theirs
        if kind == "mask" and {_key(f) for f in named} & {_key(f) for f in rest}:
            kind = ""  # images and masks lie together in a folder that is called after masks
        shared = kind == "image" and not rest and places[folders] in masked_places
        for file in here:
            found = _file_kind(file, kind, ignore_mask=shared)
            if found == "left out" or "left out" in map(_part_kind, folders):
                notes.add("results or previews, left out", file.path)
                continue
            place = _place(folders, roi=True) if file.is_roi else places[folders]
            items.append(Item(file, found, place, tuple(_words(file))))
    return items


def _file_kind(file: Found, folder_kind: str, *, ignore_mask: bool) -> str:
    kinds = _name_kinds(file.stem)
    if file.is_roi:
        return "mask"
    if "left out" in kinds:
        return "left out"
    if ("mask" in kinds and not ignore_mask) or folder_kind == "mask":
        return "mask"
    if "transmitted" in kinds:
        return "transmitted"
    if folder_kind not in ("", "image"):
        return folder_kind
    return next((kind for kind in _IMAGE_KINDS if kind in kinds), "image")


@lru_cache(maxsize=65536)
def _name_kinds(name: str) -> frozenset[str]:
    return frozenset(word.kind for word in split_words(name))


def _part_kind(part: str) -> str:
    if part.lower() in ("x", "y"):
        return "image" if part.lower() == "x" else "mask"
    kinds = _name_kinds(part)
    return next((kind for kind in _KIND_PRECEDENCE if kind in kinds), "")


def folder_kind(folders: Sequence[str]) -> str:
    """Return what the innermost folder with a telling name says of the files in it."""
    return next((kind for part in reversed(folders) if (kind := _part_kind(part))), "")


def plain_words(part: str) -> list[Word]:
    """Return the words of a folder's name that don't say what kind of file it holds."""
    if part.lower() in ("x", "y"):
        return []
    return [
        word
        for found in split_words(part)
        if found.text not in _FOLDER_COMPANIONS
        for word in (found.without_text() if found.kind else [found])
    ]


def _place(folders: Sequence[str], *, roi: bool = False) -> Key:
    return tuple(
        word.key
        for part in folders
        for word in plain_words(part)
        if not (roi and word.text in _ROI_WORDS)
    )


def _words(file: Found) -> Iterable[Word]:
    stem = file.stem
    if file.is_roi:  # QuPath: a.ome.tif - Series 0.geojson
        stem = stem.split(" - Series", 1)[0]
        for ending in (".ome.tif", ".tif", ".tiff", ".png", ".nd2", ".czi", ".lif"):
            stem = stem.removesuffix(ending)
    words = split_words(stem)
    idle = _ROI_WORDS if file.is_roi else set()
    if any(word.kind == "mask" for word in words):
        idle = idle | _MASK_COMPANIONS
    after_channel = False
    for word in words:
        if word.kind:
            yield from word.without_text()
        elif word.text in idle and word.number and file.is_roi:
            yield word  # RoiSet1.zip
        elif word.text not in idle and not (after_channel and word.text in _DYE_WORDS):
            yield word
        after_channel = word.kind in _CHANNEL_KINDS or (after_channel and word.text in _DYE_WORDS)


def _key(file: Found) -> Key:
    return tuple(word.key for word in _words(file))


# --- one field ----------------------------------------------------------------------------------


def _resolve(
    group: list[Item], notes: Notes, drawn: Callable[[Found], bool]
) -> tuple[list[Pair], list[Item]]:
    """Make the pairs of files that share place and key; return masks left without an image."""
    masks = [item for item in group if item.kind == "mask"]
    pictures = [item for item in group if item.kind != "mask"]
    if not pictures:
        return [], masks
    kind = next(k for k in _IMAGE_KINDS if any(p.kind == k for p in pictures))
    images = [picture for picture in pictures if picture.kind == kind]
    others = [picture for picture in pictures if picture.kind != kind]
    if kind == "image" and (outlined := _drawn_mitochondria(images, others, masks)):
        masks = outlined
        others = [other for other in others if other not in outlined]
    images = _one_channel(images, masks, notes)
    masks = _without_structures(images, masks, notes)
    fluorescence = _mitochondrial(others)
    for other in others:
        if other is not fluorescence:
            notes.add("other channels or structures, left out", other.file.path)
    images, copies = _one_format(images)
    for copy in copies:
        if not masks and drawn(copy.file):
            masks = [copy]
        else:
            notes.add(
                "files named like an image in another format, left out (where it is the image's "
                "mask, name it in column mask)",
                copy.file.path,
            )
    best = _best_mask(images, masks, notes)
    if len(images) > 1:
        notes.add(
            "images named alike but for words such as raw; look whether they are one picture",
            " = ".join(image.file.path for image in images),
        )
    return [Pair(i, best.get(i.file), fluorescence, "name") for i in images], []


def _drawn_mitochondria(
    images: list[Item], others: list[Item], masks: list[Item]
) -> list[Item] | None:
    """Find masks in a folder ``mitochondria`` beside ``raw``, as tissue atlases have them."""
    drawn = [other for other in others if other.kind == "mitochondria" and other.file.folders
             and split_words(other.file.folders[-1])[0].text.startswith("mito")
             and other.file.folders != images[0].file.folders]  # fmt: skip
    beside = any(other.kind == "structure" for other in others)
    return drawn if drawn and (beside or not masks) else None


def _one_channel(images: list[Item], masks: list[Item], notes: Notes) -> list[Item]:
    """Keep the channel that the masks name, else the first."""
    channels = {image.channel for image in images if image.channel is not None}
    if len(channels) < 2:
        return images
    named = {mask.channel for mask in masks} & channels
    kept = min(named or channels, key=lambda channel: channel or 0)
    for image in images:
        if image.channel not in (kept, None):
            notes.add(
                f"further channels, left out as channel {kept} is taken (put another in column "
                "image if it is the transmitted light)",
                image.file.path,
            )
    return [image for image in images if image.channel in (kept, None)]


def _without_structures(images: list[Item], masks: list[Item], notes: Notes) -> list[Item]:
    """Leave out masks that say they are of nuclei or the like, where their images don't."""
    if any("structure" in _path_kinds(image.file) for image in images):
        return masks
    for mask in masks:
        if _mask_rank(mask)[0] == 2:
            notes.add("masks of other structures, left out", mask.file.path)
    return [mask for mask in masks if _mask_rank(mask)[0] < 2]


def _path_kinds(file: Found) -> frozenset[str]:
    return frozenset().union(*map(_name_kinds, (*file.folders, file.stem)))


def _mitochondrial(others: list[Item]) -> Item | None:
    """Return the picture that shows mitochondria in fluorescence, where that is clear."""
    for kind in ("mitochondria", "fluorescence"):
        found = [other for other in others if other.kind == kind]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _one_format(images: list[Item]) -> tuple[list[Item], list[Item]]:
    """Divide images from files that have the same name in a format that states less."""
    kept: dict[tuple[tuple[str, ...], str], Item] = {}
    copies: list[Item] = []
    for image in sorted(images, key=lambda i: i.file.ending in (".png", ".jpg", ".jpeg")):
        if kept.setdefault((image.file.folders, image.file.stem.lower()), image) is not image:
            copies.append(image)
    return list(kept.values()), copies


def _best_mask(images: list[Item], masks: list[Item], notes: Notes) -> dict[Found, Item]:
    """Give each mask to the image whose very name it has, else to the first; one an image."""
    exact = {_spelling(image): image for image in reversed(images)}
    best: dict[Found, Item] = {}
    for mask in sorted(masks, key=_mask_rank):
        image = exact.get(_spelling(mask), images[0])
        if len(images) > 1 and _spelling(mask) not in exact:
            notes.add("masks that fit more than one image, given to the first", mask.file.path)
        taken = best.setdefault(image.file, mask)
        if taken is not mask:
            notes.add(OTHER_MASK, mask.file.path)
    return best


def _spelling(item: Item) -> tuple[tuple[str, str], ...]:
    """Return the words of a name as they are written, but for those that say mask."""
    words = split_words(item.file.stem)
    return tuple((word.text, word.number) for word in words if word.kind != "mask")


def _mask_rank(mask: Item) -> tuple[int, bool]:
    kinds = _path_kinds(mask.file)
    return (0 if "mitochondria" in kinds else 2 if "structure" in kinds else 1), mask.file.is_roi
