"""The few-shot strategy: put exemplars before the question of another strategy (RLAIF 2.1.2)."""

from __future__ import annotations

import random
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from rlaif_framework import (
    Annotation,
    Asked,
    Ballot,
    Component,
    Context,
    DataError,
    StrategyConfig,
    StrategySlot,
    default_component,
    derive_seed,
    hookimpl,
    suggest,
)

if TYPE_CHECKING:
    from rlaif_framework.data import AnnotatorPrompts, Exemplar


class FewShotConfig(StrategyConfig):
    """Show exemplars (RLAIF 2.1.2), then ask with another strategy."""

    kind: Literal["few-shot"] = "few-shot"
    exemplars: Annotated[int, Field(ge=0, le=8)] | list[str] = 2
    """Number of the task's exemplars to show, or the ids of exemplars, in order."""
    choose: Literal["first", "random"] = "first"
    """Selection of exemplars if `exemplars` is a number: the first ones, or a random sample, drawn once with the spec's
    seed."""
    strategy: StrategySlot = default_component("direct")
    """The strategy that asks the question."""

    def check_prompts(self, prompts: AnnotatorPrompts) -> None:
        """Check that the task has these exemplars."""
        choose_exemplars(self, prompts.exemplars, seed=0)  # the check does not depend on the seed
        super().check_prompts(prompts)


class FewShot:
    """Adds the same exemplars to every question. A backend can share the computation of this common prefix."""

    def __init__(self, config: FewShotConfig, context: Context) -> None:
        self.strategy = context.build_strategy(config.strategy)
        prompts = context.task.annotator_prompts()
        chosen = choose_exemplars(config, prompts.exemplars, context.seed)
        self.rationale_ending = (prompts.few_shot_rationale_ending or prompts.rationale_ending).strip()
        self.exemplars = [prompts.render_exemplar(e) for e in chosen]
        # A comparison may show the responses of an exemplar in either order.
        self.samples = [{prompts.render(e.source, pair) for pair in (e.responses, e.responses[::-1])} for e in chosen]

    def elicit(self, ask: Annotation) -> Generator[Asked, Any, Ballot]:
        """Ask with exemplars. An exemplar that is the comparison itself is left out, since it contains the answer."""
        shown = tuple(e for e, own in zip(self.exemplars, self.samples, strict=True) if ask.sample not in own)
        if shown:
            ask = replace(ask, exemplars=shown, rationale_ending=self.rationale_ending)
        return (yield from self.strategy.elicit(ask))


def choose_exemplars(config: FewShotConfig, available: Sequence[Exemplar], seed: int) -> list[Exemplar]:
    """Return the exemplars that a config selects.

    Raises:
        DataError: The task has too few exemplars, or none with that id.
    """
    if isinstance(config.exemplars, list):
        by_id = {exemplar.id: exemplar for exemplar in available}
        for name in config.exemplars:
            if name not in by_id:
                raise DataError(
                    f"strategy 'few-shot': the task's annotator prompts have no exemplar '{name}'; "
                    f"{suggest(name, by_id)}"
                )
        return [by_id[name] for name in config.exemplars]
    if config.exemplars > len(available):
        raise DataError(
            f"strategy 'few-shot': {config.exemplars} exemplars are requested, but the task's annotator prompts have "
            f"{len(available)}; add some to the file of `task.annotator_prompts`"
        )
    if config.choose == "random":
        return random.Random(derive_seed(seed, "exemplars")).sample(list(available), config.exemplars)
    return list(available[: config.exemplars])


@hookimpl
def rlaif_prompt_strategies() -> Iterable[Component]:
    """Offer `few-shot`."""
    yield Component("few-shot", FewShotConfig, "rlaif_plugins.strategies.few_shot:FewShot")
