"""Export labels to Parquet, and to the preference format that TRL and `datasets` read."""

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

from rlaif_framework.files import atomic_path
from rlaif_framework.labelling.rows import Labelled, read_labels
from rlaif_framework.records.jsonl import read_rows, write_rows
from rlaif_framework.records.preferences import Evidence

BATCH_ROWS = 1024
"""Rows per row group of a Parquet file. Memory does not grow with the number of rows."""

MIN_PROBABILITY = 1e-6
"""Lower bound of a probability when a margin is computed, so that margins are finite."""

TEXT = pa.string()

ARROW_TYPES = {str: TEXT, int: pa.int64(), float: pa.float64(), bool: pa.bool_()}

PREFERENCE_SCHEMA = pa.schema(
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
    """Write `prompt`, `chosen`, `rejected` and `margin` (log-odds of the chosen response) as JSON Lines or Parquet.

    Returns:
        The number of rows written, and the number of labels left out: missing ones and exact ties.
    """
    written = left_out = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal written, left_out
        for labelled in read_labels(labels):
            row = to_preference_row(labelled)
            if row is None:
                left_out += 1
            else:
                written += 1
                yield row

    if path.suffix == ".parquet":
        _write_batches(path, rows(), PREFERENCE_SCHEMA)
    else:
        with atomic_path(path) as temporary:
            write_rows(temporary, rows())
    return written, left_out


def to_preference_row(labelled: Labelled) -> dict[str, Any] | None:
    """Convert a label to a row of a preference data set; None if neither response is preferred."""
    comparison, preference = labelled
    if preference.probabilities is None or preference.probabilities[0] == preference.probabilities[1]:
        return None
    # With the white space of the user's rows, which tokenizers do not ignore.
    first, second = comparison.raw_responses or comparison.responses
    chosen, rejected = (first, second) if preference.probabilities[0] > 0.5 else (second, first)
    probability = min(max(preference.probabilities), 1 - MIN_PROBABILITY)
    margin = math.log(probability) - math.log1p(-probability)
    return {"prompt": comparison.prompt.text, "chosen": chosen, "rejected": rejected, "margin": margin}


def _write_batches(path: Path, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> None:
    remaining = iter(rows)
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        while batch := list(islice(remaining, BATCH_ROWS)):
            writer.write_table(pa.Table.from_pylist(batch, schema))


def _arrow_type(hint: Any) -> pa.DataType:
    """Return the Arrow type of a record's annotation.

    Types are not inferred from rows, since a field that is null in all rows of a batch would get another type.
    """
    if is_dataclass(hint):
        hints = get_type_hints(hint)
        return pa.struct([(field.name, _arrow_type(hints[field.name])) for field in fields(hint)])
    if hint in ARROW_TYPES:
        return ARROW_TYPES[hint]
    # The remaining annotations are `X | None` and `tuple[X, ...]`.
    inner = [part for part in get_args(hint) if part not in (NoneType, Ellipsis)]
    if NoneType in get_args(hint):
        return _arrow_type(inner[0])
    return pa.list_(_arrow_type(inner[0]))  # a tuple with items of one type
