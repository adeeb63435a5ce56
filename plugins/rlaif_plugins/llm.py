"""The LLM labeler: a backend, a prompt strategy, and both orders averaged (RLAIF 2.1)."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Literal, cast

from rlaif_framework import (
    Annotation,
    Answer,
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
    Request,
    StrategySlot,
    default_component,
    hookimpl,
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
        ballots, tokens = _run_strategies([self.strategy.elicit(ask) for ask in asks], self.backend)
        for index, comparison in enumerate(comparisons):
            given, swapped = ballots[2 * index : 2 * index + 2]
            used = [sum(pair) for pair in zip(*tokens[2 * index : 2 * index + 2], strict=True)]
            evidence = Evidence(self.config.kind, (given, swapped), None, used[0], used[1])
            yield Preference(comparison.id, average_orders(given, swapped), evidence)


def average_orders(given: Ballot, swapped: Ballot) -> tuple[float, float] | None:
    """Average both orders to cancel position bias: p(A) = (P_AB("1") + P_BA("2")) / 2 (RLAIF 2.1.1).

    A comparison with an order that could not be read has no preference: one order alone would bring the bias back.
    """
    if given.probabilities is None or swapped.probabilities is None:
        return None
    first = (given.probabilities[0] + swapped.probabilities[1]) / 2
    return first, 1.0 - first


def _run_strategies(
    strategies: Sequence[Generator[Request, Answer, Ballot]], backend: Backend
) -> tuple[list[Ballot], list[tuple[int, int]]]:
    """Drive coroutines to their ends; gives ballots and (prompt, generated) tokens used, in order."""
    ballots: dict[int, Ballot] = {}
    tokens = [(0, 0)] * len(strategies)
    pending: dict[int, Request] = {}

    def advance(index: int, answer: Answer | None) -> None:
        try:
            pending[index] = next(strategies[index]) if answer is None else strategies[index].send(answer)
        except StopIteration as stop:
            ballots[index] = stop.value

    for index in range(len(strategies)):
        advance(index, None)
    while pending:
        indices, requests = list(pending), list(pending.values())
        pending.clear()
        for index, answer in zip(indices, backend.answer(requests), strict=True):
            prompt, generated = tokens[index]
            tokens[index] = (prompt + answer.prompt_tokens, generated + answer.generated_tokens)
            advance(index, answer)
    return [ballots[index] for index in range(len(strategies))], tokens


@hookimpl
def rlaif_labelers() -> Iterable[Component]:
    """Offer `llm`."""
    yield Component("llm", LLMConfig, "rlaif_plugins.llm:LLMLabeler")
