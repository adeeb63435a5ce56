"""Labelers that hand out the preference a comparison carries: human raters', or known by construction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from rlaif_framework import Comparison, Component, ComponentConfig, Context, DataError, Evidence, Preference, hookimpl


class HumanConfig(ComponentConfig):
    """The preference of human raters, as the comparison carries it: the labels of an RLHF arm."""

    kind: Literal["human"] = "human"

    @property
    def needs_known(self) -> Literal["human"]:
        """That of people."""
        return "human"


class ConstructionConfig(ComponentConfig):
    """The preference known because one response was written to be worse, as in `tldr-mini`."""

    kind: Literal["construction"] = "construction"

    @property
    def needs_known(self) -> Literal["construction"]:
        """That by construction."""
        return "construction"


class KnownLabeler:
    """Gives what is known, and refuses to pass one source off as the other."""

    def __init__(self, config: HumanConfig | ConstructionConfig, context: Context) -> None:
        self.source = config.kind

    def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        """Hand out preferences.

        Raises:
            DataError: A comparison carries none, or one from another source.
        """
        for comparison in comparisons:
            if comparison.preference is None or comparison.preference_source != self.source:
                known = f"known by {comparison.preference_source}" if comparison.preference_source else "not known"
                raise DataError(
                    f"labeler '{self.source}': comparison '{comparison.id}' has no {self.source} preference, "
                    f"it is {known}"
                )
            first = comparison.preference
            yield Preference(comparison.id, (first, 1.0 - first), Evidence(self.source))


@hookimpl
def rlaif_labelers() -> Iterable[Component]:
    """Offer `human` and `construction`."""
    yield Component("human", HumanConfig, "rlaif_plugins.known:KnownLabeler")
    yield Component("construction", ConstructionConfig, "rlaif_plugins.known:KnownLabeler")
