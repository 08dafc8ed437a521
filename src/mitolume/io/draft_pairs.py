"""Which images, masks and outlines lie below a folder, and which belong together, by their names.

Opens no file but those that the program itself may have written, and what looks like a copy.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from unicodedata import normalize

from mitolume.errors import MitolumeError
from mitolume.io.formats import READERS, SHEET, ZARR_FILES, natural_key, sha256
from mitolume.io.listing import RUN_RECORD
from mitolume.io.mask_files import image_name, says_mask
from mitolume.io.write import is_result

OUTLINE_ENDINGS = (".zip", ".roi", ".geojson")
# Pictures and volumes that people have and this program doesn't read.
_UNREAD = (
    ".npy", ".bmp", ".gif", ".webp", ".mrc", ".rec", ".dm3", ".dm4", ".h5", ".hdf5", ".nrrd",
    ".mha", ".nii", ".nii.gz", ".oib", ".oif", ".lsm", ".ims", ".vsi", ".svs", ".stk", ".avi",
    ".mp4",
)  # fmt: skip
_ENDINGS = sorted({*READERS, *OUTLINE_ENDINGS, *_UNREAD}, key=len, reverse=True)

# Words of several parts, written as one.
_TOGETHER = [
    (re.compile(pattern, re.IGNORECASE), whole)
    for pattern, whole in (
        (r"label[\s_.-]*free", "labelfree"),
        (r"bright[\s_.-]*field", "brightfield"),
        (r"phase[\s_.-]*contrast", "phasecontrast"),
        (r"mito[\s_.-]*tracker", "mitotracker"),
        (r"(?-i:CellMask)", "cellmask"),  # a dye
        (r"ground[\s_.-]+truth", "groundtruth"),
        (r"(?<![^\W\d_])(?:no|non|without)[\s_-]*(?:labels?|masks?)(?![^\W\d_])", "unlabelled"),
        (r"(?<!\d)(20\d\d)[-_.](\d\d)[-_.](\d\d)(?!\d)", r"\1\2\3"),  # a date
    )
]
# A well of a plate: "A01" (C01 and F01 may be a channel and a field), or Opera's "r01c02".
_WELL = r"(?:[ABDEGH](?:0[1-9]|1[0-2])|[A-P](?:0[1-9]|1\d|2[0-4])(?=_?(?:s|f|site|field)\d))"
_WORD = re.compile(
    rf"(?<![^\W_])(?P<well>{_WELL}(?![^\W_])|r\d\dc\d\d(?=f\d\d|[\W_]|$))"
    r"|(?P<text>[^\W\d_]+)(?P<number>\d+)?|(?P<bare>\d+)"
)
_CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^A-Z]+|[A-Z]+")

# What a word says a file is; of several kinds in a name, the first counts.
_KINDS: dict[str, str] = {
    "left out": """overlay overlays flows outline outlines probability probabilities prediction
        predictions preview previews thumbnail thumbnails screenshot screenshots
        bildschirmfoto bildschirmfotos""",
    "mask": """mask masks label labels seg segmentation segmentations gt groundtruth truth
        annotation annotations annotated manual target targets maske masken masque masques
        mascara mascaras máscara máscaras""",
    "transmitted": """brightfield bf dic tl phase phasecontrast ph trans transmitted td
        labelfree""",
    "fluorescence": """fluorescence fluorescent fluo mito mitochondria mitochondrial mitotracker
        tmrm tmre gfp egfp yfp rfp mcherry dsred""",
    "structure": """nuclei nucleus nuclear dapi hoechst cellmask actin phalloidin tubulin
        lysotracker golgi membrane membranes synapses""",
    "image": "image images img imgs raw original originals input inputs source",
}
_CHANNELS = ("transmitted", "fluorescence", "structure")
_KIND = {word: kind for kind, words in _KINDS.items() for word in words.split()}
# Words without a meaning of their own beside one that says what a file is.
_IDLE = {
    "mask": {"cp"},  # cellpose: NAME_cp_masks
    "fluorescence": {"red", "green", "orange", "deep", "far"},
    "outline": {"roi", "rois", "roiset", "set"},
    "folder": {"data", "dir", "folder", "files", "tr", "ts"},
}
_OTHER_MASK = (
    "masks left out, as their image has another (where two people drew them, compare them: "
    "mitolume evaluate A B --agreement)"
)
_FURTHER = (
    "further files of an image's name (another format, folder or channel), left out (where it is "
    "the image's mask, name it in column mask)"
)
_NPY = (
    "cellpose _seg.npy files, which can't be read (in cellpose choose File > Save masks as "
    "PNG/tif, which writes NAME_cp_masks beside the image)"
)
LOST_MASKS = "masks without an image of that name, left out"
# What programs call a file that they make of another one.
_COPIES = "copies of a file beside them, left out"
_MADE_OF = {
    "projections of a stack beside them, left out": r"(?:max|avg|sum|min|std|med)_(?P<own>.+)",
    _COPIES: r"(?:(?:copy of|kopie von) )?(?P<own>.+?)"
    r"(?:(?: -)?[ _-]\(?(?:another )?(?:copy|kopie|copie|copia)\)?(?:[ _]?\(?\d+\)?)?| \(\d+\))?",
}
# MetaMorph numbers its channels before their names: "w1BF", "w3TMRM".
_WAVE = re.compile(
    rf"(?<![^\W_])w\d(?=(?:{'|'.join(word for word, kind in _KIND.items() if kind in _CHANNELS)})"
    r"(?![^\W\d_]))",
    re.IGNORECASE,
)
Key = tuple[tuple[str, int], ...]
Notes = defaultdict[str, list[str]]  # what a person should know, and the names of such files


@dataclass(frozen=True)
class Word:
    """A word of a name with the number that follows it; a bare number has no text.

    ``text`` is in lower case; ``number`` keeps its leading zeros; ``shown`` is as it was written.
    """

    text: str
    number: str = ""
    shown: str = ""

    @property
    def key(self) -> tuple[str, int]:
        """What two spellings of the word share: case and leading zeros don't count."""
        return self.text, int(self.number) if self.number else -1


