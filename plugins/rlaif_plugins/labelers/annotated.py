"""Labelers that hand out the preference a comparison carries: human raters', or known by construction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from rlaif_framework import Comparison, Component, Context, DataError, Evidence, LabelerConfig, Preference, hookimpl


class HumanConfig(LabelerConfig):
    """The preference of human raters, as the comparison carries it: the labels of an RLHF arm."""

    kind: Literal["human"] = "human"

    def missing_field(self, comparison: Comparison) -> str | None:
        """A person's preference."""
        return _describe_lack("human", comparison)


class SyntheticConfig(LabelerConfig):
    """The preference known because one response was written to be worse, as in `tldr-mini`."""

    kind: Literal["synthetic"] = "synthetic"

    def missing_field(self, comparison: Comparison) -> str | None:
        """A preference known by construction."""
        return _describe_lack("synthetic", comparison)


def _describe_lack(source: str, comparison: Comparison) -> str | None:
    if comparison.preference is not None and comparison.preference_source == source:
        return None
    known = f"known by {comparison.preference_source}" if comparison.preference_source else "not known"
    return f"has no {source} preference, it is {known}"


class AnnotationLabeler:
    """Gives what is known, and refuses to pass one source off as the other."""

    def __init__(self, config: HumanConfig | SyntheticConfig, context: Context) -> None:
        self.config = config

    def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        """Hand out preferences.

        Raises:
            DataError: A comparison carries none, or one from another source.
        """
        source = self.config.kind
        for comparison in comparisons:
            first, lack = comparison.preference, self.config.missing_field(comparison)
            if first is None or lack is not None:
                raise DataError(f"labeler '{source}': comparison '{comparison.id}' {lack}")
            yield Preference(comparison.id, (first, 1.0 - first), Evidence(source))


@hookimpl
def rlaif_labelers() -> Iterable[Component]:
    """Offer `human` and `construction`."""
    yield Component("human", HumanConfig, "rlaif_plugins.labelers.annotated:AnnotationLabeler")
    yield Component("synthetic", SyntheticConfig, "rlaif_plugins.labelers.annotated:AnnotationLabeler")
