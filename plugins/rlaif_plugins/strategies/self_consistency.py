"""The self-consistency strategy: run another strategy several times and average (RLAIF 2.1.4)."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from pydantic import Field

from rlaif_framework import (
    Annotation,
    Asked,
    Ballot,
    Component,
    Context,
    Generate,
    Request,
    StrategyConfig,
    StrategySlot,
    default_component,
    hookimpl,
)
from rlaif_framework.prompting import run_in_lockstep
from rlaif_framework.records import average_ballots


class SelfConsistencyConfig(StrategyConfig):
    """Sample several explanations and average the distributions after them (RLAIF 2.1.4, Wang et al. 2022)."""

    kind: Literal["self-consistency"] = "self-consistency"
    samples: int = Field(16, ge=1, le=1024)
    """Number of explanations per order (RLAIF: 4 and 16)."""
    temperature: float = Field(0.7, gt=0)
    """Sampling temperature (RLAIF: 0.3 to 1)."""
    top_k: int = Field(40, ge=0)
    """Sample from this many most likely tokens; 0 means all tokens (RLAIF: 40)."""
    strategy: StrategySlot = default_component("chain-of-thought")
    """The strategy that is repeated. It must generate text, otherwise all samples are identical."""


class SelfConsistency:
    """Runs copies of another strategy in lockstep, each with its own random seed."""

    def __init__(self, config: SelfConsistencyConfig, context: Context) -> None:
        self.config = config
        self.seed = context.seed
        self.strategy = context.build_strategy(config.strategy)

    def elicit(self, ask: Annotation) -> Generator[Asked, Any, Ballot]:
        """Run all copies and average the samples that could be read."""
        copies = [self.strategy.elicit(ask) for _ in range(self.config.samples)]
        return average_ballots((yield from run_in_lockstep(copies, partial(self._sample, ask))))

    def _sample(self, ask: Annotation, number: int, request: Request) -> Request:
        if not isinstance(request, Generate):
            return request  # the label is read from probabilities, which are not sampled
        # Of the request's own seed too, by which a strategy inside tells several questions apart.
        seed = ask.derive_seed(self.seed, "self-consistency", number, request.seed)
        return replace(request, temperature=self.config.temperature, top_k=self.config.top_k, seed=seed)


@hookimpl
def rlaif_prompt_strategies() -> Iterable[Component]:
    """Offer `self-consistency`."""
    yield Component(
        "self-consistency", SelfConsistencyConfig, "rlaif_plugins.strategies.self_consistency:SelfConsistency"
    )