@dataclass(frozen=True)
class Found:
    """A file, or a folder that is one image (OME-Zarr), by its path below the listed folder."""

    folders: tuple[str, ...]
    name: str
    ending: str

    @property
    def path(self) -> str:
        """The path with slashes."""
        return "/".join((*self.folders, self.name))

    @property
    def stem(self) -> str:
        """The name without the ending of its format."""
        return self.name[: len(self.name) - len(self.ending)]

    @property
    def is_outline(self) -> bool:
        """Whether it holds outlines, not pixels."""
        return self.ending in OUTLINE_ENDINGS


@dataclass(frozen=True)
class Pair:
    """An image, its mask and its paired fluorescence; ``how`` says what linked image and mask."""

    image: Found
    mask: Found | None = None
    fluorescence: Found | None = None
    how: str = ""


@dataclass(frozen=True)
class _Item:
    """A file with what its name says.

    ``place`` are the words of its folders and ``key`` those of its name, both without the words
    that tell mask from image: files of one field share them.
    """

    file: Found
    kind: str
    place: Key
    key: Key


# --- files --------------------------------------------------------------------------------------


def list_files(folder: Path, notes: Notes) -> list[Found]:
    """List what may be images, masks or outlines below a folder and the folders in it.

    In natural order, those of a folder before those of the folders in it; links to folders are not
    followed. The notes say what was left out and why.
    """
    if not folder.exists():
        raise MitolumeError(f"{folder}: no such folder")
    if not folder.is_dir():
        raise MitolumeError(f"{folder} is a file; name the folder that holds the images")
    files: list[Found] = []
    for here, folders, names in os.walk(folder):
        parts = Path(here).relative_to(folder).parts
        if parts and RUN_RECORD in names:
            notes["folders with results of mitolume, left out"].append("/".join(parts))
            folders.clear()
        elif parts and any(name in names for name in ZARR_FILES):
            ending = next((e for e in (".ome.zarr", ".zarr") if parts[-1].lower().endswith(e)), "")
            _take(Path(here), Found(parts[:-1], parts[-1], ending), files, notes)
            folders.clear()
        else:
            folders[:] = sorted((n for n in folders if not n.startswith(".")), key=natural_key)
            for name in sorted(names, key=natural_key):
                if not name.startswith(".") and name != SHEET:
                    _take(Path(here, name), Found(parts, name, _ending(name)), files, notes)
    return files


