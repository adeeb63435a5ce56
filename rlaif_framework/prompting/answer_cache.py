"""A persistent cache of backend answers, keyed by the content of the request."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlaif_framework.contracts.protocols import Backend
from rlaif_framework.errors import RlaifError
from rlaif_framework.records.requests import Answer, Generate, Request
from rlaif_framework.store import cache_folder


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
