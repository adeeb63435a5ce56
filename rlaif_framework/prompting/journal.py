"""A journal of exchanges with servers: a request is written down before it is sent, a response before it is used."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from rlaif_framework.files import is_running
from rlaif_framework.prompting.answer_cache import explain_error, open_database

BATCH = 100
"""Number of requests that are removed together."""


class Journal:
    """Responses that are not part of a cached answer yet, and requests that were sent without a response.

    A process can be killed between the responses that one answer needs, or before the answer is cached. What has
    arrived is then in the journal, and is not paid for again. All backends and runs share one table in the SQLite file
    of the answer cache.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._db, self.path = open_database(
            # Each process has rows of its own: what another one has in flight is not lost.
            "CREATE TABLE IF NOT EXISTS exchanges (key BLOB, process INTEGER, unanswered INTEGER NOT NULL,"
            " response TEXT, PRIMARY KEY (key, process)) WITHOUT ROWID",
            path,
            any_thread=True,  # a backend opens it in one thread and sends requests in another
        )
        self._process = os.getpid()
        self._in_flight: Counter[bytes] = Counter()
        """Number of requests that this process has sent and whose outcome is not known yet."""
        self._forgotten: set[bytes] = set()
        """Requests to remove."""

    def close(self) -> None:
        """Forget what is to be forgotten, and close the database."""
        self._forget_all()
        self._db.close()

    @staticmethod
    def key(content: Any) -> bytes:
        """Return a hash of a request, given as JSON content."""
        text = json.dumps(content, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()

    def find_response(self, key: bytes) -> Any:
        """Return the response to a request that has arrived already; None if there is none."""
        for (text,) in self._run("SELECT response FROM exchanges WHERE key = ? AND response IS NOT NULL", key):
            return json.loads(text)
        return None

    def note_request(self, key: bytes) -> None:
        """Note that a request is about to be sent."""
        self._in_flight[key] += 1
        self._run(
            "INSERT INTO exchanges VALUES (?, ?, 1, NULL)"
            " ON CONFLICT (key, process) DO UPDATE SET unanswered = unanswered + 1",
            key,
            self._process,
        )

    def note_response(self, key: bytes, response: Any = None) -> None:
        """Note that a request has been answered, or was not sent after all.

        Args:
            key: The request.
            response: JSON content to return from `find_response`; None if it must not be used again.
        """
        self._in_flight[key] -= 1
        text = None if response is None else json.dumps(response, ensure_ascii=False)
        self._run(
            "UPDATE exchanges SET unanswered = unanswered - 1, response = ? WHERE key = ? AND process = ?",
            text,
            key,
            self._process,
        )

    def note_loss(self, key: bytes) -> None:
        """Note that there will be no response to a request that was sent."""
        self._in_flight[key] -= 1

    def count_unanswered(self, keys: Collection[bytes]) -> int:
        """Return how often requests have been sent without a response, by this process or by ones that have ended."""
        total = 0
        for key in keys:
            for process, count in self._run("SELECT process, unanswered FROM exchanges WHERE key = ?", key):
                if process == self._process:
                    total += count - self._in_flight[key]
                elif count and not is_running(process):
                    total += count
        return total

    def forget(self, keys: Collection[bytes]) -> None:
        """Remove requests, once the answer that was made of their responses is cached.

        It does no harm if they are still there after a kill, so they are removed together, which is faster.
        """
        self._forgotten.update(keys)
        if len(self._forgotten) >= BATCH:
            self._forget_all()

    def _forget_all(self) -> None:
        keys = list(self._forgotten)
        self._forgotten.clear()
        for start in range(0, len(keys), BATCH):
            batch = keys[start : start + BATCH]
            self._run(f"DELETE FROM exchanges WHERE key IN ({', '.join('?' * len(batch))})", *batch)

    def _run(self, statement: str, *values: Any) -> list[Any]:
        try:
            return self._db.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise explain_error(error, self.path) from error