def _take(path: Path, file: Found, files: list[Found], notes: Notes) -> None:
    """Keep a file, or note why not."""
    if file.path.encode(errors="replace").decode() != file.path or set(file.path) & {"\r", "\n"}:
        notes["files whose names a table can't hold, left out (rename them)"].append(
            ascii(file.path)
        )
    elif (file.ending in READERS or file.is_outline) and is_result(path):
        what = "masks predicted or measured" if says_mask(path) else "crops and pictures made"
        notes[f"{what} by mitolume, left out"].append(file.path)
    elif file.ending in READERS or file.is_outline:
        files.append(file)
    elif file.ending == ".npy" and file.stem.lower().endswith("_seg"):
        notes[_NPY].append(file.path)
    elif file.ending:
        notes["files of kinds that can't be read (save them as OME-TIFF)"].append(file.path)


def _ending(name: str) -> str:
    return next((ending for ending in _ENDINGS if name.lower().endswith(ending)), "")


# --- what names say -----------------------------------------------------------------------------


@lru_cache(maxsize=65536)
def split_words(name: str) -> tuple[Word, ...]:
    """Split a name, without its ending, into words at signs, at digits and at capitals.

    Examples
    --------
    >>> [word.shown for word in split_words("m008_dish2-imgLabels_Z03 7")]
    ['m008', 'dish2', 'img', 'Labels', 'Z03', '7']
    """
    name = normalize("NFC", name)  # macOS writes ä as a and two dots
    for pattern, whole in _TOGETHER:
        name = pattern.sub(whole, name)
    name = _WAVE.sub("", name)
    words = []
    for found in _WORD.finditer(name):
        text, number = found["text"] or "", found["number"] or found["bare"] or ""
        if found["well"]:
            words.append(Word(f"well {found['well'].lower()}", "", found["well"]))
            continue
        parts = _CAMEL.findall(text)
        words += [Word(part.lower(), "", part) for part in parts[:-1]]
        last = parts[-1] if parts else ""
        words.append(Word(last.lower(), number, last + number))
    return tuple(words)


@lru_cache(maxsize=65536)
def _kinds(name: str) -> frozenset[str]:
    return frozenset(_KIND[word.text] for word in split_words(name) if word.text in _KIND)


def folder_kind(folders: Sequence[str]) -> str:
    """Return what the innermost folder with a telling name says of the files in it."""
    found = (kind for part in reversed(folders) for kind in _KINDS if kind in _kinds(part))
    return next(found, "")


def plain_words(name: str) -> list[Word]:
    """Return the words of a folder's name that don't say what kind of file it holds."""
    return _without_kinds(w for w in split_words(name) if w.text not in _IDLE["folder"])


def _without_kinds(words: Iterable[Word]) -> list[Word]:
    """Leave out words that say what a file is, but not a number behind one."""
    kept = [Word("", w.number, w.number) if w.text in _KIND else w for w in words]
    return [word for word in kept if word.text or word.number]


def _classify(files: Sequence[Found], notes: Notes) -> list[_Item]:
    by_folder: dict[tuple[str, ...], list[Found]] = defaultdict(list)
    for file in files:
        by_folder[file.folders].append(file)
    items: list[_Item] = []
    for folders, here in by_folder.items():
        folder = folder_kind(folders)
        if folder == "mask":
            named = {_key(file) for file in here if "mask" in _kinds(file.stem)}
            if named & {_key(file) for file in here if "mask" not in _kinds(file.stem)}:
                folder = ""  # images and masks lie together in a folder that is called after masks
        for file in here:
            kind = _file_kind(file, folder)
            if kind == "left out":
                notes["results or previews, left out"].append(file.path)
            elif kind == "structure":
                notes["images and masks of other structures, left out"].append(file.path)
            else:
                idle = _IDLE["outline"] if file.is_outline else ()
                place = [w.key for part in folders for w in plain_words(part) if w.text not in idle]
                items.append(_Item(file, kind, tuple(place), _key(file)))
    return items


