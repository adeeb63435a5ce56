"""Read rows from files in JSON Lines, JSON, CSV and Parquet, and from data sets of the Hugging Face Hub."""

from __future__ import annotations

import csv
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from io import TextIOWrapper
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from rlaif_framework.data.messages import is_messages
from rlaif_framework.data.paths import HUB_ID
from rlaif_framework.errors import DataError, HubError
from rlaif_framework.files import check_regular, user_path
from rlaif_framework.records.jsonl import MAX_LINE, open_data, parse_line, read_lines
from rlaif_framework.records.preferences import Split

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
"""Ends of the names of files that can be read."""

MAX_ARRAY = 2**30
"""Maximum size in bytes of a file that holds one JSON array."""

BATCH_ROWS = 256
"""Number of rows of a Parquet file that are in memory at once."""


_URL = re.compile(r"\w{2,}:/")  # as a path, which has no double slashes; one letter is a drive


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a data set, or the reason why it cannot be parsed."""

    file: str
    """Its file or hub data set, for error messages."""
    number: int
    """Number of its line, or of the row in files without lines, from 1."""
    unit: str = "line"
    values: Mapping[str, Any] = field(default_factory=dict)
    fault: DataError | None = None
    split: Split | None = None
    """The split that the data set names for it, if any."""

    @property
    def place(self) -> str:
        """The row's place in its file, such as `line 3`."""
        return f"{self.unit} {self.number}"

    @property
    def where(self) -> str:
        """The row's file and its place there, for error messages."""
        return f"{self.file}, {self.place}"


def is_row_file(path: Path) -> bool:
    """Return True if the name of a file ends like that of a file of rows."""
    return path.name.lower().endswith(SUFFIXES)


def is_read_with(path: Path, data: Path) -> bool:
    """Return True if a file is in a folder of data, so that it is read with the data once it is there."""
    return data.is_dir() and is_row_file(path) and path.resolve().parent == data.resolve()


def read_row_file(path: Path) -> Iterator[Row]:
    """Yield the rows of a file. A row that cannot be parsed has a fault.

    Raises:
        DataError: The file is missing, unreadable, empty, or of another format.
    """
    name = path.name.lower().removesuffix(".gz")
    if _URL.match(str(path)):
        raise DataError(
            f"{str(path).replace(':/', '://', 1)} is a URL, from which nothing is read; download the file and use its "
            "path, or use the id 'owner/name' of a data set of the Hugging Face Hub"
        )
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is not a file")
    if not is_row_file(path):
        raise DataError(f"{path}: rows are read from files whose names end in {', '.join(SUFFIXES)}")
    if not path.exists():
        if any(mark in path.name for mark in "*?["):
            raise DataError(f"no data file at {path}: patterns are not expanded; use the path of a folder")
        near = get_close_matches(path.name, _list_row_files(path.parent), n=1)
        raise DataError(f"no data file at {path}" + (f"; did you mean '{near[0]}'?" if near else ""))
    if name.endswith(".parquet"):
        return _read_parquet(path)
    return _read_csv(path) if name.endswith((".csv", ".tsv")) else _read_json(path)


def _list_row_files(folder: Path) -> list[str]:
    """Return the names of the files of rows in a folder; none if it cannot be read."""
    try:
        return sorted(path.name for path in folder.iterdir() if is_row_file(path))
    except OSError:
        return []


def _read_json(path: Path) -> Iterator[Row]:
    lines = read_lines(path)
    first = next(lines)
    start = first[1].decode("utf-8", "replace").lstrip("\ufeff").strip()
    if start.startswith("["):
        text = _join_lines(path, (line for _, line in chain([first], lines)))
        if not _is_json(start) or text.strip() == first[1].strip():
            yield from _read_array(path, text)
            return
        lines = iter(enumerate(text.splitlines(keepends=True), 1))  # lines that hold lists: each has a fault
    else:
        second = list(islice(lines, 1))
        if start == "{" or (not second and _holds_table(start)):
            what = "a JSON object over several lines" if second else "all rows in one JSON object"
            raise DataError(f"{path}: holds {what}; expected one object per line, or one array of objects")
        lines = chain([first], second, lines)
    for number, line in lines:
        try:
            yield Row(str(path), number, values=parse_line(line))
        except DataError as error:
            yield Row(str(path), number, fault=error)


def _join_lines(path: Path, lines: Iterable[bytes]) -> bytes:
    """Join the lines of a file that must be read as a whole.

    Raises:
        DataError: It is too large.
    """
    found, size = [], 0
    for line in lines:
        size += len(line)
        if size > MAX_ARRAY:
            raise DataError(f"{path}: a JSON array is read as a whole, up to {MAX_ARRAY:,} bytes; use JSON Lines")
        found.append(line)
    return b"".join(found)


