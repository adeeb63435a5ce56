"""Read rows from files in JSON Lines, JSON, CSV and Parquet, and from data sets of the Hugging Face Hub."""

from __future__ import annotations

import csv
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from io import BytesIO, TextIOWrapper
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rlaif_framework.data.messages import is_messages
from rlaif_framework.data.paths import HUB_ID
from rlaif_framework.errors import DataError, HubError
from rlaif_framework.files import check_regular, user_path
from rlaif_framework.records.jsonl import DECODER, MAX_LINE, open_data, parse_line, read_lines
from rlaif_framework.records.preferences import Split

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
"""Ends of the names of files that can be read."""

MAX_ARRAY = MAX_LINE
"""Maximum size in bytes of a file that holds one JSON array, which is read as a whole."""

MAX_COLUMNS = 10_000
"""Maximum number of columns of a CSV file."""

BATCH_ROWS = 256
"""Maximum number of rows of a Parquet file that are read at once."""

_GAP = re.compile(r"[ \t\n\r]*")
"""White space of JSON."""


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
    if not path.exists():
        if any(mark in path.name for mark in "*?["):
            raise DataError(f"no data file at {path}: patterns are not expanded; use the path of a folder")
        near = get_close_matches(path.name, _list_row_files(path.parent), n=1)
        kind = "data file" if is_row_file(path) else "file or folder"
        raise DataError(f"no {kind} at {path}" + (f"; did you mean '{near[0]}'?" if near else ""))
    if not path.is_file():
        raise DataError(f"{path} is not a file")
    if not is_row_file(path):
        raise DataError(f"{path}: rows are read from files whose names end in {', '.join(SUFFIXES)}")
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
        lines = enumerate(BytesIO(text), 1)  # lines that hold lists: each has a fault
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
    text = bytearray()  # a list of short lines would take much more memory
    for line in lines:
        text += line
        if len(text) > MAX_ARRAY:
            raise DataError(f"{path}: a JSON array is read as a whole, up to {MAX_ARRAY:,} bytes; use JSON Lines")
    return bytes(text)


def _read_array(path: Path, text: bytes) -> Iterator[Row]:
    has_escapes = b"\\ud" in text.lower()  # possibly lone surrogates, which cannot be encoded
    number = 0
    try:
        for number, item in enumerate(_list_items(text.decode("utf-8-sig")), 1):
            try:
                values = parse_line(json.dumps(item).encode()) if has_escapes else _check_object(item)
                yield Row(str(path), number, "row", values)
            except DataError as error:
                yield Row(str(path), number, "row", fault=error)
    except DataError as error:  # a key is there twice
        raise DataError(f"{path}, row {number + 1}: {error}") from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: not a valid JSON array: {error.msg} in line {error.lineno}, column {error.colno}"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not valid UTF-8 text: {error}") from error
    except (ValueError, RecursionError) as error:  # numbers with thousands of digits
        raise DataError(f"{path}: not a JSON array that can be read: {error}") from error
    if not number:
        raise DataError(f"{path} is empty")


def _list_items(text: str) -> Iterator[Any]:
    """Yield the items of a JSON array. All at once may take 20 times the memory of the text.

    Raises:
        ValueError, RecursionError: It is not valid.
    """
    decode = DECODER.raw_decode
    position = _skip_gap(text, _skip_gap(text, 0) + 1)
    mark = text[position : position + 1]
    while mark != "]":
        item, position = decode(text, position)
        yield item
        position = _skip_gap(text, position)
        mark = text[position : position + 1]
        if mark == ",":
            position = _skip_gap(text, position + 1)
        elif mark != "]":
            raise json.JSONDecodeError("Expecting ',' delimiter", text, position)
    if (end := _skip_gap(text, position + 1)) < len(text):
        raise json.JSONDecodeError("Extra data", text, end)


def _skip_gap(text: str, position: int) -> int:
    gap = _GAP.match(text, position)
    return position if gap is None else gap.end()


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
            delimiter = max("\t,;", key=head.count)
            if head.count(delimiter) >= MAX_COLUMNS:
                raise DataError(f"{path}: the first line names more than {MAX_COLUMNS:,} columns")
            # Strict: an unclosed quote would silently make one field of the rest of the file.
            reader = csv.reader(_limit_lines(file, path), delimiter=delimiter, strict=True)
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
    _check_unique(path, header)


def _check_unique(path: Path, columns: Iterable[str]) -> None:
    for repeated, times in Counter(columns).most_common(1):
        if times > 1:
            raise DataError(f"{path}: the column '{repeated}' is there twice")


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        check_regular(path)
        metadata = pq.read_metadata(path)
        if not metadata.num_rows:
            raise DataError(f"{path} is empty")
        # As in the file, where a text that is repeated is stored once. Within lists, pyarrow cannot read them so.
        _check_unique(path, metadata.schema.to_arrow_schema().names)
        columns = [metadata.schema.column(index) for index in range(metadata.num_columns)]
        texts = [column.path for column in columns if column.path == column.name and _is_text(column)]
        size = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
        batch_rows = min(BATCH_ROWS, 1 + MAX_LINE * metadata.num_rows // max(1, size))
        with pq.ParquetFile(path, metadata=metadata, read_dictionary=texts) as file:
            done = 0
            for part in chain.from_iterable(map(_split_batch, file.iter_batches(batch_rows))):
                if _measure(part) > MAX_LINE:
                    raise DataError(f"{path}, row {done + 1} has more than {MAX_LINE:,} bytes")
                yield from _convert_batch(path, part, done + 1)
                done += part.num_rows
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} as Parquet: {error}") from error


def _convert_batch(path: Path, batch: pa.RecordBatch, first: int) -> Iterator[Row]:
    """Yield the rows of a batch, of which the first one has the given number."""
    try:
        found = batch.to_pylist()
    except (ValueError, OverflowError) as error:  # text that is not UTF-8, a date that Python does not have
        if batch.num_rows == 1:
            yield Row(str(path), first, "row", fault=DataError(f"a value cannot be read: {error}"))
        else:
            for index in range(batch.num_rows):
                yield from _convert_batch(path, batch.slice(index, 1), first + index)
    else:
        for number, values in enumerate(found, first):
            yield Row(str(path), number, "row", values)


def _is_text(column: pq.ColumnSchema) -> bool:
    return column.physical_type == "BYTE_ARRAY" and column.logical_type.type in ("STRING", "NONE")


def _split_batch(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Yield a batch as it is, or its rows one by one if together they would take too much memory."""
    if _measure(batch) <= MAX_LINE:
        yield batch
    else:
        yield from (batch.slice(index, 1) for index in range(batch.num_rows))


def _measure(values: pa.RecordBatch | pa.Array) -> int:
    """Return the size of values in bytes, with each repeated text as often as it occurs."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(values, pa.RecordBatch):
        return sum(map(_measure, values.columns))
    if isinstance(values, pa.StructArray):
        return sum(map(_measure, values.flatten()))
    if isinstance(values, pa.MapArray):
        return int(values.nbytes)
    if isinstance(values, pa.ListArray | pa.LargeListArray | pa.FixedSizeListArray):
        return 8 * len(values) + _measure(values.flatten())
    if pa.types.is_dictionary(values.type) and not pa.types.is_primitive(values.type.value_type):
        lengths = pc.binary_length(values.dictionary).take(values.indices)
        return pc.sum(lengths).as_py() or 0
    return int(values.nbytes)


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