def _file_kind(file: Found, folder: str) -> str:
    said = set().union(*map(_kinds, (*file.folders, file.stem)))
    kinds = _kinds(file.stem) | {folder}
    if "structure" in said and not said & {"fluorescence", "transmitted"}:
        return "structure"
    if file.is_outline:
        return "mask"
    return next((kind for kind in _KINDS if kind in kinds), "image")


def channels_beside_light(files: Iterable[Path]) -> list[Path]:
    """Return the files of fluorescence that are named like one of transmitted light beside them.

    Examples
    --------
    >>> [str(path) for path in channels_beside_light([Path("a_BF.tif"), Path("a_TMRM.tif")])]
    ['a_TMRM.tif']
    """
    light, others = set[tuple[Path, Key]](), dict[Path, tuple[Path, Key]]()
    for path in files:
        file = Found((), path.name, _ending(path.name))
        kind, field = _file_kind(file, ""), (path.parent, _key(file))
        if kind == "transmitted":
            light.add(field)
        elif kind in _CHANNELS:
            others[path] = field
    return [path for path, field in others.items() if field in light]


def _key(file: Found) -> Key:
    """Return what the files of one field share in their names."""
    stem = file.stem
    idle = set().union(*(_IDLE.get(kind, set()) for kind in _kinds(stem)))
    if file.is_outline:
        stem = stem.split(" - Series", 1)[0].removesuffix(".tif").removesuffix(".ome")  # QuPath
        idle |= _IDLE["outline"]
    words = _without_kinds(split_words(stem))
    words = [word for word in words if word.text not in idle or (word.number and file.is_outline)]
    nnunet = any(word.text in ("tr", "ts") for part in file.folders for word in split_words(part))
    if nnunet and folder_kind(file.folders) == "image" and words and words[-1].number[:-1] == "000":
        last = words.pop()  # the number of the channel
        words += [Word(last.text)] if last.text else []
    return tuple(word.key for word in words)


# --- pairs --------------------------------------------------------------------------------------


def pair_files(folder: Path, files: Sequence[Found], notes: Notes) -> list[Pair]:
    """Find the images among files, in their order, and the mask and fluorescence of each.

    They lie below the folder. The notes say which files ended in no pair, and every doubt.
    """
    groups: dict[tuple[Key, Key], list[_Item]] = defaultdict(list)
    for item in _classify(_without_made(folder, files, notes), notes):
        groups[item.place, item.key].append(item)
    pairs: dict[_Item, Pair] = {}
    lonely: list[_Item] = []
    for group in groups.values():
        masks = [item for item in group if item.kind == "mask"]
        if len(masks) == len(group):
            lonely += masks
        else:
            pictures = [item for item in group if item.kind != "mask"]
            image, dye = _choose_image(pictures, notes)
            # Masks that say mitochondria or mask come first, and pixels before outlines.
            masks.sort(key=lambda mask: (
                "fluorescence" not in _kinds(mask.file.stem), "mask" not in mask.file.path.lower(),
                mask.file.is_outline,
            ))  # fmt: skip
            for mask in masks[1:]:
                notes[_OTHER_MASK].append(mask.file.path)
            own = masks[0].file if masks else None
            pairs[image] = Pair(image.file, own, dye, "of their image's name")
    _match_rest(pairs, lonely, notes)
    if any(image.kind == "transmitted" for image in pairs):
        for image, pair in list(pairs.items()):
            if not pair.mask and image.kind == "fluorescence":
                notes["fluorescence without its transmitted light, left out"].append(
                    image.file.path
                )
                del pairs[image]
    order = {file: number for number, file in enumerate(files)}
    return sorted(pairs.values(), key=lambda pair: order[pair.image])


