"""A user's own pairs: rows of JSON Lines as comparisons, every bad row found before anything is asked."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from reprlib import repr as short
from typing import Any

from rlaif_framework.errors import DataError
from rlaif_framework.records.jsonl import parse_line, read_lines
from rlaif_framework.records.preferences import Comparison, Prompt

CUE = "\n\nAssistant:"
"""Ends the context of a transcript in the form of Anthropic's HH data."""


FORMS = (
    "prompt + responses, prompt + chosen + rejected, prompt + response_a + response_b (+ label), "
    "or chosen + rejected as whole transcripts"
)


SHOWN = 20


LABELS = {"a": 1.0, "b": 0.0, "tie": 0.5}


KEYS = frozenset(("prompt", "responses", "chosen", "rejected", "response_a", "response_b", "label")) | {
    "id",
    "human",
    "confidence",
    "slice",
    "reference",
}
"""Keys of a row that mean something here; others may stand beside them."""


TURN = "Human:"
"""Begins a transcript."""


@dataclass(frozen=True, slots=True)
class InvalidRow:
    """A line that holds no pair."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Misspelt:
    """A key that is no known one, but nearly."""

    key: str
    nearest: str
    """The known key it looks like."""
    line: int
    """Where it stands first."""
    count: int = 1
    """Rows that have it."""


@dataclass(frozen=True, slots=True)
class PairsFile:
    """What one reading of a whole file found."""

    path: Path
    count: int
    """Good rows."""
    skipped: int
    """Bad rows."""
    bad: tuple[InvalidRow, ...]
    """The first of them."""
    digest: str
    """Hash of the file's lines."""
    misspelt: tuple[Misspelt, ...] = ()
    """Keys that are hardly meant to be left alone."""
    transcripts: int = 0
    """Good rows whose prompt is a dialogue in the form of Anthropic's HH data."""

    def doubt(self, task: str) -> list[str]:
        """What may not be as meant, though it can be labelled; `task` is the kind of the task whose words are used."""
        found = [
            f"{self.path}: {x.count} rows have a key '{x.key}', first in line {x.line}, which means nothing here; "
            f"did you mean '{x.nearest}'?"
            for x in self.misspelt
        ]
        if self.transcripts and "dialogue" not in task:
            found.append(
                f"{self.path}: {self.transcripts} prompts are dialogues, and task '{task}' does not ask about any; "
                "did you mean --task dialogue?"
            )
        return found

    def read(self) -> Iterator[Comparison]:
        """Yield the pairs of the good rows, one at a time."""
        return (pair for pair in read_pairs(self.path) if isinstance(pair, Comparison))

    def check(self, skip_invalid: bool) -> None:
        """Refuse a file with bad rows, all of them named; with `skip_invalid` only one with nothing else.

        Raises:
            DataError: What is wrong and in which lines.
        """
        if self.count and (skip_invalid or not self.skipped):
            return
        lines = [f"{self.path}: {self.skipped} of {self.count + self.skipped} rows are bad"]
        lines += [f"  line {row.line}: {row.reason}" for row in self.bad]
        if self.skipped > len(self.bad):
            lines.append(f"  and {self.skipped - len(self.bad)} more")
        lines.append(
            f"--skip-invalid goes on with the other {self.count}" if self.count else "there is nothing to label"
        )
        raise DataError("\n".join(lines))


def scan_pairs(path: Path) -> PairsFile:
    """Read a whole file once, keeping nothing but counts and its bad rows.

    Raises:
        DataError: The file is missing, unreadable, empty, or not JSON Lines by its name.
    """
    if not path.name.lower().endswith((".jsonl", ".jsonl.gz")):
        raise DataError(f"{path}: pairs are read from .jsonl and .jsonl.gz files")
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is not a file")
    digest, reader = hashlib.sha256(), _Reader()
    count = skipped = transcripts = 0
    bad: list[InvalidRow] = []
    for number, line in read_lines(path):
        digest.update(line)
        found = reader.read(number, line)
        if isinstance(found, Comparison):
            count += 1
            transcripts += found.prompt.source.startswith(TURN) and found.prompt.text.endswith(CUE)
        else:
            skipped += 1
            bad += [found] if len(bad) < SHOWN else []
    return PairsFile(path, count, skipped, tuple(bad), digest.hexdigest(), tuple(reader.misspelt.values()), transcripts)


def read_pairs(path: Path) -> Iterator[Comparison | InvalidRow]:
    """Yield each row of a file as a comparison, or as what is wrong with it."""
    reader = _Reader()
    return (reader.read(number, line) for number, line in read_lines(path))


