"""Query a backend about prompts, and truncate a prompt's source if its questions do not fit into the context."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Generic, TypeVar

from rlaif_framework.contracts.protocols import Backend, Task
from rlaif_framework.errors import DataError
from rlaif_framework.prompting.coroutines import Outcome, run_coroutines
from rlaif_framework.records.preferences import Prompt
from rlaif_framework.records.requests import Asked, Question

R = TypeVar("R")

MAX_ATTEMPTS = 6
"""Maximum number of attempts for a question that is refused as too long. Each attempt has a shorter source."""


# Responses are never truncated here, so they are the reason if nothing of the source fits.
TOO_LONG = "a response does not fit into the model's context, together with the rest of the question"


@dataclass
class PromptQuery(Generic[R]):
    """A query about one prompt, and its results."""

    prompt: Prompt
    """Its source is truncated until the questions fit."""
    make_coroutines: Callable[[Prompt], Sequence[Generator[Asked, Any, R]]]
    """Returns the coroutines that ask about a prompt."""
    questions: Callable[[Prompt], Iterable[Question]]
    """Returns the questions about a prompt that must fit into the model's context."""
    source_truncated: bool = False
    outcomes: list[Outcome[R]] = field(default_factory=list)
    """Outcome of each coroutine in the last attempt; empty if the questions cannot fit."""
    all_outcomes: list[Outcome[R]] = field(default_factory=list)
    """Outcomes of all attempts."""
    max_bytes: float = math.inf
    """Maximum size of a question, lowered when one is refused as too long."""

    @property
    def refused(self) -> str | None:
        """Reason why there is no answer; None if there is one."""
        if not self.outcomes:
            return TOO_LONG
        return next((o.refused for o in self.outcomes if o.refused is not None), None)

    @property
    def values(self) -> list[R | None]:
        """Return value of each coroutine."""
        return [outcome.value for outcome in self.outcomes]

    def usage(self) -> dict[str, Any]:
        """Return the usage of all attempts, under the names of the fields of `Evidence`."""
        return {
            "prompt_tokens": sum(o.prompt_tokens for o in self.all_outcomes),
            "generated_tokens": sum(o.generated_tokens for o in self.all_outcomes),
            "cost": sum(o.cost for o in self.all_outcomes),
            "dropped": tuple(sorted({name for o in self.all_outcomes for name in o.dropped})),
            "read_from": tuple(sorted({name for o in self.all_outcomes for name in o.read_from})),
            "unanswered": sum(o.unanswered for o in self.all_outcomes),
        }

    def truncate(self, task: Task, backend: Backend, reserved_tokens: int) -> bool:
        """Truncate the source until the questions fit; return False if they cannot."""

        def fits(source: str) -> bool:
            # `max_bytes` corrects a backend whose estimate in `fits` is too low.
            asked = self.questions(replace(self.prompt, source=source))
            return all(count_bytes(q) <= self.max_bytes and backend.fits(q, reserved_tokens) for q in asked)

        prompt = truncate_source(task, self.prompt, fits)
        if prompt is None:
            return False
        self.source_truncated = self.source_truncated or prompt is not self.prompt
        self.prompt = prompt
        return True

    def add_attempt(self, outcomes: list[Outcome[R]]) -> bool:
        """Store the outcomes of an attempt; return True if a shorter source may succeed."""
        self.outcomes = outcomes
        self.all_outcomes += outcomes
        fractions = [o.fitting_fraction for o in outcomes if o.fitting_fraction is not None]
        # A source that fits the most restrictive refusal fits all questions.
        if fractions:
            self.max_bytes = min(fractions) * max(map(count_bytes, self.questions(self.prompt)))
        return bool(fractions)


def run_queries(queries: Sequence[PromptQuery[R]], task: Task, backend: Backend, reserved_tokens: int) -> None:
    """Run the coroutines of queries and store the results in the queries.

    The backend first estimates whether a question fits. If a question is refused as too long nevertheless, it is sent
    again with a shorter source. The new length depends on this question only, so that a label does not depend on the
    comparisons before it.

    Args:
        queries: Updated in place.
        task: Truncates sources as it truncates prompts. Responses are never truncated.
        backend: Answers the requests.
        reserved_tokens: Number of tokens of the context that are reserved for answers.
    """
    waiting = list(queries)
    for _ in range(MAX_ATTEMPTS):
        waiting = [query for query in waiting if query.truncate(task, backend, reserved_tokens)]
        coroutines = [query.make_coroutines(query.prompt) for query in waiting]
        outcomes = iter(run_coroutines(chain.from_iterable(coroutines), backend))
        waiting = [
            query
            for query, own in zip(waiting, coroutines, strict=True)
            if query.add_attempt([next(outcomes) for _ in own])
        ]
        if not waiting:
            return


def count_bytes(question: Question) -> int:
    """Return the size of a question in UTF-8, which is closer to its number of tokens than its number of characters."""
    return len(f"{question.text}{question.prefill}".encode(errors="replace"))


def truncate_source(task: Task, prompt: Prompt, fits: Callable[[str], bool]) -> Prompt | None:
    """Truncate the source of a prompt, as its task truncates prompts, until the question with it fits.

    Args:
        task: A summarisation task drops the end of a post, a dialogue task the oldest turns.
        prompt: Returned unchanged if its source fits.
        fits: Returns True if the question with this source fits into the model's context.

    Returns:
        None if nothing of the source fits.
    """
    if fits(prompt.source):
        return prompt
    try:
        # The source only: the question does not contain the rest of the policy's prompt.
        return task.truncate(prompt, lambda shorter: fits(shorter.source))
    except DataError:
        return None
