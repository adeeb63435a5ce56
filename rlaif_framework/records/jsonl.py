"""Read and write JSON Lines. Errors name the file and the line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from rlaif_framework.errors import DataError
from rlaif_framework.files import check_regular, open_regular

MAX_LINE = 2**28
"""Maximum length of a line in bytes."""


def make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a mapping of a JSON object.

    Raises:
        DataError: A key is there twice; Python would silently keep the last value.
    """
    made = dict(pairs)
    if len(made) < len(pairs):
        (repeated, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise DataError(f"duplicate key '{repeated}'")
    return made


DECODER = json.JSONDecoder(object_pairs_hook=make_object)
"""Reads JSON in which no object has a key twice."""


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield `(line number, row)` of a `.jsonl` or `.jsonl.gz` file.

    Raises:
        DataError: The file is missing or unreadable, or a line is empty or not a JSON object.
    """
    for number, line in read_lines(path):
        try:
            row = parse_line(line)
        except DataError as error:
            raise DataError(f"{path}, line {number}: {error}") from error
        yield number, row


def open_data(path: Path) -> BinaryIO:
    """Open a file of data, which may be compressed by gzip.

    Raises:
        OSError: It is missing, unreadable, or not a regular file.
    """
    if path.suffix.lower() != ".gz":
        return open_regular(path)
    check_regular(path)
    return cast(BinaryIO, gzip.open(path))


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield `(line number, line)` of a text file, which may be compressed by gzip.

    Raises:
        DataError: The file is missing, unreadable or empty.
    """
    try:
        with open_data(path) as file:
            empty = True
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), 1):
                empty = False
                if len(line) > MAX_LINE:  # perhaps what a small compressed file expands to
                    raise DataError(f"{path}, line {number} is longer than {MAX_LINE:,} bytes")
                yield number, line
            if empty:
                raise DataError(f"{path} is empty")
    except FileNotFoundError:
        raise DataError(f"no data file at {path}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def parse_line(line: bytes) -> dict[str, Any]:
    """Parse one line.

    Raises:
        DataError: The line is invalid. The message has no location, which the caller adds.
    """
    if not line.strip():
        raise DataError("the line is empty; remove it")
    try:
        text = line.decode("utf-8-sig")  # some editors put a byte order mark at the start of a file
        row = DECODER.decode(text)
        if "\\ud" in text.lower():  # a lone surrogate is valid JSON, but cannot be encoded when it is written
            json.dumps(row, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise DataError(f"not valid JSON: {error.msg} at column {error.colno}") from error
    except UnicodeError as error:
        raise DataError(f"not valid UTF-8 text: {error}") from error
    except ValueError as error:  # Python converts at most 4,300 digits to an integer
        raise DataError("a number has too many digits") from error
    except RecursionError as error:
        raise DataError("lists and objects are nested too deeply") from error
    if not isinstance(row, dict):
        raise DataError(f"expected a JSON object, found {type(row).__name__}")
    return row


def dump_row(row: Mapping[str, Any]) -> str:
    """Return a row as one line of JSON, with a newline. Characters outside ASCII are not escaped."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows, one per line."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(dump_row(row) for row in rows)
