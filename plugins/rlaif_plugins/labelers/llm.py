"""The labeler `llm`: a backend, a prompt strategy, and a correction of position bias (RLAIF 2.1)."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from rlaif_framework import (
    Annotation,
    Asked,
    BackendSlot,
    Ballot,
    Choose,
    Comparison,
    Component,
    Context,
    Evidence,
    LabelerConfig,
    Preference,
    Prompt,
    Question,
    StrategySlot,
    default_component,
    derive_seed,
    hookimpl,
)
from rlaif_framework.prompting import (
    PROBE,
    PROBE_RESPONSES,
    PromptQuery,
    choose_ending,
    first_questions,
    run_queries,
)
from rlaif_framework.training import Bounds, clamp, soften

if TYPE_CHECKING:
    from rlaif_framework.data import AnnotatorPrompts

Pair = tuple[float, float]


class LLMConfig(LabelerConfig):
    """Ask a language model which response is better, in both orders, and average the probabilities."""

    kind: Literal["llm"] = "llm"
    backend: BackendSlot
    """The language model."""
    strategy: StrategySlot = default_component("direct")
    """The prompt strategy."""
    preamble: str = "base"
    """Name of the task's preamble that the prompt begins with."""
    orders: Literal["both", "first", "random"] = "both"
    """Order of the responses in the prompt: both, averaged (RLAIF); as in the data; or random, drawn with the seed."""
    consistent_only: bool = False
    """If True, withhold the preference if the two orders disagree or one is a tie, and mark the evidence as
    `inconsistent`."""
    temperature: float = Field(1.0, gt=0)
    """Temperature that the log-odds of the averaged label are divided by. Above 1 makes labels softer."""
    clamp: Bounds | None = None
    """Lower and upper bound of the label's probabilities, e.g. [0.4, 0.6] against the overconfidence of chain of
    thought (Bai et al. 2022)."""

    @model_validator(mode="after")
    def _check_orders(self) -> LLMConfig:
        if self.consistent_only and self.orders != "both":
            raise ValueError("consistent_only compares both orders; it needs orders: both")
        return self

    def check_prompts(self, prompts: AnnotatorPrompts) -> None:
        """Check the preamble, and the prompts that the strategy needs."""
        prompts.check_preamble(self.preamble)
        super().check_prompts(prompts)


