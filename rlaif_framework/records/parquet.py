"""Write rows to Parquet, batch by batch, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from itertools import islice
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from rlaif_framework.files import atomic_path

BATCH_ROWS = 1024
"""Rows per row group of a Parquet file. Memory does not grow with the number of rows."""

ARROW_TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def write_parquet(path: Path, rows: Iterable[Mapping[str, Any]], form: type) -> None:
    """Write rows to a Parquet file.

    Args:
        path: The file.
        rows: The rows.
        form: The TypedDict that describes a row. Types are not inferred from rows, since a field that is null in all
            rows of a batch would get another type.
    """
    schema = pa.schema([(name, _arrow_type(hint)) for name, hint in get_type_hints(form).items()])
    remaining = iter(rows)
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        while batch := list(islice(remaining, BATCH_ROWS)):
            writer.write_table(pa.Table.from_pylist(batch, schema))


def _arrow_type(hint: Any) -> pa.DataType:
    """Return the Arrow type of an annotation."""
    if is_dataclass(hint):
        hints = get_type_hints(hint)
        return pa.struct([(field.name, _arrow_type(hints[field.name])) for field in fields(hint)])
    if hint in ARROW_TYPES:
        return ARROW_TYPES[hint]
    # The remaining annotations are `X | None`, and tuples with items of one type.
    inner = [part for part in get_args(hint) if part not in (NoneType, Ellipsis)]
    if NoneType in get_args(hint):
        return _arrow_type(inner[0])
    return pa.list_(_arrow_type(inner[0]))
