"""Find the words in which two responses differ."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

MAX_WORDS = 600
"""Longer responses are compared sentence by sentence, since the time grows with the square of the number of words."""

Segments = list[tuple[str, bool]]
"""Parts of a text in order, each with True if the other text has something else there."""

_WORD = re.compile(r"\s*\S+\s*")
_SENTENCE = re.compile(r"\s*\S.*?(?:[.!?](?=\s)|\n|$)\s*", re.DOTALL)


def compare_words(first: str, second: str) -> tuple[Segments, Segments]:
    """Split two texts into parts that are equal, apart from white space, and parts that differ."""
    part = _SENTENCE if max(len(first.split()), len(second.split())) > MAX_WORDS else _WORD
    parts = part.findall(first), part.findall(second)
    found: tuple[Segments, Segments] = ([], [])
    # Frequent words are not looked up ("autojunk"), which bounds the time for texts that repeat themselves.
    stripped = [[text.strip() for text in side] for side in parts]
    matcher = SequenceMatcher(None, stripped[0], stripped[1])
    for operation, *bounds in matcher.get_opcodes():
        for side, (start, end) in enumerate((bounds[:2], bounds[2:])):
            text = "".join(parts[side][start:end])
            if text:
                found[side].append((text, operation != "equal"))
    return found
