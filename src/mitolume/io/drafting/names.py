"""What the words in file and folder names mean. Knows no folder, opens no file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from unicodedata import normalize

# What a word says a file is. "structure" is fluorescence, or masks, of something else.
KINDS: dict[str, str] = {
    "mask": """mask masks msk msks mitomask mitomasks mitoseg
        label labels lbl lbls seg segs segm segmentation segmentations segmented
        gt gts groundtruth groundtruths truth annotation annotations annot annots anno annos ann
        manual manuals target targets tracing tracings traced binary labelmap labelmaps labelimage
        instance instances semantic maske masken masque masques mascara mascaras máscara máscaras
        掩膜 掩码 蒙版 标签 标注 マスク""",
    "image": """image images img imgs im ims raw raws orig original originals input inputs source
        sources src picture pictures pic pics rgb jpegimages
        bild bilder imagen imagenes imágenes 图像 图片 原图 画像""",
    "transmitted": """brightfield bf dic tl phase ph phc pc phasecontrast trans transmitted
        transmission transmittedlight td tpmt qpi qpm odt holotomography labelfree nomarski
        hellfeld durchlicht phasenkontrast 明场 相差 明視野 位相差""",
    "mitochondria": """mito mitos mitochondria mitochondrion mitochondrial tmrm tmre mitotracker mtr
        mtg mtdr tom20 tomm20 tom22 cox4 cox8 coxiv omp25 su9 pkmito mitogfp mitodsred jc1 r123
        rhodamine123 mitoview hsp60""",
    "fluorescence": """fluorescence fluorescent fluo fluor fluoro fl flu gfp egfp yfp eyfp cfp rfp
        mcherry cherry dsred tdtomato tritc fitc texasred cy3 cy5 cy7
        fluoreszenz 荧光 蛍光""",
    "structure": """cellmask dapi hoechst nuc nuclei nucleus nuclear dna actin phalloidin tubulin
        lyso lysotracker golgi membrane membranes wga synapse synapses glia peroxisome""",
    "left out": """overlay overlays flows outline outlines probability probabilities prob probs
        prediction predictions predicted pred preds thumb thumbs thumbnail thumbnails cellprob
        preview previews""",
}  # fmt: skip
ROLE_WORDS = {
    word: role
    for role, words in {
        "train": "train training trn",
        "validation": "val valid validation validate vali",
        "test": "test testing tst holdout",
        "unlabelled": "unlabelled unlabeled unannotated",
        "": "labelled labeled annotated",
    }.items()
    for word in words.split()
}
NNUNET_ROLES = {"tr": "train", "ts": "test"}
CONDITIONS = {
    word: condition
    for condition, words in {
        "control": "control controls ctrl ctrls ctl ctr untreated baseline basal mock kontrolle "
        "kontrollen unbehandelt 对照",
        "DMSO": "dmso", "vehicle": "vehicle veh",
        "FCCP": "fccp", "CCCP": "cccp", "BAM15": "bam15",
        "oligomycin": "oligomycin oligo", "antimycin A": "antimycin antimycina aa",
        "rotenone": "rotenone rot", "valinomycin": "valinomycin", "menadione": "menadione",
        "H2O2": "h2o2", "mdivi-1": "mdivi", "nocodazole": "nocodazole",
        "staurosporine": "staurosporine", "starvation": "starved starvation",
        "glucose": "glucose", "galactose": "galactose", "hypoxia": "hypoxia",
        "normoxia": "normoxia", "treated": "treated",
        "wild type": "wt wildtype", "knockout": "ko knockout", "knockdown": "kd knockdown",
        "mutant": "mut mutant",
    }.items()
    for word in words.split()
}  # fmt: skip
VEHICLES = ("DMSO", "vehicle")
# Words that number something. "batch" and "coarse": what may leak lies within one of these;
# "position": places in a dish; "fine": neighbours that are nearly the same picture.
UNITS: dict[str, str] = {
    "batch": "batch date day session sess",
    "coarse": """movie mov video vid film m dish plate exp expt experiment e cell cells mouse mice
        animal rat rats patient pt subject subj sub donor slide well d rep replicate repeat sample
        samples specimen culture coverslip cs run embryo fish worm larva organoid line clone passage
        zelle zellen maus schale probe cellule souris 细胞 小鼠
        chamber dataset set stack group id case vol volume tomo tomogram g b""",
    "position": """f field fields fov fovs pos position p point site s xy view region scene series
        feld 视野""",
    "fine": """z zs slice slices sl plane planes section sections t tp time timepoint timepoints
        frame frames fr crop crops tile tiles patch patches roi rois block sk fk x y denoised decon
        deconvolved sharpened filtered enhanced copy aug augmented flip flipped rotated""",
    "channel": "ch channel chan c w wavelength",
}  # fmt: skip

# Words for one picture in another form, or at another moment: they tell no specimens apart.
VERSIONS = """denoised decon deconvolved sharpened filtered enhanced copy kopie aug augmented flip
    flipped rotated processed preprocessed corrected registered aligned converted export exported
    max avg sum mip projection projections before after pre post"""

_KIND = {word: kind for kind, words in KINDS.items() for word in words.split()}
_UNIT = {word: unit for unit, words in UNITS.items() for word in words.split()}
_VERSIONS = frozenset(VERSIONS.split())
_KNOWN = {*_KIND, *ROLE_WORDS, *CONDITIONS, *_UNIT}
_MEASURES = {"h", "hr", "hrs", "min", "mins", "sec", "s", "x", "nm", "um", "µm", "px"}
_TOGETHER = [
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        (r"label[\s_.-]*free", "labelfree"),
        (r"bright[\s_.-]+field", "brightfield"),
        (r"phase[\s_.-]+contrast", "phasecontrast"),
        (r"ground[\s_.-]+truth", "groundtruth"),
        (r"wild[\s_.-]+type", "wildtype"),
        (r"(?<!\d)(?:8|16|32)[\s_-]?bits?(?![^\W\d_])", "converted"),
        (r"t[_-]pmt", "tpmt"),
        (r"antimycin[\s_-]*A(?![^\W\d_])", "antimycin"),
        (r"(?<![^\W\d_])(?:un|no|non|without)[\s_-]*(?:label+ed|labels?|masks?)(?![^\W\d_])",
         "unlabelled"),
        (r"(?<!\d)(20\d\d)[-_.](\d\d)[-_.](\d\d)(?!\d)", r"\1\2\3"),
        (r"(?<![^\W_])r(\d\d)c(\d\d)(?=f\d\d)", r"r\1xc\2_"),  # Opera: row, column, field
    )
]  # fmt: skip
_SITE = r"(?=[_\s-]*(?:s|f|fov|site|field|w|pos)[_\s-]?\d)"
_WELL = (
    r"(?<![^\W_])(?:[A-P](?:0?[1-9]|1\d|2[0-4])"
    + _SITE
    + r"|[ABDEGH](?:0[1-9]|1[0-2])|r\d\dxc\d\d)"
)
_DOSE = r"\d+(?:[.,]\d+)?[\s_]?[nuµμm]M"
_TOKENS = re.compile(
    rf"(?P<well>{_WELL}(?![^\W_]))|(?P<dose>{_DOSE}(?![^\W\d_]))|[^\W_]+?(?={_DOSE}(?![^\W\d_])|[\W_]|$)"
)
_DATE = re.compile(r"(?:20\d\d|\d\d)(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])")
_PIECES = re.compile(r"\d+|[^\W\d_]+")
_CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^A-Z]+|[A-Z]+")


@dataclass(frozen=True)
class Word:
    """A word of a name with the number that belongs to it; a bare number has no text.

    ``text`` is in lower case; ``number`` keeps its leading zeros; ``shown`` is as it was written.
    """

    text: str
    number: str = ""
    shown: str = ""

    @property
    def key(self) -> tuple[str, int]:
        """What two spellings of the same word share: case and leading zeros don't count."""
        return self.text, int(self.number) if self.number else -1

    @property
    def kind(self) -> str:
        """What the word says a file is: a key of `KINDS`, or nothing."""
        return _KIND.get(self.text + self.number) or _KIND.get(self.text, "")

    @property
    def unit(self) -> str:
        """What the word numbers: a key of `UNITS`, or nothing."""
        if self.text.startswith("well "):
            return "coarse"
        return _UNIT.get(self.text, "") if self.number else ""

    @property
    def is_version(self) -> bool:
        """Whether the word names a form of a picture or a moment: a word of `VERSIONS`."""
        return self.text in _VERSIONS and not self.number

    def without_text(self) -> list[Word]:
        """Return what is left where the text has been understood: its number."""
        return [Word("", self.number, self.shown)] if self.number else []


