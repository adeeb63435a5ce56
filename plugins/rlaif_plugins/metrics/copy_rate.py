"""The metric `copy-rate`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from rlaif_framework import Component, Context, MetricConfig, Prompt, hookimpl
from rlaif_framework.data import copy_rate


class CopyRateConfig(MetricConfig):
    """Measure the fraction of a response that is copied from the prompt's source, in sequences of 5 words."""

    kind: Literal["copy-rate"] = "copy-rate"


class CopyRate:
    """Compares the word sequences of responses with those of the sources."""

    def __init__(self, config: CopyRateConfig, context: Context) -> None: ...

    def measure(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Mapping[str, Sequence[float | None]]:
        """Return the copy rate of each response, in [0, 1]."""
        pairs = zip(prompts, responses, strict=True)
        return {"copy_rate": [copy_rate(prompt.source, text) for prompt, text in pairs]}


@hookimpl
def rlaif_metrics() -> Iterable[Component]:
    """Offer `copy-rate`."""
    yield Component("copy-rate", CopyRateConfig, "rlaif_plugins.metrics.copy_rate:CopyRate")
