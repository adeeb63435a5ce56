"""Run many coroutines against one backend: their requests are batched, and each distinct request is sent once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rlaif_framework.contracts.protocols import Backend
from rlaif_framework.prompting.answer_cache import AnswerCache, identify_backend
from rlaif_framework.records.requests import Answer, Asked, Question, Reply, Request

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[R]):
    """The return value of a coroutine, and the usage of its requests."""

    value: R | None
    """None if a request was refused, which ends the coroutine."""
    prompt_tokens: int = 0
    generated_tokens: int = 0
    cost: float = 0.0
    """US dollars, for backends with known prices."""
    refused: str | None = None
    """Reason why a request was refused."""
    fitting_fraction: float | None = None
    """If it was refused as too long: approximate fraction of its question that would fit."""
    dropped: tuple[str, ...] = ()
    """Settings of the requests that were not sent, in alphabetical order."""
    read_from: tuple[str, ...] = ()
    """Sources of the probabilities of choices, in alphabetical order."""
    unanswered: int = 0
    """Number of times that a request was sent without an answer."""


def run_coroutines(coroutines: Iterable[Generator[Asked, Reply, R]], backend: Backend) -> list[Outcome[R]]:
    """Run coroutines to completion and return their outcomes, in order.

    A coroutine yields one request and receives its answer, or yields several and receives a list of answers. In each
    round, the pending requests of all coroutines go to the backend in one call. Cached answers are not requested again.
    A coroutine never receives a refusal: it is closed, and its outcome has the reason.
    """
    tasks = [_Task(coroutine) for coroutine in coroutines]
    for task in tasks:
        task.advance(None)
    with closing(AnswerCache(identify_backend(backend))) as cache:
        while waiting := [task for task in tasks if task.pending]:
            answers = cache.ask(backend, [request for task in waiting for request in task.pending])
            for task in waiting:  # answers are in the order of the requests
                task.advance([next(answers) for _ in task.pending])
    return [task.outcome() for task in tasks]


class _Task(Generic[R]):
    """A coroutine, its pending requests, and its usage so far."""

    def __init__(self, coroutine: Generator[Asked, Reply, R]) -> None:
        self.coroutine = coroutine
        self.pending: Sequence[Request] = ()
        self.is_single = True
        """True if the coroutine yielded one request rather than a sequence."""
        self.answers: list[Answer] = []
        self.returned: list[R] = []
        """The return value once there is one. A list, since None is a valid return value."""
        self.refusal: Answer | None = None

    def advance(self, answers: list[Answer] | None) -> None:
        """Resume the coroutine with the answers to its pending requests; start it if there are none."""
        self.pending = ()
        self.answers += answers or []
        self.refusal = next((answer for answer in answers or () if answer.refused is not None), None)
        if self.refusal is not None:
            self.coroutine.close()  # a strategy thus needs no code for refusals
            return
        try:
            reply: Any = None if answers is None else answers[0] if self.is_single else answers
            asked = next(self.coroutine) if answers is None else self.coroutine.send(reply)
            while isinstance(asked, Sequence) and not asked:  # an empty list of requests has an empty list of answers
                asked = self.coroutine.send([])
        except StopIteration as stop:
            self.returned.append(stop.value)
            return
        self.is_single = not isinstance(asked, Sequence)
        self.pending = asked if isinstance(asked, Sequence) else (asked,)

    def outcome(self) -> Outcome[R]:
        return Outcome(
            self.returned[0] if self.returned else None,
            prompt_tokens=sum(a.prompt_tokens for a in self.answers),
            generated_tokens=sum(a.generated_tokens for a in self.answers),
            cost=sum(a.cost for a in self.answers),
            refused=self.refusal.refused if self.refusal else None,
            fitting_fraction=self.refusal.fitting_fraction if self.refusal else None,
            dropped=tuple(sorted({name for a in self.answers for name in a.dropped})),
            read_from=tuple(sorted({a.read_from for a in self.answers if a.read_from})),
            unanswered=sum(a.unanswered for a in self.answers),
        )


def first_questions(coroutine: Generator[Asked, Any, object]) -> set[Question]:
    """Return the questions that a coroutine asks before it needs an answer. The coroutine is closed."""
    asked = next(coroutine, ())
    coroutine.close()
    return {request.question for request in (asked if isinstance(asked, Sequence) else [asked])}


def run_in_lockstep(
    coroutines: Sequence[Generator[Asked, Any, R]], change: Callable[[int, Request], Request] | None = None
) -> Generator[Asked, Any, list[R]]:
    """Run coroutines in lockstep within one coroutine, which yields all their pending requests together.

    Args:
        coroutines: Coroutines that have not been started.
        change: Receives the number of a coroutine and its request, and returns the request to send instead.

    Returns:
        The return value of each coroutine.
    """
    tasks = [_Task(coroutine) for coroutine in coroutines]
    for task in tasks:
        task.advance(None)
    while any(task.pending for task in tasks):
        waiting = [(n, task) for n, task in enumerate(tasks) if task.pending]
        requests = [change(n, r) if change else r for n, task in waiting for r in task.pending]
        answers = iter((yield requests))
        for _, task in waiting:
            task.advance([next(answers) for _ in task.pending])
    # All have returned: a refused request would have closed this coroutine at its `yield`.
    return [task.returned[0] for task in tasks]
