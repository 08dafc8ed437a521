"""Which channel is meant: by name, by number, or the one of transmitted light. Reads no pixels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from mitolume.errors import MitolumeError

Channel = str | int | None

# Whole words that name transmitted light, after "_" and "-" became spaces. Not among them: DIA (a
# dye), PH3 (a histone), and "bright" beside another word.
_TRANSMITTED = re.compile(
    r"^bright$|\b(?:t ?pmt\d*|pmt trans|esid|tl\d*|td|dic\d*|nomarski|bf\d*|bright ?field\d*"
    r"|trans\d*|transmitted|transmission|translight|diascopic|ph[12]|phc|phaco|phase\d*"
    r"|phase ?contrast|oblique|hoffman)\b"
)
# Words beside which the ones above mean something else, or that name light of another kind.
_OTHER = re.compile(
    r"\b(?:\w*[gryc]fp\w*|e?bfp\d*|m ?cherry|m ?scarlet\w*|td ?tomato|fitc|tritc|dapi|hoechst\w*"
    r"|alexa\w*|af ?\d{3}|cy ?[2357]|tmr[em]|mito ?tracker\w*|\w*fluo\w*|rhod\w*|texas"
    r"|reflect\w*|refl|shg|thg|polari[sz]\w*|pol"
    r"|golgi|tgn\w*|flim|lifetime|lag|[smg][012]? phase|phase [smg][012]?|cell cycle)\b"
)

# pandas writes 3.0 where others of the column are empty
_NUMBER = re.compile(r"([0-9]+)(?:\.0)?")
_WAVE = r"(?:w\d)?"  # in the names of MetaMorph, the number of a channel before its name


def listed_channels(names: Sequence[str]) -> str:
    """Write channels with their numbers, by which one without a name can be asked for.

    Examples
    --------
    >>> listed_channels(["Transmitted", "1"])
    '0 = Transmitted, 1 (no name)'
    """
    return ", ".join(
        f"{i} (no name)" if name == str(i) else f"{i} = {name}" for i, name in enumerate(names)
    )


def transmitted_channel(names: Sequence[str], light: Sequence[str] = ()) -> tuple[list[int], str]:
    """Find the channels of transmitted light.

    Parameters
    ----------
    names
        The channels' names.
    light
        What the file states of each channel's light; empty where it states nothing.

    Returns
    -------
    channels, reason
        Numbers from 0 of all that fit, by name or by what the file states, and why. Where none
        does, the one without an emission wavelength, if all others have one.

    Examples
    --------
    >>> transmitted_channel(["DAPI", "T PMT"])
    ([1], 'its name says so')
    >>> transmitted_channel(["Control", "BFP", "phase-lag FLIM"])
    ([], '')
    """
    light = light if len(light) == len(names) else [""] * len(names)
    named = [i for i, name in enumerate(names) if _fits(name)]
    stated = [i for i, text in enumerate(light) if _fits(text)]
    if len(stated) == len(names) > 1:
        stated = []  # said of all, it tells none apart
    fits = sorted({*named, *stated})
    if fits:
        reason = "its name says so" if fits == named else f"the file says {light[fits[0]]}"
        return fits, reason
    emits = ["emission" in text for text in light]
    if sum(emits) == len(names) - 1 > 0:
        (left,) = (i for i, does in enumerate(emits) if not does)
        if not _OTHER.search(_words(names[left])):
            return [left], "it is the only one without an emission wavelength"
    return [], ""


def asked_number(text: str, count: int) -> int | None:
    """Read the number of one of ``count`` channels or scenes; None where it is none.

    Examples
    --------
    >>> asked_number("1", 3), asked_number("1.0", 3), asked_number("3", 3)
    (1, 1, None)
    """
    found = re.fullmatch(_NUMBER, text)
    return int(found[1]) if found and int(found[1]) < count else None


def select_channel(image: xr.DataArray, channel: Channel) -> xr.DataArray:
    """Keep one channel of an image.

    Parameters
    ----------
    image
        Dims ``T C Z Y X``.
    channel
        Name (case, spaces and hyphens ignored) or number from 0. None takes the only one, or
        the only one of transmitted light.

    Returns
    -------
    xarray.DataArray
        The same dims, ``C`` of length 1. Where it was found and not named,
        ``attrs["channel_found_by"]`` says which and why, to be shown to the user.

    Raises
    ------
    MitolumeError
        The image has no such channel, or several and none was named and found.
    """
    names = [str(name) for name in image["C"].values]
    listing = listed_channels(names)
    where = image.attrs.get("source", "the image")
    if channel is None or channel == "":
        if len(names) == 1:
            return image
        fits, reason = transmitted_channel(names, image.attrs.get("channel_light", ()))
        if len(fits) == 1:
            found = f"channel {fits[0]} = {names[fits[0]]} ({reason})"
            return _keep(image, fits[0]).assign_attrs(channel_found_by=found)
        also = f"; {' and '.join(map(str, fits))} may all be transmitted light" if fits else ""
        raise MitolumeError(
            f"{where} has {len(names)} channels; name one of them ({listing}){also}"
        )
    text = str(channel)
    for same in (str.lower, _squeezed):
        matches = [i for i, name in enumerate(names) if same(name) == same(text)]
        if matches:
            break
    number = asked_number(text, len(names))
    if not matches and number is not None:
        matches = [number]
    if len(matches) > 1:
        raise MitolumeError(
            f"{where} has {len(matches)} channels {text!r}; give the number of one ({listing})"
        )
    if not matches:
        raise MitolumeError(f"{where} has no channel {text!r}; it has {listing}")
    return _keep(image, matches[0])


def channel_in_name(path: Path, channel: Channel) -> re.Match[str] | None:
    """Find the name of a channel in that of a file, as a word of its own in any case.

    Examples
    --------
    >>> channel_in_name(Path("a_Transmitted.tif"), "transmitted").span()
    (2, 13)
    >>> channel_in_name(Path("Test.tif"), "T"), channel_in_name(Path("a_1.tif"), 1)
    (None, None)
    >>> channel_in_name(Path("a_w1BF_s2.TIF"), "BF").group()  # MetaMorph numbers its wavelengths
    'w1BF'
    """
    text = str(channel or "")
    if not text or re.fullmatch(_NUMBER, text):
        return None
    return re.search(rf"(?<![^\W_]){_WAVE}{re.escape(text)}(?![^\W_])", path.name, re.I)


def file_of_channel(path: Path, channel: Channel, other: Channel) -> Path | None:
    """Return the file that is called alike, but after another channel; it need not exist.

    One whose name differs in case, or in MetaMorph's number of the channel, is taken for it. None
    where ``path`` is not called after ``channel``.
    """
    named = channel_in_name(path, channel)
    if named is None:
        return None
    start, end = path.name[: named.start()], path.name[named.end() :]
    wave = named.group()[: -len(str(channel))]
    file = path.with_name(f"{start}{wave}{other}{end}")
    beside = path.parent.iterdir() if path.parent.is_dir() else ()  # the network has no list
    called = re.compile(rf"{re.escape(start)}{_WAVE}{re.escape(str(other))}{re.escape(end)}", re.I)
    found = sorted(
        (one for one in beside if called.fullmatch(one.name)),
        key=lambda one: (one.name.casefold() != file.name.casefold(), one.name),
    )
    return found[0] if found else file


def _keep(image: xr.DataArray, channel: int) -> xr.DataArray:
    light = image.attrs.get("channel_light", ())
    kept = image.isel(C=[channel])
    return kept.assign_attrs(channel_light=(light[channel],)) if light else kept


def _fits(text: str) -> bool:
    words = _words(text)
    return bool(_TRANSMITTED.search(words)) and not _OTHER.search(words)


def _words(text: str) -> str:
    """Part words at signs and at BrightField's capital, in lower case; pH is not phase contrast."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", text)
    return re.sub(r"[\W_]+", " ", parted).lower().strip()


def _squeezed(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).lower()
