"""A pair to compare: its key, whose responses it has, and whether one of them says so."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from rlaif_framework.data.authors import read_authors
from rlaif_framework.data.human_labels import sort_texts
from rlaif_framework.data.pair_forms import PairRow, hash_texts
from rlaif_framework.data.row_files import Row
from rlaif_framework.records.preferences import Comparison

POSITIONS = ("the first response", "the second response")
CHOSEN = ("the chosen response", "the rejected response")

_NAMES = (
    r"(?:chat ?)?gpt|claude|gemini|bard|llama|mistral|mixtral|qwen|deepseek|gemma|grok|copilot|smollm|command[- ]r|phi"
)
_MAKERS = r"openai|anthropic|google|deepmind|meta|mistral|alibaba|deepseek|microsoft|xai|hugging ?face|cohere"
_SELF_NAMING = re.compile(
    rf"\b(?:as|i am|i'm|i’m|my name is|this is)\s+(?:called\s+)?(?:{_NAMES})\b"
    rf"|\b(?:as|i am|i'm|i’m)\s+an?\s+(?:ai|artificial intelligence|large language model|language model)\b"
    rf"|\b(?:trained|developed|created|made|built)\s+by\s+(?:{_MAKERS})\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Item:
    """A pair to compare."""

    key: str
    """Hash of the prompt and the responses, in any order: answers belong to texts, whatever file they are in."""
    comparison: Comparison
    """The pair, with its responses in sorted order: answers say which of the two is meant."""
    sides: tuple[str, str]
    """Names of what wrote the first and the second response, such as policies. They are never shown."""

    @classmethod
    def create(cls, comparison: Comparison, sides: tuple[str, str]) -> Self:
        """Create the item of a pair whose responses are in any order."""
        texts, swapped = sort_texts(comparison)
        if swapped:
            comparison, sides = comparison.swap(), (sides[1], sides[0])
        return cls(hash_texts(*texts), comparison, sides)


def name_sides(row: Row, pair: PairRow) -> tuple[str, str]:
    """Name what wrote the two responses: models, the preferred and the other response, or positions in the row."""
    authors = read_authors(row, pair)
    if authors is not None:
        return authors
    first, second = CHOSEN if "chosen" in row.values else POSITIONS
    return (second, first) if pair.reversed else (first, second)


def names_itself(response: str) -> bool:
    """Return True if a response says who wrote it, such as "As ChatGPT, I ..."."""
    return _SELF_NAMING.search(response) is not None
