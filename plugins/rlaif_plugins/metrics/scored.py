"""The metric `scored`: the score of a labeler, and the share of responses above a threshold, as a harmless rate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, cast

from rlaif_framework import (
    Component,
    Context,
    MetricConfig,
    Prompt,
    Reward,
    ScoringLabelerSlot,
    hookimpl,
)


class ScoredConfig(MetricConfig):
    """Score each response alone with a labeler, and measure the rate of scores above a threshold."""

    kind: Literal["scored"] = "scored"
    labeler: ScoringLabelerSlot
    """The labeler. It must score each response alone, as `rate` does."""
    name: str = "acceptable"
    """What the rate is about: `harmless` measures `harmless_rate` and `harmless_score`."""
    above: float = 0.0
    """A response with a higher score counts. The scores of `rate` are between -1 and 1, with 0 in the middle."""

    @property
    def names(self) -> Sequence[str]:
        """The rate and the score."""
        return [f"{self.name}_rate", f"{self.name}_score"]


class Scored:
    """Scores all responses in one call."""

    def __init__(self, config: ScoredConfig, context: Context) -> None:
        self.config = config
        # Its class has `score`, since its config says so: checked when the class is imported.
        self.labeler = cast(Reward, context.build_labeler(config.labeler))

    def measure(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Mapping[str, Sequence[float | None]]:
        """Return whether the score of each response is above the threshold, and the score."""
        scores = self.labeler.score(prompts, responses) if responses else []
        rate, score = self.config.names
        return {rate: [float(value > self.config.above) for value in scores], score: list(scores)}


@hookimpl
def rlaif_metrics() -> Iterable[Component]:
    """Offer `scored`."""
    yield Component("scored", ScoredConfig, "rlaif_plugins.metrics.scored:Scored")
