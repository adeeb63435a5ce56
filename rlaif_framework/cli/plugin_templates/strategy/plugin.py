"""The strategy `acme/second-thought`: asks for the label before and after an explanation, and averages."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any, Literal

from pydantic import Field
from rlaif_framework import Annotation, Asked, Ballot, Choose, Component, Context, Generate, StrategyConfig, hookimpl


class SecondThoughtConfig(StrategyConfig):
    """Average the label without an explanation and the one after it."""

    kind: Literal["acme/second-thought"] = "acme/second-thought"
    max_new_tokens: int = Field(256, ge=1)
    """Maximum length of the explanation."""
    temperature: float = Field(0.0, ge=0)
    """Sampling temperature of the explanation; 0 is greedy."""
    second_weight: float = Field(0.5, ge=0, le=1)
    """Weight of the label after the explanation."""

    @property
    def longest_answer(self) -> int:
        """The maximum length of the explanation: prompts are truncated so that it fits."""
        return self.max_new_tokens


class SecondThought:
    """Asks about one comparison in one order. The labeler sends the requests of thousands of them together."""

    def __init__(self, config: SecondThoughtConfig, context: Context) -> None:
        self.config = config
        self.seed = context.seed

    def elicit(self, ask: Annotation) -> Generator[Asked, Any, Ballot]:
        """Ask for a label and an explanation, then for the label after the explanation."""
        seed = ask.derive_seed(self.seed, "second thought")  # every comparison and order has its own
        explain = Generate(ask.ask_rationale(), self.config.max_new_tokens, self.config.temperature, seed=seed)
        # Both requests are sent at once, as neither needs the answer to the other.
        first, explanation = yield [Choose(ask.ask_label(), ask.options), explain]
        second = yield Choose(ask.ask_label(explanation.text), ask.options)
        before, after = Ballot.read(first), Ballot.read(second)
        if before.probabilities is None or after.probabilities is None:
            return Ballot(None, rationale=explanation.text)  # the answer could not be read
        weight = self.config.second_weight
        p = (1 - weight) * before.probabilities[0] + weight * after.probabilities[0]
        return Ballot((p, 1 - p), mass=after.mass, rationale=explanation.text)


@hookimpl
def rlaif_prompt_strategies() -> Iterable[Component]:
    """Offer `acme/second-thought`."""
    yield Component("acme/second-thought", SecondThoughtConfig, "rlaif_acme:SecondThought")
