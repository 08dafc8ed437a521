"""Channels of one field in files of their own: a_ch00.tif, a_ch01.tif. Compares names only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

from mitolume.io.drafting.matches import Item, Key
from mitolume.io.drafting.names import Word, split_words

_MOST_CHANNELS = 8


def without_channels(items: list[Item]) -> list[Item]:
    """Take the words that number channels out of the names."""
    is_channel: dict[str, Callable[[Word], bool]] = {
        text: lambda word, text=text: word.text == text  # type: ignore[misc]
        for text in sorted({w.text for i in items for w in i.words if w.unit == "channel"})
    }
    for text, test in is_channel.items():
        if _numbers_channels(items, test, text):
            items = [_cut(item, test) for item in items]
    return [_cut_nnunet(item) for item in items]


def _numbers_channels(items: list[Item], test: Callable[[Word], bool], text: str) -> bool:
    """Tell whether a word such as ``c1`` is a channel: nearly every field has the same few."""
    fields: dict[tuple[Key, Key], set[int]] = defaultdict(set)
    of_masks: set[int] = set()
    for item in items:
        numbers = {word.key[1] for word in item.words if test(word)}
        if item.kind == "mask":
            of_masks |= numbers
        elif numbers:
            fields[item.place, _cut(item, test).key] |= numbers
    several = [numbers for numbers in fields.values() if len(numbers) > 1]
    values = set().union(*fields.values()) if fields else set()
    return (
        len(of_masks) < 2  # channels don't have masks of their own, cells called c1, c2 do
        and len(values) <= _MOST_CHANNELS
        and len(several) >= max(0.9 * len(fields), 2 if text == "c" else 1)
    )


def _cut(item: Item, test: Callable[[Word], bool]) -> Item:
    """Move the channel from the words to its own place."""
    numbers = [word.key[1] for word in item.words if test(word)]
    if not numbers:
        return item
    words = tuple(word for word in item.words if not test(word))
    return replace(item, words=words, channel=numbers[0])


def _cut_nnunet(item: Item) -> Item:
    """Take the channel out of nnU-Net's image names: CASE_0000.tif."""
    in_images = any(word.text in ("tr", "ts") for f in item.file.folders for word in split_words(f))
    last = item.words[-1] if item.words else Word("")
    if not in_images or item.kind == "mask" or len(last.number) != 4:
        return item
    rest = (Word(last.text, "", last.shown[:-4]),) if last.text else ()
    return replace(item, words=item.words[:-1] + rest, channel=int(last.number))
