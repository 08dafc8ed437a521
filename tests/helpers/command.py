"""The command line, called as a person would."""

from __future__ import annotations

import sys
from typing import Protocol

import pytest

from mitolume import cli


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["mitolume", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


class Shell(Protocol):
    """Calls the command line and asserts how it ends, see the fixture ``shell``."""

    def __call__(self, *arguments: object, code: int = 0) -> str:
        """Return what it printed: its results, then what it said on standard error."""
        ...
