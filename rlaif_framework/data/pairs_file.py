"""Read a user's pairs once: validate every row, and keep the valid ones for labelling."""

from __future__ import annotations

import hashlib
import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Self

from rlaif_framework.data.faults import Faults
from rlaif_framework.data.messages import is_transcript
from rlaif_framework.data.pair_forms import PairRow
from rlaif_framework.data.pairs import IdRegistry, PairReader, UnknownColumn, make_comparison
from rlaif_framework.data.row_files import Row
from rlaif_framework.data.splits import read_part
from rlaif_framework.errors import DataError
from rlaif_framework.records.preferences import Comparison

PROMPT_PARTS = ("system", "system_prompt", "input")
"""Columns in which data sets such as Alpaca's and OpenOrca's have a part of the prompt."""


@dataclass(frozen=True, slots=True)
class PairsFile:
    """The result of reading pairs. Close it to delete its temporary copy of the comparisons."""

    name: str
    """The path of the file, or another name of the data."""
    files: int
    """Number of files with rows."""
    count: int
    """Number of comparisons."""
    rows: int
    """Number of rows, of which some may have several comparisons, or none."""
    faults: Faults
    """The invalid rows."""
    digest: str
    """Hash of the comparisons."""
    unknown_columns: tuple[UnknownColumn, ...]
    unread_parts: Mapping[str, tuple[str, int]]
    """Columns with text that is probably part of the prompts, and is not in them: the place of the first row that has
    it, and the number of rows."""
    transcripts: int
    """Number of comparisons whose prompt is a dialogue in the format of Anthropic's HH data."""
    ids: IdRegistry
    spool: IO[bytes]
    """The comparisons, pickled one after another into a temporary file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.spool.close()

    @property
    def skipped(self) -> int:
        """Number of invalid rows."""
        return self.faults.count

    def read(self, start: int = 0) -> Iterator[Comparison]:
        """Yield the comparisons from number `start` on, one at a time.

        They are read from the temporary copy. Rows are parsed once for all labelers, and the comparisons are those that
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
            f"{self.name}: {x.count} rows have the unknown key '{x.name}', first in {x.place}; it is ignored; "
            f"did you mean '{x.suggestion}'?"
            for x in self.unknown_columns
        ]
        found += [
            f"{self.name}: {count} rows have a text in '{column}', first in {place}, which is not part of their "
            "prompts; add it to the prompts if responses answer it as well"
            for column, (place, count) in self.unread_parts.items()
        ]
        if self.transcripts and "dialogue" not in task:
            found.append(
                f"{self.name}: {self.transcripts} prompts are dialogues, but task '{task}' is not about dialogues; "
                "did you mean --task dialogue?"
            )
        if self.ids.repeated:
            other = f", {self.ids.contradicted} of them with another preference" if self.ids.contradicted else ""
            found.append(
                f"{self.name}: {self.ids.repeated} rows repeat the prompt and responses of an earlier row{other}, "
                f"first in {self.ids.first_repeated[self.files > 1]}; each is labelled with an id of its own"
            )
        return found

    def check(self, skip_invalid: bool, option: str = "--skip-invalid") -> None:
        """Refuse a file with invalid rows or, with `skip_invalid`, a file without valid ones.

        Args:
            skip_invalid: If True, invalid rows are fine.
            option: How a user sets it, for the error.

        Raises:
            DataError: The first invalid rows of each kind of fault, with line numbers.
        """
        if self.count and (skip_invalid or not self.skipped):
            return
        if not self.rows:
            raise DataError(f"{self.name} has no rows; there is nothing to label")
        lines = [f"{self.name}: {self.skipped} of {self.rows} rows are invalid"]
        lines += [f"  {line}" for line in self.faults.describe(with_file=self.files > 1)]
        left = self.rows - self.skipped
        lines.append(f"use {option} to label the other {left}" if self.count else "there is nothing to label")
        raise DataError("\n".join(lines))


Inspect = Callable[[Row, PairRow, Comparison], None]
"""Called with each valid pair, as its row has it and as a comparison."""


def scan_pairs(path: Path, inspect: Inspect | None = None, fields: Mapping[str, str] | None = None) -> PairsFile:
    """Read a whole data set once. Except for a JSON array, memory does not grow with the text of the file.

    Args:
        path: A file in one of the formats of `read_row_file`, a folder of such files, or a hub id `owner/name` or
            `owner/name:split`.
        inspect: Called with each valid pair.
        fields: The data set's column for each field whose column has another name.

    Raises:
        DataError: The file is missing, unreadable, empty, or of another format.
    """
    return scan_rows(read_part(str(path)), str(path), inspect, fields)


def scan_rows(
    source: Iterable[Row],
    name: str,
    inspect: Inspect | None = None,
    fields: Mapping[str, str] | None = None,
    option: str = "--fields",
) -> PairsFile:
    """Read rows once, as `scan_pairs` does.

    Args:
        source: The rows.
        name: Name of the data, for messages.
        inspect: Called with each valid pair.
        fields: The column for each field whose column has another name.
        option: How a user gives `fields`, for errors.

    Raises:
        DataError: The rows cannot be read.
    """
    digest, reader = hashlib.sha256(), PairReader(fields or {}, option)
    count = rows = transcripts = 0
    faults, ids, files, unread = Faults(), IdRegistry(), set[str](), dict[str, tuple[str, int]]()
    with ExitStack() as stack:
        spool = stack.enter_context(tempfile.TemporaryFile())
        for row, pairs in reader.read(source):
            rows += 1
            files.add(row.file)
            try:
                if isinstance(pairs, DataError):
                    raise pairs
                comparisons = [_register(ids, make_comparison(pair, row.values), row) for pair in pairs]
            except DataError as error:
                faults.add(row.file, row.place, error)
                continue
            for column in _find_unread(row, pairs):
                place, number = unread.get(column, (row.place, 0))
                unread[column] = place, number + 1
            for pair, comparison in zip(pairs, comparisons, strict=True):
                count += 1
                transcripts += is_transcript(comparison.prompt.text)
                digest.update(repr(comparison).encode())  # the format of the file does not matter
                _append(comparison, spool)
                if inspect is not None:
                    inspect(row, pair, comparison)
        stack.pop_all()  # from here on, the temporary file belongs to the result
    unknown = tuple(reader.unknown_columns.values())
    return PairsFile(
        name, len(files), count, rows, faults, digest.hexdigest(), unknown, unread, transcripts, ids, spool
    )


def _find_unread(row: Row, pairs: Sequence[PairRow]) -> Iterator[str]:
    """Yield the columns of a row with text that is probably part of its prompt, and is not in it."""
    prompt = pairs[0].prompt if pairs else None
    for column in PROMPT_PARTS:
        text = row.values.get(column)
        if prompt is not None and isinstance(text, str) and text.strip() not in prompt:
            yield column


def _register(ids: IdRegistry, comparison: Comparison, row: Row) -> Comparison:
    stated = row.values.get("id") is not None
    return ids.register(comparison, row) if stated else ids.make_unique(comparison, row)


def _append(comparison: Comparison, spool: IO[bytes]) -> None:
    try:
        pickle.dump(comparison, spool, pickle.HIGHEST_PROTOCOL)
    except OSError as error:
        raise DataError(
            f"cannot write a temporary copy of the pairs to {tempfile.gettempdir()}: {error}; free some space, or set "
            "TMPDIR to another folder"
        ) from error
