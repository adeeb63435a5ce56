"""Read a user's file of pairs once: validate every row, and keep the valid ones for labelling."""

from __future__ import annotations

import hashlib
import pickle
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import IO, Any, Self

from rlaif_framework.data.pairs import read_pair
from rlaif_framework.data.transcripts import ASSISTANT_CUE
from rlaif_framework.errors import DataError
from rlaif_framework.records.jsonl import parse_line, read_lines
from rlaif_framework.records.preferences import Comparison

MAX_SHOWN = 20
"""Maximum number of invalid rows that an error lists."""

KEYS = frozenset(
    {"prompt", "responses", "chosen", "rejected", "response_a", "response_b", "label"}
    | {"id", "human", "confidence", "slice", "reference"}
)
"""Keys that are read. Rows may have other keys, which are ignored."""

FIRST_TURN = "Human:"
"""Begins a transcript."""


@dataclass(frozen=True, slots=True)
class InvalidRow:
    """A line that is not a valid pair."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class UnknownKey:
    """An ignored key that is probably a misspelling of a known one."""

    key: str
    suggestion: str
    """The known key that it resembles."""
    line: int
    """First line that has it."""
    count: int = 1
    """Number of rows that have it."""


@dataclass(frozen=True, slots=True)
class PairsFile:
    """The result of reading a file of pairs. Close it to delete its temporary copy of the comparisons."""

    path: Path
    count: int
    """Number of valid rows."""
    skipped: int
    """Number of invalid rows."""
    invalid: tuple[InvalidRow, ...]
    """The first invalid rows."""
    digest: str
    """Hash of the file's lines."""
    unknown_keys: tuple[UnknownKey, ...]
    transcripts: int
    """Number of valid rows whose prompt is a dialogue in the format of Anthropic's HH data."""
    spool: IO[bytes]
    """The comparisons of the valid rows, pickled one after another into a temporary file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.spool.close()

    def read(self, start: int = 0) -> Iterator[Comparison]:
        """Yield the comparisons from number `start` on, one at a time.

        They are read from the temporary copy. JSON is parsed once for all labelers, and the comparisons are those that
        were validated and hashed, even if the file has changed since.
        """
        # Unpickling is safe: the temporary file has no name, so no other program can write to it.
        self.spool.seek(0)
        return islice((pickle.load(self.spool) for _ in range(self.count)), start, None)

    def find_warnings(self, task: str) -> list[str]:
        """Describe likely mistakes in valid rows, one line each.

        Args:
            task: The kind of the task whose annotator prompts are used.
        """
        found = [
            f"{self.path}: {x.count} rows have the unknown key '{x.key}', first in line {x.line}; it is ignored; "
            f"did you mean '{x.suggestion}'?"
            for x in self.unknown_keys
        ]
        if self.transcripts and "dialogue" not in task:
            found.append(
                f"{self.path}: {self.transcripts} prompts are dialogues, but task '{task}' is not about dialogues; "
                "did you mean --task dialogue?"
            )
        return found

    def check(self, skip_invalid: bool) -> None:
        """Refuse a file with invalid rows or, with `skip_invalid`, a file without valid ones.

        Raises:
            DataError: The first invalid rows, with line numbers.
        """
        if self.count and (skip_invalid or not self.skipped):
            return
        lines = [f"{self.path}: {self.skipped} of {self.count + self.skipped} rows are invalid"]
        lines += [f"  line {row.line}: {row.reason}" for row in self.invalid]
        if self.skipped > len(self.invalid):
            lines.append(f"  and {self.skipped - len(self.invalid)} more")
        lines.append(
            f"use --skip-invalid to label the other {self.count}" if self.count else "there is nothing to label"
        )
        raise DataError("\n".join(lines))


def scan_pairs(path: Path, inspect: Callable[[int, Comparison], None] | None = None) -> PairsFile:
    """Read a whole file once. Memory does not grow with the text of the file.

    Args:
        path: A `.jsonl` or `.jsonl.gz` file.
        inspect: Called with the line number and the comparison of each valid row.

    Raises:
        DataError: The file is missing, unreadable, empty, or of another format.
    """
    if not path.name.lower().endswith((".jsonl", ".jsonl.gz")):
        raise DataError(f"{path}: pairs are read from .jsonl and .jsonl.gz files")
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is not a file")
    digest, reader = hashlib.sha256(), _Reader()
    count = skipped = transcripts = 0
    invalid: list[InvalidRow] = []
    with ExitStack() as stack:
        spool = stack.enter_context(tempfile.TemporaryFile())
        for number, line in read_lines(path):
            digest.update(line)  # uncompressed: a compressed copy of the file has the same labels
            found = reader.read(number, line)
            if isinstance(found, InvalidRow):
                skipped += 1
                invalid += [found] if len(invalid) < MAX_SHOWN else []
                continue
            count += 1
            transcripts += found.prompt.source.startswith(FIRST_TURN) and found.prompt.text.endswith(ASSISTANT_CUE)
            _append(found, spool)
            if inspect is not None:
                inspect(number, found)
        stack.pop_all()  # from here on, the temporary file belongs to the result
    unknown = tuple(reader.unknown_keys.values())
    return PairsFile(path, count, skipped, tuple(invalid), digest.hexdigest(), unknown, transcripts, spool)


def _append(comparison: Comparison, spool: IO[bytes]) -> None:
    try:
        pickle.dump(comparison, spool, pickle.HIGHEST_PROTOCOL)
    except OSError as error:
        raise DataError(
            f"cannot write a temporary copy of the pairs to {tempfile.gettempdir()}: {error}; free some space, or set "
            "TMPDIR to another folder"
        ) from error


class _Reader:
    """Reads the lines of a file in order and keeps the ids and the unknown keys found so far."""

    def __init__(self) -> None:
        self.lines: dict[int, int] = {}
        """First line of each explicit id, by the hash of the id, which takes less memory than the id."""
        self.unknown_keys: dict[str, UnknownKey] = {}

    def read(self, number: int, line: bytes) -> Comparison | InvalidRow:
        """Convert a line to a comparison, or to the reason why it is invalid."""
        try:
            row = parse_line(line)
            self._note_unknown_keys(row, number)
            pair = read_pair(row)
            first = self.lines.setdefault(hash(pair.id), number) if row.get("id") is not None else number
            if first != number:
                raise DataError(f"the id '{pair.id}' is already used in line {first}")
        except DataError as error:
            return InvalidRow(number, str(error))
        return pair

    def _note_unknown_keys(self, row: Mapping[str, Any], number: int) -> None:
        for key in sorted(row.keys() - KEYS):  # sorted, so that warnings have the same order in each run
            noted = self.unknown_keys.get(key)
            suggestion = noted.suggestion if noted else _suggest_key(key)
            if suggestion is not None and suggestion not in row:
                new = UnknownKey(key, suggestion, number)
                self.unknown_keys[key] = replace(noted, count=noted.count + 1) if noted else new


@lru_cache(maxsize=1024)  # called for every row, mostly with the same keys
def _suggest_key(key: str) -> str | None:
    """Return the known key that a key is probably a misspelling of; None if it is probably intended."""
    if KEYS & set(re.split(r"[_\W]", key)):  # `prompt_id`, `chosen_model`
        return None  # contains a known key as a word, and is therefore no misspelling
    near = get_close_matches(key.strip().lower(), KEYS, n=1, cutoff=0.75)
    return near[0] if near else None
