"""A file beside results that keeps what each was made of, by content and not by name."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mitolume import __version__
from mitolume.errors import MitolumeError
from mitolume.io.formats import sha256

Stamp = tuple[int, int]  # bytes, and when it was written last (ns)


def stamp(path: Path) -> Stamp:
    """Return size and time of a file, or of all files of an OME-Zarr folder together."""
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    found = [file.stat() for file in files]
    return sum(one.st_size for one in found), max((one.st_mtime_ns for one in found), default=0)


class Provenance:
    """What the results in a folder were made of, one line of JSON a job, the last one counts.

    Parameters
    ----------
    path
        The file; read where it is there, made when something is first written down. Lines that
        can't be read, as a killed process leaves one, are passed over. Without a path nothing is
        known and nothing is kept.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._entries: dict[str, dict[str, Any]] = {}
        self._is_new = path is not None and not path.exists()
        if path is None or self._is_new:
            return
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
                self._entries |= dict.fromkeys(entry["results"], entry)
            except (ValueError, KeyError, TypeError):
                continue

    def settings(self, results: Sequence[Path]) -> Mapping[str, Any] | None:
        """Return the settings that results were made with, None where it is not known."""
        return self._entry(results[-1]).get("settings")

    def is_ours(self, result: Path) -> bool:
        """Tell whether a result is as it was written: not made or changed by someone else."""
        written = self._entry(result).get("results", {}).get(self._name(result), ())
        return written is None or tuple(written) == stamp(result)

    def is_made_of(self, results: Sequence[Path], inputs: Sequence[Path]) -> bool:
        """Tell whether finished results were made of inputs of this content.

        A file of the same size and time is taken for the same; others are compared by hash.
        """
        made_of = self._entry(results[-1]).get("inputs")
        if made_of is None or len(made_of) != len(inputs):
            return False
        return all(
            (one["size"], one["mtime_ns"]) == stamp(path) or one["sha256"] == sha256(path)
            for one, path in zip(made_of, inputs, strict=True)
        )

    def begin(self, results: Sequence[Path]) -> None:
        """Keep that these results are going to be written; what is there of them may go."""
        self._append({"results": {self._name(path): None for path in results}})

    def add(
        self,
        results: Sequence[Path],
        inputs: Sequence[Mapping[str, Any]],
        settings: Mapping[str, Any],
    ) -> None:
        """Keep what finished results were made of; inputs as `fingerprint` returns them."""
        self._append(
            {
                "results": {self._name(path): stamp(path) for path in results},
                "inputs": list(inputs),
                "settings": dict(settings),
                "mitolume": __version__,
            }
        )

    def remove_unused(self) -> None:
        """Remove the file, and its folder, where it was begun and there is no result."""
        if self._path is None or not self._is_new or not self._path.exists():
            return
        folder = self._path.parent
        if not any((folder / name).exists() for name in self._entries):
            self._path.unlink()
            if not any(folder.iterdir()):
                folder.rmdir()

    def _entry(self, result: Path) -> dict[str, Any]:
        return self._entries.get(self._name(result), {})

    def _name(self, result: Path) -> str:
        """Return the name of a result as seen from the file, so that the folder may be moved."""
        return Path(os.path.relpath(result, (self._path or result).parent)).as_posix()

    def _append(self, entry: dict[str, Any]) -> None:
        if self._path is None:
            return
        self._entries |= dict.fromkeys(entry["results"], entry)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        except OSError as error:
            raise MitolumeError(f"{self._path} can't be written: {error.strerror}") from error


def fingerprint(path: Path, seen: Stamp) -> dict[str, Any]:
    """Return what tells an input from another: name, size, time and hash.

    Parameters
    ----------
    path
        A file or an OME-Zarr folder.
    seen
        Its stamp from before it was used.

    Raises
    ------
    MitolumeError
        It has changed since.
    """
    digest = sha256(path)
    if stamp(path) != seen:
        raise MitolumeError(f"{path} changed while it was being read; do it again with --resume")
    return {"file": str(path), "size": seen[0], "mtime_ns": seen[1], "sha256": digest}
