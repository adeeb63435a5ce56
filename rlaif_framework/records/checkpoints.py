"""Evaluations of a policy during training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlaif_framework.records.jsonl import read_rows

EVALUATIONS = "checkpoint_selection.jsonl"
"""File of an algorithm's artefact with a row for each evaluation: the `step`, and estimates such as `kl`, `reward`."""


def read_evaluations(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the evaluations of an artefact in the order of steps; none if it has no such file."""
    path = folder / EVALUATIONS
    if path.exists():
        yield from (row for _, row in read_rows(path))
