"""Numbers and counts as words, for pages, verdicts and messages."""

from __future__ import annotations

import math


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
    return f"{value:.0f} {noun}" + "s" * (value != 1)
