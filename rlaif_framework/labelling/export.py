"""Labels as Parquet, and as the preference set that TRL and `datasets` read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from itertools import islice
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from rlaif_framework.labelling.rows import Labelled, read_labels
from rlaif_framework.records.jsonl import dump_row, read_rows
from rlaif_framework.records.preferences import Evidence

BATCH = 1024


SURE = 1e-6
"""Probabilities nearer to 0 or 1 than this count as this near: a margin is a finite number."""


TEXT = pa.string()


PLAIN = {str: TEXT, int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


PREFERENCE_SET = pa.schema(
    [(name, pa.string()) for name in ("prompt", "chosen", "rejected")] + [("margin", pa.float64())]
)


def write_parquet(labels: Path, path: Path) -> None:
    """Copy a `labels.jsonl` to Parquet, batch by batch."""
    pair = pa.list_(pa.float64())
    schema = pa.schema(
        [
            ("id", TEXT),
            ("prompt", TEXT),
            ("responses", pa.list_(TEXT)),
            ("probabilities", pair),
            ("human", pa.float64()),
            ("confidence", pa.float64()),
            ("slice", TEXT),
            ("evidence", _arrow_type(Evidence)),
        ]
    )
    _write_batches(path, (row for _, row in read_rows(labels)), schema)


def export_preferences(labels: Path, path: Path) -> tuple[int, int]:
    """Write `prompt`, `chosen`, `rejected` and `margin` (log-odds of the chosen) as JSON Lines or Parquet.

    Returns:
        Rows written, and labels left out: unparsed ones and exact ties.
    """
    left_out = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal left_out
        for labelled in read_labels(labels):
            row = prefer(labelled)
            if row is None:
                left_out += 1
            else:
                yield row

    if path.suffix == ".parquet":
        return _write_batches(path, rows(), PREFERENCE_SET), left_out
    written = 0
    temporary = path.with_name(f".{path.name}")
    with temporary.open("w", encoding="utf-8") as file:
        for row in rows():
            file.write(dump_row(row))
            written += 1
    temporary.replace(path)
    return written, left_out


def prefer(labelled: Labelled) -> dict[str, Any] | None:
    """The row of a preference set; None where no response is preferred."""
    comparison, preference = labelled
    if preference.probabilities is None or preference.probabilities[0] == preference.probabilities[1]:
        return None
    first, second = comparison.given or comparison.responses
    chosen, rejected = (first, second) if preference.probabilities[0] > 0.5 else (second, first)
    sure = min(max(preference.probabilities), 1 - SURE)
    margin = math.log(sure) - math.log1p(-sure)
    return {"prompt": comparison.prompt.text, "chosen": chosen, "rejected": rejected, "margin": margin}


def _write_batches(path: Path, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> int:
    temporary = path.with_name(f".{path.name}")
    remaining, written = iter(rows), 0
    with pq.ParquetWriter(temporary, schema) as writer:
        while batch := list(islice(remaining, BATCH)):
            writer.write_table(pa.Table.from_pylist(batch, schema))
            written += len(batch)
    temporary.replace(path)
    return written


def _arrow_type(hint: Any) -> pa.DataType:
    """The Arrow type of a record's annotation: rows of one file share a schema even where all of a field is null."""
    if is_dataclass(hint):
        hints = get_type_hints(hint)
        return pa.struct([(field.name, _arrow_type(hints[field.name])) for field in fields(hint)])
    if hint in PLAIN:
        return PLAIN[hint]
    inner = [part for part in get_args(hint) if part not in (NoneType, Ellipsis)]
    if NoneType in get_args(hint):
        return _arrow_type(inner[0])
    return pa.list_(_arrow_type(inner[0]))  # a tuple, its items of one type