class _Reader:
    """Reads a file's lines in order, and knows the ids and the misspelt keys of those before."""

    def __init__(self) -> None:
        self.lines: dict[int, int] = {}
        """The line of each id that a row states, by the id's hash: a file may have very many."""
        self.misspelt: dict[str, Misspelt] = {}

    def read(self, number: int, line: bytes) -> Comparison | InvalidRow:
        """The pair in a line, or what is wrong with it."""
        try:
            row = parse_line(line)
            self._look_at_keys(row, number)
            pair = read_pair(row)
            before = self.lines.setdefault(hash(pair.id), number) if row.get("id") is not None else number
            if before != number:
                raise DataError(f"its id '{pair.id}' stands in line {before} already")
        except DataError as error:
            return InvalidRow(number, str(error))
        return pair

    def _look_at_keys(self, row: Mapping[str, Any], number: int) -> None:
        for key in row.keys() - KEYS:
            known = self.misspelt.get(key)
            nearest = known.nearest if known else _nearest_key(key)
            if nearest is not None and nearest not in row:
                self.misspelt[key] = replace(known, count=known.count + 1) if known else Misspelt(key, nearest, number)


@lru_cache(maxsize=1024)
def _nearest_key(key: str) -> str | None:
    """The known key that another must have been meant for; None if it is a column of the user's own."""
    if KEYS & set(re.split(r"[_\W]", key)):  # `prompt_id`, `chosen_model`
        return None
    near = get_close_matches(key.strip().lower(), KEYS, n=1, cutoff=0.75)
    return near[0] if near else None


def read_pair(row: Mapping[str, Any]) -> Comparison:
    """A comparison from a row in any of the known forms.

    Raises:
        DataError: What is wrong with the row.
    """
    text, responses, known = _read_form(row)
    source = text.removesuffix(CUE).strip()
    if not source:
        raise DataError("'prompt' is empty")
    first, second = (response.strip() for response in responses)
    if not first or not second:
        raise DataError("a response is empty")
    if first == second:
        raise DataError("the two responses are equal")
    given = None if responses == (first, second) else responses
    human = _share(row, "human")
    if human is not None and known is not None:
        raise DataError("'human' stands beside a preference the row states otherwise; keep one of them")
    known = human if known is None else known
    slice_ = None if row.get("slice") is None else _text(row, "slice")
    identity = _identity(row.get("id"), text, first, second)
    reference = None if row.get("reference") is None else _text(row, "reference").strip()
    return Comparison(
        identity,
        Prompt(identity, text, source, reference),
        (first, second),
        known,
        None if known is None else "human",
        _share(row, "confidence"),
        slice_,
        given,
    )


def _read_form(row: Mapping[str, Any]) -> tuple[str, tuple[str, str], float | None]:
    """Prompt, responses, and the preference a row states by its form."""
    if "responses" in row:
        responses = row["responses"]
        if not (isinstance(responses, list) and len(responses) == 2 and all(isinstance(r, str) for r in responses)):
            raise DataError("'responses' is not a list of two texts")
        return _text(row, "prompt"), (responses[0], responses[1]), None
    if "response_a" in row or "response_b" in row:
        label = row.get("label")
        if label is not None and not (isinstance(label, str) and label in LABELS):
            raise DataError(f"'label' is {short(label)}, not 'a', 'b' or 'tie'")
        known = None if label is None else LABELS[label]
        return _text(row, "prompt"), (_text(row, "response_a"), _text(row, "response_b")), known
    if "chosen" in row or "rejected" in row:
        prompt, chosen, rejected = _read_chosen(row)
        if _hash(prompt, chosen.strip()) < _hash(prompt, rejected.strip()):
            return prompt, (chosen, rejected), 1.0
        return prompt, (rejected, chosen), 0.0
    raise DataError(f"expected {FORMS}; it has {', '.join(list(row)[:8]) or 'nothing'}")


def _read_chosen(row: Mapping[str, Any]) -> tuple[str, str, str]:
    chosen, rejected = _text(row, "chosen"), _text(row, "rejected")
    if "prompt" in row:
        return _text(row, "prompt"), chosen, rejected
    before, cue, better = chosen.rpartition(CUE)
    other, _, worse = rejected.rpartition(CUE)
    if not cue:
        raise DataError("no 'prompt', and 'chosen' is no transcript with '\\n\\nAssistant:' in it")
    if before != other:
        raise DataError("'chosen' and 'rejected' differ before their last '\\n\\nAssistant:'")
    return before + cue, better, worse


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None:
        raise DataError(f"'{name}' is missing")
    if not isinstance(value, str):
        raise DataError(f"'{name}' is not text but {type(value).__name__}")
    return value


def _share(row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise DataError(f"'{name}' is {short(value)}, not a number between 0 and 1")
    return float(value)


def _identity(given: object, *content: str) -> str:
    if given is None:
        return _hash(*content)
    if isinstance(given, bool) or not isinstance(given, (str, int)) or given == "":
        raise DataError(f"'id' is {short(given)}, not a text or a whole number")
    return str(given)


def _hash(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]
