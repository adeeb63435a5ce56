"""Read which models wrote the responses of a pair, from the columns of its row."""

from __future__ import annotations

from rlaif_framework.data.pair_forms import PairRow
from rlaif_framework.data.row_files import Row

AUTHORS = (("model_a", "model_b"), ("chosen_model", "rejected_model"), ("chosen-model", "rejected-model"))
"""Columns with the models that wrote the two responses, as published data has them."""


def read_authors(row: Row, pair: PairRow) -> tuple[str, str] | None:
    """Return the models that wrote the first and the second response of a pair; None if the row does not name both."""
    if pair.part:  # a row with more responses names no two models
        return None
    found = None
    for names in AUTHORS:
        first, second = (row.values.get(name) for name in names)
        if isinstance(first, str) and isinstance(second, str):
            found = (second, first) if pair.reversed else (first, second)
    return found
