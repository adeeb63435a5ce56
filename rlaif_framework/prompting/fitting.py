"""Ask about prompts, and cut the source where the question around it is too long: before it is sent, or if refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rlaif_framework.contracts.protocols import Backend, Task
from rlaif_framework.errors import DataError
from rlaif_framework.prompting.coroutines import Outcome, run_coroutines
from rlaif_framework.records.preferences import Prompt
from rlaif_framework.records.requests import Asked, Question

if TYPE_CHECKING:
    from rlaif_framework.contracts.protocols import Task


R = TypeVar("R")


TRIES = 6
"""How often a question is asked that is refused as too long, each time with a shorter source."""


TOO_LONG = "a response is longer than the model's context, with what has to stand before it"


@dataclass
class PromptQuery(Generic[R]):
    """What is asked about one prompt, and what came of it."""

    prompt: Prompt
    """Its source is cut until the questions fit."""
    start: Callable[[Prompt], Sequence[Generator[Asked, Any, R]]]
    """Gives the coroutines that ask about a prompt, not started."""
    questions: Callable[[Prompt], Iterable[Question]]
    """Gives the questions about a prompt that have to fit into the model's context."""
    source_truncated: bool = False
    outcomes: list[Outcome[R]] = field(default_factory=list)
    """Of each coroutine; none if nothing could be asked."""
    used: list[Outcome[R]] = field(default_factory=list)
    """Outcomes of all tries."""
    most: float = math.inf
    """Bytes a question may have."""

    @property
    def refused(self) -> str | None:
        """Why there is no answer; None if there is one."""
        return next((o.refused for o in self.outcomes if o.refused is not None), None if self.outcomes else TOO_LONG)

    @property
    def values(self) -> list[R | None]:
        """What each coroutine returned."""
        return [outcome.value for outcome in self.outcomes]

    def usage(self) -> dict[str, Any]:
        """What all tries took, and what their requests went without, under the names of the evidence."""
        return {
            "prompt_tokens": sum(o.prompt_tokens for o in self.used),
            "generated_tokens": sum(o.generated_tokens for o in self.used),
            "cost": sum(o.cost for o in self.used),
            "dropped": tuple(sorted({name for o in self.used for name in o.dropped})),
        }

    def cut(self, task: Task, backend: Backend, room: int) -> bool:
        """Cut the source until the questions fit; False if they cannot."""

        def fits(source: str) -> bool:
            asked = self.questions(replace(self.prompt, source=source))
            return all(count_bytes(q) <= self.most and backend.fits(q, room) for q in asked)

        prompt = truncate_source(task, self.prompt, fits)
        if prompt is None:
            return False
        self.source_truncated = self.source_truncated or prompt is not self.prompt
        self.prompt = prompt
        return True

    def take(self, outcomes: list[Outcome[R]]) -> bool:
        """Take the outcomes of a try; True if a shorter source may do better."""
        self.outcomes = outcomes
        self.used += outcomes
        shares = [o.fitting for o in outcomes if o.fitting is not None]
        if shares:
            self.most = min(shares) * max(map(count_bytes, self.questions(self.prompt)))
        return bool(shares)


def run_queries(queries: Sequence[PromptQuery[R]], task: Task, backend: Backend, room: int) -> None:
    """Run the coroutines of queries and leave in each what came of it.

    Whether a question fits is at first the backend's own estimate. One that is refused as too long all the same is
    asked again with less of its source; how much less depends on that question alone, so that a label is the same
    whatever was labelled before it.

    Args:
        queries: Changed in place.
        task: Cuts sources as it cuts prompts; never a response.
        backend: Is asked.
        room: Tokens to keep free for answers.
    """
    waiting = list(queries)
    for _ in range(TRIES):
        waiting = [one for one in waiting if one.cut(task, backend, room)]
        started = [one.start(one.prompt) for one in waiting]
        outcomes = iter(run_coroutines(chain.from_iterable(started), backend))
        waiting = [one for one, own in zip(waiting, started, strict=True) if one.take([next(outcomes) for _ in own])]
        if not waiting:
            return


def count_bytes(question: Question) -> int:
    """Length of a question in UTF-8: nearer to its tokens than its characters are, in scripts of all kinds."""
    return len(f"{question.text}{question.prefill}".encode(errors="replace"))


def truncate_source(task: Task, prompt: Prompt, fits: Callable[[str], bool]) -> Prompt | None:
    """Cut a prompt's source, as its task cuts prompts, until the question around it fits; None if nothing is left.

    Args:
        task: A summary's task drops the end of a post, a dialogue's the oldest turns.
        prompt: Given back as it is if its source fits.
        fits: Whether the question with this source fits into a model's context.
    """
    if fits(prompt.source):
        return prompt
    try:
        # The source alone: the policy's prompt around it is not what the model is asked.
        short = task.truncate(replace(prompt, text=prompt.source), fits)
    except DataError:
        return None
    return replace(prompt, source=short.source)
