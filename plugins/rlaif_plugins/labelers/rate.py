"""The labeler `rate`: a score from 1 to 10 for each single response (RLAIF D), for labels and as a reward."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

from pydantic import Field

from rlaif_framework import (
    Answer,
    Asked,
    BackendSlot,
    Ballot,
    Choose,
    Comparison,
    Component,
    Context,
    DataError,
    Evidence,
    LabelerConfig,
    Preference,
    Prompt,
    Question,
    hookimpl,
)
from rlaif_framework.prompting import PROBE, PROBE_RESPONSES, PromptQuery, choose_ending, run_queries
from rlaif_framework.records import LABEL_TOKEN_MASS

NUMBERS = tuple(str(number) for number in range(1, 11))
MIDDLE, SPREAD = 5.5, 4.5
"""Centre and half the range of the scores from 1 to 10."""
SCORE_TOKENS = 4
"""Number of tokens reserved for the score."""


class RateConfig(LabelerConfig):
    """Ask a language model to score each response from 1 to 10, and take the expected score."""

    scores_responses: ClassVar[bool] = True

    kind: Literal["rate"] = "rate"
    backend: BackendSlot
    """The language model."""
    temperature: float = Field(0.1, gt=0)
    """Scale of the logits: this difference in score, on the scale from -1 to 1, gives odds of e to 1."""


class Rater:
    """Scores responses one at a time. As a labeler it compares the scores, as a reward it returns them."""

    def __init__(self, config: RateConfig, context: Context) -> None:
        self.config = config
        self.task = context.task
        self.prompts = context.task.annotator_prompts()
        self.backend = context.build_backend(config.backend)
        self.masses: list[float] = []
        """Probability mass on the scores, of each response that `score` scored last."""

    @cached_property
    def ending(self) -> str:
        """The text right before the score, with a space if the model puts one there."""
        ending = self.prompts.rate.ending
        if not self.config.backend.exact_mass:
            return ending
        response = PROBE_RESPONSES[0]
        return choose_ending(
            ending, lambda text: Choose(self.prompts.ask_rating(PROBE, response, text), NUMBERS), self.backend
        )

    def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        """Label comparisons by their scores; there is no preference if a score was refused or is unparsed.

        The evidence has a ballot for each response, without probabilities but with the probability mass on the scores,
        or the number of sampled answers.
        """
        queries = self._make_query([(c.prompt, c.responses) for c in comparisons])
        for comparison, query in zip(comparisons, queries, strict=True):
            answers = [answer or Answer() for answer in query.values]
            scores = [score for answer in answers if (score := read_score(answer)) is not None]
            evidence = Evidence(
                self.config.kind,
                tuple(Ballot(None, answer.mass, sampled=answer.sampled) for answer in answers),
                (scores[0], scores[1]) if len(scores) == 2 else None,
                source_truncated=query.source_truncated,
                refused=query.refused,
                **query.usage(),
            )
            first = _odds((scores[0] - scores[1]) / self.config.temperature) if len(scores) == 2 else None
            yield Preference(comparison.id, None if first is None else (first, 1.0 - first), evidence)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Sequence[float]:
        """Score responses in [-1, 1], as a reward (d-RLAIF).

        Raises:
            DataError: The model refused to score a response, or its answer is not a score.
        """
        scores = []
        self.masses = []
        queries = self._make_query([(p, (text,)) for p, text in zip(prompts, responses, strict=True)])
        for prompt, query in zip(prompts, queries, strict=True):
            if query.refused is not None:
                raise DataError(f"labeler 'rate', prompt '{prompt.id}': {query.refused}")
            answer = query.values[0] or Answer()
            score = read_score(answer)
            if score is None:
                raise DataError(f"labeler 'rate': the answer for prompt '{prompt.id}' is not a score from 1 to 10")
            scores.append(score)
            self.masses += [] if answer.mass is None else [answer.mass]
        return scores

    def measures(self) -> Mapping[str, Sequence[float]]:
        """Return the probability mass on the scores, for each response of the last call of `score` that has one."""
        return {LABEL_TOKEN_MASS: self.masses}

    def _make_query(self, cases: Sequence[tuple[Prompt, Sequence[str]]]) -> list[PromptQuery[Answer]]:
        """Run a query for each prompt. All its responses are rated with the same truncated source."""
        queries = [self._open(prompt, responses) for prompt, responses in cases]
        run_queries(queries, self.task, self.backend, SCORE_TOKENS)
        return queries

    def _open(self, prompt: Prompt, responses: Sequence[str]) -> PromptQuery[Answer]:
        def questions(prompt: Prompt) -> list[Question]:
            return [self.prompts.ask_rating(prompt, text, self.ending) for text in responses]

        return PromptQuery(prompt, lambda prompt: [_rate(question) for question in questions(prompt)], questions)


def _rate(question: Question) -> Generator[Asked, Any, Answer]:
    answer: Answer = yield Choose(question, NUMBERS)
    return answer


def read_score(answer: Answer) -> float | None:
    """Return the score of an answer, in [-1, 1]; None if the answer is unparsed."""
    return expected_score(answer.probabilities) if answer.probabilities else None


def _odds(logit: float) -> float:
    return 1.0 / (1.0 + math.exp(-logit)) if logit > -700 else 0.0  # `exp` overflows above 709


def expected_score(probabilities: Sequence[float]) -> float:
    """Compute the expected score from 1 to 10, scaled to [-1, 1]: (s - 5.5) / 4.5 (RLAIF D).

    Args:
        probabilities: (10,) probabilities of the scores 1 to 10.
    """
    mean = sum(number * p for number, p in enumerate(probabilities, 1))
    return (mean - MIDDLE) / SPREAD


@hookimpl
def rlaif_labelers() -> Iterable[Component]:
    """Offer `rate`."""
    yield Component("rate", RateConfig, "rlaif_plugins.labelers.rate:Rater")
