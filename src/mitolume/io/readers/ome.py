"""OME's XML: what it states of its images, and in which files their planes are. Reads no pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mitolume.errors import MitolumeError, in_words
from mitolume.io.readers import Stated, lengths, light


def stated_images(xml: str) -> list[tuple[str, dict[str, int], Stated]]:
    """Return the name, the sizes (``T C Z Y X``) and what is stated of each image.

    What can't be understood is left out: one odd attribute takes no other with it.
    """
    found = []
    for image in _all(xml, "Image"):
        for pixels in _all(image, "Pixels"):
            sizes = {axis: int(pixels.get(f"Size{axis}", "1")) for axis in "TCZYX"}
            found.append((image.get("Name", ""), sizes, _stated(pixels)))
    return found


def _stated(pixels: ElementTree.Element) -> Stated:
    said = {
        axis: (value, pixels.get(f"PhysicalSize{axis}Unit") or "µm")  # OME's default
        for axis in "ZYX"
        if (value := pixels.get(f"PhysicalSize{axis}"))
    }
    channels = list(_all(pixels, "Channel"))
    keys = ("IlluminationType", "ContrastMethod", "Fluor")
    lights = [light([c.get(key) for key in keys], c.get("EmissionWavelength")) for c in channels]
    names = tuple(c.get("Name", "") for c in channels)
    return Stated(*lengths(said), channels=names, light=tuple(lights))


def files_of(xml: str) -> list[str]:
    """Return the names of the files that hold the planes; none where it is the file itself."""
    found = _all(xml, "UUID") if "FileName" in xml else ()
    return list(dict.fromkeys(u.get("FileName") for u in found if u.get("FileName")))


def companion_of(xml: str) -> str:
    """Return the name of the file that has the metadata instead; "" where they are here."""
    found = _all(xml, "BinaryOnly") if "BinaryOnly" in xml else ()
    return next((one.get("MetadataFile", "") for one in found), "")


def read_companion(path: Path, of: Path) -> str:
    """Return the metadata that a file holds for another one, in whatever encoding it names."""
    try:
        return ElementTree.tostring(ElementTree.fromstring(path.read_bytes()), "unicode")
    except ElementTree.ParseError as error:
        said = f"{path}, which says what {of.name} holds, can't be read ({in_words(error)})"
        raise MitolumeError(f"{said}; copy it again") from error


def _all(within: Any, name: str) -> Iterator[Any]:
    """Find elements of a name at any depth, in any version of the schema."""
    root = ElementTree.fromstring(within) if isinstance(within, str) else within
    return (inner for inner in root.iter() if inner.tag.rpartition("}")[2] == name)
