"""Files with a row for each of some training steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlaif_framework.records.jsonl import read_rows, write_rows

EVALUATIONS = "checkpoint_selection.jsonl"
"""File of an algorithm's artefact with a row for each evaluation: the `step`, and estimates such as `kl`, `reward`."""


def read_steps(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a file in the order of steps; none if there is no file."""
    return [row for _, row in read_rows(path)] if path.exists() else []


def record_step(path: Path, row: Mapping[str, Any], scratch: Path) -> list[dict[str, Any]]:
    """Add the row of a step to a file.

    Rows of this step and of later ones are replaced: an interrupted run may have written them after its last
    checkpoint.

    Args:
        path: The file.
        row: The row, with its `step`.
        scratch: Folder to write in before the file is replaced, so that an interruption leaves nothing beside it.

    Returns:
        All rows of the file.
    """
    rows = [*(other for other in read_steps(path) if other["step"] < row["step"]), dict(row)]
    write_rows(scratch / path.name, rows)
    (scratch / path.name).replace(path)
    return rows
