"""The mix labeler: a known preference where there is one, a labeler's elsewhere (RLAIF K: human and AI feedback)."""

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
    """Keep what is known of a share of the comparisons, and let a labeler label the others."""

    kind: Literal["mix"] = "mix"
    labeler: LabelerSlot
    """Who labels the others."""
    known: Literal["human", "synthetic"] = "human"
    """Whose known preferences are kept."""
    proportion: float = Field(1.0, ge=0, le=1)
    """Share of the comparisons with a known preference that keep it, drawn with the spec's seed by their ids."""

    def missing_field(self, comparison: Comparison) -> str | None:
        """What the labeler missing_field in a comparison whose preference is not known."""
        return None if comparison.preference_source == self.known else self.labeler.missing_field(comparison)


class MixLabeler:
    """Hands out known preferences, and asks for the rest together."""

    def __init__(self, config: MixConfig, context: Context) -> None:
        self.config = config
        self.seed = context.seed
        self.labeler = context.build_labeler(config.labeler)

    def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        """Label; the evidence's `source` says where each preference is from."""
        asked = iter(self.labeler.label([c for c in comparisons if not self.keeps(c)]))
        for comparison in comparisons:
            if self.keeps(comparison):
                first = cast(float, comparison.preference)
                yield Preference(comparison.id, (first, 1.0 - first), Evidence(self.config.known))
            else:
                yield next(asked)

    def keeps(self, comparison: Comparison) -> bool:
        """Whether a comparison keeps its known preference: decided by its id, whatever else is labelled."""
        if comparison.preference is None or comparison.preference_source != self.config.known:
            return False
        return derive_seed(self.seed, "mix", comparison.id) % 2**32 < self.config.proportion * 2**32


@hookimpl
def rlaif_labelers() -> Iterable[Component]:
    """Offer `mix`."""
    yield Component("mix", MixConfig, "rlaif_plugins.labelers.mix:MixLabeler")
