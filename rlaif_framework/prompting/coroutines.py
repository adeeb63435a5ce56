"""Run many coroutines against one backend: whatever they ask is asked together, and no answer is paid for twice."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rlaif_framework.contracts.protocols import Backend
from rlaif_framework.prompting.answer_cache import AnswerCache
from rlaif_framework.records.requests import Answer, Asked, Question, Reply, Request

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[R]):
    """What a coroutine returned, and what its answers took."""

    value: R | None
    """None if one of its requests was refused: the coroutine was ended there."""
    prompt_tokens: int = 0
    generated_tokens: int = 0
    cost: float = 0.0
    """US dollars, of backends that know their prices."""
    refused: str | None = None
    """Why a request was refused."""
    fitting: float | None = None
    """Where it was refused as too long: about the share of its question that would fit."""
    dropped: tuple[str, ...] = ()
    """Settings of its requests that were not sent, in alphabetical order."""


def run_coroutines(coroutines: Iterable[Generator[Asked, Reply, R]], backend: Backend) -> list[Outcome[R]]:
    """Drive coroutines to their ends and give what each returned, in order.

    A coroutine yields one request and receives its answer, or yields several and receives a list of answers. All that
    is pending goes to the backend in one call; answers known from before are taken from the cache. A coroutine never
    sees a refusal: it is closed, and its outcome says why, so that no strategy can take one for an answer.
    """
    tasks = [_Task(coroutine) for coroutine in coroutines]
    for task in tasks:
        task.advance(None)
    with closing(AnswerCache(backend.identity())) as cache:
        while waiting := [task for task in tasks if task.waits]:
            answers = cache.ask(backend, [request for task in waiting for request in task.waits])
            for task in waiting:
                task.advance([next(answers) for _ in task.waits])
    return [task.outcome() for task in tasks]


class _Task(Generic[R]):
    """A coroutine, the requests it waits for, and what it has used so far."""

    def __init__(self, coroutine: Generator[Asked, Reply, R]) -> None:
        self.coroutine = coroutine
        self.waits: Sequence[Request] = ()
        self.single = True
        self.used: list[Answer] = []
        self.returned: list[R] = []
        self.refusal: Answer | None = None

    def advance(self, answers: list[Answer] | None) -> None:
        self.waits = ()
        self.used += answers or []
        self.refusal = next((answer for answer in answers or () if answer.refused is not None), None)
        if self.refusal is not None:
            self.coroutine.close()
            return
        try:
            reply: Any = None if answers is None else answers[0] if self.single else answers
            asked = next(self.coroutine) if answers is None else self.coroutine.send(reply)
            while isinstance(asked, Sequence) and not asked:  # asks for nothing, gets nothing
                asked = self.coroutine.send([])
        except StopIteration as stop:
            self.returned.append(stop.value)
            return
        self.single = not isinstance(asked, Sequence)
        self.waits = asked if isinstance(asked, Sequence) else (asked,)

    def outcome(self) -> Outcome[R]:
        return Outcome(
            self.returned[0] if self.returned else None,
            sum(a.prompt_tokens for a in self.used),
            sum(a.generated_tokens for a in self.used),
            sum(a.cost for a in self.used),
            self.refusal.refused if self.refusal else None,
            self.refusal.fitting if self.refusal else None,
            tuple(sorted({name for a in self.used for name in a.dropped})),
        )


def first_questions(coroutine: Generator[Asked, Any, object]) -> set[Question]:
    """What a coroutine asks before it has any answer; it is not run further."""
    asked = next(coroutine, ())
    coroutine.close()
    return {request.question for request in (asked if isinstance(asked, Sequence) else [asked])}


def run_in_lockstep(
    coroutines: Sequence[Generator[Asked, Any, R]], change: Callable[[int, Request], Request] | None = None
) -> Generator[Asked, Any, list[R]]:
    """A coroutine that runs others in step, asking what all of them ask at once; gives what each returned.

    Args:
        coroutines: Not started yet.
        change: Gets the number of a coroutine and its request, and gives the request that is asked instead.
    """
    tasks = [_Task(coroutine) for coroutine in coroutines]
    for task in tasks:
        task.advance(None)
    while any(task.waits for task in tasks):
        asking = [(n, task) for n, task in enumerate(tasks) if task.waits]
        requests = [change(n, r) if change else r for n, task in asking for r in task.waits]
        answers = iter((yield requests))
        for _, task in asking:
            task.advance([next(answers) for _ in task.waits])
    return [task.returned[0] for task in tasks]
