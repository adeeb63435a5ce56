"""The chain-of-thought strategy: ask for an explanation, then for the label (RLAIF 2.1.3)."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any, Literal

from pydantic import Field

from rlaif_framework import (
    Annotation,
    Asked,
    Ballot,
    Choose,
    Component,
    Context,
    Generate,
    StrategyConfig,
    hookimpl,
)


class ChainOfThoughtConfig(StrategyConfig):
    """Ask for an explanation first, then for the label given the explanation. Each order has its own explanation."""

    kind: Literal["chain-of-thought"] = "chain-of-thought"
    max_new_tokens: int = Field(512, ge=1)
    """Maximum length of an explanation (RLAIF: 512)."""
    temperature: float = Field(0.0, ge=0)
    """Sampling temperature of the explanation; 0 is greedy (RLAIF)."""

    @property
    def longest_answer(self) -> int:
        """The maximum length of the explanation."""
        return self.max_new_tokens


class ChainOfThought:
    """Asks two questions. The second one contains the answer to the first."""

    def __init__(self, config: ChainOfThoughtConfig, context: Context) -> None:
        self.config = config
        self.seed = context.seed

    def elicit(self, ask: Annotation) -> Generator[Asked, Any, Ballot]:
        """Ask for an explanation, then for the label."""
        # A seed of its own: with a common one, the random numbers of all rationales would be the same.
        seed = ask.derive_seed(self.seed, "chain of thought")
        thought = yield Generate(ask.ask_rationale(), self.config.max_new_tokens, self.config.temperature, seed=seed)
        answer = yield Choose(ask.ask_label(rationale=thought.text), ask.options)
        return Ballot.read(answer, rationale=thought.text)


@hookimpl
def rlaif_prompt_strategies() -> Iterable[Component]:
    """Offer `chain-of-thought`."""
    yield Component(
        "chain-of-thought", ChainOfThoughtConfig, "rlaif_plugins.strategies.chain_of_thought:ChainOfThought"
    )
