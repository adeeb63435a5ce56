"""Run many coroutines against one backend: whatever they ask is asked together, and no answer is paid for twice."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from rlaif_framework.errors import RlaifError
from rlaif_framework.model_source import cache_folder
from rlaif_framework.protocols import Backend
from rlaif_framework.types import Answer, Asked, Ballot, Generate, Question, Reply, Request

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


def side_by_side(
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


def average_ballots(ballots: Sequence[Ballot]) -> Ballot:
    """The mean distribution of the ballots that could be read; unparsed if none could."""
    read = [b for b in ballots if b.probabilities is not None]
    written = tuple(b.rationale for b in ballots if b.rationale is not None)
    rationales = tuple(text for b in ballots for text in b.rationales) or (written if len(written) > 1 else ())
    principles = {b.principle for b in ballots}
    about = Ballot(
        None,
        rationale=written[0] if written else None,
        rationales=rationales,
        principle=principles.pop() if len(principles) == 1 else None,
    )
    if not read:
        return about
    first = sum(b.probabilities[0] for b in read if b.probabilities is not None) / len(read)
    masses = [b.mass for b in read if b.mass is not None]
    mass = sum(masses) / len(masses) if masses else None
    return replace(about, probabilities=(first, 1.0 - first), mass=mass, sampled=sum(b.sampled for b in read))


class AnswerCache:
    """Answers of one backend by content, in one SQLite file under the cache folder, shared by all runs."""

    def __init__(self, identity: str, path: Path | None = None) -> None:
        self.identity = identity
        path = path or cache_folder() / "answers.sqlite"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, timeout=60, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")  # survives a kill; a power cut may cost the last answers
            self._db.execute("CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, answer TEXT) WITHOUT ROWID")
        except sqlite3.Error as error:
            raise _explain(error, path) from error
        self.path = path

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def ask(self, backend: Backend, requests: Sequence[Request]) -> Iterator[Answer]:
        """Answers to requests, in order; equal requests are asked once, and each answer is kept as it arrives.

        A refusal is not kept: another server, or another day, may answer.
        """
        keys = [self.key(request) for request in requests]
        known = self._read(set(keys))
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in known}
        wanted = list(missing)
        if wanted:
            for index, answer in backend.answer(list(missing.values())):
                if answer.refused is None:
                    self._write(wanted[index], answer)
                known[wanted[index]] = answer
        lost = [key for key in wanted if key not in known]
        if lost:
            raise RlaifError(f"backend '{self.identity}' left {len(lost)} of {len(wanted)} requests unanswered")
        return iter([known[key] for key in keys])

    def key(self, request: Request) -> bytes:
        """Hash of the model's identity and everything in the request that matters."""
        content = asdict(request)
        if isinstance(request, Generate) and request.temperature == 0:
            content |= {"seed": 0, "top_k": 0}  # greedy decoding uses neither
        text = json.dumps([self.identity, type(request).__name__, content], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()

    def _read(self, keys: set[bytes]) -> dict[bytes, Answer]:
        found = {}
        for key in keys:
            try:
                row = self._db.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
            except sqlite3.Error as error:
                raise _explain(error, self.path) from error
            if row is not None:
                found[key] = _load_answer(json.loads(row[0]))
        return found

    def _write(self, key: bytes, answer: Answer) -> None:
        text = json.dumps(asdict(answer), ensure_ascii=False)
        try:
            self._db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, text))
        except sqlite3.Error as error:
            raise _explain(error, self.path) from error


def _explain(error: sqlite3.Error, path: Path) -> RlaifError:
    """What to do: a file that is damaged can only be removed; a full disk, or a file that is locked, loses nothing."""
    damaged = getattr(error, "sqlite_errorname", "") in ("SQLITE_CORRUPT", "SQLITE_NOTADB")
    advice = "remove it to start anew" if damaged else "make room, or set RLAIF_CACHE to another folder"
    return RlaifError(f"the cache of answers, {path}, cannot be used: {error}; {advice}")


def _load_answer(row: Mapping[str, Any]) -> Answer:
    lists = {name: tuple(row[name]) for name in ("probabilities", "dropped") if name in row}
    return Answer(**{**row, **lists})