def _read_array(path: Path, text: bytes) -> Iterator[Row]:
    try:
        items = json.loads(text.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: not a valid JSON array: {error.msg} in line {error.lineno}, column {error.colno}"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not valid UTF-8 text: {error}") from error
    except (ValueError, RecursionError) as error:  # numbers with thousands of digits
        raise DataError(f"{path}: not a JSON array that can be read: {error}") from error
    if not items:
        raise DataError(f"{path} is empty")
    has_escapes = b"\\ud" in text.lower()  # possibly lone surrogates, which cannot be encoded
    for number, item in enumerate(items, 1):
        try:
            yield Row(
                str(path), number, "row", parse_line(json.dumps(item).encode()) if has_escapes else _check_object(item)
            )
        except DataError as error:
            yield Row(str(path), number, "row", fault=error)


def _check_object(item: Any) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise DataError(f"expected a JSON object, found {type(item).__name__}")
    return item


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _holds_table(text: str) -> bool:
    """Return True for an object with a list of rows, or with the cells of each column, as pandas writes by default."""
    try:
        values = list(json.loads(text).values())
    except (ValueError, RecursionError, AttributeError):
        return False
    lists_rows = len(values) == 1 and isinstance(values[0], list) and all(isinstance(x, dict) for x in values[0])
    return (lists_rows and not is_messages(values[0])) or (
        bool(values) and all(isinstance(cells, dict) and "0" in cells for cells in values)
    )


def _read_csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(MAX_LINE)  # the default of 131,072 characters is less than a long dialogue
    end = 0
    try:
        with _open_text(path) as file:
            head = file.readline(MAX_LINE)
            file.seek(0)
            # Strict: an unclosed quote would silently make one field of the rest of the file.
            reader = csv.reader(_limit_lines(file, path), delimiter=max("\t,;", key=head.count), strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header)
            end = reader.line_num
            empty = True
            for cells in reader:
                empty = False
                number, end = end + 1, reader.line_num  # a field may have several lines: the first is the row's
                if len(cells) == len(header):
                    yield Row(
                        str(path), number, values={n: cell or None for n, cell in zip(header, cells, strict=True)}
                    )
                elif cells:
                    found = f"the row has {len(cells)} fields, the header has {len(header)}"
                    yield Row(str(path), number, fault=DataError(found))
            if empty:
                raise DataError(f"{path} is empty: it has a line with names of columns, and no rows")
    except csv.Error as error:
        raise DataError(f"{path}, line {end + 1}: not valid CSV: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not valid UTF-8 text: {error}; save the file as UTF-8") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _open_text(path: Path) -> TextIO:
    return TextIOWrapper(open_data(path), encoding="utf-8-sig", newline="")


def _limit_lines(file: TextIO, path: Path) -> Iterator[str]:
    """Yield the lines of a file.

    Raises:
        DataError: One is too long, perhaps because a small compressed file expands to it.
    """
    for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), ""), 1):
        if len(line) > MAX_LINE:
            raise DataError(f"{path}, line {number} is longer than {MAX_LINE:,} characters")
        yield line


def _check_header(path: Path, header: list[str]) -> None:
    if not any(header):
        raise DataError(f"{path} is empty: its first line must name the columns")
    repeated = next((name for name in header if header.count(name) > 1), None)
    if repeated is not None:
        raise DataError(f"{path}: the column '{repeated}' is there twice")


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        check_regular(path)
        with pq.ParquetFile(path) as file:
            if not file.metadata.num_rows:
                raise DataError(f"{path} is empty")
            batches = (batch.to_pylist() for batch in file.iter_batches(BATCH_ROWS))
            for number, values in enumerate(chain.from_iterable(batches), 1):
                yield Row(str(path), number, "row", values)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"cannot read {path} as Parquet: {error}") from error


def split_hub_id(place: str) -> tuple[str, str | None] | None:
    """Split `owner/name` or `owner/name:split` of a hub data set; None if it is the path of a file."""
    name, colon, split = place.partition(":")
    if "/" not in name or not HUB_ID.fullmatch(name) or place.startswith(".") or place.endswith(SUFFIXES):
        return None
    if user_path(place).exists():
        return None
    return name, split if colon else None


def load_hub(place: str) -> dict[str, Iterator[Row]]:
    """Load a data set of the hub, `owner/name` or `owner/name:split`, and return the rows of each split.

    Raises:
        HubError: It cannot be loaded.
    """
    from datasets import load_dataset

    name, split = split_hub_id(place) or (place, None)
    try:
        data = load_dataset(name) if split is None else {split: load_dataset(name, split=split)}
    except Exception as error:  # datasets raises many types: no network, no such data set, a loading script, a bad file
        raise HubError(
            f"no file or folder '{place}', and it cannot be loaded from the hub: {type(error).__name__}: {error}. "
            f"Data sets with a loading script are no longer supported: download the JSON Lines files and use the path "
            "of their folder"
        ) from error
    return {part: _number_rows(f"{place}, {part}", rows) for part, rows in data.items()}


def _number_rows(file: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    return (Row(file, number, "row", dict(values)) for number, values in enumerate(rows, 1))
