"""JSON Lines: rows in, rows out; a bad line is named by file and number."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rlaif_framework.errors import DataError


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield `(line number, row)` of a `.jsonl` or `.jsonl.gz` file.

    Raises:
        DataError: The file is missing or unreadable, or a line is empty or not a JSON object.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            empty = True
            for number, line in enumerate(file, 1):
                empty = False
                yield number, _parse(line, f"{path}, line {number}")
            if empty:
                raise DataError(f"{path} is empty")
    except FileNotFoundError:
        raise DataError(f"no data file at {path}") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _parse(line: str, where: str) -> dict[str, Any]:
    if not line.strip():
        raise DataError(f"{where}: the line is empty; remove it")
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not valid JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected a JSON object, found {type(row).__name__}")
    return row


def dump_row(row: Mapping[str, Any]) -> str:
    """One line of JSON, newline included; text stays readable."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows, one a line."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(dump_row(row) for row in rows)
