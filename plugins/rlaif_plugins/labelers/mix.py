"""The labeler `mix`, which combines annotated and AI preferences (RLAIF K)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, cast

from pydantic import Field

from rlaif_framework import (
    Comparison,
    Component,
    Context,
    Evidence,
    LabelerConfig,
    LabelerSlot,
    Preference,
    derive_seed,
    hookimpl,
)


class MixConfig(LabelerConfig):
    """Copy the gold preference of a share of the comparisons, and label the others with another labeler."""

    kind: Literal["mix"] = "mix"
    labeler: LabelerSlot = Field(examples=["similarity"])
    """The labeler of the other comparisons."""
    gold_source: Literal["human", "synthetic"] = "human"
    """Source of the gold preferences to copy."""
    proportion: float = Field(1.0, ge=0, le=1)
    """Share of the comparisons with such a preference that keep it, chosen by their ids with the seed."""

    def missing_field(self, comparison: Comparison) -> str | None:
        """Check comparisons that the labeler may be asked about by its requirements."""
        keeps = self.proportion == 1 and comparison.preference_source == self.gold_source
        return None if keeps else self.labeler.missing_field(comparison)


class MixLabeler:
    """Copies gold preferences, and labels the rest in one call."""

    def __init__(self, config: MixConfig, context: Context) -> None:
        self.config = config
        self.seed = context.seed
        self.labeler = context.build_labeler(config.labeler)

    def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        """Label comparisons; `source` in the evidence is the origin of each preference."""
        # All at once, and read in the same order below.
        asked = iter(self.labeler.label([c for c in comparisons if not self.keeps(c)]))
        for comparison in comparisons:
            if self.keeps(comparison):
                first = cast(float, comparison.preference)
                yield Preference(comparison.id, (first, 1.0 - first), Evidence(self.config.gold_source))
            else:
                yield next(asked)

    def keeps(self, comparison: Comparison) -> bool:
        """Return True if a comparison keeps its gold preference, which depends only on its id and the seed."""
        if comparison.preference is None or comparison.preference_source != self.config.gold_source:
            return False
        # By a hash instead of a random draw: the choice does not depend on the other comparisons of a call.
        return derive_seed(self.seed, "mix", comparison.id) % 2**32 < self.config.proportion * 2**32


@hookimpl
def rlaif_labelers() -> Iterable[Component]:
    """Offer `mix`."""
    yield Component("mix", MixConfig, "rlaif_plugins.labelers.mix:MixLabeler")
