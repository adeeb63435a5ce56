"""The rating labeler: a score from 1 to 10 for each response by itself (RLAIF D), for labels and as a reward."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

from pydantic import Field

from rlaif_framework import (
    Asked,
    Backend,
    BackendSlot,
    Ballot,
    Choose,
    Comparison,
    Component,
    ComponentConfig,
    Context,
    DataError,
    Evidence,
    Outcome,
    Preference,
    Prompt,
    Question,
    cut_source,
    hookimpl,
    run_coroutines,
)

NUMBERS = tuple(str(number) for number in range(1, 11))
MIDDLE, SPREAD = 5.5, 4.5
SCORE_TOKENS = 4
"""Kept free for the score."""


class RateConfig(ComponentConfig):
    """Ask a language model for a score from 1 to 10, and take the expectation over its probabilities."""

    kind: Literal["rate"] = "rate"
    backend: BackendSlot
    """The model that is asked."""
    temperature: float = Field(0.1, gt=0)
    """Difference in score, on the scale from -1 to 1, that makes a preference's odds e to 1."""


class Rater:
    """Scores responses one at a time: as a labeler it compares them, as a reward it hands them out."""

    def __init__(self, config: RateConfig, context: Context) -> None:
        self.config = config
        self.task = context.task
        self.words = context.task.words()
        self.backend = cast(Backend, context.build("backend", config.backend))

    def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        """Prefer the response with the higher score; none where a score could not be read."""
        prompts = [self._shorten(c.prompt, c.responses) for c in comparisons]
        outcomes = self._ask([(p, text) for p, c in zip(prompts, comparisons, strict=True) for text in c.responses])
        for index, comparison in enumerate(comparisons):
            own = outcomes[2 * index : 2 * index + 2]
            (a, mass_a), (b, mass_b) = (outcome.value for outcome in own)
            ballots = tuple(Ballot(None, mass) for mass in (mass_a, mass_b))
            evidence = Evidence(
                self.config.kind,
                () if None in (mass_a, mass_b) else ballots,
                None if a is None or b is None else (a, b),
                prompt_tokens=sum(outcome.prompt_tokens for outcome in own),
                generated_tokens=sum(outcome.generated_tokens for outcome in own),
                cost=sum(outcome.cost for outcome in own),
                shortened=prompts[index] is not comparison.prompt,
            )
            first = None if a is None or b is None else _odds((a - b) / self.config.temperature)
            yield Preference(comparison.id, None if first is None else (first, 1.0 - first), evidence)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Sequence[float]:
        """Scores in [-1, 1], as a reward (d-RLAIF).

        Raises:
            DataError: The model's answer to one could not be read as a score.
        """
        scores = []
        pairs = [(self._shorten(p, (text,)), text) for p, text in zip(prompts, responses, strict=True)]
        for (prompt, _), outcome in zip(pairs, self._ask(pairs), strict=True):
            if outcome.value[0] is None:
                raise DataError(f"labeler 'rate': the answer for prompt '{prompt.id}' is not a score from 1 to 10")
            scores.append(outcome.value[0])
        return scores

    def _shorten(self, prompt: Prompt, responses: Sequence[str]) -> Prompt:
        """Cut a source that does not fit the model's context, the same for all responses; never a response."""

        def fits(source: str) -> bool:
            whole = replace(prompt, source=source)
            return all(self.backend.fits(self.words.ask_rating(whole, text), SCORE_TOKENS) for text in responses)

        short = cut_source(self.task, prompt, fits)
        if short is None:
            raise DataError(f"labeler 'rate', prompt '{prompt.id}': a response is longer than the model's context")
        return short

    def _ask(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Outcome[tuple[float | None, float | None]]]:
        return run_coroutines([_rate(self.words.ask_rating(p, text)) for p, text in pairs], self.backend)


def _rate(question: Question) -> Generator[Asked, Any, tuple[float | None, float | None]]:
    answer = yield Choose(question, NUMBERS)
    return (expected_score(answer.probabilities) if answer.probabilities else None), answer.mass


def _odds(logit: float) -> float:
    return 1.0 / (1.0 + math.exp(-logit)) if logit > -700 else 0.0


def expected_score(probabilities: Sequence[float]) -> float:
    """Expectation of a score from 1 to 10, scaled to [-1, 1]: (s - 5.5) / 4.5 (RLAIF D).

    Args:
        probabilities: (10,) of the scores 1 to 10, summing to 1.
    """
    mean = sum(number * p for number, p in enumerate(probabilities, 1))
    return (mean - MIDDLE) / SPREAD


@hookimpl
def rlaif_labelers() -> Iterable[Component]:
    """Offer `rate`."""
    yield Component("rate", RateConfig, "rlaif_plugins.rate:Rater")
