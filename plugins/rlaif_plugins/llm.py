"""The LLM labeler: a backend, a prompt strategy, and both orders averaged (RLAIF 2.1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, cast

from rlaif_framework import (
    Annotation,
    Backend,
    BackendSlot,
    Ballot,
    Comparison,
    Component,
    ComponentConfig,
    Context,
    Evidence,
    Preference,
    PromptStrategy,
    StrategySlot,
    default_component,
    hookimpl,
    run_coroutines,
)


class LLMConfig(ComponentConfig):
    """Ask a language model which response is better, in both orders, and average the probabilities."""

    kind: Literal["llm"] = "llm"
    backend: BackendSlot
    """The model that is asked."""
    strategy: StrategySlot = default_component("direct")
    """How it is asked."""


class LLMLabeler:
    """Runs one strategy coroutine per comparison and order, and hands the backend all pending requests at once."""

    def __init__(self, config: LLMConfig, context: Context) -> None:
        self.config = config
        self.context = context
        self.backend = cast(Backend, context.build("backend", config.backend))
        self.strategy = cast(PromptStrategy, context.build("strategy", config.strategy))

    def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        """Label comparisons; each has two ballots as evidence, the second for the swapped order."""
        asks: list[Annotation] = []
        for comparison in comparisons:
            first, second = comparison.responses
            for shown in ((first, second), (second, first)):
                asks.append(self.context.task.annotate(comparison.prompt, shown))
        outcomes = run_coroutines([self.strategy.elicit(ask) for ask in asks], self.backend)
        for index, comparison in enumerate(comparisons):
            both = outcomes[2 * index : 2 * index + 2]
            given, swapped = (outcome.value for outcome in both)
            evidence = Evidence(
                self.config.kind,
                (given, swapped),
                None,
                sum(outcome.prompt_tokens for outcome in both),
                sum(outcome.generated_tokens for outcome in both),
                sum(outcome.cost for outcome in both),
            )
            yield Preference(comparison.id, average_orders(given, swapped), evidence)


def average_orders(given: Ballot, swapped: Ballot) -> tuple[float, float] | None:
    """Average both orders to cancel position bias: p(A) = (P_AB("1") + P_BA("2")) / 2 (RLAIF 2.1.1).

    A comparison with an order that could not be read has no preference: one order alone would bring the bias back.
    """
    if given.probabilities is None or swapped.probabilities is None:
        return None
    first = (given.probabilities[0] + swapped.probabilities[1]) / 2
    return first, 1.0 - first


@hookimpl
def rlaif_labelers() -> Iterable[Component]:
    """Offer `llm`."""
    yield Component("llm", LLMConfig, "rlaif_plugins.llm:LLMLabeler")
