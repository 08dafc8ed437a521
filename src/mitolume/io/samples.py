"""Public sample images, listed in samples.csv, and how one is fetched. Opens none."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mitolume.errors import MitolumeError
from mitolume.io.formats import sha256
from mitolume.io.write import atomic, require_folder

_SECONDS = 20  # without an answer, after which a server counts as out of reach


@dataclass(frozen=True)
class Sample:
    """A file that its owners publish: what it is, how many bytes it has, and where it lies."""

    name: str
    file: str
    about: str
    licence: str
    size: int
    sha256: str
    url: str

    def __str__(self) -> str:
        return f"{self.about}: {self.licence}, {self.size / 1e6:.1f} MB"


def samples() -> dict[str, Sample]:
    """Return all samples by their names."""
    text = Path(__file__).with_name("samples.csv").read_text(encoding="utf-8")
    rows: list[dict[str, Any]] = list(csv.DictReader(text.splitlines()))
    return {row["name"]: Sample(**(row | {"size": int(row["size"])})) for row in rows}


def fetch_sample(name: str, folder: Path) -> Path:
    """Fetch one of `samples` from its home into a folder, unless it is there; return its file.

    Raises
    ------
    MitolumeError
        There is no such sample, its home is out of reach, or other bytes came than were published.
    """
    try:
        sample = samples()[name]
    except KeyError:
        raise MitolumeError(f"no sample {name}; there are {', '.join(samples())}") from None
    require_folder(folder)
    path, host = folder / sample.file, urlsplit(sample.url).netloc
    if path.is_file() and sha256(path) == sample.sha256:
        return path
    try:
        import pooch
        from requests import RequestException
    except ImportError:
        raise MitolumeError("samples need pooch: pip install pooch") from None
    with atomic(path) as temporary:
        try:
            pooch.HTTPDownloader(timeout=_SECONDS)(sample.url, str(temporary), None)
        except RequestException as error:
            answer = getattr(error.response, "status_code", "")
            why = f"it answers {answer}" if answer else "are you online?"
            raise MitolumeError(f"{name} could not be fetched from {host}: {why}") from None
        if sha256(temporary) != sample.sha256:
            raise MitolumeError(
                f"{sample.url} is no longer the file that was published; nothing was written"
            )
    return path