def _without_made(folder: Path, files: Sequence[Found], notes: Notes) -> list[Found]:
    """Leave out copies and projections of other files, unless they have a mask of their own."""
    names: dict[tuple[tuple[str, ...], str], list[Path]] = defaultdict(list)
    for file in files:
        for name in {file.stem.lower(), file.name.lower()}:
            names[file.folders, name].append(folder / file.path)
    of_image = Counter((file.folders, image_name(Path(file.name)).lower()) for file in files)
    kept = []
    for file in files:
        stem = file.stem.lower()
        made = ((what, re.fullmatch(pattern, stem)) for what, pattern in _MADE_OF.items())
        of = {what: one["own"] for what, one in made if one and (file.folders, one["own"]) in names}
        what = next((what for what, own in of.items() if own != stem), "")
        if what and of_image[file.folders, stem] == 1:
            path, others = folder / file.path, names[file.folders, of[what]]
            if what == _COPIES and not any(_is_same(path, other) for other in others):
                what = "named like copies of a file beside them, but of other content, so used"
                kept.append(file)
            notes[what].append(file.path)
        else:
            kept.append(file)
    return kept


def _is_same(one: Path, other: Path) -> bool:
    """Tell whether two files, or folders, are of the same content; not of those kept from us."""
    with suppress(OSError, MitolumeError):
        is_folder = one.is_dir() or other.is_dir()
        alike = is_folder or one.stat().st_size == other.stat().st_size
        return alike and sha256(one) == sha256(other)
    return False


def _choose_image(pictures: list[_Item], notes: Notes) -> tuple[_Item, Found | None]:
    """Choose the image of a field, of transmitted light where there is one, and its dye."""
    kinds = ("transmitted", "image", "fluorescence")
    pictures.sort(key=lambda p: (kinds.index(p.kind), p.file.ending in (".png", ".jpg", ".jpeg")))
    image, *others = pictures
    dye = next((o for o in others if o.kind == "fluorescence" != image.kind), None)
    for other in others:
        if other is not dye:
            notes[_FURTHER].append(other.file.path)
    return image, dye.file if dye else None


def _letters(key: Key) -> str:
    """Return a key without what is between its words."""
    return "".join(f"{text}{number if number >= 0 else ''}" for text, number in key)


def _match_rest(pairs: dict[_Item, Pair], masks: Sequence[_Item], notes: Notes) -> None:
    """Find the images of masks that share no exact name with one; note those that have none."""
    whole = {(image.place, image.key): image for image in reversed(pairs)}
    by_place, by_name, by_letters = defaultdict(list), defaultdict(list), defaultdict(list)
    for item in pairs:
        by_letters[_letters(item.key)].append(item)
        by_place[item.place].append(item)
        by_name[item.key].append(item)
    crowd = Counter(mask.place for mask in masks)
    fitting = {pair.mask.folders for pair in pairs.values() if pair.mask}
    for mask in masks:
        begins = [(mask.place, mask.key[:end]) for end in range(len(mask.key) - 1, 0, -1)]
        near, end = by_place[mask.place], len(mask.key)
        while end > 1 and mask.key[end - 1][1] < 0 and mask.key[:end] not in by_name:
            end -= 1  # words without a number say nothing of the image: "f1 mask final"
        alike = by_name.get(mask.key[:end], [])
        image = next((whole[begin] for begin in begins if begin in whole), None)
        how = "whose names begin as their image's"
        if image is None and len(near) == crowd[mask.place] == 1:
            image, how = near[0], "the only one where their image is the only one"
        # Where others fit, a mask that fits none has lost its image.
        if image is None and mask.key and len(alike) == 1 and mask.file.folders not in fitting:
            image, how = alike[0], "of their image's name in another folder"
        if image is None and len(same := by_letters[_letters(mask.key)]) == 1:
            image, how = same[0], "of their image's name but for spaces and signs"
        if image is None:
            several = crowd[mask.place] > 1 and mask.file.folders not in fitting
            hint = "; if each object has a file of its own, merge them" * several
            notes[f"{LOST_MASKS} (name each in column mask of its image{hint})"].append(
                mask.file.path
            )
        elif pairs[image].mask is None:
            pairs[image] = replace(pairs[image], mask=mask.file, how=how)
        else:
            notes[_OTHER_MASK].append(mask.file.path)
