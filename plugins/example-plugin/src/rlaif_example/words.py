"""The metric `example/distinct-words`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rlaif_example import DistinctWordsConfig
from rlaif_framework import Context, Prompt

WORD = re.compile(r"\w+")


class DistinctWords:
    """Counts words without regard to case and punctuation."""

    def __init__(self, config: DistinctWordsConfig, context: Context) -> None: ...

    def measure(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Mapping[str, Sequence[float | None]]:
        """Return the number of distinct words over that of all words; 1 for a response without words."""
        words = [WORD.findall(text.lower()) for text in responses]
        return {"distinct_words": [len(set(found)) / len(found) if found else 1.0 for found in words]}
