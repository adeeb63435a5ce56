"""A persistent cache of answers, keyed by backend, code and content of the request."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from rlaif_framework.contracts.protocols import Backend
from rlaif_framework.errors import RlaifError
from rlaif_framework.files import cache_folder
from rlaif_framework.plugins.code import hash_code
from rlaif_framework.records.requests import Answer, Generate, Request


def identify_backend(backend: Backend) -> str:
    """Return what makes a backend's answers: its identity, and a hash of its code.

    Answers that an older version of the code computed or read differently are thus not returned.
    """
    return f"{backend.identity()} code {hash_code(type(backend).__module__)}"


class AnswerCache:
    """Cached answers of one backend. All backends and runs share one SQLite file in the cache folder."""

    def __init__(self, identity: str, path: Path | None = None) -> None:
        self.identity = identity
        # Rows are stored in the tree of the key, which saves a second look-up.
        table = "CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, answer TEXT) WITHOUT ROWID"
        self._db, self.path = open_database(table, path)
        self._counted: set[bytes] = set()
        """Keys of the answers whose unanswered requests have been counted."""

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def ask(self, backend: Backend, requests: Sequence[Request]) -> Iterator[Answer]:
        """Return the answers to requests, in order.

        Identical requests are sent once. Each answer is stored as soon as it arrives, except for refusals: another
        server may answer, or the same one later.

        Raises:
            RlaifError: The backend did not answer all requests.
        """
        keys = [self.key(request) for request in requests]
        answers = self._read(set(keys))
        # By key, so that identical requests are sent once.
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in answers}
        missing_keys = list(missing)
        if missing_keys:
            with _closing(backend.answer(list(missing.values()))) as arriving:
                for index, answer in arriving:
                    if answer.refused is None:
                        self._write(missing_keys[index], answer)
                    answers[missing_keys[index]] = answer
        unanswered = sum(key not in answers for key in missing_keys)
        if unanswered:
            raise RlaifError(f"backend '{self.identity}' did not answer {unanswered} of {len(missing_keys)} requests")
        return iter([self._count_once(key, answers[key]) for key in keys])

    def key(self, request: Request) -> bytes:
        """Return a hash of the backend's identity and of everything in a request that affects its answer."""
        content = asdict(request)
        if isinstance(request, Generate) and request.temperature == 0:
            content |= {"seed": 0, "top_k": 0}  # greedy decoding uses neither
        text = json.dumps([self.identity, type(request).__name__, content], sort_keys=True, ensure_ascii=False)
        # Generated text may contain lone surrogates, which UTF-8 does not allow.
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()

    def _count_once(self, key: bytes, answer: Answer) -> Answer:
        """Return an answer without its unanswered requests if they are counted in an earlier one."""
        if not answer.unanswered:
            return answer
        is_first = key not in self._counted
        self._counted.add(key)
        return answer if is_first else replace(answer, unanswered=0)

    def _read(self, keys: set[bytes]) -> dict[bytes, Answer]:
        found = {}
        for key in keys:
            try:
                row = self._db.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
            except sqlite3.Error as error:
                raise explain_error(error, self.path) from error
            if row is not None:
                found[key] = _load_answer(json.loads(row[0]))
        return found

    def _write(self, key: bytes, answer: Answer) -> None:
        text = json.dumps(asdict(answer), ensure_ascii=False)
        try:
            self._db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, text))
        except sqlite3.Error as error:
            raise explain_error(error, self.path) from error


@contextmanager
def _closing(answers: Iterable[tuple[int, Answer]]) -> Iterator[Iterable[tuple[int, Answer]]]:
    """Close a generator at the end of the block, so that a backend stops at once if the caller does.

    After an error in a notebook, the traceback would keep it, and its requests would go on.
    """
    try:
        yield answers
    finally:
        if isinstance(answers, Generator):
            answers.close()


def open_database(table: str, path: Path | None = None, *, any_thread: bool = False) -> tuple[sqlite3.Connection, Path]:
    """Open the SQLite file of the cache folder, or another one, and create a table in it.

    Args:
        table: The statement that creates the table.
        path: The file, if it is not that of the cache folder.
        any_thread: If True, other threads may use the connection, one at a time.

    Raises:
        RlaifError: The file cannot be used.
    """
    path = path or cache_folder() / "answers.sqlite"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # No transactions: each row is stored at once. Other runs may hold the write lock for a moment.
        database = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=not any_thread)
        database.execute("PRAGMA journal_mode=WAL")  # runs that read do not block a run that writes
        # Safe if the process is killed; a power failure may lose the last rows.
        database.execute("PRAGMA synchronous=NORMAL")
        database.execute(table)
    except sqlite3.Error as error:
        raise explain_error(error, path) from error
    return database, path


def explain_error(error: sqlite3.Error, path: Path) -> RlaifError:
    """Convert an error of SQLite: a damaged file must be removed; a full disk or a locked file loses no answers."""
    # Errors of Python's module, rather than of SQLite, have no name.
    damaged = getattr(error, "sqlite_errorname", "") in ("SQLITE_CORRUPT", "SQLITE_NOTADB")
    advice = "delete it to start over" if damaged else "free some space, or set RLAIF_CACHE to another folder"
    return RlaifError(f"the answer cache {path} cannot be used: {error}; {advice}")


def _load_answer(row: Mapping[str, Any]) -> Answer:
    # The cache outlives versions of this class: fields that it no longer has are ignored.
    values: dict[str, Any] = {field.name: row[field.name] for field in fields(Answer) if field.name in row}
    lists: dict[str, Any] = {name: tuple(values[name]) for name in ("probabilities", "dropped") if name in values}
    return Answer(**(values | lists))
