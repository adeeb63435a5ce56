"""The principles strategy: ask by one stated principle, or average over several."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from rlaif_framework import (
    Annotation,
    Asked,
    Ballot,
    Component,
    Context,
    DataError,
    Generate,
    Request,
    StrategyConfig,
    StrategySlot,
    default_component,
    derive_seed,
    hookimpl,
)
from rlaif_framework.prompting import run_in_lockstep
from rlaif_framework.records import average_ballots

if TYPE_CHECKING:
    from rlaif_framework.data import AnnotatorPrompts


class PrinciplesConfig(StrategyConfig):
    """State a principle after the preamble (Constitutional AI, Bai et al. 2022), then ask with another strategy."""

    kind: Literal["principles"] = "principles"
    mode: Literal["draw", "average"] = "draw"
    """`draw`: one random principle per comparison, the same in both orders; `average`: average over all principles."""
    principles: list[str] | None = None
    """The principles. Default: those of the task's annotator prompts."""
    strategy: StrategySlot = default_component("direct")
    """The strategy that asks the question."""

    def check_prompts(self, prompts: AnnotatorPrompts) -> None:
        """Check that there are principles."""
        select_principles(self, prompts)
        super().check_prompts(prompts)


class Principles:
    """Adds principles to the preamble of another strategy."""

    def __init__(self, config: PrinciplesConfig, context: Context) -> None:
        self.config = config
        self.seed = context.seed
        self.strategy = context.build_strategy(config.strategy)
        self.principles = select_principles(config, context.task.annotator_prompts())

    def elicit(self, ask: Annotation) -> Generator[Asked, Any, Ballot]:
        """Ask by one principle, or by all of them and average."""
        if self.config.mode == "draw":
            # Drawn by the comparison's id, so that both orders and a resumed run use the same principle.
            place = derive_seed(self.seed, "principle", ask.identity) % len(self.principles)
            ballot = yield from self.strategy.elicit(self._state(ask, self.principles[place]))
            return replace(ballot, principle=self.principles[place])
        asked = [self.strategy.elicit(self._state(ask, principle)) for principle in self.principles]
        return average_ballots((yield from run_in_lockstep(asked, _change_seed)))

    def _state(self, ask: Annotation, principle: str) -> Annotation:
        return replace(ask, preamble=f"{ask.preamble} {principle}")


def _change_seed(number: int, request: Request) -> Request:
    """Give the sampled text of each principle a seed of its own."""
    if not isinstance(request, Generate):
        return request
    return replace(request, seed=derive_seed(request.seed, "principle", number))


def select_principles(config: PrinciplesConfig, prompts: AnnotatorPrompts) -> list[str]:
    """Return the principles of the config or, by default, of the task.

    Raises:
        DataError: There are none.
    """
    principles = config.principles if config.principles is not None else prompts.principles
    if not principles:
        raise DataError(
            "strategy 'principles': there are no principles; set `principles`, or add some to the file of "
            "`task.annotator_prompts`"
        )
    return principles


@hookimpl
def rlaif_prompt_strategies() -> Iterable[Component]:
    """Offer `principles`."""
    yield Component("principles", PrinciplesConfig, "rlaif_plugins.strategies.principles:Principles")
