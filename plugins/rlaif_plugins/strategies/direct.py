"""The direct strategy: ask for the label without an explanation (RLAIF 2.1)."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any, Literal

from rlaif_framework import Annotation, Asked, Ballot, Choose, Component, Context, StrategyConfig, hookimpl


class DirectConfig(StrategyConfig):
    """Ask for the label without an explanation, and read it from the probabilities of the label tokens."""

    kind: Literal["direct"] = "direct"


class Direct:
    """Asks one question, whose answer is a distribution over the label tokens."""

    def __init__(self, config: DirectConfig, context: Context) -> None:
        self.config = config

    def elicit(self, ask: Annotation) -> Generator[Asked, Any, Ballot]:
        """Ask for the label."""
        answer = yield Choose(ask.ask_label(), ask.options)
        return Ballot.read(answer)


@hookimpl
def rlaif_prompt_strategies() -> Iterable[Component]:
    """Offer `direct`."""
    yield Component("direct", DirectConfig, "rlaif_plugins.strategies.direct:Direct")
