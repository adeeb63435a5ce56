"""The few-shot prompt strategy: exemplars of comparisons with their answers, before another strategy's question."""

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
    """Show exemplars first (RLAIF 2.1.2), then ask as another strategy does."""

    kind: Literal["few-shot"] = "few-shot"
    exemplars: Annotated[int, Field(ge=0, le=8)] | list[str] = 2
    """How many of the task's exemplars, or the ids of those to show, in this order."""
    choose: Literal["first", "random"] = "first"
    """Which, where a number is given: the first ones, or some drawn with the spec's seed (the same for all)."""
    strategy: StrategySlot = default_component("direct")
    """How the question is asked."""

    def check_prompts(self, prompts: AnnotatorPrompts) -> None:
        """Whether the task has these exemplars."""
        choose_exemplars(self, prompts.exemplars, seed=0)
        super().check_prompts(prompts)


class FewShot:
    """Adds the same exemplars to every question, so that a backend computes them once."""

    def __init__(self, config: FewShotConfig, context: Context) -> None:
        self.strategy = context.build_strategy(config.strategy)
        prompts = context.task.annotator_prompts()
        chosen = choose_exemplars(config, prompts.exemplars, context.seed)
        self.rationale_ending = (prompts.few_shot_rationale_ending or prompts.rationale_ending).strip()
        self.exemplars = [prompts.render_exemplar(e) for e in chosen]
        self.samples = [{prompts.render(e.source, pair) for pair in (e.responses, e.responses[::-1])} for e in chosen]

    def elicit(self, ask: Annotation) -> Generator[Asked, Any, Ballot]:
        """Ask with exemplars, less one that is the very comparison asked about: it would give the answer away."""
        shown = tuple(e for e, own in zip(self.exemplars, self.samples, strict=True) if ask.sample not in own)
        if shown:
            ask = replace(ask, exemplars=shown, rationale_ending=self.rationale_ending)
        return (yield from self.strategy.elicit(ask))


def choose_exemplars(config: FewShotConfig, known: Sequence[Exemplar], seed: int) -> list[Exemplar]:
    """The exemplars a config asks for.

    Raises:
        DataError: The task has fewer, or none of that id.
    """
    if isinstance(config.exemplars, list):
        by_id = {exemplar.id: exemplar for exemplar in known}
        for name in config.exemplars:
            if name not in by_id:
                raise DataError(
                    f"strategy 'few-shot': the task's annotator prompts have no exemplar '{name}'; {suggest(name, by_id)}"
                )
        return [by_id[name] for name in config.exemplars]
    if config.exemplars > len(known):
        raise DataError(
            f"strategy 'few-shot': {config.exemplars} exemplars asked for, the task's annotator prompts have {len(known)}; "
            "add some to the file of `task.annotator_prompts`"
        )
    if config.choose == "random":
        return random.Random(derive_seed(seed, "exemplars")).sample(list(known), config.exemplars)
    return list(known[: config.exemplars])


@hookimpl
def rlaif_prompt_strategies() -> Iterable[Component]:
    """Offer `few-shot`."""
    yield Component("few-shot", FewShotConfig, "rlaif_plugins.strategies.few_shot:FewShot")
