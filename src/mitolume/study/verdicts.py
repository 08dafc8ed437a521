"""Evidence in sentences for a biologist. Computes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from mitolume.text import count, number

HELPED, HURT = "helped", "hurt"
NO_DIFFERENCE, UNTOLD = "no difference shown", "can't be told"
# Of identical arms trained once, half may differ clearly: docs/evidence.md has the rates.
HINT = "a hint only"
_NAMES = {
    "iou": "foreground IoU",
    "iou_image": "mean foreground IoU of images",
    "miou": "mean IoU of foreground and background",
    "cldice": "clDice",
    "boundary_f1": "boundary F1",
    "object_recall": "object recall",
}


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A paired difference, how sure it is, and what that means.

    ``low`` to ``high`` covers the true difference; all intervals that were computed together
    cover theirs at once, at the level asked for. ``p`` is adjusted likewise: it is below 1 - level
    just where the interval leaves out 0. ``df`` says how well the width of the interval is known.
    ``detectable`` is the true difference that a study of this size would show with 80 % power.
    These five are NaN where there is one specimen and one seed, or nothing to compare.
    ``notice`` says what was left out; it is empty where nothing was.
    """

    difference: float
    low: float
    high: float
    df: float
    p: float
    detectable: float
    n_images: int
    n_specimens: int
    n_seeds: int
    notice: str

    @property
    def verdict(self) -> str:
        """Helped, hurt, no difference shown, can't be told, or with one seed: a hint only."""
        # Equal differences everywhere, but for rounding, are no measured noise: repeats were none.
        copies = self.high - self.low < 1e-9 < abs(self.difference)
        if not self.low <= self.high or copies:
            return UNTOLD
        if self.n_seeds == 1:
            return HINT
        return HELPED if self.low > 0 else HURT if self.high < 0 else NO_DIFFERENCE


@dataclass(frozen=True)
class Words:
    """Sentences about one metric on one subset, with intervals made together."""

    metric: str
    subset: str
    level: float
    n: int
    """How many intervals hold at once."""

    def comparison(self, found: Evidence, arm: str, reference: str, k: int) -> str:
        """Say how an arm differs from the reference at k labelled images."""
        at = f"{count(k, 'labelled image')}; {self._sizes(found)}"
        if found.verdict == UNTOLD:
            return f"{arm}: can't be told from {reference} ({at}). {_why_untold(found)}"
        sure = f"({self._interval(found)}; {at})."
        if found.verdict == HINT:
            return (
                f"{arm}: a hint, not evidence. Trained once, it differs from {reference} by "
                f"{number(found.difference, signed=True)} in {self._score} {sure}{_limits(found)}"
            )
        if found.verdict == NO_DIFFERENCE:
            return (
                f"{arm}: no difference from {reference} shown ({_seen(found)}). "
                f"The {self._score} differs by {number(found.difference, signed=True)} "
                f"{sure}{_limits(found)}"
            )
        way = "higher" if found.verdict == HELPED else "lower"
        return (
            f"{arm} {found.verdict}: the {self._score} is {number(abs(found.difference))} {way} "
            f"than with {reference} {sure}{_limits(found)}"
        )

    def step(self, found: Evidence, arm: str, k_from: int, k_to: int) -> str:
        """Say what more labelled images gave an arm."""
        more = f"{count(k_to - k_from, 'more labelled image')} ({k_from} to {k_to})"
        if found.verdict == UNTOLD:
            return f"{arm}: what {more} gave can't be told. {_why_untold(found)}"
        gave = f"{_span(found)} {self._score}"
        hint = ": a hint, not evidence" if found.verdict == HINT else ""
        if found.verdict == NO_DIFFERENCE:
            gave = f"no difference that could be shown ({_seen(found)}): {gave}"
        return f"{arm}: {more} gave {gave} here ({self._sizes(found)}){hint}.{_limits(found)}"

    @property
    def _score(self) -> str:
        return _NAMES.get(self.metric, self.metric)

    def _interval(self, found: Evidence) -> str:
        together = f" of all {self.n} comparisons together" if self.n > 1 else ""
        return f"{100 * self.level:g} % interval{together} {_span(found)}"

    def _sizes(self, found: Evidence) -> str:
        images = count(found.n_images, f"{self.subset} image")
        specimens = count(found.n_specimens, "specimen")
        return f"{images} of {specimens}, {count(found.n_seeds, 'seed')}"


def _span(found: Evidence) -> str:
    return f"{number(found.low, signed=True)} to {number(found.high, signed=True)}"


def _seen(found: Evidence) -> str:
    if found.detectable == 0:
        return "all scores are equal"
    if found.detectable >= 1:
        return "too few specimens or seeds to see any"
    return f"could have seen {number(found.detectable)}"


def _why_untold(found: Evidence) -> str:
    if not found.n_specimens or not found.n_seeds:
        return "No specimen and seed was scored on both sides."
    if found.n_specimens * found.n_seeds == 1:
        return "One specimen and one seed don't show how much either matters."
    return "All repeats gave the same difference, so they don't show what chance does."


def _limits(found: Evidence) -> str:
    """Say how far the evidence reaches."""
    if found.n_specimens == 1:
        return " This holds for this specimen only."
    if found.n_seeds == 1:
        return " Models trained again may differ otherwise: run 3 or more seeds."
    return ""
