"""The labelers `human` and `synthetic`, which copy the preferences in the data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from rlaif_framework import Comparison, Component, Context, DataError, Evidence, LabelerConfig, Preference, hookimpl


class HumanConfig(LabelerConfig):
    """Copy the preferences of human annotators: the labels of an RLHF arm."""

    kind: Literal["human"] = "human"

    def missing_field(self, comparison: Comparison) -> str | None:
        """Require a human preference."""
        return _describe_missing("human", comparison)


class SyntheticConfig(LabelerConfig):
    """Copy the preferences of synthetic comparisons, in which one response was written to be worse."""

    kind: Literal["synthetic"] = "synthetic"

    def missing_field(self, comparison: Comparison) -> str | None:
        """Require a synthetic preference."""
        return _describe_missing("synthetic", comparison)


def _describe_missing(source: str, comparison: Comparison) -> str | None:
    if comparison.preference is not None and comparison.preference_source == source:
        return None
    other = comparison.preference_source
    if not other:
        return f"has no {source} preference"
    return f"has no {source} preference, but a {other} one (which labeler '{other}' copies)"


class AnnotationLabeler:
    """Copies the preferences of one source; those of the other source are an error."""

    def __init__(self, config: HumanConfig | SyntheticConfig, context: Context) -> None:
        self.config = config

    def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        """Copy the preferences of comparisons.

        Raises:
            DataError: A comparison has no preference, or one from another source.
        """
        source = self.config.kind
        for comparison in comparisons:
            first, missing = comparison.preference, self.config.missing_field(comparison)
            if first is None or missing is not None:
                raise DataError(f"labeler '{source}': comparison '{comparison.id}' {missing}")
            yield Preference(comparison.id, (first, 1.0 - first), Evidence(source))


@hookimpl
def rlaif_labelers() -> Iterable[Component]:
    """Offer `human` and `synthetic`."""
    yield Component("human", HumanConfig, "rlaif_plugins.labelers.annotated:AnnotationLabeler")
    yield Component("synthetic", SyntheticConfig, "rlaif_plugins.labelers.annotated:AnnotationLabeler")
