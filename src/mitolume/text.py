"""Numbers and counts as words, for pages, verdicts and messages."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable
from itertools import count as count_from
from itertools import takewhile
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

_TURN = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # turn text around; are not seen
_LEFTWARD = f"[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff{_TURN}]"
_NAME = rf"(\S*{_LEFTWARD}\S*(?:\s+\S*{_LEFTWARD}\S*)*)"


def number(value: float, digits: int = 3, signed: bool = False) -> str:
    """Write a number with fixed digits and a real minus sign; NaN reads "undefined"."""
    if not math.isfinite(value):
        return "undefined"
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if float(text) == 0:  # no sign for what rounds to zero
        text = text.lstrip("+-")
    return text.replace("-", "\N{MINUS SIGN}")


def percent(value: float, digits: int = 1, signed: bool = False) -> str:
    """Write a share of one in per cent; NaN reads "undefined"."""
    return f"{number(100 * value, digits, signed)} %" if math.isfinite(value) else "undefined"


def count(value: float, noun: str) -> str:
    """Write how many there are of something, in the plural where it is not one."""
    if not math.isfinite(value):
        return f"unknown number of {noun}s"
    return f"{value:.0f} {noun}" + "s" * bool(value != 1)


def spare(default: str) -> str:
    """Return an option for a command whose ``--out`` is this by default, "" where it is free."""
    name = Path(default)
    others = (name.with_stem(f"{name.stem}_{n}") for n in count_from(2))
    return f" --out {next(one for one in others if not one.exists())}" * name.exists()


def title_of(column: str) -> str:
    """Turn the name of a column into words.

    Examples
    --------
    >>> title_of("skeleton_length_um"), title_of("area_um2"), title_of("n_branches")
    ('skeleton length (µm)', 'area (µm²)', 'n branches')
    """
    units = {"um": "µm", "um2": "µm²", "um3": "µm³", "px": "px"}
    words, _, last = column.rpartition("_")
    if words and last in units:
        return f"{words.replace('_', ' ')} ({units[last]})"
    return column.replace("_", " ")


def quoted(path: object) -> str:
    """Return a path as a shell takes it, for commands that a user copies."""
    return shlex.quote(str(path))


def of_scene(name: str, scene: str | None) -> str:
    """Return how a scene of a file is named; one without scenes is named by its file."""
    return f"{name} (scene {scene})" if scene else name


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Shorten names by the words that all begin and all end with.

    Examples
    --------
    >>> short_names(["day_3_f01_bf.tif", "day_3_f02_bf.tif"])
    {'day_3_f01_bf.tif': 'f01', 'day_3_f02_bf.tif': 'f02'}
    >>> short_names(["f0.tif"])
    {'f0.tif': 'f0.tif'}
    >>> short_names(["dish 1.ome.tif", "dish 2_BF.tif"])  # of two kinds of one ending
    {'dish 1.ome.tif': '1', 'dish 2_BF.tif': '2_BF'}
    """
    plain = {name: re.sub(r"\.ome(?=\.\w+$)", "", name) for name in names}
    if len(set(plain.values())) < len(plain):  # f0.tif beside f0.ome.tif
        plain = {name: name for name in plain}
    words = {name: re.split(r"([ _.-]+)", short) for name, short in plain.items()}
    if len(words) < 2:
        return {name: name for name in words}

    def shared(of: list[list[str]]) -> int:
        return sum(1 for _ in takewhile(lambda at: len(set(at)) == 1, zip(*of, strict=False)))

    room = min(map(len, words.values())) - 1  # of the shortest, a word stays
    # Marks are every other word, and go with the word beside them.
    start = min(shared(list(words.values())), room) // 2 * 2
    end = min(shared([own[::-1] for own in words.values()]), room - start) // 2 * 2
    return {name: "".join(own[start : len(own) - end]) for name, own in words.items()}


def on_page(value: Any) -> Any:
    r"""Keep a number beside its %, and words from right to left from turning a page's text around.

    Examples
    --------
    >>> print(on_page("look at \N{HEBREW LETTER ALEF}.tif (<b>)"))
    look at <bdi>א.tif</bdi> (&lt;b&gt;)
    >>> on_page("88 % of control")
    '88\xa0% of control'
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    value = re.sub(r"(?<=\d) (?=%)", "\N{NO-BREAK SPACE}", value)
    if not re.search(_LEFTWARD, value):
        return value
    return Markup().join(
        Markup("<bdi>{}</bdi>").format(re.sub(f"[{_TURN}]", "\N{REPLACEMENT CHARACTER}", part))
        if number % 2
        else escape(part)
        for number, part in enumerate(re.split(_NAME, value))
    )