@lru_cache(maxsize=65536)
def split_words(name: str) -> tuple[Word, ...]:
    """Split a name into words, each with its number.

    Parameters
    ----------
    name
        A folder's name, or a file's without its ending.

    Returns
    -------
    tuple of Word
        In the order of the name.

    Examples
    --------
    >>> [word.shown for word in split_words("m008_dish 2-CellMaskZ03")]
    ['m008', 'dish2', 'CellMask', 'Z03']
    >>> [word.kind for word in split_words("imgLabels")]
    ['image', 'mask']
    """
    name = normalize("NFC", name)  # macOS writes ä as a and two dots
    for pattern, replacement in _TOGETHER:
        name = pattern.sub(replacement, name)
    words: list[Word] = []
    for token in _TOKENS.finditer(name):
        if token["well"] or token["dose"]:
            shown = token[0].replace("xc", "c")
            words.append(Word(f"{token.lastgroup} {token[0].lower()}", "", shown))
        else:
            _add(words, token[0])
    return tuple(words)


def _add(words: list[Word], chunk: str) -> None:
    """Add the words of a chunk without separators; a number goes to the word before it."""
    for place, piece in enumerate(_split_chunk(chunk)):
        last = words[-1] if words else None
        if not piece.isdecimal():
            if place and last and not last.text and piece.lower() in _MEASURES:
                words[-1] = Word("time", last.number, last.shown + piece)  # 24h, 60x
            else:
                words.append(Word(piece.lower(), "", piece))
        elif last and last.text and not last.number and (place or last.text in _UNIT):
            words[-1] = Word(last.text, piece, last.shown + piece)
        elif _DATE.fullmatch(piece):
            words.append(Word("date", piece, piece))
        else:
            words.append(Word("", piece, piece))


def _split_chunk(chunk: str) -> list[str]:
    """Split letters from digits and camel case, but leave words that are known whole."""
    if chunk.lower() in _KNOWN:
        return [chunk]
    pieces = _PIECES.findall(chunk)
    letters = [piece for piece in pieces if not piece.isdecimal()]
    if len(letters) > 1 and pieces[0] is letters[0] and letters[0].lower() not in _KNOWN:
        return [chunk]  # h9c2, u2os: a name, not a series of numbered words
    return [part for piece in pieces for part in _split_letters(piece)]


def _split_letters(piece: str) -> list[str]:
    """Split camel case, but not within a known word: CellMaskRed is CellMask and Red."""
    if piece.isdecimal() or piece.lower() in _KNOWN:
        return [piece]
    parts: list[str] = []
    for part in _CAMEL.findall(piece):
        if parts and (parts[-1] + part).lower() in _KNOWN:
            parts[-1] += part
        else:
            parts.append(part)
    return parts
