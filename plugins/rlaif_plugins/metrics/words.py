"""The metric `words`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from rlaif_framework import Component, Context, MetricConfig, Prompt, hookimpl


class WordsConfig(MetricConfig):
    """Count the words of a response."""

    kind: Literal["words"] = "words"


class Words:
    """Counts the words between spaces."""

    def __init__(self, config: WordsConfig, context: Context) -> None: ...

    def measure(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Mapping[str, Sequence[float | None]]:
        """Return the number of words of each response."""
        return {"words": [len(text.split()) for text in responses]}


@hookimpl
def rlaif_metrics() -> Iterable[Component]:
    """Offer `words`."""
    yield Component("words", WordsConfig, "rlaif_plugins.metrics.words:Words")