class LLMLabeler:
    """Runs one strategy coroutine per comparison and order, and sends all pending requests to the backend together."""

    def __init__(self, config: LLMConfig, context: Context) -> None:
        self.config = config
        self.seed = context.seed
        self.task = context.task
        self.prompts = context.task.annotator_prompts()
        self.backend = context.build_backend(config.backend)
        self.strategy = context.build_strategy(config.strategy)

    @cached_property
    def ending(self) -> str:
        """The text right before the label, with a space if the model puts one there."""
        ending = self.prompts.ending
        if not self.config.backend.exact_mass:
            return ending
        probe = self.prompts.annotate(PROBE, PROBE_RESPONSES, preamble=self.config.preamble)
        return choose_ending(ending, lambda text: self._probe(replace(probe, ending=text)), self.backend)

    def _probe(self, ask: Annotation) -> Choose:
        """Return the strategy's first question if it asks for the label, else the question after an explanation."""
        coroutine = self.strategy.elicit(ask)
        asked = next(coroutine, ())
        coroutine.close()
        first = next(iter(asked), None) if isinstance(asked, Sequence) else asked
        return first if isinstance(first, Choose) else Choose(ask.ask_label(rationale=RATIONALE), ask.options)

    def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        """Label comparisons; the evidence has a ballot for each order."""
        queries = [self._make_query(c) for c in comparisons]
        run_queries(queries, self.task, self.backend, LABEL_TOKENS + self.config.strategy.longest_answer)
        for comparison, query in zip(comparisons, queries, strict=True):
            orders = self._orders(comparison)
            ballots = [ballot or Ballot(None) for ballot in query.values]
            evidence = Evidence(
                self.config.kind,
                tuple(ballots),
                asks_worse=self.prompts.prefer == "worse",
                swapped=orders == [True],
                source_truncated=query.source_truncated,
                inconsistent=self.disagree(ballots),
                refused=query.refused,
                **query.usage(),
            )
            yield Preference(comparison.id, self.decide(ballots, orders), evidence)

    def decide(self, ballots: Sequence[Ballot], orders: Sequence[bool]) -> Pair | None:
        """Compute a label from the ballots of a comparison; None if one is unparsed or `disagree` holds."""
        first = average_orders(ballots, orders) if ballots else None
        if first is None or self.disagree(ballots):
            return None
        if self.prompts.prefer == "worse":  # the harmlessness prompt asks for the more harmful response (Table 22)
            first = 1.0 - first
        first = clamp(soften(first, self.config.temperature), self.config.clamp)
        return first, 1.0 - first

    def disagree(self, ballots: Sequence[Ballot]) -> bool:
        """Return True if the label is withheld because the two orders prefer different responses."""
        read = bool(ballots) and all(ballot.probabilities is not None for ballot in ballots)
        return self.config.consistent_only and read and not agree(ballots)

    def _orders(self, comparison: Comparison) -> list[bool]:
        """Return the orders in which the responses are shown, True for a swapped one."""
        if self.config.orders == "both":
            return [False, True]
        return [self.config.orders == "random" and derive_seed(self.seed, "order", comparison.id) % 2 == 1]

    def _ask(self, prompt: Prompt, comparison: Comparison, swapped: bool) -> Annotation:
        first, second = comparison.responses
        shown = (second, first) if swapped else (first, second)
        ask = self.prompts.annotate(
            prompt, shown, preamble=self.config.preamble, identity=comparison.id, swapped=swapped
        )
        return replace(ask, ending=self.ending)

    def _make_query(self, comparison: Comparison) -> PromptQuery[Ballot]:
        def start(prompt: Prompt) -> list[Generator[Asked, Any, Ballot]]:
            orders = self._orders(comparison)
            return [self.strategy.elicit(self._ask(prompt, comparison, swapped)) for swapped in orders]

        # To truncate the source. One order is enough, because both have the same length.
        def questions(prompt: Prompt) -> set[Question]:
            return first_questions(self.strategy.elicit(self._ask(prompt, comparison, False)))

        return PromptQuery(comparison.prompt, start, questions)


RATIONALE = "The first one says what happened and why."
"""The explanation before the label of the question that decides about the ending."""

LABEL_TOKENS = 32
"""Number of tokens reserved for the label, and for the text between an explanation and the label."""


def average_orders(ballots: Sequence[Ballot], orders: Sequence[bool]) -> float | None:
    """Average the orders to cancel position bias: p(A) = (P_AB("1") + P_BA("2")) / 2 (RLAIF 2.1.1).

    If one order is unparsed there is no preference, because the other order alone would be biased.

    Args:
        ballots: One ballot per order.
        orders: For each order, True if the responses were swapped.

    Returns:
        The probability of the first response, in the order of the data; None if an order is unparsed.
    """
    found = [
        b.probabilities[1 if swapped else 0] for b, swapped in zip(ballots, orders, strict=True) if b.probabilities
    ]
    return sum(found) / len(found) if len(found) == len(ballots) else None


def agree(ballots: Sequence[Ballot]) -> bool:
    """Return True if both orders prefer the same response; False if one of them is a tie."""
    # Positions, not responses: the first response is first in one order and second in the other.
    (given, swapped) = (b.probabilities or (0.5, 0.5) for b in ballots)
    return (given[0] - 0.5) * (swapped[1] - 0.5) > 0


@hookimpl
def rlaif_labelers() -> Iterable[Component]:
    """Offer `llm`."""
    yield Component("llm", LLMConfig, "rlaif_plugins.labelers.llm:LLMLabeler")
